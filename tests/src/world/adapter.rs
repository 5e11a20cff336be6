//! The operator's ports, into the simulation.
//!
//! Every call gives way once before it is done, so that the scheduler can let anything happen between two calls.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use anneal_core::{
    object::{Key, Kind, Object},
    patch::Patch,
    plan::Note,
    rollout::{AlertReceiver, Answer, Probe, ProbeAnswer, Query},
};
use anneal_operator::{
    ports::{Clock, Cluster, ClusterError, Probes, Prometheus, Reader},
    reconcile::Ports,
    server::Server,
    turns::Turns,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{calls::Write, sim::Sim};

/// The world, shared by scheduler and operators. Only one of them looks at a time.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Sim>>);

impl Shared {
    /// Shares a world.
    pub fn new(sim: Sim) -> Self {
        Self(Arc::new(Mutex::new(sim)))
    }

    /// The world, for as long as no one waits.
    pub fn lock(&self) -> MutexGuard<'_, Sim> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ports of one operator.
    pub fn ports(&self, caller: usize) -> Ports {
        let operator = Arc::new(Operator { world: self.clone(), caller });
        Ports {
            alerts: AlertReceiver::Listens,
            cluster: operator.clone(),
            prometheus: operator.clone(),
            probes: operator.clone(),
            clock: operator,
            // The scheduler says how many work at once.
            turns: Arc::new(Turns::new(Semaphore::MAX_PERMITS)),
            looks: Arc::default(),
        }
    }
}

#[derive(Debug)]
struct Operator {
    world: Shared,
    caller: usize,
}

/// Pending once, then ready.
#[derive(Debug, Default)]
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[async_trait]
impl Reader for Operator {
    async fn get(&self, key: &Key) -> Result<Option<Value>, ClusterError> {
        Turn::default().await;
        self.world.lock().operator_gets(self.caller, key)
    }

    async fn list(
        &self,
        kind: Kind,
        namespace: &str,
        label: (&str, &str),
    ) -> Result<Vec<Value>, ClusterError> {
        Turn::default().await;
        self.world.lock().operator_lists(self.caller, kind, namespace, label)
    }
}

#[async_trait]
impl Cluster for Operator {
    async fn create(&self, object: &Object) -> Result<(), ClusterError> {
        Turn::default().await;
        self.world.lock().operator_writes(self.caller, Write::Create(object.clone()))
    }

    async fn apply(&self, object: &Object) -> Result<(), ClusterError> {
        Turn::default().await;
        self.world.lock().operator_writes(self.caller, Write::Apply(object.clone()))
    }

    async fn patch(&self, patch: &Patch) -> Result<(), ClusterError> {
        Turn::default().await;
        self.world.lock().operator_writes(self.caller, Write::Patch(patch.clone()))
    }

    async fn delete(&self, key: &Key, uid: &str) -> Result<(), ClusterError> {
        Turn::default().await;
        self.world.lock().operator_writes(self.caller, Write::Delete(key.clone(), uid.to_owned()))
    }

    async fn record_status(&self, key: &Key, object: &Value, status: Value) -> Result<(), ClusterError> {
        Turn::default().await;
        let record = Write::Record { key: key.clone(), read: object.clone(), status };
        self.world.lock().operator_writes(self.caller, record)
    }

    async fn publish(&self, object: &Value, note: &Note) {
        Turn::default().await;
        let caller = self.caller;
        self.world.lock().say(|_| {
            format!(
                "operator {caller} tells about {}: {}: {}",
                object["metadata"]["name"], note.reason, note.message
            )
        });
    }
}

#[async_trait]
impl Prometheus for Operator {
    async fn query(&self, _: &Server, query: &Query, at: Timestamp) -> Answer {
        Turn::default().await;
        self.world.lock().prometheus_answers(self.caller, &query.expression, at)
    }
}

#[async_trait]
impl Probes for Operator {
    async fn send(&self, probes: &[Probe]) -> Vec<ProbeAnswer> {
        Turn::default().await;
        self.world.lock().probes_answered(self.caller, probes)
    }
}

impl Clock for Operator {
    fn now(&self) -> Timestamp {
        self.world.lock().clock(self.caller)
    }
}
