//! Plain readings: metrics that are compared with their bounds as they are.
//!
//! Called by `step` for `evidence: none`, by `sequential` for what cannot be compared with stable, and by `warning`.

use anneal_crds::{
    VersionRef,
    metric::{Form, Metric, MissingClass},
    model_rollout::RecordedReading,
};
use jiff::Timestamp;

use super::{
    baseline::{self, Stage},
    draft::Draft,
    query::{self, Question},
    reading::{self, Answer, Reading, Verdict},
    steps,
};

impl Draft<'_> {
    /// The verdict of every trigger. One that no metric defines is none: the API server refuses that, but a pass must not
    /// depend on it.
    pub(super) fn judge(&self, version: &VersionRef) -> Vec<(Verdict, RecordedReading)> {
        let spec = &self.rollout.spec;
        let one = |trigger: &String| match spec.metrics.iter().find(|metric| metric.name == *trigger) {
            Some(metric) => self.read_plainly(version, metric),
            None => reading::undefined(trigger),
        };
        steps::triggers(spec, &self.status).iter().map(one).collect()
    }

    /// The verdict of a metric that is compared with its bounds as it is.
    pub(super) fn read_plainly(&self, version: &VersionRef, metric: &Metric) -> (Verdict, RecordedReading) {
        let (verdict, record) = self.read_arrived(version, metric);
        let verdict = self.with_labels(metric, verdict);
        let name = reading::name(&verdict).to_owned();
        (verdict, RecordedReading { verdict: name, ..record })
    }

    /// The verdict by what has arrived, whether labels are still to come or not.
    fn read_arrived(&self, version: &VersionRef, metric: &Metric) -> (Verdict, RecordedReading) {
        let (now, seen) = (self.snapshot.now, self.snapshot.rollout);
        let status = seen.status.as_ref().unwrap_or(&self.status);
        match baseline::stage(seen, status, metric, now) {
            Stage::NotNeeded => self.read_beside(version, metric, None),
            Stage::Taken(values) => self.read_beside(version, metric, Some(values)),
            Stage::Gathering(until) => self.gathering(version, metric, until),
            Stage::Due(until) => match self.measured(metric) {
                Ok(_) => reading::gathering(metric, until),
                Err(why) => {
                    let query = query::of_baseline(seen, version, metric, until);
                    let query = query.map_or_else(String::new, |query| query.expression);
                    let (verdict, record) =
                        reading::judge(metric, &why, &seen.spec.prometheus.server(), &query);
                    (verdict.about("its baseline, which another name of the metric measures anew"), record)
                }
            },
            Stage::NoBake => {
                let why = Reading::Malformed("it is measured in a bake only".to_owned());
                reading::judge(metric, &why, &seen.spec.prometheus.server(), "")
            }
        }
    }

    /// What a metric says that is compared with nothing, or with `baseline`.
    fn read_beside(
        &self,
        version: &VersionRef,
        metric: &Metric,
        baseline: Option<&baseline::Values>,
    ) -> (Verdict, RecordedReading) {
        let (now, seen) = (self.snapshot.now, self.snapshot.rollout);
        let (status, prometheus) = (seen.status.as_ref().unwrap_or(&self.status), &seen.spec.prometheus);
        let (reading, query) = match query::reading(seen, status, version, metric, now) {
            Ok(query) => {
                let missing = Answer::Vector(vec![]);
                let answer = self.snapshot.answers.get(&(query.metric, query.question)).unwrap_or(&missing);
                let reading = reading::read(metric, answer, baseline, prometheus.stale_after, now);
                // An expression may divide by the number of labels, which is zero until the first one comes.
                let divides_by_zero =
                    reading == Reading::NotFinite && is_value(metric) && self.may_be_silent(metric);
                let reading = if divides_by_zero { Reading::Empty } else { reading };
                (reading, query.expression)
            }
            Err(why) => (Reading::Malformed(why), String::new()),
        };
        reading::judge(metric, &reading, &prometheus.server(), &query)
    }

    /// While its baseline is measured a metric needs fresh samples and no more: a mistake in a selector is not to be found out
    /// after days.
    fn gathering(
        &self,
        version: &VersionRef,
        metric: &Metric,
        until: Timestamp,
    ) -> (Verdict, RecordedReading) {
        let key = (metric.name.clone(), Question::Reading);
        let window = match self.snapshot.answers.get(&key) {
            Some(Answer::Vector(vector)) => baseline::values(metric, vector).ok(),
            Some(Answer::Matrix(_) | Answer::Unreachable(_) | Answer::TooMuch(_)) | None => None,
        };
        let (verdict, record) = self.read_beside(version, metric, window.as_ref());
        match verdict {
            Verdict::Hold(MissingClass::NoData, _) if window.is_some() => reading::gathering(metric, until),
            Verdict::Hold(..) => (verdict, record),
            Verdict::Pass { .. } | Verdict::Breach | Verdict::AwaitsLabels(_) => {
                reading::gathering(metric, until)
            }
        }
    }
}

fn is_value(metric: &Metric) -> bool {
    match metric.source.form() {
        Form::Value(_) => true,
        Form::Ratio(_)
        | Form::Mean(_)
        | Form::Histogram(_)
        | Form::Drift(_)
        | Form::Stability(_)
        | Form::Agreement(_)
        | Form::Paired(_) => false,
    }
}
