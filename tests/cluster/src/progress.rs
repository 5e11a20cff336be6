//! What a person sees while something slow runs: a spinner on a terminal, plain lines elsewhere.
//!
//! Called by everything here and in `xtask` that takes more than a second. All of it goes to stderr: stdout belongs to
//! the caller's result.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const HEARTBEAT: Duration = Duration::from_secs(30);

/// Shows steps, one below the other. Cheap to clone, and steps of several threads do not mix.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
}

impl Progress {
    /// Spinners when stderr is a terminal, lines otherwise.
    pub fn new() -> Self {
        Self { bars: std::io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Starts a step. Say what is happening: "Build etcd".
    pub fn step(&self, what: impl Into<String>) -> Step {
        let what = what.into();
        let shown = match &self.bars {
            Some(bars) => Shown::Bar(spinner(bars, &what)),
            None => {
                line(&format!("… {what}"));
                Shown::Lines { _stop: heartbeat(what.clone()) }
            }
        };
        Step { bars: self.bars.clone(), what, started: now(), shown, done: false }
    }

    /// Prints a line that stays.
    pub fn say(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| line(text)),
            None => line(text),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// A step under way. Dropped without [`Step::done`], it shows as failed.
#[derive(Debug)]
pub struct Step {
    bars: Option<MultiProgress>,
    what: String,
    started: Instant,
    shown: Shown,
    done: bool,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    // Dropping the sender ends the heartbeat.
    Lines { _stop: Sender<()> },
}

impl Step {
    /// The step is done: its line stays with the time it took.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let mark = if self.done { '✓' } else { '✗' };
        let text = format!("{mark} {} ({})", self.what, seconds(self.started.elapsed()));
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
        match &self.bars {
            Some(bars) => bars.suspend(|| line(&text)),
            None => line(&text),
        }
    }
}

fn spinner(bars: &MultiProgress, what: &str) -> ProgressBar {
    let bar = bars.add(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn heartbeat(what: String) -> Sender<()> {
    let (stop, stopped) = channel();
    let started = now();
    std::thread::spawn(move || {
        while stopped.recv_timeout(HEARTBEAT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            line(&format!("  {what}: still at it after {}", seconds(started.elapsed())));
        }
    });
    stop
}

fn line(text: &str) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{:.1} s", time.as_secs_f64()),
        short @ 1..60 => format!("{short} s"),
        long => format!("{} min {} s", long / 60, long % 60),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "shows a person how long a step took; nothing is decided by it"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!(seconds(Duration::from_millis(340)), "0.3 s");
        assert_eq!(seconds(Duration::from_millis(12_900)), "12 s");
        assert_eq!(seconds(Duration::from_secs(192)), "3 min 12 s");
    }

    #[test]
    fn a_heartbeat_ends_with_its_step() {
        let (stop, stopped) = channel::<()>();
        drop(stop);
        assert_eq!(stopped.recv_timeout(HEARTBEAT), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }
}
