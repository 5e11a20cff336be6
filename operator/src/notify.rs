//! Notifications: every transition of a run or rollout, to a webhook of Slack or of your own.
//!
//! Fed by [`crate::metered`] with whatever is published as an event. It is news and no record: what waits in memory when
//! the process ends is lost, and a receiver that is away for longer than the retries misses some. Nothing waits for it.

use std::{path::PathBuf, time::Duration};

use anneal_core::plan::{Note, Severity};
use anneal_crds::common::shorten;
use jiff::Timestamp;
use reqwest::{StatusCode, header::RETRY_AFTER};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Most notifications that wait: half a megabyte.
const QUEUE: usize = 1000;
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest text for Slack, in bytes, which it shows without folding.
const SLACK_LIMIT: usize = 3000;

/// What the receiver understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Slack's incoming webhooks, and others that take a `text`.
    Slack,
    /// A [`Notification`] as JSON.
    Json,
}

/// One transition. The `id` is the same for every try, so that a receiver can tell a repetition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notification {
    id: String,
    at: Timestamp,
    kind: String,
    namespace: String,
    name: String,
    severity: &'static str,
    reason: String,
    message: String,
}

impl Notification {
    /// A note about `object`.
    pub fn new(object: &Value, note: &Note, at: Timestamp) -> Self {
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            id: format!("{}/{at}", text(&metadata["uid"])),
            at,
            kind: text(&object["kind"]),
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            severity: match note.severity {
                Severity::Normal => "Normal",
                Severity::Warning => "Warning",
            },
            reason: note.reason.clone(),
            message: note.message.clone(),
        }
    }

    fn body(&self, format: Format) -> Value {
        match format {
            Format::Json => json!(self),
            Format::Slack => {
                let sign = if self.severity == "Warning" { ":warning: " } else { "" };
                let Self { kind, namespace, name, reason, message, .. } = self;
                let text = format!("{sign}*{kind} {namespace}/{name}* {reason}: {message}");
                // The three characters that Slack gives a meaning.
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                json!({"text": shorten(&text, SLACK_LIMIT)})
            }
        }
    }
}

/// Where notifications are put; it never waits.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: mpsc::Sender<Notification>,
    metrics: Metrics,
}

/// An outbox, and what [`deliver`] takes from it.
pub fn outbox(metrics: Metrics) -> (Outbox, mpsc::Receiver<Notification>) {
    let (queue, waiting) = mpsc::channel(QUEUE);
    (Outbox { queue, metrics }, waiting)
}

impl Outbox {
    /// Puts one in; drops it, and counts that, when too many wait.
    pub fn put(&self, notification: Notification) {
        if let Err(error) = self.queue.try_send(notification) {
            tracing::warn!(%error, "a notification was dropped");
            self.metrics.notifications.with_label_values(&["dropped"]).inc();
        }
    }
}

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Wait after the first try; each further one is twice as long.
    pub first: Duration,
    /// Longest wait, also when the receiver asks for a longer one.
    pub longest: Duration,
    /// Most tries.
    pub tries: u32,
}

impl Default for Retry {
    /// Ten tries within five minutes.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(60), tries: 10 }
    }
}

/// A webhook.
#[derive(Clone, Debug)]
pub struct Webhook {
    client: reqwest::Client,
    /// Read for every try, so that a Secret may change. Slack's URL is one.
    url: PathBuf,
    format: Format,
    retry: Retry,
    metrics: Metrics,
}

/// How a try ended.
enum Tried {
    Sent,
    /// It would be refused again.
    Refused(StatusCode),
    /// It may be taken after this time, if the receiver said so.
    Later(String, Option<Duration>),
}

impl Webhook {
    /// The webhook whose URL is in the file `url`; it follows no redirects.
    pub fn new(url: PathBuf, format: Format, retry: Retry, metrics: Metrics) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, url, format, retry, metrics })
    }

    /// Sends one until it is taken or given up; what became of it.
    async fn send(&self, notification: &Notification) -> &'static str {
        let body = notification.body(self.format);
        let mut wait = self.retry.first;
        for _ in 1..self.retry.tries {
            match self.attempt(&body).await {
                Tried::Later(why, asked) => {
                    tracing::debug!(why, "a notification is tried again");
                    sleep(asked.unwrap_or(wait).min(self.retry.longest)).await;
                    wait = wait.saturating_mul(2);
                }
                ended @ (Tried::Sent | Tried::Refused(_)) => return self.ended(ended, notification),
            }
        }
        let last = self.attempt(&body).await;
        self.ended(last, notification)
    }

    fn ended(&self, tried: Tried, notification: &Notification) -> &'static str {
        let id = &notification.id;
        match tried {
            Tried::Sent => "sent",
            Tried::Refused(status) => {
                tracing::warn!(%status, id, "the webhook refused a notification; check its URL and format");
                "refused"
            }
            Tried::Later(why, _) => {
                tracing::warn!(why, id, "a notification was given up");
                "gave_up"
            }
        }
    }

    async fn attempt(&self, body: &Value) -> Tried {
        let url = match std::fs::read_to_string(&self.url) {
            Ok(url) => url,
            Err(error) => return Tried::Later(format!("the URL's file cannot be read: {error}"), None),
        };
        let answer = match self.client.post(url.trim()).json(body).send().await {
            Ok(answer) => answer,
            // The URL is a secret.
            Err(error) => return Tried::Later(error.without_url().to_string(), None),
        };
        let status = answer.status();
        if status.is_success() {
            return Tried::Sent;
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Tried::Later(format!("status {status}"), asked.map(Duration::from_secs));
        }
        Tried::Refused(status)
    }
}

/// Sends what is put into the outbox, one after the other, until `stop`.
pub async fn deliver(mut waiting: mpsc::Receiver<Notification>, webhook: Webhook, stop: CancellationToken) {
    let all = async {
        while let Some(notification) = waiting.recv().await {
            let outcome = webhook.send(&notification).await;
            webhook.metrics.notifications.with_label_values(&[outcome]).inc();
        }
    };
    tokio::select! {
        () = all => {}
        () = stop.cancelled() => {}
    }
}
