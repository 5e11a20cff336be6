//! Where a child Job stands, and which pods are its own.
//!
//! Used by both plans: runs are Jobs, and so may the tests of a rollout's staging be.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

/// Where a Job stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JobState {
    /// Pods may still run.
    Active,
    /// It succeeded.
    Complete,
    /// It failed, with the Job controller's reason and message.
    Failed { reason: String, message: String },
}

pub(crate) fn state(job: &Job) -> JobState {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    for condition in conditions.filter(|condition| condition.status == "True") {
        if condition.type_ == "Complete" {
            return JobState::Complete;
        }
        if condition.type_ == "Failed" {
            return JobState::Failed {
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
            };
        }
    }
    JobState::Active
}

/// The pods of one Job, oldest first.
pub(crate) fn pods_of<'a>(pods: &'a [Pod], job: &Job) -> Vec<&'a Pod> {
    let uid = job.metadata.uid.as_deref();
    let of_job = |pod: &&Pod| {
        pod.metadata
            .owner_references
            .iter()
            .flatten()
            .any(|owner| Some(owner.uid.as_str()) == uid && uid.is_some())
    };
    let mut pods: Vec<&Pod> = pods.iter().filter(of_job).collect();
    pods.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone()));
    pods
}
