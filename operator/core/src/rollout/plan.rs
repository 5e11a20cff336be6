//! The state machine of a ModelRollout.

use std::collections::BTreeSet;

use anneal_crds::{
    ModelRolloutStatus, ModelVersion, VersionRef,
    metric::Metric,
    model_rollout::{RecordedReading, RolloutPhase},
    names,
};
use jiff::SignedDuration;

use super::{
    draft::{Draft, RECHECK},
    rival,
    select::{self, Choice, Obstacle},
    snapshot::Snapshot,
    weights,
};
use crate::{condition::KState, plan::Plan};

/// How many rolled back versions are remembered in status; the annotations remember all.
const MAX_REJECTED: usize = 64;

/// How soon to see whether an older rollout of the same model is gone.
const RIVAL_RECHECK: SignedDuration = SignedDuration::from_secs(30);

/// Decides what a ModelRollout's status is to be and what follows from it.
pub fn plan(snapshot: &Snapshot<'_>) -> Plan<ModelRolloutStatus> {
    let mut draft = Draft::new(snapshot);
    if draft.rollout.metadata.deletion_timestamp.is_none() {
        draft.decide();
        draft.converge();
    }
    draft.finish()
}

/// What becomes of a version that leaves traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It failed, and never comes back by itself.
    Rejected,
    /// Someone took it back; it may be asked for again.
    Withdrawn,
}

impl Draft<'_> {
    /// One transition at most.
    fn decide(&mut self) {
        self.recover();
        let current = self.status.candidate.clone().filter(|_| self.status.phase.is_moving());
        match (self.choose(), current) {
            (Choice::Candidate(wanted), Some(current)) if wanted.digest == current.digest => {
                self.advance(&current)
            }
            (Choice::Candidate(wanted), Some(current)) => {
                let message = format!(
                    "{} starts at weight 0, in place of {}, which was in {}.",
                    wanted.version,
                    current.version,
                    self.status.phase.name()
                );
                self.prepare(wanted, "Superseded", &message);
            }
            (Choice::Candidate(wanted), None) => {
                let message = format!("{} starts at weight 0.", wanted.version);
                self.prepare(wanted, "Preparing", &message);
            }
            (Choice::Stay(obstacle), Some(current)) => self.withdraw(&current, obstacle),
            (Choice::Stay(obstacle), None) => self.stay(obstacle),
        }
    }

    fn choose(&mut self) -> Choice {
        if let Some(obstacle) = rival::obstacle(self.rollout, self.snapshot.rivals) {
            // No watch tells when the other one is gone.
            self.wake_at_latest(RIVAL_RECHECK);
            return Choice::Stay(Some(obstacle));
        }
        let stable = self.status.stable.as_ref();
        select::choose(&self.rollout.spec, stable, self.snapshot.versions, &self.rejected_digests())
    }

    /// The candidate may no longer serve, and it did nothing wrong.
    fn withdraw(&mut self, candidate: &VersionRef, obstacle: Option<Obstacle>) {
        let version = &candidate.version;
        let why = match (self.version(candidate), obstacle) {
            (None, _) => format!("ModelVersion {} was deleted.", candidate.name),
            (Some(_), Some(obstacle)) => obstacle.message,
            (Some(_), None) => "spec.candidate asks for another one.".to_owned(),
        };
        let message = format!("{version} was taken back: {why}");
        self.take_out(candidate, Fate::Withdrawn, "CandidateWithdrawn", &message, vec![]);
    }

    /// Versions with one of this rollout's marks, oldest first.
    fn marked(&self, prefix: &str) -> Vec<&ModelVersion> {
        let Some(name) = &self.rollout.metadata.name else { return vec![] };
        let key = format!("{prefix}/{name}");
        let has = |version: &&ModelVersion| {
            version.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(&key))
        };
        let mut found: Vec<&ModelVersion> = self.snapshot.versions.iter().filter(has).collect();
        found.sort_by_key(|version| select::order(&version.spec.version));
        found
    }

    /// A status that was lost finds its stable and rejected versions again by their annotations. Of several stable ones
    /// the newest counts: the marks of its predecessors were about to go.
    fn recover(&mut self) {
        let references =
            |versions: Vec<&ModelVersion>| versions.into_iter().map(select::reference).collect::<Vec<_>>();
        if self.status.stable.is_none() {
            self.status.stable = references(self.marked(names::ANNOTATION_STABLE_IN)).pop();
        }
        if self.status.rejected.is_empty() {
            let mut rejected = references(self.marked(names::ANNOTATION_ROLLED_BACK_IN));
            rejected.drain(..rejected.len().saturating_sub(MAX_REJECTED));
            self.status.rejected = rejected;
        }
    }

    /// What never comes back: as status and marks have it, because status forgets the oldest.
    fn rejected_digests(&self) -> BTreeSet<String> {
        let marked = self.marked(names::ANNOTATION_ROLLED_BACK_IN).into_iter();
        let recorded = self.status.rejected.iter().map(|version| version.digest.clone());
        marked.map(|version| version.spec.artifact.digest.clone()).chain(recorded).collect()
    }

    pub(super) fn prepare(&mut self, candidate: VersionRef, reason: &str, message: &str) {
        let status = &mut self.status;
        status.candidate = Some(candidate);
        status.step_index = 0;
        self.enter(RolloutPhase::Preparing, 0, reason, message, vec![]);
    }

    fn advance(&mut self, candidate: &VersionRef) {
        match self.status.phase {
            RolloutPhase::Preparing => self.preparing(candidate),
            RolloutPhase::Shadow | RolloutPhase::Canary => self.judge_step(candidate),
            RolloutPhase::Pending | RolloutPhase::Healthy | RolloutPhase::RolledBack => {}
        }
    }

    /// Preparing: capacity comes before traffic.
    fn preparing(&mut self, candidate: &VersionRef) {
        if self.ready(candidate) {
            return self.leave_preparing(candidate);
        }
        self.wake_at_latest(RECHECK);
        let trouble = self.pod_trouble(candidate);
        let deadline = self.rollout.spec.serving.progress_deadline;
        if self.step_age() > deadline.get() {
            let why = trouble.map_or_else(String::new, |trouble| format!(" {}", trouble.message));
            let message = format!("{} was not ready after {deadline}.{why}", candidate.version);
            let reason = "ProgressDeadlineExceeded";
            return match self.status.stable {
                Some(_) => self.take_out(candidate, Fate::Rejected, reason, &message, vec![]),
                // Without another version there is nothing to go back to.
                None => self.kstatus(KState::Stalled, reason, &message),
            };
        }
        match trouble.or_else(|| self.gateway_trouble()).or_else(|| self.record_trouble()) {
            Some(trouble) => self.stalled(&trouble),
            None => self.kstatus(
                KState::Reconciling,
                "Preparing",
                "The candidate's pods start; it takes no traffic.",
            ),
        }
    }

    fn leave_preparing(&mut self, candidate: &VersionRef) {
        let version = candidate.version.clone();
        if self.status.stable.is_none() {
            let message = format!("{version} is the first version and takes all traffic.");
            return self.promote(candidate, "Bootstrapped", &message, vec![]);
        }
        match self.rollout.spec.strategy.shadow.clone() {
            Some(shadow) => {
                let message = format!(
                    "{version} gets a copy of {} % of the requests for {}.",
                    shadow.percent, shadow.duration
                );
                self.enter(RolloutPhase::Shadow, 0, "Shadow", &message, vec![]);
            }
            None => self.canary_step(candidate, 0, vec![]),
        }
    }

    pub(super) fn canary_step(
        &mut self,
        candidate: &VersionRef,
        index: usize,
        readings: Vec<RecordedReading>,
    ) {
        let steps = weights::steps(&self.rollout.spec.strategy.canary);
        match steps.get(index).copied() {
            Some(weight) => {
                let message = format!(
                    "{} takes {weight} % (step {} of {}).",
                    candidate.version,
                    index + 1,
                    steps.len()
                );
                self.status.step_index = u32::try_from(index).unwrap_or(u32::MAX);
                self.enter(RolloutPhase::Canary, weight, "StepStarted", &message, readings);
            }
            None => {
                let message = format!("{} passed every step and is stable now.", candidate.version);
                self.promote(candidate, "Promoted", &message, readings);
            }
        }
    }

    fn promote(
        &mut self,
        candidate: &VersionRef,
        reason: &str,
        message: &str,
        readings: Vec<RecordedReading>,
    ) {
        let status = &mut self.status;
        status.stable = Some(candidate.clone());
        status.candidate = None;
        status.step_index = 0;
        self.enter(RolloutPhase::Healthy, 0, reason, message, readings);
    }

    /// Rolls back. Has no precondition: not metrics, not replicas, not the route's status.
    pub(super) fn take_out(
        &mut self,
        candidate: &VersionRef,
        fate: Fate,
        reason: &str,
        message: &str,
        readings: Vec<RecordedReading>,
    ) {
        let status = &mut self.status;
        match fate {
            Fate::Rejected => {
                status.rejected.retain(|known| known.digest != candidate.digest);
                status.rejected.push(candidate.clone());
                let surplus = status.rejected.len().saturating_sub(MAX_REJECTED);
                status.rejected.drain(..surplus);
            }
            Fate::Withdrawn => {}
        }
        status.candidate = Some(candidate.clone());
        status.step_index = 0;
        self.enter(RolloutPhase::RolledBack, 0, reason, message, readings);
    }

    /// Nothing new is to serve.
    fn stay(&mut self, obstacle: Option<Obstacle>) {
        let Some(stable) = self.status.stable.clone() else {
            let obstacle = obstacle.unwrap_or_else(|| Obstacle {
                reason: "NoVersion",
                message: format!(
                    "Model {} has no version yet. Create a RetrainJob.",
                    self.rollout.spec.model
                ),
            });
            self.status.phase = RolloutPhase::Pending;
            return self.kstatus(KState::Stalled, obstacle.reason, &obstacle.message);
        };
        if matches!(self.status.phase, RolloutPhase::Pending | RolloutPhase::Preparing) {
            let message = format!("{} serves all requests.", stable.version);
            return self.enter(RolloutPhase::Healthy, 0, "Recovered", &message, vec![]);
        }
        if !self.traffic_accepted() || self.gateway_trouble().is_some() {
            self.wake_at_latest(RECHECK);
        }
        self.tell_how_stable_serves(&stable, obstacle);
    }

    fn tell_how_stable_serves(&mut self, stable: &VersionRef, obstacle: Option<Obstacle>) {
        let version = &stable.version;
        let trouble =
            self.record_trouble().or_else(|| self.gateway_trouble()).or_else(|| self.route_trouble());
        if let Some(trouble) = trouble {
            return self.stalled(&trouble);
        }
        if !self.traffic_accepted() {
            let message = format!("The data plane has not taken the route to {version} yet.");
            return self.kstatus(KState::Reconciling, "RouteNotAccepted", &message);
        }
        if !self.ready(stable) {
            let why = self
                .pod_trouble(stable)
                .map_or_else(|| "Some of its pods are not ready.".to_owned(), |trouble| trouble.message);
            let message = format!("{version} serves. {why}");
            return self.kstatus(KState::Reconciling, "StableNotReady", &message);
        }
        match obstacle {
            Some(obstacle) => {
                let message = format!("{version} serves all requests. {}", obstacle.message);
                self.kstatus(KState::Ready, obstacle.reason, &message);
            }
            None => {
                let message = format!("{version} serves all requests.");
                self.kstatus(KState::Ready, "Serving", &message);
            }
        }
    }

    /// A step goes on.
    pub(super) fn waiting(&mut self, reason: &str, message: &str) {
        let interval = self.rollout.spec.metrics.iter().map(tick).min().unwrap_or(RECHECK);
        self.wake_at_latest(interval);
        let trouble =
            self.gateway_trouble().or_else(|| self.route_trouble()).or_else(|| self.record_trouble());
        match trouble {
            Some(trouble) => self.stalled(&trouble),
            None => self.kstatus(KState::Reconciling, reason, message),
        }
    }
}

/// How often a metric is read.
fn tick(metric: &Metric) -> SignedDuration {
    let (shortest, longest) = (SignedDuration::from_secs(1), SignedDuration::from_secs(60));
    metric.interval.map_or_else(
        || (metric.window.get() / 10).clamp(shortest, longest),
        |interval| interval.get().max(shortest),
    )
}
