//! The training and the validation rows of a run, with every check that needs no model.

use std::collections::BTreeSet;

use anneal_crds::retrain_job::Data;
use tokio::runtime::Handle;

use super::{
    choice::Choice,
    error::DataError,
    files::{expand, refuse_shared},
    read::{Features, Read, Selection, booleans as booleans_of, read_files},
    split::split,
    table::{Column, Rows, Values},
};

/// The two sets of rows, with the same columns.
#[derive(Clone, Debug)]
pub struct Sets {
    /// Rows to learn from.
    pub train: Rows,
    /// Rows to compare models on.
    pub validation: Rows,
}

/// Reads, splits and checks the rows of a run.
///
/// # Errors
/// When the rows cannot be read, are too few, hold only one class, or lie on both sides.
pub fn load(runtime: &Handle, data: &Data) -> Result<Sets, DataError> {
    let key = data.split.as_ref().map(|split| split.key.as_str());
    let choice = Choice::of(data);
    let (features, booleans) = (Features::Chosen(choice), BTreeSet::new());
    let (target, task) = (data.target.as_str(), data.task);
    let selection = Selection { target, task, target_kind: None, key, features, booleans: &booleans };
    let files = expand(runtime, &data.train.uri)?;
    let validation_files = match &data.validation {
        Some(source) => expand(runtime, &source.uri)?,
        None => Vec::new(),
    };
    refuse_shared(&files, &validation_files)?;
    let Read { rows: all, target_kind, mut columns } = read_files(&files, &data.train.uri, selection)?;
    let sets = match (&data.validation, &data.split, &all.key) {
        (Some(source), ..) => {
            enough("data.train", &all, data.min_rows as usize)?;
            let known = all.features.iter().map(|column| (column.name.clone(), column.values.kind()));
            let (known, booleans) = (known.collect(), booleans_of(&all));
            let features = Features::Exactly { columns: &known, choice };
            let selection = Selection { target_kind, key: None, features, booleans: &booleans, ..selection };
            let validation = read_files(&validation_files, &source.uri, selection)?;
            columns.extend(validation.columns);
            let validation = validation.rows;
            Sets { train: all, validation }
        }
        (None, Some(how), Some(key)) => {
            let (train, validation) = split(key, how.seed, how.validation_fraction);
            Sets { train: all.take(&train), validation: all.take(&validation) }
        }
        // `job` refuses a spec with neither.
        (None, ..) => Sets { train: all, validation: Rows::default() },
    };
    choice.refuse_unused(&columns)?;
    enough("data.train", &sets.train, data.min_rows as usize)?;
    enough("the validation set", &sets.validation, (data.min_rows as usize).div_ceil(10))?;
    check_classes(&sets)?;
    Ok(sets)
}

fn enough(set: &'static str, rows: &Rows, wanted: usize) -> Result<(), DataError> {
    let wanted = wanted.max(1);
    if rows.count < wanted { Err(DataError::TooFew { set, rows: rows.count, wanted }) } else { Ok(()) }
}

fn check_classes(sets: &Sets) -> Result<(), DataError> {
    let (Some(train), Some(validation)) = (classes(&sets.train), classes(&sets.validation)) else {
        return Ok(());
    };
    let column = sets.train.target.as_ref().map(|target| target.name.clone()).unwrap_or_default();
    if let (Some(class), 1) = (train.first(), train.len()) {
        return Err(DataError::OneClass { column, class: (*class).to_owned() });
    }
    match validation.difference(&train).next() {
        Some(class) => Err(DataError::NewClass { column, class: (*class).to_owned() }),
        None => Ok(()),
    }
}

fn classes(rows: &Rows) -> Option<BTreeSet<&str>> {
    match rows.target.as_ref()? {
        Column { values: Values::Category(values), .. } => {
            Some(values.names().iter().map(String::as_str).collect())
        }
        Column { values: Values::Number(_), .. } => None,
    }
}
