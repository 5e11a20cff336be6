//! One step of shadow, experiment, canary or bake: may it end, must it go on, or does it roll back?
//!
//! Called by [`super::plan`] on every tick of a step. A breach comes first and has no precondition; a step ends only with
//! a fresh pass of every trigger, enough time and enough requests, or because someone says so; a step of any of them but the bake
//! that cannot be judged is rolled back in time. How old a sample is, is told by the clock as it is; times that are
//! compared with recorded ones never run backwards.

use anneal_crds::{
    ModelRolloutStatus, VersionRef, Weight,
    metric::JudgeEvidence,
    model_rollout::{RecordedReading, RolloutPhase, Then},
    names,
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    approval::{AWAITING_APPROVAL, Consent},
    command::{Command, Place},
    draft::{self, AWAITING_PROMOTION, Draft, METRICS_AVAILABLE},
    labels,
    reading::Verdict,
    route::is_mismatch_told,
    shares::Split,
    snapshot::Listed,
    steps::{self, Terms},
    transition::{Cause, Fate, PROMOTED_BY_HAND},
};
use crate::{
    condition::{KState, Truth},
    plan::Severity,
};

/// Reason of what could not be judged for `judge.maxHold`.
const HELD_TOO_LONG: &str = "HeldTooLong";

/// What all readings say.
pub(super) struct Judged {
    /// About each trigger.
    pub(super) verdicts: Vec<(Verdict, RecordedReading)>,
    /// About the step, besides.
    pub(super) step: StepSays,
}

/// What is known about a step, beyond that of its triggers.
pub(super) enum StepSays {
    /// It ends by time and requests.
    ByClock,
    /// It may end.
    Ends,
    /// It takes its time.
    GoesOn,
    /// It waits, and why.
    Waits(String),
    /// It waits, because requests are not divided as the weight asks for.
    Mismatched,
    /// Nobody can say what the readings mean, and why.
    Unseen(&'static str),
    /// The version on trial goes: a reason, and the same in words.
    RollsBack((&'static str, String)),
}

/// Whether a status says that every trigger has a reading.
fn has_readings(status: &ModelRolloutStatus) -> bool {
    let is_told = |told: &Condition| told.type_ == METRICS_AVAILABLE && told.status == "True";
    status.conditions.iter().any(is_told)
}

/// Whether a status says that its version stays although its step could not be judged for long.
fn was_kept(status: &ModelRolloutStatus) -> bool {
    let is_told =
        |told: &Condition| told.type_ == "Stalled" && told.status == "True" && told.reason == HELD_TOO_LONG;
    status.conditions.iter().any(is_told)
}

impl StepSays {
    /// Whether it neither ends nor rolls back nor has another trouble with its requests.
    pub(super) const fn goes_on(&self) -> bool {
        match self {
            Self::ByClock | Self::GoesOn | Self::Waits(_) => true,
            Self::Ends | Self::Mismatched | Self::Unseen(_) | Self::RollsBack(_) => false,
        }
    }
}

impl Draft<'_> {
    /// One breach rolls back; time, requests and fresh passes of every trigger go on.
    pub(super) fn judge_step(&mut self, version: &VersionRef) {
        if let Some(waiting) = self.status.waiting_rollback.clone() {
            return self.give_up(
                version,
                Fate::Rejected,
                &waiting.reason,
                &waiting.message,
                waiting.readings,
            );
        }
        if self.pause.is_none() && self.wave_is_over() {
            // Others may have left their bakes by now, so what this version does from here on takes nobody back.
            let message = format!("{} and its group passed their bakes.", version.version);
            return self.end_bake("BakePassed", &message, vec![]);
        }
        self.take_baselines();
        self.tell_warnings(version);
        // The strategy may have changed since.
        let terms = steps::terms(&self.rollout.spec.strategy, &self.status);
        let children = self.snapshot.children;
        let Judged { verdicts: judged, step } = match (self.rollout.spec.judge.evidence, children.pods_listed)
        {
            (JudgeEvidence::None, _) => {
                self.tell_chance();
                Judged { verdicts: self.judge(version), step: self.by_clock() }
            }
            (JudgeEvidence::Sequential, Listed::All) => self.compare(version, terms.as_ref()),
            // Without the time at which a pod started, what it counted before looks like requests of this step.
            (JudgeEvidence::Sequential, Listed::Failed) => {
                self.split = self.split_unread();
                Judged { verdicts: vec![], step: StepSays::Unseen("the pods could not be listed") }
            }
        };
        if matches!(step, StepSays::Mismatched) {
            self.split = Split::Otherwise;
        }
        if self.is_mismatched() {
            self.note_strays(version);
        }
        let readings: Vec<RecordedReading> = judged.iter().map(|(_, record)| record.clone()).collect();
        if let Some((_, breach)) = judged.iter().find(|(verdict, _)| *verdict == Verdict::Breach) {
            let message = format!(
                "{} of {} is {}, and {} is asked for.",
                breach.metric, version.version, breach.value, breach.bound
            );
            return self.give_up(version, Fate::Rejected, "ThresholdBreached", &message, readings);
        }
        if let StepSays::RollsBack((reason, why)) = &step {
            let message = format!("{} is given up: {why}.", version.version);
            return self.give_up(version, Fate::Rejected, reason, &message, readings);
        }
        let Some(terms) = terms else {
            return self.leave_unknown_step(version);
        };
        let comes_back = self.comes_back(version);
        if self.status.phase != RolloutPhase::Shadow && self.unavailable(version) && !comes_back {
            // Requests that nobody answers are in no server's counters.
            let why =
                self.pod_trouble(version).map_or_else(String::new, |trouble| format!(" {}", trouble.message));
            let message = format!("{} has no ready pod and takes live requests.{why}", version.version);
            return self.give_up(version, Fate::Rejected, "CandidateUnavailable", &message, readings);
        }
        self.status.verdict = draft::worst(&readings);
        let hold = self.hold(version, &judged, &step, &terms);
        if let Some((reason, message)) = self.missing_too_long(version, &judged).filter(|_| !comes_back) {
            return self.give_up(version, Fate::Rejected, reason, &message, readings);
        }
        let promotion = self.promotion(version);
        if promotion.is_none() {
            self.forget_promoted_evidence();
        }
        match promotion {
            Some((command, place)) => {
                self.promoted_by_hand(version, &command, place, terms.then, readings);
            }
            None => self.judged(version, &terms, &step, hold, readings),
        }
    }

    /// Plain thresholds show no winner.
    fn by_clock(&mut self) -> StepSays {
        if self.status.phase == RolloutPhase::Experiment {
            return StepSays::Waits("an experiment needs judge.evidence: sequential".to_owned());
        }
        self.shares_say()
    }

    fn judged(
        &mut self,
        version: &VersionRef,
        terms: &Terms,
        step: &StepSays,
        hold: Option<String>,
        readings: Vec<RecordedReading>,
    ) {
        match hold {
            None if self.may_end(terms, step) => {
                self.step_passed(version, terms.then, readings);
            }
            None => {
                let pause = self.pause.as_ref().map_or_else(String::new, |pause| format!(" {}", pause.why));
                let what = match self.experiment_told() {
                    Some(told) => format!("experiment goes on, {told}"),
                    None => "step goes on".to_owned(),
                };
                self.waiting("Judging", &format!("Every trigger passes; the {what}.{pause}"));
            }
            Some(why) if self.held_too_long(terms, step) => {
                let max_hold = self.rollout.spec.judge.max_hold;
                let message = format!("{} could not be judged within {max_hold}: {why}.", version.version);
                self.cannot_be_judged(version, &message, readings);
            }
            Some(why) => self.waiting("Holding", &format!("The step waits: {why}.")),
        }
    }

    fn may_end(&self, terms: &Terms, step: &StepSays) -> bool {
        match step {
            StepSays::ByClock => self.accepted_age().is_some_and(|age| age >= terms.duration.get()),
            StepSays::Ends => true,
            StepSays::GoesOn
            | StepSays::Waits(_)
            | StepSays::Mismatched
            | StepSays::Unseen(_)
            | StepSays::RollsBack(_) => false,
        }
    }

    fn held_too_long(&self, terms: &Terms, step: &StepSays) -> bool {
        if self.lies_with_the_user() {
            return false;
        }
        let max_hold = self.rollout.spec.judge.max_hold.get();
        let since = self.status.holding_since.as_ref();
        let over = |since: Option<&Time>| since.map_or(SignedDuration::ZERO, |at| self.overdue_since(at));
        let blind_for = over(since);
        // Pods may take as long to come up as they may in the beginning.
        let max_hold = match steps::on_trial(&self.status) {
            Some(version) if !self.ready(version) => {
                max_hold.max(self.rollout.spec.serving.progress_deadline.get())
            }
            Some(_) | None => max_hold,
        };
        // Whoever changed the route by hand has put the clock back.
        let began = self.status.traffic_accepted_at.as_ref().or(self.status.step_started_at.as_ref());
        // What comes later than the requests is not late.
        let delay = labels::longest_delay(&self.rollout.spec, &terms.triggers);
        let allowed = terms.duration.get().saturating_add(delay).saturating_add(max_hold);
        // What cannot be read, or is unwell, has a clock of its own: a step that waits for people may have passed long ago.
        // Whoever is ready and not reached yet is rejected for nothing.
        let is_reached = steps::on_trial(&self.status).is_none_or(|version| self.ready(version));
        let overdue = !self.has_passed() && is_reached && since.is_none() && over(began) > allowed;
        match step {
            StepSays::ByClock => blind_for > max_hold || (overdue && self.pause.is_none()),
            // A comparison's clock stands still without requests: a quiet night is nobody's fault.
            StepSays::Ends
            | StepSays::GoesOn
            | StepSays::Waits(_)
            | StepSays::Mismatched
            | StepSays::Unseen(_)
            | StepSays::RollsBack(_) => blind_for > max_hold,
        }
    }

    /// A step that waits for an approval, for its group or for pods has passed once.
    fn has_passed(&self) -> bool {
        self.status.approval.is_some() || self.has_passed_for_group() || self.has_passed_for_capacity()
    }

    /// A canary that nobody can see goes back; a version that has passed every step stays, and someone must look.
    fn cannot_be_judged(&mut self, version: &VersionRef, message: &str, readings: Vec<RecordedReading>) {
        // Whoever has all requests is judged by its own, wherever others go; and what `increase` estimates is no proof.
        let is_harmless = self.has_all_requests() || (self.counts_by_estimates() && self.ready(version));
        let is_excused = self.is_mismatched() && has_readings(&self.status) && is_harmless;
        if self.status.phase == RolloutPhase::Baking || is_excused {
            self.waiting(HELD_TOO_LONG, message);
            return self.kstatus(KState::Stalled, HELD_TOO_LONG, message);
        }
        self.give_up(version, Fate::Rejected, HELD_TOO_LONG, message, readings);
    }

    /// The strategy does not have this step any more.
    fn leave_unknown_step(&mut self, version: &VersionRef) {
        if self.status.phase == RolloutPhase::Baking {
            return self.leave_unjudged(version);
        }
        let message = format!(
            "{} starts again at weight 0, because its step is no longer in spec.strategy.",
            version.version
        );
        self.prepare(version.clone(), "StrategyChanged", &message);
    }

    fn step_passed(&mut self, version: &VersionRef, then: Then, readings: Vec<RecordedReading>) {
        if then == Then::Approval {
            return self.step_needs_approval(version, None, readings);
        }
        if let Some(pause) = self.pause.clone() {
            let message = format!("The step has passed and waits. {}", pause.why);
            return self.waiting(pause.cause.reason(), &message);
        }
        match then {
            Then::Advance => self.end_step(version, readings),
            Then::Approval => self.step_needs_approval(version, None, readings),
            Then::Pause => {
                let message = format!(
                    "The step has passed and waits for a person: kubectl annotate modelrollout {} {}=\"{}@{}: why\" --overwrite",
                    self.rollout.metadata.name.as_deref().unwrap_or_default(),
                    names::ANNOTATION_PROMOTE,
                    version.version,
                    Place::of(self.status.phase, self.status.weight).unwrap_or(Place::Full)
                );
                if !self.status.conditions.iter().any(|told| told.type_ == AWAITING_PROMOTION) {
                    self.note(Severity::Normal, AWAITING_PROMOTION, &message);
                }
                self.waiting(AWAITING_PROMOTION, &message);
                self.awaits_promotion = Some(message);
            }
        }
    }

    /// Nothing else is left but that someone approves what the step has shown. `by_hand` says who has left the rest out.
    fn step_needs_approval(
        &mut self,
        version: &VersionRef,
        by_hand: Option<String>,
        readings: Vec<RecordedReading>,
    ) {
        let pause = self.pause.clone().filter(|_| by_hand.is_none());
        match (self.consent(version, by_hand.as_deref(), &readings), pause) {
            (Consent::Awaited(awaited), pause) => {
                let pause = pause.map_or_else(String::new, |pause| format!(" {}", pause.why));
                self.waiting(AWAITING_APPROVAL, &format!("{}{pause}", awaited.how));
                self.awaits_approval = Some(awaited);
            }
            (Consent::Given(approved), Some(pause)) => {
                self.waiting(pause.cause.reason(), &format!("{approved} {}", pause.why));
            }
            (Consent::Given(approved), None) => {
                let cause = match by_hand {
                    Some(why) => Cause::ByHand(format!("{why} {approved}")),
                    None => Cause::Approved(approved),
                };
                self.next_step(version, cause, readings);
            }
        }
    }

    fn end_step(&mut self, version: &VersionRef, readings: Vec<RecordedReading>) {
        if self.status.phase == RolloutPhase::Baking {
            if self.smoke_is_outstanding() {
                return self.waiting("Smoke", "The bake has passed and waits for the smoke requests.");
            }
            let message = format!("{} passed its bake.", version.version);
            return self.end_bake("BakePassed", &message, readings);
        }
        let cause = match self.experiment_told() {
            Some(told) => Cause::Won(format!("{} won its experiment, {told}.", version.version)),
            None => Cause::Passed,
        };
        self.next_step(version, cause, readings);
    }

    /// Someone takes the responsibility for what the metrics do not say yet. Pods must be there all the same.
    fn promoted_by_hand(
        &mut self,
        version: &VersionRef,
        command: &Command,
        place: Place,
        then: Then,
        readings: Vec<RecordedReading>,
    ) {
        if !self.ready(version) {
            let message =
                format!("{} is promoted as soon as all its pods are ready and reached.", version.version);
            return self.waiting("PromotionWaits", &message);
        }
        let phase = self.status.phase;
        let message =
            format!("{} was promoted out of {}, {}.", version.version, phase.name(), command.because());
        match (phase, place) {
            (RolloutPhase::Baking, _) => self.end_bake(PROMOTED_BY_HAND, &message, readings),
            (_, Place::Full) if !self.may_take_all(version) => {}
            (_, Place::Full) => self.promote(version, PROMOTED_BY_HAND, &message, readings),
            _ if then == Then::Approval => self.step_needs_approval(version, Some(message), readings),
            (_, Place::Staging | Place::Shadow | Place::Experiment | Place::Step(_) | Place::Baking) => {
                self.next_step(version, Cause::ByHand(message), readings);
            }
        }
    }

    /// Whether it held until now for requests that reject nobody, and does not any more. Whatever it holds for from now on has had no
    /// time yet.
    fn excuse_has_ended(&self, version: &VersionRef, is_blind: bool) -> bool {
        let has_pods = self.ready(version);
        // Pods that come and go put no clock back, unless it has stood for long.
        let was_excused = |status: &ModelRolloutStatus| {
            is_mismatch_told(status) && (was_kept(status) || (has_pods && has_readings(status)))
        };
        let is_excused = self.is_mismatched() && !is_blind && (self.has_all_requests() || has_pods);
        let may_be = self.has_all_requests() || self.counts_by_estimates();
        may_be && self.rollout.status.as_ref().is_some_and(was_excused) && !is_excused
    }

    fn is_mismatched(&self) -> bool {
        self.split == Split::Otherwise
    }

    /// Whether a canary should have all requests.
    fn has_all_requests(&self) -> bool {
        self.status.phase == RolloutPhase::Canary && self.status.weight == Weight::FULL
    }

    /// Whether requests are counted by what `increase` estimates.
    fn counts_by_estimates(&self) -> bool {
        self.rollout.spec.judge.evidence == JudgeEvidence::None
    }

    /// Why the step may not end yet although nothing is wrong; keeps track of since when nothing can be read.
    fn hold(
        &mut self,
        version: &VersionRef,
        judged: &[(Verdict, RecordedReading)],
        step: &StepSays,
        terms: &Terms,
    ) -> Option<String> {
        let (blind, awaited) = (blind(judged, step).map(|why| self.as_told(why)), awaited(judged));
        // The first scrapes of a step take a moment; that is not blindness yet.
        let settled = self.step_age() > self.rollout.spec.prometheus.stale_after.get();
        let now = Time(self.now);
        if self.excuse_has_ended(version, blind.is_some()) {
            self.status.holding_since = None;
            self.status.thawed_at = Some(now.clone());
        }
        let since = self.status.holding_since.clone();
        if let Some(why) = blind.as_ref().filter(|_| settled && since.is_none()) {
            self.note(Severity::Warning, "MetricsUnavailable", &format!("Nothing can be judged: {why}."));
        }
        // Where requests went is as unknown as what became of them, and a version that cannot keep its pods up is not well. One that
        // waits for people or for others has shown what it had to.
        let is_awaited = self.pause.is_some() || self.has_passed();
        let has_pods = self.has_ready_pods(version, self.pods_to_be_ready(version));
        let is_unwell = !self.traffic_accepted() || !has_pods;
        let holds = blind.is_some() || self.is_mismatched() || self.contested() || (is_unwell && !is_awaited);
        self.status.holding_since = since.or(settled.then_some(now)).filter(|_| holds);
        self.note_missing(judged, settled);
        let (truth, reason, message) = match (&blind, &awaited) {
            (Some(why), _) => (Truth::False, "NoReading", why.as_str()),
            (None, Some(_)) => (Truth::True, "AwaitingLabels", "Every trigger has what can be there so far."),
            (None, None) => (Truth::True, "Fresh", "Every trigger has a fresh reading."),
        };
        self.condition(METRICS_AVAILABLE, truth, reason, message);
        if blind.is_some() {
            return blind;
        }
        if self.contested() {
            return Some("its route is contested, see TrafficVerified".into());
        }
        if !self.traffic_accepted() {
            return Some("the data plane has not taken the weights yet".into());
        }
        if !self.ready(version) {
            let trouble = self.endpoints_trouble(version, self.pods_to_be_ready(version));
            return Some(trouble.map_or_else(
                || format!("not all pods of {} are ready", version.version),
                |trouble| trouble.message.trim_end_matches('.').to_owned(),
            ));
        }
        let wanting = match step {
            StepSays::ByClock => self.too_few(version, judged, terms),
            StepSays::Waits(why) => Some(why.clone()),
            StepSays::Mismatched if self.status.phase == RolloutPhase::Shadow => {
                Some(format!("{} gets no copies of the requests that stable gets", version.version))
            }
            StepSays::Mismatched if self.status.phase == RolloutPhase::Baking => {
                Some("the version before still gets requests, see status.observed".to_owned())
            }
            StepSays::Mismatched => Some(format!(
                "{} gets another share of the requests than {} %, see status.observed",
                version.version, self.status.weight
            )),
            StepSays::Ends | StepSays::GoesOn | StepSays::Unseen(_) | StepSays::RollsBack(_) => None,
        };
        wanting.or(awaited)
    }

    /// What was told before, if only numbers and names differ that a server makes up for each answer: a text that changes with
    /// every look would be written with every look.
    fn as_told(&self, why: String) -> String {
        let told = self.told_before(METRICS_AVAILABLE).filter(|told| told.status == "False");
        told.map_or_else(|| why.clone(), |told| as_before(&told.message, &why).to_owned())
    }

    /// What a condition said before, of the spec as it is.
    pub(super) fn told_before(&self, type_: &str) -> Option<&Condition> {
        let mut told = self.rollout.status.iter().flat_map(|before| &before.conditions);
        told.find(|told| told.type_ == type_ && told.observed_generation == self.rollout.metadata.generation)
    }

    /// By plain thresholds a step needs its fewest requests when its time is over.
    fn too_few(
        &self,
        version: &VersionRef,
        judged: &[(Verdict, RecordedReading)],
        terms: &Terms,
    ) -> Option<String> {
        let answered = judged.iter().filter_map(|(verdict, _)| match verdict {
            Verdict::Pass { step_requests } => *step_requests,
            Verdict::Breach | Verdict::Hold(..) | Verdict::AwaitsLabels(_) => None,
        });
        let answered = answered.reduce(f64::min);
        let waited = self.accepted_age().is_some_and(|age| age >= terms.duration.get());
        let least = terms.min_requests;
        match answered {
            // Those that count them may have too few answers to say anything yet.
            None if least > 0 && awaited(judged).is_none() => Some(format!(
                "none of its triggers counts requests, and {least} are asked for: name a counter in value.requests, or add a trigger without labelDelay that counts them"
            )),
            Some(answered) if waited && answered < f64::from(least) => {
                Some(format!("{} answered fewer than {least} requests in this step", version.version))
            }
            None | Some(_) => None,
        }
    }
}

/// Why nothing can be said about some trigger, if that is so.
fn blind(judged: &[(Verdict, RecordedReading)], step: &StepSays) -> Option<String> {
    let none = match step {
        StepSays::Unseen(why) => Some((*why).to_owned()),
        StepSays::ByClock
        | StepSays::Ends
        | StepSays::GoesOn
        | StepSays::Waits(_)
        | StepSays::Mismatched
        | StepSays::RollsBack(_) => judged.is_empty().then(|| "there are no triggers".to_owned()),
    };
    none.or(judged.iter().find_map(|(verdict, record)| match verdict {
        Verdict::Hold(_, why) => Some(format!("{}: {why}", record.metric)),
        Verdict::Pass { .. } | Verdict::Breach | Verdict::AwaitsLabels(_) => None,
    }))
}

/// `before`, where `now` says the same of the same metric.
pub(super) fn as_before<'a>(before: &'a str, now: &'a str) -> &'a str {
    let metric = |text: &'a str| text.split(": ").next();
    if metric(before) == metric(now) && wording(before).eq(wording(now)) { before } else { now }
}

/// The words of a text, without those that are counted, timed or drawn.
fn wording(text: &str) -> impl Iterator<Item = &str> {
    let is_drawn = |word: &str| word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(move |word| !word.bytes().any(|byte| byte.is_ascii_digit()) && !is_drawn(word))
}

/// Which labels the step still needs, if it does.
fn awaited(judged: &[(Verdict, RecordedReading)]) -> Option<String> {
    judged.iter().find_map(|(verdict, _)| match verdict {
        Verdict::AwaitsLabels(why) => Some(why.clone()),
        Verdict::Pass { .. } | Verdict::Breach | Verdict::Hold(..) => None,
    })
}
