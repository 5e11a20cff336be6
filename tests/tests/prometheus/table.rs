//! Whatever goes wrong with a metric, of every form and by every evidence: what the reading is, and that it is never a pass.

use std::time::Duration;

use anneal_core::rollout::{Answer, Query, Reading, Shape, Verdict, judge, read};
use anneal_crds::{
    Span,
    metric::{JudgeEvidence, Metric, MissingClass},
    model_rollout::RolloutPhase,
};
use anneal_operator::{ports::Prometheus as _, prometheus_api::HttpPrometheus, server::Server};
use anneal_tests::cases::{self, RolloutCase};
use axum::{
    Router,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::harness::{now, query, serve, server};

fn metrics() -> [(&'static str, Metric); 3] {
    [
        ("ratio", json!({"name": "m", "window": "60s", "ratio": {"bad": "b", "total": "t", "max": 0.01}})),
        (
            "histogram",
            json!({"name": "m", "window": "60s", "histogram": {"selector": "h", "quantile": 0.95, "max": "300ms"}}),
        ),
        ("value", json!({"name": "m", "window": "60s", "value": {"expression": "v{}", "requests": "r", "min": 0.5}})),
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
    match source {
        "ratio" => result.extend([series("bad", None, "0"), series("total", None, "100")]),
        "histogram" => {
            result.extend([series("bucket", Some("0.1"), "100"), series("bucket", Some("+Inf"), "100")]);
        }
        "value" => result.push(series("value", None, "0.9")),
        other => panic!("no form {other}"),
    }
    json!(result)
}

/// Raw samples of both versions over the last minutes, the newest so old, which are `value`, or grow.
fn matrix(value: Option<&str>, age: i64) -> Value {
    let series = |version: &str, le: &str| {
        let samples = (0..300).map(|second| {
            let at = now().as_second() - age - 299 + second;
            json!([at, value.map_or_else(|| (10 * second).to_string(), str::to_owned)])
        });
        json!({"metric": {"version": version, "pod": version, "le": le}, "values": samples.collect::<Vec<_>>()})
    };
    let versions = ["v20261121.1", "v20261121.2"];
    json!(
        versions.iter().flat_map(|version| ["0.1", "+Inf"].map(|le| series(version, le))).collect::<Vec<_>>()
    )
}

fn success(kind: &str, result: Value) -> Value {
    json!({"status": "success", "data": {"resultType": kind, "result": result}})
}

async fn answer(Path((case, source)): Path<(String, String)>) -> Response {
    let vector = |value, age| match source.as_str() {
        "raw" => success("matrix", matrix(value, age)),
        source => success("vector", vector(source, value, age)),
    };
    let (status, body) = match case.as_str() {
        "good" => (StatusCode::OK, vector(None, 1)),
        "nan" => (StatusCode::OK, vector(Some("NaN"), 1)),
        "infinity" => (StatusCode::OK, vector(Some("+Inf"), 1)),
        "negative-infinity" => (StatusCode::OK, vector(Some("-Inf"), 1)),
        "empty" => {
            let mut body = vector(None, 1);
            body["data"]["result"] = json!([]);
            (StatusCode::OK, body)
        }
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

/// How a body is read.
type Expected = fn(&Reading) -> bool;

/// Answers that say nothing, and how each is read as plain numbers.
const BODIES: [(&str, Expected); 14] = [
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

#[tokio::test]
async fn each_case_has_its_reading_and_names_server_and_query() {
    let url = serve(Router::new().route("/{case}/{source}/api/v1/query", get(answer))).await;
    for (case, expected) in BODIES {
        for (source, metric) in metrics() {
            let mut server = server(&format!("{url}/{case}/{source}"));
            if case == "timeout" {
                server.timeout = Duration::from_millis(50);
            }
            let answer = HttpPrometheus::default().query(&server, &query("up"), now()).await;
            let reading = read(&metric, &answer, None, Span::from_secs(30), now());
            assert!(expected(&reading), "{case} of a {source}: {reading:?}");
            let (verdict, record) = judge(&metric, &reading, &url, "up");
            let Verdict::Hold(class, why) = verdict else { panic!("{case} of a {source}: {verdict:?}") };
            // Of a value people know what they wrote; who did not answer is told by what was sent.
            let asked = match (source, &reading) {
                ("value", Reading::Unreachable(_)) => "up",
                ("value", _) => "v{}",
                _ => "up",
            };
            assert!(why.contains(&format!("({url}: {asked})")), "{case} of a {source}: {why}");
            assert_eq!((record.verdict.as_str(), record.query.as_str()), (class.name(), "up"));
        }
    }
}

#[tokio::test]
async fn a_server_that_answers_but_not_with_raw_samples_may_give_fewer() {
    let url = serve(Router::new().route("/{case}/{source}/api/v1/query", get(answer))).await;
    let raw = Query { shape: Shape::Matrix, ..query("up[1h]") };
    let ask =
        async |server: &Server, query: &Query| HttpPrometheus::default().query(server, query, now()).await;
    for (case, may) in
        [("4xx", true), ("5xx", true), ("timeout", true), ("scalar", false), ("warnings", false)]
    {
        let server = Server { timeout: Duration::from_secs(1), ..server(&format!("{url}/{case}/ratio")) };
        let answer = ask(&server, &raw).await;
        assert_eq!(matches!(answer, Answer::TooMuch(_)), may, "{case}: {answer:?}");
        assert!(
            matches!(ask(&server, &query("up")).await, Answer::Unreachable(_)),
            "{case}: numbers are few"
        );
    }
    let gone = ask(&server("http://127.0.0.1:1"), &raw).await;
    assert!(matches!(gone, Answer::Unreachable(_)), "{gone:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_no_reading() {
    for url in NOBODY {
        for (source, metric) in metrics() {
            let server = server(url);
            let answer = HttpPrometheus::default().query(&server, &query("up"), now()).await;
            let reading = read(&metric, &answer, None, Span::from_secs(30), now());
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
        let reading = read(&metric, &answer, None, Span::from_secs(30), now());
        assert_eq!(
            judge(&metric, &reading, &url, "up").0,
            Verdict::Pass { step_requests: Some(100.0) },
            "{source}"
        );
    }
}

/// A port that nobody listens on, and a name that RFC 6761 keeps from existing.
const NOBODY: [&str; 2] = ["http://127.0.0.1:1", "http://prometheus.invalid:9090"];

/// What a policy makes of a canary step: what the spec says, since when the reading is missing, and the phase that follows.
const POLICIES: [(&str, i64, RolloutPhase); 5] = [
    ("{}", 100, RolloutPhase::Canary),
    (r#"{"action": "Hold"}"#, 100, RolloutPhase::Canary),
    (r#"{"action": "Rollback"}"#, 0, RolloutPhase::RolledBack),
    (r#"{"action": "Rollback", "after": "60s"}"#, 59, RolloutPhase::Canary),
    (r#"{"action": "Rollback", "after": "60s"}"#, 60, RolloutPhase::RolledBack),
];

/// Servers that say nothing, each of these forms, or are not there.
fn silent(url: &str, source: &str) -> Vec<String> {
    let served = BODIES.map(|(case, _)| format!("{url}/{case}/{source}"));
    served.into_iter().chain(NOBODY.map(str::to_owned)).collect()
}

async fn ask(server_url: &str, query: &Query) -> Answer {
    let server = Server { timeout: Duration::from_millis(200), ..server(server_url) };
    HttpPrometheus::default().query(&server, query, now()).await
}

/// A canary step of a rollout with this metric, in which a reading has been missing for so many seconds.
fn canary(
    evidence: JudgeEvidence,
    metric: &Metric,
    class: MissingClass,
    missing_for: i64,
    policy: &str,
) -> RolloutCase {
    let mut status = cases::moving("Canary", 20);
    let since = cases::ago(missing_for);
    status["holdingSince"] = since.clone().into();
    status["missing"] = json!([{"class": class, "since": since}]);
    let mut case = RolloutCase::new(status).unwrap();
    case.rollout.spec.metrics = vec![metric.clone()];
    case.rollout.spec.strategy.rollback_triggers = vec![metric.name.clone()];
    let judge = &mut case.rollout.spec.judge;
    judge.evidence = evidence;
    let field = match class {
        MissingClass::NoData => &mut judge.on_no_data,
        MissingClass::Stale => &mut judge.on_stale,
        MissingClass::Error => &mut judge.on_error,
    };
    *field = serde_json::from_str(policy).unwrap();
    case
}

/// What each policy makes of an answer that says nothing, and that its message names server and query; how many cells that are.
fn cells(
    evidence: JudgeEvidence,
    metric: &Metric,
    class: MissingClass,
    answer: &Answer,
    place: &str,
) -> usize {
    for (policy, missing_for, phase) in POLICIES {
        let status = canary(evidence, metric, class, missing_for, policy).plan_with(answer).status;
        assert_eq!(status.phase, phase, "{place} {policy} {missing_for} s");
        let blind = status.conditions.iter().find(|told| told.type_ == "MetricsAvailable");
        let blind = blind.map(|told| told.message.clone());
        // A rollback ends the condition, and its decision says the same.
        let message = blind.or(status.decision.map(|decision| decision.message)).unwrap();
        let (_, named) =
            message.split_once("(http://").unwrap_or_else(|| panic!("{place} {policy}: {message}"));
        let (server, asked) = named.split_once(": ").unwrap();
        // Who did not answer is named by the adapter, and everybody else as the rollout does.
        assert!(server == "prometheus" || place.contains(server), "{place} {policy}: {message}");
        assert!(asked.trim_end_matches([')', '.']).len() > 1, "{place} {policy}: {message}");
    }
    POLICIES.len()
}

#[tokio::test]
async fn each_policy_gives_its_verdict_and_a_message_that_names_server_and_query() {
    let url = serve(Router::new().route("/{case}/{source}/api/v1/query", get(answer))).await;
    let mut seen = 0;
    for (source, metric) in metrics() {
        for server_url in silent(&url, source) {
            let answer = ask(&server_url, &query("up")).await;
            let reading = read(&metric, &answer, None, Span::from_secs(30), now());
            let Verdict::Hold(class, _) = judge(&metric, &reading, &server_url, "up").0 else {
                panic!("{server_url}: {reading:?}")
            };
            seen += cells(JudgeEvidence::None, &metric, class, &answer, &server_url);
        }
    }
    assert_eq!(seen, 3 * 16 * 5);
}

#[tokio::test]
async fn so_it_does_where_versions_are_compared() {
    let url = serve(Router::new().route("/{case}/{source}/api/v1/query", get(answer))).await;
    let raw = Query { shape: Shape::Matrix, ..query("up[1h]") };
    let evidence = JudgeEvidence::Sequential;
    let mut seen = 0;
    for (source, metric) in metrics().into_iter().filter(|(source, _)| *source != "value") {
        for server_url in silent(&url, "raw") {
            let place = format!("{server_url} of a {source}");
            let answer = ask(&server_url, &raw).await;
            let status = canary(evidence, &metric, MissingClass::Error, 0, "{}").plan_with(&answer).status;
            let [missing] = status.missing.as_slice() else { panic!("{place}: {status:?}") };
            seen += cells(evidence, &metric, missing.class, &answer, &place);
        }
    }
    assert_eq!(seen, 2 * 16 * 5);
}
