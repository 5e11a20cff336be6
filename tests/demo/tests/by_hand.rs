//! What people ask for by hand, where the demo has just brought a second version into production and rolled a third back.
//!
//! No client sends requests any more, so nothing could be promoted by what metrics say.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "this is a test")]

mod common;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use common::{Kubectl, reason_in};
use serde_json::{Value, json};

const HOME: &str = "anneal-demo";
const ROLLOUT: &str = "mro/car-loan";

fn rollout() -> Value {
    serde_json::from_str(&Kubectl::run(&["get", ROLLOUT, "-n", HOME, "-o", "json"], None).unwrap()).unwrap()
}

fn until(what: &str, there: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let seen = rollout();
        if there(&seen["status"]) {
            return seen["status"].clone();
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{what}: {}", seen["status"]);
        sleep(Duration::from_millis(200));
    }
}

fn patch(spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    Kubectl::run(&["patch", ROLLOUT, "-n", HOME, "--type=merge", "-p", &patch], None).unwrap();
}

fn annotate(text: &str) {
    Kubectl::run(&["annotate", ROLLOUT, "-n", HOME, text, "--overwrite"], None).unwrap();
}

/// The Service that the route sends everything to.
fn backend() -> String {
    let path = "jsonpath={.spec.rules[0].backendRefs[*].name}";
    Kubectl::run(&["get", "httproute/car-loan", "-n", HOME, "-o", path], None).unwrap()
}

/// A child that nobody finds by its label any more is found by its name, and is no one else's for that.
fn takes_its_label_back(kind: &str, name: &str) {
    let child = format!("{kind}/{name}");
    Kubectl::run(&["label", &child, "-n", HOME, "anneal.dev/rollout-"], None).unwrap();
    let labelled = || {
        let path = "jsonpath={.metadata.labels.anneal\\.dev/rollout}";
        Kubectl::run(&["get", &child, "-n", HOME, "-o", path], None).unwrap()
    };
    until(&format!("{child} has its label again"), |_| labelled() == "car-loan");
}

#[test]
fn a_person_goes_back_tries_again_and_promotes() {
    let before = rollout()["status"].clone();
    let (first, second) = (before["history"][0]["version"].clone(), before["stable"]["version"].clone());
    let (first, second) = (first.as_str().unwrap(), second.as_str().unwrap());

    annotate("anneal.dev/abort=please stop");
    assert!(reason_in(HOME, ROLLOUT, "NotUnderstood").contains("v20261121.2: why"));
    annotate("anneal.dev/abort-");

    // Back to a version whose pods are gone: they start first, and then take everything.
    patch(&json!({"rollback": {"targetVersion": first, "reason": "complaints from the field"}}));
    let status = until("the first version serves again", |status| {
        status["phase"] == "RolledBack" && status["stable"]["version"] == first
    });
    let message = status["decision"]["message"].as_str().unwrap();
    assert!(message.contains("complaints from the field") && message.contains("kubectl-patch"), "{message}");
    assert_eq!(status["rejected"].as_array().unwrap().last().unwrap()["reason"], "RolledBackByHand");
    until("the route follows", |_| backend().ends_with(&first.replace('.', "-")));
    assert!(reason_in(HOME, ROLLOUT, "HeldByRollback").contains("Remove spec.rollback"));

    // Another try, which waits for a person, and then for another one.
    patch(&json!({"rollback": null, "paused": true}));
    // A text that was never given before gives another try.
    let unique = rollout()["metadata"]["resourceVersion"].clone();
    annotate(&format!("anneal.dev/retry={second}: the complaints were about something else ({unique})"));
    reason_in(HOME, ROLLOUT, "Paused");
    patch(&json!({"paused": false}));
    until("the second version tries again", |status| {
        status["phase"] == "Shadow" && status["candidate"]["version"] == second
    });
    annotate(&format!("anneal.dev/promote={second}@full: nobody sends requests here"));
    let status = until("it is watched", |status| status["phase"] == "Baking");
    assert_eq!(
        (&status["stable"]["version"], &status["previous"]["version"]),
        (&json!(second), &json!(first))
    );
    assert_eq!(status["decision"]["reason"], "PromotedByHand");
    annotate(&format!("anneal.dev/promote={second}@Baking: still nobody"));
    until("it is in production", |status| {
        status["phase"] == "Healthy" && status["stable"]["version"] == second
    });
    assert!(rollout()["status"]["decision"]["message"].as_str().unwrap().contains("kubectl-annotate"));

    let serving = backend();
    for kind in ["deployment", "service"] {
        takes_its_label_back(kind, &serving);
    }
}
