//! Selectors: which alerts are meant, in Alertmanager's words.

use std::str::FromStr;

use anneal_crds::common::shorten;
use regex::{Regex, RegexBuilder};

use super::{Alert, MAX_NAME};

/// Longest selector, in bytes.
const MAX_SELECTOR: usize = 1024;
/// Most memory of a compiled expression, in bytes.
const MAX_EXPRESSION: usize = 1 << 18;

/// Labels that an alert must have: matchers as Alertmanager writes them, such as
/// `alertname="HighErrors",severity=~"page|critical"`. All of them must hold. A label that an alert lacks is empty, and
/// expressions are anchored at both ends.
#[derive(Clone, Debug)]
pub struct Selector(Vec<Matcher>);

#[derive(Clone, Debug)]
struct Matcher {
    label: String,
    relation: Relation,
}

#[derive(Clone, Debug)]
enum Relation {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    DoesNotMatch(Regex),
}

impl Matcher {
    fn takes(&self, value: &str) -> bool {
        match &self.relation {
            Relation::Equal(wanted) => value == wanted,
            Relation::NotEqual(wanted) => value != wanted,
            Relation::Matches(expression) => expression.is_match(value),
            Relation::DoesNotMatch(expression) => !expression.is_match(value),
        }
    }
}

impl Selector {
    /// Whether all matchers hold.
    pub fn matches(&self, alert: &Alert) -> bool {
        let value = |label: &String| alert.labels.get(label).map_or("", String::as_str);
        self.0.iter().all(|matcher| matcher.takes(value(&matcher.label)))
    }
}

/// Why a selector cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` selects no alerts: {why}; write it like alertname=\"HighErrors\",severity=~\"page|critical\""
)]
pub struct SelectorError {
    text: String,
    why: &'static str,
}

impl SelectorError {
    pub(super) fn new(text: &str, why: &'static str) -> Self {
        Self { text: shorten(text, MAX_NAME).into_owned(), why }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let error = |why| SelectorError::new(text, why);
        if text.len() > MAX_SELECTOR {
            return Err(error("it is too long"));
        }
        let text = text.trim();
        let inner = match text.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}').ok_or_else(|| error("its brace is not closed"))?,
            None => text,
        };
        let mut matchers = vec![];
        let mut rest = inner.trim_start();
        while !rest.is_empty() {
            let (matcher, behind) = matcher(rest).map_err(error)?;
            matchers.push(matcher);
            rest = match behind.trim_start().strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if behind.trim_start().is_empty() => "",
                None => return Err(error("matchers are parted by commas")),
            };
        }
        if matchers.iter().all(|matcher| matcher.takes("")) {
            return Err(error("an alert without any label would match"));
        }
        Ok(Self(matchers))
    }
}

/// The first matcher, and what is behind it.
fn matcher(text: &str) -> Result<(Matcher, &str), &'static str> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (label, rest) = text.split_at(end);
    if label.is_empty() || label.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a matcher begins with a label");
    }
    let rest = rest.trim_start();
    let operator = ["=~", "!~", "!=", "="].into_iter().find(|operator| rest.starts_with(operator));
    let operator = operator.ok_or("behind a label comes =, !=, =~ or !~")?;
    let (value, rest) = quoted(rest[operator.len()..].trim_start())?;
    let relation = match operator {
        "=~" => Relation::Matches(expression(&value)?),
        "!~" => Relation::DoesNotMatch(expression(&value)?),
        "!=" => Relation::NotEqual(value),
        _ => Relation::Equal(value),
    };
    Ok((Matcher { label: label.to_owned(), relation }, rest))
}

/// The text in quotes at the beginning, and what is behind it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let inner = text.strip_prefix('"').ok_or("values are in double quotes")?;
    let mut value = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &inner[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                // As Alertmanager does: what is no escape stays, so that \d needs no second backslash.
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err("a quote is not closed")
}

fn expression(value: &str) -> Result<Regex, &'static str> {
    let built = RegexBuilder::new(&format!("^(?:{value})$")).size_limit(MAX_EXPRESSION).build();
    built.map_err(|_| "an expression is not valid or too large")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::alert::{AlertStatus, alerts};

    fn alert(labels: &[(&str, &str)]) -> Alert {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let starts_at = Timestamp::UNIX_EPOCH;
        Alert { status: AlertStatus::Firing, labels, starts_at, fingerprint: "f".into() }
    }

    #[test]
    fn selectors_mean_what_they_mean_in_alertmanager() {
        let alert = alert(&[("alertname", "HighErrors"), ("severity", "page"), ("path", "C:\\a\"b")]);
        for (selector, wanted) in [
            (r#"alertname="HighErrors""#, true),
            (r#"{alertname="HighErrors", severity=~"page|critical"}"#, true),
            (r#"alertname="HighErrors",severity="critical""#, false),
            (r#"alertname=~"High""#, false),
            (r#"alertname=~"High.*","#, true),
            (r#"severity=~"page|crit",alertname!~"Low.*""#, true),
            (r#"alertname!="HighErrors",severity="page""#, false),
            // A label that is not there is empty.
            (r#"severity="page",team="""#, true),
            (r#"severity="page",team!="a""#, true),
            (r#"severity="page",team=~".+""#, false),
            (r#"path="C:\\a\"b""#, true),
            (r#"alertname=~"\w+""#, true),
        ] {
            assert_eq!(selector.parse::<Selector>().unwrap().matches(&alert), wanted, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_or_would_match_everything_is_refused() {
        for text in [
            "",
            "{}",
            "{a=\"b\"",
            "a",
            "a=",
            "a=b",
            "a=\"b",
            "=\"b\"",
            "1a=\"b\"",
            "a=\"b\" c=\"d\"",
            "a=~\"(\"",
            "a!=\"b\"",
            "a=~\".*\"",
            "a=\"\"",
            "a=~\"(x{1000}){1000}\"",
            "a==\"b\"",
            "é=\"b\"",
        ] {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains("write it like"), "{error}");
        }
        assert!(format!("a=\"{}\"", "b".repeat(MAX_SELECTOR)).parse::<Selector>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_readers(text in ".{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = text.parse::<Selector>();
            let _ = alerts(&bytes);
        }

        #[test]
        fn any_value_can_be_selected(value in "[^\n]{1,20}") {
            let escaped = value.replace('\\', r"\\").replace('"', "\\\"");
            let selector: Selector = format!("a=\"{escaped}\"").parse().unwrap();
            prop_assert!(selector.matches(&alert(&[("a", &value)])));
            let longer = value + "x";
            prop_assert!(!selector.matches(&alert(&[("a", &longer)])));
        }
    }
}
