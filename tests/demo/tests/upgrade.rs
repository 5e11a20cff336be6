//! Operators of two releases take turns while a rollout is on its way: no decision changes, no pod is replaced, and no request fails.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is a test, and a cluster has its own clock"
)]

mod common;

use common::{Kubectl, delivery::Model, variable};
use serde_json::{Value, json};

const SYSTEM: &str = "anneal-system";
const OPERATOR: &str = "app.kubernetes.io/name=anneal-operator";

/// The operator is of this image from now on.
fn switch_to(image: &str) {
    let set = format!("*={image}");
    Kubectl::run(&["set", "image", "deployment", "-l", OPERATOR, &set, "-n", SYSTEM], None).unwrap();
    Kubectl::run(&["rollout", "status", "deployment", "-l", OPERATOR, "-n", SYSTEM, "--timeout=120s"], None)
        .unwrap();
}

fn spec() -> Value {
    let errors = json!({"name": "error_rate", "window": "10s", "interval": "1s",
        "ratio": {"bad": "anneal_serve_requests_total{code=~\"5..\"}", "total": "anneal_serve_requests_total", "max": 0.05}});
    let step = |weight: u8| json!({"weight": weight, "duration": "30s", "minRequests": 20});
    json!({"metrics": [errors],
        "judge": {"evidence": "sequential", "maxHold": "2m", "sequential": {"dispersion": "Assumed"}},
        "strategy": {"steps": [step(25), step(50), step(75)], "rollbackTriggers": ["error_rate"],
            "bake": {"duration": "20s", "rollbackTriggers": ["error_rate"]}}})
}

/// Waits until a step of the version on trial has its requests.
fn at(model: &Model, weight: u8) {
    model.until("the next step began", |status| {
        status["weight"] == weight && !status["trafficAcceptedAt"].is_null()
    });
}

#[test]
#[ignore = "needs an earlier operator: cargo xtask soak upgrade --from REVISION"]
fn an_operator_comes_and_goes_and_a_rollout_goes_on() {
    let [earlier, this] = ["ANNEAL_TEST_EARLIER_OPERATOR_IMAGE", "ANNEAL_TEST_OPERATOR_IMAGE"].map(variable);
    switch_to(&earlier);
    let model = Model::new("upgraded", "models", spec());
    let clients = model.clients();
    // What one has begun to hold against a version, the other goes on with.
    model.version(2, &["--fault=error=0.2"]);
    at(&model, 25);
    switch_to(&this);
    let status = model.until("the faulty one is rolled back", |status| status["phase"] == "RolledBack");
    assert_eq!(status["decision"]["reason"], "ThresholdBreached", "{status:#}");

    switch_to(&earlier);
    model.version(3, &[]);
    at(&model, 25);
    let before = (model.pod_uids(1), model.pod_uids(3));
    switch_to(&this);
    at(&model, 50);
    switch_to(&earlier);
    at(&model, 75);
    assert_eq!((model.pod_uids(1), model.pod_uids(3)), before, "no pod was replaced");
    switch_to(&this);
    let status = model.until("it is in production", |status| status["phase"] == "Healthy");
    assert_eq!(status["stable"]["version"], "v20261122.3", "{status:#}");
    assert_eq!(status["rejected"].as_array().map(Vec::len), Some(1), "{status:#}");
    assert_eq!(model.pod_uids(3), before.1, "no pod was replaced");
    model.nobody_failed(&clients.finish());
    model.clean_up();
}
