//! Metrics of a rollout: what is read from Prometheus and which value is too much.

use std::borrow::Cow;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    preset::{Errors, Latency},
    sequential::Sequential,
    span::Span,
};

/// A metric's name, with any number of matchers. Nothing may follow them: the operator adds its own, and an expression
/// could end them early.
fn selector(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    const MATCHER: &str = r#"[a-zA-Z_][a-zA-Z0-9_]*\s*(=|!=|=~|!~)\s*"([^"\\]|\\.)*"\s*,?\s*"#;
    let pattern = format!(r"^[a-zA-Z_:][a-zA-Z0-9_:]*([{{]\s*({MATCHER})*[}}])?$");
    schemars::json_schema!({"type": "string", "minLength": 1, "maxLength": 1024, "pattern": pattern})
}

fn optional_selector(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = selector(generator);
    schema.insert("nullable".to_owned(), true.into());
    schema
}

/// One metric of the candidate, read from Prometheus over a sliding window and compared with bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minLabels) || has(self.labelDelay)").message("minLabels needs labelDelay"))]
#[x_kube(validation = Rule::new("!has(self.labelDelay) || !(has(self.errors) || has(self.latency) || has(self.drift) || has(self.stability) || has(self.agreement))").message("labelDelay is for events that are known later than their requests: a ratio, a mean, a histogram, a value or a paired metric"))]
#[x_kube(validation = Rule::new("!has(self.labelDelay) || !has(self.value) || has(self.value.requests)").message("a value with labelDelay needs requests, the counter of its labels"))]
pub struct Metric {
    /// Name by which triggers and messages call it, such as `error_rate`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub name: String,
    /// How far back the counters are read, such as `10m`, with `judge.evidence: none`, and of values, drift and stability always. It may
    /// reach back into earlier steps. With `sequential` a comparison counts everything since its step began, and this says no more than
    /// how often it looks.
    pub window: Span,
    /// How often it must be read: a rollout looks as often as the shortest interval of its metrics says, and reads all of
    /// them. Default: a tenth of the window, at least 1s and at most 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// For events that are known only so long after the requests they belong to, such as `1h` for labels that tell whether an
    /// answer was right: what a step's requests were worth is known that much later than the step began. Until then it is no
    /// fault that there are none, and then the step still needs `minLabels` of them. Such a metric counts no requests.
    /// Default: events are known at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_delay: Option<Span>,
    /// Fewest events that must have come from `labelDelay` after the beginning of a step on, before the step may end. Only
    /// with `labelDelay`. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_labels: Option<u32>,
    /// What is read, and its bounds.
    #[serde(flatten)]
    pub source: Source,
}

/// When the events of a metric are known that come later than the requests they belong to, and how many a step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels {
    /// How long after its request an event is known.
    pub delay: Span,
    /// Fewest events of a step, at least 1.
    pub fewest: u32,
}

impl Metric {
    /// Set if its events come later than the requests they belong to.
    pub fn labels(&self) -> Option<Labels> {
        self.label_delay.map(|delay| Labels { delay, fewest: self.min_labels.unwrap_or(1).max(1) })
    }
}

/// What a metric is made of. Exactly one of the forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// Bad events as a share of all events, from two counters.
    Ratio(Ratio),
    /// The mean of values, from a counter of their sum and one of their number.
    Mean(Mean),
    /// A quantile of a classic Prometheus histogram.
    Histogram(Histogram),
    /// Any expression with one number as its value.
    Value(Value),
    /// Failed requests as a share of all, by the names that a well-known server gives them.
    Errors(Errors),
    /// A quantile of how long requests take, by the names that a well-known server gives them.
    Latency(Latency),
    /// How far a distribution has moved from what it was in the first days of a bake.
    Drift(Drift),
    /// How well an order has been kept since the first days of a bake.
    Stability(Stability),
    /// How often a version in shadow answers as the stable one does.
    Agreement(Agreement),
    /// Which of the two is right, once labels tell, about the requests that both answered.
    Paired(Paired),
}

/// What a source comes to when presets are written out.
#[derive(Clone, Debug, PartialEq)]
pub enum Form<'a> {
    /// A share from 0 to 1.
    Ratio(Cow<'a, Ratio>),
    /// A mean, in its values' own unit.
    Mean(&'a Mean),
    /// A quantile, in seconds.
    Histogram(Cow<'a, Histogram>),
    /// A number of any kind.
    Value(&'a Value),
    /// A divergence, in bits.
    Drift(&'a Drift),
    /// A correlation, from -1 to 1.
    Stability(&'a Stability),
    /// A share of requests, which noise may raise above 1.
    Agreement(&'a Agreement),
    /// A share of labels, from 0 to 1.
    Paired(&'a Paired),
}

impl Source {
    /// With presets written out.
    pub fn form(&self) -> Form<'_> {
        match self {
            Self::Ratio(ratio) => Form::Ratio(Cow::Borrowed(ratio)),
            Self::Mean(mean) => Form::Mean(mean),
            Self::Histogram(histogram) => Form::Histogram(Cow::Borrowed(histogram)),
            Self::Value(value) => Form::Value(value),
            Self::Errors(errors) => Form::Ratio(Cow::Owned(errors.ratio())),
            Self::Latency(latency) => Form::Histogram(Cow::Owned(latency.histogram())),
            Self::Drift(drift) => Form::Drift(drift),
            Self::Stability(stability) => Form::Stability(stability),
            Self::Agreement(agreement) => Form::Agreement(agreement),
            Self::Paired(paired) => Form::Paired(paired),
        }
    }
}

/// A share from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.min) || has(self.max)").message("a ratio needs min, max or both"))]
#[x_kube(validation = Rule::new("!has(self.min) || !has(self.max) || self.min <= self.max").message("min must not be above max"))]
pub struct Ratio {
    /// Series selector of the counter of bad events, such as `anneal_serve_requests_total{code=~"5.."}`. With `min` it is that of the good
    /// events, whose share must not fall below it.
    #[schemars(schema_with = "selector")]
    pub bad: String,
    /// Series selector of the counter of the others.
    #[serde(flatten)]
    pub others: Others,
    /// What it means when one of the two selectors matches no series. Default Missing.
    #[serde(default)]
    pub absent: Absent,
    /// Largest share that passes, inclusive, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max: Option<f64>,
    /// Smallest share that passes, inclusive, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min: Option<f64>,
}

/// What bad events are a share of. Exactly one of the forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Others {
    /// Series selector of the counter of all events, bad ones among them.
    Total(#[schemars(schema_with = "selector")] String),
    /// Series selector of the counter of good events.
    Good(#[schemars(schema_with = "selector")] String),
}

/// The mean of values that are counted one by one, such as absolute errors (mae), squared errors (mse, the square of rmse),
/// losses or rewards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mean {
    /// Series selector of the counter of the values' sum, such as `absolute_error_sum`. With `judge.evidence: none` no value
    /// may be negative, because a sum that falls looks like a restart.
    #[schemars(schema_with = "selector")]
    pub sum: String,
    /// Series selector of the counter of how many they are, such as `absolute_error_count`.
    #[schemars(schema_with = "selector")]
    pub count: String,
    /// Which means pass.
    #[serde(flatten)]
    pub bound: MeanBound,
    /// How much worse than stable's the mean may be, in the values' own unit, zero or more. Needed with
    /// `judge.evidence: sequential`, and only there: any difference is found some day, so you must say which one does not
    /// matter. What pods of one version differ by belongs in it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub margin: Option<f64>,
}

/// Which means pass, and so which are better. Exactly one of the forms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MeanBound {
    /// Largest mean that passes, inclusive: lower is better, as with errors and losses.
    Max(f64),
    /// Smallest mean that passes, inclusive: higher is better, as with rewards.
    Min(f64),
}

/// What a counter without a series is, while the other counter of the ratio has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Absent {
    /// Missing data.
    #[default]
    Missing,
    /// Zero, for servers that make a counter with its first event. A selector with a mistake in it is zero too, then.
    Zero,
}

/// A latency quantile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.quantile > 0.0 && self.quantile < 1.0").message("quantile must lie between 0 and 1, such as 0.95"))]
pub struct Histogram {
    /// Series selector of the histogram's buckets, such as `anneal_serve_request_duration_seconds_bucket`.
    #[schemars(schema_with = "selector")]
    pub selector: String,
    /// What its buckets are counted in. Default Seconds.
    #[serde(default)]
    pub unit: Unit,
    /// Which quantile, above 0 and below 1.
    pub quantile: f64,
    /// Largest value that passes, inclusive, such as `300ms`. It must lie below the histogram's highest bucket.
    pub max: Span,
}

/// What the buckets of a histogram are counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unit {
    /// Seconds.
    #[default]
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    /// How many of it a second has.
    pub const fn per_second(self) -> f64 {
        match self {
            Self::Seconds => 1.0,
            Self::Milliseconds => 1000.0,
        }
    }
}

/// What an expression says. It is compared with its bounds as it is, under every `judge.evidence`: nothing is known of
/// what it is made of, so chance is not taken into account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.min) || has(self.max)").message("a value needs min, max or both"))]
#[x_kube(validation = Rule::new("!has(self.min) || !has(self.max) || self.min <= self.max").message("min must not be above max"))]
#[x_kube(validation = Rule::new("self.expression.contains('$window')").message("a value's expression must read $window, the metric's window, such as avg_over_time(model_accuracy[$window])"))]
pub struct Value {
    /// PromQL whose value is one number, such as `min(avg_over_time(model_accuracy[$window]))`. The operator adds its
    /// matchers to every selector in it, and the metric's window takes the place of `$window`. It is as fresh as the
    /// newest sample of its stalest selector, among those that look at the present.
    #[schemars(length(min = 1, max = 2048))]
    pub expression: String,
    /// Series selector of the counter of what the value is made of, for `minRequests`. Without it the value does not
    /// tell how many requests a step has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_selector")]
    pub requests: Option<String>,
    /// Largest value that passes, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Smallest value that passes, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
}

/// The distribution of what a histogram counts, such as predicted scores, beside the one of the first days of the bake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Series selector of the histogram's buckets, such as `prediction_score_bucket`.
    #[schemars(schema_with = "selector")]
    pub buckets: String,
    /// The first days of the bake, which later ones are compared with. Default 7d.
    #[serde(default = "default_baseline")]
    pub baseline: Span,
    /// Fewer events in the window or in the baseline are no distribution. Default 1000.
    #[serde(default = "default_min_events")]
    #[schemars(range(min = 1))]
    pub min_events: u32,
    /// Largest Jensen-Shannon divergence that passes, inclusive, in bits: 0 is the same, 1 is nothing in common.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max: f64,
}

/// The order of things by a gauge, such as features by their importance, beside the one of the first days of the bake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stability {
    /// Series selector of the gauge, such as `feature_importance`.
    #[schemars(schema_with = "selector")]
    pub gauge: String,
    /// Label that names the things, such as `feature`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub by: String,
    /// The first days of the bake, which later ones are compared with. Default 7d.
    #[serde(default = "default_baseline")]
    pub baseline: Span,
    /// Smallest rank correlation of Spearman that passes, inclusive: 1 is the same order, -1 the reverse one.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub min: f64,
}

/// Answers of a version in shadow beside those of the stable one to the same requests. A serving pod that gets a copied request
/// asks the stable version twice, and counts in `anneal_serve_compared_total` who differs from whom: what the stable
/// version's own answers differ by, as those of a model that draws lots do, is subtracted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// Smallest share of requests with the same answer that passes, inclusive, from 0 to 1, such as 0.95. Of a request with
    /// several rows one is compared, drawn by lot. With `judge.evidence: none` a step waits until a hundred answers were
    /// compared in the window.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min: f64,
    /// By how much numbers may differ that are the same answer, in their own unit. Without it only texts are compared, such as
    /// a class, and a model that answers with numbers alone needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub tolerance: Option<f64>,
    /// Most copied requests that each pod compares in a second, so that the stable version gets at most twice as many more.
    /// Default 10.
    #[serde(default = "default_per_second")]
    #[schemars(range(min = 1, max = 1000))]
    pub requests_per_second: u32,
}

impl Default for Agreement {
    fn default() -> Self {
        Self { min: 0.0, tolerance: None, requests_per_second: default_per_second() }
    }
}

/// Labels of requests that a version in shadow and the stable one both answered. A serving pod that compared a copied request
/// remembers both answers, and counts in `anneal_serve_paired_total` who was right when a copy of `POST /v2/feedback` brings the
/// label. Only labels by which one of the two was right and the other was not say anything (McNemar), so that it takes a tenth
/// of the labels that two versions with requests of their own would.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Paired {
    /// Of the labels by which one of the two alone was right, the largest share that passes by which the stable version was,
    /// inclusive. Default 0.5, which two versions that are alike go beyond as often as not: where it is compared as it is, as with
    /// `judge.evidence: none` or in `warnTriggers`, it must be above that, and ten such labels are needed for a breach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.5, max = 0.99))]
    pub max: Option<f64>,
}

impl Paired {
    /// The largest share that passes.
    pub fn max(&self) -> f64 {
        self.max.unwrap_or(0.5)
    }
}

fn default_per_second() -> u32 {
    10
}
fn default_baseline() -> Span {
    Span::from_secs(7 * 24 * 3600)
}
fn default_min_events() -> u32 {
    1000
}

/// How readings become verdicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.sequential) || self.evidence == 'sequential'").message("judge.sequential needs judge.evidence: sequential"))]
pub struct Judge {
    /// How sure a verdict must be. `sequential` compares every request of the candidate with those of the stable version,
    /// and rolls back when chance is no explanation any more, however often one looks. `none` compares each reading with
    /// its bound as it is, as Argo Rollouts and Flagger do.
    pub evidence: JudgeEvidence,
    /// Terms of `evidence: sequential`. Changed in mid-rollout, they begin the comparison anew. Default: all defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequential: Option<Sequential>,
    /// How long a step may wait for readings that are missing, stale or not finite, for pods that are not ready, for a gateway
    /// that has not taken its weights, for a data plane that does not follow them or, with `evidence: none`, for too few requests,
    /// before the candidate is rolled back; for pods at least `serving.progressDeadline`. Where a data plane does not follow, one that
    /// has all requests, and with `evidence: none` any other one that is ready and has a reading of every trigger, stays and is
    /// `Stalled`. Default 10m.
    #[serde(default = "default_max_hold")]
    pub max_hold: Span,
    /// What becomes of a version on trial while a trigger has no series or no requests. Default: it waits.
    #[serde(default)]
    pub on_no_data: OnMissing,
    /// The same while the newest sample of a trigger is older than `prometheus.staleAfter`. Default: it waits.
    #[serde(default)]
    pub on_stale: OnMissing,
    /// The same while Prometheus does not answer, or answers what is not a finite number. Default: it waits.
    #[serde(default)]
    pub on_error: OnMissing,
    /// What becomes of a rollback while the version that should answer instead has no ready endpoint, and the one that is
    /// to leave has. Default Hold.
    #[serde(default)]
    pub on_stable_unavailable: OnStableUnavailable,
}

/// What becomes of a version on trial that cannot be judged. Whatever is chosen, it gets no more traffic meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.after) || (has(self.action) && self.action == 'Rollback')").message("after needs the action Rollback"))]
pub struct OnMissing {
    /// Wait, until `maxHold` is over, or roll back. Default Hold.
    #[serde(default)]
    pub action: MissingAction,
    /// How long it must be so before the rollback, beyond the first `prometheus.staleAfter` of a step. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Span>,
}

/// What to do where nothing can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MissingAction {
    /// Wait.
    #[default]
    Hold,
    /// Roll back.
    Rollback,
}

/// Why a trigger has no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum MissingClass {
    /// No series, or no requests.
    NoData,
    /// The newest sample is too old.
    Stale,
    /// No answer, or one that is not a finite number.
    Error,
}

impl MissingClass {
    /// As status writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoData => "NoData",
            Self::Stale => "Stale",
            Self::Error => "Error",
        }
    }
}

/// What becomes of a rollback to a version that nobody could reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnStableUnavailable {
    /// Traffic stays as it is until that version has a ready pod.
    #[default]
    Hold,
    /// It takes the traffic at once.
    Rollback,
}

fn default_max_hold() -> Span {
    Span::from_secs(600)
}

/// How sure a verdict must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum JudgeEvidence {
    /// Plain thresholds.
    None,
    /// An always-valid sequential test of both versions' raw counters.
    Sequential,
}
