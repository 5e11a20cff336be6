//! What is sent to versions and to tests of them: warm-up, smoke, staging's webhook, and staging's Jobs.
//!
//! What a test finds is drawn when it is first asked, and remembered here, so that the laws need not believe what anyone
//! recorded.

use std::collections::{BTreeMap, BTreeSet};

use anneal_core::{
    object::{Key, Kind},
    rollout::{Probe, ProbeAnswer},
};
use anneal_crds::names;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    laws::text,
    sim::{NAMESPACE, Sim},
    training::finished,
};

/// Address of the webhook.
pub const WEBHOOK: &str = "http://tests/ads";
/// What the smoke requests of every rollout expect.
pub const EXPECTED: i64 = 42;

/// Tests, and what they found.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    /// What a webhook answers, by id.
    answers: BTreeMap<String, Found>,
    /// What a Job finds, by uid.
    jobs: BTreeMap<String, Found>,
    /// Digests of models that answer wrongly, and of those that do not.
    wrong: BTreeMap<String, bool>,
    /// Tests that passed: rollout, version, and when their Job was made, or their webhook said so.
    pub passed: Vec<(String, String, Timestamp)>,
    /// Workloads that answered every smoke request as expected since they took all traffic.
    pub smoked: BTreeSet<String>,
}

/// What a test finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Good,
    Bad,
    Nonsense,
    Nothing,
}

/// A batch of probes that was answered in a reconcile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Workload that was asked, or the version that a test was asked about.
    pub subject: String,
    /// Path, or nothing for a webhook.
    pub path: String,
    /// Whether all was well.
    pub good: bool,
}

impl Sim {
    fn draw(&mut self) -> Found {
        if self.runs.luck.is_some() {
            return Found::Good;
        }
        match self.dice.weighted(&[65, 20, 8, 7]) {
            0 => Found::Good,
            1 => Found::Bad,
            2 => Found::Nonsense,
            _ => Found::Nothing,
        }
    }

    /// Whoever is asked answers, or does not.
    pub fn probes_answered(&mut self, caller: usize, probes: &[Probe]) -> Vec<ProbeAnswer> {
        let answers: Vec<_> = probes.iter().map(|probe| self.probe_answered(probe)).collect();
        let Some(first) = probes.first() else { return answers };
        let (subject, path) = self.subject(first);
        let right = |answer: &ProbeAnswer| match answer {
            ProbeAnswer::Answered { status: 200, body } => match path.as_str() {
                "/smoke" => *body == smoke_body(true),
                "" => serde_json::from_slice::<Value>(body).is_ok_and(|said| said["passed"] == true),
                _ => true,
            },
            ProbeAnswer::Answered { .. } | ProbeAnswer::Silent(_) => false,
        };
        let good = answers.iter().all(right);
        self.say(|_| format!("{subject}{path} answers operator {caller}, good: {good}"));
        if good && path == "/smoke" {
            self.trials.smoked.insert(subject.clone());
        }
        if let Some(question) = first.body.as_ref().filter(|_| good && path.is_empty()) {
            self.trials.passed.push((text(&question["rollout"]).to_owned(), subject.clone(), self.now));
        }
        self.callers[caller].walk.probed = Some(Probed { subject, path, good });
        answers
    }

    /// Who is asked, and by which path.
    fn subject(&self, probe: &Probe) -> (String, String) {
        if probe.url == WEBHOOK {
            let version = probe.body.as_ref().map(|body| text(&body["version"]).to_owned());
            return (version.unwrap_or_default(), String::new());
        }
        let rest = probe.url.strip_prefix("http://").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (address, port) = host.split_once(':').unwrap_or((host, ""));
        let mut services = self.store.all(Kind::Service);
        let found = services.find(|(_, service)| service["spec"]["clusterIP"] == address);
        // Whoever is asked by another name or at another door does not answer.
        let named = |name: &str| {
            let port = match port {
                "80" => "",
                "81" => ":81",
                _ => return false,
            };
            probe.headers == [("host".to_owned(), format!("{name}.{NAMESPACE}.svc{port}"))]
        };
        let workload = found.map(|(key, _)| key.name.clone()).filter(|name| named(name));
        (workload.unwrap_or_default(), format!("/{path}"))
    }

    fn probe_answered(&mut self, probe: &Probe) -> ProbeAnswer {
        let silent = || ProbeAnswer::Silent("connection refused".to_owned());
        if self.dice.chance(self.faults.per_mille.saturating_mul(3)) {
            self.say(|_| "a probe is lost".to_owned());
            return silent();
        }
        if probe.url == WEBHOOK {
            return self.webhook_answers(probe);
        }
        let (workload, path) = self.subject(probe);
        let key = |kind| Key::new(kind, NAMESPACE, &workload);
        let deployment = self.store.keep(&key(Kind::Deployment));
        let ready = deployment.as_ref().is_some_and(|deployment| Self::is_ready(deployment, 1));
        let Some(deployment) = deployment.filter(|_| ready && self.store.get(&key(Kind::Service)).is_some())
        else {
            return silent();
        };
        let digest = self.digest_of(&deployment).unwrap_or_default();
        let lucky = self.runs.luck.is_some();
        let wrong = match self.trials.wrong.get(&digest) {
            Some(wrong) => *wrong,
            None => {
                let wrong = !lucky && self.dice.chance(150);
                self.trials.wrong.insert(digest, wrong);
                wrong
            }
        };
        let body = if path == "/smoke" { smoke_body(!wrong) } else { b"{}".to_vec() };
        ProbeAnswer::Answered { status: 200, body }
    }

    fn webhook_answers(&mut self, probe: &Probe) -> ProbeAnswer {
        let id = probe.body.as_ref().map(|body| text(&body["id"]).to_owned()).unwrap_or_default();
        let found = match self.trials.answers.get(&id) {
            Some(found) => *found,
            None => self.draw(),
        };
        self.trials.answers.insert(id, found);
        let answered =
            |body: Value| ProbeAnswer::Answered { status: 200, body: body.to_string().into_bytes() };
        match found {
            Found::Good => answered(json!({"passed": true})),
            Found::Bad => answered(json!({"passed": false, "message": "it is no good"})),
            Found::Nonsense => answered(json!({"status": "passed"})),
            Found::Nothing => ProbeAnswer::Silent("none within 10s".to_owned()),
        }
    }

    /// Takes the Job of a test a step further; one that finds nothing runs into its deadline.
    pub fn test_progresses(&mut self, key: &Key, job: &Value) -> bool {
        let uid = text(&job["metadata"]["uid"]).to_owned();
        let Some(found) = self.trials.jobs.get(&uid).copied() else {
            let found = self.draw();
            self.trials.jobs.insert(uid, found);
            self.store.edit(key, |job| job["status"] = json!({"active": 1}));
            return true;
        };
        match found {
            Found::Nothing => return false,
            Found::Good => {
                let created = text(&job["metadata"]["creationTimestamp"]).parse().unwrap_or(self.now);
                let rollout = text(&job["metadata"]["labels"][names::LABEL_ROLLOUT]).to_owned();
                self.trials.passed.push((rollout, variable(job, "ANNEAL_VERSION"), created));
                self.end(key, "Complete", "CompletionsReached");
            }
            Found::Bad | Found::Nonsense => self.end(key, "Failed", "BackoffLimitExceeded"),
        }
        true
    }
}

/// Whether a Job tests a candidate.
pub fn is_test(job: &Value) -> bool {
    !job["metadata"]["labels"][names::LABEL_ROLLOUT].is_null() && !finished(job)
}

fn variable(job: &Value, name: &str) -> String {
    let env = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array();
    let found = env.and_then(|env| env.iter().find(|entry| entry["name"] == name));
    found.map(|entry| text(&entry["value"]).to_owned()).unwrap_or_default()
}

fn smoke_body(right: bool) -> Vec<u8> {
    let answer = if right { EXPECTED } else { EXPECTED - 1 };
    json!({"answer": answer}).to_string().into_bytes()
}
