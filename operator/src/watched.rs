//! What is kept of an object that is watched: enough to know whom it concerns, and little, because there may be ten thousand.
//!
//! Used by `run` alone. Nothing here is decided by: a watch wakes, and tells which looks are old.

use std::{borrow::Cow, collections::BTreeMap};

use anneal_core::object::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
    runtime::reflector::ObjectRef,
};
use serde::Deserialize;

use crate::kube_cluster::api_resource;

/// A watched object of any kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub(crate) struct Watched {
    metadata: ObjectMeta,
    /// `spec.model`, where there is one.
    pub(crate) model: Option<String>,
    /// `spec.traffic.attach.route`, where there is one.
    pub(crate) attached_to: Option<String>,
}

/// An object as it comes. What is not named here is not even allocated, `managedFields` above all.
#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    metadata: WireMeta,
    #[serde(default)]
    spec: Spec,
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
struct Spec {
    model: Option<String>,
    traffic: Option<Traffic>,
}

#[derive(Deserialize)]
struct Traffic {
    attach: Option<Attach>,
}

#[derive(Deserialize)]
struct Attach {
    route: String,
}

impl From<Wire> for Watched {
    fn from(wire: Wire) -> Self {
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
        let attached_to = wire.spec.traffic.and_then(|traffic| traffic.attach).map(|attach| attach.route);
        Self { metadata, model: wire.spec.model, attached_to }
    }
}

impl Resource for Watched {
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

    /// The object of `kind` that this one is for: its controller, or else the one that `label` names.
    pub(crate) fn parent(&self, kind: Kind, label: &str) -> Option<ObjectRef<Self>> {
        let owners = self.metadata.owner_references.iter().flatten();
        let owner = owners
            .filter(|owner| owner.controller == Some(true) && owner.api_version == kind.api_version())
            .find(|owner| owner.kind == kind.resource().2);
        let labelled = || self.metadata.labels.as_ref()?.get(label).cloned();
        let name = owner.map(|owner| owner.name.clone()).or_else(labelled)?;
        Some(ObjectRef::new_with(&name, api_resource(kind)).within(self.metadata.namespace.as_deref()?))
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
    fn a_rollout_on_a_users_route_knows_its_name() {
        let rollout = |traffic: serde_json::Value| {
            let object = json!({"metadata": {"name": "c"}, "spec": {"model": "ads", "traffic": traffic}});
            serde_json::from_value::<Watched>(object).unwrap().attached_to
        };
        assert_eq!(rollout(json!({"attach": {"route": "shop", "rule": "ads"}})).as_deref(), Some("shop"));
        assert_eq!(rollout(json!({"gateway": {"name": "web"}})), None);
    }

    #[test]
    fn who_wrote_what_is_not_kept() {
        let object =
            watched(json!({"name": "c", "resourceVersion": "7", "managedFields": [{"manager": "m"}]}));
        assert_eq!((object.meta().managed_fields.as_ref(), object.model.as_deref()), (None, Some("ads")));
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
    }
}
