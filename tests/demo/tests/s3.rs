//! Data, models and results in S3, on the real cluster: a run that splits its own validation rows and predicts a number, its
//! version in production, and what people are told when data, gateway or Prometheus are missing.

#![expect(clippy::unwrap_used, reason = "this is a test")]

mod common;

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use common::{Kubectl, Namespace, example, variable, with, without};
use serde_json::{Value, json};

const KEY: &str = "anneal-test";
const SECRET: &str = "anneal-test-secret";

/// A real S3 server with the demo's data in the bucket `loans`.
struct S3 {
    server: Child,
    endpoint: String,
    _files: tempfile::TempDir,
}

impl S3 {
    fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let bucket = files.path().join("loans/data");
        fs::create_dir_all(&bucket).unwrap();
        for file in ["older.parquet", "recent.parquet"] {
            fs::copy(Path::new(&variable("ANNEAL_TEST_DATA")).join(file), bucket.join(file)).unwrap();
        }
        let host = variable("ANNEAL_TEST_HOST_ADDRESS");
        let free = TcpListener::bind((host.as_str(), 0)).unwrap().local_addr().unwrap();
        let server = Command::new(variable("ANNEAL_TEST_S3_SERVER"))
            .args(["--quiet", "--port", &free.to_string(), "--access", KEY, "--secret", SECRET, "posix"])
            .arg(files.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { server, endpoint: format!("http://{free}"), _files: files }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A run on S3 that predicts the value of the car.
fn job(s3: &S3, name: &str, data: &str, epochs: u32) -> Value {
    let job = with(example("retrainjob-first.yaml"), "/metadata/name", json!(name));
    let storage = json!({"s3": {"secretName": "keys", "endpoint": s3.endpoint}});
    let job = with(with(job, "/spec/storage", storage), "/spec/output/uri", json!("s3://loans/models"));
    let job = with(job, "/spec/data/train/uri", json!(format!("s3://loans/data/{data}")));
    let job = with(without(job, "/spec/data/validation"), "/spec/data/target", json!("car_value"));
    let split = json!({"validationFraction": 0.2, "key": "id"});
    let job = with(with(job, "/spec/data/task", json!("regression")), "/spec/data/split", split);
    let job = with(job, "/spec/training/epochs", json!(epochs));
    with(job, "/spec/gates/1/value", json!({"metric": "rmse", "max": 1_000_000.0}))
}

fn rollout(gateway: &str) -> Value {
    let rollout = with(example("demo/modelrollout.yaml"), "/spec/traffic/gateway/name", json!(gateway));
    with(rollout, "/spec/prometheus/url", json!("http://prometheus.nowhere:9090"))
}

fn field(home: &Namespace, what: &str, path: &str) -> String {
    Kubectl::run(&["get", what, "-n", home.0, "-o", &format!("jsonpath={{{path}}}")], None).unwrap()
}

#[test]
fn models_in_s3_are_trained_recorded_and_served_and_what_is_missing_is_told() {
    let (home, s3) = (Namespace::new("anneal-s3"), S3::start());
    let keys = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
        "stringData": {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}});
    Kubectl::apply(home.0, &keys, false).unwrap();

    Kubectl::apply(home.0, &job(&s3, "no-data", "nothing.parquet", 1), false).unwrap();
    let told = home.reason("rtj/no-data", "InvalidData");
    assert!(told.contains("s3://loans/data/nothing.parquet"), "{told}");

    Kubectl::apply(home.0, &job(&s3, "first", "older.parquet", 1), false).unwrap();
    home.reason("rtj/first", "Succeeded");
    let version = field(&home, "rtj/first", ".status.version");
    assert_eq!(
        field(&home, "rtj/first", ".status.result.candidate.metrics[?(@.name==\"rmse\")].name"),
        "rmse"
    );

    Kubectl::apply(home.0, &rollout("absent"), false).unwrap();
    assert!(home.reason("mro/car-loan", "ApprovalMissing").contains(&version));
    Kubectl::run(
        &["annotate", "-n", home.0, &format!("mv/car-loan-{version}"), "anneal.dev/approved-by=test"],
        None,
    )
    .unwrap();
    assert!(home.reason("mro/car-loan", "GatewayMissing").contains("Create it"));
    Kubectl::apply(home.0, &example("gateway.yaml"), false).unwrap();
    Kubectl::apply(home.0, &rollout("models"), false).unwrap();
    // Its pods could read the model, or none would be ready.
    home.reason("mro/car-loan", "Serving");

    let next =
        with(job(&s3, "second", "recent.parquet", 8), "/spec/baseline", json!({"rollout": "car-loan"}));
    Kubectl::apply(home.0, &next, false).unwrap();
    home.reason("rtj/second", "Succeeded");
    let told = home.reason("mro/car-loan", "Holding");
    assert!(told.contains("Prometheus did not answer"), "{told}");
    assert_eq!(field(&home, "mro/car-loan", ".status.stable.version"), version);
}
