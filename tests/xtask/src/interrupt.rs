//! Ctrl-C and its kin while a throwaway cluster is up: the cluster outlives its maker, so somebody has to take it down.
//!
//! Called by `demo`. Without a cluster an interrupt ends this program as ever. With one it first ends the demo, and then
//! becomes `cargo xtask cluster down`, or says how to use what stays. A second interrupt ends that too.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What an interrupt finds; a process has one set of signal handlers, so there is one of it.
static STATE: Mutex<State> = Mutex::new(State { watched: false, cluster: None, child: None });

#[derive(Debug)]
struct State {
    watched: bool,
    cluster: Option<Cluster>,
    child: Option<Child>,
}

#[derive(Debug, Clone)]
struct Cluster {
    name: String,
    stays: bool,
}

/// From now on, an interrupt takes this cluster down, or says how to use it if it `stays`.
pub(crate) fn on_interrupt(name: &str, stays: bool) -> Result<()> {
    let program = std::env::current_exe().context("this program's file is unknown; build it again")?;
    let mut state = state();
    state.cluster = Some(Cluster { name: name.to_owned(), stays });
    if !state.watched {
        // Who starts this under nohup wants it to go on.
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let mut signals = Signals::new(wanted).context("interrupts cannot be watched; try again")?;
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                interrupted(signal, &program);
            }
        });
        state.watched = true;
    }
    Ok(())
}

/// The signals that are ignored, lowest bit first, as the kernel tells them.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Runs a program to its end, or until an interrupt ends it.
pub(crate) fn wait(mut command: Command) -> Result<ExitStatus> {
    let program = command.get_program().to_owned();
    let child =
        command.spawn().with_context(|| format!("cannot start {}; build it again", program.display()))?;
    state().child = Some(child);
    loop {
        // The lock is let go in between: who interrupts needs the child.
        if let Some(child) = &mut state().child
            && let Some(status) = child.try_wait().context("the demo was lost sight of; try again")?
        {
            return Ok(status);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn interrupted(signal: i32, program: &Path) {
    // Held to the end: nothing else is started.
    let mut state = state();
    if let Some(child) = &mut state.child {
        // One that has ended is as good.
        let _ = child.kill();
        let _ = child.wait();
    }
    let code = 128 + signal;
    match state.cluster.clone() {
        Some(Cluster { name, stays: false }) => {
            say(&format!("\ninterrupted; taking the cluster {name} down"));
            // This process may hold the cluster's lock. What replaces it does not.
            let error = take_down(program, &name, code).exec();
            say(&format!("that cannot be started: {error}; run `cargo xtask cluster down --name {name}`"));
        }
        Some(Cluster { name, stays: true }) => {
            say(&format!("\ninterrupted; the cluster {name} stays"));
            say(&format!("  cargo xtask cluster status --name {name}"));
            say(&format!("  cargo xtask cluster down --name {name}"));
        }
        None => {}
    }
    std::process::exit(code)
}

/// The command that takes a cluster down and then ends as an interrupted program does.
fn take_down(program: &Path, name: &str, code: i32) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" cluster down --name \"$1\"; exit \"$2\""]);
    command.arg(program).args([name, &code.to_string()]);
    command
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say(line: &str) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_demo_takes_its_cluster_down_and_still_fails() {
        let output = take_down(Path::new("echo"), "demo", 130).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "cluster down --name demo\n");
        assert_eq!(output.status.code(), Some(130));
    }

    #[test]
    fn signals_that_were_ignored_from_the_start_stay_so() {
        let under_nohup = ignored("Name:\txtask\nSigIgn:\t0000000000001001\nSigCgt:\t00\n");
        assert_eq!(under_nohup >> (SIGHUP - 1) & 1, 1);
        assert_eq!(under_nohup >> (SIGINT - 1) & 1, 0);
        assert_eq!(ignored(""), 0);
    }

    #[test]
    fn a_program_that_nobody_interrupts_ends_as_it_likes() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        assert_eq!(wait(command).unwrap().code(), Some(3));
        assert!(wait(Command::new("no-such-program-here")).unwrap_err().to_string().contains("cannot start"));
    }
}
