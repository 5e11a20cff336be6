//! What users write: rollouts and retrain jobs of all shapes.

use anneal_core::object::{Key, Kind, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    attached,
    dice::Dice,
    gateway::GATEWAY,
    metrics::{LABEL_DELAY, MAX_ERRORS, MIN_LABELS},
    plane::CLASS,
    sim::NAMESPACE,
    trials::{EXPECTED, WEBHOOK},
};

/// The one model.
pub const MODEL: &str = "ads";

/// The rollout of a name.
pub fn rollout(name: &str, dice: &mut Dice) -> Object {
    let mut spec = json!({
        "model": MODEL,
        "candidate": {"follow": "NewestApproved"},
        "serving": {"image": "serve:1", "replicas": 1 + dice.below(2), "progressDeadline": "2m",
            "resources": {"limits": {"cpu": "1"}}},
        "traffic": {"gateway": {"name": GATEWAY}},
        "prometheus": {"url": "http://prometheus"},
        "strategy": strategy(dice),
        "metrics": metrics(if dice.chance(500) { "40s" } else { "2m" }),
        "judge": judge(dice),
    });
    may_experiment(&mut spec, dice);
    if dice.chance(400) {
        spec["serving"]["autoscaling"] = autoscaling(dice);
    }
    if dice.chance(150) {
        // As many as one version may ever need.
        spec["serving"]["resources"] = json!({"limits": {"cpu": "1", "nvidia.com/gpu": "1"}});
        spec["strategy"]["maxExtraGPUs"] = 6.into();
    }
    if dice.chance(250) {
        spec["traffic"] = attached::traffic(name, dice.chance(700));
    }
    if spec["traffic"]["attach"].is_null() && dice.chance(250) {
        spec["deletionPolicy"] = "Delete".into();
    }
    may_compare(&mut spec, dice);
    if dice.chance(300) {
        spec["serving"]["warmup"] = json!({"requests": [{"path": "/warm", "body": {"inputs": []}}]});
    }
    Object::new(Key::new(Kind::ModelRollout, NAMESPACE, name), json!({"metadata": {}, "spec": spec}))
}

/// An autoscaler of either kind.
pub fn autoscaling(dice: &mut Dice) -> Value {
    let most = 3 + dice.below(4);
    if dice.chance(600) {
        let target = json!({"type": "Utilization", "averageUtilization": 60});
        json!({"maxReplicas": most, "hpa": {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}})
    } else {
        json!({"maxReplicas": most, "keda": {"triggers": [{"type": "cpu", "metadata": {"value": "60"}}]}})
    }
}

/// What becomes of a version that cannot be judged.
fn judge(dice: &mut Dice) -> Value {
    let mut judge = json!({"evidence": "none", "maxHold": "2m"});
    if dice.chance(500) {
        judge["evidence"] = "sequential".into();
        match dice.below(3) {
            0 => {}
            1 => judge["sequential"] = json!({"dispersion": "Assumed", "alpha": 0.01}),
            _ => {
                judge["sequential"] =
                    json!({"advance": "Evidence", "maxDuration": "1m", "onInconclusive": "Advance"});
            }
        }
    }
    for field in ["onNoData", "onStale", "onError"] {
        match dice.weighted(&[80, 10, 10]) {
            0 => {}
            1 => judge[field] = json!({"action": "Rollback"}),
            _ => judge[field] = json!({"action": "Rollback", "after": "40s"}),
        }
    }
    judge
}

/// One way to take over.
pub fn strategy(dice: &mut Dice) -> Value {
    let triggers = if dice.chance(700) { ["error_rate", "latency"] } else { ["latency", "error_rate"] };
    let mut strategy = json!({"rollbackTriggers": with_labels(&triggers, dice)});
    if dice.chance(500) {
        let mut shadow = json!({"duration": "30s", "minRequests": 50});
        match dice.weighted(&[40, 30, 20, 10]) {
            0 => {}
            1 => shadow["percent"] = 100.into(),
            2 => shadow["percent"] = 40.into(),
            _ => shadow["fraction"] = json!({"numerator": 1, "denominator": 2}),
        }
        strategy["shadow"] = shadow;
    }
    if dice.chance(350) {
        let test = if dice.chance(600) {
            json!({"job": {"image": "tests:1"}})
        } else {
            json!({"webhook": {"url": WEBHOOK}})
        };
        strategy["staging"] = json!({"test": test, "timeout": "40s", "tries": 1 + dice.below(3)});
    }
    if dice.chance(350) {
        let expect = json!({"json": [{"pointer": "/answer", "value": EXPECTED}]});
        strategy["smoke"] =
            json!({"requests": [{"path": "/smoke", "expect": expect}], "tries": 1 + dice.below(3)});
    }
    match dice.weighted(&[60, 30, 10]) {
        0 => {
            let steps = [(10, 30, 100), (20, 40, 100), (50, 50, 100), (100, 1, 100), (10, 50, 60)];
            let (initial, increment, max) = dice.pick(&steps).copied().unwrap_or((50, 50, 100));
            strategy["canary"] = json!({"initial": initial, "increment": increment, "max": max,
                "interval": "20s", "minRequests": 20});
        }
        1 => strategy["steps"] = steps(dice),
        _ => strategy["blueGreen"] = json!({"duration": "20s", "minRequests": 20}),
    }
    if dice.chance(400) {
        let triggers: &[&str] = if dice.chance(500) { &["error_rate"] } else { &["error_rate", "latency"] };
        strategy["bake"] = json!({"duration": "40s", "rollbackTriggers": with_labels(triggers, dice)});
    }
    strategy["rollbackWindow"] = dice.below(4).into();
    have_a_say(&mut strategy, dice);
    strategy
}

/// An experiment, where one may be.
pub fn may_experiment(spec: &mut Value, dice: &mut Dice) {
    if spec["judge"]["evidence"] != "sequential" || !dice.chance(400) {
        return;
    }
    let then = ["Pause", "Approval", "Advance"][dice.weighted(&[10, 10, 80])];
    let secondary = if dice.chance(500) { json!(["latency"]) } else { json!([]) };
    spec["strategy"]["experiment"] = json!({"split": 20 + 30 * dice.below(2), "duration": "40s", "looks": 1 + dice.below(3),
        "minDuration": "20s", "primary": "mistakes", "secondary": secondary, "minRequests": 20, "then": then});
}

/// Answers compared in shadow, where there is always a version to compare with.
pub fn may_compare(spec: &mut Value, dice: &mut Dice) {
    let is_attached = !spec["traffic"]["attach"].is_null();
    if !spec["strategy"]["shadow"].is_null() && !is_attached && dice.chance(300) {
        spec["strategy"]["shadow"]["rollbackTriggers"] = json!(["error_rate", "agreement", "latency"]);
    }
}

/// Some wait for labels too.
fn with_labels<'a>(triggers: &[&'a str], dice: &mut Dice) -> Vec<&'a str> {
    let labels = dice.chance(250).then_some("accuracy");
    triggers.iter().copied().chain(labels).collect()
}

/// Freezes of which one is open nearly half of the time, and steps that need an approval.
pub fn have_a_say(strategy: &mut Value, dice: &mut Dice) {
    if dice.chance(300) {
        let names = ["often", "mostly", "wrong"];
        let chosen = dice.weighted(&[70, 25, 5]);
        let (schedule, duration) =
            [("*/10 * * * *", "4m"), ("5 * * * *", "50m"), ("61 * * * *", "1m")][chosen];
        strategy["freezes"] = json!([{"name": names[chosen], "schedule": schedule, "duration": duration, "timeZone": "Asia/Tokyo"}]);
    }
    if dice.chance(200) {
        strategy["approval"] = json!({"before": "FullTraffic", "expiresAfter": "2m"});
    }
}

/// The freeze of a strategy that is open at this time, by plain arithmetic; one that nobody understands always is.
pub fn open_freeze(strategy: &Value, at: Timestamp) -> Option<&str> {
    let freeze = strategy["freezes"].as_array()?.first()?;
    let second = at.as_second();
    let open = match freeze["schedule"].as_str() {
        Some("*/10 * * * *") => second.rem_euclid(600) < 240,
        Some("5 * * * *") => (300..3300).contains(&second.rem_euclid(3600)),
        Some(_) | None => true,
    };
    freeze["name"].as_str().filter(|_| open)
}

/// Rising weights with at most one decimal.
fn steps(dice: &mut Dice) -> Value {
    let weights = [json!(0.5), json!(5), json!(12.5), json!(50), json!(99.9), json!(100)];
    let mut steps = vec![];
    for weight in weights {
        if dice.chance(400) || (steps.is_empty() && weight == json!(100)) {
            let then = ["Pause", "Approval", "Advance"][dice.weighted(&[15, 15, 70])];
            let mut step = json!({"weight": weight, "duration": "20s", "minRequests": 5, "then": then});
            if dice.chance(200) {
                step["rollbackTriggers"] = json!(["latency", "error_rate"]);
            }
            steps.push(step);
        }
    }
    steps.into()
}

fn metrics(window: &str) -> Value {
    json!([
        {"name": "error_rate", "window": window, "interval": "10s",
            "ratio": {"bad": "requests{code=~\"5..\"}", "total": "requests", "max": MAX_ERRORS}},
        {"name": "latency", "window": window, "interval": "10s",
            "histogram": {"selector": "seconds_bucket", "quantile": 0.95, "max": "300ms"}},
        {"name": "mistakes", "window": window, "interval": "10s",
            "ratio": {"bad": "mistakes", "total": "requests", "max": 1.0}},
        {"name": "accuracy", "window": window, "interval": "10s",
            "labelDelay": format!("{LABEL_DELAY}s"), "minLabels": MIN_LABELS,
            "ratio": {"bad": "wrong", "total": "labels", "max": MAX_ERRORS}},
        {"name": "agreement", "window": window, "interval": "10s", "agreement": {"min": 0.95}},
    ])
}

/// A retrain job of a name, against a rollout.
pub fn retrain_job(name: &str, rollout: &str, dice: &mut Dice) -> Object {
    let missing = if dice.chance(700) { "Bootstrap" } else { "Wait" };
    let mut gates = vec![
        json!({"ironLaw": {}}),
        json!({"value": {"metric": "loss", "max": 1.0}}),
        json!({"value": {"metric": "loss", "max": 0.1, "enforcement": "Advisory"}}),
    ];
    if dice.chance(300) {
        gates.push(json!({"change": {"metric": "loss", "minImprovement": 0.02, "evidence": "Point",
            "enforcement": "Advisory"}}));
    }
    let spec = json!({
        "model": MODEL,
        "data": {"train": {"uri": "file:///data/train.parquet"}, "split": {"validationFraction": 0.1, "key": "id"},
            "target": "y", "task": "classification"},
        "trainer": {"image": "trainer:1"},
        "storage": {"persistentVolumeClaim": {"claimName": "models"}},
        "output": {"uri": "file:///models"},
        "failurePolicy": {"maxRetries": 2, "activeDeadline": "2h"},
        "baseline": {"rollout": rollout, "whenMissing": missing},
        "gates": gates,
    });
    Object::new(Key::new(Kind::RetrainJob, NAMESPACE, name), json!({"metadata": {}, "spec": spec}))
}

/// The gateway.
pub fn gateway() -> Object {
    let body = json!({"metadata": {}, "spec": {"gatewayClassName": CLASS},
        "status": {"conditions": [{"type": "Programmed", "status": "True"}]}});
    Object::new(Key::new(Kind::Gateway, NAMESPACE, GATEWAY), body)
}
