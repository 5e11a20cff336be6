//! The training and the validation rows of a run, with every check that needs no model.

use std::collections::BTreeSet;

use anneal_crds::retrain_job::Data;
use tokio::runtime::Handle;

use super::{
    checks::{check_classes, check_rows},
    choice::Choice,
    error::DataError,
    files::{expand, refuse_shared},
    read::{Beside, Features, Read, Selection, booleans as booleans_of, read_files},
    split::split,
    table::{Column, Rows, Values},
    window::within,
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
    let choice = Choice::of(data);
    let (beside, booleans) = (beside(data), BTreeSet::new());
    let (target, task) = (data.target.as_str(), data.task);
    let features = Features::Chosen(choice);
    let selection =
        Selection { target, task, target_kind: None, beside: &beside, features, booleans: &booleans };
    let files = expand(runtime, &data.train.uri)?;
    let validation_files = match &data.validation {
        Some(source) => expand(runtime, &source.uri)?,
        None => Vec::new(),
    };
    refuse_shared(&files, &validation_files)?;
    let Read { rows, target_kind, mut columns } = read_files(&files, &data.train.uri, selection)?;
    let all = match &data.window {
        Some(window) => within(window, rows)?,
        None => rows,
    };
    let sets = match (&data.validation, &data.split) {
        (Some(source), _) => {
            enough("data.train", &all, data.min_rows as usize)?;
            let known = all.features.iter().map(|column| (column.name.clone(), column.values.kind()));
            let (known, booleans) = (known.collect(), booleans_of(&all));
            let features = Features::Exactly { columns: &known, choice };
            // What they are unique by; their times are nobody's business.
            let beside = Beside { texts: data.checks.unique.iter().cloned().collect(), ..Beside::default() };
            let selection =
                Selection { target_kind, beside: &beside, features, booleans: &booleans, ..selection };
            let validation = read_files(&validation_files, &source.uri, selection)?;
            columns.extend(validation.columns);
            check_rows(&data.checks, &all, Some(&validation.rows))?;
            Sets { train: all, validation: validation.rows }
        }
        (None, Some(how)) => {
            check_rows(&data.checks, &all, None)?;
            let key = all.texts.get(&how.key).map(Vec::as_slice).unwrap_or_default();
            let (train, validation) = split(key, how.seed, how.validation_fraction);
            Sets { train: all.take(&train), validation: all.take(&validation) }
        }
        // `job` refuses a spec with neither.
        (None, None) => Sets { train: all, validation: Rows::default() },
    };
    choice.refuse_unused(&columns)?;
    enough("data.train", &sets.train, data.min_rows as usize)?;
    enough("the validation set", &sets.validation, (data.min_rows as usize).div_ceil(10))?;
    check_known_classes(&sets)?;
    check_classes(&data.checks, &sets)?;
    Ok(sets)
}

/// The columns that window, split and checks look at.
fn beside(data: &Data) -> Beside {
    let history = data.checks.history.as_ref();
    let key = data.split.as_ref().map(|split| split.key.clone());
    let texts =
        data.checks.unique.iter().cloned().chain(key).chain(history.map(|history| history.entity.clone()));
    let times = data.window.iter().map(|window| window.column.clone());
    Beside {
        texts: texts.collect(),
        times: times.chain(history.map(|history| history.time.clone())).collect(),
    }
}

fn enough(set: &'static str, rows: &Rows, wanted: usize) -> Result<(), DataError> {
    let wanted = wanted.max(1);
    if rows.count < wanted { Err(DataError::TooFew { set, rows: rows.count, wanted }) } else { Ok(()) }
}

fn check_known_classes(sets: &Sets) -> Result<(), DataError> {
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
