//! Pairs (T5): in shadow both versions answer the same request, and only requests that one of them got wrong say anything.
//!
//! Used by [`super::tick`] for counters of pairs: those that the shadow lost, those that it won, and all (McNemar's test as an
//! e-process). If neither is better, a discordant pair is lost with chance one half; somewhat more may be allowed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::log_add;

/// How far towards certainty the chance of losing a discordant pair is beyond what is allowed, each as likely as the others: of
/// one half they make .55, .6, .67, .75 and .9.
const BEYOND: [f64; 5] = [0.1, 0.2, 0.34, 0.5, 0.8];

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

    /// ln of the evidence that the shadow loses more than a share `most` of the discordant pairs, below 1. Reaches ln(1/alpha) with
    /// a chance of at most alpha if it does not.
    pub fn ln_worse(&self, most: f64) -> f64 {
        let (lost, won) = (self.lost as f64, self.won as f64);
        let terms = BEYOND.map(|beyond| {
            let chance = most + (1.0 - most) * beyond;
            lost * libm::log(chance / most) + won * libm::log((1.0 - chance) / (1.0 - most))
        });
        terms.into_iter().fold(f64::NEG_INFINITY, log_add) - libm::log(BEYOND.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discordant(lost: u64, won: u64) -> Pairs {
        Pairs { all: lost.saturating_add(won), lost, won }
    }

    #[test]
    fn each_pair_has_expectation_one_at_the_limit() {
        for most in [0.5, 0.6, 0.9] {
            let after = |lost, won| discordant(lost, won).ln_worse(most).exp();
            for (lost, won) in [(0, 0), (3, 1), (10, 20)] {
                let next = most * after(lost + 1, won) + (1.0 - most) * after(lost, won + 1);
                assert!((next / after(lost, won) - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn evidence_grows_with_the_pairs_and_shrinks_with_what_is_allowed() {
        let (few, many) = (discordant(6, 3), discordant(80, 40));
        assert!(few.ln_worse(0.5) < 20.0_f64.ln() && many.ln_worse(0.5) > 20.0_f64.ln());
        assert!(many.ln_worse(0.7) < 0.0 && discordant(40, 80).ln_worse(0.5) < 0.0);
        assert!(discordant(u64::MAX, u64::MAX).ln_worse(0.5).is_finite());
    }
}
