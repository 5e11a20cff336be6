//! Distributions that no test of one tick needs: Student's t for the luck of pods.
//!
//! Used by [`super::rules`], once for a policy.

use std::f64::consts::FRAC_PI_2;

/// Intervals of Simpson's rule; the integrands are smooth.
const INTERVALS: u32 = 512;

/// P(T > x) of Student's t with `degrees` of freedom, for x >= 0. With x = sqrt(degrees) tan(a) the density is
/// proportional to cos(a)^(degrees - 1).
pub(super) fn t_tail(x: f64, degrees: u32) -> f64 {
    let angle = (x / f64::from(degrees).sqrt()).atan();
    tail_from(angle, degrees) / (2.0 * tail_from(0.0, degrees))
}

/// The x with P(T > x) = `tail`, for tails up to a half.
pub(super) fn t_quantile(tail: f64, degrees: u32) -> f64 {
    let all = 2.0 * tail_from(0.0, degrees);
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if tail_from(middle, degrees) > tail * all { low = middle } else { high = middle }
    }
    f64::from(degrees).sqrt() * low.tan()
}

/// The integral of cos(a)^(degrees - 1) from `angle` to a right angle.
fn tail_from(angle: f64, degrees: u32) -> f64 {
    let power = f64::from(degrees) - 1.0;
    simpson(angle, FRAC_PI_2, |a| libm::pow(libm::cos(a).max(0.0), power))
}

/// The integral of `f` by Simpson's rule.
fn simpson(from: f64, to: f64, f: impl Fn(f64) -> f64) -> f64 {
    let step = (to - from) / f64::from(INTERVALS);
    let inner: f64 =
        (1..INTERVALS).map(|i| f(from + step * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (f(from) + inner + f(to)) * step / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_t_as_tables_have_it() {
        for (degrees, quantile) in [(1, 12.706), (2, 4.303), (8, 2.306), (30, 2.042), (1000, 1.962)] {
            assert!((t_quantile(0.025, degrees) - quantile).abs() < 6e-4 * quantile, "{degrees}");
            assert!((t_tail(quantile, degrees) - 0.025).abs() < 1e-4, "{degrees}");
        }
        assert!((t_tail(0.0, 5) - 0.5).abs() < 1e-12);
    }
}
