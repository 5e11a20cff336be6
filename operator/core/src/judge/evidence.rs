//! Evidence: likelihood ratios mixed over alternatives and over the moment at which the candidate broke, in logarithms.
//!
//! Used by [`super::tick`]. With alternatives k of prior weight π_k and a start weight w for each tick, the mixture is
//! R_k <- (R_k + π_k w) e^(l_k) and its value is sum R_k + (1 - sum w): it starts at one, and under the null its
//! expectation never rises, so it exceeds 1/alpha with a chance of at most alpha.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A natural logarithm in whole millionths, rounded down: short in a status, exact in JSON, never NaN or infinite.
/// Rounding down only ever makes an e-value smaller.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Nats(i64);

/// A billion nats, far beyond any decision, and an integer that every JSON reader keeps.
const LIMIT: i64 = 1_000_000_000_000_000;

impl Nats {
    /// The logarithm of (almost) zero.
    pub const NOTHING: Self = Self(-LIMIT);
    /// The logarithm of one.
    pub const ONE: Self = Self(0);

    /// The largest representable number that is not above `nats`; [`Self::NOTHING`] if that is not a number.
    pub fn floor(nats: f64) -> Self {
        if nats.is_nan() {
            return Self::NOTHING;
        }
        // A cast saturates.
        Self(((nats * 1e6).floor() as i64).clamp(-LIMIT, LIMIT))
    }

    /// The logarithm, in nats.
    pub fn get(self) -> f64 {
        self.0.clamp(-LIMIT, LIMIT) as f64 * 1e-6
    }
}

/// Log-weights of alternatives as they start.
pub(super) const fn empty<const K: usize>() -> [Nats; K] {
    [Nats::NOTHING; K]
}

/// ln(e^a + e^b).
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a < b { (b, a) } else { (a, b) };
    // Below this the sum differs by less than what a state resolves.
    if high - low > 36.0 { high } else { high + libm::log1p(libm::exp(low - high)) }
}

/// One tick: each alternative gains e^`ln_start`, and what the tick says about it.
pub(super) fn step<const K: usize>(weights: &mut [Nats; K], ln_start: f64, ln_ratios: &[f64; K]) {
    for (weight, ln_ratio) in weights.iter_mut().zip(ln_ratios) {
        *weight = Nats::floor(log_add(weight.get(), ln_start) + ln_ratio);
    }
}

/// The share of planned ticks in the weight of all start times. The rest is for later ones, so that a rollout that takes
/// longer than planned still finds what breaks, only not as fast.
const PLANNED: f64 = 0.98;

/// The start weight left after `started` ticks of which `planned` were planned, from 1 down to 0.
pub(super) fn unspent(started: u32, planned: u32) -> f64 {
    let (started, planned) = (f64::from(started), f64::from(planned));
    if started <= planned {
        1.0 - PLANNED * started / planned
    } else {
        (1.0 - PLANNED) * libm::log1p(planned) / libm::log1p(started)
    }
}

/// ln of the weight of starting in the tick after `started` ones: what is left before it, less what is left after it.
pub(super) fn ln_start(started: u32, planned: u32) -> f64 {
    let (before, horizon) = (f64::from(started), f64::from(planned));
    let weight = if started < planned {
        PLANNED / horizon
    } else {
        let step = libm::log1p(1.0 / (before + 1.0));
        (1.0 - PLANNED) * libm::log1p(horizon) * step / (libm::log1p(before) * libm::log1p(before + 1.0))
    };
    libm::log(weight)
}

/// The mixture's value: its alternatives and the start weight that is not yet spent, from 0 to 1. May be infinite.
pub(super) fn value<const K: usize>(weights: &[Nats; K], unspent: f64) -> f64 {
    // What is left out is less than a hundred-millionth, and only makes the value smaller.
    weights.iter().map(|weight| weight.get()).filter(|&nats| nats > -20.0).map(libm::exp).sum::<f64>()
        + unspent
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_logarithm_is_never_rounded_up_and_survives_json(nats in prop::num::f64::ANY) {
            let kept = Nats::floor(nats);
            if nats.is_finite() && nats.abs() < 1e6 {
                prop_assert!(kept.get() <= nats + 1e-9 && kept.get() > nats - 1.1e-6);
            }
            let json = serde_json::to_string(&kept).unwrap();
            prop_assert_eq!(serde_json::from_str::<Nats>(&json).unwrap(), kept);
            prop_assert!(kept.get().is_finite());
        }

        #[test]
        fn logarithms_add_as_numbers_do(a in -30.0..30.0_f64, b in -30.0..30.0_f64) {
            prop_assert!((log_add(a, b) - (a.exp() + b.exp()).ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn a_mixture_is_the_sum_over_starts_that_it_stands_for() {
        let (ratios, starts) = ([[0.3, -0.1], [-0.2, 0.9], [0.4, 0.4]], 10.0_f64);
        let mut weights = empty::<2>();
        for ratio in &ratios {
            step(&mut weights, (0.5 / starts).ln(), ratio);
        }
        let mut expected = 1.0 - 3.0 / starts;
        for k in 0..2 {
            for start in 0..3 {
                let evidence: f64 = ratios[start..].iter().map(|ratio| ratio[k]).sum();
                expected += 0.5 / starts * evidence.exp();
            }
        }
        assert!((value(&weights, 1.0 - 3.0 / starts) - expected).abs() < 1e-5);
    }

    #[test]
    fn start_weights_are_what_is_spent_and_never_end() {
        for planned in [1, 7, 864] {
            for started in (0..3000).chain([u32::MAX - 1]) {
                let spent = unspent(started, planned) - unspent(started + 1, planned);
                assert!((ln_start(started, planned).exp() - spent).abs() < 1e-12, "{started} of {planned}");
            }
            assert_eq!(unspent(0, planned), 1.0);
            assert!(unspent(u32::MAX, planned) > 0.0);
        }
    }

    #[test]
    fn overwhelming_evidence_does_not_overflow_the_state() {
        let mut weights = empty::<1>();
        for _ in 0..10 {
            step(&mut weights, -9.0, &[1e300]);
        }
        assert_eq!(value(&weights, 0.0), f64::INFINITY);
        step(&mut weights, -9.0, &[f64::NAN]);
        assert_eq!(weights[0], Nats::NOTHING);
    }
}
