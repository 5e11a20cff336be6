//! Patterns of names, of files and of columns.

/// Whether a name fits a pattern in which `*` stands for any text.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|start| name.strip_prefix(start)) else { return false };
    let Some(end) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // The leftmost place leaves the most to what follows.
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(end)
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
            ("a*a", "a", false),
            ("a*b*b", "ab", false),
            ("**", "", true),
            ("", "a", false),
            ("a*é*", "aéé", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
