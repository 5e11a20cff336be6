//! A plan in the making: what has been decided so far, and the helpers with which every decision is written down.
//!
//! Made by [`super::plan`], and handed through `plan`, `step` and `converge`. No helper here decides which version serves.

use std::cell::OnceCell;

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, ModelVersion, VersionRef, Weight,
    model_rollout::{Decision, RecordedReading, RolloutPhase, Traffic, Trial, TrialState},
    names,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{apps::v1::DeploymentStatus, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde::Deserialize as _;
use serde_json::Value;

use super::{
    approval::{AWAITING_APPROVAL, Awaited},
    build::{self, Home},
    fit,
    freeze::{FROZEN, Freezes, Pause},
    group::{AWAITING_GROUP, Held},
    route::{Wanted, gateway_key},
    select,
    sequential::{BETWEEN_BUCKETS, Comparison, DETECTABILITY},
    shares::{self, Split},
    snapshot::{GatewayState, Snapshot},
    steps,
    warning::WARNED,
};
use crate::{
    condition::{KState, Truth, Writer, keep_refusal, keep_times, not_before},
    plan::{Action, Note, Plan, Severity, Wake},
    trouble::{self, Trouble},
};

/// How soon to look again at something that is watched anyway.
pub(super) const RECHECK: SignedDuration = SignedDuration::from_secs(5);
/// Whether a step has passed and waits for a person.
pub(super) const AWAITING_PROMOTION: &str = "AwaitingPromotion";
/// Whether someone asks for a pause.
pub(super) const PAUSED: &str = "Paused";
/// Whether a step's triggers can be read; there is none while no step is judged.
pub(super) const METRICS_AVAILABLE: &str = "MetricsAvailable";

/// A plan in the making.
pub(super) struct Draft<'a> {
    pub(super) snapshot: &'a Snapshot<'a>,
    pub(super) rollout: &'a ModelRollout,
    /// The status as it is to be.
    pub(super) status: ModelRolloutStatus,
    /// The time that is recorded: never before one that was.
    pub(super) now: Timestamp,
    pub(super) actions: Vec<Action>,
    notes: Vec<Note>,
    wake: Wake,
    /// Why nothing may advance; none if it may.
    pub(super) pause: Option<Pause>,
    /// The calendar's part in that.
    pub(super) freezes: Freezes,
    /// What someone has to approve, and how; none if nothing waits for that.
    pub(super) awaits_approval: Option<Awaited>,
    /// What a person has to type for the version to go on; none if nothing waits for that.
    pub(super) awaits_promotion: Option<String>,
    /// Why the group keeps the version from going on; none if nothing waits for that.
    pub(super) awaits_group: Option<Held>,
    /// A version that is gone back to once its pods are there, while the one on trial answers.
    pub(super) asked_back: Option<VersionRef>,
    /// What the step's counters say of how requests are divided.
    pub(super) split: Split,
    /// What this look at the samples of both versions knows.
    pub(super) comparison: Option<Comparison>,
    /// The route that the status asks for, once someone has asked.
    route: OnceCell<Option<Result<Wanted, Trouble>>>,
}

impl<'a> Draft<'a> {
    /// The status as it was read, and nothing to do.
    pub(super) fn new(snapshot: &'a Snapshot<'a>) -> Self {
        let rollout = snapshot.rollout;
        let mut status = rollout.status.clone().unwrap_or_default();
        status.observed_generation = rollout.metadata.generation;
        let times = [
            &status.step_started_at,
            &status.traffic_accepted_at,
            &status.holding_since,
            &status.thawed_at,
            &status.waiting_since,
        ]
        .map(Option::as_ref);
        let now = not_before(snapshot.now, &status.conditions, times);
        Self {
            snapshot,
            rollout,
            status,
            now,
            actions: vec![],
            notes: vec![],
            wake: Wake::OnChange,
            pause: None,
            freezes: Freezes::Closed,
            awaits_approval: None,
            awaits_promotion: None,
            awaits_group: None,
            asked_back: None,
            split: Split::AsAsked,
            comparison: None,
            route: OnceCell::new(),
        }
    }

    /// The plan.
    pub(super) fn finish(mut self) -> Plan<ModelRolloutStatus> {
        let awaited = self.awaits_approval.take();
        let reason = awaited.as_ref().map_or("", |awaited| awaited.reason);
        self.condition_if(AWAITING_APPROVAL, reason, awaited.as_ref().map(|awaited| awaited.how.as_str()));
        let how = self.awaits_promotion.take();
        self.condition_if(AWAITING_PROMOTION, AWAITING_PROMOTION, how.as_deref());
        let held = self.awaits_group.take();
        let reason = held.as_ref().map_or("", |held| held.by.reason());
        self.condition_if(AWAITING_GROUP, reason, held.as_ref().map(|held| held.message.as_str()));
        if let Some(before) = &self.rollout.status {
            keep_times(&before.conditions, &mut self.status.conditions);
            if !self.actions.is_empty() && before.phase == self.status.phase {
                keep_refusal(&before.conditions, &mut self.status.conditions);
            }
        }
        self.status.step_summary = self.step_summary();
        self.status.phase_summary = Some(self.phase_summary());
        self.keep_comparison();
        if self.rollout.status.as_ref() != Some(&self.status) {
            fit::fit(&mut self.status);
        }
        Plan { status: self.status, actions: self.actions, notes: self.notes, wake: self.wake }
    }

    /// A tick that changes nothing else is worth no write: it can be read again.
    fn keep_comparison(&mut self) {
        let Some(comparison) = self.comparison.take() else { return };
        let (before, record) = (self.rollout.status.as_ref(), &comparison.record);
        if before == Some(&self.status) && !record.is_due(comparison.kept) {
            return;
        }
        self.status.judge = record.to_value();
        if before.is_some_and(|before| before.step_started_at == self.status.step_started_at) {
            let divided = shares::divided(&self.status).map(|(_, weight)| shares::share(weight));
            let observed = divided.and_then(|share| record.observed(share));
            self.status.observed = observed.or_else(|| self.status.observed.take());
            self.tell_what_can_be_seen(&comparison);
        }
        if let Some(before) = before {
            keep_times(&before.conditions, &mut self.status.conditions);
        }
    }

    /// By the strategy as it is now: later steps may have changed since this one began.
    fn step_summary(&self) -> Option<String> {
        if self.status.phase == RolloutPhase::Experiment {
            return self.looks_in_short();
        }
        let steps = steps::steps(&self.rollout.spec.strategy);
        let passed = steps.iter().filter(|step| step.weight <= self.status.weight).count();
        (self.status.phase == RolloutPhase::Canary).then(|| format!("{passed}/{}", steps.len()))
    }

    /// The phase, and the first of the reasons for which the version does not go on.
    fn phase_summary(&self) -> String {
        let holds = |type_: &&str| {
            let conditions = &self.status.conditions;
            conditions.iter().any(|condition| condition.type_ == *type_ && condition.status == "True")
        };
        let why =
            [AWAITING_APPROVAL, AWAITING_PROMOTION, PAUSED, FROZEN, AWAITING_GROUP].into_iter().find(holds);
        let why = why.filter(|_| self.is_under_way()).map_or_else(String::new, |why| format!("/{why}"));
        format!("{}{why}", self.status.phase.name())
    }

    /// What the status asks for of the route, or why it may not; none while nobody may serve.
    pub(super) fn wanted_route(&self) -> Option<&Result<Wanted, Trouble>> {
        let make = || {
            let (home, children) = (Home::of(self.rollout)?, self.snapshot.children);
            let shares = build::shares(home, &self.status, &children.services)?;
            Some(Wanted::of(home, &shares, children.route.as_ref()))
        };
        self.route.get_or_init(make).as_ref()
    }

    /// Begins a phase or a step, and says why.
    pub(super) fn enter(
        &mut self,
        phase: RolloutPhase,
        weight: Weight,
        reason: &str,
        message: &str,
        readings: Vec<RecordedReading>,
    ) {
        let now = Time(self.now);
        self.route = OnceCell::new();
        self.tell_group(phase, weight, reason);
        self.note_promoted(reason);
        let status = &mut self.status;
        let is_left_in_its_bake = phase == RolloutPhase::RollingBack && status.previous.is_some();
        if !phase.is_judged() && !is_left_in_its_bake {
            status.trial_started_at = None;
        } else if !status.phase.is_judged() {
            status.trial_started_at = Some(now.clone());
        }
        status.phase = phase;
        status.weight = weight;
        status.step_started_at = Some(now.clone());
        status.traffic_accepted_at = None;
        status.holding_since = None;
        status.thawed_at = None;
        status.waiting_since = None;
        status.approval = None;
        status.missing.clear();
        status.waiting_rollback = None;
        if let Some(capacity) = &mut status.capacity {
            capacity.awaited = None;
        }
        status.baselines.clear();
        status.observed = None;
        status.verdict = worst(&readings);
        status.decision =
            Some(Decision { reason: reason.to_owned(), message: message.to_owned(), at: now, readings });
        let rolled_back = phase == RolloutPhase::RolledBack;
        let severity = if rolled_back { Severity::Warning } else { Severity::Normal };
        self.note(severity, reason, message);
        // Each step has its own time and traffic.
        self.status.conditions.retain(|condition| {
            ![BETWEEN_BUCKETS, DETECTABILITY, WARNED].contains(&condition.type_.as_str())
        });
        if !phase.is_judged() {
            // Nothing is read now, so nothing is known.
            self.status.conditions.retain(|condition| condition.type_ != METRICS_AVAILABLE);
        }
        let progressing = phase.is_moving() || phase == RolloutPhase::Baking;
        self.condition("Progressing", progressing.into(), reason, message);
        self.condition("RolledBack", rolled_back.into(), reason, message);
        // Whatever was decided, the data plane does not have it yet.
        self.kstatus(KState::Reconciling, reason, message);
        self.wake_at_latest(SignedDuration::from_secs(1));
    }

    /// Tells people once.
    pub(super) fn note(&mut self, severity: Severity, reason: &str, message: &str) {
        self.notes.push(Note { severity, reason: reason.to_owned(), message: message.to_owned() });
    }

    /// Looks again after `span`, or before.
    pub(super) fn wake_at_latest(&mut self, span: SignedDuration) {
        // By the clock as it is: a recorded time that lies ahead must not put anything off.
        let Wake::At(mine) = Wake::after(self.snapshot.now, span) else { return };
        self.wake = match self.wake {
            Wake::OnChange => Wake::At(mine),
            Wake::At(other) => Wake::At(other.min(mine)),
        };
    }

    /// The record of a version: by name too, because two versions may have the very same artifact.
    pub(super) fn version(&self, reference: &VersionRef) -> Option<&'a ModelVersion> {
        self.snapshot.versions.iter().find(|version| select::reference(version) == *reference)
    }

    pub(super) fn deployment(&self, version: &VersionRef) -> Option<&'a Value> {
        self.deployment_of(&version.version)
    }

    /// The same, where no more than the name of the version is known.
    pub(super) fn deployment_of(&self, version: &str) -> Option<&'a Value> {
        self.child(&self.snapshot.children.deployments, version)
    }

    /// A child of a version; one of someone else's is not there, whatever it says of itself.
    fn child(&self, children: &'a [Value], version: &str) -> Option<&'a Value> {
        let home = Home::of(self.rollout)?;
        let name = build::workload_name(home.name, version);
        children.iter().find(|object| object["metadata"]["name"] == name.as_str() && home.owns(object))
    }

    /// The Service that leads to the pods of a version. One that someone made an ExternalName leads anywhere.
    pub(super) fn service(&self, version: &VersionRef) -> Option<&'a Value> {
        let service = self.child(&self.snapshot.children.services, &version.version);
        service.filter(|service| service["spec"]["type"] == "ClusterIP")
    }

    fn deployment_status(&self, version: &VersionRef) -> Option<DeploymentStatus> {
        DeploymentStatus::deserialize(&self.deployment(version)?["status"]).ok()
    }

    /// Whether all pods that a version is to have are ready and can be reached, and none of an older template is left.
    pub(super) fn ready(&self, version: &VersionRef) -> bool {
        self.is_ready_with(version, self.pods_to_be_ready(version))
    }

    /// The same for so many pods.
    pub(super) fn is_ready_with(&self, version: &VersionRef, wanted: i32) -> bool {
        self.has_ready_pods(version, wanted) && self.leads_to(version, wanted)
    }

    /// Whether so many pods are ready, and there is a Service that is to lead to them.
    pub(super) fn has_ready_pods(&self, version: &VersionRef, wanted: i32) -> bool {
        let Some(status) = self.deployment_status(version) else { return false };
        let generation =
            self.deployment(version).and_then(|deployment| deployment["metadata"]["generation"].as_i64());
        let updated = status.updated_replicas.unwrap_or(0);
        self.service(version).is_some()
            && status.observed_generation >= generation
            && updated >= wanted
            && status.replicas.unwrap_or(updated) <= updated
            && status.ready_replicas.unwrap_or(0) >= wanted
    }

    /// Whether no pod of a version is ready.
    pub(super) fn unavailable(&self, version: &VersionRef) -> bool {
        self.deployment_status(version).is_none_or(|status| status.ready_replicas.unwrap_or(0) == 0)
    }

    /// What keeps the pods of a version from running.
    pub(super) fn pod_trouble(&self, version: &VersionRef) -> Option<Trouble> {
        trouble::find(self.pods_of(version))
            .or_else(|| trouble::of_deployment(&self.deployment_status(version)?))
    }

    /// Whether pods of a version wait for a node or a quota that others may use, or for GPUs that the strategy leaves to it, and for
    /// nothing else that is known.
    pub(super) fn lacks_room(&self, version: &VersionRef) -> bool {
        let waits_for_gpus =
            || self.deployment(version).is_none() && self.rollout.spec.strategy.max_extra_gpus.is_some();
        let lacks_quota =
            || self.deployment_status(version).is_some_and(|status| trouble::lacks_quota(&status));
        let is_crowded_out = || trouble::are_crowded_out(self.pods_of(version));
        trouble::are_sound(self.pods_of(version)) && (is_crowded_out() || waits_for_gpus() || lacks_quota())
    }

    fn pods_of(&self, version: &VersionRef) -> impl Iterator<Item = &'a Pod> {
        self.snapshot.children.pods.iter().filter(|pod| {
            pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_VERSION))
                == Some(&version.version)
        })
    }

    /// What keeps requests from coming in.
    pub(super) fn gateway_trouble(&self) -> Option<Trouble> {
        let name = gateway_key(self.rollout, self.snapshot.children.route.as_ref())?.name;
        let named_by = match &self.rollout.spec.traffic {
            Traffic::Gateway(_) => "spec.traffic.gateway".to_owned(),
            Traffic::Attach(to) => format!("the parentRefs of HTTPRoute {}", to.route),
        };
        let (reason, message) = match &self.snapshot.gateway {
            GatewayState::Programmed | GatewayState::NotNamed => return None,
            // Its controller has said enough.
            GatewayState::Unknown(_) if self.traffic_accepted() => return None,
            GatewayState::Missing => (
                "GatewayMissing",
                format!("Gateway {name} does not exist. Create it, or correct {named_by}."),
            ),
            GatewayState::NotProgrammed => {
                ("GatewayNotProgrammed", format!("Gateway {name} is not programmed. See its status."))
            }
            GatewayState::Unknown(why) => {
                ("GatewayUnknown", format!("Gateway {name} could not be read: {why}."))
            }
        };
        Some(Trouble { reason: reason.to_owned(), message })
    }

    /// What keeps lost pods of the stable version from being made again.
    pub(super) fn record_trouble(&self) -> Option<Trouble> {
        let stable = self.status.stable.as_ref().filter(|stable| self.version(stable).is_none())?;
        let message = format!(
            "{} is in production and ModelVersion {} is gone, so its pods cannot be made again once they are lost. Restore it from a backup; without one, delete this ModelRollout with --cascade=orphan, create it again and approve the version that is to serve.",
            stable.version, stable.name
        );
        Some(Trouble { reason: "StableRecordMissing".to_owned(), message })
    }

    /// What was just told is something that someone should look at.
    pub(super) fn warn(&mut self) {
        self.notes.iter_mut().next_back().into_iter().for_each(|note| note.severity = Severity::Warning);
    }

    /// The first try of a test, which begins now.
    pub(super) fn first_try(&self) -> Trial {
        Trial { number: 1, started_at: Time(self.now), state: TrialState::Running, test: None, message: None }
    }

    pub(super) fn age(&self, since: &Time) -> SignedDuration {
        self.now.duration_since(since.0)
    }

    pub(super) fn step_age(&self) -> SignedDuration {
        let started = self.status.step_started_at.as_ref();
        started.map_or(SignedDuration::ZERO, |started| self.now.duration_since(started.0))
    }

    pub(super) fn accepted_age(&self) -> Option<SignedDuration> {
        self.status.traffic_accepted_at.as_ref().map(|accepted| self.now.duration_since(accepted.0))
    }

    pub(super) fn stalled(&mut self, trouble: &Trouble) {
        self.kstatus(KState::Stalled, &trouble.reason, &trouble.message);
    }

    pub(super) fn kstatus(&mut self, state: KState, reason: &str, message: &str) {
        self.writer().set_kstatus(state, reason, message);
    }

    /// A condition that is there only while there is something to tell.
    pub(super) fn condition_if(&mut self, type_: &str, reason: &str, message: Option<&str>) {
        match message {
            Some(message) => self.condition(type_, Truth::True, reason, message),
            None => self.status.conditions.retain(|condition| condition.type_ != type_),
        }
    }

    pub(super) fn condition(&mut self, type_: &str, truth: Truth, reason: &str, message: &str) {
        self.writer().set(type_, truth, reason, message);
    }

    fn writer(&mut self) -> Writer<'_> {
        let generation = self.rollout.metadata.generation;
        let now = self.now;
        Writer { conditions: &mut self.status.conditions, generation, now }
    }
}

/// One verdict for all readings: what is wrong before what is missing before what passes.
pub(super) fn worst(readings: &[RecordedReading]) -> Option<String> {
    let says = |verdict: &&str| readings.iter().any(|reading| reading.verdict == *verdict);
    ["Breach", "Error", "Stale", "NoData", "AwaitingLabels", "Pass"]
        .iter()
        .find(|verdict| says(verdict))
        .map(|verdict| (*verdict).to_owned())
}
