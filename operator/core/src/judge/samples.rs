//! Raw samples: what Prometheus has of each pod's counters, and how it becomes the counts of one tick.
//!
//! Called by [`Judge::fold`] with what the controller read since the last folded tick. Increments are taken sample by
//! sample and never with `rate` or `increase`, which extrapolate and lose what a new series starts with. What
//! always holds: increments of adjacent ticks add up to exactly what the counters counted, however the ticks are cut and
//! however often they are read again; a tick's increments depend only on samples up to its end.

mod window;

use super::{
    policy::{Events, Source},
    rules::Judge,
    state::State,
    tick::{ArmCount, Step, Tick},
    verdict::{Hold, Verdict},
};
use window::Window;

/// Most ticks that one call folds; the rest is for the next one.
const MAX_TICKS: u32 = 100_000;

/// One sample of a counter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its time in milliseconds since the epoch.
    pub at_ms: i64,
    /// The counter's value.
    pub value: f64,
}

/// Samples of one series, from old to new.
pub type Counter = Vec<Sample>;

/// Which version a pod runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// The new one.
    Candidate,
    /// The one that serves.
    Stable,
}

/// One pod's series of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Which version it runs.
    pub arm: Arm,
    /// When its process started, in milliseconds since the epoch, if that is known. It tells whether the first sample of a
    /// series was counted since or long ago.
    pub started_ms: Option<i64>,
    /// When it became ready last, if that is known and it still is.
    pub ready_ms: Option<i64>,
    /// Its counters.
    pub counters: Counters,
}

/// The counters of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Counters {
    /// Of some events, and of all.
    Share {
        /// The bad events, or the good ones.
        events: Vec<Counter>,
        /// All events.
        all: Vec<Counter>,
    },
    /// Cumulative buckets.
    Histogram(Vec<Bucket>),
    /// Of values, which may be negative, and how many.
    Mean {
        /// Their sum.
        sum: Vec<Counter>,
        /// Their number.
        count: Vec<Counter>,
    },
    /// Of pairs of answers in shadow.
    Paired {
        /// Live was right, the shadow wrong.
        lost: Vec<Counter>,
        /// Live was wrong, the shadow right.
        won: Vec<Counter>,
        /// All of them.
        all: Vec<Counter>,
    },
    /// Of requests in shadow that both versions answered.
    Compared {
        /// The candidate alone answered otherwise.
        candidate: Vec<Counter>,
        /// Stable alone differed from itself.
        stable: Vec<Counter>,
        /// All of them.
        all: Vec<Counter>,
    },
}

impl Counters {
    /// Every counter.
    fn all(&self) -> Vec<&Counter> {
        match self {
            Self::Share { events: one, all: other } | Self::Mean { sum: one, count: other } => {
                one.iter().chain(other).collect()
            }
            Self::Paired { lost: one, won: other, all }
            | Self::Compared { candidate: one, stable: other, all } => {
                one.iter().chain(other).chain(all).collect()
            }
            Self::Histogram(buckets) => buckets.iter().map(|bucket| &bucket.counter).collect(),
        }
    }
}

/// One bucket of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// Its upper bound; infinite for the one that counts all.
    pub le: f64,
    /// How many observations were at most `le`.
    pub counter: Counter,
}

/// From when on the candidate had a share of traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightChange {
    /// In milliseconds since the epoch.
    pub at_ms: i64,
    /// The candidate's share, from 0 to 1.
    pub weight: f64,
}

/// What the controller read. It must reach back one lookback before the end of the last folded tick; more does no harm.
#[derive(Clone, Debug, PartialEq)]
pub struct Observations {
    /// Everything up to here was read, in milliseconds since the epoch.
    pub until_ms: i64,
    /// The step that the rollout is in.
    pub step: Step,
    /// Changes of weight, from old to new.
    pub weights: Vec<WeightChange>,
    /// Each metric, in the order of the policy.
    pub metrics: Vec<Seen>,
    /// Who gets requests that the candidate should get; none where both are compared, or nobody else is there.
    pub beside: Option<Beside>,
}

/// Pods of a version that should get no requests, or so few that nothing can be compared, by a metric that counts requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// What the metric is made of.
    pub source: Source,
    /// Its pods.
    pub pods: Vec<Pod>,
}

/// What was read about a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// Its pods; none where nothing could be read.
    Pods(Vec<Pod>),
    /// The step does not judge by it.
    NotAsked,
}

impl Judge {
    /// Folds every tick that ended since `state` was folded, and says what to do. The state is the same to the bit
    /// whether ticks are folded at once, one by one, or by another process in between.
    pub fn fold(&self, mut state: State, seen: &Observations) -> (State, Verdict) {
        match self.verdict(&state, &seen.step) {
            verdict @ Verdict::Hold(Hold::UnknownSchema(_) | Hold::AnotherPolicy) => return (state, verdict),
            Verdict::Rollback(_)
            | Verdict::Advance
            | Verdict::Hold(_)
            | Verdict::Progressing
            | Verdict::Lost
            | Verdict::NoWinner => {}
        }
        for _ in 0..MAX_TICKS {
            let window = Window::new(self.policy(), self.ended(&state));
            if window.end > seen.until_ms || window.end <= window.start {
                break;
            }
            let (weight, outcomes) = window.outcomes(self.policy(), seen);
            let beside = seen.beside.as_ref().and_then(|beside| window.requests_of(beside, &seen.weights));
            self.fold_tick(&mut state, &seen.step, &Tick { weight, outcomes: &outcomes, beside });
        }
        let verdict = self.verdict(&state, &seen.step);
        (state, verdict)
    }
}

/// Counts of each pod in each tick of `span` (from, until; in milliseconds since the epoch): the history from which
/// [`super::dispersion`] learns. A pod without usable samples in a tick counts nothing in it.
pub fn history(
    source: Source,
    events: Events,
    pods: &[Pod],
    (from_ms, until_ms): (i64, i64),
    tick_ms: i64,
) -> Vec<Vec<ArmCount>> {
    let ticks = until_ms.saturating_sub(from_ms) / tick_ms.max(1);
    (0..ticks)
        .map(|tick| Window::of_history(from_ms.saturating_add(tick * tick_ms), tick_ms))
        .map(|window| window.counts(source, events, pods))
        .collect()
}

#[cfg(test)]
mod tests;
