//! Traces a schema from training rows.

use super::{Feature, FeatureKind, SCHEMA_LAYOUT, Schema, Target, TargetKind};
use crate::data::{Categories, Column, DataError, Rows, Values};

/// Most different values of a category; a column with more is taken for an identifier.
pub const MAX_VOCABULARY: usize = 10_000;

/// The schema of training rows.
///
/// # Errors
/// When a column has too many categories or numbers too large.
pub fn trace(rows: &Rows) -> Result<Schema, DataError> {
    let features = rows.features.iter().map(feature).collect::<Result<Vec<_>, _>>()?;
    let width = features.iter().map(|feature| feature.kind.width()).sum::<usize>();
    // At most 10,000 places for each of a file's columns: far below the limit of 32 bits.
    let input_width = u32::try_from(width).unwrap_or(u32::MAX);
    Ok(Schema { schema: SCHEMA_LAYOUT, features, target: target(rows)?, input_width })
}

fn feature(column: &Column) -> Result<Feature, DataError> {
    let kind = match &column.values {
        Values::Number(values) => {
            let (mean, sd) = moments(&column.name, values)?;
            FeatureKind::Number { mean, sd }
        }
        Values::Category(values) => FeatureKind::Category { vocabulary: vocabulary(&column.name, values)? },
    };
    Ok(Feature { name: column.name.clone(), kind })
}

fn target(rows: &Rows) -> Result<Target, DataError> {
    let Some(column) = &rows.target else {
        return Err(DataError::TooFew { set: "data.train", rows: 0, wanted: 1 });
    };
    let kind = match &column.values {
        Values::Number(values) => {
            let (mean, sd) = moments(&column.name, values)?;
            TargetKind::Number { mean, sd }
        }
        Values::Category(values) => TargetKind::Classes { classes: vocabulary(&column.name, values)? },
    };
    Ok(Target { name: column.name.clone(), kind })
}

fn vocabulary(column: &str, values: &Categories) -> Result<Vec<String>, DataError> {
    let mut names = values.names().to_vec();
    if names.len() > MAX_VOCABULARY {
        let column = column.to_owned();
        return Err(DataError::TooManyValues { column, count: names.len(), limit: MAX_VOCABULARY });
    }
    names.sort();
    Ok(names)
}

/// Mean and standard deviation.
fn moments(column: &str, values: &[f64]) -> Result<(f64, f64), DataError> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let sd = (values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count).sqrt();
    if !mean.is_finite() || !sd.is_finite() {
        return Err(DataError::TooLarge { column: column.to_owned() });
    }
    // Below this the column is constant but for rounding, and dividing by it would only blow up the rounding.
    let constant = sd <= mean.abs() * 1e-12 || sd < f64::MIN_POSITIVE;
    Ok((mean, if constant { 1.0 } else { sd }))
}
