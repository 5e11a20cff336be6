//! Which columns a model learns from is what the job says, and a name that says nothing is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows test functions, but not their helpers"
)]

mod common;

use anneal_crds::contract::ExitCode;
use common::{World, column, rows, with, without};
use serde_json::{Value, json};

/// Chooses columns.
fn choose(include: &[&str], exclude: &[&str]) -> impl FnOnce(&mut Value) + use<> {
    let (include, exclude) = (json!(include), json!(exclude));
    move |job| {
        job["spec"]["data"]["include"] = include;
        job["spec"]["data"]["exclude"] = exclude;
    }
}

#[test]
fn features_are_those_that_are_included_and_not_excluded() {
    let world = World::new();
    for (uid, include, exclude, expected) in [
        ("all", vec![], vec!["id", "at"], vec!["color", "flag", "noise", "x"]),
        ("patterns", vec!["*o*", "x"], vec![], vec!["color", "noise", "x"]),
        ("both", vec!["*o*", "x"], vec!["no*"], vec!["color", "x"]),
        ("all-but-patterns", vec![], vec!["id", "at", "*o*"], vec!["flag", "x"]),
        ("the-target", vec!["x", "label"], vec!["id"], vec!["x"]),
    ] {
        let result = world.train(&world.job(uid, choose(&include, &exclude))).unwrap();
        let schema: Value = serde_json::from_slice(&world.artifact_file(&result, "schema.json")).unwrap();
        let features = schema["features"].as_array().unwrap().iter();
        let names: Vec<_> = features.map(|feature| feature["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{uid}");
        assert_eq!(schema["target"]["name"], "label", "{uid}");
    }
}

#[test]
fn a_name_that_no_column_has_is_refused() {
    let world = World::new();
    for (include, exclude, words) in [
        (vec![], vec!["id", "at", "timestmp"], ["`timestmp`", "data.exclude"]),
        (vec!["x", "ad_content.*"], vec![], ["`ad_content.*`", "data.include"]),
        (vec!["id"], vec!["id"], ["no feature column", "train.parquet"]),
    ] {
        let failure = world.train(&world.job("bad", choose(&include, &exclude))).unwrap_err();
        assert_eq!(failure.exit_code(), ExitCode::BadData, "{failure}");
        let message = failure.to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    // Rows to be judged on may lack what nobody learns from, and may have other such columns.
    let validation = without(without(rows(1_000_000, 150), "id"), "at");
    world.write("validation.parquet", with(validation, "source", column(&rows(0, 150), "color")));
    world.train(&world.job("validation", choose(&[], &["id", "at", "source"]))).unwrap();
}

#[test]
fn a_name_may_have_a_dot() {
    let world = World::new();
    let dotted = |first, count| {
        let columns = rows(first, count);
        let x = column(&columns, "x");
        with(without(columns, "x"), "ad_content.x", x)
    };
    world.write("train.parquet", dotted(0, 400));
    world.write("validation.parquet", dotted(1_000_000, 150));
    world.train(&world.job("dotted", choose(&["ad_content.*", "color"], &["id"]))).unwrap();
}
