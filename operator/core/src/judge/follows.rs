//! Follows: since when requests surely go where they should, after they went elsewhere.
//!
//! Kept by [`super::split`] while it finds a mismatch. A data plane that follows late would else be held, and its candidate rejected, for
//! requests that went the old way before it was mended: to make up for two minutes of them takes most of an hour. Two cumulative sums
//! (Page, Continuous inspection schemes, 1954) of the logarithm of how much better the wanted share explains each tick than one half
//! way back does, and one as far on the other side. While a sum is not above nothing it begins anew, so what it has counted is what came
//! since. A share that is only nearer may be taken for the wanted one before the split's own test finds it; each time makes the next four
//! times as hard.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tick::Shares;

/// By how much each time makes the next one harder, and how often it does.
const HARDER: f64 = 4.0;
const MOST_TIMES: u32 = 20;

/// Requests since they began to go right, by what speaks against a smaller and against a larger share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Follows {
    smaller: Since,
    larger: Since,
    /// How often it was said.
    times: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Since {
    ln_value: f64,
    candidate: u64,
    stable: u64,
}

impl Follows {
    /// Adds a tick where the share was `before` and should be `weight`, both from 0 to below 1, and not the same.
    pub(super) fn add(&mut self, before: f64, weight: f64, shares: &Shares) {
        let half_way = f64::midpoint(before, weight);
        // As far on the other side, and not beyond what there is.
        let mirrored = (2.0 * weight - half_way).clamp(weight / 2.0, f64::midpoint(weight, 1.0));
        let (low, high) = if half_way < weight { (half_way, mirrored) } else { (mirrored, half_way) };
        self.smaller.add(low, weight, shares);
        self.larger.add(high, weight, shares);
    }

    /// Requests of the candidate and of stable since they seem to go right.
    pub(super) fn since(&self) -> (u64, u64) {
        let later = if self.smaller.requests() < self.larger.requests() { self.smaller } else { self.larger };
        (later.candidate, later.stable)
    }

    /// Whether they surely do.
    pub(super) fn is_sure(&self, design_effect: f64, ln_sure: f64) -> bool {
        let needed = ln_sure * design_effect * HARDER.powi(self.times.min(MOST_TIMES).cast_signed());
        self.smaller.ln_value >= needed && self.larger.ln_value >= needed
    }

    /// It was said.
    pub(super) fn said(&self) -> Self {
        Self { times: self.times.saturating_add(1), ..Self::default() }
    }

    /// What came until now is no such thing, or nothing is wrong.
    pub(super) fn anew(&self) -> Self {
        Self { times: self.times, ..Self::default() }
    }

    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Since {
    fn add(&mut self, other: f64, weight: f64, shares: &Shares) {
        let (candidate, stable) = (shares.candidate.requests, shares.stable.requests);
        let ln_value = candidate as f64 * libm::log(weight / other)
            + stable as f64 * (libm::log1p(-weight) - libm::log1p(-other));
        let sum = self.ln_value + ln_value;
        if sum > 0.0 {
            self.ln_value = sum;
            self.candidate = self.candidate.saturating_add(candidate);
            self.stable = self.stable.saturating_add(stable);
        } else {
            *self = Self::default();
        }
    }

    const fn requests(&self) -> u64 {
        self.candidate.saturating_add(self.stable)
    }
}
