//! Clients: an open loop of requests, and what came back for each of them.
//!
//! Started by the scenario once something serves. Requests go out on a clock, however long answers take, and none is ever
//! sent twice. Every answer is kept, so that the checks at the end can ask what clients saw between any two moments.

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

/// How many answers there are so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Arc<Mutex<Vec<Seen>>>);

impl Answers {
    /// Their number.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clients at work.
pub(crate) struct Load {
    answers: Answers,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Load {
    /// Starts sending `body` to `url`, `rate` times a second.
    pub(crate) fn start(url: String, body: String, rate: u32) -> Result<Self> {
        let client = client()?;
        let answers = Answers::default();
        let (stop, mut stopped) = watch::channel(false);
        let sink = answers.clone();
        let task = tokio::spawn(async move {
            let mut clock = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
            // A late tick is made up for: the loop is open.
            clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut requests = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    _ = clock.tick() => {
                        requests.spawn(send(client.clone(), url.clone(), body.clone(), sink.clone()));
                        while requests.try_join_next().is_some() {}
                    }
                    _ = stopped.changed() => break,
                }
            }
            while requests.join_next().await.is_some() {}
        });
        Ok(Self { answers, stop, task })
    }

    /// The answers so far.
    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Stops sending, waits for the answers on their way, and gives all.
    pub(crate) async fn finish(self) -> Result<Vec<Seen>> {
        self.stop.send(true).context("the clients ended early")?;
        self.task.await.context("the clients failed")?;
        Ok(std::mem::take(&mut *self.answers.lock()))
    }
}

/// A client that shows every failure: what is sent again by itself would hide one.
fn client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(PATIENCE)
        // Requests that a server refuses are sent again by default.
        .retry(reqwest::retry::never())
        // A request that waits on a kept connection is sent again when the server closes it, and only new connections
        // are exempt. So every request gets a new one, which is a stricter test of the way in as well.
        .pool_max_idle_per_host(0)
        // A redirect would be one more request, and a proxy may do all of the above.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .context("the HTTP client cannot be made; look at the machine's TLS certificates")
}

#[expect(clippy::disallowed_methods, reason = "clients live in real time")]
async fn send(client: reqwest::Client, url: String, body: String, sink: Answers) {
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
    sink.lock().push(Seen { at, version, outcome });
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Reads one request with a body of two bytes; none when the client has closed the connection.
    fn request(stream: &mut TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).unwrap() == 0 {
                return None;
            }
        }
        reader.read_exact(&mut [0; 2]).unwrap();
        Some(())
    }

    /// Sends so many requests, one after the other, to a server that answers `head` and keeps every connection open for
    /// more. Returns what clients saw and how many requests each connection brought.
    async fn exchange(requests: usize, head: &'static str) -> (Vec<Seen>, Vec<usize>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}/");
        let server = std::thread::spawn(move || {
            let serve = |stream: std::io::Result<TcpStream>| {
                let mut stream = stream.unwrap();
                let mut count = 0;
                while request(&mut stream).is_some() {
                    count += 1;
                    stream.write_all(head.as_bytes()).unwrap();
                    if head.is_empty() {
                        break;
                    }
                }
                count
            };
            listener.incoming().take(requests).map(serve).collect()
        });
        let (client, answers) = (client().unwrap(), Answers::default());
        for _ in 0..requests {
            send(client.clone(), url.clone(), "{}".to_owned(), answers.clone()).await;
        }
        drop(client);
        // If fewer connections were made, the server waits for more.
        for _ in 0..requests {
            let _ = TcpStream::connect(address);
        }
        let connections = server.join().unwrap();
        (std::mem::take(&mut *answers.lock()), connections)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_connection_is_used_twice_so_nothing_can_be_sent_again() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-anneal-version: v1\r\n\r\n";
        let (seen, connections) = exchange(3, ok).await;
        assert_eq!(connections, [1, 1, 1]);
        for answer in seen {
            assert_eq!((answer.outcome, answer.version.as_deref()), (Outcome::Ok, Some("v1")));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_that_is_closed_without_an_answer_is_a_failure() {
        let (seen, connections) = exchange(2, "").await;
        assert_eq!(connections, [1, 1]);
        assert!(seen.iter().all(|answer| matches!(answer.outcome, Outcome::Failed(_))), "{seen:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_redirect_is_an_error_and_not_followed() {
        let away = "HTTP/1.1 307 Temporary Redirect\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n";
        let (seen, connections) = exchange(1, away).await;
        assert_eq!(connections, [1]);
        assert!(matches!(&seen[0].outcome, Outcome::Failed(why) if why.starts_with("307")), "{seen:?}");
    }
}
