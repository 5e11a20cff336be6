//! Raw series as they are judged: those that were answered, and what their server leaves unsaid.
//!
//! Called by `observations`, `told` and `past`. A server that does not know its version has it put in here, and a counter that
//! is made with its first event is zero before: nothing after this has to know of either.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use anneal_crds::{
    metric::{Absent, Form, Metric, Others},
    prometheus::VersionFrom,
};

use super::super::{draft::Draft, query::Question, reading::Answer, samples::RawSeries, scope, steps};

impl Draft<'_> {
    /// Raw samples; nothing where there was no such answer, which `told` explains.
    pub(super) fn series(&self, metric: &Metric, question: Question) -> Cow<'_, [RawSeries]> {
        let own = self.answered(metric, question);
        let ratio = match metric.source.form() {
            Form::Ratio(ratio) => Some(ratio),
            Form::Histogram(_) | Form::Value(_) | Form::Drift(_) | Form::Stability(_) => None,
        };
        let absent = ratio.as_ref().map_or(Absent::Missing, |ratio| ratio.absent);
        let is_apart = ratio.is_some_and(|ratio| matches!(ratio.others, Others::Good(_)));
        let series = match (counterpart(question), absent) {
            (counterpart, _) if is_apart && counterpart.is_bad => {
                let bad = self.answered(metric, counterpart.question);
                [completed(own, bad, absent), completed(bad, own, absent)].concat().into()
            }
            (counterpart, Absent::Zero) => {
                completed(own, self.answered(metric, counterpart.question), absent)
            }
            (_, Absent::Missing) => Cow::Borrowed(own),
        };
        match self.rollout.spec.prometheus.version_from {
            VersionFrom::Labels => series,
            VersionFrom::PodName => series.iter().filter_map(|series| self.versioned(series)).collect(),
        }
    }

    fn answered(&self, metric: &Metric, question: Question) -> &[RawSeries] {
        match self.snapshot.answers.get(&(metric.name.clone(), question)) {
            Some(Answer::Matrix(series)) => series,
            Some(Answer::Vector(_) | Answer::Unreachable(_) | Answer::TooMuch(_)) | None => &[],
        }
    }

    /// With the version that its pod's name says; nothing for a pod of neither version.
    fn versioned(&self, series: &RawSeries) -> Option<RawSeries> {
        let prometheus = &self.rollout.spec.prometheus;
        let pod = series.labels.get(&prometheus.pod_label)?;
        let mut versions = steps::on_trial(&self.status).into_iter().chain(&self.status.stable);
        let version = versions.find(|version| pod.starts_with(&scope::pod_prefix(self.rollout, version)))?;
        let mut series = series.clone();
        series.labels.insert(prometheus.version_label.clone(), version.version.clone());
        Some(series)
    }
}

/// The other counter of a ratio.
struct Counterpart {
    question: Question,
    is_bad: bool,
}

const fn counterpart(question: Question) -> Counterpart {
    let (question, is_bad) = match question {
        Question::Events => (Question::All, false),
        Question::All => (Question::Events, true),
        Question::PastEvents => (Question::PastAll, false),
        Question::PastAll => (Question::PastEvents, true),
        Question::Reading | Question::Baseline => (question, false),
    };
    Counterpart { question, is_bad }
}

/// Labels of one scraped process: what it exports, it exports at once.
const TARGET: [&str; 6] = ["namespace", "pod", "container", "instance", "job", "endpoint"];

fn target(series: &RawSeries) -> Vec<Option<&String>> {
    TARGET.iter().map(|name| series.labels.get(*name)).collect()
}

/// `own`, and zero wherever `other` was scraped from the same process and it was not.
fn completed<'s>(own: &'s [RawSeries], other: &[RawSeries], absent: Absent) -> Cow<'s, [RawSeries]> {
    match absent {
        Absent::Missing => return Cow::Borrowed(own),
        Absent::Zero => {}
    }
    let mut scrapes = BTreeMap::<_, (&RawSeries, BTreeSet<i64>)>::new();
    for series in other {
        let times = series.samples.iter().map(|sample| sample.0);
        scrapes.entry(target(series)).or_insert_with(|| (series, BTreeSet::new())).1.extend(times);
    }
    let filled = own.iter().map(|series| match scrapes.get(&target(series)) {
        Some((_, times)) => with_zeros(series, times),
        None => series.clone(),
    });
    let own_targets: BTreeSet<_> = own.iter().map(target).collect();
    let silent = scrapes.iter().filter(|(target, _)| !own_targets.contains(*target));
    let nothing =
        |series: &RawSeries| RawSeries { labels: series.labels.clone(), samples: vec![], histograms: vec![] };
    filled.chain(silent.map(|(_, (series, times))| with_zeros(&nothing(series), times))).collect()
}

fn with_zeros(series: &RawSeries, times: &BTreeSet<i64>) -> RawSeries {
    let mut samples: BTreeMap<i64, f64> = times.iter().map(|at| (*at, 0.0)).collect();
    samples.extend(series.samples.iter().copied());
    RawSeries { samples: samples.into_iter().collect(), ..series.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(pod: &str, code: &str, samples: &[(i64, f64)]) -> RawSeries {
        let labels = [("pod", pod), ("code", code)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        RawSeries { labels: labels.into(), samples: samples.to_vec(), histograms: vec![] }
    }

    #[test]
    fn a_counter_is_zero_at_scrapes_that_did_not_have_it() {
        let all = [series("a", "200", &[(1, 5.0), (2, 6.0), (3, 7.0)]), series("b", "200", &[(1, 9.0)])];
        let bad = [series("a", "500", &[(2, 1.0)]), series("c", "500", &[(4, 3.0)])];
        let completed = completed(&bad, &all, Absent::Zero);
        assert_eq!(
            completed.into_owned(),
            [
                series("a", "500", &[(1, 0.0), (2, 1.0), (3, 0.0)]),
                series("c", "500", &[(4, 3.0)]),
                series("b", "200", &[(1, 0.0)]),
            ]
        );
    }

    #[test]
    fn what_is_missing_stays_so_unless_asked_for() {
        let all = [series("a", "200", &[(1, 5.0)])];
        assert_eq!(completed(&[], &all, Absent::Missing).into_owned(), []);
    }
}
