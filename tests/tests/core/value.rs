//! Metrics that are a user's own PromQL, in a rollout's plan, and as Prometheus itself reads what is asked.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;

use anneal_core::rollout::{Answer, Query, Question, RawSeries, Series, Shape, queries};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P};
use anneal_tests::{
    cases::{self, Read, RolloutCase},
    raw::Raw,
};
use jiff::SignedDuration;
use serde_json::{Value, json};

/// A canary of 20 % that may end, judged by one expression and by these terms.
fn case(evidence: &str, triggers: Value, value: Value) -> RolloutCase {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    let spec = &mut case.rollout.spec;
    let metrics = json!([
        {"name": "accuracy", "window": "5m", "interval": "10s", "value": value},
        {"name": "error_rate", "window": "40s", "interval": "1s", "ratio": {"bad": "bad", "total": "all", "max": 0.01}},
    ]);
    spec.metrics = serde_json::from_value(metrics).unwrap();
    spec.judge = serde_json::from_value(json!({"evidence": evidence, "maxHold": "2m"})).unwrap();
    spec.strategy.rollback_triggers = serde_json::from_value(triggers).unwrap();
    case
}

fn accuracy() -> Value {
    json!({"expression": "min(accuracy{site=\"a\"} - accuracy offset 1w) + avg(max_over_time(other[$window]))",
        "requests": "labels_total", "min": 0.8})
}

fn says(value: f64, step: Option<f64>, case: &RolloutCase) -> Answer {
    let part = |name: &str, value: f64| Series {
        labels: BTreeMap::from([("anneal_part".to_owned(), name.to_owned())]),
        value,
    };
    let parts = [part("value", value), part("at", case.now.as_second() as f64)];
    Answer::Vector(parts.into_iter().chain(step.map(|step| part("step", step))).collect())
}

fn hold(status: &ModelRolloutStatus) -> &str {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Reconciling").unwrap();
    &ready.message
}

#[test]
fn a_value_passes_breaches_and_waits_for_its_requests() {
    let case = case("none", json!(["accuracy"]), accuracy());
    let plan = |value, step| case.plan_with(&says(value, step, &case)).status;
    assert_eq!(plan(0.8, Some(20.0)).weight, Weight::FULL);
    let back = plan(0.79, Some(20.0));
    assert_eq!((back.phase, back.decision.unwrap().reason.as_str()), (P::RolledBack, "ThresholdBreached"));
    assert!(hold(&plan(0.9, Some(19.0))).contains("answered fewer than 20 requests"));
    assert!(hold(&plan(0.9, None)).contains("no data for this version"));
}

#[test]
fn a_value_that_counts_nothing_never_stands_for_requests() {
    let uncounted = json!({"expression": "min(accuracy{}) + 0 * count(accuracy offset $window)", "min": 0.8});
    let alone = case("none", json!(["accuracy"]), uncounted.clone());
    let status = alone.plan_with(&says(0.9, None, &alone)).status;
    assert_eq!(status.weight, Weight::from_per_mille(200));
    assert!(hold(&status).contains("none of its triggers counts requests"), "{}", hold(&status));
    let both = case("none", json!(["accuracy", "error_rate"]), uncounted);
    let step = |requests: f64| {
        both.plan_answering(|query| match query.metric.as_str() {
            "accuracy" => says(0.9, None, &both),
            _ => Read::Errors(0.0, requests).answer(),
        })
        .status
        .weight
    };
    assert_eq!((step(19.0), step(20.0)), (Weight::from_per_mille(200), Weight::FULL));
}

#[test]
fn nothing_begins_with_a_metric_that_cannot_be_asked() {
    let broken = |expression: &str| json!({"expression": expression, "min": 0.8});
    let cases = [
        (
            "none",
            json!(["accuracy"]),
            broken("min(accuracy[$window]"),
            "Metric accuracy: its expression is not PromQL",
        ),
        ("none", json!(["error_rate"]), broken("vector($window)"), "Metric accuracy"),
        (
            "sequential",
            json!(["accuracy"]),
            accuracy(),
            "needs a trigger that is a ratio, a mean or a histogram",
        ),
    ];
    for (evidence, triggers, value, why) in cases {
        let mut case = case(evidence, triggers, value);
        let healthy = json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1),
            "trafficAcceptedAt": cases::ago(600)});
        case.rollout.status = Some(serde_json::from_value(healthy).unwrap());
        case.settle_children();
        let status = case.plan().status;
        assert_eq!((status.phase, status.candidate), (P::Healthy, None));
        let told = status.conditions.iter().find(|said| said.reason == "InvalidMetric").unwrap();
        assert!(told.message.contains(why), "{}", told.message);
    }
}

#[test]
fn a_metric_that_cannot_be_asked_ends_nothing_that_is_under_way() {
    let broken = json!({"expression": "min(accuracy[$window]", "min": 0.8});
    let mut case = case("none", json!(["accuracy"]), broken);
    let status = case.plan().status;
    assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_per_mille(200)));
    assert!(hold(&status).contains("its expression is not PromQL"), "{}", hold(&status));
    // Nor does it stop who wants to go back.
    let healthy = json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(2),
        "history": [cases::reference(1)], "trafficAcceptedAt": cases::ago(600)});
    case.rollout.status = Some(serde_json::from_value(healthy).unwrap());
    case.rollout.spec.candidate = serde_json::from_value(json!({"version": "v20261121.1"})).unwrap();
    case.settle_children();
    let status = case.plan().status;
    assert_eq!((status.phase, status.stable.unwrap().version.as_str()), (P::RolledBack, "v20261121.1"));
}

#[test]
fn an_answer_of_several_series_is_none_whatever_they_differ_in() {
    let case = case("none", json!(["accuracy"]), accuracy());
    for label in ["le", "anneal_key"] {
        let Answer::Vector(mut vector) = says(0.9, Some(20.0), &case) else { unreachable!() };
        for (value, bound) in [(0.9, "1"), (0.1, "2")] {
            let labels = [("anneal_part", "value"), (label, bound)];
            let labels = labels.map(|(name, text)| (name.to_owned(), text.to_owned()));
            vector.push(Series { labels: labels.into(), value });
        }
        let status = case.plan_with(&Answer::Vector(vector)).status;
        assert_eq!(status.phase, P::Canary);
        assert!(hold(&status).contains("was answered more than once"), "{}", hold(&status));
    }
}

#[test]
fn a_hold_says_the_same_at_every_look() {
    let long = format!("rate(a{{x=\"{}\"}}[$window]) / rate(a[$window] offset $window)", "y".repeat(400));
    let mut case = case("none", json!(["accuracy"]), json!({"expression": long, "min": 0.8}));
    let mut said = vec![];
    for millis in [9_900, 100, 1, 40_000, 20_000] {
        case.now += SignedDuration::from_millis(millis);
        said.push(hold(&case.plan_with(&Answer::Vector(vec![])).status).to_owned());
    }
    assert!(said.iter().all(|one| *one == said[0]), "{said:#?}");
}

/// Two versions without an error, 80 and 20 requests a second.
fn steady(query: &Query, case: &RolloutCase, accuracy: f64) -> Answer {
    match query.shape {
        Shape::Vector => {
            assert_eq!((query.metric.as_str(), query.question), ("accuracy", Question::Reading));
            says(accuracy, Some(20.0), case)
        }
        Shape::Matrix => {
            let raw = Raw::read(&query.expression, case.now).unwrap();
            let one = |version: &String| {
                let rps = if version.ends_with('2') { 20 } else { 80 };
                let count = |second: i64| if raw.selector == "bad" { second / 10 } else { rps * second };
                let seconds = raw.from_ms.div_euclid(1000) + 1..=raw.until_ms.div_euclid(1000);
                let labels = [("version", version.as_str()), ("pod", "p")];
                RawSeries {
                    labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                    samples: seconds
                        .map(|second| (second * 1000, count(second - 1_700_000_000) as f64))
                        .collect(),
                    histograms: vec![],
                }
            };
            Answer::Matrix(raw.versions.iter().map(one).collect())
        }
    }
}

#[test]
fn beside_a_comparison_a_value_is_compared_with_its_bounds() {
    for (accuracy, phase) in [(0.9, P::Canary), (0.7, P::RolledBack)] {
        let mut case = case("sequential", json!(["error_rate", "accuracy"]), self::accuracy());
        let status = case.rollout.status.as_mut().unwrap();
        let now = case.now;
        let at = |time: &mut Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
            *time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        };
        at(&mut status.step_started_at);
        at(&mut status.traffic_accepted_at);
        at(&mut status.trial_started_at);
        for _ in 0..15 {
            case.now += SignedDuration::from_secs(1);
            let plan = case.plan_answering(|query| steady(query, &case, accuracy));
            case.perform(&plan.actions);
            case.rollout.status = Some(plan.status);
        }
        assert_eq!(case.rollout.status.unwrap().phase, phase, "{accuracy}");
    }
}

/// One series of each kind, each second for ten minutes.
#[test]
#[ignore = "needs promtool; cargo xtask test runs it"]
fn prometheus_reads_what_is_asked() {
    let case = case(
        "none",
        json!(["accuracy"]),
        json!({
        "expression": "min(avg_over_time(accuracy[$window]) - 0 * accuracy offset 1m) + scalar(max(other))",
        "requests": "labels_total{kind=\"late\"}", "min": 0.8}),
    );
    let query = &queries(&case.rollout, case.now)[0].expression;
    let series = |name: &str, labels: &str, version: u32, values: &str| {
        json!({"series": format!("{name}{{{labels}model=\"ads\",version=\"v20261121.{version}\",namespace=\"{}\"}}",
            case.rollout.metadata.namespace.as_deref().unwrap()), "values": values})
    };
    let part =
        |name: &str, value: f64| json!({"labels": format!("{{anneal_part=\"{name}\"}}"), "value": value});
    let test = json!({"evaluation_interval": "1s", "tests": [{
        "interval": "1s",
        "input_series": [
            series("accuracy", "", 2, "0.5x600"), series("accuracy", "", 1, "0.1x600"),
            series("other", "", 2, "2x400 _x200"), series("other", "", 1, "9x600"),
            series("labels_total", "kind=\"late\",", 2, "0+3x600"), series("labels_total", "kind=\"early\",", 2, "0+9x600"),
        ],
        "promql_expr_test": [{"expr": query, "eval_time": "10m",
            "exp_samples": [part("value", 2.5), part("at", 400.0), part("step", 180.0)]}],
    }]});
    crate::promtool::test_rules(&test);
}
