//! Smoke: requests with expected answers, to the version that has just taken all traffic.
//!
//! Called by [`super::plan`] on every tick of a step of 100 % and of a bake, before metrics count. The version before stays warm
//! until every answer is as expected. One wrong answer goes back at once; silence has some tries, and then goes back too. What
//! passed in the step is not asked again in the bake.

use anneal_crds::{
    VersionRef, Weight,
    common::shorten,
    model_rollout::{ExpectedValue, RolloutPhase, Smoke, SmokeRequest, Trial, TrialState},
    names,
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{
    command::Command,
    draft::{Draft, RECHECK},
    probe::{self, AGAIN_AFTER, Door, MAX_WORDS, Probe, ProbeAnswer, Sent},
    transition::{Fate, PROMOTED_BY_HAND},
};
use crate::{condition::KState, plan::Severity, trouble::Trouble};

/// Reason of a version that did not answer as expected.
const SMOKE_FAILED: &str = "SmokeFailed";

/// What smoke leaves to decide on a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// Nothing.
    Decided,
    /// Everything else.
    Open,
}

/// What the answers say.
enum Seen {
    AsExpected,
    Wrong(String),
    Silent(String),
}

impl Draft<'_> {
    /// What is sent now to the version that has all requests.
    pub(super) fn smoke_requests(&self, version: &VersionRef) -> Vec<Probe> {
        let smoke = self.rollout.spec.strategy.smoke.as_ref().filter(|_| self.smoke_is_due(version));
        let Some(smoke) = smoke else { return vec![] };
        let probe = |request: &SmokeRequest| {
            let sent = Sent { path: &request.path, body: request.body.as_ref(), timeout: smoke.timeout };
            self.probe(version, Door::Live, &sent)
        };
        smoke.requests.iter().filter_map(probe).collect()
    }

    fn smoke_is_due(&self, version: &VersionRef) -> bool {
        let by_hand = self.promotion(version).is_some();
        let due = self.status.smoke.as_ref().is_some_and(|trial| match trial.state {
            TrialState::Running => trial.number == 1 || self.age(&trial.started_at) >= AGAIN_AFTER,
            TrialState::Passed | TrialState::Failed => false,
        });
        due && !by_hand && self.status.waiting_rollback.is_none() && !self.comes_back(version)
    }

    /// Whether the stable version has not shown yet what smoke asks for.
    pub(super) fn smoke_is_outstanding(&self) -> bool {
        let state = self.status.smoke.as_ref().map(|trial| trial.state);
        self.rollout.spec.strategy.smoke.is_some() && state != Some(TrialState::Passed)
    }

    /// The trial of a version that takes `weight` of all requests: it has one as soon as that is all of them, and what it has passed
    /// by then is not asked again.
    pub(super) fn smoke_trial(&self, weight: Weight) -> Option<Trial> {
        self.rollout.spec.strategy.smoke.as_ref().filter(|_| weight == Weight::FULL)?;
        let passed = self.status.smoke.clone().filter(|trial| trial.state == TrialState::Passed);
        Some(passed.filter(|_| self.candidate_has_all()).unwrap_or_else(|| self.first_try()))
    }

    /// Whether the trial in the status is that of the candidate.
    fn candidate_has_all(&self) -> bool {
        self.status.phase == RolloutPhase::Canary && self.status.weight == Weight::FULL
    }

    /// A candidate is asked as soon as it has all requests.
    pub(super) fn smoke_of_candidate(&mut self, candidate: &VersionRef) -> Tick {
        if self.candidate_has_all() { self.smoke(candidate) } else { Tick::Open }
    }

    /// What a candidate that leaves has answered is not what stable has.
    pub(super) fn forget_smoke_of_candidate(&mut self) {
        let is_its = self.candidate_has_all();
        self.status.smoke.take_if(|_| is_its);
    }

    /// The answers come before the metrics, and without a bake nothing else counts.
    pub(super) fn smoke(&mut self, version: &VersionRef) -> Tick {
        let Some(smoke) = self.rollout.spec.strategy.smoke.clone() else {
            self.status.smoke = None;
            return Tick::Open;
        };
        if self.status.waiting_rollback.is_some() {
            return Tick::Open;
        }
        let first = self.first_try();
        let trial = self.status.smoke.get_or_insert(first).clone();
        match trial.state {
            TrialState::Running => match seen(&smoke, self.snapshot.probed) {
                Some(Seen::AsExpected) => self.smoke_passed(&smoke, &trial),
                Some(Seen::Wrong(why)) => return self.smoke_failed(version, trial, &why),
                Some(Seen::Silent(why)) if trial.number >= smoke.tries => {
                    let why = format!("{why}, {} of {} times", trial.number, smoke.tries);
                    return self.smoke_failed(version, trial, &why);
                }
                Some(Seen::Silent(why)) => self.smoke_again(trial, &why),
                None if self.unreachable(version).is_some() => self.wake_at_latest(RECHECK),
                // Nothing is asked before it is recorded.
                None => self.wake_at_latest(SignedDuration::from_secs(1)),
            },
            TrialState::Passed | TrialState::Failed => {}
        }
        Tick::Open
    }

    fn smoke_passed(&mut self, smoke: &Smoke, trial: &Trial) {
        let message = format!("{} requests were answered as expected.", smoke.requests.len());
        self.note(Severity::Normal, "SmokePassed", &message);
        self.status.smoke =
            Some(Trial { state: TrialState::Passed, message: Some(message), ..trial.clone() });
    }

    fn smoke_again(&mut self, trial: Trial, why: &str) {
        let message = Some(shorten(why, MAX_WORDS).into_owned());
        let number = trial.number.saturating_add(1);
        self.status.smoke = Some(Trial { number, started_at: Time(self.now), message, ..trial });
        self.note(Severity::Warning, "SmokeUnanswered", &format!("{why}. It is sent again."));
        self.wake_at_latest(AGAIN_AFTER);
    }

    /// The version before takes all requests back. Where there is none, the version stays, and someone must look.
    fn smoke_failed(&mut self, version: &VersionRef, trial: Trial, why: &str) -> Tick {
        let message = Some(shorten(why, 2 * MAX_WORDS).into_owned());
        self.status.smoke = Some(Trial { state: TrialState::Failed, message, ..trial });
        let message = format!("{} took all requests, and {why}.", version.version);
        if self.candidate_has_all() || self.way_back().is_someone() {
            self.give_up(version, Fate::Rejected, SMOKE_FAILED, &message, vec![]);
        } else {
            self.end_bake(SMOKE_FAILED, &message, vec![]);
            self.warn();
        }
        Tick::Decided
    }

    /// A version whose metrics do not count, because there is no bake or nothing to go back to, has only the smoke
    /// requests to answer.
    pub(super) fn leave_unjudged(&mut self, stable: &VersionRef) {
        let version = &stable.version;
        let by_hand = self.promotion(stable);
        let pause = self.pause.clone().filter(|_| by_hand.is_none());
        let (reason, message) = match (by_hand, &self.rollout.spec.strategy.smoke) {
            (Some((command, _)), _) => {
                (PROMOTED_BY_HAND, format!("{version} was promoted out of Baking, {}.", command.because()))
            }
            (None, Some(_)) if self.smoke_is_outstanding() => {
                let message =
                    format!("{version} takes all requests and has yet to answer the smoke requests.");
                return self.kstatus(KState::Reconciling, "Smoke", &message);
            }
            (None, Some(_)) => ("SmokePassed", format!("{version} answered all smoke requests as expected.")),
            (None, None) => {
                ("StrategyChanged", format!("{version} serves; spec.strategy asks nothing more of it."))
            }
        };
        match pause {
            Some(pause) => self.waiting(pause.cause.reason(), &format!("{message} {}", pause.why)),
            None => self.end_bake(reason, &message, vec![]),
        }
    }

    /// It serves anyhow: what it answers is asked again.
    pub(super) fn smoke_anew(&mut self, stable: &VersionRef, retry: &Command) {
        let message =
            format!("{} must answer the smoke requests once more, {}.", stable.version, retry.because());
        self.status.candidate = None;
        self.status.smoke = Some(self.first_try());
        self.enter(RolloutPhase::Baking, Weight::ZERO, "Retried", &message, vec![]);
    }

    /// What the stable version did not answer as expected, where nothing could be gone back to; none if nothing is
    /// expected any more.
    pub(super) fn smoke_trouble(&self) -> Option<Trouble> {
        self.rollout.spec.strategy.smoke.as_ref()?;
        let version = &self.status.stable.as_ref()?.version;
        let trial = self.status.smoke.as_ref().filter(|trial| trial.state == TrialState::Failed)?;
        let said = trial.message.as_deref().unwrap_or_default();
        let message = format!(
            "{version} did not answer as expected, and there was no version to go back to: {said}. Retrain, or correct what is wrong with it or with spec.strategy.smoke and send the requests again: kubectl annotate modelrollout {} {}=\"{version}: why\" --overwrite",
            self.rollout.metadata.name.as_deref().unwrap_or_default(),
            names::ANNOTATION_RETRY,
        );
        Some(Trouble { reason: SMOKE_FAILED.to_owned(), message })
    }
}

/// What the answers say; none if there are none. Something wrong comes before something missing.
fn seen(smoke: &Smoke, answers: &[ProbeAnswer]) -> Option<Seen> {
    if answers.len() != smoke.requests.len() {
        return None;
    }
    let mut silent = None;
    for (request, answer) in smoke.requests.iter().zip(answers) {
        let name = request.name.as_ref().unwrap_or(&request.path);
        match answer {
            ProbeAnswer::Silent(why) => {
                silent = silent.or(Some(format!("`{name}` got no answer: {}", why.trim_end_matches('.'))));
            }
            ProbeAnswer::Answered { status, body } => {
                if let Some(why) = wrong(request, *status, body) {
                    return Some(Seen::Wrong(format!("`{name}` {why}")));
                }
            }
        }
    }
    Some(silent.map_or(Seen::AsExpected, Seen::Silent))
}

fn wrong(request: &SmokeRequest, status: u16, body: &[u8]) -> Option<String> {
    let expect = &request.expect;
    if status != expect.status {
        return Some(format!(
            "was answered {status}, and {} is expected: {}",
            expect.status,
            probe::words(body)
        ));
    }
    if expect.json.is_empty() {
        return None;
    }
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return Some(format!("was answered what is no JSON: {}", probe::words(body)));
    };
    expect.json.iter().find_map(|expected| {
        let found = answer.pointer(&expected.pointer);
        if found.is_some_and(|found| is_as(found, expected)) {
            return None;
        }
        let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
        let wanted = expected.value.to_string();
        let give = expected.tolerance.map_or_else(String::new, |tolerance| format!(" within {tolerance}"));
        let (found, wanted) = (shorten(&found, MAX_WORDS), shorten(&wanted, MAX_WORDS));
        Some(format!("was answered {found} at `{}`, and {wanted}{give} is expected", expected.pointer))
    })
}

/// Numbers are compared as numbers: 1 is 1.0.
fn is_as(found: &Value, expected: &ExpectedValue) -> bool {
    match (found.as_f64(), expected.value.as_f64(), expected.tolerance) {
        (Some(found), Some(wanted), tolerance) => (found - wanted).abs() <= tolerance.unwrap_or(0.0),
        (_, _, Some(_)) => false,
        (_, _, None) => *found == expected.value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_what_is_expected_or_is_not() {
        let table = [
            (json!(0.75), json!(0.75), None, true),
            (json!(1), json!(1.0), None, true),
            (json!(0.76), json!(0.75), None, false),
            (json!(0.76), json!(0.75), Some(0.011), true),
            (json!(0.77), json!(0.75), Some(0.011), false),
            (json!("yes"), json!("yes"), None, true),
            (json!("yes"), json!("yes"), Some(0.1), false),
            (json!(null), json!(0), Some(9.0), false),
            (json!([1, 2]), json!([1, 2]), None, true),
            (json!([1, 2]), json!([1]), None, false),
        ];
        for (found, value, tolerance, good) in table {
            let expected = ExpectedValue { pointer: "/a".into(), value: value.clone(), tolerance };
            assert_eq!(is_as(&found, &expected), good, "{found} {value} {tolerance:?}");
        }
    }
}
