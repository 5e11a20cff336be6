//! The body of an answer, from bytes to numbers, without a panic whatever the bytes are.
//!
//! Pure; called by `lane` with what was received, and by the tests with a million bodies that no server would send. The
//! format is that of <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use std::{collections::BTreeMap, fmt};

use anneal_core::rollout::{Answer, Boundary, NativeBucket, NativeHistogram, RawSeries, Series, Shape};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

/// Most series of an instant vector: a query sums, so more than a histogram's buckets are a mistake.
const MAX_NUMBERS: usize = 1000;
/// Most series of raw samples: pods times labels.
const MAX_SERIES: usize = 10_000;
/// Most raw samples, native histograms included.
const MAX_SAMPLES: usize = 250_000;
/// The end of the year 9999, in seconds since the epoch.
const MAX_TIME: f64 = 253_402_300_799.0;

/// Why a body is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// No JSON, or of another shape.
    #[error(
        "its answer is no JSON of Prometheus: {0}; check that spec.prometheus.url leads to Prometheus' own API"
    )]
    Json(#[from] serde_json::Error),
    /// The server says that it failed.
    #[error("it says: {0}")]
    Refused(String),
    /// Part of the data may be missing, so what is there may be wrong.
    #[error("it warned that its answer may be incomplete: {0}")]
    Warned(String),
    /// A success without data.
    #[error("its answer holds no data; check that spec.prometheus.url leads to Prometheus' own API")]
    NoData,
    /// Another type of result.
    #[error("its answer is of type `{got}` instead of {}; correct the metric's selectors", type_name(*.asked))]
    Type {
        /// What was asked for.
        asked: Shape,
        /// What came.
        got: String,
    },
    /// A native histogram where a number is to be.
    #[error(
        "its answer holds a native histogram instead of a number; use selectors of counters or classic buckets"
    )]
    Histogram,
    /// Too much.
    #[error("its answer has {count} {what}, and at most {max} are read; use narrower selectors")]
    TooMany {
        /// How many.
        count: usize,
        /// Of what.
        what: &'static str,
        /// How many may be.
        max: usize,
    },
    /// Samples that run backwards.
    #[error("its samples are not in the order of time; whatever stands before Prometheus spoils its answers")]
    Order,
}

const fn type_name(shape: Shape) -> &'static str {
    match shape {
        Shape::Vector => "vector",
        Shape::Matrix => "matrix",
    }
}

/// The answer of that shape in a body that came with a status of success.
pub fn parse(shape: Shape, body: &[u8]) -> Result<Answer, Unread> {
    let reply: Reply<'_> = serde_json::from_slice(body)?;
    if reply.status != "success" {
        return Err(Unread::Refused(reply.reason().unwrap_or_else(|| "failed, without a reason".to_owned())));
    }
    let warnings = reply.warnings.unwrap_or_default();
    if !warnings.is_empty() {
        return Err(Unread::Warned(warnings.join("; ")));
    }
    let data: Data<'_> = serde_json::from_str(reply.data.ok_or(Unread::NoData)?.get())?;
    if data.result_type != type_name(shape) {
        return Err(Unread::Type { asked: shape, got: data.result_type });
    }
    match shape {
        Shape::Vector => {
            let vector: Vec<Sample> = serde_json::from_str(data.result.get())?;
            at_most(MAX_NUMBERS, vector.len(), "series")?;
            vector.into_iter().map(Sample::series).collect::<Result<_, _>>().map(Answer::Vector)
        }
        Shape::Matrix => {
            let matrix: Vec<Samples> = serde_json::from_str(data.result.get())?;
            at_most(MAX_SERIES, matrix.len(), "series")?;
            let count = matrix.iter().map(|series| series.values.len() + series.histograms.len()).sum();
            at_most(MAX_SAMPLES, count, "samples")?;
            matrix.into_iter().map(Samples::series).collect::<Result<_, _>>().map(Answer::Matrix)
        }
    }
}

/// What the server says in a body that came with another status; none if it says nothing.
pub fn reason(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Reply<'_>>(body).ok()?.reason()
}

const fn at_most(max: usize, count: usize, what: &'static str) -> Result<(), Unread> {
    if count > max { Err(Unread::TooMany { count, what, max }) } else { Ok(()) }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    status: String,
    error_type: Option<String>,
    error: Option<String>,
    warnings: Option<Vec<String>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Reply<'_> {
    fn reason(&self) -> Option<String> {
        match (&self.error_type, &self.error) {
            (Some(kind), Some(error)) => Some(format!("{kind}: {error}")),
            (None, Some(text)) | (Some(text), None) => Some(text.clone()),
            (None, None) => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    result_type: String,
    #[serde(borrow)]
    result: &'a RawValue,
}

/// A number that JSON writes as a text, because it may be `NaN` or `+Inf`.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in quotation marks")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                let number = text.parse().map(Number);
                number.map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Seconds since the epoch as JSON has them, in milliseconds.
struct Time(i64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..=MAX_TIME).contains(&seconds) {
            return Err(de::Error::invalid_value(de::Unexpected::Float(seconds), &"seconds since 1970"));
        }
        Ok(Self((seconds * 1000.0).round() as i64))
    }
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
    value: Option<(Time, Number)>,
}

impl Sample {
    fn series(self) -> Result<Series, Unread> {
        let (_, Number(value)) = self.value.ok_or(Unread::Histogram)?;
        Ok(Series { labels: self.metric, value })
    }
}

#[derive(Deserialize)]
struct Samples {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(Time, Number)>,
    #[serde(default)]
    histograms: Vec<(Time, Histogram)>,
}

impl Samples {
    fn series(self) -> Result<RawSeries, Unread> {
        let samples: Vec<_> =
            self.values.into_iter().map(|(Time(time), Number(value))| (time, value)).collect();
        let histograms: Vec<_> =
            self.histograms.into_iter().map(|(Time(time), histogram)| (time, histogram.native())).collect();
        if !rises(&samples) || !rises(&histograms) {
            return Err(Unread::Order);
        }
        Ok(RawSeries { labels: self.metric, samples, histograms })
    }
}

fn rises<T>(samples: &[(i64, T)]) -> bool {
    samples.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

#[derive(Deserialize)]
struct Histogram {
    count: Number,
    sum: Number,
    #[serde(default)]
    buckets: Vec<(Rule, Number, Number, Number)>,
}

impl Histogram {
    fn native(self) -> NativeHistogram {
        let bucket = |(Rule(boundary), Number(lower), Number(upper), Number(count))| NativeBucket {
            boundary,
            lower,
            upper,
            count,
        };
        NativeHistogram {
            count: self.count.0,
            sum: self.sum.0,
            buckets: self.buckets.into_iter().map(bucket).collect(),
        }
    }
}

struct Rule(Boundary);

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match u8::deserialize(deserializer)? {
            0 => Boundary::OpenLeft,
            1 => Boundary::OpenRight,
            2 => Boundary::OpenBoth,
            3 => Boundary::ClosedBoth,
            other => {
                return Err(de::Error::invalid_value(
                    de::Unexpected::Unsigned(other.into()),
                    &"a boundary rule from 0 to 3",
                ));
            }
        }))
    }
}

#[cfg(test)]
mod tests;
