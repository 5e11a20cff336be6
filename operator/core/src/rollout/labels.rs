//! Labels: what a metric says whose events come later than the requests they belong to.
//!
//! Called by `plain` and `sequential` with the verdict on what was read, and by `step` for how long it waits. A breach counts
//! as soon as one of the two says so. Silence is nobody's fault before the first labels can be there; then it is missing data
//! like any other. A pass counts from the labels on that may be of the step's own requests, and never stands for those.

use anneal_crds::{
    ModelRolloutSpec,
    metric::{Labels, Metric, MissingClass, Source},
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{draft::Draft, reading::Verdict};

/// What a metric counts, for people.
pub(super) fn events(metric: &Metric) -> &'static str {
    if metric.labels().is_some() { "labels" } else { "requests" }
}

/// The longest delay of the metrics of these names; zero if all are known at once.
pub(super) fn longest_delay(spec: &ModelRolloutSpec, triggers: &[String]) -> SignedDuration {
    let asked = spec.metrics.iter().filter(|metric| triggers.contains(&metric.name));
    asked.filter_map(|metric| Some(metric.labels()?.delay.get())).max().unwrap_or(SignedDuration::ZERO)
}

/// The same in milliseconds.
pub(super) fn longest_delay_ms(spec: &ModelRolloutSpec, triggers: &[String]) -> i64 {
    i64::try_from(longest_delay(spec, triggers).as_millis()).unwrap_or(i64::MAX)
}

/// Why the events of a metric cannot be labels that come later, if they are said to be. The API server refuses that too.
pub(super) fn uncounted(metric: &Metric) -> Option<&'static str> {
    metric.labels()?;
    match &metric.source {
        Source::Ratio(_) | Source::Mean(_) | Source::Histogram(_) | Source::Paired(_) => None,
        Source::Value(value) if value.requests.is_some() => None,
        Source::Value(_) => Some("with labelDelay it needs requests, the counter of its labels"),
        Source::Errors(_)
        | Source::Latency(_)
        | Source::Drift(_)
        | Source::Stability(_)
        | Source::Agreement(_) => {
            Some("labelDelay is for events that are known later than their requests, and its events are not")
        }
    }
}

/// When what is counted of a step began to come: later than the step, where labels do.
pub(super) fn counted_since(metric: &Metric, accepted: &Time) -> Time {
    let delay = metric.labels().map_or(SignedDuration::ZERO, |labels| labels.delay.get());
    Time(accepted.0.saturating_add(delay).unwrap_or(jiff::Timestamp::MAX))
}

impl Draft<'_> {
    /// Whether nothing need be there of a metric yet: its labels come later, and the first scrape takes a moment.
    pub(super) fn may_be_silent(&self, metric: &Metric) -> bool {
        let stale_after = self.rollout.spec.prometheus.stale_after.get();
        metric.labels().is_some_and(|labels| {
            let first = labels.delay.get().saturating_add(stale_after);
            self.accepted_age().is_none_or(|age| age < first)
        })
    }

    /// `verdict`, with the labels of the step that it counted; as it is where events are known at once.
    pub(super) fn with_labels(&self, metric: &Metric, verdict: Verdict) -> Verdict {
        let Some(labels) = metric.labels() else { return verdict };
        let are_due = self.accepted_age().is_some_and(|age| age >= labels.delay.get());
        let enough = |counted: f64| are_due && counted >= f64::from(labels.fewest);
        match verdict {
            Verdict::Pass { step_requests } if step_requests.is_some_and(enough) => {
                Verdict::Pass { step_requests: None }
            }
            Verdict::Pass { .. } => awaited(metric, labels),
            Verdict::Hold(MissingClass::NoData | MissingClass::Stale, _) if self.may_be_silent(metric) => {
                awaited(metric, labels)
            }
            Verdict::Hold(..) | Verdict::Breach | Verdict::AwaitsLabels(_) => verdict,
        }
    }
}

fn awaited(metric: &Metric, Labels { delay, fewest }: Labels) -> Verdict {
    Verdict::AwaitsLabels(format!(
        "it needs {fewest} labels of {} for the requests of this step, which come {delay} after them",
        metric.name
    ))
}
