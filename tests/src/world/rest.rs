//! Where a world comes to rest, and what must be so there.

use anneal_core::object::{Key, Kind};
use anneal_crds::names;
use serde_json::Value;

use super::{
    laws::{lies_with_the_user, text, workload},
    outcome::{Finding, Telling},
    sim::{NAMESPACE, Sim},
};

impl Sim {
    /// Whether requests are not divided as a rollout asks for.
    pub(super) fn is_mismatched(&self, status: &Value) -> bool {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["reason"] == "TrafficSplitMismatch")
    }

    pub(super) fn check_rollout_rests(&mut self, name: &str, rollout: &Value) {
        let status = rollout["status"].clone();
        *self.laws.reached.entry(format!("rollout {}", text(&status["phase"]))).or_default() += 1;
        let candidate = text(&status["candidate"]["digest"]).to_owned();
        let boots = self.truth.get(&candidate).is_none_or(|truth| truth.boots);
        let phase = text(&status["phase"]);
        // Two rollouts of one model that share a stable version, and counters that cannot tell whose requests are whose.
        let shared = self.store.keys(Kind::HttpRoute).len() > 1 && self.is_mismatched(&status);
        if shared {
            return;
        }
        let told = |word: &str| {
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            conditions.any(|told| text(&told["message"]).contains(word))
        };
        // One bad event may take away what a step without any had shown, and there may be too few requests to show it again soon.
        if rollout["spec"]["judge"]["sequential"]["advance"] == "Evidence" && told("it is not shown yet") {
            return;
        }
        // What serves is no version that anyone knows of: someone deleted its record and made the rollout anew.
        if lies_with_the_user(&status) && !rollout["spec"]["traffic"]["attach"].is_null() {
            return;
        }
        let waits_for_pods = phase == "Preparing" && status["stable"].is_null() && !boots;
        if !matches!(phase, "Healthy" | "RolledBack" | "Pending") && !waits_for_pods {
            let why = format!("{name} rests in {phase}: {}", status["conditions"]);
            return self.broken("rollouts come to an end", why);
        }
        if status["stable"].is_null() {
            return;
        }
        self.check_serving(name, &status);
        self.check_autoscaling(name, rollout);
        if !self.is_taken(name, u64::MAX) {
            self.check_nothing_missed(name, rollout);
        }
    }

    /// Who takes traffic has pods, and who does not has none.
    fn check_serving(&mut self, name: &str, status: &Value) {
        let stable = workload(name, &status["stable"]);
        let record = Key::new(Kind::ModelVersion, NAMESPACE, text(&status["stable"]["name"]));
        let recorded = self.store.get(&record).is_some();
        let asked = Key::new(Kind::Service, NAMESPACE, &format!("{name}-stable"));
        for kind in [Kind::Deployment, Kind::Service] {
            let label = (names::LABEL_ROLLOUT, name);
            let found: Vec<String> = self
                .store
                .list_at(kind, NAMESPACE, label, u64::MAX)
                .iter()
                .map(|object| text(&object["metadata"]["name"]).to_owned())
                .filter(|name| kind != Kind::Service || *name != asked.name)
                .collect();
            if recorded && found != [stable.clone()] {
                self.broken(
                    "what serves has pods and what does not has none",
                    format!("{name}: {kind:?} {found:?}, stable {stable}"),
                );
            }
        }
        let leads_to =
            self.store.get(&asked).map(|service| service["spec"]["selector"][names::LABEL_VERSION].clone());
        if leads_to.as_ref() != Some(&status["stable"]["version"]) {
            let why = format!("{name}: {leads_to:?}, stable {stable}");
            self.broken("answers are compared with those of the stable version", why);
        }
    }

    fn check_autoscaling(&mut self, name: &str, rollout: &Value) {
        let stable = &rollout["status"]["stable"];
        let record = Key::new(Kind::ModelVersion, NAMESPACE, text(&stable["name"]));
        // Nothing is made for a version whose record is gone.
        if self.store.get(&record).is_some() {
            self.check_autoscalers(name, rollout, &workload(name, stable));
        }
    }

    /// No version that may serve is left out.
    fn check_nothing_missed(&mut self, name: &str, rollout: &Value) {
        let status = &rollout["status"];
        let stable = text(&status["stable"]["digest"]);
        let banned = self.laws.banned.get(name).cloned().unwrap_or_default();
        let rank = |version: &str| -> (u64, u64) {
            let parts = version.trim_start_matches('v').split_once('.');
            parts.map_or((0, 0), |(date, build)| (date.parse().unwrap_or(0), build.parse().unwrap_or(0)))
        };
        let newest_stable = self
            .store
            .all(Kind::ModelVersion)
            .map(|(_, version)| &version["spec"])
            .filter(|spec| spec["artifact"]["digest"] == stable)
            .map(|spec| rank(text(&spec["version"])))
            .max();
        let missed = self.store.all(Kind::ModelVersion).map(|(_, version)| &version["spec"]).find(|spec| {
            let digest = text(&spec["artifact"]["digest"]);
            let pinned = rollout["spec"]["candidate"]["version"].as_str();
            let wished = match pinned {
                Some(pinned) => spec["version"] == pinned,
                None => newest_stable.is_none_or(|newest| rank(text(&spec["version"])) > newest),
            };
            let beats = self.truth.get(digest).is_some_and(|truth| truth.beats.as_deref() == Some(stable));
            let compared = spec["baseline"]["version"]["digest"] == stable;
            wished && beats && compared && !banned.contains(digest)
        });
        if let Some(missed) = missed {
            let why = format!("{name} rests in {} without trying {}", status["phase"], missed["version"]);
            self.broken("no version that may serve is left out", why);
        }
    }

    pub(super) fn check_retrain_rests(&mut self, name: &str, job: &Value) {
        let phase = text(&job["status"]["phase"]);
        *self.laws.reached.entry(format!("job {phase}")).or_default() += 1;
        let uid = text(&job["metadata"]["uid"]).to_owned();
        let reason =
            |condition: &Value| condition["type"] == "Stalled" && condition["reason"] == "BaselineMissing";
        let waits = phase == "Pending"
            && job["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(reason));
        if !matches!(phase, "Succeeded" | "Rejected" | "Failed") && !waits {
            let why = format!("{name} rests in {phase}: {}", job["status"]["conditions"]);
            return self.broken("runs come to an end", why);
        }
        let outcome = self.runs.outcomes.get(&uid);
        let told = outcome.is_some_and(|o| o.finding == Finding::Better && o.telling != Telling::Unwritten);
        let late = job["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|condition| condition["reason"] == "DeadlineExceeded"));
        if told && !late && phase != "Succeeded" && !self.laws.touched.contains(&uid) {
            let why = format!("{name} rests in {phase}: {}", job["status"]["conditions"]);
            self.broken("no result is lost", why);
        }
    }
}
