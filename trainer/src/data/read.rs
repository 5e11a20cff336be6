//! Reads files into [`Rows`].
//!
//! Files of a pattern are read in the order of their names, so the same folder gives the same rows.

use std::collections::{BTreeMap, BTreeSet};

use anneal_crds::{common::shorten, contract::Task};
use arrow::datatypes::DataType;
use bytes::Bytes;
use tokio::runtime::Handle;

use super::{
    batch::{Source, append_batch, kind_of},
    choice::Choice,
    error::DataError,
    files::expand,
    format::{Expected, Format, Table, Unreadable},
    table::{ColumnKind, Rows, Values},
};
use crate::storage::Location;

/// Longest text of a cell or type in a message, in bytes.
const MAX_CELL: usize = 60;

/// Which columns to read, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Column to predict.
    pub target: &'a str,
    /// What the target is read as.
    pub task: Task,
    /// What other rows have as target, where that is known.
    pub target_kind: Option<ColumnKind>,
    /// Columns that are read beside features and target.
    pub beside: &'a Beside,
    /// Columns to learn from.
    pub features: Features<'a>,
    /// Categories of other rows that are nothing but `true` and `false`.
    pub booleans: &'a BTreeSet<String>,
}

/// Columns that tell rows apart and are no features of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Keys, as texts.
    pub texts: BTreeSet<String>,
    /// Dates and times.
    pub times: BTreeSet<String>,
}

impl Beside {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().chain(&self.times).map(String::as_str)
    }
}

/// Names of columns with what they hold.
pub type Columns = BTreeMap<String, ColumnKind>;

/// Which columns are features.
#[derive(Clone, Copy, Debug)]
pub enum Features<'a> {
    /// Those of a choice; the first file decides which they are.
    Chosen(Choice<'a>),
    /// As before, and they must be exactly these columns.
    Exactly {
        /// The columns that other rows have.
        columns: &'a Columns,
        /// Which columns of a file are features.
        choice: Choice<'a>,
    },
    /// These; others are not looked at.
    Only(&'a Columns),
}

impl<'a> Features<'a> {
    fn may_be(self, name: &str) -> bool {
        match self {
            Self::Chosen(choice) | Self::Exactly { choice, .. } => choice.has(name),
            Self::Only(columns) => columns.contains_key(name),
        }
    }

    const fn known(self) -> Option<&'a Columns> {
        match self {
            Self::Chosen(_) => None,
            Self::Exactly { columns, .. } | Self::Only(columns) => Some(columns),
        }
    }
}

/// Reads all rows of a file or pattern; there is at least one.
///
/// # Errors
/// When a file is missing or damaged, columns differ, a value cannot be used, or there is no row.
pub fn read(runtime: &Handle, uri: &str, selection: Selection<'_>) -> Result<Rows, DataError> {
    Ok(read_files(&expand(runtime, uri)?, uri, selection)?.rows)
}

/// The rows of files, and what else was seen there.
pub(super) struct Read {
    /// At least one row.
    pub(super) rows: Rows,
    /// What the target is in the files.
    pub(super) target_kind: Option<ColumnKind>,
    /// All columns of all files.
    pub(super) columns: BTreeSet<String>,
}

/// Reads all rows of the files that `uri` names.
pub(super) fn read_files(files: &[Location], uri: &str, selection: Selection<'_>) -> Result<Read, DataError> {
    refuse_formats(files, uri)?;
    let mut known = selection.features.known().cloned();
    let target_kind = selection.target_kind;
    let mut read = Read { rows: Rows::default(), target_kind, columns: BTreeSet::new() };
    for file in files {
        let booleans = selection.booleans | &booleans(&read.rows);
        let expect = |column: &str| match known.as_ref().map(|known| known.get(column)) {
            _ if selection.beside.times.contains(column) => Expected::Times,
            _ if column == selection.target => expected(read.target_kind, booleans.contains(column)),
            None if selection.features.may_be(column) => Expected::Open,
            Some(Some(kind)) => expected(Some(*kind), booleans.contains(column)),
            // One too many is found as such.
            Some(None) if selection.features.may_be(column) => Expected::Texts,
            // A key is kept as it is written: 007 is another one than 7.
            None | Some(None) if selection.beside.texts.contains(column) => Expected::Texts,
            None | Some(None) => Expected::Ignored,
        };
        let file = FileReader::open(&file.uri(), file.read()?, selection, &expect)?;
        if file.table.has_no_types() {
            continue;
        }
        let kinds = file.features(known.as_ref())?;
        let target = file.target_kind(read.target_kind)?;
        read.columns.extend(file.table.schema().fields().iter().map(|field| field.name().clone()));
        file.append(&kinds, &mut read.rows)?;
        (known, read.target_kind) = (Some(known.unwrap_or(kinds)), target);
    }
    if read.rows.count == 0 { Err(DataError::NoRows { uri: uri.to_owned() }) } else { Ok(read) }
}

const fn expected(kind: Option<ColumnKind>, is_boolean: bool) -> Expected {
    match kind {
        None => Expected::Open,
        Some(ColumnKind::Number) => Expected::Numbers,
        Some(ColumnKind::Category) if is_boolean => Expected::Booleans,
        Some(ColumnKind::Category) => Expected::Texts,
    }
}

/// Names of categories that are nothing but `true` and `false`.
pub(super) fn booleans(rows: &Rows) -> BTreeSet<String> {
    let all = rows.features.iter().chain(&rows.target);
    let are = all.filter(|column| match &column.values {
        Values::Category(values) => are_booleans(values.names()),
        Values::Number(_) => false,
    });
    are.map(|column| column.name.clone()).collect()
}

/// Whether texts are nothing but `true` and `false`.
pub fn are_booleans(texts: &[String]) -> bool {
    !texts.is_empty() && texts.iter().all(|text| text == "true" || text == "false")
}

fn refuse_formats(files: &[Location], uri: &str) -> Result<(), DataError> {
    let mut names = files.iter().map(Location::uri);
    let Some(first) = names.next() else { return Ok(()) };
    match names.find(|name| Format::of(name) != Format::of(&first)) {
        None => Ok(()),
        Some(second) => Err(DataError::Formats { uri: uri.to_owned(), first, second }),
    }
}

struct FileReader<'a> {
    name: String,
    selection: Selection<'a>,
    format: Format,
    table: Table,
}

impl<'a> FileReader<'a> {
    fn open(
        name: &str,
        bytes: Bytes,
        selection: Selection<'a>,
        expect: &dyn Fn(&str) -> Expected,
    ) -> Result<Self, DataError> {
        let (format, file) = (Format::of(name), || name.to_owned());
        let table = Table::open(format, bytes, expect).map_err(|why| match why {
            Unreadable::Damaged(cause) => DataError::Corrupt { file: file(), format, cause },
            Unreadable::NoNumber { column, cell, row } => {
                let cell = shorten(&cell, MAX_CELL).into_owned();
                DataError::NoNumber { column, file: file(), cell, row }
            }
            Unreadable::NoTime { column, cell, row } => {
                let cell = shorten(&cell, MAX_CELL).into_owned();
                DataError::NoTime { column, file: file(), cell, row }
            }
            Unreadable::Mixed { column, problem } => DataError::Mixed { column, file: file(), problem },
        })?;
        Ok(Self { name: file(), selection, format, table })
    }

    /// What the target is in this file; the same as `known`, if that is something.
    fn target_kind(&self, known: Option<ColumnKind>) -> Result<Option<ColumnKind>, DataError> {
        let column = self.selection.target.to_owned();
        let field = self.table.schema().field_with_name(&column).ok();
        match (field.and_then(|field| kind_of(field.data_type())), known) {
            (Some(found), Some(expected)) if found != expected => {
                Err(DataError::KindDiffers { column, file: self.name.clone(), found, expected })
            }
            (found, known) => Ok(known.or(found)),
        }
    }

    /// The features of this file and their kinds; the same as `known`.
    fn features(&self, known: Option<&Columns>) -> Result<Columns, DataError> {
        let schema = self.table.schema();
        let named = |name: &str| schema.fields().iter().any(|field| field.name() == name);
        let no_column =
            |column: &str| DataError::NoColumn { column: column.to_owned(), file: self.name.clone() };
        for name in self.selection.beside.names().chain([self.selection.target]) {
            if !named(name) {
                return Err(no_column(name));
            }
        }
        let mut kinds = Columns::new();
        for field in schema.fields() {
            let name = field.name();
            if name == self.selection.target || !self.selection.features.may_be(name) {
                continue;
            }
            kinds.insert(
                name.clone(),
                kind_of(field.data_type()).ok_or_else(|| self.bad_feature(name, field.data_type()))?,
            );
        }
        if let Some(known) = known {
            self.compare(known, &kinds)?;
        }
        if kinds.is_empty() {
            return Err(DataError::NoFeatures { file: self.name.clone() });
        }
        Ok(kinds)
    }

    fn compare(&self, known: &Columns, kinds: &Columns) -> Result<(), DataError> {
        let file = || self.name.clone();
        if let Some(column) = known.keys().find(|name| !kinds.contains_key(*name)) {
            return Err(DataError::NoColumn { column: column.clone(), file: file() });
        }
        for (column, &found) in kinds {
            let column = column.clone();
            match known.get(&column) {
                None => return Err(DataError::ExtraColumn { column, file: file() }),
                Some(&expected) if expected != found => {
                    return Err(DataError::KindDiffers { column, file: file(), found, expected });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn append(self, kinds: &Columns, rows: &mut Rows) -> Result<(), DataError> {
        let Self { name: file, selection, format, table } = self;
        let corrupt = |cause: String| DataError::Corrupt { file: file.clone(), format, cause };
        let is_wanted = |name: &str| {
            kinds.contains_key(name)
                || name == selection.target
                || selection.beside.names().any(|other| other == name)
        };
        let batches = table.batches(is_wanted).map_err(corrupt)?;
        let first = rows.count;
        for batch in batches {
            let batch = batch.map_err(corrupt)?;
            let source = Source { file: &file, batch: &batch, row: rows.count - first };
            append_batch(&source, kinds, selection, rows)?;
        }
        Ok(())
    }

    fn bad_feature(&self, column: &str, kind: &DataType) -> DataError {
        let problem = if kind.is_null() {
            "says nothing, because no row has a value: fill it, or list the column under data.exclude"
        } else if kind.is_temporal() {
            "is a time and no feature: list the column under data.exclude"
        } else {
            "is neither a number nor a text: list the column under data.exclude or convert it"
        };
        DataError::Type {
            column: column.to_owned(),
            file: self.name.clone(),
            kind: shorten(&kind.to_string(), MAX_CELL).into_owned(),
            problem,
        }
    }
}
