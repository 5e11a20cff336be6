//! The operator is killed in the phases in which the demo does not kill it, and another one goes on.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod common;

use common::{
    Kubectl,
    delivery::{HOME, Model, until},
    variable,
};
use serde_json::{Value, json};

fn kill_the_operator() {
    let pods = ["pods", "-n", "anneal-system", "-l", "app.kubernetes.io/name=anneal-operator"];
    let at_once = ["--grace-period=0", "--force"];
    Kubectl::run(&[&["delete"], &pods[..], &at_once].concat(), None).unwrap();
}

/// A test, an experiment and a canary of one step.
fn spec() -> Value {
    let errors = json!({"name": "error_rate", "window": "10s", "interval": "1s", "ratio": {
        "bad": "anneal_serve_requests_total{code=~\"5..\"}", "total": "anneal_serve_requests_total", "max": 0.05}});
    json!({
        "metrics": [errors],
        "judge": {"evidence": "sequential", "maxHold": "2m", "sequential": {"dispersion": "Assumed"}},
        "strategy": {
            "staging": {"test": {"job": {"image": variable("ANNEAL_TEST_TRAINER_IMAGE"), "args": ["--version"]}}},
            "experiment": {"duration": "20s", "looks": 2, "minRequests": 20, "primary": "error_rate"},
            "canary": {"initial": 50, "increment": 50, "interval": "5s", "minRequests": 20},
            "rollbackTriggers": ["error_rate"],
        },
    })
}

#[test]
fn an_operator_that_dies_in_any_phase_is_replaced_and_nobody_notices() {
    // The first version fails so often that the second one wins.
    let model = Model::serving("orphaned", "models", spec(), &["--fault=error=0.4"]);
    let clients = model.clients();
    model.version(2, &[]);
    for phase in ["Staging", "Experiment"] {
        model.until(phase, |status| status["phase"] == phase);
        kill_the_operator();
    }
    model.until("it is in production", |status| {
        status["phase"] == "Healthy" && status["stable"]["version"] == "v20261122.2"
    });
    // Going back takes as long as a pod takes to start.
    until("the first version's pods are gone", || model.pod_uids(1).is_empty());
    let back = json!({"spec": {"rollback": {"targetVersion": "v20261122.1", "reason": "for the test"}}});
    let patch = ["patch", "mro", "orphaned", "-n", HOME, "--type=merge", "-p", &back.to_string()];
    Kubectl::run(&patch, None).unwrap();
    model.until("RollingBack", |status| status["phase"] == "RollingBack");
    kill_the_operator();
    let status = model.until("it is back", |status| status["phase"] == "RolledBack");
    assert_eq!(status["stable"]["version"], "v20261122.1", "{status:#}");
    model.nobody_failed(&clients.finish());
    model.clean_up();
}
