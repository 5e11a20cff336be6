//! Laws of rollouts: who may take traffic, and on what grounds it gets more.

use anneal_core::object::{Key, Kind};
use anneal_crds::{Span, names};
use jiff::Timestamp;
use serde_json::Value;

use super::string;
use crate::world::{
    metrics::MAX_ERRORS,
    sim::{NAMESPACE, Sim, Told, Verdict},
};

/// Name of the workload of a version in a rollout, as the operator's documentation has it.
pub fn workload(rollout: &str, version: &Value) -> String {
    format!("{rollout}-{}", string(&version["version"]).replace('.', "-"))
}

/// Whether a status has a candidate on its way.
pub fn moving(status: &Value) -> bool {
    ["Preparing", "Shadow", "Canary"].iter().any(|phase| status["phase"] == *phase)
}

impl Sim {
    pub(super) fn check_rollout(&mut self, caller: usize, key: &Key, before: &Value, after: &Value) {
        self.check_times(key, before, after);
        let (old, new) = (&before["status"], &after["status"]);
        let name = &key.name;
        let digest = string(&new["candidate"]["digest"]);
        let weight = new["weight"].as_i64().unwrap_or(0);
        if !(0..=100).contains(&weight) || (weight > 0 && new["phase"] != "Canary") {
            self.broken(
                "weights are shares",
                format!("{name} has weight {weight} in phase {}", new["phase"]),
            );
        }
        let begins =
            moving(new) && (!moving(old) || old["candidate"]["digest"] != new["candidate"]["digest"]);
        if begins && self.laws.banned.get(name).is_some_and(|banned| banned.contains(&digest)) {
            self.broken("what was rolled back stays away", format!("{name}: {digest} is back"));
        }
        if begins {
            self.check_alone(caller, name);
        }
        let stable = string(&new["stable"]["digest"]);
        let promoted = !stable.is_empty() && old["stable"]["digest"] != new["stable"]["digest"];
        let from_candidate = moving(old) && old["candidate"]["digest"] == new["stable"]["digest"];
        if promoted && !from_candidate && !old["stable"].is_null() {
            self.broken("only a candidate becomes stable", format!("{name}: {stable}"));
        }
        let rises = moving(old)
            && !promoted
            && old["candidate"] == new["candidate"]
            && weight > old["weight"].as_i64().unwrap_or(0);
        if (promoted && from_candidate) || rises {
            self.check_rise(caller, name, before, after);
        }
        if new["decision"]["reason"] == "ThresholdBreached" && old["decision"]["at"] != new["decision"]["at"]
        {
            self.check_blame(name, &digest);
        }
        self.note_rejected(name, new);
    }

    fn note_rejected(&mut self, name: &str, status: &Value) {
        let rejected = status["rejected"].as_array().into_iter().flatten();
        let digests = rejected.map(|version| string(&version["digest"]));
        self.laws.banned.entry(name.to_owned()).or_default().extend(digests);
        if status["phase"] != "RolledBack" {
            self.laws.taken_out.remove(name);
        }
    }

    /// The candidate gets more traffic than it had.
    fn check_rise(&mut self, caller: usize, name: &str, before: &Value, after: &Value) {
        let (old, candidate) = (&before["status"], &before["status"]["candidate"]);
        let deployment = Key::new(Kind::Deployment, NAMESPACE, &workload(name, candidate));
        let floor = self.callers[caller].walk.floor;
        let wanted =
            self.callers[caller].walk.read["spec"]["serving"]["replicas"].as_i64().unwrap_or(i64::MAX);
        if !self.store.forms_since(&deployment, floor).any(|form| Self::is_ready(form, wanted)) {
            self.broken(
                "capacity comes before traffic",
                format!("{} was not ready since rv {floor}", deployment.name),
            );
        }
        self.check_iron_law(name, old);
        if old["phase"] == "Preparing" {
            if !old["stable"].is_null() && after["status"]["phase"] != "Canary" {
                self.broken("no version skips its canary", format!("{name}: {}", after["status"]["phase"]));
            }
            return;
        }
        self.check_order(caller, name, before, after);
        self.check_evidence(caller, name, before, after);
        let digest = string(&candidate["digest"]);
        let truth = self.truth.get(&digest);
        if truth.is_none_or(|truth| truth.slow || truth.error_rate > MAX_ERRORS) {
            let why = format!("{name}: {digest} got more traffic and is {truth:?}");
            self.broken("what is bad gets no more traffic", why);
        }
    }

    fn check_iron_law(&mut self, name: &str, status: &Value) {
        let digest = string(&status["candidate"]["digest"]);
        let stable = status["stable"]["digest"].as_str().map(str::to_owned);
        let truth = self.truth.get(&digest).cloned();
        let record = Key::new(Kind::ModelVersion, NAMESPACE, &string(&status["candidate"]["name"]));
        // A record that was deleted a moment ago counts as it was.
        let record = self
            .store
            .get_at(&record, u64::MAX)
            .or_else(|| self.store.get_at(&record, self.faults.stale_floor));
        let approved = record
            .is_none_or(|record| !record["metadata"]["annotations"][names::ANNOTATION_APPROVED_BY].is_null());
        let lawful = truth.as_ref().is_some_and(|truth| match &stable {
            Some(stable) => truth.beats.as_ref() == Some(stable),
            // It takes everything at once: a person must have said so.
            None => (truth.beats.is_some() || truth.good_first) && approved,
        });
        if !lawful {
            let why = format!("{name}: {digest} over {stable:?}, and it is {truth:?}, approved {approved}");
            self.broken("the iron law", why);
        }
    }

    /// No step of the strategy is left out.
    fn check_order(&mut self, caller: usize, name: &str, before: &Value, after: &Value) {
        let canary = self.callers[caller].walk.read["spec"]["strategy"]["canary"].clone();
        let percent = |field: &str| canary[field].as_i64().unwrap_or_default();
        let weight = |object: &Value| object["status"]["weight"].as_i64().unwrap_or_default();
        let next = if before["status"]["phase"] == "Canary" {
            (weight(before) < percent("max"))
                .then(|| percent("max").min(weight(before) + percent("increment")))
        } else {
            Some(percent("initial"))
        };
        let promoted = after["status"]["phase"] == "Healthy";
        if next != (!promoted).then(|| weight(after)) {
            let why = format!("{name}: {} then {} by {canary}", before["status"], after["status"]);
            self.broken("steps come in their order", why);
        }
    }

    /// Every trigger passed, on fresh numbers, for long enough and out of enough requests.
    fn check_evidence(&mut self, caller: usize, name: &str, before: &Value, after: &Value) {
        let walk = self.callers[caller].walk.clone();
        let strategy = &walk.read["spec"]["strategy"];
        let status = &before["status"];
        let terms = if status["phase"] == "Shadow" && !strategy["shadow"].is_null() {
            (&strategy["shadow"]["duration"], &strategy["shadow"]["minRequests"])
        } else {
            (&strategy["canary"]["interval"], &strategy["canary"]["minRequests"])
        };
        let triggers = strategy["rollbackTriggers"].as_array().map_or(0, Vec::len);
        let enough = terms.1.as_f64().unwrap_or(f64::INFINITY);
        let version = string(&status["candidate"]["version"]);
        let passes =
            |told: &Told| told.version == version && matches!(told.verdict, Verdict::Pass(n) if n >= enough);
        if triggers == 0 || walk.told.len() != triggers || !walk.told.iter().all(passes) {
            self.broken("more traffic needs a pass of every trigger", format!("{name}: {:?}", walk.told));
        }
        let readings = after["status"]["decision"]["readings"].as_array().cloned().unwrap_or_default();
        if readings.len() != triggers || !readings.iter().all(|reading| reading["verdict"] == "Pass") {
            self.broken("a decision shows its grounds", format!("{name}: {readings:?}"));
        }
        let span: Option<Span> = string(terms.0).parse().ok();
        let since: Option<Timestamp> = string(&status["trafficAcceptedAt"]).parse().ok();
        let decided: Option<Timestamp> = string(&after["status"]["stepStartedAt"]).parse().ok();
        let (Some(span), Some(since), Some(decided)) = (span, since, decided) else {
            return self.broken("a step takes its time", format!("{name}: {status}"));
        };
        // Times are recorded in whole seconds.
        if decided.duration_since(since) + jiff::SignedDuration::from_secs(1) < span.get() {
            self.broken("a step takes its time", format!("{name}: from {since} to {decided}"));
        }
    }

    fn check_blame(&mut self, name: &str, digest: &str) {
        let truth = self.truth.get(digest);
        if truth.is_some_and(|truth| !truth.slow && truth.error_rate <= MAX_ERRORS) {
            let why = format!("{name}: {digest} is {truth:?}");
            self.broken("what is good is not blamed", why);
        }
    }
}
