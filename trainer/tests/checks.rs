//! A run takes the rows of its window, and what is asked of rows holds to the last one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows test functions, but not their helpers"
)]

mod common;

use std::sync::Arc;

use anneal_crds::contract::ExitCode;
use anneal_trainer::{
    data::{self, DataError, Sets},
    error::Failure,
    job::Job,
};
use arrow::array::{Int64Array, StringArray, TimestampSecondArray};
use common::{Columns, World, rows, with};
use serde_json::{Value, json};

const DAY: i64 = 86_400;
/// 2025-01-01.
const YEAR: i64 = 20_089 * DAY;

/// Reads and checks the rows of a job.
fn load(world: &World, change: impl FnOnce(&mut Value)) -> Result<Sets, DataError> {
    let job = Job::parse(&world.job("rows", change), None).unwrap();
    data::load(world.runtime.handle(), &job.spec.data)
}

/// These words are told, with the exit code of bad data.
fn refused(name: &str, loaded: Result<Sets, DataError>, words: &[&str]) {
    let failure = Failure::from(loaded.expect_err(name));
    assert_eq!(failure.exit_code(), ExitCode::BadData, "{name}");
    let message = failure.to_string();
    for word in words {
        assert!(message.contains(word), "{name}: `{message}` should contain `{word}`");
    }
}

/// Rows at these seconds.
fn at(columns: Columns, seconds: impl Iterator<Item = i64>) -> Columns {
    with(columns, "at", Arc::new(seconds.map(Some).collect::<TimestampSecondArray>()))
}

fn split(data: &mut Value, key: &str) {
    data.as_object_mut().unwrap().remove("validation");
    data["split"] = json!({"validationFraction": 0.2, "key": key});
}

#[test]
fn a_run_learns_from_the_rows_of_its_window_alone() {
    let world = World::new();
    // A row for each day, the newest first.
    world.write("train.parquet", at(rows(0, 400), (0..400).map(|row| YEAR + (399 - row) * DAY)));
    let train = |window: Value| {
        let sets = load(&world, |job| job["spec"]["data"]["window"] = window).unwrap();
        (sets.train.count, sets.validation.count)
    };
    assert_eq!(train(json!({"column": "at", "last": "120d"})), (120, 150));
    assert_eq!(train(json!({"column": "at", "start": "2025-01-01", "end": "2025-09-30"})), (273, 150));
    assert_eq!(
        train(json!({"column": "at", "start": "2025-01-01", "end": "2025-09-30T00:00:00Z"})),
        (272, 150)
    );
    for (window, words) in [
        (json!({"column": "at", "start": "2027-01-01"}), ["none of 400 rows", "data.window"]),
        (json!({"column": "at", "last": "99d"}), ["99 rows", "100 are needed"]),
        (json!({"column": "id", "last": "90d"}), ["`id`", "is no time"]),
        (json!({"column": "gone", "last": "90d"}), ["`gone` is missing", "data.window"]),
    ] {
        refused("window", load(&world, |job| job["spec"]["data"]["window"] = window), &words);
    }
    std::fs::write(world.path("train.csv"), "at,x,color,flag,noise,label\nyesterday,1,red,true,0.5,1\n")
        .unwrap();
    let uri = world.uri("train.csv");
    let loaded = load(&world, |job| {
        job["spec"]["data"]["train"]["uri"] = uri.into();
        job["spec"]["data"]["window"] = json!({"column": "at", "last": "90d"});
    });
    refused("words", loaded, &["`at` holds `yesterday` in row 0", "data.window"]);
}

#[test]
fn a_key_names_one_row() {
    let world = World::new();
    let unique = |columns: &[&str]| {
        let columns = json!(columns);
        move |job: &mut Value| job["spec"]["data"]["checks"] = json!({"unique": columns})
    };
    let ids = |ids: Vec<i64>| with(rows(0, 400), "id", Arc::new(Int64Array::from(ids)));
    assert!(load(&world, unique(&["id"])).is_ok());
    // One row has come twice through a join.
    world.write("train.parquet", ids((0..399).chain([7]).collect()));
    refused(
        "twice",
        load(&world, unique(&["id"])),
        &["550 rows", "549 different", "1.002 rows", "`7`", "checks.unique"],
    );
    assert!(load(&world, unique(&["id", "at"])).is_ok());
    // One is learnt and judged on.
    world.write("train.parquet", ids((0..399).chain([1_000_003]).collect()));
    refused("both", load(&world, unique(&["id"])), &["549 different", "`1000003`"]);
    refused("missing", load(&world, unique(&["gone"])), &["`gone` is missing", "data.checks"]);
}

#[test]
fn classes_are_balanced_and_judged_on_enough_rows() {
    let world = World::new();
    let labels = |columns: Columns, rare: usize| {
        let count = columns[0].1.len();
        let classes = (0..count).map(|row| Some(if row < rare { "rare" } else { "common" }));
        with(columns, "label", Arc::new(classes.collect::<StringArray>()))
    };
    let checks = |checks: Value| move |job: &mut Value| job["spec"]["data"]["checks"] = checks;
    for (rare, is_balanced) in [(100, true), (99, false)] {
        world.write("train.parquet", labels(rows(0, 300), rare));
        world.write("validation.parquet", labels(rows(1_000_000, 150), 10));
        let loaded = load(&world, checks(json!({"classBalance": 0.5})));
        if is_balanced {
            assert!(loaded.is_ok());
        } else {
            refused("unbalanced", loaded, &["`rare` has 99", "`common` has 201", "classBalance", "0.5"]);
        }
    }
    assert!(load(&world, checks(json!({"minValidationPerClass": 10}))).is_ok());
    for (rare, told) in [(9, "`rare` (9)"), (0, "`rare` (0)")] {
        world.write("validation.parquet", labels(rows(1_000_000, 150), rare));
        let loaded = load(&world, checks(json!({"minValidationPerClass": 10})));
        refused("few", loaded, &[told, "minValidationPerClass asks for 10"]);
    }
}

/// The guide's accounts, each with a first and a last row, that begin on the first so many days of a year.
fn accounts(count: i64, days: i64, beginnings: i64) -> Columns {
    let columns = rows(0, 2 * count);
    let seconds = (0..2 * count).map(|row| {
        let (account, is_last) = (row / 2, row % 2);
        YEAR + (account % beginnings + is_last * (days - 1)) * DAY
    });
    let names = (0..2 * count).map(|row| Some(format!("account-{}", row / 2)));
    with(at(columns, seconds), "account", Arc::new(names.collect::<StringArray>()))
}

#[test]
fn ten_thousand_accounts_have_ninety_days_each_in_twelve_months() {
    let world = World::new();
    let history =
        json!({"entity": "account", "time": "at", "minEntities": 10_000, "minDays": 90, "minMonths": 12});
    let loaded = |columns: Columns| {
        world.write("train.parquet", columns);
        load(&world, |job| {
            let data = &mut job["spec"]["data"];
            data["checks"] = json!({"history": history});
            data["exclude"] = json!(["id", "at", "account"]);
            split(data, "account");
        })
    };
    // From 1 January to 31 December.
    let sets = loaded(accounts(10_000, 90, 276)).unwrap();
    assert_eq!(sets.train.count + sets.validation.count, 20_000);
    let asks = "data.checks.history";
    for (name, columns, words) in [
        ("accounts", accounts(9_999, 90, 276), ["9999 of 9999 different `account`", "10000", asks]),
        ("days", accounts(10_000, 89, 276), ["0 of 10000 different `account`", "90 days", asks]),
        ("months", accounts(10_000, 90, 245), ["11 months", "asks for 12", asks]),
        ("gap", accounts(10_000, 90, 31), ["the month 2025-02", "`at`", asks]),
    ] {
        refused(name, loaded(columns), &words);
    }
}

#[test]
fn as_many_rows_are_there_as_are_asked_for() {
    let world = World::new();
    for (wanted, is_there) in [(50_000, true), (49_999, false)] {
        world.write("train.parquet", rows(0, wanted));
        world.write("validation.parquet", rows(1_000_000, 5_000));
        let loaded = load(&world, |job| job["spec"]["data"]["minRows"] = 50_000.into());
        if is_there {
            assert!(loaded.is_ok());
        } else {
            refused("rows", loaded, &["49999 rows", "50000 are needed"]);
        }
    }
}
