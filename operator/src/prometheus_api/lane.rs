//! A lane: the connections to one server on behalf of one namespace, which no other server can fill.
//!
//! Made by `lanes`, one for each namespace, origin, credential and certificate. A few questions are on their way at once, a
//! bounded number waits, and a server that hangs is left alone for a while, with one question at a time to see whether it
//! is back.

use std::sync::{Mutex, PoisonError};

use anneal_core::rollout::Answer;
use reqwest::{StatusCode, header::AUTHORIZATION};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    Question, body,
    budget::{Budget, Share},
    client::client,
    failure::Failure,
    health::{Admitted, Health},
};
use crate::server::Tls;

/// Questions that are on their way at once.
pub const ON_THEIR_WAY: usize = 4;
/// Questions that wait or are on their way: what a hundred rollouts with a few metrics ask in one moment.
pub const PLACES: usize = 512;

/// The connections to one server on behalf of one namespace.
pub struct Lane {
    client: reqwest::Client,
    budget: Budget,
    places: Semaphore,
    on_their_way: Semaphore,
    health: Mutex<Health>,
}

impl Lane {
    /// A lane to a server with these certificates, whose answers take memory from `budget`.
    pub fn new(tls: &Tls, is_encrypted: bool, budget: Budget) -> Result<Self, Failure> {
        Ok(Self {
            client: client(tls, is_encrypted)?,
            budget,
            places: Semaphore::new(PLACES),
            on_their_way: Semaphore::new(ON_THEIR_WAY),
            health: Mutex::default(),
        })
    }

    /// What the answers of the lane's namespace may take.
    pub const fn budget(&self) -> &Budget {
        &self.budget
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
        if admitted == Admitted::AsUsual && self.health(|health| health.is_hanging()) {
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
        let mut url = server.url.clone();
        url.set_path(&format!("{}/api/v1/query", server.url.path().trim_end_matches('/')));
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
        let response = request.send().await.map_err(Failure::connection)?;
        let status = response.status();
        let mut share = Share::default();
        let body = self.read(response, body::max_bytes(question.shape), &mut share).await;
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

    /// The body, as far as it may go.
    async fn read(
        &self,
        mut response: reqwest::Response,
        max_bytes: usize,
        share: &mut Share,
    ) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Failure::connection)? {
            let length = body.len() + chunk.len();
            if length > max_bytes {
                return Err(Failure::TooLong(max_bytes));
            }
            if !self.budget.grow(share, length) {
                return Err(Failure::NoRoom);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn health<T>(&self, look: impl FnOnce(&mut Health) -> T) -> T {
        look(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
