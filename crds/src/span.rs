//! [`Span`]: a length of time as users write it.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time above zero, written as whole numbers with units from large to small: `7d`, `1h30m`, `90s`, `250ms`.
/// Each unit has so few digits that it stays below 32 years.
///
/// Go's notation lacks days, which the retraining guides use throughout, so this is not a Go duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(SignedDuration);

const UNITS: [(&str, i64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// The most that [`PATTERN`] lets in is 122 years.
const MAX_MILLIS: i64 = 130 * 366 * 86_400_000;
/// What the API server lets in, [`Span::from_str`] can read: an object that no reader could read would be stuck.
const PATTERN: &str = "^([0-9]{1,4}d)?([0-9]{1,5}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?([0-9]{1,12}ms)?$";
/// The same as a CEL rule on the text.
const ABOVE_ZERO: &str = "self.matches('[1-9]')";

/// Why a text is not a [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length of time: write for example 7d, 1h30m, 90s or 250ms, above zero")]
pub struct InvalidSpan(String);

impl Span {
    /// A span of whole seconds; the smallest span if `seconds` is zero.
    pub const fn from_secs(seconds: u32) -> Self {
        if seconds == 0 {
            Self(SignedDuration::from_millis(1))
        } else {
            Self(SignedDuration::from_secs(seconds as i64))
        }
    }

    /// The span as jiff's duration; always positive.
    pub const fn get(self) -> SignedDuration {
        self.0
    }

    /// Half of it, at least a millisecond.
    pub fn half(self) -> Self {
        Self(SignedDuration::from_millis((self.as_millis() / 2).max(1)))
    }

    /// The span in seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// The span in whole milliseconds.
    pub fn as_millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(MAX_MILLIS)
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSpan(text.to_owned());
        let (mut rest, mut millis, mut largest_left) = (text, 0_i64, UNITS.as_slice());
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let position = largest_left.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
            let number: i64 = number.parse().map_err(|_| invalid())?;
            millis = number
                .checked_mul(largest_left[position].1)
                .and_then(|part| millis.checked_add(part))
                .ok_or_else(invalid)?;
            largest_left = &largest_left[position + 1..];
            rest = tail;
        }
        if !(1..=MAX_MILLIS).contains(&millis) {
            return Err(invalid());
        }
        Ok(Self(SignedDuration::from_millis(millis)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.as_millis();
        for (unit, size) in UNITS {
            let number = rest / size;
            if number > 0 {
                write!(f, "{number}{unit}")?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 2, "maxLength": 32, "pattern": PATTERN,
            "x-kubernetes-validations": [{"rule": ABOVE_ZERO, "message": "a length of time must be above zero"}],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_guides_durations_are_read_and_printed_as_written() {
        for (text, millis) in [
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("10m", 600_000),
            ("300ms", 300),
            ("1d12h", 129_600_000),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.as_millis(), millis);
            assert_eq!(span.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_the_api_server_lets_in_can_be_read(text in PATTERN.trim_matches(['^', '$'])) {
            // An empty text and zero are stopped by the length and the rule.
            let stopped = !text.contains(|c: char| ('1'..='9').contains(&c));
            prop_assert_eq!(text.parse::<Span>().is_err(), stopped, "{}", text);
        }

        #[test]
        fn what_is_written_is_read_back(millis in 1..=MAX_MILLIS) {
            let span = Span(SignedDuration::from_millis(millis));
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "0s",
            "5",
            "m",
            "1m1h",
            "1m1m",
            "-1s",
            "1.5h",
            "50000d",
            "99999999999999999999s",
            "1 h",
            "1w",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text} was accepted");
        }
    }
}
