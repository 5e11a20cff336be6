//! Deployments, their pods, whom Services lead to, and the garbage collector.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use anneal_core::{
    object::{Key, Kind, Object},
    rollout,
};
use anneal_crds::names;
use serde_json::{Value, json};

use crate::cases::ready_endpoints;

use super::{
    calls::name,
    laws::text,
    sim::{NAMESPACE, Sim},
};

/// What tells one template of pods from another.
fn template_of(deployment: &Value) -> Value {
    let mut digest = DefaultHasher::new();
    deployment["spec"]["template"].to_string().hash(&mut digest);
    digest.finish().into()
}

/// Fewest and most pods of an autoscaler of either kind.
pub fn bounds(spec: &Value) -> (i64, i64) {
    let bound = |own: &str, keda: &str| spec[own].as_i64().or_else(|| spec[keda].as_i64()).unwrap_or(1);
    let least = bound("minReplicas", "minReplicaCount");
    (least, bound("maxReplicas", "maxReplicaCount").max(least))
}

impl Sim {
    /// The Deployment controller and the kubelet take one Deployment a step further, an autoscaler another number, or the
    /// controller of EndpointSlices one of them.
    pub fn deployment_step(&mut self) {
        if self.dice.chance(300) {
            let services = self.leading();
            let Some(service) = self.dice.pick(&services).cloned() else { return };
            return self.endpoints_follow(&service);
        }
        if self.dice.chance(200) {
            return self.autoscaler_step();
        }
        let keys = self.store.keys(Kind::Deployment);
        let Some(key) = self.dice.pick(&keys).cloned() else { return };
        if self.dice.chance(60) {
            return self.pod_fails(&key);
        }
        self.deployment_progresses(&key);
    }

    /// One more pod of a Deployment becomes ready, or says why it does not.
    pub fn deployment_progresses(&mut self, key: &Key) {
        let Some(deployment) = self.store.keep(key) else { return };
        let status = |field: &str| deployment["status"][field].as_i64().unwrap_or(-1);
        let is_done = |wanted: i64| {
            Self::is_ready(&deployment, wanted)
                && status("updatedReplicas").max(status("readyReplicas")) <= wanted
        };
        if deployment["spec"]["replicas"].as_i64().is_some_and(is_done) {
            return;
        }
        let generation = deployment["metadata"]["generation"].as_i64().unwrap_or(0);
        let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(0);
        let seen = deployment["status"]["observedGeneration"].as_i64().unwrap_or(0);
        let boots =
            self.digest_of(&deployment).is_none_or(|digest| self.truth.get(&digest).is_none_or(|t| t.boots));
        let runs = |field: &str| deployment["status"][field].as_i64().unwrap_or(0);
        // A rolling update keeps what is ready until its replacement is.
        let same = seen == generation || deployment["status"]["template"] == template_of(&deployment);
        let updated = if same { runs("updatedReplicas") } else { 0 };
        let next = if boots { (updated + 1).min(wanted) } else { updated };
        let ready = if boots { runs("readyReplicas").max(next).min(wanted) } else { 0 };
        self.pod(&deployment, boots);
        self.set_replicas(key, generation, next, ready);
    }

    fn pod_fails(&mut self, key: &Key) {
        let Some(deployment) = self.store.keep(key) else { return };
        let status = |field: &str| deployment["status"][field].as_i64().unwrap_or(0);
        let ready = status("readyReplicas");
        if ready > 0 {
            self.say(|_| format!("a pod of {} is no longer ready", name(key)));
            if let Some(version) = deployment["metadata"]["labels"][names::LABEL_VERSION].as_str() {
                self.counters.restart(version);
            }
            self.set_replicas(key, status("observedGeneration"), status("updatedReplicas"), ready - 1);
        }
    }

    fn set_replicas(&mut self, key: &Key, generation: i64, updated: i64, ready: i64) {
        let status = json!({
            "observedGeneration": generation, "replicas": updated.max(ready),
            "updatedReplicas": updated, "readyReplicas": ready,
        });
        self.store.edit(key, |deployment| {
            deployment["status"] = status;
            deployment["status"]["template"] = template_of(deployment);
        });
        // Mostly at once.
        if self.dice.chance(700) {
            self.endpoints_follow(&key.name);
        }
    }

    /// The names of Services with EndpointSlices, or that are to have some.
    pub fn leading(&self) -> Vec<String> {
        let services = self.store.keys(Kind::Service).into_iter().chain(self.store.keys(Kind::EndpointSlice));
        let names: BTreeSet<String> = services.map(|key| key.name).collect();
        names.into_iter().collect()
    }

    /// A Service leads to the pods of its Deployment that are ready now.
    pub fn endpoints_follow(&mut self, service: &str) {
        let key = Key::new(Kind::EndpointSlice, NAMESPACE, service);
        let Some(owner) = self.store.keep(&Key::new(Kind::Service, NAMESPACE, service)) else {
            drop(self.store.delete(&key, None));
            return;
        };
        let deployment = self.store.get(&Key::new(Kind::Deployment, NAMESPACE, service));
        let ready =
            deployment.and_then(|deployment| deployment["status"]["readyReplicas"].as_u64()).unwrap_or(0);
        let endpoints = ready_endpoints(ready);
        let mut labels = owner["metadata"]["labels"].clone();
        labels[rollout::SERVICE_NAME] = service.into();
        let now = self.now;
        let body = json!({"metadata": {"labels": labels}, "endpoints": endpoints});
        if self.store.create(&Object::new(key.clone(), body), now).is_err() {
            self.store.edit(&key, |slice| slice["endpoints"] = endpoints.into());
        }
    }

    /// Whether nobody takes requests that are sent to a Service.
    pub fn leads_nowhere(&self, service: &str) -> bool {
        let slice = self.store.get(&Key::new(Kind::EndpointSlice, NAMESPACE, service));
        slice.is_none_or(|slice| slice["endpoints"].as_array().is_none_or(Vec::is_empty))
    }

    /// An autoscaler says how many pods load asks for, within its bounds.
    fn autoscaler_step(&mut self) {
        let keys = self.autoscalers();
        let Some(key) = self.dice.pick(&keys).cloned() else { return };
        let load = i64::try_from(self.dice.below(8)).unwrap_or(0);
        self.autoscaler_scales(&key, Some(load));
    }

    /// All autoscalers.
    pub fn autoscalers(&self) -> Vec<Key> {
        let mut keys = self.store.keys(Kind::HorizontalPodAutoscaler);
        keys.extend(self.store.keys(Kind::ScaledObject));
        keys
    }

    /// An autoscaler brings its Deployment within its bounds, and to what load asks for, if that is known.
    pub fn autoscaler_scales(&mut self, key: &Key, load: Option<i64>) {
        let Some(scaler) = self.store.keep(key) else { return };
        let (least, most) = bounds(&scaler["spec"]);
        let target = Key::new(Kind::Deployment, NAMESPACE, text(&scaler["spec"]["scaleTargetRef"]["name"]));
        let Some(pods) = self.store.get(&target).and_then(|target| target["spec"]["replicas"].as_i64())
        else {
            return;
        };
        let wanted = load.unwrap_or(pods).clamp(least, most);
        if pods > 0 && wanted != pods {
            self.say(|_| format!("{} scales {} from {pods} to {wanted}", name(key), target.name));
            self.store.edit(&target, |deployment| deployment["spec"]["replicas"] = wanted.into());
        }
    }

    /// A pod of a Deployment, running or unable to.
    fn pod(&mut self, deployment: &Value, boots: bool) {
        let template = &deployment["spec"]["template"];
        let pod = format!("{}-0", deployment["metadata"]["name"].as_str().unwrap_or_default());
        let key = Key::new(Kind::Pod, NAMESPACE, &pod);
        let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"],
            "uid": deployment["metadata"]["uid"], "controller": true}]);
        let body = json!({
            "metadata": {"labels": template["metadata"]["labels"], "ownerReferences": owner},
            "spec": {"containers": []},
        });
        let now = self.now;
        // Taken already: the pod is there.
        drop(self.store.create(&Object::new(key.clone(), body), now));
        let state = if boots {
            json!({"running": {}})
        } else {
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
        };
        let container = json!({"name": names::SERVING_CONTAINER, "ready": boots, "restartCount": 0,
            "image": "", "imageID": "", "state": state});
        self.store.edit(&key, |pod| pod["status"] = json!({"containerStatuses": [container]}));
    }

    /// The digest that a Deployment serves.
    pub fn digest_of(&self, deployment: &Value) -> Option<String> {
        let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array()?;
        args.iter().find_map(|arg| Some(arg.as_str()?.strip_prefix("--digest=")?.to_owned()))
    }

    /// Whether as many pods of a Deployment as `wanted` are ready, for its present generation.
    pub fn is_ready(deployment: &Value, wanted: i64) -> bool {
        let status = |field: &str| deployment["status"][field].as_i64().unwrap_or(-1);
        status("observedGeneration") >= deployment["metadata"]["generation"].as_i64().unwrap_or(i64::MAX)
            && status("updatedReplicas") >= wanted
            && status("readyReplicas") >= wanted
    }

    /// The garbage collector takes one object whose owners are gone.
    pub fn collect_garbage(&mut self) -> bool {
        let orphans = self.store.orphans();
        let Some(key) = self.dice.pick(&orphans).cloned() else { return false };
        self.say(|_| format!("the garbage collector takes {}", name(&key)));
        if key.kind == Kind::Job {
            self.note_job_deleted(&key);
        }
        drop(self.store.delete(&key, None));
        true
    }
}
