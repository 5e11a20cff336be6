//! Metrics that are means of values, such as errors and rewards, in a rollout's plan and as Prometheus itself reads what is asked.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "this is a test")]

use std::collections::BTreeMap;

use anneal_core::rollout::{Answer, Series, queries};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P};
use anneal_tests::cases::{self, RolloutCase};
use serde_json::{Value, from_value, json};

mod compared;

/// A canary of 20 % that may end, judged by one mean.
fn case(more: Value) -> RolloutCase {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    let mut metric = json!({"name": "mae", "window": "5m"});
    metric.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    case.rollout.spec.metrics = from_value(json!([metric])).unwrap();
    case.rollout.spec.strategy.rollback_triggers = vec!["mae".into()];
    case
}

fn at_most(max: f64) -> Value {
    json!({"mean": {"sum": "error_sum", "count": "error_count", "max": max}})
}

/// What Prometheus says, with one of its parts another one, or left out.
fn says(case: &RolloutCase, mean: f64, count: f64, other: Option<(&str, Option<f64>)>) -> Answer {
    let part = |name: &str, value: f64| {
        let value = match other {
            Some((wrong, value)) if wrong == name => value?,
            _ => value,
        };
        Some(Series { labels: BTreeMap::from([("anneal_part".to_owned(), name.to_owned())]), value })
    };
    let at = case.now.as_second() as f64;
    let parts = [("sum", mean * count), ("count", count), ("fell", 0.0), ("step", count), ("at", at)];
    Answer::Vector(parts.into_iter().filter_map(|(name, value)| part(name, value)).collect())
}

fn waits(status: &ModelRolloutStatus) -> &str {
    let told = status.conditions.iter().find(|told| told.type_ == "Reconciling");
    told.map_or("", |told| &told.message)
}

#[test]
fn a_mean_is_compared_with_its_bound_inclusively() {
    let at_least = json!({"mean": {"sum": "reward_sum", "count": "reward_count", "min": 0.5}});
    for (metric, mean, passes) in [
        (at_most(0.5), 0.5, true),
        (at_most(0.5), 0.0, true),
        (at_most(0.5), 0.5001, false),
        (at_least.clone(), 0.5, true),
        (at_least.clone(), 7.0, true),
        (at_least, 0.4999, false),
    ] {
        let case = case(metric);
        let status = case.plan_with(&says(&case, mean, 64.0, None)).status;
        if passes {
            assert_eq!(status.weight, Weight::FULL, "{mean}: {}", waits(&status));
        } else {
            let decision = status.decision.unwrap();
            assert_eq!((status.phase, decision.reason.as_str()), (P::RolledBack, "ThresholdBreached"));
            assert!(
                decision.message.starts_with(&format!("mae of v20261121.2 is {mean}")),
                "{}",
                decision.message
            );
        }
    }
}

#[test]
fn what_is_no_mean_is_neither_a_pass_nor_a_breach() {
    let case = case(at_most(0.5));
    let table = [
        (None, 0.0, "no data for this version"),
        (None, 19.0, "answered fewer than 20 requests"),
        (Some(("fell", Some(1.0))), 64.0, "its sum fell while its count did not"),
    ];
    let wrong = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let wrong = ["sum", "count", "fell", "step", "at"].into_iter().flat_map(|part| {
        let numbers = wrong.map(|number| (Some((part, Some(number))), 64.0, "not a finite number"));
        numbers.into_iter().chain([(Some((part, None)), 64.0, "no data for this version")])
    });
    let negative =
        ["sum", "count", "step"].map(|part| (Some((part, Some(-1.0))), 64.0, "not a finite number"));
    for (other, count, why) in table.into_iter().chain(wrong).chain(negative) {
        // A good mean and a bad one.
        for mean in [0.1, 0.9] {
            let status = case.plan_with(&says(&case, mean, count, other)).status;
            if mean > 0.5 && why.contains("fewer") {
                continue;
            }
            assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_percent(20)), "{other:?}");
            assert!(waits(&status).contains(why), "{other:?} {count}: {}", waits(&status));
        }
    }
    let old = says(&case, 0.1, 64.0, Some(("at", Some(case.now.as_second() as f64 - 31.0))));
    assert!(waits(&case.plan_with(&old).status).contains("newest sample is too old"));
}

#[test]
fn a_mean_of_labels_that_come_later_is_awaited_and_counts_no_requests() {
    let late = |seconds: i64| {
        let mut metric = at_most(0.5);
        metric
            .as_object_mut()
            .unwrap()
            .extend([("labelDelay".to_owned(), "1h".into()), ("minLabels".to_owned(), 50.into())]);
        let mut case = case(metric);
        let errors = json!({"name": "error_rate", "window": "5m", "ratio": {"bad": "bad", "total": "all", "max": 0.01}});
        case.rollout.spec.metrics.push(from_value(errors).unwrap());
        case.rollout.spec.strategy.rollback_triggers = vec!["error_rate".into(), "mae".into()];
        let status = case.rollout.status.as_mut().unwrap();
        let began = from_value::<Option<_>>(cases::ago(seconds).into()).unwrap();
        (status.step_started_at, status.traffic_accepted_at) = (Clone::clone(&began), began);
        case
    };
    let then = |seconds: i64, labels: Option<(f64, f64)>, requests: f64| {
        let case = late(seconds);
        let plan = case.plan_answering(|query| match (query.metric.as_str(), labels) {
            ("mae", Some((mean, labels))) => says(&case, mean, labels, None),
            ("mae", None) => Answer::Vector(vec![]),
            _ => cases::Read::Errors(0.0, requests).answer(),
        });
        plan.status
    };
    let awaited = "needs 50 labels of mae for the requests of this step";
    for (seconds, labels, what) in [
        (60, None, awaited),
        (60, Some((0.1, 5000.0)), awaited),
        (3660, Some((0.1, 49.0)), awaited),
        (3660, None, "no data for this version"),
    ] {
        let status = then(seconds, labels, 1000.0);
        assert_eq!(status.weight, Weight::from_percent(20));
        assert!(waits(&status).contains(what), "{seconds} {labels:?}: {}", waits(&status));
    }
    assert_eq!(then(3660, Some((0.1, 50.0)), 1000.0).weight, Weight::FULL);
    assert_eq!(then(60, Some((0.6, 5.0)), 1000.0).phase, P::RolledBack);
    let few = then(3660, Some((0.1, 5000.0)), 3.0);
    assert!(waits(&few).contains("answered fewer than 20 requests"), "{}", waits(&few));
}

#[test]
fn nothing_begins_with_a_mean_that_cannot_be_judged() {
    let mean = |margin: Value| {
        json!({"name": "mae", "window": "5m", "mean":
            {"sum": "error_sum", "count": "error_count", "max": 0.5, "margin": margin}})
    };
    let errors =
        json!({"name": "error_rate", "window": "5m", "ratio": {"bad": "bad", "total": "all", "max": 0.01}});
    let experiment = |primary: &str, secondary: &str| json!({"split": 50, "duration": "1d", "primary": primary, "secondary": [secondary]});
    for (metric, experiment, reason, why) in [
        (
            mean(Value::Null),
            Value::Null,
            "InvalidMetric",
            "Metric mae: with judge.evidence: sequential it needs margin",
        ),
        (
            mean(0.1.into()),
            experiment("error_rate", "mae"),
            "InvalidExperiment",
            "names mae, which is no ratio and no histogram",
        ),
        (
            mean(0.1.into()),
            experiment("mae", "error_rate"),
            "InvalidExperiment",
            "names mae, which is no ratio and no histogram",
        ),
    ] {
        let healthy = json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1),
            "trafficAcceptedAt": cases::ago(600)});
        let mut case = RolloutCase::new(healthy).unwrap();
        let spec = &mut case.rollout.spec;
        spec.metrics = from_value(json!([metric, errors])).unwrap();
        spec.judge = from_value(json!({"evidence": "sequential"})).unwrap();
        spec.strategy.experiment = from_value(experiment).unwrap();
        spec.strategy.rollback_triggers = vec!["error_rate".into()];
        let status = case.plan().status;
        assert_eq!((status.phase, status.candidate), (P::Healthy, None));
        let told = status.conditions.iter().find(|said| said.reason == reason).unwrap();
        assert!(told.message.contains(why), "{}", told.message);
    }
}

/// Sum and count, each second for ten minutes, of two versions and of errors that are not asked for.
#[test]
#[ignore = "needs promtool; cargo xtask test runs it"]
fn prometheus_reads_what_is_asked() {
    let case = case(
        json!({"mean": {"sum": "error_sum{kind=\"late\"}", "count": "error_count{kind=\"late\"}", "max": 0.5}}),
    );
    let query = &queries(&case.rollout, case.now)[0].expression;
    let series = |name: &str, kind: &str, version: u32, values: &str| {
        let namespace = case.rollout.metadata.namespace.as_deref().unwrap();
        json!({"series": format!("{name}{{kind=\"{kind}\",model=\"ads\",version=\"v20261121.{version}\",namespace=\"{namespace}\"}}"),
            "values": values})
    };
    let part =
        |name: &str, value: f64| json!({"labels": format!("{{anneal_part=\"{name}\"}}"), "value": value});
    let read = |sum: &str, count: &str, parts: [f64; 5]| {
        let [sum_is, count_is, fell, step, at] = parts;
        // Requests of both versions come with it, since five seconds after the switch a minute ago.
        let (own, rest) = (2.0 * 55.0, 9.0 * 55.0);
        json!({"interval": "1s", "input_series": [
            series("error_sum", "late", 2, sum), series("error_count", "late", 2, count),
            series("error_sum", "early", 2, "0+9x600"), series("error_count", "late", 1, "0+9x600"),
        ], "promql_expr_test": [{"expr": query, "eval_time": "10m", "exp_samples":
            [part("sum", sum_is), part("count", count_is), part("fell", fell), part("step", step), part("at", at),
             part("own", own), part("rest", rest)]}]})
    };
    let tests = [
        // 0.25 each.
        read("0+0.5x600", "0+2x600", [150.0, 600.0, 0.0, 120.0, 600.0]),
        // The sum has ended, and is as old as that.
        read("0+0.5x550 _x50", "0+2x600", [125.25, 600.0, 0.0, 120.0, 550.0]),
        // A process that began anew counts on.
        read("0+0.5x450 0+0.5x149", "0+2x450 0+2x149", [149.5, 598.0, 0.0, 120.0, 600.0]),
        // A reward below zero.
        read("0+0.5x450 224.5+0.5x149", "0+2x600", [374.0, 600.0, 1.0, 120.0, 600.0]),
    ];
    crate::promtool::test_rules(&json!({"evaluation_interval": "1s", "tests": tests}));
}
