//! What clients saw, against what was promised.

use anneal_crds::model_rollout::RolloutPhase;
use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use serde::Serialize;

use crate::{
    load::{Outcome, Seen},
    story::Window,
};

/// How long after the acceptance of a route the proxies may take to have it.
const SETTLE: SignedDuration = SignedDuration::from_secs(2);
/// Fewest requests of a step whose share says something.
const MIN_REQUESTS: usize = 500;
/// Standard deviations that a share may be off.
const SIGMAS: f64 = 4.5;

/// The demo's last line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Phase of the main RetrainJob.
    pub(crate) retrain: String,
    /// The version that it became.
    pub(crate) version: String,
    /// Phase of the rollout of that version.
    pub(crate) rollout: String,
    /// `Rejected` if both the flipped and the tied run were.
    pub(crate) rejected: String,
    /// Phase of the rollout of the faulty version.
    pub(crate) faulty: String,
    /// Requests sent.
    pub(crate) requests: usize,
    /// Requests that failed outside the injected faults.
    #[serde(rename = "failedRequests")]
    pub(crate) failed: usize,
    /// How long it all took.
    pub(crate) seconds: u64,
    /// Fewest requests that were asked for.
    #[serde(skip)]
    pub(crate) wanted_requests: usize,
}

impl Report {
    /// One line of JSON, in the order that is promised.
    pub(crate) fn line(&self) -> Result<String> {
        serde_json::to_string(self).context("the report cannot be written as JSON")
    }

    /// Whether every field is as it must be.
    pub(crate) fn is_as_promised(&self) -> bool {
        self.retrain == "Succeeded"
            && self.version.starts_with('v')
            && self.rollout == "Healthy"
            && self.rejected == "Rejected"
            && self.faulty == "RolledBack"
            && self.requests >= self.wanted_requests
            && self.failed == 0
    }
}

/// Requests that failed outside the injected faults, with the first few reasons.
pub(crate) fn failures(seen: &[Seen]) -> (usize, Vec<String>) {
    let mut reasons = vec![];
    let mut count = 0;
    for request in seen {
        match &request.outcome {
            Outcome::Ok | Outcome::Injected => {}
            Outcome::Failed(why) => {
                count += 1;
                if reasons.len() < 5 {
                    reasons.push(format!("{} from {:?}: {why}", request.at, request.version));
                }
            }
        }
    }
    (count, reasons)
}

/// Every step's share is its weight, and nobody got an answer from a version in shadow. Returns a line for each step.
pub(crate) fn shares(windows: &[Window], seen: &[Seen]) -> Result<Vec<String>> {
    windows.iter().filter_map(|window| share(window, seen).transpose()).collect()
}

fn share(window: &Window, seen: &[Seen]) -> Result<Option<String>> {
    let (from, to) = (window.from.saturating_add(SETTLE)?, window.to);
    let answered: Vec<&Seen> = seen
        .iter()
        .filter(|request| request.at >= from && request.at < to && request.version.is_some())
        .collect();
    let (all, candidate) = (
        answered.len(),
        answered.iter().filter(|request| request.version.as_deref() == Some(&window.version)).count(),
    );
    if window.phase == RolloutPhase::Shadow {
        ensure!(
            candidate == 0,
            "{candidate} clients got an answer from {} while it was in shadow",
            window.version
        );
    }
    if all < MIN_REQUESTS {
        return Ok(None);
    }
    let (n, weight) = (all as f64, f64::from(window.weight) / 100.0);
    let observed = candidate as f64 / n;
    let allowed = SIGMAS * (weight * (1.0 - weight) / n).sqrt();
    ensure!(
        (observed - weight).abs() <= allowed,
        "{} took {:.1} % of {all} requests at weight {} %, more than {SIGMAS} sigma off",
        window.version,
        observed * 100.0,
        window.weight
    );
    Ok(Some(format!(
        "  {} at {} %: {:.1} % of {all} requests",
        window.version,
        window.weight,
        observed * 100.0
    )))
}
