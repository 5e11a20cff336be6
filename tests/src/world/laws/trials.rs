//! Laws of what a version must show before it takes requests, and before the one before it goes.

use anneal_core::object::Key;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    rollout::{divides, per_mille},
    string, text, workload,
};
use crate::world::{sim::Sim, trials::Probed};

/// Whether the candidate has all requests.
pub(super) fn has_all(status: &Value) -> bool {
    status["phase"] == "Canary" && per_mille(&status["weight"]) == 1000
}

impl Sim {
    /// A version leaves the phases in which nobody sees it.
    pub(super) fn check_unseen(&mut self, caller: usize, key: &Key, old: &Value, new: &Value) {
        let unseen = |status: &Value| status["phase"] == "Preparing" || status["phase"] == "Staging";
        let seen = new["phase"] == "Shadow" || divides(new);
        let promoted = old["candidate"] == new["stable"] && old["stable"] != new["stable"];
        let goes_on = unseen(old) && ((seen && old["candidate"] == new["candidate"]) || promoted);
        let tested = old["phase"] == "Preparing" && new["phase"] == "Staging";
        if goes_on || tested {
            self.check_warm(caller, key, old);
        }
        if goes_on {
            self.check_tested(caller, key, old, new);
        }
        let spec = &self.callers[caller].walk.read["spec"]["strategy"];
        let number = |status: &Value, of: &str| status[of]["try"].as_i64().unwrap_or(0);
        for of in ["staging", "smoke"] {
            let most = spec[of]["tries"].as_i64().unwrap_or(3).max(number(old, of));
            let (before, after) = (number(old, of), number(new, of));
            if after > most.max(1) || (after > before + 1 && after > 1) {
                let why = format!("{}: {of} from {} to {} of {most}", key.name, old[of], new[of]);
                return self.broken("tries are counted and few", why);
            }
        }
    }

    fn probed(&self, caller: usize, subject: &str, path: &str) -> bool {
        let wanted = Probed { subject: subject.to_owned(), path: path.to_owned(), good: true };
        self.callers[caller].walk.probed.as_ref() == Some(&wanted)
    }

    fn check_warm(&mut self, caller: usize, key: &Key, old: &Value) {
        let cold = &self.callers[caller].walk.read["spec"]["serving"]["warmup"];
        let subject = workload(&key.name, &old["candidate"]);
        if old["phase"] == "Preparing" && !cold.is_null() && !self.probed(caller, &subject, "/warm") {
            self.broken("a version is warm before it takes requests", format!("{subject} in {old}"));
        }
    }

    fn check_tested(&mut self, caller: usize, key: &Key, old: &Value, new: &Value) {
        let staging = self.callers[caller].walk.read["spec"]["strategy"]["staging"].clone();
        let reached = format!("staging {}", text(&new["decision"]["reason"]));
        if staging.is_null() {
            return;
        }
        *self.laws.reached.entry(reached).or_default() += 1;
        if new["decision"]["reason"] == "PromotedByHand" {
            return self.check_promoted(caller, &key.name, old, &old["candidate"]);
        }
        let version = string(&old["candidate"]["version"]);
        let since: Option<Timestamp> = text(&old["stepStartedAt"]).parse().ok();
        // Clocks differ, and times are recorded in whole seconds.
        let slack = self.laws.skew + SignedDuration::from_secs(1);
        let in_round = |at: &Timestamp| since.is_some_and(|since| *at + slack >= since);
        let passed = self
            .trials
            .passed
            .iter()
            .any(|(rollout, of, at)| *rollout == key.name && *of == version && in_round(at));
        if old["phase"] != "Staging" || !passed {
            let why = format!("{}: {version} leaves {old}", key.name);
            self.broken("no version gets requests before it passed its test", why);
        }
    }

    /// All traffic is new to a version; what it answered before does not count.
    pub(super) fn note_has_all(&mut self, key: &Key, version: &Value) {
        self.trials.smoked.remove(&workload(&key.name, version));
    }

    /// A candidate becomes the stable version.
    pub(super) fn note_promoted(&mut self, caller: usize, key: &Key, old: &Value, new: &Value) {
        let smoke = !self.callers[caller].walk.read["spec"]["strategy"]["smoke"].is_null();
        let subject = workload(&key.name, &new["stable"]);
        if !has_all(old) {
            self.note_has_all(key, &new["stable"]);
        }
        if smoke && new["phase"] != "Baking" {
            self.broken("the version before waits for the smoke requests", format!("{subject} in {new}"));
        }
    }

    /// A watch ends.
    pub(super) fn check_smoked(&mut self, caller: usize, key: &Key, old: &Value, new: &Value) {
        let smoke = !self.callers[caller].walk.read["spec"]["strategy"]["smoke"].is_null();
        let subject = workload(&key.name, &old["stable"]);
        let reason = text(&new["decision"]["reason"]);
        let told = reason == "PromotedByHand" || (reason == "SmokeFailed" && old["previous"].is_null());
        if smoke && !told && !self.trials.smoked.contains(&subject) {
            self.broken("the version before waits for the smoke requests", format!("{subject}: {new}"));
        }
    }
}
