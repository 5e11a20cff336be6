//! Capacity: who says how many pods a version has, and what is remembered of that.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{common, weight::Weight};

/// An autoscaler for each version's Deployment, between `serving.replicas` and `maxReplicas`. Exactly one of `hpa` and `keda`.
///
/// Texts in metrics and triggers may have `$(ANNEAL_VERSION)`, such as `v20261121.1`, and `$(ANNEAL_WORKLOAD)`, the name of
/// the version's Deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// Most pods of each version.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// What makes them.
    #[serde(flatten)]
    pub scaler: Scaler,
}

/// What says how many pods a version has. Exactly one of the forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Scaler {
    /// A HorizontalPodAutoscaler of `autoscaling/v2`.
    Hpa(Hpa),
    /// A ScaledObject of KEDA, `keda.sh/v1alpha1`.
    Keda(Keda),
}

impl Scaler {
    /// The kind of the object that each version gets.
    pub const fn kind(&self) -> AutoscalerKind {
        match self {
            Self::Hpa(_) => AutoscalerKind::HorizontalPodAutoscaler,
            Self::Keda(_) => AutoscalerKind::ScaledObject,
        }
    }
}

/// Parts of a HorizontalPodAutoscaler's spec, as the API server takes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hpa {
    /// `spec.metrics`.
    #[schemars(schema_with = "common::typed_objects")]
    pub metrics: Vec<Map<String, Value>>,
    /// `spec.behavior`. Default: Kubernetes' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "common::preserve")]
    pub behavior: Option<Map<String, Value>>,
}

/// Parts of a ScaledObject's spec, as KEDA takes them. There is no scaling to zero: what may take requests has pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Keda {
    /// `spec.triggers`.
    #[schemars(schema_with = "common::typed_objects")]
    pub triggers: Vec<Map<String, Value>>,
    /// `spec.pollingInterval`, in seconds. Default: KEDA's own, 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub polling_interval: Option<i32>,
    /// `spec.fallback`, for triggers that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "common::preserve")]
    pub fallback: Option<Map<String, Value>>,
    /// `spec.advanced.horizontalPodAutoscalerConfig.behavior`. Default: Kubernetes' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "common::preserve")]
    pub behavior: Option<Map<String, Value>>,
}

/// A kind of autoscaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AutoscalerKind {
    /// `autoscaling/v2`.
    HorizontalPodAutoscaler,
    /// `keda.sh/v1alpha1`.
    ScaledObject,
}

impl AutoscalerKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::HorizontalPodAutoscaler, Self::ScaledObject];
}

/// Where versions have autoscalers, what these must not go below.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Fewest pods of a version, by its name such as `v20261121.1`, where that is more than `serving.replicas`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub floors: BTreeMap<String, i32>,
    /// The share in percent that the candidate takes as soon as it has the pods for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaited: Option<Weight>,
    /// Kinds of autoscalers that were made and may be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub autoscalers: Vec<AutoscalerKind>,
}
