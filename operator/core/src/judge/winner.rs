//! The winner of an experiment: a group-sequential test with a planned number of looks, more powerful at its end than an
//! always-valid one.
//!
//! A controller calls [`Design::decide`] after each planned look with all looks so far. While looks come at the planned
//! information the boundary is that of O'Brien and Fleming; from the first look that does not, what is left of alpha is spent
//! as Lan and DeMets (1983) do, by the information that there is. Boundaries come from the recursive integration of
//! Armitage, McPherson and Rowe (1969).

use super::tick::ArmCount;

/// An experiment's plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// Two-sided chance of a winner where there is no difference; above 0, below 1.
    pub alpha: f64,
    /// Planned looks, equally spaced in information; at least one.
    pub looks: u32,
}

/// What one look saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Information so far as a share of what is planned, above 0, rising from look to look. Above 1 counts as 1.
    pub information: f64,
    /// The candidate's advantage in standard errors.
    pub z: f64,
}

/// Whether anything but the primary metric stands against the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guards {
    /// Every secondary metric is non-inferior, the split is right, and the shortest duration is over.
    Hold,
    /// One of these is not, or not yet.
    Open,
}

/// Who won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    /// Nobody yet.
    Undecided,
    /// The candidate.
    Candidate,
    /// Stable: the candidate is worse.
    Stable,
    /// Nobody in the planned time; stable stays.
    Inconclusive,
}

/// z of the candidate's share of good events against stable's, from matured cohorts; nothing without variance.
pub fn z(candidate: ArmCount, stable: ArmCount) -> Option<f64> {
    let (n_c, n_s) = (candidate.requests as f64, stable.requests as f64);
    let bad = (candidate.bad as f64 + stable.bad as f64) / (n_c + n_s);
    let variance = bad * (1.0 - bad) * (1.0 / n_c + 1.0 / n_s);
    let z = (stable.bad as f64 / n_s - candidate.bad as f64 / n_c) / variance.sqrt();
    z.is_finite().then_some(z)
}

impl Design {
    /// Who won, by all looks so far. Looks that are not finite, or do not rise in information, decide nothing.
    pub fn decide(&self, looks: &[Look], guards: Guards) -> Winner {
        let fractions: Vec<f64> = looks
            .iter()
            // `min` would make a share of what is not a number.
            .map(|look| if look.information > 1.0 { 1.0 } else { look.information })
            .collect();
        let boundaries = self.boundaries(&fractions);
        let crossed = looks
            .iter()
            .zip(&boundaries)
            .find(|(look, boundary)| look.z.is_finite() && look.z.abs() >= **boundary)
            .map(|(look, _)| look.z > 0.0);
        let over = looks.len() >= self.looks as usize || fractions.last().is_some_and(|last| *last >= 1.0);
        match (crossed, guards) {
            (Some(true), Guards::Hold) => Winner::Candidate,
            (Some(false), Guards::Hold | Guards::Open) => Winner::Stable,
            (Some(true), Guards::Open) | (None, _) if over => Winner::Inconclusive,
            (Some(true), Guards::Open) | (None, _) => Winner::Undecided,
        }
    }

    /// The boundary of |z| at each look; infinite where a look adds no information.
    pub fn boundaries(&self, fractions: &[f64]) -> Vec<f64> {
        let planned = self.obrien_fleming();
        let (mut walk, mut spent, mut on_plan) = (Walk::new(0.0), 0.0, true);
        let mut boundaries = Vec::with_capacity(fractions.len());
        for (look, &fraction) in (1_u32..).zip(fractions) {
            if !(fraction > walk.time && fraction <= 1.0) {
                boundaries.push(f64::INFINITY);
                continue;
            }
            on_plan &= (fraction - f64::from(look) / f64::from(self.looks.max(1))).abs() < 1e-9;
            let bound = if on_plan {
                planned
            } else {
                walk.bound(fraction, (self.spending(fraction) - spent).max(0.0))
            };
            spent += walk.step(fraction, bound);
            boundaries.push(bound / fraction.sqrt());
        }
        boundaries
    }

    /// The constant C of O'Brien and Fleming: |z| at look k of K must reach C sqrt(K/k). In terms of the walk z sqrt(t) the
    /// boundary is the same at every look.
    pub fn obrien_fleming(&self) -> f64 {
        let looks = self.looks.max(1);
        let crossing = |bound: f64| {
            let mut walk = Walk::new(0.0);
            (1..=looks).map(|look| walk.step(f64::from(look) / f64::from(looks), bound)).sum::<f64>()
        };
        bisect(0.0, 8.0, |bound| crossing(bound) > self.alpha)
    }

    /// How much of alpha may be spent by this share of the information, after O'Brien and Fleming.
    fn spending(&self, fraction: f64) -> f64 {
        let quantile = bisect(0.0, 40.0, |z| 2.0 * tail(z) > self.alpha);
        2.0 * tail(quantile / fraction.sqrt())
            * if fraction >= 1.0 { self.alpha / (2.0 * tail(quantile)) } else { 1.0 }
    }
}

/// The density of z sqrt(t) where no boundary was crossed yet, at equally spaced points.
#[derive(Clone, Debug)]
struct Walk {
    time: f64,
    drift: f64,
    bound: f64,
    values: Vec<f64>,
}

impl Walk {
    const fn new(drift: f64) -> Self {
        Self { time: 0.0, drift, bound: 0.0, values: Vec::new() }
    }

    /// Walks on to `time` and stops what is beyond `bound`: how much that is.
    fn step(&mut self, time: f64, bound: f64) -> f64 {
        let crossed = self.crossing(time, bound);
        let spread = (time - self.time).sqrt();
        // Points closer than the kernel is wide.
        let half = ((bound / spread * 6.0).ceil() as usize).clamp(32, 1024);
        let spacing = bound / half as f64;
        let values = (0..=2 * half)
            .map(|i| {
                let to = i as f64 * spacing - bound;
                self.integrate(|from| {
                    density((to - from - self.drift * (time - self.time)) / spread) / spread
                })
            })
            .collect();
        (self.time, self.bound, self.values) = (time, bound, values);
        crossed
    }

    /// How much is beyond `bound` at `time`.
    fn crossing(&self, time: f64, bound: f64) -> f64 {
        let spread = (time - self.time).sqrt();
        let drift = self.drift * (time - self.time);
        self.integrate(|from| tail((bound - from - drift) / spread) + tail((bound + from + drift) / spread))
    }

    /// The bound at `time` beyond which there is as much as `spend`.
    fn bound(&self, time: f64, spend: f64) -> f64 {
        bisect(0.0, 10.0, |bound| self.crossing(time, bound) > spend)
    }

    /// The integral of `f` over the density, by Simpson's rule; the walk starts at zero.
    fn integrate(&self, f: impl Fn(f64) -> f64) -> f64 {
        let Some(last) = self.values.len().checked_sub(1).filter(|last| *last > 0) else { return f(0.0) };
        let spacing = 2.0 * self.bound / last as f64;
        let weighted = self.values.iter().enumerate().map(|(i, value)| {
            let weight = match i {
                i if i == 0 || i == last => 1.0,
                i if i % 2 == 1 => 4.0,
                _ => 2.0,
            };
            weight * value * f(i as f64 * spacing - self.bound)
        });
        weighted.sum::<f64>() * spacing / 3.0
    }
}

fn density(z: f64) -> f64 {
    0.398_942_280_401_432_7 * libm::exp(-0.5 * z * z)
}

/// P(Z > z) of the standard normal.
fn tail(z: f64) -> f64 {
    0.5 * libm::erfc(z * std::f64::consts::FRAC_1_SQRT_2)
}

/// Where `above` turns from true to false.
fn bisect(low: f64, high: f64, above: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (low, high);
    for _ in 0..36 {
        let middle = 0.5 * (low + high);
        if above(middle) { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESIGN: Design = Design { alpha: 0.05, looks: 14 };

    /// Chance of crossing |z| boundaries at equally spaced looks when the last z has this mean.
    fn power(boundaries: &[f64], drift: f64) -> f64 {
        let mut walk = Walk::new(drift);
        let times = (1..=boundaries.len()).map(|look| look as f64 / boundaries.len() as f64);
        times.zip(boundaries).map(|(time, boundary)| walk.step(time, boundary * time.sqrt())).sum()
    }

    #[test]
    fn boundaries_are_those_of_the_textbooks() {
        // Jennison and Turnbull (2000), table 2.3: C_B(K, 0.05).
        for (looks, constant) in [(1, 1.960), (2, 1.977), (5, 2.040), (10, 2.087)] {
            let found = Design { looks, ..DESIGN }.obrien_fleming();
            assert!((found - constant).abs() < 1e-3, "{looks}: {found}");
        }
        assert!((DESIGN.obrien_fleming() - 2.104).abs() < 0.01);
        let planned: Vec<f64> = (1..=14).map(|look| f64::from(look) / 14.0).collect();
        for (look, boundary) in (1..).zip(DESIGN.boundaries(&planned)) {
            assert!((boundary / (2.104 * (14.0 / f64::from(look)).sqrt()) - 1.0).abs() < 0.005);
        }
    }

    #[test]
    fn spending_by_information_is_that_of_lan_and_demets() {
        // Looks that are never on the plan: two at 0.3 and 0.7, then the end.
        let boundaries = DESIGN.boundaries(&[0.3, 0.7, 1.0]);
        // Before the first look nothing was spent: its boundary is 1.96 / sqrt(0.3).
        assert!((boundaries[0] - 3.5784).abs() < 1e-3, "{boundaries:?}");
        let mut walk = Walk::new(0.0);
        let crossed: f64 = [0.3, 0.7, 1.0]
            .into_iter()
            .zip(&boundaries)
            .map(|(time, boundary)| walk.step(time, boundary * f64::sqrt(time)))
            .sum();
        assert!((crossed - 0.05).abs() < 1e-6, "{crossed}");
    }

    #[test]
    fn false_winners_and_power_are_those_of_the_specification() {
        let planned: Vec<f64> = (1..=14).map(|look| f64::from(look) / 14.0).collect();
        let ours = DESIGN.boundaries(&planned);
        assert!((power(&ours, 0.0) - 0.05).abs() < 1e-6);
        assert!((power(&ours, 2.80) - 0.784).abs() < 0.01);
        assert!((power(&ours, 4.0) - 0.976).abs() < 0.01);
        assert!((power(&[1.96; 14], 0.0) - 0.22).abs() < 0.01);
    }

    #[test]
    fn a_winner_needs_its_guards_and_a_loser_does_not() {
        let look = |day: u32, z: f64| Look { information: f64::from(day) / 14.0, z };
        let early = [look(1, 1.0), look(2, 6.0)];
        assert_eq!(DESIGN.decide(&early, Guards::Hold), Winner::Candidate);
        assert_eq!(DESIGN.decide(&early, Guards::Open), Winner::Undecided);
        assert_eq!(DESIGN.decide(&[look(1, -9.0)], Guards::Open), Winner::Stable);
        assert_eq!(DESIGN.decide(&[look(1, 2.5), look(2, f64::NAN)], Guards::Hold), Winner::Undecided);
        let all: Vec<Look> = (1..=14).map(|day| look(day, 1.5)).collect();
        assert_eq!(DESIGN.decide(&all, Guards::Hold), Winner::Inconclusive);
        // The same information again is no look.
        assert_eq!(DESIGN.decide(&[look(1, 0.0), look(1, 99.0)], Guards::Hold), Winner::Undecided);
        assert_eq!(
            DESIGN.decide(&[Look { information: f64::NAN, z: 99.0 }], Guards::Hold),
            Winner::Undecided
        );
    }

    #[test]
    fn z_of_shares() {
        let z_of = |n_c, x_c, n_s, x_s| {
            z(ArmCount { requests: n_c, bad: x_c }, ArmCount { requests: n_s, bad: x_s })
        };
        assert!((z_of(5000, 650, 5000, 750).unwrap() - 2.88).abs() < 0.01);
        assert_eq!((z_of(0, 0, 10, 1), z_of(10, 0, 10, 0)), (None, None));
    }
}
