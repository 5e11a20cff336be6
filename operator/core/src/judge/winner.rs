//! The winner of an experiment: a group-sequential test with a planned number of looks, more powerful at its end than an
//! always-valid one.
//!
//! [`super::experiment`] asks for the [`Design::boundary`] of each look, and [`Design::decide`] with all looks so far. While looks
//! come at the planned times, and what they have counted grows as evenly, the boundary is that of O'Brien and Fleming; from the
//! first look that does not, what is left of alpha is spent as Lan and DeMets do: by time (1989), which is known beforehand,
//! while looks depend on each other by what they have counted. Boundaries come from the recursive integration of Armitage,
//! McPherson and Rowe (1969).

use super::tick::ArmCount;

/// An experiment's plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// Two-sided chance of a winner where there is no difference; above 0, below 1.
    pub alpha: f64,
    /// Planned looks, equally spaced in time; at least one.
    pub looks: u32,
}

/// What one look saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// The share of the planned time that was over, above 0, rising from look to look. Above 1 counts as 1.
    pub time: f64,
    /// What had been counted, one over the variance of the difference: in any unit, rising from look to look.
    pub information: f64,
    /// The candidate's advantage in standard errors.
    pub z: f64,
    /// What |z| had to reach.
    pub boundary: f64,
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

/// By how much two arms differ without any cause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Variance of a count over that of independent events, at least 1.
    pub design_effect: f64,
    /// Standard deviation of the logarithm of the ratio of the arms' rates that is due to their pods.
    pub pods: f64,
}

impl Noise {
    /// Events are independent, and pods are alike.
    pub const NONE: Self = Self { design_effect: 1.0, pods: 0.0 };

    /// One over the variance of the difference between two arms' shares, where `bad` of all events are bad.
    pub fn information(self, candidate: ArmCount, stable: ArmCount, bad: f64) -> f64 {
        let events = 1.0 / candidate.requests as f64 + 1.0 / stable.requests as f64;
        let pods = bad * self.pods;
        1.0 / (self.design_effect * bad * (1.0 - bad) * events + pods * pods)
    }
}

/// The share of bad events of both arms together.
pub fn bad_share(candidate: ArmCount, stable: ArmCount) -> f64 {
    (candidate.bad as f64 + stable.bad as f64) / (candidate.requests as f64 + stable.requests as f64)
}

/// z of the candidate's share of good events against stable's, from matured cohorts; nothing without variance.
pub fn z(candidate: ArmCount, stable: ArmCount, noise: Noise) -> Option<f64> {
    let share = |arm: ArmCount| arm.bad as f64 / arm.requests as f64;
    let information = noise.information(candidate, stable, bad_share(candidate, stable));
    let z = (share(stable) - share(candidate)) * information.sqrt();
    z.is_finite().then_some(z)
}

impl Design {
    /// Who won, by all looks so far. The candidate wins by the newest look: what an earlier one showed and this one does not
    /// any more may have been the charm of novelty. Looks that are not finite decide nothing.
    pub fn decide(&self, looks: &[Look], guards: Guards) -> Winner {
        let over = looks.len() >= self.looks as usize || looks.last().is_some_and(|last| last.time >= 1.0);
        let is_ahead = looks.last().is_some_and(|last| last.z >= last.boundary);
        match (looks.iter().any(|look| look.z <= -look.boundary), is_ahead, guards) {
            (true, ..) => Winner::Stable,
            (false, true, Guards::Hold) => Winner::Candidate,
            (false, true, Guards::Open) | (false, false, _) if over => Winner::Inconclusive,
            (false, true, Guards::Open) | (false, false, _) => Winner::Undecided,
        }
    }

    /// The boundary of |z| at each look, if what is counted rises evenly with time.
    pub fn boundaries(&self, times: &[f64]) -> Vec<f64> {
        let mut looks: Vec<Look> = Vec::with_capacity(times.len());
        for &time in times {
            let boundary = self.boundary(&looks, time, time);
            looks.push(Look { time, information: time, z: 0.0, boundary });
        }
        looks.into_iter().map(|look| look.boundary).collect()
    }

    /// The boundary of |z| at a look after those of the past; infinite where it is not later, or has nothing more to tell.
    pub fn boundary(&self, past: &[Look], time: f64, information: f64) -> f64 {
        let time = if time > 1.0 { 1.0 } else { time };
        let past: Vec<&Look> = past.iter().filter(|look| look.boundary.is_finite()).collect();
        let rises = past.iter().all(|look| time > look.time && information > look.information);
        if !(time > 0.0 && information > 0.0 && information.is_finite() && rises) {
            return f64::INFINITY;
        }
        // In terms of the walk z sqrt(t) only ratios of information count.
        let walked = |look: &Look| look.information / information * time;
        let is_planned =
            |time: f64, look: usize| (time - look as f64 / f64::from(self.looks.max(1))).abs() < 1e-9;
        let is_even = |look: &Look| (walked(look) - look.time).abs() < 1e-9;
        let on_plan = is_planned(time, past.len() + 1)
            && past.iter().zip(1..).all(|(look, number)| is_planned(look.time, number) && is_even(look));
        if on_plan {
            let constant = past.first().map(|first| first.boundary * first.time.sqrt());
            return constant.unwrap_or_else(|| self.obrien_fleming()) / time.sqrt();
        }
        let mut walk = Walk::new(0.0);
        let spent: f64 =
            past.iter().map(|look| walk.step(walked(look), look.boundary * walked(look).sqrt())).sum();
        walk.bound(time, (self.spending(time) - spent).max(0.0)) / time.sqrt()
    }

    /// The constant C of O'Brien and Fleming: |z| at look k of K must reach C sqrt(K/k). In terms of the walk z sqrt(t) the
    /// boundary is the same at every look.
    pub fn obrien_fleming(&self) -> f64 {
        let looks = self.looks.max(1);
        let crossing = |bound: f64| {
            let mut walk = Walk::new(0.0);
            (1..=looks).map(|look| walk.step(f64::from(look) / f64::from(looks), bound)).sum::<f64>()
        };
        // One look needs the least; with ever more of them the walk reaches a bound twice as often as it ends beyond it.
        let (one, endless) = (normal_quantile(0.5 * self.alpha), normal_quantile(0.25 * self.alpha));
        bisect(one, endless, |bound| crossing(bound) > self.alpha)
    }

    /// How much of alpha may be spent by this share of the information, after O'Brien and Fleming.
    fn spending(&self, fraction: f64) -> f64 {
        let quantile = normal_quantile(0.5 * self.alpha);
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

/// The z with P(Z > z) = `tail`, for tails up to a half.
pub(super) fn normal_quantile(chance: f64) -> f64 {
    bisect(0.0, 40.0, |z| tail(z) > chance)
}

/// Where `above` turns from true to false.
fn bisect(low: f64, high: f64, above: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (low, high);
    // Nobody sees the ninth decimal of a boundary, and each halving may walk through all looks.
    while high - low > 1e-9 {
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

    /// Looks at equal times with these z.
    fn looks(zs: &[f64]) -> Vec<Look> {
        let times: Vec<f64> = (1..=zs.len()).map(|look| look as f64 / 14.0).collect();
        let boundaries = DESIGN.boundaries(&times);
        let all = times.into_iter().zip(zs).zip(boundaries);
        all.map(|((time, z), boundary)| Look { time, information: time, z: *z, boundary }).collect()
    }

    #[test]
    fn a_winner_needs_its_guards_and_a_loser_does_not() {
        for (zs, guards, winner) in [
            (vec![1.0, 6.0], Guards::Hold, Winner::Candidate),
            (vec![1.0, 6.0], Guards::Open, Winner::Undecided),
            // What was new is not any more.
            (vec![1.0, 6.0, 3.0], Guards::Hold, Winner::Undecided),
            (vec![-9.0], Guards::Open, Winner::Stable),
            (vec![-9.0, 6.0], Guards::Hold, Winner::Stable),
            (vec![2.5, f64::NAN], Guards::Hold, Winner::Undecided),
            (vec![], Guards::Hold, Winner::Undecided),
            (vec![1.5; 14], Guards::Hold, Winner::Inconclusive),
            (vec![3.0; 14], Guards::Open, Winner::Inconclusive),
            (vec![3.0; 14], Guards::Hold, Winner::Candidate),
        ] {
            assert_eq!(DESIGN.decide(&looks(&zs), guards), winner, "{zs:?}");
        }
    }

    #[test]
    fn a_look_without_anything_new_decides_nothing() {
        let one = looks(&[0.0]);
        let twice = 2.0 / 14.0;
        for (time, information) in [
            (one[0].time, 1.0),
            (twice, one[0].information),
            (f64::NAN, 1.0),
            (twice, f64::NAN),
            (twice, f64::INFINITY),
        ] {
            assert_eq!(DESIGN.boundary(&one, time, information), f64::INFINITY);
        }
        // And takes nothing from those that follow.
        let idle = Look { time: twice, boundary: f64::INFINITY, ..one[0] };
        let (with, without) = (DESIGN.boundary(&[one[0], idle], 0.3, 0.3), DESIGN.boundary(&one, 0.3, 0.3));
        assert!(with.is_finite() && with == without, "{with} {without}");
    }

    #[test]
    fn uneven_days_hold_alpha_by_what_was_counted() {
        // Quiet at first, busy later: the share of planned looks, and what was counted by then.
        let counted = [0.01, 0.03, 0.2, 0.7, 1.0];
        let design = Design { alpha: 0.05, looks: 5 };
        let mut seen: Vec<Look> = vec![];
        for (look, information) in (1_u32..).zip(counted) {
            // The unit does not matter.
            let (time, information) = (f64::from(look) / 5.0, information * 12_345.0);
            let boundary = design.boundary(&seen, time, information);
            seen.push(Look { time, information, z: 0.0, boundary });
        }
        let mut walk = Walk::new(0.0);
        let crossed: f64 = seen
            .iter()
            .zip(counted)
            .map(|(look, counted)| walk.step(counted, look.boundary * f64::sqrt(counted)))
            .sum();
        assert!((crossed - 0.05).abs() < 1e-6, "{crossed}");
        let falls = seen.windows(2).all(|pair| pair[1].boundary < pair[0].boundary);
        assert!(falls && seen[4].boundary < 2.3, "{seen:?}");
    }

    #[test]
    fn z_of_shares() {
        let z_of = |n_c, x_c, n_s, x_s, noise| {
            z(ArmCount { requests: n_c, bad: x_c }, ArmCount { requests: n_s, bad: x_s }, noise)
        };
        let plain = z_of(5000, 650, 5000, 750, Noise::NONE).unwrap();
        assert!((plain - 2.88).abs() < 0.01);
        assert_eq!((z_of(0, 0, 10, 1, Noise::NONE), z_of(10, 0, 10, 0, Noise::NONE)), (None, None));
        // Events that come by four are a quarter as many, and pods that differ by a tenth hide a tenth.
        let by_four = z_of(5000, 650, 5000, 750, Noise { design_effect: 4.0, pods: 0.0 }).unwrap();
        assert!((by_four - plain / 2.0).abs() < 1e-12);
        let of_pods = z_of(5_000_000, 650_000, 5_000_000, 750_000, Noise { design_effect: 1.0, pods: 0.1 });
        assert!((of_pods.unwrap() - 1.43).abs() < 0.01, "{of_pods:?}");
    }
}
