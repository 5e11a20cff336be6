//! Queries: what is asked of Prometheus about the version on trial.
//!
//! With `evidence: none` one query a metric brings everything that a verdict needs, so that its parts are of the same
//! moment: the counters over the window, how many requests the step has seen, and how old the newest sample is. With
//! `evidence: sequential` `sequential` asks for raw samples of both versions.

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, VersionRef,
    metric::{JudgeEvidence, Metric, Source},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::{by_hand, sequential, steps};

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
    /// Raw samples of the counter of bad events, or of a histogram's buckets.
    Events,
    /// Raw samples of the counter of all events.
    All,
    /// What the stable version's counter of bad events, or buckets, were before the candidate came.
    PastEvents,
    /// What the stable version's counter of all events was before the candidate came.
    PastAll,
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
        JudgeEvidence::None => readings(rollout, status, version, now),
        JudgeEvidence::Sequential => sequential::queries(rollout, status, now),
    }
}

fn readings(
    rollout: &ModelRollout,
    status: &ModelRolloutStatus,
    version: &VersionRef,
    now: Timestamp,
) -> Vec<Query> {
    let elapsed =
        status.traffic_accepted_at.as_ref().map_or(0, |at| now.duration_since(at.0).as_secs()).max(1);
    // Warm-up and tests come before the trial, and are no requests of users. A range of nothing is an error in PromQL.
    let since_ms = |at: &Time| now.as_millisecond().saturating_sub(at.0.as_millisecond()).max(1);
    let trial_ms = status.trial_started_at.as_ref().map_or(i64::MAX, since_ms);
    let scope = Scope::of(rollout, &[version]);
    let triggers = steps::triggers(&rollout.spec, status);
    let is_trigger = |metric: &&Metric| triggers.contains(&metric.name);
    rollout
        .spec
        .metrics
        .iter()
        .filter(is_trigger)
        .map(|metric| Query {
            metric: metric.name.clone(),
            question: Question::Reading,
            expression: expression(metric, &scope, elapsed, trial_ms),
            shape: Shape::Vector,
        })
        .collect()
}

/// Whose series are read: the matchers of a rollout's model and versions.
#[derive(Clone, Debug)]
pub(super) struct Scope(String);

impl Scope {
    /// Versions are numbered for each model, so a version alone may be another model's.
    pub(super) fn of(rollout: &ModelRollout, versions: &[&VersionRef]) -> Self {
        let prometheus = &rollout.spec.prometheus;
        let versions = match versions {
            [version] => format!("=\"{}\"", version.version),
            // Nothing in a version but its dot means anything in a regular expression.
            versions => {
                let any: Vec<_> =
                    versions.iter().map(|version| version.version.replace('.', r"\\.")).collect();
                format!("=~\"{}\"", any.join("|"))
            }
        };
        Self(format!(
            "{}=\"{}\",{}{versions},namespace=\"{}\"",
            prometheus.model_label,
            rollout.spec.model,
            prometheus.version_label,
            rollout.metadata.namespace.as_deref().unwrap_or_default()
        ))
    }

    /// `selector` with the matchers added.
    pub(super) fn apply(&self, selector: &str) -> String {
        let matchers = &self.0;
        match selector.trim_end().strip_suffix('}') {
            None => format!("{selector}{{{matchers}}}"),
            Some(open) => {
                let open = open.trim_end().trim_end_matches(',');
                let comma = if open.ends_with('{') { "" } else { "," };
                format!("{open}{comma}{matchers}}}")
            }
        }
    }
}

/// Label that tells the parts of an answer apart.
pub(super) const PART: &str = "anneal_part";

fn expression(metric: &Metric, scope: &Scope, elapsed_seconds: i64, longest_ms: i64) -> String {
    let window = metric.window.as_millis().min(longest_ms);
    let part =
        |name: &str, vector: String| format!("label_replace({vector}, \"{PART}\", \"{name}\", \"\", \"\")");
    let parts = match &metric.source {
        Source::Ratio(ratio) => {
            let (bad, total) = (scope.apply(&ratio.bad), scope.apply(&ratio.total));
            vec![
                part("bad", format!("sum(increase({bad}[{window}ms]))")),
                part("total", format!("sum(increase({total}[{window}ms]))")),
                part("step", format!("sum(increase({total}[{elapsed_seconds}s]))")),
                part("at", format!("max(timestamp({total}))")),
            ]
        }
        Source::Histogram(histogram) => {
            let buckets = scope.apply(&histogram.selector);
            vec![
                part("bucket", format!("sum by (le) (increase({buckets}[{window}ms]))")),
                part("step", format!("sum(increase({}[{elapsed_seconds}s]))", with_all(&buckets))),
                part("at", format!("max(timestamp({buckets}))")),
            ]
        }
    };
    parts.join(" or ")
}

/// The scoped selector, of the bucket that counts everything.
fn with_all(scoped: &str) -> String {
    format!("{},le=\"+Inf\"}}", scoped.trim_end_matches('}'))
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

    #[test]
    fn matchers_are_added_to_any_form_of_selector() {
        let added = "model=\"ads\",version=\"v20261121.1\",namespace=\"team-a\"";
        let scope = Scope(added.to_owned());
        assert_eq!(scope.apply("requests"), format!("requests{{{added}}}"));
        assert_eq!(scope.apply("requests{}"), format!("requests{{{added}}}"));
        assert_eq!(scope.apply("requests{code=~\"5..\"}"), format!("requests{{code=~\"5..\",{added}}}"));
        assert_eq!(scope.apply("requests{code=~\"5..\", }"), format!("requests{{code=~\"5..\",{added}}}"));
        assert_eq!(with_all(&scope.apply("b")), format!("b{{{added},le=\"+Inf\"}}"));
    }
}
