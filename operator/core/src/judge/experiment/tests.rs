use super::*;
use crate::judge::{
    Advance, Arms, Events, Inconclusive, Labels, Missing, Outcome, Policy, Source, Tick, Verdict,
    winner::Design,
};

/// Counted ticks of the experiment, with a look every ten.
const TICKS: u32 = 140;
const STEP: Step = Step {
    index: 7,
    arms: Arms::Both,
    began_ms: 0,
    min_ms: 70 * 60_000,
    interval_ms: 140 * 60_000,
    max_ms: None,
    min_requests: 100,
};

fn metric(name: &str, rule: Rule) -> MetricPolicy {
    MetricPolicy {
        name: name.into(),
        source: Source::Counters,
        rule,
        design_effect: 1.0,
        pods: None,
        labels: None,
    }
}

/// A guard, the primary metric and a secondary one.
fn judge() -> Judge {
    let policy = Policy {
        alpha: 0.05,
        beta: 0.05,
        tick_ms: 60_000,
        horizon_ticks: 1000,
        warmup_ms: 0,
        lookback_ms: 60_000,
        blind_after: 3,
        split_design_effect: 1.0,
        advance: Advance::Interval,
        inconclusive: Inconclusive::Hold,
        experiment: Some(Experiment {
            step: 7,
            design: Design { alpha: 0.05, looks: 14 },
            wait: 0,
            ticks: TICKS,
        }),
        metrics: vec![
            metric("errors", Rule::Share { events: Events::Bad, relative: Some(1.2), absolute: Some(0.05) }),
            metric("accuracy", Rule::Primary { events: Events::Good }),
            metric("slow", Rule::Secondary { events: Events::Bad, below: 2.0, bound: 0.05 }),
        ],
    };
    Judge::new(policy).unwrap()
}

fn both(candidate: u64, stable: u64) -> Outcome {
    let arm = |bad| ArmCount { requests: 1000, bad };
    let shares = Shares { candidate: arm(candidate), stable: arm(stable) };
    Outcome::Both { shares, strict: shares }
}

/// Bad events of the candidate and of stable in each tick: of the guard, the primary and the secondary metric.
type Bad = [(u64, u64); 3];
const SAME: (u64, u64) = (10, 10);

/// Verdicts after each of so many ticks, and the state at the end.
fn run(judge: &Judge, ticks: u32, bad: Bad) -> (Vec<Verdict>, State) {
    let mut state = State::new(judge.policy(), 0, 7);
    let outcomes = bad.map(|(candidate, stable)| both(candidate, stable));
    let mut verdicts = vec![];
    for _ in 0..ticks {
        judge.fold_tick(&mut state, &STEP, &Tick { weight: Some(0.5), outcomes: &outcomes, beside: None });
        verdicts.push(judge.verdict(&state, &STEP));
    }
    (verdicts, state)
}

/// The first tick with this verdict, from 1.
fn first(verdicts: &[Verdict], verdict: &Verdict) -> Option<usize> {
    verdicts.iter().position(|said| said == verdict).map(|index| index + 1)
}

#[test]
fn looks_come_at_their_ticks_by_the_boundaries_of_obrien_and_fleming() {
    let (verdicts, state) = run(&judge(), TICKS, [SAME, (150, 150), SAME]);
    let ticks: Vec<u32> = state.looks.iter().map(|look| look.ticks).collect();
    assert_eq!(ticks, (1..=14).map(|look| look * 10).collect::<Vec<_>>());
    for (number, look) in (1..).zip(&state.looks) {
        let wanted = 2.104 * (14.0 / f64::from(number)).sqrt();
        assert!((look.needs.unwrap() - wanted).abs() < 0.01 * wanted, "{number}: {look:?}");
        assert_eq!((look.z, look.candidate.requests), (Some(0.0), u64::from(look.ticks) * 1000));
    }
    assert_eq!(first(&verdicts, &Verdict::NoWinner), Some(140));
}

#[test]
fn a_better_candidate_wins_when_its_time_has_come_and_a_worse_one_loses_before() {
    let judge = judge();
    let (verdicts, state) = run(&judge, 100, [SAME, (100, 150), SAME]);
    assert_eq!(first(&verdicts, &Verdict::Advance), Some(70), "half of its time");
    assert_eq!(state.looks.len(), 6, "no look follows a winner");
    let (verdicts, _) = run(&judge, 100, [SAME, (150, 100), SAME]);
    let lost = first(&verdicts, &Verdict::Lost).unwrap();
    assert!(lost.is_multiple_of(10) && lost <= 30, "{lost}");
}

#[test]
fn a_secondary_metric_that_is_not_shown_to_be_as_good_stands_against_a_winner() {
    let judge = judge();
    let (verdicts, state) = run(&judge, TICKS, [SAME, (100, 150), (60, 10)]);
    assert_eq!(first(&verdicts, &Verdict::Advance), None);
    assert_eq!(
        (verdicts.last(), judge.unproven(&state).collect::<Vec<_>>()),
        (Some(&Verdict::NoWinner), vec!["slow"])
    );
    // None at all is shown to be below its own bound.
    let (verdicts, _) = run(&judge, 80, [SAME, (100, 150), (0, 0)]);
    assert_eq!(first(&verdicts, &Verdict::Advance), Some(70));
}

#[test]
fn a_guard_rolls_back_between_two_looks_and_the_primary_metric_does_not() {
    let judge = judge();
    let (verdicts, _) = run(&judge, 20, [(200, 10), (150, 150), SAME]);
    let rollback = verdicts.iter().position(|said| matches!(said, Verdict::Rollback(_))).unwrap();
    assert!(rollback < 5, "{rollback}");
    let (verdicts, _) = run(&judge, 9, [SAME, (600, 100), (600, 10)]);
    assert_eq!(verdicts, vec![Verdict::Progressing; 9]);
}

#[test]
fn ticks_that_do_not_count_bring_no_look_and_several_that_are_due_are_one() {
    let judge = judge();
    let (_, mut state) = run(&judge, 9, [SAME, (150, 150), SAME]);
    let blind = [both(10, 10), Outcome::Missing(Missing::NoSeries), both(10, 10)];
    for _ in 0..50 {
        judge.fold_tick(&mut state, &STEP, &Tick { weight: Some(0.5), outcomes: &blind, beside: None });
    }
    assert_eq!((state.looks.len(), state.step.ticks), (0, 9));
    let few = Policy {
        experiment: Some(Experiment {
            step: 7,
            design: Design { alpha: 0.05, looks: 14 },
            wait: 0,
            ticks: 3,
        }),
        ..judge.policy().clone()
    };
    let few = Judge::new(few).unwrap();
    let (_, state) = run(&few, 3, [SAME, (150, 150), SAME]);
    let due: Vec<u32> = state.looks.iter().map(|look| few.experiment(7).unwrap().due(look.ticks)).collect();
    assert_eq!(due, [4, 9, 14]);
    assert!(state.looks.iter().all(|look| look.needs.is_some()), "{:?}", state.looks);
}

#[test]
fn labels_put_off_every_look_and_those_of_earlier_requests_are_not_compared() {
    let mut policy = judge().policy().clone();
    policy.experiment = policy.experiment.map(|own| Experiment { wait: 30, ..own });
    policy.metrics[1].labels = Some(Labels { delay_ms: 30 * 60_000, fewest: 50 });
    let judge = Judge::new(policy).unwrap();
    let (verdicts, state) = run(&judge, 200, [SAME, (100, 150), SAME]);
    assert_eq!(first(&verdicts, &Verdict::Advance), Some(100), "half of its time, after the labels began");
    let look = state.looks.first().unwrap();
    assert_eq!((look.ticks, look.candidate.requests), (40, 10 * 1000));
}

#[test]
fn events_that_come_together_and_pods_that_differ_raise_what_is_needed_to_win() {
    let with = |design_effect, pods| {
        let mut policy = judge().policy().clone();
        policy.metrics[1] = MetricPolicy { design_effect, pods, ..policy.metrics[1].clone() };
        let (_, state) = run(&Judge::new(policy).unwrap(), 140, [SAME, (148, 150), SAME]);
        state.looks.iter().find_map(|look| look.z.filter(|_| look.ticks == 140)).unwrap()
    };
    let (plain, by_four) = (with(1.0, None), with(4.0, None));
    assert!((plain / by_four - 2.0).abs() < 0.01, "{plain} {by_four}");
    let spread = |degrees| Some(PodSpread { sd: 0.02, degrees, candidate_pods: 2, stable_pods: 2 });
    let (few, many) = (with(1.0, spread(2)), with(1.0, spread(1000)));
    assert!(few < many && many < plain, "{few} {many} {plain}");
}

#[test]
fn a_state_with_sixty_looks_is_short_and_goes_on_to_the_bit() {
    let policy = Policy {
        experiment: Some(Experiment {
            step: 7,
            design: Design { alpha: 0.05, looks: 60 },
            wait: 0,
            ticks: 60,
        }),
        ..judge().policy().clone()
    };
    let judge = Judge::new(policy).unwrap();
    let outcomes = [SAME, (151, 150), SAME].map(|(candidate, stable)| both(candidate, stable));
    let tick = Tick { weight: Some(0.5), outcomes: &outcomes, beside: None };
    let (mut whole, mut written) = (State::new(judge.policy(), 0, 7), State::new(judge.policy(), 0, 7));
    for _ in 0..60 {
        judge.fold_tick(&mut whole, &STEP, &tick);
        judge.fold_tick(&mut written, &STEP, &tick);
        written = serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
    }
    assert_eq!(whole, written);
    assert_eq!(whole.looks.len(), 60);
    let length = serde_json::to_string(&whole.looks).unwrap().len();
    assert!(length < 4096, "{length}");
}

#[test]
fn neither_another_step_nor_weights_that_were_taken_again_lose_the_looks() {
    let judge = judge();
    let (_, mut state) = run(&judge, 20, [SAME, (150, 150), SAME]);
    let outcomes = [both(10, 10), both(150, 150), both(10, 10)];
    let fold = |state: &mut State, index: u32, began_ms: i64| {
        let step = Step { index, began_ms, ..STEP };
        judge.fold_tick(state, &step, &Tick { weight: Some(0.5), outcomes: &outcomes, beside: None });
        (state.looks.len(), state.step.ticks)
    };
    assert_eq!(fold(&mut state.clone(), 100, 20 * 60_000), (2, 1));
    // Requests that came while the route was another one are not the experiment's.
    assert_eq!(fold(&mut state, 7, i64::MAX), (2, 20));
    assert_eq!(state.metrics[1].step_requests, 20_000);
    assert_eq!(fold(&mut state, 7, 21 * 60_000), (2, 21));
    assert_eq!(state.metrics[1].step_requests, 21_000);
}

#[test]
fn who_has_won_stays_the_winner_when_a_secondary_metric_is_less_sure() {
    let judge = judge();
    let (verdicts, mut state) = run(&judge, 70, [SAME, (100, 150), (0, 0)]);
    assert_eq!(verdicts.last(), Some(&Verdict::Advance));
    let outcomes = [both(10, 10), both(100, 150), both(1, 0)];
    for _ in 0..200 {
        judge.fold_tick(&mut state, &STEP, &Tick { weight: Some(0.5), outcomes: &outcomes, beside: None });
        assert_eq!(judge.verdict(&state, &STEP), Verdict::Advance);
    }
    assert!(judge.unproven(&state).next().is_some());
}
