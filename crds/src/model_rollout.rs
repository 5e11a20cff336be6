//! ModelRollout: which version of a model serves, and how the next one takes over.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{self, Condition, VersionRef},
    metric::{Judge, Metric},
    prometheus::Prometheus,
    retrain_job::PullPolicy,
    span::Span,
};

/// Serves a model and takes new versions through shadow and canary to full traffic, or back.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "anneal.dev",
    version = "v1alpha1",
    kind = "ModelRollout",
    plural = "modelrollouts",
    shortname = "mro",
    category = "anneal",
    namespaced,
    status = "ModelRolloutStatus",
    derive = "PartialEq",
    doc = "A ModelRollout serves a model and takes new versions through shadow and canary to full traffic, or rolls them back.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.stepSummary"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".status.weight"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict"),
    printcolumn(name = "Stable", type_ = "string", json_path = ".status.stable.version"),
    printcolumn(name = "Candidate", type_ = "string", json_path = ".status.candidate.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40").message("metadata.name must have at most 40 characters, so that the names of its children fit"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label that begins with a letter")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.strategy.rollbackTriggers.all(t, self.metrics.exists(m, m.name == t))").message("strategy.rollbackTriggers names a metric that metrics does not define"))]
#[x_kube(validation = Rule::new("self.metrics.all(m, self.metrics.exists_one(n, n.name == m.name))").message("metrics must have different names"))]
pub struct ModelRolloutSpec {
    /// Name of the model whose versions are served.
    #[schemars(schema_with = "common::dns_label")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("model is immutable: create another ModelRollout"))]
    pub model: String,
    /// Which version is to serve.
    pub candidate: CandidateSource,
    /// The pods that serve.
    pub serving: Serving,
    /// Where requests come from.
    pub traffic: Traffic,
    /// Where metrics are read.
    pub prometheus: Prometheus,
    /// How a new version takes over.
    pub strategy: Strategy,
    /// What can be read about a version.
    #[schemars(length(min = 1, max = 16))]
    pub metrics: Vec<Metric>,
    /// How readings become verdicts.
    pub judge: Judge,
}

/// Which version is to serve. Exactly one of the forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CandidateSource {
    /// The newest version that may serve and was not rolled back here.
    Follow(Follow),
    /// This version, such as `v20261121.1`.
    Version(#[schemars(length(max = 32), regex(pattern = "^v[0-9]{8}\\.[0-9]+$"))] String),
}

/// Which versions are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Follow {
    /// The newest version that passed its gates, or was approved where it had no baseline.
    NewestApproved,
}

/// The pods that serve. Every version gets a Deployment of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.port != self.shadowPort").message("port and shadowPort must differ"))]
pub struct Serving {
    /// Image with `anneal-trainer serve`.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// When to pull the image. Default IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Pods of each version that takes traffic. Default 2.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
    /// Port of the container. Default 8080.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// Port of the container for copied requests, by which the server can tell them from live ones. Default 8081.
    #[serde(default = "default_shadow_port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub shadow_port: i32,
    /// Requests and limits of the serving container.
    #[serde(default)]
    #[schemars(schema_with = "common::preserve")]
    pub resources: core::ResourceRequirements,
    /// How long a version may take until all its pods are ready, before it is given up. Default 10m.
    #[serde(default = "default_progress_deadline")]
    pub progress_deadline: Span,
}

fn default_replicas() -> i32 {
    2
}
fn default_port() -> i32 {
    8080
}
fn default_shadow_port() -> i32 {
    8081
}
fn default_progress_deadline() -> Span {
    Span::from_secs(600)
}

/// Where requests come from: an HTTPRoute of this rollout's own, named after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// The Gateway API gateway that the route attaches to.
    pub gateway: Gateway,
}

/// A gateway and the names served through it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Default: the rollout's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Host names of the route. Default: all that the gateway listens to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub hostnames: Vec<String>,
}

/// How a new version takes over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// First, requests are copied to the candidate and its answers thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// Then the candidate takes a growing share.
    pub canary: Canary,
    /// Names of metrics. A step needs a fresh passing reading of each, and one breach in shadow or canary rolls back.
    #[schemars(length(min = 1, max = 16), inner(length(max = 63)))]
    pub rollback_triggers: Vec<String>,
}

/// Mirrored traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// Share of requests that are copied, from 1 to 100. Default 100.
    #[serde(default = "default_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: i32,
    /// Shortest time in shadow, such as `7d`.
    pub duration: Span,
    /// Fewest copied requests that the candidate must have answered. Default 100.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: u32,
}

fn default_percent() -> i32 {
    100
}
fn default_min_requests() -> u32 {
    100
}

/// A growing share of live traffic: `initial`, then `increment` more at each step, up to `max`, then all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.initial <= self.max").message("initial must not be above max"))]
#[x_kube(validation = Rule::new("self.increment < 1 || (self.max - self.initial) / self.increment < 100").message("the canary must have at most 100 steps"))]
pub struct Canary {
    /// Percentage of the first step.
    #[schemars(range(min = 1, max = 100))]
    pub initial: i32,
    /// Percentage points added at each further step.
    #[schemars(range(min = 1, max = 100))]
    pub increment: i32,
    /// Shortest time at each step, such as `1d`.
    pub interval: Span,
    /// Percentage of the last step. The candidate becomes stable when that step has passed. Default 100.
    #[serde(default = "default_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub max: i32,
    /// Fewest requests that the candidate must have answered at each step. Default 100.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: u32,
}

/// Where a rollout stands. The operator's decision log: every child object follows from spec and status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelRolloutStatus {
    /// `metadata.generation` that this status was computed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the rollout stands.
    #[serde(default)]
    pub phase: RolloutPhase,
    /// The version in production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<VersionRef>,
    /// The version on its way, or the one that was rolled back last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<VersionRef>,
    /// Percentage of live requests that the candidate is to answer.
    #[serde(default)]
    pub weight: i32,
    /// Number of the canary step, from 0.
    #[serde(default)]
    pub step_index: u32,
    /// Step in short, such as `2/7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_summary: Option<String>,
    /// When the phase or step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_started_at: Option<Time>,
    /// When the data plane had taken the step's weights; the step's clock starts here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_accepted_at: Option<Time>,
    /// Since when readings are missing or requests too few; a step that holds for too long is rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding_since: Option<Time>,
    /// The worst of the last verdicts: `Breach`, `NoData` or `Pass`; none if nothing was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The last decision, with what was read and what it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Versions that were rolled back here, newest last. They never come back by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rejected: Vec<VersionRef>,
    /// Ready, Reconciling, Stalled, Progressing, RolledBack, TrafficVerified, MetricsAvailable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "common::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// No version may serve yet.
    #[default]
    Pending,
    /// The candidate's pods start; it takes no traffic.
    Preparing,
    /// Requests are copied to the candidate.
    Shadow,
    /// The candidate answers a share of live requests.
    Canary,
    /// The stable version answers everything.
    Healthy,
    /// The candidate was taken out of traffic; the stable version answers everything.
    RolledBack,
}

impl RolloutPhase {
    /// As status writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Preparing => "Preparing",
            Self::Shadow => "Shadow",
            Self::Canary => "Canary",
            Self::Healthy => "Healthy",
            Self::RolledBack => "RolledBack",
        }
    }

    /// Whether a candidate is on its way.
    pub const fn is_moving(self) -> bool {
        match self {
            Self::Preparing | Self::Shadow | Self::Canary => true,
            Self::Pending | Self::Healthy | Self::RolledBack => false,
        }
    }

    /// Whether the candidate answers requests, and is judged by how it does.
    pub const fn is_judged(self) -> bool {
        match self {
            Self::Shadow | Self::Canary => true,
            Self::Pending | Self::Preparing | Self::Healthy | Self::RolledBack => false,
        }
    }
}

/// A decision and what it was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// What was decided, CamelCase, such as `StepStarted` or `ThresholdBreached`.
    pub reason: String,
    /// The same in one sentence.
    pub message: String,
    /// When.
    pub at: Time,
    /// What was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub readings: Vec<RecordedReading>,
}

/// One reading as it was compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedReading {
    /// Name of the metric.
    pub metric: String,
    /// `Pass`, `Breach` or why there was no verdict.
    pub verdict: String,
    /// What was read, with its unit, such as `0.034` or `412ms`.
    pub value: String,
    /// What it was compared with, such as `<= 0.01`.
    pub bound: String,
    /// The query that was sent.
    pub query: String,
}
