//! Why a pod does not run, in words that tell what to do next.
//!
//! Used by both plans, so that a missing volume, Secret, image or GPU reads the same everywhere.

use k8s_openapi::api::{apps::v1::DeploymentStatus, core::v1::Pod};

/// Something that keeps a pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// CamelCase.
    pub reason: String,
    /// What Kubernetes says, and what to do.
    pub message: String,
}

/// The first trouble among `pods`, by name.
pub fn find<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Option<Trouble> {
    let mut pods: Vec<&Pod> = pods.into_iter().collect();
    pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    pods.into_iter().find_map(|pod| waiting(pod).or_else(|| unscheduled(pod)))
}

/// What the scheduler says where other pods are in the way.
const CROWDED: [&str; 5] =
    ["Insufficient", "Too many pods", "free ports", "anti-affinity", "cannot allocate"];

/// Whether a pod waits for a place that others take.
pub fn are_crowded_out<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> bool {
    let said = |pod| unscheduled(pod).map(|trouble| trouble.message);
    pods.into_iter().filter_map(said).any(|said| CROWDED.iter().any(|crowded| said.contains(crowded)))
}

/// Whether nothing is known against those pods that have a place.
pub fn are_sound<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> bool {
    pods.into_iter().all(|pod| waiting(pod).is_none() && !has_crashed(pod))
}

/// Whether a container was started again and is not ready since: it may crash once more.
fn has_crashed(pod: &Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.into_iter().any(|container| container.restart_count > 0 && !container.ready)
}

/// Whether a quota keeps a Deployment from making its pods.
pub fn lacks_quota(status: &DeploymentStatus) -> bool {
    of_deployment(status).is_some_and(|trouble| trouble.message.contains("exceeded quota"))
}

/// Why a Deployment cannot make its pods: a quota, a policy or a webhook.
pub fn of_deployment(status: &DeploymentStatus) -> Option<Trouble> {
    let failure =
        status.conditions.iter().flatten().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    let said = failure.message.clone().unwrap_or_default();
    let reason = failure.reason.clone().unwrap_or_else(|| "FailedCreate".into());
    Some(Trouble { reason, message: format!("{said}. Raise the quota, or change what the policy refuses.") })
}

fn unscheduled(pod: &Pod) -> Option<Trouble> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let said = condition.message.clone().unwrap_or_default();
    let advice = if said.contains("persistentvolumeclaim") {
        "Create the PersistentVolumeClaim that spec.storage names."
    } else if said.contains("Insufficient") {
        "Free the resource, add a node that has it, or ask for less."
    } else {
        "Make a node available that fits the pod."
    };
    let reason = condition.reason.clone().unwrap_or_else(|| "Unschedulable".into());
    Some(Trouble { reason, message: format!("{}. {advice}", said.trim_end_matches('.')) })
}

fn waiting(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()).find_map(|waiting| {
        let reason = waiting.reason.as_deref()?;
        let advice = match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                "Check the image's name and the node's access to its registry."
            }
            "CreateContainerConfigError" => "Create the Secret or ConfigMap that is missing.",
            "CreateContainerError" | "RunContainerError" => {
                "Check the image's entry point and the pod's security settings."
            }
            "CrashLoopBackOff" => "Read the container's log with kubectl logs.",
            _ => return None,
        };
        let said = waiting.message.clone().unwrap_or_else(|| reason.to_owned());
        Some(Trouble { reason: reason.to_owned(), message: format!("{said}. {advice}") })
    })
}
