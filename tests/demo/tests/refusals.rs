//! Bad input on a real API server: refused at `kubectl apply` with field and reason, or told in a condition with the next
//! step. `cargo xtask test` runs this on its cluster, with Anneal installed, and says where by the environment.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests"
)]

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Most time for a condition after the cluster knows; the test allows more only for the cluster itself.
const PATIENCE: Duration = Duration::from_secs(90);

struct Kubectl;

impl Kubectl {
    fn run(args: &[&str], input: Option<&str>) -> Result<String, String> {
        let program =
            env::var("ANNEAL_TEST_KUBECTL").expect("cargo xtask test runs this and sets ANNEAL_TEST_KUBECTL");
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.unwrap_or_default().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn apply(namespace: &str, object: &Value, dry_run: bool) -> Result<String, String> {
        let mut args = vec!["apply", "-n", namespace, "-f", "-"];
        if dry_run {
            args.push("--dry-run=server");
        }
        Self::run(&args, Some(&object.to_string()))
    }
}

/// A namespace of its own that goes with the test.
struct Namespace(&'static str);

impl Namespace {
    fn new(name: &'static str) -> Self {
        let _ = Kubectl::run(&["delete", "namespace", name, "--ignore-not-found"], None);
        Kubectl::run(&["create", "namespace", name], None).unwrap();
        Self(name)
    }

    /// Waits until a condition of `what` has this reason, and returns its message.
    fn reason(&self, what: &str, reason: &str) -> String {
        let started = Instant::now();
        loop {
            let text = Kubectl::run(&["get", what, "-n", self.0, "-o", "json"], None).unwrap();
            let object: Value = serde_json::from_str(&text).unwrap();
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if let Some(found) = conditions.iter().find(|condition| condition["reason"] == reason) {
                return found["message"].as_str().unwrap().to_owned();
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{what} has no condition with reason {reason}: {conditions:?}"
            );
            sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Kubectl::run(&["delete", "namespace", self.0, "--wait=false"], None);
    }
}

fn example(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/car-loan").join(file);
    let text = fs::read_to_string(&path).unwrap();
    let image =
        env::var("ANNEAL_TEST_TRAINER_IMAGE").expect("cargo xtask test sets ANNEAL_TEST_TRAINER_IMAGE");
    serde_saphyr::from_str(&text.replace("anneal/trainer:0.1.0", &image)).unwrap()
}

/// `object` with one value replaced.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

fn without(mut object: Value, pointer: &str) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
    object
}

#[test]
fn every_example_is_accepted() {
    let home = Namespace::new("anneal-examples");
    for file in [
        "retrainjob-first.yaml",
        "retrainjob.yaml",
        "modelrollout.yaml",
        "demo/modelrollout.yaml",
        "demo/retrainjob-flipped.yaml",
        "demo/retrainjob-again.yaml",
        "demo/retrainjob-faulty.yaml",
        "gateway.yaml",
        "storage.yaml",
    ] {
        Kubectl::apply(home.0, &example(file), true).unwrap();
    }
}

#[test]
fn a_wrong_object_is_refused_with_field_and_reason() {
    let home = Namespace::new("anneal-refusals");
    let job = || example("retrainjob.yaml");
    let rollout = || example("modelrollout.yaml");
    let cases = [
        (without(job(), "/spec/model"), "spec.model"),
        (with(job(), "/spec/modle", json!("x")), "spec.modle"),
        (with(job(), "/spec/model", json!("Car Loan")), "spec.model"),
        (
            with(job(), "/spec/gates", json!([{"value": {"metric": "accuracy", "min": 0.8}}])),
            "gates must contain ironLaw",
        ),
        (
            with(job(), "/spec/gates/1/value", json!({"metric": "accuracy"})),
            "a value gate needs min, max or both",
        ),
        (
            with(job(), "/spec/gates/1/value", json!({"metric": "beauty", "min": 1.0})),
            "spec.gates[1].value.metric",
        ),
        (
            with(job(), "/spec/data/split", json!({"validationFraction": 0.1, "key": "id"})),
            "exactly one of validation",
        ),
        (without(job(), "/spec/data/validation"), "exactly one of validation"),
        (with(job(), "/spec/data/train/uri", json!("data.parquet")), "spec.data.train.uri"),
        (with(job(), "/spec/training/epochs", json!(0)), "spec.training.epochs"),
        (with(job(), "/spec/training/dropout", json!(1.0)), "spec.training.dropout"),
        (with(job(), "/spec/checkpoint/every", json!("soon")), "spec.checkpoint.every"),
        (with(job(), "/spec/failurePolicy/activeDeadline", json!("1w")), "spec.failurePolicy.activeDeadline"),
        (with(job(), "/metadata/name", json!("a".repeat(53))), "at most 52 characters"),
        (
            with(
                with(job(), "/spec/baseline/whenMissing", json!("Bootstrap")),
                "/spec/gates",
                json!([{"ironLaw": {}}]),
            ),
            "needs a required value gate",
        ),
        (
            with(rollout(), "/spec/strategy/rollbackTriggers", json!(["eror_rate"])),
            "names a metric that metrics does not define",
        ),
        (with(rollout(), "/spec/judge/evidence", json!("bayes")), "spec.judge.evidence"),
        (without(rollout(), "/spec/judge"), "spec.judge"),
        (with(rollout(), "/spec/strategy/canary/initial", json!(0)), "spec.strategy.canary.initial"),
        (with(rollout(), "/spec/strategy/canary/max", json!(5)), "initial must not be above max"),
        (
            with(rollout(), "/spec/metrics/1/histogram/quantile", json!(95)),
            "quantile must lie between 0 and 1",
        ),
        (with(rollout(), "/spec/metrics/0/ratio/max", json!(1.5)), "spec.metrics[0].ratio.max"),
        (with(rollout(), "/spec/metrics/0/ratio/bad", json!("rate(x[5m])")), "spec.metrics[0].ratio.bad"),
        (with(rollout(), "/spec/prometheus/url", json!("prometheus:9090")), "spec.prometheus.url"),
        (with(rollout(), "/spec/candidate", json!({"version": "latest"})), "spec.candidate.version"),
    ];
    for (object, said) in cases {
        let refusal = Kubectl::apply(home.0, &object, true).expect_err(said);
        assert!(refusal.contains(said), "expected `{said}` in: {refusal}");
    }
}

#[test]
fn a_run_cannot_be_changed_after_it_was_created() {
    let home = Namespace::new("anneal-immutable");
    Kubectl::apply(home.0, &example("retrainjob.yaml"), false).unwrap();
    let changed = with(example("retrainjob.yaml"), "/spec/training/epochs", json!(99));
    assert!(Kubectl::apply(home.0, &changed, true).unwrap_err().contains("spec is immutable"));
}

#[test]
fn what_is_missing_becomes_a_condition_that_says_what_to_do() {
    let home = Namespace::new("anneal-missing");
    // Without a rollout there is nothing to compare with.
    Kubectl::apply(home.0, &example("retrainjob.yaml"), false).unwrap();
    assert!(home.reason("rtj/car-loan-recent", "BaselineMissing").contains("Create it"));

    let first = |name: &str| with(example("retrainjob-first.yaml"), "/metadata/name", json!(name));
    Kubectl::apply(home.0, &first("no-claim"), false).unwrap();
    assert!(home.reason("rtj/no-claim", "Unschedulable").contains("PersistentVolumeClaim"));

    let s3 = json!({"s3": {"secretName": "keys", "endpoint": "http://127.0.0.1:9"}});
    let no_secret =
        with(with(first("no-secret"), "/spec/storage", s3.clone()), "/spec/output/uri", json!("s3://b/m"));
    Kubectl::apply(home.0, &no_secret, false).unwrap();
    assert!(home.reason("rtj/no-secret", "CreateContainerConfigError").contains("Secret"));

    let no_image = with(
        with(first("no-image"), "/spec/storage", s3),
        "/spec/trainer/image",
        json!("anneal.test/absent:1"),
    );
    let no_image = with(no_image, "/spec/trainer/imagePullPolicy", json!("Never"));
    Kubectl::apply(home.0, &no_image, false).unwrap();
    assert!(home.reason("rtj/no-image", "ErrImageNeverPull").contains("image"));

    // A rollout without versions says how to get one.
    Kubectl::apply(home.0, &example("modelrollout.yaml"), false).unwrap();
    assert!(home.reason("mro/car-loan", "NoVersion").contains("RetrainJob"));
    let pinned = with(example("modelrollout.yaml"), "/spec/candidate", json!({"version": "v20200101.1"}));
    Kubectl::apply(home.0, &pinned, false).unwrap();
    home.reason("mro/car-loan", "VersionMissing");
}
