//! The relative test (T1): are the candidate's odds of a bad event higher than tolerated, given stable's in the same tick?
//!
//! Used by [`super::tick`]. Within a tick, given both arms' requests and the number E of bad events, the candidate's bad
//! events x follow Fisher's noncentral hypergeometric distribution whatever the common rate is, so daily cycles, shared
//! outages and changing weights cannot blame the candidate. Against tolerance t and alternative k, ln of the ratio is
//! x ln k - (ln G(k t) - ln G(t)).
//!
//! Where bad events are rare, ln G(k t) - ln G(t) <= E ln(1 + (k-1) s) with s = t n_c / (t n_c + n_s) is used. It is
//! valid for every t >= 1, not only for rare events: x is a sum of E independent indicators (Vatutin, Mikhailov 1982),
//! so E[k^x] <= (1 + (k-1) mean/E)^E, and mean/E <= s follows from E[x(n_s-E+x)] = t E[(n_c-x)(E-x)].

use super::{
    hypergeometric::Margins,
    tick::{ArmCount, Shares},
};

/// How many times the tolerated odds the candidate may have.
pub(super) const RATIOS: [f64; 7] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0];
/// The number of alternatives.
pub(super) const ALTERNATIVES: usize = RATIOS.len();
/// Below this share of bad events the bound costs next to nothing.
const RARE: f64 = 0.05;

/// The test with its logarithms taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Relative<const K: usize = ALTERNATIVES> {
    tolerance: f64,
    ln_tolerance: f64,
    ratios: [f64; K],
    ln_ratios: [f64; K],
}

impl<const K: usize> Relative<K> {
    /// The test against odds up to `tolerance` (at least 1) times those of stable, for alternatives of `ratios` times as
    /// many.
    pub(super) fn new(tolerance: f64, ratios: [f64; K]) -> Self {
        Self { tolerance, ln_tolerance: libm::log(tolerance), ratios, ln_ratios: ratios.map(libm::log) }
    }

    /// How many times the odds of stable are tolerated.
    pub(super) const fn tolerance(&self) -> f64 {
        self.tolerance
    }

    /// ln of what the tick says for each alternative, against the tolerated odds.
    pub(super) fn ln_ratios(&self, shares: &Shares) -> [f64; K] {
        let shares = rarer(shares);
        let (candidate, stable) = (shares.candidate.requests as f64, shares.stable.requests as f64);
        let (x, bad) = (shares.candidate.bad as f64, bad(&shares) as f64);
        if bad == 0.0 || candidate == 0.0 || stable == 0.0 {
            return [0.0; K];
        }
        if bad >= RARE * (candidate + stable)
            && let Some(margins) = Margins::new(&shares)
        {
            let null = margins.ln_g(self.ln_tolerance);
            return self.ln_ratios.map(|ln_k| x * ln_k - (margins.ln_g(ln_k + self.ln_tolerance) - null));
        }
        let tolerated = self.tolerance * candidate;
        let share = tolerated / (tolerated + stable);
        let mut ln_ratios = self.ln_ratios;
        for (ln_k, k) in ln_ratios.iter_mut().zip(self.ratios) {
            *ln_k = x * *ln_k - bad * libm::log1p((k - 1.0) * share);
        }
        ln_ratios
    }
}

fn bad(shares: &Shares) -> u64 {
    shares.candidate.bad.saturating_add(shares.stable.bad)
}

/// The same table by the rarer kind of event: odds of bad events at the candidate are odds of good ones at stable.
fn rarer(shares: &Shares) -> Shares {
    let Shares { candidate, stable } = *shares;
    if bad(shares) <= candidate.good().saturating_add(stable.good()) {
        return *shares;
    }
    let by_good = |arm: ArmCount| ArmCount { requests: arm.requests, bad: arm.good() };
    Shares { candidate: by_good(stable), stable: by_good(candidate) }
}

/// Non-inferiority: ln of the evidence of one tick that the candidate's odds are below e^`ln_limit` times stable's.
pub(super) fn ln_noninferior(shares: &Shares, ln_limit: f64) -> f64 {
    let shares = rarer(shares);
    let (candidate, stable) = (shares.candidate.requests as f64, shares.stable.requests as f64);
    let bad = bad(&shares) as f64;
    if bad == 0.0 || candidate == 0.0 || stable == 0.0 {
        return 0.0;
    }
    // The test divides by G, so a bound must come from below: E[r^x] >= r^E[x], by Jensen.
    let ln_g = Margins::new(&shares)
        .map_or_else(|| bad * candidate / (candidate + stable) * ln_limit, |margins| margins.ln_g(ln_limit));
    ln_g - shares.candidate.bad as f64 * ln_limit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(n_c: u64, x_c: u64, n_s: u64, x_s: u64) -> Shares {
        Shares {
            candidate: ArmCount { requests: n_c, bad: x_c },
            stable: ArmCount { requests: n_s, bad: x_s },
        }
    }

    /// Probabilities of 0, 1, .. bad events at the candidate with these odds.
    fn distribution(n_c: u64, n_s: u64, bad: u64, odds: f64) -> Vec<(u64, f64)> {
        let ln_factorial = |n: u64| (1..=n).map(|i| (i as f64).ln()).sum::<f64>();
        let choose = |n: u64, k: u64| ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
        let terms: Vec<(u64, f64)> = (bad.saturating_sub(n_s)..=bad.min(n_c))
            .map(|u| (u, (choose(n_c, u) + choose(n_s, bad - u) + u as f64 * odds.ln()).exp()))
            .collect();
        let total: f64 = terms.iter().map(|(_, term)| term).sum();
        terms.into_iter().map(|(u, term)| (u, term / total)).collect()
    }

    proptest! {
        /// The claim that the whole judge stands on, exactly and not by simulation.
        #[test]
        fn each_ratio_has_expectation_at_most_one_under_the_null(
            n_c in 1..40_u64, n_s in 1..40_u64, share in 0.0..=1.0_f64, tolerance in 1.0..3.0_f64, better in 0.2..=1.0_f64,
        ) {
            let bad = ((n_c + n_s) as f64 * share) as u64;
            let test = Relative::new(tolerance, RATIOS);
            let mut expected = [0.0; ALTERNATIVES];
            for (x, chance) in distribution(n_c, n_s, bad, tolerance * better) {
                for (sum, ln_ratio) in expected.iter_mut().zip(test.ln_ratios(&shares(n_c, x, n_s, bad - x))) {
                    *sum += chance * ln_ratio.exp();
                }
            }
            for expectation in expected {
                prop_assert!(expectation <= 1.0 + 1e-9, "{expectation}");
            }
        }

        /// The bound is valid for common events too, which the exact sum takes over only for its power.
        #[test]
        fn the_bound_for_rare_events_is_a_bound(
            n_c in 1..40_u64, n_s in 1..40_u64, share in 0.0..=1.0_f64, tolerance in 1.0..5.0_f64,
        ) {
            let bad = ((n_c + n_s) as f64 * share) as u64;
            let x_c = bad.min(n_c);
            let margins = Margins::new(&shares(n_c, x_c, n_s, bad - x_c)).unwrap();
            let tolerated = tolerance * n_c as f64;
            let bound_share = tolerated / (tolerated + n_s as f64);
            for k in RATIOS {
                let exact = margins.ln_g((k * tolerance).ln()) - margins.ln_g(tolerance.ln());
                let bound = bad as f64 * ((k - 1.0) * bound_share).ln_1p();
                prop_assert!(exact <= bound + 1e-9, "{exact} {bound}");
            }
        }

        #[test]
        fn evidence_of_noninferiority_has_expectation_at_most_one_at_the_limit(
            n_c in 1..40_u64, n_s in 1..40_u64, share in 0.0..=1.0_f64, limit in 1.1..5.0_f64, worse in 1.0..3.0_f64,
        ) {
            let bad = ((n_c + n_s) as f64 * share) as u64;
            let expectation: f64 = distribution(n_c, n_s, bad, limit * worse)
                .into_iter()
                .map(|(x, chance)| chance * ln_noninferior(&shares(n_c, x, n_s, bad - x), limit.ln()).exp())
                .sum();
            prop_assert!(expectation <= 1.0 + 1e-9, "{expectation}");
        }

        #[test]
        fn any_counts_give_finite_evidence(n_c: u64, x_c: u64, n_s: u64, x_s: u64) {
            let shares = shares(n_c, x_c.min(n_c), n_s, x_s.min(n_s));
            for ln_ratio in Relative::new(1.2, RATIOS).ln_ratios(&shares) {
                prop_assert!(ln_ratio.is_finite());
            }
            prop_assert!(ln_noninferior(&shares, 2.0_f64.ln()).is_finite());
        }
    }

    #[test]
    fn an_arm_without_requests_says_nothing() {
        assert_eq!(Relative::new(1.0, RATIOS).ln_ratios(&shares(0, 0, 10, 3)), [0.0; ALTERNATIVES]);
        assert_eq!(Relative::new(1.0, RATIOS).ln_ratios(&shares(10, 3, 0, 0)), [0.0; ALTERNATIVES]);
        assert_eq!(ln_noninferior(&shares(10, 3, 0, 0), 0.7), 0.0);
    }
}
