//! Capacity: how many pods a version has before it takes requests, and keeps while it may have to take them back.
//!
//! Without an autoscaler each version has `serving.replicas`. With one, a version keeps at least its floor, which is recorded in
//! `status.capacity`, and `autoscaler` writes it: nobody but the autoscaler writes the number itself. `transition` asks
//! [`Draft::has_pods_for`] before a share grows, and `plan` lets [`Draft::keep_floors`] follow each transition. No rollback waits for
//! pods of a version that has some.

use std::collections::BTreeMap;

use anneal_crds::{
    VersionRef, Weight,
    model_rollout::{Autoscaling, Capacity, RolloutPhase},
};
use jiff::SignedDuration;

use super::draft::{Draft, RECHECK};

/// Reason while the candidate gets the pods for its next share.
const AWAITING_CAPACITY: &str = "AwaitingCapacity";
/// How long a version keeps its floor after it has taken all requests. Its autoscaler remembers the load of the last five minutes
/// (`--horizontal-pod-autoscaler-downscale-stabilization`), and until then that was a part of the load.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// A part of all requests, from 0 to 1.
fn part(share: Weight) -> f64 {
    f64::from(share.per_mille()) / 1000.0
}

impl Draft<'_> {
    /// What the spec says about autoscalers; none where each version has a fixed number of pods.
    pub(super) fn autoscaling(&self) -> Option<&Autoscaling> {
        self.rollout.spec.serving.autoscaling.as_ref()
    }

    /// Fewest pods of any version that may take requests.
    fn least(&self) -> i32 {
        self.rollout.spec.serving.replicas.max(1)
    }

    /// A number of pods within the bounds of the spec.
    fn bounded(&self, pods: i32) -> i32 {
        let least = self.least();
        let most = self.autoscaling().map_or(least, |scaling| scaling.max_replicas);
        pods.clamp(least, most.max(least))
    }

    /// How many pods a version is to have at present, as its autoscaler says; 0 if it has no Deployment.
    fn pods_at_present(&self, version: Option<&VersionRef>) -> i32 {
        let pods = version
            .and_then(|version| self.deployment(version))
            .and_then(|deployment| deployment["spec"]["replicas"].as_i64());
        pods.and_then(|pods| i32::try_from(pods).ok()).unwrap_or(0)
    }

    /// How many pods a version needs to take all requests.
    pub(super) fn pods_for_all(&self) -> i32 {
        if self.autoscaling().is_some() { self.pods_for(1.0) } else { self.least() }
    }

    /// How many pods a version needs for a part of what the stable version has its pods for.
    fn pods_for(&self, part: f64) -> i32 {
        let stable = self.pods_at_present(self.status.stable.as_ref());
        // Both are small, and a product that is whole must not become the next number.
        #[expect(clippy::cast_possible_truncation, reason = "at most 1000")]
        let pods = (f64::from(stable) * part - 1e-9).ceil() as i32;
        self.bounded(pods)
    }

    /// The part of all requests that the candidate has where it is, or gets first.
    fn part_of_candidate(&self) -> f64 {
        let strategy = &self.rollout.spec.strategy;
        let copies = || strategy.shadow.as_ref().map(|shadow| shadow.share().part());
        match self.status.phase {
            RolloutPhase::Preparing | RolloutPhase::Staging => {
                copies().unwrap_or_else(|| part(self.next_share()))
            }
            RolloutPhase::Shadow => copies().unwrap_or(0.0),
            RolloutPhase::Experiment | RolloutPhase::Canary => part(self.status.weight),
            RolloutPhase::RollingBack => 1.0,
            RolloutPhase::Pending
            | RolloutPhase::Baking
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => 0.0,
        }
    }

    /// How many ready pods `version` must have to count as ready.
    pub(super) fn pods_to_be_ready(&self, version: &VersionRef) -> i32 {
        let starts = match self.status.phase {
            RolloutPhase::Preparing | RolloutPhase::Staging | RolloutPhase::RollingBack => {
                self.status.candidate.as_ref() == Some(version)
            }
            RolloutPhase::Pending
            | RolloutPhase::Shadow
            | RolloutPhase::Experiment
            | RolloutPhase::Canary
            | RolloutPhase::Baking
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => false,
        };
        if starts && self.autoscaling().is_some() {
            self.pods_for(self.part_of_candidate()).min(self.most_beside_stable(version))
        } else {
            self.rollout.spec.serving.replicas
        }
    }

    /// Fewest pods of a version, as recorded.
    pub(super) fn floor(&self, version: &VersionRef) -> i32 {
        self.bounded(self.recorded_floor(version))
    }

    /// Most pods of a version.
    pub(super) fn ceiling(&self, version: &VersionRef) -> i32 {
        self.bounded(self.most_beside_stable(version)).max(self.floor(version))
    }

    /// Most pods that the limit of GPUs leaves a version, which is never less than the fewest.
    fn most_beside_stable(&self, version: &VersionRef) -> i32 {
        self.most_extra_pods(version).unwrap_or(i32::MAX).max(self.least())
    }

    fn recorded_floor(&self, version: &VersionRef) -> i32 {
        let floors = self.status.capacity.as_ref().map(|capacity| &capacity.floors);
        floors.and_then(|floors| floors.get(&version.version)).copied().unwrap_or(0)
    }

    /// Whether the candidate, which has passed where it is, has the pods for its next share; else it gets them first, and that is
    /// told.
    pub(super) fn has_pods_for_next(&mut self, candidate: &VersionRef) -> bool {
        let share = self.next_share();
        self.has_pods_for(candidate, share)
    }

    /// The same for a share of requests.
    pub(super) fn has_pods_for(&mut self, candidate: &VersionRef, share: Weight) -> bool {
        if self.autoscaling().is_none() {
            return true;
        }
        let wanted = self.pods_for(part(share));
        let trouble = self.autoscaler_trouble();
        if trouble.is_none() && self.is_ready_with(candidate, wanted) {
            return true;
        }
        let too_many = self.gpu_trouble(candidate, wanted);
        let floor = self.recorded_floor(candidate);
        let floor = if too_many.is_some() { floor } else { floor.max(wanted) };
        let capacity = self.status.capacity.get_or_insert_default();
        capacity.floors.insert(candidate.version.clone(), floor);
        capacity.awaited = Some(share);
        let message = format!(
            "{} has passed {} and gets {wanted} pods before it takes {share} %, the share of what stable has.",
            candidate.version,
            self.status.phase.name()
        );
        self.waiting(AWAITING_CAPACITY, &message);
        self.wake_at_latest(RECHECK);
        let trouble = trouble.or(too_many).or_else(|| self.pod_trouble(candidate));
        let trouble = trouble.or_else(|| self.scaling_trouble(candidate));
        let trouble = trouble.or_else(|| self.endpoints_trouble(candidate, wanted));
        if let Some(trouble) = trouble {
            self.stalled(&trouble);
        }
        false
    }

    /// Whether the version has passed where it is, and waits for pods.
    pub(super) fn has_passed_for_capacity(&self) -> bool {
        self.status.capacity.as_ref().is_some_and(|capacity| capacity.awaited.is_some())
    }

    /// Whether the version that answers everything does so for long enough to be left to its autoscaler.
    fn is_settled(&self) -> bool {
        self.accepted_age().is_some_and(|age| age >= SETTLED_AFTER)
    }

    /// Records what each version that has pods must not go below.
    pub(super) fn keep_floors(&mut self) {
        let made = self.autoscalers_made();
        let wanted = if self.autoscaling().is_some() { self.wanted_versions() } else { vec![] };
        let (mut floors, mut holds) = (BTreeMap::new(), false);
        for version in wanted {
            let (floor, settles) = self.next_floor(&version);
            if floor > self.least() {
                holds |= settles;
                floors.insert(version.version, floor);
            }
        }
        let awaited = self.status.capacity.as_ref().and_then(|capacity| capacity.awaited);
        let awaited = awaited.filter(|_| self.autoscaling().is_some());
        let capacity = Capacity { floors, awaited, autoscalers: made };
        self.status.capacity = Some(capacity).filter(|capacity| *capacity != Capacity::default());
        if let Some(age) = self.accepted_age().filter(|_| holds) {
            self.wake_at_latest(SETTLED_AFTER.saturating_sub(age).max(SignedDuration::from_secs(1)));
        }
    }

    /// What a version must not go below, and whether that ends by itself.
    fn next_floor(&self, version: &VersionRef) -> (i32, bool) {
        let status = &self.status;
        let (before, own) = (self.recorded_floor(version), self.pods_at_present(Some(version)));
        let (floor, settles) = if status.stable.as_ref() == Some(version) {
            match (status.phase.divides_traffic(), self.is_settled()) {
                // It takes everything back at once, whatever it needs for its part.
                (true, _) => (before.max(own), false),
                (false, true) => (0, false),
                (false, false) => (before, true),
            }
        } else if status.candidate.as_ref() == Some(version) && status.phase.is_moving() {
            let needed = self.pods_for(self.part_of_candidate());
            (before.max(needed.min(self.most_beside_stable(version))), false)
        } else {
            // The way back: it has what it had, also if the status was lost that said so, and what the version needs that it may have
            // to take over from.
            let needed = self.pods_at_present(status.stable.as_ref());
            let before = before.max(own).max(self.least_of_autoscaler(version));
            (before.max(needed.min(self.most_beside_stable(version))), false)
        };
        (self.bounded(floor), settles)
    }
}
