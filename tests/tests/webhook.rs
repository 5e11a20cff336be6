//! Notifications by webhook: what is sent, what is sent again and what is given up.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use anneal_core::plan::{Note, Severity};
use anneal_operator::{
    metrics::Metrics,
    notify::{self, Format, Notification, Outbox, Retry, Webhook},
};
use anneal_tests::cases;
use axum::{Router, http::StatusCode, routing::post};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A receiver that answers with these codes in turn, and then with 200.
struct Site {
    outbox: Outbox,
    metrics: Metrics,
    seen: Arc<Mutex<Vec<Value>>>,
    folder: TempDir,
    stop: CancellationToken,
}

impl Site {
    async fn new(format: Format, codes: &[u16]) -> Self {
        let seen = Arc::new(Mutex::new(vec![]));
        let take = {
            let (seen, codes) = (seen.clone(), codes.to_vec());
            move |body: String| async move {
                let mut seen = seen.lock().unwrap();
                let code = codes.get(seen.len()).copied().unwrap_or(200);
                seen.push(serde_json::from_str::<Value>(&body).unwrap());
                // A receiver that asks for a day does not get it.
                (StatusCode::from_u16(code).unwrap(), [("retry-after", "86400")])
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook\n", listener.local_addr().unwrap());
        let app = Router::new().route("/hook", post(take));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let (metrics, folder, stop) =
            (Metrics::new().unwrap(), tempfile::tempdir().unwrap(), CancellationToken::new());
        fs::write(folder.path().join("url"), url).unwrap();
        let retry = Retry { first: Duration::from_millis(1), longest: Duration::from_millis(4), tries: 4 };
        let webhook = Webhook::new(folder.path().join("url"), format, retry, metrics.clone()).unwrap();
        let (outbox, waiting) = notify::outbox(metrics.clone());
        tokio::spawn(notify::deliver(waiting, webhook, stop.clone()));
        Self { outbox, metrics, seen, folder, stop }
    }

    fn counted(&self, outcome: &str) -> u64 {
        self.metrics.notifications.with_label_values(&[outcome]).get()
    }

    /// Waits until so many have ended.
    async fn ended(&self, count: u64) {
        for _ in 0..600 {
            if ["sent", "refused", "gave_up"].iter().map(|outcome| self.counted(outcome)).sum::<u64>()
                == count
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{count} notifications did not end in a minute");
    }

    fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn notification(reason: &str) -> Notification {
    let object =
        json!({"kind": "ModelRollout", "metadata": {"namespace": "team-a", "name": "ads", "uid": "uid-own"}});
    let message = "error_rate of v2 is 0.05, and <= 0.01 is asked for.".to_owned();
    Notification::new(
        &object,
        &Note { severity: Severity::Warning, reason: reason.to_owned(), message },
        cases::now(),
    )
}

#[tokio::test]
async fn what_fails_is_sent_again_as_it_was_and_in_its_order() {
    let site = Site::new(Format::Json, &[503, 429, 500]).await;
    for reason in ["ThresholdBreached", "Preparing"] {
        site.outbox.put(notification(reason));
    }
    site.ended(2).await;
    let seen = site.seen();
    assert_eq!(seen.len(), 5);
    assert!(seen[..4].iter().all(|one| *one == seen[0]));
    assert_eq!(
        seen[0],
        json!({"id": "uid-own/2026-11-21T12:00:00Z", "at": "2026-11-21T12:00:00Z", "kind": "ModelRollout",
        "namespace": "team-a", "name": "ads", "severity": "Warning", "reason": "ThresholdBreached",
        "message": "error_rate of v2 is 0.05, and <= 0.01 is asked for."})
    );
    assert_eq!((&seen[4]["reason"], site.counted("sent")), (&json!("Preparing"), 2));
}

#[tokio::test]
async fn what_is_refused_or_fails_too_often_is_given_up_and_the_next_one_is_sent() {
    let site = Site::new(Format::Json, &[404, 500, 500, 500, 500]).await;
    for reason in ["A", "B", "C"] {
        site.outbox.put(notification(reason));
    }
    site.ended(3).await;
    assert_eq!((site.counted("refused"), site.counted("gave_up"), site.counted("sent")), (1, 1, 1));
    assert_eq!(site.seen().last().unwrap()["reason"], "C");
    assert_eq!(site.seen().len(), 6);
}

#[tokio::test]
async fn slack_gets_one_line_in_which_nothing_has_another_meaning() {
    let site = Site::new(Format::Slack, &[]).await;
    site.outbox.put(notification("ThresholdBreached"));
    site.ended(1).await;
    let text = ":warning: *ModelRollout team-a/ads* ThresholdBreached: error_rate of v2 is 0.05, and &lt;= 0.01 is asked for.";
    assert_eq!(site.seen(), [json!({"text": text})]);
}

#[tokio::test]
async fn a_url_that_is_missing_is_waited_for_no_longer_than_a_receiver() {
    let site = Site::new(Format::Json, &[]).await;
    fs::remove_file(site.folder.path().join("url")).unwrap();
    site.outbox.put(notification("A"));
    site.ended(1).await;
    assert_eq!((site.counted("gave_up"), site.seen().len()), (1, 0));
}

#[tokio::test]
async fn what_nobody_takes_is_dropped_and_counted_and_nothing_waits_for_it() {
    let metrics = Metrics::new().unwrap();
    let (outbox, waiting) = notify::outbox(metrics.clone());
    for _ in 0..1003 {
        outbox.put(notification("A"));
    }
    assert_eq!((waiting.len(), metrics.notifications.with_label_values(&["dropped"]).get()), (1000, 3));
}
