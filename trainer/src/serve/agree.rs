//! Whether answers to one request are the same, and which of them was right.
//!
//! Called by `compare` with the JSON of answers by the Open Inference Protocol, of any server.

use anneal_crds::contract::{Differs, WasRight};
use serde::Deserialize;
use serde_json::Value;

/// The truth about one row.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Label {
    /// A class.
    Text(String),
    /// A class, or a number.
    Number(f64),
    /// A class.
    Bool(bool),
}

/// What an answer says of one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Prediction {
    /// A class.
    Text(String),
    /// A number.
    Number(f64),
}

/// How many rows an answer has.
pub(super) fn rows(answer: &Value) -> Option<u64> {
    outputs(answer).first()?["shape"][0].as_u64().filter(|rows| *rows > 0)
}

/// What an answer says of the row drawn by `lot`: its first text, or its first number where it has none.
pub(super) fn prediction(answer: &Value, lot: u64) -> Option<Prediction> {
    let rows = || outputs(answer).iter().filter_map(|output| row(output, lot));
    let text = rows().find_map(|row| row.first()?.as_str());
    let number = || rows().find_map(|row| row.first()?.as_f64()).map(Prediction::Number);
    text.map(|text| Prediction::Text(text.to_owned())).or_else(number)
}

/// Who was right by a label; none where the label is nothing that the two could have said.
pub(super) fn was_right(candidate: &Prediction, stable: &Prediction, label: &Label) -> Option<WasRight> {
    let (candidate, stable) = match (candidate, stable, label) {
        (Prediction::Number(candidate), Prediction::Number(stable), Label::Number(label)) => {
            let (candidate, stable) = ((candidate - label).abs(), (stable - label).abs());
            (candidate <= stable, stable <= candidate)
        }
        (Prediction::Text(candidate), Prediction::Text(stable), label) => {
            let label = match label {
                Label::Text(text) => text.clone(),
                Label::Bool(is) => is.to_string(),
                // As training names classes that are whole numbers.
                Label::Number(number) if number.fract() == 0.0 => format!("{number:.0}"),
                Label::Number(number) => number.to_string(),
            };
            (*candidate == label, *stable == label)
        }
        (Prediction::Number(_), Prediction::Number(_), Label::Text(_) | Label::Bool(_))
        | (Prediction::Number(_), Prediction::Text(_), _)
        | (Prediction::Text(_), Prediction::Number(_), _) => return None,
    };
    Some(match (candidate, stable) {
        (true, true) => WasRight::Both,
        (true, false) => WasRight::Candidate,
        (false, true) => WasRight::Stable,
        (false, false) => WasRight::Neither,
    })
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// The answer.
    Answer(Value),
    /// The request is none that the version understands.
    Refused,
}

/// Who answered otherwise in one row, drawn by `lot`, beside two answers of the stable version; none where those cannot be compared
/// with each other. Without `tolerance` numbers are not.
pub(super) fn differs(own: &Said, stable: [&Said; 2], lot: u64, tolerance: Option<f64>) -> Option<Differs> {
    let [first, second] = stable;
    let is_same = |said: &Said| match (said, first) {
        (Said::Answer(one), Said::Answer(other)) => same(one, other, lot, tolerance),
        (Said::Refused, Said::Refused) => Some(true),
        (Said::Answer(_), Said::Refused) | (Said::Refused, Said::Answer(_)) => Some(false),
    };
    let stable_is_same = is_same(second)?;
    // What has nothing in common with an answer is another one.
    Some(match (is_same(own).unwrap_or(false), stable_is_same) {
        (true, true) => Differs::Nobody,
        (false, true) => Differs::Candidate,
        (true, false) => Differs::Stable,
        (false, false) => Differs::Both,
    })
}

/// Whether every output that both have, and that can be compared, is the same; none without any.
fn same(one: &Value, other: &Value, lot: u64, tolerance: Option<f64>) -> Option<bool> {
    let mut compared = None;
    for output in outputs(one) {
        let Some(beside) = outputs(other).iter().find(|beside| beside["name"] == output["name"]) else {
            continue;
        };
        if let Some(is_same) = same_row(row(output, lot)?, row(beside, lot)?, tolerance) {
            compared = Some(compared.unwrap_or(true) && is_same);
        }
    }
    compared
}

fn outputs(answer: &Value) -> &[Value] {
    answer["outputs"].as_array().map_or(&[], Vec::as_slice)
}

/// One row of an output: `data` is flat, and its first dimension counts rows.
fn row(output: &Value, lot: u64) -> Option<&[Value]> {
    let rows = output["shape"][0].as_u64().filter(|rows| *rows > 0)?;
    let data = output["data"].as_array()?;
    let width = data.len() / usize::try_from(rows).ok()?;
    let first = width.checked_mul(usize::try_from(lot % rows).ok()?)?;
    data.get(first..first.checked_add(width)?).filter(|row| !row.is_empty())
}

fn same_row(one: &[Value], other: &[Value], tolerance: Option<f64>) -> Option<bool> {
    if one.len() != other.len() {
        return Some(false);
    }
    let same = |(one, other): (&Value, &Value)| match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64()?, other.as_f64()?);
            Some((one - other).abs() <= tolerance?)
        }
        // A number that is not finite is null in JSON, and the same as nothing.
        (Value::Null, _) | (_, Value::Null) => Some(false),
        (one, other) => Some(one == other),
    };
    one.iter().zip(other).map(same).try_fold(true, |all, same| Some(all && same?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn classes(labels: &[&str], probability: f64) -> Value {
        json!({"outputs": [
            {"name": "class", "shape": [labels.len()], "data": labels},
            {"name": "probability", "shape": [labels.len()], "data": vec![probability; labels.len()]},
        ]})
    }

    fn values(values: &[f64]) -> Value {
        json!({"outputs": [{"name": "value", "shape": [values.len(), 1], "data": values}]})
    }

    #[test]
    fn it_says_who_differs() {
        let [a, b, c] = ["a", "b", "c"].map(|label| Said::Answer(classes(&[label], 0.9)));
        let (number, refused) = (Said::Answer(values(&[1.0])), Said::Refused);
        for (own, first, second, who) in [
            (&a, &a, &a, Some(Differs::Nobody)),
            (&b, &a, &a, Some(Differs::Candidate)),
            (&a, &a, &b, Some(Differs::Stable)),
            (&b, &a, &c, Some(Differs::Both)),
            (&refused, &a, &a, Some(Differs::Candidate)),
            (&a, &refused, &refused, Some(Differs::Candidate)),
            (&refused, &refused, &refused, Some(Differs::Nobody)),
            (&number, &a, &a, Some(Differs::Candidate)),
            (&number, &number, &number, None),
        ] {
            assert_eq!(differs(own, [first, second], 7, None), who);
        }
    }

    #[test]
    fn numbers_are_compared_with_a_tolerance_and_not_without() {
        let near = |a: f64, b: f64| same(&values(&[a]), &values(&[b]), 0, Some(0.5));
        assert_eq!((near(1.0, 1.5), near(1.0, 1.6)), (Some(true), Some(false)));
        assert_eq!(same(&values(&[1.0]), &values(&[1.0]), 0, None), None);
        assert_eq!(same(&classes(&["a"], 0.9), &classes(&["a"], 0.1), 0, None), Some(true));
        assert_eq!(same(&classes(&["a"], 0.9), &classes(&["a"], 0.1), 0, Some(0.1)), Some(false));
        let none = json!({"outputs": [{"name": "value", "shape": [1], "data": [null]}]});
        assert_eq!(same(&none, &none, 0, Some(1e9)), Some(false));
    }

    #[test]
    fn one_row_is_drawn() {
        let (one, other) = (classes(&["a", "b", "c"], 0.9), classes(&["a", "x", "c"], 0.9));
        let drawn = [0, 1, 2, 3, 4].map(|lot| same(&one, &other, lot, None));
        assert_eq!(drawn, [Some(true), Some(false), Some(true), Some(true), Some(false)]);
        let vectors =
            |second| json!({"outputs": [{"name": "v", "shape": [2, 2], "data": [1, 2, 3, second]}]});
        assert_eq!(same(&vectors(4), &vectors(9), 0, Some(0.1)), Some(true));
        assert_eq!(same(&vectors(4), &vectors(9), 1, Some(0.1)), Some(false));
    }

    #[test]
    fn a_label_says_who_was_right() {
        let text = |text: &str| Prediction::Text(text.to_owned());
        for (candidate, stable, label, who) in [
            (text("1"), text("1"), json!("1"), Some(WasRight::Both)),
            (text("1"), text("0"), json!(1), Some(WasRight::Candidate)),
            (text("1"), text("0"), json!(1.0), Some(WasRight::Candidate)),
            (text("1.5"), text("0"), json!(1.5), Some(WasRight::Candidate)),
            (text("true"), text("false"), json!(false), Some(WasRight::Stable)),
            (text("1"), text("0"), json!("2"), Some(WasRight::Neither)),
            (Prediction::Number(1.0), Prediction::Number(3.0), json!(1.5), Some(WasRight::Candidate)),
            (Prediction::Number(1.0), Prediction::Number(3.0), json!(2.5), Some(WasRight::Stable)),
            (Prediction::Number(1.0), Prediction::Number(3.0), json!(2), Some(WasRight::Both)),
            (Prediction::Number(1.0), Prediction::Number(3.0), json!("2"), None),
            (text("1"), Prediction::Number(1.0), json!(1), None),
        ] {
            let said: Label = serde_json::from_value(label.clone()).unwrap();
            assert_eq!(was_right(&candidate, &stable, &said), who, "{label}");
        }
    }

    #[test]
    fn a_class_is_what_an_answer_says_where_it_has_one() {
        assert_eq!(prediction(&classes(&["a", "b"], 0.9), 3), Some(Prediction::Text("b".to_owned())));
        assert_eq!(prediction(&values(&[1.0, 2.0]), 0), Some(Prediction::Number(1.0)));
        assert_eq!(prediction(&json!({}), 0), None);
    }

    #[test]
    fn what_has_nothing_in_common_is_not_compared() {
        let (classes, values) = (classes(&["a"], 0.9), values(&[1.0]));
        for other in [&values, &json!({}), &json!({"outputs": [{"name": "class"}]}), &Value::Null] {
            assert_eq!(same(&classes, other, 0, Some(1.0)), None, "{other}");
        }
    }
}
