//! Where a RetrainJob stands.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{self, Condition, VersionRef},
    contract::RunResult,
};

/// Where a run stands. The operator's decision log: everything that happens follows from spec and status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrainJobStatus {
    /// `metadata.generation` that this status was computed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the run stands.
    #[serde(default)]
    pub phase: RetrainPhase,
    /// Number of the child Job, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What the run is compared with, fixed when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<ResolvedBaseline>,
    /// When the run left Pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Verdicts in short, such as `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<String>,
    /// The version that this run became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the trainer reported, with the verdicts as the operator computed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
    /// Ready, Reconciling, Stalled, Complete, Failed, DataValidated, GatesPassed, Registered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "common::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetrainPhase {
    /// Waits for its baseline.
    #[default]
    Pending,
    /// The child Job exists or is about to.
    Training,
    /// Gates passed; the ModelVersion exists or is about to.
    Registering,
    /// A ModelVersion was recorded.
    Succeeded,
    /// A required gate did not pass; production is unchanged.
    Rejected,
    /// The run ended without a result.
    Failed,
}

impl RetrainPhase {
    /// Whether nothing happens any more.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Succeeded | Self::Rejected | Self::Failed => true,
            Self::Pending | Self::Training | Self::Registering => false,
        }
    }
}

/// What a run is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ResolvedBaseline {
    /// The version that served when the run started.
    Version(BaselineVersion),
    /// Nothing served when the run started.
    Bootstrap(BootstrapBaseline),
}

/// A version to compare with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BaselineVersion {
    /// Which version.
    #[serde(flatten)]
    pub version: VersionRef,
    /// Folder of its artifact.
    pub uri: String,
}

/// There was nothing to compare with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BootstrapBaseline {}
