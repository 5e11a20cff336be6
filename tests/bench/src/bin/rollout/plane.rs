//! What stands in for controllers, kubelet and gateway: Deployments are ready, Services lead to their pods and routes are accepted
//! as soon as they are there. It sees every route too, and so tells when a candidate is out of traffic.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures::{Stream, StreamExt};
use kube::{
    Api, ResourceExt,
    api::DynamicObject,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, DEPLOYMENT, ENDPOINT_SLICE, Kind, REPLICA_SET, ROUTE};

/// How many statuses are written at once.
const AT_ONCE: usize = 8;

/// What measured objects came to, and when: by the object's name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<BTreeMap<String, (Place, Instant)>>>);

/// Where a rollout is, as the outside sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One version takes requests.
    One,
    /// Two versions do.
    Both,
}

impl Seen {
    /// Notes where a rollout is now.
    pub(crate) fn note(&self, name: &str, place: Place) {
        #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
        let now = Instant::now();
        let mut seen = self.lock();
        if seen.get(name).is_none_or(|(before, _)| *before != place) {
            seen.insert(name.to_owned(), (place, now));
        }
    }

    /// Since when a rollout is there, if it is.
    pub(crate) fn since(&self, name: &str, place: Place) -> Option<Instant> {
        self.lock().get(name).filter(|(now, _)| *now == place).map(|(_, at)| *at)
    }

    /// How many rollouts whose names begin so are there.
    pub(crate) fn count(&self, prefix: &str, place: Place) -> usize {
        self.lock().iter().filter(|(name, (now, _))| name.starts_with(prefix) && *now == place).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Place, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every object of a kind, each time that it changes.
pub(crate) fn changes(api: Api<DynamicObject>) -> impl Stream<Item = DynamicObject> {
    let events = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
    events.filter_map(|event| async { event.ok() })
}

/// Plays controllers and gateway of our operator, until the runtime ends.
pub(crate) fn play(cluster: &Cluster, seen: &Seen) {
    let seen = seen.clone();
    follow(cluster, DEPLOYMENT, |object| is_ready(object, "updatedReplicas"));
    lead(cluster);
    follow(cluster, ROUTE, move |route| {
        let backends = route.data["spec"]["rules"][0]["backendRefs"].as_array().map_or(0, Vec::len);
        seen.note(&route.name_any(), if backends > 1 { Place::Both } else { Place::One });
        accepted(route)
    });
}

/// Plays the controller of ReplicaSets.
pub(crate) fn play_replica_sets(cluster: &Cluster) {
    follow(cluster, REPLICA_SET, |object| is_ready(object, "fullyLabeledReplicas"));
}

/// Writes the status that `status` wants, for each object of a kind.
fn follow(
    cluster: &Cluster,
    kind: Kind,
    status: impl Fn(&DynamicObject) -> Option<Value> + Send + Sync + 'static,
) {
    let cluster = cluster.clone();
    tokio::spawn(async move {
        let wanted = changes(cluster.all(kind)).filter_map(|object| {
            let wanted = status(&object).map(|status| (object, status));
            async { wanted }
        });
        let write = |(object, status): (DynamicObject, Value)| {
            let cluster = &cluster;
            async move {
                // One that changed or went meanwhile is seen again, or gone.
                drop(
                    cluster
                        .set_status(kind, object.namespace().as_deref(), &object.name_any(), &status)
                        .await,
                );
            }
        };
        wanted.for_each_concurrent(AT_ONCE, write).await;
    });
}

/// Plays the controller of EndpointSlices: the Service of each Deployment leads to all its pods.
fn lead(cluster: &Cluster) {
    let cluster = cluster.clone();
    tokio::spawn(async move {
        let new = changes(cluster.all(DEPLOYMENT)).filter(|object| {
            let is_new = object.data["status"]["observedGeneration"].is_null();
            async move { is_new }
        });
        let make = |object: DynamicObject| {
            let cluster = &cluster;
            // One that is there already is as it is to be.
            async move { drop(cluster.create(ENDPOINT_SLICE, slice(&object)).await) }
        };
        new.for_each_concurrent(AT_ONCE, make).await;
    });
}

fn slice(deployment: &DynamicObject) -> Value {
    let name = deployment.name_any();
    let mut labels = json!(deployment.labels());
    labels["kubernetes.io/service-name"] = name.as_str().into();
    let pods = deployment.data["spec"]["replicas"].as_u64().unwrap_or(0);
    let endpoint =
        |pod| json!({"addresses": [format!("10.0.0.{}", 1 + pod % 250)], "conditions": {"ready": true}});
    json!({
        "metadata": {"name": name, "namespace": deployment.namespace(), "labels": labels},
        "addressType": "IPv4", "endpoints": (0..pods).map(endpoint).collect::<Vec<_>>(), "ports": [{"port": 8000}],
    })
}

fn is_ready(object: &DynamicObject, field: &str) -> Option<Value> {
    let (wanted, generation) = (&object.data["spec"]["replicas"], object.metadata.generation);
    let status = &object.data["status"];
    let is_so = status["observedGeneration"].as_i64() == generation && status["replicas"] == *wanted;
    (!is_so).then(|| {
        let mut status = json!({"observedGeneration": generation, "replicas": wanted, "readyReplicas": wanted, "availableReplicas": wanted});
        status[field] = wanted.clone();
        status
    })
}

fn accepted(route: &DynamicObject) -> Option<Value> {
    let generation = route.metadata.generation;
    let said = &route.data["status"]["parents"][0]["conditions"][0]["observedGeneration"];
    let condition = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": type_, "message": "",
        "observedGeneration": generation, "lastTransitionTime": "2026-11-21T12:00:00Z"})
    };
    (said.as_i64() != generation).then(|| {
        json!({"parents": [{
            "parentRef": route.data["spec"]["parentRefs"][0], "controllerName": "anneal.test/plane",
            "conditions": [condition("Accepted"), condition("ResolvedRefs")],
        }]})
    })
}
