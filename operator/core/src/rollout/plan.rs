//! The state machine of a ModelRollout.

use std::collections::BTreeMap;

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, ModelVersion, VersionRef,
    metric::Metric,
    model_rollout::{Decision, RecordedReading, RolloutPhase},
    names,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use super::{
    build::{self, Home},
    reading::Answer,
    select::{self, Choice, Obstacle},
    weights,
};
use crate::{
    condition::{KState, Truth, Writer, not_before},
    plan::{Action, Note, Plan, Severity, Wake},
    trouble,
};

/// Everything that a decision about a ModelRollout may look at.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// The object with its status.
    pub rollout: &'a ModelRollout,
    /// All ModelVersions of the namespace with the model's label.
    pub versions: &'a [ModelVersion],
    /// The children as they are.
    pub children: &'a Children,
    /// The gateway that the spec names.
    pub gateway: GatewayState,
    /// Answers to [`query::queries`], by metric; a missing one is no data.
    pub answers: &'a BTreeMap<String, Answer>,
    /// The time.
    pub now: Timestamp,
}

/// The children of a rollout as they are in the cluster, found by label, and the route by name.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// Deployments.
    pub deployments: Vec<Value>,
    /// Services.
    pub services: Vec<Value>,
    /// The HTTPRoute with the rollout's name, whoever made it.
    pub route: Option<Value>,
    /// Pods of all versions.
    pub pods: Vec<Pod>,
}

/// What is known of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayState {
    /// It exists and the data plane has it.
    Programmed,
    /// It exists and the data plane does not have it yet.
    NotProgrammed,
    /// It does not exist, or its kind does not.
    Missing,
}

/// How soon to look again at something that is watched anyway.
pub(super) const RECHECK: SignedDuration = SignedDuration::from_secs(5);
/// How many rolled back versions are remembered in status; the annotations remember all.
const MAX_REJECTED: usize = 64;

/// Decides what a ModelRollout's status is to be and what follows from it.
pub fn plan(snapshot: &Snapshot<'_>) -> Plan<ModelRolloutStatus> {
    let mut rollout = snapshot.rollout.clone();
    let mut status = rollout.status.take().unwrap_or_default();
    status.observed_generation = rollout.metadata.generation;
    let times =
        [&status.step_started_at, &status.traffic_accepted_at, &status.holding_since].map(Option::as_ref);
    let now = not_before(snapshot.now, &status.conditions, times);
    rollout.status = Some(status);
    let mut draft = Draft { snapshot, rollout, now, actions: vec![], notes: vec![], wake: Wake::OnChange };
    if draft.rollout.metadata.deletion_timestamp.is_none() {
        draft.decide();
        draft.converge();
    }
    let status = draft.rollout.status.unwrap_or_default();
    Plan { status, actions: draft.actions, notes: draft.notes, wake: draft.wake }
}

/// A plan in the making.
pub(super) struct Draft<'a> {
    pub(super) snapshot: &'a Snapshot<'a>,
    /// The object with the status as it is to be.
    pub(super) rollout: ModelRollout,
    pub(super) now: Timestamp,
    pub(super) actions: Vec<Action>,
    notes: Vec<Note>,
    wake: Wake,
}

impl<'a> Draft<'a> {
    pub(super) fn status(&mut self) -> &mut ModelRolloutStatus {
        self.rollout.status.get_or_insert_default()
    }

    pub(super) fn seen(&self) -> ModelRolloutStatus {
        self.rollout.status.clone().unwrap_or_default()
    }

    /// One transition at most.
    fn decide(&mut self) {
        self.recover();
        let status = self.seen();
        let choice = select::choose(&self.rollout, self.snapshot.versions);
        let in_progress =
            matches!(status.phase, RolloutPhase::Preparing | RolloutPhase::Shadow | RolloutPhase::Canary);
        match (choice, status.candidate) {
            (Choice::Candidate(wanted), Some(current)) if in_progress && wanted.digest == current.digest => {
                self.advance(&current)
            }
            (Choice::Candidate(wanted), _) => self.prepare(wanted),
            (Choice::Stay(_), Some(current)) if in_progress => {
                let message = format!("{} is no longer a version that may serve.", current.version);
                self.roll_back(&current, "CandidateWithdrawn", &message, vec![]);
            }
            (Choice::Stay(obstacle), _) => self.stay(obstacle),
        }
    }

    /// A status that was lost finds its stable and rejected versions again by their annotations. Of several stable ones
    /// the newest counts: the marks of its predecessors were about to go.
    fn recover(&mut self) {
        let Some(name) = self.rollout.metadata.name.clone() else { return };
        let marked = |prefix: &str| {
            let key = format!("{prefix}/{name}");
            let has = move |version: &&ModelVersion| {
                version.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(&key))
            };
            let mut found: Vec<&ModelVersion> = self.snapshot.versions.iter().filter(has).collect();
            found.sort_by_key(|version| select::order(&version.spec.version));
            found.into_iter().map(select::reference).collect::<Vec<_>>()
        };
        let (stable, rejected) =
            (marked(names::ANNOTATION_STABLE_IN), marked(names::ANNOTATION_ROLLED_BACK_IN));
        let status = self.status();
        if status.stable.is_none() {
            status.stable = stable.into_iter().next_back();
        }
        for version in rejected {
            if !status.rejected.iter().any(|known| known.digest == version.digest) {
                status.rejected.push(version);
            }
        }
    }

    fn prepare(&mut self, candidate: VersionRef) {
        let message = format!("{} starts at weight 0.", candidate.version);
        let status = self.status();
        status.candidate = Some(candidate);
        status.step_index = 0;
        self.enter(RolloutPhase::Preparing, 0, "Preparing", &message, vec![]);
    }

    fn advance(&mut self, candidate: &VersionRef) {
        match self.seen().phase {
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
        let deadline = self.rollout.spec.serving.progress_deadline;
        if self.step_age() > deadline.get() && self.seen().stable.is_some() {
            let why = trouble::find(&self.candidate_pods(candidate))
                .map_or_else(String::new, |trouble| format!(" {}", trouble.message));
            let message = format!("{} was not ready after {deadline}.{why}", candidate.version);
            return self.roll_back(candidate, "ProgressDeadlineExceeded", &message, vec![]);
        }
        self.wake = Wake::after(self.now, RECHECK);
        match trouble::find(&self.candidate_pods(candidate)) {
            Some(trouble) => self.kstatus(KState::Stalled, &trouble.reason, &trouble.message),
            None => self.kstatus(
                KState::Reconciling,
                "Preparing",
                "The candidate's pods start; it takes no traffic.",
            ),
        }
    }

    fn leave_preparing(&mut self, candidate: &VersionRef) {
        let version = candidate.version.clone();
        if self.seen().stable.is_none() {
            let message = format!("{version} is the first version and takes all traffic.");
            return self.promote(candidate, "Bootstrapped", &message, vec![]);
        }
        let strategy = self.rollout.spec.strategy.clone();
        match strategy.shadow {
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
                let status = self.status();
                status.step_index = u32::try_from(index).unwrap_or(u32::MAX);
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
        let status = self.status();
        status.stable = Some(candidate.clone());
        status.candidate = None;
        status.step_index = 0;
        self.enter(RolloutPhase::Healthy, 0, reason, message, readings);
    }

    /// Has no precondition: not metrics, not replicas, not the route's status.
    pub(super) fn roll_back(
        &mut self,
        candidate: &VersionRef,
        reason: &str,
        message: &str,
        readings: Vec<RecordedReading>,
    ) {
        let status = self.status();
        status.rejected.retain(|known| known.digest != candidate.digest);
        status.rejected.push(candidate.clone());
        if status.rejected.len() > MAX_REJECTED {
            status.rejected.remove(0);
        }
        status.candidate = Some(candidate.clone());
        status.step_index = 0;
        self.enter(RolloutPhase::RolledBack, 0, reason, message, readings);
    }

    /// Nothing new is to serve.
    fn stay(&mut self, obstacle: Option<Obstacle>) {
        let status = self.seen();
        let Some(stable) = status.stable else {
            let obstacle = obstacle.unwrap_or_else(|| Obstacle {
                reason: "NoVersion",
                message: format!(
                    "Model {} has no version yet. Create a RetrainJob.",
                    self.rollout.spec.model
                ),
            });
            self.status().phase = RolloutPhase::Pending;
            return self.kstatus(KState::Stalled, obstacle.reason, &obstacle.message);
        };
        if matches!(status.phase, RolloutPhase::Pending | RolloutPhase::Preparing) {
            let message = format!("{} serves all requests.", stable.version);
            return self.enter(RolloutPhase::Healthy, 0, "Recovered", &message, vec![]);
        }
        if !self.traffic_accepted() {
            self.wake = Wake::after(self.now, RECHECK);
        }
        let (state, reason, message) = match (self.snapshot.gateway, self.ready(&stable), obstacle) {
            (GatewayState::Missing, _, _) => (
                KState::Stalled,
                "GatewayMissing",
                self.gateway_message("does not exist. Create it, or correct spec.traffic.gateway"),
            ),
            (GatewayState::NotProgrammed, _, _) => (
                KState::Stalled,
                "GatewayNotProgrammed",
                self.gateway_message("is not programmed. See its status"),
            ),
            (GatewayState::Programmed, false, _) => {
                let trouble = trouble::find(&self.candidate_pods(&stable));
                let message = trouble
                    .map_or_else(|| "Some of its pods are not ready.".to_owned(), |trouble| trouble.message);
                (KState::Reconciling, "StableNotReady", format!("{} serves. {message}", stable.version))
            }
            (GatewayState::Programmed, true, Some(obstacle)) => (
                KState::Ready,
                obstacle.reason,
                format!("{} serves all requests. {}", stable.version, obstacle.message),
            ),
            (GatewayState::Programmed, true, None) => {
                (KState::Ready, "Serving", format!("{} serves all requests.", stable.version))
            }
        };
        self.kstatus(state, reason, &message);
    }

    fn gateway_message(&self, what: &str) -> String {
        format!("Gateway {} {what}.", self.rollout.spec.traffic.gateway.name)
    }

    pub(super) fn waiting(&mut self, reason: &str, message: &str) {
        let interval = self.rollout.spec.metrics.iter().map(tick).min().unwrap_or(RECHECK);
        self.wake = Wake::after(self.now, interval);
        if self.snapshot.gateway == GatewayState::Missing {
            let message = self.gateway_message("does not exist. Create it, or correct spec.traffic.gateway");
            return self.kstatus(KState::Stalled, "GatewayMissing", &message);
        }
        self.kstatus(KState::Reconciling, reason, message);
    }

    fn enter(
        &mut self,
        phase: RolloutPhase,
        weight: i32,
        reason: &str,
        message: &str,
        readings: Vec<RecordedReading>,
    ) {
        let now = Time(self.now);
        let steps = weights::steps(&self.rollout.spec.strategy.canary).len();
        let status = self.status();
        status.phase = phase;
        status.weight = weight;
        status.step_summary =
            (phase == RolloutPhase::Canary).then(|| format!("{}/{steps}", status.step_index + 1));
        status.step_started_at = Some(now.clone());
        status.traffic_accepted_at = None;
        status.holding_since = None;
        status.verdict = worst(&readings);
        status.decision =
            Some(Decision { reason: reason.to_owned(), message: message.to_owned(), at: now, readings });
        let rolled_back = phase == RolloutPhase::RolledBack;
        let severity = if rolled_back { Severity::Warning } else { Severity::Normal };
        self.notes.push(Note { severity, reason: reason.to_owned(), message: message.to_owned() });
        let moving = matches!(phase, RolloutPhase::Preparing | RolloutPhase::Shadow | RolloutPhase::Canary);
        self.condition("Progressing", moving.into(), reason, message);
        self.condition("RolledBack", rolled_back.into(), reason, message);
        self.kstatus(if moving { KState::Reconciling } else { KState::Ready }, reason, message);
        self.wake = Wake::after(self.now, SignedDuration::from_secs(1));
    }

    pub(super) fn wake_by(&mut self, span: SignedDuration) {
        let Wake::At(mine) = Wake::after(self.now, span) else { return };
        self.wake = match self.wake {
            Wake::OnChange => Wake::At(mine),
            Wake::At(other) => Wake::At(other.min(mine)),
        };
    }

    /// The record of a version: by name too, because training is deterministic and two versions may have the very same
    /// artifact.
    pub(super) fn version(&self, reference: &VersionRef) -> Option<&'a ModelVersion> {
        self.snapshot.versions.iter().find(|version| select::reference(version) == *reference)
    }

    /// Whether all pods that a version is to have are ready.
    pub(super) fn ready(&self, version: &VersionRef) -> bool {
        let Some(home) = Home::of(&self.rollout) else { return false };
        let name = build::workload_name(home.name, &version.version);
        let find = |object: &&Value| object["metadata"]["name"] == name.as_str();
        let Some(object) = self.snapshot.children.deployments.iter().find(find) else { return false };
        let Ok(deployment) = serde_json::from_value::<Deployment>(object.clone()) else { return false };
        let status = deployment.status.unwrap_or_default();
        let wanted = self.rollout.spec.serving.replicas;
        status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.ready_replicas.unwrap_or(0) >= wanted
    }

    fn candidate_pods(&self, version: &VersionRef) -> Vec<Pod> {
        let of_version = |pod: &&Pod| {
            pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_VERSION))
                == Some(&version.version)
        };
        self.snapshot.children.pods.iter().filter(of_version).cloned().collect()
    }

    pub(super) fn step_age(&self) -> SignedDuration {
        self.seen().step_started_at.map_or(SignedDuration::ZERO, |started| self.now.duration_since(started.0))
    }

    pub(super) fn accepted_age(&self) -> Option<SignedDuration> {
        self.seen().traffic_accepted_at.map(|accepted| self.now.duration_since(accepted.0))
    }

    fn kstatus(&mut self, state: KState, reason: &str, message: &str) {
        self.writer().set_kstatus(state, reason, message);
    }

    pub(super) fn condition(&mut self, type_: &str, truth: Truth, reason: &str, message: &str) {
        self.writer().set(type_, truth, reason, message);
    }

    fn writer(&mut self) -> Writer<'_> {
        let generation = self.rollout.metadata.generation;
        let now = self.now;
        Writer { conditions: &mut self.status().conditions, generation, now }
    }
}

/// One verdict for all readings: what is wrong before what is missing before what passes.
fn worst(readings: &[RecordedReading]) -> Option<String> {
    let says = |verdict: &&str| readings.iter().any(|reading| reading.verdict == *verdict);
    ["Breach", "NoData", "Pass"].iter().find(|verdict| says(verdict)).map(|verdict| (*verdict).to_owned())
}

/// How often a metric is read.
fn tick(metric: &Metric) -> SignedDuration {
    let (shortest, longest) = (SignedDuration::from_secs(1), SignedDuration::from_secs(60));
    metric.interval.map_or_else(
        || (metric.window.get() / 10).clamp(shortest, longest),
        |interval| interval.get().max(shortest),
    )
}
