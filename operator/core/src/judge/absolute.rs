//! The absolute test (T2): is the candidate's share of bad events above a threshold, and is that its own doing?
//!
//! Used by [`super::tick`]. Against the threshold the ratio is that of two Bernoulli likelihoods,
//! x ln(p_k/p_0) + (n-x) ln((1-p_k)/(1-p_0)). A breach that stable shares is an incident and not the candidate's fault, so
//! each tick counts for the lesser of this and of the relative test with the same factor and no tolerance. The lesser of two
//! e-values is one under either null: the bound holds if in every tick the candidate is below its threshold or no worse than
//! stable, whichever it is. Asking afterwards whether stable breached too does not hold it: with little traffic stable's
//! evidence comes later than the candidate's, or never.

use super::{
    relative::Relative,
    tick::{ArmCount, Shares},
};

/// How many times the threshold the share may be.
const FACTORS: [f64; 6] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0];
/// The number of alternatives.
pub(super) const ALTERNATIVES: usize = FACTORS.len();
/// No alternative is surer than this.
pub(super) const HIGHEST: f64 = 0.99;
/// A threshold of zero would make one bad event proof.
const LOWEST: f64 = 1e-6;

/// The test with its logarithms taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Absolute {
    threshold: f64,
    bad: [f64; ALTERNATIVES],
    good: [f64; ALTERNATIVES],
    relative: Relative<ALTERNATIVES>,
}

impl Absolute {
    /// The test against shares up to `threshold`, from 0 to 1.
    pub(super) fn new(threshold: f64) -> Self {
        let threshold = threshold.clamp(LOWEST, HIGHEST);
        let alternatives = FACTORS.map(|factor| (threshold * factor).min(HIGHEST));
        Self {
            threshold,
            bad: alternatives.map(|share| libm::log(share / threshold)),
            good: alternatives.map(|share| libm::log1p(-share) - libm::log1p(-threshold)),
            relative: Relative::new(1.0, FACTORS),
        }
    }

    /// ln of what the tick says for each alternative, against a candidate that is below the threshold or no worse than
    /// stable.
    pub(super) fn ln_own(&self, shares: &Shares) -> [f64; ALTERNATIVES] {
        let mut ln_ratios = self.ln_ratios(shares.candidate);
        for (absolute, relative) in ln_ratios.iter_mut().zip(self.relative.ln_ratios(shares)) {
            *absolute = absolute.min(relative);
        }
        ln_ratios
    }

    /// The same without a stable arm: against a candidate below the threshold.
    pub(super) fn ln_ratios(&self, arm: ArmCount) -> [f64; ALTERNATIVES] {
        let (bad, good) = (arm.bad as f64, arm.requests.saturating_sub(arm.bad) as f64);
        let mut ln_ratios = self.bad;
        for (ln_ratio, per_good) in ln_ratios.iter_mut().zip(self.good) {
            *ln_ratio = bad * *ln_ratio + good * per_good;
        }
        ln_ratios
    }

    /// ln of what `requests` without a bad one say against a share at or above the threshold: each is at most 1-p0 times
    /// as likely there, so the product of 1/(1-p0), and zero from the first bad one on, is an e-process.
    pub(super) fn ln_below(&self, requests: u64) -> f64 {
        -libm::log1p(-self.threshold) * requests as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_ratio_has_expectation_at_most_one_up_to_the_threshold(
            threshold in 0.001..1.0_f64, better in 0.0..=1.0_f64,
        ) {
            let (test, share) = (Absolute::new(threshold), threshold.min(HIGHEST) * better);
            let bad = test.ln_ratios(ArmCount { requests: 1, bad: 1 });
            let good = test.ln_ratios(ArmCount { requests: 1, bad: 0 });
            for (bad, good) in bad.into_iter().zip(good) {
                prop_assert!(share * bad.exp() + (1.0 - share) * good.exp() <= 1.0 + 1e-9);
            }
        }

        #[test]
        fn any_count_and_threshold_give_finite_evidence(requests: u64, bad: u64, threshold in 0.0..=1.0_f64) {
            for ln_ratio in Absolute::new(threshold).ln_ratios(ArmCount { requests, bad: bad.min(requests) }) {
                prop_assert!(ln_ratio.is_finite());
            }
        }
    }

    #[test]
    fn three_hundred_good_requests_are_below_one_percent() {
        let (needed, test) = (20.0_f64.ln(), Absolute::new(0.01));
        assert!(test.ln_below(298) < needed && test.ln_below(299) >= needed);
        assert!(Absolute::new(0.0).ln_below(1000) < 0.01 && Absolute::new(1.0).ln_below(1).is_finite());
    }

    #[test]
    fn what_stable_shares_is_not_the_candidates_doing() {
        let test = Absolute::new(0.01);
        let candidate = ArmCount { requests: 100, bad: 50 };
        let best = |stable| {
            let shares = Shares { candidate, stable };
            test.ln_own(&shares).into_iter().fold(f64::MIN, f64::max)
        };
        assert!(best(ArmCount { requests: 900, bad: 4 }) > 40.0);
        assert!(best(ArmCount { requests: 900, bad: 450 }) < 0.0);
        // Nobody can tell whose fault it is.
        assert!(best(ArmCount { requests: 0, bad: 0 }) <= 0.0);
    }

    #[test]
    fn two_failures_in_a_row_speak_for_the_highest_share() {
        let test = Absolute::new(0.1);
        let best = test.ln_ratios(ArmCount { requests: 2, bad: 2 }).into_iter().fold(f64::MIN, f64::max);
        assert!((best - 2.0 * 9.9_f64.ln()).abs() < 1e-12, "{best}");
    }
}
