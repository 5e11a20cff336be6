//! What is asked of Prometheus: raw samples of both versions since the last folded tick, and stable's past once.

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, VersionRef, Weight,
    metric::{Metric, Source},
    model_rollout::RolloutPhase,
    sequential::Dispersion,
};
use jiff::Timestamp;

use super::{
    policy,
    record::{Range, Stored, seconds},
};
use crate::rollout::{
    query::{Query, Question, Scope, Shape},
    steps,
};

/// Points of stable's past that are compared.
pub(super) const PAST_POINTS: i64 = 60;

/// Largest share at which a candidate is compared with stable: what is left for stable at a larger one would show
/// nothing, not even that both have the same trouble.
const MOST_COMPARED: i32 = 950;

/// The version that the one on trial is compared with. Whoever answers (nearly) everything has none beside it.
pub(super) fn control(status: &ModelRolloutStatus) -> Option<&VersionRef> {
    match status.phase {
        RolloutPhase::Shadow => status.stable.as_ref(),
        RolloutPhase::Canary => {
            status.stable.as_ref().filter(|_| status.weight <= Weight::from_per_mille(MOST_COMPARED))
        }
        RolloutPhase::Pending
        | RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::Baking
        | RolloutPhase::RollingBack
        | RolloutPhase::Healthy
        | RolloutPhase::RolledBack => None,
    }
}

/// Whether stable's past is to be learned from, and how long a point of it is, in milliseconds.
pub(super) fn learns(rollout: &ModelRollout, status: &ModelRolloutStatus, stored: &Stored) -> Option<i64> {
    let terms = policy::terms(&rollout.spec);
    let wanted = match terms.dispersion {
        Dispersion::Learned => *stored == Stored::Nothing && control(status).is_some(),
        Dispersion::Assumed => false,
    };
    wanted.then(|| (terms.learn_from.as_millis() / PAST_POINTS).max(1000))
}

/// What must be read before the plan can judge.
pub(in crate::rollout) fn queries(
    rollout: &ModelRollout,
    status: &ModelRolloutStatus,
    now: Timestamp,
) -> Vec<Query> {
    let Some(trial) = steps::on_trial(status) else { return vec![] };
    let stored = Stored::of(&rollout.spec, status, trial);
    let range = Range::of(&rollout.spec, status, &stored, now);
    let versions: Vec<&VersionRef> = [trial].into_iter().chain(control(status)).collect();
    let scope = Scope::of(rollout, &versions);
    let triggers = steps::triggers(&rollout.spec, status);
    let asked = rollout.spec.metrics.iter().filter(|metric| triggers.contains(&metric.name));
    let now_questions = asked.flat_map(|metric| {
        let ask = |question, selector: &str| ask(metric, question, range.apply(&scope.apply(selector)));
        selectors(metric, [Question::Events, Question::All])
            .map(move |(question, selector)| ask(question, selector))
    });
    let mut queries: Vec<Query> = now_questions.collect();
    if let (Some(point_ms), Some(stable)) = (learns(rollout, status, &stored), control(status)) {
        queries.extend(past(rollout, status, stable, point_ms));
    }
    queries
}

/// What every metric of any phase was for `stable`, before the candidate got any request.
fn past<'a>(
    rollout: &'a ModelRollout,
    status: &ModelRolloutStatus,
    stable: &VersionRef,
    point_ms: i64,
) -> impl Iterator<Item = Query> + use<'a> {
    let scope = Scope::of(rollout, &[stable]);
    let until = status.trial_started_at.as_ref().map_or(0, |at| at.0.as_millisecond());
    let mut metrics: Vec<&Metric> =
        policy::judged(&rollout.spec).iter().map(|judged| judged.metric).collect();
    metrics.dedup_by_key(|metric| &metric.name);
    metrics.into_iter().flat_map(move |metric| {
        let scope = scope.clone();
        selectors(metric, [Question::PastEvents, Question::PastAll]).map(move |(question, selector)| {
            let range = format!("{}ms:{point_ms}ms", point_ms * PAST_POINTS);
            ask(metric, question, format!("{}[{range}] @ {}", scope.apply(selector), seconds(until)))
        })
    })
}

fn ask(metric: &Metric, question: Question, expression: String) -> Query {
    Query { metric: metric.name.clone(), question, expression, shape: Shape::Matrix }
}

/// A metric's selectors, and the question that each answers.
fn selectors(metric: &Metric, [events, all]: [Question; 2]) -> impl Iterator<Item = (Question, &str)> {
    let (first, second) = match &metric.source {
        Source::Ratio(ratio) => (Some((events, ratio.bad.as_str())), Some((all, ratio.total.as_str()))),
        Source::Histogram(histogram) => (Some((events, histogram.selector.as_str())), None),
        Source::Value(_) => (None, None),
    };
    first.into_iter().chain(second)
}
