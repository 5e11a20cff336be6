//! What the API server says to freezes and approvals of a rollout: CEL as it evaluates it.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_crds::{ModelRolloutSpec, model_rollout::Traffic};
use kube::core::cel::validate_cel_schema;
use serde_json::{Value, json};

fn refusal(strategy: &Value) -> Option<String> {
    let mut spec = json!({
        "model": "ads", "candidate": {"follow": "NewestApproved"}, "serving": {"image": "serve:1"},
        "traffic": {"gateway": {"name": "web"}}, "prometheus": {"url": "http://p"}, "judge": {"evidence": "none"},
        "metrics": [{"name": "errors", "window": "1m", "ratio": {"bad": "bad", "total": "all", "max": 0.1}}],
        "strategy": strategy,
    });
    spec["strategy"]["rollbackTriggers"] = json!(["errors"]);
    // The API server fills in defaults before it checks.
    let spec: ModelRolloutSpec = serde_json::from_value(spec).unwrap();
    let errors = validate_cel_schema::<ModelRolloutSpec>(&serde_json::to_value(spec).unwrap(), None).err()?;
    Some(format!("{errors:?}"))
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
        (attach(json!({"route": "shop"})), attach(json!({"route": "shop", "rule": "ads"})), true),
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
