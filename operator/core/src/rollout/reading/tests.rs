//! Readings that pass, breach, or are none.

use anneal_crds::metric::{Absent, Histogram, Others, Ratio, Unit, Value};
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_800_000_000;

fn series(part: &str, le: Option<&str>, value: f64) -> Series {
    let mut labels = BTreeMap::from([(PART.to_owned(), part.to_owned())]);
    labels.extend(le.map(|le| ("le".to_owned(), le.to_owned())));
    Series { labels, value }
}

fn error_rate() -> Metric {
    Metric {
        name: "error_rate".into(),
        window: Span::from_secs(60),
        interval: None,
        label_delay: None,
        min_labels: None,
        source: Source::Ratio(Ratio {
            bad: "b".into(),
            others: Others::Total("t".into()),
            absent: Absent::Missing,
            max: Some(0.01),
            min: None,
        }),
    }
}

fn latency() -> Metric {
    let histogram =
        Histogram { selector: "h".into(), unit: Unit::Seconds, quantile: 0.95, max: Span::from_secs(1) };
    Metric {
        name: "latency".into(),
        window: Span::from_secs(60),
        interval: None,
        label_delay: None,
        min_labels: None,
        source: Source::Histogram(histogram),
    }
}

fn verdict(metric: &Metric, vector: Vec<Series>) -> Verdict {
    let now = Timestamp::from_second(NOW).unwrap();
    judge(metric, &read(metric, &Answer::Vector(vector), None, Span::from_secs(30), now), "http://p", "q").0
}

fn ratio_vector(bad: f64, total: f64, age: f64) -> Vec<Series> {
    vec![
        series("bad", None, bad),
        series("total", None, total),
        series("step", None, total),
        series("at", None, NOW as f64 - age),
    ]
}

#[test]
fn a_share_is_compared_with_its_bound_inclusively() {
    assert_eq!(
        verdict(&error_rate(), ratio_vector(1.0, 100.0, 1.0)),
        Verdict::Pass { step_requests: Some(100.0) }
    );
    assert_eq!(verdict(&error_rate(), ratio_vector(2.0, 100.0, 1.0)), Verdict::Breach);
}

#[test]
fn a_breach_does_not_look_like_its_bound() {
    for (value, shown) in [
        (0.0, "0"),
        (0.01, "0.01"),
        (0.010_04, "0.01004"),
        (0.318_181_8, "0.318182"),
        (300.04, "300.04"),
        (12.0, "12"),
    ] {
        assert_eq!(significant(value), shown);
    }
}

#[test]
fn missing_parts_no_requests_and_old_samples_are_no_reading() {
    for gone in 0..4 {
        let mut vector = ratio_vector(0.0, 100.0, 1.0);
        vector.remove(gone);
        assert!(matches!(verdict(&error_rate(), vector), Verdict::Hold(..)), "part {gone}");
    }
    assert!(matches!(verdict(&error_rate(), ratio_vector(0.0, 0.0, 1.0)), Verdict::Hold(..)));
    assert!(matches!(verdict(&error_rate(), ratio_vector(0.0, 100.0, 31.0)), Verdict::Hold(..)));
    assert!(matches!(verdict(&error_rate(), vec![]), Verdict::Hold(..)));
    assert!(matches!(verdict(&latency(), vec![]), Verdict::Hold(..)));
}

#[test]
fn one_number_that_is_none_is_no_reading_and_no_breach() {
    for part in ["bad", "total", "step", "at"] {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            let mut vector = ratio_vector(0.0, 100.0, 1.0);
            vector
                .iter_mut()
                .filter(|series| series.labels[PART] == part)
                .for_each(|series| series.value = value);
            assert!(matches!(verdict(&error_rate(), vector), Verdict::Hold(..)), "{part} {value}");
        }
    }
}

#[test]
fn the_oldest_sample_that_counts_and_the_first_request_count() {
    assert_eq!(
        verdict(&error_rate(), ratio_vector(0.0, 100.0, 30.0)),
        Verdict::Pass { step_requests: Some(100.0) }
    );
    let mut none_in_step = ratio_vector(0.0, 100.0, 1.0);
    none_in_step[2].value = 0.0;
    assert_eq!(verdict(&error_rate(), none_in_step), Verdict::Pass { step_requests: Some(0.0) });
}

/// Upper bounds and cumulative counts.
type Buckets = &'static [(&'static str, f64)];

fn histogram_vector(buckets: &[(&str, f64)]) -> Vec<Series> {
    let mut vector = vec![series("step", None, 100.0), series("at", None, NOW as f64)];
    vector.extend(buckets.iter().map(|(le, value)| series("bucket", Some(le), *value)));
    vector
}

#[test]
fn a_quantile_is_linear_within_its_bucket() {
    let table: [(Buckets, Result<f64, Reading>); 10] = [
        (&[("1", 40.0), ("1.0", 50.0), ("2", 50.0), ("2.0", 50.0), ("+Inf", 100.0)], Ok(1.5)),
        (&[("0.1", 100.0), ("+Inf", 100.0)], Ok(0.095)),
        (&[("0.1", 50.0), ("0.2", 100.0), ("+Inf", 100.0)], Ok(0.19)),
        (&[("+Inf", 100.0), ("0.2", 100.0), ("0.1", 95.0)], Ok(0.1)),
        (&[("0.1", 90.0), ("0.2", 90.0), ("0.4", 100.0), ("+Inf", 100.0)], Ok(0.3)),
        // Counts of one scrape may disagree for a moment.
        (&[("0.1", 60.0), ("0.2", 50.0), ("0.4", 110.0), ("+Inf", 100.0)], Ok(0.34)),
        (&[("0.1", 90.0), ("+Inf", 100.0)], Err(Reading::AboveBuckets)),
        (&[("0.1", 100.0)], Err(Reading::Empty)),
        (&[("0.1", 0.0), ("+Inf", 0.0)], Err(Reading::Empty)),
        (&[], Err(Reading::Empty)),
    ];
    for (buckets, expected) in table {
        match (quantile(&histogram_vector(buckets), 0.95), expected) {
            (Ok(value), Ok(expected)) => assert!((value - expected).abs() < 1e-9, "{buckets:?}: {value}"),
            (read, expected) => assert_eq!(read, expected, "{buckets:?}"),
        }
    }
}

#[test]
fn a_bucket_that_is_none_is_no_reading() {
    for (le, value) in
        [("NaN", 100.0), ("slow", 100.0), ("0.2", f64::NAN), ("0.2", f64::INFINITY), ("0.2", -1.0)]
    {
        let vector = histogram_vector(&[("0.1", 50.0), (le, value), ("+Inf", 100.0)]);
        assert!(matches!(verdict(&latency(), vector), Verdict::Hold(..)), "{le} {value}");
    }
}

#[test]
fn a_quantile_above_every_bucket_is_a_breach_however_high_the_bound() {
    let vector = |fast: f64| {
        vec![
            series("bucket", Some("0.1"), fast),
            series("bucket", Some("+Inf"), 100.0),
            series("step", None, 100.0),
            series("at", None, NOW as f64),
        ]
    };
    assert_eq!(verdict(&latency(), vector(96.0)), Verdict::Pass { step_requests: Some(100.0) });
    assert_eq!(verdict(&latency(), vector(90.0)), Verdict::Breach);
}

#[test]
fn a_sample_of_the_future_and_a_part_that_comes_twice_are_no_reading() {
    assert!(matches!(verdict(&error_rate(), ratio_vector(0.0, 100.0, -1.0)), Verdict::Pass { .. }));
    assert!(matches!(verdict(&error_rate(), ratio_vector(0.0, 100.0, -1.5)), Verdict::Hold(..)));
    for twice in 0..4 {
        let mut vector = ratio_vector(0.0, 100.0, 1.0);
        vector.push(vector[twice].clone());
        assert!(matches!(verdict(&error_rate(), vector), Verdict::Hold(..)), "part {twice}");
    }
    let twice = histogram_vector(&[("0.1", 100.0), ("0.1", 0.0), ("+Inf", 100.0)]);
    assert!(matches!(verdict(&latency(), twice), Verdict::Hold(..)));
}

#[test]
fn a_quantile_below_every_number_is_no_reading() {
    let vector = histogram_vector(&[("-Inf", 100.0), ("+Inf", 100.0)]);
    assert!(matches!(verdict(&latency(), vector), Verdict::Hold(..)));
}

#[test]
fn raw_samples_are_no_reading_of_a_threshold() {
    let now = Timestamp::from_second(NOW).unwrap();
    let reading = read(&error_rate(), &Answer::Matrix(vec![]), None, Span::from_secs(30), now);
    assert!(matches!(reading, Reading::Malformed(_)), "{reading:?}");
}

#[test]
fn what_keeps_a_step_waiting_names_server_and_query() {
    for reading in [
        Reading::Empty,
        Reading::Stale(SignedDuration::from_secs(40)),
        Reading::NotFinite,
        Reading::Malformed("twice".into()),
    ] {
        let (verdict, record) = judge(&error_rate(), &reading, "http://p:9090", "sum(x)");
        let Verdict::Hold(class, why) = verdict else { panic!("{reading:?} is {verdict:?}") };
        assert!(why.ends_with("(http://p:9090: sum(x))"), "{why}");
        assert_eq!((record.verdict.as_str(), record.query.as_str()), (class.name(), "sum(x)"));
    }
}

fn accuracy(requests: Option<&str>) -> Metric {
    let value = Value {
        expression: "min(accuracy[$window])".into(),
        requests: requests.map(str::to_owned),
        max: None,
        min: Some(0.8),
    };
    Metric { source: Source::Value(value), ..error_rate() }
}

#[test]
fn a_value_is_compared_as_it_is_and_counts_requests_only_with_a_counter() {
    let vector = |value: f64| vec![series("value", None, value), series("at", None, NOW as f64)];
    let counted = |value: f64, step: f64| [vector(value), vec![series("step", None, step)]].concat();
    let hold = |metric: &Metric, vector| {
        let Verdict::Hold(class, _) = verdict(metric, vector) else { panic!("{metric:?}") };
        class
    };
    let (alone, with) = (accuracy(None), accuracy(Some("requests_total")));
    assert_eq!(verdict(&alone, vector(0.8)), Verdict::Pass { step_requests: None });
    assert_eq!(verdict(&alone, vector(0.799)), Verdict::Breach);
    assert_eq!(verdict(&with, counted(0.8, 7.0)), Verdict::Pass { step_requests: Some(7.0) });
    // What should be counted and is not is missing.
    assert_eq!(hold(&with, vector(0.9)), MissingClass::NoData);
    assert_eq!(hold(&alone, vec![series("at", None, NOW as f64)]), MissingClass::NoData);
    assert_eq!(hold(&alone, vec![series("value", None, 0.9)]), MissingClass::NoData);
    assert_eq!(hold(&alone, vector(f64::NAN)), MissingClass::Error);
    assert_eq!(hold(&alone, vector(f64::INFINITY)), MissingClass::Error);
    assert_eq!(hold(&with, counted(0.9, f64::NAN)), MissingClass::Error);
    let twice = [vector(0.9), vec![series("value", None, 0.95)]].concat();
    assert_eq!(hold(&alone, twice), MissingClass::Error);
    let old = vec![series("value", None, 0.9), series("at", None, NOW as f64 - 31.0)];
    assert_eq!(hold(&alone, old), MissingClass::Stale);
}

proptest! {
    #[test]
    fn only_finite_and_sensible_numbers_can_pass(
        bad in any::<f64>(), total in any::<f64>(), step in any::<f64>(), at in any::<f64>(),
    ) {
        let vector = vec![
            series("bad", None, bad), series("total", None, total), series("step", None, step), series("at", None, at),
        ];
        if let Verdict::Pass { step_requests } = verdict(&error_rate(), vector) {
            let requests = step_requests.unwrap();
            prop_assert!(bad >= 0.0 && total > 0.0 && bad / total <= 0.01 && requests >= 0.0);
            prop_assert!(requests.is_finite() && (-1.0..=30.0).contains(&(NOW as f64 - at)));
        }
    }

    #[test]
    fn any_histogram_gives_some_verdict(
        counts in proptest::collection::vec(any::<f64>(), 0..6), bounds in proptest::collection::vec(any::<f64>(), 0..6),
    ) {
        let mut vector = vec![series("step", None, 1.0), series("at", None, NOW as f64)];
        for (bound, count) in bounds.iter().zip(&counts) {
            vector.push(series("bucket", Some(&bound.to_string()), *count));
        }
        if matches!(verdict(&latency(), vector), Verdict::Pass { .. }) {
            prop_assert!(counts.iter().zip(&bounds).all(|(count, _)| count.is_finite()));
        }
    }
}
