//! A patch of a user's route on its way: what the API server's refusal of it means, and what follows.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "this is a test")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anneal_core::{
    object::{Key, Kind, Object},
    patch::{Operation, Patch},
    plan::{Action, Note},
    rollout::{AlertReceiver, Answer, Probe, ProbeAnswer, Query},
};
use anneal_operator::{
    kube_cluster::KubeCluster,
    ports::{Clock, Cluster, ClusterError, Probes, Prometheus, Reader},
    reconcile::{Machine, Ports, reconcile},
    server::Server,
    turns::Turns,
};
use anneal_tests::cases::{self, RolloutCase};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

/// An API server that refuses every patch as it refuses what may not be, and has this route. Returns where it is, and what it
/// was sent.
fn api_server(generation: i64) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(vec![]));
    let sink = heard.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = vec![0; 16_384];
            let read = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let patches = request.starts_with("PATCH");
            sink.lock().unwrap().push(request);
            let (status, body) = if patches {
                let message = "the server rejected our request due to an error in our request";
                (
                    "422 Unprocessable Entity",
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "message": message, "reason": "Invalid", "details": {}, "code": 422}),
                )
            } else {
                (
                    "200 OK",
                    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                    "metadata": {"name": "shop", "namespace": "team-a", "generation": generation}}),
                )
            };
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            // Whoever has hung up wants no answer.
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    (url, heard)
}

fn patch() -> Patch {
    let test = Operation::Test { path: "/metadata/generation".into(), value: 3.into() };
    let add = Operation::Add { path: "/spec/rules/0/backendRefs".into(), value: json!([]) };
    Patch { key: Key::new(Kind::HttpRoute, "team-a", "shop"), operations: vec![test, add] }
}

async fn patched(generation: i64) -> (ClusterError, Vec<String>) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (url, heard) = api_server(generation);
    let mut config = kube::Config::new(url.parse().unwrap());
    config.default_retry = false;
    let cluster = KubeCluster::new(kube::Client::try_from(config).unwrap(), "test");
    let error = cluster.patch(&patch()).await.unwrap_err();
    let heard = heard.lock().unwrap().clone();
    (error, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_failed_is_a_conflict_and_everything_else_is_refused() {
    let (error, heard) = patched(4).await;
    assert!(matches!(error, ClusterError::Conflict), "{error}");
    let sent = &heard[0];
    assert!(sent.contains("application/json-patch+json") && sent.contains("fieldManager=anneal"), "{sent}");
    assert!(sent.contains(r#"{"op":"test","path":"/metadata/generation","value":3}"#), "{sent}");
    let (error, _) = patched(3).await;
    assert!(matches!(&error, ClusterError::Refused { verb: "patch", .. }), "{error}");
}

/// A cluster as a case has it, in which the user edits another rule of the route just before it is first patched.
struct Edited {
    case: Mutex<RolloutCase>,
    patches: AtomicU32,
}

#[async_trait]
impl Reader for Edited {
    async fn get(&self, key: &Key) -> Result<Option<Value>, ClusterError> {
        let case = self.case.lock().unwrap();
        Ok(match key.kind {
            Kind::ModelRollout => serde_json::to_value(&case.rollout).ok(),
            Kind::HttpRoute => case.children.route.clone(),
            _ => Some(json!({"status": {"conditions": [{"type": "Programmed", "status": "True"}]}})),
        })
    }

    async fn list(&self, kind: Kind, _: &str, _: (&str, &str)) -> Result<Vec<Value>, ClusterError> {
        let case = self.case.lock().unwrap();
        Ok(match kind {
            Kind::ModelVersion => case.versions.iter().map(|v| serde_json::to_value(v).unwrap()).collect(),
            Kind::Deployment => case.children.deployments.clone(),
            Kind::Service => case.children.services.clone(),
            Kind::EndpointSlice => case.slices(),
            _ => vec![],
        })
    }
}

#[async_trait]
impl Cluster for Edited {
    async fn create(&self, object: &Object) -> Result<(), ClusterError> {
        self.case.lock().unwrap().perform(&[Action::Create(object.clone())]);
        Ok(())
    }

    async fn apply(&self, object: &Object) -> Result<(), ClusterError> {
        self.case.lock().unwrap().perform(&[Action::Apply(object.clone())]);
        Ok(())
    }

    async fn patch(&self, patch: &Patch) -> Result<(), ClusterError> {
        let mut case = self.case.lock().unwrap();
        if self.patches.fetch_add(1, Ordering::SeqCst) == 0 {
            let route = case.children.route.as_mut().unwrap();
            route["spec"]["rules"][1]["timeouts"] = json!({"request": "30s"});
            route["metadata"]["generation"] = 4.into();
        }
        if !patch.fits(case.children.route.as_ref().unwrap()) {
            return Err(ClusterError::Conflict);
        }
        case.perform(&[Action::Patch(patch.clone())]);
        Ok(())
    }

    async fn delete(&self, _: &Key, _: &str) -> Result<(), ClusterError> {
        Ok(())
    }

    async fn record_status(&self, _: &Key, _: &Value, status: Value) -> Result<(), ClusterError> {
        self.case.lock().unwrap().rollout.status = serde_json::from_value(status).unwrap();
        Ok(())
    }

    async fn publish(&self, _: &Value, _: &Note) {}
}

#[async_trait]
impl Prometheus for Edited {
    async fn query(&self, _: &Server, _: &Query, _: Timestamp) -> Answer {
        Answer::Vector(vec![])
    }
}

#[async_trait]
impl Probes for Edited {
    async fn send(&self, _: &[Probe]) -> Vec<ProbeAnswer> {
        vec![]
    }
}

impl Clock for Edited {
    fn now(&self) -> Timestamp {
        self.case.lock().unwrap().now
    }
}

#[tokio::test]
async fn an_edit_in_between_is_read_and_planned_for_and_never_overwritten() {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    case.rollout.spec.traffic =
        serde_json::from_value(json!({"attach": {"route": "shop", "rule": "model"}})).unwrap();
    let backend = json!({"name": "ads-v20261121-1", "port": 80, "weight": 1});
    case.children.route = Some(json!({
        "metadata": {"name": "shop", "namespace": "team-a", "uid": "uid-shop", "generation": 3},
        "spec": {"rules": [{"name": "model", "backendRefs": [backend]}, {"name": "site"}]},
    }));
    let world = Arc::new(Edited { case: Mutex::new(case), patches: AtomicU32::new(0) });
    let ports = Ports {
        alerts: AlertReceiver::Listens,
        cluster: world.clone(),
        prometheus: world.clone(),
        probes: world.clone(),
        clock: world.clone(),
        turns: Arc::new(Turns::new(1)),
        looks: Arc::default(),
    };
    reconcile(&ports, Machine::ModelRollout, cases::NAMESPACE, cases::NAME).await.unwrap();
    assert_eq!(world.patches.load(Ordering::SeqCst), 2);
    let case = world.case.lock().unwrap();
    let rules = &case.children.route.as_ref().unwrap()["spec"]["rules"];
    let weights: Vec<_> =
        rules[0]["backendRefs"].as_array().unwrap().iter().map(|backend| &backend["weight"]).collect();
    assert_eq!((weights, &rules[1]["timeouts"]["request"]), (vec![&json!(800), &json!(200)], &json!("30s")));
}
