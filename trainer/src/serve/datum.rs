//! The values of a request's tensor, read without keeping more of them than a request may have.
//!
//! Part of `protocol`. JSON's own tree would take thirty times the bytes of a body before anything could be counted.

use std::fmt;

use anneal_crds::common::shorten;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::protocol::MAX_ROWS;

/// A row's value as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Datum {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A string.
    Text(String),
    /// A list that is not one value in brackets.
    List,
    /// An object.
    Object,
}

impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "\"{}\"", shorten(text, 40)),
            Self::List => f.write_str("a list"),
            Self::Object => f.write_str("an object"),
        }
    }
}

/// The values of a tensor: all of them, or the first of too many.
#[derive(Debug)]
pub(super) struct Data {
    /// At most as many as a request may have rows.
    pub(super) values: Vec<Datum>,
    /// How many there were.
    pub(super) count: usize,
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Data, A::Error> {
        let mut values = Vec::new();
        while values.len() < MAX_ROWS {
            match list.next_element_seed(Place::Row)? {
                Some(value) => values.push(value),
                None => return Ok(Data { count: values.len(), values }),
            }
        }
        Ok(Data { count: values.len() + skip(&mut list)?, values })
    }
}

fn skip<'de, A: SeqAccess<'de>>(list: &mut A) -> Result<usize, A::Error> {
    let mut count = 0;
    while list.next_element::<IgnoredAny>()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Where a value stands: `[1, 2]` and `[[1], [2]]` are the same column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Row,
    InBrackets,
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Datum;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Datum, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place {
    type Value = Datum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Datum, E> {
        Ok(Datum::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Datum, E> {
        Ok(Datum::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Datum, E> {
        Ok(Datum::Number(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Datum, E> {
        Ok(Datum::Number(value as f64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Datum, E> {
        Ok(Datum::Number(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Datum, E> {
        Ok(Datum::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Datum, A::Error> {
        let first = match self {
            Self::Row => list.next_element_seed(Self::InBrackets)?,
            Self::InBrackets => None,
        };
        match (first, skip(&mut list)?) {
            (Some(value), 0) => Ok(value),
            (Some(_) | None, _) => Ok(Datum::List),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Datum, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Datum::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were_sent() {
        let data: Data = serde_json::from_str(
            r#"[1, -2, 0.5, "a", true, null, [7], ["b"], [], [1, 2], [[3]], {"a": [1]}]"#,
        )
        .unwrap();
        let text = |text: &str| Datum::Text(text.to_owned());
        let expected = [
            Datum::Number(1.0),
            Datum::Number(-2.0),
            Datum::Number(0.5),
            text("a"),
            Datum::Bool(true),
            Datum::Null,
            Datum::Number(7.0),
            text("b"),
            Datum::List,
            Datum::List,
            Datum::List,
            Datum::Object,
        ];
        assert_eq!((data.values.as_slice(), data.count), (expected.as_slice(), expected.len()));
        assert!(serde_json::from_str::<Data>("7").is_err());
    }

    #[test]
    fn more_values_than_rows_are_counted_and_not_kept() {
        for count in [MAX_ROWS, MAX_ROWS + 1, 1_000_000] {
            let text = format!("[{}1]", "1,".repeat(count - 1));
            let data: Data = serde_json::from_str(&text).unwrap();
            assert_eq!((data.count, data.values.len()), (count, MAX_ROWS));
        }
    }
}
