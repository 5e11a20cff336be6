//! The world simulation: the operator's production code in an in-memory cluster, seeded and replayable.
//!
//! [`world`] has the cluster, the controllers beside Anneal's, users, faults and the laws that must hold whatever
//! happens; [`cases`] has snapshots made by hand for tables, [`raw`] reads questions for raw samples, and [`programs`] runs real ones. `tests/world.rs` runs it over many seeds; `SEED=n` replays one and prints what happened.

pub mod cases;
pub mod programs;
pub mod raw;
pub mod world;
