//! [`Moment`]: a date or a time as users write it.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A date in UTC such as `2026-11-21`, which means the whole day, or a time such as `2026-11-21T10:00:00Z`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    text: String,
    begins: Timestamp,
    ends: Timestamp,
}

const PATTERN: &str =
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2}))?$";
/// What the API server lets in, [`Moment::from_str`] can read: CEL reads no 30th of February either.
const EXISTS: &str = "timestamp(size(self) == 10 ? self + 'T00:00:00Z' : self) >= timestamp('1900-01-01T00:00:00Z') && timestamp(size(self) == 10 ? self + 'T00:00:00Z' : self) < timestamp('2200-01-01T00:00:00Z')";
/// The same years.
const YEARS: std::ops::Range<i64> = -2_208_988_800..7_258_118_400;

/// Why a text is not a [`Moment`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither a date nor a time from 1900 to 2199: write for example 2026-11-21 or 2026-11-21T10:00:00Z"
)]
pub struct InvalidMoment(String);

impl Moment {
    /// Its first instant, in milliseconds since 1970.
    pub fn begins_ms(&self) -> i64 {
        self.begins.as_millisecond()
    }

    /// The first instant after it, in milliseconds since 1970: the next day's, or that of the time itself.
    pub fn ends_ms(&self) -> i64 {
        self.ends.as_millisecond()
    }
}

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMoment(text.to_owned());
        let midnight = |date: Date| date.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp());
        let (begins, ends) = if text.len() == "2026-11-21".len() {
            let date: Date = text.parse().map_err(|_| invalid())?;
            let next = date.checked_add(1.day()).ok().and_then(midnight);
            (midnight(date).ok_or_else(invalid)?, next.ok_or_else(invalid)?)
        } else {
            let time: Timestamp = text.parse().map_err(|_| invalid())?;
            (time, time)
        };
        if !YEARS.contains(&begins.as_second()) {
            return Err(invalid());
        }
        Ok(Self { text: text.to_owned(), begins, ends })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 10, "maxLength": 40, "pattern": PATTERN,
            "x-kubernetes-validations": [{"rule": EXISTS, "message": "a date or time must exist, and lie from 1900 to 2199"}],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_a_whole_day_and_a_time_is_an_instant() {
        for (text, begins, ends) in [
            ("1970-01-02", 86_400_000, 172_800_000),
            ("1970-01-01T00:00:01Z", 1_000, 1_000),
            ("1970-01-01T01:00:00.5+01:00", 500, 500),
            ("1900-01-01", -2_208_988_800_000, -2_208_902_400_000),
            ("2199-12-31", 7_258_032_000_000, 7_258_118_400_000),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(
                (moment.begins_ms(), moment.ends_ms(), moment.to_string()),
                (begins, ends, text.into())
            );
        }
        for text in [
            "",
            "2026-02-30",
            "2026-11-21T25:00:00Z",
            "2026-11-21 10:00",
            "1899-12-31",
            "2200-01-01",
            "yesterday!",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
