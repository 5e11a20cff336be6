//! People: they create, approve, change their minds, delete the wrong thing and restore from backups.

use anneal_core::object::{Key, Kind};
use anneal_crds::names;
use serde_json::json;

use super::{
    calls::name,
    manifests,
    sim::{NAMESPACE, Sim},
};

impl Sim {
    /// Someone does something.
    pub fn user_step(&mut self) {
        // Evidence is seldom there, and then someone looks at it.
        if let Some((key, status)) = self.evidence()
            && self.dice.chance(900)
        {
            return self.user_approves_evidence(&key, &status);
        }
        match self.dice.weighted(&[30, 26, 10, 6, 6, 5, 4, 4, 3, 3, 3, 50]) {
            0 => self.user_retrains(),
            1 => self.user_approves(),
            2 => self.user_edits_strategy(),
            3 => self.user_pins(),
            4 => self.user_edits_serving(),
            5 => self.user_deletes_child(),
            6 => self.route_is_changed("kubectl-edit"),
            7 => self.status_is_lost(),
            8 => self.user_recreates_rollout(),
            9 => self.user_recreates_job(),
            10 => self.user_deletes_version(),
            _ => self.user_commands(),
        }
    }

    fn any(&mut self, kind: Kind) -> Option<Key> {
        let keys = self.store.keys(kind);
        self.dice.pick(&keys).cloned()
    }

    /// A new RetrainJob, if there are not too many.
    pub fn user_retrains(&mut self) {
        let count = self.store.keys(Kind::RetrainJob).len();
        let Some(rollout) = self.any(Kind::ModelRollout) else { return };
        if count < 5 {
            let job = manifests::retrain_job(&format!("run{count}"), &rollout.name, &mut self.dice);
            let now = self.now;
            self.say(|_| format!("a user creates {}", name(&job.key)));
            // Taken after another one was deleted: then no new run begins.
            drop(self.store.create(&job, now));
        }
    }

    fn user_approves(&mut self) {
        if let Some(key) = self.any(Kind::ModelVersion) {
            self.say(|_| format!("a user approves {}", name(&key)));
            self.store.edit(&key, |version| {
                version["metadata"]["annotations"][names::ANNOTATION_APPROVED_BY] = "ann".into()
            });
        }
    }

    fn user_edits_strategy(&mut self) {
        let Some(key) = self.any(Kind::ModelRollout) else { return };
        let strategy = manifests::strategy(&mut self.dice);
        let Some(mut spec) = self.store.get(&key).map(|rollout| rollout["spec"].clone()) else { return };
        spec["strategy"] = strategy;
        manifests::may_experiment(&mut spec, &mut self.dice);
        manifests::may_compare(&mut spec, &mut self.dice);
        self.say(|_| format!("a user changes the strategy of {}: {}", name(&key), spec["strategy"]));
        self.store.edit(&key, |rollout| rollout["spec"] = spec);
    }

    fn user_pins(&mut self) {
        let (Some(key), Some(version)) = (self.any(Kind::ModelRollout), self.any(Kind::ModelVersion)) else {
            return;
        };
        let version =
            self.store.get(&version).map(|version| version["spec"]["version"].clone()).unwrap_or_default();
        let candidate = if self.dice.chance(500) {
            json!({"follow": "NewestApproved"})
        } else {
            json!({"version": version})
        };
        self.say(|_| format!("a user sets the candidate of {}: {candidate}", name(&key)));
        self.store.edit(&key, |rollout| rollout["spec"]["candidate"] = candidate);
    }

    fn user_edits_serving(&mut self) {
        let Some(key) = self.any(Kind::ModelRollout) else { return };
        let cpu = if self.dice.chance(300) { "nonsense" } else { "2" };
        let limits = if self.dice.chance(300) { json!({}) } else { json!({"limits": {"cpu": cpu}}) };
        let replicas = 1 + self.dice.below(3);
        let names = if self.dice.chance(500) { json!(["ads.example.com"]) } else { json!([]) };
        let scaling = match self.dice.weighted(&[70, 15, 15]) {
            0 => None,
            1 => Some(serde_json::Value::Null),
            _ => Some(manifests::autoscaling(&mut self.dice)),
        };
        self.say(|_| {
            format!("a user changes {}: {replicas} replicas, {limits}, {names}, {scaling:?}", name(&key))
        });
        self.store.edit(&key, |rollout| {
            rollout["spec"]["serving"]["replicas"] = replicas.into();
            rollout["spec"]["serving"]["resources"] = limits;
            if let Some(scaling) = scaling {
                rollout["spec"]["serving"]["autoscaling"] = scaling;
            }
            if let Some(gateway) = rollout["spec"]["traffic"].get_mut("gateway") {
                gateway["hostnames"] = names;
            }
        });
    }

    fn user_deletes_child(&mut self) {
        let kinds = [
            Kind::Deployment,
            Kind::Service,
            Kind::HttpRoute,
            Kind::Job,
            Kind::ConfigMap,
            Kind::Pod,
            Kind::HorizontalPodAutoscaler,
            Kind::ScaledObject,
        ];
        let Some(kind) = self.dice.pick(&kinds).copied() else { return };
        let Some(key) = self.any(kind) else { return };
        if kind == Kind::Job {
            self.note_job_deleted(&key);
        }
        if kind == Kind::Pod {
            self.note_pod_deleted(&key);
        }
        self.say(|_| format!("a user deletes {}", name(&key)));
        drop(self.store.delete(&key, None));
    }

    /// A controller that wants another route answers, if there is one.
    pub fn hostile_step(&mut self) {
        if self.hostile && self.dice.chance(800) {
            self.route_is_changed("argocd-controller");
        }
    }

    fn route_is_changed(&mut self, who: &str) {
        let Some(route) = self.any(Kind::HttpRoute) else { return };
        let mut services = self.store.keys(Kind::Service);
        // The Service of the stable version has no door for users' requests.
        services
            .retain(|service| service.name.starts_with(&route.name) && !service.name.ends_with("-stable"));
        let Some(service) = self.dice.pick(&services).cloned() else { return };
        let backend =
            json!({"group": "", "kind": "Service", "name": service.name, "port": 80, "weight": 1000});
        let mirror = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": backend}}]);
        let only_mirror = self.dice.chance(500);
        let rules = self.store.get(&route).and_then(|route| Some(route["spec"]["rules"].as_array()?.len()));
        if rules.is_some_and(|rules| rules > 1) && self.dice.chance(300) {
            self.say(|_| format!("{who} writes another rule of {}", name(&route)));
            let path = json!([{"path": {"type": "PathPrefix", "value": format!("/{}", self.dice.below(9))}}]);
            self.store.edit(&route, |route| route["spec"]["rules"][1]["matches"] = path);
            return;
        }
        self.say(|_| format!("{who} sends {} to {}", name(&route), service.name));
        self.store.edit(&route, |route| {
            let fields = json!({"f:spec": {"f:rules": {}}});
            route["metadata"]["managedFields"] = json!([{"manager": who, "fieldsV1": fields}]);
            if only_mirror {
                route["spec"]["rules"][0]["filters"] = mirror;
            } else {
                route["spec"]["rules"][0]["backendRefs"] = json!([backend]);
            }
        });
    }

    /// A restore from a backup without status.
    fn status_is_lost(&mut self) {
        let kind = if self.dice.chance(700) { Kind::ModelRollout } else { Kind::RetrainJob };
        let Some(key) = self.any(kind) else { return };
        let child = Key::new(Kind::Job, NAMESPACE, &format!("{}-1", key.name));
        if kind == Kind::RetrainJob && self.store.get(&child).is_none() {
            return;
        }
        self.say(|_| format!("the status of {} is lost", name(&key)));
        self.store.edit(&key, |object| {
            object.as_object_mut().map(|object| object.remove("status"));
        });
        self.forget(&key);
    }

    fn user_recreates_rollout(&mut self) {
        if let Some(key) = self.any(Kind::ModelRollout) {
            self.recreate(&key);
        }
    }

    fn user_recreates_job(&mut self) {
        if let Some(key) = self.any(Kind::RetrainJob) {
            self.recreate(&key);
        }
    }

    fn recreate(&mut self, key: &Key) {
        let Some(old) = self.store.get(key).cloned() else { return };
        self.say(|_| format!("a user deletes {} and creates it again", name(key)));
        drop(self.store.delete(key, None));
        let again =
            anneal_core::object::Object::new(key.clone(), json!({"metadata": {}, "spec": old["spec"]}));
        let now = self.now;
        drop(self.store.create(&again, now));
        self.forget(key);
    }

    fn user_deletes_version(&mut self) {
        let Some(key) = self.any(Kind::ModelVersion) else { return };
        let stable = |rollout: &serde_json::Value| rollout["status"]["stable"]["name"] == key.name.as_str();
        if self.store.all(Kind::ModelRollout).any(|(_, rollout)| stable(rollout)) {
            return;
        }
        self.say(|_| format!("a user deletes {}", name(&key)));
        drop(self.store.delete(&key, None));
    }
}
