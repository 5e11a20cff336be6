//! Verdicts: what the state and the step say now.
//!
//! Called at the end of each [`super::Judge::fold`]. A rollback is for good; everything else is asked again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    estimate::Estimate,
    policy::{Advance, Inconclusive},
    rules::{Judge, MetricRules},
    state::{AdvanceState, MetricState, SCHEMA, State},
    tick::{Arms, Step},
    winner::Winner,
};

/// What the controller should do.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Take the candidate out of traffic.
    Rollback(Rollback),
    /// End the step.
    Advance,
    /// Wait, and tell why; the step's clock stands still unless the reason is [`Hold::Inconclusive`].
    Hold(Hold),
    /// Wait: the step takes its time.
    Progressing,
    /// Take the candidate out of traffic: the experiment showed that it is worse.
    Lost,
    /// Take the candidate out of traffic: the experiment is over and showed no winner.
    NoWinner,
}

/// Why a candidate was rolled back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// The metric that said most.
    pub metric: String,
    /// Its test that said most.
    pub test: TestName,
    /// End of the tick that decided, in milliseconds since the epoch.
    pub at_ms: i64,
    /// How many times worse than stable the candidate is, as far as it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
}

/// A test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TestName {
    /// Against stable.
    Relative,
    /// Against a threshold.
    Absolute,
    /// Of means.
    Mean,
    /// Of pairs in shadow.
    Paired,
    /// Of answers to the same request in shadow.
    Agreement,
    /// The step reached its longest duration.
    Duration,
}

/// Why nothing can be said.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    /// The state was written by another version of Anneal.
    UnknownSchema(u32),
    /// The state belongs to a policy with other metrics.
    AnotherPolicy,
    /// This metric has no usable data.
    NoData {
        /// Which.
        metric: String,
    },
    /// The candidate gets no requests.
    NoTraffic,
    /// The candidate gets another share of requests than it should.
    TrafficSplitMismatch {
        /// What it should get, from 0 to 1.
        wanted: f64,
        /// What it gets, from 0 to 1.
        share: f64,
    },
    /// The step reached its longest duration.
    Inconclusive,
}

impl Judge {
    /// What `state` says about `step`, in which it is.
    pub fn verdict(&self, state: &State, step: &Step) -> Verdict {
        if state.schema != SCHEMA {
            return Verdict::Hold(Hold::UnknownSchema(state.schema));
        }
        if !self.fits(state) {
            return Verdict::Hold(Hold::AnotherPolicy);
        }
        if let Some(rollback) = &state.rollback {
            return Verdict::Rollback(rollback.clone());
        }
        if let Some(hold) = self.hold(state) {
            return Verdict::Hold(hold);
        }
        if (state.step.index, state.step.began_ms) != (step.index, step.began_ms) {
            return Verdict::Progressing;
        }
        match self.winner(state, step) {
            Some(Winner::Candidate) => return Verdict::Advance,
            Some(Winner::Stable) => return Verdict::Lost,
            Some(Winner::Inconclusive) => return Verdict::NoWinner,
            Some(Winner::Undecided) => return Verdict::Progressing,
            None => {}
        }
        let age = self.age(state);
        // What was shown long ago, and waits for people, is no pass while nothing can be counted.
        let sampled = self.has_enough(state, step) && blind(state).is_none();
        if age >= step.min_ms && sampled && self.may_end(state, step, age) {
            return Verdict::Advance;
        }
        if step.max_ms.is_none_or(|max| age < max) {
            return Verdict::Progressing;
        }
        match self.policy.inconclusive {
            Inconclusive::Hold => Verdict::Hold(Hold::Inconclusive),
            Inconclusive::Advance if sampled => Verdict::Advance,
            Inconclusive::Advance => Verdict::Hold(Hold::Inconclusive),
            Inconclusive::Rollback => Verdict::Rollback(Rollback {
                metric: String::new(),
                test: TestName::Duration,
                at_ms: self.ended(state),
                estimate: None,
            }),
        }
    }

    /// How long the step has lasted, in milliseconds of ticks that count.
    pub fn age(&self, state: &State) -> i64 {
        i64::from(state.step.ticks).saturating_mul(self.policy.tick_ms)
    }

    /// Whether every metric has counted what the step asks for: requests, or labels of them. Where nothing is asked nothing has.
    pub(super) fn has_enough(&self, state: &State, step: &Step) -> bool {
        let mut asked = state.metrics.iter().zip(&self.metrics).filter(|(metric, _)| metric.asked);
        state.metrics.iter().any(|metric| metric.asked)
            && asked.all(|(metric, rules)| {
                let fewest = rules.labels.map_or(step.min_requests, |labels| labels.fewest);
                metric.step_requests >= fewest
            })
    }

    /// Metrics that were judged for longer than the policy planned. What breaks from now on is found later than planned.
    pub fn overdue<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a str> {
        let planned = self.policy.horizon_ticks;
        state.metrics.iter().filter(move |metric| metric.started > planned).map(|metric| metric.name.as_str())
    }

    fn hold(&self, state: &State) -> Option<Hold> {
        let blind = |metric: &&MetricState| metric.blind >= self.policy.blind_after;
        if let Some(metric) = asked(state).find(blind) {
            return Some(Hold::NoData { metric: metric.name.clone() });
        }
        // What was under way when nobody asked any more says nothing.
        let nobody_asks = [state.idle, state.stable_idle].iter().all(|idle| *idle >= self.policy.blind_after);
        if nobody_asks && state.split.asks_for_all() {
            return Some(Hold::NoTraffic);
        }
        // A candidate that gets nothing of what stable gets is no quiet night.
        if let Some(share) = state.split.mismatch(self.policy.split_design_effect) {
            return Some(Hold::TrafficSplitMismatch { wanted: state.split.weight(), share });
        }
        (state.idle >= self.policy.blind_after).then_some(Hold::NoTraffic)
    }

    fn may_end(&self, state: &State, step: &Step, age: i64) -> bool {
        match (self.policy.advance, step.arms) {
            (Advance::Interval, _) | (Advance::Evidence(_), Arms::CandidateAlone) => age >= step.interval_ms,
            (Advance::Evidence(_), Arms::Both) => state
                .metrics
                .iter()
                .zip(&self.metrics)
                .filter(|(metric, _)| metric.asked)
                // What cannot be compared with stable has its interval.
                .all(|(metric, rules)| self.is_noninferior(metric, rules).unwrap_or(age >= step.interval_ms)),
        }
    }

    /// Whether a metric is shown to be below its limit; nothing if it has none. Without a bad event in either arm nothing
    /// can be compared, and so many good ones show that the share is below the metric's own bound.
    pub(super) fn is_noninferior(&self, metric: &MetricState, rules: &MetricRules) -> Option<bool> {
        let AdvanceState { best, bad, .. } = metric.advance?;
        let needed = -libm::log(self.policy.beta);
        let spotless = bad == Some(0) && metric.step_bad == 0 && metric.stable_bad == 0;
        let below = rules
            .bound
            .as_ref()
            .filter(|_| spotless)
            .is_some_and(|bound| bound.ln_below(metric.step_requests) * rules.tempering >= needed);
        Some(below || best.get() >= needed)
    }
}

/// The metrics that the present step judges by.
fn asked(state: &State) -> impl Iterator<Item = &MetricState> {
    state.metrics.iter().filter(|metric| metric.asked)
}

/// A metric whose last tick could not be counted.
fn blind(state: &State) -> Option<&MetricState> {
    asked(state).find(|metric| metric.blind > 0)
}

#[cfg(test)]
mod tests;
