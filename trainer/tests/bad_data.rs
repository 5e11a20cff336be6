//! Bad data end a run with exit code 3 before anything is published, and the message names the column or file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows test functions, but not their helpers"
)]

mod common;

use std::{fs, sync::Arc};

use anneal_crds::contract::ExitCode;
use arrow::array::{Array, Float64Array, Int64Array, ListArray, StringArray, TimestampSecondArray};
use arrow::datatypes::Int64Type;
use common::{Columns, World, column, rows, with, without};
use serde_json::Value;

/// Training must fail with these words; nothing but the mark of the execution may be left.
fn refused(world: &World, name: &str, change: impl FnOnce(&mut Value), words: &[&str]) {
    let failure = world.train(&world.job("bad", change)).expect_err(name);
    assert_eq!(failure.exit_code(), ExitCode::BadData, "{name}: {failure}");
    let message = failure.to_string();
    for word in words {
        assert!(message.contains(word), "{name}: `{message}` should contain `{word}`");
    }
    let left = world.files("models");
    assert!(left.iter().all(|file| file.starts_with("cars/runs/bad/executions/")), "{name}: {left:?}");
}

fn floats(columns: &Columns, change: impl FnOnce(&mut Vec<Option<f64>>)) -> Arc<Float64Array> {
    let mut values: Vec<_> =
        column(columns, "x").as_any().downcast_ref::<Float64Array>().unwrap().iter().collect();
    change(&mut values);
    Arc::new(Float64Array::from(values))
}

#[test]
fn bad_training_rows_are_refused() {
    let n = 400;
    let good = || rows(0, n);
    let text = |value: &str| Arc::new(StringArray::from(vec![value; n as usize]));
    let cases: Vec<(&str, Columns, Vec<&str>)> = vec![
        ("NaN", with(good(), "x", floats(&good(), |x| x[17] = Some(f64::NAN))), vec!["`x`", "NaN", "row 17"]),
        (
            "infinite",
            with(good(), "x", floats(&good(), |x| x[3] = Some(f64::INFINITY))),
            vec!["`x`", "infinite"],
        ),
        ("empty number", with(good(), "x", floats(&good(), |x| x[3] = None)), vec!["`x`", "empty in 1 rows"]),
        ("too large", with(good(), "x", floats(&good(), |x| x[3] = Some(1e308))), vec!["`x`", "too large"]),
        ("no target", without(good(), "label"), vec!["`label`", "train.parquet"]),
        (
            "one class",
            with(good(), "label", Arc::new(Int64Array::from(vec![1; n as usize]))),
            vec!["`label`", "only the class `1`"],
        ),
        (
            "empty target",
            with(good(), "label", Arc::new(Int64Array::from(vec![None; n as usize]))),
            vec!["`label`", "empty in 400 rows"],
        ),
        (
            "NaN target",
            with(good(), "label", floats(&good(), |x| x.fill(Some(f64::NAN)))),
            vec!["`label`", "NaN"],
        ),
        ("fractional target", with(good(), "label", floats(&good(), |_| {})), vec!["`label`", "fraction"]),
        (
            "time not excluded",
            with(good(), "when", Arc::new(TimestampSecondArray::from(vec![1; n as usize]))),
            vec!["`when`", "data.exclude"],
        ),
        (
            "list",
            with(
                good(),
                "tags",
                Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
                    (0..n).map(|_| Some(vec![Some(1)])),
                )),
            ),
            vec!["`tags`", "data.exclude"],
        ),
        ("too few", rows(0, 99), vec!["99 rows", "100"]),
        ("none", rows(0, 0), vec!["0 rows"]),
        (
            "kinds differ",
            with(good(), "x", text("1")),
            vec!["`x`", "validation.parquet", "number", "category"],
        ),
        ("one more column", with(good(), "extra", text("a")), vec!["`extra`", "validation.parquet"]),
        ("one column less", without(good(), "color"), vec!["`color`", "validation.parquet"]),
        (
            "only a target",
            good().into_iter().filter(|(name, _)| *name == "label").collect(),
            vec!["no feature"],
        ),
    ];
    for (name, columns, words) in cases {
        let world = World::new();
        world.write("train.parquet", columns);
        refused(&world, name, |_| {}, &words);
    }
}

#[test]
fn an_identifier_as_a_category_is_refused() {
    let world = World::new();
    let names: StringArray = (0..10_500).map(|id| Some(format!("customer-{id}"))).collect();
    world.write("train.parquet", with(rows(0, 10_500), "customer", Arc::new(names)));
    world.write(
        "validation.parquet",
        with(rows(20_000, 100), "customer", Arc::new(StringArray::from(vec!["x"; 100]))),
    );
    refused(&world, "identifier", |_| {}, &["`customer`", "10500 different values"]);
}

#[test]
fn bad_validation_rows_are_refused() {
    let world = World::new();
    let good = rows(1_000_000, 150);
    for (name, columns, words) in [
        (
            "NaN",
            with(good.clone(), "x", floats(&good, |x| x[1] = Some(f64::NAN))),
            ["`x`", "validation.parquet"],
        ),
        (
            "new class",
            with(good.clone(), "label", Arc::new(Int64Array::from(vec![2; 150]))),
            ["`label`", "class `2`"],
        ),
        ("too few", rows(1_000_000, 9), ["9 rows", "10"]),
    ] {
        world.write("validation.parquet", columns);
        refused(&world, name, |_| {}, &words);
    }
}

#[test]
fn missing_and_damaged_files_are_refused() {
    let world = World::new();
    let train = |uri: String| move |job: &mut Value| job["spec"]["data"]["train"]["uri"] = uri.into();
    refused(&world, "missing", train(world.uri("gone.parquet")), &["gone.parquet"]);
    refused(&world, "no match", train(world.uri("gone-*.parquet")), &["gone-*.parquet"]);
    fs::write(world.path("text.parquet"), "not Parquet at all").unwrap();
    refused(&world, "text", train(world.uri("text.parquet")), &["text.parquet"]);
    let bytes = fs::read(world.path("train.parquet")).unwrap();
    fs::write(world.path("cut.parquet"), &bytes[..bytes.len() / 2]).unwrap();
    refused(&world, "cut", train(world.uri("cut.parquet")), &["cut.parquet"]);
    fs::write(world.path("empty.parquet"), "").unwrap();
    refused(&world, "empty", train(world.uri("empty.parquet")), &["empty.parquet"]);
    // Damaged pages rather than a damaged end.
    let mut hole = bytes.clone();
    hole[8..bytes.len() / 2].fill(0xff);
    fs::write(world.path("hole.parquet"), hole).unwrap();
    refused(&world, "hole", train(world.uri("hole.parquet")), &["hole.parquet"]);
}

#[test]
fn damage_anywhere_is_never_taken_for_a_bug() {
    let world = World::new();
    let bytes = fs::read(world.path("train.parquet")).unwrap();
    for place in 0..120 {
        let start = bytes.len() * place / 120;
        let mut damaged = bytes.clone();
        let end = (start + 16).min(damaged.len());
        damaged[start..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
        fs::write(world.path("train.parquet"), damaged).unwrap();
        // Some damage gives other numbers that are as good as any; what is seen must be called bad data.
        if let Err(failure) = world.train(
            &world.job(&format!("damaged-{place}"), |job| job["spec"]["training"]["epochs"] = 1.into()),
        ) {
            assert_eq!(failure.exit_code(), ExitCode::BadData, "byte {start}: {failure}");
        }
    }
}

#[test]
fn files_of_a_pattern_must_have_the_same_columns() {
    let world = World::new();
    world.write("part-1.parquet", rows(0, 200));
    world.write("part-2.parquet", without(rows(200, 200), "color"));
    let uri = world.uri("part-*.parquet");
    refused(
        &world,
        "pattern",
        |job| job["spec"]["data"]["train"]["uri"] = uri.into(),
        &["`color`", "part-2.parquet"],
    );
}

#[test]
fn a_split_needs_a_stable_key() {
    let world = World::new();
    let split = |key: &'static str| {
        move |job: &mut Value| {
            job["spec"]["data"].as_object_mut().unwrap().remove("validation");
            job["spec"]["data"]["split"] = serde_json::json!({"validationFraction": 0.2, "key": key});
            let exclude = ["id", "at"].into_iter().filter(|name| *name != key).chain([key]);
            job["spec"]["data"]["exclude"] = exclude.collect();
        }
    };
    refused(&world, "float key", split("x"), &["`x`", "split.key"]);
    refused(&world, "missing key", split("gone"), &["`gone`"]);
    for (uid, key) in [("ok", "id"), ("time", "at")] {
        let result = world.train(&world.job(uid, split(key))).unwrap();
        assert_eq!(result.train.rows + result.validation.rows, 400);
        assert!((50..110).contains(&result.validation.rows));
    }
}

#[test]
fn rows_to_learn_from_and_to_be_judged_on_must_not_be_the_same() {
    let world = World::new();
    world.write("part-1.parquet", rows(0, 200));
    world.write("part-2.parquet", rows(200, 200));
    fs::copy(world.path("train.parquet"), world.path("copy.parquet")).unwrap();
    let uris = |train: &str, validation: &str| {
        let (train, validation) = (world.uri(train), world.uri(validation));
        move |job: &mut Value| {
            job["spec"]["data"]["train"]["uri"] = train.into();
            job["spec"]["data"]["validation"]["uri"] = validation.into();
        }
    };
    let both = ["data.train.uri", "data.validation.uri"];
    for (name, train, validation, file) in [
        ("same file", "train.parquet", "train.parquet", "train.parquet"),
        ("same pattern", "part-*.parquet", "part-*.parquet", "part-1.parquet"),
        ("a file of the pattern", "part-*.parquet", "part-2.parquet", "part-2.parquet"),
        ("overlapping patterns", "part-*.parquet", "*-2.parquet", "part-2.parquet"),
    ] {
        refused(&world, name, uris(train, validation), &[both[0], both[1], file]);
    }
    refused(
        &world,
        "copy",
        uris("train.parquet", "copy.parquet"),
        &["data.train", "data.validation", "400 rows"],
    );
}
