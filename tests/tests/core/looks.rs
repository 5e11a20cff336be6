//! What a tick costs: a steady one asks Prometheus and nobody else, and whatever is decided is read anew first.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "this is a test")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    task::{Context, Waker},
};

use anneal_core::{
    object::{Key, Kind, Object},
    patch::Patch,
    plan::{Action, Note},
    rollout::{AlertReceiver, Answer, GatewayState, Probe, ProbeAnswer, Query},
};
use anneal_operator::{
    looks::Looks,
    ports::{Clock, Cluster, ClusterError, Probes, Prometheus, Reader},
    reconcile::{Machine, Ports, reconcile},
    server::Server,
    turns::Turns,
};
use anneal_tests::cases::{self, Read, RolloutCase};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// A canary in which nothing happens by itself, and who asks about it.
struct Calm {
    case: Mutex<RolloutCase>,
    looks: Arc<Looks>,
    reads: AtomicUsize,
    questions: AtomicUsize,
    /// Requests to versions since the start.
    probed: AtomicUsize,
    /// Seconds that go by with each reading of the clock.
    pace: AtomicI64,
    /// Whether something moves while Prometheus is asked.
    restless: AtomicBool,
    /// Whether versions answer nothing.
    mute: AtomicBool,
    /// Whether pods cannot be listed.
    blind: AtomicBool,
}

fn key() -> Key {
    Key::new(Kind::ModelRollout, cases::NAMESPACE, cases::NAME)
}

impl Calm {
    /// A canary whose step has nothing left to record.
    async fn new(change: impl FnOnce(&mut RolloutCase)) -> Arc<Self> {
        let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
        case.rollout.spec.paused = true;
        change(&mut case);
        let calm = Arc::new(Self {
            case: Mutex::new(case),
            looks: Arc::default(),
            reads: AtomicUsize::new(0),
            questions: AtomicUsize::new(0),
            probed: AtomicUsize::new(0),
            pace: AtomicI64::new(0),
            restless: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            blind: AtomicBool::new(false),
        });
        for _ in 0..3 {
            calm.tick().await;
        }
        calm
    }

    /// Reads of the API server and questions to Prometheus of one tick.
    async fn tick(self: &Arc<Self>) -> (usize, usize) {
        let ports = Ports {
            alerts: AlertReceiver::Listens,
            cluster: self.clone(),
            prometheus: self.clone(),
            probes: self.clone(),
            clock: self.clone(),
            turns: Arc::new(Turns::new(1)),
            looks: self.looks.clone(),
        };
        self.reads.store(0, Ordering::SeqCst);
        self.questions.store(0, Ordering::SeqCst);
        reconcile(&ports, Machine::ModelRollout, cases::NAMESPACE, cases::NAME).await.unwrap();
        (self.reads.load(Ordering::SeqCst), self.questions.load(Ordering::SeqCst))
    }

    fn change(&self, change: impl FnOnce(&mut RolloutCase)) {
        change(&mut self.case.lock().unwrap());
    }
}

#[async_trait]
impl Reader for Calm {
    async fn get(&self, key: &Key) -> Result<Option<Value>, ClusterError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let case = self.case.lock().unwrap();
        Ok(match key.kind {
            Kind::ModelRollout => serde_json::to_value(&case.rollout).ok(),
            Kind::HttpRoute => case.children.route.clone(),
            Kind::Gateway => (case.gateway == GatewayState::Programmed)
                .then(|| json!({"status": {"conditions": [{"type": "Programmed", "status": "True"}]}})),
            _ => None,
        })
    }

    async fn list(&self, kind: Kind, _: &str, _: (&str, &str)) -> Result<Vec<Value>, ClusterError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let case = self.case.lock().unwrap();
        Ok(match kind {
            Kind::ModelVersion => case.versions.iter().map(|v| serde_json::to_value(v).unwrap()).collect(),
            Kind::Deployment => case.children.deployments.clone(),
            Kind::Service => case.children.services.clone(),
            Kind::EndpointSlice => case.slices(),
            Kind::Pod if self.blind.load(Ordering::SeqCst) => {
                let (verb, what) = ("list", "Pod".to_owned());
                return Err(ClusterError::Transient { verb, what, message: "timeout".to_owned() });
            }
            _ => vec![],
        })
    }
}

#[async_trait]
impl Cluster for Calm {
    async fn create(&self, _: &Object) -> Result<(), ClusterError> {
        Ok(())
    }

    async fn apply(&self, object: &Object) -> Result<(), ClusterError> {
        self.change(|case| case.perform(&[Action::Apply(object.clone())]));
        Ok(())
    }

    async fn patch(&self, _: &Patch) -> Result<(), ClusterError> {
        Ok(())
    }

    async fn delete(&self, _: &Key, _: &str) -> Result<(), ClusterError> {
        Ok(())
    }

    async fn record_status(&self, _: &Key, _: &Value, status: Value) -> Result<(), ClusterError> {
        self.change(|case| {
            case.rollout.status = serde_json::from_value(status).unwrap();
            let version = case.rollout.metadata.resource_version.get_or_insert_default();
            version.push('0');
        });
        Ok(())
    }

    async fn publish(&self, _: &Value, _: &Note) {}
}

#[async_trait]
impl Prometheus for Calm {
    async fn query(&self, _: &Server, _: &Query, _: Timestamp) -> Answer {
        self.questions.fetch_add(1, Ordering::SeqCst);
        if self.restless.load(Ordering::SeqCst) {
            self.looks.moved(&key());
        }
        self.case.lock().unwrap().fresh()
    }
}

#[async_trait]
impl Probes for Calm {
    async fn send(&self, probes: &[Probe]) -> Vec<ProbeAnswer> {
        self.probed.fetch_add(probes.len(), Ordering::SeqCst);
        if self.mute.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        vec![ProbeAnswer::Answered { status: 200, body: vec![] }; probes.len()]
    }
}

impl Clock for Calm {
    fn now(&self) -> Timestamp {
        let mut case = self.case.lock().unwrap();
        let now = case.now;
        case.now += SignedDuration::from_secs(self.pace.load(Ordering::SeqCst));
        now
    }
}

/// A bake whose smoke requests were not answered five seconds ago.
fn in_smoke(case: &mut RolloutCase) {
    let status = json!({"observedGeneration": 1, "phase": "Baking", "stable": cases::reference(2),
        "previous": cases::reference(1), "history": [cases::reference(1)],
        "stepStartedAt": cases::ago(60), "trafficAcceptedAt": cases::ago(60),
        "smoke": {"try": 2, "startedAt": cases::ago(5), "state": "Running"}});
    *case = RolloutCase::new(status).unwrap();
    let strategy = &mut case.rollout.spec.strategy;
    strategy.smoke = Some(serde_json::from_value(json!({"requests": [{"path": "/infer"}]})).unwrap());
    let bake = json!({"duration": "1h", "rollbackTriggers": ["error_rate"]});
    strategy.bake = Some(serde_json::from_value(bake).unwrap());
    case.settle_children();
}

#[tokio::test]
async fn a_look_reads_the_clock_once_and_a_glance_probes_nobody() {
    let calm = Calm::new(in_smoke).await;
    assert_eq!(calm.tick().await, (0, 1), "nothing is due");
    // The requests become due while the glance is on its way.
    calm.change(|case| case.now += SignedDuration::from_secs(4));
    calm.pace.store(1, Ordering::SeqCst);
    assert_eq!(calm.tick().await, (0, 1));
    assert_eq!(calm.probed.load(Ordering::SeqCst), 0);
    assert!(calm.tick().await.0 > 5);
    assert_eq!(calm.probed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_breach_waits_for_no_version_that_does_not_answer() {
    let calm = Calm::new(in_smoke).await;
    calm.change(|case| {
        case.now += SignedDuration::from_secs(10);
        case.read = Read::Errors(0.5, 1000.0);
    });
    calm.mute.store(true, Ordering::SeqCst);
    let mut tick = Box::pin(calm.tick());
    assert!(tick.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    let case = calm.case.lock().unwrap();
    let decision = case.rollout.status.as_ref().unwrap().decision.as_ref().unwrap();
    assert_eq!((decision.reason.as_str(), calm.probed.load(Ordering::SeqCst)), ("ThresholdBreached", 0));
}

#[tokio::test]
async fn a_steady_tick_asks_prometheus_and_nobody_else() {
    let calm = Calm::new(|_| {}).await;
    for _ in 0..3 {
        assert_eq!(calm.tick().await, (0, 1));
    }
}

#[tokio::test]
async fn a_breach_that_is_glanced_at_is_decided_by_what_is_read_anew() {
    let calm = Calm::new(|_| {}).await;
    calm.change(|case| case.read = Read::Errors(0.5, 1000.0));
    let (reads, questions) = calm.tick().await;
    assert!(reads > 5 && questions == 2, "{reads} reads, {questions} questions");
    let case = calm.case.lock().unwrap();
    let decision = case.rollout.status.as_ref().unwrap().decision.as_ref().unwrap();
    assert_eq!(decision.reason, "ThresholdBreached");
}

#[tokio::test]
async fn whatever_a_watch_tells_of_is_read_by_the_next_tick() {
    let calm = Calm::new(|_| {}).await;
    let tell: [fn(&Looks); 3] = [
        |looks| looks.moved(&key()),
        |looks| looks.is_at(&key(), Some("another")),
        |looks| looks.gone(&key()),
    ];
    for tell in tell {
        tell(&calm.looks);
        assert!(calm.tick().await.0 > 5);
        assert_eq!(calm.tick().await.0, 0);
    }
}

#[tokio::test]
async fn a_look_that_something_moved_under_is_not_kept() {
    let calm = Calm::new(|_| {}).await;
    calm.looks.moved(&key());
    calm.restless.store(true, Ordering::SeqCst);
    assert!(calm.tick().await.0 > 5);
    calm.restless.store(false, Ordering::SeqCst);
    assert!(calm.tick().await.0 > 5);
    assert_eq!(calm.tick().await.0, 0);
}

#[tokio::test]
async fn a_look_counts_for_five_minutes_and_not_before_it_was_made() {
    for (seconds, is_read) in [(299, false), (301, true), (-1, true)] {
        let calm = Calm::new(|_| {}).await;
        calm.change(|case| case.now = case.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap());
        assert_eq!(calm.tick().await.0 > 5, is_read, "after {seconds} s");
    }
}

#[tokio::test]
async fn pods_that_could_not_be_listed_are_asked_for_by_every_tick_until_they_are() {
    let calm = Calm::new(|_| {}).await;
    calm.looks.moved(&key());
    calm.blind.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(calm.tick().await.0 > 5);
    }
    calm.blind.store(false, Ordering::SeqCst);
    calm.tick().await;
    assert_eq!(calm.tick().await.0, 0);
}

#[tokio::test]
async fn while_something_is_in_the_way_every_tick_looks() {
    let calm = Calm::new(|case| case.gateway = GatewayState::Missing).await;
    assert!(calm.tick().await.0 > 5);
    calm.change(|case| case.gateway = GatewayState::Programmed);
    calm.tick().await;
    assert!(calm.tick().await.0 > 5, "it was mended, and that is recorded");
    assert_eq!(calm.tick().await.0, 0);
}
