//! Values separated by commas or tabs, the first line their names.

use std::{collections::BTreeSet, sync::Arc};

use arrow::array::{ArrayRef, LargeStringBuilder};
use csv::{Reader, ReaderBuilder, StringRecord};

use super::{
    Chunked, Expect, Unreadable,
    cells::{Allowed, typed},
};

/// Most rows of a batch, and most bytes after which it ends.
const ROWS: usize = 65_536;
const BYTES: usize = 1 << 26;

/// All rows of a file; no column where there is no header line.
///
/// # Errors
/// When it is damaged, or a column is not what it is expected to be.
pub(super) fn read(bytes: &[u8], delimiter: u8, expect: Expect<'_>) -> Result<Vec<Chunked>, Unreadable> {
    check_quotes(bytes, delimiter).map_err(Unreadable::Damaged)?;
    let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(bytes);
    let names = names(&mut reader).map_err(Unreadable::Damaged)?;
    let columns = columns(&mut reader, names.len()).map_err(Unreadable::Damaged)?;
    let typed = |(name, chunks): (String, Vec<ArrayRef>)| {
        let chunks = typed(&name, chunks, Allowed::Anything, expect(&name))?;
        Ok((name, chunks))
    };
    names.into_iter().zip(columns).map(typed).collect()
}

#[derive(Clone, Copy)]
enum At {
    Start,
    Plain,
    Quoted { opened: usize },
    Closed,
}

/// Refuses what the reader would take for a part of a value: rows after a quote that nobody closes, and rows between two
/// values that only begin with one.
fn check_quotes(bytes: &[u8], delimiter: u8) -> Result<(), String> {
    let (mut at, mut line) = (At::Start, 1);
    for &byte in bytes {
        let ends = byte == delimiter || byte == b'\n' || byte == b'\r';
        at = match (at, byte) {
            (At::Start, b'"') => At::Quoted { opened: line },
            (At::Quoted { .. }, b'"') => At::Closed,
            // A quote within quotes is written twice.
            (At::Closed, b'"') => At::Quoted { opened: line },
            (At::Quoted { opened }, _) => At::Quoted { opened },
            (At::Closed, _) if !ends => {
                return Err(format!("line {line}: a value goes on after its closing quote"));
            }
            (At::Start | At::Plain | At::Closed, _) => {
                if ends {
                    At::Start
                } else {
                    At::Plain
                }
            }
        };
        line += usize::from(byte == b'\n');
    }
    match at {
        At::Quoted { opened } => Err(format!("line {opened}: a quote is opened and not closed")),
        At::Start | At::Plain | At::Closed => Ok(()),
    }
}

fn names(reader: &mut Reader<&[u8]>) -> Result<Vec<String>, String> {
    let header = reader.headers().map_err(|error| error.to_string())?;
    let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| name.is_empty() || !seen.insert(name.as_str())) {
        None => Ok(names),
        Some(name) if name.is_empty() => Err("its header line has a column without a name".to_owned()),
        Some(name) => Err(format!("its header line has the column `{name}` twice")),
    }
}

/// Each column in chunks of texts; there is at least one chunk.
fn columns(reader: &mut Reader<&[u8]>, count: usize) -> Result<Vec<Vec<ArrayRef>>, String> {
    let mut done: Vec<Vec<ArrayRef>> = vec![Vec::new(); count];
    let mut open: Vec<LargeStringBuilder> = (0..count).map(|_| LargeStringBuilder::new()).collect();
    let end = |open: &mut [LargeStringBuilder], done: &mut [Vec<ArrayRef>]| {
        for (chunks, builder) in done.iter_mut().zip(open) {
            chunks.push(Arc::new(builder.finish()));
        }
    };
    let (mut rows, mut bytes) = (0, 0);
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| error.to_string())? {
        for (builder, cell) in open.iter_mut().zip(&record) {
            builder.append_option(Some(cell).filter(|cell| !cell.is_empty()));
        }
        (rows, bytes) = (rows + 1, bytes + record.as_slice().len());
        if rows >= ROWS || bytes >= BYTES {
            end(&mut open, &mut done);
            (rows, bytes) = (0, 0);
        }
    }
    end(&mut open, &mut done);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::check_quotes;

    #[test]
    fn quotes_are_closed_and_nothing_follows_them() {
        for good in
            ["a,b\n1,\"x, y\"\n", "\"a\"\"b\"\r\n\"c\"", "a\n6\" inch\n", "", "a,\"\",b", "\"a\nb\",c\n"]
        {
            assert_eq!(check_quotes(good.as_bytes(), b','), Ok(()), "{good}");
        }
        for (bad, line) in [
            ("a,b\n1,\"6 inch\n2,3\n", "line 2: a quote is opened"),
            ("a\n\"x\" y\n", "line 2: a value goes on"),
            ("a\n\"x\n\"y\n", "line 3: a value goes on"),
        ] {
            let told = check_quotes(bad.as_bytes(), b',').unwrap_err();
            assert!(told.contains(line), "{told}");
        }
    }
}
