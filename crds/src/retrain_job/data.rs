//! What a RetrainJob trains on, and how.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rows::{Checks, Window};
use crate::{common, contract::Task};

/// The data of a run. Columns are traced from the files: numbers are standardised, texts are categories.
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
    /// Columns that are features, by name or by a pattern such as `ad_content.*`, in which `*` stands for any text. Default
    /// all but the target and `exclude`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 128)))]
    pub include: Vec<String>,
    /// Columns that are neither features nor target, such as identifiers and time stamps, by name or pattern. What is excluded
    /// is no feature, whatever `include` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 128)))]
    pub exclude: Vec<String>,
    /// The rows of `train` that count, by their time. Default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// What else must hold of the rows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checks: Checks,
    /// Fewest training rows, and fewest validation rows is a tenth of it. Default 100.
    #[serde(default = "default_min_rows")]
    #[schemars(range(min = 10, max = 1_000_000_000))]
    pub min_rows: u32,
}

fn is_default(checks: &Checks) -> bool {
    *checks == Checks::default()
}

fn default_min_rows() -> u32 {
    100
}

/// One or several files of the same columns: CSV (`.csv`, `.tsv`, with a header line), JSON lines (`.jsonl`, `.ndjson`, `.json`), and
/// Parquet under any other name.
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
