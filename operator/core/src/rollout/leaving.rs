//! Leaving: whether a version that should get nothing any more is still asked, before its pods go.
//!
//! Asked for by `query`, and by `converge` when the pods of a version are to go. That a controller has accepted a route does not mean that
//! its data plane follows, and pods that go while requests reach them fail them. What cannot be counted keeps nobody.

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, VersionRef, metric::Metric, model_rollout::RolloutPhase,
};
use jiff::{SignedDuration, Timestamp};

use super::{
    build::{self, Home},
    converge::RETIRE_AFTER,
    draft::Draft,
    expression,
    query::{Query, Question, Shape, counts_requests},
    reading::{Answer, part},
    route::{MISMATCH, VERIFIED, is_mismatch_told},
    scope::Scope,
    shares::{OWN, REST},
};
use crate::{condition::Truth, plan::Action, trouble::Trouble};

/// Requests that were under way when the data plane took the weights.
const UNDER_WAY: SignedDuration = SignedDuration::from_secs(10);
/// How far back requests count, or `staleAfter` if that is longer: some scrapes.
const LATELY: SignedDuration = SignedDuration::from_secs(60);
/// For how long from then on somebody asks who was not asked before.
const LONG: SignedDuration = SignedDuration::from_mins(10);
/// The share of requests, of probes and the like, that keeps no pods.
const HARMLESS: f64 = 0.02;
/// Fewer requests keep none either, unless the version that serves gets fewer.
const FEWEST: f64 = 10.0;

/// The version that left with the last decision.
fn left(status: &ModelRolloutStatus) -> Option<&VersionRef> {
    match status.phase {
        RolloutPhase::RolledBack => status.candidate.as_ref(),
        RolloutPhase::Healthy => status.history.last(),
        RolloutPhase::Pending
        | RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::Shadow
        | RolloutPhase::Experiment
        | RolloutPhase::Canary
        | RolloutPhase::Baking
        | RolloutPhase::RollingBack => None,
    }
}

/// The metric by which requests are counted: one that rolls back, if there is one of them.
fn counter(rollout: &ModelRollout) -> Option<&Metric> {
    let triggers = &rollout.spec.strategy.rollback_triggers;
    let metrics = || rollout.spec.metrics.iter().filter(|metric| counts_requests(metric));
    metrics().find(|metric| triggers.contains(&metric.name)).or_else(|| metrics().next())
}

/// How long after the weights were taken enough has been scraped since requests under way had ended.
fn is_known_after(rollout: &ModelRollout) -> SignedDuration {
    UNDER_WAY.saturating_add(rollout.spec.prometheus.stale_after.get()).max(RETIRE_AFTER)
}

/// What is asked about the version that left and the one that serves, from the moment on at which its pods may go.
pub(super) fn query(rollout: &ModelRollout, status: &ModelRolloutStatus, now: Timestamp) -> Option<Query> {
    let (version, metric) = (left(status)?, counter(rollout)?);
    let age = now.duration_since(status.traffic_accepted_at.as_ref()?.0);
    let known_after = is_known_after(rollout);
    let is_over = age >= known_after.saturating_add(LONG) && !is_mismatch_told(status);
    if age < known_after || is_over {
        return None;
    }
    let lately = LATELY.max(rollout.spec.prometheus.stale_after.get());
    let seconds = age.saturating_sub(UNDER_WAY).min(lately).as_secs().max(1);
    let requests =
        |version, name| expression::requests(metric, &Scope::of(rollout, &[version]), seconds, name);
    let serving = status.stable.as_ref().and_then(|stable| requests(stable, REST));
    let own = requests(version, OWN)?;
    let expression = serving.map_or_else(|| own.clone(), |rest| format!("{own} or {rest}"));
    Some(Query { metric: metric.name.clone(), question: Question::Left, expression, shape: Shape::Vector })
}

/// Requests of the version that left.
enum Count {
    /// More than do no harm.
    Some,
    /// None worth mentioning, or no series that could count any.
    None,
    /// Nobody can say.
    Unknown,
}

impl Draft<'_> {
    /// The metric that counts the requests of the version that left, if that is among what is to be deleted.
    fn counts_who_leaves(&self, surplus: &[Action]) -> Option<(&Metric, &VersionRef)> {
        let (home, version) = (Home::of(self.rollout)?, left(&self.status)?);
        let name = build::workload_name(home.name, &version.version);
        let is_its = |action: &Action| matches!(action, Action::Delete { key, .. } if key.name == name);
        let metric = counter(self.rollout).filter(|_| surplus.iter().any(is_its))?;
        Some((metric, version))
    }

    /// How long what is to be deleted stays after the weights were taken.
    pub(super) fn stays_for(&self, surplus: &[Action]) -> SignedDuration {
        self.counts_who_leaves(surplus).map_or(RETIRE_AFTER, |_| is_known_after(self.rollout))
    }

    /// Why it stays longer, if the version that left still gets requests.
    pub(super) fn still_asked(&self, surplus: &[Action]) -> Option<Trouble> {
        let (metric, version) = self.counts_who_leaves(surplus)?;
        let was_asked = self.rollout.status.as_ref().is_some_and(is_mismatch_told);
        let answer = self.snapshot.answers.get(&(metric.name.clone(), Question::Left));
        let stays = match answer.map_or(Count::Unknown, count) {
            Count::Some => true,
            Count::None => false,
            // What was known before is not undone by a server that is away.
            Count::Unknown => was_asked,
        };
        stays.then(|| Trouble {
            reason: MISMATCH.to_owned(),
            message: format!(
                "{} should get no requests any more, and {} counts some, so its pods stay. Look at the gateway's data plane, and at whatever sends requests past it.",
                version.version, metric.name
            ),
        })
    }

    /// It is told, and looked at again.
    pub(super) fn blocked_by_requests(&mut self, trouble: &Trouble) {
        self.condition(VERIFIED, Truth::False, MISMATCH, &trouble.message);
        self.blocked(trouble);
    }
}

fn count(answer: &Answer) -> Count {
    let vector = match answer {
        Answer::Vector(vector) => vector,
        Answer::Matrix(_) | Answer::Unreachable(_) | Answer::TooMuch(_) => return Count::Unknown,
    };
    let Some(own) = part(vector, OWN) else { return Count::None };
    let rest = part(vector, REST);
    if !own.is_finite() || !rest.unwrap_or(0.0).is_finite() {
        return Count::Unknown;
    }
    let many = own >= FEWEST && own > HARMLESS * (own + rest.unwrap_or(0.0));
    let most = own >= 1.0 && rest.is_some_and(|rest| own > rest);
    if many || most { Count::Some } else { Count::None }
}
