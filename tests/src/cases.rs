//! Hand-made snapshots for the tables of `tests/core_*.rs`: objects as small as the API server would take them.

mod autoscaling;
mod retrain;

use std::collections::BTreeMap;

use anneal_core::{
    object::{Key, Kind, Object},
    plan::{Action, Plan},
    rollout,
    rollout::{Answer, Children, GatewayState, Memo, Probe, ProbeAnswer, Query, Question, Series},
};
use anneal_crds::{ModelRollout, ModelRolloutStatus, ModelVersion, model_rollout::RolloutPhase, names};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use retrain::{RetrainCase, child, notice, pod};

/// Why a case could not be made; tests unwrap it.
pub type Made<T> = Result<T, serde_json::Error>;

/// The namespace of every case.
pub const NAMESPACE: &str = "team-a";
/// Name of the rollout and of the RetrainJob of every case.
pub const NAME: &str = "ads";
/// Uid of the object that is planned for.
pub const UID: &str = "uid-own";

/// The time of every case.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_795_262_400).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `seconds` ago, as Kubernetes writes it.
pub fn ago(seconds: i64) -> String {
    now().saturating_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN).to_string()
}

/// The digest of a case's version.
pub fn digest(number: u32) -> String {
    format!("sha256:{number:064x}")
}

/// A reference to version `number`.
pub fn reference(number: u32) -> Value {
    json!({"name": format!("ads-v20261121.{number}"), "version": format!("v20261121.{number}"), "digest": digest(number)})
}

/// The most that a status may remember of other versions, with the longest names.
pub fn remember_most(status: &mut Value) {
    let reference = |number: u32| json!({"name": format!("{}-v20261121.{number}", "m".repeat(40)), "version": format!("v20261121.{number}"), "digest": digest(number)});
    let rejection = |number| {
        let mut rejection = reference(number);
        rejection["reason"] = "ProgressDeadlineExceeded".into();
        rejection["retried"] = "x".repeat(200).into();
        rejection
    };
    status["rejected"] = (100..120).map(rejection).collect::<Vec<_>>().into();
    status["history"] = (200..210).map(reference).collect::<Vec<_>>().into();
}

/// The endpoints of so many ready pods, as an EndpointSlice lists them.
pub fn ready_endpoints(pods: u64) -> Vec<Value> {
    let endpoint = |pod| json!({"addresses": [format!("10.1.0.{pod}")], "conditions": {"ready": true}});
    (0..pods).map(endpoint).collect()
}

/// Ticks until something is so, at most `ticks`, and how it is then.
pub fn until(
    ticks: usize,
    mut tick: impl FnMut() -> ModelRolloutStatus,
    there: impl Fn(&ModelRolloutStatus) -> bool,
) -> (usize, ModelRolloutStatus) {
    let mut status = tick();
    for passed in 1..ticks {
        if there(&status) {
            return (passed, status);
        }
        status = tick();
    }
    (ticks, status)
}

fn typed<T: DeserializeOwned>(key: Key, body: Value) -> Made<T> {
    serde_json::from_value(Object::new(key, body).body)
}

fn metadata(uid: &str) -> Value {
    json!({"uid": uid, "generation": 1, "resourceVersion": "7", "creationTimestamp": ago(3600)})
}

/// A rollout with shadow and a canary of 20 and 100 %, in a status.
pub fn rollout(status: Value) -> Made<ModelRollout> {
    let spec = json!({
        "model": "ads",
        "candidate": {"follow": "NewestApproved"},
        "serving": {"image": "serve:1", "replicas": 2, "progressDeadline": "2m"},
        "traffic": {"gateway": {"name": "web"}},
        "prometheus": {"url": "http://prometheus"},
        "strategy": {
            "shadow": {"duration": "30s", "minRequests": 50},
            "canary": {"initial": 20, "increment": 80, "interval": "20s", "minRequests": 20},
            "rollbackTriggers": ["error_rate"],
        },
        "metrics": [{"name": "error_rate", "window": "40s", "interval": "10s",
            "ratio": {"bad": "bad", "total": "all", "max": 0.01}}],
        "judge": {"evidence": "none", "maxHold": "2m"},
    });
    let body = json!({"metadata": metadata(UID), "spec": spec, "status": status});
    typed(Key::new(Kind::ModelRollout, NAMESPACE, NAME), body)
}

/// A status in a phase that began long enough ago, with version 1 stable and version 2 on its way.
pub fn moving(phase: &str, weight: i32) -> Value {
    json!({"observedGeneration": 1, "phase": phase, "stable": reference(1), "candidate": reference(2), "weight": weight,
        "stepStartedAt": ago(60), "trafficAcceptedAt": ago(60)})
}

/// Version `number`, which passed its gates against version `baseline`; without one it was the first, and approved.
pub fn version(number: u32, baseline: Option<u32>) -> Made<ModelVersion> {
    let (admission, baseline) = match baseline {
        None => ("Bootstrap", json!({"bootstrap": {}})),
        Some(other) => {
            let mut seen = reference(other);
            seen["uri"] = "file:///models/base".into();
            ("Gates", json!({"version": seen}))
        }
    };
    let spec = json!({
        "model": "ads", "version": format!("v20261121.{number}"), "admission": admission,
        "artifact": {"uri": format!("file:///models/{number}"), "digest": digest(number)},
        "storage": {"persistentVolumeClaim": {"claimName": "models"}},
        "origin": {"job": "run", "uid": format!("uid-run-{number}")},
        "baseline": baseline,
        "evaluation": {"rows": 10, "metrics": []},
        "gates": [{"gate": "ironLaw", "enforcement": "Required", "verdict": "Pass", "message": ""}],
    });
    let mut metadata = metadata(&format!("uid-version-{number}"));
    metadata["annotations"] = json!({"anneal.dev/approved-by": "ann"});
    let key = Key::new(Kind::ModelVersion, NAMESPACE, &format!("ads-v20261121.{number}"));
    typed(key, json!({"metadata": metadata, "spec": spec}))
}

/// What a trigger may read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Read {
    /// This share of errors in this many requests, a moment ago.
    Errors(f64, f64),
    /// Good numbers that are this many seconds old.
    Old(i64),
    /// Numbers that are none.
    NotANumber,
    /// No series.
    Nothing,
    /// No answer.
    Silence,
}

/// All kinds of readings that are no grounds for anything.
pub const BLIND: [Read; 4] = [Read::Old(31), Read::NotANumber, Read::Nothing, Read::Silence];

impl Read {
    /// As Prometheus says it.
    pub fn answer(self) -> Answer {
        let series = |part: &str, value: f64| Series {
            labels: BTreeMap::from([("anneal_part".to_owned(), part.to_owned())]),
            value,
        };
        let vector = |share: f64, requests: f64, age: i64| {
            let at = now().as_second().saturating_sub(age) as f64;
            let (bad, all) = (series("bad", share * requests), series("total", requests));
            Answer::Vector(vec![bad, all, series("step", requests), series("at", at)])
        };
        match self {
            Self::Errors(share, requests) => vector(share, requests, 1),
            Self::Old(age) => vector(0.0, 1000.0, age),
            Self::NotANumber => vector(f64::NAN, f64::NAN, 1),
            Self::Nothing => Answer::Vector(vec![]),
            Self::Silence => Answer::Unreachable("connection refused".into()),
        }
    }
}

/// So many requests of the version that left, and a hundred of the one that serves.
pub fn left(requests: f64) -> Answer {
    left_beside(requests, Some(100.0))
}

/// So many requests of whichever version left, and of the one that serves, if it has any series.
pub fn left_beside(requests: f64, serving: Option<f64>) -> Answer {
    let part = |name: &str, value: f64| Series {
        labels: BTreeMap::from([("anneal_part".to_owned(), name.to_owned())]),
        value,
    };
    let serving = serving.map(|requests| part("rest", requests));
    let left = ["v20261121.1", "v20261121.2"].map(|version| part(version, requests));
    Answer::Vector(left.into_iter().chain(serving).collect())
}

/// Everything that a plan for a rollout looks at.
#[derive(Clone, Debug)]
pub struct RolloutCase {
    /// The rollout.
    pub rollout: ModelRollout,
    /// The versions.
    pub versions: Vec<ModelVersion>,
    /// Other rollouts of the model.
    pub rivals: Vec<ModelRollout>,
    /// The other members of its group.
    pub members: Vec<ModelRollout>,
    /// Its children.
    pub children: Children,
    /// What is counted of a version that should get no requests any more.
    pub left: Answer,
    /// Whom its Services lead to, if not to every ready pod.
    pub endpoints: Option<rollout::Endpoints>,
    /// The gateway.
    pub gateway: GatewayState,
    /// What its class lists.
    pub features: rollout::Features,
    /// What every trigger reads.
    pub read: Read,
    /// What every probe is answered.
    pub probed: ProbeAnswer,
    /// Whether alerts are heard of.
    pub alerts: rollout::AlertReceiver,
    /// The time.
    pub now: Timestamp,
}

impl RolloutCase {
    /// A rollout with versions 1 (stable in `status`) and 2, whose children are as the status has them and ready.
    pub fn new(status: Value) -> Made<Self> {
        let versions = vec![version(1, None)?, version(2, Some(1))?];
        let mut case = Self {
            rollout: rollout(status)?,
            versions,
            rivals: vec![],
            members: vec![],
            children: Children::default(),
            left: Answer::Vector(vec![]),
            endpoints: None,
            gateway: GatewayState::Programmed,
            features: rollout::Features::Unknown,
            read: Read::Errors(0.0, 1000.0),
            probed: ProbeAnswer::Silent("connection refused".into()),
            alerts: rollout::AlertReceiver::Listens,
            now: now(),
        };
        case.settle_children();
        Ok(case)
    }

    /// The plan.
    pub fn plan(&self) -> Plan<ModelRolloutStatus> {
        self.plan_with(&self.read.answer())
    }

    /// The plan, with this answer for every trigger.
    pub fn plan_with(&self, answer: &Answer) -> Plan<ModelRolloutStatus> {
        self.plan_answering(|_| answer.clone())
    }

    /// The plan, with the answers to what it asks.
    pub fn plan_answering(&self, answer: impl Fn(&Query) -> Answer) -> Plan<ModelRolloutStatus> {
        let mut queries = rollout::queries(&self.rollout, self.now);
        queries.extend(self.query_of_who_left());
        let answer = |query: &Query| match query.question {
            Question::Left => self.left.clone(),
            Question::Reading
            | Question::Baseline
            | Question::Events
            | Question::All
            | Question::PastEvents
            | Question::PastAll => answer(query),
        };
        let answers =
            queries.iter().map(|query| ((query.metric.clone(), query.question), answer(query))).collect();
        let probed = vec![self.probed.clone(); self.probes().len()];
        rollout::plan(&rollout::Snapshot {
            answers: &answers,
            probed: &probed,
            ..self.snapshot(&BTreeMap::new(), &self.leading(), &Memo::default())
        })
    }

    /// What is asked about versions that should get no requests any more.
    pub fn query_of_who_left(&self) -> Option<Query> {
        rollout::query_of_who_left(&self.rollout, &self.children.deployments, self.now)
    }

    /// The EndpointSlices of its Services, each of which leads to every ready pod.
    pub fn slices(&self) -> Vec<Value> {
        let slice = |service: &Value| {
            let name = &service["metadata"]["name"];
            let mut deployments = self.children.deployments.iter();
            let ready = deployments.find(|deployment| deployment["metadata"]["name"] == *name);
            let ready =
                ready.and_then(|deployment| deployment["status"]["readyReplicas"].as_u64()).unwrap_or(0);
            json!({"metadata": {"name": name, "labels": {rollout::SERVICE_NAME: name}}, "endpoints": ready_endpoints(ready)})
        };
        self.children.services.iter().map(slice).collect()
    }

    /// What is to be sent.
    pub fn probes(&self) -> Vec<Probe> {
        rollout::probes(&self.snapshot(&BTreeMap::new(), &self.leading(), &Memo::default()))
    }

    fn leading(&self) -> rollout::Endpoints {
        self.endpoints.clone().unwrap_or_else(|| rollout::Endpoints::of(&self.slices()))
    }

    fn snapshot<'a>(
        &'a self,
        answers: &'a rollout::Answers,
        endpoints: &'a rollout::Endpoints,
        memo: &'a Memo,
    ) -> rollout::Snapshot<'a> {
        rollout::Snapshot {
            rollout: &self.rollout,
            versions: &self.versions,
            rivals: &self.rivals,
            members: &self.members,
            children: &self.children,
            endpoints,
            gateway: self.gateway.clone(),
            features: self.features.clone(),
            answers,
            probed: &[],
            alerts: self.alerts,
            memo,
            now: self.now,
        }
    }

    /// The cluster does what plans for the present status ask for, without another decision.
    pub fn settle_children(&mut self) {
        // One plan asks for all that is missing; it may decide something too, which is not recorded here.
        let status = self.rollout.status.clone();
        let read = std::mem::replace(&mut self.read, Read::Errors(0.0, 3.0));
        if let Some(status) = self.rollout.status.as_mut().filter(|status| status.phase.divides_traffic()) {
            // Who takes live requests has pods before it begins, and one without them is rolled back.
            status.phase = RolloutPhase::Preparing;
            let actions = self.plan().actions;
            self.perform(&actions);
        }
        self.rollout.status.clone_from(&status);
        // While something is missing a step waits, and one that has waited for long would be given up.
        self.rollout.status.iter_mut().for_each(|status| status.holding_since = None);
        let actions = self.plan().actions;
        self.perform(&actions);
        self.read = read;
        self.rollout.status = status;
    }

    /// So many reconciles: what is planned is recorded and done.
    pub fn goes_on(&mut self, reconciles: usize) {
        for _ in 0..reconciles {
            let plan = self.plan();
            self.follow(plan);
        }
    }

    /// What is read, at the time of the case.
    pub fn fresh(&self) -> Answer {
        let mut answer = self.read.answer();
        if let Answer::Vector(vector) = &mut answer {
            let newest = vector.iter_mut().filter(|series| series.labels["anneal_part"] == "at");
            newest.for_each(|series| series.value = self.now.as_second() as f64);
        }
        answer
    }

    /// The plan is recorded, and the cluster does what it asks for; the status is returned.
    pub fn follow(&mut self, plan: Plan<ModelRolloutStatus>) -> ModelRolloutStatus {
        self.perform(&plan.actions);
        self.rollout.status = Some(plan.status.clone());
        plan.status
    }

    /// The cluster does what `plan` asks for; every pod becomes ready and every route is accepted.
    pub fn perform(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Create(object) | Action::Apply(object) => self.put(object),
                Action::Patch(patch) => {
                    let patched = self.children.route.as_ref().and_then(|route| patch.applied(route));
                    if let Some(mut body) = patched {
                        let fields = json!({"f:spec": {"f:rules": {}}});
                        body["metadata"]["managedFields"] =
                            json!([{"manager": names::FIELD_MANAGER, "fieldsV1": fields}]);
                        self.put(&Object { key: patch.key.clone(), body });
                    }
                }
                Action::Delete { key, .. } => {
                    let stays = |object: &Value| object["metadata"]["name"] != key.name.as_str();
                    if let Some(list) = self.autoscalers(key.kind) {
                        list.retain(stays);
                        continue;
                    }
                    for list in [&mut self.children.deployments, &mut self.children.services] {
                        list.retain(stays);
                    }
                }
            }
        }
    }

    fn put(&mut self, object: &Object) {
        let mut body = object.body.clone();
        body["metadata"]["uid"] = format!("uid-{}", object.key.name).into();
        body["metadata"]["generation"] = 1.into();
        body["metadata"]["resourceVersion"] = "8".into();
        match object.key.kind {
            Kind::Deployment => {
                let pods = body["spec"]["replicas"].clone();
                body["status"] =
                    json!({"observedGeneration": 1, "updatedReplicas": pods, "readyReplicas": pods});
                replace(&mut self.children.deployments, body);
            }
            Kind::Service => {
                // One address for each version.
                let number = object.key.name.rsplit('-').next().unwrap_or_default();
                body["spec"]["clusterIP"] = format!("10.96.0.{number}").into();
                replace(&mut self.children.services, body);
            }
            Kind::HttpRoute => {
                let before = self.children.route.as_ref();
                let generation = before
                    .and_then(|route| route["metadata"]["generation"].as_i64())
                    .map_or(1, |old| old + 1);
                body["metadata"]["generation"] = generation.into();
                let seen =
                    |type_: &str| json!({"type": type_, "status": "True", "observedGeneration": generation});
                body["status"] =
                    json!({"parents": [{"conditions": [seen("Accepted"), seen("ResolvedRefs")]}]});
                self.children.route = Some(body);
            }
            Kind::ModelVersion => self.annotate(&object.key.name, &body["metadata"]["annotations"]),
            Kind::Job => self.children.test = Some(body),
            Kind::HorizontalPodAutoscaler | Kind::ScaledObject => {
                if let Some(list) = self.autoscalers(object.key.kind) {
                    replace(list, body);
                }
                self.scale();
            }
            Kind::ConfigMap
            | Kind::Secret
            | Kind::Pod
            | Kind::EndpointSlice
            | Kind::Gateway
            | Kind::GatewayClass
            | Kind::RetrainJob
            | Kind::ModelRollout => {}
        }
    }

    fn annotate(&mut self, name: &str, marks: &Value) {
        for version in
            self.versions.iter_mut().filter(|version| version.metadata.name.as_deref() == Some(name))
        {
            let annotations = version.metadata.annotations.get_or_insert_default();
            annotations.retain(|key, _| key.starts_with("anneal.dev/"));
            for (key, value) in marks.as_object().into_iter().flatten() {
                annotations.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
            }
        }
    }

    /// The pods of a version are no longer all ready.
    pub fn lose_a_pod(&mut self, number: u32) {
        let name = format!("{NAME}-v20261121-{number}");
        for deployment in &mut self.children.deployments {
            if deployment["metadata"]["name"] == name.as_str() {
                deployment["status"]["readyReplicas"] = 1.into();
            }
        }
    }
}

fn replace(list: &mut Vec<Value>, body: Value) {
    list.retain(|object| object["metadata"]["name"] != body["metadata"]["name"]);
    list.push(body);
}

/// The rules of the route that a plan asks for, if it asks for one.
pub fn route_of(plan: &Plan<ModelRolloutStatus>) -> Option<&Value> {
    plan.actions.iter().find_map(|action| match action {
        Action::Apply(object) if object.key.kind == Kind::HttpRoute => Some(&object.body["spec"]),
        Action::Apply(_) | Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => None,
    })
}
