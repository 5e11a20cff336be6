//! Weights: the canary's steps, and how two versions share traffic.

use anneal_crds::model_rollout::Canary;

/// The percentages of the canary's steps, in order; never empty, never above `max`, and between 1 and 100 whatever the
/// spec says.
pub(super) fn steps(canary: &Canary) -> Vec<i32> {
    let increment = usize::try_from(canary.increment.max(1)).unwrap_or(1);
    let (initial, max) = (canary.initial.clamp(1, 100), canary.max.clamp(1, 100));
    let mut weights: Vec<i32> = (initial..=max).step_by(increment).collect();
    if weights.last() != Some(&max) {
        weights.push(max);
    }
    weights
}

#[cfg(test)]
mod tests {
    use anneal_crds::Span;
    use proptest::prelude::*;

    use super::*;

    fn canary(initial: i32, increment: i32, max: i32) -> Canary {
        Canary { initial, increment, interval: Span::from_secs(1), max, min_requests: 1 }
    }

    #[test]
    fn ten_plus_fifteen_a_day_reaches_everything_in_seven_steps() {
        assert_eq!(steps(&canary(10, 15, 100)), [10, 25, 40, 55, 70, 85, 100]);
        assert_eq!(steps(&canary(20, 50, 100)), [20, 70, 100]);
        assert_eq!(steps(&canary(100, 1, 100)), [100]);
    }

    proptest! {
        #[test]
        fn steps_rise_strictly_from_initial_to_max(initial in 1..=100, increment in 1..=100, max in 1..=100) {
            prop_assume!(initial <= max);
            let steps = steps(&canary(initial, increment, max));
            prop_assert_eq!(steps[0], initial);
            prop_assert_eq!(steps[steps.len() - 1], max);
            prop_assert!(steps.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= increment));
        }
    }
}
