//! The same inputs give the same weights, bit for bit, however often a run is interrupted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows test functions, but not their helpers"
)]

mod common;

use std::fs;

use anneal_crds::contract::ExitCode;
use anneal_trainer::{error::Failure, train::Stop};
use common::World;

#[test]
fn the_same_job_gives_the_same_weights() {
    let world = World::new();
    let first = world.train(&world.job("a", |_| {})).unwrap();
    let second = world.train(&world.job("b", |_| {})).unwrap();
    assert_eq!(world.weights(&first), world.weights(&second));
    assert_eq!(first.candidate, second.candidate);
    let other = world.train(&world.job("c", |job| job["spec"]["training"]["seed"] = 7.into())).unwrap();
    assert_ne!(world.weights(&first), world.weights(&other));
}

#[test]
fn an_interrupted_run_ends_with_the_weights_of_one_that_was_not() {
    let world = World::new();
    let whole = world.train(&world.job("whole", |_| {})).unwrap();
    // 13 steps make an epoch: within the first, at an end, after one, and within the last.
    for stops in [vec![1], vec![12], vec![13], vec![14], vec![5, 6, 40], vec![77], vec![0, 13, 26, 50, 70]] {
        let job = world.job(&format!("stops-{stops:?}").replace([' ', '[', ']', ','], ""), |_| {});
        for stop in &stops {
            let at = *stop;
            let ended = world.train_until(&job, Stop::when(move |step| step >= at)).unwrap_err();
            assert!(matches!(ended, Failure::Interrupted { step } if step == at), "{ended}");
            assert_eq!(ended.exit_code(), ExitCode::Interrupted);
        }
        let resumed = world.train(&job).unwrap();
        assert_eq!(world.weights(&resumed), world.weights(&whole), "{stops:?}");
        assert_eq!(
            world.artifact_file(&resumed, "training_history.json"),
            world.artifact_file(&whole, "training_history.json"),
            "{stops:?}"
        );
    }
}

#[test]
fn a_regression_resumes_as_exactly() {
    let world = World::new();
    let job = |uid| {
        world.job(uid, |job| {
            job["spec"]["data"]["target"] = "x".into();
            job["spec"]["data"]["task"] = "regression".into();
            job["spec"]["gates"] =
                serde_json::json!([{"ironLaw": {}}, {"value": {"metric": "r2", "min": 0.1}}]);
        })
    };
    let whole = world.train(&job("whole")).unwrap();
    world.train_until(&job("parts"), Stop::when(|step| step >= 30)).unwrap_err();
    let resumed = world.train(&job("parts")).unwrap();
    assert_eq!(world.weights(&resumed), world.weights(&whole));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    type Damage = fn(&std::path::Path);
    let damages: [(&str, Damage); 4] = [
        ("cut", |folder| {
            let bytes = fs::read(folder.join("state.safetensors")).unwrap();
            fs::write(folder.join("state.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("changed", |folder| {
            let mut bytes = fs::read(folder.join("state.safetensors")).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(folder.join("state.safetensors"), bytes).unwrap();
        }),
        ("unfinished", |folder| fs::remove_file(folder.join("manifest.json")).unwrap()),
        ("without state", |folder| fs::remove_file(folder.join("state.json")).unwrap()),
    ];
    let world = World::new();
    let whole = world.train(&world.job("whole", |_| {})).unwrap();
    for (name, damage) in damages {
        let uid = name.replace(' ', "-");
        let job = world.job(&uid, |_| {});
        world.train_until(&job, Stop::when(|step| step >= 20)).unwrap_err();
        world.train_until(&job, Stop::when(|step| step >= 40)).unwrap_err();
        let folder = world.path(&format!("models/cars/runs/{uid}/checkpoints"));
        let mut checkpoints: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        checkpoints.sort();
        assert_eq!(checkpoints.len(), 2);
        damage(&checkpoints[1]);
        let resumed = world.train(&job).unwrap();
        assert_eq!(world.weights(&resumed), world.weights(&whole), "{name}");
        assert!(!checkpoints[1].join("state.safetensors").exists(), "{name}: the damaged one is gone");
    }
}

#[test]
fn a_checkpoint_of_other_data_is_not_resumed() {
    let world = World::new();
    world.train_until(&world.job("a", |_| {}), Stop::when(|step| step >= 30)).unwrap_err();
    world.write("train.parquet", common::rows(5_000, 400));
    let resumed = world.train(&world.job("a", |_| {})).unwrap();
    let fresh = world.train(&world.job("b", |_| {})).unwrap();
    assert_eq!(world.weights(&resumed), world.weights(&fresh));
}

#[test]
fn only_the_two_newest_checkpoints_are_kept() {
    let world = World::new();
    let job = world.job("a", |job| job["spec"]["checkpoint"] = serde_json::json!({"every": "1ms"}));
    world.train_until(&job, Stop::when(|step| step >= 60)).unwrap_err();
    let manifests = world.files("models/cars/runs/a/checkpoints");
    assert_eq!(manifests.iter().filter(|file| file.ends_with("manifest.json")).count(), 2, "{manifests:?}");
    assert_eq!(manifests.len(), 6, "{manifests:?}");
}
