//! Which files a URI or pattern names, looked at before any of them is read.
//!
//! Called by `load` and `read`.

use std::collections::BTreeSet;

use tokio::runtime::Handle;

use super::error::DataError;
use crate::storage::Location;

/// The files of a URI, or of a pattern in the order of their names.
pub(super) fn expand(runtime: &Handle, uri: &str) -> Result<Vec<Location>, DataError> {
    let place = Location::open(runtime, uri)?;
    let missing = || DataError::Missing { uri: uri.to_owned() };
    let (folder, name) = place.split().ok_or_else(missing)?;
    if !name.contains('*') {
        return Ok(vec![place]);
    }
    let names = folder.list()?.files;
    let files: Vec<_> =
        names.iter().filter(|file| matches(&name, file)).map(|file| folder.join(file)).collect();
    if files.is_empty() { Err(missing()) } else { Ok(files) }
}

/// Refuses a file that is to be learnt from and to be judged on.
pub(super) fn refuse_shared(train: &[Location], validation: &[Location]) -> Result<(), DataError> {
    let learnt: BTreeSet<String> = train.iter().map(Location::uri).collect();
    match validation.iter().map(Location::uri).find(|file| learnt.contains(file)) {
        Some(file) => Err(DataError::Shared { file }),
        None => Ok(()),
    }
}

/// Whether a name fits a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len()).any(|i| tail.is_char_boundary(i) && matches(rest, &tail[i..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("*.parquet", "a.parquet", true),
            ("part-*.parquet", "part-.parquet", true),
            ("part-*.parquet", "other-1.parquet", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "ab€", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
