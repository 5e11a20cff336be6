//! Running the real programs: with a log file for what is slow, or with the output captured for what is asked.
//!
//! Called by everything here and in `xtask` that drives a program. Standard input is empty unless given, so nothing
//! can wait for a key, and an error always shows the command, the end of its output and where the rest is.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::cache::make_dir;

const TAIL_LINES: usize = 30;

/// A command to run.
#[derive(Debug, Clone)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    input: Option<Vec<u8>>,
}

impl Cmd {
    /// A command without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { program: program.as_ref().to_owned(), args: vec![], env: vec![], cwd: None, input: None }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it in a folder.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Gives it this standard input.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Puts a program and its arguments in front: `nsenter --net=… <this>`.
    #[must_use]
    pub fn under<A: AsRef<OsStr>>(mut self, program: &str, args: impl IntoIterator<Item = A>) -> Self {
        let mut all: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        all.push(std::mem::replace(&mut self.program, program.into()));
        all.append(&mut self.args);
        self.args = all;
        self
    }

    /// Runs it to its end with stdout and stderr appended to `log`; an error when it fails.
    pub fn run(&self, log: &Path) -> Result<()> {
        let mut file = open_log(log)?;
        writeln!(file, "$ {self}")
            .with_context(|| format!("cannot write {}; free some space", log.display()))?;
        let from = file.metadata().map(|meta| meta.len()).unwrap_or(0);
        let mut command = self.command();
        command.stdout(clone(&file, log)?).stderr(file);
        let mut child = command.spawn().with_context(|| self.cannot_start())?;
        self.feed(&mut child);
        let status = child.wait().with_context(|| format!("lost track of {self}; try again"))?;
        if status.success() {
            return Ok(());
        }
        let text = std::fs::read(log).unwrap_or_default();
        let own = String::from_utf8_lossy(text.get(from as usize..).unwrap_or_default()).into_owned();
        bail!(
            "{}\nThe whole output is in {}; fix what it names and try again.",
            self.failure(status, &own),
            log.display()
        )
    }

    /// Runs it to its end and returns its stdout; an error with its output when it fails.
    pub fn capture(&self) -> Result<String> {
        let mut command = self.command();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.cannot_start())?;
        self.feed(&mut child);
        let output = child.wait_with_output().with_context(|| format!("lost track of {self}; try again"))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        let all = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        bail!("{}\nFix what it names and try again.", self.failure(output.status, &all))
    }

    /// Starts it in a session of its own with its output in `log`, and returns its process id.
    ///
    /// It outlives the caller. `setsid` and `nsenter` replace themselves, so the id is the program's own.
    pub fn spawn_detached(&self, log: &Path) -> Result<u32> {
        let file = open_log(log)?;
        let detached = self.clone().under("setsid", ["--"; 0]);
        let mut command = detached.command();
        command.stdin(Stdio::null()).stdout(clone(&file, log)?).stderr(file);
        Ok(command.spawn().with_context(|| self.cannot_start())?.id())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        command
    }

    fn feed(&self, child: &mut std::process::Child) {
        if let (Some(input), Some(mut stdin)) = (self.input.clone(), child.stdin.take()) {
            // On a thread, else a program that writes before it has read all would block both.
            // A program that ends without reading shows in its exit status.
            std::thread::spawn(move || stdin.write_all(&input));
        }
    }

    fn cannot_start(&self) -> String {
        format!("cannot start {}; install it or put it on PATH", self.program.display())
    }

    fn failure(&self, status: ExitStatus, output: &str) -> String {
        format!("`{self}` failed ({status}). It ended with:\n{}", tail(output))
    }
}

impl std::fmt::Display for Cmd {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.program.display())?;
        self.args.iter().try_for_each(|arg| write!(out, " {}", arg.display()))
    }
}

/// The last lines of a text.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn open_log(log: &Path) -> Result<File> {
    if let Some(parent) = log.parent() {
        make_dir(parent)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open {}; make it writable", log.display()))
}

fn clone(file: &File, log: &Path) -> Result<File> {
    file.try_clone().with_context(|| format!("cannot share {}; raise the limit of open files", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Cmd {
        Cmd::new("sh").args(["-c", script])
    }

    #[test]
    fn capture_returns_stdout_only() {
        let out = sh("echo $GREETING; pwd; echo noise >&2").env("GREETING", "hi").cwd("/").capture().unwrap();
        assert_eq!(out, "hi\n/\n");
    }

    #[test]
    fn stdin_is_empty_or_what_was_given() {
        assert_eq!(sh("cat").capture().unwrap(), "");
        let big = "x".repeat(1 << 20);
        assert_eq!(sh("cat").input(big.clone()).capture().unwrap(), big);
    }

    #[test]
    fn a_failure_shows_the_last_lines_and_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("logs/x.log");
        sh("echo from before").run(&log).unwrap();
        let error = sh("seq 1 100; exit 3").run(&log).unwrap_err().to_string();
        assert!(
            error.contains("\n71\n") && error.contains("\n100\n") && !error.contains("\n70\n"),
            "{error}"
        );
        assert!(error.contains(log.to_str().unwrap()) && error.contains('3'), "{error}");
        assert!(std::fs::read_to_string(&log).unwrap().contains("from before"));
    }

    #[test]
    fn a_missing_program_says_so() {
        let error = Cmd::new("no-such-program-here").capture().unwrap_err().to_string();
        assert!(error.contains("install it"), "{error}");
    }

    #[test]
    fn a_wrapper_goes_in_front() {
        let cmd = Cmd::new("kubelet").arg("-v").under("nsenter", ["--net=/x"]);
        assert_eq!(cmd.to_string(), "nsenter --net=/x kubelet -v");
    }

    #[test]
    fn a_detached_program_has_its_own_session_and_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        let pid = sh("cut -d ' ' -f 6 /proc/$$/stat; echo $$").spawn_detached(&log).unwrap();
        let wanted = format!("{pid}\n{pid}\n");
        for _ in 0..200 {
            if std::fs::read_to_string(&log).unwrap() == wanted {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{:?} is not {wanted:?}", std::fs::read_to_string(&log));
    }
}
