//! `cargo xtask test`: everything a change must pass.
//!
//! Called by people and by `.ci/run`. It runs on a machine without a GPU, stops at the first failure, and says where
//! the whole output is.

use anneal_cluster::sh::Cmd;
use anyhow::Result;

use crate::cargo::Cargo;
use crate::{Context, tools};

/// Runs all checks, the quick ones first.
pub(crate) fn run(context: &Context) -> Result<()> {
    let cargo = Cargo::prepare(context)?;
    let step = |what: &str, args: &[&str]| {
        let step = context.progress.step(what);
        cargo.command(args).run(&context.cache.log("test"))?;
        step.done();
        Ok(())
    };
    step("Check the format", &["fmt", "--all", "--check", "--", "--color", "never"])?;
    licences(context)?;
    step("Lint", &["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    step("Test", &["test", "--locked", "--workspace"])
}

fn licences(context: &Context) -> Result<()> {
    let deny = tools::cargo_deny(context)?;
    let step = context.progress.step("Check licences and sources of dependencies");
    Cmd::new(deny)
        // Warnings are for whoever asks `cargo deny check`; here they would bury the error.
        .args(["--log-level", "error", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"])
        .cwd(context.checkout.root())
        .run(&context.cache.log("test"))?;
    step.done();
    Ok(())
}
