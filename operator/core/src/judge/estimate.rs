//! Estimates for people: how many times worse the candidate is, with an interval that is valid at every look.
//!
//! Kept by [`super::tick`] beside the evidence and shown in a verdict; no decision reads it. The ratio is that of Mantel
//! and Haenszel over ticks, so a daily cycle does not bend it; its variance is Greenland and Robins (1985), its interval
//! the normal mixture of Robbins (1970), which is asymptotic.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tick::Shares;

/// The interval misses the ratio at any time with this chance.
const ALPHA: f64 = 0.05;
/// The interval is tightest at about this much information: a hundred bad events in balanced arms.
const INFORMATION: f64 = 25.0;

/// Sums over ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    candidate: f64,
    stable: f64,
    variance: f64,
    weight: f64,
    bad: u64,
}

/// How many times stable's rate of bad events the candidate's is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// The most likely ratio.
    pub ratio: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Tally {
    /// Adds a tick.
    pub(super) fn add(&mut self, shares: &Shares) {
        let (n_c, n_s) = (shares.candidate.requests as f64, shares.stable.requests as f64);
        let (x_c, x_s) = (shares.candidate.bad as f64, shares.stable.bad as f64);
        let all = n_c + n_s;
        if all == 0.0 || x_c + x_s == 0.0 {
            return;
        }
        let weight = (x_c + x_s) * (n_c / all) * (n_s / all);
        self.candidate += x_c * n_s / all;
        self.stable += x_s * n_c / all;
        self.variance += weight - x_c * (x_s / all);
        self.weight += weight;
        self.bad = self.bad.saturating_add(shares.candidate.bad).saturating_add(shares.stable.bad);
    }

    /// The estimate, once both arms had requests and one of them bad events.
    pub(super) fn estimate(&self, design_effect: f64) -> Option<Estimate> {
        // Half an event more in each arm, so that an arm without one gives a number.
        let half = 0.5 * self.weight / self.bad as f64;
        let (candidate, stable) = (self.candidate + half, self.stable + half);
        let information = candidate * stable / ((self.variance + half).max(half) * design_effect);
        let tuning = INFORMATION / (1.0 - 2.0 * ALPHA.ln() + (1.0 - 2.0 * ALPHA.ln()).ln());
        let total = information + tuning;
        let radius = (total / (information * information) * (total / (tuning * ALPHA * ALPHA)).ln()).sqrt();
        let ratio = candidate / stable;
        let estimate = Estimate { ratio, low: ratio * (-radius).exp(), high: ratio * radius.exp() };
        [estimate.ratio, estimate.low, estimate.high].iter().all(|end| end.is_finite()).then_some(estimate)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tick::ArmCount, *};

    fn shares(n_c: u64, x_c: u64, n_s: u64, x_s: u64) -> Shares {
        Shares {
            candidate: ArmCount { requests: n_c, bad: x_c },
            stable: ArmCount { requests: n_s, bad: x_s },
        }
    }

    #[test]
    fn strata_of_different_rates_and_weights_do_not_bend_the_ratio() {
        let mut tally = Tally::default();
        tally.add(&shares(1_000, 20, 9_000, 90));
        tally.add(&shares(9_000, 18, 1_000, 1));
        let estimate = tally.estimate(1.0).unwrap();
        assert!((estimate.ratio - 2.0).abs() < 0.05, "{estimate:?}");
        assert!(estimate.low > 0.5 && estimate.low < 2.0 && estimate.high > 2.0 && estimate.high < 8.0);
        assert!(tally.estimate(4.0).unwrap().low < estimate.low);
    }

    #[test]
    fn there_is_no_ratio_of_nothing() {
        let mut tally = Tally::default();
        assert_eq!(tally.estimate(1.0), None);
        tally.add(&shares(100, 0, 100, 0));
        tally.add(&shares(100, 5, 0, 0));
        assert_eq!(tally.estimate(1.0), None);
        tally.add(&shares(100, 5, 100, 0));
        let estimate = tally.estimate(1.0).unwrap();
        assert!(estimate.ratio > 5.0 && estimate.low < 5.0, "{estimate:?}");
    }
}
