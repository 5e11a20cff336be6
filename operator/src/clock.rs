//! The machine's clock.

use jiff::Timestamp;

use crate::ports::Clock;

/// The machine's wall clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock port's adapter")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
