//! Means (T4): is the candidate's mean error, loss or reward worse than stable's by more than a margin, or beyond its bound?
//!
//! Used by [`super::tick`] for metrics with a sum and a count, whose single values are never seen. As soon as both arms have
//! enough values these give one difference of means; a tick may have too few. The evidence is that of an asymptotic confidence
//! sequence (Waudby-Smith et al., 2024) solved for its level, so it is valid only approximately and only after
//! [`FEWEST_DIFFERENCES`]. A sequence ends after as many as a step has, and the next one begins with its own part of the level, so
//! that weeks in which a candidate was good do not hide that it is not any more. How much differences vary is seen from themselves, so values that belong together within one need no
//! design effect; what lasts longer, such as a pod that is worse for as long as it lives, must be within the margin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{Better, Mean};

/// Before these the variance of the differences is not known well enough.
pub const FEWEST_DIFFERENCES: u32 = 30;
/// A mean of fewer values is too far from normal.
pub const FEWEST_VALUES: u64 = 30;

/// Values of one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ArmSum {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl ArmSum {
    /// Their mean; none of nothing.
    pub fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    fn plus(self, other: Self) -> Self {
        Self { count: self.count.saturating_add(other.count), sum: self.sum + other.sum }
    }
}

/// Values of both arms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sums {
    /// Of the candidate.
    pub candidate: ArmSum,
    /// Of the stable version; none where the candidate is alone.
    pub stable: ArmSum,
}

impl Sums {
    /// With more values. JSON has no infinity: what cannot be summed is left out.
    fn add(&mut self, candidate: ArmSum, stable: ArmSum) {
        let sum = Self { candidate: self.candidate.plus(candidate), stable: self.stable.plus(stable) };
        if sum.candidate.sum.is_finite() && sum.stable.sum.is_finite() {
            *self = sum;
        }
    }
}

/// What is known about the means of one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeanState {
    /// How much worse than stable the candidate is.
    pub versus_stable: Differences,
    /// How far the candidate is beyond its bound, or beyond stable if that is less.
    versus_bound: Differences,
    /// Values that are too few for a difference yet, all of one step and one weight.
    open: Sums,
    /// All values since the step began; of labels, those that may be of its requests.
    pub step: Sums,
}

impl MeanState {
    /// Adds a tick's values; those of stable if the candidate is not alone.
    pub(super) fn add(&mut self, rule: &Mean, candidate: ArmSum, stable: Option<ArmSum>, of_step: bool) {
        let of_stable = stable.unwrap_or_default();
        if of_step {
            self.step.add(candidate, of_stable);
        }
        self.open.add(candidate, of_stable);
        let enough = |arm: ArmSum| (arm.count >= FEWEST_VALUES).then(|| arm.mean()).flatten();
        let Some(mean) = enough(self.open.candidate) else { return };
        let beyond = rule.worse_than(mean, rule.bound);
        if stable.is_none() {
            self.versus_bound.add(beyond, rule.tuned_ticks);
        } else {
            let Some(of_stable) = enough(self.open.stable) else { return };
            let worse = rule.worse_than(mean, of_stable);
            self.versus_stable.add(worse, rule.tuned_ticks);
            // Where stable is beyond the bound too, it is an incident, and not the candidate's fault.
            self.versus_bound.add(beyond.min(worse), rule.tuned_ticks);
        }
        self.open = Sums::default();
    }

    /// Values so far say nothing about the difference of the next ones: requests are divided in another way.
    pub(super) fn divide_anew(&mut self) {
        self.open = Sums::default();
    }

    /// Another step.
    pub(super) fn enter(&mut self) {
        self.divide_anew();
        self.step = Sums::default();
    }

    /// The evidence that the candidate is worse than stable by more than the margin, at level `alpha`.
    pub(super) fn worse(&self, rule: &Mean, alpha: f64) -> f64 {
        self.versus_stable.value(rule.margin, rule.tuned_ticks, alpha)
    }

    /// The evidence that the candidate is beyond its bound, and worse than stable if there is one, at level `alpha`.
    pub(super) fn beyond(&self, rule: &Mean, alpha: f64) -> f64 {
        self.versus_bound.value(0.0, rule.tuned_ticks, alpha)
    }
}

impl Mean {
    /// How much worse `mean` is than `other`; below zero if it is better.
    pub fn worse_than(&self, mean: f64, other: f64) -> f64 {
        match self.better {
            Better::Lower => mean - other,
            Better::Higher => other - mean,
        }
    }
}

/// Differences of means, the more the worse the candidate is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Differences {
    /// Sequences that have ended.
    ended: u32,
    /// How many there are in this one.
    count: u32,
    mean: f64,
    /// Sum of the squares of their distances from their mean.
    squares: f64,
}

impl Differences {
    /// Adds one (Welford, 1962: nothing is lost where their mean is far from zero), to a new sequence if this one has twice as
    /// many as it is `tuned` to.
    fn add(&mut self, difference: f64, tuned: u32) {
        if self.count >= length(tuned) {
            *self = Self { ended: self.ended.saturating_add(1), ..Self::default() };
        }
        let count = self.count.saturating_add(1);
        let mean = self.mean + (difference - self.mean) / f64::from(count);
        let squares = self.squares + (difference - self.mean) * (difference - mean);
        // JSON has no infinity: a difference that cannot be summed is left out.
        if mean.is_finite() && squares.is_finite() {
            *self = Self { ended: self.ended, count, mean, squares };
        }
    }

    /// Their variance; none while that is not known, and of those that never differ, which are a broken exporter's.
    fn variance(&self) -> Option<f64> {
        let variance = self.squares / f64::from(self.count.max(2) - 1);
        (self.count >= FEWEST_DIFFERENCES && variance > 0.0).then_some(variance)
    }

    /// The part of the level that this sequence has. All parts, for ever, make one.
    fn part(&self) -> f64 {
        let ended = f64::from(self.ended);
        1.0 / ((ended + 1.0) * (ended + 2.0))
    }

    /// The evidence that they are above `margin`, tuned to be strongest after `tuned` of them, for a test at level `alpha`: at
    /// most 1 for nothing, at least 1/alpha to roll back.
    fn value(&self, margin: f64, tuned: u32, alpha: f64) -> f64 {
        self.part() * self.value_of_sequence(margin, tuned, alpha * self.part())
    }

    fn value_of_sequence(&self, margin: f64, tuned: u32, alpha: f64) -> f64 {
        if self.count < FEWEST_DIFFERENCES {
            return 1.0;
        }
        let Some(variance) = self.variance().filter(|_| self.mean > margin) else { return 0.0 };
        let (count, rho) = (f64::from(self.count), rho(tuned, alpha));
        let spread = count * rho + 1.0;
        let exponent = (count * (self.mean - margin)).powi(2) * rho / (2.0 * variance * spread);
        2.0 * libm::expm1(exponent.min(700.0)) / spread.sqrt()
    }

    /// How far above the margin they must be, so that so many more like them are evidence, typically; none while their
    /// variance is not known.
    pub fn least(&self, count: f64, tuned: u32, alpha: f64) -> Option<f64> {
        let (count, alpha) = (count.min(length(tuned).into()), alpha * self.part());
        let (variance, rho) = (self.variance()?, rho(tuned, alpha));
        let spread = count * rho + 1.0;
        let nats = libm::log1p(spread.sqrt() / (2.0 * alpha));
        let least = (2.0 * variance * spread * nats / rho).sqrt() / count;
        least.is_finite().then_some(least)
    }
}

/// Differences of a sequence: it is tuned to half of them.
const fn length(tuned: u32) -> u32 {
    tuned.saturating_mul(2)
}

/// The square of the mixture's standard deviation, in those of a difference, by which it is narrowest after `tuned` of them.
fn rho(tuned: u32, alpha: f64) -> f64 {
    let ln_alpha = -2.0 * libm::log(alpha);
    (ln_alpha + libm::log1p(ln_alpha)) / f64::from(tuned.max(1))
}

#[cfg(test)]
mod tests;
