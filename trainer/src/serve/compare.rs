//! Comparing: a copied request is asked of the stable version too, twice, and who differs from whom is counted.
//!
//! Called by `http` for copies. Asking stable once more shows how often it differs from itself, which says
//! nothing about the version in shadow. Nobody waits for this: a copy whose turn it is not, or that stable does not
//! answer in time, is left out and counted as such.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anneal_crds::contract::{COMPARED, COMPARED_RESULT, Differs, PAIRED, WasRight};
use axum::http::{HeaderName, HeaderValue, header};
use prometheus::{CounterVec, Opts, Registry};
use rand::RngCore;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use reqwest::{Client, StatusCode, Url, redirect::Policy};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    agree::{self, Said},
    body::{Body, MAX_BODY},
    feedback::{Feedback, MOST, Memory, Pair},
};
use crate::{error::Failure, host::Stopwatch};

/// Marks what is asked for a comparison: whoever gets it asks nobody else.
pub(super) const ASKED: HeaderName = HeaderName::from_static("x-anneal-compare");
/// Copies that are compared at once.
const AT_ONCE: usize = 16;
/// How long stable may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const COMPARED_HELP: &str = "Copied requests whose answer was compared with two of the stable version's, by who differed from its first \
    one: nobody, candidate (the version in shadow), stable or both.";
const LEFT_OUT_HELP: &str = "Copied requests whose answer was not compared. busy: beyond --compare-rate, or 16 at once; failed: the \
    version itself failed; unanswered: the stable version did not answer; incomparable: the stable version's two have no output of the same name \
    that is a text, or a number with --compare-tolerance.";

const PAIRED_HELP: &str = "Labels of copied requests that were compared and had an id, by who was right: both, candidate (the version in \
    shadow), stable or neither. Of two numbers the nearer one is right.";

const FEEDBACK_HELP: &str = "Copied labels. counted: of a request that was compared; unknown: of another one, or it was forgotten; unusable: not one \
    label for each row, or none that an answer could have been.";

/// How answers are compared.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the stable version answers copies, without a path.
    pub with: Url,
    /// Most requests that are compared in a second.
    pub rate: u32,
    /// By how much numbers may differ that are the same answer; without it they are not compared.
    pub tolerance: Option<f64>,
    /// How much later than their requests labels come. So long pairs must be remembered.
    pub label_delay: Duration,
}

/// Compares answers.
#[derive(Debug)]
pub(super) struct Comparer {
    options: Options,
    client: Client,
    clock: Stopwatch,
    turns: Mutex<Turns>,
    remembered: Mutex<Turns>,
    at_once: Arc<Semaphore>,
    memory: Mutex<Memory>,
    compared: CounterVec,
    left_out: CounterVec,
    paired: CounterVec,
    feedback: CounterVec,
    labels: [String; 2],
}

/// Why an answer was not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    Busy,
    Failed,
    Unanswered,
    Incomparable,
}

impl LeftOut {
    const ALL: [Self; 4] = [Self::Busy, Self::Failed, Self::Unanswered, Self::Incomparable];

    const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
            Self::Incomparable => "incomparable",
        }
    }
}

/// What became of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Counted,
    Unknown,
    Unusable,
}

impl Label {
    const ALL: [Self; 3] = [Self::Counted, Self::Unknown, Self::Unusable];

    const fn name(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Unknown => "unknown",
            Self::Unusable => "unusable",
        }
    }
}

/// What the version itself answered.
#[derive(Debug)]
pub(super) enum Own {
    /// This JSON.
    Answer(Vec<u8>),
    /// That it does not understand the request.
    Refused,
    /// Nothing, by no fault of the request.
    Failed,
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
        let labels = [model.to_owned(), version.to_owned()];
        let counter = |name: &str, help: &str, by: &str, all: &[&str]| -> Result<CounterVec, Failure> {
            let counter = CounterVec::new(Opts::new(name, help), &["model", "version", by]).map_err(bug)?;
            registry.register(Box::new(counter.clone())).map_err(bug)?;
            all.iter().for_each(|value| drop(counter.with_label_values(&[model, version, value])));
            Ok(counter)
        };
        let rate = f64::from(options.rate);
        // Half of the memory is for labels that come late.
        let lasts = MOST as f64 / (2.0 * options.label_delay.as_secs_f64()).max(1.0);
        Ok(Self {
            client: client()?,
            clock: Stopwatch::start(),
            turns: Mutex::new(Turns::new(rate)),
            remembered: Mutex::new(Turns::new(rate.min(lasts))),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            memory: Mutex::default(),
            compared: counter(COMPARED, COMPARED_HELP, COMPARED_RESULT, &Differs::ALL.map(Differs::name))?,
            left_out: counter(
                "anneal_serve_not_compared_total",
                LEFT_OUT_HELP,
                "reason",
                &LeftOut::ALL.map(LeftOut::name),
            )?,
            paired: counter(PAIRED, PAIRED_HELP, COMPARED_RESULT, &WasRight::ALL.map(WasRight::name))?,
            feedback: counter(
                "anneal_serve_feedback_total",
                FEEDBACK_HELP,
                "result",
                &Label::ALL.map(Label::name),
            )?,
            labels,
            options,
        })
    }

    /// Whether the next copy is compared: then its answer is to be handed in.
    pub(super) fn next(&self) -> Option<Turn> {
        // A turn is not to be lost to a request for which there is no room.
        let place = self.at_once.clone().try_acquire_owned().ok();
        let turn = place.and_then(|place| Some(Turn { place, lot: self.turn(&self.turns)? }));
        if turn.is_none() {
            self.leave_out(LeftOut::Busy);
        }
        turn
    }

    /// Compares the answer to a copied request.
    pub(super) fn compare(self: &Arc<Self>, turn: Turn, copy: Copied, own: Own) {
        if matches!(own, Own::Failed) {
            return self.leave_out(LeftOut::Failed);
        }
        let comparer = self.clone();
        tokio::spawn(async move { comparer.ask(turn, copy, own).await });
    }

    fn turn(&self, turns: &Mutex<Turns>) -> Option<u64> {
        turns.lock().ok()?.take(self.clock.elapsed())
    }

    async fn ask(self: Arc<Self>, turn: Turn, copy: Copied, own: Own) {
        let (Some(first), Some(second)) = tokio::join!(self.stable(&copy), self.stable(&copy)) else {
            return self.leave_out(LeftOut::Unanswered);
        };
        // Bodies may be long, and whoever speaks HTTP has others to answer.
        let judged = tokio::task::spawn_blocking(move || {
            self.judge(&copy, &own, [first, second], turn.lot);
            drop(turn.place);
        });
        // It ends with the process, too.
        drop(judged.await);
    }

    fn judge(&self, copy: &Copied, own: &Own, [first, second]: [Own; 2], lot: u64) {
        let (Some(own), Some(first), Some(second)) = (said(own), said(&first), said(&second)) else {
            return self.leave_out(LeftOut::Unanswered);
        };
        if let (Said::Answer(own), Said::Answer(first)) = (&own, &first) {
            self.remember(&copy.body.bytes, lot, own, first);
        }
        match agree::differs(&own, [&first, &second], lot, self.options.tolerance) {
            Some(differs) => self.series(&self.compared, differs.name()).inc(),
            None => self.leave_out(LeftOut::Incomparable),
        }
    }

    /// Remembers what both said until the label comes. Without an id of the request's own nobody could say what it is of.
    fn remember(&self, body: &[u8], lot: u64, own: &Value, stable: &Value) {
        #[derive(Deserialize)]
        struct Identified {
            id: Option<String>,
        }
        let Ok(Identified { id: Some(id) }) = serde_json::from_slice(body) else { return };
        let (Some(candidate), Some(stable), Some(rows)) =
            (agree::prediction(own, lot), agree::prediction(stable, lot), agree::rows(own))
        else {
            return;
        };
        let (Ok(row), Ok(rows)) = (usize::try_from(lot % rows), usize::try_from(rows)) else { return };
        if self.turn(&self.remembered).is_some()
            && let Ok(mut memory) = self.memory.lock()
        {
            memory.remember(&id, Pair { row, rows, candidate, stable });
        }
    }

    /// Counts who was right about a request that was compared.
    pub(super) fn learn(&self, feedback: &Feedback) {
        let pair = self.memory.lock().ok().and_then(|mut memory| memory.take(&feedback.id));
        let right = pair
            .as_ref()
            .and_then(|pair| agree::was_right(&pair.candidate, &pair.stable, pair.label(&feedback.labels)?));
        let label = match (pair, right) {
            (None, _) => Label::Unknown,
            (Some(_), None) => Label::Unusable,
            (Some(_), Some(right)) => {
                self.series(&self.paired, right.name()).inc();
                Label::Counted
            }
        };
        self.series(&self.feedback, label.name()).inc();
    }

    /// One answer of the stable version, by a connection of its own, so that any pod may be the one that gives it.
    async fn stable(&self, copy: &Copied) -> Option<Own> {
        let mut url = self.options.with.clone();
        url.set_path(&copy.path);
        let mut request = self.client.post(url).body(copy.body.bytes.clone()).header(ASKED, "1");
        if let Some(kind) = &copy.kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let mut response = request.send().await.ok()?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => return Some(Own::Refused),
            _ => return None,
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.ok()? {
            if body.len() + part.len() > MAX_BODY {
                return None;
            }
            body.extend_from_slice(&part);
        }
        Some(Own::Answer(body))
    }

    fn leave_out(&self, why: LeftOut) {
        self.series(&self.left_out, why.name()).inc();
    }

    fn series(&self, counter: &CounterVec, by: &str) -> prometheus::Counter {
        let [model, version] = &self.labels;
        counter.with_label_values(&[model, version, by])
    }
}

/// As it is compared; nothing where there is no answer, or none in JSON.
fn said(own: &Own) -> Option<Said> {
    match own {
        Own::Answer(json) => serde_json::from_slice(json).ok().map(Said::Answer),
        Own::Refused => Some(Said::Refused),
        Own::Failed => None,
    }
}

/// A place among those that are compared at once, and what is drawn for the request.
#[derive(Debug)]
pub(super) struct Turn {
    place: OwnedSemaphorePermit,
    lot: u64,
}

/// A copied request.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) path: String,
    /// Its content type.
    pub(super) kind: Option<HeaderValue>,
    pub(super) body: Body,
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
    fn new(rate: f64) -> Self {
        Self { rate, left: rate.max(1.0), at: Duration::ZERO, lots: ChaCha8Rng::seed_from_u64(2026) }
    }

    /// A lot for the request that came at `now`, if it has a turn.
    fn take(&mut self, now: Duration) -> Option<u64> {
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.left = (self.left + since * self.rate).min(self.rate.max(1.0));
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
        let mut turns = Turns::new(10.0);
        let mut taken = |from_ms: u64, until_ms: u64| {
            (from_ms..until_ms).filter(|ms| turns.take(Duration::from_millis(*ms)).is_some()).count()
        };
        assert_eq!(taken(0, 10), 10, "a burst of a second's");
        assert_eq!(taken(10, 1010), 10);
        assert_eq!(taken(61_010, 61_020), 10, "a minute of silence is no minute of turns");
        let mut rare = Turns::new(0.5);
        let taken = (0..10_000).filter(|ms| rare.take(Duration::from_millis(*ms)).is_some()).count();
        assert_eq!(taken, 5);
    }
}
