//! The same rows give the same model in whatever format they are written, and text that is no table says where it is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows test functions, but not their helpers"
)]

mod common;

use std::{fs, sync::Arc};

use anneal_crds::contract::ExitCode;
use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    compute::cast,
    datatypes::DataType,
};
use common::{Columns, World, column, rows, with, without};
use serde_json::{Map, Value, json};

/// Rows without the one column whose numbers are not those of their decimals.
fn exact(first: i64, count: i64) -> Columns {
    let columns = rows(first, count);
    let noise = cast(&column(&columns, "noise"), &DataType::Float64).unwrap();
    with(columns, "noise", noise)
}

fn texts(array: &ArrayRef) -> StringArray {
    cast(array, &DataType::Utf8).unwrap().as_string().clone()
}

fn delimited(columns: &Columns, delimiter: &str) -> String {
    let texts: Vec<_> = columns.iter().map(|(_, array)| texts(array)).collect();
    let header: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let row = |row: usize| texts.iter().map(|text| text.value(row)).collect::<Vec<_>>().join(delimiter);
    let lines = (0..texts[0].len()).map(row);
    [header.join(delimiter)].into_iter().chain(lines).map(|line| line + "\n").collect()
}

fn json_lines(columns: &Columns) -> String {
    // Strings are those columns that are texts elsewhere, and times.
    let is_string = |array: &ArrayRef| array.data_type().is_string() || array.data_type().is_temporal();
    let columns = columns.iter().map(|(name, array)| (*name, texts(array), is_string(array)));
    let columns: Vec<_> = columns.collect();
    let row = |row: usize| {
        let cell = |(name, texts, is_string): &(&str, StringArray, bool)| {
            let text = texts.value(row);
            let value: Value = if *is_string { text.into() } else { text.parse().unwrap() };
            ((*name).to_owned(), value)
        };
        Value::Object(columns.iter().map(cell).collect::<Map<_, _>>()).to_string() + "\n"
    };
    (0..columns[0].1.len()).map(row).collect()
}

/// Names the files of a run.
fn of(world: &World, train: &str, validation: &str) -> impl FnOnce(&mut Value) + use<> {
    let (train, validation) = (world.uri(train), world.uri(validation));
    move |job| {
        job["spec"]["data"]["train"]["uri"] = train.into();
        job["spec"]["data"]["validation"]["uri"] = validation.into();
    }
}

#[test]
fn the_same_rows_in_any_format_give_the_same_model() {
    let world = World::new();
    let (train, validation) = (exact(0, 400), exact(1_000_000, 150));
    world.write("train.parquet", train.clone());
    world.write("validation.parquet", validation.clone());
    let expected = world.train(&world.job("parquet", |_| {})).unwrap();
    for (name, columns) in [("train", &train), ("validation", &validation)] {
        let mark = "\u{feff}";
        fs::write(world.path(&format!("{name}.csv")), format!("{mark}{}", delimited(columns, ","))).unwrap();
        fs::write(world.path(&format!("{name}.tsv")), delimited(columns, "\t")).unwrap();
        fs::write(world.path(&format!("{name}.jsonl")), json_lines(columns)).unwrap();
    }
    for (train, validation) in [
        ("train.csv", "validation.csv"),
        ("train.tsv", "validation.tsv"),
        ("train.jsonl", "validation.jsonl"),
        ("train.csv", "validation.parquet"),
        ("train.parquet", "validation.jsonl"),
    ] {
        let uid = format!("{train}-{validation}");
        let result = world.train(&world.job(&uid, of(&world, train, validation))).unwrap();
        assert_eq!(result.train, expected.train, "{uid}");
        assert_eq!(result.validation, expected.validation, "{uid}");
        assert_eq!(world.weights(&result), world.weights(&expected), "{uid}");
    }
}

/// A column of these texts, again and again.
fn repeated(texts: &[&str], count: usize) -> ArrayRef {
    Arc::new(texts.iter().cycle().take(count).map(|text| Some(*text)).collect::<StringArray>())
}

#[test]
fn a_column_is_in_every_file_what_it_is_in_the_first() {
    let world = World::new();
    // In the training rows some districts are words; in these validation rows all of them look like numbers. Classes and what is
    // true are written as other tools do.
    let change = |columns: Columns, districts: &[&str], flags: &[&str], classes: &[&str]| {
        let count = columns[0].1.len();
        let columns = with(columns, "district", repeated(districts, count));
        let labels = column(&columns, "label");
        let class = |row: usize| classes[texts(&labels).value(row).parse::<usize>().unwrap()];
        let labels = (0..count).map(|row| Some(class(row))).collect::<StringArray>();
        let columns = with(columns, "label", Arc::new(labels));
        with(columns, "flag", repeated(flags, count))
    };
    let plain = ["true", "false"];
    let (districts, numerals) = (["north", "007", "7"], ["007", "7"]);
    for (uid, classes) in [("codes", ["01", "X1"]), ("words", ["no", "yes"]), ("truth", ["True", "FALSE"])] {
        let written = |first: i64, count: i64, districts: &[&str], flags: &[&str]| {
            change(exact(first, count), districts, flags, &classes)
        };
        fs::write(world.path("train.csv"), delimited(&written(0, 400, &districts, &["TRUE", "FALSE"]), ","))
            .unwrap();
        let validation = written(1_000_000, 150, &numerals, &["True", "False"]);
        fs::write(world.path("validation.csv"), delimited(&validation, ",")).unwrap();
        let lower = classes.map(|class| if uid == "truth" { class.to_lowercase() } else { class.to_owned() });
        let lower = [lower[0].as_str(), lower[1].as_str()];
        let of_parquet =
            |first, count, districts: &[&str]| change(exact(first, count), districts, &plain, &lower);
        world.write("train.parquet", of_parquet(0, 400, &districts));
        world.write("validation.parquet", of_parquet(1_000_000, 150, &numerals));
        let expected = world.train(&world.job(&format!("{uid}-parquet"), |_| {})).unwrap();
        for (train, validation) in [
            ("train.csv", "validation.csv"),
            ("train.parquet", "validation.csv"),
            ("train.csv", "validation.parquet"),
        ] {
            let job = world.job(&format!("{uid}-{train}-{validation}"), of(&world, train, validation));
            let result = world.train(&job).unwrap();
            assert_eq!((&result.train, &result.validation), (&expected.train, &expected.validation), "{uid}");
        }
    }
}

#[test]
fn parts_may_say_nothing_and_must_not_say_something_else() {
    let world = World::new();
    let x = |columns: &Columns, row: usize| texts(&column(columns, "x")).value(row).to_owned();
    let part = |first: i64, count: i64| delimited(&exact(first, count), ",");
    // Parts without rows say nothing about columns.
    fs::write(world.path("part-0.csv"), part(0, 0)).unwrap();
    fs::write(world.path("part-1.csv"), "").unwrap();
    fs::write(world.path("part-2.csv"), part(0, 400)).unwrap();
    let parts = |uid: &str| world.job(uid, of(&world, "part-*.csv", "validation.parquet"));
    assert_eq!(world.train(&parts("parts")).unwrap().train.rows, 400);
    let two = exact(500, 2);
    let empty = part(500, 2).replace(&x(&two, 0), "NA").replace(&x(&two, 1), "");
    let labels = part(500, 2).replace(",0\n", ",X1\n").replace(",1\n", ",X2\n");
    let word = part(500, 2).replace(&x(&two, 1), "many");
    for (name, text, words) in [
        ("part-3.csv", &empty, ["`x` is empty in 2 rows", "part-3.csv"]),
        ("part-1.csv", &empty, ["`x` has type Null", "no row has a value"]),
        ("part-3.csv", &labels, ["`label`", "part-3.csv"]),
        ("part-3.csv", &word, ["`x` holds `many` in row 1", "part-3.csv"]),
    ] {
        let before = fs::read(world.path(name)).ok();
        fs::write(world.path(name), text).unwrap();
        let failure = world.train(&parts("bad")).expect_err(name);
        assert_eq!(failure.exit_code(), ExitCode::BadData, "{failure}");
        assert!(words.iter().all(|word| failure.to_string().contains(word)), "{failure}");
        match before {
            Some(before) => fs::write(world.path(name), before).unwrap(),
            None => fs::remove_file(world.path(name)).unwrap(),
        }
    }
    world.write("part-9.parquet", exact(0, 400));
    let job = world.job("twice", of(&world, "part-*", "validation.parquet"));
    let failure = world.train(&job).unwrap_err().to_string();
    assert!(failure.contains("part-0.csv") && failure.contains("part-9.parquet"), "{failure}");
}

#[test]
fn rows_are_whole_wherever_a_batch_ends_and_whatever_they_hold() {
    let world = World::new();
    // More rows than a batch of any format has, of which some have values with all that separates them.
    let count: usize = 70_000;
    let odd = ["plain", "a, b", "say \"x\"", "two\nlines", "tab\tand é"];
    let columns = with(exact(0, count as i64), "note", repeated(&odd, count));
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let notes = repeated(&odd.map(quoted).each_ref().map(String::as_str), count);
    let csv = delimited(&with(columns.clone(), "note", notes), ",").replace("\r", "");
    world.write("train.parquet", columns.clone());
    fs::write(world.path("train.csv"), csv).unwrap();
    fs::write(world.path("train.jsonl"), json_lines(&columns)).unwrap();
    let validation = with(exact(1_000_000, 150), "note", repeated(&odd, 150));
    world.write("validation.parquet", validation);
    let train = |file: &str| {
        let job = world.job(file, |job| {
            of(&world, file, "validation.parquet")(job);
            job["spec"]["training"]["epochs"] = 1.into();
            job["spec"]["training"]["hidden"] = json!([1]);
            job["spec"]["training"]["batchSize"] = 4096.into();
        });
        world.train(&job).unwrap().train
    };
    let expected = train("train.parquet");
    assert_eq!((train("train.csv"), train("train.jsonl")), (expected.clone(), expected));
}

#[test]
fn a_key_of_text_is_kept_as_it_is_written() {
    let world = World::new();
    let keys = (0..400).map(|id| Some(format!("{:04}", id % 200)));
    let train = with(exact(0, 400), "customer", Arc::new(keys.collect::<StringArray>()));
    world.write("train.parquet", train.clone());
    fs::write(world.path("train.csv"), delimited(&train, ",")).unwrap();
    let split = |file: &str| {
        let uri = world.uri(file);
        world.job(file, |job| {
            let data = job["spec"]["data"].as_object_mut().unwrap();
            data.remove("validation");
            data["train"]["uri"] = uri.into();
            data.insert("split".into(), json!({"validationFraction": 0.2, "key": "customer"}));
            data["exclude"] = json!(["id", "at", "customer"]);
        })
    };
    let expected = world.train(&split("train.parquet")).unwrap();
    let result = world.train(&split("train.csv")).unwrap();
    assert_eq!((result.train, result.validation), (expected.train, expected.validation));
}

#[test]
fn text_that_is_no_table_says_where_it_is_wrong() {
    let world = World::new();
    let good = exact(0, 400);
    let csv = delimited(&good, ",");
    let lines = json_lines(&good);
    let first_x = texts(&column(&good, "x")).value(0).to_owned();
    let line = |number: usize| csv.lines().nth(number - 1).unwrap().to_owned();
    let (fifth, short) = (line(5), line(5).rsplit_once(',').unwrap().0.to_owned());
    let json = |number: usize| lines.lines().nth(number - 1).unwrap().to_owned();
    let in_line = |change: &dyn Fn(&str) -> String| lines.replacen(&json(7), &change(&json(7)), 1);
    let cases = [
        ("empty.csv", String::new(), vec!["empty.csv has 0 rows"]),
        ("header.csv", line(1), vec!["0 rows"]),
        ("twice.csv", csv.replacen("noise", "x", 1), vec!["`x` twice"]),
        ("unnamed.csv", csv.replacen("noise", "", 1), vec!["without a name"]),
        ("short.csv", csv.replacen(&fifth, &short, 1), vec!["line: 5", "6 fields"]),
        ("long.csv", csv.replacen(&fifth, &format!("{fifth},1"), 1), vec!["line: 5", "8 fields"]),
        ("open.csv", csv.replacen(",red,", ",\"red,", 1), vec!["a quote is opened and not closed"]),
        ("nan.csv", csv.replacen(&first_x, "NaN", 1), vec!["`x`", "NaN", "row 0"]),
        ("missing.csv", csv.replacen(&first_x, "N/A", 1), vec!["`x` is empty in 1 rows"]),
        ("words.csv", csv.replacen(&first_x, "many", 1), vec!["words.csv", "`x` holds `many` in row 0"]),
        ("semicolons.csv", csv.replace(',', ";"), vec!["`label` is missing", "semicolons.csv"]),
        ("empty.jsonl", String::new(), vec!["empty.jsonl has 0 rows"]),
        ("list.json", format!("[{}]", lines.trim().replace('\n', ",")), vec!["line 1 is no object"]),
        ("pretty.json", lines.replacen('{', "{\n", 1), vec!["line 1, column 1", "one whole object"]),
        ("half.jsonl", lines[..lines.len() - 9].to_owned(), vec!["line 400, column"]),
        (
            "nan.jsonl",
            in_line(&|json| json.replacen("\"x\":", "\"x\":NaN,\"y\":", 1)),
            vec!["line 7, column"],
        ),
        (
            "mixed.jsonl",
            in_line(&|json| json.replacen("\"x\":", "\"x\":\"many\",\"y\":", 1)),
            vec!["`x` is a number in earlier lines and a text in line 7"],
        ),
        (
            "nested.jsonl",
            in_line(&|json| json.replacen("\"x\":", "\"x\":[1],\"y\":", 1)),
            vec!["`x` is a list in line 7"],
        ),
        ("missing.jsonl", lines.replacen(&first_x, "null", 1), vec!["`x` is empty in 1 rows"]),
    ];
    for (name, text, words) in cases {
        fs::write(world.path(name), text).unwrap();
        let job = world.job("bad", of(&world, name, "validation.parquet"));
        let failure = world.train(&job).expect_err(name);
        assert_eq!(failure.exit_code(), ExitCode::BadData, "{name}: {failure}");
        let message = failure.to_string();
        for word in words {
            assert!(message.contains(word), "{name}: `{message}` should contain `{word}`");
        }
    }
    let latin: Vec<u8> = csv.bytes().map(|byte| if byte == b'g' { 0xe9 } else { byte }).collect();
    fs::write(world.path("latin.csv"), latin).unwrap();
    let job = world.job("latin", of(&world, "latin.csv", "validation.parquet"));
    assert!(world.train(&job).unwrap_err().to_string().contains("UTF-8"));
    for (name, text) in [("times.csv", csv), ("times.jsonl", lines)] {
        fs::write(world.path(name), text).unwrap();
        let job = world.job("times", |job| {
            of(&world, name, "validation.parquet")(job);
            job["spec"]["data"]["exclude"] = json!(["id"]);
        });
        let failure = world.train(&job).expect_err(name).to_string();
        assert!(failure.contains("`at`") && failure.contains("is a time"), "{failure}");
    }
    fs::write(world.path("less.csv"), delimited(&without(exact(0, 400), "x"), ",")).unwrap();
    let job = world.job("less", of(&world, "less.csv", "validation.parquet"));
    assert!(world.train(&job).unwrap_err().to_string().contains("`x`"));
}
