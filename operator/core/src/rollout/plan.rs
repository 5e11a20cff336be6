//! The state machine of a ModelRollout.
//!
//! [`plan`] says in which order things count: what people ask for, then what the spec asks for, then what the step says.
//! `by_hand`, `select` and `step` say what follows, and `transition` how it is written down.

use std::collections::BTreeSet;

use anneal_crds::{
    ModelRolloutStatus, VersionRef, Weight, metric::Metric, model_rollout::RolloutPhase, names,
};
use jiff::SignedDuration;

use super::{
    draft::{Draft, RECHECK},
    incumbent::Incumbent,
    rival,
    select::{self, Choice, Obstacle},
    smoke::Tick,
    snapshot::Snapshot,
    transition::Fate,
    value,
};
use crate::{condition::KState, plan::Plan};

/// How soon to see whether an older rollout of the same model is gone.
const RIVAL_RECHECK: SignedDuration = SignedDuration::from_secs(30);

/// Decides what a ModelRollout's status is to be and what follows from it.
pub fn plan(snapshot: &Snapshot<'_>) -> Plan<ModelRolloutStatus> {
    let mut draft = Draft::new(snapshot);
    if draft.rollout.metadata.deletion_timestamp.is_none() {
        draft.decide();
        draft.keep_floors();
        draft.converge();
    }
    draft.finish()
}

/// Whether the metrics decide, whatever those who are to be probed would say: a version in its bake that is taken back, or
/// will be as soon as someone can answer instead, has nothing left to show.
pub fn is_decided_by_metrics(snapshot: &Snapshot<'_>) -> bool {
    let status = snapshot.rollout.status.as_ref();
    status.is_some_and(|status| status.phase == RolloutPhase::Baking) && {
        let decided = plan(snapshot).status;
        decided.phase != RolloutPhase::Baking || decided.waiting_rollback.is_some()
    }
}

impl Draft<'_> {
    /// One transition at most.
    fn decide(&mut self) {
        self.recover();
        self.adopt();
        self.note_taken();
        self.note_commands();
        self.grant_retry();
        if self.obey_abort() || self.obey_rollback() || self.goes_back_with_group() || self.retry_smoke() {
            return;
        }
        if self.status.previous.is_some() && self.goes_back_as_pinned() {
            return;
        }
        match (self.status.phase, self.status.stable.clone(), &self.status.previous) {
            // What comes next was not compared with a version that is on trial itself.
            (RolloutPhase::Baking, Some(stable), _) => self.watch(&stable),
            (RolloutPhase::RollingBack, Some(stable), Some(_)) => self.bake_anew(&stable),
            (
                RolloutPhase::Pending
                | RolloutPhase::Preparing
                | RolloutPhase::Staging
                | RolloutPhase::Shadow
                | RolloutPhase::Experiment
                | RolloutPhase::Canary
                | RolloutPhase::Baking
                | RolloutPhase::RollingBack
                | RolloutPhase::Healthy
                | RolloutPhase::RolledBack,
                _,
                _,
            ) => self.follow_spec(),
        }
    }

    /// A version that answers everything and has yet to prove itself.
    pub(super) fn watch(&mut self, stable: &VersionRef) {
        match self.smoke(stable) {
            Tick::Open if self.way_back().is_someone() => self.judge_step(stable),
            // The first version: there is nothing that its metrics could lead back to.
            Tick::Open => self.leave_unjudged(stable),
            Tick::Decided => {}
        }
        let waits = self.status.phase == RolloutPhase::Baking && self.smoke_is_outstanding();
        if let Some(trouble) = self.unreachable(stable).filter(|_| waits) {
            self.stalled(&trouble);
        }
    }

    fn follow_spec(&mut self) {
        let current = self.status.candidate.clone().filter(|_| self.status.phase.is_moving());
        match (self.choose(), current) {
            (Choice::Candidate(wanted), Some(current)) if wanted.digest == current.digest => {
                self.advance(&current)
            }
            // What is given up and could not leave yet leaves first.
            (Choice::Candidate(_) | Choice::Stay(_), Some(current)) if self.is_given_up() => {
                self.advance(&current);
            }
            // Nothing begins while it is paused, or while nobody else would answer, and what is under way is judged.
            (Choice::Candidate(_), Some(current)) if self.pause.is_some() || self.must_stay(&current) => {
                self.advance(&current);
            }
            (Choice::Candidate(_), None) if self.pause.is_some() => self.stay(None),
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
                let message = self.starts(&wanted);
                self.prepare(wanted, "Preparing", &message);
            }
            (Choice::Return(target), _) => self.return_to(&target),
            (Choice::Stay(_), Some(target)) if self.status.phase == RolloutPhase::RollingBack => {
                let message = format!("Nobody asks for {} any more.", target.version);
                self.status.candidate = None;
                self.enter(RolloutPhase::Healthy, Weight::ZERO, "RollbackWithdrawn", &message, vec![]);
            }
            (Choice::Stay(obstacle), Some(current)) => self.withdraw(&current, obstacle),
            (Choice::Stay(obstacle), None) => self.stay(obstacle),
        }
    }

    /// Whether `spec.candidate` names a version that was stable before, while the one that has all requests is still watched; then it
    /// is gone back to. Nothing else begins before the watch is over.
    fn goes_back_as_pinned(&mut self) -> bool {
        match self.choose() {
            Choice::Return(target) => {
                self.return_to(&target);
                true
            }
            Choice::Candidate(_) | Choice::Stay(_) => false,
        }
    }

    fn return_to(&mut self, target: &VersionRef) {
        let message = format!("spec.candidate.version asks for {}, which was stable here.", target.version);
        self.go_back(target, Fate::Withdrawn, "RolledBackByHand", &message);
    }

    fn choose(&mut self) -> Choice {
        if let Some(obstacle) = rival::obstacle(self.rollout, self.snapshot.rivals) {
            // No watch tells when the other one is gone.
            self.wake_at_latest(RIVAL_RECHECK);
            return Choice::Stay(Some(obstacle));
        }
        let choice = select::choose(
            &self.rollout.spec,
            &self.status,
            self.snapshot.versions,
            &self.rejected_digests(),
        );
        let is_under_way = |wanted: &VersionRef| {
            self.status.phase.is_moving()
                && self.status.candidate.as_ref().is_some_and(|candidate| candidate.digest == wanted.digest)
        };
        match choice {
            // What is under way is judged as well as it can be.
            Choice::Candidate(wanted) if !is_under_way(&wanted) => {
                // What takes the place of another one needs no more than that.
                let begins = !self.status.phase.is_moving();
                let obstacle = value::obstacle(&self.rollout.spec);
                match obstacle.or_else(|| self.gpu_obstacle(&wanted).filter(|_| begins)) {
                    Some(obstacle) => Choice::Stay(Some(obstacle)),
                    None => Choice::Candidate(wanted),
                }
            }
            Choice::Candidate(_) | Choice::Return(_) | Choice::Stay(_) => choice,
        }
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
        self.give_up(candidate, Fate::Withdrawn, "CandidateWithdrawn", &message, vec![]);
    }

    /// What never comes back: as status and marks have it, because status forgets the oldest.
    pub(super) fn rejected_digests(&self) -> BTreeSet<String> {
        let marked = self.marked(names::ANNOTATION_ROLLED_BACK_IN).into_iter();
        let marked = marked.map(|version| version.spec.artifact.digest.clone());
        let marked = marked.filter(|digest| !self.granted_retry(digest));
        let recorded = self.status.rejected.iter().map(|rejection| rejection.version.digest.clone());
        marked.chain(recorded).collect()
    }

    fn advance(&mut self, candidate: &VersionRef) {
        match self.status.phase {
            RolloutPhase::Preparing => self.preparing(candidate),
            RolloutPhase::Staging => self.staging(candidate),
            RolloutPhase::Shadow => self.shadow(candidate),
            RolloutPhase::Experiment => self.judge_step(candidate),
            RolloutPhase::Canary => match self.smoke_of_candidate(candidate) {
                Tick::Open => self.judge_step(candidate),
                Tick::Decided => {}
            },
            RolloutPhase::RollingBack => {
                if let Some(pause) = self.pause.clone() {
                    self.wake_at_latest(RECHECK);
                    return self.kstatus(KState::Reconciling, pause.cause.reason(), &pause.why);
                }
                let message = self.starts(candidate);
                self.prepare(candidate.clone(), "Preparing", &message);
            }
            RolloutPhase::Pending
            | RolloutPhase::Baking
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => {}
        }
    }

    /// Where nothing can be copied nothing can be judged.
    fn shadow(&mut self, candidate: &VersionRef) {
        self.note_dropped_mirror();
        match self.shadow_trouble() {
            Some(trouble) => self.prepare(candidate.clone(), &trouble.reason, &trouble.message),
            None => self.judge_step(candidate),
        }
    }

    /// Preparing: capacity comes before traffic, and warm-up does too.
    fn preparing(&mut self, candidate: &VersionRef) {
        let ready = self.ready(candidate);
        let cold = if ready { self.cold(candidate) } else { None };
        let no_way = self.attach_trouble().or_else(|| self.shadow_trouble());
        let no_way = no_way.or_else(|| self.autoscaler_trouble()).filter(|_| ready);
        let unreached = self.endpoints_trouble(candidate, self.pods_to_be_ready(candidate));
        // While it waits for others, or for what is none of its business, it is ready in time.
        let is_in_time = ready && (self.pause.is_some() || no_way.is_some() || cold.is_none());
        let is_held_up = self.is_held_up(candidate);
        if is_in_time || unreached.is_some() || is_held_up {
            self.stop_deadline();
        } else {
            self.run_deadline();
        }
        match (self.pause.clone().filter(|_| ready), no_way) {
            (Some(pause), _) => {
                return self.kstatus(KState::Reconciling, pause.cause.reason(), &pause.why);
            }
            (None, Some(trouble)) => return self.blocked(&trouble),
            // Warm-up comes last: what is warm now may be cold by the time that the others are there.
            (None, None) if ready && self.waits_for_group() => return,
            (None, None) if ready && cold.is_none() => return self.leave_preparing(candidate),
            (None, None) => {}
        }
        self.wake_at_latest(RECHECK);
        let trouble = cold.or_else(|| self.pod_trouble(candidate));
        let deadline = self.rollout.spec.serving.progress_deadline;
        let started = self.status.step_started_at.clone();
        if !is_held_up && started.is_some_and(|started| self.overdue_since(&started) > deadline.get()) {
            if let Some(unreached) = unreached {
                // A rejection is for ever, and this will pass.
                return self.stalled(&unreached);
            }
            let why = trouble.map_or_else(String::new, |trouble| format!(" {}", trouble.message));
            let message = format!("{} was not ready after {deadline}.{why}", candidate.version);
            let reason = "ProgressDeadlineExceeded";
            return match self.incumbent() {
                Incumbent::Version(_) | Incumbent::Adopted(_) => {
                    self.give_up(candidate, Fate::Rejected, reason, &message, vec![]);
                }
                // There is nothing to go back to.
                Incumbent::Nobody => self.kstatus(KState::Stalled, reason, &message),
            };
        }
        let trouble = trouble.or_else(|| self.gateway_trouble()).or_else(|| self.shadow_trouble());
        let trouble =
            trouble.or_else(|| self.autoscaler_trouble()).or_else(|| self.scaling_trouble(candidate));
        match trouble.or_else(|| self.record_trouble()) {
            Some(trouble) => self.stalled(&trouble),
            None => self.kstatus(
                KState::Reconciling,
                "Preparing",
                "The candidate's pods start; it takes no traffic.",
            ),
        }
    }

    /// Nothing new is to serve.
    pub(super) fn stay(&mut self, obstacle: Option<Obstacle>) {
        let starting = matches!(
            self.status.phase,
            RolloutPhase::Pending | RolloutPhase::Preparing | RolloutPhase::Staging
        );
        match self.incumbent() {
            Incumbent::Nobody => return self.wait_for_a_version(obstacle),
            Incumbent::Version(stable) if starting => {
                let message = format!("{} serves all requests.", stable.version);
                return self.enter(RolloutPhase::Healthy, Weight::ZERO, "Recovered", &message, vec![]);
            }
            Incumbent::Adopted(_) if starting => self.status.phase = RolloutPhase::Pending,
            Incumbent::Adopted(_) | Incumbent::Version(_) => {}
        }
        let unheard = self.gateway_trouble().or_else(|| self.lasting_autoscaler_trouble());
        if !self.traffic_accepted() || unheard.is_some() {
            self.wake_at_latest(RECHECK);
        }
        self.tell_how_incumbent_serves(obstacle);
    }

    /// Nobody serves.
    fn wait_for_a_version(&mut self, obstacle: Option<Obstacle>) {
        self.status.phase = RolloutPhase::Pending;
        if let (None, Some(pause)) = (&obstacle, self.pause.clone()) {
            return self.kstatus(KState::Reconciling, pause.cause.reason(), &pause.why);
        }
        if let (None, Some(trouble)) = (&obstacle, self.attach_trouble()) {
            return self.blocked(&trouble);
        }
        let obstacle = obstacle.unwrap_or_else(|| self.no_version_yet());
        self.kstatus(KState::Stalled, obstacle.reason, &obstacle.message);
    }

    fn tell_how_incumbent_serves(&mut self, obstacle: Option<Obstacle>) {
        let incumbent = self.incumbent();
        let trouble =
            self.record_trouble().or_else(|| self.gateway_trouble()).or_else(|| self.route_trouble());
        let trouble = trouble.or_else(|| self.smoke_trouble()).or_else(|| self.lasting_autoscaler_trouble());
        if let Some(trouble) = trouble {
            return self.stalled(&trouble);
        }
        if !self.traffic_accepted() {
            let message = format!("The data plane has not taken the route to {incumbent} yet.");
            return self.kstatus(KState::Reconciling, "RouteNotAccepted", &message);
        }
        let (stable, obstacle) = match &incumbent {
            Incumbent::Version(stable) => (Some(stable), obstacle),
            Incumbent::Adopted(_) | Incumbent::Nobody => {
                (None, Some(obstacle.unwrap_or_else(|| self.no_version_yet())))
            }
        };
        if let Some(stable) = stable.filter(|stable| !self.answers(stable)) {
            let why = self
                .pod_trouble(stable)
                .or_else(|| self.endpoints_trouble(stable, self.pods_to_be_ready(stable)))
                .map_or_else(|| "Some of its pods are not ready.".to_owned(), |trouble| trouble.message);
            let message = format!("{incumbent} serves. {why}");
            return self.kstatus(KState::Reconciling, "StableNotReady", &message);
        }
        let (reason, why) = match (obstacle, &self.pause) {
            (Some(obstacle), _) => (obstacle.reason, format!(" {}", obstacle.message)),
            (None, Some(pause)) => (pause.cause.reason(), format!(" {}", pause.why)),
            (None, None) => ("Serving", String::new()),
        };
        let message = format!("{incumbent} serves all requests.{why}");
        self.kstatus(KState::Ready, reason, &message);
    }

    /// A step goes on.
    pub(super) fn waiting(&mut self, reason: &str, message: &str) {
        let interval = self.rollout.spec.metrics.iter().map(tick).min().unwrap_or(RECHECK);
        self.wake_at_latest(self.looks_after_a_switch().map_or(interval, |soon| soon.min(interval)));
        let trouble =
            self.gateway_trouble().or_else(|| self.route_trouble()).or_else(|| self.record_trouble());
        match trouble.or_else(|| self.nobody_reaches_the_trial()) {
            Some(trouble) => self.stalled(&trouble),
            // Every request has the answer that was asked for; the watch goes on.
            None if self.status.phase == RolloutPhase::Baking => self.kstatus(KState::Ready, reason, message),
            None => self.kstatus(KState::Reconciling, reason, message),
        }
    }
}

/// How often a metric is read.
pub(super) fn tick(metric: &Metric) -> SignedDuration {
    let (shortest, longest) = (SignedDuration::from_secs(1), SignedDuration::from_secs(60));
    metric.interval.map_or_else(
        || (metric.window.get() / 10).clamp(shortest, longest),
        |interval| interval.get().max(shortest),
    )
}
