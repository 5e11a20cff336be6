//! The Job controller, trainer pods and model storage.
//!
//! What a run will find out is drawn when its first pod starts, together with what is true of the model, so that the
//! laws need not believe what anyone reports.

use std::collections::{BTreeMap, BTreeSet};

use anneal_core::object::{Key, Kind, Object};
use anneal_crds::{contract::RunResult, names};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    calls::name,
    outcome::{Outcome, Telling},
    sim::{NAMESPACE, Sim},
    trials::is_test,
};

/// Trainers and what they left.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// What each run will find out, by uid.
    pub outcomes: BTreeMap<String, Outcome>,
    /// `result.json` of each run, by uid.
    pub results: BTreeMap<String, RunResult>,
    /// While set, every new run makes a good model, and its version has this date.
    pub luck: Option<&'static str>,
    /// Versions that were set aside.
    pub versions: u32,
    /// Digests that were made.
    pub digests: u32,
    /// Job files that running pods have read, by pod uid.
    files: BTreeMap<String, Value>,
    /// Pods whose end the Job controller has counted.
    counted: BTreeSet<String>,
}

impl Sim {
    /// The Job controller and a kubelet take one Job a step further.
    pub fn job_step(&mut self) {
        let unfinished = |job: &Value| !finished(job);
        let keys: Vec<Key> = self
            .store
            .all(Kind::Job)
            .filter(|(_, job)| unfinished(job))
            .map(|(key, _)| key.clone())
            .collect();
        if let Some(key) = self.dice.pick(&keys).cloned() {
            self.job_progresses(&key);
        }
    }

    /// Takes one Job a step further; whether there was anything to do.
    pub fn job_progresses(&mut self, key: &Key) -> bool {
        let Some(job) = self.store.keep(key) else { return false };
        if finished(&job) {
            return false;
        }
        if self.deadline_passed(&job) {
            self.laws.touched.insert(run_uid(&job));
            self.end(key, "Failed", "DeadlineExceeded");
            return true;
        }
        if is_test(&job) {
            return self.test_progresses(key, &job);
        }
        let uid = job["metadata"]["uid"].clone();
        let of_job = |pod: &Value| pod["metadata"]["ownerReferences"][0]["uid"] == uid;
        let pods: Vec<(Key, Value)> = self
            .store
            .all(Kind::Pod)
            .filter(|(_, pod)| of_job(pod))
            .map(|(key, pod)| (key.clone(), pod.clone()))
            .collect();
        let open = pods.iter().find(|(_, pod)| !self.runs.counted.contains(text(&pod["metadata"]["uid"])));
        match open {
            None => self.start_pod(key, &job),
            Some((pod_key, pod)) => {
                match (exit_code(pod), self.runs.files.get(text(&pod["metadata"]["uid"]))) {
                    (Some(code), _) => self.count(key, &job, pod, code),
                    (None, None) => return self.pod_starts(pod_key, pod),
                    (None, Some(file)) => {
                        let file = file.clone();
                        self.pod_ends(pod_key, &job, &file);
                    }
                }
            }
        }
        true
    }

    fn deadline_passed(&self, job: &Value) -> bool {
        let created = text(&job["metadata"]["creationTimestamp"]).parse::<Timestamp>().unwrap_or(self.now);
        let deadline =
            SignedDuration::from_secs(job["spec"]["activeDeadlineSeconds"].as_i64().unwrap_or(i64::MAX));
        self.now.duration_since(created) > deadline
    }

    fn start_pod(&mut self, key: &Key, job: &Value) {
        let template = &job["spec"]["template"];
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": key.name, "uid": job["metadata"]["uid"],
            "controller": true}]);
        // Of a pod's spec only what trainers and laws look at, because reading the rest takes most of the time.
        let container = &template["spec"]["containers"][0];
        let spec = json!({
            "containers": [{"name": container["name"], "env": container["env"]}],
            "volumes": [template["spec"]["volumes"][0]],
        });
        let body = json!({
            "metadata": {"labels": template["metadata"]["labels"], "ownerReferences": owner},
            "spec": spec,
        });
        let pod = Key::new(Kind::Pod, NAMESPACE, &format!("{}-{}", key.name, self.store.version()));
        let now = self.now;
        // Names carry the resource version and are never taken.
        drop(self.store.create(&Object::new(pod, body), now));
    }

    /// A pod starts when its job file is there.
    fn pod_starts(&mut self, key: &Key, pod: &Value) -> bool {
        let file = text(&pod["spec"]["volumes"][0]["configMap"]["name"]);
        let Some(config) = self.store.get(&Key::new(Kind::ConfigMap, NAMESPACE, file)) else { return false };
        let job_file: Value = serde_json::from_str(text(&config["data"]["job.yaml"])).unwrap_or_default();
        self.runs.files.insert(text(&pod["metadata"]["uid"]).to_owned(), job_file);
        self.set_container(key, &json!({"running": {}}));
        true
    }

    fn pod_ends(&mut self, key: &Key, job: &Value, file: &Value) {
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        let reports = container["args"][0] == "report";
        let (code, message) = if reports { self.report(file) } else { self.train(file) };
        self.say(|_| format!("{} ends with code {code}", name(key)));
        let reason = if code == 137 {
            "OOMKilled"
        } else if code == 0 {
            "Completed"
        } else {
            "Error"
        };
        self.set_container(
            key,
            &json!({"terminated": {"exitCode": code, "reason": reason, "message": message}}),
        );
    }

    fn set_container(&mut self, key: &Key, state: &Value) {
        let container = json!({"name": names::TRAINER_CONTAINER, "ready": false, "restartCount": 0, "image": "",
            "imageID": "", "state": state});
        self.store.edit(key, |pod| pod["status"] = json!({"containerStatuses": [container]}));
    }

    /// The Job controller counts the end of a pod.
    fn count(&mut self, key: &Key, job: &Value, pod: &Value, code: i64) {
        let run = text(&pod["metadata"]["uid"]).to_owned();
        self.runs.counted.insert(run);
        let failed = job["status"]["failed"].as_i64().unwrap_or(0);
        let limit = job["spec"]["backoffLimit"].as_i64().unwrap_or(6);
        let matches = |rule: &Value| {
            rule["onExitCodes"]["values"]
                .as_array()
                .is_some_and(|codes| codes.iter().any(|known| *known == code))
        };
        let rules = job["spec"]["podFailurePolicy"]["rules"].as_array();
        let action = rules
            .and_then(|rules| rules.iter().find(|rule| matches(rule)))
            .map(|rule| rule["action"].clone());
        match (code, action.as_ref().and_then(Value::as_str)) {
            (0, _) => self.end(key, "Complete", "CompletionsReached"),
            (_, Some("Ignore")) => {}
            (_, Some("FailJob")) => self.end(key, "Failed", "PodFailurePolicy"),
            (_, _) if failed >= limit => self.end(key, "Failed", "BackoffLimitExceeded"),
            (_, _) => drop(self.store.edit(key, |job| job["status"]["failed"] = (failed + 1).into())),
        }
        if self.store.get(key).is_some_and(finished) {
            self.lose_pods(job);
        }
    }

    /// Pods of ended Jobs may be gone before anyone reads them.
    fn lose_pods(&mut self, job: &Value) {
        let args = &job["spec"]["template"]["spec"]["containers"][0]["args"];
        let run = run_uid(job);
        let told = self.runs.outcomes.get(&run).map(|outcome| outcome.telling);
        if args[0] == "train" && told == Some(Telling::PodLost) {
            let uid = job["metadata"]["uid"].clone();
            let of_job = |pod: &Value| pod["metadata"]["ownerReferences"][0]["uid"] == uid;
            let pods: Vec<Key> = self
                .store
                .all(Kind::Pod)
                .filter(|(_, pod)| of_job(pod))
                .map(|(key, _)| key.clone())
                .collect();
            for pod in pods {
                self.say(|_| format!("{} is lost", name(&pod)));
                drop(self.store.delete(&pod, None));
            }
        }
    }

    pub(super) fn end(&mut self, key: &Key, type_: &str, reason: &str) {
        self.say(|_| format!("{} ends: {type_} {reason}", name(key)));
        let condition = json!({"type": type_, "status": "True", "reason": reason, "message": ""});
        self.store.edit(key, |job| job["status"]["conditions"] = json!([condition]));
    }
}

/// The run that a Job's pods say they are.
pub fn run_uid(job: &Value) -> String {
    run_of(&job["spec"]["template"]["spec"])
}

/// The run that a pod says it is.
pub fn run_of(pod_spec: &Value) -> String {
    let env = pod_spec["containers"][0]["env"].as_array();
    let uid = env.and_then(|env| env.iter().find(|entry| entry["name"] == "ANNEAL_RUN_UID"));
    uid.map(|entry| text(&entry["value"]).to_owned()).unwrap_or_default()
}

/// Whether a Job has ended.
pub fn finished(job: &Value) -> bool {
    job["status"]["conditions"].as_array().is_some_and(|all| !all.is_empty())
}

fn exit_code(pod: &Value) -> Option<i64> {
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].as_i64()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
