//! An A/B test before the first step: which of the two versions is better, by one metric and a planned number of looks.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::strategy::{Then, default_min_requests};
use crate::{span::Span, weight::Weight};

/// Most looks that an experiment may have.
const MOST_LOOKS: i64 = 60;
/// One look a day.
const DAY_MS: i64 = 86_400_000;

/// Both versions answer live requests until one of them is shown to be better. The candidate goes on if it wins, and is rolled
/// back if it loses or nothing is shown. Needs `judge.evidence: sequential`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.split > 0.0 && self.split <= 95.0").message("experiment.split must be above 0 and at most 95: both versions need requests to be compared by"))]
#[x_kube(validation = Rule::new("self.alpha > 0.0 && self.alpha < 1.0").message("experiment.alpha must lie between 0 and 1, such as 0.05"))]
#[x_kube(validation = Rule::new("!has(self.secondary) || !self.secondary.exists(s, s == self.primary)").message("experiment.secondary must not name the primary metric"))]
pub struct Experiment {
    /// The candidate's share of live requests in percent, above 0, at most 95. Default 50.
    #[serde(default = "default_split")]
    pub split: Weight,
    /// How long it lasts unless one version wins before, such as `14d`. Only time with requests and samples counts.
    pub duration: Span,
    /// Before this the candidate does not win: a whole week has all of its days. Default: half of the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_duration: Option<Span>,
    /// How often the metric is looked at, in equal parts of the duration: the fewer, the sooner each can decide. Default: once
    /// a day, at least once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60))]
    pub looks: Option<u32>,
    /// Name of the metric that decides: a ratio with one bound, or a latency. Fewer bad events are better, or more good ones
    /// where the bound is `min`.
    #[schemars(length(max = 63))]
    pub primary: String,
    /// Names of metrics, ratios and latencies, that must be shown to be no worse than `judge.sequential.nonInferiority` allows
    /// before the candidate wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 63)))]
    pub secondary: Vec<String>,
    /// Chance of a winner, on either side, where there is no difference. Above 0, below 1. Default 0.05.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// Fewest requests that the candidate must have answered before it wins. Default 100.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: u32,
    /// What follows when the candidate has won. Default Advance.
    #[serde(default)]
    pub then: Then,
}

impl Experiment {
    /// Before this the candidate does not win.
    pub fn shortest(&self) -> Span {
        self.min_duration.unwrap_or_else(|| self.duration.half())
    }

    /// How many looks are planned: at least one, and at most sixty.
    pub fn planned_looks(&self) -> u32 {
        let daily = (self.duration.as_millis() / DAY_MS).clamp(1, MOST_LOOKS);
        self.looks.map_or(daily, |looks| i64::from(looks).clamp(1, MOST_LOOKS)).try_into().unwrap_or(1)
    }

    /// Whether this metric decides, or stands against a winner.
    pub fn names(&self, metric: &str) -> bool {
        self.metrics().any(|name| name == metric)
    }

    /// The metric that decides, and those that stand against a winner.
    pub fn metrics(&self) -> impl Iterator<Item = &String> {
        [&self.primary].into_iter().chain(&self.secondary)
    }
}

fn default_split() -> Weight {
    Weight::from_percent(50)
}
fn default_alpha() -> f64 {
    0.05
}
