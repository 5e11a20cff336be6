//! Staging: a test of the user's own against a candidate at weight 0, in a few tries.
//!
//! Called by [`super::plan`] on every tick of the phase, and by `converge`, which makes the Job of the present try. A try
//! is recorded before anything is asked, under an id that follows from the record: a crash asks the same again. Only a
//! test that says that it passed lets the candidate go on. What it said is recorded when it is seen, and what follows may
//! wait.

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, VersionRef, Weight,
    common::shorten,
    model_rollout::{JobTest, RolloutPhase, Staging, StagingTest, Trial, TrialState, Webhook},
    names,
};
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::Job;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    build::{self, Home},
    draft::{Draft, RECHECK},
    probe::{self, AGAIN_AFTER, Door, MAX_WORDS, Probe, ProbeAnswer},
    transition::{Cause, Fate},
};
use crate::{
    condition::KState,
    job::{self, JobState},
    object::{Key, Kind, Object, short_digest},
    plan::{Action, Severity},
    pod, trouble,
};

/// How long a Job that has ended is kept for people to look into.
const KEEP_SECONDS: u32 = 24 * 3600;
/// Name of the container of a test.
const CONTAINER: &str = "test";

/// What a try says.
enum Said {
    Passed(String),
    Failed(String),
    Nothing(String),
}

/// Name of the Job that the status asks for; none if it asks for none.
pub fn staging_job(rollout: &ModelRollout) -> Option<String> {
    let status = rollout.status.as_ref().filter(|status| status.phase == RolloutPhase::Staging)?;
    match &rollout.spec.strategy.staging.as_ref()?.test {
        StagingTest::Job(_) => job_name(rollout, status),
        StagingTest::Webhook(_) => None,
    }
}

/// Another try, another stay in the phase and another test are other Jobs.
fn job_name(rollout: &ModelRollout, status: &ModelRolloutStatus) -> Option<String> {
    let workload =
        build::workload_name(rollout.metadata.name.as_deref()?, &status.candidate.as_ref()?.version);
    let number = status.staging.as_ref()?.number;
    Some(format!("{workload}-{number}-{}", &id(rollout, status)[..6]))
}

/// What tells one try from every other one, in 16 hexadecimal digits.
fn id(rollout: &ModelRollout, status: &ModelRolloutStatus) -> String {
    let what = json!([
        rollout.metadata.uid,
        status.candidate.as_ref().map(|candidate| &candidate.digest),
        status.step_started_at.as_ref().map(|round| round.0.as_second()),
        status.staging.as_ref().map(|trial| trial.number),
        rollout.spec.strategy.staging.as_ref().map(|staging| &staging.test),
    ]);
    hex(&what)
}

/// What tells one test from another.
fn digest(test: &StagingTest) -> String {
    hex(&json!(test))
}

fn hex(what: &Value) -> String {
    short_digest(&what.to_string())
}

impl Draft<'_> {
    /// The candidate's pods are ready, and a test comes before any request of a user.
    pub(super) fn begin_staging(&mut self, candidate: &VersionRef, staging: &Staging) {
        let message = format!(
            "{} is tested at weight 0, in at most {} tries of {}.",
            candidate.version, staging.tries, staging.timeout
        );
        self.enter(RolloutPhase::Staging, Weight::ZERO, "Staging", &message, vec![]);
        self.status.staging = Some(self.first_try_of(&staging.test));
    }

    fn first_try_of(&self, test: &StagingTest) -> Trial {
        Trial { test: Some(digest(test)), ..self.first_try() }
    }

    /// Whether the spec has another test than the one that is being tried.
    fn test_is_another(&self, test: &StagingTest) -> bool {
        let tried = self.status.staging.as_ref().and_then(|trial| trial.test.as_ref());
        tried.is_some_and(|tried| *tried != digest(test))
    }

    /// One tick of the phase.
    pub(super) fn staging(&mut self, candidate: &VersionRef) {
        let Some(staging) = self.rollout.spec.strategy.staging.clone() else {
            let message = format!(
                "{} starts again at weight 0, because spec.strategy has no staging any more.",
                candidate.version
            );
            return self.prepare(candidate.clone(), "StrategyChanged", &message);
        };
        if let Some((command, place)) = self.promotion(candidate) {
            if !self.ready(candidate) {
                let message = format!(
                    "{} is promoted as soon as all its pods are ready and reached.",
                    candidate.version
                );
                self.wake_at_latest(RECHECK);
                return self.kstatus(KState::Reconciling, "PromotionWaits", &message);
            }
            let why = format!("{} was promoted out of Staging, {}.", candidate.version, command.because());
            return self.leave_staging_by_hand(candidate, place, why);
        }
        if self.test_is_another(&staging.test) && self.pause.is_none() {
            return self.begin_tries_anew(candidate, &staging.test);
        }
        let first = self.first_try_of(&staging.test);
        let trial = self.status.staging.get_or_insert(first).clone();
        let timeout = staging.timeout;
        match self.said(&staging, &trial) {
            Said::Passed(why) => self.staging_passed(candidate, &staging, trial, &why),
            Said::Failed(why) => self.try_failed(candidate, &staging, trial, &why),
            Said::Nothing(why)
                if self.overdue_since(&trial.started_at) > timeout.get() && self.pause.is_none() =>
            {
                let why = format!("no result within {timeout}. {why}");
                self.try_failed(candidate, &staging, trial, &why);
            }
            Said::Nothing(why) => {
                self.wake_at_latest(RECHECK);
                let pause = self.pause.as_ref().map_or_else(String::new, |pause| format!(" {}", pause.why));
                let message = format!("Try {} of {}. {why}{pause}", trial.number, staging.tries);
                self.kstatus(KState::Reconciling, "Staging", &message);
            }
        }
    }

    /// What another test said, or had not said yet, says nothing of this one.
    fn begin_tries_anew(&mut self, candidate: &VersionRef, test: &StagingTest) {
        let message = format!(
            "spec.strategy.staging.test was changed, so the tries of {} begin anew.",
            candidate.version
        );
        self.status.staging = Some(self.first_try_of(test));
        self.note(Severity::Normal, "StagingTestChanged", &message);
        self.kstatus(KState::Reconciling, "Staging", &message);
        self.wake_at_latest(SignedDuration::from_secs(1));
    }

    /// What was recorded counts, whatever became of the Job since.
    fn said(&self, staging: &Staging, trial: &Trial) -> Said {
        let recorded = || trial.message.clone().unwrap_or_default();
        match (trial.state, &staging.test) {
            (TrialState::Passed, _) => Said::Passed(recorded()),
            (TrialState::Failed, _) => Said::Failed(recorded()),
            (TrialState::Running, StagingTest::Job(_)) => self.said_by_job(),
            (TrialState::Running, StagingTest::Webhook(_)) => match self.snapshot.probed {
                [answer] => said_by_webhook(answer),
                _ => Said::Nothing("The webhook is asked when the candidate's pods are ready.".to_owned()),
            },
        }
    }

    /// The Job of the present try, if it is there and ours.
    fn test_job(&self) -> Option<&Value> {
        let name = job_name(self.rollout, &self.status)?;
        self.snapshot.children.test.as_ref().filter(|job| job["metadata"]["name"] == name.as_str())
    }

    fn said_by_job(&self) -> Said {
        let Some((job, home)) = self.test_job().zip(Home::of(self.rollout)) else {
            return Said::Nothing("The test starts.".to_owned());
        };
        let name = job["metadata"]["name"].as_str().unwrap_or_default();
        let typed = serde_json::from_value::<Job>(job.clone()).ok().filter(|_| home.owner().owns(job));
        let Some(typed) = typed else {
            return Said::Nothing(format!("Job {name} exists and is not this rollout's. Delete it."));
        };
        let pods = job::pods_of(&self.snapshot.children.pods, &typed);
        let ends = pods.iter().rev().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref());
        let mut ends = ends.flatten().filter_map(|container| container.state.as_ref()?.terminated.as_ref());
        let words = ends.next().and_then(|end| end.message.clone()).unwrap_or_default();
        let words = probe::words(words.as_bytes());
        match job::state(&typed) {
            JobState::Complete => Said::Passed(words),
            JobState::Failed { reason, message } => {
                let words = if words.is_empty() { message } else { words };
                Said::Failed(format!("Job {name} failed ({reason}): {}", words.trim_end_matches('.')))
            }
            JobState::Active => {
                let trouble = trouble::find(pods).map(|trouble| format!(" {}", trouble.message));
                Said::Nothing(format!("Job {name} runs.{}", trouble.unwrap_or_default()))
            }
        }
    }

    fn staging_passed(&mut self, candidate: &VersionRef, staging: &Staging, trial: Trial, why: &str) {
        let allowed = staging.timeout.get().saturating_add(self.rollout.spec.serving.progress_deadline.get());
        let unreached = self.endpoints_trouble(candidate, self.pods_to_be_ready(candidate));
        // While it waits for others, or for what is none of its business, it is ready in time.
        if self.ready(candidate) || unreached.is_some() {
            self.stop_deadline();
        } else {
            self.run_deadline();
        }
        let waits = self.overdue_since(&trial.started_at);
        let message = Some(shorten(why, MAX_WORDS).into_owned()).filter(|why| !why.is_empty());
        self.status.staging = Some(Trial { state: TrialState::Passed, message, ..trial });
        if self.ready(candidate) && self.pause.is_none() {
            return self.take_traffic(candidate, Cause::Passed);
        }
        self.wake_at_latest(RECHECK);
        if let Some(pause) = self.pause.clone() {
            let message = format!("The test has passed, and the candidate waits. {}", pause.why);
            return self.kstatus(KState::Reconciling, pause.cause.reason(), &message);
        }
        let deadline = self.rollout.spec.serving.progress_deadline;
        if waits > allowed {
            if let Some(unreached) = unreached {
                return self.stalled(&unreached);
            }
            let message =
                format!("{} passed its test and was not ready within {deadline} of it.", candidate.version);
            return self.give_up(candidate, Fate::Rejected, "ProgressDeadlineExceeded", &message, vec![]);
        }
        let message = "The test has passed, and not all pods of the candidate are ready and reached.";
        self.kstatus(KState::Reconciling, "Staging", message);
    }

    fn try_failed(&mut self, candidate: &VersionRef, staging: &Staging, trial: Trial, why: &str) {
        let why = shorten(why, 2 * MAX_WORDS).into_owned();
        let told = Some(why.clone());
        let (number, tries) = (trial.number, staging.tries);
        self.status.staging = Some(Trial { state: TrialState::Failed, message: told.clone(), ..trial });
        if number >= tries {
            let message = format!("{} failed its test, try {number} of {tries}: {why}.", candidate.version);
            return self.give_up(candidate, Fate::Rejected, "StagingFailed", &message, vec![]);
        }
        let message = format!("Try {number} of {tries} failed: {why}.");
        if let Some(pause) = self.pause.clone() {
            let message = format!("{message} {}", pause.why);
            return self.kstatus(KState::Reconciling, pause.cause.reason(), &message);
        }
        let number = number.saturating_add(1);
        self.status.staging = Some(Trial { number, message: told, ..self.first_try_of(&staging.test) });
        self.note(Severity::Warning, "StagingTryFailed", &message);
        self.kstatus(KState::Reconciling, "Staging", &message);
        self.wake_at_latest(AGAIN_AFTER);
    }

    /// What the webhook is asked now, if it is asked anything.
    pub(super) fn question(&self, candidate: &VersionRef) -> Option<Probe> {
        let staging = self.rollout.spec.strategy.staging.as_ref()?;
        let trial = self.status.staging.as_ref()?;
        let waits = trial.number > 1 && self.age(&trial.started_at) < AGAIN_AFTER;
        let by_hand = self.promotion(candidate).is_some();
        match &staging.test {
            StagingTest::Job(_) => None,
            StagingTest::Webhook(_) if waits || by_hand || self.pause.is_some() => None,
            StagingTest::Webhook(_) if !self.is_tried(trial, &staging.test) => None,
            StagingTest::Webhook(webhook) => {
                self.ready(candidate).then(|| ask(webhook, self.rollout, &self.status, candidate))
            }
        }
    }

    /// Whether `test` is what is being tried, and has yet to say something.
    fn is_tried(&self, trial: &Trial, test: &StagingTest) -> bool {
        trial.state == TrialState::Running && !self.test_is_another(test)
    }

    /// The Job of the present try is made once, and again if someone deletes it while the try lasts.
    pub(super) fn make_test(&mut self, home: Home<'_>) {
        let staging = self.rollout.spec.strategy.staging.as_ref();
        let (Some(staging), Some(candidate)) =
            (staging.filter(|_| self.status.phase == RolloutPhase::Staging), &self.status.candidate)
        else {
            return;
        };
        let (StagingTest::Job(test), Some(name)) = (&staging.test, job_name(self.rollout, &self.status))
        else {
            return;
        };
        let Some(trial) = self.status.staging.as_ref().filter(|trial| self.is_tried(trial, &staging.test))
        else {
            return;
        };
        if self.test_job().is_none() {
            let job = job(home, &name, test, staging, candidate, trial.number);
            self.actions.push(Action::Create(job));
        }
    }
}

/// The question to a webhook.
fn ask(
    webhook: &Webhook,
    rollout: &ModelRollout,
    status: &ModelRolloutStatus,
    candidate: &VersionRef,
) -> Probe {
    let body = json!({
        "id": id(rollout, status),
        "namespace": rollout.metadata.namespace,
        "rollout": rollout.metadata.name,
        "model": rollout.spec.model,
        "version": candidate.version,
        "digest": candidate.digest,
        "candidateUrl": probe::address(rollout, candidate, Door::Shadow),
        "try": status.staging.as_ref().map(|trial| trial.number),
    });
    let headers = webhook.headers.iter().filter(|header| !header.is_reserved());
    Probe {
        url: webhook.url.clone(),
        headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
        body: Some(body),
        timeout: webhook.timeout,
    }
}

/// Only what says so is a pass. Nothing of another answer but its status is told: whoever writes a rollout may reach less
/// than the operator does.
fn said_by_webhook(answer: &ProbeAnswer) -> Said {
    #[derive(Deserialize)]
    struct Result {
        passed: bool,
        message: Option<String>,
    }
    let (status, body) = match answer {
        ProbeAnswer::Silent(why) => return Said::Failed(format!("the webhook gave no answer: {why}")),
        ProbeAnswer::Answered { status, body } => (*status, body),
    };
    if !(200..300).contains(&status) {
        return Said::Failed(format!("the webhook answered {status}"));
    }
    match serde_json::from_slice::<Result>(body) {
        Ok(Result { passed: true, message }) => {
            Said::Passed(probe::words(message.unwrap_or_default().as_bytes()))
        }
        Ok(Result { passed: false, message }) => {
            let words = probe::words(message.unwrap_or_default().as_bytes());
            Said::Failed(format!("the webhook says that it did not pass: {words}"))
        }
        Err(_) => Said::Failed(
            "the webhook's answer is not {\"passed\": true or false, \"message\": \"why\"}".to_owned(),
        ),
    }
}

/// A Job for one try, with one pod. It is created once and never applied again, because queueing systems own parts of it.
fn job(
    home: Home<'_>,
    name: &str,
    test: &JobTest,
    staging: &Staging,
    candidate: &VersionRef,
    number: u32,
) -> Object {
    let rollout = home.rollout;
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut env: Vec<Value> = test
        .env
        .iter()
        .filter(|entry| !entry.name.starts_with("ANNEAL_"))
        .map(|entry| variable(&entry.name, &entry.value))
        .collect();
    env.extend([
        variable("ANNEAL_CANDIDATE_URL", &probe::address(rollout, candidate, Door::Shadow)),
        variable("ANNEAL_MODEL", &rollout.spec.model),
        variable("ANNEAL_VERSION", &candidate.version),
        variable("ANNEAL_DIGEST", &candidate.digest),
        variable("ANNEAL_ROLLOUT", home.name),
        variable("ANNEAL_TRY", &number.to_string()),
    ]);
    let mut container = json!({
        "name": CONTAINER,
        "image": test.image,
        "imagePullPolicy": test.image_pull_policy.name(),
        "env": env,
        "resources": test.resources,
        "securityContext": pod::container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    });
    for (field, words) in [("command", &test.command), ("args", &test.args)] {
        if !words.is_empty() {
            container[field] = json!(words);
        }
    }
    // Without the version among its labels a test gets none of the version's requests.
    let labels = home.labels();
    let annotations = json!({names::LABEL_VERSION: candidate.version});
    let body = json!({
        "metadata": {"labels": labels, "annotations": annotations, "ownerReferences": home.owner().reference()},
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": staging.timeout.get().as_secs().max(1),
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": false,
                    "securityContext": pod::pod_security(),
                    "containers": [container],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
        },
    });
    Object::new(Key::new(Kind::Job, home.namespace, name), body)
}
