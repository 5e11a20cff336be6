//! What the API server says to freezes, approvals and experiments of a rollout: CEL as it evaluates it.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_crds::{
    ModelRolloutSpec,
    metric::Metric,
    model_rollout::{Autoscaling, Experiment, Serving, Then, Traffic},
};
use kube::core::cel::validate_cel_schema;
use serde_json::{Value, json};

fn refusal(strategy: &Value) -> Option<String> {
    refusal_by(strategy, "none")
}

fn refusal_by(strategy: &Value, evidence: &str) -> Option<String> {
    let mut spec = json!({
        "model": "ads", "candidate": {"follow": "NewestApproved"}, "serving": {"image": "serve:1"},
        "traffic": {"gateway": {"name": "web"}}, "prometheus": {"url": "http://p"}, "judge": {"evidence": evidence},
        "metrics": [
            {"name": "errors", "window": "1m", "ratio": {"bad": "bad", "total": "all", "max": 0.1}},
            {"name": "accuracy", "window": "1m", "ratio": {"bad": "right", "total": "all", "min": 0.8}},
            {"name": "between", "window": "1m", "ratio": {"bad": "bad", "total": "all", "min": 0.1, "max": 0.2}},
            {"name": "failed", "window": "1m", "errors": {"of": "Triton", "max": 0.1}},
            {"name": "slow", "window": "1m", "histogram": {"selector": "bucket", "quantile": 0.95, "max": "300ms"}},
            {"name": "score", "window": "1m", "value": {"expression": "avg(score[$window])", "min": 0.8}},
        ],
        "strategy": strategy,
    });
    spec["strategy"]["rollbackTriggers"] = json!(["errors"]);
    // The API server fills in defaults before it checks.
    let spec: ModelRolloutSpec = serde_json::from_value(spec).unwrap();
    let mut spec = serde_json::to_value(spec).unwrap();
    as_numbers(&mut spec);
    let errors = validate_cel_schema::<ModelRolloutSpec>(&spec, None).err()?;
    Some(format!("{errors:?}"))
}

/// The API server takes weights for doubles, as their schema says, however they are written.
fn as_numbers(value: &mut Value) {
    for (name, value) in value.as_object_mut().into_iter().flatten() {
        match (name.as_str(), value.as_f64()) {
            ("split" | "weight", Some(number)) => *value = number.into(),
            _ => as_numbers(value),
        }
    }
}

#[test]
fn freezes_have_different_names() {
    let night = |name: &str| json!({"name": name, "schedule": "0 2 * * *", "duration": "4h"});
    let with = |freezes: Value| json!({"blueGreen": {"duration": "1h"}, "freezes": freezes});
    assert_eq!(refusal(&with(json!([night("night"), night("morning")]))), None);
    assert!(refusal(&with(json!([night("night"), night("night")]))).unwrap().contains("different names"));
}

#[test]
fn an_approval_before_full_traffic_comes_after_something() {
    let before = json!({"before": "FullTraffic"});
    let shadow = json!({"duration": "1h"});
    for (strategy, taken) in [
        (json!({"canary": {"initial": 10, "increment": 15, "interval": "1d"}, "approval": before}), true),
        (json!({"canary": {"initial": 100, "increment": 15, "interval": "1d"}, "approval": before}), false),
        (json!({"blueGreen": {"duration": "1h"}, "approval": before}), false),
        (json!({"blueGreen": {"duration": "1h"}, "shadow": shadow, "approval": before}), true),
        (json!({"blueGreen": {"duration": "1h"}, "approval": {"expiresAfter": "2h"}}), true),
        (json!({"steps": [{"weight": 12.5, "duration": "1h"}], "approval": before}), true),
    ] {
        assert_eq!(refusal(&strategy).is_none(), taken, "{strategy}: {:?}", refusal(&strategy));
    }
}

#[test]
fn an_experiment_is_about_counted_events_and_leaves_requests_to_both_versions() {
    for (experiment, evidence, said) in [
        (json!({"primary": "accuracy", "secondary": ["slow", "failed", "between"]}), "sequential", None),
        (json!({"primary": "errors"}), "sequential", None),
        (json!({"primary": "failed", "split": 0.5}), "sequential", None),
        (json!({"primary": "slow", "looks": 60, "minDuration": "7d"}), "sequential", None),
        (json!({"primary": "accuracy"}), "none", Some("needs judge.evidence: sequential")),
        (
            json!({"primary": "feeling"}),
            "sequential",
            Some("primary names a metric that metrics does not define"),
        ),
        (json!({"primary": "score"}), "sequential", Some("primary must be a ratio with one bound")),
        (json!({"primary": "between"}), "sequential", Some("primary must be a ratio with one bound")),
        (
            json!({"primary": "errors", "secondary": ["feeling"]}),
            "sequential",
            Some("secondary names a metric that metrics does not define"),
        ),
        (
            json!({"primary": "errors", "secondary": ["score"]}),
            "sequential",
            Some("secondary must be ratios"),
        ),
        (
            json!({"primary": "errors", "secondary": ["errors"]}),
            "sequential",
            Some("must not name the primary"),
        ),
        (json!({"primary": "errors", "split": 0}), "sequential", Some("above 0 and at most 95")),
        (json!({"primary": "errors", "split": 96}), "sequential", Some("above 0 and at most 95")),
        (json!({"primary": "errors", "alpha": 1}), "sequential", Some("alpha must lie between 0 and 1")),
    ] {
        let mut own = experiment;
        own["duration"] = "14d".into();
        let refusal = refusal_by(&json!({"blueGreen": {"duration": "1h"}, "experiment": own}), evidence);
        match said {
            None => assert_eq!(refusal, None, "{own}"),
            Some(said) => assert!(refusal.clone().unwrap_or_default().contains(said), "{own}: {refusal:?}"),
        }
    }
    let before = json!({"blueGreen": {"duration": "1h"}, "approval": {"before": "FullTraffic"},
        "experiment": {"duration": "14d", "primary": "errors"}});
    assert_eq!(refusal_by(&before, "sequential"), None);
}

#[test]
fn a_mean_has_a_margin_where_it_is_compared_and_is_no_metric_of_an_experiment() {
    let refusal = |evidence: &str, mean: Value, experiment: Value| {
        let errors =
            json!({"name": "errors", "window": "1m", "ratio": {"bad": "bad", "total": "all", "max": 0.1}});
        let mut spec = json!({
            "model": "ads", "candidate": {"follow": "NewestApproved"}, "serving": {"image": "serve:1"},
            "traffic": {"gateway": {"name": "web"}}, "prometheus": {"url": "http://p"}, "judge": {"evidence": evidence},
            "metrics": [errors, {"name": "mae", "window": "1m", "labelDelay": "1h", "mean": mean}],
            "strategy": {"blueGreen": {"duration": "1h"}, "rollbackTriggers": ["errors", "mae"]},
        });
        if !experiment.is_null() {
            spec["strategy"]["experiment"] = experiment;
        }
        let spec: ModelRolloutSpec = serde_json::from_value(spec).unwrap();
        let errors = validate_cel_schema::<ModelRolloutSpec>(&serde_json::to_value(spec).unwrap(), None);
        errors.err().map(|errors| format!("{errors:?}"))
    };
    let without = || json!({"sum": "s", "count": "c", "max": 0.5});
    let with = || json!({"sum": "s", "count": "c", "min": -0.5, "margin": 0});
    let experiment = |primary: &str, secondary: &[&str]| json!({"primary": primary, "secondary": secondary, "duration": "14d", "split": 0.5});
    for (evidence, mean, experiment, said) in [
        ("none", without(), Value::Null, None),
        ("sequential", with(), Value::Null, None),
        ("none", with(), Value::Null, Some("margin is for judge.evidence: sequential")),
        ("sequential", without(), Value::Null, Some("a mean needs margin")),
        ("sequential", with(), experiment("mae", &[]), Some("primary must be a ratio with one bound")),
        ("sequential", with(), experiment("errors", &["mae"]), Some("secondary must be ratios")),
    ] {
        let refusal = refusal(evidence, mean.clone(), experiment);
        match said {
            None => assert_eq!(refusal, None, "{mean}"),
            Some(said) => assert!(refusal.clone().unwrap_or_default().contains(said), "{mean}: {refusal:?}"),
        }
    }
    let both =
        json!({"name": "mae", "window": "1m", "mean": {"sum": "s", "count": "c", "max": 1.0, "min": 0.5}});
    let none = json!({"name": "mae", "window": "1m", "mean": {"sum": "s", "count": "c"}});
    assert!(serde_json::from_value::<Metric>(none).is_err());
    // The API server refuses both; whoever reads it all the same takes one of them.
    assert!(serde_json::from_value::<Metric>(both).is_ok());
}

#[test]
fn an_experiment_is_looked_at_once_a_day_and_lasts_half_of_its_time() {
    let read = |spec: Value| serde_json::from_value::<Experiment>(spec).unwrap();
    for (duration, looks) in [("14d", 14), ("90d", 60), ("36h", 1), ("140s", 1)] {
        let own = read(json!({"duration": duration, "primary": "accuracy"}));
        assert_eq!(own.planned_looks(), looks, "{duration}");
    }
    let own = read(json!({"duration": "14d", "primary": "accuracy"}));
    assert_eq!(
        (own.shortest().to_string(), own.split.to_string(), own.alpha),
        ("7d".into(), "50".into(), 0.05)
    );
    assert!(own.secondary.is_empty() && own.min_requests == 100 && own.then == Then::Advance);
    let own = read(json!({"duration": "14d", "primary": "accuracy", "looks": 4, "minDuration": "10d"}));
    assert_eq!((own.planned_looks(), own.shortest().to_string()), (4, "10d".into()));
}

#[test]
fn an_autoscaler_may_make_at_least_as_many_pods_as_it_must() {
    for (most, taken) in [(2, false), (3, true), (10, true)] {
        let metrics = json!([{"type": "Resource"}]);
        let serving = json!({"image": "serve:1", "replicas": 3, "autoscaling": {"maxReplicas": most, "hpa": {"metrics": metrics}}});
        let serving: Serving = serde_json::from_value(serving).unwrap();
        let said = validate_cel_schema::<ModelRolloutSpec>(&json!({"serving": serving}), None);
        let said = said.map_err(|errors| format!("{errors:?}")).err().unwrap_or_default();
        assert_eq!(!said.contains("maxReplicas must not be below"), taken, "{most}: {said}");
    }
    assert!(serde_json::from_value::<Autoscaling>(json!({"maxReplicas": 3})).is_err());
}

#[test]
fn a_rollout_stays_on_its_route() {
    let spec = |traffic: &Value| {
        let spec = json!({
            "model": "ads", "candidate": {"follow": "NewestApproved"}, "serving": {"image": "serve:1"},
            "traffic": traffic, "prometheus": {"url": "http://p"}, "judge": {"evidence": "none"},
            "metrics": [{"name": "errors", "window": "1m", "ratio": {"bad": "bad", "total": "all", "max": 0.1}}],
            "strategy": {"blueGreen": {"duration": "1h"}, "rollbackTriggers": ["errors"]},
        });
        serde_json::to_value(serde_json::from_value::<ModelRolloutSpec>(spec).unwrap()).unwrap()
    };
    let gateway = |name: &str| json!({"gateway": {"name": name}});
    let attach = |attach: Value| json!({"attach": attach});
    for (before, after, taken) in [
        (gateway("web"), gateway("other"), true),
        (gateway("web"), attach(json!({"route": "shop"})), false),
        (attach(json!({"route": "shop"})), gateway("web"), false),
        (attach(json!({"route": "shop", "rule": "a"})), attach(json!({"route": "shop", "rule": "a"})), true),
        (attach(json!({"route": "shop", "rule": "a"})), attach(json!({"route": "shop", "rule": "b"})), false),
        (attach(json!({"route": "shop", "rule": "a"})), attach(json!({"route": "shop"})), false),
        (attach(json!({"route": "shop"})), attach(json!({"route": "shop", "rule": "a"})), false),
        (attach(json!({"route": "shop"})), attach(json!({"route": "other"})), false),
        (attach(json!({"route": "shop"})), attach(json!({"route": "shop", "service": "ads"})), false),
        (
            attach(json!({"route": "shop", "service": "ads"})),
            attach(json!({"route": "shop", "service": "x"})),
            false,
        ),
    ] {
        let said = validate_cel_schema::<ModelRolloutSpec>(&spec(&after), Some(&spec(&before)));
        assert_eq!(said.is_ok(), taken, "{before} {after}: {said:?}");
    }
    let both = json!({"gateway": {"name": "web"}, "attach": {"route": "shop"}});
    assert!(serde_json::from_value::<Traffic>(both).is_err());
}
