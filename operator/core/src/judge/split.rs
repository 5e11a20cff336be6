//! The traffic split (T6): does the candidate get the share of requests that it should?
//!
//! Kept by [`super::tick`], read by [`super::verdict`]. Two martingales, in equal parts: a beta-binomial one around the wanted
//! share, which finds any other, and the likelihood ratio of the share that was there before, which finds a data plane that
//! ignores a new weight while the step is young. Both start anew with each weight. A mismatch holds a rollout: the relative
//! test stays valid, as it uses the requests that came.

use std::f64::consts::LN_2;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{follows::Follows, tick::Shares};

/// Strength of the prior, in requests.
const PRIOR: f64 = 1000.0;
/// Chance of calling a right split wrong, at one weight.
const ALPHA: f64 = 0.001;
/// The largest share that is looked for: where all requests are asked for, one that was still under way is no wonder.
const MOST: f64 = 0.99;
/// Requests without which nothing is said where all are asked for, and so many in a row that went right make what came before
/// them requests that were under way.
const ENOUGH: u64 = 100;
/// A smaller relative departure does no harm.
const HARMLESS: f64 = 0.05;
/// Nor does a smaller share of those who should be nobody.
const HARMLESS_REST: f64 = 0.02;

/// Requests at one weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Split {
    weight: f64,
    /// The share before this one; none in a record of a version that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<f64>,
    candidate: u64,
    stable: u64,
    /// Of the candidate since stable had its last one, where all are asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    in_a_row: u64,
    /// Whether those under way at the switch were forgiven. Who comes in bursts is under way only once.
    #[serde(default, skip_serializing_if = "is_false")]
    forgiven: bool,
    /// Ticks in a row in which stable could not be counted, where all are asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    unseen: u64,
    /// Since when the data plane follows, where not all are asked for.
    #[serde(default, skip_serializing_if = "Follows::is_nothing")]
    follows: Follows,
}

impl Split {
    /// Adds a tick at a candidate's share of `weight`, of requests some of which come from the same users.
    pub(super) fn add(&mut self, weight: f64, shares: &Shares, design_effect: f64) {
        if !(weight > 0.0 && weight <= 1.0) {
            return;
        }
        let weight = weight.min(MOST);
        if self.weight.to_bits() != weight.to_bits() {
            *self = Self { weight, before: Some(self.weight), ..Self::default() };
        }
        self.unseen = 0;
        self.candidate = self.candidate.saturating_add(shares.candidate.requests);
        self.stable = self.stable.saturating_add(shares.stable.requests);
        if self.asks_for_all() {
            self.forgive(shares);
        } else {
            self.forgive_what_was_mended(shares, design_effect);
        }
    }

    /// A data plane that follows late says nothing against going on. One that comes and goes does more each time.
    fn forgive_what_was_mended(&mut self, shares: &Shares, design_effect: f64) {
        let Some(before) = self.before.filter(|before| before.to_bits() != self.weight.to_bits()) else {
            return;
        };
        if self.mismatch(design_effect).is_none() {
            self.follows = self.follows.anew();
            return;
        }
        self.follows.add(before, self.weight, shares);
        let (candidate, stable) = self.follows.since();
        let since = Self { candidate, stable, ..*self };
        if since.mismatch(design_effect).is_some() {
            self.follows = self.follows.anew();
        } else if self.follows.is_sure(design_effect, -ALPHA.ln()) {
            *self = Self { follows: self.follows.said(), ..since };
        }
    }

    /// Long requests end long after the weight has changed.
    fn forgive(&mut self, shares: &Shares) {
        let before = if shares.stable.requests > 0 { 0 } else { self.in_a_row };
        let went_right = if shares.stable.requests > 0 { 0 } else { shares.candidate.requests };
        self.in_a_row = before.saturating_add(went_right);
        if self.in_a_row >= ENOUGH && self.stable > 0 && !self.forgiven {
            (self.candidate, self.stable) = (self.in_a_row, 0);
            self.forgiven = true;
        }
    }

    /// Nothing that divides requests was counted in a tick. Pods that are new and that nobody asks may have no counters yet, and what
    /// their predecessors got is past.
    pub(super) fn miss(&mut self, most: u32) {
        self.unseen = self.unseen.saturating_add(1);
        if self.asks_for_all() && self.unseen >= u64::from(most) {
            self.count_anew();
        }
    }

    /// Whether the candidate should get (nearly) every request.
    pub(super) fn asks_for_all(&self) -> bool {
        self.weight >= MOST
    }

    /// Whether it has counted requests at this share, from 0 to 1.
    pub fn is_of(&self, share: f64) -> bool {
        self.weight.to_bits() == share.min(MOST).to_bits() && self.requests() > 0
    }

    /// Whether someone has asked the version that nobody should.
    pub const fn has_rest(&self) -> bool {
        self.weight >= MOST && self.stable > 0
    }

    /// Requests went another way meanwhile, and say nothing about the way that they go now.
    pub(super) fn count_anew(&mut self) {
        self.candidate = 0;
        self.stable = 0;
        self.in_a_row = 0;
        self.forgiven = false;
        self.unseen = 0;
        self.follows = Follows::default();
    }

    /// The share that came, if it is surely not the one that was asked for.
    pub(super) fn mismatch(&self, design_effect: f64) -> Option<f64> {
        let (candidate, stable) = (self.candidate as f64 / design_effect, self.stable as f64 / design_effect);
        if candidate + stable <= 0.0 || !(self.weight > 0.0 && self.weight < 1.0) {
            return None;
        }
        if self.asks_for_all() && self.requests() < ENOUGH {
            return None;
        }
        let share = candidate / (candidate + stable);
        let (a, b) = (PRIOR * self.weight, PRIOR * (1.0 - self.weight));
        let any_other = ln_beta(a + candidate, b + stable)
            - ln_beta(a, b)
            - candidate * libm::log(self.weight)
            - stable * libm::log1p(-self.weight);
        let ln_value = match self.before {
            Some(before) => ln_mean(any_other, ln_unchanged(before, self.weight, candidate, stable)),
            None => any_other,
        };
        let matters = if self.asks_for_all() {
            share < 1.0 - HARMLESS_REST
        } else {
            (share - self.weight).abs() > HARMLESS * self.weight
        };
        (matters && ln_value >= -ALPHA.ln()).then_some(share)
    }

    /// Requests of both arms at the present weight.
    pub const fn requests(&self) -> u64 {
        self.candidate.saturating_add(self.stable)
    }

    /// The candidate's share of them, from 0 to 1; none without requests.
    pub fn share(&self) -> Option<f64> {
        let requests = self.requests();
        (requests > 0).then(|| self.candidate as f64 / requests as f64)
    }

    /// The share that was asked for.
    pub(super) const fn weight(&self) -> f64 {
        self.weight
    }
}

/// About how many requests of both arms show that a data plane still gives the candidate a share of `before`, and not `weight`;
/// none where no number does, because the two are so near that the difference does no harm.
pub fn requests_to_tell(before: f64, weight: f64, design_effect: f64) -> Option<f64> {
    let (asks_for_all, weight) = (weight >= MOST, weight.min(MOST));
    let harmless = if asks_for_all { 1.0 - HARMLESS_REST } else { (1.0 - HARMLESS) * weight };
    let information = ln_unchanged(before, weight, before, 1.0 - before);
    let needed = design_effect * (LN_2 - ALPHA.ln()) / information;
    let fewest = if asks_for_all { ENOUGH as f64 } else { 0.0 };
    (before < harmless && needed.is_finite() && needed > 0.0).then(|| needed.max(fewest))
}

/// Whether so many requests of the candidate and of stable show that a data plane still gives the candidate a share of `before`,
/// and not `weight`; where all are asked for, whether more than a harmless rest goes elsewhere.
///
/// For counts that are estimates: only a share that lies nearer to the one before is none that chance or a rounded count makes.
pub fn is_ignored(before: f64, weight: f64, candidate: u64, stable: u64) -> bool {
    if weight >= MOST {
        return Split { weight: MOST, before: Some(before), candidate, stable, ..Split::default() }
            .mismatch(1.0)
            .is_some();
    }
    let (candidate, stable) = (candidate as f64, stable as f64);
    let differs = weight > 0.0 && before < (1.0 - HARMLESS) * weight;
    differs && ln_unchanged(before, weight, candidate, stable) >= -ALPHA.ln()
}

/// Logarithm of how much better the share before explains the requests than the wanted one does.
fn ln_unchanged(before: f64, weight: f64, candidate: f64, stable: f64) -> f64 {
    // At a share of 0 nothing at all may come, and a single request speaks against it for good.
    let of_candidate = if candidate > 0.0 { candidate * libm::log(before / weight) } else { 0.0 };
    let of_stable = if stable > 0.0 { stable * (libm::log1p(-before) - libm::log1p(-weight)) } else { 0.0 };
    of_candidate + of_stable
}

/// Logarithm of the mean of two numbers, from their logarithms.
fn ln_mean(one: f64, other: f64) -> f64 {
    let (most, least) = if one >= other { (one, other) } else { (other, one) };
    most + libm::log1p(libm::exp(least - most)) - LN_2
}

fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(said: &bool) -> bool {
    !*said
}

#[cfg(test)]
mod tests {
    use super::{super::tick::ArmCount, *};

    fn split(weight: f64, candidate: u64, stable: u64) -> Split {
        let mut split = Split::default();
        let (candidate, stable) =
            (ArmCount { requests: candidate, bad: 0 }, ArmCount { requests: stable, bad: 0 });
        split.add(weight, &Shares { candidate, stable }, 1.0);
        split
    }

    #[test]
    fn a_wrong_share_is_found_after_some_thousand_requests() {
        assert_eq!(split(0.1, 12, 88).mismatch(1.0), None);
        assert_eq!(split(0.1, 1200, 8800).mismatch(1.0), Some(0.12));
        assert_eq!(split(0.1, 1200, 8800).mismatch(10.0), None);
        // Surely different, and harmless.
        assert_eq!(split(0.1, 10_400_000, 89_600_000).mismatch(1.0), None);
        assert_eq!(split(0.1, 1_010, 9_000).mismatch(1.0), None);
        // Nothing reaches the candidate.
        assert_eq!(split(0.1, 0, 5_000).mismatch(1.0), Some(0.0));
    }

    #[test]
    fn a_plane_that_ignores_a_step_of_ten_points_is_found_in_some_hundred_requests() {
        for (before, weight) in (0..9).map(|step| (f64::from(step) / 10.0, f64::from(step + 1) / 10.0)) {
            let mut split = Split { weight: before, ..Split::default() };
            let second = |share: f64| Shares {
                candidate: ArmCount { requests: (100.0 * share).round() as u64, bad: 0 },
                stable: ArmCount { requests: (100.0 * (1.0 - share)).round() as u64, bad: 0 },
            };
            let mut seconds = 0;
            while split.mismatch(1.0).is_none() && seconds < 100 {
                split.add(weight, &second(before), 1.0);
                seconds += 1;
            }
            let told = requests_to_tell(before, weight, 1.0).unwrap();
            // Ten requests a second show it in a minute.
            assert!(
                seconds * 100 <= 500 && (told / f64::from(seconds * 100) - 1.0).abs() < 1.0,
                "{before}: {seconds}, {told}"
            );
            let mut right = Split { weight: before, ..Split::default() };
            (0..1000).for_each(|_| right.add(weight, &second(weight), 1.0));
            assert_eq!(right.mismatch(1.0), None);
        }
    }

    #[test]
    fn where_all_are_asked_for_those_under_way_are_forgiven_and_no_other() {
        let shares = |candidate, stable| Shares {
            candidate: ArmCount { requests: candidate, bad: 0 },
            stable: ArmCount { requests: stable, bad: 0 },
        };
        let after = |ticks: &[(u64, u64)]| {
            let mut split = Split { weight: 0.85, ..Split::default() };
            ticks.iter().for_each(|&(candidate, stable)| split.add(1.0, &shares(candidate, stable), 1.0));
            (split.mismatch(1.0), split.requests())
        };
        // A few at the end of a day are nothing, and neither are four hundred that took forty seconds.
        assert_eq!(after(&[(3, 3), (0, 2)]).0, None);
        let streams = vec![(0, 10); 40];
        assert_eq!(after(&streams).0, Some(0.0));
        assert_eq!(after(&[streams, vec![(10, 0); 10]].concat()), (None, 100));
        // One in seven goes on to go the old way.
        let ignored: Vec<(u64, u64)> =
            (0..60).map(|second| if second % 2 == 0 { (8, 2) } else { (9, 1) }).collect();
        assert!(after(&ignored).0.is_some());
        let in_gaps: Vec<(u64, u64)> =
            (0..60).map(|second| if second % 7 == 0 { (1, 9) } else { (10, 0) }).collect();
        assert!(after(&in_gaps).0.is_some());
        // A batch that goes straight to the old version comes again.
        let burst = [vec![(10, 20); 20], vec![(10, 0); 200]].concat();
        assert_eq!(after(&burst), (None, 2000));
        assert!(after(&[burst.clone(), burst].concat()).0.is_some());
    }

    /// Seconds of a hundred requests each, of which so many are the candidate's, until the split is found wrong, or is not any more.
    fn seconds_until(split: &mut Split, weight: f64, candidate: u64, wrong: bool) -> Option<u64> {
        let shares = Shares {
            candidate: ArmCount { requests: candidate, bad: 0 },
            stable: ArmCount { requests: 100 - candidate, bad: 0 },
        };
        (1..1000).find(|_| {
            split.add(weight, &shares, 1.0);
            split.mismatch(1.0).is_some() == wrong
        })
    }

    #[test]
    fn a_data_plane_that_follows_late_is_forgiven() {
        for (before, weight) in [(0.0, 0.1), (0.1, 0.2), (0.2, 0.5), (0.5, 0.9), (0.5, 0.3)] {
            let (old, new) = ((before * 100.0) as u64, (weight * 100.0) as u64);
            let mut split = Split { weight: before, ..Split::default() };
            assert!(seconds_until(&mut split, weight, old, true).unwrap() <= 10, "{before} {weight}");
            assert_eq!(seconds_until(&mut split, weight, old, false), None, "{before} {weight}");
            // The same requests of few users show nothing yet.
            let mut sticky = split;
            let second = Shares {
                candidate: ArmCount { requests: new, bad: 0 },
                stable: ArmCount { requests: 100 - new, bad: 0 },
            };
            (0..20).for_each(|_| sticky.add(weight, &second, 100.0));
            assert!(sticky.mismatch(1.0).is_some(), "{before} {weight}");
            let mut before_it_is_mended = 0;
            // One that comes and goes is held for longer each time.
            for _ in 0..3 {
                let mended = seconds_until(&mut split, weight, new, false).unwrap();
                assert!(mended > before_it_is_mended, "{before} {weight}: {mended}");
                before_it_is_mended = mended;
                assert_eq!(seconds_until(&mut split, weight, new, true), None, "{before} {weight}");
                assert!(seconds_until(&mut split, weight, old, true).is_some(), "{before} {weight}");
                assert_eq!(seconds_until(&mut split, weight, old, false), None, "{before} {weight}");
            }
        }
    }

    #[test]
    fn what_was_wrong_in_between_is_forgiven_and_a_share_that_is_only_nearer_is_not() {
        let from = |before: f64| Split { weight: before, ..Split::default() };
        let mut reverted = from(0.1);
        assert_eq!(seconds_until(&mut reverted, 0.2, 20, true), None);
        assert!(seconds_until(&mut reverted, 0.2, 10, true).is_some());
        assert_eq!(seconds_until(&mut reverted, 0.2, 10, false), None);
        assert!(seconds_until(&mut reverted, 0.2, 20, false).unwrap() <= 40);
        let mut overshot = from(0.1);
        assert!(seconds_until(&mut overshot, 0.2, 40, true).is_some());
        assert_eq!(seconds_until(&mut overshot, 0.2, 40, false), None);
        assert!(seconds_until(&mut overshot, 0.2, 20, false).unwrap() <= 40);
        for (before, weight, old, nearer, new) in [(0.2, 0.5, 20, 44, 50), (0.1, 0.2, 10, 18, 20)] {
            let mut split = from(before);
            assert!(seconds_until(&mut split, weight, old, true).is_some());
            let shares = Shares {
                candidate: ArmCount { requests: nearer, bad: 0 },
                stable: ArmCount { requests: 100 - nearer, bad: 0 },
            };
            let found = (0..480).filter(|_| {
                split.add(weight, &shares, 1.0);
                split.mismatch(1.0).is_some()
            });
            let found = found.count();
            assert!(found > 380, "{weight}: {found}");
            let mended = seconds_until(&mut split, weight, new, false).unwrap_or(0);
            assert!(mended <= 120, "{weight}: {mended}");
        }
    }

    #[test]
    fn what_nobody_can_count_any_more_is_past() {
        let shares = |candidate, stable| Shares {
            candidate: ArmCount { requests: candidate, bad: 0 },
            stable: ArmCount { requests: stable, bad: 0 },
        };
        let mut split = Split { weight: 0.85, ..Split::default() };
        (0..40).for_each(|_| split.add(1.0, &shares(0, 10), 1.0));
        split.miss(3);
        split.add(1.0, &shares(0, 10), 1.0);
        (0..2).for_each(|_| split.miss(3));
        assert!(split.mismatch(1.0).is_some(), "now and then somebody is not scraped");
        split.miss(3);
        assert_eq!((split.mismatch(1.0), split.requests()), (None, 0));
    }

    #[test]
    fn estimates_tell_a_plane_that_does_not_follow_and_no_other() {
        // What ten requests a second show in a minute, less the first seconds.
        let after = |before: f64, weight: f64, share: f64, requests: f64| {
            is_ignored(
                before,
                weight,
                (requests * share).round() as u64,
                (requests * (1.0 - share)).round() as u64,
            )
        };
        for (before, weight) in (0..9).map(|step| (f64::from(step) / 10.0, f64::from(step + 1) / 10.0)) {
            assert!(after(before, weight, before, 540.0), "{before}");
            for share in [weight, weight - 0.02, weight + 0.2] {
                assert!(!after(before, weight, share.min(1.0), 1e6), "{before} {share}");
            }
        }
        assert!(after(0.85, 1.0, 0.85, 200.0) && after(0.0, 1.0, 0.0, 100.0));
        assert!(!after(0.85, 1.0, 0.99, 1e6) && !after(0.85, 1.0, 0.5, 98.0));
        assert!(!after(0.0, 0.0, 0.0, 1e6) && !after(0.2, 0.2, 0.2, 1e6) && !after(0.0, 0.1, 0.0, 0.0));
    }

    #[test]
    fn a_step_that_no_number_of_requests_shows_is_told_so() {
        for (before, weight) in [(0.5, 0.52), (0.98, 1.0), (0.3, 0.3)] {
            assert_eq!(requests_to_tell(before, weight, 1.0), None, "{before} {weight}");
        }
        for (before, weight) in [(0.5, 0.55), (0.0, 1.0), (0.85, 1.0), (0.95, 1.0)] {
            let told = requests_to_tell(before, weight, 1.0).unwrap();
            let mut split = Split { weight: before, ..Split::default() };
            let second = |share: f64| Shares {
                candidate: ArmCount { requests: (1000.0 * share).round() as u64, bad: 0 },
                stable: ArmCount { requests: (1000.0 * (1.0 - share)).round() as u64, bad: 0 },
            };
            (0..=(2.0 * told / 1000.0) as u64).for_each(|_| split.add(weight, &second(before), 1.0));
            assert!(split.mismatch(1.0).is_some(), "{before} {weight} {told}");
        }
    }

    #[test]
    fn a_right_share_is_seldom_called_wrong() {
        let mut seed = 20_261_121_u64;
        let mut uniform = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut wrong = 0;
        for _ in 0..2000 {
            let mut split = Split { weight: 0.1, ..Split::default() };
            let called = (0..400).any(|_| {
                let candidate = (0..25).filter(|_| uniform() < 0.2).count() as u64;
                let shares = Shares {
                    candidate: ArmCount { requests: candidate, bad: 0 },
                    stable: ArmCount { requests: 25 - candidate, bad: 0 },
                };
                split.add(0.2, &shares, 1.0);
                split.mismatch(1.0).is_some()
            });
            wrong += u32::from(called);
        }
        // One in a thousand is allowed; two in 2000 are expected at most, and more than nine would be no chance.
        assert!(wrong <= 9, "{wrong}");
    }

    #[test]
    fn another_weight_is_another_question() {
        let mut split = split(0.1, 1200, 8800);
        let even = Shares {
            candidate: ArmCount { requests: 50, bad: 0 },
            stable: ArmCount { requests: 50, bad: 0 },
        };
        split.add(0.5, &even, 1.0);
        assert_eq!(split.mismatch(1.0), None);
        assert_eq!(Split::default().mismatch(1.0), None);
    }
}
