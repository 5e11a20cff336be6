//! Raw series as they are judged: those that were answered, and what their server leaves unsaid.
//!
//! Called by `observations`, `told` and `past`. A server that does not know its version has it put in here, and a counter that
//! is made with its first event is zero before: nothing after this has to know of either.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use anneal_crds::{
    ModelRollout,
    metric::{Absent, Form, Metric, Others},
    prometheus::VersionFrom,
};

use super::super::{
    draft::Draft,
    query::Question,
    reading::Answer,
    samples::RawSeries,
    scope::{self, ENVOY_CLUSTER},
    steps,
};

impl Draft<'_> {
    /// Raw samples; nothing where there was no such answer, which `told` explains.
    pub(super) fn series(&self, metric: &Metric, question: Question) -> Cow<'_, [RawSeries]> {
        let own = self.answered(metric, question);
        let ratio = match metric.source.form() {
            Form::Ratio(ratio) => Some(ratio),
            Form::Mean(_)
            | Form::Histogram(_)
            | Form::Value(_)
            | Form::Drift(_)
            | Form::Stability(_)
            | Form::Agreement(_)
            | Form::Paired(_) => None,
        };
        let absent = ratio.as_ref().map_or(Absent::Missing, |ratio| ratio.absent);
        let is_apart = ratio.is_some_and(|ratio| matches!(ratio.others, Others::Good(_)));
        let other = self.answered(metric, counterpart(question));
        let series = match (question, absent) {
            (Question::All | Question::PastAll, _) if is_apart => self.sum(own, other, absent),
            (_, Absent::Zero) => [self.filled(own, other), self.silent(own, other)].concat().into(),
            (_, Absent::Missing) => Cow::Borrowed(own),
        };
        match self.rollout.spec.prometheus.version_from {
            VersionFrom::Labels => series,
            VersionFrom::PodName | VersionFrom::EnvoyCluster => {
                series.iter().filter_map(|series| self.versioned(series)).collect()
            }
        }
    }

    fn answered(&self, metric: &Metric, question: Question) -> &[RawSeries] {
        match self.snapshot.answers.get(&(metric.name.clone(), question)) {
            Some(Answer::Matrix(series)) => series,
            Some(Answer::Vector(_) | Answer::Unreachable(_) | Answer::TooMuch(_)) | None => &[],
        }
    }

    /// All events of processes that count good and bad ones. What is zero adds nothing; where that may not be said, a process
    /// without good ones counts nothing.
    fn sum<'s>(&self, good: &[RawSeries], bad: &[RawSeries], absent: Absent) -> Cow<'s, [RawSeries]> {
        match absent {
            Absent::Zero => [self.filled(good, bad), self.filled(bad, good)].concat().into(),
            Absent::Missing => {
                let counted: BTreeSet<_> = good.iter().map(|series| self.target(series)).collect();
                let bad = bad.iter().filter(|series| counted.contains(&self.target(series)));
                good.iter().chain(bad).cloned().collect()
            }
        }
    }

    /// `own`, and zero wherever `other` was scraped from the same process before and after it. Samples that were not
    /// scraped together, as those of two Prometheus servers, do not say when that was.
    fn filled(&self, own: &[RawSeries], other: &[RawSeries]) -> Vec<RawSeries> {
        let scrapes = self.scrapes(other);
        let fill = |series: &RawSeries| match scrapes.get(&self.target(series)) {
            Some((_, times)) if series.samples.iter().all(|sample| times.contains(&sample.0)) => {
                with_zeros(series, times)
            }
            Some(_) | None => series.clone(),
        };
        own.iter().map(fill).collect()
    }

    /// A zero for each scrape of a process that has `other` alone.
    fn silent(&self, own: &[RawSeries], other: &[RawSeries]) -> Vec<RawSeries> {
        let known: BTreeSet<_> = own.iter().map(|series| self.target(series)).collect();
        let silent = self.scrapes(other).into_iter().filter(|(target, _)| !known.contains(target));
        let nothing = |(series, times): (&RawSeries, BTreeSet<i64>)| {
            let labels = series.labels.clone();
            with_zeros(&RawSeries { labels, samples: vec![], histograms: vec![] }, &times)
        };
        silent.map(|(_, scrapes)| nothing(scrapes)).collect()
    }

    /// When each process was scraped, and one of its series.
    fn scrapes<'s>(&self, series: &'s [RawSeries]) -> BTreeMap<Target<'s>, (&'s RawSeries, BTreeSet<i64>)> {
        let mut scrapes = BTreeMap::<_, (&RawSeries, BTreeSet<i64>)>::new();
        for series in series {
            let times = series.samples.iter().map(|sample| sample.0);
            scrapes.entry(self.target(series)).or_insert_with(|| (series, BTreeSet::new())).1.extend(times);
        }
        scrapes
    }

    /// Labels of one scraped process, or of one cluster in an Envoy: what it exports, it exports at once.
    fn target<'s>(&self, series: &'s RawSeries) -> Target<'s> {
        let pod = self.rollout.spec.prometheus.pod_label.as_str();
        ["namespace", pod, "container", "instance", "job", "endpoint", ENVOY_CLUSTER]
            .iter()
            .map(|name| series.labels.get(*name))
            .collect()
    }

    /// With the version that its pod's name or its cluster's says; nothing for one of neither version. What the server itself
    /// calls a version goes by another name.
    fn versioned(&self, series: &RawSeries) -> Option<RawSeries> {
        let prometheus = &self.rollout.spec.prometheus;
        let (stable, previous) = (&self.status.stable, &self.status.previous);
        let mut versions = steps::on_trial(&self.status).into_iter().chain(stable).chain(previous);
        let mut named = |label: &str, prefix: fn(&ModelRollout, &str) -> String| {
            let name = series.labels.get(label)?;
            versions.find(|version| name.starts_with(&prefix(self.rollout, &version.version)))
        };
        let version = match prometheus.version_from {
            VersionFrom::Labels => None,
            VersionFrom::PodName => named(&prometheus.pod_label, scope::pod_prefix),
            VersionFrom::EnvoyCluster => named(ENVOY_CLUSTER, scope::envoy_cluster),
        }?;
        let mut series = series.clone();
        let own = series.labels.insert(prometheus.version_label.clone(), version.version.clone());
        let renamed = own.map(|own| (format!("exported_{}", prometheus.version_label), own));
        series.labels.extend(renamed);
        Some(series)
    }
}

type Target<'s> = Vec<Option<&'s String>>;

/// The other counter of a ratio.
const fn counterpart(question: Question) -> Question {
    match question {
        Question::Events => Question::All,
        Question::All => Question::Events,
        Question::PastEvents => Question::PastAll,
        Question::PastAll => Question::PastEvents,
        Question::Reading | Question::Baseline | Question::Left => question,
    }
}

fn with_zeros(series: &RawSeries, times: &BTreeSet<i64>) -> RawSeries {
    let mut samples: BTreeMap<i64, f64> = times.iter().map(|at| (*at, 0.0)).collect();
    samples.extend(series.samples.iter().copied());
    RawSeries { samples: samples.into_iter().collect(), ..series.clone() }
}
