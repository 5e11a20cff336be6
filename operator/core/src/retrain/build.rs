//! The objects of a run, as functions of spec and status.

use std::collections::BTreeMap;

use anneal_crds::{
    ModelVersionSpec, RetrainJob, contract,
    model_version::{Admission, Origin},
    names,
    retrain_job::{ResolvedBaseline, RetrainJobSpec},
};
use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    object::{Key, Kind, Object, Owner},
    pod::{self, Access},
};

/// Seconds between the request to stop and the kill: time for a checkpoint.
const GRACE_SECONDS: u32 = 120;
/// How often and how long a lost result is looked for: Kubernetes waits up to six minutes between two tries.
const REPORT_TRIES: u32 = 200;
const REPORT_SECONDS: u32 = 24 * 3600;
/// Port of the trainer's `/metrics`.
const METRICS_PORT: u32 = 9090;

/// Name of the child Job.
pub fn child_name(job: &str, attempt: u32) -> String {
    format!("{job}-{attempt}")
}

/// Name of the Job that reads a result whose notice was lost.
pub fn report_name(job: &str, attempt: u32) -> String {
    format!("{job}-{attempt}-report")
}

/// Name of the ConfigMap with the job file. It carries the run's uid: the file of a deleted run of the same name may still
/// be there, and a pod must not read it as its own.
fn job_file_name(run: Run<'_>) -> String {
    let uid: String = run.uid.chars().take(8).collect();
    format!("{}-{uid}", child_name(run.name, run.attempt))
}

/// Name of the ModelVersion object of a version.
pub fn version_object_name(model: &str, version: &str) -> String {
    format!("{model}-{version}")
}

/// A run, with the parts of its metadata that children need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) job: &'a RetrainJob,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
    pub(super) attempt: u32,
}

impl<'a> Run<'a> {
    pub(super) fn owner(self) -> Owner<'a> {
        Owner { kind: Kind::RetrainJob, name: self.name, uid: self.uid }
    }

    fn labels(self) -> Value {
        json!({
            names::MANAGED_BY: names::MANAGER,
            names::LABEL_JOB: self.name,
            names::LABEL_MODEL: self.job.spec.model,
        })
    }

    fn metadata(self) -> Value {
        json!({"labels": self.labels(), "ownerReferences": self.owner().reference()})
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobFile<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: JobFileMetadata<'a>,
    spec: &'a RetrainJobSpec,
    status: JobFileStatus<'a>,
}

#[derive(Serialize)]
struct JobFileMetadata<'a> {
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
}

#[derive(Serialize)]
struct JobFileStatus<'a> {
    baseline: &'a ResolvedBaseline,
}

/// The job file: the RetrainJob itself, with the baseline that was fixed when the run started.
pub(super) fn job_file(run: Run<'_>, baseline: &ResolvedBaseline) -> Object {
    let manifest = JobFile {
        api_version: names::API_VERSION,
        kind: "RetrainJob",
        metadata: JobFileMetadata { name: run.name, namespace: run.namespace, uid: run.uid },
        spec: &run.job.spec,
        status: JobFileStatus { baseline },
    };
    // It came out of JSON, so it goes into JSON.
    let text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
    let key = Key::new(Kind::ConfigMap, run.namespace, &job_file_name(run));
    // JSON is YAML, and the API server keeps it as it is.
    Object::new(key, json!({"metadata": run.metadata(), "immutable": true, "data": {"job.yaml": text}}))
}

/// The Job that trains. It is created once and never applied again, because queueing systems own parts of it.
pub(super) fn trainer_job(run: Run<'_>) -> Object {
    let spec = &run.job.spec;
    let trainer = &spec.trainer;
    let args = json!(["train", "-f", names::JOB_FILE, "--listen", format!("0.0.0.0:{METRICS_PORT}")]);
    let codes = |codes: &[contract::ExitCode]| codes.iter().map(|code| code.code()).collect::<Vec<_>>();
    let permanent = {
        use contract::ExitCode as E;
        let mut codes = codes(&[E::BadConfiguration, E::BadData, E::GateFailed, E::Diverged, E::Bug]);
        codes.push(101);
        codes
    };
    let on_exit = |values: Vec<i32>| json!({"containerName": names::TRAINER_CONTAINER, "operator": "In", "values": values});
    let mut template = pod_template(run, args, trainer.resources.clone());
    template["metadata"]["annotations"] = json!({
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
        "prometheus.io/scrape": "true",
        "prometheus.io/port": METRICS_PORT.to_string(),
    });
    template["spec"]["containers"][0]["ports"] = json!([{"name": "metrics", "containerPort": METRICS_PORT}]);
    let body = json!({
        "metadata": run.metadata(),
        "spec": {
            "completionMode": "Indexed",
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": spec.failure_policy.max_retries,
            "activeDeadlineSeconds": spec.failure_policy.active_deadline.get().as_secs().max(1),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "Ignore", "onExitCodes": on_exit(codes(&[contract::ExitCode::Interrupted]))},
                {"action": "FailJob", "onExitCodes": on_exit(permanent)},
            ]},
            "template": template,
        },
    });
    Object::new(Key::new(Kind::Job, run.namespace, &child_name(run.name, run.attempt)), body)
}

/// The Job that reads `result.json` again and reports it, with the run's own rights and without a GPU.
///
/// It outlasts an outage of the storage: only a pod that could look and found nothing ends it.
pub(super) fn report_job(run: Run<'_>) -> Object {
    let args = json!(["report", "-f", names::JOB_FILE]);
    let nothing_there =
        [contract::ExitCode::BadConfiguration, contract::ExitCode::BadData, contract::ExitCode::Bug];
    let codes: Vec<i32> = nothing_there.iter().map(|code| code.code()).collect();
    let body = json!({
        "metadata": run.metadata(),
        "spec": {
            "backoffLimit": REPORT_TRIES,
            "activeDeadlineSeconds": REPORT_SECONDS,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"containerName": names::TRAINER_CONTAINER, "operator": "In", "values": codes}},
            ]},
            "template": pod_template(run, args, without_devices(&run.job.spec.trainer.resources)),
        },
    });
    Object::new(Key::new(Kind::Job, run.namespace, &report_name(run.name, run.attempt)), body)
}

/// The same without GPUs and other devices, so that a quota on memory admits a pod that needs no device.
fn without_devices(resources: &ResourceRequirements) -> ResourceRequirements {
    let plain = |amounts: &Option<BTreeMap<String, Quantity>>| {
        let amounts = amounts.clone()?;
        Some(amounts.into_iter().filter(|(name, _)| !name.contains('/')).collect())
    };
    ResourceRequirements {
        limits: plain(&resources.limits),
        requests: plain(&resources.requests),
        ..ResourceRequirements::default()
    }
}

fn pod_template(run: Run<'_>, args: Value, resources: ResourceRequirements) -> Value {
    let spec = &run.job.spec;
    let storage = pod::storage(&spec.storage, Access::ReadWrite);
    let mut env = vec![
        json!({"name": contract::ENV_RUN_UID, "value": run.uid}),
        json!({"name": contract::ENV_ATTEMPT, "value": run.attempt.to_string()}),
        json!({"name": contract::ENV_OUTPUT_URI, "value": spec.output.uri}),
        json!({"name": contract::ENV_CHECKPOINT_URI, "value": format!("{}/{}/runs/{}/checkpoints", spec.output.uri.trim_end_matches('/'), spec.model, run.uid)}),
    ];
    env.extend(storage.env);
    let mut volumes = vec![json!({"name": "job", "configMap": {"name": job_file_name(run)}})];
    volumes.extend(storage.volumes);
    volumes.push(json!({"name": "tmp", "emptyDir": {}}));
    let mut mounts = vec![json!({"name": "job", "mountPath": "/etc/anneal", "readOnly": true})];
    mounts.extend(storage.mounts);
    mounts.push(json!({"name": "tmp", "mountPath": "/tmp"}));
    json!({
        "metadata": {"labels": run.labels()},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": false,
            "nodeSelector": spec.trainer.node_selector,
            "securityContext": pod::pod_security(),
            "containers": [{
                "name": names::TRAINER_CONTAINER,
                "image": spec.trainer.image,
                "imagePullPolicy": spec.trainer.image_pull_policy.name(),
                "args": args,
                "env": env,
                "resources": resources,
                "securityContext": pod::container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mounts,
            }],
            "volumes": volumes,
        },
    })
}

/// The record of a version. It has no owner: a version outlives the run that made it.
pub(super) fn model_version(
    run: Run<'_>,
    baseline: &ResolvedBaseline,
    result: &contract::RunResult,
    version: &str,
) -> Object {
    let spec = ModelVersionSpec {
        model: run.job.spec.model.clone(),
        version: version.to_owned(),
        admission: match baseline {
            ResolvedBaseline::Version(_) => Admission::Gates,
            ResolvedBaseline::Bootstrap(_) => Admission::Bootstrap,
        },
        artifact: result.artifact.clone(),
        storage: run.job.spec.storage.clone(),
        origin: Origin { job: run.name.to_owned(), uid: run.uid.to_owned() },
        baseline: baseline.clone(),
        evaluation: result.candidate.clone(),
        gates: result.gates.clone(),
        serving: run.job.spec.serving.clone(),
    };
    let key = Key::new(Kind::ModelVersion, run.namespace, &version_object_name(&spec.model, version));
    let labels = json!({
        names::MANAGED_BY: names::MANAGER,
        names::LABEL_JOB: run.name,
        names::LABEL_MODEL: spec.model,
        names::LABEL_VERSION: version,
    });
    Object::new(key, json!({"metadata": {"labels": labels}, "spec": spec}))
}
