use proptest::prelude::*;

use super::*;

const RULE: Mean = Mean { better: Better::Lower, margin: 0.0, bound: 1000.0, tuned_ticks: 100 };

fn values(count: u64, mean: f64) -> ArmSum {
    ArmSum { count, sum: count as f64 * mean }
}

fn noise(tick: u32) -> f64 {
    f64::from(tick * 7919 % 101) / 50.0 - 1.0
}

fn after(ticks: u32, shift: f64, better: Better) -> MeanState {
    let mut state = MeanState::default();
    for tick in 0..ticks {
        let candidate = values(100, 5.0 + shift + noise(tick));
        state.add(&Mean { better, ..RULE }, candidate, Some(values(100, 5.0)), true);
    }
    state
}

#[test]
fn a_shift_is_found_in_its_direction_and_beyond_its_margin_only() {
    let value = |state: MeanState, margin: f64| state.worse(&Mean { margin, ..RULE }, 0.05);
    assert!(value(after(200, 0.5, Better::Lower), 0.0) > 20.0);
    assert!(value(after(200, 0.5, Better::Higher), 0.0) < 1.0);
    assert!(value(after(200, 0.5, Better::Lower), 0.6) < 1.0);
    assert!(value(after(200, 0.0, Better::Lower), 0.0) < 20.0);
    assert_eq!(value(after(29, 0.5, Better::Lower), 0.0), 0.5);
}

#[test]
fn the_evidence_is_that_of_the_confidence_sequence() {
    // At the level where the lower end is the margin, the published radius is the mean.
    let found = after(200, 0.3, Better::Lower).versus_stable;
    let alpha = 1.0 / found.value_of_sequence(0.0, 100, 0.05);
    let (t, deviation) = (200.0, (found.squares / 199.0).sqrt());
    let ln_alpha = -2.0 * 0.05_f64.ln();
    let rho = (ln_alpha + ln_alpha.ln_1p()) / 100.0;
    let spread = t * rho + 1.0;
    let radius =
        deviation * (2.0 * spread / (t * t * rho) * (1.0 + spread.sqrt() / (2.0 * alpha)).ln()).sqrt();
    assert!((radius / found.mean - 1.0).abs() < 1e-9, "{radius} {}", found.mean);
}

#[test]
fn what_can_be_seen_is_where_the_evidence_suffices() {
    let found = after(200, 0.3, Better::Lower).versus_stable;
    for ended in [0, 7] {
        let found = Differences { ended, ..found };
        let least = found.least(100.0, 100, 0.05).unwrap();
        let squares = found.squares / 199.0 * 99.0;
        let shifted = Differences { count: 100, mean: 0.1 + least, squares, ..found };
        assert!((shifted.value(0.1, 100, 0.05) / 20.0 - 1.0).abs() < 1e-6);
        assert_eq!(found.least(5000.0, 100, 0.05), found.least(200.0, 100, 0.05), "no sequence is longer");
    }
    assert_eq!(after(29, 0.3, Better::Lower).versus_stable.least(500.0, 100, 0.05), None);
}

#[test]
fn values_are_gathered_until_they_are_enough_of_both_arms() {
    let mut state = MeanState::default();
    for _ in 0..5 {
        state.add(&RULE, values(9, 2.0), Some(values(100, 1.5)), true);
    }
    assert_eq!((state.versus_stable.count, state.versus_stable.mean), (1, 0.5));
    assert_eq!(state.step.candidate.count, 45);
    // What was gathered at another weight is left out.
    state.divide_anew();
    for _ in 0..3 {
        state.add(&RULE, values(9, 2.0), Some(values(100, 1.5)), false);
    }
    assert_eq!((state.versus_stable.count, state.step.candidate.count), (1, 45));
    state.add(&RULE, values(9, 2.0), Some(values(100, 1.5)), true);
    assert_eq!(state.versus_stable.count, 2);
    state.enter();
    assert_eq!((state.versus_stable.count, state.step), (2, Sums::default()));
}

#[test]
fn a_bound_blames_who_is_beyond_it_and_worse_than_stable() {
    let at = |mean: f64, stable: Option<f64>, better: Better, bound: f64| {
        let rule = Mean { better, bound, ..RULE };
        let mut state = MeanState::default();
        for tick in 0..200 {
            let stable = stable.map(|stable| values(100, stable));
            state.add(&rule, values(100, mean + 0.1 * noise(tick)), stable, true);
        }
        state.beyond(&rule, 0.05) > 20.0
    };
    for (mean, stable, better, bound, found) in [
        (1.2, None, Better::Lower, 1.0, true),
        (0.8, None, Better::Lower, 1.0, false),
        (1.2, None, Better::Higher, 1.0, false),
        (0.8, None, Better::Higher, 1.0, true),
        (1.2, Some(0.5), Better::Lower, 1.0, true),
        (1.2, Some(1.2), Better::Lower, 1.0, false),
        (1.2, Some(1.5), Better::Lower, 1.0, false),
        (0.8, Some(0.5), Better::Lower, 1.0, false),
    ] {
        assert_eq!(at(mean, stable, better, bound), found, "{mean} {stable:?} {better:?}");
    }
}

#[test]
fn differences_that_never_differ_are_no_evidence() {
    let mut found = Differences::default();
    for _ in 0..1000 {
        found.add(0.1, 1000);
    }
    assert_eq!(found.value(0.0, 100, 0.05), 0.0);
}

#[test]
fn a_candidate_that_was_good_for_long_is_found_as_soon_as_a_sequence_later() {
    let rule = Mean { margin: 0.1, ..RULE };
    for good in [0, 50, 150, 1000, 5050] {
        let mut state = MeanState::default();
        let found = (0..good + 1000).find(|&tick| {
            let mean = if tick < good { 4.0 } else { 5.3 };
            state.add(&rule, values(100, mean + 0.2 * noise(tick)), Some(values(100, 5.0)), true);
            state.worse(&rule, 0.05) >= 20.0
        });
        // The rest of the sequence in which it broke, and thirty differences or a few more.
        assert!(found.is_some_and(|tick| (good..good + 300).contains(&tick)), "{good}: {found:?}");
    }
}

#[test]
fn all_sequences_share_one_level() {
    let parts = (0..100_000).map(|ended| Differences { ended, ..Differences::default() }.part()).sum::<f64>();
    assert!(parts < 1.0 && parts > 0.999, "{parts}");
}

/// Healthy candidates whose values are as skewed as squared errors, at the fewest values for a difference.
#[test]
fn a_healthy_candidate_is_found_worse_with_a_chance_of_at_most_alpha() {
    let mut seed = 20_261_122_u64;
    let mut exponential = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        -(((seed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64).ln()
    };
    // Three sequences and a part of a fourth.
    let rule = Mean { tuned_ticks: 30, ..RULE };
    let (mut found, runs) = (0, 300);
    for _ in 0..runs {
        let mut state = MeanState::default();
        let worse = (0..200).any(|_| {
            let mut arm = || ArmSum { count: 30, sum: (0..30).map(|_| exponential()).sum() };
            state.add(&rule, arm(), Some(arm()), true);
            state.worse(&rule, 0.05) >= 20.0
        });
        found += u32::from(worse);
    }
    assert!(found <= 15, "{found} of {runs}");
}

proptest! {
    #[test]
    fn any_sum_keeps_the_state_finite(count: u64, sum in prop::num::f64::ANY, margin: f64, alone: bool) {
        let mut state = MeanState::default();
        let rule = Mean { margin, ..RULE };
        for _ in 0..40 {
            state.add(&rule, ArmSum { count, sum }, (!alone).then_some(values(50, 1.0)), true);
        }
        let json = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<MeanState>(&json).unwrap(), state);
        prop_assert!(!state.worse(&rule, 0.05).is_nan() && !state.beyond(&rule, 0.05).is_nan());
    }
}
