//! Raw samples: what Prometheus has of each pod's counters, and how it becomes the counts of one tick.
//!
//! Called by [`Judge::fold`] with what the controller read since the last folded tick. Increments are taken sample by
//! sample and never with `rate` or `increase`, which extrapolate and lose what a new series starts with. What
//! always holds: increments of adjacent ticks add up to exactly what the counters counted, however the ticks are cut and
//! however often they are read again; a tick's increments depend only on samples up to its end.

use super::{
    latency::Bounds,
    policy::{Events, MetricPolicy, Policy, Rule, Source},
    rules::Judge,
    state::State,
    tick::{ArmCount, Missing, Outcome, Shares, Step, Tick},
    verdict::{Hold, Verdict},
};

/// Most ticks that one call folds; the rest is for the next one.
const MAX_TICKS: u32 = 100_000;
/// Above this a counter no longer counts ones.
const MAX_COUNT: f64 = 9_007_199_254_740_992.0;

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
    /// When it became ready, if that is known.
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
    /// The pods of each metric, in the order of the policy; empty where nothing could be read.
    pub metrics: Vec<Vec<Pod>>,
}

impl Judge {
    /// Folds every tick that ended since `state` was folded, and says what to do. The state is the same to the bit
    /// whether ticks are folded at once, one by one, or by another process in between.
    pub fn fold(&self, mut state: State, seen: &Observations) -> (State, Verdict) {
        match self.verdict(&state, &seen.step) {
            verdict @ Verdict::Hold(Hold::UnknownSchema(_) | Hold::AnotherPolicy) => return (state, verdict),
            Verdict::Rollback(_) | Verdict::Advance | Verdict::Hold(_) | Verdict::Progressing => {}
        }
        for _ in 0..MAX_TICKS {
            let window = Window::new(self.policy(), self.ended(&state));
            if window.end > seen.until_ms || window.end <= window.start {
                break;
            }
            let (weight, outcomes) = window.outcomes(self.policy(), seen);
            self.fold_tick(&mut state, &seen.step, &Tick { weight, outcomes: &outcomes });
        }
        let verdict = self.verdict(&state, &seen.step);
        (state, verdict)
    }
}

/// A tick in time: after `start`, up to `end`.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Samples up to here are too old to count from.
    oldest: i64,
    start: i64,
    end: i64,
    warmup: i64,
}

impl Window {
    const fn new(policy: &Policy, start: i64) -> Self {
        Self {
            oldest: start.saturating_sub(policy.lookback_ms),
            start,
            end: start.saturating_add(policy.tick_ms),
            warmup: policy.warmup_ms,
        }
    }

    /// The weight in this tick, and what each metric of the policy has.
    fn outcomes(&self, policy: &Policy, seen: &Observations) -> (Option<f64>, Vec<Outcome>) {
        let within = |change: &&WeightChange| change.at_ms > self.start && change.at_ms <= self.end;
        if seen.weights.iter().any(|change| within(&change)) {
            return (None, vec![Outcome::Missing(Missing::WeightChanged); policy.metrics.len()]);
        }
        let before = seen.weights.iter().rev().find(|change| change.at_ms <= self.start);
        let no_pods = Vec::new();
        let outcomes = policy
            .metrics
            .iter()
            .enumerate()
            .map(|(index, metric)| self.outcome(metric, seen.metrics.get(index).unwrap_or(&no_pods)))
            .collect();
        (before.map(|change| change.weight), outcomes)
    }

    fn outcome(&self, metric: &MetricPolicy, pods: &[Pod]) -> Outcome {
        let bounds = match metric.source {
            Source::Counters => None,
            Source::Histogram(threshold) => match common_bounds(pods, threshold) {
                Some(bounds) => Some(bounds),
                None if pods.is_empty() => return Outcome::Missing(Missing::NoSeries),
                None => return Outcome::Missing(Missing::NoBucket),
            },
        };
        let candidate = match self.arm(metric, bounds, pods, Arm::Candidate) {
            Ok(counts) => counts,
            Err(missing) => return Outcome::Missing(missing),
        };
        if !pods.iter().any(|pod| pod.arm == Arm::Stable) {
            return Outcome::Alone(candidate.above);
        }
        match self.arm(metric, bounds, pods, Arm::Stable) {
            Ok(stable) => Outcome::Both {
                shares: Shares { candidate: candidate.above, stable: stable.above },
                strict: Shares { candidate: candidate.below, stable: stable.below },
            },
            Err(missing) => Outcome::Missing(missing),
        }
    }

    /// The counts of one arm: pods that warm up are left out.
    fn arm(
        &self,
        metric: &MetricPolicy,
        bounds: Option<Bounds>,
        pods: &[Pod],
        arm: Arm,
    ) -> Result<ArmCounts, Missing> {
        let (mut total, mut known, mut warm, mut scraped) = (Increments::default(), 0_u32, 0_u32, 0_u32);
        let mut has_events = false;
        for pod in pods.iter().filter(|pod| pod.arm == arm) {
            known += 1;
            if pod.ready_ms.is_some_and(|ready| self.start < ready.saturating_add(self.warmup)) {
                continue;
            }
            warm += 1;
            let Some(series) = Series::of(&pod.counters, bounds) else { continue };
            has_events |= series.has_events();
            if let Some(increments) = self.pod(pod, &series)? {
                scraped += 1;
                total.add(increments);
            }
        }
        match (known, warm) {
            (0, _) => Err(Missing::NoSeries),
            (_, 0) => Err(Missing::WarmingUp),
            // A selector that matches no series is missing data, not zero.
            _ if !has_events => Err(Missing::NoSeries),
            _ if scraped.saturating_mul(2) < warm => Err(Missing::Gap),
            _ => total.counts(metric),
        }
    }

    /// One pod's increments; nothing if it was not scraped in this tick.
    fn pod(&self, pod: &Pod, series: &Series<'_>) -> Result<Option<Increments>, Missing> {
        let mut history =
            History { restarts: Vec::new(), first_scrape: i64::MAX, started_ms: pod.started_ms };
        for counter in series.all.iter().chain(&series.above).chain(&series.below) {
            self.look(counter, &mut history);
        }
        let sum = |counters: &[&[Sample]]| {
            counters.iter().try_fold(None, |sum: Option<f64>, counter| {
                let increase = self.increase(counter, &history)?;
                Ok(increase.map_or(sum, |increase| Some(sum.unwrap_or(0.0) + increase)))
            })
        };
        let Some(all) = sum(&series.all)? else { return Ok(None) };
        let (above, below) = (sum(&series.above)?.unwrap_or(0.0), sum(&series.below)?.unwrap_or(0.0));
        Ok(Some(match series.kind {
            Kind::Events => Increments { all, above, below: above },
            // Buckets count the fast ones.
            Kind::Buckets => Increments { all, above: all - above, below: all - below },
        }))
    }

    /// Samples that may matter to this tick.
    fn slice<'a>(&self, counter: &'a [Sample], after: i64) -> &'a [Sample] {
        let from = counter.partition_point(|sample| sample.at_ms <= after);
        let to = counter.partition_point(|sample| sample.at_ms <= self.end);
        counter.get(from..to).unwrap_or_default()
    }

    /// Notes when the pod was first seen and when it restarted. If one of its counters fell, its process restarted, and
    /// all of them did, also those that have grown beyond their old value since.
    fn look(&self, counter: &[Sample], history: &mut History) {
        let seen = self.slice(counter, self.oldest);
        if let Some(first) = seen.first() {
            history.first_scrape = history.first_scrape.min(first.at_ms);
        }
        for pair in seen.windows(2) {
            if pair[1].value < pair[0].value && !history.restarts.contains(&pair[1].at_ms) {
                history.restarts.push(pair[1].at_ms);
            }
        }
    }

    /// How much a counter grew in this tick; nothing without a sample in it.
    fn increase(&self, counter: &[Sample], history: &History) -> Result<Option<f64>, Missing> {
        let seen = self.slice(counter, self.oldest);
        let inside = seen.partition_point(|sample| sample.at_ms <= self.start);
        let (mut previous, mut sum) = (None::<&Sample>, None);
        // The newest older sample is what the tick counts from.
        for sample in seen.get(inside.saturating_sub(1)..).unwrap_or_default() {
            let ordered = previous.is_none_or(|previous| previous.at_ms < sample.at_ms);
            if !(sample.value >= 0.0 && sample.value < MAX_COUNT && ordered) {
                return Err(Missing::Invalid);
            }
            if sample.at_ms > self.start {
                let increase = match previous {
                    Some(previous) if history.restarted(previous, sample) => sample.value,
                    Some(previous) => sample.value - previous.value,
                    None if self.starts_at_zero(sample, history) => sample.value,
                    None => 0.0,
                };
                sum = Some(sum.unwrap_or(0.0) + increase);
            }
            previous = Some(sample);
        }
        Ok(sum)
    }

    /// Whether a series that has no older sample counted from zero since the last tick: its process is that young, or the
    /// pod was scraped before without it.
    const fn starts_at_zero(&self, first: &Sample, history: &History) -> bool {
        let young =
            matches!(history.started_ms, Some(started) if started > self.oldest && started <= first.at_ms);
        young || history.first_scrape < first.at_ms
    }
}

/// What a pod's series show besides their counts.
#[derive(Debug)]
struct History {
    restarts: Vec<i64>,
    first_scrape: i64,
    started_ms: Option<i64>,
}

impl History {
    fn restarted(&self, previous: &Sample, sample: &Sample) -> bool {
        sample.value < previous.value
            || self.restarts.iter().any(|&at| at > previous.at_ms && at <= sample.at_ms)
    }
}

/// The series of one pod that matter to a metric.
#[derive(Debug)]
struct Series<'a> {
    kind: Kind,
    all: Vec<&'a [Sample]>,
    above: Vec<&'a [Sample]>,
    below: Vec<&'a [Sample]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Events,
    Buckets,
}

impl<'a> Series<'a> {
    /// Nothing if the counters are not of the policy's kind.
    fn of(counters: &'a Counters, bounds: Option<Bounds>) -> Option<Self> {
        match (counters, bounds) {
            (Counters::Share { events, all }, None) => Some(Self {
                kind: Kind::Events,
                all: all.iter().map(Vec::as_slice).collect(),
                above: events.iter().map(Vec::as_slice).collect(),
                below: Vec::new(),
            }),
            (Counters::Histogram(buckets), Some(bounds)) => {
                let at = |bound: f64| {
                    let ends = |bucket: &&Bucket| bucket.le.to_bits() == bound.to_bits();
                    buckets.iter().filter(ends).map(|bucket| bucket.counter.as_slice()).collect()
                };
                Some(Self {
                    kind: Kind::Buckets,
                    all: at(f64::INFINITY),
                    above: at(bounds.above),
                    below: bounds.below.map(at).unwrap_or_default(),
                })
            }
            (Counters::Share { .. }, Some(_)) | (Counters::Histogram(_), None) => None,
        }
    }

    fn has_events(&self) -> bool {
        self.above.iter().any(|counter| !counter.is_empty())
    }
}

/// Increments of one arm or pod, as numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Increments {
    all: f64,
    above: f64,
    below: f64,
}

/// The same as counts of bad events, for a rollback and for advancing.
#[derive(Clone, Copy, Debug)]
struct ArmCounts {
    above: ArmCount,
    below: ArmCount,
}

impl Increments {
    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.above += other.above;
        self.below += other.below;
    }

    fn counts(self, metric: &MetricPolicy) -> Result<ArmCounts, Missing> {
        let good = match metric.rule {
            Rule::Share { events: Events::Good, .. } => metric.source == Source::Counters,
            Rule::Share { events: Events::Bad, .. } | Rule::Plain { .. } => false,
        };
        let count = |events: f64| {
            let (requests, events) = (self.all.round(), events.round());
            if !(requests < MAX_COUNT && events >= 0.0 && events <= requests) {
                return Err(Missing::Invalid);
            }
            let bad = if good { requests - events } else { events };
            Ok(ArmCount { requests: requests as u64, bad: bad as u64 })
        };
        Ok(ArmCounts { above: count(self.above)?, below: count(self.below)? })
    }
}

/// The bounds that all pods have: versions may be built with different buckets.
fn common_bounds(pods: &[Pod], threshold: f64) -> Option<Bounds> {
    let mut histograms = pods.iter().map(|pod| match &pod.counters {
        Counters::Histogram(buckets) => buckets.as_slice(),
        Counters::Share { .. } => &[],
    });
    let first = histograms.next()?;
    let others: Vec<&[Bucket]> = histograms.collect();
    let everywhere = |le: f64| {
        others.iter().all(|buckets| buckets.iter().any(|bucket| bucket.le.to_bits() == le.to_bits()))
    };
    Bounds::of(first.iter().map(|bucket| bucket.le).filter(|&le| everywhere(le)), threshold)
}

#[cfg(test)]
mod tests;
