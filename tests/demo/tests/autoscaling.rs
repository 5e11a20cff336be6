//! Autoscalers on a real API server, where the demo has just brought a version into production. No metrics server is there, so
//! the autoscaler does what it does without any: it keeps the number of pods within its bounds.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is a test, and a cluster has its own clock"
)]

mod common;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use common::{Kubectl, reason_in};
use serde_json::{Value, json};

const HOME: &str = "anneal-demo";
const ROLLOUT: &str = "mro/car-loan";

fn get(what: &str) -> Option<Value> {
    let text = Kubectl::run(&["get", what, "-n", HOME, "-o", "json", "--ignore-not-found"], None).unwrap();
    serde_json::from_str(&text).ok()
}

fn until(what: &str, there: impl Fn() -> bool) {
    let started = Instant::now();
    while !there() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}");
        sleep(Duration::from_millis(200));
    }
}

fn patch(serving: &Value) {
    let patch = json!({"spec": {"serving": serving}}).to_string();
    Kubectl::run(&["patch", ROLLOUT, "-n", HOME, "--type=merge", "-p", &patch], None).unwrap();
}

#[test]
fn an_autoscaler_says_how_many_pods_there_are_and_its_kind_may_be_missing() {
    let rollout = get(ROLLOUT).unwrap();
    let least = rollout["spec"]["serving"]["replicas"].as_i64().unwrap();
    let stable =
        format!("car-loan-{}", rollout["status"]["stable"]["version"].as_str().unwrap().replace('.', "-"));
    let (hpa, deployment) = (format!("hpa/{stable}"), format!("deployment/{stable}"));
    let pods = || get(&deployment).unwrap()["spec"]["replicas"].as_i64().unwrap();
    let target = json!({"type": "Utilization", "averageUtilization": 60});
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    patch(&json!({"autoscaling": {"maxReplicas": least + 2, "hpa": {"metrics": metrics}}}));
    until("the version has an autoscaler", || {
        get(&hpa).is_some_and(|hpa| hpa["spec"]["minReplicas"] == least)
    });
    assert_eq!(pods(), least, "no pod was stopped for that");
    patch(&json!({"replicas": least + 1}));
    until("it makes the pods", || pods() == least + 1);
    let generation = get(&deployment).unwrap()["metadata"]["generation"].clone();
    // Nobody writes the number back.
    sleep(Duration::from_secs(10));
    assert_eq!((pods(), &get(&deployment).unwrap()["metadata"]["generation"]), (least + 1, &generation));

    patch(
        &json!({"replicas": least, "autoscaling": {"hpa": null, "keda": {"triggers": [{"type": "cpu", "metadata": {"value": "60"}}]}}}),
    );
    assert!(reason_in(HOME, ROLLOUT, "AutoscalerKindMissing").contains("Install KEDA"));
    until("what is not asked for any more goes", || get(&hpa).is_none());
    assert_eq!(pods(), least + 1);
    patch(&json!({"autoscaling": null}));
    until("the number is fixed again", || pods() == least);
    until("nothing is left to do", || {
        let conditions = get(ROLLOUT).unwrap()["status"]["conditions"].clone();
        conditions.as_array().unwrap().iter().any(|told| told["type"] == "Ready" && told["status"] == "True")
    });
}
