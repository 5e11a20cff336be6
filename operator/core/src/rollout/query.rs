//! Queries: what is asked of Prometheus about the version on trial, and about one whose pods are to go.
//!
//! With `evidence: none` one query a metric brings everything that a verdict needs, so that its parts are of the same
//! moment: the counters over the window, how many requests the step has seen, and how old the newest sample is. With
//! `evidence: sequential` `sequential` asks for raw samples of both versions.

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, VersionRef,
    metric::{Form, JudgeEvidence, Metric},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::{
    baseline::{self, Stage},
    by_hand,
    expression::{Ranges, expression},
    labels,
    scope::Scope,
    sequential, shares, steps,
};

/// Clocks that differ by less than this are waited for.
const FAR_AHEAD_MS: i64 = 30_000;

/// A question to Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Name of the metric that it belongs to.
    pub metric: String,
    /// What is asked about that metric.
    pub question: Question,
    /// The expression, to be evaluated at one moment.
    pub expression: String,
    /// What its answer must be.
    pub shape: Shape,
}

/// `expression` for messages: without its lengths of time, which change from look to look. A message that changes is a
/// write, and a write wakes the next look.
pub fn without_ranges(expression: &str) -> String {
    let mut parts = expression.split('[');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.split_once(']').map_or("", |(_, rest)| rest);
        // A time follows where the past is asked for.
        let rest = rest
            .strip_prefix(" @ ")
            .map_or(rest, |at| at.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.'));
        text.push_str("[…]");
        text.push_str(rest);
    }
    text
}

/// What is asked about a metric. Metric and question name an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Question {
    /// Its value over the window, its requests in this step, and how fresh they are.
    Reading,
    /// What it was in the first days of a bake.
    Baseline,
    /// Raw samples of the counter of bad events, of a sum of values, or of a histogram's buckets.
    Events,
    /// Raw samples of the counter of all events, or values.
    All,
    /// What the stable version's counter of bad events, or buckets, were before the candidate came.
    PastEvents,
    /// What the stable version's counter of all events was before the candidate came.
    PastAll,
    /// Requests that a version got lately which should get none any more.
    Left,
}

/// What the answer to an expression is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shape {
    /// One number for each series: an instant vector.
    Vector,
    /// Raw samples of each series, as a range selector such as `requests{…}[60000ms]` asks for them: a matrix.
    Matrix,
}

/// What must be read before [`super::plan`] can judge; nothing while no version is on trial.
pub fn queries(rollout: &ModelRollout, now: Timestamp) -> Vec<Query> {
    let Some(status) = rollout.status.as_ref().filter(|status| !by_hand::is_decided(rollout, status)) else {
        // Nobody waits for a server whose answer changes nothing.
        return vec![];
    };
    let Some(version) = steps::on_trial(status) else { return vec![] };
    match rollout.spec.judge.evidence {
        JudgeEvidence::None => plain(rollout, status, version, now, |_| true),
        JudgeEvidence::Sequential => {
            let mut queries = sequential::queries(rollout, status, now);
            queries.extend(plain(rollout, status, version, now, |metric| !is_compared(metric)));
            queries
        }
    }
}

/// Whether the judge compares this metric with the stable version's, or the answers that it is made of.
pub(super) fn is_compared(metric: &Metric) -> bool {
    match metric.source.form() {
        Form::Ratio(_) | Form::Mean(_) | Form::Histogram(_) | Form::Agreement(_) | Form::Paired(_) => true,
        Form::Value(_) | Form::Drift(_) | Form::Stability(_) => false,
    }
}

/// Whether a metric counts requests of each version for itself, when they come.
pub(super) fn counts_requests(metric: &Metric) -> bool {
    let counts = match metric.source.form() {
        Form::Ratio(_) | Form::Mean(_) | Form::Histogram(_) => true,
        Form::Agreement(_) | Form::Paired(_) | Form::Value(_) | Form::Drift(_) | Form::Stability(_) => false,
    };
    counts && metric.labels().is_none()
}

/// Whether stable's own pods count what the metric is made of. Who agrees with it is counted by those of the other one.
pub(super) fn has_stable_arm(metric: &Metric) -> bool {
    match metric.source.form() {
        Form::Agreement(_) | Form::Paired(_) => false,
        Form::Ratio(_)
        | Form::Mean(_)
        | Form::Histogram(_)
        | Form::Value(_)
        | Form::Drift(_)
        | Form::Stability(_) => true,
    }
}

/// What is asked about those triggers of the step that are wanted, and about all that people are warned by. What cannot be
/// asked is told by `step`.
fn plain(
    rollout: &ModelRollout,
    status: &ModelRolloutStatus,
    version: &VersionRef,
    now: Timestamp,
    wanted: fn(&Metric) -> bool,
) -> Vec<Query> {
    let (triggers, warns) =
        (steps::triggers(&rollout.spec, status), steps::warn_triggers(&rollout.spec, status));
    let asked =
        rollout.spec.metrics.iter().filter(|metric| {
            (triggers.contains(&metric.name) && wanted(metric)) || warns.contains(&metric.name)
        });
    asked
        .filter_map(|metric| match baseline::stage(rollout, status, metric, now) {
            Stage::NotNeeded | Stage::Taken(_) | Stage::Gathering(_) => {
                let query = reading(rollout, status, version, metric, now).ok()?;
                let besides = shares::asked_with(rollout, status, version, metric, now);
                let expression =
                    besides.iter().fold(query.expression, |all, more| format!("{all} or {more}"));
                Some(Query { expression, ..query })
            }
            Stage::Due(until) => of_baseline(rollout, version, metric, until),
            Stage::NoBake => None,
        })
        .collect()
}

/// What is asked about the first days of `version`, which ended at `until`.
pub(super) fn of_baseline(
    rollout: &ModelRollout,
    version: &VersionRef,
    metric: &Metric,
    until: Timestamp,
) -> Option<Query> {
    let expression = baseline::expression(metric, &Scope::of(rollout, &[version]), until)?;
    Some(Query {
        metric: metric.name.clone(),
        question: Question::Baseline,
        expression,
        shape: Shape::Vector,
    })
}

/// What is asked about the value of one metric of `version`; else why it cannot be asked.
pub(super) fn reading(
    rollout: &ModelRollout,
    status: &ModelRolloutStatus,
    version: &VersionRef,
    metric: &Metric,
    now: Timestamp,
) -> Result<Query, String> {
    let since_ms = |at: &Time| now.as_millisecond().saturating_sub(at.0.as_millisecond());
    // A clock that was far ahead has written a time that is long to come. What is seen in a window is no less bad for that.
    let passed = |at: &Option<Time>| at.clone().filter(|at| since_ms(at) >= -FAR_AHEAD_MS);
    let window_seconds = metric.window.as_millis() / 1000;
    // A range of nothing is an error in PromQL.
    let ranges = Ranges {
        step_seconds: match passed(&status.traffic_accepted_at) {
            Some(at) => since_ms(&labels::counted_since(metric, &at)) / 1000,
            None if status.traffic_accepted_at.is_some() => window_seconds,
            None => 0,
        }
        .max(1),
        // Warm-up and tests come before the trial, and are no requests of users.
        longest_ms: passed(&status.trial_started_at).as_ref().map_or(i64::MAX, since_ms).max(1),
    };
    Ok(Query {
        metric: metric.name.clone(),
        question: Question::Reading,
        expression: expression(metric, &Scope::of(rollout, &[version]), ranges)?,
        shape: Shape::Vector,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_nothing_that_changes_with_time() {
        assert_eq!(without_ranges("a{b=\"c\"}[14000ms] @ 1795262400.000"), "a{b=\"c\"}[…]");
        assert_eq!(without_ranges("sum(increase(a[10s])) or max(b)"), "sum(increase(a[…])) or max(b)");
        assert_eq!(without_ranges("up"), "up");
    }
}
