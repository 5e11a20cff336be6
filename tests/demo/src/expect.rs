//! What objects and the cluster must tell at the ends of the chapters.
//!
//! Called by the scenario. A person who looks with kubectl must find the reason of every decision, with its numbers.

use std::time::Duration;

use anneal_crds::{ModelRolloutStatus, RetrainJobStatus, gates::EvalMetric, retrain_job::RetrainPhase};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::time::sleep;

use crate::site::{HOME, Site};

/// A run was rejected by the iron law, which shows both losses, and became no version.
pub(crate) fn rejected(name: &str, status: &RetrainJobStatus) -> Result<()> {
    ensure!(status.phase == RetrainPhase::Rejected, "{name} is {:?} and not Rejected", status.phase);
    let result = status.result.as_ref().context("a rejected run has no result")?;
    let law =
        result.gates.iter().find(|gate| gate.gate == "ironLaw").context("the iron law was not judged")?;
    let baseline = result.baseline.as_ref().context("a rejected run has no baseline")?;
    for evaluation in [&result.candidate, &baseline.evaluation] {
        let loss = evaluation.get(EvalMetric::Loss).context("a loss is missing")?;
        ensure!(
            law.message.contains(&loss.to_string()),
            "the iron law does not show {loss}: {}",
            law.message
        );
    }
    ensure!(status.version.is_none(), "{name} was rejected and has a version");
    Ok(())
}

/// A version was rolled back by a threshold, and the decision says which metric, value and bound. Returns its message.
pub(crate) fn rolled_back(status: &ModelRolloutStatus) -> Result<&str> {
    let decision = status.decision.as_ref().context("the rollback has no decision")?;
    ensure!(
        decision.reason == "ThresholdBreached",
        "rolled back because of {} and not a threshold",
        decision.reason
    );
    let breach = decision
        .readings
        .iter()
        .find(|reading| reading.verdict == "Breach")
        .context("no reading is a breach")?;
    for part in [&breach.metric, &breach.value, &breach.bound] {
        ensure!(decision.message.contains(part), "the decision does not say {part}: {}", decision.message);
    }
    Ok(&decision.message)
}

impl Site {
    /// An event of this reason says these words.
    pub(crate) async fn event_tells(&self, reason: &str, words: &str) -> Result<()> {
        let tells = |event: &Value| {
            event["reason"] == reason && event["message"].as_str().is_some_and(|said| said.contains(words))
        };
        let wait = self.progress.wait(format!("Wait for the event {reason}"));
        for _ in 0..20 {
            if self.kubectl.list("events", HOME).await?.iter().any(tells) {
                wait.done();
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        bail!("no event {reason} says: {words}")
    }

    /// How many copies of requests a version has answered in all, by its servers' own counters.
    pub(crate) async fn copies(&self, version: &str) -> Result<f64> {
        let query = format!(
            "sum(max_over_time(anneal_serve_requests_total{{version=\"{version}\",namespace=\"{HOME}\",arm=\"shadow\",code=\"200\"}}[1h]))"
        );
        let path = format!(
            "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query?query={}",
            encode(&query)
        );
        let answer: Value = serde_json::from_str(&self.kubectl.run(&["get", "--raw", &path]).await?)
            .context("Prometheus answered no JSON; look at its logs")?;
        let count = answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0");
        count.parse().with_context(|| format!("Prometheus answered {count}; look at its logs"))
    }
}

fn encode(text: &str) -> String {
    let one = |byte: u8| match byte {
        plain if plain.is_ascii_alphanumeric() => char::from(plain).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rollback(message: &str, verdict: &str) -> ModelRolloutStatus {
        serde_json::from_value(json!({"phase": "RolledBack", "decision": {
            "reason": "ThresholdBreached",
            "message": message,
            "at": "2026-11-21T00:00:00Z",
            "readings": [{"metric": "error_rate", "verdict": verdict, "value": "0.3", "bound": "<= 0.01", "query": "q"}],
        }}))
        .unwrap()
    }

    #[test]
    fn a_rollback_must_say_what_was_read_and_what_it_was_compared_with() {
        let whole = "error_rate of v3 is 0.3, and <= 0.01 is asked for.";
        assert_eq!(rolled_back(&rollback(whole, "Breach")).unwrap(), whole);
        assert!(rolled_back(&rollback("error_rate of v3 is 0.3.", "Breach")).is_err());
        assert!(rolled_back(&rollback(whole, "Pass")).is_err());
        assert!(rolled_back(&ModelRolloutStatus::default()).is_err());
    }

    #[test]
    fn a_run_that_was_not_rejected_or_cannot_say_why_is_told() {
        let error = rejected("car-loan-again", &RetrainJobStatus::default()).unwrap_err().to_string();
        assert!(error.contains("car-loan-again is Pending and not Rejected"), "{error}");
        let mute = RetrainJobStatus { phase: RetrainPhase::Rejected, ..Default::default() };
        assert!(rejected("car-loan-again", &mute).unwrap_err().to_string().contains("no result"));
    }

    #[test]
    fn a_query_is_encoded_whole() {
        assert_eq!(encode("a{b=\"1\"}"), "a%7Bb%3D%221%22%7D");
    }
}
