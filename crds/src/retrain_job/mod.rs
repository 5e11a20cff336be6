//! RetrainJob: one training run, from data check to recorded version.

mod data;
mod rows;
mod status;

use k8s_openapi::api::core::v1 as core;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use data::{Data, DataSource, EarlyStop, Family, Optimizer, Split, Training};
pub use rows::{Checks, History, Window};
pub use status::{BaselineVersion, BootstrapBaseline, ResolvedBaseline, RetrainJobStatus, RetrainPhase};

use crate::{
    common::{self, Storage},
    gates::Gate,
    span::Span,
};

/// Trains a model, proves it against the version in production and records it as a ModelVersion.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "anneal.dev",
    version = "v1alpha1",
    kind = "RetrainJob",
    plural = "retrainjobs",
    shortname = "rtj",
    category = "anneal",
    namespaced,
    status = "RetrainJobStatus",
    derive = "PartialEq",
    doc = "A RetrainJob trains a model once, proves it against the version in production and records it as a ModelVersion.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".status.attempt"),
    printcolumn(name = "Gates", type_ = "string", json_path = ".status.gates"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 52").message("metadata.name must have at most 52 characters, so that the names of its pods fit"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label: lower-case letters, digits and -"),
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable: a RetrainJob is one run; create another one")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.gates.exists(g, has(g.ironLaw))").message("gates must contain ironLaw: {}, because no version may serve that was not compared with production"))]
#[x_kube(validation = Rule::new("!has(self.baseline.whenMissing) || self.baseline.whenMissing != 'Bootstrap' || self.gates.exists(g, has(g.value) && (!has(g.value.enforcement) || g.value.enforcement == 'Required'))").message("baseline.whenMissing: Bootstrap needs a required value gate in gates, because there is no production model to compare with"))]
#[x_kube(validation = Rule::new("[self.output.uri, self.data.train.uri, has(self.data.validation) ? self.data.validation.uri : self.data.train.uri].all(u, has(self.storage.s3) ? u.startsWith('s3://') : (u + '/').startsWith('file://' + self.storage.persistentVolumeClaim.mountPath + '/'))").message("storage must hold every uri of data and output: with s3, uris begin with s3://; with persistentVolumeClaim, with file:// and its mountPath"))]
pub struct RetrainJobSpec {
    /// Name of the model: its folder in the output, and what ModelRollouts follow.
    #[schemars(schema_with = "common::dns_label")]
    pub model: String,
    /// What to train on.
    pub data: Data,
    /// How to train.
    #[serde(default)]
    pub training: Training,
    /// The pod that trains.
    pub trainer: Trainer,
    /// Where the URIs of this run lie.
    pub storage: Storage,
    /// Where models, checkpoints and results are written.
    pub output: Output,
    /// When the trainer saves its state.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// What to do when the trainer pod fails.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
    /// What is in production now.
    pub baseline: Baseline,
    /// What the candidate must show. Every gate is judged, in this order.
    #[schemars(length(min = 1, max = 16))]
    pub gates: Vec<Gate>,
    /// How this run's version is served, beside what the ModelRollout says for all versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<VersionServing>,
}

/// The pod that trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trainer {
    /// Image that fulfils the trainer contract.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// When to pull the image. Default IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Requests and limits of the trainer container, such as `limits: {nvidia.com/gpu: 1}`.
    #[serde(default)]
    #[schemars(schema_with = "common::resources")]
    pub resources: core::ResourceRequirements,
    /// Train on the processor when a GPU was asked for and none can be used, rather than failing. Default false.
    #[serde(default)]
    pub allow_cpu_fallback: bool,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub node_selector: std::collections::BTreeMap<String, String>,
}

/// When to pull an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node lacks it.
    #[default]
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Where a run writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Folder of all models, `file:///…` or `s3://…`. The run writes below `<uri>/<model>`.
    #[schemars(schema_with = "common::uri")]
    pub uri: String,
}

/// When the trainer saves its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Checkpoint {
    /// Longest time between two checkpoints; one is always written when the pod is asked to stop. Default 60s.
    pub every: Span,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { every: Span::from_secs(60) }
    }
}

/// What to do when the trainer pod fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailurePolicy {
    /// How often the trainer is started again after a failure that may pass (exit codes 1, 6, 7 and 8). Bad
    /// configuration, bad data, a failed gate, divergence and bugs are never tried again. Default 2.
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: u32,
    /// How often an interrupted trainer goes on from its checkpoint. Interruptions by the cluster do not use up
    /// `maxRetries`. Default 50.
    #[schemars(range(min = 0, max = 10_000))]
    pub max_resumes: u32,
    /// Longest time for the whole run. Default 24h.
    pub active_deadline: Span,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self { max_retries: 2, max_resumes: 50, active_deadline: Span::from_secs(86_400) }
    }
}

/// What is in production now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// Name of the ModelRollout whose stable version is the baseline.
    #[schemars(schema_with = "common::dns_label")]
    pub rollout: String,
    /// What to do when that rollout has no stable version. Default Wait.
    #[serde(default)]
    pub when_missing: WhenMissing,
}

/// What to do without a version in production.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenMissing {
    /// Wait until there is one.
    #[default]
    Wait,
    /// Train without comparison. The version must pass its value gates and be approved by a person (annotation
    /// `anneal.dev/approved-by` on the ModelVersion), and is marked `Bootstrap` for ever.
    Bootstrap,
}

/// How one version is served, beside what the ModelRollout says for all versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionServing {
    /// Arguments added to those of the serving container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 512)))]
    pub args: Vec<String>,
}
