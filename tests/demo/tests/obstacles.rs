//! What a version meets on its way besides requests, on a real cluster: tests, warm-up, smoke requests, people, other hands, and
//! pods that are not there.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is a test, and a cluster has its own clock"
)]

mod common;

use std::thread;

use common::{
    Kubectl,
    delivery::{Answer, HOME, Model, REQUEST, get, infer, until},
    variable,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// It has a shell, and an HTTP server.
const SHELL: &str = "anneal.test/busybox:1";
const GATEWAY: &str = "models";

fn reason(status: &Value) -> &str {
    status["decision"]["reason"].as_str().unwrap_or_default()
}

fn told(status: &Value) -> &str {
    status["decision"]["message"].as_str().unwrap_or_default()
}

fn is_on_trial(status: &Value, phase: &str) -> bool {
    status["phase"] == phase && !status["trafficAcceptedAt"].is_null()
}

fn serves(number: usize) -> impl Fn(&Value) -> bool {
    move |status| status["phase"] == "Healthy" && status["stable"]["version"] == format!("v20261122.{number}")
}

/// A rollout by this strategy, with one metric.
fn spec(strategy: Value, more: Value) -> Value {
    let errors = json!({"name": "error_rate", "window": "10s", "interval": "1s", "ratio": {
        "bad": "anneal_serve_requests_total{code=~\"5..\"}", "total": "anneal_serve_requests_total", "max": 0.05}});
    let mut spec =
        json!({"metrics": [errors], "judge": {"evidence": "none", "maxHold": "2m"}, "strategy": strategy});
    spec["strategy"]["rollbackTriggers"] = json!(["error_rate"]);
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

/// A first step that lasts until something happens.
fn long_canary() -> Value {
    json!({"canary": {"initial": 20, "increment": 80, "interval": "10m", "minRequests": 20}})
}

fn serving(more: Value) -> Value {
    let mut serving = json!({"image": variable("ANNEAL_TEST_TRAINER_IMAGE"), "replicas": 1,
        "resources": {"requests": {"cpu": "20m", "memory": "192Mi"}}});
    for (field, value) in more.as_object().unwrap() {
        serving[field] = value.clone();
    }
    serving
}

fn request() -> Value {
    serde_json::from_str(REQUEST).unwrap()
}

/// As many copies as a fifth of the requests of that time, by chance.
fn a_fifth_was_copied(copies: f64, answers: &[Answer], from: Timestamp, sure: [Timestamp; 2], to: Timestamp) {
    let asked = |from, to| answers.iter().filter(|answer| answer.at >= from && answer.at < to).count() as f64;
    let (least, most) = (asked(sure[0], sure[1]), asked(from, to));
    let chance = |requests: f64| 5.0 * (0.2 * 0.8 * requests).sqrt();
    let (least, most) = (0.2 * least - chance(least), 0.2 * most + chance(most));
    assert!(most > 20.0 && copies >= least.max(1.0) && copies <= most, "{copies} of {least} to {most}");
}

/// A Job that asks the candidate, and fails the second version; then requests that warm it up, a fifth of the requests in copies,
/// and an expected answer at the end.
fn tested_warmed_and_asked() {
    let test = "case $ANNEAL_VERSION in *.2) echo it is the second one > /dev/termination-log; exit 1;; esac; \
        wget -q -O /tmp/model $ANNEAL_CANDIDATE_URL/v2/models/$ANNEAL_MODEL";
    let job = json!({"image": SHELL, "command": ["sh", "-c"], "args": [test]});
    let ask = json!({"path": infer("tested"), "body": request()});
    let mut expect = ask.clone();
    expect["expect"] = json!({"json": [{"pointer": "/model_name", "value": "tested"}]});
    let strategy = json!({
        "staging": {"test": {"job": job}, "timeout": "1m"},
        "shadow": {"percent": 20, "duration": "20s", "minRequests": 20},
        "canary": {"initial": 50, "increment": 50, "interval": "5s", "minRequests": 20},
        "smoke": {"requests": [expect]},
    });
    let warm = serving(json!({"warmup": {"requests": [ask], "count": 2}}));
    let model = Model::new("tested", GATEWAY, spec(strategy, json!({"serving": warm})));
    let clients = model.clients();
    model.version(2, &[]);
    let status = model.rolled_back();
    assert_eq!(reason(&status), "StagingFailed", "{status:#}");
    assert!(
        told(&status).contains("it is the second one") && told(&status).contains('3'),
        "{}",
        told(&status)
    );

    model.version(3, &[]);
    let shadow = model.until("it is in shadow", |status| is_on_trial(status, "Shadow"));
    let surely = Timestamp::now() + SignedDuration::from_secs(2);
    model.until("it is in canary", |status| status["phase"] == "Canary");
    let ended = Timestamp::now() - SignedDuration::from_secs(2);
    let pods = model.pod_uids(3);
    let after = Timestamp::now() + SignedDuration::from_secs(2);
    model.until("it is in production", serves(3));
    assert_eq!(model.pod_uids(3), pods, "a promotion restarts no pod");
    let copies = model.counted(3, "anneal_serve_requests_total", "arm=\"shadow\"");
    let answers = clients.finish();
    let began = shadow["stepStartedAt"].as_str().unwrap().parse().unwrap();
    a_fifth_was_copied(copies, &answers, began, [surely, ended], after);
    assert!(
        answers.iter().all(|answer| answer.version.as_deref() != Some("v20261122.2")),
        "no client met it"
    );
    model.nobody_failed(&answers);
    model.clean_up();
}

/// A server that passes every version but the second.
fn examiner() -> Value {
    let answer = "#!/bin/sh\nread -r asked\ncase \"$asked\" in *20261122.2*) passed=false;; *) passed=true;; esac\n\
        echo 'Content-Type: application/json'\necho\necho \"{\\\"passed\\\": $passed, \\\"message\\\": \\\"asked by name\\\"}\"\n";
    let serve = "mkdir -p /tmp/www/cgi-bin && printf '%s' \"$ANSWER\" > /tmp/www/cgi-bin/test && chmod +x /tmp/www/cgi-bin/test && \
        exec httpd -f -p 8080 -h /tmp/www";
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "examiner", "labels": {"app": "examiner"}}, "spec": {
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "httpd", "image": SHELL, "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", serve], "env": [{"name": "ANSWER", "value": answer}],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }})
}

fn examined_by_a_server() {
    let _ = Kubectl::run(&["delete", "pod/examiner", "-n", HOME, "--ignore-not-found", "--now"], None);
    Kubectl::apply(HOME, &examiner(), false).unwrap();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "examiner"},
        "spec": {"selector": {"app": "examiner"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    Kubectl::apply(HOME, &service, false).unwrap();
    Kubectl::run(&["wait", "pod/examiner", "-n", HOME, "--for=condition=Ready", "--timeout=120s"], None)
        .unwrap();
    let url = format!("http://examiner.{HOME}.svc/cgi-bin/test");
    let mut strategy = json!({"blueGreen": {"duration": "5s", "minRequests": 20}});
    strategy["staging"] = json!({"test": {"webhook": {"url": url}}, "tries": 2});
    let model = Model::new("examined", GATEWAY, spec(strategy, json!({})));
    let clients = model.clients();
    model.version(2, &[]);
    let status = model.rolled_back();
    assert_eq!(reason(&status), "StagingFailed", "{status:#}");
    assert!(told(&status).contains("asked by name"), "{}", told(&status));
    model.version(3, &[]);
    model.until("what the server passed is in production", serves(3));
    model.nobody_failed(&clients.finish());
    model.clean_up();
    let _ = Kubectl::run(&["delete", "pod/examiner", "service/examiner", "-n", HOME, "--now"], None);
}

/// After a switch of everything at once one expected answer is another one.
fn mistaken_after_the_switch() {
    let strategy = json!({"blueGreen": {"duration": "5s", "minRequests": 20}});
    let model = Model::new("mistaken", GATEWAY, spec(strategy, json!({})));
    let expect = json!({"json": [{"pointer": "/model_version", "value": "v20261122.1"}]});
    model.patch(&json!({"strategy": {"smoke": {"requests": [{"path": infer("mistaken"), "body": request(), "expect": expect}]}}}));
    let clients = model.clients();
    model.version(2, &[]);
    let status = model.rolled_back();
    assert_eq!(reason(&status), "SmokeFailed", "{status:#}");
    assert_eq!(status["stable"]["version"], "v20261122.1");
    let answers = clients.finish();
    assert!(
        answers.iter().any(|answer| answer.version.as_deref() == Some("v20261122.2")),
        "it had all requests"
    );
    model.left_in_time(&status, &answers);
    model.clean_up();
}

/// One version is in its first step when another one comes, whose last step somebody approves.
fn superseded_and_approved() {
    let step = json!({"weight": 20, "duration": "5s", "minRequests": 20, "then": "Approval"});
    let model = Model::new("approved", GATEWAY, spec(json!({"steps": [step]}), json!({})));
    let clients = model.clients();
    model.version(2, &[]);
    model.until("the second one waits", |status| !status["approval"].is_null());
    model.version(3, &[]);
    let status =
        model.until("the third one begins", |status| status["candidate"]["version"] == "v20261122.3");
    assert_eq!((&status["phase"], &status["weight"]), (&json!("Preparing"), &json!(0)), "{status:#}");
    let status = model.until("the third one waits", |status| !status["approval"].is_null());
    assert_eq!(status["approval"]["evidence"]["candidate"]["version"], "v20261122.3");
    let me = Kubectl::run(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"], None).unwrap();
    let digest = &status["approval"]["digest"].as_str().unwrap()[..12];
    let approve = format!("anneal.dev/approve=v20261122.3@20 {digest}: for the test");
    model.annotate(&[&approve, &format!("anneal.dev/approved-by={me}")]);
    let status = model.until("the third one is in production", serves(3));
    assert!(told(&status).contains(&me) && told(&status).contains("for the test"), "{}", told(&status));
    model.nobody_failed(&clients.finish());
    model.clean_up();
}

/// While nothing may advance, a hand on the route is undone, and an abort is obeyed.
fn edited_and_aborted_in_a_freeze() {
    let model = Model::new("frozen", GATEWAY, spec(long_canary(), json!({})));
    let clients = model.clients();
    model.version(2, &[]);
    model.until("it is in its canary", |status| is_on_trial(status, "Canary"));
    let half = |name: &str, month: u8| json!({"name": name, "schedule": format!("0 0 1 {month} *"), "duration": "300d"});
    model.patch(&json!({"strategy": {"freezes": [half("winter", 1), half("summer", 7)]}}));
    model.until("it is frozen", |status| status["phaseSummary"] == "Canary/Frozen");

    let before = model.weights();
    assert_eq!(before.iter().map(|(_, weight)| *weight).sum::<i64>() / 5, before[1].1, "{before:?}");
    let turned = format!(
        r#"[{{"op": "replace", "path": "/spec/rules/0/backendRefs/0/weight", "value": {}}},
            {{"op": "replace", "path": "/spec/rules/0/backendRefs/1/weight", "value": {}}}]"#,
        before[1].1, before[0].1
    );
    Kubectl::run(&["patch", "httproute/frozen", "-n", HOME, "--type=json", "-p", &turned], None).unwrap();
    let status = model.until("the hand is counted", |status| status["traffic"]["fights"].as_u64() >= Some(1));
    assert_eq!(status["traffic"]["changedBy"], "kubectl-patch", "{status:#}");
    until("the weights are put right", || model.weights() == before);

    model.annotate(&["anneal.dev/abort=v20261122.2: it is for the test"]);
    let status = model.rolled_back();
    assert_eq!(reason(&status), "Aborted", "{status:#}");
    model.left_in_time(&status, &clients.finish());
    model.clean_up();
}

/// The version that should take the requests back has no pod: they stay where they are until it has one.
fn nobody_to_go_back_to() {
    let model = Model::new("alone", GATEWAY, spec(long_canary(), json!({})));
    model.version(2, &[]);
    model.until("it is in its canary", |status| is_on_trial(status, "Canary"));
    let before = model.weights();
    // Without requests nothing else decides.
    model.without_pods(1, "the stable version has no pod", |_| {
        get("deployment/alone-v20261122-1")["status"]["readyReplicas"].is_null()
    });
    model.annotate(&["anneal.dev/abort=v20261122.2: it is for the test"]);
    let status = model.without_pods(1, "the rollback waits", |status| {
        let mut conditions = status["conditions"].as_array().unwrap().iter();
        conditions
            .any(|condition| condition["reason"] == "StableUnavailable" && condition["status"] == "True")
    });
    assert_eq!((&status["phase"], model.weights()), (&json!("Canary"), before), "{status:#}");
    let status = model.rolled_back();
    assert_eq!(reason(&status), "Aborted", "{status:#}");
    model.clean_up();
}

/// One version never becomes ready, and another one stops being so.
fn without_a_ready_pod() {
    let serving = serving(json!({"progressDeadline": "20s"}));
    let model = Model::new("unready", GATEWAY, spec(long_canary(), json!({"serving": serving})));
    let clients = model.clients();
    model.version(2, &["--no-such-flag"]);
    let status = model.rolled_back();
    assert_eq!(reason(&status), "ProgressDeadlineExceeded", "{status:#}");
    model.nobody_failed(&clients.finish());

    model.version(3, &[]);
    model.until("it is in its canary", |status| is_on_trial(status, "Canary"));
    let status = model.without_pods(3, "it is rolled back", |status| status["phase"] == "RolledBack");
    assert_eq!(reason(&status), "CandidateUnavailable", "{status:#}");
    until("the route has the first version alone", || {
        model.weights().iter().all(|(name, weight)| *weight == 0 || name == "unready-v20261122-1")
    });
    model.clean_up();
}

/// There is no room for a second version beside the first one.
fn nowhere_to_run() {
    let resources = json!({"requests": {"cpu": "20m", "memory": "192Mi"}, "limits": {"nvidia.com/gpu": 3}});
    let serving = serving(json!({"progressDeadline": "40s", "resources": resources}));
    let model = Model::new("crowded", GATEWAY, spec(long_canary(), json!({"serving": serving})));
    let clients = model.clients();
    model.version(2, &[]);
    let status = model.until("it says why its pod does not start", |status| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["reason"] == "Unschedulable")
    });
    assert_eq!((&status["phase"], &status["weight"]), (&json!("Preparing"), &json!(0)), "{status:#}");
    let status = model.rolled_back();
    assert_eq!(reason(&status), "ProgressDeadlineExceeded", "{status:#}");
    assert!(told(&status).contains("nvidia.com/gpu"), "{}", told(&status));
    model.nobody_failed(&clients.finish());
    model.clean_up();
}

/// Two models of one group: nobody goes ahead, whoever does nothing wrong goes back with who does, and comes again with it.
fn together_or_not_at_all() {
    let quick = json!({"canary": {"initial": 20, "increment": 80, "interval": "5s", "minRequests": 20}});
    let [left, right] =
        ["left", "right"].map(|name| Model::new(name, GATEWAY, spec(quick.clone(), json!({}))));
    for model in [&left, &right] {
        model.patch(&json!({"group": {"members": ["left", "right"]}}));
    }
    let (of_left, of_right) = (left.clients(), right.clients());
    left.version(2, &[]);
    left.until("it waits for the other one", |status| status["phaseSummary"] == "Preparing/AwaitingGroup");
    right.version(2, &["--fault=error=0.5"]);
    let status = right.rolled_back();
    assert_eq!(reason(&status), "ThresholdBreached", "{status:#}");
    let status = left.rolled_back();
    assert_eq!(reason(&status), "GroupAborted", "{status:#}");

    right.version(3, &[]);
    left.until("what did nothing wrong is in production", serves(2));
    right.until("it came with the other one's next", serves(3));
    for (model, clients) in [(left, of_left), (right, of_right)] {
        model.nobody_failed(&clients.finish());
        model.clean_up();
    }
}

#[test]
fn a_version_meets_what_its_rollout_asks_for() {
    thread::scope(|scope| {
        let all = [
            tested_warmed_and_asked,
            examined_by_a_server,
            mistaken_after_the_switch,
            superseded_and_approved,
            edited_and_aborted_in_a_freeze,
            nobody_to_go_back_to,
            without_a_ready_pod,
            together_or_not_at_all,
            nowhere_to_run,
        ];
        let running = all.map(|trial| scope.spawn(trial));
        running.into_iter().for_each(|trial| trial.join().unwrap());
    });
}
