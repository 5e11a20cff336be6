//! From raw series to the pods that the judge counts by.

use std::collections::BTreeMap;

use anneal_crds::{VersionRef, prometheus::Prometheus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::super::samples::{NativeHistogram, RawSeries};
use crate::judge::{
    self,
    samples::{Arm, Bucket, Counter, Counters, Pod, Sample},
};

/// How series say whose they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels<'a> {
    pub(super) prometheus: &'a Prometheus,
    pub(super) candidate: &'a VersionRef,
    /// Pods as the API server knows them; those of any version.
    pub(super) pods: &'a [core::Pod],
}

impl<'a> Labels<'a> {
    /// One pod each, with its counters of `events` and `all`, which is empty where the events are buckets.
    pub(super) fn pods(self, source: judge::Source, events: &[RawSeries], all: &[RawSeries]) -> Vec<Pod> {
        let mut found: BTreeMap<(&str, &str), Counters> = BTreeMap::new();
        for (series, is_all) in
            events.iter().map(|series| (series, false)).chain(all.iter().map(|series| (series, true)))
        {
            let Some((version, pod)) = self.whose(series) else { continue };
            let counters = found.entry((version, pod)).or_insert_with(|| none(source));
            add(counters, source, series, is_all);
        }
        found.into_iter().map(|((version, pod), counters)| self.pod(version, pod, counters)).collect()
    }

    fn whose(self, series: &RawSeries) -> Option<(&str, &str)> {
        let label = |name: &str| series.labels.get(name).map(String::as_str);
        let version = label(&self.prometheus.version_label)?;
        Some((version, label(&self.prometheus.pod_label).or_else(|| label("instance")).unwrap_or_default()))
    }

    fn pod(self, version: &str, name: &str, counters: Counters) -> Pod {
        let known = self.pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
        let arm = if version == self.candidate.version { Arm::Candidate } else { Arm::Stable };
        Pod {
            arm,
            started_ms: known.and_then(started).map(Timestamp::as_millisecond),
            ready_ms: known.and_then(ready).map(Timestamp::as_millisecond),
            counters,
        }
    }
}

/// When the youngest of a pod's processes started: counters of an older one began anew with it.
fn started(pod: &core::Pod) -> Option<Timestamp> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let running = containers.iter().filter_map(|container| container.state.as_ref()?.running.as_ref());
    running.filter_map(|running| running.started_at.as_ref()).map(|time| time.0).max()
}

fn ready(pod: &core::Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready =
        conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

fn none(source: judge::Source) -> Counters {
    match source {
        judge::Source::Counters => Counters::Share { events: vec![], all: vec![] },
        judge::Source::Histogram(_) => Counters::Histogram(vec![]),
    }
}

fn add(counters: &mut Counters, source: judge::Source, series: &RawSeries, is_all: bool) {
    match (counters, source) {
        (Counters::Share { all, .. }, _) if is_all => all.push(counter(series)),
        (Counters::Share { events, .. }, _) => events.push(counter(series)),
        (Counters::Histogram(buckets), judge::Source::Histogram(threshold)) => {
            if let Some(le) = series.labels.get("le").and_then(|le| le.parse().ok()) {
                buckets.push(Bucket { le, counter: counter(series) });
            }
            if !series.histograms.is_empty() {
                buckets.extend(native(&series.histograms, threshold));
            }
        }
        // Made by `none` for the very same source.
        (Counters::Histogram(_), judge::Source::Counters)
        | (Counters::Mean { .. } | Counters::Paired { .. }, _) => {}
    }
}

fn counter(series: &RawSeries) -> Counter {
    series.samples.iter().map(|&(at_ms, value)| Sample { at_ms, value }).collect()
}

/// A native histogram as three classic buckets. An answer leaves out empty buckets, so their bounds change from sample to
/// sample; what is surely below the threshold and what may be does not.
fn native(samples: &[(i64, NativeHistogram)], threshold: f64) -> [Bucket; 3] {
    let bucket = |le: f64, counted: &dyn Fn(&NativeHistogram) -> f64| Bucket {
        le,
        counter: samples
            .iter()
            .map(|(at_ms, histogram)| Sample { at_ms: *at_ms, value: counted(histogram) })
            .collect(),
    };
    let sum = |histogram: &NativeHistogram, fast: &dyn Fn(f64, f64) -> bool| {
        let fast = histogram.buckets.iter().filter(|bucket| fast(bucket.lower, bucket.upper));
        fast.map(|bucket| bucket.count).sum()
    };
    [
        bucket(threshold.next_down(), &|histogram| sum(histogram, &|_, upper| upper <= threshold)),
        bucket(threshold.next_up(), &|histogram| sum(histogram, &|lower, _| lower < threshold)),
        bucket(f64::INFINITY, &|histogram| histogram.count),
    ]
}

/// The newest sample of any of these series, in milliseconds since the epoch.
pub(super) fn newest<'s>(series: impl Iterator<Item = &'s RawSeries>) -> Option<i64> {
    scraped(series).map(|(_, newest)| newest)
}

/// The last sample of the series that was scraped least recently, and of the one that was most recently.
pub(super) fn scraped<'s>(series: impl Iterator<Item = &'s RawSeries>) -> Option<(i64, i64)> {
    series.filter_map(last).fold(None, |seen, at| {
        let (slowest, newest) = seen.unwrap_or((at, at));
        Some((slowest.min(at), newest.max(at)))
    })
}

fn last(series: &RawSeries) -> Option<i64> {
    let plain = series.samples.last().map(|sample| sample.0);
    plain.max(series.histograms.last().map(|sample| sample.0))
}
