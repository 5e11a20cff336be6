//! Servers, Secrets and questions of the tests beside.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anneal_core::{
    object::{Key, Kind},
    rollout::{Answer, Query, Question, Shape},
};
use anneal_operator::{
    ports::{ClusterError, Prometheus as _, Reader},
    prometheus_api::HttpPrometheus,
    resolve::{Unusable, resolve},
    server::{Server, Tls},
};
use async_trait::async_trait;
use axum::{Router, http::HeaderMap};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;

/// An answer without series.
pub const EMPTY: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

/// The moment of every question.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_795_262_400).unwrap()
}

/// Serves on a port of this machine for as long as the test lasts; the base URL.
pub async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// How often a server was asked, and with which headers last.
#[derive(Clone, Default)]
pub struct Log {
    hits: Arc<AtomicUsize>,
    headers: Arc<Mutex<HeaderMap>>,
}

impl Log {
    pub fn note(&self, headers: &HeaderMap) {
        *self.headers.lock().unwrap() = headers.clone();
        self.hits.fetch_add(1, Ordering::SeqCst);
    }

    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// Names of the headers, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.headers.lock().unwrap().keys().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    }

    pub fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.lock().unwrap().get(name)?.to_str().unwrap().to_owned())
    }
}

/// A server without credentials.
pub fn server(url: &str) -> Server {
    // The first test to come installs it for all.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Server {
        namespace: "team-a".into(),
        url: url.parse().unwrap(),
        headers: vec![],
        credential: None,
        tls: Tls::default(),
        timeout: Duration::from_secs(30),
    }
}

/// A question for numbers.
pub fn query(expression: &str) -> Query {
    Query {
        metric: "m".into(),
        question: Question::Reading,
        expression: expression.into(),
        shape: Shape::Vector,
    }
}

/// Asks a fresh client.
pub async fn ask(server: &Server) -> Answer {
    HttpPrometheus::default().query(server, &query("up"), now()).await
}

/// The words of an answer that is none; they name the server and the query.
pub fn failure(server: &Server, answer: Answer) -> String {
    let Answer::Unreachable(why) = answer else { panic!("{answer:?}") };
    assert!(why.ends_with(&format!("({}: up)", server.origin())), "{why}");
    why
}

/// The Secrets of a namespace; nothing else of it is ever asked for here.
#[derive(Default)]
pub struct Secrets(pub Mutex<BTreeMap<String, Value>>);

impl Secrets {
    pub fn put(&self, name: &str, secret: Value) {
        self.0.lock().unwrap().insert(name.to_owned(), secret);
    }

    pub async fn resolve(&self, spec: Value) -> Result<Server, Unusable> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        resolve(self, "team-a", &serde_json::from_value(spec).unwrap()).await
    }
}

#[async_trait]
impl Reader for Secrets {
    async fn get(&self, key: &Key) -> Result<Option<Value>, ClusterError> {
        assert_eq!((key.kind, key.namespace.as_str()), (Kind::Secret, "team-a"));
        Ok(self.0.lock().unwrap().get(&key.name).cloned())
    }
    async fn list(&self, _: Kind, _: &str, _: (&str, &str)) -> Result<Vec<Value>, ClusterError> {
        Ok(vec![])
    }
}
