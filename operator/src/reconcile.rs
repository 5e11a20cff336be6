//! Reconcile: the whole walk from an object to the cluster, on one screen.
//!
//! Called by `run` for every change and every wake, and by the simulation. Nothing that is kept between calls decides: a tick
//! glances at what was seen last, and where that asks for anything, everything is read anew first.

use std::sync::Arc;

use anneal_core::{
    object::{Key, Kind},
    plan::{Plan, Wake},
    rollout,
};
use anneal_crds::RetrainJob;
use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::SemaphorePermit;

use crate::{
    looks::Looks,
    observe, perform,
    ports::{Clock, Cluster, ClusterError, Probes, Prometheus},
    refusal,
    turns::Turns,
};

/// The ways out.
#[derive(Clone)]
pub struct Ports {
    /// The API server.
    pub cluster: Arc<dyn Cluster>,
    /// The metrics.
    pub prometheus: Arc<dyn Prometheus>,
    /// Requests to versions and their tests.
    pub probes: Arc<dyn Probes>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How many reconciles are under way at once.
    pub turns: Arc<Turns>,
    /// Whether alerts come in.
    pub alerts: rollout::AlertReceiver,
    /// What was seen last.
    pub looks: Arc<Looks>,
}

/// The kinds that are reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// [`anneal_core::retrain`].
    RetrainJob,
    /// [`anneal_core::rollout`].
    ModelRollout,
}

impl Machine {
    /// The kind of its objects.
    pub const fn kind(self) -> Kind {
        match self {
            Self::RetrainJob => Kind::RetrainJob,
            Self::ModelRollout => Kind::ModelRollout,
        }
    }
}

/// A walk that did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Why.
    #[source]
    pub error: ClusterError,
    /// When the plan that was decided wanted the next look, if there was one: that it could not be performed does not put off
    /// what is judged.
    pub due: Option<Timestamp>,
}

impl From<ClusterError> for Failed {
    fn from(error: ClusterError) -> Self {
        Self { error, due: None }
    }
}

/// How often a conflict is answered by deciding anew before others get their turn.
const MAX_CONFLICTS: u32 = 5;

/// Observes, decides, records and performs, for one object, when it is its turn.
pub async fn reconcile(ports: &Ports, machine: Machine, namespace: &str, name: &str) -> Result<Wake, Failed> {
    let key = Key::new(machine.kind(), namespace, name);
    if let Some(wake) = glance(ports, &key).await {
        return Ok(wake);
    }
    let mut conflicts = 0;
    loop {
        let turn = ports.turns.take(ports.looks.errand(&key)).await;
        let Some(object) = ports.cluster.get(&key).await? else {
            match machine {
                Machine::RetrainJob => {}
                Machine::ModelRollout => let_go(ports, namespace, name).await?,
            }
            return Ok(Wake::OnChange);
        };
        match walk(ports, machine, &key, object, turn).await {
            Err(Failed { error: ClusterError::Conflict, .. }) if conflicts < MAX_CONFLICTS => conflicts += 1,
            Err(failed) => {
                refusal::tell(ports, &key, &failed.error).await;
                return Err(failed);
            }
            Ok(wake) => return Ok(wake),
        }
    }
}

/// The steady case: by what was seen last, and by what the metrics say now, there is nothing to do.
async fn glance(ports: &Ports, key: &Key) -> Option<Wake> {
    let now = ports.clock.now();
    let look = ports.looks.recall(key, now).filter(|look| !look.probes(now))?;
    let plan = look.decide(ports, now, &mut None).await;
    plan.is_idle(look.status()).then_some(plan.wake)
}

/// What a rollout held no longer holds anything, if it is gone.
pub(crate) async fn let_go(ports: &Ports, namespace: &str, name: &str) -> Result<(), ClusterError> {
    let cluster = ports.cluster.as_ref();
    if cluster.get(&Key::new(Kind::ModelRollout, namespace, name)).await?.is_some() {
        return Ok(());
    }
    let versions = observe::recorded(cluster, namespace).await?;
    perform::perform(cluster, &rollout::let_go(namespace, name, &versions)).await
}

/// From the object as it was read to the cluster.
async fn walk(
    ports: &Ports,
    machine: Machine,
    key: &Key,
    object: Value,
    mut turn: Option<SemaphorePermit<'_>>,
) -> Result<Wake, Failed> {
    match machine {
        Machine::RetrainJob => {
            let job: RetrainJob = observe::parse(key, object.clone())?;
            if job.status.as_ref().is_some_and(|status| status.phase.is_over()) {
                return Ok(Wake::OnChange);
            }
            let plan = observe::retrain(ports, &job).await?;
            follow(ports, key, &object, job.status.as_ref(), plan).await
        }
        Machine::ModelRollout => {
            let begin = ports.looks.begin(key);
            let look = observe::rollout(ports, key, &object).await?;
            ports.looks.note(key, look.status());
            let object = observe::lean(object);
            let plan = look.decide(ports, look.at, &mut turn).await;
            let seen = look.status().cloned();
            // While it waits for its turn to write, it holds no more than what it writes.
            let kept = plan.is_idle(seen.as_ref()).then_some(look);
            let wake = follow(ports, key, &object, seen.as_ref(), plan).await?;
            if let Some(look) = kept {
                ports.looks.keep(key, begin, look);
            }
            Ok(wake)
        }
    }
}

/// Records first; performs, and tells people, only what follows from a recorded status.
async fn follow<S: PartialEq + Serialize>(
    ports: &Ports,
    key: &Key,
    object: &Value,
    seen: Option<&S>,
    plan: Plan<S>,
) -> Result<Wake, Failed> {
    let cluster = ports.cluster.as_ref();
    // With something to perform, an unchanged status is written too: the API server makes nothing of it, but refuses it
    // when someone has decided since, and then an old leader must not act on what it once read.
    if seen != Some(&plan.status) || !plan.actions.is_empty() {
        let status = serde_json::to_value(&plan.status).map_err(|error| ClusterError::Refused {
            verb: "record",
            what: observe::describe(key),
            message: error.to_string(),
        })?;
        cluster.record_status(key, object, status).await?;
    }
    // Both follow from the record, and neither has to wait for the other.
    let told = plan.notes.iter().map(|note| cluster.publish(object, note));
    let (performed, _) = tokio::join!(perform::perform(cluster, &plan.actions), join_all(told));
    let due = match plan.wake {
        Wake::At(at) => Some(at),
        Wake::OnChange => None,
    };
    performed.map(|()| plan.wake).map_err(|error| Failed { error, due })
}
