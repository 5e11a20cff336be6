//! Reads Parquet files into [`Rows`].
//!
//! Files of a pattern are read in the order of their names, so the same folder gives the same rows.

use std::collections::BTreeMap;

use anneal_crds::contract::Task;
use arrow::datatypes::{DataType, Schema as ArrowSchema};
use bytes::Bytes;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use tokio::runtime::Handle;

use super::{
    batch::{Source, append_batch, kind_of},
    error::DataError,
    files::expand,
    table::{ColumnKind, Rows},
};
use crate::storage::Location;

/// Which columns to read, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Column to predict.
    pub target: &'a str,
    /// What the target is read as.
    pub task: Task,
    /// Column whose text decides the split.
    pub key: Option<&'a str>,
    /// Columns to learn from.
    pub features: Features<'a>,
}

/// Names of columns with what they hold.
pub type Columns = BTreeMap<String, ColumnKind>;

/// Which columns are features.
#[derive(Clone, Copy, Debug)]
pub enum Features<'a> {
    /// All but the target and these; the first file decides which they are.
    AllBut(&'a [String]),
    /// As before, and they must be exactly these columns.
    Exactly {
        /// The columns that other rows have.
        columns: &'a Columns,
        /// Columns that are not features.
        exclude: &'a [String],
    },
    /// These; others are not looked at.
    Only(&'a Columns),
}

impl<'a> Features<'a> {
    fn may_be(self, name: &str) -> bool {
        match self {
            Self::AllBut(exclude) | Self::Exactly { exclude, .. } => {
                !exclude.iter().any(|other| other == name)
            }
            Self::Only(columns) => columns.contains_key(name),
        }
    }

    const fn known(self) -> Option<&'a Columns> {
        match self {
            Self::AllBut(_) => None,
            Self::Exactly { columns, .. } | Self::Only(columns) => Some(columns),
        }
    }
}

/// Reads all rows of a file or pattern; there is at least one.
///
/// # Errors
/// When a file is missing or damaged, columns differ, a value cannot be used, or there is no row.
pub fn read(runtime: &Handle, uri: &str, selection: Selection<'_>) -> Result<Rows, DataError> {
    read_files(&expand(runtime, uri)?, uri, selection)
}

/// Reads all rows of the files that `uri` names.
pub(super) fn read_files(files: &[Location], uri: &str, selection: Selection<'_>) -> Result<Rows, DataError> {
    let mut known = selection.features.known().cloned();
    let mut rows = Rows { key: selection.key.map(|_| Vec::new()), ..Rows::default() };
    for file in files {
        let bytes = file.read()?;
        let file = FileReader::open(&file.uri(), bytes, selection)?;
        let kinds = file.features(known.as_ref())?;
        file.append(&kinds, &mut rows)?;
        known.get_or_insert(kinds);
    }
    if rows.count == 0 { Err(DataError::NoRows { uri: uri.to_owned() }) } else { Ok(rows) }
}

struct FileReader<'a> {
    name: String,
    selection: Selection<'a>,
    builder: ParquetRecordBatchReaderBuilder<Bytes>,
}

impl<'a> FileReader<'a> {
    fn open(name: &str, bytes: Bytes, selection: Selection<'a>) -> Result<Self, DataError> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .map_err(|error| DataError::Corrupt { file: name.to_owned(), cause: error.to_string() })?;
        Ok(Self { name: name.to_owned(), selection, builder })
    }

    /// The features of this file and their kinds; the same as `known`.
    fn features(&self, known: Option<&Columns>) -> Result<Columns, DataError> {
        let schema: &ArrowSchema = self.builder.schema();
        let named = |name: &str| schema.fields().iter().any(|field| field.name() == name);
        let no_column =
            |column: &str| DataError::NoColumn { column: column.to_owned(), file: self.name.clone() };
        for name in [Some(self.selection.target), self.selection.key].into_iter().flatten() {
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
        let Self { name: file, selection, builder } = self;
        let corrupt = |cause: String| DataError::Corrupt { file: file.clone(), cause };
        let wanted = kinds.keys().map(String::as_str).chain([selection.target]).chain(selection.key);
        let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
        let reader = builder.with_projection(mask).build().map_err(|error| corrupt(error.to_string()))?;
        let first = rows.count;
        for batch in reader {
            let batch = batch.map_err(|error| corrupt(error.to_string()))?;
            let source = Source { file: &file, batch: &batch, row: rows.count - first };
            append_batch(&source, kinds, selection, rows)?;
        }
        Ok(())
    }

    fn bad_feature(&self, column: &str, kind: &DataType) -> DataError {
        let problem = if kind.is_temporal() {
            "is a time and no feature: list the column under data.exclude"
        } else {
            "is neither a number nor a text: list the column under data.exclude or convert it"
        };
        DataError::Type {
            column: column.to_owned(),
            file: self.name.clone(),
            kind: kind.to_string(),
            problem,
        }
    }
}
