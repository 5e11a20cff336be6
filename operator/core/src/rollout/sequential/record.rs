//! The record: what `status.judge` keeps of a comparison, and how it is read back.
//!
//! It is written with every other change of the status, and once a minute beside. Ticks that were folded since are folded
//! again from what Prometheus still has, with the same result: no memory is needed, and no tick costs a write.

use anneal_crds::{ModelRolloutSpec, ModelRolloutStatus, VersionRef, model_rollout::Observed};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::policy::{self, Frozen};
use crate::{
    judge::{SCHEMA, State},
    rollout::shares,
};

/// How much may have to be folded again.
const KEEP_EVERY_MS: i64 = 60_000;
/// The most that one look reads, in milliseconds: an operator that was away for longer catches up in several.
const MAX_READ_MS: i64 = 900_000;
/// What every look must be able to read: as much may have been folded since the last write.
const LEAST_READ_MS: i64 = KEEP_EVERY_MS;

/// What a comparison knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::rollout) struct Record {
    /// The version on trial.
    pub(super) version: String,
    #[serde(flatten)]
    pub(super) frozen: Frozen,
    pub(super) state: State,
    /// The most that the next look reads, in milliseconds, while the server does not give [`MAX_READ_MS`] of what was missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) piece_ms: Option<i64>,
}

/// What a written record is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rollout) struct Kept {
    ended_ms: i64,
    piece_ms: Option<i64>,
}

/// What a status has of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stored {
    /// None of this version by these terms.
    Nothing,
    /// It goes on.
    Known(Box<Record>),
    /// It was written by another version of Anneal, which must go on with it.
    Foreign,
}

impl Stored {
    pub(super) fn of(spec: &ModelRolloutSpec, status: &ModelRolloutStatus, trial: &VersionRef) -> Self {
        let Some(value) = &status.judge else { return Self::Nothing };
        if value["state"]["schema"] != SCHEMA {
            return Self::Foreign;
        }
        match serde_json::from_value::<Record>(value.clone()) {
            Err(_) => Self::Foreign,
            Ok(record)
                if record.version == trial.version && record.frozen.terms == policy::fingerprint(spec) =>
            {
                Self::Known(Box::new(record))
            }
            Ok(_) => Self::Nothing,
        }
    }
}

impl Record {
    /// Nothing known yet; the first tick starts when the data plane had taken the weights, or as long ago as can be read.
    pub(super) fn begin(trial: &VersionRef, frozen: Frozen, state: State) -> Self {
        Self { version: trial.version.clone(), frozen, state, piece_ms: None }
    }

    /// End of the last folded tick, in milliseconds since the epoch.
    pub(super) fn ended_ms(&self) -> i64 {
        let ticks = self.frozen.tick_ms.saturating_mul(i64::from(self.state.ticks));
        self.state.began_ms.saturating_add(ticks)
    }

    /// The share that requests really had, once there were some at the candidate's present one, from 0 to 1.
    pub(in crate::rollout) fn observed(&self, share: f64) -> Option<Observed> {
        self.state.split.is_of(share).then_some(())?;
        Some(shares::observed(self.state.split.share()?, self.state.split.requests()))
    }

    /// As a status keeps it.
    pub(in crate::rollout) fn to_value(&self) -> Option<Value> {
        serde_json::to_value(self).ok()
    }

    /// What it is known by.
    pub(super) fn kept(&self) -> Kept {
        Kept { ended_ms: self.ended_ms(), piece_ms: self.piece_ms }
    }

    /// Whether it is worth a write of its own: so much was folded since `kept`, or what is read next is another piece.
    pub(in crate::rollout) fn is_due(&self, kept: Option<Kept>) -> bool {
        kept.is_none_or(|kept| {
            self.ended_ms().saturating_sub(kept.ended_ms) >= KEEP_EVERY_MS || self.piece_ms != kept.piece_ms
        })
    }
}

/// What is read: raw samples after `from_ms`, up to `until_ms`, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from_ms: i64,
    pub(super) until_ms: i64,
    /// What is read beyond what every look must read.
    piece_ms: i64,
    now_ms: i64,
}

impl Range {
    /// One lookback before the end of the last folded tick, or before the moment at which the first may start.
    pub(super) fn of(
        spec: &ModelRolloutSpec,
        status: &ModelRolloutStatus,
        stored: &Stored,
        now: Timestamp,
    ) -> Self {
        let now_ms = now.as_millisecond();
        let stale_after_ms = spec.prometheus.stale_after.as_millis();
        let (tick_ms, stale_after_ms, from_ms, most_ms) = match stored {
            Stored::Known(record) => {
                let Frozen { tick_ms, stale_after_ms, .. } = record.frozen;
                (tick_ms, stale_after_ms, record.ended_ms(), record.piece_ms.unwrap_or(MAX_READ_MS))
            }
            Stored::Nothing | Stored::Foreign => {
                (policy::tick_ms(spec), stale_after_ms, Self::first_ms(status, now_ms), MAX_READ_MS)
            }
        };
        let lookback = tick_ms.max(stale_after_ms);
        let from_ms = from_ms.min(now_ms).saturating_sub(lookback);
        let least = from_ms.saturating_add(lookback + tick_ms);
        let until_ms = now_ms.min(least.saturating_add(most_ms));
        Self { from_ms, until_ms, piece_ms: until_ms.saturating_sub(least), now_ms }
    }

    /// Where a comparison's first tick starts.
    pub(super) fn first_ms(status: &ModelRolloutStatus, now_ms: i64) -> i64 {
        let accepted = status.traffic_accepted_at.as_ref().map_or(now_ms, |at| at.0.as_millisecond());
        accepted.clamp(now_ms.saturating_sub(MAX_READ_MS), now_ms)
    }

    /// Whether there is more to read after this.
    pub(super) const fn is_behind(&self) -> bool {
        self.until_ms < self.now_ms
    }

    /// Whether less could be read at a time.
    pub(super) const fn can_be_halved(&self) -> bool {
        self.piece_ms > LEAST_READ_MS
    }

    /// The most that the next look reads, if that is limited: half as much where this was too much, and as before until
    /// nothing is missed any more.
    pub(super) fn next_piece_ms(&self, limit: Option<i64>, is_too_much: bool) -> Option<i64> {
        if is_too_much && self.can_be_halved() {
            return Some((self.piece_ms / 2).max(LEAST_READ_MS));
        }
        limit.filter(|_| is_too_much || self.is_behind())
    }

    /// `selector` over the range. What was a while ago is asked for by its time.
    pub(super) fn apply(&self, selector: &str) -> String {
        let length = self.until_ms.saturating_sub(self.from_ms).max(1);
        let at = if self.is_behind() { format!(" @ {}", seconds(self.until_ms)) } else { String::new() };
        format!("{selector}[{length}ms]{at}")
    }
}

/// Milliseconds since the epoch as PromQL writes a time.
pub(super) fn seconds(millis: i64) -> String {
    format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))
}
