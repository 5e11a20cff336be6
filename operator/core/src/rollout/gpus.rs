//! GPUs: how many a rollout may use beyond those of the stable version, and what it needs.
//!
//! Asked by `plan` before a version begins, by `capacity` before it gets more pods, and by `converge` before its first pods. No
//! rollback asks.

use std::collections::BTreeMap;

use anneal_crds::{
    VersionRef,
    model_rollout::{RolloutPhase, StagingTest},
};
use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};

use super::{
    build::{self, Home},
    draft::{Draft, RECHECK},
    select::Obstacle,
};
use crate::{condition::KState, quantity, trouble::Trouble};

/// Reason where a version would need more than may be.
const TOO_MANY_GPUS: &str = "TooManyGPUs";
/// How vendors' device plugins name GPUs and their like, behind their domain.
const DEVICES: [&str; 6] = ["gpu", "mig-", "tpu", "neuron", "gaudi", "ascend"];
/// Intel's device plugin has it in its domain.
const INTEL: &str = "gpu.intel.com";

/// Whether a resource is a GPU or its like, such as `nvidia.com/gpu`, `nvidia.com/mig-1g.5gb` or `google.com/tpu`.
fn is_gpu(resource: &str) -> bool {
    resource.split_once('/').is_some_and(|(domain, device)| {
        let device = device.to_ascii_lowercase();
        domain == INTEL || DEVICES.iter().any(|known| device.starts_with(known))
    })
}

/// GPUs of one pod. Of what is counted whole, limits are requests.
fn of_pod(resources: &ResourceRequirements) -> i64 {
    let amounts = resources.limits.as_ref().into_iter().chain(&resources.requests);
    let of = |amounts: &BTreeMap<String, Quantity>| -> i64 {
        amounts.iter().filter(|(name, _)| is_gpu(name)).map(|(_, amount)| quantity::whole(&amount.0)).sum()
    };
    amounts.map(of).max().unwrap_or(0)
}

/// How many GPUs there may be beyond those of the stable version, and what takes them.
#[derive(Clone, Copy, Debug)]
struct Limit {
    allowed: i64,
    /// GPUs of a pod, at least 1.
    per_pod: i64,
    /// GPUs of a staging test.
    test: i64,
}

impl Limit {
    fn needed(self, pods: i32) -> i64 {
        i64::from(pods).saturating_mul(self.per_pod).saturating_add(self.test)
    }

    fn allows(self, pods: i32) -> bool {
        self.needed(pods) <= self.allowed
    }

    fn most_pods(self) -> i32 {
        let pods = self.allowed.saturating_sub(self.test).max(0) / self.per_pod;
        i32::try_from(pods).unwrap_or(i32::MAX)
    }

    fn refuses(self, version: &str, pods: i32) -> String {
        format!(
            "{version} needs {} GPUs beyond those of stable, for {pods} pods, and spec.strategy.maxExtraGPUs allows {}. Raise it, or let versions have fewer pods.",
            self.needed(pods),
            self.allowed
        )
    }
}

impl Draft<'_> {
    /// None where nobody limits them, where pods have none, and for a first version, which has nothing beside it.
    fn gpu_limit(&self) -> Option<Limit> {
        let strategy = &self.rollout.spec.strategy;
        let allowed = i64::from(strategy.max_extra_gpus?);
        let test = strategy.staging.as_ref().map_or(0, |staging| match &staging.test {
            StagingTest::Job(job) => of_pod(&job.resources),
            StagingTest::Webhook(_) => 0,
        });
        let per_pod = of_pod(&self.rollout.spec.serving.resources);
        let is_limited = per_pod > 0 && self.incumbent().is_someone();
        is_limited.then_some(Limit { allowed, per_pod, test })
    }

    /// Why a version may not begin: it could never take all requests.
    pub(super) fn gpu_obstacle(&self, version: &VersionRef) -> Option<Obstacle> {
        let stay = self.pods_that_stay(version);
        let message = self.too_many_gpus(version, self.pods_for_all().saturating_add(stay))?;
        let of_others = (stay > 0).then(|| {
            format!(" {stay} of these pods are of former versions, which another rule of the route names.")
        });
        Some(Obstacle {
            reason: TOO_MANY_GPUS,
            message: format!("{message}{}", of_others.unwrap_or_default()),
        })
    }

    /// Pods of versions beside `version` that nobody takes away, because a rule of the user's own names them.
    fn pods_that_stay(&self, version: &VersionRef) -> i32 {
        let Some(home) = Home::of(self.rollout) else { return 0 };
        let own = build::workload_name(home.name, &version.version);
        let stays = |name: &str| name != own && self.is_named_elsewhere(name);
        let pods = self.pods_beside_stable(home, stays);
        i32::try_from(pods).unwrap_or(i32::MAX)
    }

    /// Pods that Deployments of other versions than the stable one are to have, as far as they are of `these`.
    fn pods_beside_stable(&self, home: Home<'_>, these: impl Fn(&str) -> bool) -> i64 {
        let stable = self.status.stable.as_ref();
        let stable = stable.map(|stable| build::workload_name(home.name, &stable.version));
        let others = self.snapshot.children.deployments.iter().filter(|other| home.owns(other));
        let others = others.filter(|other| {
            let name = other["metadata"]["name"].as_str();
            name != stable.as_deref() && name.is_some_and(&these)
        });
        others.filter_map(|other| other["spec"]["replicas"].as_i64()).sum()
    }

    /// Why a version may not have so many pods beside the stable version's.
    pub(super) fn gpu_trouble(&self, version: &VersionRef, pods: i32) -> Option<Trouble> {
        let message = self.too_many_gpus(version, pods)?;
        Some(Trouble { reason: TOO_MANY_GPUS.to_owned(), message })
    }

    fn too_many_gpus(&self, version: &VersionRef, pods: i32) -> Option<String> {
        let limit = self.gpu_limit()?;
        (!limit.allows(pods)).then(|| limit.refuses(&version.version, pods))
    }

    /// Most pods that a version beside the stable one may have; none if nobody limits them.
    pub(super) fn most_extra_pods(&self, version: &VersionRef) -> Option<i32> {
        let goes_back = self.status.phase == RolloutPhase::RollingBack;
        let is_extra = !goes_back && self.status.stable.as_ref() != Some(version);
        self.gpu_limit().filter(|_| is_extra).map(Limit::most_pods)
    }

    /// Whether the first pods of a candidate must wait until those of former versions are gone; then that is told.
    pub(super) fn waits_for_gpus(&mut self, home: Home<'_>, version: &VersionRef, pods: i32) -> bool {
        let begins =
            self.status.phase == RolloutPhase::Preparing && self.status.candidate.as_ref() == Some(version);
        let Some(limit) = self.gpu_limit().filter(|_| begins && self.deployment(version).is_none()) else {
            return false;
        };
        let others = self.pods_beside_stable(home, |_| true);
        let others = i32::try_from(others).unwrap_or(i32::MAX);
        if others == 0 || limit.allows(pods.saturating_add(others)) {
            return false;
        }
        let message = format!(
            "The pods of {} start when those of former versions are gone: spec.strategy.maxExtraGPUs allows {}.",
            version.version, limit.allowed
        );
        self.kstatus(KState::Reconciling, "AwaitingGPUs", &message);
        self.wake_at_latest(RECHECK);
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_vendors_call_a_gpu_is_one() {
        for name in [
            "nvidia.com/gpu",
            "nvidia.com/gpu.shared",
            "nvidia.com/mig-1g.5gb",
            "amd.com/gpu",
            "gpu.intel.com/i915",
            "google.com/tpu",
            "aws.amazon.com/neuroncore",
            "habana.ai/gaudi",
            "huawei.com/Ascend910",
        ] {
            assert!(is_gpu(name), "{name}");
        }
        for name in
            ["cpu", "memory", "gpu", "hugepages-2Mi", "nvidia.com/hostdev", "rdma/hca", "example.com/output"]
        {
            assert!(!is_gpu(name), "{name}");
        }
    }

    #[test]
    fn a_limit_is_a_request() {
        let of = |resources| of_pod(&serde_json::from_value(resources).unwrap());
        assert_eq!(of(json!({"limits": {"cpu": "4", "nvidia.com/gpu": 2}})), 2);
        assert_eq!(of(json!({"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}})), 1);
        assert_eq!(of(json!({"requests": {"nvidia.com/mig-1g.5gb": "1", "nvidia.com/gpu": "1"}})), 2);
        assert_eq!(of(json!({})), 0);
    }
}
