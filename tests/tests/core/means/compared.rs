//! The same under `evidence: sequential`: means of both versions, from raw sums and counts.

use anneal_core::rollout::{Query, Question, RawSeries};
use anneal_tests::raw::Raw;
use jiff::SignedDuration;

use super::*;

const HOUR: i64 = 3600;

/// What is wrong with the candidate's counters of values.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    NoSum,
    NoCount,
    SumIsNoNumber,
    /// They begin at zero every five minutes.
    Restarts,
    /// Nothing is counted any more after ten minutes.
    Stands,
}

/// Versions 1 and 2, whose requests and values are scraped every ten seconds.
#[derive(Clone, Debug)]
struct World {
    case: RolloutCase,
    /// The mean of each version's values, which differs a little from scrape to scrape.
    means: [f64; 2],
    /// Values of each version in ten seconds.
    values: [i64; 2],
    /// Requests of each version in ten seconds.
    requests: [i64; 2],
    /// How much later than its request a value is known, in seconds.
    late: i64,
    fault: Fault,
}

impl World {
    /// A canary of 20 % that began this moment and takes half an hour, judged by errors and by this mean.
    fn new(means: [f64; 2], mean: Value, sequential: Value) -> Self {
        let mut status = cases::moving("Canary", 20);
        for time in ["stepStartedAt", "trafficAcceptedAt", "trialStartedAt"] {
            status[time] = cases::ago(0).into();
        }
        let mut case = RolloutCase::new(status).unwrap();
        let spec = &mut case.rollout.spec;
        spec.metrics = from_value(json!([
            {"name": "error_rate", "window": "5m", "interval": "10s", "ratio": {"bad": "bad", "total": "all", "max": 0.01}},
            {"name": "mae", "window": "5m", "interval": "10s", "mean": mean},
        ]))
        .unwrap();
        spec.strategy = from_value(json!({"rollbackTriggers": ["error_rate", "mae"],
            "steps": [{"weight": 20, "duration": "30m", "minRequests": 20}, {"weight": 100, "duration": "30m"}]}))
        .unwrap();
        let mut terms = json!({"dispersion": "Assumed"});
        terms.as_object_mut().unwrap().extend(sequential.as_object().unwrap().clone());
        spec.judge =
            from_value(json!({"evidence": "sequential", "maxHold": "10m", "sequential": terms})).unwrap();
        Self { case, means, values: [400, 100], requests: [800, 200], late: 0, fault: Fault::None }
    }

    fn errors(means: [f64; 2]) -> Self {
        let mean = json!({"sum": "error_sum", "count": "error_count", "max": 0.6, "margin": 0.05});
        Self::new(means, mean, json!({}))
    }

    fn delayed(mut self, late: i64, fewest: u32) -> Self {
        let mae = &mut self.case.rollout.spec.metrics[1];
        (mae.label_delay, mae.min_labels) = (Some(format!("{late}s").parse().unwrap()), Some(fewest));
        Self { late, ..self }
    }

    /// What a counter has counted at the tenth second of this number; nothing where it does not exist.
    fn counted(&self, selector: &str, version: usize, tenth: i64) -> Option<f64> {
        let scrapes =
            |since: i64, until: i64| (since.max(-100)..until).map(|tenth| (tenth, self.values[version]));
        match selector {
            "all" => return Some(((tenth + 100) * self.requests[version]) as f64),
            "bad" => return Some(0.0),
            _ => {}
        }
        let fault = if version == 1 { self.fault } else { Fault::None };
        let until = tenth - self.late / 10;
        let (since, until) = match fault {
            Fault::Restarts => (until.div_euclid(30) * 30, until),
            Fault::Stands => (-100, until.min(60)),
            _ => (-100, until),
        };
        // The candidate had no requests before its step.
        let since = if version == 1 { since.max(0) } else { since };
        let noise = |tenth: i64| {
            let mixed = (tenth * 2 + version as i64 + 1_000_000) as u64;
            let mixed = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / 83_886_080.0 - 0.1
        };
        let sum = || {
            scrapes(since, until)
                .map(|(tenth, values)| values as f64 * (self.means[version] + noise(tenth)))
                .sum()
        };
        let count = || scrapes(since, until).map(|(_, values)| values).sum::<i64>() as f64;
        match (selector, fault) {
            ("error_sum", Fault::NoSum) | ("error_count", Fault::NoCount) => None,
            ("error_sum", Fault::SumIsNoNumber) => Some(f64::NAN),
            ("error_sum", _) => Some(sum()),
            ("error_count", _) => Some(count()),
            (other, _) => unreachable!("{other}"),
        }
    }

    fn answer(&self, query: &Query) -> Answer {
        let raw = Raw::read(&query.expression, self.case.now).unwrap();
        let began = cases::now().as_second();
        let of = |version: &String| {
            let number = usize::from(version.ends_with('2'));
            let scrapes = raw.from_ms.div_euclid(10_000) + 1..=raw.until_ms.div_euclid(10_000);
            let samples: Vec<(i64, f64)> = scrapes
                .filter_map(|at| Some((at * 10_000, self.counted(&raw.selector, number, at - began / 10)?)))
                .collect();
            let labels = [("version", version.as_str()), ("pod", "p")];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            (!samples.is_empty()).then_some(RawSeries { labels, samples, histograms: vec![] })
        };
        Answer::Matrix(raw.versions.iter().filter_map(of).collect())
    }

    /// Ten seconds pass, and the operator looks.
    fn tick(&mut self) -> ModelRolloutStatus {
        self.case.now += SignedDuration::from_secs(10);
        let plan = self.case.plan_answering(|query| self.answer(query));
        self.case.perform(&plan.actions);
        self.case.rollout.status = Some(plan.status.clone());
        plan.status
    }

    /// Second of the step in which something was so, if it was before `most`.
    fn until(&mut self, most: i64, there: impl Fn(&ModelRolloutStatus) -> bool) -> (i64, ModelRolloutStatus) {
        for second in (0..most).step_by(10) {
            let status = self.tick();
            if there(&status) {
                return (second + 10, status);
            }
        }
        (i64::MAX, self.case.rollout.status.clone().unwrap())
    }
}

fn left(status: &ModelRolloutStatus) -> bool {
    status.weight != Weight::from_percent(20)
}

#[test]
fn only_who_is_worse_by_more_than_the_margin_is_rolled_back() {
    let at_most = json!({"sum": "error_sum", "count": "error_count", "max": 0.6, "margin": 0.05});
    let at_least = json!({"sum": "error_sum", "count": "error_count", "min": 0.2, "margin": 0.05});
    // Rewards may be below zero.
    let of_rewards = json!({"sum": "error_sum", "count": "error_count", "min": -0.6, "margin": 0.05});
    for (mean, means, is_worse) in [
        (&at_most, [0.4, 0.4], false),
        (&at_most, [0.4, 0.3], false),
        (&at_most, [0.4, 0.43], false),
        (&at_most, [0.4, 0.5], true),
        (&at_least, [0.4, 0.5], false),
        (&at_least, [0.4, 0.37], false),
        (&at_least, [0.4, 0.3], true),
        (&of_rewards, [-0.4, -0.4], false),
        (&of_rewards, [-0.4, -0.5], true),
    ] {
        let mut world = World::new(means, mean.clone(), json!({}));
        let (second, status) = world.until(HOUR, left);
        if !is_worse {
            assert_eq!((second, status.weight), (1800, Weight::FULL), "{mean} {means:?} {}", waits(&status));
            continue;
        }
        let decision = status.decision.unwrap();
        assert_eq!((status.phase, decision.reason.as_str()), (P::RolledBack, "ThresholdBreached"));
        // Before thirty differences nobody knows how much they vary.
        assert!((300..900).contains(&second), "{mean} {means:?}: {second}");
        let said = |part: &str| assert!(decision.message.contains(part), "{part}: {}", decision.message);
        said("mae of v20261121.2 is mean ");
        said(", stable ");
    }
}

#[test]
fn what_was_read_is_told() {
    let mut world = World::errors([0.4, 0.42]);
    let (_, status) = world.until(HOUR, left);
    let reading = status.decision.unwrap().readings.into_iter().find(|one| one.metric == "mae").unwrap();
    assert_eq!((reading.verdict.as_str(), reading.bound.as_str()), ("Pass", "<= 0.6, stable + 0.05"));
    let numbers: Vec<f64> = reading.value.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    let [own, values, stable] = numbers[..] else { unreachable!("{}", reading.value) };
    assert!((own - 0.42).abs() < 0.02 && (stable - 0.4).abs() < 0.02, "{}", reading.value);
    assert!((17_000.0..=18_000.0).contains(&values), "{}", reading.value);
}

#[test]
fn its_bound_blames_who_is_beyond_it_and_worse_than_stable() {
    for (means, rolled_back) in
        [([0.5, 0.65], true), ([0.66, 0.66], false), ([0.7, 0.65], false), ([0.4, 0.58], false)]
    {
        // All are within the margin.
        let mean = json!({"sum": "error_sum", "count": "error_count", "max": 0.6, "margin": 0.2});
        let mut world = World::new(means, mean, json!({}));
        let (_, status) = world.until(HOUR, left);
        let phase = if rolled_back { P::RolledBack } else { P::Canary };
        assert_eq!(status.phase, phase, "{means:?}: {}", waits(&status));
    }
}

#[test]
fn alone_a_version_is_held_to_its_bound() {
    for (mean, phase) in [(0.5, P::Healthy), (0.7, P::RolledBack)] {
        let mut world = World::errors([0.3, mean]);
        world.requests = [0, 1000];
        let spec = &mut world.case.rollout.spec;
        spec.strategy.bake =
            Some(from_value(json!({"duration": "30m", "rollbackTriggers": ["error_rate", "mae"]})).unwrap());
        let mut status = cases::moving("Baking", 0);
        status["stable"] = cases::reference(2);
        status["previous"] = cases::reference(1);
        status["candidate"] = Value::Null;
        for time in ["stepStartedAt", "trafficAcceptedAt", "trialStartedAt"] {
            status[time] = cases::ago(0).into();
        }
        world.case.rollout.status = Some(from_value(status).unwrap());
        world.case.settle_children();
        let (_, status) = world.until(HOUR, |status| status.phase != P::Baking);
        assert_eq!(status.phase, phase, "{mean}: {}", waits(&status));
        if phase == P::RolledBack {
            let message = status.decision.unwrap().message;
            assert!(message.starts_with("mae of v20261121.2 is mean 0."), "{message}");
        }
    }
}

#[test]
fn labels_that_come_later_are_awaited_and_found_worse() {
    let mut healthy = World::errors([0.4, 0.4]).delayed(2 * HOUR, 1000);
    let (_, status) = healthy.until(HOUR, left);
    assert!(waits(&status).contains("needs 1000 labels of mae"), "{}", waits(&status));
    assert!(status.holding_since.is_none() && status.missing.is_empty(), "{status:?}");
    let (second, status) = healthy.until(2 * HOUR, left);
    assert_eq!(status.weight, Weight::FULL, "{}", waits(&status));
    // Ten labels a second from two hours on.
    assert!((HOUR + 100..HOUR + 160).contains(&second), "{second}");
    let mut worse = World::errors([0.4, 0.55]).delayed(2 * HOUR, 10_000);
    let (second, status) = worse.until(4 * HOUR, left);
    assert_eq!(status.phase, P::RolledBack, "{}", waits(&status));
    assert!((2 * HOUR + 300..2 * HOUR + 900).contains(&second), "{second}");
    assert!(status.decision.unwrap().message.contains("mae of "));
}

#[test]
fn few_values_are_gathered_over_several_ticks() {
    // Two differences a minute.
    let mut world = World::errors([0.4, 0.6]);
    world.values = [40, 10];
    let (second, status) = world.until(HOUR, left);
    assert_eq!(status.phase, P::RolledBack, "{}", waits(&status));
    assert!((900..1800).contains(&second), "{second}");
}

#[test]
fn counters_that_are_no_mean_never_pass_and_blame_nobody() {
    for (fault, verdict) in
        [(Fault::NoSum, "NoData"), (Fault::NoCount, "NoData"), (Fault::SumIsNoNumber, "Error")]
    {
        for means in [[0.4, 0.4], [0.4, 0.9]] {
            let mut world = World::errors(means);
            world.fault = fault;
            let (second, status) = world.until(HOUR, left);
            let decision = status.decision.unwrap();
            assert_eq!((status.phase, decision.reason.as_str()), (P::RolledBack, "HeldTooLong"), "{fault:?}");
            assert!((600..720).contains(&second), "{fault:?} {second}");
            assert!(
                decision.readings.iter().any(|one| one.metric == "mae" && one.verdict == verdict),
                "{decision:?}"
            );
        }
    }
}

#[test]
fn a_restart_changes_no_mean_and_what_stands_still_is_no_pass() {
    for (mean, phase) in [(0.4, P::Canary), (0.6, P::RolledBack)] {
        let mut world = World::errors([0.4, mean]);
        world.fault = Fault::Restarts;
        let (second, status) = world.until(HOUR, left);
        assert_eq!(status.phase, phase, "{mean} {second}: {}", waits(&status));
        assert!(phase == P::RolledBack || second == 1800, "{second}");
    }
    // Labels that end are too few for the step.
    let mut world = World::errors([0.4, 0.4]).delayed(600, 100_000);
    world.fault = Fault::Stands;
    let (_, status) = world.until(40 * 60, left);
    assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_percent(20)));
    assert!(waits(&status).contains("needs 100000 labels of mae"), "{}", waits(&status));
}

#[test]
fn nothing_is_learned_of_a_mean_and_by_evidence_it_has_its_interval() {
    let mut world = World::errors([0.4, 0.4]);
    world.case.rollout.spec.judge = from_value(json!({"evidence": "sequential",
        "sequential": {"advance": "Evidence", "nonInferiority": 2}}))
    .unwrap();
    let asked = queries(&world.case.rollout, world.case.now);
    let past = |metric: &str| {
        let mut of = asked.iter().filter(|query| query.metric == metric);
        of.any(|query| matches!(query.question, Question::PastEvents | Question::PastAll))
    };
    assert_eq!((past("error_rate"), past("mae")), (true, false));
    // Requests without any error show that the share is below its bound long before that.
    let (second, status) = world.until(HOUR, left);
    assert_eq!((second, status.weight), (1800, Weight::FULL), "{}", waits(&status));
}

#[test]
fn a_comparison_that_knew_no_means_goes_on() {
    let mut world = World::errors([0.4, 0.4]);
    world.case.rollout.spec.metrics.pop();
    world.case.rollout.spec.strategy.rollback_triggers = vec!["error_rate".into()];
    for _ in 0..20 {
        world.tick();
    }
    let status = world.case.rollout.status.as_mut().unwrap();
    let record = status.judge.as_mut().unwrap().as_object_mut().unwrap();
    assert!(record.remove("halfStepTicks").is_some());
    let before = record["state"]["ticks"].as_u64().unwrap();
    let (second, status) = world.until(HOUR, left);
    assert_eq!((before > 10, second, status.weight), (true, 1600, Weight::FULL), "{}", waits(&status));
}

#[test]
fn a_step_says_which_mean_it_can_see() {
    let told = |values: [i64; 2], max: f64, margin: f64| {
        let mean = json!({"sum": "error_sum", "count": "error_count", "max": max, "margin": margin});
        let mut world = World::new([0.4, 0.4], mean, json!({}));
        world.values = values;
        world.until(1500, |_| false);
        let told = world.case.rollout.status.unwrap().conditions;
        told.into_iter().find(|told| told.type_ == "Detectability").unwrap()
    };
    let enough = told([400, 100], 0.6, 0.05);
    assert_eq!(
        (enough.status.as_str(), enough.reason.as_str()),
        ("True", "Sufficient"),
        "{}",
        enough.message
    );
    for (values, max, margin, parts) in [
        ([400, 2], 0.6, 0.05, ["mae: with 0.20 requests a second", "nothing at all can be seen within 30m"]),
        ([400, 100], 0.42, 0.005, ["a mean that is 0.02", "worse; it would take "]),
        ([400, 100], 0.42, 0.05, ["a mean that is 0.07", "its margin must be smaller than that"]),
    ] {
        let blind = told(values, max, margin);
        assert_eq!(blind.reason, "TooLittleTraffic", "{}", blind.message);
        assert!(parts.iter().all(|part| blind.message.contains(part)), "{}", blind.message);
    }
}
