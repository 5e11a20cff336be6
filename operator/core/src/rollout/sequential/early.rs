//! Early: whether the data plane follows a new weight, before the first tick at that weight has ended.
//!
//! A tick may last a minute, and the one in which the weight changed tells nothing. Until the traffic split has counted, the raw samples
//! since the data plane took the weights are compared with the share before.

use anneal_crds::{VersionRef, Weight};

use super::{
    Comparison,
    policy::{self, Judged},
};
use crate::{
    judge::samples::{Arm, Counter, Counters, Pod, Sample},
    rollout::{
        draft::Draft,
        query::{Question, counts_requests},
        shares::{self, Split},
        steps,
    },
};

impl Draft<'_> {
    /// Whether requests surely are divided as they were before, or the version on trial is not counted.
    pub(super) fn goes_on_as_before(&mut self, trial: &VersionRef, comparison: &Comparison) -> Split {
        let Some((_, weight)) = shares::divided(&self.status) else { return Split::AsAsked };
        if comparison.record.state.split.is_of(shares::share(weight)) {
            return Split::AsAsked;
        }
        let Some((own, rest)) = self.counted_since_the_switch(trial, weight) else {
            return self.split_unread();
        };
        let split = shares::split(self.rollout, weight, own, rest);
        if let Some(own) = own.filter(|_| split == Split::Otherwise) {
            self.keep_observed(own, rest, true);
        }
        split
    }

    /// Requests of the version on trial, if it has counters, and of the other one.
    fn counted_since_the_switch(&self, trial: &VersionRef, weight: Weight) -> Option<(Option<u64>, u64)> {
        let age = self.accepted_age().filter(|_| self.traffic_accepted())?;
        let counted = shares::counted_for(self.rollout, weight, age)?;
        let counted_ms = i64::try_from(counted.as_millis()).unwrap_or(i64::MAX);
        let from_ms = self.snapshot.now.as_millisecond().saturating_sub(counted_ms);
        let triggers = steps::triggers(&self.rollout.spec, &self.status);
        let judged = policy::judged(&self.rollout.spec);
        let counts =
            |judged: &&Judged<'_>| triggers.contains(&judged.metric.name) && counts_requests(judged.metric);
        let Judged { metric, source, .. } = judged.iter().find(counts)?;
        let (events, all) = (self.series(metric, Question::Events), self.series(metric, Question::All));
        let pods = self.labels(trial).pods(*source, &events, &all);
        let is_counted = pods.iter().any(|pod| pod.arm == Arm::Candidate);
        let risen = pods.iter().map(|pod| Some((pod.arm, Risen::of(pod, from_ms)?)));
        let risen: Vec<(Arm, Risen)> = if is_counted {
            risen.collect::<Option<_>>()?
        } else {
            // What is known of some is enough to know that somebody is asked.
            risen.flatten().collect()
        };
        // Whoever was scraped over a longer time has risen by more.
        let common = risen.iter().map(|(_, risen)| risen.span_ms).min().unwrap_or(0) as f64;
        let of = |arm: Arm| -> u64 {
            let own = risen.iter().filter(|(whose, _)| *whose == arm);
            own.map(|(_, risen)| risen.requests * common / risen.span_ms as f64).sum::<f64>().round() as u64
        };
        let rest = of(Arm::Stable);
        // Where nobody has a counter, nobody knows anything.
        (is_counted || rest > 0).then(|| (is_counted.then(|| of(Arm::Candidate)), rest))
    }
}

/// Samples between which a pod's requests come nearly evenly.
const FEWEST_SAMPLES: usize = 3;

/// What a pod has answered between its first and its last sample.
struct Risen {
    requests: f64,
    span_ms: i64,
}

impl Risen {
    /// From samples at `from_ms` on; none of a pod that was not scraped often enough.
    fn of(pod: &Pod, from_ms: i64) -> Option<Self> {
        let counters: Vec<&Counter> = match &pod.counters {
            Counters::Share { all, .. } | Counters::Mean { count: all, .. } => all.iter().collect(),
            Counters::Histogram(buckets) => buckets
                .iter()
                .filter(|bucket| bucket.le.is_infinite())
                .map(|bucket| &bucket.counter)
                .collect(),
            Counters::Paired { .. } | Counters::Compared { .. } => vec![],
        };
        let seen: Vec<Vec<&Sample>> = counters
            .iter()
            .map(|counter| {
                counter.iter().filter(|sample| sample.at_ms >= from_ms && sample.value.is_finite()).collect()
            })
            .collect();
        let longest = seen.iter().max_by_key(|samples| samples.len())?;
        let (first, last) = (longest.first()?.at_ms, longest.last()?.at_ms);
        let rose = |samples: &Vec<&Sample>| -> f64 {
            samples.windows(2).map(|pair| (pair[1].value - pair[0].value).max(0.0)).sum()
        };
        let requests = seen.iter().map(rose).sum();
        (longest.len() >= FEWEST_SAMPLES && last > first).then(|| Self { requests, span_ms: last - first })
    }
}
