//! A Prometheus server with everything that is needed to ask it.
//!
//! Made by `resolve` from a spec and its Secrets, handed to the Prometheus port, and forgotten after the reconcile: a
//! Secret that was changed counts from the next reading on. Nothing of a credential is ever printed.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};

/// Something that no message, log or `Debug` output may hold.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Sensitive(Vec<u8>);

impl Sensitive {
    /// Takes care of `bytes`.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one place that needs them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What proves to the server who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credential {
    /// The value of `Authorization`; marked sensitive, so that it prints itself as that.
    header: HeaderValue,
    /// What a server that repeats its requests would give away: the secret itself, and as the header writes it.
    traces: [Sensitive; 2],
}

impl Credential {
    /// A bearer token; none if it is empty or holds what a header cannot.
    pub fn bearer(token: &str) -> Option<Self> {
        Self::new("Bearer", token.trim_ascii().to_owned(), token.trim_ascii())
    }

    /// A user name and a password; none if both are empty. The newline that editors leave behind is no part of either.
    pub fn basic(username: &str, password: &str) -> Option<Self> {
        let [username, password] = [username, password].map(|text| text.trim_end_matches(['\r', '\n']));
        let empty = username.is_empty() && password.is_empty();
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        if empty { None } else { Self::new("Basic", encoded, password) }
    }

    fn new(scheme: &str, encoded: String, secret: &str) -> Option<Self> {
        if encoded.is_empty() {
            return None;
        }
        let mut header = HeaderValue::from_str(&format!("{scheme} {encoded}")).ok()?;
        header.set_sensitive(true);
        let traces = [secret.as_bytes().to_vec(), encoded.into_bytes()].map(Sensitive::new);
        Some(Self { header, traces })
    }

    /// The value of `Authorization`.
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Whether `text` gives the secret away.
    pub fn is_in(&self, text: &str) -> bool {
        let traces = self.traces.iter().map(Sensitive::reveal).filter(|trace| !trace.is_empty());
        traces.into_iter().any(|trace| text.as_bytes().windows(trace.len()).any(|part| part == trace))
    }
}

/// Whom to trust, and which certificate to show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// The only authorities, in PEM; the public ones if there are none here.
    pub ca: Option<Vec<u8>>,
    /// A certificate and its key, in PEM.
    pub identity: Option<Sensitive>,
}

/// A Prometheus server with everything that is needed to ask it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// The namespace on whose behalf it is asked: servers of different namespaces share nothing.
    pub namespace: String,
    /// Base URL.
    pub url: Url,
    /// Headers of every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What goes into `Authorization`.
    pub credential: Option<Credential>,
    /// Certificates.
    pub tls: Tls,
    /// Longest time from a question to the last byte of its answer.
    pub timeout: Duration,
}

impl Server {
    /// Scheme, host and port if it is not the scheme's own: what messages and Secrets call the server.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_credential_is_printed() {
        let server = Server {
            namespace: "team-a".into(),
            url: Url::parse("https://p").unwrap(),
            headers: vec![],
            credential: Credential::basic("ann", "hunter2"),
            tls: Tls { ca: None, identity: Some(Sensitive::new(b"hunter2".to_vec())) },
            timeout: Duration::from_secs(5),
        };
        let printed = format!("{server:?}");
        // `ann:hunter2` in base64, and the bytes of the key.
        for trace in ["hunter2", "YW5uOmh1bnRlcjI", "104, 117"] {
            assert!(!printed.contains(trace), "{printed}");
        }
    }

    #[test]
    fn headers_are_those_of_the_standards() {
        let value =
            |credential: Option<Credential>| credential.unwrap().header().to_str().unwrap().to_owned();
        assert_eq!(value(Credential::bearer("abc.def\n")), "Bearer abc.def");
        // The example of RFC 7617.
        assert_eq!(
            value(Credential::basic("Aladdin", "open sesame\n")),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!((Credential::bearer(" \n"), Credential::basic("", "\n")), (None, None));
        assert_eq!(Credential::bearer("two\nlines"), None);
    }

    #[test]
    fn a_text_that_repeats_a_credential_is_recognised() {
        let credential = Credential::basic("ann", "hunter2").unwrap();
        assert!(credential.is_in("you said Basic YW5uOmh1bnRlcjI="));
        assert!(credential.is_in("wrong password hunter2"));
        assert!(!credential.is_in("unauthorized"));
    }
}
