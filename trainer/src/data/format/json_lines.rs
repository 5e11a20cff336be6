//! JSON lines: an object on each line, its keys the columns.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, LargeStringArray};
use serde_json::{Map, Number, Value};

use super::{
    Chunked, Expect, Expected, Unreadable,
    cells::{Allowed, typed},
};

/// Most rows of a batch.
const ROWS: usize = 8_192;

/// The cells of a column, of one kind from the first that is not null.
enum Cells {
    Nulls(usize),
    Numbers(Vec<Option<Number>>),
    Booleans(Vec<Option<bool>>),
    Texts(Vec<Option<String>>),
}

/// All rows of a file; no column where there is no row. Of columns that nobody looks at only the name is true.
///
/// # Errors
/// When it is damaged, or a column is not of one kind.
pub(super) fn read(bytes: &[u8], expect: Expect<'_>) -> Result<Vec<Chunked>, Unreadable> {
    let mut columns = BTreeMap::<String, Cells>::new();
    let mut ignored = BTreeSet::new();
    let mut rows = 0;
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        for (name, value) in object(line, index + 1)? {
            if expect(&name) == Expected::Ignored {
                ignored.insert(name);
                continue;
            }
            let cells = columns.entry(name.clone()).or_insert(Cells::Nulls(0));
            cells.fill(rows);
            cells.push(value).map_err(|problem| {
                let problem = format!("{problem} in line {}", index + 1);
                Unreadable::Mixed { column: name, problem }
            })?;
        }
        rows += 1;
    }
    columns.extend(ignored.into_iter().map(|name| (name, Cells::Nulls(0))));
    let typed = |(name, mut cells): (String, Cells)| {
        cells.fill(rows);
        let expected = expect(&name);
        let chunks = match cells {
            Cells::Nulls(count) => {
                typed(&name, chunks(&vec![None::<&str>; count], strings), Allowed::Times, expected)?
            }
            Cells::Texts(cells) => typed(&name, chunks(&cells, strings), Allowed::Times, expected)?,
            Cells::Booleans(cells) => chunks(&cells, |cells| Arc::new(BooleanArray::from(cells.to_vec()))),
            Cells::Numbers(cells) => numbers(&cells),
        };
        Ok((name, chunks))
    };
    columns.into_iter().map(typed).collect()
}

fn object(line: &[u8], number: usize) -> Result<Map<String, Value>, Unreadable> {
    let hint = "each line is to hold one whole object";
    match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(Unreadable::Damaged(format!("line {number} is no object, and {hint}")))
        }
        Err(error) => {
            // It counts lines from where it was told to begin.
            let text = error.to_string();
            let (why, _) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
            let column = error.column();
            Err(Unreadable::Damaged(format!("line {number}, column {column}: {why}; {hint}")))
        }
    }
}

impl Cells {
    const fn len(&self) -> usize {
        match self {
            Self::Nulls(count) => *count,
            Self::Numbers(cells) => cells.len(),
            Self::Booleans(cells) => cells.len(),
            Self::Texts(cells) => cells.len(),
        }
    }

    /// Rows that do not have the column have a null there.
    fn fill(&mut self, rows: usize) {
        match self {
            Self::Nulls(count) => *count = rows,
            Self::Numbers(cells) => cells.resize(rows, None),
            Self::Booleans(cells) => cells.resize(rows, None),
            Self::Texts(cells) => cells.resize(rows, None),
        }
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if let Self::Nulls(count) = *self {
            *self = match &value {
                Value::Null | Value::Array(_) | Value::Object(_) => Self::Nulls(count),
                Value::Number(_) => Self::Numbers(vec![None; count]),
                Value::Bool(_) => Self::Booleans(vec![None; count]),
                Value::String(_) => Self::Texts(vec![None; count]),
            };
        }
        let before = self.kind();
        match (self, value) {
            (Self::Numbers(cells), Value::Number(number)) => cells.push(Some(number)),
            (Self::Booleans(cells), Value::Bool(boolean)) => cells.push(Some(boolean)),
            (Self::Texts(cells), Value::String(text)) => cells.push(Some(text)),
            (cells, Value::Null) => cells.fill(cells.len() + 1),
            (_, Value::Array(_)) => return Err("is a list".to_owned()),
            (_, Value::Object(_)) => return Err("is an object".to_owned()),
            (_, Value::Number(_)) => return Err(format!("is a {before} in earlier lines and a number")),
            (_, Value::Bool(_)) => return Err(format!("is a {before} in earlier lines and a boolean")),
            (_, Value::String(_)) => return Err(format!("is a {before} in earlier lines and a text")),
        }
        Ok(())
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Nulls(_) => "null",
            Self::Numbers(_) => "number",
            Self::Booleans(_) => "boolean",
            Self::Texts(_) => "text",
        }
    }
}

fn chunks<T>(cells: &[T], array: impl Fn(&[T]) -> ArrayRef) -> Vec<ArrayRef> {
    cells.chunks(ROWS).map(array).collect()
}

fn strings<T: AsRef<str>>(cells: &[Option<T>]) -> ArrayRef {
    Arc::new(cells.iter().map(Option::as_ref).collect::<LargeStringArray>())
}

fn numbers(cells: &[Option<Number>]) -> Vec<ArrayRef> {
    if cells.iter().flatten().all(|number| number.as_i64().is_some()) {
        let whole = |cell: &Option<Number>| cell.as_ref().and_then(Number::as_i64);
        chunks(cells, |cells| Arc::new(cells.iter().map(whole).collect::<Int64Array>()))
    } else {
        let number = |cell: &Option<Number>| cell.as_ref().and_then(Number::as_f64);
        chunks(cells, |cells| Arc::new(cells.iter().map(number).collect::<Float64Array>()))
    }
}
