//! Kubernetes quantities, as far as telling whether two are the same amount: the API server writes `0.5` as `500m`.
//!
//! Used by [`crate::object::covers`]. The grammar is that of `k8s.io/apimachinery/pkg/api/resource`.

use serde_json::Value;

const SUFFIXES: [(&str, f64); 15] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

/// Whether two values are quantities of the same amount.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (amount(a), amount(b)) {
        // Amounts are decimal, and their binary fractions may differ in the last digit.
        (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
        (None, _) | (_, None) => false,
    }
}

/// A quantity of what is counted whole, such as devices; 0 for what is none.
pub(crate) fn whole(text: &str) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a number that is too big becomes the biggest")]
    parse(text.trim()).map_or(0, |amount| amount.max(0.0).ceil() as i64)
}

fn amount(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => parse(text.trim()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn parse(text: &str) -> Option<f64> {
    let with_suffix = SUFFIXES.iter().find_map(|(suffix, factor)| {
        let number: f64 = plain(text.strip_suffix(suffix)?)?;
        Some(number * factor)
    });
    with_suffix.or_else(|| plain(text))
}

/// A number that is not `inf` or `NaN`, which Rust would read too.
fn plain(text: &str) -> Option<f64> {
    text.ends_with(|last: char| last.is_ascii_digit() || last == '.').then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_the_same_however_they_are_written() {
        for (a, b) in [
            (json!("0.5"), json!("500m")),
            (json!(0.5), json!("500m")),
            (json!(1), json!("1")),
            (json!("1024Mi"), json!("1Gi")),
            (json!("1e3"), json!("1k")),
            (json!("0.1"), json!("100m")),
            (json!("1500M"), json!("1.5G")),
        ] {
            assert!(same(&a, &b), "{a} {b}");
        }
    }

    #[test]
    fn what_is_counted_is_whole() {
        for (text, number) in [("2", 2), (" 1k ", 1000), ("500m", 1), ("-1", 0), ("inf", 0), ("lots", 0)] {
            assert_eq!(whole(text), number, "{text}");
        }
    }

    #[test]
    fn others_differ() {
        for (a, b) in [
            (json!("500m"), json!("5")),
            (json!("1G"), json!("1Gi")),
            (json!("inf"), json!("inf")),
            (json!("lots"), json!("lots")),
            (json!(null), json!(0)),
            (json!(""), json!("")),
        ] {
            assert!(!same(&a, &b), "{a} {b}");
        }
    }
}
