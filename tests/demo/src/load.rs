//! Clients: an open loop of requests, and what came back for each of them.
//!
//! Requests go out on a clock, however long answers take, and none is ever sent twice. Every answer is kept, so that the
//! checks at the end can ask what clients saw between any two moments.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

/// Longest wait of a client for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one client saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// When the request was sent.
    pub(crate) at: Timestamp,
    /// The version that answered, if one said so.
    pub(crate) version: Option<String>,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered.
    Ok,
    /// Answered with an error that a server was told to inject, and says so.
    Injected,
    /// Any other error.
    Failed(String),
}

/// Clients at work.
pub(crate) struct Load {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Load {
    /// Starts sending `body` to `url`, `rate` times a second.
    pub(crate) fn start(url: String, body: String, rate: u32) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).build().context("no HTTP client")?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, mut stopped) = watch::channel(false);
        let sink = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut clock = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
            // A late tick is made up for: the loop is open.
            clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut requests = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    _ = clock.tick() => {
                        requests.spawn(send(client.clone(), url.clone(), body.clone(), Arc::clone(&sink)));
                        while requests.try_join_next().is_some() {}
                    }
                    _ = stopped.changed() => break,
                }
            }
            while requests.join_next().await.is_some() {}
        });
        Ok(Self { seen, stop, task })
    }

    /// How many answers there are so far.
    pub(crate) fn count(&self) -> usize {
        lock(&self.seen).len()
    }

    /// Stops sending, waits for the answers on their way, and gives all.
    pub(crate) async fn finish(self) -> Result<Vec<Seen>> {
        self.stop.send(true).context("the clients ended early")?;
        self.task.await.context("the clients failed")?;
        Ok(std::mem::take(&mut *lock(&self.seen)))
    }
}

fn lock(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "clients live in real time")]
async fn send(client: reqwest::Client, url: String, body: String, sink: Arc<Mutex<Vec<Seen>>>) {
    let at = Timestamp::now();
    let sent = client.post(url).header("content-type", "application/json").body(body).send().await;
    let (version, outcome) = match sent {
        Ok(response) => {
            let header = |name: &str| {
                response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
            };
            let (version, fault, status) =
                (header("x-anneal-version"), header("x-anneal-fault"), response.status());
            // The answer counts only when it has arrived whole.
            let outcome = match (response.bytes().await, fault) {
                (Ok(_), None) if status.is_success() => Outcome::Ok,
                (Ok(_), Some(_)) => Outcome::Injected,
                (Ok(body), None) => Outcome::Failed(format!("{status} {}", String::from_utf8_lossy(&body))),
                (Err(error), _) => Outcome::Failed(error.without_url().to_string()),
            };
            (version, outcome)
        }
        Err(error) => (None, Outcome::Failed(format!("{:?}", error.without_url()))),
    };
    lock(&sink).push(Seen { at, version, outcome });
}
