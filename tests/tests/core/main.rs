//! Tables, properties and walks of the core, in one program: to build it once takes a fraction of what thirty would take.
//!
//! `cargo test -p anneal-tests --test core rollout::` runs those of one file.

mod agreement;
mod alert;
mod approval;
mod attach;
mod capacity;
mod comparison;
mod drift;
mod endpoints;
mod experiment;
mod foreign;
mod freeze;
mod group;
mod labels;
mod looks;
mod marks;
mod means;
#[path = "../promtool/mod.rs"]
mod promtool;
mod properties;
mod reach;
mod reconcile;
mod retrain;
mod rollout;
mod rollout_by_hand;
mod rollout_change;
mod rollout_fight;
mod rollout_mirror;
mod rollout_sequential;
mod rollout_trouble;
mod shares;
mod smoke;
mod staging;
mod unattended;
mod upgrade;
mod value;
