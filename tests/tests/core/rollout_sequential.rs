//! `evidence: sequential` in a rollout's plan: whole steps on raw samples, with restarts of the operator at every tick.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "this is a test")]

use anneal_core::rollout::{Answer, Query, Question, Series, queries};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P};
use anneal_tests::cases::{self, RolloutCase};
use jiff::SignedDuration;
use serde_json::{Value, json};

pub mod arms;
mod forms;
mod learned;
mod trials;

use arms::World;

fn reason(status: &ModelRolloutStatus) -> &str {
    &status.decision.as_ref().unwrap().reason
}

#[test]
fn a_healthy_candidate_ends_its_steps_and_a_faulty_one_does_not() {
    let mut healthy = World::new([(80, 200), (20, 200)], json!({}));
    let (ticks, status) = healthy.until(60, |status| status.weight == Weight::FULL);
    assert!(status.weight == Weight::FULL && ticks >= 20, "{ticks}: {status:?}");
    assert_eq!(status.decision.as_ref().unwrap().readings[0].verdict, "Pass");
    let mut faulty = World::new([(80, 200), (20, 4)], json!({}));
    let (ticks, status) = faulty.until(60, |status| status.phase == P::RolledBack);
    assert_eq!((status.phase, reason(&status)), (P::RolledBack, "ThresholdBreached"));
    assert!(ticks < 10, "{ticks}");
    assert!(status.decision.unwrap().message.contains("x stable"), "it says how much worse");
}

#[test]
fn an_incident_that_both_versions_share_blames_nobody() {
    let mut both = World::new([(80, 4), (20, 4)], json!({}));
    let (_, status) = both.until(60, |status| status.weight == Weight::FULL);
    assert_eq!(status.weight, Weight::FULL);
}

#[test]
fn a_tick_that_changes_nothing_writes_nothing_and_a_lost_minute_changes_no_decision() {
    let mut kept = World::new([(80, 200), (20, 50)], json!({"tolerance": 1.0}));
    kept.case.rollout.spec.strategy = serde_json::from_value(json!({"rollbackTriggers": ["error_rate"],
            "steps": [{"weight": 20, "duration": "1h", "minRequests": 20}]}))
    .unwrap();
    let (mut writes, mut moments) = (0, vec![]);
    for _ in 0..3600 {
        moments.push(kept.clone());
        let before = kept.case.rollout.status.clone().unwrap();
        let status = kept.tick();
        writes += usize::from(status != before);
        if status.phase == P::RolledBack {
            break;
        }
    }
    let decided = kept.case.rollout.status.clone().unwrap();
    assert_eq!(decided.phase, P::RolledBack);
    assert!(writes < 5 + moments.len() / 50, "{writes} writes in {} ticks", moments.len());
    // Another operator, with the status of any moment, decides the same at the same time.
    for mut other in moments.into_iter().skip(1).step_by(7) {
        other.case.now = kept.case.now;
        let status = other.plan().status;
        assert_eq!((status.phase, status.judge), (P::RolledBack, decided.judge.clone()));
    }
}

#[test]
fn without_requests_the_clock_stands_still_and_without_samples_the_step_holds() {
    let mut quiet = World::new([(0, 1), (0, 1)], json!({}));
    let (_, status) = quiet.until(300, |status| status.weight == Weight::FULL);
    assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_percent(20)));
    let stands = |status: &ModelRolloutStatus| {
        let mut all = status.conditions.iter();
        all.find(|condition| condition.type_ == "Reconciling").unwrap().message.clone()
    };
    assert!(stands(&status).contains("nobody gets any requests"), "{}", stands(&status));
    quiet.turn([(80, 200), (20, 200)]);
    let (ticks, status) = quiet.until(60, |status| status.weight == Weight::FULL);
    assert!(status.weight == Weight::FULL && ticks >= 18, "{ticks}");
    // So does the night after a day.
    let mut night = World::new([(80, 200), (20, 200)], json!({}));
    night.until(10, |_| false);
    night.turn([(0, 1), (0, 1)]);
    let (_, status) = night.until(300, |status| status.phase != P::Canary);
    assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_percent(20)), "{:?}", status.decision);
    assert!(stands(&status).contains("nobody gets any requests"), "{}", stands(&status));
    let mut gone = World::new([(80, 200), (20, 200)], json!({}));
    gone.scraped_until_ms = gone.began_ms + 5_000;
    let (_, status) = gone.until(40, |status| status.weight == Weight::FULL);
    assert_eq!((status.weight, status.verdict.as_deref()), (Weight::from_percent(20), Some("Stale")));
    let (_, status) = gone.until(200, |status| status.phase == P::RolledBack);
    assert_eq!(reason(&status), "HeldTooLong");
}

#[test]
fn samples_that_take_a_while_on_their_way_are_waited_for() {
    let mut late = World::new([(80, 200), (20, 200)], json!({}));
    late.case.rollout.spec.prometheus.stale_after = "2m".parse().unwrap();
    for second in 0.. {
        late.scraped_until_ms = late.began_ms + (second - 45) * 1000;
        let status = late.tick();
        if status.weight == Weight::FULL {
            assert!((64..72).contains(&second), "{second}");
            break;
        }
        assert!(second < 100, "{status:?}");
    }
    // After a long time without any sample it goes on.
    let mut gap = World::new([(80, 200), (20, 200)], json!({"dispersion": "Assumed"}));
    gap.until(5, |_| false);
    gap.scraped_until_ms = 0;
    gap.case.rollout.spec.judge.max_hold = "2h".parse().unwrap();
    gap.until(1_000, |_| false);
    gap.scraped_until_ms = i64::MAX;
    assert_eq!(gap.until(60, |status| status.weight == Weight::FULL).1.weight, Weight::FULL);
}

#[test]
fn a_gateway_that_ignores_the_weight_holds_the_step_and_is_told() {
    let mut ignored = World::new([(90, 200), (10, 200)], json!({}));
    let (_, status) = ignored.until(60, |status| status.weight == Weight::FULL);
    assert_eq!(status.weight, Weight::from_percent(20));
    let verified = status.conditions.iter().find(|condition| condition.type_ == "TrafficVerified").unwrap();
    assert_eq!((verified.status.as_str(), verified.reason.as_str()), ("False", "TrafficSplitMismatch"));
    let observed = status.observed.unwrap();
    assert!(observed.percent.starts_with("10") && observed.requests > 500, "{observed:?}");
}

#[test]
fn a_state_of_another_version_of_anneal_holds_and_is_kept() {
    let mut other = World::new([(80, 200), (20, 200)], json!({}));
    other.until(3, |_| false);
    other.turn([(80, 200), (20, 2)]);
    let mut judge = other.case.rollout.status.clone().unwrap().judge.unwrap();
    judge["state"]["schema"] = 99.into();
    judge["news"] = true.into();
    other.case.rollout.status.as_mut().unwrap().judge = Some(judge.clone());
    let (_, status) = other.until(60, |status| status.phase == P::RolledBack);
    assert_eq!((status.phase, status.judge), (P::Canary, Some(judge)));
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Reconciling").unwrap();
    assert!(stalled.message.contains("another version"), "{}", stalled.message);
}

#[test]
fn evidence_lets_a_step_end_only_when_it_is_there() {
    let mut sure = World::new([(80, 20), (20, 20)], json!({"advance": "Evidence"}));
    assert_eq!(sure.until(60, |status| status.weight == Weight::FULL).1.weight, Weight::FULL);
    let terms = json!({"advance": "Evidence", "nonInferiority": 1.01, "maxDuration": "40s", "onInconclusive": "Rollback"});
    let mut unsure = World::new([(80, 20), (20, 20)], terms);
    let (ticks, status) = unsure.until(90, |status| status.phase == P::RolledBack);
    assert_eq!(reason(&status), "Inconclusive");
    assert!((40..50).contains(&ticks), "{ticks}");
}

#[test]
fn other_terms_begin_anew_and_an_operator_that_was_away_catches_up() {
    let mut away = World::new([(80, 200), (20, 200)], json!({}));
    away.case.rollout.spec.strategy = serde_json::from_value(json!({"rollbackTriggers": ["error_rate"],
            "steps": [{"weight": 20, "duration": "3h", "minRequests": 20}]}))
    .unwrap();
    away.until(120, |_| false);
    let ticks =
        |status: &ModelRolloutStatus| status.judge.as_ref().unwrap()["state"]["ticks"].as_i64().unwrap();
    away.case.now += SignedDuration::from_hours(2);
    assert!(queries(&away.case.rollout, away.case.now)[0].expression.contains(" @ "));
    let (looks, status) = away.until(30, |status| ticks(status) >= 7_300);
    assert!(ticks(&status) >= 7_300 && looks < 12, "{looks}: {}", ticks(&status));
    away.case.rollout.spec.judge.sequential.as_mut().unwrap().tolerance = 1.5;
    let (_, status) = away.until(65, |status| ticks(status) < 7_000);
    assert!(ticks(&status) < 1_000, "{}", ticks(&status));
}

#[test]
fn stables_past_is_read_once_and_one_pod_teaches_nothing() {
    let mut world = World::new([(80, 200), (20, 200)], json!({}));
    assert_eq!(queries(&world.case.rollout, world.case.now).len(), 4);
    world.tick();
    world.tick();
    assert_eq!(queries(&world.case.rollout, world.case.now).len(), 2);
    let learned = world.case.rollout.status.unwrap().judge.unwrap()["learned"].clone();
    assert_eq!(learned, json!([null]), "one pod has nothing to be compared with");
}

#[test]
fn a_step_that_cannot_see_its_bound_says_so_and_what_it_would_take() {
    let world = |arms| {
        let mut world = World::new(arms, json!({"tolerance": 1.0}));
        world.case.rollout.spec.strategy = serde_json::from_value(json!({"rollbackTriggers": ["error_rate"],
            "steps": [{"weight": 20, "duration": "10m", "minRequests": 20}]}))
        .unwrap();
        world
    };
    let told = |arms| {
        let mut world = world(arms);
        let (_, status) = world.until(130, |_| false);
        let mut all = status.conditions.into_iter();
        all.find(|condition| condition.type_ == "Detectability").unwrap()
    };
    let (few, many) = (told([(4, 250), (1, 250)]), told([(800, 250), (200, 250)]));
    assert_eq!((few.status.as_str(), few.reason.as_str()), ("False", "TooLittleTraffic"));
    for part in [
        "error_rate",
        "5.0 requests a second",
        "20 % of them",
        "within 10m",
        "the bound is 1.0 %",
        "it would take",
    ] {
        assert!(few.message.contains(part), "{part}: {}", few.message);
    }
    assert_eq!((many.status.as_str(), many.reason.as_str()), ("True", "Sufficient"));
    // Where hardly anything comes, a part of the step is enough to know that.
    for arms in [[(2, i64::MAX), (1, i64::MAX)], [(2, 100), (1, 100)], [(1, 60), (1, 100)]] {
        let mut world = world(arms);
        let (_, early) = world.until(25, |_| false);
        assert!(early.conditions.iter().all(|told| told.type_ != "Detectability"), "{arms:?}");
        let (_, status) = world.until(70, |_| false);
        let told = status.conditions.iter().find(|told| told.type_ == "Detectability");
        let told = told.unwrap_or_else(|| panic!("{arms:?}: {status:?}"));
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "TooLittleTraffic"), "{arms:?}");
        assert!(told.message.contains("the bound is 1.0 %"), "{arms:?}: {}", told.message);
    }
    let (_, idle) = world([(0, 1), (0, 1)]).until(300, |_| false);
    let told = idle.conditions.iter().find(|told| told.type_ == "Detectability").unwrap();
    assert_eq!(
        told.message,
        "error_rate: no requests of the candidate have come so far, and without them nothing at all can be seen."
    );
    // At a bound of one in a thousand 300 requests of stable without a bad one show nothing.
    let mut tight = world([(4, i64::MAX), (1, i64::MAX)]);
    let metric = json!({"name": "error_rate", "window": "40s", "interval": "1s", "ratio": {"bad": "bad", "total": "all", "max": 0.001}});
    tight.case.rollout.spec.metrics = vec![serde_json::from_value(metric).unwrap()];
    let (_, tight) = tight.until(130, |_| false);
    let told = tight.conditions.iter().find(|told| told.type_ == "Detectability").unwrap();
    assert_eq!(told.reason, "TooLittleTraffic", "{}", told.message);
    // The first looks of a short step know nothing, and where no bad answer may be the first one is seen.
    let (_, first) = World::new([(80, 200), (20, 200)], json!({})).until(2, |_| false);
    assert!(first.conditions.iter().all(|told| told.type_ != "Detectability"), "{first:?}");
    let mut spotless = world([(800, i64::MAX), (200, i64::MAX)]);
    let metric = json!({"name": "error_rate", "window": "40s", "interval": "1s", "ratio": {"bad": "bad", "total": "all", "max": 0}});
    spotless.case.rollout.spec.metrics = vec![serde_json::from_value(metric).unwrap()];
    let (_, spotless) = spotless.until(130, |_| false);
    let told = spotless.conditions.iter().find(|told| told.type_ == "Detectability").unwrap();
    assert_eq!(told.reason, "Sufficient", "{}", told.message);
    // And so it is: that many bad answers are found within the step, and much fewer are not.
    let least = few.message.split_once("that can be seen is ").unwrap().1.split_once(" % bad").unwrap().0;
    let least: f64 = least.parse().unwrap();
    let is_found = |percent: f64| {
        let mut world = world([(4, 250), (1, (100.0 / percent).round() as i64)]);
        let (_, status) = world.until(700, |status| status.phase != P::Canary);
        status.phase == P::RolledBack
    };
    assert!(is_found(least) && !is_found(0.6 * least), "{least} % within 10 minutes");
}

#[test]
fn looks_that_find_nothing_new_say_the_same() {
    for spoil in [
        |_: &Query| Answer::Matrix(vec![]),
        |query: &Query| anneal_operator::ports::no_answer("http://p", query, "connection refused"),
    ] {
        let mut blind = World::new([(80, 200), (20, 200)], json!({}));
        blind.until(40, |_| false);
        let mut look = |millis: i64| {
            blind.case.now += SignedDuration::from_millis(millis);
            let status = blind.case.plan_answering(spoil).status;
            blind.case.rollout.status = Some(status.clone());
            status
        };
        let (_, before) = (look(1), look(1));
        assert_eq!(before, look(1), "a message that changes is a write, and a write wakes the next look");
    }
}

#[test]
fn an_edit_that_leaves_no_request_to_count_ends_no_step() {
    let mut world = World::new([(80, 200), (20, 200)], json!({}));
    let value = json!({"name": "accuracy", "window": "40s", "interval": "1s",
        "value": {"expression": "min(right[$window])", "max": 1.0}});
    world.until(5, |_| false);
    let spec = &mut world.case.rollout.spec;
    spec.metrics.push(serde_json::from_value(value).unwrap());
    let bake = json!({"duration": "1h", "rollbackTriggers": ["error_rate"]});
    spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
    spec.strategy.rollback_triggers = vec!["accuracy".to_owned()];
    let accurate = |now: jiff::Timestamp| {
        let numbers = [("value", 0.9), ("at", now.as_second() as f64 - 1.0), ("step", 1e6)];
        let series = |(part, value): (&str, f64)| Series {
            labels: [("anneal_part".to_owned(), part.to_owned())].into(),
            value,
        };
        Answer::Vector(numbers.map(series).to_vec())
    };
    let look = || {
        world.look(|world, query| match query.question {
            Question::Reading => accurate(world.case.now),
            _ => world.answer(query),
        })
    };
    let (_, status) = cases::until(3000, look, |status| {
        status.phase != P::Canary || status.weight != Weight::from_percent(20)
    });
    assert_eq!((status.phase, reason(&status)), (P::RolledBack, "HeldTooLong"), "{status:?}");
    assert!(status.decision.unwrap().message.contains("counts requests"));
}

#[test]
fn a_candidate_that_no_request_reaches_is_not_left_in_traffic() {
    let mut cut = World::new([(80, 200), (0, 1)], json!({}));
    let (_, status) = cut.until(200, |status| status.phase == P::RolledBack);
    assert_eq!((status.phase, reason(&status)), (P::RolledBack, "HeldTooLong"));
}

#[test]
fn a_candidate_that_cannot_keep_its_pods_up_is_not_left_in_traffic() {
    let mut crashing = World::new([(80, 200), (20, 200)], json!({}));
    crashing.until(5, |_| false);
    crashing.case.lose_a_pod(2);
    let (ticks, status) = crashing.until(300, |status| status.phase == P::RolledBack);
    assert_eq!((status.phase, reason(&status)), (P::RolledBack, "HeldTooLong"));
    assert!((120..150).contains(&ticks), "maxHold is 2m: {ticks}");
    assert!(status.decision.unwrap().message.contains("not all pods of v20261121.2 are ready"));
}

#[test]
fn a_gateway_that_does_not_accept_a_step_is_not_waited_for_for_ever() {
    let mut refusing = World::new([(80, 200), (20, 200)], json!({}));
    refusing.until(5, |_| false);
    let route = refusing.case.children.route.as_mut().unwrap();
    route["status"]["parents"][0]["conditions"][0]["status"] = "False".into();
    let (ticks, status) = refusing.until(300, |status| status.phase == P::RolledBack);
    assert_eq!((status.phase, reason(&status)), (P::RolledBack, "HeldTooLong"));
    assert!((120..150).contains(&ticks), "maxHold is 2m: {ticks}");
}

#[test]
fn a_number_that_was_not_finite_is_held_against_nobody_once_it_is() {
    let mut world = World::new([(80, 200), (20, 200)], json!({}));
    let mut look = |spoilt: bool| {
        world.case.now += SignedDuration::from_secs(1);
        let now = world.case.now.as_millisecond();
        let plan = world.case.plan_answering(|query| match world.answer(query) {
            Answer::Matrix(mut series) => {
                let samples = series.iter_mut().flat_map(|series| &mut series.samples);
                samples
                    .filter(|sample| spoilt && sample.0 > now - 3000)
                    .for_each(|sample| sample.1 = f64::NAN);
                Answer::Matrix(series)
            }
            other => other,
        });
        world.case.rollout.status = Some(plan.status.clone());
        plan.status
    };
    (0..5).for_each(|_| drop(look(false)));
    let told = (0..2).map(|_| look(true)).last().unwrap();
    assert_eq!(told.verdict.as_deref(), Some("Error"), "two ticks are enough");
    let bad = (0..6).map(|_| look(true)).last().unwrap();
    assert_eq!(bad.verdict.as_deref(), Some("Error"));
    let good = (0..70).map(|_| look(false)).last().unwrap();
    assert_eq!((good.weight, good.verdict.as_deref()), (Weight::FULL, Some("Pass")));
    assert_eq!(good.judge.unwrap()["state"]["metrics"][0]["invalid"], 0);
}

#[test]
fn what_cannot_be_counted_or_learned_from_is_no_pass_and_does_not_last() {
    let told = |spoil: &dyn Fn(&World, &Query) -> Answer| {
        let mut world = World::new([(80, 200), (20, 200)], json!({}));
        for _ in 0..200 {
            world.case.now += SignedDuration::from_secs(1);
            let plan = world.case.plan_answering(|query| spoil(&world, query));
            world.case.perform(&plan.actions);
            world.case.rollout.status = Some(plan.status);
        }
        let status = world.case.rollout.status.unwrap();
        (status.phase, reason(&status).to_owned(), status.verdict)
    };
    let lost = (P::RolledBack, "HeldTooLong".to_owned(), Some("Error".to_owned()));
    let spoilt = told(&|world, query| match world.answer(query) {
        Answer::Matrix(mut series) => {
            series.iter_mut().flat_map(|series| &mut series.samples).for_each(|sample| sample.1 = f64::NAN);
            Answer::Matrix(series)
        }
        answer => answer,
    });
    assert_eq!(spoilt, lost);
    let unlearned = told(&|world, query| match query.question {
        anneal_core::rollout::Question::PastAll => Answer::Unreachable("too much".into()),
        _ => world.answer(query),
    });
    assert_eq!(unlearned, lost);
}

#[test]
fn an_hour_without_prometheus_loses_no_tick() {
    let mut world = World::new([(80, 200), (20, 200)], json!({"dispersion": "Assumed"}));
    world.case.rollout.spec.judge.max_hold = "2h".parse().unwrap();
    world.case.rollout.spec.strategy = serde_json::from_value(json!({"rollbackTriggers": ["error_rate"],
        "steps": [{"weight": 20, "duration": "3h", "minRequests": 20}]}))
    .unwrap();
    world.until(10, |_| false);
    for _ in 0..60 {
        world.case.now += SignedDuration::from_mins(1);
        let plan = world.case.plan_answering(|_| Answer::Unreachable("connection refused".into()));
        world.case.rollout.status = Some(plan.status);
    }
    let (_, status) = world.until(20, |_| false);
    let state = status.judge.unwrap()["state"].clone();
    assert!(state["step"]["ticks"].as_i64().unwrap() > 3_600, "{state}");
}
