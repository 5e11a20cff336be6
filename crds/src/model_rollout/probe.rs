//! Requests that the operator itself sends to a version: warm-up before it takes traffic, smoke after it took all of it.
//!
//! Used by `Serving` and `Strategy`. They go to the version's own Service and nowhere else, and carry no credentials.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{common, span::Span};

/// Requests that the pods of a version must have answered before it takes any traffic, so that no user's request is the
/// one that loads a library or fills a cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.timeout.contains('d') && duration(self.timeout) <= duration('30s')").message("warmup.timeout must be at most 30s"))]
pub struct Warmup {
    /// What is sent. Every answer must have a status from 200 to 299; until then the version takes no traffic, and after
    /// `progressDeadline` it is given up.
    #[schemars(length(min = 1, max = 8))]
    pub requests: Vec<Request>,
    /// How often each request is sent for each pod, on a connection of its own every time. Which pod answers is chance, so
    /// take more than one. Default 3.
    #[serde(default = "default_count")]
    #[schemars(range(min = 1, max = 10))]
    pub count: u32,
    /// Longest time from a request to the last byte of its answer, at most `30s`. Default 10s.
    #[serde(default = "default_warmup_timeout")]
    pub timeout: Span,
}

/// A request to a version's own Service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Path and query, such as `/v2/models/ads/infer`.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^/[^\s#\\]*$"))]
    pub path: String,
    /// JSON that is sent by POST. Default: nothing is sent, by GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "common::anything")]
    pub body: Option<Value>,
}

/// Requests with expected answers, for the version that has just taken all traffic. The version before stays warm until
/// all are answered as expected. One wrong answer takes it back at once, and so does silence after `tries` tries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.timeout.contains('d') && duration(self.timeout) <= duration('30s')").message("smoke.timeout must be at most 30s"))]
pub struct Smoke {
    /// What is sent, and what must come back.
    #[schemars(length(min = 1, max = 16))]
    pub requests: Vec<SmokeRequest>,
    /// Longest time from a request to the last byte of its answer, at most `30s`. Default 5s.
    #[serde(default = "default_smoke_timeout")]
    pub timeout: Span,
    /// How often all requests are sent, ten seconds apart, while one of them gets no answer. Default 3.
    #[serde(default = "default_tries")]
    #[schemars(range(min = 1, max = 9))]
    pub tries: u32,
}

/// A request and its expected answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SmokeRequest {
    /// What messages call it. Default: its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// Path and query, such as `/v2/models/ads/infer`.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^/[^\s#\\]*$"))]
    pub path: String,
    /// JSON that is sent by POST. Default: nothing is sent, by GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "common::anything")]
    pub body: Option<Value>,
    /// What must come back. Default: status 200.
    #[serde(default)]
    pub expect: Expect,
}

/// What must come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expect {
    /// Status of the answer. Default 200.
    #[serde(default = "default_status")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// Values in the answer's JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub json: Vec<ExpectedValue>,
}

impl Default for Expect {
    fn default() -> Self {
        Self { status: default_status(), json: vec![] }
    }
}

/// A value in an answer's JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedValue {
    /// Where, as a JSON pointer (RFC 6901) such as `/outputs/0/data/0`.
    #[schemars(length(max = 256), regex(pattern = "^(/.*)?$"))]
    pub pointer: String,
    /// What must be there.
    #[schemars(schema_with = "common::anything")]
    pub value: Value,
    /// How far a number may be from `value`, which must be a number then. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tolerance")]
    pub tolerance: Option<f64>,
}

/// A minimum of 0 with a rule beside it, because the API server compares with minimums in whole numbers.
fn tolerance(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "number",
        "x-kubernetes-validations": [{"rule": "self >= 0.0", "message": "tolerance must not be negative"}],
    })
}

fn default_count() -> u32 {
    3
}
fn default_warmup_timeout() -> Span {
    Span::from_secs(10)
}
fn default_smoke_timeout() -> Span {
    Span::from_secs(5)
}
fn default_tries() -> u32 {
    3
}
fn default_status() -> u16 {
    200
}
