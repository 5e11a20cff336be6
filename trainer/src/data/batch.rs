//! Arrow arrays to [`Rows`], with every check of single values.

use anneal_crds::contract::Task;
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, TimeUnit, TimestampMillisecondType},
};
use jiff::Timestamp;

use super::{
    error::DataError,
    read::{Columns, Selection},
    table::{Column, ColumnKind, Rows, Values},
};

/// Adds a batch's rows.
pub(super) fn append_batch(
    source: &Source<'_>,
    kinds: &Columns,
    selection: Selection<'_>,
    rows: &mut Rows,
) -> Result<(), DataError> {
    if rows.features.is_empty() {
        let empty = |(name, kind): (&String, &ColumnKind)| Column {
            name: name.clone(),
            values: Values::empty(*kind),
        };
        rows.features = kinds.iter().map(empty).collect();
    }
    for column in &mut rows.features {
        source.append(&column.name, &mut column.values, NullPolicy::CategoriesMay)?;
    }
    let target = rows.target.get_or_insert_with(|| Column {
        name: selection.target.to_owned(),
        values: Values::empty(match selection.task {
            Task::Classification => ColumnKind::Category,
            Task::Regression => ColumnKind::Number,
        }),
    });
    source.append(selection.target, &mut target.values, NullPolicy::Refuse)?;
    for name in &selection.beside.texts {
        source.append_key(name, rows.texts.entry(name.clone()).or_default())?;
    }
    for name in &selection.beside.times {
        source.append_times(name, rows.times.entry(name.clone()).or_default())?;
    }
    rows.count += source.batch.num_rows();
    Ok(())
}

/// What a column of this type becomes as a feature; none if it cannot be one.
pub(super) fn kind_of(kind: &DataType) -> Option<ColumnKind> {
    if let DataType::Dictionary(_, values) = kind {
        kind_of(values)
    } else if kind.is_numeric() {
        Some(ColumnKind::Number)
    } else if kind.is_string() || *kind == DataType::Boolean {
        Some(ColumnKind::Category)
    } else {
        None
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NullPolicy {
    /// An empty category is a value of its own; an empty number is an error.
    CategoriesMay,
    /// Nothing may be empty.
    Refuse,
}

/// A batch of a file, and where in the file it begins.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) batch: &'a RecordBatch,
    pub(super) row: usize,
}

impl Source<'_> {
    fn append(&self, name: &str, values: &mut Values, nulls: NullPolicy) -> Result<(), DataError> {
        let array = self.array(name)?;
        match values {
            Values::Number(numbers) => numbers.extend(self.numbers(name, &array)?),
            Values::Category(categories) => {
                if nulls == NullPolicy::Refuse {
                    self.refuse_nulls(name, &array)?;
                }
                for text in self.texts(name, &array, nulls)? {
                    categories.push(text.as_deref());
                }
            }
        }
        Ok(())
    }

    fn append_key(&self, name: &str, key: &mut Vec<String>) -> Result<(), DataError> {
        let array = self.array(name)?;
        self.refuse_nulls(name, &array)?;
        if array.data_type().is_floating() {
            return Err(self.bad_type(
                name,
                &array,
                "is no stable key: name a column of texts or whole numbers in data.split.key and data.checks",
            ));
        }
        // A time's text depends on a library's format; its number does not.
        let array =
            if array.data_type().is_temporal() { self.cast(name, &array, &DataType::Int64)? } else { array };
        let texts = self.cast(name, &array, &DataType::Utf8)?;
        key.extend(texts.as_string::<i32>().iter().flatten().map(str::to_owned));
        Ok(())
    }

    fn append_times(&self, name: &str, times: &mut Vec<i64>) -> Result<(), DataError> {
        let array = self.array(name)?;
        self.refuse_nulls(name, &array)?;
        if !matches!(array.data_type(), DataType::Date32 | DataType::Date64 | DataType::Timestamp(..)) {
            let problem =
                "is no time: write it as date or time, or name another column in data.window and data.checks";
            return Err(self.bad_type(name, &array, problem));
        }
        let millis = self.cast(name, &array, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
        let millis = millis.as_primitive::<TimestampMillisecondType>().values();
        let is_impossible = |(_, time): &(usize, &i64)| Timestamp::from_millisecond(**time).is_err();
        if let Some((row, time)) = millis.iter().enumerate().find(is_impossible) {
            let (column, file, cell) = (name.to_owned(), self.file.to_owned(), time.to_string());
            return Err(DataError::NoTime { column, file, cell, row: self.row + row });
        }
        times.extend(millis);
        Ok(())
    }

    fn numbers(&self, name: &str, array: &ArrayRef) -> Result<Vec<f64>, DataError> {
        self.refuse_nulls(name, array)?;
        if kind_of(array.data_type()) != Some(ColumnKind::Number) {
            return Err(self.bad_type(name, array, "is no number: convert it, or use task: classification"));
        }
        let numbers = self.cast(name, array, &DataType::Float64)?;
        let numbers = numbers.as_primitive::<Float64Type>().values().to_vec();
        let bad = || numbers.iter().enumerate().filter(|(_, value)| !value.is_finite());
        if let Some((row, _)) = bad().next() {
            let (column, file) = (name.to_owned(), self.file.to_owned());
            return Err(DataError::NotFinite { column, file, count: bad().count(), row: self.row + row });
        }
        Ok(numbers)
    }

    /// Texts; numbers, which only a target has here, as whole numbers.
    fn texts(
        &self,
        name: &str,
        array: &ArrayRef,
        nulls: NullPolicy,
    ) -> Result<Vec<Option<String>>, DataError> {
        match kind_of(array.data_type()) {
            Some(ColumnKind::Number) if nulls == NullPolicy::Refuse => self
                .numbers(name, array)?
                .into_iter()
                .map(|value| {
                    if value.fract() == 0.0 {
                        Ok(Some(format!("{value:.0}")))
                    } else {
                        Err(self.fraction(name, value))
                    }
                })
                .collect(),
            Some(_) => {
                let texts = self.cast(name, array, &DataType::Utf8)?;
                Ok(texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect())
            }
            None => Err(self.bad_type(name, array, "holds no classes: convert it to a text or whole number")),
        }
    }

    fn array(&self, name: &str) -> Result<ArrayRef, DataError> {
        let missing = || DataError::NoColumn { column: name.to_owned(), file: self.file.to_owned() };
        self.batch.column_by_name(name).cloned().ok_or_else(missing)
    }

    fn cast(&self, name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef, DataError> {
        cast(array, to)
            .map_err(|_| self.bad_type(name, array, "cannot be converted: write it as number or text"))
    }

    fn refuse_nulls(&self, name: &str, array: &ArrayRef) -> Result<(), DataError> {
        match array.logical_null_count() {
            0 => Ok(()),
            count => Err(DataError::Empty { column: name.to_owned(), file: self.file.to_owned(), count }),
        }
    }

    fn bad_type(&self, name: &str, array: &ArrayRef, problem: &'static str) -> DataError {
        let kind = array.data_type().to_string();
        DataError::Type { column: name.to_owned(), file: self.file.to_owned(), kind, problem }
    }

    fn fraction(&self, name: &str, value: f64) -> DataError {
        DataError::FractionalClass { column: name.to_owned(), file: self.file.to_owned(), value }
    }
}
