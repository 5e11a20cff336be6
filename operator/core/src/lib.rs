//! Anneal's decisions: pure, total functions from a snapshot to a plan.
//!
//! ```text
//! CR -> watch -> observe -> Snapshot -> core::plan -> Plan -> record status -> perform -> API server -> watch
//! ```
//!
//! This crate is the part from `Snapshot` to `Plan`, and the objects that a plan asks for. It knows no cluster, clock,
//! environment, randomness or storage: what is not in the snapshot cannot influence a decision, so the same snapshot
//! gives the same plan again, offline. The shell in `anneal-operator` does everything else.

pub mod alert;
pub mod condition;
mod cron;
pub mod gates;
mod job;
pub mod judge;
pub mod lease;
pub mod object;
pub mod patch;
pub mod plan;
mod pod;
mod quantity;
pub mod retrain;
pub mod rollout;
mod statistics;
mod trouble;
