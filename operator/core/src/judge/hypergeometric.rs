//! Fisher's noncentral hypergeometric distribution: how bad events fall on two arms, given how many there were.
//!
//! Used by [`super::relative`]. G(r) = sum over u of h(u) r^u, with h the central distribution of u bad events among the
//! candidate's requests, is the normaliser of the test. Sums run from the mode outwards, in logarithms.

use super::tick::Shares;

/// Beyond these the exact sum would cost more than a tick is worth, or lose digits.
const MAX_SPREAD: f64 = 512.0;
const MAX_REQUESTS: f64 = 2_147_483_648.0;
/// Terms this much smaller than the sum no longer change it.
const NEGLIGIBLE: f64 = 1e-17;

/// One table of two arms by good and bad: its margins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Margins {
    candidate: f64,
    stable: f64,
    bad: f64,
    /// ln of the sum at r = 1.
    central: f64,
}

impl Margins {
    /// The margins of `shares`, or nothing where the exact sum is out of reach.
    pub(super) fn new(shares: &Shares) -> Option<Self> {
        let (candidate, stable) = (shares.candidate.requests as f64, shares.stable.requests as f64);
        let bad = (shares.candidate.bad + shares.stable.bad) as f64;
        let all = candidate + stable;
        let variance = bad * (candidate / all) * (stable / all) * ((all - bad) / (all - 1.0).max(1.0));
        if !(all < MAX_REQUESTS && variance < MAX_SPREAD * MAX_SPREAD) {
            return None;
        }
        let margins = Self { candidate, stable, bad, central: 0.0 };
        Some(Self { central: margins.ln_sum(0.0), ..margins })
    }

    /// ln G(e^`ln_r`).
    pub(super) fn ln_g(&self, ln_r: f64) -> f64 {
        self.ln_sum(ln_r) - self.central
    }

    /// ln of the sum over u of C(candidate, u) C(stable, bad - u) r^u, short of terms that do not depend on r.
    fn ln_sum(&self, ln_r: f64) -> f64 {
        let r = libm::exp(ln_r);
        let lowest = (self.bad - self.stable).max(0.0);
        let highest = self.bad.min(self.candidate);
        let mode = self.mode(r).clamp(lowest, highest);
        // The term at u relative to that at u - 1.
        let ratio = |u: f64| {
            r * (self.candidate - u + 1.0) * (self.bad - u + 1.0) / (u * (self.stable - self.bad + u))
        };
        let mut sum = 1.0;
        let (mut term, mut u) = (1.0, mode);
        while u < highest && term > sum * NEGLIGIBLE {
            u += 1.0;
            term *= ratio(u);
            sum += term;
        }
        (term, u) = (1.0, mode);
        while u > lowest && term > sum * NEGLIGIBLE {
            term /= ratio(u);
            u -= 1.0;
            sum += term;
        }
        self.ln_term(mode) + mode * ln_r + libm::log(sum)
    }

    fn ln_term(&self, u: f64) -> f64 {
        -(libm::lgamma(u + 1.0)
            + libm::lgamma(self.candidate - u + 1.0)
            + libm::lgamma(self.bad - u + 1.0)
            + libm::lgamma(self.stable - self.bad + u + 1.0))
    }

    /// The u of the largest term: the lower root of ratio(u) = 1, a quadratic in u.
    fn mode(&self, r: f64) -> f64 {
        let b = r * (self.candidate + self.bad + 2.0) + self.stable - self.bad;
        let c = r * (self.candidate + 1.0) * (self.bad + 1.0);
        let root = (b * b - 4.0 * (r - 1.0) * c).max(0.0).sqrt();
        (2.0 * c / (b + root)).floor()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tick::ArmCount, *};

    fn shares(n_c: u64, x_c: u64, n_s: u64, x_s: u64) -> Shares {
        Shares {
            candidate: ArmCount { requests: n_c, bad: x_c },
            stable: ArmCount { requests: n_s, bad: x_s },
        }
    }

    /// The same from binomial coefficients in logarithms, summed in full.
    fn naive(n_c: u64, n_s: u64, bad: u64, ln_r: f64) -> f64 {
        let ln_factorial = |n: u64| (1..=n).map(|i| (i as f64).ln()).sum::<f64>();
        let choose = |n: u64, k: u64| ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
        let range = bad.saturating_sub(n_s)..=bad.min(n_c);
        let logs: Vec<f64> = range
            .map(|u| choose(n_c, u) + choose(n_s, bad - u) - choose(n_c + n_s, bad) + u as f64 * ln_r)
            .collect();
        let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        top + logs.iter().map(|log| (log - top).exp()).sum::<f64>().ln()
    }

    proptest! {
        #[test]
        fn the_sum_from_the_mode_is_the_full_sum(
            n_c in 1..400_u64, n_s in 1..400_u64, share in 0.0..=1.0_f64, ln_r in -5.0..5.0_f64,
        ) {
            let bad = ((n_c + n_s) as f64 * share) as u64;
            let x_c = bad.min(n_c);
            let margins = Margins::new(&shares(n_c, x_c, n_s, bad - x_c)).unwrap();
            let (ours, full) = (margins.ln_g(ln_r), naive(n_c, n_s, bad, ln_r));
            prop_assert!((ours - full).abs() < 1e-8 * full.abs().max(1.0), "{} {}", ours, full);
        }
    }

    #[test]
    fn published_values() {
        // The tea-tasting table, 3 of 4 cups: G(2) = (1 + 16*2 + 36*4 + 16*8 + 16) / 70.
        let tea = Margins::new(&shares(4, 3, 4, 1)).unwrap();
        assert!((tea.ln_g(2.0_f64.ln()) - (321.0_f64 / 70.0).ln()).abs() < 1e-12);
        // r times the derivative of ln G is the mean; Liao and Rosen (2001) have it by m1=25, N=100, n=20, odds 2.5.
        let urn = Margins::new(&shares(25, 10, 75, 10)).unwrap();
        let (at, by) = (2.5_f64.ln(), 1e-5);
        let mean = (urn.ln_g(at + by) - urn.ln_g(at - by)) / (2.0 * by);
        let direct: f64 = {
            let terms: Vec<f64> =
                (0..=20).map(|u| naive_term(25, 75, 20, u) * 2.5_f64.powi(u as i32)).collect();
            let total: f64 = terms.iter().sum();
            terms.iter().enumerate().map(|(u, term)| u as f64 * term).sum::<f64>() / total
        };
        assert!((mean - direct).abs() < 1e-7, "{mean} {direct}");
    }

    fn naive_term(n_c: u64, n_s: u64, bad: u64, u: u64) -> f64 {
        let choose = |n: u64, k: u64| (0..k).map(|i| (n - i) as f64 / (k - i) as f64).product::<f64>();
        choose(n_c, u) * choose(n_s, bad - u)
    }

    #[test]
    fn many_requests_are_quick_or_refused() {
        let margins = Margins::new(&shares(100_000, 30_000, 900_000, 270_000)).unwrap();
        let expected = 300_000.0 * 0.1 * 1.25_f64.ln();
        assert!((margins.ln_g(1.25_f64.ln()) / expected - 1.0).abs() < 0.1);
        assert_eq!(Margins::new(&shares(u64::MAX / 2, 1, u64::MAX / 2, 1)), None);
    }
}
