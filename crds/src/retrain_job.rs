//! RetrainJob: one training run, from data check to recorded version.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{self, Condition, Storage, VersionRef},
    contract::{RunResult, Task},
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
#[x_kube(validation = Rule::new("[self.output.uri, self.data.train.uri, has(self.data.validation) ? self.data.validation.uri : self.data.train.uri].all(u, has(self.storage.s3) ? u.startsWith('s3://') : u.startsWith('file://' + self.storage.persistentVolumeClaim.mountPath + '/'))").message("storage must hold every uri of data and output: with s3, uris begin with s3://; with persistentVolumeClaim, with file:// and its mountPath"))]
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

/// The data of a run. Columns are traced from the Parquet files: numbers are standardised, texts are categories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.validation) != has(self.split)").message("data needs exactly one of validation (a file of its own) and split (a part of train)"))]
#[x_kube(validation = Rule::new("!has(self.split) || (has(self.exclude) && self.split.key in self.exclude)").message("split.key must be listed in exclude, because a key is no feature"))]
#[x_kube(validation = Rule::new("!has(self.exclude) || !(self.target in self.exclude)").message("exclude must not contain target"))]
#[x_kube(validation = Rule::new("!has(self.validation) || self.validation.uri != self.train.uri").message("data.validation.uri must not be data.train.uri: a model must not be judged on rows that it has learnt"))]
pub struct Data {
    /// Training rows.
    pub train: DataSource,
    /// Validation rows of their own. Exactly one of `validation` and `split`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<DataSource>,
    /// Takes the validation rows out of the training rows. Exactly one of `validation` and `split`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Column to predict.
    #[schemars(length(min = 1, max = 128))]
    pub target: String,
    /// Whether the target is a class or a number.
    pub task: Task,
    /// Columns that are neither features nor target, such as identifiers and time stamps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 128)))]
    pub exclude: Vec<String>,
    /// Fewest training rows, and fewest validation rows is a tenth of it. Default 100.
    #[serde(default = "default_min_rows")]
    #[schemars(range(min = 10, max = 1_000_000_000))]
    pub min_rows: u32,
}

fn default_min_rows() -> u32 {
    100
}

/// One or several Parquet files of the same columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataSource {
    /// `file:///…` or `s3://…`, a file or a pattern whose last part contains `*`.
    #[schemars(schema_with = "common::uri")]
    pub uri: String,
}

/// A deterministic split: a row's side depends on the seed and the row's key alone, so it stays when rows are added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.validationFraction > 0.0 && self.validationFraction < 1.0").message("validationFraction must lie between 0 and 1, such as 0.1"))]
pub struct Split {
    /// Share of rows for validation, above 0 and below 1.
    pub validation_fraction: f64,
    /// Column whose value decides the side; rows with the same key stay together. It must be listed in `exclude`.
    #[schemars(length(min = 1, max = 128))]
    pub key: String,
    /// Seed of the hash. Default 2025.
    #[serde(default = "default_seed")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    pub seed: u32,
}

fn default_seed() -> u32 {
    2025
}

/// How to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Training {
    /// Architecture. Default `mlp`.
    pub family: Family,
    /// Widths of the hidden layers. Default four layers of 512.
    #[schemars(length(min = 1, max = 16), inner(range(min = 1, max = 8192)))]
    pub hidden: Vec<u32>,
    /// Share of activations dropped in training, from 0 to 0.95. Default 0.45.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
    /// Most passes over the training rows. Default 200.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub epochs: u32,
    /// Rows of one optimizer step. Default 64.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub batch_size: u32,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// When to stop early.
    pub early_stop: EarlyStop,
    /// Seed of initial weights, order of rows and dropout. The same seed, data and machine kind give the same weights.
    /// Default 2025.
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    pub seed: u32,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            family: Family::Mlp,
            hidden: vec![512; 4],
            dropout: 0.45,
            epochs: 200,
            batch_size: 64,
            optimizer: Optimizer::default(),
            early_stop: EarlyStop::default(),
            seed: default_seed(),
        }
    }
}

/// Architecture of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    /// A multi-layer perceptron with ReLU and dropout.
    #[default]
    Mlp,
}

/// AdamW (Loshchilov and Hutter, 2019) with betas 0.9 and 0.999 and epsilon 1e-8.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Optimizer {
    /// Step size, from 1e-9 to 10. Default 0.003.
    #[schemars(range(min = 1e-9, max = 10.0))]
    pub learning_rate: f64,
    /// Decoupled weight decay. Default 0.0001.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: f64,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self { learning_rate: 0.003, weight_decay: 1e-4 }
    }
}

/// Stops when the validation loss no longer falls, and keeps the best epoch's weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EarlyStop {
    /// Epochs without improvement before training stops. Default 20.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub patience: u32,
    /// Smallest fall of the loss that counts as improvement. Default 0.
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub min_delta: f64,
}

impl Default for EarlyStop {
    fn default() -> Self {
        Self { patience: 20, min_delta: 0.0 }
    }
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
    #[schemars(schema_with = "common::preserve")]
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
