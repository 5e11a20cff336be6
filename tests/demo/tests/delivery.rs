//! How deliveries end on a real data plane, under steady requests: what is due is done in time, and nobody else notices.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is a test, and a cluster has its own clock"
)]

mod common;

use std::{collections::BTreeMap, thread, time::Duration};

use common::{
    Kubectl,
    delivery::{HOME, Model, REQUEST, alone, get, until},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const GATEWAY: &str = "models";

fn reason(status: &Value) -> &str {
    status["decision"]["reason"].as_str().unwrap_or_default()
}

/// Metrics that stay within their bounds on a busy machine.
fn metrics() -> Value {
    json!([
        {"name": "error_rate", "window": "10s", "interval": "1s", "ratio": {"bad": "anneal_serve_requests_total{code=~\"5..\"}",
            "total": "anneal_serve_requests_total", "max": 0.05}},
        {"name": "latency", "window": "10s", "interval": "1s", "histogram": {"selector": "anneal_serve_request_duration_seconds_bucket",
            "quantile": 0.9, "max": "1s"}},
        {"name": "refused", "window": "5s", "interval": "1s", "ratio": {"bad": "anneal_serve_requests_total{code=\"400\"}",
            "total": "anneal_serve_requests_total", "max": 0.2}},
    ])
}

/// A shadow, a canary of two steps, and a bake. Eight of them share a busy machine, on which nobody may have counted anything of
/// a new pod for a while.
fn spec(more: Value) -> Value {
    let mut spec = json!({"metrics": metrics(), "judge": {"evidence": "none", "maxHold": "3m"}, "strategy": {
        "shadow": {"duration": "5s", "minRequests": 20},
        "canary": {"initial": 20, "increment": 80, "interval": "10s", "minRequests": 20},
        "bake": {"duration": "20s", "rollbackTriggers": ["error_rate", "latency", "refused"]},
        "rollbackTriggers": ["error_rate", "latency"]}});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

fn faulty_in_shadow() {
    let model = Model::new("in-shadow", GATEWAY, spec(json!({})));
    let clients = model.clients();
    model.version(2, &["--fault=error=0.5"]);
    let status = model.rolled_back();
    assert_eq!(reason(&status), "ThresholdBreached", "{status:#}");
    let answers = clients.finish();
    assert!(
        answers.iter().all(|answer| answer.version.as_deref() != Some("v20261122.2")),
        "no client met it"
    );
    model.nobody_failed(&answers);
    model.clean_up();
}

fn otherwise_in_shadow() {
    // Long enough for a hundred answers on a busy machine.
    let metric = |name: &str, form: Value| {
        let mut metric = json!({"name": name, "window": "1m", "interval": "1s"});
        metric[name] = form;
        metric
    };
    let mut all = metrics();
    let more = [
        metric("agreement", json!({"min": 0.9, "requestsPerSecond": 20})),
        metric("paired", json!({"max": 0.9})),
    ];
    all.as_array_mut().unwrap().extend(more);
    let mut spec = spec(json!({"metrics": all}));
    spec["strategy"]["shadow"] = json!({"duration": "1m", "minRequests": 20, "warnTriggers": ["paired"],
        "rollbackTriggers": ["error_rate", "agreement"]});
    let model = Model::new("otherwise", GATEWAY, spec);
    let clients = model.clients();
    model.version(2, &["--fault=wrong=1"]);
    let status = model.rolled_back();
    assert!(status["decision"]["message"].as_str().unwrap().starts_with("agreement of "), "{status:#}");

    // Another good model may answer the one request of the clients otherwise.
    // It stays in shadow until a label has reached it.
    let any = r#"[{"op": "replace", "path": "/spec/metrics/3/agreement/min", "value": 0},
        {"op": "replace", "path": "/spec/strategy/shadow/duration", "value": "10m"}]"#;
    Kubectl::run(&["patch", "mro", "otherwise", "-n", HOME, "--type=json", "-p", any], None).unwrap();
    model.version(3, &[]);
    model.until("the third version is in shadow", |status| {
        status["phase"] == "Shadow" && !status["trafficAcceptedAt"].is_null()
    });
    let mut asked: Value = serde_json::from_str(REQUEST).unwrap();
    let rows = asked["inputs"][0]["shape"][0].as_u64().unwrap();
    let labels = json!(vec!["0"; usize::try_from(rows).unwrap()]);
    let mut number = 0;
    until("a label tells the version in shadow who was right", || {
        number += 1;
        let id = format!("request-{number}");
        asked["id"] = id.clone().into();
        assert_eq!(model.infer(&asked).status, Ok(200));
        thread::sleep(Duration::from_millis(500));
        assert_eq!(model.feedback(&id, &labels).status, Ok(202));
        model.counted(3, "anneal_serve_paired_total", "result=") > 0.0
    });
    let promote = "anneal.dev/promote=v20261122.3@Shadow: its labels come";
    Kubectl::run(&["annotate", "mro", "otherwise", "-n", HOME, promote], None).unwrap();
    model.until("it is in production", |status| {
        status["phase"] == "Healthy" && status["stable"]["version"] == "v20261122.3"
    });
    let selector = get("service/otherwise-stable")["spec"]["selector"]["anneal.dev/version"].clone();
    assert_eq!(selector, "v20261122.3");
    let answers = clients.finish();
    assert!(
        answers.iter().all(|answer| answer.version.as_deref() != Some("v20261122.2")),
        "no client met it"
    );
    model.nobody_failed(&answers);
    model.clean_up();
}

fn slow_in_canary() {
    let model = Model::new("slow", GATEWAY, spec(json!({})));
    let clients = model.clients();
    model.version(2, &["--fault=latency=3s,arm=live"]);
    let status = model.rolled_back();
    assert_eq!(reason(&status), "ThresholdBreached", "{status:#}");
    assert!(status["decision"]["message"].as_str().unwrap().starts_with("latency of "), "{status:#}");
    model.left_in_time(&status, &clients.finish());
    model.clean_up();
}

fn drifted_after_full() {
    let model = Model::new("drifted", GATEWAY, spec(json!({})));
    let clients = model.clients();
    model.version(2, &[]);
    model.until("it has all requests", |status| {
        status["phase"] == "Baking" && !status["trafficAcceptedAt"].is_null()
    });
    // They ask what the model does not know.
    clients.ask(&json!({"inputs": [{"name": "none", "shape": [1], "datatype": "FP64", "data": [1.0]}]}));
    let status = model.rolled_back();
    assert!(status["decision"]["message"].as_str().unwrap().starts_with("refused of "), "{status:#}");
    assert_eq!(status["stable"]["version"], "v20261122.1");
    let mut answers = clients.finish();
    // What the model does not know it refuses, and that is no failure.
    answers.iter_mut().filter(|answer| answer.status == Ok(400)).for_each(|answer| answer.status = Ok(200));
    model.left_in_time(&status, &answers);
    model.clean_up();
}

fn scores_drifted_after_full() {
    let mut spec = spec(json!({}));
    spec["metrics"].as_array_mut().unwrap().push(json!({"name": "scores", "window": "10s", "interval": "1s",
        "drift": {"buckets": "anneal_serve_score_bucket", "baseline": "15s", "minEvents": 40, "max": 0.2}}));
    spec["strategy"]["bake"] = json!({"duration": "10m", "rollbackTriggers": ["scores"]});
    let model = Model::new("scored", GATEWAY, spec);
    let clients = model.clients();
    model.version(2, &[]);
    let begun = model.until("its first scores are known", |status| {
        assert_ne!(status["phase"], "RolledBack", "{status:#}");
        !status["baselines"].is_null()
    });
    let asked = clients.answers().len();
    until("as many requests of the same kind change nothing", || clients.answers().len() > asked + 300);
    assert_eq!(model.status()["stepStartedAt"], begun["stepStartedAt"]);
    // Other people ask for shorter loans, and are answered otherwise.
    let mut other: Value = serde_json::from_str(REQUEST).unwrap();
    other["inputs"][3]["data"] = json!([1.0]);
    clients.ask(&other);
    let status = model.rolled_back();
    assert!(status["decision"]["message"].as_str().unwrap().starts_with("scores of "), "{status:#}");
    let answers = clients.finish();
    assert!(answers.iter().all(|answer| answer.status == Ok(200)), "the requests themselves are good ones");
    model.left_in_time(&status, &answers);
    model.clean_up();
}

fn stable_pod_lost() {
    let mut spec = spec(json!({}));
    spec["serving"] = json!({"image": common::variable("ANNEAL_TEST_TRAINER_IMAGE"), "replicas": 2,
        "resources": {"requests": {"cpu": "20m", "memory": "192Mi"}}});
    let model = Model::new("pod-lost", GATEWAY, spec);
    let clients = model.clients();
    model.version(2, &[]);
    model.until("it is in its canary", |status| {
        status["phase"] == "Canary" && !status["trafficAcceptedAt"].is_null()
    });
    let pods =
        Kubectl::run(&["get", "pods", "-n", HOME, "-l", &model.pods_of(1), "-o", "name"], None).unwrap();
    let pod = pods.lines().next().unwrap();
    Kubectl::run(&["delete", pod, "-n", HOME, "--wait=false"], None).unwrap();
    model.until("it is in production", |status| {
        status["phase"] == "Healthy" && status["stable"]["version"] == "v20261122.2"
    });
    model.nobody_failed(&clients.finish());
    model.clean_up();
}

fn deleted_and_created_again() {
    let model = Model::new("again", GATEWAY, spec(json!({"deletionPolicy": "Retain"})));
    let clients = model.clients();
    model.version(2, &["--fault=error=0.5"]);
    model.rolled_back();
    let before = model.pod_uids(1);

    // What it needs nobody deletes by accident, and what it does not need anybody may.
    let refused = Kubectl::run(&["delete", "mv/again-v20261122.1", "-n", HOME], None).unwrap_err();
    assert!(refused.to_string().contains("is in use by ModelRollout again"), "{refused}");
    let rollout = get("mro/again");
    Kubectl::run(&["delete", "mro/again", "-n", HOME], None).unwrap();
    until("its versions are free to go", || {
        !get("mv/again-v20261122.1")["metadata"]["annotations"].to_string().contains("used-in.anneal.dev")
    });
    let asked = clients.answers().len();
    until("clients ask on", || clients.answers().len() > asked + 200);

    // Everything is made again from files, which know nothing of what the operator wrote, and what was rolled back comes first.
    let versions = [2, 1].map(|number| get(&format!("mv/again-v20261122.{number}")));
    Kubectl::run(&["delete", "mv", "-n", HOME, "-l", "anneal.dev/model=again"], None).unwrap();
    let again = |object: &Value| {
        let metadata = &object["metadata"];
        let plain = json!({"name": metadata["name"], "labels": metadata["labels"],
            "annotations": {"anneal.dev/approved-by": "test"}});
        let object = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": plain, "spec": object["spec"]});
        Kubectl::apply(HOME, &object, false).unwrap();
    };
    again(&rollout);
    let status = model.until("it knows what serves", |status| !status["stable"].is_null());
    assert_eq!(status["stable"]["version"], "v20261122.1", "{status:#}");
    versions.iter().for_each(again);
    let status = model.until("it knows the record", |status| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    });
    assert_eq!(status["stable"]["version"], "v20261122.1", "{status:#}");
    assert_eq!(status["rejected"][0]["version"], "v20261122.2", "{status:#}");
    let asked = clients.answers().len();
    until("clients ask on", || clients.answers().len() > asked + 200);
    assert_eq!(model.pod_uids(1), before, "no pod was replaced");
    let status = model.status();
    assert!(status["candidate"].is_null() || status["phase"] == "RolledBack", "{status:#}");
    model.nobody_failed(&clients.finish());
    model.clean_up();
}

/// A gateway whose Envoy counts for each Service apart.
fn counting_gateway() -> &'static str {
    let class =
        Kubectl::run(&["get", "envoyproxy", "anneal-demo", "-n", "envoy-gateway-system", "-o", "json"], None);
    let mut spec = serde_json::from_str::<Value>(&class.unwrap()).unwrap()["spec"].clone();
    spec["mergeBackends"] = json!({"selector": {"matchLabels": {"app.kubernetes.io/managed-by": "anneal"}}});
    let proxy = json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyProxy", "metadata": {"name": "counting"}, "spec": spec});
    Kubectl::apply(HOME, &proxy, false).unwrap();
    let parameters = json!({"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "counting"});
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "counting"},
        "spec": {"gatewayClassName": "anneal-demo", "infrastructure": {"parametersRef": parameters},
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}});
    Kubectl::apply(HOME, &gateway, false).unwrap();
    until("the gateway that counts is programmed", || {
        let conditions = get("gateway/counting")["status"]["conditions"].clone();
        let programmed =
            |condition: &Value| condition["type"] == "Programmed" && condition["status"] == "True";
        conditions.as_array().is_some_and(|all| all.iter().any(programmed))
    });
    "counting"
}

fn judged_by_what_envoy_counts() {
    let gateway = counting_gateway();
    let strategy = json!({"canary": {"initial": 50, "increment": 50, "interval": "10s", "minRequests": 20},
        "bake": {"duration": "5s", "rollbackTriggers": ["errors"]}, "rollbackTriggers": ["errors", "latency"]});
    let metrics = json!([
        {"name": "errors", "window": "10s", "interval": "1s", "errors": {"of": "Envoy", "max": 0.05}},
        {"name": "latency", "window": "10s", "interval": "1s", "latency": {"of": "Envoy", "quantile": 0.9, "max": "1s"}},
    ]);
    let prometheus = json!({"url": "http://prometheus.monitoring:9090", "versionFrom": "EnvoyCluster"});
    let judge = json!({"evidence": "sequential", "maxHold": "3m", "sequential": {"dispersion": "Assumed"}});
    let spec = json!({"strategy": strategy, "metrics": metrics, "prometheus": prometheus, "judge": judge});
    let model = Model::new("uncounted", gateway, spec);
    let clients = model.clients();
    model.version(2, &["--fault=error=0.3"]);
    let status = model.until("the faulty one is rolled back", |status| status["phase"] == "RolledBack");
    assert_eq!(reason(&status), "ThresholdBreached", "{status:#}");
    assert!(status["decision"]["message"].as_str().unwrap().contains("errors"), "{status:#}");
    model.version(3, &[]);
    model.until("the good one is in production", |status| {
        status["phase"] == "Healthy" && status["stable"]["version"] == "v20261122.3"
    });
    model.left_in_time(&status, &clients.finish());
    model.clean_up();
    let _ = Kubectl::run(&["delete", "gateway/counting", "envoyproxy/counting", "-n", HOME], None);
}

/// A part of the platform that is not there; it comes back when this is dropped, so a delivery that fails fails alone.
struct Away(&'static str, &'static str);

impl Away {
    fn take(namespace: &'static str, name: &'static str) -> Self {
        let away = Self(namespace, name);
        away.scale("--replicas=0");
        // What is told to end goes on until it has ended.
        let object =
            ["get", "deployment", name, "-n", namespace, "-o", "jsonpath={.spec.selector.matchLabels}"];
        let labels: BTreeMap<String, String> =
            serde_json::from_str(&Kubectl::run(&object, None).unwrap()).unwrap();
        let labels = labels.iter().map(|(key, value)| format!("{key}={value}"));
        let selector = labels.collect::<Vec<_>>().join(",");
        let pods = ["get", "pods", "-n", namespace, "-l", &selector, "-o", "name"];
        until("its pods have ended", || Kubectl::run(&pods, None).unwrap().is_empty());
        away
    }

    fn scale(&self, replicas: &str) {
        let Self(namespace, name) = self;
        Kubectl::run(&["scale", "deployment", name, "-n", namespace, replicas], None).unwrap();
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let Self(namespace, name) = *self;
        self.scale("--replicas=1");
        let ready = ["rollout", "status", "deployment", name, "-n", namespace, "--timeout=120s"];
        let ready = Kubectl::run(&ready, None);
        assert!(thread::panicking() || ready.is_ok(), "{ready:?}");
    }
}

fn prometheus_is_gone() {
    let model = Model::new("unseen", GATEWAY, spec(json!({})));
    let clients = model.clients();
    model.version(2, &[]);
    model.until("it is in its canary", |status| {
        status["phase"] == "Canary" && !status["trafficAcceptedAt"].is_null()
    });
    let away = Away::take("monitoring", "prometheus");
    model.patch(&json!({"judge": {"maxHold": "20s"}}));
    let status = model.rolled_back();
    drop(away);
    assert_eq!(reason(&status), "HeldTooLong", "{status:#}");
    model.left_in_time(&status, &clients.finish());
    model.clean_up();
}

fn traffic_verified(status: &Value) -> &Value {
    let mut conditions = status["conditions"].as_array().unwrap().iter();
    conditions.find(|condition| condition["type"] == "TrafficVerified").unwrap_or(&Value::Null)
}

/// Somebody who says that Envoy has the weights, which nobody has told it.
fn accept(route: &str) {
    let seen = get(&format!("httproute/{route}"));
    let mut parents = seen["status"]["parents"].clone();
    let conditions = parents[0]["conditions"].as_array_mut().unwrap();
    conditions
        .iter_mut()
        .for_each(|told| told["observedGeneration"] = seen["metadata"]["generation"].clone());
    let patch = json!({"status": {"parents": parents}}).to_string();
    let route = format!("httproute/{route}");
    let patch = ["patch", &route, "-n", HOME, "--subresource=status", "--type=merge", "-p", &patch];
    Kubectl::run(&patch, None).unwrap();
}

/// A model whose version has a fifth of the requests, judged by this.
fn in_canary(name: &'static str, judge: Value) -> Model {
    let mut spec = spec(json!({}));
    spec["strategy"]["canary"] =
        json!({"initial": 20, "increment": 40, "interval": "10m", "minRequests": 20});
    spec["judge"] = judge;
    Model::new(name, GATEWAY, spec)
}

fn takes_more_than_it_is_given(model: &Model) {
    // Its weights are taken, by all that is said, and requests go as they went.
    model.annotate(&["anneal.dev/promote=v20261122.2@20: to see whether Envoy takes it"]);
    model.until("it is to have more", |status| status["weight"] == 60);
    until("the route says so", || model.weights()[1].1 == 600);
    accept(model.name);
    let status = model.until("the counters show the old share", |status| {
        traffic_verified(status)["reason"] == "TrafficSplitMismatch"
    });
    let time = |text: &Value| text.as_str().unwrap().parse::<Timestamp>().unwrap();
    let found = time(&traffic_verified(&status)["lastTransitionTime"]);
    let taken = time(&status["trafficAcceptedAt"]);
    assert!(found <= taken + SignedDuration::from_secs(60), "{status:#}");
    assert!(!status["observed"].is_null(), "{status:#}");
}

fn gateway_controller_is_gone() {
    let evidence =
        json!({"evidence": "sequential", "maxHold": "3m", "sequential": {"dispersion": "Assumed"}});
    let thresholds = json!({"evidence": "none", "maxHold": "3m"});
    let models = [in_canary("ungoverned", evidence), in_canary("unheeded", thresholds)];
    let clients = [models[0].clients(), models[1].clients()];
    for model in &models {
        model.version(2, &[]);
        model.until("it is in its canary", |status| {
            status["phase"] == "Canary" && !status["trafficAcceptedAt"].is_null()
        });
    }
    let away = Away::take("envoy-gateway-system", "envoy-gateway");
    models.iter().for_each(takes_more_than_it_is_given);

    let verified = |status: &Value| traffic_verified(status)["status"] == "True";
    for model in &models {
        model.annotate(&["anneal.dev/abort=v20261122.2: its gateway is not led"]);
        let status = model.until("it is rolled back", |status| status["phase"] == "RolledBack");
        assert!(!verified(&status), "nobody has taken the weights: {status:#}");
        until("the route sends it nothing", || {
            model.weights().iter().all(|(name, weight)| *weight == 0 || name.ends_with("-1"))
        });
        // Nobody tells Envoy, so it goes on as it was told. That somebody says that it knows takes no pods away to which requests
        // still go.
        accept(model.name);
    }
    for model in &models {
        model.until("who left is still asked", |status| {
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            conditions.any(|told| told["type"] == "Stalled" && told["reason"] == "TrafficSplitMismatch")
        });
        assert!(!model.pod_uids(2).is_empty(), "its pods stay");
    }
    // As soon as someone tells Envoy, it does.
    drop(away);
    for (model, clients) in models.into_iter().zip(clients) {
        model.until("the data plane has taken the weights", verified);
        let before = clients.answers().len();
        until("clients ask on", || clients.answers().len() > before + 100);
        until("the pods of who left go", || model.pod_uids(2).is_empty());
        let answers = clients.finish();
        let last = answers.iter().rev().take(50);
        assert!(last.clone().all(|answer| answer.version.as_deref() == Some("v20261122.1")), "{last:?}");
        model.nobody_failed(&answers);
        model.clean_up();
    }
}

#[test]
fn deliveries_end_as_promised_and_nobody_else_notices() {
    let all = [
        faulty_in_shadow,
        otherwise_in_shadow,
        slow_in_canary,
        drifted_after_full,
        scores_drifted_after_full,
        stable_pod_lost,
        deleted_and_created_again,
        judged_by_what_envoy_counts,
    ];
    if alone() {
        all.iter().for_each(|delivery| delivery());
    } else {
        thread::scope(|scope| {
            let running = all.map(|delivery| scope.spawn(delivery));
            running.into_iter().for_each(|delivery| delivery.join().unwrap());
        });
    }
    prometheus_is_gone();
    gateway_controller_is_gone();
}
