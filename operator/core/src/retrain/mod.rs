//! RetrainJob: from a spec to a recorded version, in one pure function.
//!
//! [`plan`] is called by the operator's shell on every change, by the simulation and by tests. It reads nothing but the
//! [`Snapshot`]. `build` holds the objects that follow from spec and status; `outcome` reads what the trainer left, and
//! `conclude` makes a record of it.

mod build;
mod conclude;
mod draft;
mod outcome;
mod plan;

pub use build::{child_name, report_name, version_object_name};
pub use plan::{Snapshot, plan};
