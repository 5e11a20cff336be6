//! A native histogram as three classic buckets, across changes of its resolution.
//!
//! Called by `pods`. An answer leaves out empty buckets, so their bounds change from sample to sample; what is surely below
//! the threshold and what may be does not. A client that has too many buckets merges neighbours, which widens the one
//! around the threshold: less is surely below, and that is no restart. What always holds: between two samples of different
//! resolution both are counted by the coarser one.

use super::super::samples::NativeHistogram;
use crate::judge::{
    latency::Bounds,
    samples::{Bucket, Counter, Sample},
};

/// Observations that are surely at most as slow as a threshold, that may be, and all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    fast: f64,
    maybe: f64,
    all: f64,
}

impl Counts {
    /// By buckets of resolution `schema`, where it is known.
    fn of(histogram: &NativeHistogram, schema: Option<i32>, threshold: f64) -> Self {
        let bounds = schema.and_then(|schema| Bounds::native(schema, threshold));
        // The server writes bounds as decimals; buckets differ by far more than this.
        let below = bounds.and_then(|bounds| bounds.below).map_or(threshold, |below| below * (1.0 + 1e-9));
        let above = bounds.map_or(threshold, |bounds| bounds.above * (1.0 - 1e-9));
        let sum = |counts: &dyn Fn(f64, f64) -> bool| {
            let counted = histogram.buckets.iter().filter(|bucket| counts(bucket.lower, bucket.upper));
            counted.map(|bucket| bucket.count).sum()
        };
        Self {
            fast: sum(&|_, upper| upper <= below),
            maybe: sum(&|lower, _| lower < above),
            all: histogram.count,
        }
    }
}

/// `samples` as three cumulative buckets around `threshold`.
pub(super) fn buckets(samples: &[(i64, NativeHistogram)], threshold: f64) -> [Bucket; 3] {
    let counted = counted(samples, threshold);
    let bucket = |le: f64, count: fn(&Counts) -> f64| Bucket {
        le,
        counter: counted
            .iter()
            .map(|(at_ms, counts)| Sample { at_ms: *at_ms, value: count(counts) })
            .collect::<Counter>(),
    };
    [
        bucket(threshold.next_down(), |counts| counts.fast),
        bucket(threshold.next_up(), |counts| counts.maybe),
        bucket(f64::INFINITY, |counts| counts.all),
    ]
}

fn counted(samples: &[(i64, NativeHistogram)], threshold: f64) -> Vec<(i64, Counts)> {
    let (mut found, mut gained) = (Vec::with_capacity(samples.len()), Counts::default());
    let mut before: Option<(&NativeHistogram, Option<i32>)> = None;
    for (at_ms, histogram) in samples {
        let (last, known) = before.map_or((None, None), |(last, known)| (Some(last), known));
        let mut schema = schema(histogram).or(known);
        match (last, known, schema) {
            (Some(last), _, _) if histogram.count < last.count => {
                gained = Counts::default();
                schema = self::schema(histogram);
            }
            (Some(last), Some(old), Some(new)) if new < old => {
                let (fine, coarse) =
                    (Counts::of(last, known, threshold), Counts::of(last, schema, threshold));
                gained.fast += fine.fast - coarse.fast;
                gained.maybe += fine.maybe - coarse.maybe;
            }
            // Buckets are never split: it began anew, and has grown beyond its old count since.
            (Some(_), Some(old), Some(new)) if new > old => {
                gained = Counts::default();
                found.push((at_ms.saturating_sub(1), Counts::default()));
            }
            (Some(_) | None, Some(_) | None, Some(_) | None) => {}
        }
        let Counts { fast, maybe, all } = Counts::of(histogram, schema, threshold);
        found.push((*at_ms, Counts { fast: fast + gained.fast, maybe: maybe + gained.maybe, all }));
        before = Some((histogram, schema));
    }
    found
}

/// The resolution of a histogram whose buckets end at powers of 2^(2^-schema); nothing for other buckets, which do not
/// change, and where only the one around zero has observations.
pub(super) fn schema(histogram: &NativeHistogram) -> Option<i32> {
    let regular = histogram.buckets.iter().filter(|bucket| bucket.lower > 0.0 && bucket.upper.is_finite());
    let mut schemas = regular.map(|bucket| {
        let width = (bucket.upper / bucket.lower).log2();
        let schema = -width.log2();
        let is_one = (schema - schema.round()).abs() < 1e-6 && (-4.0..=8.0).contains(&schema.round());
        is_one.then_some(schema.round() as i32)
    });
    let first = schemas.next()??;
    schemas.all(|schema| schema == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rollout::samples::{Boundary, NativeBucket};

    /// With so many observations in each of the buckets that end at 2^(index 2^-schema).
    fn histogram(schema: i32, counts: &[(i32, f64)]) -> NativeHistogram {
        let bound = |index: i32| (f64::from(index) * 2.0_f64.powi(-schema)).exp2();
        let bucket = |&(index, count): &(i32, f64)| NativeBucket {
            boundary: Boundary::OpenLeft,
            lower: bound(index - 1),
            upper: bound(index),
            count,
        };
        NativeHistogram {
            count: counts.iter().map(|(_, count)| count).sum(),
            sum: 0.0,
            buckets: counts.iter().map(bucket).collect(),
        }
    }

    fn increases(samples: &[NativeHistogram], threshold: f64) -> Vec<(f64, f64, f64)> {
        let samples: Vec<_> =
            samples.iter().cloned().enumerate().map(|(i, h)| (i as i64 * 1000, h)).collect();
        let counted = counted(&samples, threshold);
        let increase = |pair: &[(i64, Counts)]| {
            let (old, new) = (pair[0].1, pair[1].1);
            (new.fast - old.fast, new.maybe - old.maybe, new.all - old.all)
        };
        counted.windows(2).map(increase).collect()
    }

    #[test]
    fn a_coarser_resolution_is_no_restart() {
        // At schema 1 a bucket ends at 0.35355, at schema 0 the threshold lies within 0.25 to 0.5.
        let threshold = 0.125_f64.sqrt();
        let fine = histogram(1, &[(-4, 10.0), (-3, 30.0), (-2, 5.0), (0, 1.0)]);
        let more = histogram(1, &[(-4, 12.0), (-3, 33.0), (-2, 6.0), (0, 1.0)]);
        // The same, and another 4, 4 and 2.
        let coarse = histogram(0, &[(-2, 16.0), (-1, 43.0), (0, 3.0)]);
        let last = histogram(0, &[(-2, 17.0), (-1, 43.0), (0, 3.0)]);
        assert_eq!(
            increases(&[fine.clone(), more, coarse.clone(), last], threshold),
            [(5.0, 5.0, 6.0), (4.0, 8.0, 10.0), (1.0, 1.0, 1.0)]
        );
        // Finer again: the client began anew, and everything that it has is since then.
        assert_eq!(
            increases(&[coarse, histogram(1, &[(-3, 70.0), (0, 2.0)])], threshold),
            [(-16.0, -59.0, -62.0), (70.0, 70.0, 72.0)]
        );
        // A restart shows as ever.
        assert_eq!(increases(&[fine, histogram(1, &[(-3, 7.0)])], threshold), [(-33.0, -33.0, -39.0)]);
    }

    proptest! {
        /// What is counted as surely fast was fast, and nothing fast is missed by what may be, whenever a client merges.
        #[test]
        fn what_is_counted_brackets_what_was_observed(
            scrapes in prop::collection::vec((prop::collection::vec(-40..40_i32, 0..6), prop::bool::weighted(0.2)), 2..20),
            place in -8.0..8.0_f64,
        ) {
            // Observations lie within buckets of schema 4, of which each coarser one holds whole ones.
            let threshold = place.exp2();
            let (mut schema, mut seen, mut samples, mut truth) = (4, vec![], vec![], vec![]);
            for (observed, merges) in scrapes {
                let fast = |index: &&i32| (f64::from(**index) - 0.5) / 16.0 <= place;
                truth.push((observed.iter().filter(fast).count() as f64, observed.len() as f64));
                seen.extend(observed);
                schema -= i32::from(merges && schema > -4);
                let width = 2.0_f64.powi(4 - schema);
                let index = |fine: &i32| (f64::from(*fine) / width).ceil() as i32;
                let mut counts = std::collections::BTreeMap::<i32, f64>::new();
                seen.iter().for_each(|fine| *counts.entry(index(fine)).or_default() += 1.0);
                samples.push(histogram(schema, &counts.into_iter().collect::<Vec<_>>()));
            }
            for ((fast, maybe, all), (truly, observed)) in increases(&samples, threshold).into_iter().zip(&truth[1..]) {
                prop_assert!(fast >= 0.0 && fast <= *truly && *truly <= maybe && maybe <= all, "{fast} {truly} {maybe} {all}");
                prop_assert_eq!(all, *observed);
            }
        }
    }

    #[test]
    fn the_resolution_is_found_by_any_regular_bucket() {
        for resolution in -4..=8 {
            assert_eq!(schema(&histogram(resolution, &[(3, 1.0), (-7, 2.0)])), Some(resolution));
        }
        assert_eq!(schema(&histogram(0, &[])), None);
        let custom = |lower, upper| NativeBucket { boundary: Boundary::OpenLeft, lower, upper, count: 1.0 };
        let buckets = vec![custom(0.1, 0.2), custom(0.2, 0.5)];
        assert_eq!(schema(&NativeHistogram { count: 2.0, sum: 1.0, buckets }), None);
    }
}
