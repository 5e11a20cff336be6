//! Laws of RetrainJobs: nothing is lost, nothing is undone, nothing succeeds that is not better.

use anneal_core::object::{Key, Kind};
use serde_json::Value;

use super::string;
use crate::world::{
    outcome::Finding,
    sim::{NAMESPACE, Sim},
};

const TERMINAL: [&str; 3] = ["Succeeded", "Rejected", "Failed"];

fn rank(phase: &Value) -> usize {
    let order = ["Pending", "Training", "Registering"];
    order.iter().position(|known| phase == *known).unwrap_or(if phase.is_null() { 0 } else { order.len() })
}

impl Sim {
    pub(super) fn check_retrain(&mut self, caller: usize, key: &Key, before: &Value, after: &Value) {
        self.check_times(key, before, after);
        let (old, new) = (&before["status"], &after["status"]);
        let name = &key.name;
        let was_terminal = TERMINAL.iter().any(|phase| old["phase"] == *phase);
        if rank(&new["phase"]) < rank(&old["phase"]) || (was_terminal && new["phase"] != old["phase"]) {
            self.broken("phases go forwards", format!("{name}: {}, then {}", old["phase"], new["phase"]));
        }
        for field in ["result", "version", "baseline"] {
            if !old[field].is_null() && old[field] != new[field] {
                self.broken(
                    "what is recorded stays",
                    format!("{name}: {field} was {}, is {}", old[field], new[field]),
                );
            }
        }
        if new["phase"] != old["phase"] {
            if new["phase"] == "Succeeded" {
                self.check_success(caller, name, after);
            }
            if new["phase"] == "Rejected" {
                self.check_rejection(name, after);
            }
        }
    }

    fn check_success(&mut self, caller: usize, name: &str, job: &Value) {
        let status = &job["status"];
        let digest = string(&status["result"]["artifact"]["digest"]);
        let version = format!("{}-{}", string(&job["spec"]["model"]), string(&status["version"]));
        let record = Key::new(Kind::ModelVersion, NAMESPACE, &version);
        let floor = self.callers[caller].walk.floor;
        let right = |record: &Value| {
            record["spec"]["artifact"]["digest"] == digest.as_str()
                && record["spec"]["origin"]["uid"] == job["metadata"]["uid"]
        };
        if !self.store.forms_since(&record, floor).any(right) {
            self.broken(
                "success is a recorded version",
                format!("{name} succeeded without {version} of {digest}"),
            );
        }
        let truth = self.truth.get(&digest);
        let against = status["baseline"]["version"]["digest"].as_str();
        let better = truth.is_some_and(|truth| match against {
            Some(against) => truth.beats.as_deref() == Some(against),
            None => truth.good_first,
        });
        if !better {
            self.broken(
                "only what is better succeeds",
                format!("{name}: {digest} against {against:?} is {truth:?}"),
            );
        }
    }

    fn check_rejection(&mut self, name: &str, job: &Value) {
        let uid = string(&job["metadata"]["uid"]);
        let better = self.runs.outcomes.get(&uid).is_some_and(|outcome| outcome.finding == Finding::Better);
        if better && !self.laws.touched.contains(&uid) {
            self.broken(
                "what is better is not rejected",
                format!("{name}: {}", job["status"]["result"]["gates"]),
            );
        }
    }
}
