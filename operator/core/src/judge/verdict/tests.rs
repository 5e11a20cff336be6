use super::*;
use crate::judge::{
    ArmCount, Events, Labels, MetricPolicy, Missing, Outcome, Policy, Rule, Shares, Source, Tick,
};

fn policy(relative: Option<f64>, absolute: Option<f64>) -> Policy {
    Policy {
        alpha: 0.05,
        beta: 0.05,
        tick_ms: 60_000,
        horizon_ticks: 100,
        warmup_ms: 0,
        lookback_ms: 60_000,
        blind_after: 2,
        split_design_effect: 1.0,
        advance: Advance::Interval,
        inconclusive: Inconclusive::Hold,
        experiment: None,
        metrics: vec![MetricPolicy {
            name: "error_rate".into(),
            source: Source::Counters,
            rule: Rule::Share { events: Events::Bad, relative, absolute },
            design_effect: 1.0,
            pods: None,
            labels: None,
        }],
    }
}

const STEP: Step = Step {
    index: 0,
    arms: Arms::Both,
    began_ms: 0,
    min_ms: 120_000,
    interval_ms: 300_000,
    max_ms: None,
    min_requests: 1_000,
};

fn both(n_c: u64, x_c: u64, n_s: u64, x_s: u64) -> Outcome {
    let shares = Shares {
        candidate: ArmCount { requests: n_c, bad: x_c },
        stable: ArmCount { requests: n_s, bad: x_s },
    };
    Outcome::Both { shares, strict: shares }
}

/// The verdict after each of `ticks` ticks of the same outcome.
fn verdicts(policy: &Policy, step: &Step, outcome: Outcome, ticks: usize) -> (State, Vec<Verdict>) {
    let (judge, mut state) = (Judge::new(policy.clone()).unwrap(), State::new(policy, 0, 0));
    let verdicts = (0..ticks)
        .map(|_| {
            judge.fold_tick(
                &mut state,
                step,
                &Tick { weight: Some(0.1), outcomes: &[outcome], beside: None },
            );
            judge.verdict(&state, step)
        })
        .collect();
    (state, verdicts)
}

#[test]
fn a_step_ends_after_its_interval_and_with_enough_requests() {
    let (_, found) = verdicts(&policy(Some(1.2), None), &STEP, both(300, 1, 2700, 9), 5);
    assert_eq!(found, [vec![Verdict::Progressing; 4], vec![Verdict::Advance]].concat());
    let (_, found) = verdicts(&policy(Some(1.2), None), &STEP, both(100, 0, 900, 0), 10);
    assert_eq!(found, [vec![Verdict::Progressing; 9], vec![Verdict::Advance]].concat());
}

#[test]
fn evidence_ends_a_step_early_and_starts_anew_in_the_next() {
    let policy = Policy { advance: Advance::Evidence(2.0), ..policy(Some(1.2), None) };
    let (mut state, found) = verdicts(&policy, &STEP, both(1000, 3, 9000, 27), 5);
    assert_eq!((&found[0], &found[4]), (&Verdict::Progressing, &Verdict::Advance));
    let judge = Judge::new(policy).unwrap();
    let next = Step { index: 1, began_ms: 300_000, ..STEP };
    assert_eq!(judge.verdict(&state, &next), Verdict::Progressing);
    judge.fold_tick(
        &mut state,
        &next,
        &Tick { weight: Some(0.1), outcomes: &[both(10, 0, 90, 0)], beside: None },
    );
    assert_eq!(judge.verdict(&state, &next), Verdict::Progressing);
    assert_eq!((state.step.index, state.step.ticks, state.metrics[0].step_requests), (1, 1, 10));
    // A candidate without a bad event beside a stable one without is no evidence.
    let (_, found) = verdicts(judge.policy(), &STEP, both(1000, 0, 9000, 0), 50);
    assert_eq!(found[49], Verdict::Progressing);
}

#[test]
fn without_a_bad_event_the_bound_itself_is_the_evidence() {
    let policy = Policy { advance: Advance::Evidence(2.0), ..policy(Some(1.2), Some(0.01)) };
    let step = Step { min_ms: 0, min_requests: 1, ..STEP };
    // 299 requests without a bad one have a chance of 5 % at a share of 1 %.
    let (_, found) = verdicts(&policy, &step, both(100, 0, 900, 0), 3);
    assert_eq!(found, [Verdict::Progressing, Verdict::Progressing, Verdict::Advance]);
    // Requests that fail by three are worth a third.
    let mut grouped = policy.clone();
    grouped.metrics[0].design_effect = 3.0;
    let (_, found) = verdicts(&grouped, &step, both(100, 0, 900, 0), 9);
    assert_eq!((&found[7], &found[8]), (&Verdict::Progressing, &Verdict::Advance));
    // One bad event at either arm, or one that may be bad, and there is something to compare.
    let strict = Outcome::Both {
        shares: Shares {
            candidate: ArmCount { requests: 100, bad: 0 },
            stable: ArmCount { requests: 900, bad: 0 },
        },
        strict: Shares {
            candidate: ArmCount { requests: 100, bad: 1 },
            stable: ArmCount { requests: 900, bad: 9 },
        },
    };
    for first in [both(100, 1, 900, 0), both(100, 0, 900, 1), strict] {
        let (judge, mut state) = (Judge::new(policy.clone()).unwrap(), State::new(&policy, 0, 0));
        for outcome in [first, both(100, 0, 900, 0), both(100, 0, 900, 0), both(100, 0, 900, 0)] {
            judge.fold_tick(
                &mut state,
                &step,
                &Tick { weight: Some(0.1), outcomes: &[outcome], beside: None },
            );
        }
        assert_eq!(judge.verdict(&state, &step), Verdict::Progressing, "{first:?}");
    }
    // A step that an older version began does not know.
    let (mut state, _) = verdicts(&policy, &step, both(100, 0, 900, 0), 3);
    let mut kept = serde_json::to_value(&state).unwrap();
    kept["metrics"][0]["advance"].as_object_mut().unwrap().remove("bad");
    state = serde_json::from_value(kept).unwrap();
    assert_eq!(Judge::new(policy).unwrap().verdict(&state, &step), Verdict::Progressing);
}

#[test]
fn a_worse_candidate_is_rolled_back_for_good_and_the_reason_is_kept() {
    let (mut state, found) = verdicts(&policy(Some(1.2), None), &STEP, both(1000, 15, 9000, 45), 9);
    let Verdict::Rollback(why) = &found[8] else { panic!("{found:?}") };
    assert_eq!((why.metric.as_str(), why.test), ("error_rate", TestName::Relative));
    let estimate = why.estimate.unwrap();
    assert!((estimate.ratio - 3.0).abs() < 0.2 && estimate.low > 1.0 && estimate.high > 3.0, "{estimate:?}");
    let judge = Judge::new(policy(Some(1.2), None)).unwrap();
    judge.fold_tick(
        &mut state,
        &STEP,
        &Tick { weight: Some(0.1), outcomes: &[both(1000, 0, 9000, 45)], beside: None },
    );
    assert_eq!(judge.verdict(&state, &STEP), found[8]);
    assert_eq!(state.ticks, 10);
}

#[test]
fn a_threshold_that_both_arms_break_is_not_the_candidates_fault() {
    let absolute = policy(None, Some(0.01));
    let (_, found) = verdicts(&absolute, &STEP, both(1000, 60, 9000, 540), 60);
    assert_eq!(found[59], Verdict::Advance);
    let (_, found) = verdicts(&absolute, &STEP, both(1000, 60, 9000, 45), 9);
    assert!(matches!(&found[8], Verdict::Rollback(why) if why.test == TestName::Absolute), "{found:?}");
    // Without a stable arm it is.
    let alone = Outcome::Alone(ArmCount { requests: 1000, bad: 60 });
    let (_, found) = verdicts(&absolute, &STEP, alone, 9);
    assert!(matches!(found[8], Verdict::Rollback(_)));
}

#[test]
fn a_wrong_split_holds_and_does_not_stop_a_rollback() {
    let (_, found) = verdicts(&policy(Some(1.2), None), &STEP, both(2000, 2, 8000, 8), 9);
    assert!(
        matches!(found[8], Verdict::Hold(Hold::TrafficSplitMismatch { wanted, share }) if wanted == 0.1 && share == 0.2)
    );
    let (_, found) = verdicts(&policy(Some(1.2), None), &STEP, both(2000, 100, 8000, 8), 9);
    assert!(matches!(found[8], Verdict::Rollback(_)));
}

#[test]
fn the_longest_duration_ends_as_the_policy_says() {
    let step = Step { interval_ms: i64::MAX, max_ms: Some(180_000), ..STEP };
    for (inconclusive, expected) in
        [(Inconclusive::Hold, Verdict::Hold(Hold::Inconclusive)), (Inconclusive::Advance, Verdict::Advance)]
    {
        let policy = Policy { inconclusive, ..policy(Some(1.2), None) };
        let (_, found) = verdicts(&policy, &step, both(1000, 3, 9000, 27), 3);
        assert_eq!((&found[1], &found[2]), (&Verdict::Progressing, &expected));
        // Too few requests are no reason to go on.
        let (_, found) = verdicts(&policy, &step, both(100, 0, 900, 3), 3);
        assert_eq!(found[2], Verdict::Hold(Hold::Inconclusive));
    }
    let policy = Policy { inconclusive: Inconclusive::Rollback, ..policy(Some(1.2), None) };
    let (_, found) = verdicts(&policy, &step, both(1000, 3, 9000, 27), 3);
    assert!(matches!(&found[2], Verdict::Rollback(why) if why.test == TestName::Duration));
}

/// Errors at once, and labels three ticks later, of which a step needs fifteen.
fn with_labels(advance: Advance) -> Policy {
    let mut policy = Policy { advance, ..policy(Some(1.2), Some(0.5)) };
    let labels = Some(Labels { delay_ms: 180_000, fewest: 15 });
    policy.metrics.push(MetricPolicy { name: "accuracy".into(), labels, ..policy.metrics[0].clone() });
    policy
}

#[test]
fn labels_are_neither_awaited_before_their_time_nor_taken_for_requests() {
    let policy = with_labels(Advance::Interval);
    let judge = Judge::new(policy.clone()).unwrap();
    let (none, some) = (Outcome::Missing(Missing::NoSeries), both(10, 1, 10, 1));
    let after = |errors: Outcome, labels: &[Outcome]| {
        let mut state = State::new(&policy, 0, 0);
        for labels in labels {
            let tick = Tick { weight: Some(0.1), outcomes: &[errors, *labels], beside: None };
            judge.fold_tick(&mut state, &STEP, &tick);
        }
        let verdict = judge.verdict(&state, &STEP);
        (state, verdict)
    };
    let requests = both(1_000, 3, 9_000, 27);
    // Silent in the first three ticks and the lookback after them; then it is no data.
    let (state, verdict) = after(requests, &[none; 5]);
    assert_eq!((state.step.ticks, verdict), (4, Verdict::Progressing));
    let (state, verdict) = after(requests, &[none; 6]);
    assert_eq!((state.step.ticks, verdict), (4, Verdict::Hold(Hold::NoData { metric: "accuracy".into() })));
    let invalid = Outcome::Missing(Missing::Invalid);
    let (_, verdict) = after(requests, &[invalid; 2]);
    assert_eq!(verdict, Verdict::Hold(Hold::NoData { metric: "accuracy".into() }));
    // What comes before that are not all labels of anything: it is neither evidence nor what the step needs.
    let (state, verdict) = after(requests, &[some; 4]);
    assert_eq!((state.metrics[1].started, state.metrics[1].step_requests), (1, 10));
    assert_eq!((state.metrics[1].stable_requests, state.metrics[1].step_bad), (10, 1));
    assert_eq!(verdict, Verdict::Progressing);
    assert_eq!(after(requests, &[some; 5]).1, Verdict::Advance);
    // Without requests labels stop neither the clock from standing still nor say how requests are divided.
    let (state, verdict) = after(both(0, 0, 0, 0), &[some; 20]);
    assert_eq!((state.split.requests(), verdict), (0, Verdict::Hold(Hold::NoTraffic)));
    // A step that has no traffic yet awaits nothing.
    let mut state = State::new(&policy, 0, 0);
    let later = Step { began_ms: i64::MAX, ..STEP };
    for _ in 0..9 {
        judge.fold_tick(
            &mut state,
            &later,
            &Tick { weight: Some(0.1), outcomes: &[requests, none], beside: None },
        );
    }
    assert_eq!(judge.verdict(&state, &later), Verdict::Progressing);
}

#[test]
fn labels_show_no_step_to_be_good_before_they_may_be_of_it() {
    let policy = with_labels(Advance::Evidence(2.0));
    let (judge, mut state) = (Judge::new(policy.clone()).unwrap(), State::new(&policy, 0, 0));
    let found: Vec<Verdict> = (0..5)
        .map(|_| {
            let outcomes = &[both(1_000, 30, 9_000, 270); 2];
            judge.fold_tick(&mut state, &STEP, &Tick { weight: Some(0.1), outcomes, beside: None });
            judge.verdict(&state, &STEP)
        })
        .collect();
    assert_eq!(found, [vec![Verdict::Progressing; 3], vec![Verdict::Advance; 2]].concat());
}

#[test]
fn a_rollout_longer_than_planned_is_told() {
    let policy = policy(Some(1.2), Some(0.01));
    let (state, _) = verdicts(&policy, &STEP, both(100, 0, 900, 3), 101);
    let judge = Judge::new(policy.clone()).unwrap();
    assert_eq!(judge.overdue(&state).collect::<Vec<_>>(), ["error_rate"]);
    assert_eq!(judge.overdue(&State::new(&policy, 0, 0)).count(), 0);
}

#[test]
fn many_metrics_share_one_alpha_and_stay_small() {
    let metric =
        |i| MetricPolicy { name: format!("metric_{i}"), ..policy(Some(1.2), Some(0.01)).metrics[0].clone() };
    let policy = Policy { metrics: (0..16).map(metric).collect(), ..policy(None, Some(0.01)) };
    let (judge, mut state) = (Judge::new(policy.clone()).unwrap(), State::new(&policy, 0, 0));
    let mut outcomes = vec![both(1_000_003, 2_999, 9_000_007, 27_001); 16];
    for _ in 0..200 {
        judge.fold_tick(&mut state, &STEP, &Tick { weight: Some(0.1), outcomes: &outcomes, beside: None });
    }
    assert_eq!(state.rollback, None);
    assert!(serde_json::to_string(&state).unwrap().len() < 8 * 1024);
    outcomes[7] = both(1_000_003, 29_990, 9_000_007, 27_001);
    judge.fold_tick(&mut state, &STEP, &Tick { weight: Some(0.1), outcomes: &outcomes, beside: None });
    assert_eq!(state.rollback.unwrap().metric, "metric_7");
}
