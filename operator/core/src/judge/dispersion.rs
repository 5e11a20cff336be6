//! Dispersion: by how much counts vary more than independent requests would, from an A/A comparison of stable pods.
//!
//! A controller calls [`estimate`] once before a rollout, on stable's history, and puts the result into its
//! [`super::Policy`]; it must not change after the first tick. Two things are told apart: requests that fail together within a tick
//! (users who stick to a pod, retries) raise the design effect, and pods that are better or worse for as long as they live
//! have a spread. Stickiness that is to a version and not to a pod cannot be seen this way.

use super::tick::ArmCount;

/// Bad events below which nothing can be told.
const FEWEST: f64 = 20.0;

/// What stable's pods showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dispersion {
    /// Variance of a pod's bad events in a tick over that of independent requests, at least 1.
    pub design_effect: f64,
    /// Standard deviation of the logarithm of a pod's rate of bad events.
    pub pod_sd: f64,
    /// Pods that had requests.
    pub pods: u32,
}

/// Estimates from `ticks`, each with the counts of all stable pods in the same order. Nothing if fewer than two pods had
/// requests, or there were too few bad events to tell.
///
/// The design effect is Pearson's statistic of the table of ticks by pods over its degrees of freedom; rates that change
/// with time and pods that differ for good are both part of its expectation. The spread is the variance of the
/// pods' rates beyond what counting explains.
pub fn estimate(ticks: &[Vec<ArmCount>]) -> Option<Dispersion> {
    let width = ticks.iter().map(Vec::len).max().unwrap_or(0);
    let mut pods = vec![(0.0, 0.0); width];
    for (sums, count) in ticks.iter().flat_map(|tick| pods_of(tick)) {
        pods[sums].0 += count.requests as f64;
        pods[sums].1 += count.bad as f64;
    }
    let (requests, bad) = pods.iter().fold((0.0, 0.0), |sum, pod| (sum.0 + pod.0, sum.1 + pod.1));
    let rate = bad / requests;
    let alive = pods.iter().filter(|pod| pod.0 > 0.0).count();
    if alive < 2 || bad < FEWEST || !(rate > 0.0 && rate < 1.0) {
        return None;
    }
    let relative: Vec<f64> =
        pods.iter().map(|pod| if pod.0 > 0.0 { pod.1 / pod.0 / rate } else { 1.0 }).collect();
    let (mut statistic, mut degrees) = (0.0, 0.0);
    for tick in ticks {
        let (part, free) = tick_statistic(tick, &relative, rate);
        statistic += part;
        degrees += free;
    }
    // Each pod's own rate was fitted too.
    degrees -= alive as f64 - 1.0;
    if degrees < 1.0 {
        return None;
    }
    let design_effect = (statistic / degrees).max(1.0);
    let spread: f64 = pods
        .iter()
        .zip(&relative)
        .filter(|(pod, _)| pod.0 > 0.0)
        .map(|(pod, relative)| {
            let noise = design_effect * (1.0 - rate) / (pod.0 * rate);
            (relative - 1.0).powi(2) / (1.0 - pod.0 / requests) - noise
        })
        .sum();
    // The variance of a lognormal of mean one is e^(sd^2) - 1.
    let pod_sd = (spread / alive as f64).max(0.0).ln_1p().sqrt();
    let estimate = Dispersion { design_effect, pod_sd, pods: u32::try_from(alive).unwrap_or(u32::MAX) };
    (design_effect.is_finite() && pod_sd.is_finite()).then_some(estimate)
}

fn pods_of(tick: &[ArmCount]) -> impl Iterator<Item = (usize, &ArmCount)> {
    tick.iter().enumerate().filter(|(_, count)| count.requests > 0 && count.bad <= count.requests)
}

/// Pearson's statistic of one tick, and its degrees of freedom.
fn tick_statistic(tick: &[ArmCount], relative: &[f64], rate: f64) -> (f64, f64) {
    let (bad, fitted, cells) = pods_of(tick).fold((0.0, 0.0, 0.0), |(bad, fitted, cells), (pod, count)| {
        (bad + count.bad as f64, fitted + count.requests as f64 * relative[pod], cells + 1.0)
    });
    if bad == 0.0 || cells < 2.0 {
        return (0.0, 0.0);
    }
    let statistic = pods_of(tick)
        .map(|(pod, count)| {
            let expected = bad * count.requests as f64 * relative[pod] / fitted;
            let variance = expected * (1.0 - rate);
            if variance > 0.0 { (count.bad as f64 - expected).powi(2) / variance } else { 0.0 }
        })
        .sum();
    (statistic, cells - 1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Requests and bad events of nine pods over 500 ticks, bad ones in groups; a plain congruential generator will do.
    fn history(group: u64, spread: f64) -> Vec<Vec<ArmCount>> {
        let mut seed = 20_261_121_u64;
        let mut uniform = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 11) as f64 / (1_u64 << 53) as f64
        };
        let effects: Vec<f64> = (0..9).map(|pod| (spread * (f64::from(pod) - 4.0) / 2.5).exp()).collect();
        (0..500)
            .map(|tick| {
                let cycle = 1.0 + 0.6 * (f64::from(tick) / 144.0 * std::f64::consts::TAU).sin();
                effects
                    .iter()
                    .map(|effect| {
                        let chance = 0.02 * cycle * effect;
                        let groups = (0..300 / group).filter(|_| uniform() < chance).count() as u64;
                        ArmCount { requests: 300, bad: groups * group }
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn groups_and_pods_are_told_apart() {
        let plain = estimate(&history(1, 0.0)).unwrap();
        assert!(plain.design_effect < 1.1 && plain.pod_sd < 0.05 && plain.pods == 9, "{plain:?}");
        let grouped = estimate(&history(3, 0.0)).unwrap();
        assert!((grouped.design_effect / 3.0 - 1.0).abs() < 0.15 && grouped.pod_sd < 0.05, "{grouped:?}");
        // Effects of -1.6 to 1.6 times 0.2 in ninths have a standard deviation of 0.22.
        let uneven = estimate(&history(1, 0.2)).unwrap();
        assert!(uneven.design_effect < 1.1 && (uneven.pod_sd / 0.22 - 1.0).abs() < 0.15, "{uneven:?}");
    }

    #[test]
    fn one_pod_or_no_error_is_no_comparison() {
        let one = vec![vec![ArmCount { requests: 10, bad: 1 }]; 9];
        assert_eq!((estimate(&one), estimate(&[])), (None, None));
        let fine = vec![vec![ArmCount { requests: 10, bad: 0 }; 3]; 9];
        assert_eq!(estimate(&fine), None);
    }

    proptest! {
        #[test]
        fn any_history_gives_a_usable_estimate_or_none(
            ticks in prop::collection::vec(prop::collection::vec((any::<u64>(), any::<u64>()), 0..4), 0..6),
        ) {
            let ticks: Vec<Vec<ArmCount>> = ticks
                .into_iter()
                .map(|tick| tick.into_iter().map(|(requests, bad)| ArmCount { requests, bad }).collect())
                .collect();
            if let Some(estimate) = estimate(&ticks) {
                prop_assert!(estimate.design_effect >= 1.0 && estimate.design_effect.is_finite());
                prop_assert!(estimate.pod_sd >= 0.0 && estimate.pod_sd.is_finite());
            }
        }
    }
}
