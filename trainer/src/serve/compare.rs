//! Comparing: a copied request is asked of the stable version too, twice, and who differs from whom is counted.
//!
//! Called by `http` for copies that were answered. Asking stable once more shows how often it differs from itself, which says
//! nothing about the version in shadow. Nobody waits for this: a copy whose turn it is not, or that stable does not
//! answer in time, is left out and counted as such.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anneal_crds::contract::{COMPARED, COMPARED_RESULT, Differs, PAIRED, WasRight};
use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, header},
};
use prometheus::{CounterVec, Opts, Registry};
use rand::RngCore;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use reqwest::{Client, StatusCode, Url, redirect::Policy};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    agree,
    body::MAX_BODY,
    feedback::{Feedback, Memory, Pair},
};
use crate::{error::Failure, host::Stopwatch};

/// Marks what is asked for a comparison: whoever gets it asks nobody else.
pub(super) const ASKED: HeaderName = HeaderName::from_static("x-anneal-compare");
/// Copies that are compared at once.
const AT_ONCE: usize = 4;
/// How long stable may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const COMPARED_HELP: &str = "Copied requests whose answer was compared with two of the stable version's, by who differed from its first \
    one: nobody, candidate (the version in shadow), stable or both.";
const LEFT_OUT_HELP: &str = "Copied requests whose answer was not compared. busy: beyond --compare-rate; unanswered: the stable version did \
    not answer; incomparable: no output of the same name that is a text, or a number with --compare-tolerance.";

const PAIRED_HELP: &str = "Labels of copied requests that were compared and had an id, by who was right: both, candidate (the version in \
    shadow), stable or neither. Of two numbers the nearer one is right.";

/// How answers are compared.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the stable version answers copies, without a path.
    pub with: Url,
    /// Most requests that are compared in a second.
    pub rate: u32,
    /// By how much numbers may differ that are the same answer; without it they are not compared.
    pub tolerance: Option<f64>,
}

/// Compares answers.
#[derive(Debug)]
pub(super) struct Comparer {
    options: Options,
    client: Client,
    turns: Mutex<Turns>,
    clock: Stopwatch,
    at_once: Arc<Semaphore>,
    memory: Mutex<Memory>,
    compared: CounterVec,
    paired: CounterVec,
    left_out: CounterVec,
    labels: [String; 2],
}

/// Why an answer was not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    Busy,
    Unanswered,
    Incomparable,
}

impl LeftOut {
    const ALL: [Self; 3] = [Self::Busy, Self::Unanswered, Self::Incomparable];

    const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Unanswered => "unanswered",
            Self::Incomparable => "incomparable",
        }
    }
}

impl Comparer {
    /// With its counters in `registry`, all of them zero.
    pub(super) fn new(
        options: Options,
        model: &str,
        version: &str,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let bug = |error: prometheus::Error| Failure::Panic(format!("metrics: {error}"));
        let counter = |name: &str, help: &str, by: &str| -> Result<CounterVec, Failure> {
            let counter = CounterVec::new(Opts::new(name, help), &["model", "version", by]).map_err(bug)?;
            registry.register(Box::new(counter.clone())).map_err(bug)?;
            Ok(counter)
        };
        let comparer = Self {
            memory: Mutex::default(),
            compared: counter(COMPARED, COMPARED_HELP, COMPARED_RESULT)?,
            paired: counter(PAIRED, PAIRED_HELP, COMPARED_RESULT)?,
            left_out: counter("anneal_serve_not_compared_total", LEFT_OUT_HELP, "reason")?,
            client: client()?,
            turns: Mutex::new(Turns::new(options.rate)),
            clock: Stopwatch::start(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            labels: [model.to_owned(), version.to_owned()],
            options,
        };
        Differs::ALL
            .into_iter()
            .for_each(|differs| drop(comparer.series(&comparer.compared, differs.name())));
        WasRight::ALL.into_iter().for_each(|right| drop(comparer.series(&comparer.paired, right.name())));
        LeftOut::ALL.into_iter().for_each(|why| drop(comparer.series(&comparer.left_out, why.name())));
        Ok(comparer)
    }

    /// Compares the answer to a copied request, if it is its turn and it was not itself asked for a comparison.
    pub(super) fn compare(self: &Arc<Self>, copy: Copied, answer: &[u8]) {
        if copy.headers.contains_key(ASKED) {
            return;
        }
        let turn = self.turns.lock().ok().and_then(|mut turns| turns.take(self.clock.elapsed()));
        let (Some(lot), Ok(place)) = (turn, self.at_once.clone().try_acquire_owned()) else {
            return self.leave_out(LeftOut::Busy);
        };
        let (own, comparer) = (serde_json::from_slice(answer).unwrap_or_default(), self.clone());
        tokio::spawn(async move { comparer.ask(copy, own, lot, place).await });
    }

    async fn ask(&self, copy: Copied, own: Value, lot: u64, _place: OwnedSemaphorePermit) {
        let (Some(first), Some(second)) = tokio::join!(self.stable(&copy), self.stable(&copy)) else {
            return self.leave_out(LeftOut::Unanswered);
        };
        match agree::differs(&own, [&first, &second], lot, self.options.tolerance) {
            Some(differs) => {
                self.remember(&copy, lot, &own, &first);
                self.series(&self.compared, differs.name()).inc();
            }
            None => self.leave_out(LeftOut::Incomparable),
        }
    }

    /// Remembers what both said until the label comes. Without an id of the request's own nobody could say what it is of.
    fn remember(&self, copy: &Copied, lot: u64, own: &Value, stable: &Value) {
        #[derive(Deserialize)]
        struct Identified {
            id: Option<String>,
        }
        let id = serde_json::from_slice(&copy.body).ok().and_then(|Identified { id }| id);
        let said = (agree::prediction(own, lot), agree::prediction(stable, lot));
        if let (Some(id), (Some(candidate), Some(stable)), Ok(mut memory)) = (id, said, self.memory.lock()) {
            memory.remember(&id, Pair { lot, candidate, stable });
        }
    }

    /// Counts who was right about a request that was compared.
    pub(super) fn learn(&self, feedback: &Feedback) {
        let pair = self.memory.lock().ok().and_then(|mut memory| memory.take(&feedback.id));
        let right = pair
            .and_then(|pair| agree::was_right(&pair.candidate, &pair.stable, pair.label(&feedback.labels)?));
        if let Some(right) = right {
            self.series(&self.paired, right.name()).inc();
        }
    }

    /// One answer of the stable version, by a connection of its own, so that any pod may be the one that gives it.
    async fn stable(&self, copy: &Copied) -> Option<Value> {
        let mut url = self.options.with.clone();
        url.set_path(&copy.path);
        let mut request = self.client.post(url).body(copy.body.clone()).header(ASKED, "1");
        if let Some(kind) = copy.headers.get(header::CONTENT_TYPE) {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let mut response = request.send().await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.ok()? {
            if body.len() + part.len() > MAX_BODY {
                return None;
            }
            body.extend_from_slice(&part);
        }
        serde_json::from_slice(&body).ok()
    }

    fn leave_out(&self, why: LeftOut) {
        self.series(&self.left_out, why.name()).inc();
    }

    fn series(&self, counter: &CounterVec, by: &str) -> prometheus::Counter {
        let [model, version] = &self.labels;
        counter.with_label_values(&[model, version, by])
    }
}

/// A copied request.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

fn client() -> Result<Client, Failure> {
    let client = Client::builder().pool_max_idle_per_host(0).no_proxy().redirect(Policy::none());
    let failed = |error: reqwest::Error| Failure::Panic(format!("HTTP client: {error}"));
    client.connect_timeout(PATIENCE).timeout(PATIENCE).build().map_err(failed)
}

/// Whose turn it is: so many a second on average, and no more at once than a second has. Each has a lot.
#[derive(Debug)]
struct Turns {
    rate: f64,
    left: f64,
    /// When they were counted last, since the start.
    at: Duration,
    lots: ChaCha8Rng,
}

impl Turns {
    fn new(rate: u32) -> Self {
        let rate = f64::from(rate);
        Self { rate, left: rate, at: Duration::ZERO, lots: ChaCha8Rng::seed_from_u64(2026) }
    }

    /// A lot for the request that came at `now`, if it has a turn.
    fn take(&mut self, now: Duration) -> Option<u64> {
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.left = (self.left + since * self.rate).min(self.rate);
        self.at = self.at.max(now);
        if self.left < 1.0 {
            return None;
        }
        self.left -= 1.0;
        Some(self.lots.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_as_many_turns_as_it_may() {
        let mut turns = Turns::new(10);
        let mut taken = |from_ms: u64, until_ms: u64| {
            (from_ms..until_ms).filter(|ms| turns.take(Duration::from_millis(*ms)).is_some()).count()
        };
        assert_eq!(taken(0, 10), 10, "a burst of a second's");
        assert_eq!(taken(10, 1010), 10);
        assert_eq!(taken(61_010, 61_020), 10, "an hour of silence is no hour of turns");
    }
}
