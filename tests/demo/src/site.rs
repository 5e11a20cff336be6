//! Where the demo happens: a cluster, a checkout with the examples, and the names that everything goes by.
//!
//! Used by `install`, `expect` and the scenario.

use std::fs;

use anneal_cluster::progress::Progress;
use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Args, kubectl::Kubectl};

/// Namespace of the operator.
pub(crate) const SYSTEM: &str = "anneal-system";
/// Namespace of the model.
pub(crate) const HOME: &str = "anneal-demo";
/// Name of the Helm release.
pub(crate) const RELEASE: &str = "anneal";

/// The cluster and the checkout.
pub(crate) struct Site {
    pub(crate) args: Args,
    pub(crate) kubectl: Kubectl,
    pub(crate) progress: Progress,
}

impl Site {
    /// Starts a chapter of the story.
    pub(crate) fn chapter(&self, title: &str) {
        self.progress.say(&format!("\n{title}"));
    }

    /// Text of one of the examples.
    pub(crate) fn example(&self, file: &str) -> Result<String> {
        let path = self.args.repository.join("examples/car-loan").join(file);
        fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read; restore it with git", path.display()))
    }

    /// Applies one of the examples with the trainer's image of this run.
    pub(crate) async fn apply(&self, file: &str) -> Result<()> {
        let text = self.example(file)?.replace("anneal/trainer:0.1.0", &self.args.trainer_image);
        self.apply_text(&text).await
    }

    /// Applies a manifest in the model's namespace.
    pub(crate) async fn apply_text(&self, text: &str) -> Result<()> {
        self.kubectl.run_with(&["apply", "-n", HOME, "-f", "-"], text.as_bytes()).await.map(drop)
    }

    /// Where clients send: the gateway's address and the model's path.
    pub(crate) async fn address(&self) -> Result<String> {
        let gateway: Value = self.kubectl.get("gateway/models", HOME).await?;
        let address = gateway["status"]["addresses"][0]["value"].as_str().context(
            "the gateway has no address; look at `kubectl describe gateway models -n anneal-demo`",
        )?;
        Ok(format!("http://{address}/v2/models/car-loan/infer"))
    }
}
