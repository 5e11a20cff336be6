//! When people have a say: windows in which nothing advances, and steps whose evidence someone must approve.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::Observed;
use crate::{
    common::{self, VersionRef},
    span::Span,
    weight::Weight,
};

/// A window that opens by a schedule and closes after a while. The fields are called as those of a CronJob and of a sync
/// window of Argo CD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Freeze {
    /// Its name, by which a promotion can go on all the same.
    #[schemars(schema_with = "common::dns_label")]
    pub name: String,
    /// When it opens, as cron of five fields: minute, hour, day of month, month, day of week. `0 18 * * 5` is every Friday
    /// at six in the evening.
    #[schemars(length(max = 128), regex(pattern = "^[0-9A-Za-z*,/#-]+( [0-9A-Za-z*,/#-]+){4}$"))]
    pub schedule: String,
    /// How long it stays open, such as `62h`: less than from one opening to the next.
    pub duration: Span,
    /// The time zone of the schedule, by its IANA name, such as `Europe/Berlin`. Default Etc/UTC. A time that the clocks
    /// leave out counts as one hour later, and one that comes twice counts the first time.
    #[serde(default = "default_time_zone")]
    #[schemars(length(max = 64), regex(pattern = "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"))]
    pub time_zone: String,
}

/// What an approval needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.expiresAfter) || self.expiresAfter.contains('d') || duration(self.expiresAfter) >= duration('1m')").message("approval.expiresAfter must be at least 1m"))]
pub struct Approval {
    /// A point of every way to take over that needs one too, whatever the steps say. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ApprovalPoint>,
    /// How old evidence may be when it is approved; then it is taken anew. At least a minute. Default 24h.
    #[serde(default = "default_expires_after")]
    pub expires_after: Span,
}

/// A point that needs an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalPoint {
    /// The last step, or the experiment or the shadow, after which the candidate takes all requests.
    FullTraffic,
}

impl Approval {
    /// How old evidence may be where the strategy says nothing.
    pub fn default_expiry() -> Span {
        default_expires_after()
    }
}

/// What someone has to approve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingApproval {
    /// SHA-256 of `evidence` as canonical JSON (RFC 8785), in hexadecimal digits.
    pub digest: String,
    /// When the evidence is too old to be approved.
    pub expires_at: Time,
    /// What was judged.
    pub evidence: Evidence,
}

/// What a step has shown when it had passed, or was promoted. It does not change any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The version that was judged.
    pub candidate: VersionRef,
    /// The version in production meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<VersionRef>,
    /// The Service that was in production meanwhile, before any version of this rollout was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<String>,
    /// The step, as a command names it: `Shadow`, `Experiment`, or the weight.
    pub step: String,
    /// Percentage of live requests that the candidate was to answer.
    pub weight: Weight,
    /// When the step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_started_at: Option<Time>,
    /// When the data plane had taken the step's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_accepted_at: Option<Time>,
    /// When it was judged.
    pub judged_at: Time,
    /// The share of requests that the candidate really had, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// Who promoted the step and why, if someone did: then its time and requests may not be all that it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<String>,
    /// Digest of the steps, triggers, `spec.metrics` and `spec.judge` by which it was judged.
    pub terms: String,
    /// Every metric with its figures.
    #[schemars(length(max = 16))]
    pub metrics: Vec<JudgedMetric>,
}

/// A metric as it was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JudgedMetric {
    /// Its name.
    pub metric: String,
    /// `Pass`, or why there was no verdict.
    pub verdict: String,
    /// What was read, with its unit.
    pub value: String,
    /// What it was compared with.
    pub bound: String,
}

fn default_time_zone() -> String {
    "Etc/UTC".into()
}
fn default_expires_after() -> Span {
    Span::from_secs(24 * 3600)
}
