//! A route of a user's on a real cluster: what serves through it is taken over by a version, and no client notices.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is a test, and a cluster has its own clock"
)]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use common::{Kubectl, example, forget, with};
use serde_json::{Value, json};

const HOME: &str = "anneal-demo";
const NAME: &str = "adopted";
const OLD: &str = "adopted-old";
const HOST: &str = "adopted.example.com";

fn get(what: &str) -> Value {
    serde_json::from_str(&Kubectl::run(&["get", what, "-n", HOME, "-o", "json"], None).unwrap()).unwrap()
}

fn apply(object: &Value) {
    Kubectl::apply(HOME, object, false).unwrap();
}

fn until(what: &str, there: impl Fn() -> bool) {
    let started = Instant::now();
    while !there() {
        let status = Kubectl::run(&["get", "mro", NAME, "-n", HOME, "-o", "jsonpath={.status}"], None);
        assert!(started.elapsed() < Duration::from_secs(180), "{what}: {status:?}");
        sleep(Duration::from_millis(200));
    }
}

/// Clients that ask again and again, each on a connection of its own.
struct Clients {
    stop: Arc<AtomicBool>,
    answers: JoinHandle<Vec<String>>,
}

impl Clients {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let address = get("gateway/models")["status"]["addresses"][0]["value"].as_str().unwrap().to_owned();
        let body = include_str!("../../../examples/car-loan/request.json");
        let request = format!(
            "POST /v2/models/{NAME}/infer HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answers = spawn(move || {
            let mut answers = vec![];
            while !stopped.load(Ordering::Relaxed) {
                answers.push(ask(&address, &request).unwrap_or_else(|error| error.to_string()));
                sleep(Duration::from_millis(20));
            }
            answers
        });
        Self { stop, answers }
    }

    /// How many were answered, and what went wrong.
    fn finish(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let answers = self.answers.join().unwrap();
        let failed = answers.iter().filter(|answer| answer.as_str() != "HTTP/1.1 200 OK").cloned();
        (answers.len(), failed.collect())
    }
}

/// The first line of an answer.
fn ask(address: &str, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((address, 80))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// The version in production of the demo, as if it were another model's first.
fn version(of: &Value) -> Value {
    let record = get(&format!("mv/{}", of["name"].as_str().unwrap()));
    let mut spec = record["spec"].clone();
    spec["model"] = NAME.into();
    spec["admission"] = "Bootstrap".into();
    spec["baseline"] = json!({"bootstrap": {}});
    let number = spec["version"].as_str().unwrap();
    json!({"apiVersion": record["apiVersion"], "kind": "ModelVersion",
        "metadata": {"name": format!("{NAME}-{number}"), "labels": {"anneal.dev/model": NAME},
            "annotations": {"anneal.dev/approved-by": "test"}},
        "spec": spec})
}

/// A Deployment and a Service that know nothing of Anneal.
fn what_serves(of: &Value) -> [Value; 2] {
    let number = of["version"].as_str().unwrap().replace('.', "-");
    let mut template = get(&format!("deployment/car-loan-{number}"))["spec"]["template"].clone();
    let labels = json!({"app": OLD});
    template["metadata"] = json!({"labels": labels});
    for arg in template["spec"]["containers"][0]["args"].as_array_mut().unwrap() {
        if arg.as_str().is_some_and(|arg| arg.starts_with("--model=")) {
            *arg = format!("--model={NAME}").into();
        }
    }
    let spec = json!({"replicas": 1, "selector": {"matchLabels": labels}, "template": template});
    let ports = json!([{"name": "http", "port": 8080, "targetPort": "http"}]);
    [
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": OLD}, "spec": spec}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": OLD},
            "spec": {"selector": labels, "ports": ports}}),
    ]
}

fn route() -> Value {
    let model = json!({"name": "model", "matches": [{"path": {"type": "PathPrefix", "value": "/v2"}}],
        "timeouts": {"request": "10s"}, "backendRefs": [{"name": OLD, "port": 8080}]});
    let site = json!({"name": "site", "matches": [{"path": {"type": "PathPrefix", "value": "/site"}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "example.com"}}]});
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": NAME},
        "spec": {"parentRefs": [{"name": "models"}], "hostnames": [HOST], "rules": [model, site]}})
}

fn rollout() -> Value {
    let rollout = with(example("demo/modelrollout.yaml"), "/metadata/name", json!(NAME));
    let rollout = with(rollout, "/spec/model", json!(NAME));
    let attach = json!({"attach": {"route": NAME, "rule": "model", "service": OLD}});
    let rollout = with(rollout, "/spec/traffic", attach);
    let rollout = with(rollout, "/spec/serving/replicas", json!(1));
    let strategy = json!({
        "shadow": {"duration": "5s", "minRequests": 20},
        "canary": {"initial": 50, "increment": 50, "interval": "5s", "minRequests": 20},
        "bake": {"duration": "5s", "rollbackTriggers": ["error_rate"]},
        "rollbackTriggers": ["error_rate"],
    });
    with(
        with(rollout, "/spec/strategy", strategy),
        "/spec/judge",
        json!({"evidence": "none", "maxHold": "2m"}),
    )
}

/// Services of the model's rule, and the other rule.
fn rules() -> (Vec<String>, Value) {
    let rules = get(&format!("httproute/{NAME}"))["spec"]["rules"].clone();
    let name = |backend: &Value| backend["name"].as_str().unwrap().to_owned();
    (rules[0]["backendRefs"].as_array().unwrap().iter().map(name).collect(), rules[1].clone())
}

fn clean_up() {
    for selector in ["app=adopted-old", "anneal.dev/rollout=adopted"] {
        let kinds = "deployments,services";
        let _ = Kubectl::run(&["delete", kinds, "-n", HOME, "-l", selector, "--wait=false"], None);
    }
    let named = [
        format!("mro/{NAME}"),
        format!("httproute/{NAME}"),
        format!("service/{OLD}"),
        format!("deployment/{OLD}"),
    ];
    for what in &named {
        let _ = Kubectl::run(&["delete", what, "-n", HOME, "--ignore-not-found"], None);
    }
    forget(HOME, "adopted");
}

#[test]
fn what_serves_on_a_users_route_is_taken_over_and_no_client_notices() {
    clean_up();
    let stable = get("mro/car-loan")["status"]["stable"].clone();
    for object in what_serves(&stable).iter().chain([&route()]) {
        apply(object);
    }
    Kubectl::run(
        &["wait", "--for=condition=Available", &format!("deployment/{OLD}"), "-n", HOME, "--timeout=90s"],
        None,
    )
    .unwrap();
    let address = get("gateway/models")["status"]["addresses"][0]["value"].as_str().unwrap().to_owned();
    let probe = format!("GET /v2/models/{NAME}/ready HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    until("the user's route serves", || ask(&address, &probe).is_ok_and(|answer| answer.ends_with("200 OK")));
    let (_, site) = rules();

    let clients = Clients::start();
    apply(&version(&stable));
    apply(&rollout());
    until("it is in production", || get(&format!("mro/{NAME}"))["status"]["phase"] == "Healthy");
    let own = format!("{NAME}-{}", stable["version"].as_str().unwrap().replace('.', "-"));
    until("the route leads to it alone", || rules() == (vec![own.clone()], site.clone()));
    let conditions = get(&format!("httproute/{NAME}"))["metadata"].clone();
    assert!(conditions["ownerReferences"].is_null() && conditions["labels"].is_null(), "{conditions}");

    // What it served before may go, and so may the rollout: the route stays the user's, and what it leads to stays too.
    Kubectl::run(&["delete", &format!("deployment/{OLD}"), "-n", HOME], None).unwrap();
    Kubectl::run(&["delete", &format!("mro/{NAME}"), "-n", HOME, "--cascade=foreground"], None).unwrap();
    sleep(Duration::from_secs(5));
    assert_eq!(get(&format!("deployment/{own}"))["status"]["readyReplicas"], 1);
    let (asked, failed) = clients.finish();
    assert!(asked > 200 && failed.is_empty(), "{} of {asked} failed: {failed:?}", failed.len());
    clean_up();
}
