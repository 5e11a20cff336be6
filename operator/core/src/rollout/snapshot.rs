//! What a decision about a ModelRollout may look at.
//!
//! Filled by the shell's `observe`, by the simulation and by tests; read by everything in this module.

use std::collections::BTreeMap;

use anneal_crds::{ModelRollout, ModelVersion};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::object::Kind;

use super::{
    endpoints::Endpoints, memo::Memo, plane::Features, probe::ProbeAnswer, query::Question, reading::Answer,
};

/// What was answered, by metric and question.
pub type Answers = BTreeMap<(String, Question), Answer>;

/// Everything that a decision about a ModelRollout may look at.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// The object with its status.
    pub rollout: &'a ModelRollout,
    /// All ModelVersions of the namespace with the model's label.
    pub versions: &'a [ModelVersion],
    /// The rollouts that [`super::rivals`] names, as far as they exist.
    pub rivals: &'a [ModelRollout],
    /// The rollouts that [`super::members`] names, as far as they exist.
    pub members: &'a [ModelRollout],
    /// The children as they are.
    pub children: &'a Children,
    /// Whom the Services with the rollout's label lead to, and [`super::adopted_service`].
    pub endpoints: &'a Endpoints,
    /// The gateway that the spec names.
    pub gateway: GatewayState,
    /// What its class lists, if [`super::asks_for_features`].
    pub features: Features,
    /// Answers to [`super::queries`]; a missing one is no data.
    pub answers: &'a Answers,
    /// Answers to [`super::probes`], in the same order; none where none were sent.
    pub probed: &'a [ProbeAnswer],
    /// Whether this operator hears of alerts.
    pub alerts: AlertReceiver,
    /// What earlier plans for just this world have found out.
    pub memo: &'a Memo,
    /// The time.
    pub now: Timestamp,
}

/// Whether the operator takes messages of Alertmanager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertReceiver {
    /// It does.
    Listens,
    /// The chart's `alertReceiver` is off.
    Off,
}

/// The children of a rollout as they are in the cluster, found by label, and by name, whoever made them.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// Deployments with the rollout's label or with the name of one of its versions'.
    pub deployments: Vec<Value>,
    /// Services with the rollout's label or with the name of one of its versions'.
    pub services: Vec<Value>,
    /// The HTTPRoute that [`super::route_key`] names.
    pub route: Option<Value>,
    /// The Job that [`super::staging_job`] names, whoever made it.
    pub test: Option<Value>,
    /// Autoscalers of the kinds that [`super::autoscaler_kinds`] names.
    pub autoscalers: BTreeMap<Kind, Autoscalers>,
    /// Pods of all versions and of tests.
    pub pods: Vec<Pod>,
    /// Whether those are all.
    pub pods_listed: Listed,
}

/// What could be read of a kind of autoscaler, which not every cluster has or lets the operator read.
#[derive(Clone, Debug, PartialEq)]
pub enum Autoscalers {
    /// Those with the rollout's label or with the name of one of its versions'.
    Known(Vec<Value>),
    /// The API server does not know the kind.
    NoSuchKind,
    /// The operator may not read them, in words.
    Denied(String),
    /// They could not be read this time, and why.
    Failed(String),
}

/// Whether a list could be read. Where it could not, what is missing from it may be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    /// Everything that there is.
    #[default]
    All,
    /// Nothing is known.
    Failed,
}

/// What is known of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayState {
    /// It exists and the data plane has it.
    Programmed,
    /// It exists and the data plane does not have it yet.
    NotProgrammed,
    /// It does not exist, or its kind does not.
    Missing,
    /// The route names none.
    NotNamed,
    /// It could not be read, and why.
    Unknown(String),
}
