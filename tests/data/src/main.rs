//! `anneal-data car-loan --source FOLDER --out FOLDER`: makes the demo's data.

use std::{
    io::{Write, stdout},
    path::PathBuf,
};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The car-loan set of NannyML. First: `pip download --no-deps nannyml && python3 -m zipfile -e nannyml-*.whl FOLDER`.
    CarLoan {
        /// Folder into which the wheel was unpacked.
        #[arg(long)]
        source: PathBuf,
        /// Folder for the Parquet files.
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> Result<()> {
    let Command::CarLoan { source, out } = Cli::parse().command;
    for file in anneal_data::car_loan(&source, &out)? {
        writeln!(stdout(), "{}: {} rows", file.path.display(), file.rows)?;
    }
    Ok(())
}
