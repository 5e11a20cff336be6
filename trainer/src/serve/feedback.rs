//! Feedback: labels of requests that were answered, by the request's id.
//!
//! Called by `compare`, which remembers what it compared until the label comes. What was forgotten by then says nothing, and
//! neither does a label that reaches another pod: which ones do is a matter of chance, so what is counted is a fair sample.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use super::{
    agree::{Label, Prediction},
    protocol::{BadRequest, MAX_ROWS},
};

/// Most requests that are remembered.
pub(super) const MOST: usize = 1 << 16;
/// Longest id that is remembered, in bytes.
const MAX_ID: usize = 128;

/// The body of `POST /v2/feedback`.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Feedback {
    /// The request's own id, as it was sent.
    pub(super) id: String,
    /// The truth about each of its rows.
    pub(super) labels: Vec<Label>,
}

/// Longest body, in bytes: labels of as many rows as a request may have.
const MAX_BODY: usize = 256 << 10;

impl Feedback {
    /// Parses a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let bad = |reason: String| BadRequest { field: "body".to_owned(), reason };
        if body.len() > MAX_BODY {
            return Err(bad(format!("is longer than {MAX_BODY} bytes: send the labels of one request")));
        }
        let feedback: Self = serde_json::from_slice(body).map_err(|error| {
            bad(format!("{error}: send JSON with the id of a request and labels, one for each of its rows"))
        })?;
        let rows = feedback.labels.len();
        if rows == 0 || rows > MAX_ROWS {
            return Err(bad(format!("has {rows} labels: send one for each of 1 to {MAX_ROWS} rows")));
        }
        Ok(feedback)
    }
}

/// What both versions said of one row of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    /// Which row.
    pub(super) row: usize,
    /// Of so many.
    pub(super) rows: usize,
    /// What the version in shadow said.
    pub(super) candidate: Prediction,
    /// What the stable version said first.
    pub(super) stable: Prediction,
}

impl Pair {
    /// The label of its row; none if there is not one for each row.
    pub(super) fn label<'l>(&self, labels: &'l [Label]) -> Option<&'l Label> {
        labels.get(self.row).filter(|_| labels.len() == self.rows)
    }
}

/// Pairs whose labels have not come yet, by the request's id. The oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// No pair where several requests had the id, so that it names none, and where its label came.
    pairs: HashMap<String, Option<Pair>>,
    ids: VecDeque<String>,
}

impl Memory {
    /// Remembers a pair, unless its id is too long.
    pub(super) fn remember(&mut self, id: &str, pair: Pair) {
        if id.len() > MAX_ID {
            return;
        }
        if let Some(known) = self.pairs.get_mut(id) {
            *known = None;
            return;
        }
        self.pairs.insert(id.to_owned(), Some(pair));
        self.ids.push_back(id.to_owned());
        while self.ids.len() > MOST {
            let oldest = self.ids.pop_front();
            oldest.and_then(|oldest| self.pairs.remove(&oldest));
        }
    }

    /// The pair of a request, once. Whoever has the same id later is not that request.
    pub(super) fn take(&mut self, id: &str) -> Option<Pair> {
        self.pairs.get_mut(id)?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(row: usize) -> Pair {
        Pair { row, rows: 2, candidate: Prediction::Number(1.0), stable: Prediction::Number(2.0) }
    }

    #[test]
    fn a_label_counts_once_and_the_oldest_are_forgotten() {
        let mut memory = Memory::default();
        memory.remember("a", pair(1));
        assert_eq!((memory.take("a"), memory.take("a")), (Some(pair(1)), None));
        memory.remember("a", pair(2));
        assert_eq!(memory.take("a"), None, "its label came");
        memory.remember(&"x".repeat(MAX_ID + 1), pair(3));
        (0..MOST).for_each(|number| memory.remember(&number.to_string(), pair(number)));
        assert_eq!((memory.pairs.len(), memory.ids.len()), (MOST, MOST));
        memory.remember("b", pair(4));
        assert_eq!(
            (memory.take("0"), memory.take("1"), memory.take("b")),
            (None, Some(pair(1)), Some(pair(4)))
        );
    }

    #[test]
    fn an_id_that_several_requests_had_names_none() {
        let mut memory = Memory::default();
        memory.remember("a", pair(1));
        memory.remember("a", pair(2));
        memory.remember("a", pair(3));
        assert_eq!(memory.take("a"), None);
    }

    #[test]
    fn a_pair_has_the_label_of_its_row() {
        let labels = [Label::Text("a".to_owned()), Label::Number(1.0)];
        assert_eq!((pair(0).label(&labels), pair(1).label(&labels)), (Some(&labels[0]), Some(&labels[1])));
        assert_eq!((pair(0).label(&labels[..1]), pair(0).label(&[])), (None, None));
    }

    #[test]
    fn feedback_says_what_it_lacks() {
        let parsed = Feedback::parse(br#"{"id": "7", "labels": [1, "a", true]}"#).unwrap();
        let labels = vec![Label::Number(1.0), Label::Text("a".to_owned()), Label::Bool(true)];
        assert_eq!(parsed, Feedback { id: "7".to_owned(), labels });
        let long = format!("{{\"id\": \"7\", \"labels\": [\"{}\"]}}", "x".repeat(MAX_BODY));
        let many = format!("{{\"id\": \"7\", \"labels\": [1{}]}}", ",1".repeat(MAX_ROWS));
        for (body, why) in [
            (r#"{"id": "7"}"#, "labels"),
            (r#"{"id": "7", "labels": []}"#, "0 labels"),
            (r#"{"id": "7", "labels": [{}]}"#, "one for each of its rows"),
            (r#"{"id": "7", "labels": [null]}"#, "one for each of its rows"),
            (&long, "longer than"),
            (&many, "10001 labels"),
        ] {
            let said = Feedback::parse(body.as_bytes()).unwrap_err().reason;
            assert!(said.contains(why), "{said}");
        }
    }
}
