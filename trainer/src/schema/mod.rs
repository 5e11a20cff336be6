//! The traced schema: which columns a model takes and how raw values become its inputs.
//!
//! Traced once from training rows, then frozen in the artifact: training, evaluation and serving encode with the same
//! code and the same numbers. A baseline encodes with its own schema, never with the candidate's.

mod difference;
mod encode;
mod trace;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::data::{ColumnKind, Columns, are_booleans};
pub use difference::{MAX_DIFFERENCE, difference};
pub use encode::{EncodeError, Targets, encode_features, encode_targets};
pub use trace::{MAX_VOCABULARY, trace};

/// The only layout of `schema.json` that is understood.
pub const SCHEMA_LAYOUT: u32 = 1;

/// What a model takes and gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schema {
    /// 1.
    pub schema: u32,
    /// Features, sorted by name; each takes the next places of the input.
    pub features: Vec<Feature>,
    /// What is predicted.
    pub target: Target,
    /// Numbers that the model takes for one row.
    pub input_width: u32,
}

impl Schema {
    /// The columns that the model takes.
    pub fn columns(&self) -> Columns {
        let kind = |feature: &Feature| match feature.kind {
            FeatureKind::Number { .. } => ColumnKind::Number,
            FeatureKind::Category { .. } => ColumnKind::Category,
        };
        self.features.iter().map(|feature| (feature.name.clone(), kind(feature))).collect()
    }

    /// The columns, target included, that are nothing but `true` and `false`.
    pub fn booleans(&self) -> BTreeSet<String> {
        let of_features = self.features.iter().filter_map(|feature| match &feature.kind {
            FeatureKind::Category { vocabulary } => Some((&feature.name, vocabulary)),
            FeatureKind::Number { .. } => None,
        });
        let of_target = match &self.target.kind {
            TargetKind::Classes { classes } => Some((&self.target.name, classes)),
            TargetKind::Number { .. } => None,
        };
        let all = of_features.chain(of_target).filter(|(_, texts)| are_booleans(texts));
        all.map(|(name, _)| name.clone()).collect()
    }

    /// Numbers that the model gives for one row.
    pub fn outputs(&self) -> usize {
        match &self.target.kind {
            TargetKind::Classes { classes } => classes.len(),
            TargetKind::Number { .. } => 1,
        }
    }

    /// Places of the input that stand for unknown categories.
    pub fn unknown_places(&self) -> Vec<usize> {
        let mut start = 0;
        let mut places = Vec::new();
        for feature in &self.features {
            start += feature.kind.width();
            if matches!(feature.kind, FeatureKind::Category { .. }) {
                places.push(start - 1);
            }
        }
        places
    }
}

/// A column that the model takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Feature {
    /// Name of the column.
    pub name: String,
    /// What it holds.
    pub kind: FeatureKind,
}

/// What a feature holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum FeatureKind {
    /// A number: one place, (value - mean) / sd.
    Number {
        /// Mean of the training rows.
        mean: f64,
        /// Standard deviation of the training rows; 1 for a constant column.
        sd: f64,
    },
    /// A text: one place for each known value, and a last one for all others and for an empty value.
    Category {
        /// The known values, sorted.
        vocabulary: Vec<String>,
    },
}

impl FeatureKind {
    /// How many places of the input it takes.
    pub const fn width(&self) -> usize {
        match self {
            Self::Number { .. } => 1,
            Self::Category { vocabulary } => vocabulary.len() + 1,
        }
    }
}

/// What is predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Name of the column.
    pub name: String,
    /// What it holds.
    pub kind: TargetKind,
}

/// What a target holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum TargetKind {
    /// One of a few classes; the model gives one logit for each.
    Classes {
        /// The classes, sorted.
        classes: Vec<String>,
    },
    /// A number; the model gives (value - mean) / sd.
    Number {
        /// Mean of the training rows.
        mean: f64,
        /// Standard deviation of the training rows; 1 for a constant target.
        sd: f64,
    },
}
