//! Gates: what a candidate must show before it may become a version.
//!
//! Used by the RetrainJob's spec, judged by `anneal_core::gates` in the trainer and again in the operator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One gate. Exactly one of the forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Gate {
    /// The candidate's validation loss must be strictly below the baseline's, both computed by the same evaluator on
    /// the same rows, and both models must agree on every traced dimension. A tie fails. Always required.
    IronLaw(IronLawGate),
    /// A metric of the candidate must lie within bounds.
    Value(ValueGate),
    /// A metric must be better than the baseline's by at least a relative margin.
    Change(ChangeGate),
}

/// The iron law has nothing to choose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IronLawGate {}

/// Bounds for one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, kube::KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.min) || has(self.max)").message("a value gate needs min, max or both"))]
#[x_kube(validation = Rule::new("!has(self.min) || !has(self.max) || self.min <= self.max").message("min must not be above max"))]
pub struct ValueGate {
    /// Which metric of the validation rows.
    pub metric: EvalMetric,
    /// Smallest value that passes, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest value that passes, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Whether a failure stops the version. Default Required.
    #[serde(default)]
    pub enforcement: Enforcement,
}

/// An improvement over the baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeGate {
    /// Which metric of the validation rows.
    pub metric: EvalMetric,
    /// Smallest relative improvement that passes: 0.02 asks for 2 %. Improvement is (new − base) / |base| where higher
    /// is better and (base − new) / |base| where lower is better.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub min_improvement: f64,
    /// How sure the improvement must be. `Point` compares the two numbers as they are.
    pub evidence: GateEvidence,
    /// Whether a failure stops the version. Default Required.
    #[serde(default)]
    pub enforcement: Enforcement,
}

/// How sure a comparison must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateEvidence {
    /// Compare point estimates.
    Point,
}

/// Whether a gate stops a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// A failure, or a gate that could not be evaluated, stops the version.
    #[default]
    Required,
    /// The verdict is recorded and nothing more.
    Advisory,
}

/// A number that the trainer's evaluator computes on the validation rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EvalMetric {
    /// Cross-entropy in nats (classification) or mean squared error (regression). Lower is better.
    Loss,
    /// Share of rows whose most probable class is the target. Classification only. Higher is better.
    Accuracy,
    /// Root of the mean squared error, in the target's unit. Regression only. Lower is better.
    Rmse,
    /// Mean absolute error, in the target's unit. Regression only. Lower is better.
    Mae,
    /// Share of the target's variance that is explained; not computed for a constant target. Regression only. Higher
    /// is better.
    R2,
}

impl EvalMetric {
    /// Which way is better.
    pub const fn direction(self) -> Direction {
        match self {
            Self::Accuracy | Self::R2 => Direction::HigherIsBetter,
            Self::Loss | Self::Rmse | Self::Mae => Direction::LowerIsBetter,
        }
    }

    /// The name in YAML and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Accuracy => "accuracy",
            Self::Rmse => "rmse",
            Self::Mae => "mae",
            Self::R2 => "r2",
        }
    }
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// More is better.
    HigherIsBetter,
    /// Less is better.
    LowerIsBetter,
}
