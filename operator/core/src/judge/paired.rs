//! Pairs (T5): in shadow both versions answer the same request, and only requests that one of them got wrong say anything.
//!
//! Used by [`super::tick`] for counters of pairs: those that the shadow lost, those that it won, and all (McNemar's test as an
//! e-process). If neither is better, a discordant pair is lost with chance one half.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::log_add;

/// Chances of losing a discordant pair, each as likely as the others.
const CHANCES: [f64; 5] = [0.55, 0.6, 0.67, 0.75, 0.9];

/// Pairs of answers to one request whose label is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pairs {
    /// All of them, the concordant ones too.
    pub all: u64,
    /// Live was right, the shadow wrong, or live nearer to the truth.
    pub lost: u64,
    /// The other way round.
    pub won: u64,
}

impl Pairs {
    /// Adds a tick.
    pub(super) const fn add(&mut self, pairs: Self) {
        self.all = self.all.saturating_add(pairs.all);
        self.lost = self.lost.saturating_add(pairs.lost);
        self.won = self.won.saturating_add(pairs.won);
    }

    /// ln of the evidence that the shadow is worse. Reaches ln(1/alpha) with a chance of at most alpha if it is not.
    pub fn ln_worse(&self) -> f64 {
        ln_mixture(self.lost, self.won)
    }

    /// ln of the evidence that the shadow is better.
    pub fn ln_better(&self) -> f64 {
        ln_mixture(self.won, self.lost)
    }

    /// ln of the evidence that pairs are lost less than `ratio` times as often as won, if in truth they are lost as often.
    pub(super) fn ln_noninferior(&self, ratio: f64) -> f64 {
        let limit = ratio / (1.0 + ratio);
        self.lost as f64 * libm::log(0.5 / limit) + self.won as f64 * libm::log(0.5 / (1.0 - limit))
    }
}

fn ln_mixture(lost: u64, won: u64) -> f64 {
    let terms = CHANCES
        .map(|chance| lost as f64 * libm::log(2.0 * chance) + won as f64 * libm::log(2.0 * (1.0 - chance)));
    terms.into_iter().fold(f64::NEG_INFINITY, log_add) - libm::log(CHANCES.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discordant(lost: u64, won: u64) -> Pairs {
        Pairs { all: lost.saturating_add(won), lost, won }
    }

    #[test]
    fn each_pair_has_expectation_one_if_neither_is_better() {
        let after = |lost, won| discordant(lost, won).ln_worse().exp();
        for (lost, won) in [(0, 0), (3, 1), (10, 20)] {
            let next = 0.5 * (after(lost + 1, won) + after(lost, won + 1));
            assert!((next / after(lost, won) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn evidence_is_symmetric_and_grows_with_the_pairs() {
        let (few, many) = (discordant(6, 3), discordant(80, 40));
        assert!(few.ln_worse() < 20.0_f64.ln() && many.ln_worse() > 20.0_f64.ln());
        assert_eq!(many.ln_worse(), discordant(40, 80).ln_better());
        assert!(many.ln_better() < 0.0);
        let even = discordant(30, 30);
        assert!(even.ln_noninferior(2.0) > 0.0 && many.ln_noninferior(2.0) < 0.0);
        // At the limit a lost pair is twice as likely as a won one, and the expectation is one.
        let one = |lost, won| discordant(lost, won).ln_noninferior(2.0).exp();
        assert!((2.0 / 3.0 * one(1, 0) + 1.0 / 3.0 * one(0, 1) - 1.0).abs() < 1e-12);
        assert!(discordant(u64::MAX, u64::MAX).ln_worse().is_finite());
    }
}
