//! ModelVersion: the record of a model that passed its gates. Its spec never changes.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{self, Storage},
    contract::{Evaluation, GateOutcome},
    retrain_job::{ResolvedBaseline, VersionServing},
};

/// The immutable record of a model that passed its gates.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "anneal.dev",
    version = "v1alpha1",
    kind = "ModelVersion",
    plural = "modelversions",
    shortname = "mv",
    category = "anneal",
    namespaced,
    derive = "PartialEq",
    doc = "A ModelVersion is the immutable record of a model that passed its gates: where it lies, what it was compared with and what it showed.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Admission", type_ = "string", json_path = ".spec.admission"),
    printcolumn(name = "Approved", type_ = "string", json_path = ".metadata.annotations['anneal\\.dev/approved-by']"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable: a version is a record")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelVersionSpec {
    /// Name of the model.
    #[schemars(schema_with = "common::dns_label")]
    pub model: String,
    /// `vYYYYMMDD.n`, ordered by date and number.
    #[schemars(length(max = 32), regex(pattern = "^v[0-9]{8}\\.[0-9]+$"))]
    pub version: String,
    /// Why this version may serve.
    pub admission: Admission,
    /// Where its files lie.
    pub artifact: Artifact,
    /// Where its URIs lie.
    pub storage: Storage,
    /// The run that made it.
    pub origin: Origin,
    /// What it was compared with.
    pub baseline: ResolvedBaseline,
    /// What it showed on the validation rows.
    pub evaluation: Evaluation,
    /// The verdict of every gate.
    #[schemars(length(max = 16))]
    pub gates: Vec<GateOutcome>,
    /// How it is served, beside what the ModelRollout says for all versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<VersionServing>,
}

/// Why a version may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Admission {
    /// All required gates passed against the baseline.
    Gates,
    /// There was no baseline: value gates passed, and a person must approve.
    Bootstrap,
}

/// Files of a model. They never change: the folder's name is their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Folder, `…/blobs/sha256/<digest>`.
    #[schemars(length(max = 1024))]
    pub uri: String,
    /// `sha256:` and the digest of the artifact's `SHA256SUMS`.
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: String,
}

/// The run that made a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// Name of the RetrainJob.
    pub job: String,
    /// Its uid.
    pub uid: String,
}
