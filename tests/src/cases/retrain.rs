//! Snapshots for RetrainJobs.

use anneal_core::{
    object::{Key, Kind},
    plan::Plan,
    retrain,
};
use anneal_crds::{ModelRollout, ModelVersion, RetrainJob, RetrainJobStatus};
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use serde_json::{Value, json};

use super::{Made, NAME, NAMESPACE, UID, ago, digest, metadata, now, reference, rollout, typed, version};

/// Everything that a plan for a RetrainJob looks at.
#[derive(Clone, Debug)]
pub struct RetrainCase {
    /// The RetrainJob.
    pub job: RetrainJob,
    /// The rollout with its stable version 1.
    pub rollout: Option<ModelRollout>,
    /// Version 1.
    pub stable: Option<ModelVersion>,
    /// The child Job.
    pub child: Option<Job>,
    /// The Job that reads a lost result.
    pub report: Option<Job>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// The record with the name of this run's version.
    pub version: Option<ModelVersion>,
    /// The time.
    pub now: Timestamp,
}

impl RetrainCase {
    /// A RetrainJob in a status, against a rollout whose stable version is 1.
    pub fn new(status: Value) -> Made<Self> {
        let spec = json!({
            "model": "ads",
            "data": {"train": {"uri": "file:///t.parquet"}, "split": {"validationFraction": 0.1, "key": "id"},
                "target": "y", "task": "classification"},
            "trainer": {"image": "trainer:1"},
            "storage": {"persistentVolumeClaim": {"claimName": "models"}},
            "output": {"uri": "file:///models"},
            "baseline": {"rollout": NAME},
            "gates": [{"ironLaw": {}}],
        });
        let body = json!({"metadata": metadata(UID), "spec": spec, "status": status});
        Ok(Self {
            job: typed(Key::new(Kind::RetrainJob, NAMESPACE, NAME), body)?,
            rollout: Some(rollout(json!({"phase": "Healthy", "stable": reference(1)}))?),
            stable: Some(version(1, None)?),
            child: None,
            report: None,
            pods: vec![],
            version: None,
            now: now(),
        })
    }

    /// The status of a run that trains against version 1.
    pub fn training() -> Value {
        let mut baseline = reference(1);
        baseline["uri"] = "file:///models/1".into();
        json!({"observedGeneration": 1, "phase": "Training", "attempt": 1, "baseline": {"version": baseline},
            "startedAt": ago(600)})
    }

    /// The plan.
    pub fn plan(&self) -> Plan<RetrainJobStatus> {
        retrain::plan(&retrain::Snapshot {
            job: &self.job,
            rollout: self.rollout.as_ref(),
            stable: self.stable.as_ref(),
            child: self.child.as_ref(),
            report: self.report.as_ref(),
            pods: &self.pods,
            version: self.version.as_ref(),
            now: self.now,
        })
    }
}

/// A Job of a RetrainJob; `condition` is how it ended, with the reason.
pub fn child(name: &str, owner_uid: &str, condition: Option<(&str, &str)>) -> Made<Job> {
    let mut metadata = metadata(&format!("uid-{name}"));
    metadata["ownerReferences"] = json!([{"apiVersion": "anneal.dev/v1alpha1", "kind": "RetrainJob", "name": NAME,
        "uid": owner_uid, "controller": true}]);
    let conditions: Vec<Value> = condition
        .map(|(type_, reason)| json!({"type": type_, "status": "True", "reason": reason}))
        .into_iter()
        .collect();
    typed(
        Key::new(Kind::Job, NAMESPACE, name),
        json!({"metadata": metadata, "status": {"conditions": conditions}}),
    )
}

/// A pod of a Job, the `order`-th, that ended with a code and a message, or has not started.
pub fn pod(job: &str, order: i64, end: Option<(i64, &str)>) -> Made<Pod> {
    let mut metadata = metadata(&format!("uid-{job}-{order}"));
    metadata["creationTimestamp"] = ago(1000 - order).into();
    metadata["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": job,
        "uid": format!("uid-{job}"), "controller": true}]);
    let state = match end {
        None => json!({"waiting": {"reason": "ContainerCreating"}}),
        Some((code, message)) => json!({"terminated": {"exitCode": code, "message": message}}),
    };
    let container = json!({"name": "trainer", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state});
    typed(
        Key::new(Kind::Pod, NAMESPACE, &format!("{job}-{order}")),
        json!({"metadata": metadata, "status": {"containerStatuses": [container]}}),
    )
}

/// The notice of a run whose loss is `loss` against 0.5 of version `baseline`.
pub fn notice(run_uid: &str, loss: f64, baseline: u32) -> String {
    let evaluation = |loss: f64| json!({"rows": 10, "metrics": [{"name": "loss", "value": loss}]});
    json!({"result": {
        "schema": 1, "runUid": run_uid, "artifact": {"uri": "file:///models/2", "digest": digest(2)},
        "version": "v20261121.2", "device": "cpu", "stop": "EarlyStop", "epochs": 2, "bestEpoch": 1,
        "train": {"rows": 100, "digest": "sha256:t"}, "validation": {"rows": 10, "digest": "sha256:v"},
        "schemaDigest": "sha256:s", "candidate": evaluation(loss),
        "baseline": {"digest": digest(baseline), "evaluation": evaluation(0.5)}, "gates": [], "seconds": 1.0,
    }})
    .to_string()
}
