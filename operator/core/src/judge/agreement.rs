//! Agreement: in shadow the candidate and stable answer the same request, and stable answers it once more.
//!
//! Used by [`super::tick`] for three counters. A request speaks against the candidate if it alone answers otherwise, for it if
//! stable alone differs from itself, and says nothing else: so what stable's own answers differ by is subtracted. Requests
//! are bets on the mean of that being above what is allowed (Waudby-Smith and Ramdas, 2024, section 4): what a bet has
//! won is a product over requests that are of three kinds, so counts are all that is kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::log_add;

/// Bets as shares of the largest that cannot lose more than there is, each as likely as the others.
const BETS: [f64; 5] = [0.05, 0.1, 0.2, 0.4, 0.8];

/// Requests that were answered three times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// All of them.
    pub all: u64,
    /// The candidate alone answered otherwise.
    pub candidate: u64,
    /// Stable alone differed from itself.
    pub stable: u64,
}

impl Compared {
    /// Adds a tick.
    pub(super) const fn add(&mut self, compared: Self) {
        self.all = self.all.saturating_add(compared.all);
        self.candidate = self.candidate.saturating_add(compared.candidate);
        self.stable = self.stable.saturating_add(compared.stable);
    }

    /// Share of requests in which the candidate agrees with stable as often as stable with itself; none without any.
    pub fn agreement(&self) -> Option<f64> {
        let differs = self.candidate as f64 - self.stable as f64;
        (self.all > 0).then(|| 1.0 - differs / self.all as f64)
    }

    /// ln of the evidence that the candidate answers otherwise in more than a share `most` of the requests. Reaches
    /// ln(1/alpha) with a chance of at most alpha if it does not.
    pub fn ln_differs(&self, most: f64) -> f64 {
        let neither = self.all.saturating_sub(self.candidate).saturating_sub(self.stable);
        ln_won(self.candidate as f64, self.stable as f64, neither as f64, most)
    }

    /// The smallest share of requests beyond `most` in which a candidate answers otherwise that `requests` of them are expected
    /// to show at level `alpha`, if stable goes on differing from itself as it has; none if they show nothing.
    pub fn least_visible(&self, requests: f64, most: f64, alpha: f64) -> Option<f64> {
        let noise = self.stable as f64 / (self.all as f64).max(1.0);
        let shows = |differs: f64| {
            let neither = (1.0 - differs - 2.0 * noise).max(0.0);
            ln_won((differs + noise) * requests, noise * requests, neither * requests, most)
                >= -libm::log(alpha)
        };
        // The more it differs the more is won, so halving finds where that begins.
        let (mut hidden, mut shown) = (most, 1.0 - 2.0 * noise);
        if shown <= hidden || !shows(shown) {
            return None;
        }
        for _ in 0..30 {
            let middle = 0.5 * (hidden + shown);
            if shows(middle) { shown = middle } else { hidden = middle }
        }
        Some(shown)
    }
}

/// ln of what the bets have won after so many requests of each kind.
fn ln_won(candidate: f64, stable: f64, neither: f64, most: f64) -> f64 {
    let terms = BETS.map(|share| {
        let bet = share / (1.0 + most);
        candidate * libm::log1p(bet * (1.0 - most))
            + neither * libm::log1p(-bet * most)
            + stable * libm::log1p(-share)
    });
    terms.into_iter().fold(f64::NEG_INFINITY, log_add) - libm::log(BETS.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(all: u64, candidate: u64, stable: u64) -> Compared {
        Compared { all, candidate, stable }
    }

    #[test]
    fn each_request_has_expectation_one_at_the_limit() {
        for most in [0.0, 0.05, 0.3] {
            for before in [compared(0, 0, 0), compared(50, 9, 4), compared(1000, 60, 0)] {
                let next = |candidate, stable| {
                    let mut after = before;
                    after.add(compared(1, candidate, stable));
                    (after.ln_differs(most) - before.ln_differs(most)).exp()
                };
                // Stable differs from itself in a tenth of the requests, and the candidate in as much more as is allowed.
                let expected = (0.1 + most) * next(1, 0) + 0.1 * next(0, 1) + (0.8 - most) * next(0, 0);
                assert!((expected - 1.0).abs() < 1e-9, "{most} {before:?}: {expected}");
            }
        }
    }

    fn least_of(share: f64) -> u64 {
        (share * 1000.0).ceil() as u64
    }

    #[test]
    fn what_stable_differs_by_itself_is_not_the_candidates_fault() {
        let (alpha, most) = (20.0_f64.ln(), 0.05);
        assert!(compared(1000, 100, 0).ln_differs(most) > alpha);
        assert!(compared(1000, 100, 90).ln_differs(most) < 0.0);
        assert!(compared(1000, 50, 0).ln_differs(most) < alpha);
        assert!(
            compared(10, 10, 0).ln_differs(most) > alpha,
            "a model that always answers otherwise is found at once"
        );
        assert_eq!(compared(1000, 100, 90).agreement(), Some(0.99));
        assert_eq!(Compared::default().agreement(), None);
        let least = compared(100, 0, 0).least_visible(1000.0, most, 0.05).unwrap();
        assert!((0.06..0.1).contains(&least), "{least}");
        assert!(compared(1000, least_of(least), 0).ln_differs(most) > alpha - 0.1);
        let with_noise = compared(100, 20, 20).least_visible(1000.0, most, 0.05).unwrap();
        assert!(with_noise > least, "{with_noise}");
        assert_eq!(compared(100, 0, 0).least_visible(2.0, most, 0.05), None);
        assert!(compared(u64::MAX, u64::MAX, u64::MAX).ln_differs(1.0).is_finite());
    }
}
