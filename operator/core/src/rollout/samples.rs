//! Raw samples: what a range selector says at one moment, as Prometheus scraped it.
//!
//! Filled by the shell's adapter. Only shapes are promised: values may be anything that a `f64` can be, so whoever judges
//! by them looks at each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One series of a matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawSeries {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its plain samples: milliseconds since the epoch, strictly rising, and the value.
    pub samples: Vec<(i64, f64)>,
    /// Its native histograms: milliseconds since the epoch, strictly rising, and the histogram.
    pub histograms: Vec<(i64, NativeHistogram)>,
}

/// A native histogram as the HTTP API writes it. Counts are floats there, and so they are here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NativeHistogram {
    /// Number of observations.
    pub count: f64,
    /// Sum of the observed values.
    pub sum: f64,
    /// The buckets that are not empty, in the order of the answer.
    pub buckets: Vec<NativeBucket>,
}

/// One bucket of a native histogram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NativeBucket {
    /// Which of its bounds belong to it.
    pub boundary: Boundary,
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Observations in this bucket alone.
    pub count: f64,
}

/// Which bounds belong to a bucket: `boundary_rule` of
/// <https://prometheus.io/docs/prometheus/latest/querying/api/#native-histograms>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boundary {
    /// Rule 0: the upper one.
    OpenLeft,
    /// Rule 1: the lower one.
    OpenRight,
    /// Rule 2: neither.
    OpenBoth,
    /// Rule 3: both, as in the bucket around zero.
    ClosedBoth,
}
