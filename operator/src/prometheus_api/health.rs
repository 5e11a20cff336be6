//! Whether a server hangs, so that nobody waits for one that does.

use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;

/// Questions in a row without an answer in time, after which the server is taken to hang.
pub const HANGS: u32 = 3;
/// How long a server that hangs is left alone.
pub const PAUSE: Duration = Duration::from_secs(10);

/// Why a question may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// All is well.
    AsUsual,
    /// To find out whether the server is back.
    AsProbe,
}

/// Whether a server hangs. Refusals and errors are answers: they cost nobody any time.
#[derive(Debug, Default)]
pub struct Health {
    hangs: u32,
    /// When it may be asked again; none while all is well.
    again_at: Option<Instant>,
}

impl Health {
    /// Whether a question may be asked at `now`, and as what.
    pub fn admit(&mut self, now: Instant, timeout: Duration) -> Result<Admitted, Failure> {
        match self.again_at {
            None => Ok(Admitted::AsUsual),
            Some(again_at) if now < again_at => Err(Failure::Hanging),
            Some(_) => {
                // This one finds out; the next may when it has not come back by then.
                self.again_at = Some(now + timeout + PAUSE);
                Ok(Admitted::AsProbe)
            }
        }
    }

    /// Whether the server is taken to hang.
    pub const fn is_hanging(&self) -> bool {
        self.again_at.is_some()
    }

    /// The server answered something, in time.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// The server did not answer in time.
    pub fn hung(&mut self, now: Instant) {
        self.hangs = self.hangs.saturating_add(1);
        if self.hangs >= HANGS {
            self.again_at = Some(now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_left_alone_and_asked_by_one_at_a_time() {
        let mut health = Health::default();
        let start = Instant::now();
        for _ in 0..HANGS {
            assert!(health.admit(start, TIMEOUT).is_ok());
            health.hung(start);
        }
        assert!(matches!(health.admit(start, TIMEOUT), Err(Failure::Hanging)));
        let later = start + PAUSE;
        assert!(health.admit(later, TIMEOUT).is_ok(), "one finds out");
        assert!(health.admit(later, TIMEOUT).is_err(), "and only one");
        // It was dropped without a word.
        let much_later = later + TIMEOUT + PAUSE;
        assert!(health.admit(much_later, TIMEOUT).is_ok());
        health.answered();
        assert!(health.admit(much_later, TIMEOUT).is_ok() && health.admit(much_later, TIMEOUT).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_between_two_hangs_clears_the_server() {
        let mut health = Health::default();
        let now = Instant::now();
        for _ in 0..5 {
            health.hung(now);
            health.hung(now);
            health.answered();
        }
        assert!(health.admit(now, TIMEOUT).is_ok());
    }
}
