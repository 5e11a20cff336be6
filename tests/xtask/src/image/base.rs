//! The images that the Dockerfile starts from.
//!
//! Called by `image.rs`. They are fetched where an image registry can be reached; elsewhere images of the same names are
//! made from Debian packages and the Rust toolchain of this machine. What is built in either is the same: nothing of
//! a base but glibc and the C++ runtime, in the same Debian version, ends up in an image.

use std::path::Path;

use anneal_cluster::cache::{make_dir, remove_dir};
use anneal_cluster::sh::Cmd;
use anyhow::Result;

use super::store::Store;
use crate::Context;

const LABEL: &str = "dev.anneal.recipe";

/// A base image.
#[derive(Debug)]
pub(crate) struct Base {
    name: &'static str,
    packages: &'static str,
    rust: bool,
}

/// What builds the programs.
pub(crate) const RUST: Base = Base {
    name: "docker.io/library/rust:1.95.0-bookworm",
    packages: "ca-certificates,g++,gcc,libc6-dev",
    rust: true,
};

/// What fetches wheels.
pub(crate) const PYTHON: Base = Base {
    name: "docker.io/library/python:3.11-slim-bookworm",
    packages: "ca-certificates,python3,python3-pip",
    rust: false,
};

impl Base {
    /// What a base made here consists of.
    pub(crate) fn recipe(&self) -> String {
        format!("{} {} rust={}", self.name, self.packages, self.rust)
    }
}

/// Makes sure that the store has the image.
pub(crate) fn prepare(context: &Context, store: &Store, base: &Base) -> Result<()> {
    let format = format!("{{{{index .OCIv1.Config.Labels \"{LABEL}\"}}}}");
    let inspect = store.buildah(&["inspect", "--type", "image", "--format", &format, base.name]);
    match inspect.capture().as_deref().map(str::trim) {
        // Fetched, or made here by this recipe.
        Ok("" | "<no value>") => return Ok(()),
        Ok(recipe) if recipe == base.recipe() => return Ok(()),
        _ => {}
    }
    let pull = store.buildah(&["pull", "--quiet", base.name]).under("timeout", ["600"]);
    if pull.run(store.log()).is_ok() {
        return Ok(());
    }
    let step = context.progress.step(format!("Make {} from Debian packages", base.name));
    let folder = context.cache.root().join("images").join(if base.rust { "rust" } else { "python" });
    remove_dir(&folder)?;
    make_dir(&folder)?;
    make(store, base, &folder)?;
    remove_dir(&folder)?;
    step.done();
    Ok(())
}

fn make(store: &Store, base: &Base, folder: &Path) -> Result<()> {
    let rootfs = folder.join("rootfs.tar");
    Cmd::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", &format!("--include={}", base.packages)])
        // Nobody reads manuals in there.
        .args(["doc", "man", "locale"].map(|part| format!("--dpkgopt=path-exclude=/usr/share/{part}/*")))
        .arg("bookworm")
        .arg(&rootfs)
        .run(store.log())?;
    let container = store.buildah(&["from", "--pull-never", "scratch"]).capture()?;
    let container = container.trim();
    let run = |command: Cmd| command.run(store.log());
    run(store.buildah(&["add", "--quiet", container]).arg(&rootfs).arg("/"))?;
    if base.rust {
        let toolchain = Cmd::new("rustc").args(["+1.95.0", "--print", "sysroot"]).capture()?;
        let toolchain = Path::new(toolchain.trim());
        let copy = |what: &str| store.buildah(&["copy", "--quiet", container]).arg(toolchain.join(what));
        for program in ["bin/cargo", "bin/rustc"] {
            run(copy(program).arg("/usr/local/bin/"))?;
        }
        run(copy("lib").arg("/usr/local/lib"))?;
    }
    // As in the image of that name, so that the Dockerfile works in both.
    let path = "PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let label = format!("{LABEL}={}", base.recipe());
    let config = ["config", "--env", path, "--env", "CARGO_HOME=/usr/local/cargo", "--label", &label];
    run(store.buildah(&config).arg(container))?;
    run(store.buildah(&["commit", "--quiet", "--rm", container, base.name]))
}
