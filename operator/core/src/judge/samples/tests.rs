use proptest::prelude::*;

use super::*;
use crate::judge::{
    Advance, ArmCount, ArmSum, Arms, Better, Events, Inconclusive, Mean, MetricPolicy, Missing, Outcome,
    Policy, Rule, Source,
};

const TICK: i64 = 60_000;
const SCRAPE: i64 = 15_000;
const MEAN: Mean = Mean { better: Better::Lower, margin: 0.0, bound: 1000.0, tuned_ticks: 50 };

fn metric(source: Source) -> MetricPolicy {
    MetricPolicy {
        name: "error_rate".into(),
        source,
        rule: Rule::Share { events: Events::Bad, relative: Some(1.2), absolute: Some(0.01) },
        design_effect: 1.0,
        pods: None,
        labels: None,
    }
}

fn policy() -> Policy {
    Policy {
        alpha: 0.05,
        beta: 0.05,
        tick_ms: TICK,
        horizon_ticks: 1000,
        warmup_ms: 0,
        lookback_ms: TICK,
        blind_after: 2,
        split_design_effect: 1.0,
        advance: Advance::Interval,
        inconclusive: Inconclusive::Hold,
        experiment: None,
        metrics: vec![metric(Source::Counters)],
    }
}

fn step() -> Step {
    Step {
        index: 0,
        arms: Arms::Both,
        began_ms: 0,
        min_ms: 0,
        interval_ms: 3 * TICK,
        max_ms: None,
        min_requests: 1,
    }
}

/// A counter scraped every 15 s from time 0 that shows these values.
fn counter(values: &[f64]) -> Counter {
    values.iter().enumerate().map(|(i, &value)| Sample { at_ms: i as i64 * SCRAPE, value }).collect()
}

fn pod(arm: Arm, events: Counter, all: Counter) -> Pod {
    let counters = Counters::Share { events: vec![events], all: vec![all] };
    Pod { arm, started_ms: None, ready_ms: None, counters }
}

fn seen(until_ms: i64, pods: Vec<Pod>) -> Observations {
    let weights = vec![WeightChange { at_ms: 0, weight: 0.5 }];
    Observations { until_ms, step: step(), weights, metrics: vec![Seen::Pods(pods)], beside: None }
}

fn judge() -> Judge {
    Judge::new(policy()).unwrap()
}

fn arms(pods: &[Pod]) -> Arms {
    if pods.iter().any(|pod| pod.arm == Arm::Stable) { Arms::Both } else { Arms::CandidateAlone }
}

fn outcome_at(pods: &[Pod], start: i64) -> Outcome {
    Window::new(&policy(), start).outcome(&policy().metrics[0], arms(pods), pods)
}

fn steady(arm: Arm, scrapes: usize, bad: f64, all: f64) -> Pod {
    let line = |slope: f64| counter(&(0..scrapes).map(|i| i as f64 * slope).collect::<Vec<_>>());
    pod(arm, line(bad), line(all))
}

fn counts(outcome: Outcome) -> (u64, u64) {
    match outcome {
        Outcome::Both { shares, .. } => (shares.candidate.requests, shares.candidate.bad),
        Outcome::Alone(count) => (count.requests, count.bad),
        Outcome::Missing(_) | Outcome::Means { .. } | Outcome::Pairs(_) | Outcome::Compared(_) => {
            panic!("{outcome:?}")
        }
    }
}

/// What a process counts between scrapes, and whether it is restarted before counting.
fn life() -> impl Strategy<Value = Vec<(u32, u32, bool)>> {
    prop::collection::vec((0..50_u32, 0..5_u32, prop::bool::weighted(0.1)), 4..60)
}

proptest! {
    /// A4: what a restarted process counted since its restart is counted, to the unit, however ticks are cut.
    #[test]
    fn increments_add_up_to_what_was_counted(life in life(), first in 0..100_u32, tick in 1..40_i64) {
        let (mut all, mut bad, mut values) = (f64::from(first), 0.0, vec![(f64::from(first), 0.0)]);
        let mut counted = (0.0, 0.0);
        for (good, failed, restarts) in life {
            // A request between the restart and the scrape makes the restart visible.
            let good = if restarts { 0 } else { good };
            if restarts && all > f64::from(failed) {
                (all, bad) = (0.0, 0.0);
            }
            let both = f64::from(good + failed);
            (all, bad) = (all + both, bad + f64::from(failed));
            counted = (counted.0 + both, counted.1 + f64::from(failed));
            values.push((all, bad));
        }
        let series = pod(
            Arm::Candidate,
            counter(&values.iter().map(|value| value.1).collect::<Vec<_>>()),
            counter(&values.iter().map(|value| value.0).collect::<Vec<_>>()),
        );
        let policy = Policy { tick_ms: tick * 5_000, lookback_ms: 1_000_000, ..policy() };
        let end = (values.len() as i64 - 1) * SCRAPE;
        let (mut start, mut sum) = (0, (0, 0));
        while start < end {
            let outcome = Window::new(&policy, start).outcome(&policy.metrics[0], Arms::CandidateAlone, std::slice::from_ref(&series));
            match outcome {
                Outcome::Alone(arm) => sum = (sum.0 + arm.requests, sum.1 + arm.bad),
                Outcome::Missing(Missing::Gap) => prop_assert!(policy.tick_ms < SCRAPE),
                Outcome::Missing(_) | Outcome::Both { .. } | Outcome::Means { .. } | Outcome::Pairs(_) | Outcome::Compared(_) => {
                    prop_assert!(false, "{outcome:?}");
                }
            }
            start += policy.tick_ms;
        }
        prop_assert_eq!((sum.0 as f64, sum.1 as f64), counted);
    }

    /// A9: killed after any tick, written to JSON and read again, it comes to the same state to the bit.
    #[test]
    fn a_replay_is_the_same_to_the_bit(
        candidate in life(), stable in life(), kills in prop::collection::vec(any::<bool>(), 20),
    ) {
        let build = |arm, life: &[(u32, u32, bool)]| {
            let (mut all, mut bad) = (vec![0.0], vec![0.0]);
            for (good, failed, restarts) in life {
                let (a, b) = if *restarts { (0.0, 0.0) } else { (all[all.len() - 1], bad[bad.len() - 1]) };
                all.push(a + f64::from(good + failed));
                bad.push(b + f64::from(*failed));
            }
            pod(arm, counter(&bad), counter(&all))
        };
        let pods = vec![build(Arm::Candidate, &candidate), build(Arm::Stable, &stable)];
        let evidence = Policy { advance: Advance::Evidence(2.0), ..policy() };
        let judge = Judge::new(evidence.clone()).unwrap();
        let end = 15 * TICK;
        let (at_once, verdict) = judge.fold(State::new(&evidence, 0, 0), &seen(end, pods.clone()));
        let (mut state, mut last) = (State::new(&evidence, 0, 0), Verdict::Progressing);
        for (tick, killed) in (1..=15).zip(&kills) {
            (state, last) = judge.fold(state, &seen(tick * TICK, pods.clone()));
            if *killed {
                state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            }
            // The same samples again change nothing.
            let (again, _) = judge.fold(state.clone(), &seen(tick * TICK, pods.clone()));
            prop_assert_eq!(&again, &state);
        }
        prop_assert_eq!(&state, &at_once);
        prop_assert_eq!(last, verdict);
    }

    /// A3: whatever Prometheus answers, nothing panics, and nothing but data advances or rolls back.
    #[test]
    fn no_samples_make_it_panic(
        samples in prop::collection::vec(prop::collection::vec((any::<i64>(), any::<f64>()), 0..6), 4),
        until_ms: i64, started: Option<i64>, change: i64, le: f64, buckets: bool,
    ) {
        let made: Vec<Counter> = samples
            .iter()
            .map(|counter| counter.iter().map(|&(at_ms, value)| Sample { at_ms, value }).collect())
            .collect();
        let counters = |i: usize| if buckets {
            Counters::Histogram(vec![
                Bucket { le, counter: made[i].clone() },
                Bucket { le: f64::INFINITY, counter: made[i + 1].clone() },
            ])
        } else {
            Counters::Share { events: vec![made[i].clone()], all: vec![made[i + 1].clone()] }
        };
        let pods = vec![
            Pod { arm: Arm::Candidate, started_ms: started, ready_ms: started, counters: counters(0) },
            Pod { arm: Arm::Stable, started_ms: None, ready_ms: None, counters: counters(2) },
        ];
        let source = if buckets { Source::Histogram(0.3) } else { Source::Counters };
        let policy = Policy { metrics: vec![metric(source)], ..policy() };
        let mut input = seen(until_ms.min(100 * TICK), pods);
        input.weights.push(WeightChange { at_ms: change, weight: le });
        let (state, verdict) = Judge::new(policy.clone()).unwrap().fold(State::new(&policy, 0, 0), &input);
        let counted = &state.metrics[0];
        let rests_on_data = match verdict {
            Verdict::Rollback(_) | Verdict::Lost => counted.step_bad > 0,
            Verdict::Advance | Verdict::NoWinner => counted.step_requests > 0 && state.step.ticks >= 3,
            Verdict::Hold(_) | Verdict::Progressing => true,
        };
        prop_assert!(rests_on_data, "{:?}", state);
        let json = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
    }

    #[test]
    fn garbage_is_no_verdict(value in prop::sample::select(vec![f64::NAN, f64::INFINITY, -1.0, 1e300])) {
        let bad = counter(&[value; 60]);
        let pods = vec![pod(Arm::Candidate, bad.clone(), bad), steady(Arm::Stable, 60, 1.0, 100.0)];
        let (state, verdict) = judge().fold(State::new(&policy(), 0, 0), &seen(12 * TICK, pods));
        prop_assert_eq!(verdict, Verdict::Hold(Hold::NoData { metric: "error_rate".into() }));
        prop_assert_eq!((state.metrics[0].invalid, state.step.ticks), (12, 0));
    }
}

#[test]
fn a_pod_that_started_since_counts_from_zero_and_an_old_one_from_its_first_sample() {
    let late = |started_ms| {
        let samples: Counter = (5..=8).map(|i| Sample { at_ms: i * SCRAPE, value: i as f64 }).collect();
        Pod { started_ms, ..pod(Arm::Candidate, samples.clone(), samples) }
    };
    assert_eq!(counts(outcome_at(&[late(Some(TICK + 5_000))], TICK)), (8, 8));
    // It started before the tick, and no scrape has seen it yet.
    assert_eq!(counts(outcome_at(&[late(Some(TICK - 5_000))], TICK)), (8, 8));
    assert_eq!(counts(outcome_at(&[late(Some(-10 * TICK))], TICK)), (3, 3));
    assert_eq!(counts(outcome_at(&[late(None)], TICK)), (3, 3));
}

#[test]
fn the_first_error_of_a_pod_counts_although_its_series_is_new() {
    let all = counter(&[10.0, 20.0, 30.0, 40.0, 50.0]);
    let errors = vec![Sample { at_ms: 3 * SCRAPE, value: 2.0 }, Sample { at_ms: 4 * SCRAPE, value: 3.0 }];
    assert_eq!(counts(outcome_at(&[pod(Arm::Candidate, errors, all)], 0)), (40, 3));
}

#[test]
fn a_restart_is_seen_in_every_series_of_the_pod() {
    // The errors had grown back to where they were; the requests show that it is another process.
    let all = counter(&[100.0, 110.0, 20.0, 30.0, 40.0]);
    let errors = counter(&[5.0, 5.0, 5.0, 6.0, 6.0]);
    assert_eq!(counts(outcome_at(&[pod(Arm::Candidate, errors, all)], 0)), (50, 6));
}

#[test]
fn what_is_left_out_is_told_apart() {
    let (candidate, stable) = (steady(Arm::Candidate, 20, 0.0, 10.0), steady(Arm::Stable, 20, 1.0, 90.0));
    let missing = |pods: &[Pod], start| match outcome_at(pods, start) {
        Outcome::Missing(missing) => Some(missing),
        Outcome::Both { .. }
        | Outcome::Alone(_)
        | Outcome::Means { .. }
        | Outcome::Pairs(_)
        | Outcome::Compared(_) => None,
    };
    let silent = pod(Arm::Candidate, counter(&[0.0]), counter(&[1.0]));
    assert_eq!(missing(&[candidate.clone(), stable.clone()], TICK), None);
    assert_eq!(missing(std::slice::from_ref(&stable), TICK), Some(Missing::NoSeries));
    assert_eq!(
        missing(&[silent.clone(), silent.clone(), candidate.clone(), stable.clone()], TICK),
        Some(Missing::Gap)
    );
    assert_eq!(missing(&[silent, candidate.clone(), stable.clone()], TICK), None);
    let unborn = pod(Arm::Candidate, vec![], counter(&[0.0, 1.0, 2.0, 3.0, 4.0]));
    assert_eq!(missing(&[unborn, stable.clone()], 0), Some(Missing::NoSeries));
    let warm = MetricPolicy { ..metric(Source::Counters) };
    let policy = Policy { warmup_ms: 2 * TICK, metrics: vec![warm], ..policy() };
    let young = Pod { ready_ms: Some(0), ..candidate.clone() };
    let at = |start, pods: &[Pod]| Window::new(&policy, start).outcome(&policy.metrics[0], arms(pods), pods);
    assert_eq!(at(TICK, &[young.clone(), stable.clone()]), Outcome::Missing(Missing::WarmingUp));
    assert_eq!(counts(at(2 * TICK, &[young, stable])), (40, 0));
    let more_bad =
        pod(Arm::Candidate, counter(&[0.0, 9.0, 9.0, 9.0, 9.0]), counter(&[0.0, 1.0, 2.0, 3.0, 4.0]));
    assert_eq!(missing(&[more_bad], 0), Some(Missing::Invalid));
}

#[test]
fn a_tick_in_which_the_weight_changed_is_left_out() {
    let pods = vec![steady(Arm::Candidate, 50, 0.0, 10.0), steady(Arm::Stable, 50, 0.0, 10.0)];
    let mut input = seen(5 * TICK, pods);
    input.weights.push(WeightChange { at_ms: 2 * TICK + 1, weight: 0.6 });
    let (state, _) = judge().fold(State::new(&policy(), 0, 0), &input);
    assert_eq!(
        (state.ticks, state.step.ticks, state.metrics[0].started, state.metrics[0].blind),
        (5, 4, 4, 0)
    );
}

#[test]
fn slow_requests_are_counted_at_the_bucket_above_and_for_advancing_below() {
    let bucket = |le: f64, slope: f64| Bucket {
        le,
        counter: counter(&(0..10).map(|i| f64::from(i) * slope).collect::<Vec<_>>()),
    };
    let histogram = |arm| Pod {
        arm,
        started_ms: None,
        ready_ms: None,
        counters: Counters::Histogram(vec![bucket(0.25, 8.0), bucket(0.5, 9.0), bucket(f64::INFINITY, 10.0)]),
    };
    let at = |threshold| {
        let pods = [histogram(Arm::Candidate), histogram(Arm::Stable)];
        match Window::new(&policy(), 0).outcome(&metric(Source::Histogram(threshold)), Arms::Both, &pods) {
            Outcome::Both { shares, strict } => Ok((shares.candidate, strict.candidate)),
            Outcome::Missing(missing) => Err(missing),
            Outcome::Alone(_) | Outcome::Means { .. } | Outcome::Pairs(_) | Outcome::Compared(_) => {
                unreachable!()
            }
        }
    };
    let (four, eight) = (ArmCount { requests: 40, bad: 4 }, ArmCount { requests: 40, bad: 8 });
    assert_eq!(at(0.3), Ok((four, eight)));
    assert_eq!(at(0.5), Ok((four, four)));
    assert_eq!(at(0.1), Ok((eight, ArmCount { requests: 40, bad: 40 })));
    assert_eq!(at(0.7), Err(Missing::NoBucket));
}

#[test]
fn no_traffic_and_no_data_stop_the_clock_and_never_advance() {
    let idle = vec![steady(Arm::Candidate, 80, 0.0, 0.0), steady(Arm::Stable, 80, 0.0, 10.0)];
    // Stable has requests, so this is no quiet night, and it does not take many of them to tell.
    let ignored = Verdict::Hold(Hold::TrafficSplitMismatch { wanted: 0.5, share: 0.0 });
    let (state, verdict) = judge().fold(State::new(&policy(), 0, 0), &seen(2 * TICK, idle.clone()));
    assert_eq!(verdict, ignored);
    let (state, verdict) = judge().fold(state, &seen(15 * TICK, idle));
    assert_eq!(verdict, ignored);
    assert_eq!(state.step.ticks, 1);
    let night = vec![steady(Arm::Candidate, 80, 0.0, 0.0), steady(Arm::Stable, 80, 0.0, 0.0)];
    let (_, verdict) = judge().fold(State::new(&policy(), 0, 0), &seen(15 * TICK, night));
    assert_eq!(verdict, Verdict::Hold(Hold::NoTraffic));
    let mut down = seen(2 * TICK, vec![]);
    let blind = Verdict::Hold(Hold::NoData { metric: "error_rate".into() });
    assert_eq!(judge().fold(State::new(&policy(), 0, 0), &down).1, blind);
    down.metrics.clear();
    let (state, verdict) = judge().fold(State::new(&policy(), 0, 0), &down);
    assert_eq!(verdict, blind);
    // Data again: the clock goes on where it was.
    let back = vec![steady(Arm::Candidate, 80, 0.0, 10.0), steady(Arm::Stable, 80, 0.0, 10.0)];
    let (state, verdict) = judge().fold(state, &seen(4 * TICK, back.clone()));
    assert_eq!((verdict, state.step.ticks), (Verdict::Progressing, 2));
    assert_eq!(judge().fold(state, &seen(5 * TICK, back)).1, Verdict::Advance);
}

#[test]
fn a_state_of_another_schema_or_policy_holds_and_is_kept() {
    let state = State { schema: 2, ..State::new(&policy(), 0, 0) };
    assert_eq!(
        judge().fold(state.clone(), &seen(TICK, vec![])),
        (state, Verdict::Hold(Hold::UnknownSchema(2)))
    );
    let other = Policy {
        metrics: vec![MetricPolicy { name: "other".into(), ..metric(Source::Counters) }],
        ..policy()
    };
    let state = State::new(&other, 0, 0);
    assert_eq!(judge().fold(state.clone(), &seen(TICK, vec![])), (state, Verdict::Hold(Hold::AnotherPolicy)));
}

#[test]
fn values_may_be_negative_and_restart_with_their_count() {
    let mean = |arm, sum: &[f64], count: &[f64]| Pod {
        arm,
        started_ms: None,
        ready_ms: None,
        counters: Counters::Mean { sum: vec![counter(sum)], count: vec![counter(count)] },
    };
    let rule = Rule::Mean(MEAN);
    let metric = MetricPolicy { rule, ..metric(Source::Sums) };
    let pods = [
        mean(Arm::Candidate, &[0.0, -5.0, -3.0, -4.0, -6.0], &[0.0, 10.0, 20.0, 30.0, 40.0]),
        mean(Arm::Stable, &[9.0, 5.0, 3.0, 1.0, 2.0], &[10.0, 20.0, 5.0, 15.0, 25.0]),
    ];
    assert_eq!(
        Window::new(&policy(), 0).outcome(&metric, Arms::Both, &pods),
        Outcome::Means {
            candidate: ArmSum { count: 40, sum: -6.0 },
            stable: Some(ArmSum { count: 35, sum: -4.0 + 2.0 }),
        }
    );
    assert_eq!(
        Window::new(&policy(), 0).outcome(&metric, Arms::Both, &pods[..1]),
        Outcome::Missing(Missing::NoSeries)
    );
}

/// Ticks through counters, for rules that are not shares.
fn judged(rule: Rule, advance: Advance, pods: &[Pod], ticks: i64) -> (State, Verdict) {
    let policy =
        Policy { metrics: vec![MetricPolicy { rule, ..metric(Source::Counters) }], advance, ..policy() };
    let mut input = seen(ticks * TICK, pods.to_vec());
    input.step.interval_ms = 1000 * TICK;
    Judge::new(policy.clone()).unwrap().fold(State::new(&policy, 0, 0), &input)
}

#[test]
fn a_shadow_that_loses_more_than_it_may_is_rolled_back() {
    let pairs = |lost: f64, won: f64| {
        let line = |slope: f64| counter(&(0..400).map(|i| f64::from(i) * slope).collect::<Vec<_>>());
        let all = vec![line(10.0)];
        let counters = Counters::Paired { lost: vec![line(lost)], won: vec![line(won)], all };
        [Pod { arm: Arm::Candidate, started_ms: None, ready_ms: None, counters }]
    };
    let rule = Rule::Paired { most: 0.5 };
    let (state, verdict) = judged(rule, Advance::Interval, &pairs(2.0, 1.0), 90);
    assert!(
        matches!(&verdict, Verdict::Rollback(why) if why.test == crate::judge::TestName::Paired),
        "{verdict:?}"
    );
    assert!(state.rollback.is_some());
    assert_eq!(judged(rule, Advance::Interval, &pairs(1.0, 1.0), 90).1, Verdict::Progressing);
    let allowed = Rule::Paired { most: 0.7 };
    assert_eq!(judged(allowed, Advance::Interval, &pairs(2.0, 1.0), 90).1, Verdict::Progressing);
}

#[test]
fn a_shadow_that_answers_otherwise_is_rolled_back_and_one_that_stable_differs_as_often_is_not() {
    let triples = |candidate: f64, stable: f64| {
        let line = |slope: f64| vec![counter(&(0..400).map(|i| f64::from(i) * slope).collect::<Vec<_>>())];
        let counters =
            Counters::Compared { candidate: line(candidate), stable: line(stable), all: line(100.0) };
        [Pod { arm: Arm::Candidate, started_ms: None, ready_ms: None, counters }]
    };
    let rule = Rule::Agreement { most: 0.05 };
    let (_, verdict) = judged(rule, Advance::Interval, &triples(20.0, 0.0), 90);
    assert!(
        matches!(&verdict, Verdict::Rollback(why) if why.test == crate::judge::TestName::Agreement),
        "{verdict:?}"
    );
    for (candidate, stable) in [(20.0, 18.0), (5.0, 0.0), (0.0, 0.0)] {
        let (state, verdict) = judged(rule, Advance::Interval, &triples(candidate, stable), 90);
        assert_eq!(verdict, Verdict::Progressing, "{candidate} and {stable}");
        let compared = state.metrics[0].compared.unwrap();
        assert_eq!(compared.agreement(), Some(1.0 - (candidate - stable) / 100.0));
        assert_eq!(state.metrics[0].step_requests, compared.all);
    }
    // More that differ than were compared are no numbers.
    let (state, verdict) = judged(rule, Advance::Interval, &triples(80.0, 80.0), 90);
    assert!(matches!(verdict, Verdict::Hold(crate::judge::Hold::NoData { .. })), "{verdict:?}");
    assert!(state.metrics[0].invalid > 0);
}

#[test]
fn a_mean_that_is_worse_is_rolled_back() {
    let values = |arm, shift: f64| {
        let (mut sum, mut sums) = (0.0, vec![0.0]);
        for i in 0..400 {
            sum += 20.0 * (shift + f64::from(i * 7919 % 101) / 50.0);
            sums.push(sum);
        }
        let count = (0..=400).map(|i| f64::from(i) * 20.0).collect::<Vec<_>>();
        let counters = Counters::Mean { sum: vec![counter(&sums)], count: vec![counter(&count)] };
        Pod { arm, started_ms: None, ready_ms: None, counters }
    };
    // The stable arm's noise is another one.
    let stable = {
        let mut pod = values(Arm::Stable, 0.0);
        if let Counters::Mean { sum, .. } = &mut pod.counters {
            sum[0].iter_mut().enumerate().for_each(|(i, sample)| sample.value = i as f64 * 20.0);
        }
        pod
    };
    let rule = Rule::Mean(MEAN);
    let (_, verdict) = judged(rule, Advance::Interval, &[values(Arm::Candidate, 0.5), stable.clone()], 90);
    assert!(matches!(verdict, Verdict::Rollback(_)), "{verdict:?}");
    let (_, verdict) = judged(rule, Advance::Interval, &[values(Arm::Candidate, 0.0), stable], 90);
    assert_eq!(verdict, Verdict::Progressing);
}

#[test]
fn what_a_step_does_not_judge_by_neither_holds_nor_ends_it() {
    let named = |name: &str| MetricPolicy { name: name.into(), ..metric(Source::Counters) };
    let policy = Policy { metrics: vec![named("error_rate"), named("other")], ..policy() };
    let judge = Judge::new(policy.clone()).unwrap();
    let pods = vec![steady(Arm::Candidate, 80, 0.0, 10.0), steady(Arm::Stable, 80, 0.0, 10.0)];
    let mut input = seen(5 * TICK, pods.clone());
    input.metrics.push(Seen::NotAsked);
    assert_eq!(judge.fold(State::new(&policy, 0, 0), &input).1, Verdict::Advance);
    input.metrics[1] = Seen::Pods(vec![]);
    let blind = Verdict::Hold(Hold::NoData { metric: "other".into() });
    assert_eq!(judge.fold(State::new(&policy, 0, 0), &input).1, blind);
    // The split is watched by the first metric that is asked.
    input.metrics = vec![Seen::NotAsked, Seen::Pods(pods)];
    assert!(judge.fold(State::new(&policy, 0, 0), &input).0.split.requests() > 0);
}

#[test]
fn a_stable_arm_that_is_gone_is_missing_and_not_left_out() {
    let lost = vec![steady(Arm::Candidate, 80, 0.0, 10.0)];
    let blind = Verdict::Hold(Hold::NoData { metric: "error_rate".into() });
    assert_eq!(judge().fold(State::new(&policy(), 0, 0), &seen(5 * TICK, lost.clone())).1, blind);
    let mut alone = seen(5 * TICK, lost);
    alone.step.arms = Arms::CandidateAlone;
    assert_eq!(judge().fold(State::new(&policy(), 0, 0), &alone).1, Verdict::Advance);
}

#[test]
fn a_weight_that_changed_between_two_rare_scrapes_is_left_out_too() {
    // Ticks of 15 s and scrapes of 60 s: the sample at 120 s counts from 60 s on, and the weight changed at 90 s.
    let rare = |arm, per_scrape: f64| {
        let line = |slope: f64| {
            (0..5).map(|i| Sample { at_ms: i * 60_000, value: i as f64 * slope }).collect::<Counter>()
        };
        pod(arm, line(0.0), line(per_scrape))
    };
    let policy = Policy { tick_ms: 15_000, lookback_ms: 120_000, ..policy() };
    let pods = vec![rare(Arm::Candidate, 60.0), rare(Arm::Stable, 60.0)];
    let mut input = seen(240_000, pods);
    input.weights.push(WeightChange { at_ms: 90_000, weight: 0.9 });
    let judge = Judge::new(policy.clone()).unwrap();
    let (state, _) = judge.fold(State::new(&policy, 0, 0), &input);
    assert_eq!(state.split.requests(), 240, "two scrapes after the change count, of both arms");
}

#[test]
fn a_step_that_begins_anew_counts_anew() {
    let pods = vec![steady(Arm::Candidate, 80, 0.0, 10.0), steady(Arm::Stable, 80, 0.0, 10.0)];
    let (state, verdict) = judge().fold(State::new(&policy(), 0, 0), &seen(2 * TICK, pods.clone()));
    assert_eq!((verdict, state.step.ticks), (Verdict::Progressing, 2));
    let mut again = seen(4 * TICK, pods);
    again.step.began_ms = 2 * TICK;
    let (state, verdict) = judge().fold(state, &again);
    assert_eq!((verdict, state.step.ticks), (Verdict::Progressing, 2));
}

#[test]
fn what_a_pod_did_before_it_became_ready_again_counts() {
    let policy = Policy { warmup_ms: TICK, ..policy() };
    let at = |tick: i64, pods: &[Pod]| {
        Window::new(&policy, tick * TICK).outcome(&policy.metrics[0], Arms::CandidateAlone, pods)
    };
    let flapped = Pod { ready_ms: Some(3 * TICK + 1), ..steady(Arm::Candidate, 40, 1.0, 10.0) };
    for (tick, counted) in [(1, true), (2, true), (3, false), (4, false), (5, true)] {
        let outcome = at(tick, std::slice::from_ref(&flapped));
        match counted {
            true => assert_eq!(counts(outcome), (40, 4), "{tick}"),
            false => assert_eq!(outcome, Outcome::Missing(Missing::WarmingUp), "{tick}"),
        }
    }
    // One that is not scraped need not have been there before it was ready, and must be once it is warm.
    let young = Pod { ready_ms: Some(3 * TICK), ..pod(Arm::Candidate, vec![], vec![]) };
    let pods = [flapped, young.clone(), young];
    assert_eq!(counts(at(1, &pods)), (40, 4));
    assert_eq!(at(5, &pods), Outcome::Missing(Missing::Gap));
}

fn values_of(arm: Arm, sum: Vec<Counter>, count: Vec<Counter>) -> Pod {
    Pod { arm, started_ms: None, ready_ms: None, counters: Counters::Mean { sum, count } }
}

#[test]
fn a_pod_whose_values_have_no_sum_was_not_scraped() {
    let line = |slope: f64| vec![counter(&(0..5).map(|i| f64::from(i) * slope).collect::<Vec<_>>())];
    let metric = MetricPolicy { rule: Rule::Mean(MEAN), ..metric(Source::Sums) };
    let at = |pods: &[Pod]| Window::new(&policy(), 0).outcome(&metric, Arms::CandidateAlone, pods);
    let whole = values_of(Arm::Candidate, line(5.0), line(10.0));
    let half = values_of(Arm::Candidate, vec![], line(10.0));
    let sums = Outcome::Means { candidate: ArmSum { count: 40, sum: 20.0 }, stable: None };
    assert_eq!(at(std::slice::from_ref(&whole)), sums);
    assert_eq!(
        at(&[whole.clone(), half.clone()]),
        sums,
        "one that counts values for nothing would lower the mean"
    );
    assert_eq!(at(&[whole, half.clone(), half.clone()]), Outcome::Missing(Missing::Gap));
    assert_eq!(at(&[half]), Outcome::Missing(Missing::NoSeries));
    let broken = values_of(Arm::Candidate, vec![counter(&[0.0, f64::NAN, 1.0])], line(10.0));
    assert_eq!(at(&[broken]), Outcome::Missing(Missing::Invalid));
}

#[test]
fn values_that_were_gathered_at_another_weight_make_no_difference() {
    // Twenty in a tick: the second tick of a pair makes the difference, unless the weight changed in between.
    let pods: Vec<Pod> = [Arm::Candidate, Arm::Stable]
        .map(|arm| {
            let line = |slope: f64| vec![counter(&(0..20).map(|i| f64::from(i) * slope).collect::<Vec<_>>())];
            values_of(arm, line(1.0), line(5.0))
        })
        .to_vec();
    let policy =
        Policy { metrics: vec![MetricPolicy { rule: Rule::Mean(MEAN), ..metric(Source::Sums) }], ..policy() };
    let differences = |changed: &[i64]| {
        let mut input = seen(4 * TICK, pods.clone());
        input.weights.extend(changed.iter().map(|&at_ms| WeightChange { at_ms, weight: 0.6 }));
        let (state, _) = Judge::new(policy.clone()).unwrap().fold(State::new(&policy, 0, 0), &input);
        let known = serde_json::to_value(state.metrics[0].mean).unwrap();
        (known["versusStable"]["count"].clone(), known["open"]["candidate"]["count"].clone())
    };
    assert_eq!(differences(&[]), (2.into(), 0.into()));
    // What came in the tick of the change is left out too.
    assert_eq!(differences(&[TICK + TICK / 2]), (1.into(), 0.into()));
    assert_eq!(differences(&[2 * TICK + TICK / 2]), (1.into(), 20.into()));
}
