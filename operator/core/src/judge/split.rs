//! The traffic split (T6): does the candidate get the share of requests that it should?
//!
//! Kept by [`super::tick`], read by [`super::verdict`]. A beta-binomial martingale around the wanted share; it starts
//! anew with each weight. A mismatch holds a rollout: the relative test stays valid, as it uses the requests that came.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tick::Shares;

/// Strength of the prior, in requests.
const PRIOR: f64 = 1000.0;
/// Chance of calling a right split wrong, at one weight.
const ALPHA: f64 = 0.001;
/// A smaller relative departure does no harm.
const HARMLESS: f64 = 0.05;

/// Requests at one weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Split {
    weight: f64,
    candidate: u64,
    stable: u64,
}

impl Split {
    /// Adds a tick at a candidate's share of `weight`.
    pub(super) fn add(&mut self, weight: f64, shares: &Shares) {
        if !(weight > 0.0 && weight < 1.0) {
            return;
        }
        if self.weight.to_bits() != weight.to_bits() {
            *self = Self { weight, ..Self::default() };
        }
        self.candidate = self.candidate.saturating_add(shares.candidate.requests);
        self.stable = self.stable.saturating_add(shares.stable.requests);
    }

    /// The share that came, if it is surely not the one that was asked for.
    pub(super) fn mismatch(&self, design_effect: f64) -> Option<f64> {
        let (candidate, stable) = (self.candidate as f64 / design_effect, self.stable as f64 / design_effect);
        if candidate + stable <= 0.0 || !(self.weight > 0.0 && self.weight < 1.0) {
            return None;
        }
        let share = candidate / (candidate + stable);
        let (a, b) = (PRIOR * self.weight, PRIOR * (1.0 - self.weight));
        let ln_value = ln_beta(a + candidate, b + stable)
            - ln_beta(a, b)
            - candidate * libm::log(self.weight)
            - stable * libm::log1p(-self.weight);
        let matters = (share - self.weight).abs() > HARMLESS * self.weight;
        (matters && ln_value >= -ALPHA.ln()).then_some(share)
    }

    /// Requests of both arms at the present weight.
    pub const fn requests(&self) -> u64 {
        self.candidate.saturating_add(self.stable)
    }

    /// The candidate's share of them, from 0 to 1; none without requests.
    pub fn share(&self) -> Option<f64> {
        let requests = self.requests();
        (requests > 0).then(|| self.candidate as f64 / requests as f64)
    }

    /// The share that was asked for.
    pub(super) const fn weight(&self) -> f64 {
        self.weight
    }
}

fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

#[cfg(test)]
mod tests {
    use super::{super::tick::ArmCount, *};

    fn split(weight: f64, candidate: u64, stable: u64) -> Split {
        let mut split = Split::default();
        let (candidate, stable) =
            (ArmCount { requests: candidate, bad: 0 }, ArmCount { requests: stable, bad: 0 });
        split.add(weight, &Shares { candidate, stable });
        split
    }

    #[test]
    fn a_wrong_share_is_found_after_some_thousand_requests() {
        assert_eq!(split(0.1, 12, 88).mismatch(1.0), None);
        assert_eq!(split(0.1, 1200, 8800).mismatch(1.0), Some(0.12));
        assert_eq!(split(0.1, 1200, 8800).mismatch(10.0), None);
        // Surely different, and harmless.
        assert_eq!(split(0.1, 10_400_000, 89_600_000).mismatch(1.0), None);
        assert_eq!(split(0.1, 1_010, 9_000).mismatch(1.0), None);
        // Nothing reaches the candidate.
        assert_eq!(split(0.1, 0, 5_000).mismatch(1.0), Some(0.0));
    }

    #[test]
    fn another_weight_is_another_question() {
        let mut split = split(0.1, 1200, 8800);
        let even = Shares {
            candidate: ArmCount { requests: 50, bad: 0 },
            stable: ArmCount { requests: 50, bad: 0 },
        };
        split.add(0.5, &even);
        assert_eq!(split.mismatch(1.0), None);
        assert_eq!(Split::default().mismatch(1.0), None);
    }
}
