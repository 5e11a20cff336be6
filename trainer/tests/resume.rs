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

#[test]
fn files_that_are_no_checkpoints_stay_in_a_folder_for_checkpoints() {
    let world = World::new();
    let foreign = [
        "shared/notes.txt",
        "shared/cars/notes.txt",
        "shared/cars/a/notes.txt",
        "shared/cars/a/step-1/state.json",
        "shared/cars/a/step-000000000005-000001/mine.txt",
        "shared/cars/a/step-000000000999-000001-old/manifest.json",
        "shared/step-000000000040-000001/manifest.json",
        "shared/step-000000000040-000001/state.json",
    ];
    for file in foreign {
        fs::create_dir_all(world.path(file).parent().unwrap()).unwrap();
        fs::write(world.path(file), file).unwrap();
    }
    let intact = || {
        for file in foreign {
            assert_eq!(fs::read_to_string(world.path(file)).unwrap(), file);
        }
    };
    let job = world.job("a", |job| job["spec"]["checkpoint"] = serde_json::json!({"every": "1ms"}));
    world.train_with(&job, Some("shared"), Stop::when(|step| step >= 40)).unwrap_err();
    intact();
    assert!(world.path("shared/cars/a/step-000000000040-000001/manifest.json").exists());
    world.train_with(&job, Some("shared"), Stop::never()).unwrap();
    intact();
    assert_eq!(world.files("shared").len(), foreign.len(), "the run's own checkpoints are gone");
}

#[test]
fn runs_that_share_a_folder_for_checkpoints_do_not_disturb_each_other() {
    let world = World::new();
    let whole = world.train(&world.job("whole", |_| {})).unwrap();
    let shared = Some("shared");
    let (first, second) =
        (world.job("first", |_| {}), world.job("second", |job| job["spec"]["training"]["seed"] = 7.into()));
    world.train_with(&first, shared, Stop::when(|step| step >= 40)).unwrap_err();
    let saved = world.files("shared/cars/first");
    assert_eq!(saved.len(), 3, "{saved:?}");
    world.train_with(&second, shared, Stop::when(|step| step >= 30)).unwrap_err();
    assert_eq!(world.files("shared/cars/first"), saved);
    let other = world.train_with(&second, shared, Stop::never()).unwrap();
    assert_ne!(world.weights(&other), world.weights(&whole));
    assert_eq!(world.files("shared/cars/first"), saved, "the end of one run is not the end of the other");
    let resumed = world.train_with(&first, shared, Stop::when(|step| step <= 40)).unwrap_err();
    assert!(
        matches!(resumed, Failure::Interrupted { step: 40 }),
        "it goes on from its own checkpoint: {resumed}"
    );
    let resumed = world.train_with(&first, shared, Stop::never()).unwrap();
    assert_eq!(world.weights(&resumed), world.weights(&whole));
    assert!(world.files("shared").is_empty());
}

#[test]
fn the_operators_folder_for_checkpoints_is_the_runs_own() {
    let world = World::new();
    let folder = "models/cars/runs/a/checkpoints";
    world.train_with(&world.job("a", |_| {}), Some(folder), Stop::when(|step| step >= 40)).unwrap_err();
    assert!(world.path(folder).join("step-000000000040-000001/manifest.json").exists());
}

#[test]
fn what_a_dead_execution_left_unfinished_never_costs_a_whole_checkpoint() {
    let world = World::new();
    let job = world.job("a", |job| job["spec"]["checkpoint"] = serde_json::json!({"every": "1ms"}));
    let folder = world.path("models/cars/runs/a/checkpoints");
    world.train_until(&job, Stop::when(|step| step >= 10)).unwrap_err();
    // The next execution goes on while the dead one's last files arrive: newer steps, without manifests.
    let late = folder.clone();
    let stop = Stop::when(move |step| {
        if step == 12 {
            for step in [70, 80, 90] {
                let unfinished = late.join(format!("step-{step:012}-000001"));
                fs::create_dir_all(&unfinished).unwrap();
                fs::write(unfinished.join("state.json"), "{}").unwrap();
            }
        }
        step >= 30
    });
    world.train_until(&job, stop).unwrap_err();
    let files = world.files("models/cars/runs/a/checkpoints");
    assert!(files.contains(&"step-000000000030-000002/manifest.json".to_owned()), "{files:?}");
    assert_eq!(files.len(), 6, "two whole ones and nothing else: {files:?}");
    let resumed = world.train_until(&job, Stop::when(|_| true)).unwrap_err();
    assert!(matches!(resumed, Failure::Interrupted { step: 30 }), "{resumed}");
}
