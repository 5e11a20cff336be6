//! Laws of freezes and approvals: nothing advances in an open window, and nothing that needs an approval without one.

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use anneal_crds::names;

use super::{
    rollout::{divides, moving, per_mille, steps},
    string, text,
};
use crate::world::{manifests, sim::Sim};

/// All requests, in per mille.
const ALL: i64 = 1000;

/// Whether a condition of this type is there and true.
fn holds(status: &Value, type_: &str) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

/// Where the shadow and the experiment are, before all weights in per mille.
const SHADOW: i64 = 0;
const EXPERIMENT: i64 = 1;

/// Weights in per mille of what needs an approval.
fn approvals(strategy: &Value) -> Vec<i64> {
    let steps = steps(strategy);
    let weight = |step: &Value| per_mille(&step["weight"]);
    let mut points: Vec<i64> = steps.iter().filter(|step| step["then"] == "Approval").map(weight).collect();
    if strategy["experiment"]["then"] == "Approval" {
        points.push(EXPERIMENT);
    }
    if strategy["approval"]["before"] == "FullTraffic" {
        let below = steps.iter().map(weight).filter(|weight| *weight < ALL).max();
        let before = match (strategy["experiment"].is_null(), strategy["shadow"].is_null()) {
            (false, _) => EXPERIMENT,
            (true, false) => SHADOW,
            (true, true) => ALL,
        };
        points.push(below.unwrap_or(before));
    }
    points
}

impl Sim {
    /// What worlds come to, to see that these laws are not idle.
    pub(super) fn note_consent(&mut self, old: &Value, new: &Value) {
        for (type_, reached) in
            [("Frozen", "candidate that is frozen"), ("AwaitingApproval", "candidate that needs an approval")]
        {
            if moving(new) && holds(new, type_) && !holds(old, type_) {
                *self.laws.reached.entry(reached.to_owned()).or_default() += 1;
            }
        }
    }

    /// No version begins, gets more requests or ends its watch in an open window, unless someone says so by its name.
    pub(super) fn check_not_frozen(&mut self, caller: usize, name: &str, new: &Value) {
        let strategy = self.callers[caller].walk.read["spec"]["strategy"].clone();
        let Ok(decided) = string(&new["stepStartedAt"]).parse::<Timestamp>() else { return };
        // What is recorded may lie ahead of the clock that decided, as far as clocks are apart.
        let earlier = decided.saturating_sub(self.laws.skew).unwrap_or(decided);
        let open = manifests::open_freeze(&strategy, decided)
            .filter(|_| manifests::open_freeze(&strategy, earlier).is_some());
        let Some(open) = open else { return };
        let said =
            string(&self.callers[caller].walk.read["metadata"]["annotations"][names::ANNOTATION_PROMOTE]);
        if new["decision"]["reason"] == "PromotedByHand" && said.contains(&format!(" despite {open}:")) {
            *self.laws.reached.entry("promotion despite a freeze".to_owned()).or_default() += 1;
            return;
        }
        let why = format!("{name}: {} at {decided} in {open}", new["decision"]["reason"]);
        self.broken("nothing advances in a freeze", why);
    }

    /// Whoever gets more requests from here has the approval that this step needs, and goes past no other one.
    pub(super) fn check_approved(&mut self, caller: usize, name: &str, before: &Value, after: &Value) {
        let (old, new) = (&before["status"], &after["status"]);
        if old["stable"].is_null() {
            return;
        }
        let read = self.callers[caller].walk.read.clone();
        let place = |status: &Value| match text(&status["phase"]) {
            "Experiment" => EXPERIMENT,
            _ => per_mille(&status["weight"]),
        };
        let here = place(old);
        let there = if divides(new) { place(new) } else { ALL + 1 };
        let passed: Vec<i64> = approvals(&read["spec"]["strategy"])
            .into_iter()
            .filter(|point| (here..there).contains(point))
            .collect();
        if passed.is_empty() {
            return;
        }
        let place = match text(&old["phase"]) {
            "Canary" => old["weight"].to_string(),
            phase => phase.to_owned(),
        };
        let said = string(&read["metadata"]["annotations"][names::ANNOTATION_APPROVE]);
        let wanted = format!("{}@{place} ", text(&old["candidate"]["version"]));
        let named =
            said.strip_prefix(&wanted).and_then(|rest| rest.split_once(':')).map(|(digest, _)| digest);
        let (digest, evidence) = (text(&old["approval"]["digest"]), &old["approval"]["evidence"]);
        let is_of_evidence = digest == format!("{:x}", Sha256::digest(evidence.to_string().as_bytes()));
        let is_of_candidate =
            evidence["candidate"] == old["candidate"] && evidence["weight"] == old["weight"];
        let fresh = string(&old["approval"]["expiresAt"])
            .parse::<Timestamp>()
            .ok()
            .zip(string(&new["stepStartedAt"]).parse::<Timestamp>().ok());
        let fresh = fresh.is_some_and(|(expires, decided)| decided <= expires);
        let only_here = passed.iter().all(|point| *point == here);
        let named = named.is_some_and(|named| named.len() >= 12 && digest.starts_with(named));
        if !(named && is_of_evidence && is_of_candidate && fresh && only_here) {
            let why = format!("{name}: `{said}` for {} past {passed:?}, from {old}", old["approval"]);
            self.broken("what needs an approval has one", why);
        }
    }
}
