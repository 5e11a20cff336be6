//! Laws of fights: a loop of two controllers ends, and no decision waits for its end.

use anneal_core::object::{Key, Kind};
use jiff::SignedDuration;
use serde_json::Value;

use super::text;
use crate::world::{
    gateway::Shares,
    sim::{NAMESPACE, Sim},
};

/// How often a contested route is written.
const REWRITE_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// Whether a status says that someone else keeps changing the route.
pub fn contested(status: &Value) -> bool {
    let told = |told: &Value| told["type"] == "TrafficVerified" && told["reason"] == "RouteContested";
    status["conditions"].as_array().is_some_and(|all| all.iter().any(told))
}

impl Sim {
    /// Whether a route may be wrong for now: it is contested, and nothing was decided within the last minute.
    pub(super) fn may_wait(&self, status: &Value) -> bool {
        let began = text(&status["stepStartedAt"]).parse().unwrap_or(self.now);
        contested(status) && self.now.duration_since(began) + self.laws.skew >= REWRITE_EVERY
    }

    /// An operator writes a route.
    pub(super) fn check_rewrite(&mut self, caller: usize, name: &str, shares: &Shares) {
        let walk = self.callers[caller].walk.clone();
        let read = &walk.read["status"];
        // What the spec asks for anew is nobody's fight.
        if walk.read["metadata"]["generation"] != read["observedGeneration"] {
            return;
        }
        let before = self.laws.written.insert(name.to_owned(), (self.now, shares.clone()));
        // A refusal that was told for a spec has seen nothing of what that asks of the route.
        let refused = |told: &Value| told["reason"] == "Forbidden" || told["reason"] == "Refused";
        let is_refused = read["conditions"].as_array().is_some_and(|all| all.iter().any(refused));
        if walk.disturbed || walk.late || is_refused || !contested(read) {
            return;
        }
        *self.laws.reached.entry("route that is contested".to_owned()).or_default() += 1;
        // What was decided in this very walk is written at once.
        let key = Key::new(Kind::ModelRollout, NAMESPACE, name);
        let began = self.store.get(&key).map(|rollout| &rollout["status"]["stepStartedAt"]);
        let began = began.and_then(|began| text(began).parse().ok()).unwrap_or(self.now);
        // Within its first minute a decision is written as often as it takes.
        let skew = self.laws.skew;
        let settled = |at: jiff::Timestamp| at.duration_since(began) >= REWRITE_EVERY + skew;
        // A write that failed and was repeated counts from when it was decided.
        let fights = read["traffic"]["recentFights"].as_array();
        let last = fights.and_then(|all| text(all.last()?).parse().ok()).unwrap_or(self.now);
        if let Some((at, same)) = before.filter(|(at, _)| settled(*at))
            && same == *shares
            && self.now.duration_since(at.min(last)) + skew < REWRITE_EVERY - SignedDuration::from_secs(2)
        {
            self.broken("a loop of two controllers ends", format!("{name}: {shares:?} again after {at}"));
        }
    }
}
