//! The binary as Kubernetes sees it: signals, exit codes and termination messages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows test functions, but not their helpers"
)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anneal_crds::contract::{Device, Evaluation, RunResult};
use common::{
    World, against,
    process::{BINARY, long, signal},
    rows,
};
use serde_json::{Value, json};

#[test]
fn a_pod_that_is_asked_to_stop_goes_on_where_it_was() {
    let world = World::new();
    let (code, _) = world.desk().output("train", &world.job("whole", long));
    assert_eq!(code, 0);
    let whole = world.desk().result();

    let job = world.job("stopped", long);
    let mut child = world.desk().started(&job, 3);
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(world.desk().failure().contains("a checkpoint is saved"));
    let (code, rest) = world.desk().output("train", &job);
    assert_eq!(code, 0);
    assert!(String::from_utf8_lossy(&rest.stderr).contains("going on from a checkpoint"));
    assert_eq!(world.weights(&world.desk().result()), world.weights(&whole));
}

#[test]
fn a_pod_that_is_killed_loses_only_what_followed_its_checkpoint() {
    let world = World::new();
    assert_eq!(world.desk().output("train", &world.job("whole", long)).0, 0);
    let whole = world.desk().result();
    let job = world.job("killed", |job| {
        long(job);
        job["spec"]["checkpoint"] = json!({"every": "50ms"});
    });
    for epoch in [1, 2, 4] {
        let mut child = world.desk().started(&job, epoch);
        signal(&child, "KILL");
        assert_eq!(child.wait().unwrap().code(), None);
    }
    let (code, rest) = world.desk().output("train", &job);
    assert_eq!(code, 0, "{}", String::from_utf8_lossy(&rest.stderr));
    assert_eq!(world.weights(&world.desk().result()), world.weights(&whole));
}

#[test]
fn every_kind_of_failure_has_its_exit_code_and_sentence() {
    let world = World::new();
    type Change = fn(&mut Value);
    let cases: [(&str, i32, Change, &str); 7] = [
        ("unknown key", 2, |job| job["spec"]["trainer"]["imgae"] = "x".into(), "did you mean `image`"),
        (
            "no data",
            3,
            |job| job["spec"]["data"]["train"]["uri"] = "file:///none.parquet".into(),
            "none.parquet",
        ),
        (
            "no place",
            7,
            |job| job["spec"]["output"]["uri"] = "file:///dev/null/models".into(),
            "storage is reachable",
        ),
        (
            "no GPU",
            8,
            |job| job["spec"]["trainer"]["resources"] = json!({"limits": {"nvidia.com/gpu": "1"}}),
            "allowCpuFallback",
        ),
        (
            "no slice of a GPU",
            8,
            |job| job["spec"]["trainer"]["resources"] = json!({"limits": {"nvidia.com/mig-1g.10gb": 1}}),
            "allowCpuFallback",
        ),
        (
            "a GPU of another kind",
            2,
            |job| job["spec"]["trainer"]["resources"] = json!({"limits": {"amd.com/gpu": 1}}),
            "`amd.com/gpu`",
        ),
        ("bad gate", 4, |job| job["spec"]["gates"][1]["value"]["min"] = 1.1.into(), ""),
    ];
    for (name, expected, change, words) in cases {
        let (code, output) = world.desk().output("train", &world.job(&name.replace(' ', "-"), change));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code, expected, "{name}: {stderr}");
        if expected != 4 {
            assert!(world.desk().failure().contains(words), "{name}: {stderr}");
        }
    }
}

#[test]
fn the_processor_stands_in_for_a_gpu_only_if_that_is_allowed() {
    let world = World::new();
    let job = world.job("a", |job| {
        job["spec"]["trainer"]["resources"] = json!({"limits": {"nvidia.com/gpu": "1"}});
        job["spec"]["trainer"]["allowCpuFallback"] = true.into();
    });
    assert_eq!(world.desk().output("train", &job).0, 0);
    assert_eq!(world.desk().result().device, Device::Cpu);
}

#[test]
fn a_result_can_be_reported_again() {
    let world = World::new();
    let job = world.job("a", |_| {});
    assert_eq!(world.desk().output("report", &job).0, 3);
    assert!(world.desk().failure().contains("result.json"));
    assert_eq!(world.desk().output("train", &job).0, 0);
    let first = world.desk().result();
    for verb in ["report", "train"] {
        assert_eq!(world.desk().output(verb, &job).0, 0);
        assert_eq!(world.desk().result(), first);
    }
    let stored = fs::read(world.path("models/cars/runs/a/result.json")).unwrap();
    assert_eq!(serde_json::from_slice::<RunResult>(&stored).unwrap(), first);

    // The next one ties, and its result is reported with the code of a failed gate, both times.
    let tie = world.job("tie", against(&first));
    for verb in ["train", "report"] {
        assert_eq!(world.desk().output(verb, &tie).0, 4);
        assert_eq!(world.desk().result().version, None);
    }
    let unreachable = world.job("a", |job| job["spec"]["output"]["uri"] = "file:///dev/null/models".into());
    assert_eq!(world.desk().output("report", &unreachable).0, 7);
}

#[test]
fn the_environment_names_the_run() {
    let world = World::new();
    let mut command = world.desk().command("train", &world.job("manifest", |_| {}));
    command.env("ANNEAL_RUN_UID", "operator").env("ANNEAL_ATTEMPT", "2");
    command.env("ANNEAL_OUTPUT_URI", world.uri("elsewhere"));
    command.env("ANNEAL_CHECKPOINT_URI", world.uri("checkpoints"));
    assert!(command.output().unwrap().status.success());
    assert_eq!(world.desk().result().run_uid, "operator");
    assert!(world.path("elsewhere/cars/runs/operator/result.json").exists());
    assert!(!world.path("models").exists());
}

#[test]
fn a_run_that_nobody_named_is_another_one_with_other_data_or_another_baseline() {
    let world = World::new();
    let anonymous = |job: &mut Value| drop(job["metadata"].as_object_mut().unwrap().remove("uid"));
    let job = world.job("", anonymous);
    let again = "has a result already";
    assert!(!world.desk().ends_with(0, "train", &job).contains(again));
    let first = world.desk().result();
    assert!(world.desk().ends_with(0, "train", &job).contains(again));
    assert_eq!(world.desk().result(), first);

    world.write("train.parquet", rows(5_000, 400));
    // Nothing was found out about these rows yet.
    world.desk().ends_with(3, "report", &job);
    assert!(!world.desk().ends_with(0, "train", &job).contains(again));
    let second = world.desk().result();
    assert_ne!((&first.run_uid, &first.train.digest), (&second.run_uid, &second.train.digest));
    world.desk().ends_with(0, "report", &job);
    assert_eq!(world.desk().result(), second);

    let compared = world.job("", |job| {
        anonymous(job);
        against(&first)(job);
    });
    let (_, output) = world.desk().output("train", &compared);
    assert!(!String::from_utf8_lossy(&output.stderr).contains(again));
    assert!(world.desk().result().baseline.is_some());
}

#[test]
fn rows_that_are_not_there_are_not_evaluated() {
    let world = World::new();
    let result = world.train(&world.job("a", |_| {})).unwrap();
    world.write("none.parquet", rows(0, 0));
    let mut command = Command::new(BINARY);
    command.args(["evaluate", "--artifact", &result.artifact.uri, "--target", "label", "--data"]);
    let output = command.arg(world.path("none.parquet")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("none.parquet has 0 rows"), "{said}");
}

#[test]
fn libtorch_is_refused_in_one_sentence_where_it_cannot_be_used() {
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/libtorch.py");
    let world = World::new();
    for (system, machine) in [("Linux", "aarch64"), ("Darwin", "arm64")] {
        let folder = world.path("libtorch");
        let program = format!(
            "import platform, runpy, sys; platform.machine = lambda: {machine:?}; platform.system = lambda: {system:?}; \
             sys.argv = ['libtorch.py', 'cpu', {folder:?}]; runpy.run_path({recipe:?}, run_name='__main__')"
        );
        let output = Command::new("python3").args(["-c", &program]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("linux/amd64") && said.contains(machine), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert!(!folder.exists());
    }
}

#[test]
fn evaluate_gives_the_numbers_of_the_run() {
    let world = World::new();
    let result = world.train(&world.job("a", |_| {})).unwrap();
    let evaluate = |target: &str| {
        let mut command = Command::new(BINARY);
        command.args(["evaluate", "--artifact", &result.artifact.uri, "--digest", &result.artifact.digest]);
        command
            .arg("--data")
            .arg(world.path("validation.parquet"))
            .args(["--target", target])
            .output()
            .unwrap()
    };
    let output = evaluate("label");
    let evaluation: Evaluation = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(evaluation.rows, result.candidate.rows);
    for (metric, expected) in evaluation.metrics.iter().zip(&result.candidate.metrics) {
        // The run had one thread; the last bits of a loss may depend on it.
        assert!((metric.value - expected.value).abs() < 1e-6, "{metric:?} {expected:?}");
    }
    assert_eq!(evaluate("flag").status.code(), Some(2));
}

#[test]
fn a_training_run_can_be_watched() {
    let world = World::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let job = world.job("a", |job| job["spec"]["training"]["epochs"] = 100_000.into());
    fs::write(
        world.path("job.yaml"),
        job.replace("\"optimizer\"", "\"earlyStop\":{\"patience\":100000},\"optimizer\""),
    )
    .unwrap();
    let mut child = Command::new(BINARY)
        .args(["train", "--threads", "1", "--listen", &format!("127.0.0.1:{port}"), "-f"])
        .arg(world.path("job.yaml"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().starts_with("epoch 2:")).unwrap().unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    let page = world.runtime.block_on(async {
        reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.unwrap().text().await.unwrap()
    });
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    for name in [
        "anneal_train_epoch ",
        "anneal_train_step ",
        "anneal_train_loss{split=\"train\"}",
        "anneal_train_loss{split=\"validation\"}",
        "anneal_train_rows_per_second ",
        "anneal_train_last_checkpoint_timestamp_seconds ",
    ] {
        assert!(page.contains(name), "{name} is missing in\n{page}");
    }
}

#[test]
fn an_s3_service_that_lets_two_pods_create_one_file_is_refused() {
    use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};

    let world = World::new();
    // Takes every PUT, whatever its conditions, and has no objects.
    let listed = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let bucket = get(move || async move { listed });
    let object =
        get(|| async { StatusCode::NOT_FOUND }).put(|| async { [("etag", "\"1\"")].into_response() });
    let service = Router::new().route("/bucket", bucket).route("/bucket/{*key}", object);
    let listener = world.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    world.runtime.spawn(async move { axum::serve(listener, service).await });

    let mut command = world
        .desk()
        .command("train", &world.job("a", |job| job["spec"]["output"]["uri"] = "s3://bucket/m".into()));
    command.env("AWS_ENDPOINT_URL", format!("http://{address}")).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b").env("AWS_REGION", "us-east-1");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(world.desk().failure().contains("If-None-Match"));
}
