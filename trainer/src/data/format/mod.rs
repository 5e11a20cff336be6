//! Files of rows in the formats that their names tell, each as Arrow batches.
//!
//! Called by `read`. A column has one type throughout a file, whatever the format.

mod cells;
mod delimited;
mod json_lines;

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Schema, SchemaRef},
};
use bytes::Bytes;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Parquet, also under a name that tells nothing.
    Parquet,
    /// Values separated by commas (RFC 4180), with a header line.
    Csv,
    /// The same with tabs.
    Tsv,
    /// A JSON object on each line.
    JsonLines,
}

impl Format {
    /// What a file of this name is.
    pub(super) fn of(name: &str) -> Self {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        match extension.as_deref() {
            Some("csv") => Self::Csv,
            Some("tsv") => Self::Tsv,
            Some("jsonl" | "ndjson" | "json") => Self::JsonLines,
            Some(_) | None => Self::Parquet,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parquet => "Parquet",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::JsonLines => "JSON lines",
        })
    }
}

/// What a column of a format without types is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Nobody looks at it.
    Ignored,
    /// What its cells say.
    Open,
    /// Numbers, as elsewhere.
    Numbers,
    /// Texts as they are written.
    Texts,
    /// Dates and times.
    Times,
    /// `true` and `false`, as elsewhere, in whatever case they are written.
    Booleans,
}

/// What a column is to be, by its name.
pub(super) type Expect<'a> = &'a dyn Fn(&str) -> Expected;

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not of its format, or damaged; in words.
    Damaged(String),
    /// A cell among numbers that is none.
    NoNumber { column: String, cell: String, row: usize },
    /// A cell among times that is none.
    NoTime { column: String, cell: String, row: usize },
    /// Values of more than one kind, or of one that is no value of a table; in words.
    Mixed { column: String, problem: String },
}

impl Unreadable {
    fn damaged(error: impl ToString) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// An open file.
pub(super) enum Table {
    /// Columns are read when they are asked for.
    Parquet(Box<ParquetRecordBatchReaderBuilder<Bytes>>),
    /// A type is known only when all rows were read.
    Read(SchemaRef, Vec<RecordBatch>),
}

impl Table {
    /// Opens a file.
    ///
    /// # Errors
    /// When it is not of this format or damaged, or a column is not what it is expected to be.
    pub(super) fn open(format: Format, bytes: Bytes, expect: Expect<'_>) -> Result<Self, Unreadable> {
        /// Spreadsheets write it at the start of a file.
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        match format {
            Format::Parquet => {
                let builder = ParquetRecordBatchReaderBuilder::try_new(bytes);
                Ok(Self::Parquet(Box::new(builder.map_err(Unreadable::damaged)?)))
            }
            Format::Csv => assemble(delimited::read(text, b',', expect)?),
            Format::Tsv => assemble(delimited::read(text, b'\t', expect)?),
            Format::JsonLines => assemble(json_lines::read(text, expect)?),
        }
    }

    /// Its columns.
    pub(super) fn schema(&self) -> &SchemaRef {
        match self {
            Self::Parquet(builder) => builder.schema(),
            Self::Read(schema, _) => schema,
        }
    }

    /// Whether there was no cell from which a type could be told.
    pub(super) fn has_no_types(&self) -> bool {
        match self {
            Self::Parquet(_) => false,
            Self::Read(_, batches) => batches.iter().all(|batch| batch.num_rows() == 0),
        }
    }

    /// Its rows; at least the columns that are wanted.
    ///
    /// # Errors
    /// In words, when it is damaged.
    pub(super) fn batches(
        self,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Box<dyn Iterator<Item = Result<RecordBatch, String>>>, String> {
        match self {
            Self::Parquet(builder) => {
                let fields = builder.schema().fields().iter().enumerate();
                let roots: Vec<usize> =
                    fields.filter(|(_, field)| is_wanted(field.name())).map(|(index, _)| index).collect();
                let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
                let reader = builder.with_projection(mask).build().map_err(|error| error.to_string())?;
                Ok(Box::new(reader.map(|batch| batch.map_err(|error| error.to_string()))))
            }
            Self::Read(_, batches) => Ok(Box::new(batches.into_iter().map(Ok))),
        }
    }
}

/// A column's name, and its rows in chunks that are as long as those of the other columns.
type Chunked = (String, Vec<ArrayRef>);

fn assemble(columns: Vec<Chunked>) -> Result<Table, Unreadable> {
    let chunks = columns.first().map_or(0, |(_, chunks)| chunks.len());
    let batch = |chunk: usize| {
        // All columns may be empty somewhere, also where no cell of this chunk is.
        let columns = columns.iter().map(|(name, chunks)| (name, chunks[chunk].clone(), true));
        RecordBatch::try_from_iter_with_nullable(columns).map_err(Unreadable::damaged)
    };
    let batches: Vec<RecordBatch> = (0..chunks).map(batch).collect::<Result<_, _>>()?;
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    Ok(Table::Read(schema, batches))
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn a_name_tells_the_format() {
        for (name, format) in [
            ("s3://rows/part-1.parquet", Format::Parquet),
            ("file:///rows/part-0", Format::Parquet),
            ("file:///rows.csv/part-0", Format::Parquet),
            ("rows.CSV", Format::Csv),
            ("rows.tsv", Format::Tsv),
            ("rows.2026.jsonl", Format::JsonLines),
            ("rows.ndjson", Format::JsonLines),
        ] {
            assert_eq!(Format::of(name), format, "{name}");
        }
    }
}
