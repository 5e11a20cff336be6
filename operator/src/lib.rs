//! The operator's shell: everything that touches the world, and no decision.
//!
//! ```text
//! CR -> watch -> observe -> Snapshot -> core::plan -> Plan -> record status -> perform -> API server -> watch
//! ```
//!
//! `run` watches and calls [`reconcile`], which is the whole walk on one screen: [`observe`] reads the cluster through
//! the ports and calls the core's plan, `reconcile` records its status, [`perform`] does what follows, and `refusal` tells
//! what the API server says no to. [`looks`] keeps what was seen last, for ticks in which nothing happens, and [`probes`]
//! sends what a plan waits for. [`resolve`] finds the credentials of a metrics [`server`]. [`ports`] are the only ways
//! out, `members`, `planes` and `scalers` say whom a change of something else concerns, [`alerts`] is the one way in beside the watches, and [`metered`] looks at what passes the first of them;
//! `kube_cluster`, `prometheus_api` and `clock` are the real ones, the simulation has others.

pub mod alerts;
pub mod clock;
pub mod http;
pub mod kube_cluster;
mod lease;
pub mod looks;
mod members;
pub mod metered;
pub mod metrics;
pub mod notify;
pub mod observe;
pub mod perform;
mod planes;
pub mod ports;
pub mod probes;
pub mod prometheus_api;
pub mod reconcile;
mod refusal;
pub mod resolve;
pub mod run;
mod scalers;
pub mod server;
pub mod turns;
mod watched;
