//! Transitions: every way from one phase to another, and what is written down with it.
//!
//! Called by `plan`, `step` and `by_hand`, which say when. Rolling back has no precondition but one: where the version
//! that should answer instead has no ready endpoint and the one on trial has, `judge.onStableUnavailable` decides.

use anneal_crds::{
    VersionRef, Weight,
    metric::OnStableUnavailable,
    model_rollout::{Decision, Experiment, RecordedReading, Rejection, RolloutPhase},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    command::Place,
    draft::{Draft, RECHECK},
    incumbent::Incumbent,
    steps,
};
use crate::{condition::KState, plan::Severity};

/// How many rolled back versions are remembered in status, which must stay small; the annotations remember all.
pub(super) const MAX_REJECTED: usize = 20;
/// How many former stable versions are remembered, whatever the spec says.
const MAX_HISTORY: usize = 10;

/// What becomes of a version that leaves traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It failed, and never comes back by itself.
    Rejected,
    /// A person went back from it: it does not come back by itself, and can be gone back to.
    Left,
    /// Someone took it back; it may be asked for again.
    Withdrawn,
}

/// Why a step ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It showed what it had to show.
    Passed,
    /// It won its experiment: by how much.
    Won(String),
    /// It did, and someone approved that: who and why.
    Approved(String),
    /// Someone said so: who and why.
    ByHand(String),
}

impl Cause {
    fn tell(self, reason: &'static str, message: String) -> (&'static str, String) {
        match self {
            Self::Passed => (reason, message),
            Self::Won(how) => ("ExperimentWon", format!("{how} {message}")),
            Self::Approved(why) => (APPROVED, format!("{why} {message}")),
            Self::ByHand(why) => (PROMOTED_BY_HAND, format!("{why} {message}")),
        }
    }
}

/// Reason of a step that ended because someone approved what it had shown.
const APPROVED: &str = "Approved";
/// Reason of a step or a bake that ended because someone said so.
pub(super) const PROMOTED_BY_HAND: &str = "PromotedByHand";

impl Draft<'_> {
    /// A version begins, at weight 0.
    pub(super) fn prepare(&mut self, candidate: VersionRef, reason: &str, message: &str) {
        if self.stays_for_want_of_another(Fate::Withdrawn, reason, message) {
            return;
        }
        self.join_wave();
        self.forget_smoke_of_candidate();
        self.status.candidate = Some(candidate);
        self.status.judge = None;
        self.status.warmup = None;
        // What was just compared belongs to the trial that ends.
        self.comparison = None;
        self.status.staging = None;
        self.enter(RolloutPhase::Preparing, Weight::ZERO, reason, message, vec![]);
    }

    /// Its pods are ready.
    pub(super) fn leave_preparing(&mut self, candidate: &VersionRef) {
        if self.waits_for_group() {
            return;
        }
        match self.rollout.spec.strategy.staging.clone() {
            Some(staging) => self.begin_staging(candidate, &staging),
            None => self.take_traffic(candidate, Cause::Passed),
        }
    }

    /// Someone takes the responsibility for what the test does not say.
    pub(super) fn leave_staging_by_hand(&mut self, candidate: &VersionRef, place: Place, why: String) {
        match place {
            Place::Full if !self.may_take_all(candidate) => {}
            Place::Full => self.promote(candidate, PROMOTED_BY_HAND, &why, vec![]),
            Place::Staging | Place::Shadow | Place::Experiment | Place::Step(_) | Place::Baking => {
                self.take_traffic(candidate, Cause::ByHand(why));
            }
        }
    }

    /// Whether nothing keeps a version that someone takes past all steps from all requests; else that is told.
    pub(super) fn may_take_all(&mut self, candidate: &VersionRef) -> bool {
        self.has_pods_for(candidate, Weight::FULL) && !self.waits_for_group_to_take_all()
    }

    /// It gets requests, or copies of them.
    pub(super) fn take_traffic(&mut self, candidate: &VersionRef, cause: Cause) {
        let version = candidate.version.clone();
        if let Some(trouble) = self.attach_trouble() {
            return self.blocked(&trouble);
        }
        if !self.incumbent().is_someone() {
            let message = format!("{version} is the first version and takes all traffic.");
            let (reason, message) = cause.tell("Bootstrapped", message);
            return self.promote(candidate, reason, &message, vec![]);
        }
        if self.waits_for_group() {
            return;
        }
        match self.rollout.spec.strategy.shadow.clone() {
            Some(shadow) => {
                // The data plane may be another one than when its pods started.
                if let Some(trouble) = self.shadow_trouble() {
                    return self.blocked(&trouble);
                }
                let message = format!("{version} gets a copy of {} for {}.", shadow.share(), shadow.duration);
                let (reason, message) = cause.tell("Shadow", message);
                self.enter(RolloutPhase::Shadow, Weight::ZERO, reason, &message, vec![]);
            }
            None => self.next_step(candidate, cause, vec![]),
        }
    }

    /// The experiment, if it is still to come; else the first step above the last one, or the end of all steps.
    pub(super) fn next_step(&mut self, candidate: &VersionRef, cause: Cause, readings: Vec<RecordedReading>) {
        if !self.has_pods_for_next(candidate) || self.waits_for_group() {
            return;
        }
        if let Some(experiment) = self.experiment_ahead() {
            let message = format!(
                "{} takes {} % for an experiment of at most {}: looks at {} show which version is better, {} in all.",
                candidate.version,
                experiment.split,
                experiment.duration,
                experiment.primary,
                experiment.planned_looks()
            );
            let (reason, message) = cause.tell("ExperimentStarted", message);
            return self.enter(RolloutPhase::Experiment, experiment.split, reason, &message, readings);
        }
        let steps = steps::steps(&self.rollout.spec.strategy);
        // What an experiment sends to the candidate is no step of the canary.
        let passed =
            if self.status.phase == RolloutPhase::Canary { self.status.weight } else { Weight::ZERO };
        let next = steps.iter().position(|step| step.weight > passed);
        match next.and_then(|index| Some((index, steps.get(index)?))) {
            Some((index, step)) => {
                let message = format!(
                    "{} takes {} % (step {} of {}).",
                    candidate.version,
                    step.weight,
                    index + 1,
                    steps.len()
                );
                let (reason, message) = cause.tell("StepStarted", message);
                if step.weight == Weight::FULL {
                    self.status.smoke = self.smoke_trial(step.weight);
                }
                self.enter(RolloutPhase::Canary, step.weight, reason, &message, readings);
            }
            // Without any step nothing could ever show that the version is good.
            None if steps.is_empty() => self.kstatus(
                KState::Stalled,
                "NoSteps",
                "spec.strategy has no step with a weight above 0. Add one.",
            ),
            None => {
                let message = format!("{} has left its last step and is stable now.", candidate.version);
                let (reason, message) = cause.tell("Promoted", message);
                self.promote(candidate, reason, &message, readings);
            }
        }
    }

    fn experiment_ahead(&self) -> Option<Experiment> {
        let is_ahead = match self.status.phase {
            RolloutPhase::Preparing | RolloutPhase::Staging | RolloutPhase::Shadow => true,
            RolloutPhase::Pending
            | RolloutPhase::Experiment
            | RolloutPhase::Canary
            | RolloutPhase::Baking
            | RolloutPhase::RollingBack
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => false,
        };
        self.compared_experiment().filter(|_| is_ahead).cloned()
    }

    /// The experiment of the strategy, if there is a version to compare with.
    pub(super) fn compared_experiment(&self) -> Option<&Experiment> {
        steps::compared(&self.rollout.spec.strategy, &self.status)
    }

    /// The candidate takes all requests, and is watched for a while where the strategy says so.
    pub(super) fn promote(
        &mut self,
        candidate: &VersionRef,
        reason: &str,
        message: &str,
        readings: Vec<RecordedReading>,
    ) {
        let incumbent = self.incumbent();
        let before = self.status.stable.replace(candidate.clone());
        self.status.candidate = None;
        self.status.smoke = self.smoke_trial(Weight::FULL);
        self.status.previous = None;
        self.remember(before.clone());
        let strategy = &self.rollout.spec.strategy;
        let (bake, smoke) = (strategy.bake.as_ref(), strategy.smoke.as_ref());
        let more = match (smoke, bake.filter(|_| incumbent.is_someone())) {
            (None, None) => {
                self.status.adopted = None;
                return self.enter(RolloutPhase::Healthy, Weight::ZERO, reason, message, readings);
            }
            (Some(_), None) => "It must answer the smoke requests".to_owned(),
            (None, Some(bake)) => format!("It is watched for {}", bake.duration),
            (Some(_), Some(bake)) => {
                format!("It must answer the smoke requests, and is watched for {}", bake.duration)
            }
        };
        let warm = match &incumbent {
            Incumbent::Nobody => String::new(),
            Incumbent::Version(_) => format!("; {incumbent} stays warm"),
            Incumbent::Adopted(_) => format!("; {incumbent} stays in the route at weight 0"),
        };
        self.status.previous = before;
        let message = format!("{message} {more}{warm}.");
        self.enter(RolloutPhase::Baking, Weight::ZERO, reason, &message, readings);
    }

    /// The watch is over.
    pub(super) fn end_bake(&mut self, reason: &str, message: &str, readings: Vec<RecordedReading>) {
        if self.waits_for_group() {
            return;
        }
        self.status.previous = None;
        self.status.adopted = None;
        self.enter(RolloutPhase::Healthy, Weight::ZERO, reason, message, readings);
    }

    /// A former stable version can be gone back to, as far as the window goes.
    fn remember(&mut self, version: Option<VersionRef>) {
        let window = usize::try_from(self.rollout.spec.strategy.rollback_window).unwrap_or(MAX_HISTORY);
        let stable = self.status.stable.clone();
        let history = &mut self.status.history;
        history.retain(|known| Some(known) != version.as_ref() && Some(known) != stable.as_ref());
        history.extend(version);
        let surplus = history.len().saturating_sub(window.min(MAX_HISTORY));
        history.drain(..surplus);
    }

    /// The version on trial, or on its way there, leaves traffic.
    pub(super) fn give_up(
        &mut self,
        version: &VersionRef,
        fate: Fate,
        reason: &str,
        message: &str,
        readings: Vec<RecordedReading>,
    ) {
        if self.stays(version, fate, reason, message, &readings) {
            return;
        }
        match (self.status.phase, self.way_back()) {
            (RolloutPhase::Baking, Incumbent::Version(previous)) => {
                self.switch_back(&previous, fate, reason, message, readings);
            }
            (RolloutPhase::RollingBack, Incumbent::Version(previous))
                if self.status.stable.as_ref() == Some(version) =>
            {
                self.switch_back(&previous, fate, reason, message, readings);
            }
            (RolloutPhase::Baking, Incumbent::Adopted(service)) => {
                self.hand_back(version, fate, reason);
                let message = format!("{message} Service {service} takes all requests back.");
                self.enter(RolloutPhase::RolledBack, Weight::ZERO, reason, &message, readings);
            }
            (RolloutPhase::Baking, Incumbent::Nobody) => {
                let message = format!(
                    "{message} There is no version to go back to. Retrain, or name one in spec.rollback."
                );
                self.kstatus(KState::Stalled, reason, &message);
            }
            (
                RolloutPhase::Pending
                | RolloutPhase::Preparing
                | RolloutPhase::Staging
                | RolloutPhase::Shadow
                | RolloutPhase::Experiment
                | RolloutPhase::Canary
                | RolloutPhase::RollingBack
                | RolloutPhase::Healthy
                | RolloutPhase::RolledBack,
                _,
            ) => {
                self.forget_smoke_of_candidate();
                self.note_fate(version, fate, reason);
                self.status.candidate = Some(version.clone());
                self.enter(RolloutPhase::RolledBack, Weight::ZERO, reason, message, readings);
            }
        }
    }

    /// Remembers what became of a version that leaves.
    pub(super) fn note_fate(&mut self, version: &VersionRef, fate: Fate, reason: &str) {
        match fate {
            Fate::Rejected | Fate::Left => {
                let granted = self.status.retry.as_ref().filter(|retry| retry.digest == version.digest);
                let retried = granted.map(|retry| retry.text.clone());
                // What failed is not gone back to; what a person left is remembered anew.
                self.status.history.retain(|known| known.digest != version.digest);
                let rejected = &mut self.status.rejected;
                rejected.retain(|known| known.version.digest != version.digest);
                rejected.push(Rejection {
                    version: version.clone(),
                    reason: Some(reason.to_owned()),
                    retried,
                });
                let surplus = rejected.len().saturating_sub(MAX_REJECTED);
                rejected.drain(..surplus);
            }
            Fate::Withdrawn => {}
        }
    }

    /// Whether the candidate keeps its live requests although it is to leave, because nobody else would answer; then that is
    /// told.
    fn stays_for_want_of_another(&mut self, fate: Fate, reason: &str, message: &str) -> bool {
        let candidate = self.status.candidate.clone();
        candidate.is_some_and(|candidate| self.stays(&candidate, fate, reason, message, &[]))
    }

    /// Whether a version keeps its live requests whatever comes, because nobody else would answer.
    pub(super) fn must_stay(&self, version: &VersionRef) -> bool {
        match self.rollout.spec.judge.on_stable_unavailable {
            OnStableUnavailable::Hold => self.nobody_instead(version).is_some(),
            OnStableUnavailable::Rollback => false,
        }
    }

    fn stays(
        &mut self,
        version: &VersionRef,
        fate: Fate,
        reason: &str,
        message: &str,
        readings: &[RecordedReading],
    ) -> bool {
        let Some(other) = self.nobody_instead(version) else { return false };
        match self.rollout.spec.judge.on_stable_unavailable {
            OnStableUnavailable::Hold => {
                self.keep_for_want_of(&other, fate, reason, message, readings);
                true
            }
            OnStableUnavailable::Rollback => {
                let why = format!(
                    "{other} takes all requests and has no ready endpoint, as judge.onStableUnavailable: Rollback says."
                );
                self.note(Severity::Warning, "StableUnavailable", &why);
                false
            }
        }
    }

    /// Who would have to answer in place of `version` and has no ready endpoint, although `version` has one and takes live
    /// requests: going back would turn answers into errors.
    fn nobody_instead(&self, version: &VersionRef) -> Option<Incumbent> {
        let other = match self.status.phase {
            RolloutPhase::Experiment | RolloutPhase::Canary => Some(self.incumbent()),
            RolloutPhase::Baking | RolloutPhase::RollingBack => {
                steps::watched(&self.status).filter(|watched| *watched == version)?;
                Some(self.way_back())
            }
            RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::Staging
            | RolloutPhase::Shadow
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => None,
        };
        other.filter(|other| self.is_out_of_reach(other) && !self.nobody_answers_for(version))
    }

    /// The rollback is decided and waits for pods; a reading that has become good again does not undo it.
    fn keep_for_want_of(
        &mut self,
        other: &Incumbent,
        fate: Fate,
        reason: &str,
        message: &str,
        readings: &[RecordedReading],
    ) {
        let why = format!(
            "{message} {other} should answer instead and has no ready endpoint, so traffic stays as it is until it has one. Set judge.onStableUnavailable to Rollback to go back regardless."
        );
        let told = self.rollout.status.as_ref().is_some_and(|before| {
            before.conditions.iter().any(|told| told.reason == "StableUnavailable" && told.status == "True")
        });
        if !told {
            self.note(Severity::Warning, "StableUnavailable", &why);
        }
        match fate {
            Fate::Rejected => self.note_waiting(reason, message, readings),
            // Whoever asked for it still does.
            Fate::Left | Fate::Withdrawn => {}
        }
        self.wake_at_latest(RECHECK);
        self.kstatus(KState::Stalled, "StableUnavailable", &why);
    }

    /// A version goes as soon as someone can answer instead.
    pub(super) fn note_waiting(&mut self, reason: &str, message: &str, readings: &[RecordedReading]) {
        let now = Time(self.now);
        self.status.waiting_rollback.get_or_insert_with(|| Decision {
            reason: reason.to_owned(),
            message: message.to_owned(),
            at: now,
            readings: readings.to_vec(),
        });
    }

    /// Nobody wants to go back any more from a version that was in its bake: what it showed until then was not all, and
    /// nobody has looked since.
    pub(super) fn bake_anew(&mut self, stable: &VersionRef) {
        self.status.candidate = None;
        self.status.judge = None;
        self.status.smoke = self.rollout.spec.strategy.smoke.as_ref().map(|_| self.first_try());
        let message = format!(
            "Nobody asks for another version than {} any more; its bake begins anew.",
            stable.version
        );
        let waiting = self.status.waiting_rollback.take();
        self.enter(RolloutPhase::Baking, Weight::ZERO, "RollbackWithdrawn", &message, vec![]);
        self.status.waiting_rollback = waiting;
    }

    /// To a version that was stable here: at once if one of its pods is ready. One whose pods have to start first takes all
    /// requests when all of them are ready, or after `progressDeadline` when one is: there may be no room for more beside those
    /// of the version that it replaces.
    pub(super) fn go_back(&mut self, target: &VersionRef, fate: Fate, reason: &str, message: &str) {
        let starting =
            self.status.phase == RolloutPhase::RollingBack && self.status.candidate.as_ref() == Some(target);
        let patient = starting && self.step_age() <= self.rollout.spec.serving.progress_deadline.get();
        if self.answers(target) || (!patient && !self.nobody_answers_for(target)) {
            return self.switch_back(target, fate, reason, message, vec![]);
        }
        if let (Some(watched), Some(waiting), Incumbent::Version(previous)) =
            (steps::watched(&self.status).cloned(), self.status.waiting_rollback.clone(), self.way_back())
            && starting
            && !self.nobody_answers_for(&previous)
        {
            // It was found bad before, and the version before can answer by now.
            let Decision { reason, message, readings, .. } = waiting;
            return self.give_up(&watched, Fate::Rejected, &reason, &message, readings);
        }
        // Nobody else would answer meanwhile, so its pods start first.
        if self.stays_for_want_of_another(Fate::Left, reason, message) {
            self.asked_back = Some(target.clone());
            return;
        }
        if !starting {
            self.note_given_up();
            self.status.candidate = Some(target.clone());
            let message = format!("{message} Its pods start.");
            // What was found wrong stays so, should nobody want to go there any more.
            let waiting = self.status.waiting_rollback.take();
            self.enter(RolloutPhase::RollingBack, Weight::ZERO, "RollingBack", &message, vec![]);
            self.status.waiting_rollback = waiting;
            return;
        }
        self.wake_at_latest(RECHECK);
        let trouble = if self.version(target).is_none() {
            Some((
                "TargetRecordMissing".to_owned(),
                format!(
                    "ModelVersion {} is gone, so its pods cannot be made. Restore it from a backup.",
                    target.name
                ),
            ))
        } else {
            let trouble = self.pod_trouble(target);
            let trouble = trouble.or_else(|| self.endpoints_trouble(target, self.pods_to_be_ready(target)));
            trouble.map(|trouble| (trouble.reason, trouble.message))
        };
        match trouble {
            Some((reason, message)) => self.kstatus(KState::Stalled, &reason, &message),
            None => {
                let message = format!("The pods of {} start; then it takes all requests.", target.version);
                self.kstatus(KState::Reconciling, "RollingBack", &message);
            }
        }
    }

    /// Whether the candidate answers users and goes as soon as another version can instead.
    pub(super) fn is_given_up(&self) -> bool {
        let has_requests = match self.status.phase {
            RolloutPhase::Experiment | RolloutPhase::Canary => true,
            RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::Staging
            | RolloutPhase::Shadow
            | RolloutPhase::Baking
            | RolloutPhase::RollingBack
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => false,
        };
        has_requests && self.status.waiting_rollback.is_some()
    }

    /// A candidate that was given up and had to stay leaves, whatever comes now.
    fn note_given_up(&mut self) {
        if !self.is_given_up() {
            return;
        }
        let (version, waiting) = (self.status.candidate.clone(), self.status.waiting_rollback.take());
        if let Some((version, waiting)) = version.zip(waiting) {
            self.note_fate(&version, Fate::Rejected, &waiting.reason);
        }
    }

    /// All requests go to `target` in place of the stable version.
    fn switch_back(
        &mut self,
        target: &VersionRef,
        fate: Fate,
        reason: &str,
        message: &str,
        readings: Vec<RecordedReading>,
    ) {
        self.note_given_up();
        // Whoever is asked for instead, what was found bad stays bad.
        let found_bad =
            self.status.waiting_rollback.take().filter(|_| steps::watched(&self.status).is_some());
        let (fate, why) = match &found_bad {
            Some(waiting) => (Fate::Rejected, waiting.reason.as_str()),
            None => (fate, reason),
        };
        let left = self.status.stable.replace(target.clone());
        if let Some(left) = &left {
            self.note_fate(left, fate, why);
        }
        self.remember(left.clone().filter(|_| fate != Fate::Rejected));
        // What serves is no longer rejected, whoever gave it up before.
        self.status.rejected.retain(|rejection| rejection.version.digest != target.digest);
        self.status.previous = None;
        self.status.smoke = None;
        self.status.candidate = left;
        self.enter(RolloutPhase::RolledBack, Weight::ZERO, reason, message, readings);
    }
}
