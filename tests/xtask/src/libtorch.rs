//! libtorch for this machine, without a GPU: what tch builds and runs against.
//!
//! Called by `cargo xtask libtorch` and by every command that builds the trainer. The recipe is `trainer/libtorch.py`,
//! the one that the Dockerfile uses too.

use std::path::PathBuf;

use anneal_cluster::sh::Cmd;
use anyhow::{Context as _, Result};

use crate::Context;

const RECIPE: &str = "trainer/libtorch.py";

/// The folder for `LIBTORCH`, made on first use.
pub(crate) fn prepare(context: &Context) -> Result<PathBuf> {
    let recipe = context.checkout.root().join(RECIPE);
    let text =
        std::fs::read(&recipe).with_context(|| format!("cannot read {RECIPE}; restore it with git"))?;
    context.cache.entry("libtorch", &[text]).get_or_build(|folder| {
        let step = context.progress.step("Download libtorch (530 MB)");
        Cmd::new("python3")
            .arg(&recipe)
            .args(["cpu".as_ref(), folder.as_os_str()])
            .run(&context.cache.log("libtorch"))
            .context("libtorch is missing; python3 with pip and a reachable package index are needed")?;
        step.done();
        Ok(())
    })
}
