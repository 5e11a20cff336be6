//! Ports: the cluster, Prometheus, probes and the clock, as the shell sees them.
//!
//! Each has one real adapter and one in the simulation. No adapter decides anything.

use anneal_core::{
    object::{Key, Kind, Object},
    patch::Patch,
    plan::Note,
    rollout::{Answer, Probe, ProbeAnswer, Query, without_ranges},
};
use anneal_crds::common::shorten;
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use crate::server::Server;

/// Why a call to the cluster did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Someone wrote the object since it was read.
    #[error("the object changed since it was read")]
    Conflict,
    /// The API server refuses the object, and will again.
    #[error("{verb} {what} was refused: {message}")]
    Refused {
        /// What was tried.
        verb: &'static str,
        /// Which object.
        what: String,
        /// The API server's words.
        message: String,
    },
    /// The operator lacks a right.
    #[error("{verb} {what} is forbidden: {message}; grant it in the chart's ClusterRole")]
    Forbidden {
        /// What was tried.
        verb: &'static str,
        /// Which object.
        what: String,
        /// The API server's words.
        message: String,
    },
    /// The API server does not know the kind.
    #[error("{verb} {what} failed: the API server does not know the kind; install what brings it")]
    NoSuchKind {
        /// What was tried.
        verb: &'static str,
        /// Which objects.
        what: String,
    },
    /// It may go through the next time.
    #[error("{verb} {what} failed: {message}")]
    Transient {
        /// What was tried.
        verb: &'static str,
        /// Which object.
        what: String,
        /// What went wrong.
        message: String,
    },
}

impl ClusterError {
    /// A short name for metrics.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Refused { .. } => "refused",
            Self::Forbidden { .. } => "forbidden",
            Self::NoSuchKind { .. } => "no_such_kind",
            Self::Transient { .. } => "transient",
        }
    }
}

/// What can be read of the API server. Every call has a timeout.
#[async_trait]
pub trait Reader: Send + Sync {
    /// The object, straight from the API server; none if it or its kind does not exist, or nothing can have such a name.
    async fn get(&self, key: &Key) -> Result<Option<Value>, ClusterError>;
    /// All objects of a kind with a label; [`ClusterError::NoSuchKind`] if the kind does not exist.
    async fn list(
        &self,
        kind: Kind,
        namespace: &str,
        label: (&str, &str),
    ) -> Result<Vec<Value>, ClusterError>;
}

/// The API server. Every call has a timeout.
#[async_trait]
pub trait Cluster: Reader {
    /// Creates an object; one that exists already stays as it is and is no error.
    async fn create(&self, object: &Object) -> Result<(), ClusterError>;
    /// Makes the object's fields so, and creates it if it is absent.
    async fn apply(&self, object: &Object) -> Result<(), ClusterError>;
    /// Changes a part of an object; [`ClusterError::Conflict`] if it is not what the patch rests on, or is gone.
    async fn patch(&self, patch: &Patch) -> Result<(), ClusterError>;
    /// Deletes the object with this uid; one that is gone already is no error.
    async fn delete(&self, key: &Key, uid: &str) -> Result<(), ClusterError>;
    /// Replaces the status of `object` as it was read; [`ClusterError::Conflict`] if it changed since.
    async fn record_status(&self, key: &Key, object: &Value, status: Value) -> Result<(), ClusterError>;
    /// Tells people about `object`. Failures are logged: an event is no part of a decision.
    async fn publish(&self, object: &Value, note: &Note);
}

/// Any number of Prometheus servers.
#[async_trait]
pub trait Prometheus: Send + Sync {
    /// What `server` answers to `query` at `at`, in the shape that was asked for; otherwise [`no_answer`]. It takes no longer
    /// than the server's timeout, and no longer because of another server.
    async fn query(&self, server: &Server, query: &Query, at: Timestamp) -> Answer;
}

/// Requests to versions of models, and to tests of them. They carry no credentials, follow no redirect and use no proxy.
#[async_trait]
pub trait Probes: Send + Sync {
    /// Sends them, many at a time and each on a connection of its own: one answer for each, in the same order. It takes a
    /// minute at most.
    async fn send(&self, probes: &[Probe]) -> Vec<ProbeAnswer>;
}

/// Most of a server's words, and of a query, that is told, in bytes: both end in a status.
const MAX_WORDS: usize = 300;

/// No answer, in words that name the server and the query. `why` must be free of credentials.
pub fn no_answer(server: &str, query: &Query, why: impl std::fmt::Display) -> Answer {
    let why = why.to_string();
    Answer::Unreachable(format!(
        "{} ({server}: {})",
        shorten(&why, MAX_WORDS),
        shorten(&without_ranges(&query.expression), MAX_WORDS)
    ))
}

/// The clock.
pub trait Clock: Send + Sync {
    /// Now, on the wall.
    fn now(&self) -> Timestamp;
}
