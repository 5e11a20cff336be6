//! What a comparison takes from the spec and from stable's past, seen in what it decides; and latencies of every form.

use anneal_core::rollout::{Answer, Query, Question, RawSeries};
use anneal_tests::world::dice::Dice;
use serde_json::from_value;

use super::{
    forms::{Form, classic, latency, native},
    *,
};

/// The past of four stable pods with 20 requests a second, of which 0.2 % fail, three at a time, and by `luck` more or less.
fn past(query: &Query, now: jiff::Timestamp, luck: [f64; 4]) -> Answer {
    let raw = anneal_tests::raw::Raw::read(&query.expression, now).unwrap();
    let points = raw.points().unwrap();
    let mut dice = Dice::new(1);
    let series = luck.into_iter().enumerate().map(|(pod, luck)| {
        let mut counted = 0.0;
        let samples = points.iter().map(|at| {
            counted += if raw.selector == "bad" {
                // One in a hundred requests may be the first of three that fail.
                let chance = (1000.0 * 100.0 * 0.002 / 3.0 * luck) as usize;
                3.0 * (0..20 * 1440 / 100).filter(|_| dice.chance(chance)).count() as f64
            } else {
                20.0 * 1440.0
            };
            (*at, counted)
        });
        let labels =
            [("version".to_owned(), "v20261121.1".to_owned()), ("pod".to_owned(), format!("s{pod}"))];
        RawSeries { labels: labels.into(), samples: samples.collect(), histograms: vec![] }
    });
    Answer::Matrix(series.collect())
}

/// What the first looks learn from such a past.
fn learned(sequential: Value, luck: [f64; 4]) -> (World, Value) {
    let mut world = World::new([(80, 200), (20, 200)], sequential);
    for _ in 0..3 {
        world.look(|world, query| match query.question {
            Question::PastEvents | Question::PastAll => past(query, world.case.now, luck),
            _ => world.answer(query),
        });
    }
    let learned = world.case.rollout.status.clone().unwrap().judge.unwrap()["learned"][0].clone();
    (world, learned)
}

#[test]
fn how_requests_fail_together_and_how_pods_differ_is_learned_from_a_day_of_stable() {
    let (_, alike) = learned(json!({}), [1.0; 4]);
    let effect = |learned: &Value| learned["designEffect"].as_f64().unwrap();
    let sd = |learned: &Value| learned["pods"]["sd"].as_f64().unwrap();
    assert!((2.0..4.0).contains(&effect(&alike)), "they fail three at a time: {alike}");
    assert!(sd(&alike) < 0.1, "{alike}");
    let (mut world, unlike) = learned(json!({}), [0.5, 0.8, 1.2, 1.5]);
    assert!((0.25..0.6).contains(&sd(&unlike)) && unlike["pods"]["pods"] == 4, "{unlike}");
    assert_eq!(world.until(60, |status| status.weight == Weight::FULL).1.weight, Weight::FULL);
    // What is assumed is not asked for.
    let mut assumed = World::new([(80, 200), (20, 200)], json!({"dispersion": "Assumed"}));
    assert_eq!(queries(&assumed.case.rollout, assumed.case.now).len(), 2);
    assumed.tick();
    assumed.tick();
    assert_eq!(assumed.case.rollout.status.unwrap().judge.unwrap()["learned"], json!([null]));
}

#[test]
fn how_long_stable_is_learned_from_is_the_specs_to_say() {
    for (from, point) in [(json!({}), 1_440_000), (json!({"learnFrom": "1h"}), 60_000)] {
        let world = World::new([(80, 200), (20, 200)], from);
        let range = format!("[{}ms:{point}ms] @ ", 60 * point);
        let asked = queries(&world.case.rollout, world.case.now);
        assert_eq!(asked.iter().filter(|query| query.expression.contains(&range)).count(), 2, "{asked:?}");
    }
}

#[test]
fn what_fails_together_takes_more_to_be_held_against_a_version() {
    let ticks = |luck: bool| {
        let mut world =
            if luck { learned(json!({}), [1.0; 4]).0 } else { World::new([(80, 200), (20, 200)], json!({})) };
        world.turn([(80, 200), (20, 20)]);
        world.until(120, |status| status.phase == P::RolledBack).0
    };
    let (together, alone) = (ticks(true), ticks(false));
    assert!(together > alone, "{together} {alone}");
}

#[test]
fn a_pod_that_warms_up_is_not_counted_for_as_long_as_the_spec_says() {
    // Ten seconds of requests must have counted.
    let ends = |sequential: Value| {
        let mut world = World::new([(80, 200), (20, 200)], sequential);
        let steps =
            json!([{"weight": 20, "duration": "5s", "minRequests": 200}, {"weight": 100, "duration": "1h"}]);
        let strategy = json!({"rollbackTriggers": ["error_rate"], "steps": steps});
        world.case.rollout.spec.strategy = from_value(strategy).unwrap();
        let pod = json!({"metadata": {"name": "p", "labels": {"anneal.dev/version": "v20261121.2"}}, "status": {
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": cases::ago(0)}],
            "containerStatuses": [{"name": "server", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": cases::ago(20_000)}}}]}});
        world.case.children.pods = vec![from_value(pod).unwrap()];
        world.until(60, |status| status.weight == Weight::FULL).0
    };
    let [short, default, long] = [json!({"warmup": "1s"}), json!({}), json!({"warmup": "10s"})].map(ends);
    assert!((11..13).contains(&short), "{short}");
    assert_eq!((default - short, long - short), (1, 9), "two ticks of a second, and ten");
}

#[test]
fn users_that_stick_to_a_version_make_a_split_less_sure() {
    let reason = |sequential: Value| {
        let mut ignored = World::new([(90, 200), (10, 200)], sequential);
        let (_, status) = ignored.until(30, |_| false);
        let mut all = status.conditions.into_iter();
        all.find(|condition| condition.type_ == "TrafficVerified").unwrap().reason
    };
    assert_eq!(reason(json!({})), "TrafficSplitMismatch");
    assert_eq!(reason(json!({"splitDesignEffect": 1000.0})), "Accepted");
}

#[test]
fn a_gateway_that_ignores_a_step_of_ten_points_is_found_within_a_minute_at_ten_requests_a_second() {
    for weight in [10, 20, 30, 40, 50, 60, 70, 80, 90, 100] {
        let before = i64::from(weight) / 10 - 1;
        let mut ignored = World::new([(10 - before, 1000), (before, 1000)], json!({}));
        let steps: Vec<Value> =
            (1..=10).map(|step| json!({"weight": step * 10, "duration": "1h", "minRequests": 20})).collect();
        let strategy = json!({"rollbackTriggers": ["error_rate"], "steps": steps});
        ignored.case.rollout.spec.strategy = from_value(strategy).unwrap();
        let to = |ignored: &mut World, weight: i32| {
            let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(ignored.case.now);
            let status = ignored.case.rollout.status.as_mut().unwrap();
            status.weight = Weight::from_percent(weight);
            status.step_started_at = Some(at.clone());
            status.traffic_accepted_at = Some(at);
            ignored.case.settle_children();
        };
        if weight > 10 {
            to(&mut ignored, weight - 10);
            ignored.until(10, |_| false);
        }
        to(&mut ignored, weight);
        let told = |status: &ModelRolloutStatus| {
            let mut all = status.conditions.iter();
            all.find(|condition| condition.type_ == "TrafficVerified").unwrap().clone()
        };
        let (ticks, status) = ignored.until(100, |status| told(status).reason == "TrafficSplitMismatch");
        assert_eq!(told(&status).reason, "TrafficSplitMismatch", "{weight}: {status:?}");
        assert!(ticks <= 60, "{weight}: found after {ticks} s");
    }
}

#[test]
fn a_step_says_how_many_requests_show_whether_the_gateway_follows() {
    let message = |steps: Value| {
        let mut world = World::new([(80, 200), (20, 200)], json!({}));
        let strategy = json!({"rollbackTriggers": ["error_rate"], "steps": steps});
        world.case.rollout.spec.strategy = from_value(strategy).unwrap();
        let status = world.tick();
        let mut all = status.conditions.into_iter();
        all.find(|condition| condition.type_ == "TrafficVerified").unwrap().message
    };
    let step = |weight: i32| json!({"weight": weight, "duration": "1h", "minRequests": 20});
    let (large, small) = (message(json!([step(10), step(20)])), message(json!([step(18), step(20)])));
    assert!(large.contains("About 207 requests"), "{large}");
    assert!(small.contains("About 5924 requests"), "{small}");
    let least = message(json!([step(19), step(20)]));
    assert!(least.contains("so small that nobody can tell"), "{least}");
}

fn play(mut world: World, form: Form) -> ModelRolloutStatus {
    cases::until(60, || world.look(form), |status| status.phase != P::Canary || status.weight == Weight::FULL)
        .1
}

#[test]
fn slow_answers_roll_back_and_quick_ones_do_not_in_both_forms_of_histogram() {
    let forms: [(&str, Form); 2] = [("classic", classic), ("native", native)];
    for (name, form) in forms {
        let quick = play(latency("500ms", 0), form);
        assert_eq!(quick.weight, Weight::FULL, "{name}: {quick:?}");
        let slow = play(latency("500ms", 50), form);
        assert_eq!((slow.phase, reason(&slow)), (P::RolledBack, "ThresholdBreached"), "{name}");
    }
}

#[test]
fn a_threshold_between_two_buckets_is_told_with_those_that_count() {
    let told = |max: &str, form: Form| {
        let mut world = latency(max, 0);
        let steps = json!([{"weight": 20, "duration": "1h", "minRequests": 20}]);
        world.case.rollout.spec.strategy =
            from_value(json!({"rollbackTriggers": ["error_rate"], "steps": steps})).unwrap();
        let mut all = play(world, form).conditions.into_iter();
        all.find(|condition| condition.type_ == "ThresholdNotOnBucket").map(|condition| condition.message)
    };
    let between = told("300ms", classic).unwrap();
    for part in ["error_rate", "no bucket ends at 300 ms", "slower than 500 ms", "slower than 250 ms"] {
        assert!(between.contains(part), "{part}: {between}");
    }
    assert_eq!(told("500ms", classic), None);
    assert_eq!(told("300ms", native), None, "its buckets are fine enough");
}

/// As much as a status may have to say: sixteen metrics with two bounds each, compared for an hour, and all that is remembered.
fn fullest() -> World {
    let mut world = World::new([(80, 20_000), (20, 20_000)], json!({}));
    let long = |part: &str| format!("{part}{{code=~\"{}\"}}", "5..|".repeat(250));
    let metric = |number: usize| {
        json!({"name": format!("{}{number:02}", "m".repeat(61)), "window": "40s", "interval": "1s",
            "ratio": {"bad": long("bad"), "total": long("all"), "min": 0.000_000_1, "max": 0.01}})
    };
    let spec = &mut world.case.rollout.spec;
    spec.metrics = (0..16).map(|number| from_value(metric(number)).unwrap()).collect();
    let names: Vec<String> = spec.metrics.iter().map(|metric| metric.name.clone()).collect();
    let step = |weight| json!({"weight": weight, "duration": "1h", "minRequests": 20});
    spec.strategy = from_value(json!({"rollbackTriggers": names, "steps": [step(20), step(100)]})).unwrap();
    let mut status = serde_json::to_value(&world.case.rollout.status).unwrap();
    cases::remember_most(&mut status);
    let values: serde_json::Map<String, Value> = (0..48)
        .map(|number| (format!("{}{number:02}", "f".repeat(46)), json!(0.123_456_789_012_345_67)))
        .collect();
    status["baselines"] = json!([{"metric": "m".repeat(63), "of": "0".repeat(16), "values": values}]);
    world.case.rollout.status = Some(from_value(status).unwrap());
    world
}

#[test]
fn no_status_with_a_comparison_grows_beyond_what_one_can_read() {
    let mut world = fullest();
    let mut longest = 0;
    let look = |world: &mut World, spoil: bool| {
        let status = world.look(|world, query| match spoil {
            true => Answer::Unreachable("x".repeat(300)),
            false => world.answer(query),
        });
        serde_json::to_string(&status).unwrap().len()
    };
    for second in 0..200 {
        longest = longest.max(look(&mut world, (60..100).contains(&second)));
    }
    world.turn([(80, 20_000), (20, 2)]);
    for _ in 0..20 {
        longest = longest.max(look(&mut world, false));
    }
    assert!(longest > 24 * 1024, "it is as long as it can be: {longest} bytes");
    assert_eq!(world.case.rollout.status.as_ref().unwrap().phase, P::RolledBack);
    assert!(longest < 32 * 1024, "{longest} bytes");
}

#[test]
fn nor_does_one_that_waits_for_an_approval() {
    let mut world = fullest();
    let step = |weight, then| json!({"weight": weight, "duration": "1m", "minRequests": 20, "then": then});
    let strategy = &mut world.case.rollout.spec.strategy;
    strategy.progression =
        from_value(json!({"steps": [step(20, "Approval"), step(100, "Advance")]})).unwrap();
    let (_, status) = world.until(100, |status| status.approval.is_some());
    let length = serde_json::to_string(&status).unwrap().len();
    assert_eq!(status.approval.unwrap().evidence.metrics.len(), 16);
    assert!((24 * 1024..32 * 1024).contains(&length), "{length} bytes");
}
