//! The Open Inference Protocol's JSON, to rows and back.
//!
//! A request has one tensor for each column of the artifact's schema, named like the column, of shape `[n]` or `[n, 1]`:
//! `FP32`, `FP64` or a whole-number type for numbers, `BYTES` (JSON strings) or `BOOL` for categories. An unknown text,
//! or null, counts as unknown, as in training.

use anneal_crds::common::shorten;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::datum::{Data, Datum};
use crate::{
    data::{Categories, Column, Rows, Values},
    evaluate::{log_probabilities, most_probable},
    schema::{Feature, FeatureKind, Schema, TargetKind},
};

/// Most rows of one request.
pub(super) const MAX_ROWS: usize = 10_000;

/// What is wrong with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadRequest {
    /// Which part of the body.
    pub(super) field: String,
    /// What is wrong and what to send.
    pub(super) reason: String,
}

/// The body of a request; keys that ask for nothing we do not do anyway are ignored, as the protocol asks.
#[derive(Debug, Deserialize)]
pub(super) struct InferRequest {
    #[serde(default)]
    id: Option<String>,
    inputs: Vec<Tensor>,
}

#[derive(Debug, Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Data,
}

/// The body of an answer.
#[derive(Debug, Serialize)]
pub(super) struct InferResponse<'a> {
    pub(super) model_name: &'a str,
    pub(super) model_version: &'a str,
    /// The request's id, or the prediction's.
    pub(super) id: String,
    pub(super) parameters: Value,
    pub(super) outputs: Vec<Value>,
}

/// Parses a body.
pub(super) fn parse(body: &[u8]) -> Result<InferRequest, BadRequest> {
    serde_json::from_slice(body).map_err(|error| {
        bad("body", format!("{error}: send JSON with inputs, each with name, shape, datatype and data"))
    })
}

/// A request's id and its rows, checked against the schema.
pub(super) fn rows(request: InferRequest, schema: &Schema) -> Result<(Option<String>, Rows), BadRequest> {
    for (index, tensor) in request.inputs.iter().enumerate() {
        let field = format!("inputs.{}", tensor.name);
        if !schema.features.iter().any(|feature| feature.name == tensor.name) {
            return Err(bad(&field, "the model has no such column: see GET /v2/models/<model>".to_owned()));
        }
        if request.inputs[..index].iter().any(|other| other.name == tensor.name) {
            return Err(bad(&field, "is there twice: send it once".to_owned()));
        }
    }
    let mut rows = Rows::default();
    for feature in &schema.features {
        let field = format!("inputs.{}", feature.name);
        let tensor = request.inputs.iter().find(|tensor| tensor.name == feature.name);
        let tensor =
            tensor.ok_or_else(|| bad(&field, "is missing: the model needs this column".to_owned()))?;
        let count = count(tensor, &field)?;
        if rows.features.is_empty() {
            rows.count = count;
        }
        if count != rows.count {
            return Err(bad(
                &field,
                format!("has {count} rows and others have {}: send the same number", rows.count),
            ));
        }
        rows.features.push(Column { name: feature.name.clone(), values: values(tensor, feature, &field)? });
    }
    Ok((request.id, rows))
}

fn count(tensor: &Tensor, field: &str) -> Result<usize, BadRequest> {
    let (&[count] | &[count, 1]) = tensor.shape.as_slice() else {
        return Err(bad(field, format!("has shape {:?}: send [n] or [n, 1]", tensor.shape)));
    };
    if count == 0 || count > MAX_ROWS {
        return Err(bad(field, format!("has {count} rows: send 1 to {MAX_ROWS}")));
    }
    // Nested data are allowed: [[1], [2]] has as many entries as [1, 2].
    if tensor.data.count != count {
        return Err(bad(
            field,
            format!("has {} data for shape {:?}: send one for each row", tensor.data.count, tensor.shape),
        ));
    }
    Ok(count)
}

fn values(tensor: &Tensor, feature: &Feature, field: &str) -> Result<Values, BadRequest> {
    let data = tensor.data.values.iter();
    match (&feature.kind, tensor.datatype.as_str()) {
        (
            FeatureKind::Number { .. },
            "FP16" | "FP32" | "FP64" | "INT8" | "INT16" | "INT32" | "INT64" | "UINT8" | "UINT16" | "UINT32"
            | "UINT64",
        ) => {
            let number = |value: &Datum| match value {
                Datum::Number(number) if number.is_finite() => Ok(*number),
                Datum::Number(_)
                | Datum::Null
                | Datum::Bool(_)
                | Datum::Text(_)
                | Datum::List
                | Datum::Object => Err(bad(field, format!("{value} is no finite number: send numbers"))),
            };
            Ok(Values::Number(data.map(number).collect::<Result<_, _>>()?))
        }
        (FeatureKind::Category { .. }, "BYTES" | "BOOL") => {
            let text = |value| match value {
                &Datum::Null => Ok(None),
                Datum::Text(text) => Ok(Some(text.as_str())),
                &Datum::Bool(true) => Ok(Some("true")),
                &Datum::Bool(false) => Ok(Some("false")),
                Datum::Number(_) | Datum::List | Datum::Object => {
                    Err(bad(field, format!("{value} is no text: send JSON strings")))
                }
            };
            Ok(Values::Category(data.map(text).collect::<Result<Categories, _>>()?))
        }
        (FeatureKind::Number { .. }, other) => {
            Err(bad(field, format!("has datatype {other}: send FP64, FP32 or INT64 for a number")))
        }
        (FeatureKind::Category { .. }, other) => {
            Err(bad(field, format!("has datatype {other}: send BYTES, or BOOL, for a category")))
        }
    }
}

/// What a request says of itself may be as long as the request.
fn bad(field: &str, reason: String) -> BadRequest {
    BadRequest { field: shorten(field, 200).into_owned(), reason: shorten(&reason, 400).into_owned() }
}

/// The output tensors: `class` and its `probability` for each row, or `value` in the target's unit.
pub(super) fn outputs(schema: &Schema, outputs: &[f32]) -> Vec<Value> {
    let tensor = |name: &str, datatype: &str, data: Vec<Value>| json!({"name": name, "datatype": datatype, "shape": [data.len()], "data": data});
    match &schema.target.kind {
        TargetKind::Classes { classes } => {
            let rows = outputs.chunks_exact(classes.len());
            let answers = rows.map(|logits| (most_probable(logits), log_probabilities(logits)));
            let (labels, probabilities) =
                answers.map(|(best, logs)| (json!(classes[best]), json!(logs[best].exp()))).unzip();
            vec![tensor("class", "BYTES", labels), tensor("probability", "FP64", probabilities)]
        }
        TargetKind::Number { mean, sd } => {
            let values = outputs.iter().map(|&output| json!(f64::from(output) * sd + mean)).collect();
            vec![tensor("value", "FP64", values)]
        }
    }
}

/// The score of each row, whose distribution says whether the model answers as it did: of two classes the probability of the
/// second, of more that of the most probable one, and of a number its distance from the training rows' mean in their standard
/// deviations.
pub(super) fn scores(schema: &Schema, outputs: &[f32]) -> Vec<f64> {
    match &schema.target.kind {
        TargetKind::Classes { classes } => {
            let of = |logits: &[f32]| {
                let class = if classes.len() == 2 { 1 } else { most_probable(logits) };
                log_probabilities(logits)[class].exp()
            };
            outputs.chunks_exact(classes.len()).map(of).collect()
        }
        TargetKind::Number { .. } => outputs.iter().map(|&output| f64::from(output)).collect(),
    }
}

/// An answer with other outputs than these: another class, and another value. For `--fault wrong=…`.
pub(super) fn spoilt(json: &[u8]) -> Vec<u8> {
    let Ok(mut answer) = serde_json::from_slice::<Value>(json) else { return json.to_vec() };
    let outputs = answer["outputs"].as_array_mut().into_iter().flatten();
    for entry in outputs.filter_map(|output| output["data"].as_array_mut()).flatten() {
        *entry = match &*entry {
            Value::String(text) => format!("not {text}").into(),
            Value::Number(number) => number.as_f64().map(|number| number + 1.0).into(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => continue,
        };
    }
    serde_json::to_vec(&answer).unwrap_or_else(|_| json.to_vec())
}

/// What `GET /v2/models/<model>` says of inputs and outputs.
pub(super) fn metadata(schema: &Schema, model: &str, version: &str) -> Value {
    let tensor = |name: &str, datatype: &str| json!({"name": name, "datatype": datatype, "shape": [-1]});
    let input = |feature: &Feature| match feature.kind {
        FeatureKind::Number { .. } => tensor(&feature.name, "FP64"),
        FeatureKind::Category { .. } => tensor(&feature.name, "BYTES"),
    };
    let inputs: Vec<_> = schema.features.iter().map(input).collect();
    let outputs = match schema.target.kind {
        TargetKind::Classes { .. } => vec![tensor("class", "BYTES"), tensor("probability", "FP64")],
        TargetKind::Number { .. } => vec![tensor("value", "FP64")],
    };
    json!({"name": model, "versions": [version], "platform": "anneal_mlp", "inputs": inputs, "outputs": outputs})
}
