//! The demo's last line, and what of it is not as promised.
//!
//! Made by the scenario at its end, printed by `main`, which fails unless nothing differs.

use anyhow::{Context, Result};
use serde::Serialize;

/// Fewest requests a second, over the whole run.
pub(crate) const MIN_RATE: u32 = 50;

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
    /// Requests a second that were sent from the first to the last.
    #[serde(skip)]
    pub(crate) rate: f64,
}

impl Report {
    /// One line of JSON, in the order that is promised.
    pub(crate) fn line(&self) -> Result<String> {
        serde_json::to_string(self).context("the report cannot be written as JSON")
    }

    /// What is not as promised, in one sentence each; nothing when all is well.
    pub(crate) fn differences(&self) -> Vec<String> {
        let phases = [
            ("the retrained run", &self.retrain, "Succeeded"),
            ("its rollout", &self.rollout, "Healthy"),
            ("the flipped and the tied run", &self.rejected, "Rejected"),
            ("the rollout of the faulty version", &self.faulty, "RolledBack"),
        ];
        let phases = phases.into_iter().filter(|(_, is, promised)| is != promised);
        let mut all: Vec<String> =
            phases.map(|(what, is, promised)| format!("{what} is {is} and not {promised}")).collect();
        if !self.version.starts_with('v') {
            all.push(format!("the version is {:?} and not v…", self.version));
        }
        if self.requests < self.wanted_requests {
            all.push(format!("{} requests were sent and not {}", self.requests, self.wanted_requests));
        }
        // A rate that is not a number is none.
        if self.rate.is_nan() || self.rate < f64::from(MIN_RATE) {
            all.push(format!("{:.1} requests a second were sent and not {MIN_RATE} or more", self.rate));
        }
        if self.failed > 0 {
            all.push(format!("{} requests failed outside the injected faults", self.failed));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            retrain: "Succeeded".into(),
            version: "v20261121.2".into(),
            rollout: "Healthy".into(),
            rejected: "Rejected".into(),
            faulty: "RolledBack".into(),
            requests: 10_000,
            failed: 0,
            seconds: 200,
            wanted_requests: 10_000,
            rate: 60.0,
        }
    }

    #[test]
    fn the_last_line_has_its_fields_in_the_promised_order() {
        let line = r#"{"retrain":"Succeeded","version":"v20261121.2","rollout":"Healthy","rejected":"Rejected","faulty":"RolledBack","requests":10000,"failedRequests":0,"seconds":200}"#;
        assert_eq!(good().line().unwrap(), line);
        assert_eq!(good().differences(), Vec::<String>::new());
    }

    #[test]
    fn every_field_that_is_not_as_promised_is_named() {
        type Change = fn(&mut Report);
        let bad: [(Change, &str); 9] = [
            (|report| report.retrain = "Failed".into(), "Failed and not Succeeded"),
            (|report| report.version = String::new(), "and not v"),
            (|report| report.rollout = "RolledBack".into(), "RolledBack and not Healthy"),
            (|report| report.rejected = "Succeeded".into(), "Succeeded and not Rejected"),
            (|report| report.faulty = "Healthy".into(), "Healthy and not RolledBack"),
            (|report| report.requests = 9_999, "9999 requests"),
            (|report| report.failed = 1, "1 requests failed"),
            (|report| report.rate = 49.9, "49.9 requests a second"),
            (|report| report.rate = f64::NAN, "requests a second"),
        ];
        for (change, words) in bad {
            let mut report = good();
            change(&mut report);
            let differences = report.differences();
            assert!(differences.len() == 1 && differences[0].contains(words), "{differences:?} for {words}");
        }
    }
}
