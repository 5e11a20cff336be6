//! `cargo xtask bench plan`: how long a decision takes.
//!
//! Prints a table and ends with one JSON line. It measures; it passes or fails nothing.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::{collections::BTreeMap, hint::black_box, io::Write, time::Instant};

use anneal_core::{
    retrain,
    rollout::{self, Answer, Answers, Children, GatewayState, Question, Series},
};
use anneal_crds::{ModelRollout, RetrainJob};
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::json;

/// The operator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of each case; the median of all counts.
const ROUNDS: usize = 31;
/// Decisions of a round.
const DECISIONS: u32 = 2_000;

const JOB: &str = include_str!("../../../../examples/car-loan/retrainjob.yaml");
const ROLLOUT: &str = include_str!("../../../../examples/car-loan/modelrollout.yaml");

fn main() -> Result<()> {
    let now = Timestamp::from_second(1_800_000_000)?;
    let job = running_job()?;
    let rollout = canary()?;
    let answers = answers(now);
    let children = Children::default();
    let retrain_snapshot = retrain::Snapshot {
        job: &job,
        rollout: None,
        stable: None,
        child: None,
        report: None,
        pods: &[],
        version: None,
        now,
    };
    let rollout_snapshot = rollout::Snapshot {
        rollout: &rollout,
        versions: &[],
        rivals: &[],
        children: &children,
        gateway: GatewayState::Programmed,
        features: rollout::Features::Unknown,
        answers: &answers,
        probed: &[],
        now,
    };
    let cases: [(&str, &dyn Fn()); 2] = [
        ("retrainTraining", &|| drop(black_box(retrain::plan(black_box(&retrain_snapshot))))),
        ("rolloutCanary", &|| drop(black_box(rollout::plan(black_box(&rollout_snapshot))))),
    ];
    let mut out = std::io::stdout().lock();
    let mut line = serde_json::Map::new();
    writeln!(out, "{:<18}{:>12}{:>12}", "plan()", "median µs", "worst µs")?;
    for (name, plan) in cases {
        let (median, worst) = measure(plan);
        writeln!(out, "{name:<18}{median:>12.2}{worst:>12.2}")?;
        line.insert(format!("{name}Micros"), json!((median * 100.0).round() / 100.0));
    }
    writeln!(out, "{}", serde_json::Value::Object(line))?;
    Ok(())
}

/// Microseconds of one decision: median and worst round.
fn measure(plan: &dyn Fn()) -> (f64, f64) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            (0..DECISIONS).for_each(|_| plan());
            started.elapsed().as_secs_f64() * 1e6 / f64::from(DECISIONS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    (rounds[ROUNDS / 2], rounds[ROUNDS - 1])
}

fn running_job() -> Result<RetrainJob> {
    let mut job: RetrainJob = serde_saphyr::from_str(JOB).context("the example cannot be read")?;
    job.metadata.namespace = Some("team-a".into());
    job.metadata.uid = Some("0b7d7e0e-2f0a-4c4e-9d1b-000000000001".into());
    job.status = Some(serde_json::from_value(
        json!({"phase": "Training", "attempt": 1, "baseline": {"bootstrap": {}}}),
    )?);
    Ok(job)
}

fn canary() -> Result<ModelRollout> {
    let mut rollout: ModelRollout = serde_saphyr::from_str(ROLLOUT).context("the example cannot be read")?;
    rollout.metadata.namespace = Some("team-a".into());
    rollout.metadata.uid = Some("0b7d7e0e-2f0a-4c4e-9d1b-000000000002".into());
    let version = |number: u32| json!({"name": format!("m-v20270101.{number}"), "version": format!("v20270101.{number}"), "digest": format!("sha256:{number:064}")});
    rollout.status = Some(serde_json::from_value(json!({
        "phase": "Canary", "weight": 10, "stable": version(1), "candidate": version(2),
        "stepStartedAt": "2027-01-15T07:00:00Z", "trafficAcceptedAt": "2027-01-15T07:00:01Z",
    }))?);
    Ok(rollout)
}

fn answers(now: Timestamp) -> Answers {
    let series = |part: &str, value: f64| Series {
        labels: BTreeMap::from([("anneal_part".to_owned(), part.to_owned())]),
        value,
    };
    let at = now.as_millisecond() as f64 / 1000.0;
    let ratio = vec![series("bad", 1.0), series("total", 1000.0), series("step", 900.0), series("at", at)];
    let mut histogram = vec![series("step", 900.0), series("at", at)];
    for (index, bound) in ["0.005", "0.01", "0.1", "0.3", "0.5", "1", "+Inf"].into_iter().enumerate() {
        let mut bucket = series("bucket", 900.0 + index as f64);
        bucket.labels.insert("le".into(), bound.into());
        histogram.push(bucket);
    }
    BTreeMap::from([
        (("error_rate".to_owned(), Question::Reading), Answer::Vector(ratio)),
        (("latency_p95".to_owned(), Question::Reading), Answer::Vector(histogram)),
    ])
}
