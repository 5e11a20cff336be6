//! What people have: kubectl and helm. The demo does nothing that they could not do.

use std::{ffi::OsString, path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

/// kubectl and helm, pointed at one cluster and one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    /// The kubectl program.
    pub(crate) kubectl: PathBuf,
    /// The helm program.
    pub(crate) helm: PathBuf,
    /// Kubeconfig file; none for the user's own.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; none for its current one.
    pub(crate) context: Option<String>,
}

impl Kubectl {
    /// Runs kubectl and returns what it prints.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<String> {
        self.call(&self.kubectl, "--context", args, None).await
    }

    /// Runs kubectl with standard input.
    pub(crate) async fn run_with(&self, args: &[&str], input: &[u8]) -> Result<String> {
        self.call(&self.kubectl, "--context", args, Some(input)).await
    }

    /// Runs helm and returns what it prints.
    pub(crate) async fn helm(&self, args: &[&str]) -> Result<String> {
        self.call(&self.helm, "--kube-context", args, None).await
    }

    /// Objects of one or several kinds in a namespace.
    pub(crate) async fn list(&self, kinds: &str, namespace: &str) -> Result<Vec<Value>> {
        let text = self.run(&["get", kinds, "-n", namespace, "-o", "json"]).await?;
        let mut list: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                Ok(vec![])
            }
        }
    }

    /// One object.
    pub(crate) async fn get<T: DeserializeOwned>(&self, what: &str, namespace: &str) -> Result<T> {
        let text = self.run(&["get", what, "-n", namespace, "-o", "json"]).await?;
        serde_json::from_str(&text).with_context(|| format!("{what} has an unknown shape"))
    }

    async fn call(
        &self,
        program: &PathBuf,
        context_flag: &str,
        args: &[&str],
        input: Option<&[u8]>,
    ) -> Result<String> {
        let mut command = Command::new(program);
        command.args(args.iter().map(OsString::from)).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        if let Some(context) = &self.context {
            command.args([context_flag, context]);
        }
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() }).kill_on_drop(true);
        let said = || format!("{} {}", program.display(), args.join(" "));
        let mut child = command
            .spawn()
            .with_context(|| format!("{} cannot be started; install it", program.display()))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input).await.with_context(said)?;
        }
        let output = child.wait_with_output().await.with_context(said)?;
        if !output.status.success() {
            bail!("{} failed: {}", said(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
