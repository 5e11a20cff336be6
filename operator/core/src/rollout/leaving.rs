//! Leaving: whether versions that should get nothing any more are still asked, before their pods go.
//!
//! Asked for by the shell beside `query`, and by `converge` when pods are to go. That a controller has accepted a route does not mean that
//! its data plane follows, and pods that go while requests reach them fail them. Each version is counted for itself. What cannot be counted
//! keeps nobody, unless requests were counted before that should not have come: `status.strays` says of whom.

use std::mem;

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, VersionRef,
    metric::Metric,
    model_rollout::{RolloutPhase, Stray},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use super::{
    build::{self, Home},
    by_hand,
    converge::RETIRE_AFTER,
    draft::{Draft, RECHECK},
    expression,
    query::{Query, Question, Shape, counts_requests},
    reading::{Answer, part},
    route::{MISMATCH, UNREAD, VERIFIED, is_mismatch_told, is_told_unread},
    scope::Scope,
    shares::{REST, divided},
};
use crate::{condition::Truth, plan::Action, trouble::Trouble};

/// Requests that were under way when the data plane took the weights.
const UNDER_WAY: SignedDuration = SignedDuration::from_secs(10);
/// How far back requests count, or twice `staleAfter` if that is longer: some scrapes.
const LATELY: SignedDuration = SignedDuration::from_secs(60);
/// The share of requests, of probes and the like, that keeps no pods.
const HARMLESS: f64 = 0.02;
/// A larger one is none of probes, where a version is known to have been asked.
const TOO_MUCH: f64 = 0.2;
/// How long a version that was asked may be without a counter, or with hardly any requests, before it is taken for one that nobody asks: a
/// server that comes back, or pods that answer it too late, have scraped it often by then, and with two scrapes it counts a part of what came.
const UNSEEN_FOR: SignedDuration = SignedDuration::from_mins(10);
/// Fewer requests a second keep none either, unless the version that serves gets fewer.
const FEWEST: f64 = 10.0 / 60.0;

/// The versions that have pods, and should get no requests and none of their own accord.
fn left(rollout: &ModelRollout, status: &ModelRolloutStatus, deployments: &[Value]) -> Vec<String> {
    let Some(home) = Home::of(rollout) else { return vec![] };
    let moving = status.candidate.as_ref().filter(|_| status.phase.is_moving());
    let serves = |version: &String| {
        let mut serving = status.stable.iter().chain(&status.previous).chain(moving);
        serving.any(|known| known.version == *version)
    };
    let own = deployments.iter().filter(|deployment| home.owns(deployment));
    let versions =
        own.filter_map(|deployment| build::version_of(home.name, deployment["metadata"]["name"].as_str()?));
    versions.filter(|version| !serves(version)).collect()
}

/// The metric by which requests are counted: one that rolls back, if there is one of them.
fn counter(rollout: &ModelRollout) -> Option<&Metric> {
    let triggers = &rollout.spec.strategy.rollback_triggers;
    let metrics = || rollout.spec.metrics.iter().filter(|metric| counts_requests(metric));
    metrics().find(|metric| triggers.contains(&metric.name)).or_else(|| metrics().next())
}

/// In how long every pod is scraped twice, without which nothing rises.
fn two_scrapes(rollout: &ModelRollout) -> SignedDuration {
    rollout.spec.prometheus.stale_after.get().saturating_mul(2)
}

/// How long after the weights were taken enough has been scraped since requests under way had ended.
fn is_known_after(rollout: &ModelRollout) -> SignedDuration {
    UNDER_WAY.saturating_add(two_scrapes(rollout)).max(RETIRE_AFTER)
}

/// Over how many seconds requests are counted, `age` after the weights were taken; at least one.
fn counted_for(rollout: &ModelRollout, age: SignedDuration) -> i64 {
    let lately = LATELY.max(two_scrapes(rollout));
    age.saturating_sub(UNDER_WAY).min(lately).as_secs().max(1)
}

/// What is asked about versions that have these Deployments and should get no requests, from the moment on at which they may go: a
/// part for each of them, by its name, and one for the version that serves.
pub fn query_of_who_left(rollout: &ModelRollout, deployments: &[Value], now: Timestamp) -> Option<Query> {
    // Nobody waits for a server whose answer changes nothing.
    let status = rollout.status.as_ref().filter(|status| !by_hand::is_decided(rollout, status))?;
    if gives_place(status.phase) {
        return None;
    }
    let (versions, metric) = (left(rollout, status, deployments), counter(rollout)?);
    let age = now.duration_since(status.traffic_accepted_at.as_ref()?.0);
    if versions.is_empty() || age < is_known_after(rollout) {
        return None;
    }
    let requests = |version: &str, name: &str| {
        let scope = Scope::of_named(rollout, &[version]);
        let seconds = counted_for(rollout, age);
        expression::requests(rollout.spec.judge.evidence, metric, &scope, seconds, name)
    };
    let own = versions.iter().filter_map(|version| requests(version, version));
    let serving = status.stable.as_ref().and_then(|stable| requests(&stable.version, REST));
    let expression = own.chain(serving).collect::<Vec<_>>().join(" or ");
    Some(Query { metric: metric.name.clone(), question: Question::Left, expression, shape: Shape::Vector })
}

/// Whether it is told in this phase that versions which left are still asked. In later ones a step tells where requests go.
fn is_told_in(phase: RolloutPhase) -> bool {
    phase.rests() || matches!(phase, RolloutPhase::Preparing | RolloutPhase::Staging)
}

/// Whether versions that left go at once: who is gone back to may need the place, and people have asked for that.
fn gives_place(phase: RolloutPhase) -> bool {
    phase == RolloutPhase::RollingBack
}

fn told(metric: &Metric, versions: &[String]) -> String {
    format!(
        "{} should get no requests any more, and {} has counted some, so its pods stay until it counts none. Look at the gateway's data plane, and at whatever sends requests past it.",
        versions.join(" and "),
        metric.name
    )
}

/// One text whatever the reason is, so that a server that flickers writes nothing.
fn told_unknown(metric: &Metric, versions: &[String]) -> String {
    format!(
        "At an earlier step requests were not divided as asked, and {} does not surely say now that {} gets none, so its pods stay until it does, and for ten minutes at most if others are counted. Look whether the metrics server answers, and scrapes these pods.",
        metric.name,
        versions.join(" and "),
    )
}

/// What counters say of requests to a version that should get none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// More than do no harm came.
    Asked,
    /// None worth mentioning came.
    NotAsked,
    /// It has no counter, and others have; or hardly any came, and it was asked before.
    Unseen,
    /// Nobody can say.
    Nothing,
}

impl<'a> Draft<'a> {
    /// The metric that counts the requests of versions that left, and those of them that are to be deleted.
    fn counts_who_leaves(&self, surplus: &[Action]) -> Option<(&'a Metric, Vec<String>)> {
        let metric = counter(self.rollout)?;
        let mut versions = left(self.rollout, &self.status, &self.snapshot.children.deployments);
        versions.retain(|version| surplus.iter().any(|action| self.takes_away(action, version)));
        (!versions.is_empty()).then_some((metric, versions))
    }

    /// Whether an action deletes something of this version's.
    fn takes_away(&self, action: &Action, version: &str) -> bool {
        let name = Home::of(self.rollout).map(|home| build::workload_name(home.name, version));
        matches!(action, Action::Delete { key, .. } if Some(&key.name) == name.as_ref())
    }

    /// How long what is to be deleted stays after the weights were taken.
    pub(super) fn stays_for(&self, surplus: &[Action]) -> SignedDuration {
        let counts = self.counts_who_leaves(surplus).filter(|_| !gives_place(self.status.phase));
        counts.map_or(RETIRE_AFTER, |_| is_known_after(self.rollout))
    }

    /// Requests to the version on trial or to the one beside it go where they should not.
    pub(super) fn note_strays(&mut self, trial: &VersionRef) {
        // Copies of requests reach nobody who should not have them.
        let Some((beside, _)) = divided(&self.status) else { return };
        for version in [beside.version.clone(), trial.version.clone()] {
            self.note_stray(&version, Says::Asked);
        }
    }

    fn note_stray(&mut self, version: &str, says: Says) {
        let now = Time(self.now);
        let strays = &mut self.status.strays;
        let known = strays.iter_mut().find(|stray| stray.version == version);
        match (known, says) {
            (None, Says::Asked) => strays.push(Stray { version: version.to_owned(), unseen_since: None }),
            (Some(known), Says::Asked) => known.unseen_since = None,
            (Some(known), Says::Unseen) => {
                known.unseen_since.get_or_insert(now);
            }
            (Some(_), Says::NotAsked) => strays.retain(|stray| stray.version != version),
            (None, Says::NotAsked | Says::Unseen) | (_, Says::Nothing) => {}
        }
    }

    /// Those whose pods are gone are no strays any more, nor is one that serves for good. A release that did not write them down told
    /// of them.
    pub(super) fn recall_strays(&mut self) {
        if self.status.strays.is_empty() && self.was_told() {
            for version in left(self.rollout, &self.status, &self.snapshot.children.deployments) {
                self.note_stray(&version, Says::Asked);
            }
        }
        let mut strays = mem::take(&mut self.status.strays);
        let stable = self.status.stable.as_ref().filter(|_| self.status.phase.rests());
        let serves = |version: &String| stable.is_some_and(|stable| stable.version == *version);
        strays.retain(|stray| self.deployment_of(&stray.version).is_some() && !serves(&stray.version));
        self.status.strays = strays;
    }

    /// Takes out of what is to be deleted whatever belongs to versions that still get requests, and tells so.
    pub(super) fn keep_who_is_asked(&mut self, surplus: &mut Vec<Action>) {
        let leaves = self.counts_who_leaves(surplus).filter(|_| !gives_place(self.status.phase));
        let Some((metric, mut versions)) = leaves else { return };
        for version in &versions {
            self.note_stray(version, self.says_of(metric, version));
        }
        versions.retain(|version| self.keeps_its_pods(metric, version));
        if versions.is_empty() {
            return;
        }
        surplus.retain(|action| !versions.iter().any(|version| self.takes_away(action, version)));
        self.wake_at_latest(RECHECK);
        let asked = versions.iter().any(|version| self.says_of(metric, version) == Says::Asked);
        versions.retain(|version| self.was_asked(version));
        match (versions.is_empty(), asked || self.was_told()) {
            (true, _) => {}
            (false, true) => self.tell_who_is_asked(told(metric, &versions)),
            (false, false) => self.tell_who_is_not_counted(&told_unknown(metric, &versions)),
        }
    }

    /// What was told stays so until somebody is asked again, though the route has changed since.
    pub(super) fn retell_who_is_asked(&mut self, surplus: &[Action]) {
        let was_unknown = self.was_told_of_leavers(is_told_unread);
        let leaves = self.counts_who_leaves(surplus).filter(|_| was_unknown || self.was_told());
        let Some((metric, mut versions)) = leaves else { return };
        versions.retain(|version| self.was_asked(version));
        if versions.is_empty() {
            return;
        }
        self.wake_at_latest(RECHECK);
        if was_unknown {
            self.tell_who_is_not_counted(&told_unknown(metric, &versions));
        } else {
            self.tell_who_is_asked(told(metric, &versions));
        }
    }

    fn says_of(&self, metric: &Metric, version: &str) -> Says {
        let answer = self.snapshot.answers.get(&(metric.name.clone(), Question::Left));
        let (Some(answer), Some(age)) = (answer, self.accepted_age()) else { return Says::Nothing };
        let counted = Counted::of(answer, version, self.status.stable.is_some());
        let fewest = FEWEST * counted_for(self.rollout, age) as f64;
        match counted.says(fewest, HARMLESS) {
            Says::NotAsked if self.was_asked(version) => counted.says_of_stray(),
            says @ (Says::Asked | Says::NotAsked | Says::Unseen | Says::Nothing) => says,
        }
    }

    /// What was known before is not undone by counters that are gone, or a server that is away or has just come back. Beside a version
    /// that has its pods and is judged nobody is in the way.
    fn keeps_its_pods(&self, metric: &Metric, version: &str) -> bool {
        match self.says_of(metric, version) {
            Says::Asked => true,
            Says::NotAsked => false,
            Says::Unseen => self.is_stray(version) && self.could_answer(version),
            Says::Nothing => {
                let is_nobodys_place =
                    self.status.phase == RolloutPhase::Staging || self.status.phase.is_judged();
                // However long it has had no counter: that is known only where others are counted.
                (is_nobodys_place || self.was_asked(version)) && self.could_answer(version)
            }
        }
    }

    /// Whether it was asked when that was last counted.
    fn was_asked(&self, version: &str) -> bool {
        self.status.strays.iter().any(|stray| stray.version == version)
    }

    /// The same, and its counters are not gone for good.
    fn is_stray(&self, version: &str) -> bool {
        let is_young = |since: &Time| self.now.duration_since(since.0) < UNSEEN_FOR;
        let mut strays = self.status.strays.iter();
        strays.any(|stray| stray.version == version && stray.unseen_since.as_ref().is_none_or(is_young))
    }

    /// Whether it was told that a version which left still gets requests.
    fn was_told(&self) -> bool {
        self.was_told_of_leavers(is_mismatch_told)
    }

    /// Whether something was told in a phase in which it is of versions that left.
    fn was_told_of_leavers(&self, is_told: fn(&ModelRolloutStatus) -> bool) -> bool {
        self.rollout.status.as_ref().is_some_and(|status| is_told_in(status.phase) && is_told(status))
    }

    /// Whether a version waits for the place of versions that left, whose pods stay, or of which nobody knows yet whether they may go.
    pub(super) fn is_held_up(&self, version: &VersionRef) -> bool {
        let leave = left(self.rollout, &self.status, &self.snapshot.children.deployments);
        let is_unknown = self.accepted_age().is_none_or(|age| age < is_known_after(self.rollout));
        let name = |version: &String| {
            Home::of(self.rollout).map(|home| build::workload_name(home.name, version)).unwrap_or_default()
        };
        let mut leave = leave.iter().filter(|version| !self.is_named_elsewhere(&name(version)));
        let mut stay = || leave.any(|version| is_unknown || self.was_asked(version));
        let goes_sometime = counter(self.rollout).is_some() && self.incumbent().is_someone();
        goes_sometime && self.lacks_room(version) && stay()
    }

    fn could_answer(&self, version: &str) -> bool {
        self.deployment_of(version)
            .is_some_and(|deployment| deployment["status"]["readyReplicas"].as_u64() > Some(0))
    }

    /// Whoever changes the route is told first, and known by that.
    fn tells_of_the_route(&self) -> bool {
        self.contest().is_some() || self.lies_with_the_user() || !is_told_in(self.status.phase)
    }

    /// What was known at an earlier step is known no more: nothing is wrong that anyone knows of.
    fn tell_who_is_not_counted(&mut self, message: &str) {
        if !self.tells_of_the_route() {
            self.condition(VERIFIED, Truth::Unknown, UNREAD, message);
        }
    }

    fn tell_who_is_asked(&mut self, message: String) {
        if self.tells_of_the_route() {
            return;
        }
        self.condition(VERIFIED, Truth::False, MISMATCH, &message);
        // What else is wrong comes first: this is told beside it.
        let is_stalled =
            |told: &Condition| told.type_ == "Stalled" && told.status == "True" && told.reason != MISMATCH;
        if !self.status.conditions.iter().any(is_stalled) {
            self.stalled(&Trouble { reason: MISMATCH.to_owned(), message });
        }
    }
}

/// Requests that were counted lately.
enum Counted {
    /// Of a version that should get none, and of the one that serves, if there is a version that does.
    Requests { own: f64, rest: f64, is_version: bool },
    /// It has no counter, and others have.
    Unseen,
    /// Nobody can say.
    Nothing,
}

impl Counted {
    fn of(answer: &Answer, version: &str, is_version: bool) -> Self {
        let vector = match answer {
            Answer::Vector(vector) => vector,
            Answer::Matrix(_) | Answer::Unreachable(_) | Answer::TooMuch(_) => return Self::Nothing,
        };
        let Some(own) = part(vector, version) else {
            let is_blind = is_version && part(vector, REST).is_none();
            return if is_blind { Self::Nothing } else { Self::Unseen };
        };
        let rest = part(vector, REST).unwrap_or(0.0);
        if own.is_finite() && rest.is_finite() {
            Self::Requests { own, rest, is_version }
        } else {
            Self::Nothing
        }
    }

    /// Where at least `fewest` requests, and more than a `harmless` share of all, keep pods.
    fn says(&self, fewest: f64, harmless: f64) -> Says {
        match *self {
            Self::Requests { own, rest, is_version } => {
                let many = own >= fewest && own > harmless * (own + rest);
                let most = is_version && own >= 1.0 && own > rest;
                if many || most { Says::Asked } else { Says::NotAsked }
            }
            Self::Unseen => Says::Unseen,
            Self::Nothing => Says::Nothing,
        }
    }

    /// Few requests, of a version that was asked before: those of probes, or a part of what comes.
    fn says_of_stray(&self) -> Says {
        match (self.says(1.0, TOO_MUCH), self.says(1.0, HARMLESS)) {
            (Says::NotAsked, Says::Asked) => Says::Unseen,
            (says @ (Says::Asked | Says::NotAsked | Says::Unseen | Says::Nothing), _) => says,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::reading::Series, *};

    #[test]
    fn a_service_that_no_version_counts_for_gets_no_fewer_requests_than_any() {
        let series = |name: &str, value| Series {
            labels: BTreeMap::from([(expression::PART.to_owned(), name.to_owned())]),
            value,
        };
        let stays = |own: f64, is_version| {
            Counted::of(&Answer::Vector(vec![series("v2", own)]), "v2", is_version).says(10.0, HARMLESS)
                == Says::Asked
        };
        assert!(stays(2.0, true) && !stays(2.0, false) && stays(11.0, false));
        let nothing = Answer::Vector(vec![]);
        let says = |is_version| Counted::of(&nothing, "v2", is_version).says(10.0, HARMLESS);
        assert_eq!((says(true), says(false)), (Says::Nothing, Says::Unseen));
    }
}
