//! A lane: the connections to one server on behalf of one namespace, which no other server can fill.
//!
//! Made by `lanes`, one for each namespace, origin, credential and certificate. A few questions are on their way at once, a
//! bounded number waits, and a server that hangs is left alone for a while, with one question at a time to see whether it
//! is back.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anneal_core::rollout::Answer;
use reqwest::{StatusCode, header::AUTHORIZATION, redirect};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    Question,
    body::{self, Unread},
};
use crate::server::Tls;

/// Questions that are on their way at once.
const ON_THEIR_WAY: usize = 4;
/// Questions that wait or are on their way: what a hundred rollouts with a few metrics ask in one moment.
const PLACES: usize = 512;
/// Questions in a row without an answer in time, after which the server is taken to hang.
const HANGS: u32 = 3;
/// How long a server that hangs is left alone.
const PAUSE: Duration = Duration::from_secs(10);
/// Most bytes of an answer, uncompressed: a server that sends more must not take the operator's memory.
const MAX_BYTES: usize = 8 << 20;
/// How long a connection may wait for the next question.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its certificates.
    #[error(
        "its certificates cannot be used: {0}; put PEM into the Secrets and ConfigMaps of spec.prometheus.tls"
    )]
    Certificates(String),
    /// Too many servers.
    #[error("the rollouts of this namespace ask too many servers at once; let them share one")]
    TooManyServers,
    /// Too many questions.
    #[error("{PLACES} questions wait for this server already; it is too slow for them")]
    Crowded,
    /// It hangs.
    #[error("it gave no answer in time {HANGS} times in a row; it is asked again every {} s", PAUSE.as_secs())]
    Hanging,
    /// Too late.
    #[error("no answer within {0:?}; look after the server, or raise spec.prometheus.timeout")]
    TimedOut(Duration),
    /// No connection, or a broken one.
    #[error("{0}; check spec.prometheus.url and that the server runs")]
    Connection(String),
    /// A redirect.
    #[error("it answered {0}, and redirects are not followed; write the address that it leads to")]
    Redirect(StatusCode),
    /// Credentials.
    #[error("it answered {0}; check spec.prometheus.auth and the Secret that it names")]
    Denied(StatusCode),
    /// Another status.
    #[error("it answered {0}: {1}")]
    Status(StatusCode, String),
    /// Too long.
    #[error("its answer is longer than {MAX_BYTES} bytes; use narrower selectors")]
    TooLong,
    /// Not an answer.
    #[error(transparent)]
    Unread(#[from] Unread),
}

/// The connections to one server on behalf of one namespace.
pub struct Lane {
    client: reqwest::Client,
    places: Semaphore,
    on_their_way: Semaphore,
    health: Mutex<Health>,
}

impl Lane {
    /// A lane to a server with these certificates.
    pub fn new(tls: &Tls, is_encrypted: bool) -> Result<Self, Failure> {
        Ok(Self {
            client: client(tls, is_encrypted)?,
            places: Semaphore::new(PLACES),
            on_their_way: Semaphore::new(ON_THEIR_WAY),
            health: Mutex::default(),
        })
    }

    /// The answer, within the server's timeout whatever else is going on.
    pub async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        let timeout = question.server.timeout;
        let asked_at = Instant::now();
        let admitted = self.health(|health| health.admit(asked_at, timeout))?;
        let _place = self.places.try_acquire().map_err(|_| Failure::Crowded)?;
        let deadline = asked_at + timeout;
        // Who was not even sent says nothing about the server.
        let Ok(Ok(_turn)) = timeout_at(deadline, self.on_their_way.acquire()).await else {
            return Err(Failure::TimedOut(timeout));
        };
        // What those before it found out while it waited counts for it too.
        if admitted == Admitted::AsUsual && self.health(|health| health.again_at.is_some()) {
            return Err(Failure::Hanging);
        }
        let answer = timeout_at(deadline, self.send(question)).await;
        self.health(|health| match &answer {
            Ok(_) => health.answered(),
            Err(_) => health.hung(Instant::now()),
        });
        answer.unwrap_or(Err(Failure::TimedOut(timeout)))
    }

    async fn send(&self, question: &Question) -> Result<Answer, Failure> {
        let server = &question.server;
        let url = format!("{}/api/v1/query", server.url.as_str().trim_end_matches('/'));
        let time = format!("{}.{:03}", question.at.div_euclid(1000), question.at.rem_euclid(1000));
        let timeout = format!("{}ms", server.timeout.as_millis());
        let parameters = [("query", question.expression.as_str()), ("time", &time), ("timeout", &timeout)];
        let mut request = self.client.get(url).query(&parameters);
        for (name, value) in &server.headers {
            request = request.header(name, value);
        }
        if let Some(credential) = &server.credential {
            request = request.header(AUTHORIZATION, credential.header());
        }
        let response = request.send().await.map_err(connection)?;
        let status = response.status();
        let body = read(response).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::Denied(status)),
            status if status.is_redirection() => Err(Failure::Redirect(status)),
            status if status.is_success() => Ok(body::parse(question.shape, &body?)?),
            status => {
                let reason = body::reason(&body?);
                Err(Failure::Status(status, reason.unwrap_or_else(|| "no reason given".to_owned())))
            }
        }
    }

    fn health<T>(&self, look: impl FnOnce(&mut Health) -> T) -> T {
        look(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A client that goes where the URL says and nowhere else: no redirects, no proxy of the environment, no cookies.
fn client(tls: &Tls, is_encrypted: bool) -> Result<reqwest::Client, Failure> {
    let unusable = |error: &reqwest::Error| Failure::Certificates(said(error));
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(ON_THEIR_WAY)
        .pool_idle_timeout(IDLE_CONNECTION);
    if let Some(ca) = &tls.ca {
        let authorities = reqwest::Certificate::from_pem_bundle(ca).map_err(|error| unusable(&error))?;
        if authorities.is_empty() {
            return Err(Failure::Certificates("no certificate in it".to_owned()));
        }
        builder = builder.tls_certs_only(authorities);
    } else if !is_encrypted {
        // The public authorities are many, and nobody asks for them.
        builder = builder.tls_certs_only([]);
    }
    if let Some(identity) = &tls.identity {
        // A parser's words may quote what it has read, and this is a key.
        let identity = reqwest::Identity::from_pem(identity.reveal()).map_err(|_| {
            Failure::Certificates("tls.crt and tls.key are not a certificate and its key".into())
        })?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| unusable(&error))
}

/// The body, as far as it may go.
async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(connection)? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(Failure::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn connection(error: reqwest::Error) -> Failure {
    Failure::Connection(said(&error.without_url()))
}

/// An error with its causes, because reqwest's own words name none.
fn said(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

/// Why a question may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admitted {
    /// All is well.
    AsUsual,
    /// To find out whether the server is back.
    AsProbe,
}

/// Whether a server hangs. Refusals and errors are answers: they cost nobody any time.
#[derive(Debug, Default)]
struct Health {
    hangs: u32,
    /// When it may be asked again; none while all is well.
    again_at: Option<Instant>,
}

impl Health {
    fn admit(&mut self, now: Instant, timeout: Duration) -> Result<Admitted, Failure> {
        match self.again_at {
            None => Ok(Admitted::AsUsual),
            Some(again_at) if now < again_at => Err(Failure::Hanging),
            Some(_) => {
                // This one finds out; the next may when it has not come back by then.
                self.again_at = Some(now + timeout + PAUSE);
                Ok(Admitted::AsProbe)
            }
        }
    }

    fn answered(&mut self) {
        *self = Self::default();
    }

    fn hung(&mut self, now: Instant) {
        self.hangs = self.hangs.saturating_add(1);
        if self.hangs >= HANGS {
            self.again_at = Some(now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_left_alone_and_asked_by_one_at_a_time() {
        let mut health = Health::default();
        let start = Instant::now();
        for _ in 0..HANGS {
            assert!(health.admit(start, TIMEOUT).is_ok());
            health.hung(start);
        }
        assert!(matches!(health.admit(start, TIMEOUT), Err(Failure::Hanging)));
        let later = start + PAUSE;
        assert!(health.admit(later, TIMEOUT).is_ok(), "one finds out");
        assert!(health.admit(later, TIMEOUT).is_err(), "and only one");
        // It was dropped without a word.
        let much_later = later + TIMEOUT + PAUSE;
        assert!(health.admit(much_later, TIMEOUT).is_ok());
        health.answered();
        assert!(health.admit(much_later, TIMEOUT).is_ok() && health.admit(much_later, TIMEOUT).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_between_two_hangs_clears_the_server() {
        let mut health = Health::default();
        let now = Instant::now();
        for _ in 0..5 {
            health.hung(now);
            health.hung(now);
            health.answered();
        }
        assert!(health.admit(now, TIMEOUT).is_ok());
    }

    #[test]
    fn a_key_is_never_quoted() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let tls = Tls { ca: None, identity: Some(crate::server::Sensitive::new(b"hunter2".to_vec())) };
        let Err(failure) = Lane::new(&tls, true) else { panic!("that is no key") };
        assert!(
            !failure.to_string().contains("hunter2") && failure.to_string().contains("tls.key"),
            "{failure}"
        );
        let tls = Tls { ca: Some(b"hunter2".to_vec()), identity: None };
        assert!(matches!(Lane::new(&tls, true), Err(Failure::Certificates(_))));
    }
}
