//! What is kept of an object that is watched: enough to know whom it concerns, and little, because there may be ten thousand.
//!
//! Used by `run` alone. Nothing here is decided by: a watch wakes, and tells which looks are old.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use anneal_core::object::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
    runtime::{reflector::ObjectRef, watcher},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::kube_cluster::api_resource;

/// Objects of a page when a watch begins. A page is read whole, with all that others wrote on its objects, and what the allocator
/// took for one of 500 it does not give back: that was more than all that is kept.
const PAGE: u32 = 50;

/// Watches everything.
pub(crate) fn everything() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// A watched object of any kind, with what is kept of its spec and status.
#[derive(Clone, Debug)]
pub(crate) struct Watched<F = Rollout> {
    metadata: ObjectMeta,
    /// What is kept.
    pub(crate) facts: F,
}

/// What is kept of spec and status.
pub(crate) trait Facts: Sized {
    /// The spec as far as it is read.
    type Spec: Default + DeserializeOwned;
    /// The status as far as it is read.
    type Status: Default + DeserializeOwned;
    /// The facts.
    fn of(spec: Self::Spec, status: Self::Status) -> Self;
}

/// What is kept of a rollout, and of everything that wakes one by its name or label.
#[derive(Clone, Debug)]
pub(crate) struct Rollout {
    /// `spec.model`, where there is one.
    pub(crate) model: Option<String>,
    /// `spec.group.members`, where there are any.
    members: Vec<String>,
    /// `status.group`, where there is one.
    standing: Option<Value>,
    /// `spec.traffic.attach.route`, where there is one.
    pub(crate) attached_to: Option<String>,
    /// Namespace, if it is said, and name of `spec.traffic.gateway`, where there is one.
    pub(crate) gateway: Option<(Option<String>, String)>,
}

/// What is kept of a Gateway, or of its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plane {
    /// The class of a Gateway.
    pub(crate) class: Option<String>,
    programmed: bool,
    features: Vec<String>,
}

/// An object as it comes. What is not named here is not even allocated, `managedFields` above all.
#[derive(Deserialize)]
#[serde(bound = "")]
struct Wire<F: Facts> {
    #[serde(default)]
    metadata: WireMeta,
    #[serde(default)]
    spec: F::Spec,
    #[serde(default)]
    status: F::Status,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Spec {
    model: Option<String>,
    group: Option<Group>,
    traffic: Option<Traffic>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Group {
    members: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    group: Option<Value>,
}

#[derive(Deserialize)]
struct Traffic {
    attach: Option<Attach>,
    gateway: Option<GatewayName>,
}

#[derive(Deserialize)]
struct GatewayName {
    namespace: Option<String>,
    name: String,
}

#[derive(Deserialize)]
struct Attach {
    route: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PlaneSpec {
    gateway_class_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PlaneStatus {
    conditions: Vec<PlaneCondition>,
    supported_features: Vec<Feature>,
}

#[derive(Deserialize)]
struct PlaneCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

/// An object with a name since Gateway API 1.3, a plain name before.
#[derive(Deserialize)]
#[serde(untagged)]
enum Feature {
    Named { name: String },
    Plain(String),
}

impl Facts for Rollout {
    type Spec = Spec;
    type Status = Status;

    fn of(spec: Spec, status: Status) -> Self {
        let (attach, gateway) =
            spec.traffic.map_or((None, None), |traffic| (traffic.attach, traffic.gateway));
        Self {
            model: spec.model,
            members: spec.group.unwrap_or_default().members,
            standing: status.group,
            attached_to: attach.map(|attach| attach.route),
            gateway: gateway.map(|gateway| (gateway.namespace, gateway.name)),
        }
    }
}

impl Facts for Plane {
    type Spec = PlaneSpec;
    type Status = PlaneStatus;

    fn of(spec: PlaneSpec, status: PlaneStatus) -> Self {
        let mut conditions = status.conditions.iter();
        let name = |feature| match feature {
            Feature::Named { name } | Feature::Plain(name) => name,
        };
        Self {
            class: spec.gateway_class_name,
            programmed: conditions.any(|said| said.type_ == "Programmed" && said.status == "True"),
            features: status.supported_features.into_iter().map(name).collect(),
        }
    }
}

impl<'de, F: Facts> Deserialize<'de> for Watched<F> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Wire::deserialize(from).map(Self::from)
    }
}

impl<F: Facts> From<Wire<F>> for Watched<F> {
    fn from(wire: Wire<F>) -> Self {
        let WireMeta { name, namespace, uid, resource_version, labels, owner_references } = wire.metadata;
        let metadata = ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            labels,
            owner_references,
            ..ObjectMeta::default()
        };
        Self { metadata, facts: F::of(wire.spec, wire.status) }
    }
}

impl<F> Resource for Watched<F> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }
    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }
    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }
    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }
    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Watched {
    /// A reference to this object, which is of `kind`.
    pub(crate) fn reference(&self, kind: Kind) -> ObjectRef<Self> {
        ObjectRef::from_obj_with(self, api_resource(kind))
    }
}

impl<F> Watched<F> {
    /// The object of `kind` that this one is for: its controller, or else the one that `label` names.
    pub(crate) fn parent(&self, kind: Kind, label: &str) -> Option<ObjectRef<Watched>> {
        let owners = self.metadata.owner_references.iter().flatten();
        let owner = owners
            .filter(|owner| owner.controller == Some(true) && owner.api_version == kind.api_version())
            .find(|owner| owner.kind == kind.resource().2);
        let labelled = || self.metadata.labels.as_ref()?.get(label).cloned();
        let name = owner.map(|owner| owner.name.clone()).or_else(labelled)?;
        Some(ObjectRef::new_with(&name, api_resource(kind)).within(self.metadata.namespace.as_deref()?))
    }
}

/// Where members of groups stood when they were last heard of. Forgetting it wakes someone once too often.
#[derive(Debug, Default)]
pub(crate) struct Standings(Mutex<HashMap<String, Standing>>);

/// The other members of a rollout's group, and where it stands.
type Standing = (Vec<String>, Option<Value>);

impl Standings {
    /// The other members of the group of a ModelRollout, if it stands elsewhere than before: they may go on, or must go back.
    pub(crate) fn whom(&self, rollout: &Watched) -> Vec<ObjectRef<Watched>> {
        let (Some(namespace), Some(own)) = (&rollout.metadata.namespace, &rollout.metadata.name) else {
            return vec![];
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{namespace}/{own}");
        if rollout.facts.members.is_empty() {
            all.remove(&key);
            return vec![];
        }
        let standing = (rollout.facts.members.clone(), rollout.facts.standing.clone());
        if all.insert(key, standing.clone()) == Some(standing) {
            return vec![];
        }
        let others = rollout.facts.members.iter().filter(|name| *name != own);
        let kind = api_resource(Kind::ModelRollout);
        others.map(|name| ObjectRef::new_with(name, kind.clone()).within(namespace)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn watched(metadata: serde_json::Value) -> Watched {
        serde_json::from_value(json!({"metadata": metadata, "spec": {"model": "ads", "x": 1}, "status": {}}))
            .unwrap()
    }

    fn parent(object: &Watched) -> Option<String> {
        object.parent(Kind::ModelRollout, "rollout").map(|parent| parent.name)
    }

    #[test]
    fn a_child_is_for_its_controller_and_else_for_whom_its_label_names() {
        let owner = |kind: &str, controller: bool| json!([{"apiVersion": "anneal.dev/v1alpha1", "kind": kind, "name": "owner", "uid": "u", "controller": controller}]);
        let of = |owners: serde_json::Value| {
            watched(
                json!({"name": "c", "namespace": "n", "labels": {"rollout": "label"}, "ownerReferences": owners}),
            )
        };
        assert_eq!(parent(&of(owner("ModelRollout", true))).as_deref(), Some("owner"));
        assert_eq!(parent(&of(owner("ModelRollout", false))).as_deref(), Some("label"));
        assert_eq!(parent(&of(owner("ReplicaSet", true))).as_deref(), Some("label"));
        assert_eq!(parent(&watched(json!({"name": "c", "namespace": "n"}))), None);
    }

    #[test]
    fn members_of_a_group_are_woken_when_one_of_them_stands_elsewhere() {
        let standings = Standings::default();
        let whom = |next: &str| {
            let member: Watched = serde_json::from_value(json!({"metadata": {"name": "ads", "namespace": "n"},
                "spec": {"group": {"members": ["ads", "bids", "clicks"]}}, "status": {"group": {"next": next}, "judge": next}}))
            .unwrap();
            standings.whom(&member).into_iter().map(|other| other.name).collect::<Vec<_>>()
        };
        assert_eq!(whom("Canary"), ["bids", "clicks"]);
        assert!(whom("Canary").is_empty());
        assert_eq!(whom("Baking"), ["bids", "clicks"]);
        assert!(standings.whom(&watched(json!({"name": "ads", "namespace": "n"}))).is_empty());
        assert_eq!(whom("Baking").len(), 2, "it has left the group and come back");
    }

    #[test]
    fn a_rollout_on_a_users_route_knows_its_name() {
        let rollout = |traffic: serde_json::Value| {
            let object = json!({"metadata": {"name": "c"}, "spec": {"model": "ads", "traffic": traffic}});
            serde_json::from_value::<Watched>(object).unwrap().facts.attached_to
        };
        assert_eq!(rollout(json!({"attach": {"route": "shop", "rule": "ads"}})).as_deref(), Some("shop"));
        assert_eq!(rollout(json!({"gateway": {"name": "web"}})), None);
    }

    #[test]
    fn of_a_gateway_only_what_rollouts_look_at_is_kept() {
        let plane = |status: serde_json::Value| {
            let object =
                json!({"metadata": {"name": "web"}, "spec": {"gatewayClassName": "c"}, "status": status});
            serde_json::from_value::<Watched<Plane>>(object).unwrap().facts
        };
        let told = |routes: u32, status: &str| json!({"conditions": [{"type": "Programmed", "status": status}], "listeners": [{"attachedRoutes": routes}]});
        assert_eq!(plane(told(1, "True")), plane(told(2, "True")));
        assert_ne!(plane(told(1, "True")), plane(told(1, "False")));
        let features = |list: serde_json::Value| plane(json!({"supportedFeatures": list}));
        assert_eq!(
            features(json!(["HTTPRouteRequestMirror"])),
            features(json!([{"name": "HTTPRouteRequestMirror"}]))
        );
        assert_ne!(features(json!([])), features(json!(["HTTPRouteRequestMirror"])));
    }

    #[test]
    fn who_wrote_what_is_not_kept() {
        let object =
            watched(json!({"name": "c", "resourceVersion": "7", "managedFields": [{"manager": "m"}]}));
        assert_eq!(
            (object.meta().managed_fields.as_ref(), object.facts.model.as_deref()),
            (None, Some("ads"))
        );
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
    }
}
