//! Labels: events that are known only some time after the requests they belong to, such as whether an answer was right.
//!
//! Read by [`super::tick`] and [`super::verdict`]. Labels count from the delay of a step on, when those of all its requests can be there:
//! bad news may come sooner than good news, so those that are early are not like all of them, and a version that has just got
//! more requests has more of the early ones.

use super::tick::Step;

/// When the events of a metric are known, and how many a step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels {
    /// How long after its request an event is known, in milliseconds.
    pub delay_ms: i64,
    /// Fewest events of a step, at least 1.
    pub fewest: u64,
}

impl Labels {
    /// Whether what arrives in the tick that starts at `start_ms` may be of requests of `step`.
    pub(super) const fn are_of(&self, step: &Step, start_ms: i64) -> bool {
        start_ms >= step.began_ms.saturating_add(self.delay_ms)
    }

    /// Whether nothing need have arrived before that tick is over: the first scrape takes up to `lookback_ms` too.
    pub(super) const fn may_be_silent(&self, step: &Step, start_ms: i64, lookback_ms: i64) -> bool {
        start_ms < step.began_ms.saturating_add(self.delay_ms).saturating_add(lookback_ms)
    }
}
