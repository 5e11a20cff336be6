//! An experiment in the fold: looks at the primary metric at planned times of the step's own clock, and who has won by them.
//!
//! Called by [`super::tick`] after each tick that counts, and by [`super::verdict`]. A look belongs to the tick at which it is
//! due, so an operator that was away makes up for it when it reads that tick, once, with the counts of that moment; no look
//! follows a winner. Alpha is spent by the share of planned looks, which is known beforehand; how looks depend on each other
//! follows from what each had counted, so that uneven days cost no validity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    distribution::t_quantile,
    policy::{Experiment, MetricPolicy, PodSpread, Rule},
    rules::Judge,
    state::{MetricState, State},
    tick::{ArmCount, Shares, Step},
    winner::{self, Guards, Noise, Winner},
};

/// What one look saw: all events of the primary metric since the experiment began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Packed", into = "Packed")]
#[schemars(with = "Packed")]
pub struct Look {
    /// Ticks that had counted by then.
    pub ticks: u32,
    /// Events of the candidate.
    pub candidate: ArmCount,
    /// Events of stable.
    pub stable: ArmCount,
    /// The candidate's advantage in standard errors, to three decimals; none without variance.
    pub z: Option<f64>,
    /// What |z| needs to be for a winner, rounded up to three decimals; none where nothing was new.
    pub needs: Option<f64>,
}

/// As a status has it, which may have sixty: ticks, requests and bad ones of the candidate and of stable, z and what it needs.
type Packed = (u32, u64, u64, u64, u64, Option<f64>, Option<f64>);

impl From<Packed> for Look {
    fn from((ticks, n_c, x_c, n_s, x_s, z, needs): Packed) -> Self {
        let candidate = ArmCount { requests: n_c, bad: x_c };
        Self { ticks, candidate, stable: ArmCount { requests: n_s, bad: x_s }, z, needs }
    }
}

impl From<Look> for Packed {
    fn from(Look { ticks, candidate, stable, z, needs }: Look) -> Self {
        (ticks, candidate.requests, candidate.bad, stable.requests, stable.bad, z, needs)
    }
}

/// Normal quantile of 0.8.
const FOUR_OF_FIVE: f64 = 0.841_621;

impl Experiment {
    /// Looks that are due when so many ticks have counted.
    pub fn due(&self, ticks: u32) -> u32 {
        let due = u64::from(ticks.saturating_sub(self.wait)) * u64::from(self.design.looks)
            / u64::from(self.ticks.max(1));
        u32::try_from(due).unwrap_or(u32::MAX).min(self.design.looks)
    }

    /// The share of planned looks that is due by then.
    fn time(&self, ticks: u32) -> f64 {
        f64::from(self.due(ticks)) / f64::from(self.design.looks.max(1))
    }

    /// A look as the test takes it, which had counted so much.
    fn seen(&self, look: &Look, information: f64) -> winner::Look {
        winner::Look {
            time: self.time(look.ticks),
            information,
            z: look.z.unwrap_or(f64::NAN),
            boundary: look.needs.unwrap_or(f64::INFINITY),
        }
    }
}

/// Events of both arms that the primary metric is compared by.
const fn counted(metric: &MetricState) -> Shares {
    Shares {
        candidate: ArmCount { requests: metric.step_requests, bad: metric.step_bad },
        stable: ArmCount { requests: metric.stable_requests, bad: metric.stable_bad },
    }
}

impl Judge {
    /// The experiment, if `step` is one.
    pub fn experiment(&self, step: u32) -> Option<Experiment> {
        self.policy().experiment.filter(|experiment| experiment.step == step)
    }

    /// A step begins: if it is the experiment, without any look.
    pub(super) fn begin_looks(&self, state: &mut State) {
        if self.experiment(state.step.index).is_some() {
            state.looks.clear();
            state.won_at = None;
        }
    }

    /// Looks, if it is time and nobody has won.
    pub(super) fn look(&self, state: &mut State, step: &Step) {
        let Some(experiment) = self.experiment(state.step.index) else { return };
        let ticks = state.step.ticks;
        let known = state.looks.last().map_or(0, |look| experiment.due(look.ticks));
        if experiment.due(ticks) <= known || self.winner(state, step) != Some(Winner::Undecided) {
            return;
        }
        let Some((metric, policy)) = self.primary(state) else { return };
        let Shares { candidate, stable } = counted(metric);
        let noise = noise(policy, experiment.design.alpha);
        let bad = winner::bad_share(candidate, stable);
        // What was counted, by the share of bad events that is known by now.
        let counted = |look: &Look| noise.information(look.candidate, look.stable, bad);
        let looks: Vec<winner::Look> =
            state.looks.iter().map(|look| experiment.seen(look, counted(look))).collect();
        let information = noise.information(candidate, stable, bad);
        let needs = experiment.design.boundary(&looks, experiment.time(ticks), information);
        let needs = needs.is_finite().then(|| (needs * 1000.0).ceil() / 1000.0);
        let z = winner::z(candidate, stable, noise).map(|z| (z * 1000.0).round() / 1000.0);
        state.looks.push(Look { ticks, candidate, stable, z, needs });
    }

    /// Notes that the candidate has won: what its guards showed then may not be shown for ever.
    pub(super) fn keep_win(&self, state: &mut State, step: &Step) {
        if state.won_at.is_none() && self.winner(state, step) == Some(Winner::Candidate) {
            state.won_at = Some(state.step.ticks);
        }
    }

    /// Who has won by the looks so far; none if `step` is no experiment.
    pub fn winner(&self, state: &State, step: &Step) -> Option<Winner> {
        let experiment = self.experiment(step.index)?;
        if state.won_at.is_some() {
            return Some(Winner::Candidate);
        }
        // What was counted is in the boundaries already.
        let looks: Vec<winner::Look> = state.looks.iter().map(|look| experiment.seen(look, 0.0)).collect();
        let holds = self.known_for(&experiment, state) >= step.min_ms
            && self.has_enough(state, step)
            && self.unproven(state).next().is_none();
        Some(experiment.design.decide(&looks, if holds { Guards::Hold } else { Guards::Open }))
    }

    /// By how much the arms' shares of bad events must differ for a winner in four of five experiments, if requests go on to come as
    /// they did up to the last look; none before the first.
    ///
    /// The mean of the last z must exceed its boundary by the normal quantile of 0.8. By O'Brien and Fleming the last boundary is
    /// about that of look k times the square root of k/K.
    pub fn visible_difference(&self, state: &State) -> Option<f64> {
        let experiment = self.experiment(state.step.index)?;
        let look = state.looks.last()?;
        let (_, policy) = self.primary(state)?;
        let time = experiment.time(look.ticks);
        let bad = winner::bad_share(look.candidate, look.stable);
        let by_then =
            |arm: ArmCount| ArmCount { requests: (arm.requests as f64 / time).round() as u64, bad: 0 };
        let noise = noise(policy, experiment.design.alpha);
        let information = noise.information(by_then(look.candidate), by_then(look.stable), bad);
        let difference = (look.needs? * time.sqrt() + FOUR_OF_FIVE) / information.sqrt();
        (difference.is_finite() && difference > 0.0).then_some(difference)
    }

    /// How long events of the experiment have been known, in milliseconds of ticks that count.
    pub fn known_for(&self, experiment: &Experiment, state: &State) -> i64 {
        let known = state.step.ticks.saturating_sub(experiment.wait);
        i64::from(known).saturating_mul(self.policy().tick_ms)
    }

    /// Secondary metrics that are not shown to be as good as they must be for the candidate to win.
    pub fn unproven<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a str> {
        state
            .metrics
            .iter()
            .zip(&self.metrics)
            .filter(|(_, rules)| matches!(rules.rule, Rule::Secondary { .. }))
            .filter(|(metric, rules)| self.is_noninferior(metric, rules) == Some(false))
            .map(|(metric, _)| metric.name.as_str())
    }

    fn primary<'a>(&'a self, state: &'a State) -> Option<(&'a MetricState, &'a MetricPolicy)> {
        let mut metrics = state.metrics.iter().zip(&self.policy().metrics);
        metrics.find(|(_, policy)| matches!(policy.rule, Rule::Primary { .. }))
    }
}

/// By how much the arms differ without any cause. How much pods differ is known from a few, as Student's t allows for.
fn noise(policy: &MetricPolicy, alpha: f64) -> Noise {
    let of_pods = |pods: PodSpread| {
        let error =
            pods.sd * (1.0 / f64::from(pods.candidate_pods) + 1.0 / f64::from(pods.stable_pods)).sqrt();
        error * t_quantile(0.5 * alpha, pods.degrees) / winner::normal_quantile(0.5 * alpha)
    };
    Noise { design_effect: policy.design_effect, pods: policy.pods.map_or(0.0, of_pods) }
}

#[cfg(test)]
mod tests;
