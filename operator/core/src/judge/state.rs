//! The state: all that a judge remembers from tick to tick, small enough for a status.
//!
//! Folded by [`super::tick`]. Evidence is in whole millionths of a nat, so it is short, and what is written is exactly what
//! is read back: a judge that was killed at any tick goes on as if nothing had happened.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    absolute,
    agreement::Compared,
    estimate::Tally,
    evidence::{Nats, empty},
    experiment::Look,
    means::MeanState,
    paired::Pairs,
    policy::{Advance, MetricPolicy, Policy, Rule},
    relative, rules,
    split::Split,
    verdict::Rollback,
};

/// The schema that this version writes. A state of another one holds the rollout.
pub const SCHEMA: u32 = 1;

/// What a judge knows after some ticks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// [`SCHEMA`] of the version that wrote it.
    pub schema: u32,
    /// Where the first tick starts, in milliseconds since the epoch.
    pub began_ms: i64,
    /// Ticks folded.
    pub ticks: u32,
    /// The step's own clock.
    pub step: StepState,
    /// Ticks in a row without requests to the candidate.
    pub idle: u32,
    /// Ticks in a row without requests to stable; not counted by versions that knew no such number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stable_idle: u32,
    /// Requests at the present weight.
    pub split: Split,
    /// In the order of the policy.
    pub metrics: Vec<MetricState>,
    /// Of the experiment, the last one too after it has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<Look>,
    /// Ticks of the experiment that had counted when the candidate won it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub won_at: Option<u32>,
    /// Set once, and for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepState {
    /// Which step.
    pub index: u32,
    /// Since when it has had its traffic, in milliseconds since the epoch.
    pub began_ms: i64,
    /// Ticks that counted: with data for every metric, and traffic.
    pub ticks: u32,
}

/// What is known about one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricState {
    /// Its name.
    pub name: String,
    /// Whether the last tick was judged by it.
    pub asked: bool,
    /// Ticks that were evidence.
    pub started: u32,
    /// Ticks in a row whose numbers were not finite or could not be.
    pub invalid: u32,
    /// Ticks in a row without usable data.
    pub blind: u32,
    /// Requests of the candidate since the step began; of labels, those that may be of them.
    pub step_requests: u64,
    /// The bad ones of them.
    pub step_bad: u64,
    /// Stable's requests since the step began.
    pub stable_requests: u64,
    /// The bad ones of them.
    pub stable_bad: u64,
    /// T1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<[Nats; relative::ALTERNATIVES]>,
    /// T2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute: Option<[Nats; absolute::ALTERNATIVES]>,
    /// Non-inferiority in this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advance: Option<AdvanceState>,
    /// T4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<MeanState>,
    /// T5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Pairs>,
    /// Agreement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
    /// For the estimate.
    pub tally: Tally,
}

/// Non-inferiority in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvanceState {
    /// The evidence now.
    pub now: Nats,
    /// The most that it was in this step.
    pub best: Nats,
    /// Bad events of both arms in this step, as they are counted for advancing; not known in a step that an older version
    /// began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad: Option<u64>,
}

impl AdvanceState {
    /// No evidence.
    pub(super) const NONE: Self = Self { now: Nats::ONE, best: Nats::ONE, bad: Some(0) };

    /// One tick says so much, with so many bad events.
    pub(super) fn add(&mut self, nats: f64, bad: u64) {
        self.now = Nats::floor(self.now.get() + nats);
        self.best = self.best.max(self.now);
        self.bad = self.bad.map(|before| before.saturating_add(bad));
    }
}

impl State {
    /// Before the first tick, which starts at `began_ms`, in step `step`.
    pub fn new(policy: &Policy, began_ms: i64, step: u32) -> Self {
        Self {
            schema: SCHEMA,
            began_ms,
            ticks: 0,
            step: StepState { index: step, began_ms, ticks: 0 },
            idle: 0,
            stable_idle: 0,
            split: Split::default(),
            metrics: policy.metrics.iter().map(|metric| MetricState::new(metric, policy.advance)).collect(),
            looks: vec![],
            won_at: None,
            rollback: None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(ticks: &u32) -> bool {
    *ticks == 0
}

impl MetricState {
    fn new(metric: &MetricPolicy, advance: Advance) -> Self {
        let (relative, absolute) = match metric.rule {
            Rule::Share { relative, absolute, .. } => (relative, absolute),
            Rule::Primary { .. }
            | Rule::Secondary { .. }
            | Rule::Mean(_)
            | Rule::Paired { .. }
            | Rule::Agreement { .. } => (None, None),
        };
        Self {
            name: metric.name.clone(),
            asked: true,
            started: 0,
            invalid: 0,
            blind: 0,
            step_requests: 0,
            step_bad: 0,
            stable_requests: 0,
            stable_bad: 0,
            relative: relative.map(|_| empty()),
            absolute: absolute.map(|_| empty()),
            advance: rules::limit(metric.rule, advance).map(|_| AdvanceState::NONE),
            mean: match metric.rule {
                Rule::Mean(_) => Some(MeanState::default()),
                Rule::Share { .. }
                | Rule::Primary { .. }
                | Rule::Secondary { .. }
                | Rule::Paired { .. }
                | Rule::Agreement { .. } => None,
            },
            pairs: matches!(metric.rule, Rule::Paired { .. }).then(Pairs::default),
            compared: matches!(metric.rule, Rule::Agreement { .. }).then(Compared::default),
            tally: Tally::default(),
        }
    }
}
