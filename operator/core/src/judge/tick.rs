//! One tick: how its counts become evidence in the [`State`].
//!
//! Called by [`super::Judge::fold`], which makes the counts from raw samples, and by the bench, which draws them. A tick
//! can be folded only once: the state counts them. Whether a tick is left out is decided without looking at bad events,
//! so leaving it out costs no validity.

use serde::{Deserialize, Serialize};

use super::{
    agreement::Compared,
    estimate::Estimate,
    evidence,
    means::{ArmSum, MeanState},
    paired::Pairs,
    policy::Rule,
    relative::ln_noninferior,
    rules::{Judge, MetricRules},
    state::{AdvanceState, MetricState, State, StepState},
    verdict::{Rollback, TestName},
};

/// Events of one arm in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCount {
    /// All of them.
    pub requests: u64,
    /// The bad ones; at most `requests`.
    pub bad: u64,
}

impl ArmCount {
    /// The good ones.
    pub(super) const fn good(self) -> u64 {
        self.requests.saturating_sub(self.bad)
    }
}

/// Events of both arms in one tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Of the candidate.
    pub candidate: ArmCount,
    /// Of the stable version.
    pub stable: ArmCount,
}

/// What one tick has for one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Counts of both arms.
    Both {
        /// For a rollback.
        shares: Shares,
        /// For advancing: the same, or with more counted as bad where a histogram has no bucket at the threshold.
        strict: Shares,
    },
    /// There is no stable arm; counts of the candidate.
    Alone(ArmCount),
    /// Sums of values.
    Means {
        /// Of the candidate.
        candidate: ArmSum,
        /// Of the stable version, if there is a stable arm.
        stable: Option<ArmSum>,
    },
    /// Pairs of answers in shadow whose labels came.
    Pairs(Pairs),
    /// Requests in shadow that both versions answered.
    Compared(Compared),
    /// Nothing to count.
    Missing(Missing),
}

impl Outcome {
    /// Requests that the candidate answered, as far as this tells.
    const fn requests(&self) -> Option<u64> {
        match self {
            Self::Both { shares, .. } => Some(shares.candidate.requests),
            Self::Alone(candidate) => Some(candidate.requests),
            Self::Means { candidate, .. } => Some(candidate.count),
            // Not all answers are compared, and labels come when they come: a tick without any is not one without traffic.
            Self::Pairs(_) | Self::Compared(_) | Self::Missing(_) => None,
        }
    }

    /// Requests that stable answered beside it, as far as this tells.
    const fn requests_of_stable(&self) -> Option<u64> {
        match self {
            Self::Both { shares, .. } => Some(shares.stable.requests),
            Self::Means { stable: Some(stable), .. } => Some(stable.count),
            Self::Means { stable: None, .. }
            | Self::Alone(_)
            | Self::Pairs(_)
            | Self::Compared(_)
            | Self::Missing(_) => None,
        }
    }

    /// How its requests were divided, if there are two arms or requests `beside` the only one.
    fn division(&self, beside: Option<u64>) -> Option<Shares> {
        let requests = |requests| ArmCount { requests, bad: 0 };
        match self {
            Self::Both { shares, .. } => Some(*shares),
            Self::Means { candidate, stable: Some(stable) } => {
                Some(Shares { candidate: requests(candidate.count), stable: requests(stable.count) })
            }
            Self::Means { stable: None, .. } | Self::Alone(_) => {
                Some(Shares { candidate: requests(self.requests()?), stable: requests(beside?) })
            }
            Self::Pairs(_) | Self::Compared(_) | Self::Missing(_) => None,
        }
    }
}

/// Why a tick has nothing for a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No such series.
    NoSeries,
    /// Fewer than half of an arm's pods were scraped.
    Gap,
    /// A number was not finite, fell below zero, or there were more bad events than events.
    Invalid,
    /// No bucket lies above the latency threshold.
    NoBucket,
    /// Requests were answered, and none of the answers was compared.
    NoPairs,
    /// The weight changed within the tick.
    WeightChanged,
    /// All pods of an arm became ready only just now.
    WarmingUp,
    /// This step does not judge by it.
    NotAsked,
}

/// Who answers in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arms {
    /// The candidate, and the stable version beside it.
    Both,
    /// The candidate alone: only what can be said without a comparison is.
    CandidateAlone,
}

/// The step that a rollout is in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Which; another one, or the same one begun anew, starts another clock.
    pub index: u32,
    /// Who answers in it.
    pub arms: Arms,
    /// Since when it gets its traffic, in milliseconds since the epoch.
    pub began_ms: i64,
    /// Its shortest duration.
    pub min_ms: i64,
    /// Its duration when it advances by interval.
    pub interval_ms: i64,
    /// Its longest duration.
    pub max_ms: Option<i64>,
    /// Requests that the candidate must have had in it, for every metric.
    pub min_requests: u64,
}

/// One tick: what every metric of the policy has, in its order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tick<'a> {
    /// The candidate's share of traffic, from 0 to 1, if it was one throughout.
    pub weight: Option<f64>,
    /// One for each metric; what is not there is missing.
    pub outcomes: &'a [Outcome],
    /// Requests of a version that should get none, or next to none; nothing where nobody counts them.
    pub beside: Option<u64>,
}

/// ln of the number of alternatives of each test, which share its start weight.
const LN_RELATIVE: f64 = 1.945_910_149_055_313_2;
const LN_ABSOLUTE: f64 = 1.791_759_469_228_055;

impl Judge {
    /// Folds the next tick into `state`. After a rollback ticks are counted and not judged.
    pub fn fold_tick(&self, state: &mut State, step: &Step, tick: &Tick<'_>) {
        let start_ms = self.ended(state);
        state.ticks = state.ticks.saturating_add(1);
        if state.rollback.is_some() || !self.fits(state) {
            return;
        }
        let in_step = start_ms >= step.began_ms;
        if in_step && (state.step.index, state.step.began_ms) != (step.index, step.began_ms) {
            self.enter(state, step);
        }
        let (mut counted, mut requests, mut split) = (true, None, tick.weight);
        let mut of_stable = None;
        if split.is_none() {
            state.split.count_anew();
            state
                .metrics
                .iter_mut()
                .filter_map(|metric| metric.mean.as_mut())
                .for_each(MeanState::divide_anew);
        }
        let of_requests = tick.outcomes.iter().zip(&self.metrics).filter(|(_, rules)| rules.labels.is_none());
        let answered = of_requests.filter_map(|(outcome, _)| outcome.requests()).max();
        for (index, (metric, rules)) in state.metrics.iter_mut().zip(&self.metrics).enumerate() {
            let outcome = tick.outcomes.get(index).copied().unwrap_or(Outcome::Missing(Missing::NoSeries));
            let outcome = if nothing_compared(outcome, answered) {
                Outcome::Missing(Missing::NoPairs)
            } else {
                outcome
            };
            match outcome {
                Outcome::Missing(Missing::NotAsked) => {
                    metric.asked = false;
                    see(metric);
                    continue;
                }
                Outcome::Missing(why)
                    if why != Missing::Invalid && self.may_be_silent(rules, step, start_ms) =>
                {
                    see(metric);
                }
                Outcome::Missing(why) => {
                    counted = false;
                    miss(metric, why);
                }
                // Labels that are early for their requests are not like the others.
                Outcome::Both { .. }
                | Outcome::Alone(_)
                | Outcome::Means { .. }
                | Outcome::Pairs(_)
                | Outcome::Compared(_)
                    if rules.labels.is_some_and(|labels| !labels.are_of(step, start_ms)) =>
                {
                    see(metric);
                }
                Outcome::Both { .. }
                | Outcome::Alone(_)
                | Outcome::Means { .. }
                | Outcome::Pairs(_)
                | Outcome::Compared(_) => {
                    self.weigh(metric, rules, outcome, in_step);
                }
            }
            metric.asked = true;
            // Labels that arrive are no requests that were sent.
            if rules.labels.is_some() {
                continue;
            }
            requests = requests.max(outcome.requests());
            of_stable = of_stable.max(outcome.requests_of_stable()).max(tick.beside);
            // One metric that counts all requests is enough.
            if let (Some(weight), Some(shares)) = (split, outcome.division(tick.beside)) {
                state.split.add(weight, &shares, self.policy.split_design_effect);
                split = None;
            }
        }
        if split.is_some() && requests.is_some_and(|requests| requests > 0) {
            state.split.miss(self.policy.blind_after);
        }
        count_idle(&mut state.idle, requests);
        count_idle(&mut state.stable_idle, of_stable);
        if counted && in_step && state.idle < self.policy.blind_after {
            state.step.ticks = state.step.ticks.saturating_add(1);
            self.look(state, step);
            self.keep_win(state, step);
        }
        state.rollback = self.decide(state);
    }

    /// End of the last folded tick, in milliseconds since the epoch.
    pub fn ended(&self, state: &State) -> i64 {
        state.began_ms.saturating_add(self.policy.tick_ms.saturating_mul(i64::from(state.ticks)))
    }

    /// How many times worse than stable each metric is, as far as it can be told, in the order of the policy.
    pub fn estimates<'a>(
        &'a self,
        state: &'a State,
    ) -> impl Iterator<Item = (&'a MetricState, Option<Estimate>)> {
        let estimate = |(metric, rules): (&'a MetricState, &MetricRules)| {
            (metric, metric.tally.estimate(1.0 / rules.tempering))
        };
        state.metrics.iter().zip(&self.metrics).map(estimate)
    }

    /// Another step begins, or the same one anew. An experiment goes on where it was: to begin it again would be another chance
    /// for a winner.
    fn enter(&self, state: &mut State, step: &Step) {
        if self.experiment(step.index).is_some() && state.step.index == step.index {
            state.step.began_ms = step.began_ms;
        } else {
            enter(state, step);
            self.begin_looks(state);
        }
    }

    /// Whether nothing need be there of a metric, because its labels come later.
    fn may_be_silent(&self, rules: &MetricRules, step: &Step, start_ms: i64) -> bool {
        let lookback_ms = self.policy.lookback_ms;
        rules.labels.is_some_and(|labels| labels.may_be_silent(step, start_ms, lookback_ms))
    }

    /// Everything is evidence; for the step only what is `of_step` counts, and not what comes while its weights are not taken.
    fn weigh(&self, metric: &mut MetricState, rules: &MetricRules, outcome: Outcome, of_step: bool) {
        match outcome {
            Outcome::Both { shares, strict } => self.compare(metric, rules, &shares, &strict, of_step),
            Outcome::Alone(candidate) => self.alone(metric, rules, candidate, of_step),
            Outcome::Means { candidate, stable } => differ(metric, rules, candidate, stable, of_step),
            Outcome::Pairs(pairs) => pair(metric, pairs, of_step),
            Outcome::Compared(compared) => agree(metric, compared, of_step),
            Outcome::Missing(_) => {}
        }
    }

    fn compare(
        &self,
        metric: &mut MetricState,
        rules: &MetricRules,
        shares: &Shares,
        strict: &Shares,
        of_step: bool,
    ) {
        let tempered = |ln_ratio: f64| ln_ratio * rules.tempering;
        let start = evidence::ln_start(metric.started, self.policy.horizon_ticks);
        if let (Some(weights), Some(test)) = (&mut metric.relative, &rules.relative) {
            let start = start - LN_RELATIVE;
            evidence::step(weights, start, &test.ln_ratios(shares).map(tempered));
        }
        if let (Some(state), Some(ln_limit), true) = (&mut metric.advance, rules.ln_limit, of_step) {
            let bad = strict.candidate.bad.saturating_add(strict.stable.bad);
            state.add(tempered(ln_noninferior(strict, ln_limit)), bad);
        }
        if let (Some(weights), Some(test)) = (&mut metric.absolute, &rules.absolute) {
            let start = start - LN_ABSOLUTE;
            evidence::step(weights, start, &test.ln_own(shares).map(tempered));
        }
        metric.tally.add(shares);
        if of_step {
            metric.stable_requests = metric.stable_requests.saturating_add(shares.stable.requests);
            metric.stable_bad = metric.stable_bad.saturating_add(shares.stable.bad);
        }
        count(metric, shares.candidate, of_step);
    }

    fn alone(&self, metric: &mut MetricState, rules: &MetricRules, candidate: ArmCount, of_step: bool) {
        if let (Some(weights), Some(test)) = (&mut metric.absolute, &rules.absolute) {
            let start = evidence::ln_start(metric.started, self.policy.horizon_ticks) - LN_ABSOLUTE;
            let ln_ratios = test.ln_ratios(candidate).map(|ln_ratio| ln_ratio * rules.tempering);
            evidence::step(weights, start, &ln_ratios);
        }
        count(metric, candidate, of_step);
    }

    /// Whether the weighted mean of all tests rolls back now.
    fn decide(&self, state: &State) -> Option<Rollback> {
        let (mut all, mut most) = (0.0, None::<(f64, &MetricState, &MetricRules, TestName)>);
        for (metric, rules) in state.metrics.iter().zip(&self.metrics) {
            let unspent = evidence::unspent(metric.started, self.policy.horizon_ticks);
            let relative = metric.relative.as_ref().map(|weights| evidence::value(weights, unspent));
            let absolute = metric.absolute.as_ref().map(|weights| evidence::value(weights, unspent));
            let (worse, beyond) = self.mean_values(metric, rules).unzip();
            let in_pairs = ln_of_pairs(metric, rules.rule);
            let in_pairs = in_pairs.map(|(ln, test)| (libm::exp((ln * rules.tempering).min(700.0)), test));
            for (value, test) in [
                (relative, TestName::Relative),
                (absolute, TestName::Absolute),
                (worse, TestName::Mean),
                (beyond, TestName::Absolute),
            ]
            .into_iter()
            .filter_map(|(value, test)| Some((value?, test)))
            .chain(in_pairs)
            {
                all += self.weight * value;
                if most.is_none_or(|(highest, ..)| value > highest) {
                    most = Some((value, metric, rules, test));
                }
            }
        }
        let (_, metric, rules, test) = most.filter(|_| all >= self.threshold)?;
        Some(Rollback {
            metric: metric.name.clone(),
            test,
            at_ms: self.ended(state),
            estimate: metric.tally.estimate(1.0 / rules.tempering),
        })
    }

    /// The evidence of a mean against stable, and against its bound.
    fn mean_values(&self, metric: &MetricState, rules: &MetricRules) -> Option<(f64, f64)> {
        let Rule::Mean(rule) = &rules.rule else { return None };
        let (state, alpha) = (metric.mean?, self.alpha_of_a_test());
        Some((state.worse(rule, alpha), state.beyond(rule, alpha)))
    }
}

/// ln of the evidence of answers to the same requests, where a metric is made of those.
fn ln_of_pairs(metric: &MetricState, rule: Rule) -> Option<(f64, TestName)> {
    match rule {
        Rule::Paired { most } => Some((metric.pairs?.ln_worse(most), TestName::Paired)),
        Rule::Agreement { most } => Some((metric.compared?.ln_differs(most), TestName::Agreement)),
        Rule::Share { .. } | Rule::Primary { .. } | Rule::Secondary { .. } | Rule::Mean(_) => None,
    }
}

/// Whether no answer was compared although there were some.
fn nothing_compared(outcome: Outcome, answered: Option<u64>) -> bool {
    matches!(outcome, Outcome::Compared(Compared { all: 0, .. }))
        && answered.is_some_and(|answered| answered > 0)
}

/// Ticks in a row without requests; one in which nothing was counted says nothing.
const fn count_idle(ticks: &mut u32, requests: Option<u64>) {
    match requests {
        Some(0) => *ticks = ticks.saturating_add(1),
        Some(_) => *ticks = 0,
        None => {}
    }
}

fn count(metric: &mut MetricState, candidate: ArmCount, of_step: bool) {
    metric.started = metric.started.saturating_add(1);
    see(metric);
    if of_step {
        metric.step_requests = metric.step_requests.saturating_add(candidate.requests);
        metric.step_bad = metric.step_bad.saturating_add(candidate.bad);
    }
}

fn enter(state: &mut State, step: &Step) {
    state.step = StepState { index: step.index, began_ms: step.began_ms, ticks: 0 };
    for metric in &mut state.metrics {
        metric.step_requests = 0;
        metric.step_bad = 0;
        metric.stable_requests = 0;
        metric.stable_bad = 0;
        if let Some(mean) = &mut metric.mean {
            mean.enter();
        }
        if let Some(advance) = &mut metric.advance {
            *advance = AdvanceState::NONE;
        }
    }
}

/// Nothing is missing any more.
const fn see(metric: &mut MetricState) {
    metric.blind = 0;
    metric.invalid = 0;
}

fn miss(metric: &mut MetricState, why: Missing) {
    match why {
        Missing::Invalid => {
            metric.invalid = metric.invalid.saturating_add(1);
            metric.blind = metric.blind.saturating_add(1);
        }
        Missing::NoSeries | Missing::Gap | Missing::NoBucket | Missing::NoPairs => {
            metric.invalid = 0;
            metric.blind = metric.blind.saturating_add(1);
        }
        // Left out on purpose.
        Missing::WeightChanged | Missing::WarmingUp | Missing::NotAsked => {}
    }
}

fn differ(
    metric: &mut MetricState,
    rules: &MetricRules,
    candidate: ArmSum,
    stable: Option<ArmSum>,
    of_step: bool,
) {
    if let (Some(state), Rule::Mean(rule)) = (&mut metric.mean, &rules.rule) {
        state.add(rule, candidate, stable, of_step);
    }
    if let (Some(stable), true) = (stable, of_step) {
        metric.stable_requests = metric.stable_requests.saturating_add(stable.count);
    }
    count(metric, ArmCount { requests: candidate.count, bad: 0 }, of_step);
}

fn pair(metric: &mut MetricState, pairs: Pairs, of_step: bool) {
    if let Some(state) = &mut metric.pairs {
        state.add(pairs);
    }
    count(metric, ArmCount { requests: pairs.all, bad: pairs.lost }, of_step);
}

fn agree(metric: &mut MetricState, compared: Compared, of_step: bool) {
    if let Some(state) = &mut metric.compared {
        state.add(compared);
    }
    count(metric, ArmCount { requests: compared.all, bad: compared.candidate }, of_step);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{absolute, relative};

    #[test]
    fn start_weight_is_shared_by_all_alternatives() {
        assert_eq!(LN_RELATIVE, (relative::ALTERNATIVES as f64).ln());
        assert_eq!(LN_ABSOLUTE, (absolute::ALTERNATIVES as f64).ln());
    }
}
