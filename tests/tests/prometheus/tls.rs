//! Certificates: whom the operator trusts, and what it shows.

use std::{io, net::SocketAddr, sync::Arc};

use anneal_core::rollout::Answer;
use anneal_operator::{
    ports::Prometheus as _,
    prometheus_api::HttpPrometheus,
    server::{Sensitive, Server, Tls},
};
use axum::{Router, routing::get, serve::Listener};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::harness::{self, EMPTY, ask, failure, query, server};

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(roots)
    }

    /// As a Secret of type `kubernetes.io/tls` is put together.
    fn identity(&self) -> Option<Sensitive> {
        let (certificate, key) = self.issue("operator");
        Some(Sensitive::new(format!("{}{}", certificate.pem(), key.serialize_pem()).into_bytes()))
    }
}

/// TLS on every connection; a handshake that fails ends only itself.
struct TlsListener(TcpListener, TlsAcceptor);

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.0.accept().await.unwrap();
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A server for `name` with a certificate of `authority`, which may want one of `clients`.
async fn serve(authority: &Authority, name: &str, clients: Option<&Authority>) -> Server {
    // Installs the provider.
    let plain = server("https://p");
    let (certificate, key) = authority.issue(name);
    let builder = match clients {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(clients) => {
            let verifier = WebPkiClientVerifier::builder(clients.roots()).build().unwrap();
            ServerConfig::builder().with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new().route("/api/v1/query", get(|| async { EMPTY }));
    let listener = TlsListener(listener, TlsAcceptor::from(Arc::new(config)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server { url, ..plain }
}

#[tokio::test]
async fn only_the_named_authority_is_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = serve(&authority, "127.0.0.1", None).await;
    let trusting = |ca: Option<Vec<u8>>| Server { tls: Tls { ca, identity: None }, ..server.clone() };
    assert_eq!(ask(&trusting(Some(authority.pem()))).await, Answer::Vector(vec![]));
    // While an authority is replaced, both are in the file.
    let both = [other.pem(), authority.pem()].concat();
    assert_eq!(ask(&trusting(Some(both))).await, Answer::Vector(vec![]));
    for ca in [Some(other.pem()), None] {
        let why = failure(&server, ask(&trusting(ca)).await);
        assert!(why.contains("certificate"), "{why}");
    }
}

#[tokio::test]
async fn certificates_that_are_replaced_count_for_the_next_question() {
    let (authority, other, clients) = (Authority::new(), Authority::new(), Authority::new());
    let server = serve(&authority, "127.0.0.1", Some(&clients)).await;
    // One operator, whose Secrets and ConfigMaps change under it.
    let prometheus = HttpPrometheus::default();
    for (ca, identity, answers) in [
        (other.pem(), clients.identity(), false),
        (authority.pem(), clients.identity(), true),
        (authority.pem(), other.identity(), false),
        (authority.pem(), clients.identity(), true),
        // A connection that was trusted before is not gone on with.
        (other.pem(), clients.identity(), false),
    ] {
        let now = Server { tls: Tls { ca: Some(ca), identity }, ..server.clone() };
        let answer = prometheus.query(&now, &query("up"), harness::now()).await;
        assert_eq!(answer == Answer::Vector(vec![]), answers, "{answer:?}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_trusted() {
    let authority = Authority::new();
    let server = serve(&authority, "prometheus.monitoring", None).await;
    let server = Server { tls: Tls { ca: Some(authority.pem()), identity: None }, ..server };
    let why = failure(&server, ask(&server).await);
    assert!(why.contains("certificate not valid for name"), "{why}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_wants_one() {
    let (authority, clients, other) = (Authority::new(), Authority::new(), Authority::new());
    let server = serve(&authority, "127.0.0.1", Some(&clients)).await;
    let showing = |identity| Server { tls: Tls { ca: Some(authority.pem()), identity }, ..server.clone() };
    assert_eq!(ask(&showing(clients.identity())).await, Answer::Vector(vec![]));
    for identity in [None, other.identity()] {
        let shown = showing(identity);
        let why = failure(&shown, ask(&shown).await);
        assert!(!why.contains("PRIVATE KEY"), "{why}");
    }
}
