//! What can be wrong with data, always with the column and the file that are to blame.

use super::{format::Format, table::ColumnKind};
use crate::storage::StorageError;

/// Why rows cannot be used. Every message names what to change.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder is missing.
    #[error("{uri}: there is no such file: check data.train.uri and data.validation.uri")]
    Missing {
        /// The URI or pattern.
        uri: String,
    },
    /// The storage did not answer; not a fault of the data.
    #[error(transparent)]
    Storage(StorageError),
    /// A file is not what its name says, or is damaged.
    #[error(
        "{file}: this is no readable {format} file ({cause}): write it again, or give it the ending of its format"
    )]
    Corrupt {
        /// Which file.
        file: String,
        /// What its name says.
        format: Format,
        /// Why.
        cause: String,
    },
    /// A column is missing.
    #[error(
        "{file}: column `{column}` is missing: add it, or correct data.target, data.split.key, data.exclude, data.window or data.checks"
    )]
    NoColumn {
        /// Which column.
        column: String,
        /// Which file.
        file: String,
    },
    /// There are columns that the first file, or the training rows, lack.
    #[error(
        "{file}: column `{column}` is not among the other rows' columns: list it under data.exclude or add it to all files"
    )]
    ExtraColumn {
        /// Which column.
        column: String,
        /// Which file.
        file: String,
    },
    /// A column is a number in one file and a category in another.
    #[error("{file}: column `{column}` is a {found} here and a {expected} elsewhere: write it with one type")]
    KindDiffers {
        /// Which column.
        column: String,
        /// Which file.
        file: String,
        /// What it is here.
        found: ColumnKind,
        /// What it is elsewhere.
        expected: ColumnKind,
    },
    /// A cell among numbers that is none.
    #[error(
        "{file}: column `{column}` holds `{cell}` in row {row} and numbers elsewhere: correct it there, or list the column under data.exclude"
    )]
    NoNumber {
        /// Which column.
        column: String,
        /// Which file.
        file: String,
        /// The first such cell, shortened.
        cell: String,
        /// The row of the file, from 0.
        row: usize,
    },
    /// A cell among times that is none.
    #[error(
        "{file}: column `{column}` holds `{cell}` in row {row}, which is no time: write it as 2026-11-21 or 2026-11-21T10:00:00Z, or name another column in data.window and data.checks"
    )]
    NoTime {
        /// Which column.
        column: String,
        /// Which file.
        file: String,
        /// The first such cell, shortened.
        cell: String,
        /// The row of the file, from 0.
        row: usize,
    },
    /// Values of several kinds in one column, or none of a table.
    #[error(
        "{file}: column `{column}` {problem}: write it as numbers or as texts, or list it under data.exclude"
    )]
    Mixed {
        /// Which column.
        column: String,
        /// Which file.
        file: String,
        /// What is wrong, and where.
        problem: String,
    },
    /// Files of one pattern in different formats: often the same rows twice.
    #[error(
        "{uri} names files of different formats, such as {first} and {second}: give a pattern that only one format fits"
    )]
    Formats {
        /// The pattern.
        uri: String,
        /// The first file.
        first: String,
        /// The first of another format.
        second: String,
    },
    /// A column's type cannot be used.
    #[error("{file}: column `{column}` has type {kind}, which {problem}")]
    Type {
        /// Which column.
        column: String,
        /// Which file.
        file: String,
        /// Arrow's name of the type.
        kind: String,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// Empty values where none may be.
    #[error(
        "{file}: column `{column}` is empty in {count} rows: fill them, or list the column under data.exclude"
    )]
    Empty {
        /// Which column.
        column: String,
        /// Which file.
        file: String,
        /// How many rows.
        count: usize,
    },
    /// NaN or infinite numbers.
    #[error(
        "{file}: column `{column}` is NaN or infinite in {count} rows, first in row {row}: correct or remove these rows"
    )]
    NotFinite {
        /// Which column.
        column: String,
        /// Which file.
        file: String,
        /// How many rows.
        count: usize,
        /// The first such row of the file, from 0.
        row: usize,
    },
    /// Numbers too large to be standardised.
    #[error(
        "column `{column}` has numbers too large to be standardised: scale it, or list it under data.exclude"
    )]
    TooLarge {
        /// Which column.
        column: String,
    },
    /// A class target that is a fraction.
    #[error(
        "{file}: the target `{column}` holds the fraction {value}: classes must be whole numbers or texts, or use task: regression"
    )]
    FractionalClass {
        /// The target.
        column: String,
        /// Which file.
        file: String,
        /// The first fraction.
        value: f64,
    },
    /// Only one class.
    #[error(
        "the target `{column}` has only the class `{class}` in the training rows: at least two are needed"
    )]
    OneClass {
        /// The target.
        column: String,
        /// The class.
        class: String,
    },
    /// A class that training never saw.
    #[error(
        "the target `{column}` has the class `{class}` in the validation rows and not in the training rows: add training rows of it"
    )]
    NewClass {
        /// The target.
        column: String,
        /// The class.
        class: String,
    },
    /// So many different texts that the column is rather an identifier.
    #[error(
        "column `{column}` has {count} different values, more than {limit}: list it under data.exclude if it is an identifier"
    )]
    TooManyValues {
        /// Which column.
        column: String,
        /// How many.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A pattern that says nothing.
    #[error("no column of the rows fits `{pattern}` of {field}: correct or remove it there")]
    Unused {
        /// Which field.
        field: &'static str,
        /// The name or pattern.
        pattern: String,
    },
    /// No column is left to learn from.
    #[error(
        "{file}: no feature column is left beside the target: add to data.include, or shorten data.exclude"
    )]
    NoFeatures {
        /// Which file.
        file: String,
    },
    /// A window that no row lies in.
    #[error("none of {rows} rows lies in data.window, by column `{column}`: correct it, or add newer rows")]
    NothingInWindow {
        /// The column of times.
        column: String,
        /// How many rows there are.
        rows: usize,
    },
    /// Rows that should be one.
    #[error(
        "{rows} rows have only {different} different values of {columns} ({fan_out:.3} rows for each), such as `{key}` more than once: a join may have multiplied them, so remove them, or correct data.checks.unique",
        fan_out = *rows as f64 / *different as f64
    )]
    Duplicates {
        /// The columns.
        columns: String,
        /// The first values that come again, shortened.
        key: String,
        /// How many rows there are.
        rows: usize,
        /// How many different ones.
        different: usize,
    },
    /// A class that is too rare.
    #[error(
        "the class `{rarest}` has {few} training rows and `{most}` has {many}, and data.checks.classBalance asks for a share of {wanted}: add rows of it, or lower that"
    )]
    Unbalanced {
        /// The rarest class.
        rarest: String,
        /// How many rows it has.
        few: usize,
        /// The commonest class.
        most: String,
        /// How many rows it has.
        many: usize,
        /// The share that is asked for.
        wanted: f64,
    },
    /// Classes that are judged on too few rows.
    #[error(
        "data.checks.minValidationPerClass asks for {wanted} validation rows of each class, and there are fewer of {classes}: add rows of them, or lower that"
    )]
    FewPerClass {
        /// The classes and how many rows they have.
        classes: String,
        /// How many are asked for.
        wanted: u32,
    },
    /// Too few entities of which enough is known.
    #[error(
        "{found} of {all} different `{entity}` have a history of {days} days, and data.checks.history asks for {wanted}: add rows, or lower minEntities or minDays"
    )]
    FewEntities {
        /// The column of entities.
        entity: String,
        /// How many there are.
        all: usize,
        /// How many have so long a history.
        found: usize,
        /// How long it has to be.
        days: u32,
        /// How many are needed.
        wanted: u32,
    },
    /// A month without rows among others.
    #[error(
        "no row lies in the month {month}, by column `{column}`, and data.checks.history asks for every month: add its rows"
    )]
    EmptyMonth {
        /// The column of times.
        column: String,
        /// The first such month.
        month: String,
    },
    /// Too short a history.
    #[error(
        "the rows lie in {found} months, by column `{column}`, and data.checks.history asks for {wanted}: add rows, or lower minMonths"
    )]
    FewMonths {
        /// The column of times.
        column: String,
        /// How many months.
        found: usize,
        /// How many are needed.
        wanted: u32,
    },
    /// No rows at all.
    #[error("{uri} has 0 rows: write rows into it, or name another file")]
    NoRows {
        /// The URI or pattern.
        uri: String,
    },
    /// A file to learn from and to be judged on.
    #[error(
        "data.train.uri and data.validation.uri both name {file}: a model must not be judged on rows that it has learnt, so give validation files of its own or use data.split"
    )]
    Shared {
        /// The first such file.
        file: String,
    },
    /// The same rows to learn from and to be judged on, under whatever names.
    #[error(
        "data.train and data.validation hold the same {rows} rows: a model must not be judged on rows that it has learnt, so give validation rows of its own or use data.split"
    )]
    SameRows {
        /// How many rows each has.
        rows: usize,
    },
    /// Too few rows.
    #[error("{set} has {rows} rows and {wanted} are needed: add rows, or lower data.minRows")]
    TooFew {
        /// Which rows.
        set: &'static str,
        /// How many there are.
        rows: usize,
        /// How many are needed.
        wanted: usize,
    },
}

impl From<StorageError> for DataError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NotFound { uri } => Self::Missing { uri },
            other @ (StorageError::Uri(_)
            | StorageError::NoConditions { .. }
            | StorageError::Failed { .. }) => Self::Storage(other),
        }
    }
}
