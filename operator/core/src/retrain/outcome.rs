//! What a child Job and its pods say about how a run ended.

use anneal_crds::{
    contract::{ExitCode, GateOutcome, Notice, RESULT_SCHEMA, RunResult},
    names,
    retrain_job::{ResolvedBaseline, RetrainJobSpec},
};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use serde_json::Value;

use crate::{
    gates::{self, Comparison},
    job::JobState,
};

/// How the trainer container of `pod` ended, if it did.
pub(super) fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let trainer = statuses.iter().find(|status| status.name == names::TRAINER_CONTAINER)?;
    trainer.state.as_ref()?.terminated.as_ref()
}

/// What pods reported of a result.
pub(super) enum Reported {
    /// One that can be judged.
    Result(Box<RunResult>),
    /// One with a schema of a later release, which is the only one that can judge it.
    Foreign(i64),
    /// None.
    Nothing,
}

/// The result that a pod reported, if one did; a later pod's counts before an earlier one's.
pub(super) fn reported_result(pods: &[&Pod]) -> Reported {
    let mut messages = pods.iter().rev().filter_map(|pod| terminated(pod)?.message.as_deref());
    messages.find_map(reported).unwrap_or(Reported::Nothing)
}

fn reported(message: &str) -> Option<Reported> {
    let notice: Value = serde_json::from_str(message).ok()?;
    match notice["result"]["schema"].as_i64() {
        Some(schema) if schema > i64::from(RESULT_SCHEMA) => Some(Reported::Foreign(schema)),
        // No operator that is still to come knows it.
        Some(schema) if schema < i64::from(RESULT_SCHEMA) => None,
        Some(_) | None => match serde_json::from_value(notice).ok()? {
            Notice::Result(result) => Some(Reported::Result(result)),
            Notice::Failure(_) => None,
        },
    }
}

fn notice(pod: &Pod) -> Option<Notice> {
    serde_json::from_str(terminated(pod)?.message.as_deref()?).ok()
}

/// Whether a pod waits for its volumes and its image, and nothing else.
pub(super) fn starts(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return true };
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let begun = status.container_statuses.iter().flatten().any(|container| {
        container.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    });
    !unscheduled && !begun
}

/// Whether the pods that are left say why the Job failed, so that there is no result to look for. Earlier executions say
/// nothing: the last pod may be the one that is gone.
pub(super) fn explained(pods: &[&Pod], job: &JobState) -> bool {
    let reason = match job {
        JobState::Failed { reason, .. } => reason,
        JobState::Active | JobState::Complete => return false,
    };
    let Some(end) = pods.iter().rev().find_map(|pod| terminated(pod)) else { return false };
    match ExitCode::of(end.exit_code) {
        ExitCode::Done | ExitCode::GateFailed => false,
        ExitCode::Interrupted => reason == "DeadlineExceeded",
        ExitCode::Unclassified | ExitCode::OutOfMemory | ExitCode::Storage | ExitCode::Device => {
            reason != "PodFailurePolicy"
        }
        ExitCode::BadConfiguration | ExitCode::BadData | ExitCode::Diverged | ExitCode::Bug => true,
    }
}

/// Why a Job that left no result failed, whatever became of its pods: the Job controller deletes those that still run at
/// the deadline.
pub(super) fn without_result(job: &JobState) -> (&'static str, &'static str) {
    match job {
        JobState::Failed { reason, .. } if reason == "DeadlineExceeded" => (
            "DeadlineExceeded",
            "The run took longer than spec.failurePolicy.activeDeadline. Allow more time or train on less.",
        ),
        JobState::Active | JobState::Complete | JobState::Failed { .. } => (
            "ResultMissing",
            "The trainer ended without a result. Read its log, then create the RetrainJob again.",
        ),
    }
}

/// Why the run failed: reason and sentence, from the last pod that ended, else from the Job.
pub(super) fn failure(pods: &[&Pod], job: &JobState) -> (String, String) {
    let last = pods.iter().rev().find_map(|pod| terminated(pod).map(|end| (*pod, end)));
    let deadline = matches!(job, JobState::Failed { reason, .. } if reason == "DeadlineExceeded");
    let (Some((pod, end)), false) = (last, deadline) else {
        let (reason, message) = without_result(job);
        return (reason.to_owned(), message.to_owned());
    };
    let code = ExitCode::of(end.exit_code);
    let reason = if end.reason.as_deref() == Some("OOMKilled") {
        ExitCode::OutOfMemory.reason()
    } else {
        code.reason()
    };
    let message = match notice(pod) {
        Some(Notice::Failure(failure)) => failure.message,
        Some(Notice::Result(_)) => "The trainer's result is not this run's. Create the RetrainJob again.".into(),
        None if reason == ExitCode::OutOfMemory.reason() => {
            "The trainer ran out of memory. Raise spec.trainer.resources.limits.memory or lower the batch size.".into()
        }
        None => {
            let said = end.message.as_deref().unwrap_or_default().trim();
            let tail = said.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
            format!("The trainer ended with exit code {}{tail}. Read its log with kubectl logs.", end.exit_code)
        }
    };
    (reason.to_owned(), anneal_crds::common::shorten(&message, 1024).into_owned())
}

/// The verdicts as the evidence gives them, or why the result cannot be trusted.
pub(super) fn judge(
    spec: &RetrainJobSpec,
    uid: &str,
    baseline: &ResolvedBaseline,
    result: &RunResult,
) -> Result<Vec<GateOutcome>, String> {
    if result.run_uid != uid {
        return Err(format!(
            "the result belongs to run {}, not to {uid}: check that output folders are not shared",
            result.run_uid
        ));
    }
    let comparison = match (baseline, &result.baseline) {
        (ResolvedBaseline::Version(wanted), Some(seen)) if seen.digest == wanted.version.digest => {
            Comparison::Baseline(seen)
        }
        (ResolvedBaseline::Version(_), Some(_) | None) => Comparison::Missing,
        (ResolvedBaseline::Bootstrap(_), _) => Comparison::Bootstrap,
    };
    Ok(gates::judge(&spec.gates, &result.candidate, comparison))
}
