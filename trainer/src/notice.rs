//! The termination message, which reaches the operator even when storage does not.

use std::{fs, path::Path};

use anneal_crds::{
    common::shorten,
    contract::{FailureNotice, NOTICE_LIMIT, Notice, RunResult},
};

use crate::{error::Failure, schema::MAX_DIFFERENCE};

/// The message for a result. Explanations of gates are shortened until it fits, then the difference of schemas; numbers
/// and verdicts never are. Everything else is bounded where it is made, so a result of this trainer always fits.
///
/// # Errors
/// When it cannot be written as JSON, which is a bug.
pub fn of_result(result: &RunResult) -> Result<String, Failure> {
    for difference in [MAX_DIFFERENCE, 150, 50, 0] {
        for explanation in [usize::MAX, 300, 150, 75, 40, 10, 0] {
            let text = encode(&Notice::Result(Box::new(shortened(result, explanation, difference))))?;
            if text.len() <= NOTICE_LIMIT {
                return Ok(text);
            }
        }
    }
    // The operator then asks for a `report` of the result in storage.
    of_failure("the result is too long for a termination message: read result.json in the run's folder")
}

fn shortened(result: &RunResult, explanation: usize, difference: usize) -> RunResult {
    let to = |text: &str, limit: usize| match limit {
        0 => String::new(),
        limit => shorten(text, limit).into_owned(),
    };
    let mut short = result.clone();
    for outcome in &mut short.gates {
        outcome.message = to(&outcome.message, explanation);
    }
    // That there is a difference is a verdict, so an empty text is left of it and not nothing.
    if let Some(text) = short.baseline.as_mut().and_then(|baseline| baseline.schema_difference.as_mut()) {
        *text = to(text, difference);
    }
    short
}

/// The message for a failure.
///
/// # Errors
/// When it cannot be written as JSON, which is a bug.
pub fn of_failure(message: &str) -> Result<String, Failure> {
    let mut limit = NOTICE_LIMIT;
    loop {
        // Escapes make a text longer than it is.
        let message = shorten(message, limit).into_owned();
        let text = encode(&Notice::Failure(FailureNotice { message }))?;
        if text.len() <= NOTICE_LIMIT || limit == 0 {
            return Ok(text);
        }
        limit /= 2;
    }
}

/// Writes the message if the file exists: Kubernetes makes it, a laptop has none.
///
/// # Errors
/// When the file exists and cannot be written.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    fs::write(path, text)
        .map_err(|source| Failure::System { action: format!("write {}", path.display()), source })
}

fn encode(notice: &Notice) -> Result<String, Failure> {
    serde_json::to_string(notice)
        .map_err(|source| Failure::Encoding { what: "the termination message", source })
}

#[cfg(test)]
mod tests {
    use anneal_crds::{
        contract::{
            BaselineEvaluation, Device, Evaluation, GateOutcome, GateVerdict, MetricValue, RowSet, StopReason,
        },
        gates::{Enforcement, EvalMetric},
        model_version::Artifact,
    };

    use super::*;

    fn result(gates: usize, message: usize) -> RunResult {
        let outcome = GateOutcome {
            gate: "change/accuracy".into(),
            enforcement: Enforcement::Required,
            verdict: GateVerdict::NotEvaluable,
            message: "ü".repeat(message),
        };
        let rows = RowSet { rows: 1, digest: format!("sha256:{}", "0".repeat(64)) };
        RunResult {
            schema: 1,
            run_uid: "u".repeat(36),
            artifact: Artifact { uri: "s".repeat(700), digest: rows.digest.clone() },
            version: None,
            device: Device::Cpu,
            stop: StopReason::EarlyStop,
            epochs: 1,
            best_epoch: 1,
            train: rows.clone(),
            validation: rows.clone(),
            schema_digest: rows.digest.clone(),
            candidate: Evaluation { rows: 1, metrics: vec![] },
            baseline: None,
            gates: vec![outcome; gates],
            seconds: 1.0,
        }
    }

    #[test]
    fn a_notice_always_fits_and_keeps_every_verdict() {
        for (gates, message) in [(1, 10), (16, 100), (16, 5_000)] {
            let text = of_result(&result(gates, message)).unwrap();
            assert!(text.len() <= NOTICE_LIMIT, "{}", text.len());
            let Notice::Result(read) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
            assert_eq!(read.gates.len(), gates);
        }
        assert!(of_failure(&"\"\n".repeat(5_000)).unwrap().len() <= NOTICE_LIMIT);
    }

    /// As long as every part may become: the folder of all models has at most 512 bytes.
    fn longest(difference: &str) -> RunResult {
        let mut result = result(16, 5_000);
        let number = -1.234_567_890_123_456_7e-300;
        let metrics = [EvalMetric::Accuracy, EvalMetric::Loss, EvalMetric::Rmse, EvalMetric::Mae];
        let metrics = metrics.map(|name| MetricValue { name, value: number }).to_vec();
        let rows = RowSet { rows: u64::MAX, ..result.train.clone() };
        result.run_uid = "u".repeat(128);
        result.artifact.uri = "s".repeat(512 + "/".len() + 40 + "/blobs/sha256/".len() + 64);
        result.version = Some(format!("v20261121.{}", u32::MAX));
        result.device = Device::Cuda(u32::MAX);
        (result.epochs, result.best_epoch) = (u32::MAX, u32::MAX);
        (result.train, result.validation) = (rows.clone(), rows);
        result.candidate = Evaluation { rows: u64::MAX, metrics };
        result.baseline = Some(BaselineEvaluation {
            digest: result.schema_digest.clone(),
            schema_difference: Some(difference.to_owned()),
            evaluation: result.candidate.clone(),
        });
        result.seconds = number;
        result
    }

    #[test]
    fn the_longest_result_fits_whatever_differs_from_the_baseline() {
        for text in ["ü", "\"", "\u{1}", "column `x` is new, "] {
            for length in [0, 1, 50, 400, 5_000] {
                let difference: String = text.chars().cycle().take(length).collect();
                let text = of_result(&longest(&difference)).unwrap();
                assert!(text.len() <= NOTICE_LIMIT, "{}", text.len());
                let Notice::Result(read) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
                assert_eq!(read.gates.len(), 16);
                assert!(read.baseline.unwrap().schema_difference.is_some(), "a difference stays one");
            }
        }
    }
}
