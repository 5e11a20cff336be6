//! Staging: a test of the user's own that a candidate must pass before it gets any request of a user.

use k8s_openapi::api::core::v1 as core;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{common, prometheus::Header, retrain_job::PullPolicy, span::Span};

/// Integration tests against the candidate at weight 0. Only a test that says that it passed lets the candidate go on: an
/// error, no answer and no end in time use up a try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Staging {
    /// The test.
    pub test: StagingTest,
    /// How long one try may take. Default 10m.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// How many tries the candidate has. After the last one it is rejected. Default 3.
    #[serde(default = "default_tries")]
    #[schemars(range(min = 1, max = 9))]
    pub tries: u32,
}

/// The test. Exactly one of the forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StagingTest {
    /// A Job. It passes by exit code 0.
    Job(Box<JobTest>),
    /// A server of yours that is asked.
    Webhook(Webhook),
}

/// A Job that tests the candidate: a new one for each try, with one pod.
///
/// The pod runs under the restricted profile of pod security, without the token of a service account, and can write to
/// `/tmp` only. It finds the candidate in `ANNEAL_CANDIDATE_URL`, and what it tests in `ANNEAL_MODEL`, `ANNEAL_VERSION`,
/// `ANNEAL_DIGEST`, `ANNEAL_ROLLOUT` and `ANNEAL_TRY`. What it writes to `/dev/termination-log` is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobTest {
    /// Image with the test.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// When to pull the image. Default IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Entry point. Default: the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Arguments. Default: the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 4096)))]
    pub args: Vec<String>,
    /// Environment, beside the operator's own. It is no place for a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env: Vec<TestVariable>,
    /// Requests and limits.
    #[serde(default)]
    #[schemars(schema_with = "common::resources")]
    pub resources: core::ResourceRequirements,
}

/// A variable of the test's environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.name.startsWith('ANNEAL_')").message("names that begin with ANNEAL_ are the operator's own"))]
pub struct TestVariable {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// A server that is asked by POST, without credentials, once for each try, with JSON:
/// `{"id", "namespace", "rollout", "model", "version", "digest", "candidateUrl", "try"}`.
///
/// It must answer with a status from 200 to 299 and `{"passed": true}` or `{"passed": false}`, with a `message` if it has
/// one. Anything else is no pass. After a crash of the operator the same try may be asked again, with the same `id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.timeout.contains('d') && duration(self.timeout) <= duration('30s')").message("webhook.timeout must be at most 30s; a test that takes longer is one for a Job"))]
pub struct Webhook {
    /// Where, such as `http://tests.team-a.svc/ads`, without a user name or a password.
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^\s/?#@\\]+(/[^\s#\\]*)?$"))]
    pub url: String,
    /// Longest time from the question to the last byte of its answer, at most `30s`. Default 10s.
    #[serde(default = "default_webhook_timeout")]
    pub timeout: Span,
    /// Headers of the question. They are no place for a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub headers: Vec<Header>,
}

fn default_timeout() -> Span {
    Span::from_secs(600)
}
fn default_webhook_timeout() -> Span {
    Span::from_secs(10)
}
fn default_tries() -> u32 {
    3
}
