//! Metrics whose events come later than the requests they belong to: what silence means, and when a step may end.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "this is a test")]

use anneal_core::rollout::{Answer, queries};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P};
use anneal_tests::cases::{self, Read, RolloutCase};
use jiff::SignedDuration;
use serde_json::{Value, from_value, json};

mod sequential;

const HOUR: i64 = 3600;

/// Half an hour of 20 %, and a bake of the same length, judged by errors at once and by labels an hour later.
fn spec(case: &mut RolloutCase, accuracy: Value) {
    let spec = &mut case.rollout.spec;
    let mut metrics = json!([
        {"name": "error_rate", "window": "5m", "ratio": {"bad": "bad", "total": "all", "max": 0.01}},
        {"name": "accuracy", "window": "30m", "labelDelay": "1h", "minLabels": 50},
    ]);
    metrics[1].as_object_mut().unwrap().extend(accuracy.as_object().unwrap().clone());
    spec.metrics = from_value(metrics).unwrap();
    spec.strategy = from_value(json!({"rollbackTriggers": ["error_rate", "accuracy"],
        "steps": [{"weight": 20, "duration": "30m", "minRequests": 20}, {"weight": 100, "duration": "30m"}],
        "bake": {"duration": "30m", "rollbackTriggers": ["error_rate", "accuracy"]}}))
    .unwrap();
    spec.judge = from_value(json!({"evidence": "none", "maxHold": "10m"})).unwrap();
}

fn right() -> Value {
    json!({"ratio": {"bad": "right", "total": "labels", "min": 0.8}})
}

/// A step that began so many seconds ago.
fn began(phase: P, seconds: i64, accuracy: Value) -> RolloutCase {
    let mut status = cases::moving("Canary", 20);
    if phase == P::Baking {
        status = cases::moving("Baking", 0);
        status["stable"] = cases::reference(2);
        status["previous"] = cases::reference(1);
        status["candidate"] = Value::Null;
    }
    let mut case = RolloutCase::new(status.clone()).unwrap();
    // In a bake both versions have pods.
    case.rollout.spec.strategy.bake =
        Some(from_value(json!({"duration": "30m", "rollbackTriggers": ["error_rate"]})).unwrap());
    case.settle_children();
    for time in ["stepStartedAt", "trafficAcceptedAt", "trialStartedAt"] {
        status[time] = cases::ago(seconds).into();
    }
    case.rollout.status = Some(from_value(status).unwrap());
    spec(&mut case, accuracy);
    case
}

/// What follows if labels say `labels` and so many requests were without an error.
fn then(case: &RolloutCase, labels: &Answer, requests: f64) -> ModelRolloutStatus {
    let plan = case.plan_answering(|query| match query.metric.as_str() {
        "accuracy" => labels.clone(),
        _ => Read::Errors(0.0, requests).answer(),
    });
    plan.status
}

fn waits(status: &ModelRolloutStatus) -> &str {
    let mut told = status.conditions.iter().filter(|told| told.status == "True");
    told.find(|told| ["Reconciling", "Ready", "Stalled"].contains(&told.type_.as_str()))
        .map_or("", |told| &told.message)
}

const AWAITED: &str = "needs 50 labels of accuracy for the requests of this step, which come 1h after them";

#[test]
fn a_step_does_not_end_before_its_labels_and_silence_before_them_is_no_blindness() {
    // Seconds since the step began, what labels say (the share that is right, and how many came since they could), what the
    // step waits for, and whether that is held against it.
    let table = [
        (60, Read::Nothing, AWAITED, false),
        (60, Read::Errors(1.0, 5000.0), AWAITED, false),
        (HOUR - 60, Read::Nothing, AWAITED, false),
        (HOUR - 60, Read::Old(300), AWAITED, false),
        (HOUR - 60, Read::Errors(0.9, 5000.0), AWAITED, false),
        (HOUR + 20, Read::Nothing, AWAITED, false),
        (HOUR + 60, Read::Errors(0.9, 49.0), AWAITED, false),
        (HOUR + 60, Read::Nothing, "no data for this version", true),
        (HOUR + 60, Read::Old(300), "newest sample is too old", true),
        (60, Read::NotANumber, "not a finite number", true),
        (60, Read::Silence, "connection refused", true),
    ];
    for (phase, (age, read, what, held)) in
        [P::Canary, P::Baking].into_iter().flat_map(|phase| table.map(|row| (phase, row)))
    {
        let status = then(&began(phase, age, right()), &read.answer(), 1000.0);
        assert_eq!((status.phase, &status.decision), (phase, &None), "{age} {read:?}");
        assert!(waits(&status).contains(what), "{phase:?} {age} {read:?}: {}", waits(&status));
        assert_eq!((status.holding_since.is_some(), status.missing.len()), (held, usize::from(held)));
        assert_eq!(status.verdict.as_deref() == Some("AwaitingLabels"), !held, "{age} {read:?}");
    }
    let enough = Read::Errors(0.9, 50.0).answer();
    assert_eq!(then(&began(P::Canary, HOUR + 60, right()), &enough, 1000.0).weight, Weight::FULL);
    assert_eq!(then(&began(P::Baking, HOUR + 60, right()), &enough, 1000.0).phase, P::Healthy);
}

#[test]
fn labels_of_the_candidate_count_when_they_are_seen() {
    for (phase, age) in [(P::Canary, 60), (P::Canary, HOUR + 60), (P::Baking, 60), (P::Baking, HOUR + 60)] {
        let status = then(&began(phase, age, right()), &Read::Errors(0.79, 10.0).answer(), 1000.0);
        let decision = status.decision.unwrap();
        assert_eq!((status.phase, decision.reason.as_str()), (P::RolledBack, "ThresholdBreached"));
        assert!(decision.message.starts_with("accuracy of v20261121.2 is 0.79"), "{}", decision.message);
    }
}

#[test]
fn labels_are_no_requests() {
    let case = began(P::Canary, HOUR + 60, right());
    let (few, many) = (3.0, 1000.0);
    let labels = Read::Errors(0.9, 5000.0).answer();
    let status = then(&case, &labels, few);
    assert_eq!(status.weight, Weight::from_percent(20));
    assert!(waits(&status).contains("answered fewer than 20 requests"), "{}", waits(&status));
    assert_eq!(then(&case, &labels, many).weight, Weight::FULL);
    let mut alone = began(P::Canary, HOUR + 60, right());
    alone.rollout.spec.strategy.rollback_triggers = vec!["accuracy".into()];
    let status = then(&alone, &labels, many);
    assert_eq!(status.weight, Weight::from_percent(20));
    assert!(waits(&status).contains("none of its triggers counts requests"), "{}", waits(&status));
    // A bake asks for none, and for labels all the same.
    let mut alone = began(P::Baking, HOUR + 60, right());
    alone.rollout.spec.strategy.bake.as_mut().unwrap().rollback_triggers = vec!["accuracy".into()];
    assert_eq!(then(&alone, &Read::Errors(0.9, 49.0).answer(), few).phase, P::Baking);
    assert_eq!(then(&alone, &labels, few).phase, P::Healthy);
}

#[test]
fn what_is_asked_counts_labels_from_the_first_that_may_be_of_the_step_on() {
    let asked = |age: i64| {
        let case = began(P::Canary, age, right());
        let all = queries(&case.rollout, case.now);
        let of = |name: &str| all.iter().find(|query| query.metric == name).unwrap().expression.clone();
        (of("error_rate"), of("accuracy"))
    };
    for (age, labels) in [(60, "[1s]"), (HOUR, "[1s]"), (HOUR + 100, "[100s]")] {
        let (requests, accuracy) = asked(age);
        assert!(
            accuracy.contains(labels) && requests.contains(&format!("[{age}s]")),
            "{accuracy} {requests}"
        );
    }
}

#[test]
fn the_time_that_labels_take_is_not_held_against_a_step() {
    // Half an hour of the step, an hour of the labels, and ten minutes of maxHold.
    for (age, reason) in [(6_000, None), (6_060, Some("HeldTooLong"))] {
        let few = Read::Errors(0.9, 49.0).answer();
        let status = then(&began(P::Canary, age, right()), &few, 1000.0);
        assert_eq!(status.decision.as_ref().map(|decision| decision.reason.as_str()), reason, "{age}");
        let status = then(&began(P::Baking, age, right()), &few, 1000.0);
        let stalled = status.conditions.iter().any(|told| told.type_ == "Stalled" && told.status == "True");
        assert_eq!((status.phase, stalled), (P::Baking, reason.is_some()), "{age}");
        // What somebody pauses waits for him.
        let mut paused = began(P::Canary, age, right());
        paused.rollout.spec.paused = true;
        assert_eq!(then(&paused, &few, 1000.0).decision, None);
    }
    // Nor does silence in it roll back by a policy for missing data; later it does.
    for (age, phase) in [(HOUR - 60, P::Canary), (HOUR + 20, P::Canary), (HOUR + 60, P::RolledBack)] {
        for (policy, read) in [("onNoData", Read::Nothing), ("onStale", Read::Old(300))] {
            let mut case = began(P::Canary, age, right());
            case.rollout.spec.judge = from_value(json!({"evidence": "none", "maxHold": "10m",
                (policy): {"action": "Rollback"}}))
            .unwrap();
            assert_eq!(then(&case, &read.answer(), 1000.0).phase, phase, "{age} {policy}");
        }
    }
}

#[test]
fn a_regression_that_only_labels_show_rolls_back_at_the_first_look_that_sees_it() {
    let mut case = began(P::Canary, 0, right());
    case.rollout.spec.metrics[1].label_delay = Some("2h".parse().unwrap());
    for minute in 0..180 {
        let labels = match minute {
            0..=120 => Read::Nothing,
            _ => Read::Errors(0.4, 30.0),
        };
        // Both were scraped a moment ago.
        let passed = case.now.duration_since(cases::now()).as_secs_f64();
        let fresh = |read: Read| match read.answer() {
            Answer::Vector(mut vector) => {
                let at = vector.iter_mut().filter(|series| series.labels["anneal_part"] == "at");
                at.for_each(|series| series.value += passed);
                Answer::Vector(vector)
            }
            answer => answer,
        };
        let plan = case.plan_answering(|query| match query.metric.as_str() {
            "accuracy" => fresh(labels),
            _ => fresh(Read::Errors(0.0, 1000.0)),
        });
        let wanted = if minute <= 120 { P::Canary } else { P::RolledBack };
        assert_eq!(plan.status.phase, wanted, "minute {minute}: {:?}", plan.status.decision);
        if wanted == P::RolledBack {
            return;
        }
        assert!(plan.status.holding_since.is_none(), "minute {minute}: {}", waits(&plan.status));
        case.perform(&plan.actions);
        case.rollout.status = Some(plan.status);
        case.now += SignedDuration::from_mins(1);
    }
}

#[test]
fn looks_that_wait_for_labels_say_the_same() {
    let mut case = began(P::Canary, 60, right());
    let mut said = vec![];
    for _ in 0..5 {
        let status = then(&case, &Read::Nothing.answer(), 1000.0);
        said.push(serde_json::to_value(&status).unwrap());
        case.rollout.status = Some(status);
        case.now += SignedDuration::from_millis(700);
    }
    assert!(said[1..].iter().all(|one| *one == said[1]), "a message that changes is a write: {said:#?}");
}

#[test]
fn an_expression_without_labels_to_divide_by_is_silent() {
    let share = json!({"value": {"expression": "sum(increase(right[$window])) / sum(increase(labels[$window]))",
        "requests": "labels", "min": 0.8}});
    let says = |value: f64, labels: f64| match Read::Errors(0.0, labels).answer() {
        Answer::Vector(mut vector) => {
            let of = vector.iter_mut().find(|series| series.labels["anneal_part"] == "bad").unwrap();
            (of.value, *of.labels.get_mut("anneal_part").unwrap()) = (value, "value".to_owned());
            Answer::Vector(vector)
        }
        answer => answer,
    };
    let status = then(&began(P::Canary, HOUR - 60, share.clone()), &says(f64::NAN, 0.0), 1000.0);
    assert!(status.holding_since.is_none() && waits(&status).contains(AWAITED), "{}", waits(&status));
    let status = then(&began(P::Canary, HOUR + 60, share.clone()), &says(f64::NAN, 0.0), 1000.0);
    assert!(status.holding_since.is_some() && waits(&status).contains("not a finite"), "{}", waits(&status));
    let late = began(P::Canary, HOUR + 60, share);
    assert_eq!(then(&late, &says(0.9, 49.0), 1000.0).weight, Weight::from_percent(20));
    assert_eq!(then(&late, &says(0.9, 50.0), 1000.0).weight, Weight::FULL);
}

#[test]
fn pauses_freezes_and_approvals_find_the_labels_that_they_wait_for() {
    let (none, enough) = (Read::Nothing.answer(), Read::Errors(0.9, 50.0).answer());
    let always = json!([{"name": "always", "schedule": "0 0 1 1 *", "duration": "364d"}]);
    for (field, value, told) in [
        ("freezes", always, "The step has passed and waits."),
        ("approval", json!({"before": "FullTraffic"}), "waits for an approval"),
    ] {
        let case = |age: i64| {
            let mut case = began(P::Canary, age, right());
            let mut strategy = serde_json::to_value(&case.rollout.spec.strategy).unwrap();
            strategy[field] = value.clone();
            case.rollout.spec.strategy = from_value(strategy).unwrap();
            case
        };
        let status = then(&case(HOUR - 60), &none, 1000.0);
        assert!(waits(&status).contains(AWAITED), "{field}: {}", waits(&status));
        let status = then(&case(HOUR + 60), &enough, 1000.0);
        assert!(waits(&status).contains(told), "{field}: {}", waits(&status));
        assert_eq!(status.weight, Weight::from_percent(20));
    }
}

#[test]
fn nothing_begins_with_labels_that_cannot_be_counted() {
    let delayed = |more: Value| {
        let mut metric = json!({"name": "accuracy", "window": "30m", "labelDelay": "1h"});
        metric.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        metric
    };
    let uncounted = json!({"value": {"expression": "min(avg_over_time(accuracy[$window]))", "min": 0.8}});
    let cases = [
        ("none", delayed(uncounted), "needs requests, the counter of its labels"),
        ("none", delayed(json!({"errors": {"of": "Anneal", "max": 0.1}})), "its events are not"),
        (
            "none",
            delayed(json!({"latency": {"of": "Anneal", "quantile": 0.9, "max": "1s"}})),
            "its events are not",
        ),
        ("sequential", delayed(right()), "without labelDelay, and [accuracy] has none"),
    ];
    for (evidence, metric, why) in cases {
        let healthy = json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1),
            "trafficAcceptedAt": cases::ago(600)});
        let mut case = RolloutCase::new(healthy).unwrap();
        let spec = &mut case.rollout.spec;
        spec.metrics = from_value(json!([metric])).unwrap();
        spec.judge = from_value(json!({"evidence": evidence})).unwrap();
        spec.strategy.rollback_triggers = vec!["accuracy".into()];
        let status = case.plan().status;
        assert_eq!((status.phase, status.candidate), (P::Healthy, None));
        let told = status.conditions.iter().find(|said| said.reason == "InvalidMetric").unwrap();
        assert!(told.message.contains(why), "{}", told.message);
    }
}
