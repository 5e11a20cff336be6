//! `cargo xtask bench`: the measurements that README and issues quote.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::{Context, cargo::Cargo};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// One decision of each kind
    Plan,
}

/// Builds it as it ships, and runs it.
pub(crate) fn run(context: &Context, which: Which) -> Result<()> {
    let package = match which {
        Which::Plan => "anneal-bench",
    };
    let step = context.progress.step("Build the benchmark");
    let cargo = Cargo::prepare(context)?;
    cargo
        .command(&["build", "--release", "--locked", "--package", package])
        .run(&context.cache.log("bench"))?;
    step.done();
    let program = cargo.target().join("release").join(package);
    let status =
        Command::new(program).stdin(Stdio::null()).status().context("the benchmark cannot be started")?;
    ensure!(status.success(), "the benchmark failed; its last lines say why");
    Ok(())
}
