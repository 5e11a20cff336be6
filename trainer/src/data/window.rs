//! The rows of a time window.

use anneal_crds::retrain_job::Window;

use super::{error::DataError, table::Rows};

/// The rows that lie in the window, in their order.
///
/// # Errors
/// When there is none.
pub(super) fn within(window: &Window, rows: Rows) -> Result<Rows, DataError> {
    let times = rows.times.get(&window.column).map(Vec::as_slice).unwrap_or_default();
    // Half open: the newest row of all belongs to a window that ends with it.
    let after = match &window.end {
        Some(end) => end.ends_ms(),
        None => times.iter().max().map_or(i64::MIN, |newest| newest.saturating_add(1)),
    };
    let first = match (&window.start, window.last) {
        (Some(start), _) => start.begins_ms(),
        (None, Some(last)) => after.saturating_sub(last.as_millis()),
        (None, None) => i64::MIN,
    };
    let inside: Vec<usize> = (0..times.len()).filter(|row| (first..after).contains(&times[*row])).collect();
    if inside.is_empty() {
        let (column, rows) = (window.column.clone(), rows.count);
        return Err(DataError::NothingInWindow { column, rows });
    }
    Ok(if inside.len() == rows.count { rows } else { rows.take(&inside) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn kept(window: &str, days: &[i64]) -> Vec<i64> {
        let window: Window = serde_json::from_str(window).unwrap();
        let times = days.iter().map(|day| day * DAY).collect();
        let rows = Rows { count: days.len(), times: [("ts".to_owned(), times)].into(), ..Rows::default() };
        within(&window, rows).map_or(vec![], |rows| rows.times["ts"].iter().map(|time| time / DAY).collect())
    }

    #[test]
    fn a_window_takes_whole_days() {
        let days: Vec<i64> = (0..100).rev().collect();
        let from = |first: i64, last: i64| (first..=last).rev().collect::<Vec<_>>();
        assert_eq!(kept(r#"{"column": "ts", "last": "90d"}"#, &days), from(10, 99));
        assert_eq!(kept(r#"{"column": "ts", "start": "1970-01-11"}"#, &days), from(10, 99));
        assert_eq!(kept(r#"{"column": "ts", "end": "1970-01-11"}"#, &days), from(0, 10));
        assert_eq!(kept(r#"{"column": "ts", "end": "1970-01-11T00:00:00Z"}"#, &days), from(0, 9));
        assert_eq!(kept(r#"{"column": "ts", "last": "2d", "end": "1970-01-11"}"#, &days), from(9, 10));
        assert_eq!(kept(r#"{"column": "ts", "start": "1980-01-01"}"#, &days), from(1, 0));
    }
}
