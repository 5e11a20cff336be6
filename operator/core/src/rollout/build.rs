//! The objects of a rollout, as functions of spec and status.

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, ModelVersion, VersionRef, Weight,
    contract::{SERVE_DRAIN_SECONDS, SERVE_GRACE_SECONDS},
    model_rollout::{Adopted, CopyShare, DeletionPolicy, Gateway, RolloutPhase, Shadow},
    names,
    prometheus::VersionFrom,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{agreement, release, remembered::Remembered};
use crate::{
    object::{Key, Kind, Object, Owner},
    pod::{self, Access},
};

/// Port of a version's Service for requests.
pub(super) const LIVE: u16 = 80;
/// Port of a version's Service for copies. Not every data plane marks a copy, so it comes in by another door.
pub(super) const SHADOW: u16 = 81;

/// Whoever sends this header is answered by the version that it names, where the route has a rule for that.
pub(super) const VERSION_HEADER: &str = "x-anneal-version";

/// Name of the Deployment and of the Service of a version.
pub fn workload_name(rollout: &str, version: &str) -> String {
    format!("{rollout}-{}", version.replace('.', "-"))
}

/// The version of a rollout whose Service has this name; none if it is no version's.
pub(super) fn version_of(rollout: &str, service: &str) -> Option<String> {
    let (owner, version) = split(service)?;
    (owner == rollout).then_some(version)
}

/// The rollout of whose versions' Services this is the name, whether there is such a rollout or not.
pub(super) fn rollout_of(service: &str) -> Option<&str> {
    split(service).map(|(rollout, _)| rollout)
}

/// The inverse of [`workload_name`], for versions as a ModelVersion may have them.
fn split(service: &str) -> Option<(&str, String)> {
    let (rest, number) = service.rsplit_once('-')?;
    let (rollout, date) = rest.rsplit_once("-v")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (!rollout.is_empty() && date.len() == 8 && digits(date) && digits(number))
        .then(|| (rollout, format!("v{date}.{number}")))
}

/// Names of the Deployments and Services that a rollout's status asks for.
pub fn workload_names(rollout: &ModelRollout) -> Vec<String> {
    let (Some(name), Some(status)) = (&rollout.metadata.name, &rollout.status) else { return vec![] };
    let versions = status.stable.iter().chain(&status.candidate).chain(&status.previous);
    versions.map(|version| workload_name(name, &version.version)).collect()
}

/// A rollout, with the parts of its metadata that children need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Home<'a> {
    pub(super) rollout: &'a ModelRollout,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
}

impl<'a> Home<'a> {
    /// None for an object that no API server has seen.
    pub(super) fn of(rollout: &'a ModelRollout) -> Option<Self> {
        let metadata = &rollout.metadata;
        Some(Self {
            rollout,
            namespace: metadata.namespace.as_deref()?,
            name: metadata.name.as_deref()?,
            uid: metadata.uid.as_deref()?,
        })
    }

    pub(super) fn owner(self) -> Owner<'a> {
        Owner { kind: Kind::ModelRollout, name: self.name, uid: self.uid }
    }

    /// Whether an object with a child's name is this rollout's. That of a rollout that was deleted and created again is,
    /// and so is one that nobody controls and whose labels say so, or the digest of what was applied, if a hand took the label with
    /// its name away: it takes requests.
    pub(super) fn owns(self, object: &Value) -> bool {
        match Owner::of(object) {
            Some(owner) => {
                owner["uid"] == self.uid
                    || (owner["kind"] == Kind::ModelRollout.resource().2 && owner["name"] == self.name)
            }
            None => self.has_labelled(object),
        }
    }

    fn has_labelled(self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let stamped = || {
            labels[names::LABEL_ROLLOUT].is_null()
                && labels[names::LABEL_MODEL] == self.rollout.spec.model.as_str()
                && !object["metadata"]["annotations"][names::ANNOTATION_APPLIED].is_null()
        };
        labels[names::MANAGED_BY] == names::MANAGER
            && (labels[names::LABEL_ROLLOUT] == self.name || stamped())
    }

    pub(super) fn labels(self) -> Value {
        json!({
            names::MANAGED_BY: names::MANAGER,
            names::LABEL_ROLLOUT: self.name,
            names::LABEL_MODEL: self.rollout.spec.model,
        })
    }

    /// Metadata of what takes part in serving.
    pub(super) fn metadata(self, labels: Value) -> Value {
        match self.rollout.spec.deletion_policy {
            DeletionPolicy::Retain => json!({"labels": labels}),
            DeletionPolicy::Delete => json!({"labels": labels, "ownerReferences": self.owner().reference()}),
        }
    }

    pub(super) fn version_labels(self, version: &str) -> Value {
        let mut labels = self.labels();
        labels[names::LABEL_VERSION] = version.into();
        labels
    }
}

/// The Deployment of a version. With an autoscaler it does not say how many pods there are: [`with_pods`] does.
pub(super) fn deployment(home: Home<'_>, version: &ModelVersion) -> Object {
    let serving = &home.rollout.spec.serving;
    let number = &version.spec.version;
    let storage = pod::storage(&version.spec.storage, Access::ReadOnly);
    let mut mounts = storage.mounts;
    mounts.push(json!({"name": "tmp", "mountPath": "/tmp"}));
    let mut volumes = storage.volumes;
    volumes.push(json!({"name": "tmp", "emptyDir": {}}));
    let mut args = vec![
        "serve".to_owned(),
        format!("--artifact={}", version.spec.artifact.uri),
        format!("--digest={}", version.spec.artifact.digest),
        format!("--model={}", version.spec.model),
        format!("--version={number}"),
        format!("--port={}", serving.port),
        format!("--shadow-port={}", serving.shadow_port),
        format!("--drain={SERVE_DRAIN_SECONDS}s"),
    ];
    args.extend(agreement::args(home));
    args.extend(version.spec.serving.iter().flat_map(|serving| serving.args.iter().cloned()));
    let mut container = json!({
        "name": names::SERVING_CONTAINER,
        "image": serving.image,
        "imagePullPolicy": serving.image_pull_policy.name(),
        "args": args,
        "ports": [
            {"name": "http", "containerPort": serving.port},
            {"name": "shadow", "containerPort": serving.shadow_port},
        ],
        "resources": serving.resources,
        "securityContext": pod::container_security(),
        "volumeMounts": mounts,
        "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5},
    });
    if !storage.env.is_empty() {
        container["env"] = storage.env.into();
    }
    let mut body = json!({
        "metadata": home.metadata(home.version_labels(number)),
        "spec": {
            "progressDeadlineSeconds": serving.progress_deadline.get().as_secs().clamp(1, i64::from(i32::MAX)),
            "selector": {"matchLabels": home.version_labels(number)},
            "template": {
                "metadata": {
                    "labels": home.version_labels(number),
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": serving.port.to_string(),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": {
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": SERVE_GRACE_SECONDS,
                    "securityContext": pod::pod_security(),
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    });
    if serving.autoscaling.is_none() {
        body["spec"]["replicas"] = serving.replicas.into();
    }
    let key = Key::new(Kind::Deployment, home.namespace, &workload_name(home.name, number));
    release::signed(home, version, Object::new(key, body)).stamped()
}

/// A Deployment that has an autoscaler, as it is written over what was `seen`: with as many pods as it had, if nothing has changed
/// since. A number that is left out would become 1, and one that the autoscaler wrote meanwhile must stay. An autoscaler leaves
/// nothing alone but what has no pods; that, and what is not there, gets `floor` of them.
pub(super) fn with_pods(mut deployment: Object, seen: Option<&Value>, floor: i32) -> Object {
    let pods = seen.and_then(|seen| seen["spec"]["replicas"].as_i64()).filter(|pods| *pods > 0);
    deployment.body["spec"]["replicas"] = pods.unwrap_or_else(|| floor.into()).into();
    if let Some(version) = seen.map(|seen| &seen["metadata"]["resourceVersion"]) {
        deployment.body["metadata"]["resourceVersion"] = version.clone();
    }
    deployment
}

/// The Service of a version, with what it is to remember.
pub(super) fn service(home: Home<'_>, version: &str, remembered: Option<&Remembered>) -> Object {
    let mut metadata = home.metadata(home.version_labels(version));
    if let Some(remembered) = remembered {
        metadata["annotations"] = json!({names::ANNOTATION_REMEMBERS: json!(remembered).to_string()});
    }
    let body = json!({
        "metadata": metadata,
        "spec": {
            // Whoever may change a Service must not send the operator's own requests elsewhere.
            "type": "ClusterIP",
            "selector": home.version_labels(version),
            "ports": [
                {"name": "http", "port": LIVE, "targetPort": "http", "protocol": "TCP"},
                {"name": "shadow", "port": SHADOW, "targetPort": "shadow", "protocol": "TCP"},
            ],
        },
    });
    Object::new(Key::new(Kind::Service, home.namespace, &workload_name(home.name, version)), body).stamped()
}

/// Someone who gets users' requests.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target<'a> {
    /// A Service that served before the rollout did.
    Adopted(&'a Adopted),
    /// A version.
    Version(&'a VersionRef),
}

impl Target<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Adopted(adopted) => &adopted.service,
            Self::Version(version) => &version.version,
        }
    }

    /// Name of the Service that leads to it.
    pub(super) fn service(&self, home: Home<'_>) -> String {
        match self {
            Self::Adopted(adopted) => adopted.service.clone(),
            Self::Version(version) => workload_name(home.name, &version.version),
        }
    }
}

/// Who answers and who listens in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shares<'a> {
    incumbent: Target<'a>,
    canary: Option<(&'a VersionRef, Weight)>,
    shadow: Option<(&'a VersionRef, CopyShare)>,
    /// Without requests, and ready to take them back.
    warm: Option<&'a Adopted>,
    /// Versions that answer whoever asks for them by name.
    by_name: Vec<&'a VersionRef>,
    /// Since when a version is out that was rolled back; none in every other phase.
    rolled_back_at: Option<&'a Time>,
}

impl<'a> Shares<'a> {
    /// Who gets which share of the requests. There is always someone who gets some.
    pub(super) fn live(&self) -> Vec<(Target<'a>, Weight)> {
        let canary_weight = self.canary.map_or(Weight::ZERO, |(_, weight)| weight);
        let incumbent = (self.incumbent.clone(), canary_weight.rest());
        let canary = self.canary.map(|(version, weight)| (Target::Version(version), weight));
        let warm = self.warm.map(|adopted| (Target::Adopted(adopted), Weight::ZERO));
        [incumbent].into_iter().chain(canary).chain(warm).collect()
    }

    /// Who answers, if nobody is on trial.
    pub(super) fn only(&self) -> Option<&Target<'a>> {
        (self.canary.is_none() && self.shadow.is_none()).then_some(&self.incumbent)
    }

    /// The versions that get requests.
    pub(super) fn versions(&self) -> impl Iterator<Item = &'a VersionRef> {
        self.live().into_iter().filter(|(_, weight)| *weight > Weight::ZERO).filter_map(|(target, _)| {
            match target {
                Target::Version(version) => Some(version),
                Target::Adopted(_) => None,
            }
        })
    }

    /// Whether a Service gets requests or copies of them.
    pub(super) fn names(&self, home: Home<'_>, service: &str) -> bool {
        let copied = self.shadow.map(|(version, _)| Target::Version(version));
        let live = self.live().into_iter().filter(|(_, weight)| *weight > Weight::ZERO);
        live.map(|(target, _)| target).chain(copied).any(|target| target.service(home) == service)
    }

    /// The same as text, for a digest.
    pub(super) fn words(&self) -> String {
        let live = self.live();
        let live: Vec<_> = live.iter().map(|(target, weight)| (target.name(), weight)).collect();
        let shadow = self.shadow.map(|(version, share)| (&version.version, share.to_string()));
        json!([live, shadow]).to_string()
    }
}

/// Versions whose counters Envoy keeps apart: each has a cluster of its own there, which refuses requests for a moment when it
/// is made, so that it must be there before its share is. Only those with a Service, because the route is refused otherwise.
fn known_to_envoy<'a>(
    home: Home<'_>,
    status: &'a ModelRolloutStatus,
    services: &[Value],
) -> Vec<&'a VersionRef> {
    let all = status.stable.iter().chain(&status.candidate).chain(&status.previous);
    let has_service = |version: &&VersionRef| {
        let name = workload_name(home.name, &version.version);
        services.iter().any(|service| service["metadata"]["name"] == name)
    };
    match home.rollout.spec.prometheus.version_from {
        VersionFrom::Labels | VersionFrom::PodName => vec![],
        VersionFrom::EnvoyCluster => all.filter(has_service).collect(),
    }
}

/// How traffic is shared in a phase; none while nobody may serve. `services` are those that were seen.
pub(super) fn shares<'a>(
    home: Home<'_>,
    status: &'a ModelRolloutStatus,
    services: &[Value],
) -> Option<Shares<'a>> {
    let spec = &home.rollout.spec;
    let (incumbent, warm) = match (&status.stable, &status.adopted) {
        (Some(stable), warm) => (Target::Version(stable), warm.as_ref()),
        (None, Some(adopted)) => (Target::Adopted(adopted), None),
        (None, None) => return None,
    };
    let candidate = status.candidate.as_ref();
    let share = spec.strategy.shadow.as_ref().map(Shadow::share);
    let (canary, shadow) = match status.phase {
        RolloutPhase::Shadow => (None, candidate.zip(share)),
        RolloutPhase::Experiment | RolloutPhase::Canary => {
            (candidate.map(|candidate| (candidate, status.weight)), None)
        }
        RolloutPhase::Pending
        | RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::Baking
        | RolloutPhase::RollingBack
        | RolloutPhase::Healthy
        | RolloutPhase::RolledBack => (None, None),
    };
    let rolled_back_at = status.step_started_at.as_ref().filter(|_| status.phase == RolloutPhase::RolledBack);
    let by_name = known_to_envoy(home, status, services);
    Some(Shares { incumbent, canary, shadow, warm, by_name, rolled_back_at })
}

/// A reference to the Service of a version.
pub(super) fn backend(home: Home<'_>, version: &VersionRef, port: u16) -> Value {
    json!({"group": "", "kind": "Service", "name": workload_name(home.name, &version.version), "port": port})
}

/// The same, with a share of the requests.
pub(super) fn weighted(home: Home<'_>, version: &VersionRef, weight: u16) -> Value {
    let mut backend = backend(home, version, LIVE);
    backend["weight"] = weight.into();
    backend
}

/// The filter that copies requests, if any are to be copied.
pub(super) fn mirror(home: Home<'_>, shares: &Shares<'_>) -> Option<Value> {
    let (version, share) = shares.shadow?;
    let mut mirror = json!({"backendRef": backend(home, version, SHADOW)});
    match share {
        // A data plane that knows no shares copies all.
        CopyShare::All => {}
        CopyShare::Percent(percent) => mirror["percent"] = percent.into(),
        CopyShare::Fraction(share) => mirror["fraction"] = json!(share),
    }
    Some(json!({"type": "RequestMirror", "requestMirror": mirror}))
}

/// The HTTPRoute at a gateway. The whole object is ours: its lists are atomic, so no one can own a weight alone.
pub(super) fn route(home: Home<'_>, gateway: &Gateway, shares: &Shares<'_>) -> Object {
    let live = |(target, weight): (Target<'_>, Weight)| match target {
        Target::Version(version) => Some(weighted(home, version, weight.per_mille())),
        // Nothing serves on a route of our own before we do.
        Target::Adopted(_) => None,
    };
    // Empty lists are written too: what is left out would not be missed when the old value is still there.
    let rule = json!({
        "backendRefs": shares.live().into_iter().filter_map(live).collect::<Vec<_>>(),
        "filters": mirror(home, shares).into_iter().collect::<Vec<_>>(),
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
    });
    let by_name = |version: &&VersionRef| {
        let backend = weighted(home, version, 1);
        let header = json!({"type": "Exact", "name": VERSION_HEADER, "value": version.version});
        json!({"backendRefs": [backend], "filters": [],
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [header]}]})
    };
    let rules: Vec<Value> = [rule].into_iter().chain(shares.by_name.iter().map(by_name)).collect();
    let mut parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name});
    if let Some(namespace) = &gateway.namespace {
        parent["namespace"] = namespace.clone().into();
    }
    let spec = json!({"parentRefs": [parent], "hostnames": gateway.hostnames, "rules": rules});
    let mut metadata = home.metadata(home.labels());
    if let Some(at) = shares.rolled_back_at {
        // A rollback is a write, even of a route that is so already: an earlier one that is still on its way rests on what was there
        // before, and fails.
        metadata["annotations"] = json!({names::ANNOTATION_ROLLED_BACK_AT: at});
    }
    let body = json!({"metadata": metadata, "spec": spec});
    Object::new(Key::new(Kind::HttpRoute, home.namespace, home.name), body).stamped()
}

#[cfg(test)]
mod tests {
    use anneal_crds::contract::SERVE_LAST_REQUESTS_SECONDS;

    use super::*;

    #[test]
    fn only_the_name_of_a_version_is_taken_for_one() {
        let service = workload_name("car-loan", "v20261121.12");
        assert_eq!(version_of("car-loan", &service).as_deref(), Some("v20261121.12"));
        assert_eq!(rollout_of(&service), Some("car-loan"));
        for other in
            ["car-loan", "car-loan-v1-2", "car-loan-v20261121", "car-loan-v20261121-x", "-v20261121-1"]
        {
            assert_eq!((version_of("car-loan", other), rollout_of(other)), (None, None), "{other}");
        }
        assert_eq!(version_of("car", &service), None);
    }

    #[test]
    fn a_server_is_not_killed_before_its_last_requests_are_answered() {
        let rollout: ModelRollout = serde_json::from_value(json!({
            "apiVersion": names::API_VERSION, "kind": "ModelRollout",
            "metadata": {"name": "ads", "namespace": "demo", "uid": "u"},
            "spec": {
                "model": "ads", "candidate": {"follow": "NewestApproved"},
                "serving": {"image": "serve:1"}, "traffic": {"gateway": {"name": "web"}},
                "prometheus": {"url": "http://prometheus"},
                "strategy": {
                    "canary": {"initial": 20, "increment": 80, "interval": "20s"}, "rollbackTriggers": [],
                },
                "metrics": [], "judge": {"evidence": "none"},
            },
        }))
        .unwrap();
        let version: ModelVersion = serde_json::from_value(json!({
            "apiVersion": names::API_VERSION, "kind": "ModelVersion", "metadata": {"name": "ads-v20261121.1"},
            "spec": {
                "model": "ads", "version": "v20261121.1", "admission": "Bootstrap",
                "artifact": {"uri": "file:///m", "digest": "sha256:0"},
                "storage": {"persistentVolumeClaim": {"claimName": "models"}},
                "origin": {"job": "run", "uid": "u"}, "baseline": {"bootstrap": {}},
                "evaluation": {"rows": 10, "metrics": []}, "gates": [],
            },
        }))
        .unwrap();
        let body = deployment(Home::of(&rollout).unwrap(), &version).body;
        let pod = &body["spec"]["template"]["spec"];
        let args = pod["containers"][0]["args"].as_array().unwrap();
        let drain = args.iter().find_map(|arg| arg.as_str()?.strip_prefix("--drain=")?.strip_suffix('s'));
        let drain: u64 = drain.unwrap().parse().unwrap();
        // The drain is the wait before the stop too; no hook adds to it.
        assert!(pod["containers"][0].get("lifecycle").is_none());
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > drain + u64::from(SERVE_LAST_REQUESTS_SECONDS), "{grace} {drain}");
    }
}
