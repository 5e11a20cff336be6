//! Feedback: labels of requests that were answered, by the request's id.
//!
//! Called by `compare`, which remembers what it compared until the label comes. What was forgotten by then says nothing, and
//! neither does a label that reaches another pod: which ones do is a matter of chance, so what is counted is a fair sample.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use serde_json::Value;

use super::{agree::Prediction, protocol::BadRequest};

/// Most requests that are remembered.
const MOST: usize = 1 << 16;
/// Longest id that is remembered, in bytes.
const MAX_ID: usize = 128;

/// The body of `POST /v2/feedback`.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Feedback {
    /// The request's own id, as it was sent.
    pub(super) id: String,
    /// The truth about each of its rows.
    pub(super) labels: Vec<Value>,
}

impl Feedback {
    /// Parses a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        serde_json::from_slice(body).map_err(|error| BadRequest {
            field: "body".to_owned(),
            reason: format!(
                "{error}: send JSON with the id of a request and labels, one for each of its rows"
            ),
        })
    }
}

/// What both versions said of one row of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    /// Drawn for the row.
    pub(super) lot: u64,
    /// What the version in shadow said.
    pub(super) candidate: Prediction,
    /// What the stable version said first.
    pub(super) stable: Prediction,
}

impl Pair {
    /// The label of its row.
    pub(super) fn label<'l>(&self, labels: &'l [Value]) -> Option<&'l Value> {
        let rows = u64::try_from(labels.len()).ok().filter(|rows| *rows > 0)?;
        labels.get(usize::try_from(self.lot % rows).ok()?)
    }
}

/// Pairs whose labels have not come yet, by the request's id. The oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pairs: HashMap<String, Pair>,
    ids: VecDeque<String>,
}

impl Memory {
    /// Remembers a pair, unless its id is too long or in use.
    pub(super) fn remember(&mut self, id: &str, pair: Pair) {
        if id.len() > MAX_ID || self.pairs.contains_key(id) {
            return;
        }
        self.pairs.insert(id.to_owned(), pair);
        self.ids.push_back(id.to_owned());
        // Those whose labels came are still in line.
        while self.ids.len() > MOST {
            let oldest = self.ids.pop_front();
            oldest.and_then(|oldest| self.pairs.remove(&oldest));
        }
    }

    /// The pair of a request, once.
    pub(super) fn take(&mut self, id: &str) -> Option<Pair> {
        self.pairs.remove(id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pair(lot: u64) -> Pair {
        Pair { lot, candidate: Prediction::Number(1.0), stable: Prediction::Number(2.0) }
    }

    #[test]
    fn a_label_counts_once_and_the_oldest_are_forgotten() {
        let mut memory = Memory::default();
        memory.remember("a", pair(1));
        memory.remember("a", pair(2));
        assert_eq!((memory.take("a"), memory.take("a")), (Some(pair(1)), None));
        memory.remember(&"x".repeat(MAX_ID + 1), pair(3));
        (0..=MOST as u64).for_each(|number| memory.remember(&number.to_string(), pair(number)));
        assert_eq!((memory.pairs.len(), memory.ids.len()), (MOST, MOST));
        assert_eq!((memory.take("0"), memory.take("1")), (None, Some(pair(1))));
    }

    #[test]
    fn a_pair_has_the_label_of_its_row() {
        let labels = [json!("a"), json!("b")];
        assert_eq!((pair(4).label(&labels), pair(5).label(&labels)), (Some(&labels[0]), Some(&labels[1])));
        assert_eq!(pair(4).label(&[]), None);
    }

    #[test]
    fn feedback_says_what_it_lacks() {
        let parsed = Feedback::parse(br#"{"id": "7", "labels": [1, "a"]}"#).unwrap();
        assert_eq!(parsed, Feedback { id: "7".to_owned(), labels: vec![json!(1), json!("a")] });
        assert!(Feedback::parse(br#"{"id": "7"}"#).unwrap_err().reason.contains("labels"));
    }
}
