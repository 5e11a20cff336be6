//! Feedback: labels of requests that were answered, by the request's id.
//!
//! Called by `compare`, which remembers what it compared until the label comes. What was forgotten by then says nothing, and
//! neither does a label that reaches another pod: which ones do is a matter of chance, so what is counted is a fair sample.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use serde_json::Value;

use super::{agree::Prediction, protocol::BadRequest};

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
    pub(super) fn label<'l>(&self, labels: &'l [Value]) -> Option<&'l Value> {
        labels.get(self.row).filter(|_| labels.len() == self.rows)
    }
}

/// Pairs whose labels have not come yet, by the request's id. The oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// With the number under which it was remembered; no pair where several requests had the id, so that it names none.
    pairs: HashMap<String, (u64, Option<Pair>)>,
    ids: VecDeque<(u64, String)>,
    remembered: u64,
}

impl Memory {
    /// Remembers a pair, unless its id is too long.
    pub(super) fn remember(&mut self, id: &str, pair: Pair) {
        if id.len() > MAX_ID {
            return;
        }
        if let Some((_, known)) = self.pairs.get_mut(id) {
            *known = None;
            return;
        }
        self.remembered += 1;
        self.pairs.insert(id.to_owned(), (self.remembered, Some(pair)));
        self.ids.push_back((self.remembered, id.to_owned()));
        // Those whose labels came are still in line.
        while self.ids.len() > MOST {
            if let Some((number, oldest)) = self.ids.pop_front()
                && self.pairs.get(&oldest).is_some_and(|known| known.0 == number)
            {
                self.pairs.remove(&oldest);
            }
        }
    }

    /// The pair of a request, once.
    pub(super) fn take(&mut self, id: &str) -> Option<Pair> {
        self.pairs.remove(id)?.1
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        memory.remember(&"x".repeat(MAX_ID + 1), pair(3));
        // The first that had this id is forgotten, and its place in the line is not the second's.
        (2..MOST).for_each(|number| memory.remember(&number.to_string(), pair(number)));
        memory.remember("b", pair(4));
        assert_eq!(memory.ids.len(), MOST);
        assert_eq!(
            (memory.take("a"), memory.take("2"), memory.take("b")),
            (Some(pair(2)), Some(pair(2)), Some(pair(4)))
        );
        ["c", "d", "e"].into_iter().for_each(|id| memory.remember(id, pair(5)));
        assert_eq!((memory.take("3"), memory.take("4")), (None, Some(pair(4))));
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
        let labels = [json!("a"), json!("b")];
        assert_eq!((pair(0).label(&labels), pair(1).label(&labels)), (Some(&labels[0]), Some(&labels[1])));
        assert_eq!((pair(0).label(&labels[..1]), pair(0).label(&[])), (None, None));
    }

    #[test]
    fn feedback_says_what_it_lacks() {
        let parsed = Feedback::parse(br#"{"id": "7", "labels": [1, "a"]}"#).unwrap();
        assert_eq!(parsed, Feedback { id: "7".to_owned(), labels: vec![json!(1), json!("a")] });
        assert!(Feedback::parse(br#"{"id": "7"}"#).unwrap_err().reason.contains("labels"));
    }
}
