//! ModelRollout: which version of a model serves, and how the next one takes over.
//!
//! Here is what it is made of; `strategy` is how a version takes over, and `status` where that stands.

use k8s_openapi::api::core::v1 as core;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common,
    metric::{Judge, Metric},
    prometheus::Prometheus,
    retrain_job::PullPolicy,
    span::Span,
};

mod autoscaling;
mod consent;
mod experiment;
mod group;
mod probe;
mod staging;
mod status;
mod strategy;
mod traffic;

pub use autoscaling::{AutoscalerKind, Autoscaling, Capacity, Hpa, Keda, Scaler};
pub use consent::{Approval, ApprovalPoint, Evidence, Freeze, JudgedMetric, PendingApproval};
pub use experiment::Experiment;
pub use group::{FailedWave, Group, GroupStatus};
pub use probe::{Expect, ExpectedValue, Request, Smoke, SmokeRequest, Warmup};
pub use staging::{JobTest, Staging, StagingTest, TestVariable, Webhook};
pub use status::{
    Baseline, Decision, Missing, ModelRolloutStatus, Observed, RecordedReading, Rejection, Retry,
    RolloutPhase, Stray, Trial, TrialState,
};
pub use strategy::{Bake, BlueGreen, Canary, CopyShare, Fraction, Progression, Shadow, Step, Strategy, Then};
pub use traffic::{Adopted, Attach, Gateway, MirrorDropped, Traffic, TrafficStatus, WrittenRoute};

/// Serves a model and takes new versions through shadow and canary to full traffic, or back.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "anneal.dev",
    version = "v1alpha1",
    kind = "ModelRollout",
    plural = "modelrollouts",
    shortname = "mro",
    category = "anneal",
    namespaced,
    status = "ModelRolloutStatus",
    derive = "PartialEq",
    doc = "A ModelRollout serves a model and takes new versions through shadow and canary to full traffic, or rolls them back.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phaseSummary"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.stepSummary"),
    printcolumn(name = "Weight", type_ = "number", json_path = ".status.weight"),
    printcolumn(name = "Observed", type_ = "string", json_path = ".status.observed.percent"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict"),
    printcolumn(name = "Stable", type_ = "string", json_path = ".status.stable.version"),
    printcolumn(name = "Candidate", type_ = "string", json_path = ".status.candidate.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40").message("metadata.name must have at most 40 characters, so that the names of its children fit"),
    validation = Rule::new("!has(self.spec.group) || self.metadata.name in self.spec.group.members").message("spec.group.members must have this rollout's own name too"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label that begins with a letter")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.strategy.rollbackTriggers.all(t, self.metrics.exists(m, m.name == t))").message("strategy.rollbackTriggers names a metric that metrics does not define"))]
#[x_kube(validation = Rule::new("!has(self.strategy.steps) || self.strategy.steps.all(s, !has(s.rollbackTriggers) || s.rollbackTriggers.all(t, self.metrics.exists(m, m.name == t)))").message("rollbackTriggers of a step names a metric that metrics does not define"))]
#[x_kube(validation = Rule::new("!has(self.strategy.bake) || self.strategy.bake.rollbackTriggers.all(t, self.metrics.exists(m, m.name == t))").message("strategy.bake.rollbackTriggers names a metric that metrics does not define"))]
#[x_kube(validation = Rule::new("(has(self.strategy.warnTriggers) ? self.strategy.warnTriggers : []).all(t, self.metrics.exists(m, m.name == t))").message("strategy.warnTriggers names a metric that metrics does not define"))]
#[x_kube(validation = Rule::new("!has(self.strategy.bake) || !has(self.strategy.bake.warnTriggers) || self.strategy.bake.warnTriggers.all(t, self.metrics.exists(m, m.name == t))").message("strategy.bake.warnTriggers names a metric that metrics does not define"))]
#[x_kube(validation = Rule::new("self.strategy.rollbackTriggers.all(t, !self.metrics.exists(m, m.name == t && (has(m.drift) || has(m.stability))))").message("drift and stability are measured in a bake: name them in strategy.bake.rollbackTriggers or strategy.bake.warnTriggers"))]
#[x_kube(validation = Rule::new("(has(self.strategy.warnTriggers) ? self.strategy.warnTriggers : []).all(t, !self.metrics.exists(m, m.name == t && (has(m.drift) || has(m.stability))))").message("drift and stability are measured in a bake: name them in strategy.bake.rollbackTriggers or strategy.bake.warnTriggers"))]
#[x_kube(validation = Rule::new("!has(self.strategy.steps) || self.strategy.steps.all(s, !has(s.rollbackTriggers) || s.rollbackTriggers.all(t, !self.metrics.exists(m, m.name == t && (has(m.drift) || has(m.stability)))))").message("drift and stability are measured in a bake: name them in strategy.bake.rollbackTriggers or strategy.bake.warnTriggers"))]
#[x_kube(validation = Rule::new("!has(self.strategy.shadow) || !has(self.strategy.shadow.rollbackTriggers) || self.strategy.shadow.rollbackTriggers.all(t, self.metrics.exists(m, m.name == t && !has(m.drift) && !has(m.stability)))").message("strategy.shadow.rollbackTriggers names a metric that metrics does not define, or one of a bake"))]
#[x_kube(validation = Rule::new("!has(self.strategy.shadow) || !has(self.strategy.shadow.warnTriggers) || self.strategy.shadow.warnTriggers.all(t, self.metrics.exists(m, m.name == t && !has(m.drift) && !has(m.stability)))").message("strategy.shadow.warnTriggers names a metric that metrics does not define, or one of a bake"))]
#[x_kube(validation = Rule::new("self.metrics.all(m, !(has(m.agreement) || has(m.paired)) || !(m.name in self.strategy.rollbackTriggers || (has(self.strategy.warnTriggers) && m.name in self.strategy.warnTriggers)))").message("agreement and paired are measured in shadow: name them in strategy.shadow.rollbackTriggers or strategy.shadow.warnTriggers"))]
#[x_kube(validation = Rule::new("self.metrics.all(m, !(has(m.agreement) || has(m.paired)) || !has(self.strategy.steps) || self.strategy.steps.all(s, !has(s.rollbackTriggers) || !(m.name in s.rollbackTriggers)))").message("agreement and paired are measured in shadow: name them in strategy.shadow.rollbackTriggers or strategy.shadow.warnTriggers"))]
#[x_kube(validation = Rule::new("self.metrics.all(m, !(has(m.agreement) || has(m.paired)) || !has(self.strategy.bake) || !(m.name in self.strategy.bake.rollbackTriggers || (has(self.strategy.bake.warnTriggers) && m.name in self.strategy.bake.warnTriggers)))").message("agreement and paired are measured in shadow: name them in strategy.shadow.rollbackTriggers or strategy.shadow.warnTriggers"))]
#[x_kube(validation = Rule::new("self.metrics.all(m, !(has(m.agreement) || has(m.paired)) || (has(self.strategy.shadow) && ((has(self.strategy.shadow.rollbackTriggers) && m.name in self.strategy.shadow.rollbackTriggers) || (has(self.strategy.shadow.warnTriggers) && m.name in self.strategy.shadow.warnTriggers))))").message("agreement and paired are measured in shadow: name them in strategy.shadow.rollbackTriggers or strategy.shadow.warnTriggers"))]
#[x_kube(validation = Rule::new("size(self.metrics.filter(m, has(m.agreement))) <= 1 && size(self.metrics.filter(m, has(m.paired))) <= 1").message("only one metric may be an agreement, and one paired: every pod compares answers in one way"))]
#[x_kube(validation = Rule::new("!has(self.strategy.steps) || (self.strategy.steps.map(s, s.weight).isSorted() && self.strategy.steps.all(s, self.strategy.steps.exists_one(t, t.weight == s.weight)))").message("the weights of strategy.steps must rise from step to step"))]
#[x_kube(validation = Rule::new("!has(self.strategy.experiment) || self.judge.evidence == 'sequential'").message("strategy.experiment needs judge.evidence: sequential, which counts the requests of both versions"))]
#[x_kube(validation = Rule::new("!has(self.strategy.experiment) || self.metrics.exists(m, m.name == self.strategy.experiment.primary)").message("strategy.experiment.primary names a metric that metrics does not define"))]
#[x_kube(validation = Rule::new("!has(self.strategy.experiment) || self.metrics.all(m, m.name != self.strategy.experiment.primary || has(m.errors) || has(m.histogram) || has(m.latency) || (has(m.ratio) && has(m.ratio.min) != has(m.ratio.max)))").message("strategy.experiment.primary must be a ratio with one bound, errors, a histogram or a latency: only counted events show a winner"))]
#[x_kube(validation = Rule::new("!has(self.strategy.experiment) || !has(self.strategy.experiment.secondary) || self.strategy.experiment.secondary.all(s, self.metrics.exists(m, m.name == s))").message("strategy.experiment.secondary names a metric that metrics does not define"))]
#[x_kube(validation = Rule::new("!has(self.strategy.experiment) || !has(self.strategy.experiment.secondary) || self.strategy.experiment.secondary.all(s, !self.metrics.exists(m, m.name == s && (has(m.value) || has(m.mean) || has(m.drift) || has(m.stability) || has(m.agreement) || has(m.paired))))").message("strategy.experiment.secondary must be ratios, errors, histograms or latencies: only counted events show that a metric is no worse"))]
#[x_kube(validation = Rule::new("!has(self.strategy.freezes) || self.strategy.freezes.all(f, self.strategy.freezes.exists_one(g, g.name == f.name))").message("strategy.freezes must have different names"))]
#[x_kube(validation = Rule::new("!has(self.strategy.approval) || !has(self.strategy.approval.before) || has(self.strategy.shadow) || has(self.strategy.experiment) || (has(self.strategy.canary) && self.strategy.canary.initial < 100) || (has(self.strategy.steps) && self.strategy.steps.exists(s, s.weight < 100.0))").message("strategy.approval.before needs a shadow, an experiment or a step below 100 %, which it comes after"))]
#[x_kube(validation = Rule::new("!self.metrics.exists(m, (has(m.errors) && m.errors.of == 'Envoy') || (has(m.latency) && m.latency.of == 'Envoy')) || (has(self.prometheus.versionFrom) && self.prometheus.versionFrom == 'EnvoyCluster')").message("errors and latency of Envoy need prometheus.versionFrom: EnvoyCluster"))]
#[x_kube(validation = Rule::new("!has(self.strategy.shadow) || !has(self.prometheus.versionFrom) || self.prometheus.versionFrom != 'EnvoyCluster'").message("Envoy does not count copies for each version, so strategy.shadow cannot be judged with prometheus.versionFrom: EnvoyCluster"))]
#[x_kube(validation = Rule::new("self.metrics.all(m, self.metrics.exists_one(n, n.name == m.name))").message("metrics must have different names"))]
#[x_kube(validation = Rule::new("self.judge.evidence != 'sequential' || self.metrics.all(m, !has(m.mean) || has(m.mean.margin))").message("with judge.evidence: sequential a mean needs margin: how much worse than stable's it may be"))]
#[x_kube(validation = Rule::new("self.judge.evidence == 'sequential' || self.metrics.all(m, !has(m.mean) || !has(m.mean.margin))").message("a mean's margin is for judge.evidence: sequential, which compares it with stable's"))]
#[x_kube(validation = Rule::new("self.metrics.all(m, !has(m.paired) || (has(m.paired.max) && m.paired.max > 0.5) || (self.judge.evidence == 'sequential' && !(has(self.strategy.shadow) && has(self.strategy.shadow.warnTriggers) && m.name in self.strategy.shadow.warnTriggers)))").message("a paired metric that is compared as it is, with judge.evidence: none or as a warning, needs max above 0.5: of two versions that are alike each is right alone as often as the other"))]
#[x_kube(validation = Rule::new("!has(self.traffic.attach) || !has(self.deletionPolicy) || self.deletionPolicy != 'Delete'").message("deletionPolicy: Delete is for traffic.gateway: a route of yours stays when the ModelRollout goes, and so does what it leads to"))]
#[x_kube(validation = Rule::new("has(self.traffic.attach) == has(oldSelf.traffic.attach)").message("traffic.gateway and traffic.attach cannot be exchanged: create another ModelRollout"))]
pub struct ModelRolloutSpec {
    /// Name of the model whose versions are served.
    #[schemars(schema_with = "common::dns_label")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("model is immutable: create another ModelRollout"))]
    pub model: String,
    /// Which version is to serve.
    pub candidate: CandidateSource,
    /// The pods that serve.
    pub serving: Serving,
    /// Where requests come from.
    pub traffic: Traffic,
    /// Where metrics are read.
    pub prometheus: Prometheus,
    /// How a new version takes over.
    pub strategy: Strategy,
    /// What can be read about a version.
    #[schemars(length(min = 1, max = 16))]
    pub metrics: Vec<Metric>,
    /// How readings become verdicts.
    pub judge: Judge,
    /// While true, no version gets more traffic and none begins; a rollback still happens. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Why `paused` is true, for the condition and the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub pause_reason: Option<String>,
    /// Back to a version that was stable here, at once. While it is set, no other version begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<ManualRollback>,
    /// What becomes of what serves when this object is deleted. Default Retain.
    #[serde(default, skip_serializing_if = "DeletionPolicy::is_default")]
    pub deletion_policy: DeletionPolicy,
    /// Rollouts of other models with which this one takes its new versions, step by step and all or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
}

/// What becomes of Deployments, Services, autoscalers and the HTTPRoute when their ModelRollout is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay and serve on. A ModelRollout of the same name finds them again, and without one they are yours.
    #[default]
    Retain,
    /// They are deleted too: from then on nobody answers.
    Delete,
}

impl DeletionPolicy {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Back to a version that was stable here: at once if its pods still run, else as soon as they are ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManualRollback {
    /// The version, such as `v20261121.1`: one of `status.history`, or the one that is stable, to give up a candidate.
    #[schemars(length(max = 32), regex(pattern = "^v[0-9]{8}\\.[0-9]+$"))]
    pub target_version: String,
    /// Why, in one line. It is recorded and told.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

/// Which version is to serve. Exactly one of the forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CandidateSource {
    /// The newest version that may serve and was not rolled back here.
    Follow(Follow),
    /// This version, such as `v20261121.1`.
    Version(#[schemars(length(max = 32), regex(pattern = "^v[0-9]{8}\\.[0-9]+$"))] String),
}

/// Which versions are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Follow {
    /// The newest version that passed its gates, or was approved where it had no baseline.
    NewestApproved,
}

/// The pods that serve. Every version gets a Deployment of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.port != self.shadowPort").message("port and shadowPort must differ"))]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || self.replicas <= self.autoscaling.maxReplicas").message("autoscaling.maxReplicas must not be below replicas, the fewest pods of a version"))]
pub struct Serving {
    /// Image with `anneal-trainer serve`.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// When to pull the image. Default IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Pods of each version that takes traffic; with `autoscaling`, the fewest. Default 2.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
    /// More pods where load asks for them. Default: always `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Port of the container. Default 8080.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// Port of the container for copied requests, by which the server can tell them from live ones. Default 8081.
    #[serde(default = "default_shadow_port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub shadow_port: i32,
    /// Requests and limits of the serving container.
    #[serde(default)]
    #[schemars(schema_with = "common::resources")]
    pub resources: core::ResourceRequirements,
    /// How long a version may take until all its pods are ready, before it is given up. Default 10m.
    #[serde(default = "default_progress_deadline")]
    pub progress_deadline: Span,
    /// Requests that a version must have answered before it takes traffic. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
}

fn default_replicas() -> i32 {
    2
}
fn default_port() -> i32 {
    8080
}
fn default_shadow_port() -> i32 {
    8081
}
fn default_progress_deadline() -> Span {
    Span::from_secs(600)
}
