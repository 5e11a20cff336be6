//! Two numbers that say how much something has changed: Jensen-Shannon divergence and Spearman's rank correlation.
//!
//! Pure arithmetic, used by `rollout::baseline`. Anything that is not finite, or cannot be compared, has none.

/// Jensen-Shannon divergence of two histograms of counts, in bits: 0 for equal shapes, 1 for nothing in common
/// (Lin, "Divergence measures based on the Shannon entropy", 1991). None if they have not the same number of bins, if one
/// is empty, or if a count is negative or not finite.
pub(crate) fn jensen_shannon(left: &[f64], right: &[f64]) -> Option<f64> {
    let (left, right) = (shares(left)?, shares(right)?);
    if left.len() != right.len() {
        return None;
    }
    let towards = |from: f64, middle: f64| if from > 0.0 { from * libm::log2(from / middle) } else { 0.0 };
    let sum: f64 = left
        .iter()
        .zip(&right)
        .map(|(left, right)| {
            let middle = f64::midpoint(*left, *right);
            (towards(*left, middle) + towards(*right, middle)) / 2.0
        })
        .sum();
    Some(sum.clamp(0.0, 1.0))
}

fn shares(counts: &[f64]) -> Option<Vec<f64>> {
    let total: f64 = counts.iter().sum();
    let usable =
        counts.iter().all(|count| count.is_finite() && *count >= 0.0) && total.is_finite() && total > 0.0;
    usable.then(|| counts.iter().map(|count| count / total).collect())
}

/// Spearman's rank correlation of two lists of values, from -1 to 1; equal values share their mean rank. None if there are fewer
/// than three pairs, if a value is not finite, or if all values of a list are equal.
pub(crate) fn spearman(left: &[f64], right: &[f64]) -> Option<f64> {
    if left.len() != right.len() || left.len() < 3 || left.iter().chain(right).any(|value| !value.is_finite())
    {
        return None;
    }
    let (left, right) = (ranks(left), ranks(right));
    let mean = (left.len() as f64 + 1.0) / 2.0;
    let (mut both, mut of_left, mut of_right) = (0.0, 0.0, 0.0);
    for (left, right) in left.iter().zip(&right) {
        let (left, right) = (left - mean, right - mean);
        both += left * right;
        of_left += left * left;
        of_right += right * right;
    }
    let spread = libm::sqrt(of_left * of_right);
    (spread > 0.0).then(|| (both / spread).clamp(-1.0, 1.0))
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count() as f64;
        let equal = values.iter().filter(|other| *other == value).count() as f64;
        below + (equal + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prop_assert, proptest};

    use super::*;

    #[test]
    fn they_are_as_defined() {
        // Figures by the definitions, computed apart.
        let close = |found: Option<f64>, wanted: f64| {
            assert!(found.is_some_and(|found| (found - wanted).abs() < 1e-12), "{found:?} {wanted}");
        };
        close(jensen_shannon(&[10.0, 0.0], &[0.0, 3.0]), 1.0);
        close(jensen_shannon(&[10.0, 30.0], &[1.0, 3.0]), 0.0);
        close(jensen_shannon(&[5.0, 5.0], &[9.0, 1.0]), 0.146_793_102_436_052_1);
        close(spearman(&[1.0, 2.0, 3.0], &[10.0, 20.0, 40.0]), 1.0);
        close(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0);
        close(spearman(&[1.0, 2.0, 2.0, 4.0, 5.0], &[2.0, 1.0, 3.0, 4.0, 5.0]), 0.820_782_681_668_123_3);
    }

    #[test]
    fn what_cannot_be_compared_has_none() {
        for (left, right) in [
            (&[1.0, 2.0, 3.0][..], &[1.0, 2.0][..]),
            (&[], &[]),
            (&[f64::NAN, 1.0, 2.0], &[1.0, 2.0, 3.0]),
            (&[f64::INFINITY, 1.0, 2.0], &[1.0, 2.0, 3.0]),
        ] {
            assert_eq!((jensen_shannon(left, right), spearman(left, right)), (None, None), "{left:?}");
        }
        assert_eq!(jensen_shannon(&[0.0, 0.0], &[1.0, 1.0]), None);
        assert_eq!(jensen_shannon(&[-1.0, 2.0], &[1.0, 1.0]), None);
        assert_eq!(spearman(&[7.0, 7.0, 7.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(spearman(&[1.0, 2.0], &[1.0, 2.0]), None);
    }

    proptest! {
        #[test]
        fn both_are_symmetric_and_bounded(pairs in vec((0.0..1e6_f64, 0.0..1e6_f64), 3..20)) {
            let (left, right): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            if let Some(found) = jensen_shannon(&left, &right) {
                prop_assert!((0.0..=1.0).contains(&found));
                prop_assert!(jensen_shannon(&right, &left).is_some_and(|other| (found - other).abs() < 1e-9));
            }
            if let Some(found) = spearman(&left, &right) {
                prop_assert!((-1.0..=1.0).contains(&found));
                prop_assert!(spearman(&right, &left).is_some_and(|other| (found - other).abs() < 1e-9));
            }
        }
    }
}
