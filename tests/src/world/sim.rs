//! Everything that is the case in a simulated world, outside the operators.

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use anneal_core::object::Key;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    calls::{Faults, LateWrite},
    dice::Dice,
    gateway::DataPlane,
    laws::Laws,
    metrics::Counters,
    store::Store,
    training::Runs,
    trials::{Probed, Trials},
};

/// The namespace of everything.
pub const NAMESPACE: &str = "team-a";

/// The world outside the operators.
#[derive(Debug)]
pub struct Sim {
    /// Chance.
    pub dice: Dice,
    /// The API server.
    pub store: Store,
    /// The true time.
    pub now: Timestamp,
    /// What goes wrong between operators and the API server, and how often.
    pub faults: Faults,
    /// Writes that the API server has taken and not done yet.
    pub late: Vec<LateWrite>,
    /// Who answers requests.
    pub data_plane: DataPlane,
    /// What Prometheus scraped.
    pub counters: Counters,
    /// Trainers and model storage.
    pub runs: Runs,
    /// Tests of candidates and answers of versions.
    pub trials: Trials,
    /// What is true of each model's digest, whatever anyone records.
    pub truth: BTreeMap<String, Truth>,
    /// What must hold, and what must be remembered to tell.
    pub laws: Laws,
    /// The operators, as the API server sees them.
    pub callers: [Caller; 2],
    /// Writes of operators that changed something.
    pub writes: usize,
    /// After how many of them an operator dies, once.
    pub dies_after: Option<usize>,
    /// Whether a controller of someone else writes routes, too.
    pub hostile: bool,
    /// What happened, for people; kept only when asked for.
    pub trace: Option<Vec<String>>,
}

/// What is true of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Digest of the version that it is really better than.
    pub beats: Option<String>,
    /// Whether it is good enough to be the first.
    pub good_first: bool,
    /// Share of its answers that are errors.
    pub error_rate: f64,
    /// Share of its answers that turn out to be mistaken.
    pub mistakes: f64,
    /// Whether its answers take too long.
    pub slow: bool,
    /// Whether its pods ever become ready.
    pub boots: bool,
}

/// One operator process, as the API server and Prometheus see it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// How far its clock is off.
    pub skew: SignedDuration,
    /// Whether it is served by a lagging replica.
    pub lagging: bool,
    /// What it is at.
    pub walk: Walk,
    /// The version of the world up to which its watches have told it everything.
    pub watched: u64,
    /// The oldest resource version of anything that its last look at an object read.
    pub looked: BTreeMap<Key, u64>,
}

/// One reconcile, from the read of its object on.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// The object that is reconciled.
    pub key: Option<Key>,
    /// The object as it was read.
    pub read: Arc<Value>,
    /// The oldest resource version of anything that was read.
    pub floor: u64,
    /// What Prometheus told.
    pub told: Vec<Told>,
    /// What was asked of a version or of a test, if anything was.
    pub probed: Option<Probed>,
    /// Whether this is about a write that comes late.
    pub late: bool,
    /// Whether a call failed, was late or stale, or anything moved meanwhile.
    pub disturbed: bool,
    /// Writes that changed something, since the reconcile began.
    pub writes: u32,
}

impl Walk {
    /// Whether the object was read from the API server.
    pub fn has_read(&self) -> bool {
        self.floor < u64::MAX
    }
}

/// What Prometheus told about one metric, judged by what is true.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Whose metric.
    pub version: String,
    /// What it means.
    pub verdict: Verdict,
}

/// What an answer of Prometheus means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Fresh, finite, within bounds, out of so many requests in the step.
    Pass(f64),
    /// Fresh, finite, within bounds, out of so many labels that came since they could be of the step.
    Labels(f64),
    /// Fresh, finite, out of bounds.
    Breach,
    /// Fresh samples, which say nothing by themselves.
    Samples,
    /// Nothing that one could decide by.
    Nothing,
}

impl Sim {
    /// Remembers what happened, if anyone wants to know.
    pub fn say(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line =
                format!("{} rv {:<4} {}", self.now.strftime("%d %T"), self.store.version(), what(self));
            self.trace.get_or_insert_default().push(line);
        }
    }

    /// A law is broken. The first breach counts.
    pub fn broken(&mut self, law: &'static str, why: impl Display) {
        let why = why.to_string();
        self.say(|_| format!("BROKEN {law}: {why}"));
        self.laws.violation.get_or_insert(Violation { law, why });
    }

    /// The clock of an operator.
    pub fn clock(&self, caller: usize) -> Timestamp {
        self.now.saturating_add(self.callers[caller].skew).unwrap_or(self.now)
    }

    /// Time passes; requests are answered meanwhile.
    pub fn advance(&mut self, span: SignedDuration) {
        self.serve_traffic(span);
        self.now = self.now.saturating_add(span).unwrap_or(self.now);
        self.scrape();
    }

    /// Everyone's reconciles under way see a world that moved.
    pub fn disturb_others(&mut self, but: Option<usize>) {
        for (index, caller) in self.callers.iter_mut().enumerate() {
            caller.walk.disturbed |= Some(index) != but;
        }
    }
}

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub law: &'static str,
    /// What was seen.
    pub why: String,
}
