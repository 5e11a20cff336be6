//! A seeded world: operators, an API server, controllers, a data plane, Prometheus, users and faults.
//!
//! [`run`] plays one seed: first a random schedule in which anything may happen between any two calls of an operator,
//! then a fair one without faults in which everything must come to rest. What the operators do is production code: the
//! simulation has only the other side of their ports.
//!
//! ```text
//! seed -> schedule -> reconcile (production) -> adapter -> calls -> store -> laws
//!                  -> controllers, gateway, trainers, users, time
//! ```

pub mod adapter;
mod attached;
pub mod calls;
mod commands;
pub mod dice;
pub mod gateway;
pub mod laws;
pub mod manifests;
pub mod metrics;
pub mod outcome;
pub mod plane;
mod rest;
mod schedule;
pub mod serving;
mod settle;
pub mod sim;
pub mod store;
pub mod training;
pub mod trials;
pub mod users;
pub mod watches;

use sim::Violation;

/// What became of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Steps that were taken.
    pub steps: usize,
    /// Reconciles that ended by themselves.
    pub reconciles: usize,
    /// Writes of operators that changed something.
    pub writes: usize,
    /// The law that was broken, if one was.
    pub violation: Option<Violation>,
    /// What happened, if it was to be kept.
    pub trace: Vec<String>,
    /// What was reached, to see that the worlds are not idle: name and how often.
    pub reached: std::collections::BTreeMap<String, usize>,
}

/// Whether a world keeps its story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// It does.
    Kept,
    /// It does not, and is faster.
    Dropped,
}

/// Plays one seed.
pub fn run(seed: u64, story: Story) -> Report {
    run_with_a_death(seed, story, None)
}

/// Plays one seed, in which an operator dies after so many writes besides what else happens.
pub fn run_with_a_death(seed: u64, story: Story, after: Option<usize>) -> Report {
    let mut world = schedule::World::new(seed, story);
    world.shared.lock().dies_after = after;
    world.play();
    if !world.is_broken() {
        world.settle();
    }
    world.report(seed)
}
