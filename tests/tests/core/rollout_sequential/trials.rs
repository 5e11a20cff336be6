//! Trials that showed less than they seemed to: what must not count, and what must.

use anneal_core::rollout::{Answer, Query, RawSeries};
use serde_json::from_value;

use super::*;

/// Looks of the operator at what `answer` makes of the world, until it has nothing more to decide.
fn looks(world: &mut World, looks: usize, answer: impl Fn(&World, &Query) -> Answer) -> ModelRolloutStatus {
    let mut status = world.look(&answer);
    for _ in 1..looks {
        if status.phase != P::Canary && status.phase != P::Baking {
            break;
        }
        status = world.look(&answer);
    }
    status
}

fn matrix(answer: Answer) -> Vec<RawSeries> {
    match answer {
        Answer::Matrix(series) => series,
        Answer::Vector(_) | Answer::Unreachable(_) | Answer::TooMuch(_) => vec![],
    }
}

fn waits(status: &ModelRolloutStatus) -> String {
    let mut all = status.conditions.iter();
    all.find(|condition| condition.type_ == "Reconciling")
        .map_or_else(String::new, |told| told.message.clone())
}

/// All requests to the candidate, for 20 s.
fn blue_green(arms: [(i64, i64); 2]) -> World {
    let mut world = World::new(arms, json!({}));
    world.case.rollout.spec.strategy = from_value(json!({"rollbackTriggers": ["error_rate"],
        "blueGreen": {"duration": "20s", "minRequests": 20}}))
    .unwrap();
    world.case.rollout.status.as_mut().unwrap().weight = Weight::FULL;
    let mut status = world.case.rollout.status.clone().unwrap();
    status.weight = Weight::FULL;
    let mut case = RolloutCase::new(serde_json::to_value(status).unwrap()).unwrap();
    case.rollout.spec = world.case.rollout.spec.clone();
    case.settle_children();
    world.case = case;
    world
}

/// The version 2 is stable, and watched for `seconds`.
fn bake(arms: [(i64, i64); 2], seconds: u32) -> World {
    let mut world = World::new(arms, json!({}));
    let mut status = cases::moving("Baking", 0);
    status["stable"] = cases::reference(2);
    status["previous"] = cases::reference(1);
    status["candidate"] = Value::Null;
    for time in ["stepStartedAt", "trafficAcceptedAt", "trialStartedAt"] {
        status[time] = cases::ago(0).into();
    }
    let mut case = RolloutCase::new(status).unwrap();
    case.rollout.spec = world.case.rollout.spec.clone();
    case.rollout.spec.strategy.bake = Some(
        from_value(json!({"duration": format!("{seconds}s"), "rollbackTriggers": ["error_rate"]})).unwrap(),
    );
    world.case = case;
    world
}

/// The guide's triggers after the deployment; of the metric named `faulty` one request in `one_in` is bad, and one in a thousand of others.
fn watched(faulty: &str, one_in: i64) -> ModelRolloutStatus {
    let mut world = bake([(0, 1), (100, 1000)], 3600);
    let metrics = json!([
        {"name": "error_rate", "window": "5m", "interval": "1s", "ratio": {"bad": "bad", "total": "all", "max": 0.02}},
        {"name": "latency_p99", "window": "5m", "interval": "1s", "histogram": {"quantile": 0.99, "max": "500ms", "selector": "seconds_bucket"}},
        {"name": "accuracy", "window": "30m", "interval": "1s", "ratio": {"bad": "right", "total": "all", "min": 0.80}},
    ]);
    world.case.rollout.spec.metrics = from_value(metrics).unwrap();
    let bake = world.case.rollout.spec.strategy.bake.as_mut().unwrap();
    bake.rollback_triggers = ["error_rate", "latency_p99", "accuracy"].map(str::to_owned).into();
    let faulty_world = bake_of_one_in(one_in);
    let answer = |world: &World, query: &Query| {
        let source = if query.metric == faulty { &faulty_world } else { world };
        let count = |version: &str, second: i64, selector: &str, le: Option<&str>| {
            let (all, bad) = source.counted(usize::from(version.ends_with('2')), second);
            match (selector, le) {
                ("bad", _) => bad,
                ("right", _) | (_, Some("0.5")) => all - bad,
                _ => all,
            }
        };
        let raw = anneal_tests::raw::Raw::read(&query.expression, world.case.now).unwrap();
        let bounds =
            if raw.selector == "seconds_bucket" { vec![Some("0.5"), Some("+Inf")] } else { vec![None] };
        let series = raw.versions.iter().flat_map(|version| bounds.iter().map(move |le| (version, *le)));
        let series = series.map(|(version, le)| {
            let seconds = raw.from_ms.div_euclid(1000) + 1..=raw.until_ms.div_euclid(1000);
            let samples =
                seconds.map(|at| (at * 1000, count(version, at, &raw.selector, le) as f64)).collect();
            let labels = [("version", Some(version.as_str())), ("pod", Some("p")), ("le", le)];
            let labels =
                labels.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
            RawSeries { labels: labels.collect(), samples, histograms: vec![] }
        });
        Answer::Matrix(series.collect())
    };
    looks(&mut world, 240, answer)
}

fn bake_of_one_in(one_in: i64) -> World {
    bake([(0, 1), (100, one_in)], 3600)
}

#[test]
fn a_bake_is_left_by_each_bound_of_the_guide_and_by_nothing_within_it() {
    for (faulty, one_in, is_left) in [
        ("error_rate", 25, true),
        ("error_rate", 60, false),
        ("latency_p99", 50, true),
        ("latency_p99", 120, false),
        ("accuracy", 3, true),
        ("accuracy", 6, false),
    ] {
        let status = watched(faulty, one_in);
        let why = format!("{faulty}, 1 in {one_in}: {:?} {}", status.decision, waits(&status));
        assert_eq!(status.phase, if is_left { P::RolledBack } else { P::Baking }, "{why}");
        if is_left {
            assert_eq!(reason(&status), "ThresholdBreached", "{why}");
            assert!(status.decision.unwrap().message.starts_with(faulty), "{why}");
        } else {
            assert_eq!(status.verdict.as_deref(), Some("Pass"), "{why}");
        }
    }
}

#[test]
fn a_candidate_that_starts_again_takes_no_evidence_along() {
    let mut world = World::new([(80, 200), (20, 200)], json!({}));
    let (_, status) = world.until(5, |_| false);
    assert!(status.judge.is_some());
    world.case.rollout.spec.strategy = from_value(json!({"rollbackTriggers": ["error_rate"],
        "steps": [{"weight": 30, "duration": "1h"}]}))
    .unwrap();
    let status = world.tick();
    assert_eq!((status.phase, reason(&status), &status.judge), (P::Preparing, "StrategyChanged", &None));
}

#[test]
fn a_bake_of_a_tick_needs_a_request_all_the_same() {
    for seconds in [1, 2] {
        let mut quiet = bake([(0, 1), (0, 1)], seconds);
        let (_, status) = quiet.until(30, |status| status.phase != P::Baking);
        assert_eq!(status.phase, P::Baking, "{seconds}s: {:?}", status.decision);
        quiet.turn([(0, 1), (20, 200)]);
        let (_, status) = quiet.until(10, |status| status.phase != P::Baking);
        assert_eq!((status.phase, reason(&status)), (P::Healthy, "BakePassed"));
    }
}

#[test]
fn a_candidate_without_a_bad_event_is_shown_to_be_below_its_bound() {
    let fine = [(80, i64::MAX), (20, i64::MAX)];
    let mut world = World::new(fine, json!({"advance": "Evidence", "dispersion": "Assumed"}));
    let (ticks, status) = world.until(60, |status| status.weight == Weight::FULL);
    assert_eq!(status.weight, Weight::FULL, "{}", waits(&status));
    assert!(ticks >= 20, "{ticks}");
    // 20 requests a second are 298 in 15 s: chance 0.05 of none that is bad, at a share of 1 %. At 2 a second it takes 150 s.
    let mut slow = World::new([(8, i64::MAX), (2, i64::MAX)], json!({"advance": "Evidence"}));
    let (ticks, status) = slow.until(300, |status| status.weight == Weight::FULL);
    assert!(status.weight == Weight::FULL && (149..156).contains(&ticks), "{ticks}: {}", waits(&status));
}

#[test]
fn a_candidate_with_all_requests_is_judged_by_its_bounds_and_says_so() {
    let told_of = |status: &ModelRolloutStatus| {
        let mut all = status.conditions.clone().into_iter();
        all.find(|condition| condition.type_ == "Detectability")
    };
    let mut healthy = blue_green([(0, 1), (100, 200)]);
    let past = queries(&healthy.case.rollout, healthy.case.now);
    assert_eq!(past.iter().filter(|query| query.expression.contains(":1440000ms]")).count(), 2, "{past:?}");
    let (_, status) = healthy.until(10, |_| false);
    let told = told_of(&status).expect("a step without a stable arm is told");
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "NoControl"));
    let (ticks, status) = healthy.until(60, |status| status.phase != P::Canary);
    assert_eq!((status.phase, reason(&status)), (P::Healthy, "Promoted"));
    assert!(ticks >= 9, "{ticks}");
    let (_, busy) = blue_green([(0, 1), (1000, 200)]).until(10, |_| false);
    let busy = told_of(&busy).unwrap();
    assert!(!busy.message.contains("twice its bound"), "{}", busy.message);
    // Ten a second for a few minutes, or for an hour of a quieter bake, are too few to see twice the bound.
    for mut quiet in [blue_green([(0, 1), (10, 200)]), bake([(0, 1), (1, 200)], 1800)] {
        quiet.case.rollout.spec.strategy.progression =
            from_value(json!({"blueGreen": {"duration": "3m", "minRequests": 1}})).unwrap();
        let (_, status) = quiet.until(150, |_| false);
        let told = told_of(&status).unwrap();
        assert_eq!(told.reason, "NoControl");
        for said in [
            "error_rate: twice its bound shows after about",
            " requests, which takes ",
            "the least that shows is ",
        ] {
            assert!(told.message.contains(said), "{said}: {}", told.message);
        }
    }
    let mut faulty = blue_green([(0, 1), (100, 4)]);
    let (_, status) = faulty.until(60, |status| status.phase != P::Canary);
    assert_eq!((status.phase, reason(&status)), (P::RolledBack, "ThresholdBreached"));
    let mut silent = blue_green([(0, 1), (0, 1)]);
    let (_, status) = silent.until(200, |status| status.phase != P::Canary);
    assert_eq!(status.phase, P::Canary, "nobody asked it anything: {:?}", status.decision);
    let mut unread = blue_green([(0, 1), (0, 1)]);
    let status = looks(&mut unread, 200, |_, _| Answer::Matrix(vec![]));
    assert_eq!((status.phase, reason(&status)), (P::RolledBack, "HeldTooLong"));
}

#[test]
fn a_gateway_that_leaves_requests_with_the_version_before_is_found_where_nothing_is_compared() {
    let told = |status: &ModelRolloutStatus| {
        let mut all = status.conditions.iter();
        all.find(|condition| condition.type_ == "TrafficVerified").map(|told| told.reason.clone())
    };
    let (nothing, most) = ([(10, 1000), (0, 1)], [(2, 1000), (8, 1000)]);
    for mut ignored in [blue_green(nothing), blue_green(most), bake(nothing, 3600), bake(most, 3600)] {
        let mismatched =
            |status: &ModelRolloutStatus| told(status).as_deref() == Some("TrafficSplitMismatch");
        let (ticks, status) = ignored.until(100, mismatched);
        assert!(mismatched(&status) && ticks <= 60, "found after {ticks} s: {status:?}");
        assert!(!waits(&status).contains(" 0 %"), "{}", waits(&status));
        let (_, status) = ignored.until(200, |_| false);
        assert!(
            status.stable.unwrap().version.ends_with('1') || status.phase == P::Baking,
            "it goes no further"
        );
        assert_ne!(status.phase, P::RolledBack, "it is judged by what it gets");
        let mut all = status.conditions.iter();
        let stalled = all.find(|condition| condition.type_ == "Stalled").unwrap();
        assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "HeldTooLong"));
    }
    // So it is where pods say by their names which version they are.
    let by_name = |world: &World, query: &Query| {
        let mut series = matrix(world.answer(query));
        for one in &mut series {
            let version = one.labels.remove("version").unwrap().replace('.', "-");
            one.labels.insert("pod".into(), format!("ads-{version}-7b8b9ff8fc-jrr8t"));
        }
        Answer::Matrix(series)
    };
    let mut named = bake(most, 3600);
    named.case.rollout.spec.prometheus.version_from = from_value(json!("PodName")).unwrap();
    let status = looks(&mut named, 60, by_name);
    assert_eq!(told(&status).as_deref(), Some("TrafficSplitMismatch"), "{}", waits(&status));
    // A request or two that were under way are none of that, nor is a version that nobody asks.
    for mut fine in [blue_green([(0, 1), (100, 200)]), bake([(0, 1), (100, 200)], 20)] {
        fine.traffic[0].1[0] = (1, 1000);
        fine.turn([(0, 1), (100, 200)]);
        let (_, status) = fine.until(60, |status| status.phase == P::Healthy);
        assert_eq!(status.phase, P::Healthy, "{}", waits(&status));
    }
}

/// Ready pods of version 2, as long as the trial.
fn pods(world: &mut World, names: &[&str]) {
    let pod = |name: &&str| {
        json!({"metadata": {"name": name, "labels": {"anneal.dev/version": "v20261121.2"}}, "status": {
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": cases::ago(600)}],
            "containerStatuses": [{"name": "server", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": cases::ago(600)}}}]}})
    };
    world.case.children.pods = names.iter().map(pod).map(|pod| from_value(pod).unwrap()).collect();
}

#[test]
fn most_ready_pods_must_be_scraped_where_no_split_would_show_that_they_are_not() {
    // The one series is of pod `p`; the other ready pods are in no answer.
    for (ready, passes) in [(["p", "q"].as_slice(), true), (&["p", "q", "r"], false)] {
        for mut world in [blue_green([(0, 1), (100, 200)]), bake([(0, 1), (100, 200)], 20)] {
            pods(&mut world, ready);
            let (_, status) = world.until(60, |status| status.phase == P::Healthy);
            assert_eq!(status.phase == P::Healthy, passes, "{ready:?}: {}", waits(&status));
            assert!(passes || status.verdict.as_deref() == Some("NoData"), "{:?}", status.verdict);
        }
    }
    // Where requests are divided, a pod that has had none yet may have no series.
    let mut divided = World::new([(80, 200), (20, 200)], json!({}));
    pods(&mut divided, &["p", "q", "r", "s"]);
    assert_eq!(divided.until(60, |status| status.weight == Weight::FULL).1.weight, Weight::FULL);
}

#[test]
fn a_pod_that_is_scraped_through_two_targets_is_told_and_counts_nothing() {
    let twice = |world: &World, query: &Query| {
        let mut series = matrix(world.answer(query));
        let mut others = series.clone();
        for (all, port) in [(&mut series, "http"), (&mut others, "shadow")] {
            all.iter_mut().for_each(|series| {
                series.labels.insert("endpoint".into(), port.into());
            });
        }
        series.append(&mut others);
        Answer::Matrix(series)
    };
    let mut world = World::new([(80, 200), (20, 200)], json!({"dispersion": "Assumed"}));
    let status = looks(&mut world, 40, twice);
    assert_eq!((status.weight, status.verdict.as_deref()), (Weight::from_percent(20), Some("Error")));
    for part in ["pod p", "endpoint", "twice"] {
        assert!(waits(&status).contains(part), "{}", waits(&status));
    }
    // Once there is one target, what both counted is left out, and the step goes on.
    let mended = world.case.now.as_millisecond();
    let until = |world: &World, query: &Query| {
        let mut series = matrix(twice(world, query));
        series.iter_mut().filter(|series| series.labels["endpoint"] == "shadow").for_each(|series| {
            series.samples.retain(|sample| sample.0 <= mended);
        });
        Answer::Matrix(series)
    };
    let status = looks(&mut world, 20, until);
    assert_eq!(status.weight, Weight::from_percent(20), "20 s that count");
    let status = looks(&mut world, 20, until);
    assert_eq!(status.weight, Weight::FULL, "{}", waits(&status));
    // Labels of the counter itself are parts of it, and not of the target.
    let mut parts = World::new([(80, 200), (20, 200)], json!({}));
    let status = looks(&mut parts, 40, |world, query| {
        let mut series = matrix(world.answer(query));
        let mut others = series.clone();
        others.iter_mut().for_each(|series| {
            series.labels.insert("code".into(), "500".into());
        });
        series.append(&mut others);
        Answer::Matrix(series)
    });
    assert_eq!(status.weight, Weight::FULL, "{}", waits(&status));
}

#[test]
fn what_is_too_much_for_the_server_is_read_in_smaller_pieces() {
    let mut world = World::new([(80, 200), (20, 200)], json!({"dispersion": "Assumed"}));
    world.case.rollout.spec.strategy = from_value(json!({"rollbackTriggers": ["error_rate"],
        "steps": [{"weight": 20, "duration": "3h", "minRequests": 20}]}))
    .unwrap();
    world.until(10, |_| false);
    world.case.now += SignedDuration::from_hours(2);
    let small = |world: &World, query: &Query| {
        let raw = anneal_tests::raw::Raw::read(&query.expression, world.case.now).unwrap();
        if raw.until_ms - raw.from_ms > 200_000 {
            return Answer::TooMuch("it says: query processing would load too many samples".into());
        }
        world.answer(query)
    };
    let status = world.look(small);
    assert!(status.verdict.as_deref() == Some("Error"), "{:?}", status.verdict);
    let mut counted = 0;
    for _ in 0..100 {
        let status = world.look(small);
        counted = status.judge.unwrap()["state"]["ticks"].as_i64().unwrap();
    }
    assert!(counted > 7_200, "{counted}");
    // As much as before is read again once nothing is missed.
    let kept = world.case.rollout.status.clone().unwrap().judge.unwrap();
    assert!(kept.get("pieceMs").is_none(), "{kept}");
    // A server that cannot give a minute cannot be asked for less, and says the same at each look.
    let none = |_: &World, _: &Query| Answer::TooMuch("it says: too many samples".into());
    let (first, then) = (looks(&mut world, 20, none), world.look(none));
    assert_eq!(first, then);
    assert!(waits(&then).contains("too many samples"), "{}", waits(&then));
}
