//! What is asked of Prometheus: raw samples of both versions since the last folded tick, and stable's past once.

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, VersionRef, Weight,
    contract::{COMPARED, PAIRED},
    metric::{Form, Metric, Others},
    model_rollout::RolloutPhase,
    sequential::Dispersion,
};
use jiff::Timestamp;

use super::{
    policy::{self, Limit},
    record::{Range, Stored, seconds},
};
use crate::rollout::{
    agreement,
    query::{Query, Question, Shape, counts_requests},
    scope::Scope,
    steps,
};

/// What is asked about a metric at each look.
pub(super) const NOW: [Question; 2] = [Question::Events, Question::All];
/// Points of stable's past that are compared.
pub(super) const PAST_POINTS: i64 = 60;

/// Largest share at which a candidate is compared with stable: what is left for stable at a larger one would show
/// nothing, not even that both have the same trouble.
const MOST_COMPARED: i32 = 950;

/// The version that still gets requests of its own while another one is on trial.
fn beside(status: &ModelRolloutStatus) -> Option<&VersionRef> {
    match status.phase {
        RolloutPhase::Shadow | RolloutPhase::Experiment | RolloutPhase::Canary => status.stable.as_ref(),
        RolloutPhase::Pending
        | RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::Baking
        | RolloutPhase::RollingBack
        | RolloutPhase::Healthy
        | RolloutPhase::RolledBack => None,
    }
}

/// The version that requests go to when the data plane ignores the weights; the one on trial should get (nearly) all of them, or
/// what is left is compared.
pub(in crate::rollout) fn witness(status: &ModelRolloutStatus) -> Option<&VersionRef> {
    if status.phase == RolloutPhase::Baking { status.previous.as_ref() } else { beside(status) }
}

/// The version that the one on trial is compared with. Whoever answers (nearly) everything has none beside it.
pub(super) fn control(status: &ModelRolloutStatus) -> Option<&VersionRef> {
    let shows_enough = status.weight <= Weight::from_per_mille(MOST_COMPARED);
    beside(status).filter(|_| status.phase == RolloutPhase::Shadow || shows_enough)
}

/// Stable's past that is to be learned from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Past {
    /// Whose.
    pub(super) stable: VersionRef,
    /// Length of a point of it, in milliseconds; there are [`PAST_POINTS`].
    pub(super) point_ms: i64,
    /// Its end, in milliseconds since the epoch: before the candidate got any request.
    pub(super) until_ms: i64,
}

/// What is to be learned from, if anything is.
pub(super) fn learns(rollout: &ModelRollout, status: &ModelRolloutStatus, stored: &Stored) -> Option<Past> {
    let terms = policy::terms(&rollout.spec);
    // Whoever has no version beside it is judged by its own bounds, and requests fail together there too.
    let stable = beside(status).filter(|_| *stored == Stored::Nothing)?;
    match terms.dispersion {
        Dispersion::Learned => Some(Past {
            stable: stable.clone(),
            point_ms: (terms.learn_from.as_millis() / PAST_POINTS).max(1000),
            until_ms: status.trial_started_at.as_ref().map_or(0, |at| at.0.as_millisecond()),
        }),
        Dispersion::Assumed => None,
    }
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
    let mut queries = of_now(rollout, status, trial, range);
    queries.extend(learns(rollout, status, &stored).iter().flat_map(|past| of_past(rollout, past)));
    queries
}

/// Raw samples of both versions in `range`, for every trigger of the step.
pub(super) fn of_now(
    rollout: &ModelRollout,
    status: &ModelRolloutStatus,
    trial: &VersionRef,
    range: Range,
) -> Vec<Query> {
    let scope = |other: Option<&VersionRef>| {
        let versions: Vec<&VersionRef> = [trial].into_iter().chain(other).collect();
        Scope::of(rollout, &versions)
    };
    let (compared, witnessed) = (scope(control(status)), scope(witness(status)));
    let triggers = steps::triggers(&rollout.spec, status);
    let asked = rollout.spec.metrics.iter().filter(|metric| triggers.contains(&metric.name));
    // One that counts requests shows where they go.
    let counts = asked.clone().find(|metric| counts_requests(metric)).map(|metric| &metric.name);
    asked
        .flat_map(|metric| {
            let scope = if counts == Some(&metric.name) { &witnessed } else { &compared };
            let ask = |(question, selector): (Question, String)| {
                ask(metric, question, range.apply(&scope.apply(&selector)))
            };
            selectors(metric, NOW).map(ask)
        })
        .collect()
}

/// What every metric of any phase was for stable, as far as its past teaches anything.
fn of_past(rollout: &ModelRollout, past: &Past) -> Vec<Query> {
    let scope = Scope::of(rollout, &[&past.stable]);
    let point = past.point_ms;
    let range = format!("[{}ms:{point}ms] @ {}", point * PAST_POINTS, seconds(past.until_ms));
    let judged = policy::judged(&rollout.spec);
    let learned = judged.iter().filter(|judged| matches!(judged.limit, Limit::Share { .. }));
    let mut metrics: Vec<&Metric> = learned.map(|judged| judged.metric).collect();
    metrics.dedup_by_key(|metric| &metric.name);
    metrics
        .into_iter()
        .flat_map(|metric| {
            let ask = |(question, selector): (Question, String)| {
                ask(metric, question, format!("{}{range}", scope.apply(&selector)))
            };
            selectors(metric, [Question::PastEvents, Question::PastAll]).map(ask)
        })
        .collect()
}

fn ask(metric: &Metric, question: Question, expression: String) -> Query {
    Query { metric: metric.name.clone(), question, expression, shape: Shape::Matrix }
}

/// A metric's selectors, and the question that each answers.
pub(super) fn selectors(
    metric: &Metric,
    [events, all]: [Question; 2],
) -> impl Iterator<Item = (Question, String)> + use<> {
    let (first, second) = match metric.source.form() {
        Form::Ratio(ratio) => {
            let (Others::Total(others) | Others::Good(others)) = &ratio.others;
            (Some((events, ratio.bad.clone())), Some((all, others.clone())))
        }
        Form::Mean(mean) => (Some((events, mean.sum.clone())), Some((all, mean.count.clone()))),
        Form::Histogram(histogram) => (Some((events, histogram.selector.clone())), None),
        Form::Agreement(_) => {
            (Some((events, agreement::either_alone(COMPARED))), Some((all, COMPARED.to_owned())))
        }
        Form::Paired(_) => (Some((events, agreement::either_alone(PAIRED))), Some((all, PAIRED.to_owned()))),
        Form::Value(_) | Form::Drift(_) | Form::Stability(_) => (None, None),
    };
    first.into_iter().chain(second)
}
