//! Anneal's API types (group `anneal.dev`, version `v1alpha1`) and the contract between operator and trainer.
//!
//! Everything else in the workspace depends on this crate and it depends on none of it. It holds shapes, defaults
//! and validation rules; it decides nothing. `crdgen` writes the custom resource definitions of the Helm chart
//! from these types, so a field that is described here is a field that users can set.

pub mod common;
pub mod contract;
pub mod gates;
pub mod metric;
pub mod model_rollout;
pub mod model_version;
pub mod moment;
pub mod names;
pub mod preset;
pub mod prometheus;
pub mod retrain_job;
pub mod sequential;
pub mod span;
pub mod weight;

pub use common::{Condition, Storage, VersionRef};
pub use model_rollout::{ModelRollout, ModelRolloutSpec, ModelRolloutStatus};
pub use model_version::{ModelVersion, ModelVersionSpec};
pub use moment::Moment;
pub use retrain_job::{RetrainJob, RetrainJobSpec, RetrainJobStatus};
pub use span::Span;
pub use weight::Weight;
