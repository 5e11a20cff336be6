//! Alertmanager's way in: an alert that a rollout declares takes its candidate out of traffic.
//!
//! Runs in every operator pod, whether it leads or not: it decides nothing that the state machine decides. It writes one
//! annotation on the object as it was read, and the leader's next reconcile rolls back. Every call may be repeated, and
//! Alertmanager repeats those that are answered with 5xx.

mod kube_targets;
mod receiver;

use anneal_core::alert::{self, Alert};
use anneal_crds::{ModelRollout, names};
use async_trait::async_trait;
use serde_json::Value;

use crate::ports::ClusterError;

pub use kube_targets::KubeTargets;
pub use receiver::{Receiver, serve};

/// The rollouts that alerts may stop, a page at a time: all of them at once might not fit into memory.
#[async_trait]
pub trait Targets: Send + Sync {
    /// Some ModelRollouts as the API server has them, and where the next ones begin; none after the last.
    async fn page(&self, from: Option<&str>) -> Result<(Vec<Value>, Option<String>), ClusterError>;
    /// Sets an annotation on an object as it was read; [`ClusterError::Conflict`] if it changed since. One that is gone is no
    /// error.
    async fn annotate(&self, object: &Value, name: &str, value: &str) -> Result<(), ClusterError>;
}

/// How often a rollout that changed under the hand is read again before Alertmanager is asked to.
const MAX_CONFLICTS: u32 = 3;

/// Takes out the candidates that the alerts are held against; the rollouts' namespaces and names.
pub(crate) async fn hold_against(
    targets: &dyn Targets,
    alerts: &[Alert],
) -> Result<Vec<String>, ClusterError> {
    let mut conflicts = 0;
    loop {
        match once(targets, alerts).await {
            Err(ClusterError::Conflict) if conflicts < MAX_CONFLICTS => conflicts += 1,
            ended => return ended,
        }
    }
}

/// All pages once. A rollout that cannot be written stops no other one; the first error is told when all were tried.
async fn once(targets: &dyn Targets, alerts: &[Alert]) -> Result<Vec<String>, ClusterError> {
    let (mut stopped, mut failed, mut from) = (vec![], None, None);
    loop {
        let (page, next) = targets.page(from.as_deref()).await?;
        for object in &page {
            let Some(why) = abort(object, alerts) else { continue };
            match targets.annotate(object, names::ANNOTATION_ABORT, &why).await {
                Ok(()) => {
                    tracing::info!(rollout = name(object), why, "an alert takes a candidate out of traffic");
                    stopped.push(name(object));
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        from = next;
        if from.is_none() {
            return failed.map_or(Ok(stopped), Err);
        }
    }
}

fn abort(object: &Value, alerts: &[Alert]) -> Option<String> {
    let rollout: ModelRollout = match serde_json::from_value(object.clone()) {
        Ok(rollout) => rollout,
        Err(error) => {
            tracing::warn!(rollout = name(object), %error, "a rollout is not known to this release; no alert stops it");
            return None;
        }
    };
    match alert::selectors(&rollout) {
        Ok(selectors) => alert::abort(&rollout, &selectors, alerts),
        Err(error) => {
            tracing::warn!(rollout = name(object), %error, "no alert stops this rollout");
            None
        }
    }
}

fn name(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}
