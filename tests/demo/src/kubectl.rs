//! What people have: kubectl and helm. The demo does nothing that they could not do.
//!
//! Called by every part of the demo. Every call ends: by itself, or because its time is over.

use std::{
    ffi::OsString,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};

/// Longest that a question to the API server may take.
const QUESTION: Duration = Duration::from_secs(60);
/// Longest that kubectl or helm are told to wait for something.
pub(crate) const WAIT: &str = "300s";
/// Longest that such a call may take: its wait, and a copy or a chart besides.
const WAITING: Duration = Duration::from_secs(420);

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
        self.call(self.kubectl(args), args, None, QUESTION).await
    }

    /// Runs kubectl with standard input.
    pub(crate) async fn run_with(&self, args: &[&str], input: &[u8]) -> Result<String> {
        self.call(self.kubectl(args), args, Some(input), QUESTION).await
    }

    /// Runs a kubectl that waits for something, with standard input if there is any.
    pub(crate) async fn wait(&self, args: &[&str], input: Option<&[u8]>) -> Result<String> {
        self.call(self.kubectl(args), args, input, WAITING).await
    }

    /// Runs a helm that may wait for something, and returns what it prints.
    pub(crate) async fn helm(&self, args: &[&str]) -> Result<String> {
        self.call(self.command(&self.helm, "--kube-context", args), args, None, WAITING).await
    }

    /// Objects of one or several kinds in a namespace.
    pub(crate) async fn list(&self, kinds: &str, namespace: &str) -> Result<Vec<Value>> {
        items(&self.run(&["get", kinds, "-n", namespace, "-o", "json"]).await?)
    }

    /// Every namespace.
    pub(crate) async fn namespaces(&self) -> Result<Vec<Value>> {
        items(&self.run(&["get", "namespaces", "-o", "json"]).await?)
    }

    /// One object.
    pub(crate) async fn get<T: DeserializeOwned>(&self, what: &str, namespace: &str) -> Result<T> {
        let text = self.run(&["get", what, "-n", namespace, "-o", "json"]).await?;
        serde_json::from_str(&text).with_context(|| format!("{what} has an unknown shape"))
    }

    /// One object of no namespace, if it is there.
    pub(crate) async fn find(&self, what: &str) -> Result<Option<Value>> {
        let text = self.run(&["get", what, "--ignore-not-found", "-o", "json"]).await?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).map(Some).with_context(|| format!("{what} has an unknown shape"))
    }

    fn kubectl(&self, args: &[&str]) -> Command {
        self.command(&self.kubectl, "--context", args)
    }

    fn command(&self, program: &Path, context_flag: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args.iter().map(OsString::from));
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        if let Some(context) = &self.context {
            command.args([context_flag, context]);
        }
        command
    }

    async fn call(
        &self,
        mut command: Command,
        args: &[&str],
        input: Option<&[u8]>,
        limit: Duration,
    ) -> Result<String> {
        let program = command.as_std().get_program().display().to_string();
        let said = || format!("{program} {}", args.join(" "));
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        // One whose time is over is killed when it is dropped.
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("{program} cannot be started; install it"))?;
        let Ok(output) = timeout(limit, feed(child, input)).await else {
            bail!(
                "{} did not end within {} s; look whether the cluster answers, and try again",
                said(),
                limit.as_secs()
            )
        };
        let output = output.with_context(said)?;
        if !output.status.success() {
            bail!("{} failed: {}", said(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Writes its input while its output is read, so that neither waits for the other.
async fn feed(mut child: Child, input: Option<&[u8]>) -> std::io::Result<Output> {
    let stdin = child.stdin.take();
    let write = async {
        let (Some(input), Some(mut stdin)) = (input, stdin) else { return Ok(()) };
        match stdin.write_all(input).await {
            // A program that ends before it has read everything says why on its stderr.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    };
    let (written, output) = tokio::join!(write, child.wait_with_output());
    written.and(output)
}

fn items(text: &str) -> Result<Vec<Value>> {
    let mut list: Value = serde_json::from_str(text).context("kubectl printed no JSON")?;
    match list["items"].take() {
        Value::Array(items) => Ok(items),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Ok(vec![]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Kubectl {
        Kubectl { kubectl: "sh".into(), helm: "sh".into(), kubeconfig: None, context: None }
    }

    #[tokio::test]
    async fn a_program_that_ends_without_reading_its_input_is_quoted() {
        let big = vec![b'x'; 1 << 20];
        let error = shell().run_with(&["-c", "echo no such namespace >&2; exit 1"], &big).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("no such namespace") && !error.contains("roken pipe"), "{error}");
    }

    #[tokio::test]
    async fn input_and_output_larger_than_a_pipe_do_not_block_each_other() {
        let big = vec![b'x'; 1 << 20];
        assert_eq!(shell().run_with(&["-c", "cat"], &big).await.unwrap().len(), big.len());
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_given_up() {
        let (shell, args) = (shell(), ["-c", "sleep 1000"]);
        let limit = Duration::from_millis(50);
        let error = shell.call(shell.kubectl(&args), &args, None, limit).await.unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
    }

    #[test]
    fn a_list_has_its_items_and_anything_else_has_none() {
        assert_eq!(items(r#"{"items": [1, 2]}"#).unwrap().len(), 2);
        assert!(items("{}").unwrap().is_empty());
        assert!(items("Error").is_err());
    }
}
