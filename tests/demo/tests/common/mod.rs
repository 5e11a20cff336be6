//! kubectl, as tests use it on the cluster of `cargo xtask test`, which says by the environment where that is.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests; every test file uses another part"
)]

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

pub mod delivery;

/// Most time for a condition after the cluster knows; the test allows more only for the cluster itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// A variable of the environment.
pub fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo xtask test runs this and sets {name}"))
}

/// The program.
pub struct Kubectl;

impl Kubectl {
    /// Runs it and returns what it prints, or its error.
    pub fn run(args: &[&str], input: Option<&str>) -> Result<String, String> {
        let mut child = Command::new(variable("ANNEAL_TEST_KUBECTL"))
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

    /// Applies an object.
    pub fn apply(namespace: &str, object: &Value, dry_run: bool) -> Result<String, String> {
        let mut args = vec!["apply", "-n", namespace, "-f", "-"];
        if dry_run {
            args.push("--dry-run=server");
        }
        Self::run(&args, Some(&object.to_string()))
    }
}

/// A namespace of its own that goes with the test.
pub struct Namespace(pub &'static str);

impl Namespace {
    /// Makes it anew.
    pub fn new(name: &'static str) -> Self {
        let _ = Kubectl::run(&["delete", "namespace", name, "--ignore-not-found"], None);
        Kubectl::run(&["create", "namespace", name], None).unwrap();
        Self(name)
    }

    /// Waits until a condition of `what` has this reason, and returns its message.
    pub fn reason(&self, what: &str, reason: &str) -> String {
        reason_in(self.0, what, reason)
    }
}

/// Waits until a condition of `what` in a namespace has this reason, and returns its message.
pub fn reason_in(namespace: &str, what: &str, reason: &str) -> String {
    let started = Instant::now();
    loop {
        let text = Kubectl::run(&["get", what, "-n", namespace, "-o", "json"], None).unwrap();
        let object: Value = serde_json::from_str(&text).unwrap();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if let Some(found) = conditions.iter().find(|condition| condition["reason"] == reason) {
            return found["message"].as_str().unwrap().to_owned();
        }
        assert!(started.elapsed() < PATIENCE, "{what} has no condition with reason {reason}: {conditions:?}");
        sleep(Duration::from_millis(500));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Kubectl::run(&["delete", "namespace", self.0, "--wait=false"], None);
    }
}

/// Deletes the versions of a model, whatever its rollout, of the same name, still says of them.
pub fn forget(namespace: &str, model: &str) {
    let of_model = format!("anneal.dev/model={model}");
    let insist = "anneal.dev/delete-anyway=the test is over";
    let _ = Kubectl::run(&["annotate", "mv", "-n", namespace, "-l", &of_model, insist, "--overwrite"], None);
    let _ = Kubectl::run(&["delete", "mv", "-n", namespace, "-l", &of_model], None);
}

/// An example with the image of this cluster.
pub fn example(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/car-loan").join(file);
    let text = fs::read_to_string(&path).unwrap();
    let image = variable("ANNEAL_TEST_TRAINER_IMAGE");
    serde_saphyr::from_str(&text.replace("anneal/trainer:0.1.0", &image)).unwrap()
}

/// `object` with one value replaced.
pub fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

/// `object` without one value.
pub fn without(mut object: Value, pointer: &str) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
    object
}
