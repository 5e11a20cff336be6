//! Invalid commands: what people ask for that cannot be understood, or done, and the pause that they ask for.
//!
//! Called by [`super::plan`] first of all, so that whatever is decided afterwards, nobody waits for what will never happen.

use anneal_crds::{model_rollout::RolloutPhase, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    by_hand::{abort_is_meant, is_spent, rollback_target},
    command::{self, Place},
    draft::{Draft, PAUSED},
    freeze::{Pause, PauseCause},
    snapshot::AlertReceiver,
    steps::{self, on_trial, watched},
};
use crate::{alert, plan::Severity};

const INVALID_COMMAND: &str = "InvalidCommand";

impl Draft<'_> {
    /// Conditions that are there only while someone pauses, or asks for what cannot be understood.
    pub(super) fn note_commands(&mut self) {
        let promotion = command::promote(self.rollout).and_then(Result::ok).map(|(command, _)| command.text);
        self.status.promoted.take_if(|done| promotion.as_ref() != Some(done));
        let unknown_target = rollback_target(self.rollout, &self.status).and_then(Result::err);
        // Whoever wanted a rollback wants no version to get more traffic.
        let asked = command::pause(self.rollout).or_else(|| unknown_target.clone());
        self.note_pause(asked.as_deref());
        self.note_freezes();
        let asked = asked.map(|why| Pause { cause: PauseCause::Person, why });
        self.pause = asked.or_else(|| self.freeze());
        let wrong = [
            command::of_version(self.rollout, names::ANNOTATION_ABORT).and_then(Result::err),
            command::of_version(self.rollout, names::ANNOTATION_RETRY).and_then(Result::err),
            command::promote(self.rollout).and_then(Result::err),
            command::approve(self.rollout).and_then(Result::err),
            self.pointless_abort(),
            self.abort_without_effect(),
            self.spent_promotion(),
            self.spent_retry(),
            self.unknown_version(),
            self.unknown_place(),
            self.unknown_freeze(),
            self.not_approved(),
            unknown_target,
            alert::selectors(self.rollout)
                .err()
                .map(|error| format!("spec.strategy.abortOnAlerts: {error}.")),
            self.unheard_alerts(),
        ];
        let wrong: Vec<String> = wrong.into_iter().flatten().collect();
        let said = (!wrong.is_empty()).then(|| wrong.join(" "));
        self.condition_if(INVALID_COMMAND, "NotUnderstood", said.as_deref());
    }

    /// Alerts that nobody hears.
    fn unheard_alerts(&self) -> Option<String> {
        let is_unheard = match self.snapshot.alerts {
            AlertReceiver::Listens => false,
            AlertReceiver::Off => !self.rollout.spec.strategy.abort_on_alerts.is_empty(),
        };
        is_unheard.then(|| {
            "spec.strategy.abortOnAlerts names alerts, and this operator takes none. Set the chart's alertReceiver.enabled and send them there, or remove it.".to_owned()
        })
    }

    /// A pause is told when it begins and when it ends; who has ended it nobody knows.
    fn note_pause(&mut self, asked: Option<&str>) {
        let said = |condition: &&Condition| condition.type_ == PAUSED && condition.status == "True";
        let before = self.status.conditions.iter().find(said).map(|condition| condition.message.clone());
        match (before, asked) {
            (None, Some(why)) => self.note(Severity::Normal, "Paused", why),
            (Some(before), None) => {
                self.note(Severity::Normal, "Resumed", &format!("It is over that {before}"));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.condition_if(PAUSED, "Paused", asked);
    }

    /// An abort of a version beside which nobody could answer.
    fn pointless_abort(&self) -> Option<String> {
        let abort = self.command(names::ANNOTATION_ABORT)?;
        let status = &self.status;
        let nobody_else = match status.phase {
            RolloutPhase::Preparing | RolloutPhase::Staging => {
                status.candidate.as_ref().filter(|_| !self.incumbent().is_someone())
            }
            RolloutPhase::Baking => status.stable.as_ref().filter(|_| !self.way_back().is_someone()),
            RolloutPhase::Pending
            | RolloutPhase::Shadow
            | RolloutPhase::Experiment
            | RolloutPhase::Canary
            | RolloutPhase::RollingBack
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => None,
        };
        let version = nobody_else.filter(|version| abort_is_meant(status, version, &abort))?;
        Some(format!(
            "{} asks to give {} up, and there is no version to go back to. Before it serves, take {} off its ModelVersion; afterwards delete what serves.",
            names::ANNOTATION_ABORT,
            version.version,
            names::ANNOTATION_APPROVED_BY
        ))
    }

    /// An abort that has done its work, of a version that got another try since.
    fn abort_without_effect(&self) -> Option<String> {
        let abort = self.command(names::ANNOTATION_ABORT)?;
        let moving = self.status.candidate.as_ref().filter(|_| self.status.phase.is_moving());
        let mut concerned = moving.into_iter().chain(watched(&self.status));
        let meant = concerned.find(|version| version.version == abort.version)?;
        is_spent(&self.status, &abort).then(|| {
            format!(
                "{} has taken {} back before it got another try; to ask for the same again, give another reason.",
                names::ANNOTATION_ABORT,
                meant.version
            )
        })
    }

    /// A promotion that has done its work, out of a place to which its version has come back.
    fn spent_promotion(&self) -> Option<String> {
        let (command, promotion) = command::promote(self.rollout)?.ok()?;
        let version = steps::on_trial(&self.status).filter(|version| version.version == command.version)?;
        let is_spent = self.status.promoted.as_ref() == Some(&command.text)
            && promotion.place.is(self.status.phase, self.status.weight);
        is_spent.then(|| {
            format!(
                "{} has promoted {} before; to ask for the same again, give another reason.",
                names::ANNOTATION_PROMOTE,
                version.version
            )
        })
    }

    /// A retry that was granted before to a version that was rolled back again.
    fn spent_retry(&self) -> Option<String> {
        let retry = self.command(names::ANNOTATION_RETRY)?;
        let mut rejected = self.status.rejected.iter();
        let again = rejected.find(|rejection| {
            rejection.version.version == retry.version && rejection.retried.as_ref() == Some(&retry.text)
        })?;
        Some(format!(
            "{} has given {} another try before; to ask for the same again, give another reason.",
            names::ANNOTATION_RETRY,
            again.version.version
        ))
    }

    /// An abort while there is something to give up, or a retry after a rollback, of a version that there is not.
    fn unknown_version(&self) -> Option<String> {
        let moving = self.status.candidate.as_ref().filter(|_| self.status.phase.is_moving());
        let abort = moving.or_else(|| watched(&self.status)).map(|meant| (names::ANNOTATION_ABORT, meant));
        let back = self.status.candidate.as_ref().filter(|_| self.status.phase == RolloutPhase::RolledBack);
        let retry = back.map(|meant| (names::ANNOTATION_RETRY, meant));
        let (key, meant) = abort.or(retry)?;
        let asked = self.command(key)?;
        let mut known = self.snapshot.versions.iter();
        let is_known = known.any(|version| version.spec.version == asked.version);
        (!is_known).then(|| {
            format!(
                "{key} names {}, and there is no such version. Write {} if that is meant.",
                asked.version, meant.version
            )
        })
    }

    /// A promotion of the version on trial out of a step that the strategy does not have.
    fn unknown_place(&self) -> Option<String> {
        let (command, promotion) = self.asked_promotion()?;
        let version = on_trial(&self.status).filter(|version| version.version == command.version)?;
        let strategy = &self.rollout.spec.strategy;
        let steps = steps::steps(strategy);
        let known = match promotion.place {
            Place::Step(weight) => steps.iter().any(|step| step.weight == weight),
            Place::Experiment => strategy.experiment.is_some(),
            Place::Staging | Place::Shadow | Place::Baking | Place::Full => true,
        };
        (!known).then(|| {
            let weights: Vec<String> = steps.iter().map(|step| format!("@{}", step.weight)).collect();
            format!(
                "{} names a step of {} that spec.strategy does not have; it has {}.",
                names::ANNOTATION_PROMOTE,
                version.version,
                weights.join(", ")
            )
        })
    }

    /// A promotion in spite of a freeze that the strategy does not have.
    fn unknown_freeze(&self) -> Option<String> {
        let (command, promotion) = self.asked_promotion()?;
        let concerned = self.status.candidate.iter().chain(&self.status.stable);
        // One that has done its work may stay, whatever its freeze is called today.
        concerned
            .filter(|_| self.status.phase.is_moving())
            .find(|version| version.version == command.version)?;
        let named = promotion.despite?;
        let freezes = &self.rollout.spec.strategy.freezes;
        (!freezes.iter().any(|freeze| freeze.name == named)).then(|| {
            let names: Vec<&str> = freezes.iter().map(|freeze| freeze.name.as_str()).collect();
            format!(
                "{} names the freeze {named}, which spec.strategy.freezes does not have; it has {}.",
                names::ANNOTATION_PROMOTE,
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            )
        })
    }

    /// A promotion past steps that someone has to approve.
    fn not_approved(&self) -> Option<String> {
        let (command, promotion) = self.asked_promotion()?;
        let version = self.status.candidate.as_ref().filter(|version| version.version == command.version)?;
        (promotion.place.is(self.status.phase, self.status.weight) && self.goes_past_approval(promotion.place))
            .then(|| {
                format!(
                    "{} asks for @full, and spec.strategy has steps of {} that someone has to approve. Promote it step by step.",
                    names::ANNOTATION_PROMOTE,
                    version.version
                )
            })
    }
}
