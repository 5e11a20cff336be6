//! Latency (T3): a quantile threshold as a share of slow requests, read from histogram buckets without interpolation.
//!
//! "p95 above 300 ms" is "more than 5 % of requests take longer than 300 ms". Where no bucket ends at the threshold,
//! the next one above counts for a rollback, so that no fast request is called slow, and the next one below for
//! advancing, so that no slow request is called fast. Used by [`super::samples`]; a controller uses [`Bounds`] to tell
//! that the threshold is not on a bucket.

/// The bucket bounds that stand for a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The least bound that is not below the threshold.
    pub above: f64,
    /// The greatest bound that is not above it; nothing if even the first bucket ends above it.
    pub below: Option<f64>,
}

impl Bounds {
    /// The bounds of `threshold` among `bounds`; nothing if no finite bound lies at or above it.
    pub fn of(bounds: impl IntoIterator<Item = f64>, threshold: f64) -> Option<Self> {
        let (mut above, mut below) = (f64::INFINITY, None::<f64>);
        for bound in bounds {
            if bound >= threshold {
                above = above.min(bound);
            }
            if bound <= threshold {
                below = Some(below.map_or(bound, |below| below.max(bound)));
            }
        }
        above.is_finite().then_some(Self { above, below })
    }

    /// The bounds of `threshold` in a native histogram of resolution `schema`, from -4 to 8: its buckets end at the
    /// powers of 2^(2^-schema). Nothing for a threshold that is not positive.
    pub fn native(schema: i32, threshold: f64) -> Option<Self> {
        if !(threshold > 0.0 && threshold.is_finite() && (-4..=8).contains(&schema)) {
            return None;
        }
        let position = threshold.log2() * 2.0_f64.powi(schema);
        let bound = |index: f64| (index * 2.0_f64.powi(-schema)).exp2();
        // A threshold that was written as a decimal may miss its power of two by a rounding.
        let near = bound(position.round());
        let below = if (near / threshold - 1.0).abs() < 1e-12 { position.round() } else { position.floor() };
        let above = if (near / threshold - 1.0).abs() < 1e-12 { position.round() } else { position.ceil() };
        Some(Self { above: bound(above), below: Some(bound(below)) })
    }

    /// Whether a bucket ends at the threshold, so that nothing had to be rounded.
    pub fn is_exact(&self) -> bool {
        self.below.is_some_and(|below| below.to_bits() == self.above.to_bits())
    }
}

/// A native histogram's sample: counts of its populated buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct NativeHistogram {
    /// Resolution, from -4 to 8.
    pub schema: i32,
    /// All observations.
    pub count: f64,
    /// Upper end of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// Index of each populated bucket, which ends at 2^(index 2^-schema), and its observations.
    pub positive: Vec<(i32, f64)>,
}

impl NativeHistogram {
    /// How many observations were surely at most `bound`, a bound from [`Bounds::native`] of the same or a coarser
    /// schema: the cumulative bucket that a classic histogram would have there.
    pub fn at_most(&self, bound: f64) -> f64 {
        let end = |index: i32| (f64::from(index) * 2.0_f64.powi(self.schema.saturating_neg())).exp2();
        let zero = if self.zero_threshold <= bound { self.zero_count } else { 0.0 };
        let counted = self.positive.iter().filter(|(index, _)| end(*index) <= bound * (1.0 + 1e-12));
        zero + counted.map(|(_, count)| count).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_threshold_between_buckets_is_rounded_away_from_harm() {
        let bounds = [0.1, 0.25, 0.5, 1.0, f64::INFINITY];
        let exact = Bounds::of(bounds, 0.25).unwrap();
        assert_eq!(exact, Bounds { above: 0.25, below: Some(0.25) });
        assert!(exact.is_exact());
        let between = Bounds::of(bounds, 0.3).unwrap();
        assert_eq!(between, Bounds { above: 0.5, below: Some(0.25) });
        assert!(!between.is_exact());
        assert_eq!(Bounds::of(bounds, 0.05).unwrap(), Bounds { above: 0.1, below: None });
        assert_eq!(Bounds::of(bounds, 2.0), None);
        assert_eq!(Bounds::of([], 2.0), None);
    }

    #[test]
    fn a_native_histogram_is_cut_at_its_own_buckets() {
        let exact = Bounds::native(3, 0.25).unwrap();
        assert!(exact.is_exact() && (exact.above - 0.25).abs() < 1e-15);
        // Schema 3: buckets grow by 2^(1/8) = 1.09.
        let between = Bounds::native(3, 0.3).unwrap();
        assert!(between.above / between.below.unwrap() < 1.0906 && !between.is_exact());
        let histogram = NativeHistogram {
            schema: 0,
            count: 10.0,
            zero_threshold: 1e-9,
            zero_count: 1.0,
            positive: vec![(-2, 4.0), (-1, 3.0), (0, 2.0)],
        };
        assert_eq!(histogram.at_most(Bounds::native(0, 0.3).unwrap().above), 8.0);
        assert_eq!(histogram.at_most(Bounds::native(0, 0.3).unwrap().below.unwrap()), 5.0);
        assert_eq!(Bounds::native(0, -1.0), None);
    }

    proptest! {
        #[test]
        fn bounds_enclose_the_threshold(schema in -4..=8_i32, threshold in 1e-6..1e6_f64) {
            let bounds = Bounds::native(schema, threshold).unwrap();
            prop_assert!(bounds.above >= threshold * (1.0 - 1e-12));
            prop_assert!(bounds.below.unwrap() <= threshold * (1.0 + 1e-12));
        }

        #[test]
        fn any_histogram_is_cut_without_a_panic(schema: i32, index: i32, count: f64, bound: f64) {
            let positive = vec![(index, count)];
            let histogram = NativeHistogram { schema, count, zero_threshold: 0.0, zero_count: count, positive };
            let _ = (histogram.at_most(bound), Bounds::native(schema, bound));
        }
    }
}
