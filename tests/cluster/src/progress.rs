//! What a person sees while something slow runs: a spinner on a terminal, plain lines elsewhere.
//!
//! Called by everything here and in `xtask` that takes more than a second. All of it goes to stderr: stdout belongs to
//! the caller's result.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
        self.start(what.into(), true)
    }

    /// Starts a step that leaves no line when it is done: a wait, whose end something else tells.
    pub fn wait(&self, what: impl Into<String>) -> Step {
        self.start(what.into(), false)
    }

    fn start(&self, what: String, stays: bool) -> Step {
        let shown = match &self.bars {
            Some(bars) => Shown::Bar(spinner(bars, &what)),
            None => {
                if stays {
                    line(&format!("… {what}"));
                }
                let detail = Arc::default();
                let _stop = heartbeat(what.clone(), Arc::clone(&detail));
                Shown::Lines { detail, _stop }
            }
        };
        Step { bars: self.bars.clone(), what, started: now(), shown, stays, done: false }
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
    stays: bool,
    done: bool,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    // Dropping the sender ends the heartbeat.
    Lines { detail: Arc<Mutex<String>>, _stop: Sender<()> },
}

impl Step {
    /// Says how far it is: "Canary at 55 %". The next call replaces it.
    pub fn detail(&self, text: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.set_message(sentence(&self.what, text)),
            Shown::Lines { detail, .. } => text.clone_into(&mut lock(detail)),
        }
    }

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
        if self.done && !self.stays {
            return;
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

fn heartbeat(what: String, detail: Arc<Mutex<String>>) -> Sender<()> {
    let (stop, stopped) = channel();
    let started = now();
    std::thread::spawn(move || {
        while stopped.recv_timeout(HEARTBEAT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let doing = sentence(&what, &lock(&detail));
            line(&format!("  {doing}: still at it after {}", seconds(started.elapsed())));
        }
    });
    stop
}

/// What a step does, and how far it is.
fn sentence(what: &str, detail: &str) -> String {
    if detail.is_empty() { what.to_owned() } else { format!("{what}: {detail}") }
}

fn lock(detail: &Mutex<String>) -> MutexGuard<'_, String> {
    detail.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn a_step_says_how_far_it_is_once_it_knows() {
        assert_eq!(sentence("Wait for v2", ""), "Wait for v2");
        assert_eq!(sentence("Wait for v2", "Canary at 55 %"), "Wait for v2: Canary at 55 %");
    }

    #[test]
    fn the_detail_of_a_step_is_what_its_heartbeat_will_say() {
        let step = Progress { bars: None }.wait("x");
        step.detail("first");
        step.detail("second");
        assert!(matches!(&step.shown, Shown::Lines { detail, .. } if *lock(detail) == "second"));
        step.done();
    }

    #[test]
    fn a_heartbeat_ends_with_its_step() {
        let (stop, stopped) = channel::<()>();
        drop(stop);
        assert_eq!(stopped.recv_timeout(HEARTBEAT), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }
}
