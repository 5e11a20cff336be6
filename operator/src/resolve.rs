//! From a spec to the server that may be asked: reads the Secrets of the rollout's own namespace, and asks each whether it
//! is meant for this server.
//!
//! Called by [`crate::observe`] before each reading, without a cache. A Secret that does not name the server is not used:
//! who may write a rollout but not read Secrets could otherwise send any of them anywhere (ADR 9).

use std::time::Duration;

use anneal_core::object::{Key, Kind};
use anneal_crds::{
    names,
    prometheus::{Auth, CaSource, Prometheus, Tls as TlsSpec},
};
use k8s_openapi::ByteString;
use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};
use serde_json::Value;

use crate::{
    ports::{ClusterError, Reader},
    server::{Credential, Sensitive, Server, Tls},
};

/// Longest timeout, whatever a spec says that no API server has checked.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a server cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The URL.
    #[error("spec.prometheus.url is no http or https URL of a server without a user name; correct it")]
    Url,
    /// A header.
    #[error("spec.prometheus.headers: `{0}` cannot be sent; remove it")]
    Header(String),
    /// The right to read credentials is not given by default.
    #[error(
        "the operator may not read {0}: set prometheusCredentials.enabled=true in the values of its Helm chart, or let \
         its service account get this one by a Role"
    )]
    Forbidden(String),
    /// Nothing of that name.
    #[error("{0} does not exist; create it in the rollout's namespace")]
    Missing(String),
    /// The API server gave no answer.
    #[error("{0} could not be read ({1}); it is tried again")]
    Unread(String, String),
    /// The Secret is not for this server.
    #[error(
        "{secret} does not say that {origin} may have it: if it may, annotate it with {annotation}={origin}{warning}",
        annotation = names::ANNOTATION_SERVER,
        warning = if origin.starts_with("http:") { " (over plain http, whoever is on the way can read it)" } else { "" }
    )]
    NotGranted {
        /// Which.
        secret: String,
        /// The server.
        origin: String,
    },
    /// A part of it is missing.
    #[error("{0} has no key `{1}`; add it, or name the right one in spec.prometheus")]
    NoKey(String, String),
    /// A part of it is not what it is to be.
    #[error("`{1}` of {0} is not {2}; correct it")]
    NotValid(String, String, &'static str),
}

/// The server of `spec` for a rollout in `namespace`.
pub async fn resolve(cluster: &dyn Reader, namespace: &str, spec: &Prometheus) -> Result<Server, Unusable> {
    let url = Url::parse(&spec.url).map_err(|_| Unusable::Url)?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    if !is_web || !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(Unusable::Url);
    }
    let headers = spec
        .headers
        .iter()
        .map(|header| {
            let parts =
                (HeaderName::from_bytes(header.name.as_bytes()), HeaderValue::from_str(&header.value));
            match parts {
                (Ok(name), Ok(value)) if !header.is_reserved() => Ok((name, value)),
                (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(Unusable::Header(header.name.clone())),
            }
        })
        .collect::<Result<_, _>>()?;
    let keys = Keys { cluster, namespace, origin: url.origin().ascii_serialization() };
    let credential = match &spec.auth {
        None => None,
        Some(auth) => Some(keys.credential(auth).await?),
    };
    let tls = match &spec.tls {
        None => Tls::default(),
        Some(_) if url.scheme() != "https" => return Err(Unusable::Url),
        Some(tls) => keys.tls(tls).await?,
    };
    let timeout = spec.timeout.get().unsigned_abs().min(MAX_TIMEOUT);
    Ok(Server { namespace: namespace.to_owned(), url, headers, credential, tls, timeout })
}

/// The namespace's Secrets and ConfigMaps, as far as they are for one server.
struct Keys<'a> {
    cluster: &'a dyn Reader,
    namespace: &'a str,
    origin: String,
}

impl Keys<'_> {
    async fn credential(&self, auth: &Auth) -> Result<Credential, Unusable> {
        match auth {
            Auth::Bearer(bearer) => {
                let secret = self.secret(&bearer.secret_name).await?;
                let token = secret.text(&bearer.key)?;
                Credential::bearer(&token).ok_or_else(|| secret.not_valid(&bearer.key, "a token"))
            }
            Auth::Basic(basic) => {
                let secret = self.secret(&basic.secret_name).await?;
                let (username, password) =
                    (secret.text(&basic.username_key)?, secret.text(&basic.password_key)?);
                // RFC 7617: the first colon ends the user name.
                let credential =
                    if username.contains(':') { None } else { Credential::basic(&username, &password) };
                credential.ok_or_else(|| secret.not_valid(&basic.username_key, "a user name without a colon"))
            }
        }
    }

    async fn tls(&self, tls: &TlsSpec) -> Result<Tls, Unusable> {
        let ca = match &tls.ca {
            None => None,
            Some(ca) => {
                let holder = match &ca.source {
                    CaSource::SecretName(name) => self.secret(name).await?,
                    // Everyone may read what is in it, so it needs to say nothing.
                    CaSource::ConfigMapName(name) => self.read(Kind::ConfigMap, name).await?,
                };
                Some(holder.bytes(&ca.key)?)
            }
        };
        let identity = match &tls.client_certificate {
            None => None,
            Some(certificate) => {
                let secret = self.secret(&certificate.secret_name).await?;
                let mut pem = secret.bytes("tls.crt")?;
                pem.push(b'\n');
                pem.extend(secret.bytes("tls.key")?);
                Some(Sensitive::new(pem))
            }
        };
        Ok(Tls { ca, identity })
    }

    /// A Secret that says it is for this server.
    async fn secret(&self, name: &str) -> Result<Holder, Unusable> {
        let secret = self.read(Kind::Secret, name).await?;
        let granted = secret.object["metadata"]["annotations"][names::ANNOTATION_SERVER].as_str();
        if granted.and_then(origin).is_some_and(|origin| origin == self.origin) {
            return Ok(secret);
        }
        Err(Unusable::NotGranted { secret: secret.name, origin: self.origin.clone() })
    }

    async fn read(&self, kind: Kind, name: &str) -> Result<Holder, Unusable> {
        let key = Key::new(kind, self.namespace, name);
        let what = format!("{} {}/{name}", kind.resource().2, self.namespace);
        match self.cluster.get(&key).await {
            Ok(Some(object)) => Ok(Holder { kind, name: what, object }),
            Ok(None) => Err(Unusable::Missing(what)),
            Err(ClusterError::Forbidden { .. }) => Err(Unusable::Forbidden(what)),
            Err(
                error @ (ClusterError::Conflict
                | ClusterError::Refused { .. }
                | ClusterError::NoSuchKind { .. }
                | ClusterError::Transient { .. }),
            ) => {
                // The error's own words may be those of a parser that quotes what it has read.
                Err(Unusable::Unread(what, error.category().to_owned()))
            }
        }
    }
}

/// The origin that an annotation names; none if it names more or less than one.
fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text.trim()).ok()?;
    let only_origin = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    (only_origin && url.origin().is_tuple()).then(|| url.origin().ascii_serialization())
}

/// A Secret or ConfigMap as it was read. No `Debug`: it must not be printed.
struct Holder {
    kind: Kind,
    name: String,
    object: Value,
}

impl Holder {
    /// The value of a key, which a ConfigMap writes as text and a Secret as base64.
    fn bytes(&self, key: &str) -> Result<Vec<u8>, Unusable> {
        let value = &self.object["data"][key];
        if self.kind == Kind::ConfigMap {
            let text = value.as_str().map(|text| text.as_bytes().to_vec());
            return text.ok_or_else(|| Unusable::NoKey(self.name.clone(), key.to_owned()));
        }
        if value.is_null() {
            return Err(Unusable::NoKey(self.name.clone(), key.to_owned()));
        }
        let decoded: Result<ByteString, _> = serde_json::from_value(value.clone());
        decoded.map(|bytes| bytes.0).map_err(|_| self.not_valid(key, "base64"))
    }

    fn text(&self, key: &str) -> Result<String, Unusable> {
        String::from_utf8(self.bytes(key)?).map_err(|_| self.not_valid(key, "text"))
    }

    fn not_valid(&self, key: &str, what: &'static str) -> Unusable {
        Unusable::NotValid(self.name.clone(), key.to_owned(), what)
    }
}

#[cfg(test)]
mod tests;
