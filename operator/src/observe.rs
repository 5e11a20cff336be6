//! Observe: reads everything that a plan may look at, and calls it.
//!
//! Called by [`crate::reconcile`] alone. Reads come straight from the API server, so no decision rests on a stale cache.

use anneal_core::{
    object::{Key, Kind},
    plan::Plan,
    retrain, rollout,
};
use anneal_crds::{ModelRollout, ModelRolloutStatus, ModelVersion, RetrainJob, RetrainJobStatus, names};
use futures::future::join_all;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::SemaphorePermit;

use crate::{
    ports::{Cluster, ClusterError, no_answer},
    reconcile::Ports,
    resolve::resolve,
};

/// Reads an object that must have the shape of `T`.
pub(crate) fn parse<T: DeserializeOwned>(key: &Key, object: Value) -> Result<T, ClusterError> {
    serde_json::from_value(object).map_err(|error| ClusterError::Refused {
        verb: "read",
        what: describe(key),
        message: format!("its shape is not known to this release: {error}"),
    })
}

pub(crate) fn describe(key: &Key) -> String {
    format!("{} {}/{}", key.kind.resource().2, key.namespace, key.name)
}

async fn find<T: DeserializeOwned>(cluster: &dyn Cluster, key: Key) -> Result<Option<T>, ClusterError> {
    cluster.get(&key).await?.map(|object| parse(&key, object)).transpose()
}

async fn find_all<T: DeserializeOwned>(
    cluster: &dyn Cluster,
    kind: Kind,
    namespace: &str,
    label: (&str, &str),
) -> Result<Vec<T>, ClusterError> {
    let key = Key::new(kind, namespace, "*");
    cluster.list(kind, namespace, label).await?.into_iter().map(|object| parse(&key, object)).collect()
}

/// Observes a RetrainJob's world and decides.
pub async fn retrain(ports: &Ports, job: &RetrainJob) -> Result<Plan<RetrainJobStatus>, ClusterError> {
    let cluster = ports.cluster.as_ref();
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let key = |kind, name: &str| Key::new(kind, namespace, name);
    let status = job.status.clone().unwrap_or_default();
    let attempt = status.attempt.unwrap_or(1);

    let baseline: Option<ModelRollout> =
        find(cluster, key(Kind::ModelRollout, &job.spec.baseline.rollout)).await?;
    let stable_name =
        baseline.as_ref().and_then(|rollout| Some(rollout.status.as_ref()?.stable.as_ref()?.name.clone()));
    let stable: Option<ModelVersion> = match stable_name {
        Some(name) => find(cluster, key(Kind::ModelVersion, &name)).await?,
        None => None,
    };
    let child = find(cluster, key(Kind::Job, &retrain::child_name(name, attempt))).await?;
    let report = find(cluster, key(Kind::Job, &retrain::report_name(name, attempt))).await?;
    let pods: Vec<_> = find_all(cluster, Kind::Pod, namespace, (names::LABEL_JOB, name)).await?;
    let version: Option<ModelVersion> = match &status.version {
        Some(version) => {
            find(cluster, key(Kind::ModelVersion, &retrain::version_object_name(&job.spec.model, version)))
                .await?
        }
        None => None,
    };
    Ok(retrain::plan(&retrain::Snapshot {
        job,
        rollout: baseline.as_ref(),
        stable: stable.as_ref(),
        child: child.as_ref(),
        report: report.as_ref(),
        pods: &pods,
        version: version.as_ref(),
        now: ports.clock.now(),
    }))
}

/// Observes a ModelRollout's world and decides. Its `turn` ends when only the metrics are still missing.
pub async fn rollout(
    ports: &Ports,
    rollout: &ModelRollout,
    turn: Option<SemaphorePermit<'_>>,
) -> Result<Plan<ModelRolloutStatus>, ClusterError> {
    let cluster = ports.cluster.as_ref();
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let label = (names::LABEL_ROLLOUT, name);

    let versions: Vec<ModelVersion> =
        find_all(cluster, Kind::ModelVersion, namespace, (names::LABEL_MODEL, &rollout.spec.model)).await?;
    let mut rivals: Vec<ModelRollout> = vec![];
    for name in rollout::rivals(rollout, &versions) {
        rivals.extend(find(cluster, Key::new(Kind::ModelRollout, namespace, &name)).await?);
    }
    let children = rollout::Children {
        deployments: workloads(cluster, Kind::Deployment, rollout).await?,
        services: workloads(cluster, Kind::Service, rollout).await?,
        route: match rollout::route_key(rollout) {
            Some(key) => cluster.get(&key).await?,
            None => None,
        },
        // They only explain; a decision does not wait for them.
        pods: find_all(cluster, Kind::Pod, namespace, label).await.unwrap_or_default(),
    };
    let gateway = match rollout::gateway_key(rollout) {
        Some(key) => cluster.get(&key).await,
        None => Ok(None),
    };
    let features = features(cluster, rollout, gateway.as_ref().ok().and_then(Option::as_ref)).await;
    let gateway = gateway_state(gateway);
    // The rest takes as long as the metrics server does, and others need not wait for that.
    drop(turn);
    let now = ports.clock.now();
    let answers = answers(ports, rollout, now).await;
    Ok(rollout::plan(&rollout::Snapshot {
        rollout,
        versions: &versions,
        rivals: &rivals,
        children: &children,
        gateway,
        features,
        answers: &answers,
        now,
    }))
}

/// Asks what the plan will judge by. A server that may not be asked is told like one that does not answer.
async fn answers(ports: &Ports, rollout: &ModelRollout, now: jiff::Timestamp) -> rollout::Answers {
    let queries = rollout::queries(rollout, now);
    if queries.is_empty() {
        return rollout::Answers::new();
    }
    let spec = &rollout.spec.prometheus;
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let server = &resolve(ports.cluster.as_ref(), namespace, spec).await;
    let asked = queries.into_iter().map(|query| async move {
        let answer = match server {
            Ok(server) => ports.prometheus.query(server, &query, now).await,
            Err(why) => no_answer(&spec.server(), &query, why),
        };
        ((query.metric, query.question), answer)
    });
    join_all(asked).await.into_iter().collect()
}

/// The rollout's children of a kind by label, and those by name that lack it: their names may be someone else's.
async fn workloads(
    cluster: &dyn Cluster,
    kind: Kind,
    rollout: &ModelRollout,
) -> Result<Vec<Value>, ClusterError> {
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let label = (names::LABEL_ROLLOUT, rollout.metadata.name.as_deref().unwrap_or_default());
    let mut found = cluster.list(kind, namespace, label).await?;
    for name in rollout::workload_names(rollout) {
        if !found.iter().any(|object| object["metadata"]["name"] == name.as_str()) {
            found.extend(cluster.get(&Key::new(kind, namespace, &name)).await?);
        }
    }
    Ok(found)
}

/// What the gateway's class lists. A class that cannot be read lists nothing.
async fn features(
    cluster: &dyn Cluster,
    rollout: &ModelRollout,
    gateway: Option<&Value>,
) -> rollout::Features {
    let class = gateway.and_then(|gateway| gateway["spec"]["gatewayClassName"].as_str());
    let Some(class) = class.filter(|_| rollout::asks_for_features(rollout)) else {
        return rollout::Features::Unknown;
    };
    match cluster.get(&Key::new(Kind::GatewayClass, "", class)).await {
        Ok(Some(class)) => rollout::Features::of(&class),
        Ok(None) => rollout::Features::Unknown,
        Err(error) => {
            tracing::warn!(%error, class, "a GatewayClass could not be read, so a shadow may begin without copies");
            rollout::Features::Unknown
        }
    }
}

/// A Gateway that cannot be read stops no rollback.
fn gateway_state(gateway: Result<Option<Value>, ClusterError>) -> rollout::GatewayState {
    let gateway = match gateway {
        Ok(Some(gateway)) => gateway,
        Ok(None) => return rollout::GatewayState::Missing,
        Err(error) => return rollout::GatewayState::Unknown(error.to_string()),
    };
    let programmed = gateway["status"]["conditions"].as_array().is_some_and(|conditions| {
        conditions.iter().any(|condition| condition["type"] == "Programmed" && condition["status"] == "True")
    });
    if programmed { rollout::GatewayState::Programmed } else { rollout::GatewayState::NotProgrammed }
}
