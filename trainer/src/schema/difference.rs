//! What differs between the traced dimensions of two schemas.

use super::{FeatureKind, Schema, TargetKind};

/// The differences in one text, or none if every traced dimension agrees: columns, kinds, sizes of vocabularies,
/// input width and classes. Means, deviations and the texts of a vocabulary may differ.
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
    (!found.is_empty()).then(|| found.join(", "))
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

fn targets(candidate: &Schema, baseline: &Schema) -> Option<String> {
    let (new, old) = (&candidate.target, &baseline.target);
    if new.name != old.name {
        return Some(format!("the target is `{}` instead of `{}`", new.name, old.name));
    }
    match (&new.kind, &old.kind) {
        (TargetKind::Number { .. }, TargetKind::Number { .. }) => None,
        (TargetKind::Classes { classes: new }, TargetKind::Classes { classes: old }) => {
            (new != old).then(|| format!("the classes are {} instead of {}", new.join("/"), old.join("/")))
        }
        (TargetKind::Classes { .. }, TargetKind::Number { .. }) => {
            Some("the target is a class instead of a number".into())
        }
        (TargetKind::Number { .. }, TargetKind::Classes { .. }) => {
            Some("the target is a number instead of a class".into())
        }
    }
}
