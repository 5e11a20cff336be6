//! Fights: someone else changes the route that this operator keeps.
//!
//! Called by `route` for every write of it. A hand that slips is put right at once, and counted. A controller with a wish of
//! its own answers every write with another: from the fifth time on the route is put right once a minute, people are told
//! who writes it, and nothing counts as accepted until it has been left alone. A new decision is never held up.

use anneal_crds::model_rollout::WrittenRoute;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{draft::Draft, route::Author};
use crate::{plan::Severity, trouble::Trouble};

/// A person changes a route once or twice and looks why it does not stay; more is a machine.
const CONTESTED_AFTER: usize = 5;
/// A machine that comes by more rarely than that costs nobody anything.
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// A loop of two controllers is then one write a minute for each.
const REWRITE_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// Whoever still fights has answered the last write by then.
const CALM_AFTER: SignedDuration = SignedDuration::from_mins(2);

impl Draft<'_> {
    fn fights(&self) -> &[Time] {
        self.status.traffic.as_ref().map(|traffic| traffic.recent_fights.as_slice()).unwrap_or_default()
    }

    fn age_of(&self, fight: Option<&Time>) -> SignedDuration {
        fight.map_or(SignedDuration::MAX, |fight| self.now.duration_since(fight.0))
    }

    /// Whether someone else keeps changing the route.
    pub(super) fn contested(&self) -> bool {
        let fights = self.fights();
        // Five within the window, however long ago the first of them was: a contest ends when it is calm, and not before.
        let within = fights.first().zip(fights.last());
        fights.len() >= CONTESTED_AFTER
            && within.is_some_and(|(first, last)| last.0.duration_since(first.0) <= WINDOW)
            && self.age_of(fights.last()) < CALM_AFTER
    }

    /// Whether a contested route stays as it is for now. The first minute of a decision knows no wait, so that a write that
    /// fails is tried again at once; and a route that is gone brings no requests at all.
    pub(super) fn waits_to_rewrite(&mut self, write: &WrittenRoute) -> bool {
        let written = self.status.traffic.as_ref().and_then(|traffic| traffic.written.as_ref());
        let decided_before = written.is_some_and(|written| written.digest == write.digest);
        let age = self.age_of(self.fights().last());
        let waits = self.snapshot.children.route.is_some()
            && self.contested()
            && decided_before
            && self.step_age() >= REWRITE_EVERY
            && age < REWRITE_EVERY;
        if waits {
            self.wake_at_latest(REWRITE_EVERY.saturating_sub(age));
        }
        waits
    }

    /// Counts a write that would not be needed if the route had been left as it was written.
    pub(super) fn note_fight(&mut self, write: &WrittenRoute) {
        let seen = self.snapshot.children.route.as_ref();
        let written = self.status.traffic.as_ref().and_then(|traffic| traffic.written.as_ref());
        let changed_since =
            |written: &WrittenRoute| written.digest == write.digest && write.over > written.over;
        let Some(seen) = seen.filter(|_| written.is_some_and(changed_since)) else { return };
        let who = match Author::of(seen) {
            Author::Other(who) => who,
            Author::Us => "an admission webhook",
            Author::Unknown => "someone",
        };
        let first = self.age_of(self.fights().last()) > WINDOW;
        let contested = self.contested();
        let now = Time(self.now);
        let traffic = self.traffic();
        traffic.fights = traffic.fights.saturating_add(1);
        traffic.recent_fights.push(now);
        let surplus = traffic.recent_fights.len().saturating_sub(CONTESTED_AFTER);
        traffic.recent_fights.drain(..surplus);
        traffic.changed_by = Some(anneal_crds::common::shorten(who, 128).into_owned());
        if let Some(trouble) = self.contest().filter(|_| !contested) {
            self.note(Severity::Warning, &trouble.reason, &trouble.message);
        } else if first {
            let message = format!("HTTPRoute {} was changed by {who} and is put right.", route_name(seen));
            self.note(Severity::Warning, "RouteEdited", &message);
        }
    }

    /// Who changes the route against us, while it is contested.
    pub(super) fn contest(&self) -> Option<Trouble> {
        let seen = self.snapshot.children.route.as_ref().filter(|_| self.contested())?;
        let who = self.status.traffic.as_ref()?.changed_by.as_deref().unwrap_or("someone");
        let message = format!(
            "HTTPRoute {} was changed {CONTESTED_AFTER} times within 10 minutes, last by {who}. It is put right once a minute at most, and no step counts until it has been left alone for 2 minutes. Keep {who} from writing it.",
            route_name(seen)
        );
        Some(Trouble { reason: "RouteContested".to_owned(), message })
    }

    /// Comes back when a contest may be over.
    pub(super) fn await_calm(&mut self) {
        if self.contested() {
            let age = self.age_of(self.fights().last());
            self.wake_at_latest(CALM_AFTER.saturating_sub(age));
        }
    }
}

fn route_name(route: &Value) -> &str {
    route["metadata"]["name"].as_str().unwrap_or_default()
}
