//! Unknown keys and values out of range, found with the schema that the API server uses.
//!
//! A misspelt key would otherwise be a default that nobody asked for.

use anneal_crds::RetrainJob;
use kube::CustomResourceExt;
use serde_json::{Map, Value};

use super::JobError;

/// Checks the manifest's own keys and everything below `spec`.
pub(super) fn check(manifest: &Value) -> Result<(), JobError> {
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    for key in manifest.as_object().into_iter().flat_map(Map::keys) {
        if !known.contains(&key.as_str()) {
            return Err(unknown("", key, known.into_iter()));
        }
    }
    let crd = serde_json::to_value(RetrainJob::crd()).map_err(JobError::Shape)?;
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
    match (manifest.get("spec"), spec) {
        (Some(value), Some(schema)) => check_value("spec", value, schema),
        _ => Ok(()),
    }
}

fn check_value(path: &str, value: &Value, schema: &Value) -> Result<(), JobError> {
    if schema.get("x-kubernetes-preserve-unknown-fields").is_some() {
        return Ok(());
    }
    match value {
        Value::Object(object) => check_object(path, object, schema),
        Value::Array(items) => {
            check_size(path, items.len(), "minItems", "maxItems", "entries", schema)?;
            let item_schema = schema.get("items").unwrap_or(&Value::Null);
            let mut items = items.iter().enumerate();
            items.try_for_each(|(index, item)| check_value(&format!("{path}[{index}]"), item, item_schema))
        }
        Value::Number(number) => check_range(path, number.as_f64().unwrap_or(f64::NAN), schema),
        Value::String(text) => {
            check_size(path, text.chars().count(), "minLength", "maxLength", "characters", schema)
        }
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn check_object(path: &str, object: &Map<String, Value>, schema: &Value) -> Result<(), JobError> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema.get("additionalProperties");
    for (key, value) in object {
        let child = format!("{path}.{key}");
        match (properties.and_then(|properties| properties.get(key)), additional) {
            (Some(schema), _) | (None, Some(schema)) => check_value(&child, value, schema)?,
            (None, None) => {
                return Err(unknown(
                    path,
                    key,
                    properties.into_iter().flat_map(Map::keys).map(String::as_str),
                ));
            }
        }
    }
    Ok(())
}

fn check_range(path: &str, number: f64, schema: &Value) -> Result<(), JobError> {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let problem = match (bound("minimum"), bound("maximum")) {
        (Some(min), _) if number < min => format!("is {number}: give at least {min}"),
        (_, Some(max)) if number > max => format!("is {number}: give at most {max}"),
        _ if !number.is_finite() => format!("is {number}: give a finite number"),
        _ => return Ok(()),
    };
    Err(JobError::Value { path: path.to_owned(), problem })
}

fn check_size(
    path: &str,
    size: usize,
    min: &str,
    max: &str,
    unit: &str,
    schema: &Value,
) -> Result<(), JobError> {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let problem = match (bound(min), bound(max)) {
        (Some(min), _) if size < min => format!("has {size} {unit}: give at least {min}"),
        (_, Some(max)) if size > max => format!("has {size} {unit}: give at most {max}"),
        _ => return Ok(()),
    };
    Err(JobError::Value { path: path.to_owned(), problem })
}

fn unknown<'a>(path: &str, key: &str, known: impl Iterator<Item = &'a str>) -> JobError {
    let near = known.map(|name| (strsim::damerau_levenshtein(name, key), name)).min();
    let hint = match near {
        Some((distance, name)) if distance <= name.len().div_ceil(2) => format!(", did you mean `{name}`"),
        Some(_) | None => String::new(),
    };
    let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    JobError::UnknownKey { path, hint }
}
