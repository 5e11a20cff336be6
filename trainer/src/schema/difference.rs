//! What differs between the traced dimensions of two schemas.

use anneal_crds::common::shorten;

use super::{FeatureKind, Schema, TargetKind};

/// Longest text of all differences, in bytes: a result must fit into a termination message.
pub const MAX_DIFFERENCE: usize = 400;
/// Longest text of one.
const MAX_ONE: usize = 120;

/// The differences in one text of bounded length, or none if every traced dimension agrees: columns, kinds, sizes of
/// vocabularies, input width and classes. Means, deviations and the texts of a vocabulary may differ.
pub fn difference(candidate: &Schema, baseline: &Schema) -> Option<String> {
    let mut found = Vec::new();
    for feature in &candidate.features {
        match baseline.features.iter().find(|other| other.name == feature.name) {
            None => found.push(format!("column `{}` is new", feature.name)),
            Some(other) => found.extend(kinds(&feature.name, &feature.kind, &other.kind)),
        }
    }
    for other in &baseline.features {
        if !candidate.features.iter().any(|feature| feature.name == other.name) {
            found.push(format!("column `{}` is gone", other.name));
        }
    }
    if candidate.input_width != baseline.input_width {
        found.push(format!("input width {} instead of {}", candidate.input_width, baseline.input_width));
    }
    found.extend(targets(candidate, baseline));
    (!found.is_empty()).then(|| in_short(&found))
}

/// As many as fit, and how many more there are. Names of columns and classes have no bound of their own.
fn in_short(found: &[String]) -> String {
    let room = MAX_DIFFERENCE - ", … and 18446744073709551615 more".len();
    let mut text = String::new();
    for (index, one) in found.iter().enumerate() {
        let one = shorten(one, MAX_ONE);
        if text.len() + one.len() + 2 > room {
            return format!("{text}, … and {} more", found.len() - index);
        }
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(&one);
    }
    text
}

fn kinds(name: &str, new: &FeatureKind, old: &FeatureKind) -> Option<String> {
    match (new, old) {
        (FeatureKind::Number { .. }, FeatureKind::Number { .. }) => None,
        (FeatureKind::Category { vocabulary: new }, FeatureKind::Category { vocabulary: old }) => {
            let (new, old) = (new.len(), old.len());
            (new != old).then(|| format!("column `{name}` has {new} values instead of {old}"))
        }
        (FeatureKind::Category { .. }, FeatureKind::Number { .. }) => {
            Some(format!("column `{name}` is a category instead of a number"))
        }
        (FeatureKind::Number { .. }, FeatureKind::Category { .. }) => {
            Some(format!("column `{name}` is a number instead of a category"))
        }
    }
}

fn listed(classes: &[String]) -> String {
    shorten(&classes.join("/"), 40).into_owned()
}

fn targets(candidate: &Schema, baseline: &Schema) -> Option<String> {
    let (new, old) = (&candidate.target, &baseline.target);
    if new.name != old.name {
        return Some(format!("the target is `{}` instead of `{}`", new.name, old.name));
    }
    match (&new.kind, &old.kind) {
        (TargetKind::Number { .. }, TargetKind::Number { .. }) => None,
        (TargetKind::Classes { classes: new }, TargetKind::Classes { classes: old }) => {
            (new != old).then(|| format!("the classes are {} instead of {}", listed(new), listed(old)))
        }
        (TargetKind::Classes { .. }, TargetKind::Number { .. }) => {
            Some("the target is a class instead of a number".into())
        }
        (TargetKind::Number { .. }, TargetKind::Classes { .. }) => {
            Some("the target is a number instead of a class".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Feature, Target};

    fn schema(columns: &[String], classes: usize) -> Schema {
        let feature =
            |name: &String| Feature { name: name.clone(), kind: FeatureKind::Number { mean: 0.0, sd: 1.0 } };
        let classes = (0..classes).map(|class| format!("class {class}")).collect();
        Schema {
            schema: 1,
            features: columns.iter().map(feature).collect(),
            target: Target { name: "y".into(), kind: TargetKind::Classes { classes } },
            input_width: 7,
        }
    }

    #[test]
    fn every_difference_is_named_while_they_are_few() {
        let (old, new) = (schema(&["a".into()], 2), schema(&["b".into()], 3));
        let text = difference(&new, &old).unwrap();
        assert_eq!(
            text,
            "column `b` is new, column `a` is gone, the classes are class 0/class 1/class 2 instead of class 0/class 1"
        );
        assert_eq!(difference(&new, &new), None);
    }

    #[test]
    fn many_or_long_differences_are_counted() {
        let old = schema(&[], 2);
        for (count, length) in [(90, 3), (500, 1), (300, 200), (1, 5_000), (2_000, 60)] {
            let names: Vec<_> = (0..count).map(|n| format!("{n}{}", "ü".repeat(length))).collect();
            let text = difference(&schema(&names, 9_000), &old).unwrap();
            assert!(text.len() <= MAX_DIFFERENCE, "{count} {length}: {}", text.len());
            assert!(text.starts_with("column `0ü"), "{text}");
            assert_eq!(count > 1, text.ends_with(" more"), "{count} {length}: {text}");
        }
        let names: Vec<_> = (0..90).map(|n| n.to_string()).collect();
        let text = difference(&schema(&names, 2), &old).unwrap();
        let (shown, rest) = text.split_once(", … and ").unwrap();
        assert_eq!(shown.split(", ").count() + rest.trim_end_matches(" more").parse::<usize>().unwrap(), 90);
    }
}
