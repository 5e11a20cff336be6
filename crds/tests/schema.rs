//! What `kubectl explain` shows: every field says what it is, and an optional one what it is by default.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_crds::{ModelRollout, ModelVersion, RetrainJob};
use kube::CustomResourceExt as _;
use serde_json::Value;

/// Calls `found` with the path and the schema of every property below `schema`.
fn walk(schema: &Value, path: &str, found: &mut dyn FnMut(&str, &Value)) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        found(&path, property);
        walk(property, &path, found);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), found);
    }
}

fn schemas() -> [(&'static str, Value); 3] {
    [("rtj", RetrainJob::crd()), ("mv", ModelVersion::crd()), ("mro", ModelRollout::crd())].map(
        |(name, crd)| {
            let crd = serde_json::to_value(crd).unwrap();
            (name, crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
        },
    )
}

#[test]
fn every_field_says_what_it_is() {
    let (mut silent, mut seen) = (vec![], 0);
    for (name, schema) in schemas() {
        walk(&schema, name, &mut |path, property| {
            seen += 1;
            if property["description"].as_str().is_none_or(|text| text.trim().len() < 5) {
                silent.push(path.to_owned());
            }
        });
    }
    assert!(seen > 150 && silent.is_empty(), "{seen} fields, without description: {silent:?}");
}

#[test]
fn a_default_is_told_and_applied() {
    let mut untold = vec![];
    for (name, schema) in schemas() {
        walk(&schema["properties"]["spec"], name, &mut |path, property| {
            let plain = !property["default"].is_null() && !property["default"].is_object();
            let told = property["description"].as_str().is_some_and(|text| text.contains("Default"));
            if plain && !told {
                untold.push(path.to_owned());
            }
        });
    }
    assert!(untold.is_empty(), "with a default that the description does not tell: {untold:?}");
}

/// Secrets, claims, models and jobs are those of the object's own namespace, because nothing could name another one. A Gateway
/// says itself which namespaces may use it.
#[test]
fn no_object_names_what_another_namespace_keeps() {
    let mut named = vec![];
    for (name, schema) in schemas() {
        walk(&schema["properties"]["spec"], name, &mut |path, _| {
            if path.to_lowercase().ends_with("namespace") {
                named.push(path.to_owned());
            }
        });
    }
    assert_eq!(named, ["mro.traffic.gateway.namespace"]);
}

#[test]
fn a_rollout_is_listed_with_what_people_look_for() {
    let crd = serde_json::to_value(ModelRollout::crd()).unwrap();
    let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().iter();
    let names: Vec<&str> = columns.map(|column| column["name"].as_str().unwrap()).collect();
    let wanted = ["Phase", "Step", "Weight", "Observed", "Verdict", "Stable", "Candidate", "Age"];
    assert_eq!(names, wanted);
}
