//! The server: the Open Inference Protocol, arms, faults and the drain.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows test functions, but not their helpers"
)]

mod common;

use std::{process::Command, time::Duration};

use anneal_crds::contract::RunResult;
use common::{
    World,
    process::BINARY,
    server::{Server, body},
};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn trained() -> (World, RunResult) {
    let world = World::new();
    let result = world.train(&world.job("a", |_| {})).unwrap();
    (world, result)
}

#[test]
fn it_answers_by_the_protocol() {
    let (world, result) = trained();
    let server = Server::start(&result, &[]);
    world.runtime.block_on(async {
        for path in ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/cars", "/v2/models/cars/ready"]
        {
            let response = server.get(path).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()["x-anneal-version"], "v20261121.1");
        }
        let metadata: Value = server.get("/v2/models/cars").await.json().await.unwrap();
        assert_eq!(metadata["inputs"].as_array().unwrap().len(), 4);
        let response = server.infer(&body()).await;
        assert_eq!(response.headers()["x-anneal-version"], "v20261121.1");
        let answer: Value = response.json().await.unwrap();
        assert_eq!((&answer["id"], &answer["model_version"]), (&json!("42"), &json!("v20261121.1")));
        assert_eq!(answer["parameters"]["prediction_id"].as_str().unwrap().len(), 36);
        assert_eq!(
            answer["outputs"][0],
            json!({"name": "class", "datatype": "BYTES", "shape": [2], "data": ["1", "0"]})
        );
        let probabilities = answer["outputs"][1]["data"].as_array().unwrap();
        assert!(
            probabilities.iter().all(|p| (0.5..=1.0).contains(&p.as_f64().unwrap())),
            "{probabilities:?}"
        );
        assert_eq!(server.get("/v2/models/bikes").await.status(), StatusCode::NOT_FOUND);
        assert_eq!(server.get("/").await.status(), StatusCode::NOT_FOUND);
    });
}

#[test]
fn a_users_mistake_is_a_400_that_names_the_field() {
    let (world, result) = trained();
    let server = Server::start(&result, &[]);
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 12] = [
        ("missing", |b| drop(b["inputs"].as_array_mut().unwrap().remove(0)), "inputs.x"),
        ("unknown", |b| b["inputs"][0]["name"] = "y".into(), "inputs.y"),
        (
            "twice",
            |b| {
                let first = b["inputs"][0].clone();
                b["inputs"].as_array_mut().unwrap().push(first);
            },
            "inputs.x",
        ),
        ("text for number", |b| b["inputs"][0]["data"][0] = "a".into(), "inputs.x"),
        ("null for number", |b| b["inputs"][0]["data"][0] = Value::Null, "inputs.x"),
        ("number for text", |b| b["inputs"][2]["data"][0] = 1.into(), "inputs.color"),
        ("type", |b| b["inputs"][0]["datatype"] = "BYTES".into(), "inputs.x"),
        ("type of a category", |b| b["inputs"][2]["datatype"] = "FP32".into(), "inputs.color"),
        ("shape", |b| b["inputs"][0]["shape"] = json!([2, 2]), "inputs.x"),
        ("length", |b| b["inputs"][0]["data"] = json!([1.0]), "inputs.x"),
        (
            "rows",
            |b| {
                b["inputs"][3]["shape"] = json!([1]);
                b["inputs"][3]["data"] = json!([true]);
            },
            "inputs.flag",
        ),
        ("no inputs", |b| *b = json!({}), "body"),
    ];
    world.runtime.block_on(async {
        for (name, change, field) in cases {
            let mut body = body();
            change(&mut body);
            let response = server.infer(&body).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{name}");
            let error: Value = response.json().await.unwrap();
            assert_eq!(error["field"], field, "{name}: {error}");
            assert!(error["reason"].as_str().unwrap().contains(':'), "{name}: {error}");
        }
        let response = Client::new().post(server.infer_url()).body("{").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(server.count("live", 400).await, Some(13.0));
        assert_eq!(server.count("live", 500).await, Some(0.0));
    });
}

/// Sends copies one by one and waits until all of them were counted as `count` says.
async fn copies<'s>(server: &'s Server, number: u32, count: impl AsyncFn(&'s Server) -> Option<f64>) {
    for _ in 0..number {
        let counted = count(server).await.unwrap();
        assert_eq!(server.copy(&body()).await.status(), StatusCode::OK);
        while count(server).await.unwrap() == counted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[test]
fn answers_to_copies_are_compared_with_two_of_the_stable_version() {
    let (world, result) = trained();
    let stable = Server::start(&result, &["--shadow-port", "0"]);
    let door = |server: &Server| server.copies.clone().unwrap();
    let compare = |with: &str, rate: &str, more: &[&str]| {
        let args = ["--shadow-port", "0", "--compare-rate", rate, "--compare-with", with];
        Server::start(&result, &[&args, more].concat())
    };
    world.runtime.block_on(async {
        let same = compare(&door(&stable), "1000", &["--compare-tolerance", "0.001"]);
        for result in ["nobody", "candidate", "stable", "both"] {
            assert_eq!(same.compared(result).await, Some(0.0), "{result}");
        }
        copies(&same, 3, async |server| server.compared("nobody").await).await;
        // A user's own request is not compared, and neither is what another pod asks for a comparison.
        same.infer(&body()).await;
        let url = format!("{}/v2/models/cars/infer", door(&same));
        let asked = Client::new().post(url).header("x-anneal-compare", "1").json(&body());
        assert_eq!(asked.send().await.unwrap().status(), StatusCode::OK);
        // What one refuses the other does too.
        let mut unknown = body();
        unknown["inputs"][0]["name"] = "y".into();
        assert_eq!(same.copy(&unknown).await.status(), StatusCode::BAD_REQUEST);
        copies(&same, 1, async |server| server.compared("nobody").await).await;
        while same.compared("nobody").await != Some(5.0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(stable.asked().await, Some(8.0), "each copy is asked twice");
        assert_eq!(
            (stable.count("live", 200).await, stable.count("shadow", 200).await),
            (Some(0.0), Some(0.0))
        );

        let wrong = compare(&door(&stable), "1000", &["--fault", "wrong=1"]);
        copies(&wrong, 3, async |server| server.compared("candidate").await).await;
        // Labels say who was right, once, where the request is known: stable was, about both rows.
        let mut named = body();
        named["id"] = "43".into();
        wrong.copy(&named).await;
        while wrong.compared("candidate").await != Some(4.0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (id, labels, code) in [
            ("41", json!(["1", "0"]), StatusCode::ACCEPTED),
            // Several requests had this one.
            ("42", json!(["1", "0"]), StatusCode::ACCEPTED),
            ("43", json!([1, 0]), StatusCode::ACCEPTED),
            ("43", json!([1, 0]), StatusCode::ACCEPTED),
            ("43", json!("1"), StatusCode::BAD_REQUEST),
        ] {
            let url = format!("{}/v2/feedback", wrong.url);
            let request =
                Client::new().post(url).header("host", "a-shadow").json(&json!({"id": id, "labels": labels}));
            assert_eq!(request.send().await.unwrap().status(), code, "{id} {labels}");
        }
        let mut right = vec![];
        for who in ["both", "candidate", "stable", "neither"] {
            right.push(wrong.paired(who).await.unwrap());
        }
        assert_eq!(right, [0.0, 0.0, 1.0, 0.0]);

        // A stable version that differs from itself: of two answers the first is wrong, or the second.
        let lots = Server::start(&result, &["--shadow-port", "0", "--fault", "wrong=0.5"]);
        let beside = compare(&door(&lots), "1000", &[]);
        copies(&beside, 20, async |server| {
            let (mut sum, all) = (0.0, ["nobody", "candidate", "stable", "both"]);
            for result in all {
                sum += server.compared(result).await?;
            }
            Some(sum)
        })
        .await;
        assert!(beside.compared("stable").await > Some(0.0) && beside.compared("both").await > Some(0.0));

        let alone = compare("http://127.0.0.1:9", "1000", &[]);
        copies(&alone, 1, async |server| server.not_compared("unanswered").await).await;
        let busy = compare(&door(&stable), "1", &[]);
        for _ in 0..20 {
            busy.copy(&body()).await;
        }
        assert!(busy.not_compared("busy").await >= Some(1.0));
        let failing = compare(&door(&stable), "1000", &["--fault", "error=1"]);
        failing.copy(&body()).await;
        assert_eq!(failing.not_compared("failed").await, Some(1.0));
    });
}

#[test]
fn copies_are_counted_apart_and_all_series_exist_from_the_start() {
    let (world, result) = trained();
    let server = Server::start(&result, &[]);
    world.runtime.block_on(async {
        for arm in ["live", "shadow"] {
            for code in [200, 400, 499, 500, 503] {
                assert_eq!(server.count(arm, code).await, Some(0.0), "{arm} {code}");
            }
        }
        assert_eq!(server.compared("nobody").await, None, "nothing is compared that nobody asked for");
        for host in ["cars.example.com-shadow", "cars.example.com-shadow:80"] {
            let request = Client::new().post(server.infer_url());
            let response = request.header("host", host).json(&body()).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        server.infer(&body()).await;
        assert_eq!(server.count("shadow", 200).await, Some(2.0));
        assert_eq!(server.count("live", 200).await, Some(1.0));
        let page = server.get("/metrics").await.text().await.unwrap();
        for (arm, count) in [("live", 1), ("shadow", 2)] {
            let labels = format!("arm=\"{arm}\",model=\"cars\",version=\"v20261121.1\"");
            assert!(
                page.contains(&format!("anneal_serve_request_duration_seconds_count{{{labels}}} {count}")),
                "{page}"
            );
            assert!(
                page.contains(&format!(
                    "anneal_serve_request_duration_seconds_bucket{{{labels},le=\"0.3\"}}"
                ))
            );
            // One score for each row.
            let rows = body()["inputs"][0]["shape"][0].as_u64().unwrap() * count;
            assert!(page.contains(&format!("anneal_serve_score_count{{{labels}}} {rows}")), "{page}");
            let all = format!("anneal_serve_score_bucket{{{labels},le=\"1\"}} {rows}");
            assert!(page.contains(&all), "they are probabilities: {page}");
        }
    });
}

#[test]
fn faults_come_as_asked_for() {
    let (world, result) = trained();
    let server = Server::start(&result, &["--fault", "latency=20ms,error=0.3"]);
    world.runtime.block_on(async {
        for _ in 0..100 {
            server.infer(&body()).await;
        }
        let failed = server.count("live", 500).await.unwrap();
        assert!((15.0..45.0).contains(&failed), "{failed}");
        assert_eq!(server.count("live", 200).await, Some(100.0 - failed));
        let page = server.get("/metrics").await.text().await.unwrap();
        let fast = "anneal_serve_request_duration_seconds_bucket{arm=\"live\",model=\"cars\",version=\"v20261121.1\",le=\"0.01\"} 0";
        assert!(page.contains(fast), "no answer is faster than the fault\n{page}");
    });
    let other = Server::start(&result, &["--fault", "error=1"]);
    let status = world.runtime.block_on(async { other.infer(&body()).await.status() });
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn a_server_that_is_asked_to_stop_answers_until_it_is_gone() {
    let (world, result) = trained();
    let mut server = Server::start(&result, &["--drain", "2s", "--fault", "latency=100ms"]);
    world.runtime.block_on(async {
        let before = tokio::spawn(Client::new().post(server.infer_url()).json(&body()).send());
        let id = server.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        // The signal needs a moment; readiness goes before the server does.
        while server.get("/v2/health/ready").await.status() != StatusCode::SERVICE_UNAVAILABLE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(server.get("/v2/health/live").await.status(), StatusCode::OK);
        assert_eq!(server.infer(&body()).await.status(), StatusCode::OK);
        assert_eq!(before.await.unwrap().unwrap().status(), StatusCode::OK);
    });
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_request_whose_client_goes_away_is_counted() {
    let (world, result) = trained();
    let server = Server::start(&result, &["--fault", "latency=3s"]);
    world.runtime.block_on(async {
        let impatient = Client::builder().timeout(Duration::from_millis(300)).build().unwrap();
        let request = impatient.post(server.infer_url()).json(&body());
        assert!(request.send().await.unwrap_err().is_timeout());
        for _ in 0..40 {
            if server.count("live", 499).await == Some(1.0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(server.count("live", 499).await, Some(1.0));
        assert_eq!(server.count("shadow", 499).await, Some(0.0));
        assert_eq!(server.count("live", 200).await, Some(0.0));
        let page = server.get("/metrics").await.text().await.unwrap();
        let bucket = |le: &str, count: u32| {
            format!("anneal_serve_request_duration_seconds_bucket{{arm=\"live\",model=\"cars\",version=\"v20261121.1\",le=\"{le}\"}} {count}")
        };
        assert!(page.contains(&bucket("0.1", 0)), "what it waited counts as a latency\n{page}");
        assert!(page.contains(&bucket("2.5", 1)), "{page}");
        assert!(page.contains("# HELP anneal_serve_requests_total") && page.contains("499"), "{page}");
    });
}

#[test]
fn a_body_that_is_too_large_is_a_413_and_one_with_too_many_rows_a_400() {
    let (world, result) = trained();
    let server = Server::start(&result, &[]);
    world.runtime.block_on(async {
        let post = |body: String| Client::new().post(server.infer_url()).body(body).send();
        let large = format!("[{}1]", "1,".repeat(3 << 20));
        let response = post(large).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let error: Value = response.json().await.unwrap();
        assert!(error["reason"].as_str().unwrap().contains("4194304 bytes"), "{error}");
        assert_eq!(server.count("live", 413).await, Some(1.0));

        // As many values as a body may have, in place of the rows of one column.
        let mut many = body();
        many["inputs"][0]["shape"] = json!([2_000_000]);
        let many = many.to_string().replace("900.0,10.0", &format!("{}1", "1,".repeat(1_999_999)));
        assert!(many.len() > 3_900_000);
        let response = post(many).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["field"], "inputs.x");
        assert!(error["reason"].as_str().unwrap().contains("1 to 10000"), "{error}");

        let rows = |count: usize| {
            let tensor = |name: &str, datatype: &str, value: Value| json!({"name": name, "shape": [count], "datatype": datatype, "data": vec![value; count]});
            json!({"inputs": [
                tensor("x", "FP64", json!(1.5)),
                tensor("noise", "FP32", json!(0.5)),
                tensor("color", "BYTES", json!("red")),
                tensor("flag", "BOOL", json!(true)),
            ]})
        };
        assert_eq!(server.infer(&rows(10_001)).await.status(), StatusCode::BAD_REQUEST);
        let response = server.infer(&rows(10_000)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["outputs"][0]["shape"], json!([10_000]));
    });
}

/// A request that says it is chunked, and has some of its body behind it.
async fn half_sent(server: &Server, part: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = "POST /v2/models/cars/infer HTTP/1.1\r\nhost: cars\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}{:x}\r\n{part}\r\n", part.len()).as_bytes()).await.unwrap();
    stream
}

#[test]
fn bodies_in_memory_are_bounded_and_what_is_beyond_is_a_503() {
    let (world, result) = trained();
    let server = Server::start(&result, &[]);
    world.runtime.block_on(async {
        // Nobody knows how large these become, so each has room for the largest body.
        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(half_sent(&server, "{").await);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let response = server.infer(&body()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["field"], "memory");
        assert_eq!(server.count("live", 503).await, Some(1.0));
        assert_eq!(server.get("/v2/health/ready").await.status(), StatusCode::OK);

        // Room comes back with every answer, and with every client that goes away.
        let mut one = held.pop().unwrap();
        one.write_all(b"1\r\n}\r\n0\r\n\r\n").await.unwrap();
        let mut start = [0; 12];
        one.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 400");
        assert_eq!(server.infer(&body()).await.status(), StatusCode::OK);
        drop(held);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let again: Vec<_> = (0..15).map(|_| half_sent(&server, "{")).collect();
        let again = futures::future::join_all(again).await;
        assert_eq!(server.infer(&body()).await.status(), StatusCode::OK);
        drop(again);
    });
}

#[test]
fn what_is_not_the_recorded_artifact_is_not_served() {
    let (_world, result) = trained();
    let serve = |artifact: &str, digest: &str| {
        let mut command = Command::new(BINARY);
        command.args([
            "serve",
            "--artifact",
            artifact,
            "--digest",
            digest,
            "--model",
            "cars",
            "--version",
            "v1",
            "--port",
            "0",
        ]);
        command.output().unwrap().status.code()
    };
    let other = format!("sha256:{}", "0".repeat(64));
    assert_eq!(serve(&result.artifact.uri, &other), Some(3));
    assert_eq!(serve("file:///nowhere", &result.artifact.digest), Some(3));
}
