//! Release: an operator of another release may make other pods of the same spec, and pods that serve are not replaced for that.
//!
//! Called by `converge` for every Deployment. One that another release made keeps its pods until somebody asks for others: in the
//! rollout's spec, or by taking the mark away. What the next version gets is of this release.

use anneal_crds::{ModelVersion, names};
use serde_json::{Value, json};

use super::{agreement, build::Home};
use crate::object::{Object, short_digest};

/// The release of this operator.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// What pods are made of. A field that a later release adds must be left out while it has its default, or the pods of every
/// rollout are replaced when that release arrives.
fn asked_for(home: Home<'_>, version: &ModelVersion) -> String {
    let mut serving = json!(home.rollout.spec.serving);
    if let Some(fields) = serving.as_object_mut() {
        // How many there are changes none of them.
        for field in ["replicas", "autoscaling", "progressDeadline", "warmup"] {
            fields.remove(field);
        }
    }
    let spec = &version.spec;
    let compared = agreement::settings(&home.rollout.spec);
    let compared = compared.map(|of| json!([of.tolerance, of.requests_per_second, of.label_delay]));
    short_digest(&json!([serving, spec.artifact, spec.storage, spec.serving, compared]).to_string())
}

/// A Deployment, with what tells another release where it comes from.
pub(super) fn signed(home: Home<'_>, version: &ModelVersion, mut deployment: Object) -> Object {
    let annotations = &mut deployment.body["metadata"]["annotations"];
    annotations[names::ANNOTATION_ASKED_FOR] = asked_for(home, version).into();
    annotations[names::ANNOTATION_RELEASE] = OWN.into();
    deployment
}

/// `wanted`, with the pods of the Deployment that was seen if another release made those of the same spec.
pub(super) fn with_pods_of(seen: Option<&Value>, mut wanted: Object) -> Object {
    let Some(seen) = seen else { return wanted };
    let is_same = |name: &str| {
        let of = |object: &Value| object["metadata"]["annotations"][name].clone();
        !of(seen).is_null() && of(seen) == of(&wanted.body)
    };
    let has_release = !seen["metadata"]["annotations"][names::ANNOTATION_RELEASE].is_null();
    if has_release && !is_same(names::ANNOTATION_RELEASE) && is_same(names::ANNOTATION_ASKED_FOR) {
        wanted.body["spec"]["template"] = seen["spec"]["template"].clone();
        let annotations = &mut wanted.body["metadata"]["annotations"];
        annotations[names::ANNOTATION_RELEASE] =
            seen["metadata"]["annotations"][names::ANNOTATION_RELEASE].clone();
        // What is around the pods is of this release, with the digest of it.
        annotations.as_object_mut().and_then(|all| all.remove(names::ANNOTATION_APPLIED));
        return wanted.stamped();
    }
    wanted
}
