//! `cargo xtask crds`: writes the chart's custom resource definitions from the Rust types, or checks that they are so.

use anyhow::Result;

use crate::{Context, cargo::Cargo};

const FOLDER: &str = "charts/anneal/templates/crds";

/// What to do with a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Overwrite it.
    Write,
    /// Fail.
    Check,
}

/// Does it.
pub(crate) fn run(context: &Context, mode: Mode) -> Result<()> {
    let step = context.progress.step("Make the custom resource definitions from the types");
    let mut args = vec!["run", "--quiet", "--locked", "--package", "anneal-crds", "--bin", "crdgen", "--"];
    if mode == Mode::Check {
        args.push("--check");
    }
    args.push(FOLDER);
    Cargo::prepare(context)?.command(&args).run(&context.cache.log("crds"))?;
    step.done();
    Ok(())
}
