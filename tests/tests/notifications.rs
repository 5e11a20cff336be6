//! From an alert to Slack, to a mailbox and to a rollout: a real Alertmanager with the configuration of `examples`, a real
//! SMTP server, a stand-in for Slack that fails at first, and the operator's receiver.
//!
//! Runs in `cargo xtask test`, which says where Alertmanager is in `ANNEAL_TEST_ALERTMANAGER`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anneal_crds::names;
use anneal_operator::{
    alerts::{self, Receiver, Targets},
    metrics::Metrics,
    ports::ClusterError,
};
use anneal_tests::{
    cases,
    programs::{Program, free_address, until},
};
use async_trait::async_trait;
use axum::{Router, http::StatusCode, routing::post};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// One rollout in a canary step, and what was written on it.
struct One(Mutex<Value>);

#[async_trait]
impl Targets for One {
    async fn page(&self, _: Option<&str>) -> Result<(Vec<Value>, Option<String>), ClusterError> {
        Ok((vec![self.0.lock().unwrap().clone()], None))
    }

    async fn annotate(&self, _: &Value, name: &str, value: &str) -> Result<(), ClusterError> {
        self.0.lock().unwrap()["metadata"]["annotations"][name] = value.into();
        Ok(())
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Takes what Slack would; it is out of order the first time that it gets each message.
async fn slack() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(vec![]));
    let take = {
        let seen = seen.clone();
        move |body: String| async move {
            let mut seen = seen.lock().unwrap();
            let first = !seen.contains(&body);
            seen.push(body);
            if first { (StatusCode::BAD_GATEWAY, "") } else { (StatusCode::OK, "ok") }
        }
    };
    let (listener, address) = listener().await;
    let app = Router::new().route("/services/T/B/X", post(take));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, seen)
}

/// Waits for it.
async fn there(what: &str, mut look: impl FnMut() -> Option<String>) -> String {
    until(async || look()).await.unwrap_or_else(|| panic!("no {what} in a minute"))
}

/// A rollout whose step began a minute ago by the machine's clock, which Alertmanager has too.
fn rollout(now: Timestamp) -> Value {
    let mut status = cases::moving("Canary", 20);
    status["stepStartedAt"] = (now - SignedDuration::from_secs(60)).to_string().into();
    let mut rollout = serde_json::to_value(cases::rollout(status).unwrap()).unwrap();
    rollout["spec"]["strategy"]["abortOnAlerts"] = json!([r#"alertname="CheckoutErrors",shop="main""#]);
    rollout
}

/// The example's configuration, with the addresses of this test.
fn configure(folder: &Path, slack: SocketAddr, mail: &str, operator: SocketAddr) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut text = fs::read_to_string(root.join("examples/alertmanager.yaml")).unwrap();
    let file = |name: &str, content: String| {
        fs::write(folder.join(name), content).unwrap();
        folder.join(name).display().to_string()
    };
    for (theirs, ours) in [
        ("smtp.example.com:587", mail.to_owned()),
        ("smtp_require_tls: true", "smtp_require_tls: false".to_owned()),
        ("group_wait: 5s", "group_wait: 1s".to_owned()),
        ("/etc/alertmanager/secrets/slack/url", file("slack", format!("http://{slack}/services/T/B/X"))),
        ("/etc/alertmanager/secrets/anneal-alerts/token", file("token", "right".to_owned())),
        ("http://anneal.anneal-system:8082/alerts", format!("http://{operator}/alerts")),
    ] {
        assert!(text.contains(theirs), "{theirs}");
        text = text.replace(theirs, &ours);
    }
    let path = folder.join("alertmanager.yaml");
    fs::write(&path, text).unwrap();
    path
}

/// The mails in a Maildir.
fn mails(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("new")).into_iter().flatten();
    entries.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok()).collect()
}

async fn fire(alertmanager: &str, alerts: Value) {
    let client = reqwest::Client::new();
    let url = format!("http://{alertmanager}/api/v2/alerts");
    for _ in 0..300 {
        match client
            .post(&url)
            .body(alerts.to_string())
            .header("content-type", "application/json")
            .send()
            .await
        {
            Ok(answer) if answer.status().is_success() => return,
            Ok(answer) => panic!("{}", answer.text().await.unwrap()),
            // It is not up yet.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("Alertmanager does not answer");
}

#[tokio::test]
#[ignore = "needs Alertmanager and an SMTP server; cargo xtask test runs it"]
async fn an_alert_reaches_slack_a_mailbox_and_the_rollout_that_declares_it() {
    let folder = tempfile::tempdir().unwrap();
    let now = anneal_operator::clock::SystemClock;
    let now = anneal_operator::ports::Clock::now(&now);
    let (slack, posts) = slack().await;
    let (mail, maildir) = (free_address().await.unwrap(), folder.path().join("mail"));
    let _mail = Program::start(
        "/usr/bin/python3",
        &["-m", "aiosmtpd", "-n", "-l", &mail, "-c", "aiosmtpd.handlers.Mailbox", maildir.to_str().unwrap()],
    )
    .unwrap();
    let rollout = Arc::new(One(Mutex::new(rollout(now))));
    let (listener, operator) = listener().await;
    let config = configure(folder.path(), slack, &mail, operator);
    let receiver = Receiver::new(rollout.clone(), folder.path().join("token"), Metrics::new().unwrap());
    tokio::spawn(alerts::serve(listener, receiver, CancellationToken::new()));
    let alertmanager = free_address().await.unwrap();
    let _alertmanager = Program::start(
        std::env::var_os("ANNEAL_TEST_ALERTMANAGER").unwrap(),
        &[
            &format!("--config.file={}", config.display()),
            &format!("--storage.path={}", folder.path().join("data").display()),
            &format!("--web.listen-address={alertmanager}"),
            "--cluster.listen-address=",
            "--log.level=error",
        ],
    )
    .unwrap();
    fire(&alertmanager, json!([
        {"labels": {"alertname": "AnnealRolloutRolledBack", "severity": "warning", "namespace": "team-a", "rollout": "ads"},
            "annotations": {"summary": "Rollout team-a/ads took v2 back", "description": "v1 answers all requests.",
                "runbook_url": "https://anneal.dev/docs/runbook.md#annealrolloutrolledback"}},
        {"labels": {"alertname": "CheckoutErrors", "severity": "page", "shop": "main"}, "annotations": {"summary": "Nobody can pay"}},
        {"labels": {"alertname": "CheckoutErrors", "severity": "info", "shop": "other"}, "annotations": {}},
    ])).await;

    let post = there("message for Slack", || {
        let posts = posts.lock().unwrap();
        posts.iter().filter(|post| post.contains("AnnealRolloutRolledBack")).nth(1).cloned()
    });
    let post: Value = serde_json::from_str(&post.await).unwrap();
    assert_eq!(post["channel"], "#models");
    assert_eq!(post["attachments"][0]["title"], "[firing] AnnealRolloutRolledBack");
    let text = post["attachments"][0]["text"].as_str().unwrap();
    assert!(
        text.contains("took v2 back: v1 answers all requests. https://anneal.dev/docs/runbook.md#"),
        "{text}"
    );

    let mail = there("mail", || mails(&maildir).into_iter().find(|mail| mail.contains("took v2 back"))).await;
    assert!(
        mail.contains("models-oncall@example.com") && mail.contains("Subject: [firing] Rollout team-a/ads"),
        "{mail}"
    );

    let why = there("abort", || {
        rollout.0.lock().unwrap()["metadata"]["annotations"][names::ANNOTATION_ABORT]
            .as_str()
            .map(str::to_owned)
    });
    assert_eq!(why.await, "v20261121.2: alert CheckoutErrors fires");
}
