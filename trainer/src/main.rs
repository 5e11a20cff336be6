//! The command line: parses it, runs one command, and ends with the contract's exit code.

mod cli;
mod commands;

use std::{
    io::{Write, stderr},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use anneal_trainer::error::Failure;
use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let notice = command.notice();
    // A bug must be told from a bad job too, so a panic becomes a failure like others.
    let ended = catch_unwind(AssertUnwindSafe(|| run(command))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Failure::Panic(text.unwrap_or_else(|| "no message".to_owned())))
    });
    let code = ended.unwrap_or_else(|failure| {
        // Without a place to write, the exit code says it.
        let _ = writeln!(stderr(), "error: {failure}");
        if let Some(path) = notice {
            let written = anneal_trainer::notice::of_failure(&failure.to_string())
                .and_then(|text| anneal_trainer::notice::write(&path, &text));
            if let Err(second) = written {
                let _ = writeln!(stderr(), "error: {second}");
            }
        }
        failure.exit_code()
    });
    ExitCode::from(u8::try_from(code.code()).unwrap_or(1))
}

fn run(command: Command) -> Result<anneal_crds::contract::ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Failure::System { action: "start threads".to_owned(), source })?;
    match command {
        Command::Train(args) => commands::train(runtime.handle(), &args),
        Command::Report(args) => commands::report(runtime.handle(), &args),
        Command::Evaluate(args) => commands::evaluate(runtime.handle(), &args),
        Command::Serve(args) => commands::serve(runtime.handle(), args),
    }
}
