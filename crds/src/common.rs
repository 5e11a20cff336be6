//! Shapes that several kinds share.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Kubernetes condition, as `kubectl wait --for=condition=…` and kstatus read it.
pub type Condition = meta::Condition;

/// Where `file://` and `s3://` URIs of an object are to be found, and with which rights.
///
/// The operator never opens them itself: only pods in the object's own namespace do, with that namespace's claim or
/// Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Storage {
    /// `file://` URIs below `mountPath` lie on a PersistentVolumeClaim.
    PersistentVolumeClaim(ClaimStorage),
    /// `s3://bucket/key` URIs, with the keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` of a Secret.
    S3(S3Storage),
}

/// A volume that holds data and models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.mountPath.startsWith('/') && self.mountPath != '/'").message("mountPath must be an absolute folder other than /"))]
#[x_kube(validation = Rule::new("!self.mountPath.endsWith('/') && ['/tmp', '/etc/anneal'].all(taken, self.mountPath != taken && !self.mountPath.startsWith(taken + '/'))").message("mountPath must not end with / nor lie in /tmp or /etc/anneal, which the pods need themselves"))]
pub struct ClaimStorage {
    /// Name of a PersistentVolumeClaim in the same namespace. Trainer pods write to it, serving pods only read it.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Folder at which the volume appears in trainer and serving pods. Default `/var/lib/anneal`.
    #[serde(default = "default_mount_path")]
    #[schemars(length(min = 1, max = 128))]
    pub mount_path: String,
}

fn default_mount_path() -> String {
    "/var/lib/anneal".into()
}

/// An S3 service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Storage {
    /// Name of a Secret in the same namespace with the keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// URL of the service. Default: AWS's own for the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^https?://"))]
    pub endpoint: Option<String>,
    /// Region. Default `us-east-1`.
    #[serde(default = "default_region")]
    #[schemars(length(min = 1, max = 64))]
    pub region: String,
}

fn default_region() -> String {
    "us-east-1".into()
}

/// Which version of a model, without any doubt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionRef {
    /// Name of the ModelVersion object.
    pub name: String,
    /// Its version, such as `v20261121.1`.
    pub version: String,
    /// Digest of its artifact, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

/// A name that is also part of the names of children: a DNS label of at most 40 characters.
pub(crate) fn dns_label(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"})
}

/// A URI of a file, a folder, or a pattern with `*` in the last part.
pub(crate) fn uri(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "minLength": 6, "maxLength": 512, "pattern": "^(file:///|s3://)[^\\s]+$"})
}

/// `conditions` as the API server merges them: one entry for each type.
pub(crate) fn conditions(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = generator.subschema_for::<Vec<Condition>>();
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["type"]));
    schema
}

/// Free-form Kubernetes objects whose own schema the API server checks when the child is created.
pub(crate) fn preserve(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Requests and limits of a container, as far as this release has to read them: what it could not read would stop everything.
pub(crate) fn resources(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let quantities = |description: &str| {
        serde_json::json!({"description": description, "type": "object", "additionalProperties": {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
            "x-kubernetes-int-or-string": true,
        }})
    };
    schemars::json_schema!({"type": "object", "properties": {
        "limits": quantities("The most of each resource, such as `nvidia.com/gpu: 1`."),
        "requests": quantities("What is set aside of each resource, such as `memory: 2Gi`."),
        "claims": {
            "description": "Devices that the pod claims.",
            "type": "array",
            "maxItems": 16,
            "items": {"type": "object", "required": ["name"], "properties": {
                "name": {"description": "Name of the claim.", "type": "string"},
                "request": {"description": "Name of the request in the claim.", "type": "string"},
            }},
        },
    }})
}

/// From one to sixteen free-form objects that say of what type they are.
pub(crate) fn typed_objects(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "array", "minItems": 1, "maxItems": 16, "items": {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"description": "Of what type it is.", "type": "string", "minLength": 1, "maxLength": 63}},
        "x-kubernetes-preserve-unknown-fields": true,
    }})
}

/// Any JSON value, kept as it is.
pub(crate) fn anything(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// `text` shortened to `max` bytes at a character boundary, with an ellipsis if something was cut.
pub fn shorten(text: &str, max: usize) -> Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if text.len() <= max {
        return text.into();
    }
    let mut end = max.saturating_sub(ELLIPSIS.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ELLIPSIS}", &text[..end]).into()
}
