//! What the trainer reads from the machine: clock, processors and its own identity.
//!
//! Called where a run records times or chooses threads. Nothing here may influence weights, except the number of
//! threads, which a checkpoint keeps.

use std::{
    thread,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};

/// The time now, for records and the version's date.
#[expect(clippy::disallowed_methods, reason = "the trainer's one clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Today in UTC as `YYYYMMDD`.
pub fn today() -> String {
    now().to_zoned(TimeZone::UTC).strftime("%Y%m%d").to_string()
}

/// Measures time from its creation.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    #[expect(clippy::disallowed_methods, reason = "the trainer's one stopwatch")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Seconds since the start.
    pub fn seconds(self) -> f64 {
        self.elapsed().as_secs_f64()
    }
}

/// Processors that this process may use, by affinity and cgroup quota; at least 1.
///
/// libtorch itself would count the node's.
pub fn processors() -> u32 {
    thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1)
}
