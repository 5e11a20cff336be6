//! What a comparison says, for people and for the step: one verdict for each trigger, and one for all.

use anneal_crds::{
    VersionRef,
    common::shorten,
    metric::{Form, Mean, MeanBound, Metric, MissingClass},
    model_rollout::{RecordedReading, RolloutPhase},
};

use super::{
    super::{
        draft::Draft,
        labels,
        query::{has_stable_arm, is_compared, without_ranges},
        reading::{self, Answer, CLOCK_TOLERANCE_MS, MAX_QUERY, Verdict, four_digits, two_digits},
        samples::RawSeries,
        step::StepSays,
        steps::{self, Terms},
    },
    Comparison, Unable, fewest, pods,
    pods::Twice,
    policy,
    queries::{self, NOW, control},
    record::Range,
};
use crate::judge::{self, Estimate, Hold, MetricState, TestName};

impl Draft<'_> {
    /// The verdict of every trigger of the step.
    pub(super) fn tell(
        &self,
        trial: &VersionRef,
        range: Range,
        comparison: Result<&Comparison, &Unable>,
    ) -> Vec<(Verdict, RecordedReading)> {
        let spec = &self.rollout.spec;
        let queries = queries::of_now(self.rollout, &self.status, trial, range);
        let one = |trigger: &String| {
            let Some(metric) = spec.metrics.iter().find(|metric| metric.name == *trigger) else {
                return reading::undefined(trigger);
            };
            if !is_compared(metric) {
                return self.read_plainly(trial, metric);
            }
            let first = queries.iter().find(|query| query.metric == *trigger);
            let query = first.map_or("", |query| query.expression.as_str());
            let asked = without_ranges(query);
            let (asked, query) = (shorten(&asked, MAX_QUERY), shorten(query, MAX_QUERY));
            let readable = self.readable(metric, trial, range, comparison.ok());
            let hold = |class, why: &str| {
                Verdict::Hold(class, format!("{why} ({}: {asked})", spec.prometheus.server()))
            };
            let verdict = match (readable, comparison) {
                // What was shown before samples went missing is shown.
                (_, Ok(comparison)) if comparison.breaches(trigger) => Verdict::Breach,
                (Err((class, why)), _) => hold(class, &why),
                (Ok(()), Err(Unable::Unread(why))) => Verdict::Hold(MissingClass::Error, why.clone()),
                (Ok(()), Err(Unable::NotYet(_))) => Verdict::Pass { step_requests: Some(0.0) },
                (Ok(()), Ok(comparison)) => match comparison.countable(trigger) {
                    Ok(requests) => Verdict::Pass { step_requests: Some(requests) },
                    Err((class, why)) => hold(class, why),
                },
            };
            let verdict = self.with_labels(metric, verdict);
            let value = match (&verdict, comparison) {
                (Verdict::Hold(class, _), _) => class.name().to_owned(),
                (Verdict::Pass { .. } | Verdict::Breach | Verdict::AwaitsLabels(_), Ok(comparison)) => {
                    comparison.value_of(metric)
                }
                (Verdict::Pass { .. } | Verdict::Breach | Verdict::AwaitsLabels(_), Err(_)) => {
                    "not compared yet".to_owned()
                }
            };
            let record = RecordedReading {
                metric: trigger.clone(),
                verdict: reading::name(&verdict).to_owned(),
                value,
                bound: self.bound(metric),
                query: query.into_owned(),
            };
            (verdict, record)
        };
        steps::triggers(spec, &self.status).iter().map(one).collect()
    }

    fn bound(&self, metric: &Metric) -> String {
        if let Some(bound) = self.bound_in_experiment(metric) {
            return bound;
        }
        let own = reading::bound(&metric.source);
        if control(&self.status).is_none() {
            return own;
        }
        match metric.source.form() {
            Form::Mean(Mean { bound: MeanBound::Max(_), margin: Some(margin), .. }) => {
                format!("{own}, stable + {margin}")
            }
            Form::Mean(Mean { bound: MeanBound::Min(_), margin: Some(margin), .. }) => {
                format!("{own}, stable - {margin}")
            }
            Form::Mean(Mean { margin: None, .. }) => own,
            Form::Agreement(_) | Form::Paired(_) => own,
            Form::Ratio(_) | Form::Histogram(_) | Form::Value(_) | Form::Drift(_) | Form::Stability(_) => {
                format!("{own}, {} x stable", policy::terms(&self.rollout.spec).tolerance)
            }
        }
    }

    /// Whether there are fresh samples of everything that the metric needs; else why not.
    fn readable(
        &self,
        metric: &Metric,
        trial: &VersionRef,
        range: Range,
        comparison: Option<&Comparison>,
    ) -> Result<(), (MissingClass, String)> {
        let counted = comparison.is_some_and(|comparison| comparison.has_counted(&metric.name));
        for (question, _) in queries::selectors(metric, NOW) {
            match self.snapshot.answers.get(&(metric.name.clone(), question)) {
                Some(Answer::Matrix(_)) | None => {}
                Some(Answer::Vector(_)) => {
                    return Err((MissingClass::Error, "numbers instead of raw samples".to_owned()));
                }
                Some(Answer::Unreachable(why)) => {
                    return Err((MissingClass::Error, format!("Prometheus did not answer: {why}")));
                }
                Some(Answer::TooMuch(why)) => {
                    let then = if range.can_be_halved() {
                        "; it is asked for half as much next"
                    } else {
                        ", and less cannot be asked for"
                    };
                    return Err((MissingClass::Error, format!("Prometheus did not answer: {why}{then}")));
                }
            }
            let series = &self.series(metric, question);
            let beside = control(&self.status).filter(|_| has_stable_arm(metric));
            for (version, whose) in
                [(Some(trial), "this version"), (beside, "the stable version, to compare with")]
            {
                if let Some(version) = version {
                    self.is_fresh(series, version, whose, range, counted)?;
                    self.is_counted_once(series, trial, version, range)?;
                }
            }
        }
        Ok(())
    }

    fn is_fresh(
        &self,
        series: &[RawSeries],
        version: &VersionRef,
        whose: &str,
        range: Range,
        counted: bool,
    ) -> Result<(), (MissingClass, String)> {
        let prometheus = &self.rollout.spec.prometheus;
        let of_version = series
            .iter()
            .filter(|series| series.labels.get(&prometheus.version_label) == Some(&version.version));
        match pods::newest(of_version) {
            // No more is read than is needed, so a sample that is too old may not even be there.
            None if counted => Err((MissingClass::Stale, format!("the samples of {whose} have ended"))),
            None => Err((MissingClass::NoData, format!("no data for {whose}"))),
            // It was not scraped, and would stay fresh for ever.
            Some(at) if at > self.snapshot.now.as_millisecond() + CLOCK_TOLERANCE_MS => {
                Err((MissingClass::Error, format!("a sample of {whose} is of the future")))
            }
            Some(at) if range.until_ms.saturating_sub(at) > prometheus.stale_after.as_millis() => {
                Err((MissingClass::Stale, format!("the newest sample of {whose} is too old")))
            }
            Some(_) => Ok(()),
        }
    }

    fn is_counted_once(
        &self,
        series: &[RawSeries],
        trial: &VersionRef,
        version: &VersionRef,
        range: Range,
    ) -> Result<(), (MissingClass, String)> {
        let stale_after_ms = self.rollout.spec.prometheus.stale_after.as_millis();
        let twice = self.labels(trial).counted_twice(series, &version.version);
        match twice.filter(|twice| range.until_ms.saturating_sub(twice.until_ms) <= stale_after_ms) {
            None => Ok(()),
            Some(Twice { pod, labels, .. }) => Err((
                MissingClass::Error,
                format!(
                    "pod {pod} is scraped twice, by targets that differ in {}: scrape it once, or name one of them in the metric's selectors",
                    labels.join(" and ")
                ),
            )),
        }
    }

    /// What follows for the step.
    pub(super) fn step_says(&self, comparison: &Comparison, terms: Option<&Terms>) -> StepSays {
        let waits = |why: &str| StepSays::Waits(why.to_owned());
        match &comparison.verdict {
            // What is known is not of this moment yet.
            judge::Verdict::Advance if comparison.range.is_behind() => {
                waits("the operator reads what it missed")
            }
            judge::Verdict::Advance => StepSays::Ends,
            judge::Verdict::Progressing => match self.wanting(comparison, terms) {
                Some(why) => StepSays::Waits(why),
                None => StepSays::GoesOn,
            },
            judge::Verdict::Lost => StepSays::RollsBack(self.lost(comparison)),
            judge::Verdict::NoWinner => StepSays::RollsBack(self.no_winner(comparison)),
            judge::Verdict::Rollback(rollback) => StepSays::RollsBack(match rollback.test {
                TestName::Duration => (
                    "Inconclusive",
                    "nothing was shown either way within judge.sequential.maxDuration".to_owned(),
                ),
                TestName::Relative
                | TestName::Absolute
                | TestName::Mean
                | TestName::Paired
                | TestName::Agreement => (
                    "ThresholdBreached",
                    format!("its {} was shown to be worse than tolerated", rollback.metric),
                ),
            }),
            judge::Verdict::Hold(hold) => match hold {
                // A shadow has no share that could be wrong, but copies that do not come.
                Hold::NoTraffic if comparison.stable_is_busy() => StepSays::Mismatched,
                Hold::NoTraffic => waits("nobody gets any requests, so the step's clock stands still"),
                // Its trigger says why.
                Hold::NoData { metric } => {
                    StepSays::Waits(format!("the samples of {metric} cannot be counted"))
                }
                Hold::TrafficSplitMismatch { .. } => StepSays::Mismatched,
                Hold::Inconclusive => waits(
                    "nothing is shown either way after judge.sequential.maxDuration. Promote or abort the candidate",
                ),
                Hold::UnknownSchema(_) | Hold::AnotherPolicy => {
                    waits("status.judge was written by another version of Anneal")
                }
            },
        }
    }

    /// What a step whose time is over still waits for.
    fn wanting(&self, comparison: &Comparison, terms: Option<&Terms>) -> Option<String> {
        let (terms, state) = (terms?, &comparison.record.state);
        if self.status.phase == RolloutPhase::Experiment {
            return comparison.keeps_from_winning(terms);
        }
        if comparison.judge.age(state) < terms.duration.as_millis() || state.step.index != self.step_index() {
            return None;
        }
        let mut asked = state.metrics.iter().filter(|metric| metric.asked);
        if let Some(metric) = asked.find(|metric| metric.blind > 0) {
            return Some(format!("the last samples of {} could not be counted", metric.name));
        }
        let asked = comparison.of_requests().filter(|metric| metric.asked);
        match asked.min_by_key(|metric| metric.step_requests) {
            Some(least) if least.step_requests < fewest(terms) => Some(too_few(least, fewest(terms))),
            // The metric itself says so.
            Some(_) | None if comparison.lacks_labels() => None,
            Some(_) | None => Some(
                "it is not shown yet that every metric is no worse than judge.sequential.nonInferiority allows"
                    .to_owned(),
            ),
        }
    }
}

/// Ticks whose samples make no sense after which people are told: no late scrape explains them.
const INVALID_AFTER: u32 = 2;
/// What there is to know where answers should have been compared.
const NOTHING_COMPARED: &str = "none of its answers was compared with the stable version's: anneal_serve_not_compared_total of its pods says why";

fn too_few(metric: &MetricState, fewest: u64) -> String {
    let (one, many) = if metric.compared.is_some() {
        ("answer was compared", "answers were compared")
    } else if metric.pairs.is_some() {
        ("label of a compared request came", "labels of compared requests came")
    } else {
        ("request was answered", "requests were answered")
    };
    match metric.step_requests {
        0 => format!("no {one} in this step"),
        _ => format!("fewer than {fewest} {many} in this step"),
    }
}

impl Comparison {
    /// Whether stable gets requests in this step, while the candidate gets none. What it had before a quiet night does not count.
    fn stable_is_busy(&self) -> bool {
        let state = &self.record.state;
        state.stable_idle < self.judge.policy().blind_after
            && (state.split.has_rest() || self.of_requests().any(|metric| metric.stable_requests > 0))
    }

    fn with_labels(&self) -> impl Iterator<Item = (&MetricState, Option<judge::Labels>)> {
        let labels = self.judge.policy().metrics.iter().map(|metric| metric.labels);
        self.record.state.metrics.iter().zip(labels)
    }

    /// Metrics whose events are requests, and not labels of them.
    fn of_requests(&self) -> impl Iterator<Item = &MetricState> {
        self.with_labels().filter(|(_, labels)| labels.is_none()).map(|(metric, _)| metric)
    }

    /// Whether some metric has too few labels of this step.
    fn lacks_labels(&self) -> bool {
        let lacks = |labels: judge::Labels, metric: &MetricState| metric.step_requests < labels.fewest;
        let mut asked = self.with_labels().filter(|(metric, _)| metric.asked);
        asked.any(|(metric, labels)| labels.is_some_and(|labels| lacks(labels, metric)))
    }

    fn breaches(&self, trigger: &str) -> bool {
        match &self.verdict {
            judge::Verdict::Rollback(rollback) => rollback.metric == trigger,
            judge::Verdict::Advance
            | judge::Verdict::Hold(_)
            | judge::Verdict::Progressing
            | judge::Verdict::Lost
            | judge::Verdict::NoWinner => false,
        }
    }

    fn has_counted(&self, trigger: &str) -> bool {
        self.of(trigger).any(|(metric, _)| metric.started > 0)
    }

    /// Fresh samples may be none that can be counted, for a while.
    fn countable(&self, trigger: &str) -> Result<f64, (MissingClass, &'static str)> {
        let blind = |metric: &&MetricState| {
            metric.blind >= self.judge.policy().blind_after || metric.invalid >= INVALID_AFTER
        };
        match self.of(trigger).map(|(metric, _)| metric).find(blind) {
            None => {
                let requests = self.of(trigger).map(|(metric, _)| metric.step_requests).min();
                Ok(requests.unwrap_or(0) as f64)
            }
            Some(metric) if metric.compared.is_some() && metric.invalid == 0 => {
                Err((MissingClass::NoData, NOTHING_COMPARED))
            }
            Some(metric) if metric.invalid > 0 => Err((
                MissingClass::Error,
                "its samples are not finite, fall below zero, or have more bad events than events",
            )),
            Some(_) => Err((
                MissingClass::NoData,
                "its samples cannot be counted: too few pods were scraped, or no bucket lies at or above the threshold",
            )),
        }
    }

    fn of<'a>(&'a self, trigger: &'a str) -> impl Iterator<Item = (&'a MetricState, Option<Estimate>)> {
        let all = self.judge.estimates(&self.record.state).zip(&self.asked);
        all.filter(move |((metric, _), asked)| **asked && metric.name == trigger).map(|(of, _)| of)
    }

    /// What people read: the share in this step and how many times stable's it is, or the mean and stable's.
    fn value_of(&self, metric: &Metric) -> String {
        let events = labels::events(metric);
        let Some((metric, estimate)) = self.of(&metric.name).next() else { return "not compared".to_owned() };
        if let Some(mean) = &metric.mean {
            let Some(own) = mean.step.candidate.mean() else { return format!("no {events}") };
            let said = format!("mean {} of {}", four_digits(own), metric.step_requests);
            return match mean.step.stable.mean() {
                Some(stable) => format!("{said}, stable {}", four_digits(stable)),
                None => said,
            };
        }
        if let Some(compared) = metric.compared {
            return compared.agreement().map_or_else(
                || "no answer was compared".to_owned(),
                |agreement| format!("{} of {}", four_digits(agreement), compared.all),
            );
        }
        if let Some(pairs) = metric.pairs {
            return format!("{} lost and {} won of {} labels", pairs.lost, pairs.won, pairs.all);
        }
        let share = match metric.step_requests {
            0 => format!("no {events}"),
            all => format!("{} bad of {all}", metric.step_bad),
        };
        match estimate {
            Some(Estimate { ratio, low, high }) => {
                format!(
                    "{share}, {} x stable ({} to {})",
                    two_digits(ratio),
                    two_digits(low),
                    two_digits(high)
                )
            }
            None => share,
        }
    }
}
