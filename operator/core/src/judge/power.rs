//! Power: what a step can see, said before it runs.
//!
//! For the condition that warns of a step too short, or too small a share of traffic, to find what a metric's bound asks for.
//! The relative test's evidence grows by the Kullback-Leibler divergence of how bad events fall on the arms, for each of them;
//! a verdict needs ln(1/alpha) and the price of not knowing how much worse, or since when, the candidate is. On the safe side
//! while the weight is constant: 0.9 to 1.6 times the simulated median delay.

use super::{absolute, relative::ALTERNATIVES};

/// A step as it is planned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Requests a second, both arms together.
    pub rps: f64,
    /// Stable's share of bad requests, above 0, below 1.
    pub rate: f64,
    /// The candidate's share of traffic, above 0, below 1.
    pub weight: f64,
    /// How many times stable's odds are tolerated, at least 1, with the luck of pods allowed for.
    pub tolerance: f64,
    /// Chance of a false rollback.
    pub alpha: f64,
    /// Ticks that the rollout is planned to last.
    pub horizon_ticks: u32,
    /// Tests that share alpha.
    pub tests: u32,
    /// By how much counts vary more than independent requests would, at least 1.
    pub design_effect: f64,
}

/// The most that a ratio is looked for.
const MOST: f64 = 1000.0;

impl Plan {
    /// Seconds until a candidate with `ratio` times as many bad requests is rolled back, typically; nothing if it never is.
    pub fn seconds_to_detect(&self, ratio: f64) -> Option<f64> {
        // A share of bad requests cannot exceed one.
        let ratio = ratio.min(1.0 / self.rate);
        let share = |ratio: f64| ratio * self.weight / (1.0 - self.weight + ratio * self.weight);
        let (seen, tolerated) = (share(ratio), share(self.tolerance));
        if !(seen > tolerated && seen < 1.0) {
            return None;
        }
        let divergence =
            seen * (seen / tolerated).ln() + (1.0 - seen) * ((1.0 - seen) / (1.0 - tolerated)).ln();
        let bad_per_second = self.rps * self.rate * (1.0 - self.weight + ratio * self.weight);
        let price = f64::from(self.horizon_ticks) * f64::from(self.tests) * ALTERNATIVES as f64;
        let needed = (price / self.alpha).ln() * self.design_effect;
        let seconds = needed / (bad_per_second * divergence);
        seconds.is_finite().then_some(seconds)
    }

    /// The smallest ratio that is found within `seconds`, typically; nothing if not even a thousandfold is.
    pub fn detectable_ratio(&self, seconds: f64) -> Option<f64> {
        let most = MOST.min(1.0 / self.rate);
        let finds = |ratio: f64| self.seconds_to_detect(ratio).is_some_and(|needed| needed <= seconds);
        least_from(self.tolerance, most, finds)
    }

    /// The smallest weight, up to one half, at which `ratio` is found within `seconds`; nothing if none is.
    pub fn weight_to_detect(&self, ratio: f64, seconds: f64) -> Option<f64> {
        let finds = |weight: f64| {
            Self { weight, ..*self }.seconds_to_detect(ratio).is_some_and(|needed| needed <= seconds)
        };
        least_from(0.0, 0.5, finds)
    }

    /// Requests of the candidate after which `ratio` is found, typically: a sensible fewest for a step.
    pub fn requests_to_detect(&self, ratio: f64) -> Option<f64> {
        self.seconds_to_detect(ratio).map(|seconds| (seconds * self.rps * self.weight).ceil())
    }
}

/// Requests after which a version whose share of bad ones is `times` its `threshold` is rolled back, typically, where there is nobody to
/// compare it with; nothing if it never is. `alpha` is that of one test, which a rollout of `horizon_ticks` shares among its moments.
///
/// Each request adds the Kullback-Leibler divergence between the two shares, as in [`Plan::seconds_to_detect`].
pub fn requests_to_break(
    threshold: f64,
    times: f64,
    alpha: f64,
    horizon_ticks: u32,
    design_effect: f64,
) -> Option<f64> {
    let share = (threshold * times).min(absolute::HIGHEST);
    let divergence =
        share * (share / threshold).ln() + (1.0 - share) * ((1.0 - share) / (1.0 - threshold)).ln();
    let price = f64::from(horizon_ticks) * absolute::ALTERNATIVES as f64;
    let needed = (price / alpha).ln() * design_effect / divergence;
    (share > threshold && needed.is_finite()).then_some(needed)
}

/// Where `holds` turns from false to true between two numbers; nothing if it does not hold at `high`.
pub fn least_from(low: f64, high: f64, holds: impl Fn(f64) -> bool) -> Option<f64> {
    holds(high).then(|| least(low, high, holds))
}

/// Where `holds` turns from false to true.
fn least(low: f64, high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (low, high);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if holds(middle) { high = middle } else { low = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: f64 = 86_400.0;
    const PLAN: Plan = Plan {
        rps: 1.0,
        rate: 0.005,
        weight: 0.1,
        tolerance: 1.0,
        alpha: 0.05,
        horizon_ticks: 864,
        tests: 1,
        design_effect: 1.0,
    };

    #[test]
    fn the_smallest_visible_ratios_are_those_of_the_specification() {
        for (weight, ratios) in
            [(0.05, [6.2, 2.3, 1.36, 1.11]), (0.1, [4.5, 1.9, 1.26, 1.08]), (0.5, [3.1, 1.5, 1.15, 1.05])]
        {
            for (rps, expected) in [0.1, 1.0, 10.0, 100.0].into_iter().zip(ratios) {
                let found = Plan { weight, rps, ..PLAN }.detectable_ratio(DAY).unwrap();
                assert!((found / expected - 1.0).abs() < 0.05, "{weight} {rps}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn time_and_weight_are_the_inverse_of_the_ratio() {
        let ratio = PLAN.detectable_ratio(DAY).unwrap();
        assert!((PLAN.seconds_to_detect(ratio).unwrap() / DAY - 1.0).abs() < 1e-6);
        assert!((PLAN.weight_to_detect(ratio, DAY).unwrap() - 0.1).abs() < 1e-6);
        assert!((PLAN.requests_to_detect(ratio).unwrap() - 8640.0).abs() < 2.0);
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        assert_eq!(PLAN.seconds_to_detect(1.0), None);
        assert_eq!(Plan { tolerance: 2.0, ..PLAN }.seconds_to_detect(1.9), None);
        assert_eq!(Plan { rps: 0.0, ..PLAN }.detectable_ratio(DAY), None);
        assert_eq!(Plan { rate: f64::NAN, ..PLAN }.detectable_ratio(DAY), None);
        assert_eq!(PLAN.weight_to_detect(1.01, DAY), None);
    }
}
