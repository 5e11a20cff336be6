//! kubectl on the measured cluster.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Namespace of the demo: its volume, gateway and versions are there.
const HOME: &str = "anneal-demo";

/// The measured cluster.
pub(crate) struct Cluster {
    pub(crate) kubectl: PathBuf,
    pub(crate) image: String,
}

impl Cluster {
    /// Runs kubectl and returns what it prints.
    pub(crate) fn run(&self, args: &[&str], input: &str) -> Result<String> {
        let mut child = Command::new(&self.kubectl)
            .args(["--namespace", HOME])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", self.kubectl.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).context("kubectl ended early")?;
        }
        let output = child.wait_with_output().context("kubectl was lost")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {} failed: {}", args.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Creates an object.
    pub(crate) fn create(&self, object: &Value) -> Result<()> {
        self.run(&["create", "-f", "-"], &object.to_string()).map(drop)
    }

    /// One object.
    pub(crate) fn get(&self, what: &str) -> Result<Value> {
        let text = self.run(&["get", what, "-o", "json"], "")?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Waits until an object is as `is` says.
    pub(crate) fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        for _ in 0..360 {
            last = self.get(what)?;
            if is(&last) {
                return Ok(last);
            }
            sleep(Duration::from_millis(500));
        }
        bail!("waited three minutes for {what}, which is {}", last["status"])
    }

    /// An example of the repository with this cluster's image, under another name.
    pub(crate) fn example(&self, file: &str, name: &str) -> Result<Value> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/car-loan").join(file);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut object: Value = serde_saphyr::from_str(&text.replace("anneal/trainer:0.1.0", &self.image))
            .with_context(|| format!("{} is no YAML", path.display()))?;
        object["metadata"]["name"] = name.into();
        Ok(object)
    }
}
