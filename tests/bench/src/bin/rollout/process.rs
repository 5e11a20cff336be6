//! A measured program: its processor time and its memory, as the kernel counts them.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Ticks of processor time in a second: the same on every Linux that we know.
const TICKS: f64 = 100.0;

/// A program that runs until this is dropped.
pub(crate) struct Process(Child);

/// What a program takes while nothing happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) cores: f64,
    pub(crate) megabytes: f64,
}

impl Process {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let out = log.try_clone().context("the log cannot be shared")?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(log).spawn();
        Ok(Self(child.with_context(|| format!("{:?} cannot be started", command.get_program()))?))
    }

    /// Looks on for a while.
    pub(crate) async fn cost(&self, span: Duration) -> Result<Cost> {
        #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
        let begin = Instant::now();
        let before = self.seconds()?;
        tokio::time::sleep(span).await;
        let cores = (self.seconds()? - before) / begin.elapsed().as_secs_f64();
        Ok(Cost { cores, megabytes: self.megabytes()? })
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0.id());
        fs::read_to_string(path).context("a measured program ended; read its log")
    }

    fn seconds(&self) -> Result<f64> {
        let stat = self.read("stat")?;
        // The name may hold blanks; it ends with the last bracket. Then the 12th and 13th are user and system time.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS)
    }

    fn megabytes(&self) -> Result<f64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        Ok(kilobytes.context("a measured program ended; read its log")? / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
