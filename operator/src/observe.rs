//! Observe: reads everything that a plan may look at, and calls it.
//!
//! Called by [`crate::reconcile`] alone. Reads come straight from the API server, so no decision rests on a stale cache. What
//! a look at a rollout saw is data, so that [`crate::looks`] can keep it for the next tick.

use std::collections::BTreeMap;

use anneal_core::{
    object::{Key, Kind},
    plan::Plan,
    retrain, rollout,
};
use anneal_crds::{ModelRollout, ModelRolloutStatus, ModelVersion, RetrainJob, RetrainJobStatus, names};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::SemaphorePermit;

use crate::{
    ports::{ClusterError, Reader, no_answer},
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

async fn find<T: DeserializeOwned>(cluster: &dyn Reader, key: Key) -> Result<Option<T>, ClusterError> {
    cluster.get(&key).await?.map(|object| parse(&key, lean(object))).transpose()
}

async fn find_all<T: DeserializeOwned>(
    cluster: &dyn Reader,
    kind: Kind,
    namespace: &str,
    label: (&str, &str),
) -> Result<Vec<T>, ClusterError> {
    let key = Key::new(kind, namespace, "*");
    let lean = if kind == Kind::Pod { lean_pod } else { lean };
    cluster.list(kind, namespace, label).await?.into_iter().map(|object| parse(&key, lean(object))).collect()
}

/// The versions of a rollout's model. One that another release wrote, and this one cannot read, keeps no other one from going on,
/// unless it is one that serves or is on trial. Whoever takes one back needs no record of it.
async fn versions(cluster: &dyn Reader, rollout: &ModelRollout) -> Result<Vec<ModelVersion>, ClusterError> {
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let of_model = (names::LABEL_MODEL, rollout.spec.model.as_str());
    let is_at_stake = |name: &str| {
        rollout.status.as_ref().filter(|status| !rollout::is_decided(rollout, status)).is_some_and(|status| {
            // Whom people go back to is not at stake before it serves.
            let candidate = status.candidate.as_ref().filter(|_| status.phase.is_on_its_way());
            let mut all = status.stable.iter().chain(candidate).chain(&status.previous);
            all.any(|version| version.name == name)
        })
    };
    let mut versions = vec![];
    for object in cluster.list(Kind::ModelVersion, namespace, of_model).await? {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match parse(&Key::new(Kind::ModelVersion, namespace, &name), lean(object)) {
            Ok(version) => versions.push(version),
            Err(error) if is_at_stake(&name) => return Err(error),
            Err(error) => tracing::warn!(%error, namespace, name, "a version is left out"),
        }
    }
    Ok(versions)
}

/// Without who wrote what, which is half of an object. Plans ask that of nothing but the rollout itself and its route.
pub(crate) fn lean(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

/// With who wrote which annotation and which part of the spec, and nothing finer.
fn lean_rollout(mut object: Value) -> Value {
    for entry in object["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
        let Some(fields) = entry["fieldsV1"].as_object_mut() else { continue };
        fields.retain(|name, _| ["f:metadata", "f:spec"].contains(&name.as_str()));
        for part in fields.get_mut("f:spec").and_then(Value::as_object_mut).into_iter().flatten() {
            *part.1 = Value::Object(serde_json::Map::new());
        }
    }
    object
}

/// A pod without what it was asked to be, which no plan looks at.
fn lean_pod(object: Value) -> Value {
    let mut pod = lean(object);
    if let Some(parts) = pod.as_object_mut() {
        parts.remove("spec");
    }
    pod
}

/// The versions of a namespace that runs made, of whichever model.
pub(crate) async fn recorded(
    cluster: &dyn Reader,
    namespace: &str,
) -> Result<Vec<ModelVersion>, ClusterError> {
    find_all(cluster, Kind::ModelVersion, namespace, (names::MANAGED_BY, names::MANAGER)).await
}

/// Observes a RetrainJob's world and decides.
pub async fn retrain(ports: &Ports, job: &RetrainJob) -> Result<Plan<RetrainJobStatus>, ClusterError> {
    let cluster: &dyn Reader = ports.cluster.as_ref();
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

/// What one look at a rollout's world saw: everything but what the metrics say.
#[derive(Debug)]
pub struct Look {
    rollout: ModelRollout,
    versions: Vec<ModelVersion>,
    rivals: Vec<ModelRollout>,
    members: Vec<ModelRollout>,
    children: rollout::Children,
    endpoints: rollout::Endpoints,
    gateway: rollout::GatewayState,
    features: rollout::Features,
    alerts: rollout::AlertReceiver,
    memo: rollout::Memo,
    /// When.
    pub(crate) at: jiff::Timestamp,
}

/// Observes a ModelRollout's world.
pub async fn rollout(ports: &Ports, key: &Key, object: &Value) -> Result<Look, ClusterError> {
    let rollout: ModelRollout = parse(key, lean_rollout(object.clone()))?;
    let cluster: &dyn Reader = ports.cluster.as_ref();
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();

    let versions = versions(cluster, &rollout).await?;
    let mut rivals: Vec<ModelRollout> = vec![];
    for name in rollout::rivals(&rollout, &versions) {
        rivals.extend(find(cluster, Key::new(Kind::ModelRollout, namespace, &name)).await?);
    }
    let mut members: Vec<ModelRollout> = vec![];
    for name in rollout::members(&rollout) {
        members.extend(find(cluster, Key::new(Kind::ModelRollout, namespace, name)).await?);
    }
    let (pods, pods_listed) = pods(cluster, &rollout).await;
    let deployments = workloads(cluster, Kind::Deployment, &rollout).await?;
    let children = rollout::Children {
        services: workloads(cluster, Kind::Service, &rollout).await?,
        // Who wrote what matters here: a hand that changed it is told by name.
        route: match rollout::route_key(&rollout) {
            Some(key) => cluster.get(&key).await?,
            None => None,
        },
        test: match rollout::staging_job(&rollout) {
            Some(name) => cluster.get(&Key::new(Kind::Job, namespace, &name)).await?.map(lean),
            None => None,
        },
        autoscalers: autoscalers(cluster, &rollout, &deployments).await,
        deployments,
        pods,
        pods_listed,
    };
    let endpoints = endpoints(cluster, &rollout).await;
    let gateway = match rollout::gateway_key(&rollout, children.route.as_ref()) {
        Some(key) => Some(cluster.get(&key).await),
        None => None,
    };
    let seen = gateway.as_ref().and_then(|gateway| gateway.as_ref().ok()?.as_ref());
    let features = features(cluster, &rollout, seen).await;
    let gateway = gateway.map_or(rollout::GatewayState::NotNamed, gateway_state);
    let memo = rollout::Memo::default();
    let (alerts, at) = (ports.alerts, ports.clock.now());
    Ok(Look { rollout, versions, rivals, members, children, endpoints, gateway, features, alerts, memo, at })
}

impl Look {
    /// Decides at `now`, once the metrics and those who were probed have said what they say. What the metrics decide by
    /// themselves waits for nobody. A turn is given back before anyone outside is asked: others need not wait for that.
    pub async fn decide(
        &self,
        ports: &Ports,
        now: jiff::Timestamp,
        turn: &mut Option<SemaphorePermit<'_>>,
    ) -> Plan<ModelRolloutStatus> {
        let mut queries = rollout::queries(&self.rollout, now);
        queries.extend(rollout::query_of_who_left(&self.rollout, &self.children.deployments, now));
        if !queries.is_empty() {
            *turn = None;
        }
        let answers = answers(ports, &self.rollout, queries, now).await;
        let mut snapshot = self.snapshot(&answers, now);
        let probes = rollout::probes(&snapshot);
        if probes.is_empty() || rollout::is_decided_by_metrics(&snapshot) {
            return rollout::plan(&snapshot);
        }
        *turn = None;
        let probed = ports.probes.send(&probes).await;
        snapshot.probed = &probed;
        rollout::plan(&snapshot)
    }

    /// Whether someone would be probed: that is done by a look that may record it, and no other.
    pub fn probes(&self, now: jiff::Timestamp) -> bool {
        !rollout::probes(&self.snapshot(&rollout::Answers::new(), now)).is_empty()
    }

    fn snapshot<'a>(&'a self, answers: &'a rollout::Answers, now: jiff::Timestamp) -> rollout::Snapshot<'a> {
        rollout::Snapshot {
            rollout: &self.rollout,
            versions: &self.versions,
            rivals: &self.rivals,
            members: &self.members,
            children: &self.children,
            endpoints: &self.endpoints,
            gateway: self.gateway.clone(),
            features: self.features.clone(),
            answers,
            probed: &[],
            alerts: self.alerts,
            memo: &self.memo,
            now,
        }
    }

    /// Without what was compared and is as it is to be: most of what objects take, and nobody asks for it while nothing moves.
    pub(crate) fn slim(mut self) -> Self {
        let Self { children, memo, .. } = &mut self;
        let right = |kind, child: &Value| {
            child["metadata"]["name"].as_str().is_some_and(|name| memo.is_right(kind, name))
        };
        for deployment in children.deployments.iter_mut().filter(|child| right(Kind::Deployment, child)) {
            // How many pods it is to have is its autoscaler's to say.
            deployment["spec"] = serde_json::json!({"replicas": deployment["spec"]["replicas"]});
        }
        for service in children.services.iter_mut().filter(|child| right(Kind::Service, child)) {
            // Where it leads to.
            if let Some(spec) = service["spec"].as_object_mut() {
                spec.retain(|field, _| ["type", "clusterIP"].contains(&field.as_str()));
            }
        }
        children.route = children.route.take().map(lean);
        self
    }

    /// Whether everything could be read: what could not is asked for again by the next tick.
    pub(crate) fn is_whole(&self) -> bool {
        let failed = |seen: &rollout::Autoscalers| match seen {
            rollout::Autoscalers::Failed(_) => true,
            rollout::Autoscalers::Known(_)
            | rollout::Autoscalers::NoSuchKind
            | rollout::Autoscalers::Denied(_) => false,
        };
        self.children.pods_listed == rollout::Listed::All
            && self.endpoints != rollout::Endpoints::Unknown
            && !self.children.autoscalers.values().any(failed)
    }

    /// The status as it was seen.
    pub fn status(&self) -> Option<&ModelRolloutStatus> {
        self.rollout.status.as_ref()
    }

    /// The version of the rollout that was seen.
    pub(crate) fn resource_version(&self) -> Option<&str> {
        self.rollout.metadata.resource_version.as_deref()
    }
}

/// Asks what the plan will judge by. A server that may not be asked is told like one that does not answer.
async fn answers(
    ports: &Ports,
    rollout: &ModelRollout,
    queries: Vec<rollout::Query>,
    now: jiff::Timestamp,
) -> rollout::Answers {
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
    cluster: &dyn Reader,
    kind: Kind,
    rollout: &ModelRollout,
) -> Result<Vec<Value>, ClusterError> {
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let label = (names::LABEL_ROLLOUT, rollout.metadata.name.as_deref().unwrap_or_default());
    let mut found = cluster.list(kind, namespace, label).await?;
    let service = rollout::stable_service(rollout).filter(|_| kind == Kind::Service);
    for name in rollout::workload_names(rollout).into_iter().chain(service) {
        if !found.iter().any(|object| object["metadata"]["name"] == name.as_str()) {
            found.extend(cluster.get(&Key::new(kind, namespace, &name)).await?);
        }
    }
    Ok(found.into_iter().map(lean).collect())
}

/// The autoscalers of the rollout. A rollback need not wait for them, so that a list that fails is no error.
async fn autoscalers(
    cluster: &dyn Reader,
    rollout: &ModelRollout,
    deployments: &[Value],
) -> BTreeMap<Kind, rollout::Autoscalers> {
    let mut all = BTreeMap::new();
    for kind in rollout::autoscaler_kinds(rollout, deployments) {
        let seen = match workloads(cluster, kind, rollout).await {
            Ok(found) => rollout::Autoscalers::Known(found),
            Err(ClusterError::NoSuchKind { .. }) => rollout::Autoscalers::NoSuchKind,
            Err(error @ (ClusterError::Forbidden { .. } | ClusterError::Refused { .. })) => {
                rollout::Autoscalers::Denied(error.to_string())
            }
            Err(error @ (ClusterError::Conflict | ClusterError::Transient { .. })) => {
                rollout::Autoscalers::Failed(error.to_string())
            }
        };
        all.insert(kind, seen);
    }
    all
}

/// The pods of the rollout. One that goes back need not wait for them, so that a list that fails is no error.
async fn pods(cluster: &dyn Reader, rollout: &ModelRollout) -> (Vec<Pod>, rollout::Listed) {
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    match find_all(cluster, Kind::Pod, namespace, (names::LABEL_ROLLOUT, name)).await {
        Ok(pods) => (pods, rollout::Listed::All),
        Err(error) => {
            tracing::warn!(%error, namespace, name, "pods could not be listed, so nothing is compared");
            (vec![], rollout::Listed::Failed)
        }
    }
}

/// Whom the rollout's Services lead to. A rollback need not wait for that, so that a list that fails is no error.
async fn endpoints(cluster: &dyn Reader, rollout: &ModelRollout) -> rollout::Endpoints {
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let mut slices = vec![];
    // The slices of a Service have its labels, and this one is not of the operator's making.
    let adopted = rollout::adopted_service(rollout).map(|service| (rollout::SERVICE_NAME, service));
    for label in [(names::LABEL_ROLLOUT, name)].into_iter().chain(adopted) {
        match cluster.list(Kind::EndpointSlice, namespace, label).await {
            Ok(found) => slices.extend(found),
            Err(error) => {
                tracing::warn!(%error, namespace, name, "EndpointSlices could not be listed, so nobody new gets requests");
                return match error {
                    ClusterError::Forbidden { .. } => rollout::Endpoints::Denied,
                    ClusterError::NoSuchKind { .. }
                    | ClusterError::Refused { .. }
                    | ClusterError::Conflict
                    | ClusterError::Transient { .. } => rollout::Endpoints::Unknown,
                };
            }
        }
    }
    rollout::Endpoints::of(&slices)
}

/// What the gateway's class lists. A class that cannot be read lists nothing.
async fn features(
    cluster: &dyn Reader,
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
