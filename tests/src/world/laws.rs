//! The laws: what must hold after every write of an operator, whatever else happened.
//!
//! They rest on what is true in the world, never on what the operator recorded about it.

mod capacity;
mod consent;
mod fight;
mod retrain;
mod rival;
mod rollout;
mod route;
mod trials;

pub(super) use fight::contested;
pub(super) use rollout::{on_the_way, workload};
pub(super) use route::lies_with_the_user;

use std::collections::{BTreeMap, BTreeSet};

use anneal_core::object::{Key, Kind};
use anneal_crds::names;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    gateway::Shares,
    sim::{Sim, Told, Violation},
    training::{run_of, run_uid},
};

/// What must be remembered to tell whether the laws hold.
#[derive(Clone, Debug, Default)]
pub struct Laws {
    /// The first breach.
    pub violation: Option<Violation>,
    /// What was told by the look at which the judge last counted, by rollout.
    pub folded: BTreeMap<String, Vec<Told>>,
    /// Digests that were rolled back, by rollout.
    pub banned: BTreeMap<String, BTreeSet<String>>,
    /// The last retry that was granted, by rollout and digest.
    pub granted: BTreeMap<(String, String), String>,
    /// Rollout and digest of every retry.
    pub retried: BTreeSet<(String, String)>,
    /// Service that a finished reconcile took out of a rollout's traffic.
    pub taken_out: BTreeMap<String, String>,
    /// When an operator last wrote a rollout's route, and how.
    pub written: BTreeMap<String, (Timestamp, Shares)>,
    /// Child Jobs that were made, less those that users deleted, by run and name.
    pub jobs: BTreeMap<(String, String), i64>,
    /// Runs that users interfered with.
    pub touched: BTreeSet<String>,
    /// How far any operator's clock was ever off.
    pub skew: SignedDuration,
    /// Writes that recorded only how far a comparison was.
    pub kept: u64,
    /// What worlds came to: name and how often.
    pub reached: BTreeMap<String, usize>,
}

impl Sim {
    /// Holds a write of an operator to the laws.
    pub fn check_write(&mut self, caller: usize, key: &Key, before: Option<&Value>) {
        let after = self.store.keep(key);
        match (key.kind, before, after.as_deref()) {
            (Kind::ModelRollout, Some(before), Some(after)) => self.check_rollout(caller, key, before, after),
            (Kind::RetrainJob, Some(before), Some(after)) => self.check_retrain(caller, key, before, after),
            (Kind::HttpRoute, _, Some(after)) => {
                self.check_route(caller, key, after);
                self.check_part(key, before, after);
            }
            (Kind::Deployment, Some(before), None) => self.check_deployment_deleted(caller, key, before),
            (Kind::Deployment, Some(before), Some(after)) => {
                self.check_number_stays(caller, key, before, after);
            }
            (Kind::HorizontalPodAutoscaler | Kind::ScaledObject, Some(before), Some(after)) => {
                self.check_way_back_stays_warm(caller, key, before, after);
            }
            (Kind::Job, None, Some(after)) => self.check_job_created(caller, key, after),
            (Kind::ModelVersion, Some(before), Some(after)) => self.note_marks(before, after),
            (Kind::Secret, ..) => self.broken("credentials are only read", super::calls::name(key)),
            (
                Kind::ModelRollout
                | Kind::RetrainJob
                | Kind::HttpRoute
                | Kind::Deployment
                | Kind::EndpointSlice
                | Kind::Job
                | Kind::ModelVersion
                | Kind::ConfigMap
                | Kind::Pod
                | Kind::Service
                | Kind::HorizontalPodAutoscaler
                | Kind::ScaledObject
                | Kind::Gateway
                | Kind::GatewayClass,
                _,
                _,
            ) => {}
        }
    }

    fn note_marks(&mut self, before: &Value, after: &Value) {
        let digest = string(&after["spec"]["artifact"]["digest"]);
        let (old, new) = (marked(before), marked(after));
        for rollout in old.difference(&new) {
            // A retry takes the mark away, and so does a person who goes back; from then on only status knows.
            let serves = |rollout: &Value| rollout["status"]["stable"]["digest"] == digest.as_str();
            let key = Key::new(Kind::ModelRollout, super::sim::NAMESPACE, rollout);
            let by_hand = self.store.get(&key).is_some_and(serves);
            if by_hand || self.laws.retried.contains(&(rollout.clone(), digest.clone())) {
                self.laws.banned.entry(rollout.clone()).or_default().remove(&digest);
            }
        }
        for rollout in new {
            self.laws.banned.entry(rollout).or_default().insert(digest.clone());
        }
    }

    /// What was only in a status that is lost need not be known any more; what is marked on versions must.
    pub fn forget(&mut self, key: &Key) {
        self.faults.stale_floor = self.store.version();
        match key.kind {
            Kind::ModelRollout => {
                let versions = self.store.all(Kind::ModelVersion).map(|(_, version)| version);
                let marked_here = versions.filter(|version| marked(version).contains(&key.name));
                let digests =
                    marked_here.map(|version| string(&version["spec"]["artifact"]["digest"])).collect();
                self.laws.banned.insert(key.name.clone(), digests);
                self.laws.taken_out.remove(&key.name);
                self.laws.granted.retain(|(rollout, _), _| *rollout != key.name);
            }
            Kind::RetrainJob => {
                let uid = self.store.get(key).map(|job| string(&job["metadata"]["uid"]));
                self.laws.touched.extend(uid);
            }
            Kind::ConfigMap
            | Kind::Secret
            | Kind::Pod
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::Job
            | Kind::Deployment
            | Kind::HorizontalPodAutoscaler
            | Kind::ScaledObject
            | Kind::Gateway
            | Kind::GatewayClass
            | Kind::HttpRoute
            | Kind::ModelVersion => {}
        }
    }

    fn check_job_created(&mut self, caller: usize, key: &Key, job: &Value) {
        let run = run_uid(job);
        let count = self.laws.jobs.entry((run.clone(), key.name.clone())).or_default();
        *count += 1;
        let count = *count;
        if count > 1 {
            self.broken("one Job for each attempt", format!("{} was made {count} times", key.name));
        }
        let of_run = |(_, owner): &(&Key, &Value)| owner["metadata"]["uid"] == run.as_str();
        let phase =
            self.store.all(Kind::RetrainJob).find(of_run).map(|(_, owner)| owner["status"]["phase"].clone());
        // A status that was lost is no phase; a write that was under way when the run ended cannot be called back.
        let walk = &self.callers[caller].walk;
        let late = walk.late || (walk.disturbed && key.name.ends_with("-report"));
        if !late && phase.as_ref().is_some_and(|phase| !phase.is_null() && phase != "Training") {
            self.broken(
                "no Job without a run that trains",
                format!("{} was made in phase {phase:?}", key.name),
            );
        }
    }

    /// A user deletes a Job: its run may make it again.
    pub fn note_job_deleted(&mut self, key: &Key) {
        let Some(job) = self.store.get(key) else { return };
        let run = run_uid(job);
        *self.laws.jobs.entry((run.clone(), key.name.clone())).or_default() -= 1;
        self.laws.touched.insert(run);
    }

    /// A user deletes a pod, which may have been the only one that knew a result.
    pub fn note_pod_deleted(&mut self, key: &Key) {
        let run = self.store.get(key).map(|pod| run_of(&pod["spec"]));
        self.laws.touched.extend(run);
    }

    /// No time in a status goes backwards.
    fn check_times(&mut self, key: &Key, before: &Value, after: &Value) {
        let conditions = |status: &Value| -> BTreeMap<String, Timestamp> {
            let all = status["conditions"].as_array().into_iter().flatten();
            all.filter_map(|condition| {
                let at = string(&condition["lastTransitionTime"]).parse().ok()?;
                Some((string(&condition["type"]), at))
            })
            .chain(
                ["stepStartedAt", "startedAt", "finishedAt"]
                    .into_iter()
                    .filter_map(|field| Some((field.to_owned(), status[field].as_str()?.parse().ok()?))),
            )
            .collect()
        };
        let (before, after) = (conditions(&before["status"]), conditions(&after["status"]));
        for (type_, at) in &before {
            if let Some(later) = after.get(type_).filter(|later| *later < at) {
                self.broken(
                    "time does not go backwards",
                    format!("{} {type_}: {at}, then {later}", key.name),
                );
            }
        }
    }
}

/// The rollouts that a version's annotations say it was rolled back in.
fn marked(version: &Value) -> BTreeSet<String> {
    marks(version, names::ANNOTATION_ROLLED_BACK_IN)
}

/// The rollouts that a version's annotations say it is stable in.
fn stable_marks(version: &Value) -> BTreeSet<String> {
    marks(version, names::ANNOTATION_STABLE_IN)
}

fn marks(version: &Value, prefix: &str) -> BTreeSet<String> {
    let annotations = version["metadata"]["annotations"].as_object().into_iter().flatten();
    let rollout = |key: &String| Some(key.strip_prefix(prefix)?.strip_prefix('/')?.to_owned());
    annotations.filter_map(|(key, _)| rollout(key)).collect()
}

/// A text, empty if it is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn string(value: &Value) -> String {
    text(value).to_owned()
}
