//! The terms of the sequential judge: how sure it must be, and when a step may end.
//!
//! Used by [`crate::metric::Judge`]. What the numbers mean is in `docs/judge.md`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::Span;

/// How a candidate is compared with the stable version, request by request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.alpha > 0.0 && self.alpha < 1.0").message("judge.sequential.alpha must lie between 0 and 1, such as 0.05"))]
#[x_kube(validation = Rule::new("self.beta > 0.0 && self.beta < 1.0").message("judge.sequential.beta must lie between 0 and 1, such as 0.05"))]
#[x_kube(validation = Rule::new("self.tolerance >= 1.0 && self.tolerance <= 100.0").message("judge.sequential.tolerance must be at least 1, such as 1.2, and at most 100"))]
#[x_kube(validation = Rule::new("self.nonInferiority > 1.0 && self.nonInferiority <= 100.0").message("judge.sequential.nonInferiority must be above 1, such as 2, and at most 100"))]
#[x_kube(validation = Rule::new("self.splitDesignEffect >= 1.0 && self.splitDesignEffect <= 10000.0").message("judge.sequential.splitDesignEffect must be at least 1, and at most 10000"))]
pub struct Sequential {
    /// Chance of rolling back a candidate that is no worse than tolerated: over the whole rollout, all metrics, steps and
    /// looks together. Above 0, below 1. Default 0.05.
    #[serde(default = "default_error")]
    pub alpha: f64,
    /// With `advance: Evidence`, the chance that a step ends although a metric is at its limit: `nonInferiority`, or its own
    /// bound where there was no bad event to compare. Above 0, below 1. Default 0.05.
    #[serde(default = "default_error")]
    pub beta: f64,
    /// How many times stable's odds of a bad event are tolerated: differences between pods and hours are no defect. At
    /// least 1. Default 1.2.
    #[serde(default = "default_tolerance")]
    pub tolerance: f64,
    /// What lets a step end once its duration is over. Default Interval.
    #[serde(default)]
    pub advance: Advance,
    /// With `advance: Evidence`, the odds ratio to stable that every metric must be shown to be below. Above 1. Default 2.
    #[serde(default = "default_non_inferiority")]
    pub non_inferiority: f64,
    /// Longest time at a step that counts, so time without data or requests left out, and the longest `labelDelay` of its
    /// triggers. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Span>,
    /// What happens to a step that reached `maxDuration`. Default Hold.
    #[serde(default)]
    pub on_inconclusive: OnInconclusive,
    /// How long a pod's requests are left out after it became ready. Default: two ticks, the metrics' shortest interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Span>,
    /// How many requests of one user are routed together, on average, where users stick to a version: the split of
    /// requests then varies that much more. Default 1.
    #[serde(default = "default_split_design_effect")]
    pub split_design_effect: f64,
    /// By how much pods of one version differ, and requests fail together. Default Learned.
    #[serde(default)]
    pub dispersion: Dispersion,
    /// How much of stable's history is learned from. Default 24h.
    #[serde(default = "default_learn_from")]
    pub learn_from: Span,
}

impl Default for Sequential {
    fn default() -> Self {
        Self {
            alpha: default_error(),
            beta: default_error(),
            tolerance: default_tolerance(),
            advance: Advance::default(),
            non_inferiority: default_non_inferiority(),
            max_duration: None,
            on_inconclusive: OnInconclusive::default(),
            warmup: None,
            split_design_effect: default_split_design_effect(),
            dispersion: Dispersion::default(),
            learn_from: default_learn_from(),
        }
    }
}

/// By how much counts vary more than independent requests to equal pods would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Dispersion {
    /// As stable's own pods did, compared with each other before the candidate's first requests. Without a bad event there is nothing
    /// to learn, and with fewer than three pods nothing about how they differ: then `tolerance` has to cover that too.
    #[default]
    Learned,
    /// Pods are taken to be alike, and requests to be independent.
    Assumed,
}

/// What lets a step end once its duration is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Advance {
    /// Nothing speaks against the candidate.
    #[default]
    Interval,
    /// Every metric is shown to be no worse than `nonInferiority` allows; as long as neither version has had a bad event in
    /// the step, to be below its own bound.
    Evidence,
}

/// What happens to a step that lasts too long without a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnInconclusive {
    /// It waits for a person.
    #[default]
    Hold,
    /// It ends.
    Advance,
    /// The candidate is rolled back.
    Rollback,
}

fn default_error() -> f64 {
    0.05
}
fn default_tolerance() -> f64 {
    1.2
}
fn default_non_inferiority() -> f64 {
    2.0
}
fn default_split_design_effect() -> f64 {
    1.0
}
fn default_learn_from() -> Span {
    Span::from_secs(86_400)
}
