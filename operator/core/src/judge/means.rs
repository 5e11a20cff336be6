//! Means (T4): is the candidate's mean error, loss or reward worse than stable's by more than a margin?
//!
//! Used by [`super::tick`] for metrics with a sum and a count, whose single values are never seen. Each tick gives one
//! difference of means; the evidence is that of an asymptotic confidence sequence (Waudby-Smith et al., 2024) solved for its
//! level, so it is valid only approximately and only after [`FEWEST_TICKS`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Before these the variance of the differences is not known well enough.
pub(super) const FEWEST_TICKS: u32 = 30;
/// A mean of fewer values is too far from normal.
const FEWEST_VALUES: u64 = 30;

/// Values of one arm in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ArmSum {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

/// Differences of means, the more the worse the candidate is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeanState {
    ticks: u32,
    sum: f64,
    squares: f64,
}

impl MeanState {
    /// Adds a tick's difference, if both arms have enough values; `sign` is 1 where lower is better, otherwise -1.
    pub(super) fn add(&mut self, candidate: ArmSum, stable: ArmSum, sign: f64) {
        if candidate.count < FEWEST_VALUES || stable.count < FEWEST_VALUES {
            return;
        }
        let mean = |arm: ArmSum| arm.sum / arm.count as f64;
        let difference = sign * (mean(candidate) - mean(stable));
        let (sum, squares) = (self.sum + difference, self.squares + difference * difference);
        // JSON has no infinity: a difference that cannot be summed is left out.
        if sum.is_finite() && squares.is_finite() {
            *self = Self { ticks: self.ticks.saturating_add(1), sum, squares };
        }
    }

    /// The evidence that the candidate is worse by more than `margin`, tuned to be strongest after `tuned` ticks at level
    /// `alpha`: 1 for nothing, at least 1/alpha to roll back.
    pub(super) fn value(&self, margin: f64, tuned: u32, alpha: f64) -> f64 {
        if self.ticks < FEWEST_TICKS {
            return 1.0;
        }
        let ticks = f64::from(self.ticks);
        let mean = self.sum / ticks;
        let variance = self.squares / ticks - mean * mean;
        // Differences that never differ are a broken exporter and no evidence.
        if !(mean > margin && variance > 0.0 && variance.is_finite()) {
            return 0.0;
        }
        let ln_alpha = -2.0 * libm::log(alpha);
        let rho = (ln_alpha + libm::log1p(ln_alpha)) / f64::from(tuned.max(1));
        let spread = ticks * rho + 1.0;
        let exponent = (ticks * (mean - margin)).powi(2) * rho / (2.0 * variance * spread);
        2.0 * libm::expm1(exponent.min(700.0)) / spread.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(ticks: u32, shift: f64, sign: f64) -> MeanState {
        let mut state = MeanState::default();
        for tick in 0..ticks {
            let noise = f64::from(tick * 7919 % 101) / 50.0 - 1.0;
            let candidate = ArmSum { count: 100, sum: 100.0 * (5.0 + shift + noise) };
            state.add(candidate, ArmSum { count: 100, sum: 500.0 }, sign);
        }
        state
    }

    #[test]
    fn a_shift_is_found_in_its_direction_and_beyond_its_margin_only() {
        assert!(after(200, 0.5, 1.0).value(0.0, 100, 0.05) > 20.0);
        assert!(after(200, 0.5, -1.0).value(0.0, 100, 0.05) < 1.0);
        assert!(after(200, 0.5, 1.0).value(0.6, 100, 0.05) < 1.0);
        assert!(after(200, 0.0, 1.0).value(0.0, 100, 0.05) < 20.0);
        assert_eq!(after(29, 0.5, 1.0).value(0.0, 100, 0.05), 1.0);
    }

    #[test]
    fn the_evidence_is_that_of_the_confidence_sequence() {
        // At the level where the lower end is the margin, the published radius is the mean.
        let state = after(200, 0.3, 1.0);
        let alpha = 1.0 / state.value(0.0, 100, 0.05);
        let (t, mean) = (200.0, state.sum / 200.0);
        let deviation = (state.squares / t - mean * mean).sqrt();
        let ln_alpha = -2.0 * 0.05_f64.ln();
        let rho = (ln_alpha + ln_alpha.ln_1p()) / 100.0;
        let spread = t * rho + 1.0;
        let radius =
            deviation * (2.0 * spread / (t * t * rho) * (1.0 + spread.sqrt() / (2.0 * alpha)).ln()).sqrt();
        assert!((radius / mean - 1.0).abs() < 1e-9, "{radius} {mean}");
    }

    proptest! {
        #[test]
        fn any_sum_keeps_the_state_finite(count: u64, sum: f64, margin: f64) {
            let mut state = MeanState::default();
            for _ in 0..40 {
                state.add(ArmSum { count, sum }, ArmSum { count: 50, sum: 1.0 }, 1.0);
            }
            prop_assert!(state.sum.is_finite() && state.squares.is_finite());
            prop_assert!(!state.value(margin, 10, 0.05).is_nan());
        }
    }
}
