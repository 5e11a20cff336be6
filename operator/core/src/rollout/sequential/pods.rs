//! From raw series to the pods that the judge counts by.

use std::collections::{BTreeMap, BTreeSet};

use anneal_crds::{VersionRef, contract::Alone, names, prometheus::Prometheus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::{
    super::{agreement, samples::RawSeries},
    native,
};
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
    /// What a ready pod is that no series names.
    pub(super) absent: Absent,
}

/// What a ready pod is that no series names, while they name others of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// One that was not scraped.
    NotScraped,
    /// One that may not have had a request yet: if it had, the split of requests would show it.
    Quiet,
}

/// A pod one of whose counters is scraped through two targets at once, and so is counted twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Twice {
    pub(super) pod: String,
    /// The labels in which the targets differ.
    pub(super) labels: Vec<&'static str>,
    /// Until when it was so, in milliseconds since the epoch.
    pub(super) until_ms: i64,
}

/// Labels that say through which target a series was scraped, and nothing about what it counts.
const TARGET: [&str; 3] = ["endpoint", "instance", "job"];

/// What tells the counters of one pod apart.
type Name<'s> = Vec<(&'s str, &'s str)>;

impl<'a> Labels<'a> {
    /// One pod each, with its counters of `events` and `all`, which is empty where the events are buckets; of a mean, the
    /// sums and the counts. A ready pod that is in no series may be one without any.
    pub(super) fn pods(self, source: judge::Source, events: &[RawSeries], all: &[RawSeries]) -> Vec<Pod> {
        let mut found: BTreeMap<(&str, &str), Counters> = BTreeMap::new();
        for (series, is_all) in [(events, false), (all, true)] {
            let twice = self.twice(series);
            for (index, one) in series.iter().enumerate() {
                let Some(key) = self.whose(one) else { continue };
                let counters = found.entry(key).or_insert_with(|| none(source));
                match twice.get(&index) {
                    None => add(counters, source, one, is_all),
                    Some((from_ms, twice)) => {
                        add(counters, source, &spoilt(one, *from_ms, twice.until_ms), is_all);
                    }
                }
            }
        }
        match self.absent {
            Absent::NotScraped => {
                let absent = self.absent(&found);
                found.extend(absent.into_iter().map(|key| (key, none(source))));
            }
            Absent::Quiet => {}
        }
        found.into_iter().map(|((version, pod), counters)| self.pod(version, pod, counters)).collect()
    }

    /// The pod of `version` that was counted twice last, if one was.
    pub(super) fn counted_twice(self, series: &[RawSeries], version: &str) -> Option<Twice> {
        let is_of = |index: &usize| {
            series.get(*index).and_then(|series| self.label(series, &self.prometheus.version_label))
                == Some(version)
        };
        let twice = self.twice(series).into_iter().filter(|(index, _)| is_of(index));
        twice.map(|(_, (_, twice))| twice).max_by(|a, b| (a.until_ms, &b.pod).cmp(&(b.until_ms, &a.pod)))
    }

    /// Series whose counter another series of the same pod has too, by their place, and since when. Series that follow each
    /// other in time are of one target that was renamed.
    fn twice(self, series: &[RawSeries]) -> BTreeMap<usize, (i64, Twice)> {
        let mut seen: BTreeMap<Name<'_>, Vec<&RawSeries>> = BTreeMap::new();
        let mut found = BTreeMap::new();
        for (index, one) in series.iter().enumerate() {
            // Without its label nobody knows which pod it is.
            let Some(pod) = self.label(one, &self.prometheus.pod_label) else { continue };
            let labels = one.labels.iter().filter(|(name, _)| !TARGET.contains(&name.as_str()));
            let others = seen
                .entry(labels.map(|(name, value)| (name.as_str(), value.as_str())).collect())
                .or_default();
            let overlap = others.iter().find_map(|other| Some((*other, overlap(other, one)?)));
            if let Some((other, (from_ms, until_ms))) = overlap {
                let differs = |name: &&str| other.labels.get(*name) != one.labels.get(*name);
                let labels = TARGET.into_iter().filter(differs).collect();
                found.insert(index, (from_ms, Twice { pod: pod.to_owned(), labels, until_ms }));
            }
            others.push(one);
        }
        found
    }

    /// Ready pods of the versions whose pods series name, without those that they name.
    fn absent<'s>(self, found: &BTreeMap<(&'s str, &'s str), Counters>) -> Vec<(&'s str, &'s str)>
    where
        'a: 's,
    {
        let versions: BTreeSet<&'s str> = found.keys().map(|(version, _)| *version).collect();
        let absent = |version: &'s str| {
            let (named, absent): (Vec<_>, Vec<_>) =
                self.ready(version).partition(|pod| found.contains_key(&(version, *pod)));
            // Series that name no pod are of all of them.
            let absent = if named.is_empty() { vec![] } else { absent };
            absent.into_iter().map(move |pod| (version, pod))
        };
        versions.into_iter().flat_map(absent).collect()
    }

    /// The ready pods of a version, by name; not those that are on their way out.
    fn ready(self, version: &str) -> impl Iterator<Item = &'a str> {
        let is_of = move |pod: &&core::Pod| {
            let labels = pod.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(names::LABEL_VERSION)).is_some_and(|label| label == version)
        };
        let stays = |pod: &&core::Pod| pod.metadata.deletion_timestamp.is_none() && ready(pod).is_some();
        self.pods.iter().filter(is_of).filter(stays).filter_map(|pod| pod.metadata.name.as_deref())
    }

    fn label(self, series: &'a RawSeries, name: &str) -> Option<&'a str> {
        series.labels.get(name).map(String::as_str)
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

/// From when to when both series have samples.
fn overlap(one: &RawSeries, other: &RawSeries) -> Option<(i64, i64)> {
    let from_ms = first(one)?.max(first(other)?);
    let until_ms = last(one)?.min(last(other)?);
    (from_ms <= until_ms).then_some((from_ms, until_ms))
}

/// `series` with no number where it counts what another one has counted: ticks with such a sample are left out.
fn spoilt(series: &RawSeries, from_ms: i64, until_ms: i64) -> RawSeries {
    let mut spoilt = series.clone();
    let counted = |at_ms: i64| (from_ms..=until_ms).contains(&at_ms);
    for (_, value) in spoilt.samples.iter_mut().filter(|(at_ms, _)| counted(*at_ms)) {
        *value = f64::NAN;
    }
    for (_, histogram) in spoilt.histograms.iter_mut().filter(|(at_ms, _)| counted(*at_ms)) {
        histogram.count = f64::NAN;
    }
    spoilt
}

/// When a pod's model server started: its counters began with it. Other containers count nothing.
fn started(pod: &core::Pod) -> Option<Timestamp> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let server = containers.iter().find(|container| container.name == names::SERVING_CONTAINER)?;
    server.state.as_ref()?.running.as_ref()?.started_at.as_ref().map(|time| time.0)
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
        judge::Source::Sums => Counters::Mean { sum: vec![], count: vec![] },
        judge::Source::Compared => Counters::Compared { candidate: vec![], stable: vec![], all: vec![] },
        judge::Source::Pairs => Counters::Paired { lost: vec![], won: vec![], all: vec![] },
        judge::Source::Histogram(_) => Counters::Histogram(vec![]),
    }
}

fn add(counters: &mut Counters, source: judge::Source, series: &RawSeries, is_all: bool) {
    match (counters, source) {
        (Counters::Share { all, .. }, _) if is_all => all.push(counter(series)),
        (Counters::Share { events, .. }, _) => events.push(counter(series)),
        (Counters::Mean { count, .. }, _) if is_all => count.push(counter(series)),
        (Counters::Mean { sum, .. }, _) => sum.push(counter(series)),
        (Counters::Histogram(buckets), judge::Source::Histogram(threshold)) => {
            if let Some(le) = series.labels.get("le").and_then(|le| le.parse().ok()) {
                buckets.push(Bucket { le, counter: counter(series) });
            }
            if !series.histograms.is_empty() {
                buckets.extend(native::buckets(&series.histograms, threshold));
            }
        }
        (Counters::Compared { all, .. }, _) if is_all => all.push(counter(series)),
        (Counters::Compared { candidate, stable, .. }, _) => match agreement::who(series) {
            Some(Alone::Candidate) => candidate.push(counter(series)),
            Some(Alone::Stable) => stable.push(counter(series)),
            None => {}
        },
        (Counters::Paired { all, .. }, _) if is_all => all.push(counter(series)),
        (Counters::Paired { lost, won, .. }, _) => match agreement::who(series) {
            Some(Alone::Stable) => lost.push(counter(series)),
            Some(Alone::Candidate) => won.push(counter(series)),
            None => {}
        },
        // Made by `none` for the very same source.
        (
            Counters::Histogram(_),
            judge::Source::Counters | judge::Source::Sums | judge::Source::Compared | judge::Source::Pairs,
        ) => {}
    }
}

fn counter(series: &RawSeries) -> Counter {
    series.samples.iter().map(|&(at_ms, value)| Sample { at_ms, value }).collect()
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

fn first(series: &RawSeries) -> Option<i64> {
    let plain = series.samples.first().map(|sample| sample.0);
    plain.into_iter().chain(series.histograms.first().map(|sample| sample.0)).min()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn only_the_model_servers_container_makes_a_pod_young() {
        let container = |name: &str, at: &str| {
            json!({"name": name, "image": "", "imageID": "", "ready": true, "restartCount": 1,
                "state": {"running": {"startedAt": at}}})
        };
        let pod = |containers: serde_json::Value| -> core::Pod {
            from_value(json!({"metadata": {"name": "p"}, "status": {"containerStatuses": containers}}))
                .unwrap()
        };
        let (old, young) = ("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z");
        let sidecar = pod(json!([container("istio-proxy", young), container("server", old)]));
        assert_eq!(started(&sidecar), Some(old.parse().unwrap()));
        let server = pod(json!([container("istio-proxy", old), container("server", young)]));
        assert_eq!(started(&server), Some(young.parse().unwrap()));
        assert_eq!(started(&pod(json!([container("istio-proxy", young)]))), None);
    }
}
