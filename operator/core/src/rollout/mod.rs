//! ModelRollout: which version serves, and how the next one takes over, in one pure function.
//!
//! [`plan`] is called by the operator's shell on every change and tick, by the simulation and by tests. It reads nothing
//! but the [`Snapshot`]. The shell asks [`queries`] what to read from Prometheus first.
//!
//! ```text
//! Pending -> Preparing -> Staging -> Shadow -> Experiment -> Canary 0..n -> Baking -> Healthy
//!                 \__________\_________\________\____________\____________\______> RolledBack <- RollingBack <- any
//! ```
//!
//! A new candidate leads from any phase back to Preparing, at weight 0. `select` says which version is to serve, `by_hand` what
//! people ask for and `invalid_command` what of it cannot be done, `freeze` when nothing advances, `deadline` how much of a time is over, and `group` for whom it waits. `query`, `expression` and `value` are what is
//! asked about a version, and `reading`, `plain`, `baseline`, `labels`, `sequential` and `warning` what the answers say, and `chance` how far a plain threshold can be trusted. `shares` says whether requests are divided as the weight asks for, `steps`
//! which share it gets and for how long, `staging`,
//! `probe` and `smoke` what it must answer before it takes requests and after, `agreement` whose answers it is compared with, and `approval` what someone has to approve.
//! `transition` is what is written down, `marks` what of it is on ModelVersions too and `remembered` what on Services, `recover` what is found again there, and `build` which objects follow, with what an older `release` made; `attach` is a route
//! of the user's, `rule` the one rule of it that counts, `capacity`, `autoscaler` and `gpus` how many pods there are, and
//! `incumbent` who answers beside the version on trial. `converge` makes the cluster follow, and `leaving` says who is still asked before its pods go.

mod agreement;
mod approval;
mod attach;
mod autoscaler;
mod baseline;
mod build;
mod by_hand;
mod capacity;
mod chance;
mod command;
mod converge;
mod deadline;
mod draft;
mod endpoints;
mod expression;
mod fight;
mod fit;
mod freeze;
mod gpus;
mod group;
mod incumbent;
mod invalid_command;
mod labels;
mod leaving;
mod marks;
mod memo;
mod missing;
mod plain;
mod plan;
mod plane;
mod probe;
mod query;
mod reading;
mod recover;
mod release;
mod remembered;
mod rival;
mod route;
mod rule;
mod samples;
mod scope;
mod select;
mod sequential;
mod shares;
mod smoke;
mod snapshot;
mod staging;
mod step;
mod steps;
mod transition;
mod value;
mod warning;

pub use agreement::stable_service;
pub use autoscaler::autoscaler_kinds;
pub use build::{workload_name, workload_names};
pub use by_hand::is_decided;
pub use endpoints::{Endpoints, SERVICE_NAME, adopted_service};
pub use group::members;
pub use leaving::query_of_who_left;
pub use marks::let_go;
pub use memo::Memo;
pub use plan::{is_decided_by_metrics, plan};
pub use plane::{Features, asks_for_features};
pub use probe::{Probe, ProbeAnswer, probes};
pub use query::{Query, Question, Shape, queries, without_ranges};
pub use reading::{Answer, Reading, Series, Verdict, judge, read};
pub use rival::rivals;
pub use route::{gateway_key, route_key};
pub use samples::{Boundary, NativeBucket, NativeHistogram, RawSeries};
pub use sequential::policy_of;
pub use snapshot::{AlertReceiver, Answers, Autoscalers, Children, GatewayState, Listed, Snapshot};
pub use staging::staging_job;
pub(crate) use steps::abortable;
pub use steps::{on_trial, steps};
