//! Turns: how many reconciles hold a part of the cluster in memory, and ask the API server, at once.
//!
//! Taken by [`crate::reconcile`] before the first read. Whoever asks someone outside gives its turn back first: a metrics server
//! that hangs delays nobody else. Everyone else keeps it until all is written, so that a thousand rollouts that begin at once do not
//! all lie in memory while they wait for each other.

use tokio::sync::{Semaphore, SemaphorePermit};

/// What a reconcile is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// A version that takes part in traffic, or goes back, by what was seen last: it waits for none of the others.
    Judged,
    /// Everything else.
    Other,
}

/// The turns of each kind of errand.
#[derive(Debug)]
pub struct Turns {
    judged: Semaphore,
    other: Semaphore,
}

impl Turns {
    /// So many of each kind.
    pub fn new(each: usize) -> Self {
        Self { judged: Semaphore::new(each), other: Semaphore::new(each) }
    }

    /// Waits for a turn.
    pub async fn take(&self, errand: Errand) -> Option<SemaphorePermit<'_>> {
        let turns = match errand {
            Errand::Judged => &self.judged,
            Errand::Other => &self.other,
        };
        // Nobody closes the semaphore.
        turns.acquire().await.ok()
    }

    /// How many are free.
    pub fn free(&self, errand: Errand) -> usize {
        match errand {
            Errand::Judged => self.judged.available_permits(),
            Errand::Other => self.other.available_permits(),
        }
    }
}
