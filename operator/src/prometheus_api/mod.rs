//! Prometheus over its HTTP API.
//!
//! Called by [`crate::observe`] through the port. Each server has a `lane` of its own, questions that are the same are asked
//! once, and whatever goes wrong becomes words that name server and query and hold no credential.

pub mod body;
mod budget;
pub(crate) mod client;
mod failure;
mod health;
mod lane;
mod lanes;
mod names;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anneal_core::rollout::{Answer, Query, Shape};
use anneal_crds::common::shorten;
use async_trait::async_trait;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use jiff::Timestamp;
use tokio::time::Instant;

use self::lanes::Lanes;
use crate::{
    ports::{Prometheus, no_answer},
    server::{Credential, Server},
};

/// Moments are rounded down to so many milliseconds, so that questions of one moment are the same.
const MOMENT: i64 = 100;
/// Most bytes of a failure's own words.
const WORDS: usize = 512;

/// What makes two questions the same, credentials included.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    server: Server,
    expression: String,
    shape: Shape,
    /// Milliseconds since the epoch.
    at: i64,
}

type Pending = Shared<BoxFuture<'static, Answer>>;
type Flights = HashMap<Question, WeakShared<BoxFuture<'static, Answer>>>;

/// An HTTP client for any number of Prometheus servers.
#[derive(Clone, Default)]
pub struct HttpPrometheus {
    lanes: Arc<Mutex<Lanes>>,
    flights: Arc<Mutex<Flights>>,
}

impl HttpPrometheus {
    /// The answer to a question that is on its way already, or on its way from now on.
    fn pending(&self, question: Question, query: &Query) -> Pending {
        let mut flights = locked(&self.flights);
        flights.retain(|_, flight| flight.upgrade().is_some());
        if let Some(pending) = flights.get(&question).and_then(WeakShared::upgrade) {
            return pending;
        }
        let pending = fly(self.lanes.clone(), question.clone(), query.clone()).boxed().shared();
        if let Some(weak) = pending.downgrade() {
            flights.insert(question, weak);
        }
        pending
    }
}

#[async_trait]
impl Prometheus for HttpPrometheus {
    async fn query(&self, server: &Server, query: &Query, at: Timestamp) -> Answer {
        let at = at.as_millisecond().div_euclid(MOMENT) * MOMENT;
        let (server, expression) = (server.clone(), query.expression.clone());
        let question = Question { server, expression, shape: query.shape, at };
        self.pending(question, query).await
    }
}

async fn fly(lanes: Arc<Mutex<Lanes>>, question: Question, query: Query) -> Answer {
    let lane = locked(&lanes).of(&question.server, Instant::now());
    let answer = match lane {
        Ok(lane) => lane.ask(&question).await,
        Err(failure) => Err(failure),
    };
    let server = &question.server;
    answer.unwrap_or_else(|failure| {
        let said = words(&failure.to_string(), server.credential.as_ref());
        match (question.shape, no_answer(&server.origin(), &query, said)) {
            (Shape::Matrix, Answer::Unreachable(why)) if failure.may_be_size() => Answer::TooMuch(why),
            (Shape::Matrix | Shape::Vector, answer) => answer,
        }
    })
}

/// A failure's words without what a server may put into them: control characters, a whole book, or the credential that it
/// was sent.
fn words(said: &str, credential: Option<&Credential>) -> String {
    if credential.is_some_and(|credential| credential.is_in(said)) {
        return "it repeats the credential that it was sent, so its words are not shown here".to_owned();
    }
    let printable: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shorten(&printable, WORDS).into_owned()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_are_cut_cleaned_and_kept_from_telling_a_secret() {
        let credential = Credential::bearer("hunter2");
        assert_eq!(words("a\nb\u{7}", None), "a b ");
        assert_eq!(words(&"x".repeat(1000), None).len(), WORDS);
        assert!(!words("you sent Bearer hunter2", credential.as_ref()).contains("hunter2"));
    }
}
