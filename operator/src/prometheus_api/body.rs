//! The body of an answer, from bytes to numbers, without a panic whatever the bytes are.
//!
//! Pure; called by `lane` with what was received, and by the tests with a million bodies that no server would send. The
//! format is that of <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use anneal_core::rollout::{Answer, Boundary, NativeBucket, NativeHistogram, RawSeries, Series, Shape};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

/// Most series of an instant vector: a query sums, so more than a histogram's buckets are a mistake.
const MAX_NUMBERS: usize = 1000;
/// Most series of raw samples: pods times labels.
const MAX_SERIES: usize = 5000;
/// Most raw samples of one series, native histograms apart.
const MAX_SAMPLES: usize = 100_000;
/// Most labels of a series.
const MAX_LABELS: usize = 64;
/// The end of the year 9999, in seconds since the epoch.
const MAX_TIME: f64 = 253_402_300_799.0;

/// Most bytes of an answer, uncompressed: a server that sends more must not take the operator's memory.
pub const fn max_bytes(shape: Shape) -> usize {
    match shape {
        Shape::Vector => 256 << 10,
        Shape::Matrix => 4 << 20,
    }
}

/// Why a body is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// No JSON, or of another shape.
    #[error(
        "its answer is no JSON of Prometheus: {0}; check that spec.prometheus.url leads to Prometheus' own API"
    )]
    Json(#[from] serde_json::Error),
    /// No text.
    #[error("its answer is no text: {0}; check that spec.prometheus.url leads to Prometheus' own API")]
    Text(#[from] std::str::Utf8Error),
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
    // What is left out of a slice is not even looked at.
    let reply: Reply<'_> = serde_json::from_str(str::from_utf8(body)?)?;
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
            let AtMost(vector): AtMost<Sample, MAX_NUMBERS> = serde_json::from_str(data.result.get())?;
            vector.into_iter().map(Sample::series).collect::<Result<_, _>>().map(Answer::Vector)
        }
        Shape::Matrix => {
            let AtMost(matrix): AtMost<Samples, MAX_SERIES> = serde_json::from_str(data.result.get())?;
            matrix.into_iter().map(Samples::series).collect::<Result<_, _>>().map(Answer::Matrix)
        }
    }
}

/// What the server says in a body that came with another status; none if it says nothing.
pub fn reason(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Reply<'_>>(body).ok()?.reason()
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

/// A list that is given up as soon as it is too long: an element may take much more memory than its JSON.
struct AtMost<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Default for AtMost<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> de::Visitor<'de> for List<T, MAX> {
            type Value = AtMost<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX}, which narrower selectors give")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    if elements.len() == MAX {
                        return Err(de::Error::invalid_length(MAX + 1, &self));
                    }
                    elements.push(element);
                }
                Ok(AtMost(elements))
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// The labels of a series.
struct Labels(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> de::Visitor<'de> for Map {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_LABELS} labels, each once")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    let twice = labels.insert(name, value).is_some();
                    if twice || labels.len() > MAX_LABELS {
                        return Err(de::Error::invalid_length(labels.len() + 1, &self));
                    }
                }
                Ok(Labels(labels))
            }
        }
        deserializer.deserialize_map(Map)
    }
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
    metric: Labels,
    value: Option<(Time, Number)>,
}

impl Sample {
    fn series(self) -> Result<Series, Unread> {
        let (_, Number(value)) = self.value.ok_or(Unread::Histogram)?;
        Ok(Series { labels: self.metric.0, value })
    }
}

#[derive(Deserialize)]
struct Samples {
    metric: Labels,
    #[serde(default)]
    values: AtMost<(Time, Number), MAX_SAMPLES>,
    #[serde(default)]
    histograms: AtMost<(Time, Histogram), MAX_SAMPLES>,
}

impl Samples {
    fn series(self) -> Result<RawSeries, Unread> {
        let samples: Vec<_> =
            self.values.0.into_iter().map(|(Time(time), Number(value))| (time, value)).collect();
        let histograms: Vec<_> =
            self.histograms.0.into_iter().map(|(Time(time), histogram)| (time, histogram.native())).collect();
        if !rises(&samples) || !rises(&histograms) {
            return Err(Unread::Order);
        }
        Ok(RawSeries { labels: self.metric.0, samples, histograms })
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
