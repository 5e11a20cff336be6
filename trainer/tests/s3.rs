//! Runs and servers on a real S3 service: the Versity gateway, whose program `ANNEAL_TEST_S3_SERVER` names. Each test has
//! one of its own, with a folder of this machine as its buckets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows test functions, but not their helpers"
)]

mod common;

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anneal_crds::contract::{Device, RunResult};
use anneal_trainer::run::VersionManifest;
use common::{
    World, against,
    process::{Desk, long, signal},
    rows,
    server::{Server, body},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

/// A world whose data and models lie in the bucket `anneal` of a service of its own.
struct S3 {
    world: World,
    gateway: Child,
    endpoint: String,
}

impl S3 {
    fn start() -> Self {
        let program = env::var_os("ANNEAL_TEST_S3_SERVER")
            .expect("ANNEAL_TEST_S3_SERVER must name the program of github.com/versity/versitygw");
        let world = World::new();
        // The gateway's buckets are folders, and its objects files.
        fs::create_dir_all(world.path("s3/anneal/data")).unwrap();
        for file in ["train.parquet", "validation.parquet"] {
            fs::rename(world.path(file), world.path("s3/anneal/data").join(file)).unwrap();
        }
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            let mut gateway = Command::new(&program)
                .args(["--port", &address, "--access", "test", "--secret", "test-secret", "--quiet"])
                .args(["--region", "us-east-1", "posix"])
                .arg(world.path("s3"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // It ends by itself when somebody else took the port in between.
            while gateway.try_wait().unwrap().is_none() {
                if TcpStream::connect(&address).is_ok() {
                    return Self { world, gateway, endpoint: format!("http://{address}") };
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("the S3 server does not start");
    }

    fn environment(&self, secret: &str, endpoint: &str) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    fn right(&self) -> Vec<(String, String)> {
        self.environment("test-secret", &self.endpoint)
    }

    fn desk(&self, name: &str) -> Desk {
        self.world.desk_of(name, &self.right())
    }

    fn job(&self, uid: &str, change: impl FnOnce(&mut Value)) -> String {
        self.world.job(uid, |job| {
            job["spec"]["data"]["train"]["uri"] = "s3://anneal/data/train.parquet".into();
            job["spec"]["data"]["validation"]["uri"] = "s3://anneal/data/validation.parquet".into();
            job["spec"]["output"]["uri"] = "s3://anneal/models".into();
            job["spec"]["storage"] = json!({"s3": {"secretName": "s3"}});
            change(job);
        })
    }

    fn train(&self, uid: &str, change: impl FnOnce(&mut Value)) -> RunResult {
        let desk = self.desk(uid);
        desk.ends_with(0, "train", &self.job(uid, change));
        desk.result()
    }

    /// The file of an object.
    fn file(&self, uri: &str) -> PathBuf {
        self.world.path("s3").join(uri.strip_prefix("s3://").unwrap())
    }

    fn weights(&self, result: &RunResult) -> Vec<u8> {
        fs::read(self.file(&result.artifact.uri).join("model.safetensors")).unwrap()
    }

    fn manifest(&self, version: &str) -> VersionManifest {
        let file = self.file(&format!("s3://anneal/models/cars/versions/{version}/manifest.json"));
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }

    fn objects(&self, folder: &str) -> Vec<String> {
        self.world.files(&format!("s3/anneal/models/cars/{folder}"))
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

fn number(result: &RunResult) -> u32 {
    result.version.as_ref().unwrap().rsplit_once('.').unwrap().1.parse().unwrap()
}

#[test]
#[ignore = "needs an S3 server: cargo xtask test runs it"]
fn a_run_reads_and_writes_a_bucket_and_the_next_one_gets_the_next_version() {
    let s3 = S3::start();
    let train = s3.file("s3://anneal/data/train.parquet");
    s3.world.write("s3/anneal/data/small.parquet", rows(0, 100));
    let first = s3.train("first", |job| {
        job["spec"]["data"]["train"]["uri"] = "s3://anneal/data/sm*.parquet".into();
    });
    assert_eq!((first.device, first.train.rows, number(&first)), (Device::Cpu, 100, 1));
    let stored: RunResult =
        serde_json::from_slice(&fs::read(s3.file("s3://anneal/models/cars/runs/first/result.json")).unwrap())
            .unwrap();
    assert_eq!(stored, first);
    let manifest = s3.manifest(first.version.as_ref().unwrap());
    assert_eq!((manifest.run_uid.as_str(), &manifest.artifact), ("first", &first.artifact));
    let sums = Command::new("sha256sum")
        .args(["--check", "--quiet", "SHA256SUMS"])
        .current_dir(s3.file(&first.artifact.uri))
        .status()
        .unwrap();
    assert!(sums.success());

    let second = s3.train("second", against(&first));
    assert_eq!((second.train.rows, number(&second)), (400, 2));
    assert_eq!(second.baseline.as_ref().unwrap().evaluation, first.candidate);

    // The same run again is reported from the bucket, by both verbs, and without the data.
    fs::remove_file(train).unwrap();
    for verb in ["report", "train"] {
        let desk = s3.desk("again");
        desk.ends_with(0, verb, &s3.job("second", against(&first)));
        assert_eq!(desk.result(), second);
    }
    assert_eq!(s3.objects("versions").len(), 2);
}

#[test]
#[ignore = "needs an S3 server: cargo xtask test runs it"]
fn an_interrupted_run_goes_on_from_its_checkpoint_in_the_bucket() {
    let s3 = S3::start();
    let whole = s3.train("whole", long);
    let job = s3.job("stopped", long);
    let desk = s3.desk("stopped");
    let mut child = desk.started(&job, 3);
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(desk.failure().contains("a checkpoint is saved"));
    let saved = s3.objects("runs/stopped/checkpoints");
    assert_eq!(saved.len(), 3, "{saved:?}");
    assert!(desk.ends_with(0, "train", &job).contains("going on from a checkpoint"));
    let resumed = desk.result();
    assert_eq!(s3.weights(&resumed), s3.weights(&whole));
    assert_eq!(resumed.candidate, whole.candidate);
    assert!(s3.objects("runs/stopped/checkpoints").is_empty(), "a run that is over needs none");
}

#[test]
#[ignore = "needs an S3 server: cargo xtask test runs it"]
fn runs_at_the_same_moment_get_different_versions() {
    let s3 = S3::start();
    let runs = ["a", "b", "c"];
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = runs.map(|uid| scope.spawn(|| s3.train(uid, |_| {}))).into_iter().collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut numbers: Vec<_> = results.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
    for (uid, result) in runs.iter().zip(&results) {
        assert_eq!(s3.manifest(result.version.as_ref().unwrap()).run_uid, *uid);
        assert_eq!(s3.weights(result), s3.weights(&results[0]));
    }
}

#[test]
#[ignore = "needs an S3 server: cargo xtask test runs it"]
fn of_two_executions_of_a_run_only_the_newer_one_publishes() {
    let s3 = S3::start();
    let job = s3.job("twice", |job| {
        long(job);
        job["spec"]["checkpoint"] = json!({"every": "200ms"});
    });
    let (older, newer) = (s3.desk("older"), s3.desk("newer"));
    let mut first = older.started(&job, 1);
    newer.ends_with(0, "train", &job);
    assert_eq!(first.wait().unwrap().code(), Some(1));
    let failure = older.failure();
    assert!(failure.contains("execution 1 of this run was superseded by execution 2"), "{failure}");
    let result = newer.result();
    assert_eq!(s3.objects("runs/twice/executions"), ["1", "2"]);
    assert_eq!(s3.objects("versions").len(), 1);
    assert_eq!(s3.manifest(result.version.as_ref().unwrap()).artifact, result.artifact);
    older.ends_with(0, "report", &job);
    assert_eq!(older.result(), result);
}

#[test]
#[ignore = "needs an S3 server: cargo xtask test runs it"]
fn executions_that_start_together_end_with_one_result() {
    let s3 = S3::start();
    let job = s3.job("together", |_| {});
    let desks = ["one", "two", "three"].map(|name| s3.desk(name));
    let start = |desk: &Desk| desk.command("train", &job).stderr(Stdio::null()).spawn().unwrap();
    let children: Vec<_> = desks.iter().map(start).collect();
    let codes: Vec<_> = children.into_iter().map(|mut child| child.wait().unwrap().code()).collect();
    assert!(codes.contains(&Some(0)), "{codes:?}");
    let report = s3.desk("report");
    report.ends_with(0, "report", &job);
    let result = report.result();
    for (desk, code) in desks.iter().zip(codes) {
        match code {
            Some(0) => assert_eq!(desk.result(), result),
            Some(1) => assert!(desk.failure().contains("was superseded by execution"), "{}", desk.failure()),
            other => panic!("{other:?}: {:?}", desk.notice()),
        }
    }
    let executions = s3.objects("runs/together/executions");
    assert!((1..=3).contains(&executions.len()), "{executions:?}");
    assert_eq!(s3.objects("versions").len(), 1);
}

#[test]
#[ignore = "needs an S3 server: cargo xtask test runs it"]
fn an_artifact_in_a_bucket_is_served() {
    let s3 = S3::start();
    let result = s3.train("a", |_| {});
    let server = Server::start_in(&s3.right(), &result, &[]);
    s3.world.runtime.block_on(async {
        let response = server.infer(&body()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["outputs"][0]["data"], json!(["1", "0"]));
    });
}

#[test]
#[ignore = "needs an S3 server: cargo xtask test runs it"]
fn a_service_that_refuses_or_does_not_answer_is_named() {
    let s3 = S3::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{free}");
    for (name, environment) in [
        ("secret", s3.environment("wrong", &s3.endpoint)),
        ("endpoint", s3.environment("test-secret", &nobody)),
    ] {
        let desk = s3.world.desk_of(name, &environment);
        desk.ends_with(7, "train", &s3.job("a", |_| {}));
        let failure = desk.failure();
        assert!(failure.contains("s3://anneal/models/cars/runs/a/"), "{name}: {failure}");
        assert!(
            failure.contains("check that the storage is reachable and lets this pod in"),
            "{name}: {failure}"
        );
        assert!(!failure.contains('\n') && !failure.contains("test-secret"), "{name}: {failure}");
    }
    assert!(s3.objects("runs").is_empty());
    // Data that are not there are bad data, and no fault of the service.
    let desk = s3.desk("no-data");
    let gone = |job: &mut Value| job["spec"]["data"]["train"]["uri"] = "s3://anneal/data/gone.parquet".into();
    desk.ends_with(3, "train", &s3.job("no-data", gone));
    assert!(desk.failure().contains("s3://anneal/data/gone.parquet"), "{}", desk.failure());
}
