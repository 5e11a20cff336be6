//! Only a model that was proved better becomes a version, once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows test functions, but not their helpers"
)]

mod common;

use std::fs;

use anneal_crds::{
    contract::{ExitCode, GateVerdict, NOTICE_LIMIT, Notice, RunResult},
    gates::EvalMetric,
};
use anneal_trainer::{
    error::Failure,
    notice,
    run::{VersionManifest, exit_code},
    train::Stop,
};
use common::{World, against, flipped, rows, with};
use serde_json::{Value, json};

fn iron_law(result: &RunResult) -> (GateVerdict, &str) {
    (result.gates[0].verdict, &result.gates[0].message)
}

fn train_on(file: &str, world: &World) -> impl FnOnce(&mut Value) + use<> {
    let uri = world.uri(file);
    move |job| job["spec"]["data"]["train"]["uri"] = uri.into()
}

#[test]
fn better_passes_equal_ties_and_worse_fails() {
    let world = World::new();
    world.write("small.parquet", rows(0, 100));
    world.write("flipped.parquet", flipped(rows(0, 400), 3));
    let first = world.train(&world.job("first", train_on("small.parquet", &world))).unwrap();
    assert_eq!((iron_law(&first).0, exit_code(&first)), (GateVerdict::Bootstrap, ExitCode::Done));

    let better = world.train(&world.job("better", against(&first))).unwrap();
    assert_eq!(iron_law(&better).0, GateVerdict::Pass, "{}", iron_law(&better).1);
    let baseline = better.baseline.as_ref().unwrap();
    assert_eq!(
        baseline.evaluation, first.candidate,
        "the same model on the same rows gives the same numbers"
    );

    let tie = world.train(&world.job("tie", against(&better))).unwrap();
    assert_eq!(tie.candidate.get(EvalMetric::Loss), better.candidate.get(EvalMetric::Loss));
    assert_eq!(iron_law(&tie).0, GateVerdict::Fail);
    assert!(iron_law(&tie).1.contains("tie"), "{}", iron_law(&tie).1);
    assert_eq!((tie.version.clone(), exit_code(&tie)), (None, ExitCode::GateFailed));

    let worse = world.job("worse", |job| {
        train_on("flipped.parquet", &world)(job);
        against(&better)(job);
    });
    let worse = world.train(&worse).unwrap();
    assert_eq!((iron_law(&worse).0, worse.version.clone()), (GateVerdict::Fail, None));

    let versions = world.files("models/cars/versions");
    assert_eq!(versions.len(), 2, "only what passed has a version: {versions:?}");
    assert!(first.version < better.version);
}

#[test]
fn a_baseline_of_another_shape_is_a_difference_and_not_a_crash() {
    let world = World::new();
    let first = world.train(&world.job("first", |_| {})).unwrap();
    let narrow = world.job("narrow", |job| {
        against(&first)(job);
        job["spec"]["data"]["exclude"] = json!(["id", "at", "color"]);
    });
    let result = world.train(&narrow).unwrap();
    let baseline = result.baseline.as_ref().unwrap();
    assert!(baseline.schema_difference.as_ref().unwrap().contains("column `color` is gone"));
    assert!(baseline.evaluation.metrics.is_empty());
    assert_eq!(exit_code(&result), ExitCode::GateFailed);

    // A further value of a category changes the dimensions, but the old model can still be asked.
    let colors = arrow::array::StringArray::from(
        (0..400).map(|row| ["red", "green", "blue", "black"][row % 4]).collect::<Vec<_>>(),
    );
    world.write("train.parquet", with(rows(0, 400), "color", std::sync::Arc::new(colors)));
    let result = world.train(&world.job("wider", against(&first))).unwrap();
    let baseline = result.baseline.as_ref().unwrap();
    assert!(
        baseline.schema_difference.as_ref().unwrap().contains("column `color` has 4 values instead of 3")
    );
    assert!(baseline.evaluation.get(EvalMetric::Loss).is_some());
}

#[test]
fn hundreds_of_new_columns_are_a_rejected_result_and_not_a_lost_one() {
    let world = World::new();
    let first = world.train(&world.job("first", |_| {})).unwrap();
    // Columns live as long as the process does, as their names must.
    let name = |n: usize| -> &'static str { format!("{n:03}-{}", "über lang \"".repeat(20)).leak() };
    let wide = |first: i64, count: i64| {
        let mut columns = rows(first, count);
        let noise = common::column(&columns, "noise");
        columns.extend((0..300).map(|n| (name(n), noise.clone())));
        columns
    };
    world.write("train.parquet", wide(0, 400));
    world.write("validation.parquet", wide(1_000_000, 150));
    let job = world.job("wide", |job| {
        against(&first)(job);
        job["spec"]["training"]["epochs"] = 1.into();
        let gate = json!({"change": {"metric": "loss", "minImprovement": 0.1, "evidence": "Point"}});
        job["spec"]["gates"] = [vec![json!({"ironLaw": {}})], vec![gate; 15]].concat().into();
    });
    let result = world.train(&job).unwrap();
    assert_eq!(exit_code(&result), ExitCode::GateFailed);
    let text = notice::of_result(&result).unwrap();
    assert!(text.len() <= NOTICE_LIMIT, "{}", text.len());
    let Notice::Result(read) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
    let difference = read.baseline.unwrap().schema_difference.unwrap();
    assert!(difference.starts_with("column `000-") && difference.ends_with(" more"), "{difference}");
    assert_eq!(read.gates.len(), 16);
}

#[test]
fn an_output_folder_that_is_too_long_to_be_reported_is_refused() {
    let world = World::new();
    let long = world.uri(&"very-long/".repeat(52));
    let job = world.job("a", |job| job["spec"]["output"]["uri"] = long[..511].into());
    world.train_until(&job, Stop::when(|step| step >= 1)).unwrap_err();
    let long = world.uri(&"ü".repeat(260));
    let job = world.job("a", |job| job["spec"]["output"]["uri"] = long.into());
    let failure = world.train(&job).unwrap_err();
    assert_eq!(failure.exit_code(), ExitCode::BadConfiguration, "{failure}");
    assert!(failure.to_string().contains("at most 512"), "{failure}");
}

#[test]
fn a_changed_baseline_is_not_compared_with() {
    let world = World::new();
    let first = world.train(&world.job("first", |_| {})).unwrap();
    let folder = first.artifact.uri.strip_prefix("file://").unwrap().to_owned();
    for file in ["model.safetensors", "schema.json", "SHA256SUMS"] {
        let path = std::path::Path::new(&folder).join(file);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[10] ^= 1;
        fs::write(&path, bad).unwrap();
        let failure = world.train(&world.job(&format!("next-{file}"), against(&first))).unwrap_err();
        assert_eq!(failure.exit_code(), ExitCode::BadData, "{failure}");
        assert!(failure.to_string().contains("not what was recorded"), "{failure}");
        fs::write(&path, good).unwrap();
    }
    fs::remove_dir_all(&folder).unwrap();
    let failure = world.train(&world.job("gone", against(&first))).unwrap_err();
    assert_eq!(failure.exit_code(), ExitCode::BadData, "{failure}");
}

#[test]
fn without_a_baseline_or_leave_to_do_without_nothing_passes() {
    let world = World::new();
    let job = world.job("a", |job| job["spec"]["baseline"] = json!({"rollout": "cars"}));
    let result = world.train(&job).unwrap();
    assert_eq!(iron_law(&result).0, GateVerdict::NotEvaluable);
    assert_eq!(exit_code(&result), ExitCode::GateFailed);
}

#[test]
fn a_run_that_has_a_result_is_not_trained_again() {
    let world = World::new();
    let first = world.train(&world.job("a", |_| {})).unwrap();
    fs::remove_file(world.path("train.parquet")).unwrap();
    assert_eq!(world.train(&world.job("a", |_| {})).unwrap(), first);
    assert_eq!(world.files("models/cars/runs/a/executions"), ["1"]);
}

#[test]
fn a_crash_before_the_result_keeps_the_version() {
    let world = World::new();
    let first = world.train(&world.job("a", |_| {})).unwrap();
    fs::remove_file(world.path("models/cars/runs/a/result.json")).unwrap();
    let again = world.train(&world.job("a", |_| {})).unwrap();
    assert_eq!((again.version.clone(), &again.artifact), (first.version.clone(), &first.artifact));
    let other = world.train(&world.job("b", |_| {})).unwrap();
    let number = |result: &RunResult| {
        result.version.as_ref().unwrap().rsplit_once('.').unwrap().1.parse::<u32>().unwrap()
    };
    assert_eq!((number(&first), number(&other)), (1, 2));
    let version = first.version.unwrap();
    let manifest = fs::read(world.path(&format!("models/cars/versions/{version}/manifest.json"))).unwrap();
    let manifest: VersionManifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!((manifest.run_uid.as_str(), manifest.artifact), ("a", first.artifact));
}

#[test]
fn an_execution_that_was_superseded_publishes_nothing() {
    let world = World::new();
    for (uid, every) in [("checkpoint", "1ms"), ("result", "1h")] {
        let job = world.job(uid, |job| job["spec"]["checkpoint"] = json!({"every": every}));
        let executions = world.path(&format!("models/cars/runs/{uid}/executions"));
        // A second execution starts while the first one trains.
        let stop = Stop::when(move |step| {
            if step == 20 {
                fs::write(executions.join("2"), "").unwrap();
            }
            false
        });
        let failure = world.train_until(&job, stop).unwrap_err();
        assert!(matches!(failure, Failure::Superseded { own: 1, newest: 2 }), "{failure}");
        assert_eq!(failure.exit_code(), ExitCode::Unclassified);
        let left = world.files("models/cars");
        assert!(!left.iter().any(|file| file.contains("blobs") || file.contains("result.json")), "{left:?}");
    }
}

#[test]
fn a_run_that_starts_too_often_ends() {
    let world = World::new();
    let job = world.job("a", |job| job["spec"]["failurePolicy"] = json!({"maxRetries": 0, "maxResumes": 1}));
    for step in [5, 10] {
        let failure = world.train_until(&job, Stop::when(move |now| now >= step)).unwrap_err();
        assert_eq!(failure.exit_code(), ExitCode::Interrupted);
    }
    let failure = world.train(&job).unwrap_err();
    assert!(matches!(failure, Failure::TooManyExecutions { started: 3, allowed: 2 }), "{failure}");
    assert_eq!(failure.exit_code(), ExitCode::BadConfiguration);
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run() {
    let world = World::new();
    let job = world.job("a", |job| {
        job["spec"]["data"]["target"] = "x".into();
        job["spec"]["data"]["task"] = "regression".into();
        job["spec"]["training"]["hidden"] = json!([64, 64, 64, 64, 64, 64, 64, 64]);
        job["spec"]["training"]["optimizer"]["learningRate"] = 10.0.into();
    });
    let failure = world.train(&job).unwrap_err();
    assert_eq!(failure.exit_code(), ExitCode::Diverged, "{failure}");
    assert!(!world.files("models").iter().any(|file| file.contains("blobs")));
}

#[test]
fn early_stopping_keeps_the_best_epoch() {
    let world = World::new();
    let job = world.job("a", |job| {
        job["spec"]["training"]["epochs"] = 200.into();
        job["spec"]["training"]["earlyStop"] = json!({"patience": 2});
    });
    let result = world.train(&job).unwrap();
    assert!(world.files("models/cars/runs/a/checkpoints").is_empty(), "a run that is over needs none");
    assert_eq!(result.epochs, result.best_epoch + 2);
    let history: Vec<Value> =
        serde_json::from_slice(&world.artifact_file(&result, "training_history.json")).unwrap();
    let best = history[result.best_epoch as usize - 1]["validationLoss"].as_f64();
    assert_eq!(result.candidate.get(EvalMetric::Loss), best, "the artifact holds the best epoch's weights");
}
