//! The comparison with other tools names a test for each thing that it says of Anneal.

use std::{fs, path::PathBuf};

/// Where chances are measured, which no test shows.
const MEASURED: &str = "[judge.md](judge.md)";

/// Lines of a table's body, by cells.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |"));
    lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
}

#[test]
fn everything_that_is_said_of_anneal_is_shown_by_a_test() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("../docs/comparison.md")).unwrap();
    let mut shown = 0;
    for cells in rows(&text) {
        let (what, anneal, by) = (cells[0], cells[1], cells[cells.len() - 1]);
        if anneal == "N" || by == MEASURED {
            continue;
        }
        let (file, test) =
            by.trim_matches('`').split_once("::").unwrap_or_else(|| unreachable!("{what}: {by}"));
        let folders =
            ["tests/core", "tests/core/rollout_sequential", "tests/core/means", "tests", "demo/tests"];
        let sources =
            folders.map(|folder| fs::read_to_string(root.join(folder).join(file).with_extension("rs")));
        let named = sources.iter().flatten().any(|source| source.contains(&format!("fn {test}(")));
        assert!(named, "{what}: there is no test {by}");
        shown += 1;
    }
    assert!(shown >= 25, "{shown}");
}
