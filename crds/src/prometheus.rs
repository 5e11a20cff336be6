//! Where a rollout's metrics are read, and with which credentials.
//!
//! Used by [`crate::model_rollout`]. Nothing here is a credential: those lie in Secrets, and a Secret says itself which
//! server may have it (see `docs/prometheus.md`).

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::Span;

/// Where metrics are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.tls) || self.url.startsWith('https://')").message("prometheus.tls needs an https:// url"))]
#[x_kube(validation = Rule::new("!self.timeout.contains('d') && duration(self.timeout) <= duration('30s')").message("prometheus.timeout must be at most 30s"))]
#[x_kube(validation = Rule::new("!has(self.headers) || self.headers.all(h, self.headers.exists_one(o, o.name.lowerAscii() == h.name.lowerAscii()))").message("prometheus.headers must have different names"))]
pub struct Prometheus {
    /// Base URL, such as `http://prometheus.monitoring:9090`, without a user name or a password.
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^\s/?#@\\]+(/[^\s?#\\]*)?$"))]
    pub url: String,
    /// Longest time from a question to the last byte of its answer, at most `30s`. Default 5s.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Headers of every request, such as `X-Scope-OrgID` for a tenant. They are no place for a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub headers: Vec<Header>,
    /// Credentials for the server. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Certificates for an `https://` server. Default: the public authorities, and no client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How the series of one version are told from those of others. Default Labels.
    #[serde(default)]
    pub version_from: VersionFrom,
    /// Label of the series that holds the model's name; the operator adds the matchers `<modelLabel>="<model>"`,
    /// `<versionLabel>="<candidate>"` and `namespace="<namespace of the rollout>"` to every selector. Default `model`.
    #[serde(default = "default_model_label")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub model_label: String,
    /// Label of the series that holds the version. Default `version`.
    #[serde(default = "default_version_label")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub version_label: String,
    /// Label of the series that holds the pod's name, by which `evidence: sequential` tells pods apart and
    /// `versionFrom: PodName` versions; otherwise series without it are told apart by `instance`. Default `pod`.
    #[serde(default = "default_pod_label")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub pod_label: String,
    /// A newest sample that is older than this is stale, and a stale reading is no reading. Default 30s.
    #[serde(default = "default_stale_after")]
    pub stale_after: Span,
}

impl Prometheus {
    /// Scheme, host and port as `url` writes them: how messages name the server. User information, which the schema
    /// refuses, is left out even here.
    pub fn server(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("http", &self.url));
        let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}")
    }
}

/// What tells of which version a series is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VersionFrom {
    /// The labels `modelLabel` and `versionLabel`, which the model server writes.
    #[default]
    Labels,
    /// The pod's name in `podLabel`, which the scrape writes: for servers that do not know as what version they run.
    PodName,
    /// The cluster in `envoy_cluster_name`, as Envoy Gateway calls that of a version's Service if its EnvoyProxy has
    /// `mergeBackends`: for servers that export nothing. Envoy counts what it forwards, and no copies.
    EnvoyCluster,
}

/// One header of every request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.name.matches('(?i)^(authorization|host|cookie|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|content-[a-z]+|accept-encoding|proxy-[a-z-]+)$')").message("this header is made by the operator or by HTTP itself; credentials belong in prometheus.auth"))]
pub struct Header {
    /// Its name, such as `X-Scope-OrgID`.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9-]+$"))]
    pub name: String,
    /// Its value: visible ASCII characters, and spaces between them.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[!-~]([ -~]*[!-~])?$"))]
    pub value: String,
}

impl Header {
    /// Whether the operator or HTTP itself makes this header, which the schema refuses.
    pub fn is_reserved(&self) -> bool {
        const RESERVED: [&str; 11] = [
            "authorization",
            "host",
            "cookie",
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "expect",
            "accept-encoding",
        ];
        let name = self.name.to_ascii_lowercase();
        RESERVED.contains(&name.as_str()) || name.starts_with("proxy-") || name.starts_with("content-")
    }
}

/// Credentials for the server. Exactly one of the forms. Each is read from a Secret of the rollout's own namespace, and
/// only if the Secret's annotation `anneal.dev/server` names the server, such as `https://prometheus.monitoring:9090`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Auth {
    /// `Authorization: Bearer <token>`.
    Bearer(Bearer),
    /// `Authorization: Basic <user name and password>`.
    Basic(Basic),
}

/// A token in a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bearer {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: String,
    /// Key of the token in it. Default `token`.
    #[serde(default = "default_token_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A user name and a password in a Secret, such as one of type `kubernetes.io/basic-auth`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Basic {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: String,
    /// Key of the user name in it. Default `username`.
    #[serde(default = "default_username_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub username_key: String,
    /// Key of the password in it. Default `password`.
    #[serde(default = "default_password_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub password_key: String,
}

/// Certificates for an `https://` server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.ca) || has(self.clientCertificate)").message("prometheus.tls needs ca, clientCertificate or both"))]
pub struct Tls {
    /// The authorities that may have signed the server's certificate, and no others. Default: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Ca>,
    /// The certificate that the operator shows. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
}

/// Certificates of authorities, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ca {
    /// What holds them.
    #[serde(flatten)]
    pub source: CaSource,
    /// Key of the certificates in it. Default `ca.crt`.
    #[serde(default = "default_ca_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// What holds certificates of authorities. Exactly one of the forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CaSource {
    /// Name of a ConfigMap, such as `kube-root-ca.crt`, which every namespace has.
    ConfigMapName(
        #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))] String,
    ),
    /// Name of a Secret; like every Secret it must say by its annotation that it is for this server.
    SecretName(
        #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))] String,
    ),
}

/// A certificate that the operator shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificate {
    /// Name of a Secret of type `kubernetes.io/tls`, with the keys `tls.crt` and `tls.key`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: String,
}

fn default_timeout() -> Span {
    Span::from_secs(5)
}
fn default_token_key() -> String {
    "token".into()
}
fn default_username_key() -> String {
    "username".into()
}
fn default_password_key() -> String {
    "password".into()
}
fn default_ca_key() -> String {
    "ca.crt".into()
}
fn default_model_label() -> String {
    "model".into()
}
fn default_pod_label() -> String {
    "pod".into()
}
fn default_version_label() -> String {
    "version".into()
}
fn default_stale_after() -> Span {
    Span::from_secs(30)
}
