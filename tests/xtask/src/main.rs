//! Developer commands: `cargo xtask <command>`.
//!
//! Called by people, and by `.ci/run`. What a command makes for the caller goes to stdout, everything a person only
//! watches goes to stderr, and whatever is slow to make is kept in the cache folder outside the checkout, so a second
//! run, and a fresh clone in another folder, start warm.

mod bench;
mod cargo;
mod checkout;
mod cluster;
mod crds;
mod data;
mod demo;
mod image;
mod interrupt;
mod libtorch;
mod soak;
mod target;
mod test;
mod tools;
mod upgrade;

use std::io::Write as _;
use std::process::ExitCode;

use anneal_cluster::cache::Cache;
use anneal_cluster::progress::Progress;
use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::checkout::Checkout;

/// Developer commands of Anneal.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the main job from end to end on a throwaway Kubernetes, and tells how it goes
    Demo(demo::Options),
    /// Measures and prints a table and one JSON line
    Bench {
        /// What to measure
        #[command(subcommand)]
        which: bench::Which,
    },
    /// Writes the chart's custom resource definitions from the Rust types
    Crds,
    /// Makes the demo's data set and prints its folder
    Data,
    /// Checks everything: format, lints, licences, tests
    Test(test::Selection),
    /// Runs for hours: more worlds, mutated code, repeated kills; ends with one JSON line
    Soak(soak::Selection),
    /// Builds a container image and prints where its archive is
    Image {
        /// Which image
        which: image::Which,
    },
    /// Brings a throwaway Kubernetes up on this machine, or down
    Cluster {
        /// What to do
        #[command(subcommand)]
        action: cluster::Action,
    },
    /// Prepares libtorch and prints the shell line that cargo needs: eval "$(cargo xtask libtorch)"
    Libtorch,
}

/// What every command works with.
#[derive(Debug)]
struct Context {
    checkout: Checkout,
    cache: Cache,
    progress: Progress,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let context = Context { checkout: Checkout::find()?, cache: Cache::open()?, progress: Progress::new() };
    match &args.command {
        Command::Demo(options) => demo::run(&context, options),
        Command::Bench { which } => bench::run(&context, which),
        Command::Crds => crds::run(&context, crds::Mode::Write),
        Command::Data => print(&data::prepare(&context)?.display().to_string()),
        Command::Test(selection) => test::run(&context, *selection),
        Command::Soak(selection) => soak::run(&context, selection),
        Command::Image { which } => print(&image::build(&context, *which)?.display().to_string()),
        Command::Cluster { action } => cluster::run(&context, action),
        Command::Libtorch => print(&format!("export LIBTORCH='{}'", libtorch::prepare(&context)?.display())),
    }
}

fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write the result; give the command an open stdout")
}
