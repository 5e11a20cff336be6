//! Where requests come from, and what became of the route that brings them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where requests come from. Exactly one of the forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Traffic {
    /// An HTTPRoute of this rollout's own, named after it, at this Gateway API gateway.
    Gateway(Gateway),
    /// A rule of an HTTPRoute of yours.
    Attach(Attach),
}

/// A rule of an HTTPRoute that stays its user's: only the backends of the rule, and the mirror of a shadow, are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.route == oldSelf.route && has(self.rule) == has(oldSelf.rule) && (!has(self.rule) || self.rule == oldSelf.rule) && has(self.service) == has(oldSelf.service) && (!has(self.service) || self.service == oldSelf.service)").message("route, rule and service are immutable: create another ModelRollout"))]
pub struct Attach {
    /// Name of the HTTPRoute, in the rollout's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub route: String,
    /// Name of its rule. Default: the only rule that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub rule: Option<String>,
    /// Name of the Service that the rule sends requests to before any version of this rollout serves. It stands for the
    /// stable version until the first one has taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub service: Option<String>,
}

/// A gateway and the names served through it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Default: the rollout's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Host names of the route. Default: all that the gateway listens to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub hostnames: Vec<String>,
}

/// A Service that served before this rollout did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopted {
    /// Its name.
    pub service: String,
    /// Its port, as the user's rule had it when it was seen there last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// What became of the route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficStatus {
    /// What was written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<WrittenRoute>,
    /// How often someone else changed the route after it was written.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub fights: u32,
    /// The last times, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub recent_fights: Vec<Time>,
    /// Who changed it last: the field manager, as the API server has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// Why no shadow begins, for as long as the spec is what it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_dropped: Option<MirrorDropped>,
}

/// A write of the route, as it was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WrittenRoute {
    /// Digest of what was to be written.
    pub digest: String,
    /// `metadata.generation` of the route that was to be overwritten; 0 where there was none.
    pub over: i64,
    /// Digest of what is not the rollout's of a route of yours, as it was then: other rollouts may write the same route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<String>,
    /// `metadata.uid` of the route that was seen to be as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
}

/// A mirror that was written and was not there when it was read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorDropped {
    /// `metadata.generation` of the rollout that asked for it.
    pub generation: i64,
    /// What was seen, in one sentence.
    pub message: String,
}
