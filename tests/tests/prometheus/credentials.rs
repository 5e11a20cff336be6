//! Tokens, passwords and tenants, as a server sees them.

use std::sync::{Arc, Mutex};

use anneal_core::rollout::Answer;
use anneal_operator::{ports::Prometheus as _, prometheus_api::HttpPrometheus};
use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::harness::{EMPTY, Log, Secrets, ask, failure, now, query, serve, server};

/// A server that wants exactly this `Authorization`.
async fn guarded(wanted: Arc<Mutex<&'static str>>, log: Log) -> String {
    let answer = move |headers: HeaderMap| async move {
        log.note(&headers);
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
        if shown == Some(*wanted.lock().unwrap()) {
            EMPTY.into_response()
        } else {
            StatusCode::UNAUTHORIZED.into_response()
        }
    };
    serve(Router::new().route("/api/v1/query", get(answer))).await
}

fn secret(server: &str, data: Value) -> Value {
    json!({"metadata": {"annotations": {"anneal.dev/server": server}}, "data": data})
}

#[tokio::test]
async fn a_rotated_token_counts_from_the_next_question_on() {
    let wanted = Arc::new(Mutex::new("Bearer one"));
    let url = guarded(wanted.clone(), Log::default()).await;
    let (secrets, prometheus) = (Secrets::default(), HttpPrometheus::default());
    let spec = json!({"url": url, "auth": {"bearer": {"secretName": "s"}}});
    let ask = async || {
        let server = secrets.resolve(spec.clone()).await.unwrap();
        (server.clone(), prometheus.query(&server, &query("up"), now()).await)
    };
    secrets.put("s", secret(&url, json!({"token": "b25l"})));
    assert_eq!(ask().await.1, Answer::Vector(vec![]));

    *wanted.lock().unwrap() = "Bearer two";
    let (server, answer) = ask().await;
    let why = failure(&server, answer);
    assert!(why.contains("401 Unauthorized; check spec.prometheus.auth"), "{why}");

    secrets.put("s", secret(&url, json!({"token": "dHdv"})));
    assert_eq!(ask().await.1, Answer::Vector(vec![]));

    // Whoever takes the annotation away takes the Secret away.
    secrets.put("s", json!({"data": {"token": "dHdv"}}));
    assert!(secrets.resolve(spec.clone()).await.is_err());
}

#[tokio::test]
async fn a_password_and_a_tenant_arrive() {
    let log = Log::default();
    // `ann:hunter2`.
    let url = guarded(Arc::new(Mutex::new("Basic YW5uOmh1bnRlcjI=")), log.clone()).await;
    let secrets = Secrets::default();
    secrets.put("s", secret(&url, json!({"username": "YW5u", "password": "aHVudGVyMg=="})));
    let spec = json!({"url": url, "auth": {"basic": {"secretName": "s"}},
        "headers": [{"name": "X-Scope-OrgID", "value": "team-a"}]});
    let server = secrets.resolve(spec).await.unwrap();
    assert_eq!(HttpPrometheus::default().query(&server, &query("up"), now()).await, Answer::Vector(vec![]));
    assert_eq!(log.header("x-scope-orgid").as_deref(), Some("team-a"));
}

/// Whoever may write a rollout must not make the operator speak for itself: it has a token of the API server, and a proxy may be
/// set in its environment.
#[tokio::test]
async fn a_question_brings_nothing_of_the_operators_own() {
    let log = Log::default();
    let noted = log.clone();
    let answer = move |headers: HeaderMap| async move {
        noted.note(&headers);
        EMPTY
    };
    let url = serve(Router::new().route("/api/v1/query", get(answer))).await;
    assert_eq!(ask(&server(&url)).await, Answer::Vector(vec![]));
    assert_eq!(log.names(), ["accept", "accept-encoding", "host"]);
}

#[tokio::test]
async fn a_secret_of_another_server_never_leaves() {
    let log = Log::default();
    let url = guarded(Arc::new(Mutex::new("Bearer one")), log.clone()).await;
    let secrets = Secrets::default();
    secrets.put("s", secret("https://prometheus.monitoring", json!({"token": "b25l"})));
    let refused = secrets.resolve(json!({"url": url, "auth": {"bearer": {"secretName": "s"}}})).await;
    assert!(refused.unwrap_err().to_string().contains(&format!("anneal.dev/server={url}")));
    assert_eq!(log.hits(), 0);
}

#[tokio::test]
async fn a_server_that_repeats_a_credential_does_not_make_it_public() {
    async fn repeat(headers: HeaderMap) -> Response {
        let shown = headers["authorization"].to_str().unwrap();
        let error = json!({"status": "error", "errorType": "internal", "error": format!("you sent {shown}")});
        (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
    }
    let url = serve(Router::new().route("/api/v1/query", get(repeat))).await;
    let secrets = Secrets::default();
    secrets.put("s", secret(&url, json!({"token": "aHVudGVyMg=="})));
    let server = secrets.resolve(json!({"url": url, "auth": {"bearer": {"secretName": "s"}}})).await.unwrap();
    let why = failure(&server, HttpPrometheus::default().query(&server, &query("up"), now()).await);
    assert!(!why.contains("hunter2") && why.contains("not shown"), "{why}");
}
