//! One tick's window over raw samples: increments of every pod, and their sum in each arm.
//!
//! Called by [`Judge::fold`](crate::judge::Judge::fold). Restarts, series that begin, gaps and numbers that cannot be are
//! handled here, without a look at what they would mean for a verdict.

use super::{Arm, Beside, Bucket, Counter, Counters, Observations, Pod, Sample, Seen, WeightChange};
use crate::judge::{
    agreement::Compared,
    latency::Bounds,
    means::ArmSum,
    paired::Pairs,
    policy::{Events, MetricPolicy, Policy, Rule, Source},
    tick::{ArmCount, Arms, Missing, Outcome, Shares},
};

/// Above this a counter no longer counts ones.
const MAX_COUNT: f64 = 9_007_199_254_740_992.0;

/// A tick in time: after `start`, up to `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Samples up to here are too old to count from.
    oldest: i64,
    /// Its start.
    pub(super) start: i64,
    /// Its end.
    pub(super) end: i64,
    warmup: i64,
}

impl Window {
    /// The tick that starts at `start`.
    pub(super) const fn new(policy: &Policy, start: i64) -> Self {
        Self {
            oldest: start.saturating_sub(policy.lookback_ms),
            start,
            end: start.saturating_add(policy.tick_ms),
            warmup: policy.warmup_ms,
        }
    }

    /// A tick of the past, of which two points may be missing.
    pub(super) const fn of_history(start: i64, tick_ms: i64) -> Self {
        let oldest = start.saturating_sub(tick_ms.saturating_mul(2));
        Self { oldest, start, end: start.saturating_add(tick_ms), warmup: 0 }
    }

    /// The counts of each pod.
    pub(super) fn counts(&self, source: Source, events: Events, pods: &[Pod]) -> Vec<ArmCount> {
        let Ok(bounds) = bounds(source, pods) else { return vec![] };
        let good = counts_good(source, events);
        let one = |pod: &Pod| {
            let increments = self.pod(pod, &Series::of(&pod.counters, bounds)?).ok()??;
            increments.counts(good).ok().map(|counts| counts.above)
        };
        pods.iter().map(|pod| one(pod).unwrap_or_default()).collect()
    }

    /// The weight in this tick, and what each metric of the policy has.
    pub(super) fn outcomes(&self, policy: &Policy, seen: &Observations) -> (Option<f64>, Vec<Outcome>) {
        // Between two scrapes lies more than a tick if those are rarer than ticks.
        let counted_from = seen.metrics.iter().map(|metric| self.counted_from(metric)).min();
        let from = counted_from.unwrap_or(self.start);
        let changed = seen.weights.iter().any(|change| change.at_ms > from && change.at_ms <= self.end);
        let before = seen.weights.iter().rev().find(|change| change.at_ms <= self.start && !changed);
        let outcomes = policy
            .metrics
            .iter()
            .enumerate()
            .map(|(index, metric)| match seen.metrics.get(index) {
                Some(Seen::NotAsked) => Outcome::Missing(Missing::NotAsked),
                Some(Seen::Pods(_)) if changed => Outcome::Missing(Missing::WeightChanged),
                Some(Seen::Pods(pods)) => self.outcome(metric, seen.step.arms, pods),
                None => Outcome::Missing(Missing::NoSeries),
            })
            .collect();
        (before.map(|change| change.weight), outcomes)
    }

    /// Requests of those that should get none; nothing where they cannot be counted, or some of them came before that.
    pub(super) fn requests_of(&self, beside: &Beside, weights: &[WeightChange]) -> Option<u64> {
        let from = self.counted_since(&beside.pods);
        if weights.iter().any(|change| change.at_ms > from && change.at_ms <= self.end) {
            return None;
        }
        let bounds = bounds(beside.source, &beside.pods).ok()?;
        whole(self.arm(bounds, &beside.pods, Arm::Stable).ok()?.all).ok()
    }

    /// From when on the increments of this tick count.
    fn counted_from(&self, metric: &Seen) -> i64 {
        match metric {
            Seen::Pods(pods) => self.counted_since(pods),
            Seen::NotAsked => self.start,
        }
    }

    fn counted_since(&self, pods: &[Pod]) -> i64 {
        let counters = pods.iter().flat_map(|pod| pod.counters.all());
        let from = counters.filter_map(|counter| {
            let seen = self.slice(counter, self.oldest);
            let inside = seen.partition_point(|sample| sample.at_ms <= self.start);
            seen.get(inside)?;
            Some(seen.get(inside.checked_sub(1)?)?.at_ms)
        });
        from.min().unwrap_or(self.start)
    }

    /// What one metric has.
    pub(super) fn outcome(&self, metric: &MetricPolicy, arms: Arms, pods: &[Pod]) -> Outcome {
        bounds(metric.source, pods)
            .and_then(|bounds| self.counted(metric, arms, bounds, pods))
            .unwrap_or_else(Outcome::Missing)
    }

    fn counted(
        &self,
        metric: &MetricPolicy,
        arms: Arms,
        bounds: Option<Bounds>,
        pods: &[Pod],
    ) -> Result<Outcome, Missing> {
        let candidate = self.arm(bounds, pods, Arm::Candidate)?;
        let good = match metric.rule {
            Rule::Share { events, .. } | Rule::Primary { events } | Rule::Secondary { events, .. } => {
                counts_good(metric.source, events)
            }
            Rule::Mean(_) | Rule::Paired { .. } | Rule::Agreement { .. } => false,
        };
        match metric.rule {
            Rule::Paired { .. } => candidate.pairs().map(Outcome::Pairs),
            Rule::Agreement { .. } => candidate.compared().map(Outcome::Compared),
            Rule::Mean(_) => {
                let stable = match arms {
                    Arms::Both => Some(self.arm(bounds, pods, Arm::Stable)?.values()?),
                    Arms::CandidateAlone => None,
                };
                Ok(Outcome::Means { candidate: candidate.values()?, stable })
            }
            Rule::Share { .. } | Rule::Primary { .. } | Rule::Secondary { .. } if arms == Arms::Both => {
                let stable = self.arm(bounds, pods, Arm::Stable)?.counts(good)?;
                let candidate = candidate.counts(good)?;
                Ok(Outcome::Both {
                    shares: Shares { candidate: candidate.above, stable: stable.above },
                    strict: Shares { candidate: candidate.below, stable: stable.below },
                })
            }
            Rule::Share { .. } | Rule::Primary { .. } | Rule::Secondary { .. } => {
                Ok(Outcome::Alone(candidate.counts(good)?.above))
            }
        }
    }

    /// The counts of one arm: pods that warm up are left out.
    fn arm(&self, bounds: Option<Bounds>, pods: &[Pod], arm: Arm) -> Result<Increments, Missing> {
        let (mut total, mut known, mut warm, mut scraped) = (Increments::default(), 0_u32, 0_u32, 0_u32);
        let mut has_events = false;
        for pod in pods.iter().filter(|pod| pod.arm == arm) {
            known += 1;
            let life = self.life(pod);
            if life == Life::WarmingUp {
                continue;
            }
            let Some(series) = Series::of(&pod.counters, bounds) else {
                warm += u32::from(life == Life::Warm);
                continue;
            };
            has_events |= series.has_events();
            match self.pod(pod, &series)? {
                Some(increments) => {
                    (warm, scraped) = (warm + 1, scraped + 1);
                    total.add(increments);
                }
                None => warm += u32::from(life == Life::Warm),
            }
        }
        match (known, warm) {
            (0, _) => Err(Missing::NoSeries),
            (_, 0) => Err(Missing::WarmingUp),
            // A selector that matches no series is missing data, not zero.
            _ if !has_events => Err(Missing::NoSeries),
            _ if scraped.saturating_mul(2) < warm => Err(Missing::Gap),
            _ => Ok(total),
        }
    }

    /// What a pod was in this tick, as far as the last time that it became ready tells.
    const fn life(&self, pod: &Pod) -> Life {
        match pod.ready_ms {
            Some(ready) if self.end <= ready => Life::Before,
            Some(ready) if self.start < ready.saturating_add(self.warmup) => Life::WarmingUp,
            Some(_) | None => Life::Warm,
        }
    }

    /// One pod's increments; nothing if it was not scraped in this tick.
    fn pod(&self, pod: &Pod, series: &Series<'_>) -> Result<Option<Increments>, Missing> {
        let mut history =
            History { restarts: Vec::new(), first_scrape: i64::MAX, started_ms: pod.started_ms };
        let counts = series.kind.counts();
        for counter in series.all.iter().chain(series.above.iter().filter(|_| counts)).chain(&series.below) {
            self.look(counter, &mut history);
        }
        let sum = |counters: &[&[Sample]], counts: bool| {
            counters.iter().try_fold(None, |sum: Option<f64>, counter| {
                let increase = self.increase(counter, &history, counts)?;
                Ok(increase.map_or(sum, |increase| Some(sum.unwrap_or(0.0) + increase)))
            })
        };
        let Some(all) = sum(&series.all, true)? else { return Ok(None) };
        let above = match sum(&series.above, counts)? {
            Some(above) => above,
            // Values without their sum have no mean. No bad event is zero.
            None if series.kind == Kind::Values => return Ok(None),
            None => 0.0,
        };
        let below = sum(&series.below, true)?.unwrap_or(0.0);
        Ok(Some(match series.kind {
            Kind::Events | Kind::Values => Increments { all, above, below: above },
            Kind::Opposed => Increments { all, above, below },
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

    /// How much a counter grew in this tick; nothing without a sample in it. Sums of values may fall without a restart.
    fn increase(&self, counter: &[Sample], history: &History, counts: bool) -> Result<Option<f64>, Missing> {
        let seen = self.slice(counter, self.oldest);
        let inside = seen.partition_point(|sample| sample.at_ms <= self.start);
        let (mut previous, mut sum) = (None::<&Sample>, None);
        // The newest older sample is what the tick counts from.
        for sample in seen.get(inside.saturating_sub(1)..).unwrap_or_default() {
            let ordered = previous.is_none_or(|previous| previous.at_ms < sample.at_ms);
            if !(sample.value.abs() < MAX_COUNT && (sample.value >= 0.0 || !counts) && ordered) {
                return Err(Missing::Invalid);
            }
            if sample.at_ms > self.start {
                let increase = match previous {
                    Some(previous) if counts && sample.value < previous.value => sample.value,
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

/// What a pod was in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It became ready later. It may have been ready before that too, or not have been there: its requests are counted,
    /// and it need not have any.
    Before,
    /// It became ready only just now.
    WarmingUp,
    /// It has been ready for a while, and should be scraped.
    Warm,
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
        self.restarts.iter().any(|&at| at > previous.at_ms && at <= sample.at_ms)
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
    Values,
    /// Two kinds of events that exclude each other, and all.
    Opposed,
}

impl Kind {
    /// Whether what is summed besides the number of all only grows.
    const fn counts(self) -> bool {
        match self {
            Self::Events | Self::Buckets | Self::Opposed => true,
            Self::Values => false,
        }
    }
}

impl<'a> Series<'a> {
    /// Nothing if the counters are not of the policy's kind.
    fn of(counters: &'a Counters, bounds: Option<Bounds>) -> Option<Self> {
        let slices = |counters: &'a [Counter]| counters.iter().map(Vec::as_slice).collect();
        let two = |kind, all, above| Self { kind, all: slices(all), above: slices(above), below: vec![] };
        match (counters, bounds) {
            (Counters::Share { events, all }, None) => Some(two(Kind::Events, all, events)),
            (Counters::Mean { sum, count }, None) => Some(two(Kind::Values, count, sum)),
            (
                Counters::Compared { candidate: above, stable: below, all }
                | Counters::Paired { lost: above, won: below, all },
                None,
            ) => Some(Self { below: slices(below), ..two(Kind::Opposed, all, above) }),
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
            (
                Counters::Share { .. }
                | Counters::Mean { .. }
                | Counters::Paired { .. }
                | Counters::Compared { .. },
                Some(_),
            )
            | (Counters::Histogram(_), None) => None,
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

    /// With `good`, the events are the good ones.
    fn counts(self, good: bool) -> Result<ArmCounts, Missing> {
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

    fn values(self) -> Result<ArmSum, Missing> {
        Ok(ArmSum { count: whole(self.all)?, sum: self.above })
    }

    /// All, and of them two kinds that exclude each other.
    fn opposed(self) -> Result<[u64; 3], Missing> {
        let [all, above, below] = [whole(self.all)?, whole(self.above)?, whole(self.below)?];
        if above.saturating_add(below) <= all { Ok([all, above, below]) } else { Err(Missing::Invalid) }
    }

    fn compared(self) -> Result<Compared, Missing> {
        self.opposed().map(|[all, candidate, stable]| Compared { all, candidate, stable })
    }

    fn pairs(self) -> Result<Pairs, Missing> {
        self.opposed().map(|[all, lost, won]| Pairs { all, lost, won })
    }
}

/// Whether counters are of the good events. Buckets count what is fast, which is seen to where they are read.
fn counts_good(source: Source, events: Events) -> bool {
    events == Events::Good && source == Source::Counters
}

fn whole(number: f64) -> Result<u64, Missing> {
    if (0.0..MAX_COUNT).contains(&number) { Ok(number.round() as u64) } else { Err(Missing::Invalid) }
}

/// The bounds that stand for a threshold; none where there is no histogram.
fn bounds(source: Source, pods: &[Pod]) -> Result<Option<Bounds>, Missing> {
    match source {
        Source::Counters | Source::Sums | Source::Compared | Source::Pairs => Ok(None),
        Source::Histogram(_) if pods.is_empty() => Err(Missing::NoSeries),
        Source::Histogram(threshold) => common_bounds(pods, threshold).map(Some).ok_or(Missing::NoBucket),
    }
}

/// The bounds that all pods with any buckets have: versions may be built with different ones.
fn common_bounds(pods: &[Pod], threshold: f64) -> Option<Bounds> {
    let histograms = pods.iter().map(|pod| match &pod.counters {
        Counters::Histogram(buckets) => buckets.as_slice(),
        Counters::Share { .. }
        | Counters::Mean { .. }
        | Counters::Paired { .. }
        | Counters::Compared { .. } => &[],
    });
    let mut histograms = histograms.filter(|buckets| !buckets.is_empty());
    let first = histograms.next()?;
    let others: Vec<&[Bucket]> = histograms.collect();
    let everywhere = |le: f64| {
        others.iter().all(|buckets| buckets.iter().any(|bucket| bucket.le.to_bits() == le.to_bits()))
    };
    Bounds::of(first.iter().map(|bucket| bucket.le).filter(|&le| everywhere(le)), threshold)
}
