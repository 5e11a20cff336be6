//! By hand: what people ask for, in the spec and with annotations, comes before anything that the operator decides.
//!
//! Called by [`super::plan`]. `command` says what is asked for, and this says what follows.

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, ModelVersion, VersionRef,
    model_rollout::{Retry, RolloutPhase},
    names,
};

use super::{
    command::{self, Command, Place, Promotion},
    draft::Draft,
    freeze::PauseCause,
    incumbent::Incumbent,
    marks,
    select::Obstacle,
    steps::{self, on_trial},
    transition::{Fate, PROMOTED_BY_HAND},
};
use crate::plan::Severity;

impl Draft<'_> {
    pub(super) fn command(&self, key: &str) -> Option<Command> {
        command::of_version(self.rollout, key)?.ok()
    }

    /// Whether a version that was rolled back has been given another try that it has not used up.
    pub(super) fn granted_retry(&self, digest: &str) -> bool {
        let rejected = self.status.rejected.iter().any(|rejection| rejection.version.digest == digest);
        !rejected && self.status.retry.as_ref().is_some_and(|retry| retry.digest == digest)
    }

    /// That a version begins, and who wants it to if it was rolled back before.
    pub(super) fn starts(&self, version: &VersionRef) -> String {
        let retry = self.command(names::ANNOTATION_RETRY);
        let retry =
            retry.filter(|retry| retry.version == version.version && self.granted_retry(&version.digest));
        let why = retry.map_or_else(String::new, |retry| format!(" once more, {}", retry.because()));
        format!("{} starts at weight 0{why}.", version.version)
    }

    /// The text of the retry that a version had before it was rolled back for good, as its mark has it.
    pub(super) fn retry_marked_on(&self, version: &ModelVersion) -> Option<String> {
        let name = self.rollout.metadata.name.as_deref()?;
        let key = marks::key(names::ANNOTATION_ROLLED_BACK_IN, name);
        marks::on(version, &key).filter(|text| *text != names::MARK).cloned()
    }

    /// A version that was rolled back may try again, once for each text.
    pub(super) fn grant_retry(&mut self) {
        let Some(retry) = self.command(names::ANNOTATION_RETRY) else { return };
        let Some(version) =
            self.snapshot.versions.iter().find(|version| version.spec.version == retry.version)
        else {
            return;
        };
        let digest = &version.spec.artifact.digest;
        let recorded = self.status.rejected.iter().find(|rejection| rejection.version.digest == *digest);
        let used =
            recorded.map_or_else(|| self.retry_marked_on(version), |rejection| rejection.retried.clone());
        if used.as_ref() == Some(&retry.text) || !self.rejected_digests().contains(digest) {
            return;
        }
        self.status.rejected.retain(|rejection| rejection.version.digest != *digest);
        // From the start: what it was here before does not take it back at once.
        self.status.history.retain(|known| known.digest != *digest);
        let spent_abort = self.spent_abort(&retry.version);
        self.status.retry = Some(Retry { digest: digest.clone(), text: retry.text.clone(), spent_abort });
        let message = format!("{} may try again, {}.", retry.version, retry.because());
        self.note(Severity::Normal, "Retried", &message);
    }

    /// The abort that is there, if it has done its work once `version` gets another try: one of that version has, and one that had
    /// before.
    pub(super) fn spent_abort(&self, version: &str) -> Option<String> {
        let abort = self.command(names::ANNOTATION_ABORT)?;
        (abort.version == version || is_spent(&self.status, &abort)).then_some(abort.text)
    }

    /// Whether someone wants smoke requests to be sent again to a version that failed them and could not be taken back;
    /// then it is done, once for each text.
    pub(super) fn retry_smoke(&mut self) -> bool {
        let rests = self.status.phase.rests() && self.pause.is_none();
        let (Some(retry), Some(stable)) =
            (self.command(names::ANNOTATION_RETRY), self.status.stable.clone().filter(|_| rests))
        else {
            return false;
        };
        let spent_abort = self.spent_abort(&retry.version);
        let granted = Retry { digest: stable.digest.clone(), text: retry.text.clone(), spent_abort };
        let used = self
            .status
            .retry
            .as_ref()
            .is_some_and(|used| used.digest == granted.digest && used.text == granted.text);
        if used || retry.version != stable.version || self.smoke_trouble().is_none() {
            return false;
        }
        self.status.retry = Some(granted);
        self.smoke_anew(&stable, &retry);
        true
    }

    /// Whether someone has given up the version that is on its way or on trial; then that is done.
    pub(super) fn obey_abort(&mut self) -> bool {
        let Some(abort) = self.command(names::ANNOTATION_ABORT) else { return false };
        let phase = self.status.phase;
        let meant = match phase {
            RolloutPhase::Preparing
            | RolloutPhase::Staging
            | RolloutPhase::Shadow
            | RolloutPhase::Experiment
            | RolloutPhase::Canary => self.status.candidate.clone().filter(|_| self.incumbent().is_someone()),
            // While a cold version starts that someone wants instead, too.
            RolloutPhase::Baking | RolloutPhase::RollingBack => steps::watched(&self.status).cloned(),
            RolloutPhase::Pending | RolloutPhase::Healthy | RolloutPhase::RolledBack => None,
        };
        let Some(version) = meant.filter(|version| abort_is_meant(&self.status, version, &abort)) else {
            return false;
        };
        let message = format!("{} was aborted in {}, {}.", version.version, phase.name(), abort.because());
        if phase == RolloutPhase::RollingBack && self.must_stay(&version) {
            // Somebody is on the way who can answer; meanwhile it is not forgotten that this one is bad.
            self.note_waiting("Aborted", &message, &[]);
            return false;
        }
        self.give_up(&version, Fate::Rejected, "Aborted", &message, vec![]);
        true
    }

    /// Whether `spec.rollback` decides what serves; then it has.
    pub(super) fn obey_rollback(&mut self) -> bool {
        let (Some(wanted), Some(target)) =
            (&self.rollout.spec.rollback, rollback_target(self.rollout, &self.status))
        else {
            return false;
        };
        let who = command::writer(self.rollout, &["f:spec", "f:rollback"]);
        let why = wanted.reason.trim().trim_end_matches('.');
        let message = format!("spec.rollback asks for {}, set by {who}: {why}.", wanted.target_version);
        match target {
            Ok(target) if self.status.stable.as_ref() == Some(&target) => self.keep_stable(&message),
            Ok(target) => self.go_back(&target, Fate::Left, "RolledBackByHand", &message),
            Err(_) => return false,
        }
        true
    }

    /// Someone wants the stable version and no other one.
    fn keep_stable(&mut self, message: &str) {
        match (self.status.phase, self.status.candidate.clone(), self.status.stable.clone()) {
            (RolloutPhase::RollingBack, _, Some(stable)) if self.status.previous.is_some() => {
                // Whatever was found wrong with it, it is asked for by name.
                self.status.waiting_rollback = None;
                self.bake_anew(&stable);
            }
            (
                RolloutPhase::Preparing
                | RolloutPhase::Staging
                | RolloutPhase::Shadow
                | RolloutPhase::Experiment
                | RolloutPhase::Canary,
                Some(candidate),
                _,
            ) => {
                self.give_up(&candidate, Fate::Rejected, "RolledBackByHand", message, vec![]);
            }
            (RolloutPhase::RollingBack, Some(target), _) => {
                self.give_up(&target, Fate::Withdrawn, "CandidateWithdrawn", message, vec![]);
            }
            (RolloutPhase::Baking, _, Some(stable)) => self.watch(&stable),
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
            ) => {
                let message = format!("{message} Remove spec.rollback to let other versions begin.");
                self.stay(Some(Obstacle { reason: "HeldByRollback", message }));
            }
        }
    }

    /// The promotion that someone asks for and that has not done its work.
    pub(super) fn asked_promotion(&self) -> Option<(Command, Promotion)> {
        let asked = command::promote(self.rollout)?.ok()?;
        (self.status.promoted.as_ref() != Some(&asked.0.text)).then_some(asked)
    }

    /// What is asked for has happened. Called when a phase or a step begins, with the reason.
    pub(super) fn note_promoted(&mut self, reason: &str) {
        if reason == PROMOTED_BY_HAND {
            self.status.promoted = self.asked_promotion().map(|(command, _)| command.text);
        }
    }

    /// Whether a promotion from here would leave out an approval. The first version has no step to approve.
    pub(super) fn goes_past_approval(&self, place: Place) -> bool {
        let ahead = || {
            let mut approvals = steps::approvals(&self.rollout.spec.strategy, &self.status).into_iter();
            approvals.any(|point| Some(point) >= Place::of(self.status.phase, self.status.weight))
        };
        match place {
            Place::Full => self.incumbent().is_someone() && ahead(),
            Place::Staging | Place::Shadow | Place::Experiment | Place::Step(_) | Place::Baking => false,
        }
    }

    /// The promotion that someone asks for from where `version` stands now, if nothing stands against it: a pause does,
    /// and a freeze that it does not name.
    pub(super) fn promotion(&self, version: &VersionRef) -> Option<(Command, Place)> {
        let (command, Promotion { place, despite }) = self.asked_promotion()?;
        let status = &self.status;
        let meant = command.version == version.version && place.is(status.phase, status.weight);
        let allowed = match self.pause.as_ref().map(|pause| pause.cause) {
            None => true,
            Some(PauseCause::Freeze) => self.freezes.yields_to(despite.as_deref()),
            Some(PauseCause::Person) => false,
        };
        let despite = despite.filter(|_| self.pause.is_some());
        let who = despite.map_or_else(
            || command.who.clone(),
            |freeze| format!("{} despite the freeze {freeze}", command.who),
        );
        (meant && allowed && !self.goes_past_approval(place)).then_some((Command { who, ..command }, place))
    }
}

/// Whether an abort is meant for `version` now: one that was there when the version got another try has done its work.
pub(super) fn abort_is_meant(status: &ModelRolloutStatus, version: &VersionRef, abort: &Command) -> bool {
    version.version == abort.version && !is_spent(status, abort)
}

pub(super) fn is_spent(status: &ModelRolloutStatus, abort: &Command) -> bool {
    status.retry.as_ref().and_then(|retry| retry.spent_abort.as_ref()) == Some(&abort.text)
}

/// The version that `spec.rollback` names: the stable one, or one that was.
pub(super) fn rollback_target(
    rollout: &ModelRollout,
    status: &ModelRolloutStatus,
) -> Option<Result<VersionRef, String>> {
    let wanted = &rollout.spec.rollback.as_ref()?.target_version;
    Incumbent::of(status).is_someone().then_some(())?;
    let starting = status.candidate.iter().filter(|_| status.phase == RolloutPhase::RollingBack);
    let known =
        status.stable.iter().chain(&status.previous).chain(status.history.iter().rev()).chain(starting);
    let found = known.clone().find(|version| version.version == *wanted).cloned();
    Some(found.ok_or_else(|| {
        let known: Vec<&str> = known.map(|version| version.version.as_str()).collect();
        format!(
            "spec.rollback.targetVersion is {wanted}, which is not among the versions that can be gone back to: {}. Correct or remove it: nothing advances meanwhile.",
            if known.is_empty() { "there is none yet".to_owned() } else { known.join(", ") }
        )
    }))
}

/// Whether people have decided already what becomes of the version on trial, so that no reading could change it.
pub fn is_decided(rollout: &ModelRollout, status: &ModelRolloutStatus) -> bool {
    let aborted = || {
        let abort = command::of_version(rollout, names::ANNOTATION_ABORT)?.ok()?;
        // Nobody is taken back where nobody else would answer.
        let may_go_back = status.phase.is_on_its_way() && Incumbent::of(status).is_someone();
        let version = on_trial(status).or(status.candidate.as_ref().filter(|_| may_go_back))?;
        Some(abort_is_meant(status, version, &abort))
    };
    let gone_back = match rollback_target(rollout, status) {
        Some(Ok(target)) => status.stable.as_ref() != Some(&target) || status.phase.shares_traffic(),
        Some(Err(_)) | None => false,
    };
    gone_back || aborted().unwrap_or(false)
}
