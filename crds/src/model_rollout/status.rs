//! Where a ModelRollout stands: the operator's decision log.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{self, Condition, VersionRef},
    metric::MissingClass,
    weight::Weight,
};

use super::{
    autoscaling::Capacity,
    consent::PendingApproval,
    group::GroupStatus,
    traffic::{Adopted, TrafficStatus},
};

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
    /// The phase, and what keeps the version from going on: `Canary`, `Canary/AwaitingApproval`, `Canary/AwaitingPromotion`,
    /// `Canary/AwaitingGroup`, `Canary/Frozen` or `Canary/Paused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_summary: Option<String>,
    /// The version in production; in a bake, the one that is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<VersionRef>,
    /// The Service of yours that stands for the stable version as long as there is none, and in the bake of the first
    /// version for the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
    /// In a bake, the version that was stable before and stays warm for the way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<VersionRef>,
    /// The version on its way, or the one that was rolled back last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<VersionRef>,
    /// Percentage of live requests that the candidate is to answer.
    #[serde(default)]
    pub weight: Weight,
    /// Step in short, such as `2/7`; in an experiment its looks, such as `3/14`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_summary: Option<String>,
    /// When the phase or step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_started_at: Option<Time>,
    /// When the version on trial first got requests or copies of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_started_at: Option<Time>,
    /// When the data plane had taken the step's weights; the step's clock starts here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_accepted_at: Option<Time>,
    /// What became of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficStatus>,
    /// With `serving.autoscaling`, how many pods versions keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Since when a trigger has no reading, weights are not taken, contested or not followed, or pods are not ready; a step that
    /// holds for too long is rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding_since: Option<Time>,
    /// When the last freeze of this step ended, or what a ready version waited for, or the gateway took a route of yours that it had
    /// refused; `judge.maxHold` and other deadlines count from here at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thawed_at: Option<Time>,
    /// Since when a version that gets no requests yet is ready and waits: for people, for its group, or for its route. That counts
    /// towards no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Time>,
    /// What this step has shown and someone has to approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<PendingApproval>,
    /// Where this rollout stands in its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupStatus>,
    /// Why triggers have no reading at present, and since when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub missing: Vec<Missing>,
    /// The worst of the last verdicts: `Breach`, `Error`, `Stale`, `NoData`, `AwaitingLabels` or `Pass`; none if nothing was
    /// judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The share of requests that the candidate really had at the present weight, as its own and stable's counters say. With
    /// `judge.evidence: sequential` it is renewed about once a minute, with `none` when the share has moved, or the requests of the
    /// last hour have doubled or halved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// Versions that got requests which they should not have got, when those were last counted. Their pods stay until requests have
    /// been counted again, and none came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<Stray>,
    /// With `judge.evidence: sequential`, what the comparison knows so far, with the looks of an experiment in `state.looks`: a
    /// record for the operator itself, which any other operator goes on from to the bit. It belongs to the candidate of this
    /// moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "common::preserve")]
    pub judge: Option<serde_json::Value>,
    /// What metrics with a baseline were in the first days of this bake.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub baselines: Vec<Baseline>,
    /// A rollback that is decided and waits until the version that should answer instead has a ready pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_rollback: Option<Decision>,
    /// The warm-up of the candidate, once it was sent and not answered as it should be: how often, and when last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Trial>,
    /// The test that the candidate has to pass in staging.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<Trial>,
    /// The smoke requests to the stable version, since it took all traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<Trial>,
    /// The last decision, with what was read and what it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Versions that were rolled back here, newest last. They never come back by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rejected: Vec<Rejection>,
    /// Versions that were stable here before, newest last, as far as `strategy.rollbackWindow` goes. To go back to one,
    /// name it in `spec.rollback`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<VersionRef>,
    /// The `anneal.dev/promote` that has done its work, as far as it is remembered: it does no more, should its version come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<String>,
    /// The last `anneal.dev/retry` that was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Ready, Reconciling, Stalled, Progressing, Paused, Frozen, AwaitingApproval, AwaitingPromotion, AwaitingGroup, RolledBack, TrafficVerified,
    /// MetricsAvailable, Warned, InvalidCommand, Detectability, ThresholdNotOnBucket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "common::conditions")]
    pub conditions: Vec<Condition>,
}

/// A test in several tries. A try is recorded before it begins, so that a crash gives no further one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// Which try it is, from 1.
    #[serde(rename = "try")]
    pub number: u32,
    /// When that try began.
    pub started_at: Time,
    /// What became of it.
    pub state: TrialState,
    /// Digest of what the spec asked for when the test began, where another test is to begin anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub test: Option<String>,
    /// What was said last, by this try or the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
}

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrialState {
    /// The try goes on.
    Running,
    /// It passed.
    Passed,
    /// The last try failed.
    Failed,
}

/// A reason for which some trigger has no reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// The reason.
    pub class: MissingClass,
    /// Since when some trigger has had no reading for it.
    pub since: Time,
}

/// What one metric was in the first days of a bake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// Its name.
    pub metric: String,
    /// Digest of how it was defined then.
    pub of: String,
    /// A number for each bucket, or for each thing that has a rank.
    #[schemars(extend("maxProperties" = 48))]
    pub values: BTreeMap<String, f64>,
}

/// A version that got requests which it should not have got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stray {
    /// Its name.
    pub version: String,
    /// Since when it has had no counter, while others are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen_since: Option<Time>,
}

/// What really happened to requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// The candidate's share in percent with an interval of two standard errors, such as `19.8 (18.9 to 20.7)`.
    pub percent: String,
    /// Requests of both versions that it was counted from.
    #[schemars(range(min = 0))]
    pub requests: i64,
}

/// A version that was rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// Which one.
    #[serde(flatten)]
    pub version: VersionRef,
    /// Why, CamelCase, such as `ThresholdBreached`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The text of the retry that it had before, which gives it no other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<String>,
}

/// Another try for a version that was rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Digest of the version's artifact.
    pub digest: String,
    /// The annotation's text, as far as it is remembered.
    pub text: String,
    /// The text of the `anneal.dev/abort` that has done its work and is still there: it aborts no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent_abort: Option<String>,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// No version may serve yet.
    #[default]
    Pending,
    /// The candidate's pods start; it takes no traffic.
    Preparing,
    /// A test of the user's own runs against the candidate; it takes no traffic.
    Staging,
    /// Requests are copied to the candidate.
    Shadow,
    /// The candidate answers a fixed share of live requests, until it is shown which version is better.
    Experiment,
    /// The candidate answers a share of live requests.
    Canary,
    /// The candidate has become stable and answers everything, and is watched; the one before stays warm.
    Baking,
    /// Someone asked for a version that was stable before; its pods start, and the stable version answers everything.
    RollingBack,
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
            Self::Staging => "Staging",
            Self::Shadow => "Shadow",
            Self::Experiment => "Experiment",
            Self::Canary => "Canary",
            Self::Baking => "Baking",
            Self::RollingBack => "RollingBack",
            Self::Healthy => "Healthy",
            Self::RolledBack => "RolledBack",
        }
    }

    /// Whether a candidate is on its way to traffic that it does not have yet.
    pub const fn is_moving(self) -> bool {
        match self {
            Self::Preparing
            | Self::Staging
            | Self::Shadow
            | Self::Experiment
            | Self::Canary
            | Self::RollingBack => true,
            Self::Pending | Self::Baking | Self::Healthy | Self::RolledBack => false,
        }
    }

    /// Whether a version is on its way to its users, and not on its way back to them.
    pub const fn is_on_its_way(self) -> bool {
        self.is_moving() && !matches!(self, Self::RollingBack)
    }

    /// Whether nothing is on its way or on trial, and what serves has been decided about.
    pub const fn rests(self) -> bool {
        match self {
            Self::Healthy | Self::RolledBack => true,
            Self::Pending
            | Self::Preparing
            | Self::Staging
            | Self::Shadow
            | Self::Experiment
            | Self::Canary
            | Self::Baking
            | Self::RollingBack => false,
        }
    }

    /// Whether the data plane sends requests to stable version and candidate at once.
    pub const fn shares_traffic(self) -> bool {
        match self {
            Self::Shadow | Self::Experiment | Self::Canary => true,
            Self::Pending
            | Self::Preparing
            | Self::Staging
            | Self::Baking
            | Self::RollingBack
            | Self::Healthy
            | Self::RolledBack => false,
        }
    }

    /// Whether the candidate answers a share of live requests, beside the stable version.
    pub const fn divides_traffic(self) -> bool {
        match self {
            Self::Experiment | Self::Canary => true,
            Self::Pending
            | Self::Preparing
            | Self::Staging
            | Self::Shadow
            | Self::Baking
            | Self::RollingBack
            | Self::Healthy
            | Self::RolledBack => false,
        }
    }

    /// Whether a version answers requests on trial, and is judged by how it does.
    pub const fn is_judged(self) -> bool {
        match self {
            Self::Shadow | Self::Experiment | Self::Canary | Self::Baking => true,
            Self::Pending
            | Self::Preparing
            | Self::Staging
            | Self::RollingBack
            | Self::Healthy
            | Self::RolledBack => false,
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
