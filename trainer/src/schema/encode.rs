//! Raw rows to the model's inputs, by a frozen schema.

use super::{Feature, FeatureKind, Schema, TargetKind};
use crate::data::{ColumnKind, Rows, Values};

/// Why rows do not fit a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A column is missing.
    #[error("column `{0}` is missing: the model needs it")]
    Missing(String),
    /// A column has the other kind.
    #[error("column `{column}` is a {found} and the model takes a {expected} there: convert it")]
    Kind {
        /// Which column.
        column: String,
        /// What it is.
        found: ColumnKind,
        /// What the model takes.
        expected: ColumnKind,
    },
    /// A class that the model does not know.
    #[error(
        "the target has the class `{0}`, which the model does not know: evaluate it on rows of its own classes"
    )]
    Class(String),
}

/// The target of each row.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Index into the schema's classes.
    Classes(Vec<i64>),
    /// The raw number.
    Numbers(Vec<f64>),
}

impl Targets {
    /// How many rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(values) => values.len(),
            Self::Numbers(values) => values.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The model's inputs: `rows.count` times `schema.input_width` numbers, row by row.
///
/// # Errors
/// When a column is missing or has the other kind.
pub fn encode_features(schema: &Schema, rows: &Rows) -> Result<Vec<f32>, EncodeError> {
    let width = schema.input_width as usize;
    let mut inputs = vec![0.0; rows.count * width];
    let mut start = 0;
    for feature in &schema.features {
        encode_feature(feature, rows, &mut inputs, start, width)?;
        start += feature.kind.width();
    }
    Ok(inputs)
}

fn encode_feature(
    feature: &Feature,
    rows: &Rows,
    inputs: &mut [f32],
    start: usize,
    width: usize,
) -> Result<(), EncodeError> {
    let column = rows.feature(&feature.name).ok_or_else(|| EncodeError::Missing(feature.name.clone()))?;
    let wrong_kind = |expected| {
        let (column, found) = (feature.name.clone(), column.values.kind());
        Err(EncodeError::Kind { column, found, expected })
    };
    match (&feature.kind, &column.values) {
        (FeatureKind::Number { mean, sd }, Values::Number(values)) => {
            for (row, value) in values.iter().enumerate() {
                inputs[row * width + start] = ((value - mean) / sd) as f32;
            }
            Ok(())
        }
        (FeatureKind::Category { vocabulary }, Values::Category(values)) => {
            // Each different text is looked up once, not once for each row.
            let places: Vec<_> = values.names().iter().map(|name| place(vocabulary, name)).collect();
            for (row, code) in values.codes().iter().enumerate() {
                let place = code.map_or(vocabulary.len(), |code| places[code as usize]);
                inputs[row * width + start + place] = 1.0;
            }
            Ok(())
        }
        (FeatureKind::Number { .. }, Values::Category(_)) => wrong_kind(ColumnKind::Number),
        (FeatureKind::Category { .. }, Values::Number(_)) => wrong_kind(ColumnKind::Category),
    }
}

fn place(vocabulary: &[String], name: &String) -> usize {
    vocabulary.binary_search(name).unwrap_or(vocabulary.len())
}

/// The target of each row.
///
/// # Errors
/// When the target is missing, has the other kind, or a class is unknown.
pub fn encode_targets(schema: &Schema, rows: &Rows) -> Result<Targets, EncodeError> {
    let name = &schema.target.name;
    let column = rows.target.as_ref().filter(|column| column.name == *name);
    let column = column.ok_or_else(|| EncodeError::Missing(name.clone()))?;
    let wrong_kind =
        |expected| Err(EncodeError::Kind { column: name.clone(), found: column.values.kind(), expected });
    match (&schema.target.kind, &column.values) {
        (TargetKind::Number { .. }, Values::Number(values)) => Ok(Targets::Numbers(values.clone())),
        (TargetKind::Classes { classes }, Values::Category(values)) => (0..rows.count)
            .map(|row| {
                let class = values.get(row).unwrap_or_default();
                let found = classes.binary_search_by(|known| known.as_str().cmp(class));
                found.map(|index| index as i64).map_err(|_| EncodeError::Class(class.to_owned()))
            })
            .collect::<Result<_, _>>()
            .map(Targets::Classes),
        (TargetKind::Number { .. }, Values::Category(_)) => wrong_kind(ColumnKind::Number),
        (TargetKind::Classes { .. }, Values::Number(_)) => wrong_kind(ColumnKind::Category),
    }
}
