//! Shares: whether requests are divided as the weight asks for, where `evidence: none` compares no versions.
//!
//! Asked by `query` together with a metric that counts requests, and read by `step`. Prometheus' `increase` estimates, so only what
//! surely is the share of the step before is called a mismatch; `judge::split` looks closer, where raw samples are read, and
//! `sequential::early` as here until it has counted.

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, VersionRef, Weight,
    metric::{JudgeEvidence, Metric},
    model_rollout::{Observed, RolloutPhase},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    draft::Draft,
    expression,
    query::{Question, counts_requests},
    reading::{Answer, part},
    route::{is_mismatch_told, is_told_uncounted, is_told_unread},
    scope::Scope,
    sequential::{split_design_effect, witness},
    step::StepSays,
    steps,
};
use crate::judge;

/// Parts of an answer: requests of the version on trial, and of the one that should get the rest.
pub(super) const OWN: &str = "own";
pub(super) const REST: &str = "rest";
/// How long a data plane takes to follow, with requests that were under way.
const UNDER_WAY: SignedDuration = SignedDuration::from_secs(5);
/// No more than this is looked back at, so that what was mended is past some day.
const LATELY: SignedDuration = SignedDuration::from_mins(60);
/// Where all are asked for, as much is left out in the end: what was long under way at the switch would outweigh most of an hour.
const LONG_UNDER_WAY: SignedDuration = SignedDuration::from_mins(5);
/// Standard errors, of a percentage point at least, by which another share lies away.
const FAR: f64 = 4.0;
/// How long after a switch, and how often, somebody looks whether the data plane has followed.
const WATCHED: SignedDuration = SignedDuration::from_secs(120);
const WATCH: SignedDuration = SignedDuration::from_secs(10);
/// Fewer requests are no share that anyone needs to know, unless it surely is a wrong one.
const ENOUGH: u64 = 100;

/// The weight of the step before this one, as far as the strategy tells.
pub(super) fn weight_before(rollout: &ModelRollout, weight: Weight) -> Weight {
    let before = steps::steps(&rollout.spec.strategy).into_iter().map(|step| step.weight);
    before.filter(|before| *before < weight).max().unwrap_or(Weight::ZERO)
}

/// The share as a number from 0 to 1.
pub(super) fn share(weight: Weight) -> f64 {
    f64::from(weight.per_mille()) / 1000.0
}

/// `share` of so many requests for people, with two standard errors.
pub(super) fn observed(share: f64, requests: u64) -> Observed {
    let error = 2.0 * (share * (1.0 - share) / requests as f64).sqrt();
    let percent = |share: f64| format!("{:.1}", 100.0 * share.clamp(0.0, 1.0));
    Observed {
        percent: format!("{} ({} to {})", percent(share), percent(share - error), percent(share + error)),
        requests: i64::try_from(requests).unwrap_or(i64::MAX),
    }
}

/// For how long requests have been counted that tell where they go, `age` after the weights were taken; none before every pod must
/// have been scraped twice, because those that were would stand for all.
pub(super) fn counted_for(
    rollout: &ModelRollout,
    weight: Weight,
    age: SignedDuration,
) -> Option<SignedDuration> {
    let (counted, every_pod) = (age.saturating_sub(UNDER_WAY), rollout.spec.prometheus.stale_after.get());
    let settled = counted.saturating_sub(LONG_UNDER_WAY).max(LONG_UNDER_WAY.max(every_pod));
    let most = if weight == Weight::FULL { settled.min(LATELY) } else { LATELY };
    (counted >= every_pod).then(|| counted.min(most))
}

/// Whether so many requests, some of which come from the same users, surely go where they went before.
fn is_ignored(rollout: &ModelRollout, weight: Weight, own: u64, rest: u64) -> bool {
    let design_effect = split_design_effect(&rollout.spec).max(1.0);
    let effective = |requests: u64| (requests as f64 / design_effect).floor() as u64;
    let before = share(weight_before(rollout, weight));
    judge::is_ignored(before, share(weight), effective(own), effective(rest))
}

/// The share that people were told, from 0 to 1.
fn share_of(observed: &Observed) -> Option<f64> {
    observed.percent.split(' ').next()?.parse::<f64>().ok().map(|percent| percent / 100.0)
}

/// Who should get the rest, and the weight of the version on trial, while requests are divided.
pub(super) fn divided(status: &ModelRolloutStatus) -> Option<(&VersionRef, Weight)> {
    let weight = if status.phase == RolloutPhase::Baking { Weight::FULL } else { status.weight };
    let divides = status.phase.divides_traffic() || status.phase == RolloutPhase::Baking;
    Some((witness(status)?, weight)).filter(|_| divides)
}

/// The trigger by which requests are counted.
fn counter<'a>(rollout: &'a ModelRollout, status: &ModelRolloutStatus) -> Option<&'a Metric> {
    let triggers = steps::triggers(&rollout.spec, status);
    rollout.spec.metrics.iter().find(|metric| triggers.contains(&metric.name) && counts_requests(metric))
}

/// Whether the step counts requests of both versions by plain numbers.
pub(super) fn are_counted(rollout: &ModelRollout, status: &ModelRolloutStatus) -> bool {
    rollout.spec.judge.evidence == JudgeEvidence::None
        && divided(status).is_some()
        && counter(rollout, status).is_some()
}

/// What is asked besides about `metric`, if it is the one that counts.
pub(super) fn asked_with(
    rollout: &ModelRollout,
    status: &ModelRolloutStatus,
    trial: &VersionRef,
    metric: &Metric,
    now: Timestamp,
) -> Option<String> {
    if rollout.spec.judge.evidence != JudgeEvidence::None || counter(rollout, status)?.name != metric.name {
        return None;
    }
    let (rest, weight) = divided(status)?;
    let age = now.duration_since(status.traffic_accepted_at.as_ref()?.0);
    let seconds = counted_for(rollout, weight, age)?.as_secs().max(1);
    let requests = |version, name| {
        expression::requests(JudgeEvidence::None, metric, &Scope::of(rollout, &[version]), seconds, name)
    };
    Some(format!("{} or {}", requests(trial, OWN)?, requests(rest, REST)?))
}

/// What counters say of how requests are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// Nothing against what the weight asks for.
    AsAsked,
    /// Surely otherwise.
    Otherwise,
    /// So many of the version beside it, and the version on trial has no counter: nobody knows which of them is wrong.
    Uncounted,
    /// It was told that they do not go as asked, and nobody can count them now.
    Unread,
}

/// What counters say about `own` requests of the version on trial, if it has counters, and about others.
pub(super) fn split(rollout: &ModelRollout, weight: Weight, own: Option<u64>, rest: u64) -> Split {
    let was_uncounted = || {
        let before = rollout.status.as_ref();
        before.is_some_and(|before| is_told_uncounted(before) || is_told_unread(before))
    };
    match (own, is_ignored(rollout, weight, own.unwrap_or(0), rest)) {
        (Some(_), true) => Split::Otherwise,
        (None, true) => Split::Uncounted,
        // Fewer are known at one look than at another.
        (None, false) if was_uncounted() => Split::Uncounted,
        (Some(_) | None, false) => Split::AsAsked,
    }
}

impl Draft<'_> {
    /// How often somebody looks whether the data plane has followed, where metrics are read less often.
    pub(super) fn looks_after_a_switch(&self) -> Option<SignedDuration> {
        let is_young = self.accepted_age().is_some_and(|age| age < WATCHED);
        (is_young && divided(&self.status).is_some()).then_some(WATCH)
    }

    /// What the counters say about the step: whether requests go where they should.
    pub(super) fn shares_say(&mut self) -> StepSays {
        let Some((_, weight)) = divided(&self.status) else { return StepSays::ByClock };
        let Some((own, rest)) = self.shares_counted() else {
            self.split = self.split_unread();
            return StepSays::ByClock;
        };
        self.split = split(self.rollout, weight, own, rest);
        let mismatched = self.split == Split::Otherwise;
        if let Some(own) = own {
            self.keep_observed(own, rest, mismatched);
        }
        if mismatched { StepSays::Mismatched } else { StepSays::ByClock }
    }

    /// Where counters cannot be read: what was told against the step is not taken back.
    pub(super) fn split_unread(&self) -> Split {
        let is_same_step = |before: &&ModelRolloutStatus| {
            (before.phase, before.weight) == (self.status.phase, self.status.weight)
        };
        match self.rollout.status.as_ref().filter(is_same_step) {
            Some(before) if is_told_uncounted(before) => Split::Uncounted,
            Some(before) if is_mismatch_told(before) || is_told_unread(before) => Split::Unread,
            Some(_) | None => Split::AsAsked,
        }
    }

    /// Requests of the version on trial, if it has counters, and of the other one.
    fn shares_counted(&self) -> Option<(Option<u64>, u64)> {
        let metric = counter(self.rollout, &self.status).filter(|_| self.traffic_accepted())?;
        let vector = match self.snapshot.answers.get(&(metric.name.clone(), Question::Reading))? {
            Answer::Vector(vector) => vector,
            Answer::Matrix(_) | Answer::Unreachable(_) | Answer::TooMuch(_) => return None,
        };
        let (own, rest) = (part(vector, OWN), part(vector, REST));
        let is_count = |count: f64| count.is_finite() && count >= 0.0;
        if !own.into_iter().chain(rest).all(is_count) {
            return None;
        }
        let own = own.map(|own| own.round() as u64);
        let (_, weight) = divided(&self.status)?;
        match rest {
            Some(rest) => Some((own, rest.round() as u64)),
            // Whoever should get no requests may have no counters.
            None => own.filter(|_| weight == Weight::FULL).map(|own| (Some(own), 0)),
        }
    }

    /// A share that is much the same as before is worth no write.
    pub(super) fn keep_observed(&mut self, own: u64, rest: u64, mismatched: bool) {
        let requests = own.saturating_add(rest);
        if requests < ENOUGH && !mismatched {
            return;
        }
        let share = own as f64 / requests as f64;
        let known = self.status.observed.as_ref();
        let before = known.map_or(0, |known| known.requests.unsigned_abs());
        let moved = known.and_then(share_of).is_some_and(|before| {
            (share - before).abs() > FAR * (share * (1.0 - share) / requests as f64).sqrt().max(0.01)
        });
        let grew = requests >= before.saturating_mul(2) || requests <= before / 2 || moved;
        let was_mismatched = self.rollout.status.as_ref().is_some_and(is_mismatch_told);
        if grew || mismatched != was_mismatched {
            self.status.observed = Some(observed(share, requests));
        }
    }
}
