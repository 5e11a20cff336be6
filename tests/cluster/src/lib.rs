//! A throwaway single-node Kubernetes made of real parts, brought up and torn down by code.
//!
//! Called by `xtask` and by the end-to-end tests. Everything runs in one network namespace without an uplink, so
//! nothing inside can reach beyond this machine.

pub mod cache;
pub mod progress;
pub mod sh;
