//! [`Weight`]: a share of requests as users write it, in percent with at most one decimal.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A share of requests from 0 to 100 %, kept as whole per mille: 10 is ten percent, 0.5 is one request in two hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// No request.
    pub const ZERO: Self = Self(0);
    /// Every request.
    pub const FULL: Self = Self(1000);

    /// A weight of so many percent; what lies outside 0 to 100 becomes the nearest end.
    pub fn from_percent(percent: i32) -> Self {
        Self::from_per_mille(percent.saturating_mul(10))
    }

    /// A weight of so many per mille; what lies outside 0 to 1000 becomes the nearest end.
    pub fn from_per_mille(per_mille: i32) -> Self {
        Self(u16::try_from(per_mille.clamp(0, 1000)).unwrap_or(0))
    }

    /// Whole per mille, from 0 to 1000.
    pub const fn per_mille(self) -> u16 {
        self.0
    }

    /// What is left for others.
    pub const fn rest(self) -> Self {
        Self(Self::FULL.0.saturating_sub(self.0))
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (percent, 0) => write!(f, "{percent}"),
            (percent, tenths) => write!(f, "{percent}.{tenths}"),
        }
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(10) {
            serializer.serialize_u16(self.0 / 10)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 10.0)
        }
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        let tenths = (percent * 10.0).round();
        if !(0.0..=1000.0).contains(&tenths) || (percent * 10.0 - tenths).abs() > TOLERANCE {
            return Err(de::Error::custom(format!(
                "{percent} is no weight: write percent from 0 to 100 with at most one decimal"
            )));
        }
        Ok(Self(tenths as u16))
    }
}

/// How far ten times a decimal may lie from a whole number, in binary.
const TOLERANCE: f64 = 1e-6;
/// The same as a CEL rule; what the API server lets in, everyone can read.
const ONE_DECIMAL: &str = "double(int(self * 10.0 + 0.5)) - self * 10.0 < 0.0000005 && self * 10.0 - double(int(self * 10.0 + 0.5)) < 0.0000005";

impl JsonSchema for Weight {
    fn schema_name() -> Cow<'static, str> {
        "Weight".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number", "minimum": 0, "maximum": 100,
            "x-kubernetes-validations": [{"rule": ONE_DECIMAL, "message": "a weight has at most one decimal"}],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_per_mille_is_written_and_read_back() {
        for per_mille in 0..=1000 {
            let weight = Weight::from_per_mille(per_mille);
            let text = serde_json::to_string(&weight).unwrap();
            assert_eq!(text, weight.to_string());
            assert_eq!(serde_json::from_str::<Weight>(&text).unwrap(), weight);
            assert_eq!(i32::from(weight.per_mille() + weight.rest().per_mille()), 1000);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["-1", "100.1", "0.05", "12.34", "\"10\"", "1e9", "null"] {
            assert!(serde_json::from_str::<Weight>(text).is_err(), "{text} was accepted");
        }
        assert_eq!(
            [i32::MIN, 101, i32::MAX].map(Weight::from_percent),
            [Weight::ZERO, Weight::FULL, Weight::FULL]
        );
    }
}
