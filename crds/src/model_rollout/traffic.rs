//! Where requests come from, and what became of the route that brings them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where requests come from: an HTTPRoute of this rollout's own, named after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// The Gateway API gateway that the route attaches to.
    pub gateway: Gateway,
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
