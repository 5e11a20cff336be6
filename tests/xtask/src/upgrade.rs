//! `cargo xtask soak upgrade`: operators of an earlier release and of this one take turns while rollouts are on their way.
//!
//! Called by `soak`. The earlier one is built from a revision of this repository, under an earlier version number: a release keeps
//! the pods of another one, and knows it by its number.

use std::path::{Path, PathBuf};

use anneal_cluster::{
    Cluster,
    cache::{make_dir, remove_dir},
    sh::Cmd,
};
use anyhow::{Context as _, Result};

use crate::{
    Context,
    cargo::Cargo,
    demo::{self, Options},
    image::{self, Which},
    test,
};

const CLUSTER: &str = "soak";
/// Name of the earlier operator's image.
const EARLIER: &str = "anneal.test/operator:earlier";
/// Version number that the earlier operator is built with.
const NUMBER: &str = "0.0.1";

/// Plays it on a throwaway cluster.
pub(crate) fn run(context: &Context, cargo: &Cargo, from: &str) -> Result<()> {
    let earlier = build(context, from)?;
    Cluster::down(CLUSTER, &context.progress)?;
    demo::run(context, &Options::throwaway(CLUSTER, &[]))?;
    let cluster = Cluster::attach(CLUSTER)?;
    // Both archives have the same name inside.
    cluster.load_image(&earlier)?;
    cluster.tag_image(&Which::Operator.name(), EARLIER)?;
    cluster.load_image(&image::build(context, Which::Operator)?)?;
    let tests = ["--test", "upgrade", "--", "--include-ignored"];
    let command = test::on_demo_cluster(context, cargo, &cluster, &tests)?
        .env("ANNEAL_TEST_OPERATOR_IMAGE", Which::Operator.name())
        .env("ANNEAL_TEST_EARLIER_OPERATOR_IMAGE", EARLIER);
    test::count(context, &format!("Upgrade from {from} and back"), &command)?;
    Cluster::down(CLUSTER, &context.progress)
}

/// The archive of the operator at a revision.
fn build(context: &Context, from: &str) -> Result<PathBuf> {
    let step = context.progress.step(format!("Build the operator of {from}"));
    let git = |args: &[&str]| Cmd::new("git").args(args).cwd(context.checkout.root());
    let folder = context.cache.root().join("upgrade");
    remove_dir(&folder)?;
    make_dir(context.cache.root())?;
    git(&["worktree", "prune"]).capture()?;
    let path = folder.to_str().context("the cache's path is no text; set ANNEAL_CACHE to another folder")?;
    git(&["worktree", "add", "--detach", path, from]).capture()?;
    let built = number(&folder).and_then(|()| {
        let said = Cmd::new("cargo").args(["xtask", "image", "operator"]).cwd(&folder).capture()?;
        said.lines().last().map(PathBuf::from).context("cargo xtask image says no path")
    });
    git(&["worktree", "remove", "--force", path]).capture()?;
    step.done();
    built
}

/// Gives the crates of a checkout the earlier version number.
fn number(checkout: &Path) -> Result<()> {
    let own = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
    let earlier = format!("version = \"{NUMBER}\"");
    for (file, changed) in [("Cargo.toml", "[workspace.package]"), ("Cargo.lock", "name = \"anneal-")] {
        let path = checkout.join(file);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let parts = text.split("\n\n").map(|part| {
            if part.contains(changed) { part.replacen(&own, &earlier, 1) } else { part.to_owned() }
        });
        let text = parts.collect::<Vec<_>>().join("\n\n");
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
