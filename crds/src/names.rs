//! Names that operator, trainer, chart and users share: labels, annotations, folders, ports.
//!
//! Changing one of them is an API change.

/// API group of all kinds.
pub const GROUP: &str = "anneal.dev";
/// API version of all kinds.
pub const API_VERSION: &str = "anneal.dev/v1alpha1";

/// On every object that the operator creates; the selector of every watch on children.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "anneal";
/// Field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "anneal.dev/operator";
/// Name of the RetrainJob that a child belongs to.
pub const LABEL_JOB: &str = "anneal.dev/retrainjob";
/// Name of the ModelRollout that a child belongs to.
pub const LABEL_ROLLOUT: &str = "anneal.dev/rollout";
/// Name of the served model.
pub const LABEL_MODEL: &str = "anneal.dev/model";
/// Version (`vYYYYMMDD.n`) that a pod serves or that a record describes.
pub const LABEL_VERSION: &str = "anneal.dev/version";

/// On a ModelVersion: who approves it, in one line. Needed for a version that had no baseline. On a ModelRollout: who wrote
/// [`ANNOTATION_APPROVE`], as the API server calls that user.
pub const ANNOTATION_APPROVED_BY: &str = "anneal.dev/approved-by";

/// On a Secret: the one server that the operator may show it to, as scheme, host and port.
pub const ANNOTATION_SERVER: &str = "anneal.dev/server";

/// On children: a digest of what the operator applied last.
pub const ANNOTATION_APPLIED: &str = "anneal.dev/applied";

/// On the Service of a stable version: that it is, and what was rolled back, as JSON. A rollout that lost its status, and whose
/// ModelVersions lost their marks, finds its way back by it.
pub const ANNOTATION_REMEMBERS: &str = "anneal.dev/remembers";

/// On an HTTPRoute: when the last rollback was, as long as it is the last thing that happened.
pub const ANNOTATION_ROLLED_BACK_AT: &str = "anneal.dev/rolled-back-at";

/// On Deployments: the release of the operator that made their pods.
pub const ANNOTATION_RELEASE: &str = "anneal.dev/release";
/// On Deployments: a digest of what their pods were made of.
pub const ANNOTATION_ASKED_FOR: &str = "anneal.dev/asked-for";

/// Folder of the trainer pod that holds `job.yaml`.
pub const JOB_FILE: &str = "/etc/anneal/job.yaml";
/// Name of the trainer container; the Job's failure policy matches exit codes by it.
pub const TRAINER_CONTAINER: &str = "trainer";
/// Name of the serving container.
pub const SERVING_CONTAINER: &str = "server";
/// On a ModelVersion, with `/<rollout>` behind it: it is that rollout's stable version. A rollout that lost its status
/// finds its way back by it.
pub const ANNOTATION_STABLE_IN: &str = "stable-in.anneal.dev";
/// On a ModelVersion, with `/<rollout>` behind it: that rollout rolled it back, and never takes it again by itself.
pub const ANNOTATION_ROLLED_BACK_IN: &str = "rolled-back-in.anneal.dev";
/// On a ModelVersion, with `/<rollout>` behind it: that rollout's stable version is in its bake, and this is the way back. A
/// rollout that lost its status begins the bake anew.
pub const ANNOTATION_PREVIOUS_IN: &str = "previous-in.anneal.dev";
/// On a ModelVersion, with `/<rollout>` behind it: that rollout needs it, or may go back to it. It cannot be deleted, unless a
/// person has annotated it with `anneal.dev/delete-anyway`.
pub const ANNOTATION_USED_IN: &str = "used-in.anneal.dev";

/// On a ModelRollout: nothing advances while it is there; its text says why. A rollback still happens.
pub const ANNOTATION_PAUSE: &str = "anneal.dev/pause";
/// On a ModelRollout, `<version>@<place>: <why>`: that version leaves that place (`Staging`, `Shadow`, a weight such as `10`,
/// `Baking`) without waiting any longer, or every step that is left (`full`).
pub const ANNOTATION_PROMOTE: &str = "anneal.dev/promote";
/// On a ModelRollout, `<version>@<place> <digest>: <why>`: what that version has shown in that place (`Shadow`, or a weight
/// such as `10`) is approved, if the digest of the evidence begins so.
pub const ANNOTATION_APPROVE: &str = "anneal.dev/approve";
/// On a ModelRollout, `<version>: <why>`: that version is rolled back.
pub const ANNOTATION_ABORT: &str = "anneal.dev/abort";
/// On a ModelRollout, `<version>: <why>`: that version was rolled back and may try again, once for each text.
pub const ANNOTATION_RETRY: &str = "anneal.dev/retry";
/// Text of a mark that says no more than that it is there.
pub const MARK: &str = "true";
