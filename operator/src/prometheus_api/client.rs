//! The HTTP client of a lane: TLS as the spec has it, and no way to anywhere else.

use std::time::Duration;

use reqwest::redirect;

use super::{failure::Failure, lane::ON_THEIR_WAY, names::Names};
use crate::server::Tls;

/// Longest way to a connection, even one that nobody waits for any more.
const MAX_CONNECT: Duration = Duration::from_secs(30);
/// How long a connection may wait for the next question.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);

/// A client that goes where the URL says and nowhere else: no redirects, no proxy of the environment, no cookies.
pub fn client(tls: &Tls, is_encrypted: bool) -> Result<reqwest::Client, Failure> {
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .dns_resolver(Names::default())
        .connect_timeout(MAX_CONNECT)
        .pool_max_idle_per_host(ON_THEIR_WAY)
        .pool_idle_timeout(IDLE_CONNECTION);
    if let Some(ca) = &tls.ca {
        let authorities =
            reqwest::Certificate::from_pem_bundle(ca).map_err(|error| Failure::certificates(&error))?;
        if authorities.is_empty() {
            return Err(Failure::Certificates("no certificate in it".to_owned()));
        }
        builder = builder.tls_certs_only(authorities);
    } else if !is_encrypted {
        // The public authorities are many, and nobody asks for them.
        builder = builder.tls_certs_only([]);
    }
    if let Some(identity) = &tls.identity {
        // A parser's words may quote what it has read, and this is a key.
        let identity = reqwest::Identity::from_pem(identity.reveal()).map_err(|_| {
            Failure::Certificates("tls.crt and tls.key are not a certificate and its key".into())
        })?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| Failure::certificates(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Sensitive;

    #[test]
    fn a_key_is_never_quoted() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let tls = Tls { ca: None, identity: Some(Sensitive::new(b"hunter2".to_vec())) };
        let Err(failure) = client(&tls, true) else { panic!("that is no key") };
        assert!(
            !failure.to_string().contains("hunter2") && failure.to_string().contains("tls.key"),
            "{failure}"
        );
        let tls = Tls { ca: Some(b"hunter2".to_vec()), identity: None };
        assert!(matches!(client(&tls, true), Err(Failure::Certificates(_))));
    }
}
