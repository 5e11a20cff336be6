//! Objects of the cluster as plain data, and the one comparison that decides whether one must be written.

use anneal_crds::names;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::quantity;

/// The kinds that Anneal reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `v1`.
    ConfigMap,
    /// `v1`. Only ever read, and only for the credentials of a metrics server.
    Secret,
    /// `v1`.
    Pod,
    /// `v1`.
    Service,
    /// `discovery.k8s.io/v1`. Only ever read.
    EndpointSlice,
    /// `batch/v1`.
    Job,
    /// `apps/v1`.
    Deployment,
    /// `autoscaling/v2`.
    HorizontalPodAutoscaler,
    /// `keda.sh/v1alpha1`. Not every cluster has it.
    ScaledObject,
    /// `gateway.networking.k8s.io/v1`.
    Gateway,
    /// `gateway.networking.k8s.io/v1`. The one kind without a namespace; only ever read.
    GatewayClass,
    /// `gateway.networking.k8s.io/v1`.
    HttpRoute,
    /// `anneal.dev/v1alpha1`.
    RetrainJob,
    /// `anneal.dev/v1alpha1`.
    ModelVersion,
    /// `anneal.dev/v1alpha1`.
    ModelRollout,
}

impl Kind {
    /// API group (empty for the core group), version, kind and plural.
    pub const fn resource(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Secret => ("", "v1", "Secret", "secrets"),
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
            Self::Job => ("batch", "v1", "Job", "jobs"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::HorizontalPodAutoscaler => {
                ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            }
            Self::ScaledObject => ("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
            Self::Gateway => ("gateway.networking.k8s.io", "v1", "Gateway", "gateways"),
            Self::GatewayClass => ("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::RetrainJob => (names::GROUP, "v1alpha1", "RetrainJob", "retrainjobs"),
            Self::ModelVersion => (names::GROUP, "v1alpha1", "ModelVersion", "modelversions"),
            Self::ModelRollout => (names::GROUP, "v1alpha1", "ModelRollout", "modelrollouts"),
        }
    }

    /// Whether its objects have no namespace.
    pub const fn is_cluster_wide(self) -> bool {
        matches!(self, Self::GatewayClass)
    }

    /// `apiVersion` as objects write it.
    pub fn api_version(self) -> String {
        match self.resource() {
            ("", version, ..) => version.to_owned(),
            (group, version, ..) => format!("{group}/{version}"),
        }
    }
}

/// Where an object lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// An object as it is to be, with nothing that others decide.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Where it lies.
    pub key: Key,
    /// The whole object, with `apiVersion`, `kind` and `metadata`.
    pub body: Value,
}

impl Object {
    /// An object from its body without `apiVersion`, `kind`, `metadata.name` and `metadata.namespace`, which follow
    /// from the key.
    pub fn new(key: Key, mut body: Value) -> Self {
        body["apiVersion"] = key.kind.api_version().into();
        body["kind"] = key.kind.resource().2.into();
        body["metadata"]["name"] = key.name.clone().into();
        body["metadata"]["namespace"] = key.namespace.clone().into();
        Self { key, body }
    }

    /// The object with a digest of itself as an annotation. [`covers`] cannot see what `wanted` no longer says; the
    /// digest of what was applied last can.
    #[must_use]
    pub fn stamped(mut self) -> Self {
        let digest = short_digest(&self.body.to_string());
        self.body["metadata"]["annotations"][names::ANNOTATION_APPLIED] = digest.into();
        self
    }
}

/// What tells one text from another, in sixteen digits: the same in every release, and nobody gains by a collision.
pub(crate) fn short_digest(text: &str) -> String {
    format!("{:016x}", fnv1a(text.as_bytes()))
}

/// The 64-bit FNV-1a hash (draft-eastlake-fnv).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Who owns an object: the one entry of `metadata.ownerReferences` that the garbage collector follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Kind of the owner.
    pub kind: Kind,
    /// Name of the owner.
    pub name: &'a str,
    /// Uid of the owner.
    pub uid: &'a str,
}

impl Owner<'_> {
    /// As `metadata.ownerReferences` writes it.
    pub fn reference(&self) -> Value {
        serde_json::json!([{
            "apiVersion": self.kind.api_version(),
            "kind": self.kind.resource().2,
            "name": self.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }])
    }

    /// The controller that `object` names, if it names one.
    pub fn of(object: &Value) -> Option<&Value> {
        object["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)
    }

    /// Whether `object` says that this is its controller.
    pub fn owns(&self, object: &Value) -> bool {
        Self::of(object).is_some_and(|owner| owner["uid"] == self.uid)
    }
}

/// Whether everything that `wanted` says is also so in `seen`. What `seen` has besides, such as defaults of the API
/// server, does not count; lists must have the same length, and quantities the same amount.
pub fn covers(seen: &Value, wanted: &Value) -> bool {
    match (seen, wanted) {
        (Value::Object(seen), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            let seen = seen.get(key).unwrap_or(&Value::Null);
            covers(seen, value)
                || (AMOUNTS.contains(&key.as_str()) && same_amounts(seen, value))
                || (key == TARGET && same_target(seen, value))
        }),
        (Value::Array(seen), Value::Array(wanted)) => {
            seen.len() == wanted.len() && seen.iter().zip(wanted).all(|(seen, wanted)| covers(seen, wanted))
        }
        (seen, Value::Object(wanted)) if wanted.is_empty() => seen.is_null(),
        (seen, Value::Array(wanted)) if wanted.is_empty() => seen.is_null(),
        (seen, wanted) => seen == wanted,
    }
}

/// Fields of a container's `resources` that hold quantities by name.
const AMOUNTS: [&str; 2] = ["limits", "requests"];

fn same_amounts(seen: &Value, wanted: &Value) -> bool {
    let (Some(seen), Some(wanted)) = (seen.as_object(), wanted.as_object()) else { return false };
    wanted.iter().all(|(name, amount)| seen.get(name).is_some_and(|seen| quantity::same(seen, amount)))
}

/// Field of an autoscaler's metric that says how much of it there is to be.
const TARGET: &str = "target";
/// Fields of a target that hold quantities.
const TARGET_AMOUNTS: [&str; 2] = ["averageValue", "value"];

fn same_target(seen: &Value, wanted: &Value) -> bool {
    let (Some(seen), Some(wanted)) = (seen.as_object(), wanted.as_object()) else { return false };
    wanted.iter().all(|(name, wanted)| {
        seen.get(name).is_some_and(|seen| {
            covers(seen, wanted) || (TARGET_AMOUNTS.contains(&name.as_str()) && quantity::same(seen, wanted))
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_server_do_not_ask_for_a_write() {
        let wanted = json!({"spec": {"ports": [{"port": 80}], "selector": {}}});
        assert!(covers(
            &json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "type": "ClusterIP"}}),
            &wanted
        ));
    }

    #[test]
    fn what_is_no_longer_wanted_does_too() {
        let object = |resources: Value| {
            let key = Key::new(Kind::Deployment, "n", "d");
            Object::new(key, json!({"spec": {"replicas": 2, "resources": resources}})).stamped()
        };
        let seen = object(json!({"limits": {"cpu": "1"}})).body;
        assert!(covers(&seen, &object(json!({"limits": {"cpu": "1"}})).body));
        assert!(!covers(&seen, &object(json!({})).body));
    }

    #[test]
    fn the_digest_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_servers_way_to_write_an_amount_does_not() {
        let container =
            |cpu: &str| json!({"containers": [{"resources": {"limits": {"cpu": cpu}}, "args": [cpu]}]});
        let mut seen = container("0.5");
        seen["containers"][0]["resources"]["limits"]["cpu"] = "500m".into();
        assert!(covers(&seen, &container("0.5")));
        assert!(!covers(&seen, &container("0.6")));
        assert!(!covers(&container("500m"), &container("0.5")), "an argument is no amount");
    }

    #[test]
    fn nor_does_its_way_to_write_the_target_of_a_metric() {
        let metric = |type_: &str, value: &str| json!({"metrics": [{"type": "Pods", "pods": {"target": {"type": type_, "averageValue": value}}}]});
        let wanted = metric("AverageValue", "0.5");
        assert!(covers(&metric("AverageValue", "500m"), &wanted));
        assert!(!covers(&metric("AverageValue", "600m"), &wanted));
        assert!(!covers(&metric("Value", "500m"), &wanted));
    }

    #[test]
    fn a_changed_added_or_removed_value_does() {
        let wanted = json!({"rules": [{"weight": 10}]});
        for seen in [
            json!({"rules": [{"weight": 20}]}),
            json!({"rules": []}),
            json!({}),
            json!({"rules": [{"weight": 10}, {}]}),
        ] {
            assert!(!covers(&seen, &wanted), "{seen}");
        }
    }
}
