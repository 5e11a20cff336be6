//! The state machine of a RetrainJob.

use anneal_crds::{
    ModelRollout, ModelVersion, RetrainJob, RetrainJobStatus,
    retrain_job::{BaselineVersion, BootstrapBaseline, ResolvedBaseline, RetrainPhase, WhenMissing},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use super::{
    build::{self, Run},
    draft::Draft,
    outcome::{self, Reported},
};
use crate::{
    condition::KState,
    job::{self, JobState},
    plan::{Action, Plan},
    trouble,
};

/// Everything that a decision about a RetrainJob may look at.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// The object with its status.
    pub job: &'a RetrainJob,
    /// The rollout that `spec.baseline` names.
    pub rollout: Option<&'a ModelRollout>,
    /// The stable version of that rollout.
    pub stable: Option<&'a ModelVersion>,
    /// The child Job of the status's attempt, whoever made it.
    pub child: Option<&'a Job>,
    /// The Job that reads a lost result.
    pub report: Option<&'a Job>,
    /// All pods with the label of this RetrainJob.
    pub pods: &'a [Pod],
    /// The object with the name that this run's version would get.
    pub version: Option<&'a ModelVersion>,
    /// The time.
    pub now: Timestamp,
}

/// How soon to look again at something that is watched anyway.
const RECHECK: SignedDuration = SignedDuration::from_secs(30);

/// How long a Job may be without a pod before that is worth telling.
const NO_PODS: SignedDuration = SignedDuration::from_secs(8);

/// Decides what a RetrainJob's status is to be and what follows from it.
pub fn plan(snapshot: &Snapshot<'_>) -> Plan<RetrainJobStatus> {
    let mut draft = Draft::new(snapshot);
    if snapshot.job.metadata.deletion_timestamp.is_none() {
        draft.decide();
    }
    draft.finish()
}

impl Draft<'_> {
    fn decide(&mut self) {
        match self.status.phase {
            RetrainPhase::Pending => self.pending(),
            RetrainPhase::Training => self.training(),
            RetrainPhase::Registering => self.registering(),
            RetrainPhase::Succeeded | RetrainPhase::Rejected | RetrainPhase::Failed => {}
        }
    }

    /// Pending: fix the baseline, then train.
    fn pending(&mut self) {
        let baseline = match self.resolve_baseline() {
            Ok(baseline) => baseline,
            Err(message) => {
                self.kstatus(KState::Stalled, "BaselineMissing", &message);
                self.wake_after(RECHECK);
                return;
            }
        };
        let against = match &baseline {
            ResolvedBaseline::Version(version) => format!("compared with {}", version.version.version),
            ResolvedBaseline::Bootstrap(_) => "without a version in production (bootstrap)".to_owned(),
        };
        self.status.baseline = Some(baseline);
        self.status.attempt = Some(1);
        self.status.started_at = Some(Time(self.now));
        self.enter(RetrainPhase::Training, KState::Reconciling, "Training", &format!("Training, {against}."));
        self.training();
    }

    fn resolve_baseline(&self) -> Result<ResolvedBaseline, String> {
        let spec = &self.snapshot.job.spec;
        let name = &spec.baseline.rollout;
        if let Some(other) = self.snapshot.rollout.filter(|rollout| rollout.spec.model != spec.model) {
            return Err(format!(
                "ModelRollout {name} serves model {} and not {}. Correct spec.baseline.rollout or spec.model.",
                other.spec.model, spec.model
            ));
        }
        let stable = self.snapshot.rollout.and_then(|rollout| rollout.status.as_ref()?.stable.clone());
        match (stable, self.snapshot.stable) {
            (Some(stable), Some(version)) if version.spec.artifact.digest == stable.digest => {
                let uri = version.spec.artifact.uri.clone();
                Ok(ResolvedBaseline::Version(BaselineVersion { version: stable, uri }))
            }
            (Some(stable), _) => Err(format!(
                "ModelVersion {} is in production by ModelRollout {name}, but the object is gone. Restore it.",
                stable.name
            )),
            (None, _) => match (self.snapshot.job.spec.baseline.when_missing, self.snapshot.rollout) {
                (WhenMissing::Bootstrap, _) => Ok(ResolvedBaseline::Bootstrap(BootstrapBaseline {})),
                (WhenMissing::Wait, Some(_)) => Err(format!(
                    "ModelRollout {name} has no stable version yet. Wait for one, or set baseline.whenMissing: Bootstrap for the first version."
                )),
                (WhenMissing::Wait, None) => Err(format!(
                    "There is no ModelRollout {name} in this namespace. Create it, or correct spec.baseline.rollout."
                )),
            },
        }
    }

    /// Training: the child Job exists or is made; its end is read.
    fn training(&mut self) {
        let Some((run, baseline)) = self.run() else { return };
        let own = self.snapshot.child.filter(|child| run.owner().owns(&metadata_of(child)));
        let Some(child) = own else { return self.start(run, &baseline) };
        let pods = job::pods_of(self.snapshot.pods, child);
        let state = job::state(child);
        match (&state, outcome::reported_result(&pods)) {
            (JobState::Active, _) => {
                self.progress(child, &pods);
                self.keep_job_file(run, &baseline, &pods);
            }
            (JobState::Complete | JobState::Failed { .. }, Reported::Result(result)) => {
                self.conclude(run, &baseline, *result)
            }
            (JobState::Complete | JobState::Failed { .. }, Reported::Foreign(schema)) => {
                self.hold_result(schema)
            }
            (JobState::Complete | JobState::Failed { .. }, Reported::Nothing) => {
                self.without_notice(run, &baseline, &pods, &state)
            }
        }
    }

    /// The child Job is made; a run that never got one ends at its deadline, as one with a Job does.
    fn start(&mut self, run: Run<'_>, baseline: &ResolvedBaseline) {
        let deadline = run.job.spec.failure_policy.active_deadline.get();
        let started = self.status.started_at.as_ref().map_or(self.now, |started| started.0);
        if self.now.duration_since(started) > deadline {
            return self.fail(
                "DeadlineExceeded",
                "The trainer's Job could not be created within spec.failurePolicy.activeDeadline. See the events, then create the RetrainJob again.",
            );
        }
        if self.snapshot.child.is_some() {
            return self.name_conflict(&build::child_name(run.name, run.attempt));
        }
        self.actions.push(Action::Create(build::job_file(run, baseline)));
        self.actions.push(Action::Create(build::trainer_job(run)));
        self.wake_after(RECHECK);
    }

    fn name_conflict(&mut self, name: &str) {
        let message =
            format!("A Job named {name} exists that is not this run's. Delete it, or rename the RetrainJob.");
        self.kstatus(KState::Stalled, "NameConflict", &message);
        self.wake_after(RECHECK);
    }

    fn progress(&mut self, child: &Job, pods: &[&Pod]) {
        if let Some(trouble) = trouble::find(pods.iter().copied()) {
            return self.kstatus(KState::Stalled, &trouble.reason, &trouble.message);
        }
        let suspended = child.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false);
        if suspended {
            let message =
                "The trainer's Job is suspended: a queue has not admitted it, or someone paused it.";
            return self.kstatus(KState::Reconciling, "Suspended", message);
        }
        if pods.is_empty() && self.age(child) > NO_PODS {
            let name = child.metadata.name.as_deref().unwrap_or_default();
            let message = format!(
                "Job {name} has no pod: a quota or a policy may refuse it. See kubectl describe job {name}."
            );
            return self.kstatus(KState::Stalled, "NoPods", &message);
        }
        if pods.is_empty() {
            self.wake_after(NO_PODS);
        }
        self.kstatus(KState::Reconciling, "Training", "The trainer pod starts or runs.");
    }

    /// Pods cannot start without the job file, and no watch tells when it is deleted. Creating it again is no write while
    /// it is there.
    fn keep_job_file(&mut self, run: Run<'_>, baseline: &ResolvedBaseline, pods: &[&Pod]) {
        if pods.iter().any(|pod| outcome::starts(pod)) {
            self.actions.push(Action::Create(build::job_file(run, baseline)));
            self.wake_after(RECHECK);
        }
    }

    /// The run is over, and what it found out waits for an operator that can read it: it is not lost when a release is taken
    /// back while a newer trainer runs.
    fn hold_result(&mut self, schema: i64) {
        let message = format!(
            "The trainer's result has schema {schema}, which this release of the operator does not know. Run the operator of the trainer's release, or create the RetrainJob again with a trainer image of this one."
        );
        self.kstatus(KState::Stalled, "ResultOfAnotherRelease", &message);
    }

    /// The child ended and no notice arrived: a pod may have said why, or storage may hold the result.
    fn without_notice(&mut self, run: Run<'_>, baseline: &ResolvedBaseline, pods: &[&Pod], state: &JobState) {
        if outcome::explained(pods, state) {
            let (reason, message) = outcome::failure(pods, state);
            return self.fail(&reason, &message);
        }
        let Some(report) = self.snapshot.report else {
            self.kstatus(
                KState::Reconciling,
                "ReadingResult",
                "The trainer ended and its notice was lost; result.json is being read.",
            );
            self.wake_after(RECHECK);
            return self.actions.push(Action::Create(build::report_job(run)));
        };
        if !run.owner().owns(&metadata_of(report)) {
            return self.name_conflict(&build::report_name(run.name, run.attempt));
        }
        let report_pods = job::pods_of(self.snapshot.pods, report);
        match (job::state(report), outcome::reported_result(&report_pods)) {
            (JobState::Active, Reported::Nothing) => {
                let message = "The trainer ended and its notice was lost; result.json is being read.";
                self.kstatus(KState::Reconciling, "ReadingResult", message);
                self.keep_job_file(run, baseline, &report_pods);
            }
            (JobState::Active | JobState::Complete | JobState::Failed { .. }, Reported::Result(result)) => {
                self.conclude(run, baseline, *result)
            }
            (JobState::Active | JobState::Complete | JobState::Failed { .. }, Reported::Foreign(schema)) => {
                self.hold_result(schema)
            }
            (JobState::Complete | JobState::Failed { .. }, Reported::Nothing) => {
                let (reason, message) = outcome::without_result(state);
                self.fail(reason, message);
            }
        }
    }
}

fn metadata_of(job: &Job) -> Value {
    serde_json::json!({"metadata": job.metadata})
}
