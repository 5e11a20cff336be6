//! Cargo as a child of a developer command.
//!
//! Called by every command that builds or tests crates. A child gets libtorch and this checkout's build folder in the
//! cache, so it neither waits for the build lock of the `cargo xtask` around it nor starts cold in a fresh clone.

use std::path::{Path, PathBuf};

use anneal_cluster::sh::Cmd;
use anyhow::Result;

use crate::{Context, libtorch, target};

/// What child cargos share.
#[derive(Debug)]
pub(crate) struct Cargo {
    root: PathBuf,
    libtorch: PathBuf,
    target: PathBuf,
}

impl Cargo {
    /// Makes libtorch and the build folder ready.
    pub(crate) fn prepare(context: &Context) -> Result<Self> {
        let libtorch = libtorch::prepare(context)?;
        let target = target::prepare(context)?;
        Ok(Self { root: context.checkout.root().to_owned(), libtorch, target })
    }

    /// The build folder.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// A cargo command in the checkout's root.
    pub(crate) fn command(&self, args: &[&str]) -> Cmd {
        Cmd::new("cargo")
            .args(args)
            .cwd(&self.root)
            .env("LIBTORCH", &self.libtorch)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_TERM_COLOR", "never")
    }
}
