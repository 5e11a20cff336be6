//! The walk between plan and cluster, where a plan's table cannot look.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "this is a test")]

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use anneal_core::{
    object::{Key, Kind, Object},
    patch::Patch,
    plan::Note,
    rollout::{AlertReceiver, Answer, Probe, ProbeAnswer, Query},
};
use anneal_crds::model_rollout::RolloutPhase;
use anneal_operator::{
    ports::{Clock, Cluster, ClusterError, Probes, Prometheus, Reader},
    reconcile::{Failed, Machine, Ports, reconcile},
    server::Server,
    turns::{Errand, Turns},
};
use anneal_tests::cases::{self, RolloutCase};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

/// A cluster as a case has it, in which someone else has just written the rollout.
struct Overtaken {
    case: RolloutCase,
    writes: Mutex<Vec<String>>,
    statuses: Mutex<Vec<Value>>,
    /// Versions besides, as they are stored.
    others: Vec<Value>,
    /// Whether a status is never answered for.
    hangs: bool,
}

impl Overtaken {
    fn new(case: RolloutCase) -> Arc<Self> {
        Self::beside(case, vec![])
    }

    fn hanging(case: RolloutCase) -> Arc<Self> {
        let (writes, statuses) = (Mutex::default(), Mutex::default());
        Arc::new(Self { case, writes, statuses, others: vec![], hangs: true })
    }

    fn beside(case: RolloutCase, others: Vec<Value>) -> Arc<Self> {
        Arc::new(Self { case, writes: Mutex::default(), statuses: Mutex::default(), others, hangs: false })
    }
}

impl Overtaken {
    fn write(&self, what: &str, key: &Key) -> Result<(), ClusterError> {
        self.writes.lock().unwrap().push(format!("{what} {:?}", key.kind));
        Ok(())
    }
}

#[async_trait]
impl Reader for Overtaken {
    async fn get(&self, key: &Key) -> Result<Option<Value>, ClusterError> {
        Ok(match key.kind {
            Kind::ModelRollout => serde_json::to_value(&self.case.rollout).ok(),
            Kind::HttpRoute => self.case.children.route.clone(),
            Kind::Secret => return Err(refused(key)),
            _ => Some(json!({"status": {"conditions": [{"type": "Programmed", "status": "True"}]}})),
        })
    }

    async fn list(&self, kind: Kind, _: &str, _: (&str, &str)) -> Result<Vec<Value>, ClusterError> {
        Ok(match kind {
            Kind::ModelVersion => {
                let own = self.case.versions.iter().map(|v| serde_json::to_value(v).unwrap());
                own.chain(self.others.iter().cloned()).collect()
            }
            Kind::Deployment => self.case.children.deployments.clone(),
            Kind::Service => self.case.children.services.clone(),
            Kind::EndpointSlice => self.case.slices(),
            _ => vec![],
        })
    }
}

#[async_trait]
impl Cluster for Overtaken {
    async fn create(&self, object: &Object) -> Result<(), ClusterError> {
        self.write("create", &object.key)
    }

    async fn apply(&self, object: &Object) -> Result<(), ClusterError> {
        self.write("apply", &object.key)
    }

    async fn patch(&self, patch: &Patch) -> Result<(), ClusterError> {
        self.write("patch", &patch.key)
    }

    async fn delete(&self, key: &Key, _: &str) -> Result<(), ClusterError> {
        self.write("delete", key)
    }

    async fn record_status(&self, _: &Key, _: &Value, status: Value) -> Result<(), ClusterError> {
        self.statuses.lock().unwrap().push(status);
        if self.hangs {
            return std::future::pending().await;
        }
        Err(ClusterError::Conflict)
    }

    async fn publish(&self, _: &Value, _: &Note) {}
}

#[async_trait]
impl Prometheus for Overtaken {
    async fn query(&self, _: &Server, _: &Query, _: Timestamp) -> Answer {
        std::future::pending().await
    }
}

#[async_trait]
impl Probes for Overtaken {
    async fn send(&self, _: &[Probe]) -> Vec<ProbeAnswer> {
        std::future::pending().await
    }
}

impl Clock for Overtaken {
    fn now(&self) -> Timestamp {
        self.case.now
    }
}

/// What the API server says to who has no right to it.
fn refused(key: &Key) -> ClusterError {
    let (verb, what) = ("get", format!("{:?} {}", key.kind, key.name));
    ClusterError::Forbidden { verb, what, message: "not yours".to_owned() }
}

#[test]
fn a_secret_that_may_not_be_read_keeps_the_step_waiting_and_says_what_to_set() {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    case.rollout.spec.prometheus.auth =
        Some(serde_json::from_value(json!({"bearer": {"secretName": "token"}})).unwrap());
    let world = Overtaken::new(case);
    let ports = ports(&world);
    let mut walk = Box::pin(reconcile(&ports, Machine::ModelRollout, cases::NAMESPACE, cases::NAME));
    // The metrics server would never answer: it is not asked.
    assert!(walk.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    let status = &world.statuses.lock().unwrap()[0];
    let conditions = status["conditions"].as_array().unwrap();
    let metrics = conditions.iter().find(|condition| condition["type"] == "MetricsAvailable").unwrap();
    let message = metrics["message"].as_str().unwrap();
    assert_eq!((&metrics["status"], &status["phase"]), (&json!("False"), &json!("Canary")));
    assert!(message.contains("Secret team-a/token: set prometheusCredentials.enabled=true"), "{message}");
}

/// One reconcile may read at once.
fn ports(world: &Arc<Overtaken>) -> Ports {
    Ports {
        alerts: AlertReceiver::Listens,
        cluster: world.clone(),
        prometheus: world.clone(),
        probes: world.clone(),
        clock: world.clone(),
        turns: Arc::new(Turns::new(1)),
        looks: Arc::default(),
    }
}

#[test]
fn a_metrics_server_that_hangs_takes_no_turn() {
    let case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    let world = Overtaken::new(case);
    let ports = ports(&world);
    let walks = || reconcile(&ports, Machine::ModelRollout, cases::NAMESPACE, cases::NAME);
    let mut waiting = [Box::pin(walks()), Box::pin(walks()), Box::pin(walks())];
    for walk in &mut waiting {
        let ended = walk.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(ended.is_pending() && ports.turns.free(Errand::Other) == 1, "{ended:?}");
    }
}

#[test]
fn whoever_asks_nobody_keeps_its_turn_until_all_is_written() {
    // A version begins, so there is much to write and no metric to ask.
    let case = RolloutCase::new(json!({"phase": "Healthy", "stable": cases::reference(1)})).unwrap();
    let world = Overtaken::hanging(case);
    let ports = ports(&world);
    let walks = || reconcile(&ports, Machine::ModelRollout, cases::NAMESPACE, cases::NAME);
    let mut waiting = [Box::pin(walks()), Box::pin(walks())];
    for walk in &mut waiting {
        let ended = walk.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(ended.is_pending() && ports.turns.free(Errand::Other) == 0, "{ended:?}");
    }
    // One writes and the other one has not even read; whoever is judged waits for neither.
    assert_eq!((world.statuses.lock().unwrap().len(), ports.turns.free(Errand::Judged)), (1, 1));
    let key = Key::new(Kind::ModelRollout, cases::NAMESPACE, cases::NAME);
    let errand = |status: Value| {
        ports.looks.note(&key, serde_json::from_value(status).ok().as_ref());
        ports.looks.errand(&key)
    };
    assert_eq!(errand(cases::moving("Canary", 20)), Errand::Judged);
    assert_eq!(errand(cases::moving("Preparing", 0)), Errand::Other);
    assert_eq!(errand(cases::moving("RollingBack", 0)), Errand::Judged);
    // It is known by then, and takes a turn of the other kind.
    let mut judged = Box::pin(walks());
    assert!(judged.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!((world.statuses.lock().unwrap().len(), ports.turns.free(Errand::Judged)), (2, 0));
}

#[test]
fn who_decided_by_an_older_status_does_nothing_even_when_it_would_record_nothing() {
    let status = json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1)});
    let mut case = RolloutCase::new(status).unwrap();
    case.versions.truncate(1);
    case.goes_on(3);
    // Something to perform, and nothing to record.
    case.children.services[0]["metadata"]["annotations"] = json!({});
    let plan = case.plan();
    assert_eq!((Some(&plan.status), plan.actions.len()), (case.rollout.status.as_ref(), 1));

    let world = Overtaken::new(case);
    let ports = ports(&world);
    let mut walk = Box::pin(reconcile(&ports, Machine::ModelRollout, cases::NAMESPACE, cases::NAME));
    let ended = walk.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ended, Poll::Ready(Err(Failed { error: ClusterError::Conflict, .. }))), "{ended:?}");
    assert_eq!(*world.writes.lock().unwrap(), Vec::<String>::new());
}

/// A version that another release recorded, with a word that this one does not know.
#[test]
fn a_version_that_cannot_be_read_is_in_nobodys_way_but_its_own() {
    let of_another_release = |number: u32| {
        let mut version = serde_json::to_value(cases::version(number, Some(1)).unwrap()).unwrap();
        version["spec"]["gates"][0]["verdict"] = "Maybe".into();
        version
    };
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    let walk = |case: &RolloutCase, others| {
        let ports = ports(&Overtaken::beside(case.clone(), others));
        let mut walk = Box::pin(reconcile(&ports, Machine::ModelRollout, cases::NAMESPACE, cases::NAME));
        match walk.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(failed)) => Some(failed.error),
            Poll::Ready(Ok(_)) | Poll::Pending => None,
        }
    };
    let error = walk(&case, vec![of_another_release(9)]);
    assert!(!matches!(error, Some(ClusterError::Refused { .. })), "{error:?}");
    case.versions.truncate(1);
    let error = walk(&case, vec![of_another_release(2)]).unwrap().to_string();
    assert!(error.contains("-v20261121.2") && error.contains("not known to this release"), "{error}");
    // It can be taken back all the same.
    let abort = ("anneal.dev/abort".to_owned(), "v20261121.2: nobody can read it".to_owned());
    case.rollout.metadata.annotations = Some([abort].into());
    for phase in [RolloutPhase::Preparing, RolloutPhase::Staging, RolloutPhase::Canary] {
        case.rollout.status.as_mut().unwrap().phase = phase;
        let error = walk(&case, vec![of_another_release(2)]);
        assert!(!matches!(error, Some(ClusterError::Refused { .. })), "{phase:?} {error:?}");
    }
}
