//! The termination message, which reaches the operator even when storage does not.

use std::{fs, path::Path};

use anneal_crds::{
    common::shorten,
    contract::{FailureNotice, NOTICE_LIMIT, Notice, RunResult},
};

use crate::error::Failure;

/// The message for a result. Long explanations of gates are shortened until it fits; numbers and verdicts never are.
///
/// # Errors
/// When it cannot be written as JSON, which is a bug.
pub fn of_result(result: &RunResult) -> Result<String, Failure> {
    let mut text = encode(&Notice::Result(Box::new(result.clone())))?;
    for limit in [300, 150, 75, 40, 10, 0] {
        if text.len() <= NOTICE_LIMIT {
            break;
        }
        let mut short = result.clone();
        for outcome in &mut short.gates {
            outcome.message =
                if limit == 0 { String::new() } else { shorten(&outcome.message, limit).into_owned() };
        }
        text = encode(&Notice::Result(Box::new(short)))?;
    }
    if text.len() <= NOTICE_LIMIT {
        return Ok(text);
    }
    // The operator then asks for a `report` of the result in storage.
    of_failure("the result is too long for a termination message: read result.json in the run's folder")
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
        contract::{Device, Evaluation, GateOutcome, GateVerdict, RowSet, StopReason},
        gates::Enforcement,
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
}
