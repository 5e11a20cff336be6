//! Fights: someone else changes the route that this operator keeps.
//!
//! Called by `route` for every write of it. A hand that slips is put right at once, and counted. A controller with a wish of
//! its own answers every write with another, a deletion, or a change on its way in: from the fifth time on the route is put
//! right once a minute, people are told who writes it, and nothing counts as accepted until it has been left alone. A new
//! decision is never held up.

use anneal_crds::model_rollout::WrittenRoute;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    draft::{Draft, RECHECK},
    route::{self, Author, Write},
};
use crate::{plan::Severity, trouble::Trouble};

/// A person changes a route once or twice and looks why it does not stay; more is a machine.
const CONTESTED_AFTER: usize = 5;
/// A machine that comes by more rarely than that costs nobody anything.
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// A loop of two controllers is then one write a minute for each.
const REWRITE_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// A route that is gone brings no requests at all, so it is made again sooner.
const REMAKE_EVERY: SignedDuration = SignedDuration::from_secs(10);
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

    /// What was written last.
    pub(super) fn written(&self) -> Option<&WrittenRoute> {
        self.status.traffic.as_ref()?.written.as_ref()
    }

    /// The route is as it was written.
    pub(super) fn note_seen(&mut self, uid: Option<String>) {
        let written = self.status.traffic.as_mut().and_then(|traffic| traffic.written.as_mut());
        if let Some(written) = written {
            written.seen = uid;
        }
    }

    /// Whether a contested route stays as it is for now. The first minute of a decision knows no wait, so that a write that
    /// fails is tried again at once; and a route that was not seen since it was made may never have been.
    pub(super) fn waits_to_rewrite(&mut self, write: &WrittenRoute) -> bool {
        let written = self.written();
        let decided_before = written.is_some_and(|written| written.digest == write.digest);
        let every = match (&self.snapshot.children.route, written.and_then(|written| written.seen.as_ref())) {
            (Some(_), _) => REWRITE_EVERY,
            (None, Some(_)) => REMAKE_EVERY,
            (None, None) => SignedDuration::ZERO,
        };
        let age = self.age_of(self.fights().last());
        let waits = self.contested() && decided_before && self.step_age() >= REWRITE_EVERY && age < every;
        if waits {
            self.wake_at_latest(every.saturating_sub(age));
        }
        waits
    }

    /// Who made `write` necessary, if the route was not left as it was written.
    fn opponent(&self, write: &Write) -> Option<String> {
        let written = self.written().filter(|written| written.digest == write.record.digest)?;
        let Some(route) = &self.snapshot.children.route else {
            // A write that failed leaves no route either.
            return written.seen.as_ref().map(|_| "whoever deletes it".to_owned());
        };
        let is_another = written.seen.is_some() && written.seen.as_deref() != route::uid(route);
        let came_back = write.landed && self.age_of(self.fights().last()) >= RECHECK;
        if write.record.over <= written.over && !is_another && !came_back {
            return None;
        }
        match Author::of(route) {
            Author::Other(who) => Some(who.to_owned()),
            // Another rollout wrote its own rule since, and whether ours ever came through is not known.
            Author::Us if write.is_shared && !write.landed => None,
            Author::Us => Some("an admission webhook".to_owned()),
            Author::Unknown => Some("someone".to_owned()),
        }
    }

    /// Counts a write that would not be needed if the route had been left as it was written. One that comes back changed
    /// without a new generation, because a webhook makes the same of it each time, is counted now and then: a count is a
    /// write of the status, which wakes the next look.
    pub(super) fn note_fight(&mut self, write: &Write) {
        let Some(who) = self.opponent(write) else { return };
        let first = self.age_of(self.fights().last()) > WINDOW;
        let contested = self.contested();
        let now = Time(self.now);
        let traffic = self.traffic();
        traffic.fights = traffic.fights.saturating_add(1);
        traffic.recent_fights.push(now);
        let surplus = traffic.recent_fights.len().saturating_sub(CONTESTED_AFTER);
        traffic.recent_fights.drain(..surplus);
        traffic.changed_by = Some(anneal_crds::common::shorten(&who, 128).into_owned());
        if let Some(trouble) = self.contest().filter(|_| !contested) {
            self.note(Severity::Warning, &trouble.reason, &trouble.message);
        } else if first {
            let message = format!("HTTPRoute {} was changed by {who} and is put right.", self.route_name());
            self.note(Severity::Warning, "RouteEdited", &message);
        }
    }

    /// Who changes the route against us, while it is contested.
    pub(super) fn contest(&self) -> Option<Trouble> {
        if !self.contested() {
            return None;
        }
        let who = self.status.traffic.as_ref()?.changed_by.as_deref().unwrap_or("someone");
        let message = format!(
            "HTTPRoute {} was changed or deleted {CONTESTED_AFTER} times within 10 minutes, last by {who}. It is put right once a minute at most, or made again every 10 seconds, and no step counts until it has been left alone for 2 minutes. Keep {who} from writing it.",
            self.route_name()
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

    /// Name of the route.
    pub(super) fn route_name(&self) -> String {
        route::route_key(self.rollout).map_or_else(String::new, |key| key.name)
    }
}
