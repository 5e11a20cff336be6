//! How a new version takes over: staging, shadow, experiment, then a growing share, then smoke requests and a bake.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    consent::{Approval, Freeze},
    experiment::Experiment,
    probe::Smoke,
    staging::Staging,
};
use crate::{span::Span, weight::Weight};

/// How a new version takes over. Exactly one of `canary`, `steps` and `blueGreen`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// First, before the candidate gets any request of a user, a test of yours must pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<Staging>,
    /// Then, requests are copied to the candidate and its answers thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// Then, both versions answer live requests, and the candidate goes on only if it is shown to be better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Experiment>,
    /// Then the candidate takes a growing share.
    #[serde(flatten)]
    pub progression: Progression,
    /// As soon as the new version has all requests, it must answer these as expected, or the one before takes them back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<Smoke>,
    /// Last, the new version takes all requests and is watched, while the one before stays warm for the way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Bake>,
    /// Names of metrics. A step needs a fresh passing reading of each, and one breach in shadow, experiment or canary rolls back.
    #[schemars(length(min = 1, max = 16), inner(length(max = 63)))]
    pub rollback_triggers: Vec<String>,
    /// Names of metrics that people are warned by, in shadow, experiment and canary: the condition `Warned` and an event. They decide
    /// nothing, and are compared with their bounds as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    pub warn_triggers: Vec<String>,
    /// Alerts of Alertmanager that take the version on trial out of traffic, such as
    /// `alertname="HighErrors",severity=~"page|critical"`: all matchers of one entry must hold, and any entry will do. Needs the chart's
    /// `alertReceiver`, and a route of Alertmanager that sends them there; while it is off, the condition `InvalidCommand` says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)))]
    pub abort_on_alerts: Vec<String>,
    /// What an approval needs, beside the steps with `then: Approval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Windows in which no version gets more traffic and none begins; rollbacks still happen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub freezes: Vec<Freeze>,
    /// Most GPUs (extended resources such as `nvidia.com/gpu`) that the pods of versions beside the stable one, and a staging Job,
    /// may have in all. A version that would need more to take all requests does not begin; no rollback asks. Default: no limit.
    #[serde(default, rename = "maxExtraGPUs", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_extra_gpus: Option<i32>,
    /// How many versions that were stable before can be gone back to at once. Default 3.
    #[serde(default = "default_rollback_window")]
    #[schemars(range(min = 0, max = 10))]
    pub rollback_window: u32,
}

/// How the candidate's share grows. Exactly one of the forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Progression {
    /// By equal steps.
    Canary(Canary),
    /// By these steps. Their weights rise, and after the last one the candidate takes all requests.
    Steps(#[schemars(length(min = 1, max = 100))] Vec<Step>),
    /// All at once.
    BlueGreen(BlueGreen),
}

/// Mirrored traffic. The share is `percent`, or `fraction`, or all requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.percent) || !has(self.fraction)").message("percent and fraction exclude each other"))]
pub struct Shadow {
    /// Share of requests that are copied, from 1 to 100. Default 100, where there is no fraction either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<i32>,
    /// Share of requests that are copied, for less than 1 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
    /// Shortest time in shadow, such as `7d`.
    pub duration: Span,
    /// Fewest copied requests that the candidate must have answered. Default 100.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: u32,
    /// Names of metrics that count in shadow, in place of `strategy.rollbackTriggers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 63)))]
    pub rollback_triggers: Option<Vec<String>>,
    /// Names of metrics that people are warned by in shadow, in place of `strategy.warnTriggers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    pub warn_triggers: Option<Vec<String>>,
}

/// So many of so many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.numerator <= self.denominator").message("numerator must not be above denominator"))]
pub struct Fraction {
    /// So many, at least 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub numerator: i32,
    /// Of so many. Default 100.
    #[serde(default = "default_percent")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub denominator: i32,
}

/// Share of requests that are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyShare {
    /// Every request.
    All,
    /// This percentage, from 1 to 99.
    Percent(i32),
    /// This part, which is less than all.
    Fraction(Fraction),
}

impl Shadow {
    /// The share that is asked for, however it is written.
    pub fn share(&self) -> CopyShare {
        match (self.fraction, self.percent) {
            (Some(fraction), _) if fraction.numerator >= fraction.denominator => CopyShare::All,
            (Some(fraction), _) => CopyShare::Fraction(fraction),
            (None, None) => CopyShare::All,
            (None, Some(percent)) if percent >= 100 => CopyShare::All,
            (None, Some(percent)) => CopyShare::Percent(percent),
        }
    }
}

impl CopyShare {
    /// As a part of 1.
    pub fn part(self) -> f64 {
        match self {
            Self::All => 1.0,
            Self::Percent(percent) => f64::from(percent) / 100.0,
            Self::Fraction(share) => f64::from(share.numerator) / f64::from(share.denominator),
        }
    }
}

impl std::fmt::Display for CopyShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all requests"),
            Self::Percent(percent) => write!(f, "{percent} % of the requests"),
            Self::Fraction(share) => write!(f, "{} of {} requests", share.numerator, share.denominator),
        }
    }
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
    /// Percentage of the last step. The candidate takes all requests when that step has passed. Default 100.
    #[serde(default = "default_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub max: i32,
    /// Fewest requests that the candidate must have answered at each step. Default 100.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: u32,
}

/// One step of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The candidate's share in percent, above 0, with at most one decimal: 0.5 is one request in two hundred.
    #[schemars(schema_with = "positive_weight")]
    pub weight: Weight,
    /// Shortest time at this step, such as `1h`.
    pub duration: Span,
    /// Fewest requests that the candidate must have answered at this step. Default 100.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: u32,
    /// What follows when the step has passed. Default Advance.
    #[serde(default)]
    pub then: Then,
    /// Names of metrics that count at this step, in place of `strategy.rollbackTriggers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 63)))]
    pub rollback_triggers: Option<Vec<String>>,
}

/// What follows when a step has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Then {
    /// The next step.
    #[default]
    Advance,
    /// The step goes on, and is judged, until someone promotes the candidate.
    Pause,
    /// The step goes on, and is judged, until someone approves what it has shown.
    Approval,
}

/// One step from nothing to everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreen {
    /// Shortest time with all requests before the candidate is stable, such as `1h`.
    pub duration: Span,
    /// Fewest requests that the candidate must have answered by then. Default 100.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: u32,
}

/// The new version takes all requests and is watched, with the one before it ready to take them back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bake {
    /// How long, such as `14d`.
    pub duration: Span,
    /// Names of metrics. One breach takes the version before it back; without fresh readings the bake does not end.
    #[schemars(length(min = 1, max = 16), inner(length(max = 63)))]
    pub rollback_triggers: Vec<String>,
    /// Names of metrics that people are warned by, and nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    pub warn_triggers: Vec<String>,
}

fn default_percent() -> i32 {
    100
}
pub(super) fn default_min_requests() -> u32 {
    100
}
fn default_rollback_window() -> u32 {
    3
}

/// A weight that is one: 0 is no step. A minimum of 0.1 would not say so: the API server compares whole numbers with a
/// minimum without its decimals.
fn positive_weight(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = Weight::json_schema(generator);
    let rule = serde_json::json!({"rule": "self > 0.0", "message": "the weight of a step must be above 0"});
    if let Some(rules) = schema.get_mut("x-kubernetes-validations").and_then(|rules| rules.as_array_mut()) {
        rules.push(rule);
    }
    schema
}
