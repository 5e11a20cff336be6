//! What the cells of a text column hold, told from all of them.

use std::{collections::HashSet, sync::Arc};

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, LargeStringArray, NullArray,
    TimestampMillisecondArray,
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{Expected, Unreadable};

/// Texts by which people say that there is no number. Among other texts they are texts.
const MARKS: [&str; 6] = ["na", "n/a", "null", "none", "?", "-"];
/// The share of cells that are numbers from which on a column is one of numbers, and its other cells are errors; if there are
/// fractions among them, or more than so many different ones, because a few whole numbers may be names.
const MOSTLY: f64 = 0.9;
const NAMES: usize = 100;

/// What a text may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Anything, where a format has only texts.
    Anything,
    /// Times, where a format has numbers and booleans of its own.
    Times,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    Wholes,
    Numbers,
    Booleans,
    Times,
    Texts,
}

/// A column whose chunks are arrays of texts, in chunks of one other type if all cells can be read as that.
///
/// # Errors
/// When a cell is no number and the others are.
pub(super) fn typed(
    name: &str,
    chunks: Vec<ArrayRef>,
    allowed: Allowed,
    expected: Expected,
) -> Result<Vec<ArrayRef>, Unreadable> {
    let holds = match expected {
        Expected::Ignored | Expected::Texts => Holds::Texts,
        Expected::Open => match holds(&chunks, allowed) {
            Holds::Texts => refuse_odd(name, &chunks, allowed).map(|()| Holds::Texts)?,
            other @ (Holds::Nothing | Holds::Wholes | Holds::Numbers | Holds::Booleans | Holds::Times) => {
                other
            }
        },
        Expected::Numbers => match (holds(&chunks, allowed), allowed) {
            (Holds::Nothing, _) => Holds::Numbers,
            (Holds::Texts | Holds::Booleans | Holds::Times, Allowed::Anything) => {
                return Err(first_odd(name, &chunks));
            }
            (other, _) => other,
        },
        Expected::Times => match holds(&chunks, allowed) {
            Holds::Times | Holds::Nothing => Holds::Times,
            Holds::Wholes | Holds::Numbers | Holds::Booleans | Holds::Texts => {
                let (row, cell) = first(&chunks, |text| time(text).is_none());
                return Err(Unreadable::NoTime { column: name.to_owned(), cell, row });
            }
        },
        Expected::Booleans => return Ok(chunks.into_iter().map(lower_booleans).collect()),
    };
    Ok(chunks.into_iter().map(|chunk| convert(chunk, holds)).collect())
}

fn convert(chunk: ArrayRef, holds: Holds) -> ArrayRef {
    let texts = chunk.as_string::<i64>().iter();
    match holds {
        Holds::Nothing => Arc::new(NullArray::new(chunk.len())),
        Holds::Wholes => Arc::new(texts.map(|text| whole(text?)).collect::<Int64Array>()),
        Holds::Numbers => Arc::new(texts.map(|text| number(text?)).collect::<Float64Array>()),
        Holds::Booleans => Arc::new(texts.map(|text| boolean(text?)).collect::<BooleanArray>()),
        Holds::Times => Arc::new(texts.map(|text| time(text?)).collect::<TimestampMillisecondArray>()),
        Holds::Texts => chunk,
    }
}

/// Texts in which `True` is `true`; others stay as they are.
fn lower_booleans(chunk: ArrayRef) -> ArrayRef {
    let lower = |text| match boolean(text) {
        Some(true) => "true",
        Some(false) => "false",
        None => text,
    };
    Arc::new(chunk.as_string::<i64>().iter().map(|text| text.map(lower)).collect::<LargeStringArray>())
}

fn texts(chunks: &[ArrayRef]) -> impl Iterator<Item = Option<&str>> {
    chunks.iter().flat_map(|chunk| chunk.as_string::<i64>().iter())
}

fn holds(chunks: &[ArrayRef], allowed: Allowed) -> Holds {
    let (mut wholes, mut numbers, mut booleans, mut times) = match allowed {
        Allowed::Anything => (true, true, true, true),
        Allowed::Times => (false, false, false, true),
    };
    let mut is_any = false;
    for text in texts(chunks).flatten().filter(|text| !is_mark(text)) {
        is_any = true;
        wholes = wholes && whole(text).is_some();
        numbers = numbers && number(text).is_some();
        booleans = booleans && boolean(text).is_some();
        times = times && time(text).is_some();
        if !numbers && !booleans && !times {
            return Holds::Texts;
        }
    }
    match (is_any, wholes, numbers, booleans, times) {
        (false, ..) => Holds::Nothing,
        (true, true, ..) => Holds::Wholes,
        (true, false, true, ..) => Holds::Numbers,
        (true, false, false, true, _) => Holds::Booleans,
        (true, false, false, false, true) => Holds::Times,
        (true, false, false, false, false) => Holds::Texts,
    }
}

/// Refuses a column of which nearly all cells are numbers: as a category, its few other cells would cost all that the numbers say.
fn refuse_odd(name: &str, chunks: &[ArrayRef], allowed: Allowed) -> Result<(), Unreadable> {
    match allowed {
        Allowed::Times => return Ok(()),
        Allowed::Anything => {}
    }
    let (mut count, mut are_numbers, mut has_fractions) = (0_usize, 0_usize, false);
    let mut different = HashSet::new();
    for text in texts(chunks).flatten().filter(|text| !is_mark(text)) {
        count += 1;
        if let Some(value) = number(text) {
            are_numbers += 1;
            has_fractions |= value.fract() != 0.0;
            if different.len() <= NAMES {
                different.insert(value.to_bits());
            }
        }
    }
    let are_measured = has_fractions || different.len() > NAMES;
    if are_measured && are_numbers as f64 >= MOSTLY * count as f64 {
        return Err(first_odd(name, chunks));
    }
    Ok(())
}

fn first_odd(name: &str, chunks: &[ArrayRef]) -> Unreadable {
    let (row, cell) = first(chunks, |text| number(text).is_none());
    Unreadable::NoNumber { column: name.to_owned(), cell, row }
}

/// The first cell that says something `odd`, with its row.
fn first(chunks: &[ArrayRef], odd: impl Fn(&str) -> bool) -> (usize, String) {
    let found = texts(chunks).enumerate().find_map(|(row, text)| {
        text.filter(|text| odd(text) && !is_mark(text)).map(|text| (row, text.to_owned()))
    });
    found.unwrap_or_default()
}

fn is_mark(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || MARKS.iter().any(|mark| text.eq_ignore_ascii_case(mark))
}

fn whole(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// NaN and infinities too: a number that is none is an error, and no text.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn boolean(text: &str) -> Option<bool> {
    let text = text.trim();
    match (text.eq_ignore_ascii_case("true"), text.eq_ignore_ascii_case("false")) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// Milliseconds since 1970; a time without a zone is one of UTC.
fn time(text: &str) -> Option<i64> {
    let text = text.trim();
    let local = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp());
    let time = text.parse::<Timestamp>().ok().or_else(local)?;
    Some(time.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(cells: &[&str]) -> Vec<ArrayRef> {
        cells.iter().map(|cell| Arc::new(LargeStringArray::from(vec![*cell])) as ArrayRef).collect()
    }

    #[test]
    fn a_column_is_what_all_its_cells_can_be_read_as() {
        for (cells, expected) in [
            (vec!["1", " -2 ", "+3"], Holds::Wholes),
            (vec!["1", "2.5", "1e-3", ".5"], Holds::Numbers),
            (vec!["1", "NaN", "-inf"], Holds::Numbers),
            (vec!["123456789012345678901"], Holds::Numbers),
            (vec!["1", "NA", "", "n/a", "?"], Holds::Wholes),
            (vec!["True", "FALSE", ""], Holds::Booleans),
            (vec!["true", "maybe"], Holds::Texts),
            (vec!["NA", "EU"], Holds::Texts),
            (vec!["", "NA"], Holds::Nothing),
            (vec!["1", "one"], Holds::Texts),
            (vec!["1,5"], Holds::Texts),
            (vec!["2026-11-21", "2026-11-22 10:00", "2026-11-22T10:00:00Z"], Holds::Times),
            (vec!["2026-11-21", "1"], Holds::Texts),
        ] {
            assert_eq!(holds(&column(&cells), Allowed::Anything), expected, "{cells:?}");
        }
        assert_eq!(holds(&column(&["1"]), Allowed::Times), Holds::Texts, "what is a text in JSON is a text");
    }

    #[test]
    fn a_cell_among_numbers_is_named() {
        let fractions = ["0.5"; 9];
        let wholes: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let wholes: Vec<&str> = wholes.iter().map(String::as_str).collect();
        let sizes = ["38"; 9];
        let with = |cells: &[&'static str], odd: &'static str| [cells, &[odd]].concat();
        let read = |cells: &[&str], expected| typed("x", column(cells), Allowed::Anything, expected);
        let odd = |cell: &str, row| Err(Unreadable::NoNumber { column: "x".into(), cell: cell.into(), row });
        assert_eq!(read(&with(&fractions, "1,234.50"), Expected::Open), odd("1,234.50", 9));
        assert_eq!(read(&[wholes.as_slice(), &["#DIV/0!"]].concat(), Expected::Open), odd("#DIV/0!", 1000));
        assert!(read(&with(&sizes, "L"), Expected::Open).is_ok(), "a few numbers may be names");
        assert!(read(&with(&fractions[..8], "many"), Expected::Open).is_ok());
        assert_eq!(read(&["NA", "L", "38"], Expected::Numbers), odd("L", 1));
    }

    #[test]
    fn booleans_are_the_same_in_any_case_where_they_are_known() {
        let cells = typed("x", column(&["True", "FALSE", "Truest"]), Allowed::Anything, Expected::Booleans);
        let cells = cells.unwrap();
        assert_eq!(texts(&cells).flatten().collect::<Vec<_>>(), ["true", "false", "Truest"]);
    }

    #[test]
    fn times_are_those_of_utc_where_they_do_not_say() {
        assert_eq!(time("1970-01-01 00:00:01.5"), Some(1_500));
        assert_eq!(time("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(time("red"), None);
    }
}
