//! Whatever goes wrong with a metric, for both kinds of metrics: what the reading is, and that it is never a pass.

use std::time::Duration;

use anneal_core::rollout::{Reading, Verdict, judge, read};
use anneal_crds::{Span, metric::Metric};
use anneal_operator::{ports::Prometheus as _, prometheus_api::HttpPrometheus};
use axum::{
    Router,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::harness::{now, query, serve, server};

fn metrics() -> [(&'static str, Metric); 2] {
    [
        ("ratio", json!({"name": "m", "window": "60s", "ratio": {"bad": "b", "total": "t", "max": 0.01}})),
        (
            "histogram",
            json!({"name": "m", "window": "60s", "histogram": {"selector": "h", "quantile": 0.95, "max": "300ms"}}),
        ),
    ]
    .map(|(name, metric)| (name, serde_json::from_value(metric).unwrap()))
}

/// A vector in which the numbers of the metric, but not its age, are `value`, or good ones.
fn vector(source: &str, value: Option<&str>, age: i64) -> Value {
    let series = |part: &str, le: Option<&str>, good: &str| {
        let mut metric = json!({"anneal_part": part});
        if let Some(le) = le {
            metric["le"] = le.into();
        }
        json!({"metric": metric, "value": [now().as_second(), value.unwrap_or(good)]})
    };
    let at = json!({"metric": {"anneal_part": "at"}, "value": [now().as_second(), (now().as_second() - age).to_string()]});
    let mut result = vec![series("step", None, "100"), at];
    if source == "ratio" {
        result.extend([series("bad", None, "0"), series("total", None, "100")]);
    } else {
        result.extend([series("bucket", Some("0.1"), "100"), series("bucket", Some("+Inf"), "100")]);
    }
    json!(result)
}

fn success(kind: &str, result: Value) -> Value {
    json!({"status": "success", "data": {"resultType": kind, "result": result}})
}

async fn answer(Path((case, source)): Path<(String, String)>) -> Response {
    let vector = |value, age| success("vector", vector(&source, value, age));
    let (status, body) = match case.as_str() {
        "good" => (StatusCode::OK, vector(None, 1)),
        "nan" => (StatusCode::OK, vector(Some("NaN"), 1)),
        "infinity" => (StatusCode::OK, vector(Some("+Inf"), 1)),
        "negative-infinity" => (StatusCode::OK, vector(Some("-Inf"), 1)),
        "empty" => (StatusCode::OK, success("vector", json!([]))),
        "twice" => {
            let mut body = vector(None, 1);
            let series = body["data"]["result"].as_array_mut().unwrap();
            series.extend(series.clone());
            (StatusCode::OK, body)
        }
        "many" => {
            let one = json!({"metric": {"anneal_part": "bad"}, "value": [1, "0"]});
            (StatusCode::OK, success("vector", json!(vec![one; 1001])))
        }
        "scalar" => (StatusCode::OK, success("scalar", json!([1, "0"]))),
        "string" => (StatusCode::OK, success("string", json!([1, "0"]))),
        "stale" => (StatusCode::OK, vector(None, 31)),
        "future" => (StatusCode::OK, vector(None, -3600)),
        "warnings" => {
            let mut body = vector(None, 1);
            body["warnings"] = json!(["a store is gone"]);
            (StatusCode::OK, body)
        }
        // A body of success does not make a success of a failure.
        "4xx" => (StatusCode::BAD_REQUEST, vector(None, 1)),
        "5xx" => (StatusCode::SERVICE_UNAVAILABLE, vector(None, 1)),
        "timeout" => std::future::pending().await,
        other => panic!("no case {other}"),
    };
    (status, body.to_string()).into_response()
}

fn is_error(reading: &Reading, said: &str) -> bool {
    matches!(reading, Reading::Unreachable(why) if why.contains(said))
}

#[tokio::test]
async fn each_case_has_its_reading_and_names_server_and_query() {
    type Expected = fn(&Reading) -> bool;
    let table: [(&str, Expected); 14] = [
        ("nan", |reading| *reading == Reading::NotFinite),
        ("infinity", |reading| *reading == Reading::NotFinite),
        ("negative-infinity", |reading| *reading == Reading::NotFinite),
        ("empty", |reading| *reading == Reading::Empty),
        ("twice", |reading| matches!(reading, Reading::Malformed(_))),
        ("many", |reading| is_error(reading, "at most 1000")),
        ("scalar", |reading| is_error(reading, "type `scalar` instead of vector")),
        ("string", |reading| is_error(reading, "type `string` instead of vector")),
        ("stale", |reading| matches!(reading, Reading::Stale(age) if age.as_secs() == 31)),
        ("future", |reading| *reading == Reading::NotFinite),
        ("warnings", |reading| is_error(reading, "a store is gone")),
        ("4xx", |reading| is_error(reading, "400 Bad Request")),
        ("5xx", |reading| is_error(reading, "503 Service Unavailable")),
        ("timeout", |reading| is_error(reading, "no answer within")),
    ];
    let url = serve(Router::new().route("/{case}/{source}/api/v1/query", get(answer))).await;
    for (case, expected) in table {
        for (source, metric) in metrics() {
            let mut server = server(&format!("{url}/{case}/{source}"));
            if case == "timeout" {
                server.timeout = Duration::from_millis(50);
            }
            let answer = HttpPrometheus::default().query(&server, &query("up"), now()).await;
            let reading = read(&metric, &answer, Span::from_secs(30), now());
            assert!(expected(&reading), "{case} of a {source}: {reading:?}");
            let (verdict, record) = judge(&metric, &reading, &url, "up");
            let Verdict::Hold(why) = verdict else { panic!("{case} of a {source}: {verdict:?}") };
            assert!(why.contains(&format!("({url}: up)")), "{case} of a {source}: {why}");
            assert_eq!((record.verdict.as_str(), record.query.as_str()), ("NoData", "up"));
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_no_reading() {
    // A port that nobody listens on, and a name that RFC 6761 keeps from existing.
    for url in ["http://127.0.0.1:1", "http://prometheus.invalid:9090"] {
        for (source, metric) in metrics() {
            let server = server(url);
            let answer = HttpPrometheus::default().query(&server, &query("up"), now()).await;
            let reading = read(&metric, &answer, Span::from_secs(30), now());
            assert!(is_error(&reading, &format!("({url}: up)")), "{source}: {reading:?}");
        }
    }
}

#[tokio::test]
async fn the_same_servers_good_answer_passes() {
    let url = serve(Router::new().route("/{case}/{source}/api/v1/query", get(answer))).await;
    for (source, metric) in metrics() {
        let server = server(&format!("{url}/good/{source}"));
        let answer = HttpPrometheus::default().query(&server, &query("up"), now()).await;
        let reading = read(&metric, &answer, Span::from_secs(30), now());
        assert_eq!(
            judge(&metric, &reading, &url, "up").0,
            Verdict::Pass { step_requests: 100.0 },
            "{source}"
        );
    }
}
