//! Alertmanager's way in, over HTTP: who may send, what is read, and which rollouts are written.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::{
    fs,
    sync::{Arc, Mutex},
};

use anneal_crds::names;
use anneal_operator::{
    alerts::{self, Receiver, Targets},
    metrics::Metrics,
    ports::ClusterError,
};
use anneal_tests::cases;
use async_trait::async_trait;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Rollouts on pages of one, of which the first writes may fail.
#[derive(Default)]
struct Rollouts {
    objects: Mutex<Vec<Value>>,
    failures: Mutex<Vec<ClusterError>>,
}

#[async_trait]
impl Targets for Rollouts {
    async fn page(&self, from: Option<&str>) -> Result<(Vec<Value>, Option<String>), ClusterError> {
        let at: usize = from.map_or(0, |from| from.parse().unwrap());
        let objects = self.objects.lock().unwrap();
        let next = (at + 1 < objects.len()).then(|| (at + 1).to_string());
        Ok((objects.get(at).cloned().into_iter().collect(), next))
    }

    async fn annotate(&self, object: &Value, name: &str, value: &str) -> Result<(), ClusterError> {
        if let Some(error) = self.failures.lock().unwrap().pop() {
            return Err(error);
        }
        let mut objects = self.objects.lock().unwrap();
        let same = |other: &&mut Value| other["metadata"]["name"] == object["metadata"]["name"];
        objects.iter_mut().find(same).unwrap()["metadata"]["annotations"][name] = value.into();
        Ok(())
    }
}

/// A receiver on a port of its own, with the token `right`.
struct Site {
    url: String,
    rollouts: Arc<Rollouts>,
    metrics: Metrics,
    folder: TempDir,
    stop: CancellationToken,
}

impl Site {
    async fn new(objects: Vec<Value>) -> Self {
        let rollouts = Arc::new(Rollouts { objects: Mutex::new(objects), failures: Mutex::default() });
        let (metrics, folder, stop) =
            (Metrics::new().unwrap(), tempfile::tempdir().unwrap(), CancellationToken::new());
        let token = folder.path().join("token");
        fs::write(&token, "right\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/alerts", listener.local_addr().unwrap());
        let receiver = Receiver::new(rollouts.clone(), token, metrics.clone());
        tokio::spawn(alerts::serve(listener, receiver, stop.clone()));
        Self { url, rollouts, metrics, folder, stop }
    }

    async fn send(&self, authorization: &str, body: String) -> (StatusCode, String) {
        let request =
            reqwest::Client::new().post(&self.url).header("authorization", authorization).body(body);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    fn aborts(&self) -> Vec<Value> {
        let objects = self.rollouts.objects.lock().unwrap();
        objects
            .iter()
            .map(|object| object["metadata"]["annotations"][names::ANNOTATION_ABORT].clone())
            .collect()
    }

    fn counted(&self, outcome: &str) -> u64 {
        self.metrics.alert_messages.with_label_values(&[outcome]).get()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A rollout in a canary step that began a minute ago.
fn rollout(name: &str, selector: &str) -> Value {
    let mut object = serde_json::to_value(cases::rollout(cases::moving("Canary", 20)).unwrap()).unwrap();
    object["metadata"]["name"] = name.into();
    object["metadata"]["annotations"] = json!({});
    object["spec"]["strategy"]["abortOnAlerts"] = json!([selector]);
    object
}

fn message(status: &str, alertname: &str) -> String {
    json!({"version": "4", "groupKey": "{}", "status": status, "receiver": "anneal", "alerts": [{
        "status": status, "labels": {"alertname": alertname, "namespace": "team-a"}, "annotations": {},
        "startsAt": cases::ago(10), "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "c7f6",
    }]})
    .to_string()
}

fn three() -> Vec<Value> {
    vec![
        rollout("ads", r#"alertname="HighErrors""#),
        rollout("cars", r#"alertname="Other""#),
        rollout("feed", r#"alertname=~"High.*",namespace="team-a""#),
    ]
}

const WHY: &str = "v20261121.2: alert HighErrors fires";

#[tokio::test]
async fn a_firing_alert_stops_the_rollouts_that_declare_it_and_no_other() {
    let site = Site::new(three()).await;
    assert_eq!(site.send("Bearer right", message("resolved", "HighErrors")).await.0, StatusCode::OK);
    assert_eq!(site.aborts(), [Value::Null, Value::Null, Value::Null]);
    let (status, said) = site.send("Bearer right", message("firing", "HighErrors")).await;
    assert_eq!((status, said.as_str()), (StatusCode::OK, "stopped: team-a/ads team-a/feed\n"));
    assert_eq!(site.aborts(), [json!(WHY), Value::Null, json!(WHY)]);
    // Alertmanager sends again what still fires.
    assert_eq!(site.send("Bearer right", message("firing", "HighErrors")).await.1, "stopped: \n");
    assert_eq!(site.counted("ok"), 3);
}

#[tokio::test]
async fn without_the_token_nothing_is_read() {
    let site = Site::new(three()).await;
    for authorization in
        ["", "Bearer", "Bearer ", "Bearer wrong", "Bearer righ", "Bearer right2", "Basic right", "right"]
    {
        let (status, _) = site.send(authorization, message("firing", "HighErrors")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{authorization}");
    }
    assert_eq!(site.aborts(), [Value::Null, Value::Null, Value::Null]);
    assert_eq!(site.counted("unauthorized"), 8);
}

#[tokio::test]
async fn a_token_that_changes_counts_at_once_and_none_lets_nobody_in() {
    let site = Site::new(three()).await;
    let token = site.folder.path().join("token");
    fs::write(&token, "new").unwrap();
    assert_eq!(site.send("Bearer right", message("firing", "Other")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(site.send("Bearer new", message("firing", "Other")).await.0, StatusCode::OK);
    fs::write(&token, " \n").unwrap();
    assert_eq!(site.send("Bearer ", message("firing", "Other")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    fs::remove_file(&token).unwrap();
    assert_eq!(site.send("Bearer new", message("firing", "Other")).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_not_asked_for_again() {
    let site = Site::new(three()).await;
    let long = "x".repeat((1 << 20) + 1);
    for (body, status) in [
        ("{}".to_owned(), StatusCode::BAD_REQUEST),
        (r#"{"version":"3"}"#.to_owned(), StatusCode::BAD_REQUEST),
        (long, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(site.send("Bearer right", body).await.0, status);
    }
    assert_eq!(reqwest::get(&site.url).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(site.counted("malformed"), 3);
}

#[tokio::test]
async fn a_rollout_that_changed_is_read_again_and_one_that_cannot_be_written_stops_no_other() {
    let site = Site::new(three()).await;
    site.rollouts.failures.lock().unwrap().push(ClusterError::Conflict);
    assert_eq!(site.send("Bearer right", message("firing", "HighErrors")).await.0, StatusCode::OK);
    assert_eq!(site.aborts(), [json!(WHY), Value::Null, json!(WHY)]);

    let site = Site::new(three()).await;
    let lost = ClusterError::Transient { verb: "patch", what: "it".into(), message: "timeout".into() };
    site.rollouts.failures.lock().unwrap().push(lost);
    let (status, _) = site.send("Bearer right", message("firing", "HighErrors")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "Alertmanager sends it again");
    assert_eq!(site.aborts(), [Value::Null, Value::Null, json!(WHY)]);
    assert_eq!(site.send("Bearer right", message("firing", "HighErrors")).await.0, StatusCode::OK);
    assert_eq!(site.aborts(), [json!(WHY), Value::Null, json!(WHY)]);
}

#[tokio::test]
async fn a_rollout_that_cannot_be_read_stops_no_other() {
    let mut objects = three();
    objects[0]["spec"] = json!({"model": 7});
    objects[1]["spec"]["strategy"]["abortOnAlerts"] = json!(["severity=page"]);
    let site = Site::new(objects).await;
    assert_eq!(site.send("Bearer right", message("firing", "HighErrors")).await.0, StatusCode::OK);
    assert_eq!(site.aborts(), [Value::Null, Value::Null, json!(WHY)]);
}
