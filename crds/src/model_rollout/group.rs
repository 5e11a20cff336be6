//! Rollouts of several models that go together.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::RolloutPhase;
use crate::weight::Weight;

/// Rollouts that take their new versions step by step together, and take them all back when one goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.members.all(m, self.members.exists_one(n, n == m))").message("group.members must have different names"))]
pub struct Group {
    /// Names of all ModelRollouts of the group in this namespace, this one among them; the same list in each of them.
    #[schemars(length(min = 2, max = 16), inner(length(min = 1, max = 40)))]
    pub members: Vec<String>,
}

/// Where this rollout stands in its group, for the others to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// Which common takeover the version on trial takes part in, or the last one did; from 1.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub wave: i64,
    /// The phase that this rollout is in or, once it has passed that, the one that it waits to enter.
    #[serde(default)]
    pub next: RolloutPhase,
    /// The weight there.
    #[serde(default)]
    pub next_weight: Weight,
    /// The last wave in which a version of this rollout went back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedWave>,
}

/// A wave that ended because a version went back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedWave {
    /// Which one.
    pub wave: i64,
    /// Why, CamelCase, such as `ThresholdBreached`.
    pub reason: String,
    /// When.
    pub at: Time,
}
