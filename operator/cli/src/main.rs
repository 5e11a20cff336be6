//! `kubectl-anneal`: what a user asks of Anneal at a terminal. As `kubectl anneal` once it is on the PATH.

mod bench;

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};

/// Asks Anneal.
#[derive(Parser)]
#[command(name = "kubectl-anneal", bin_name = "kubectl anneal", version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the judge, and the rules of Argo Rollouts and Flagger, over the same simulated rollouts.
    JudgeBench(bench::Options),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = std::io::stdout().lock();
    let result = match args.command {
        Command::JudgeBench(options) => bench::run(&options, &mut out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed pipe cannot be told that it is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
