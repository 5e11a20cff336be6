//! Bodies that are answers, and bodies that are none.

use super::*;

fn success(data: &str) -> String {
    format!(r#"{{"status":"success","data":{data}}}"#)
}

fn vector(result: &str) -> String {
    success(&format!(r#"{{"resultType":"vector","result":[{result}]}}"#))
}

fn matrix(result: &str) -> String {
    success(&format!(r#"{{"resultType":"matrix","result":[{result}]}}"#))
}

#[test]
fn an_instant_vector_is_read_whatever_the_order_of_its_keys() {
    let one = r#"{"metric":{"a":"b"},"value":[1,"+Inf"]}"#;
    for body in [vector(one), success(&format!(r#"{{"result":[{one}],"stats":{{}},"resultType":"vector"}}"#))]
    {
        let Ok(Answer::Vector(series)) = parse(Shape::Vector, body.as_bytes()) else { panic!("{body}") };
        assert_eq!((series[0].labels["a"].as_str(), series[0].value), ("b", f64::INFINITY));
    }
}

#[test]
fn raw_samples_and_native_histograms_are_read() {
    let body = matrix(
        r#"{"metric":{"pod":"p"},"values":[[1795262400.25,"1"],[1795262410,"NaN"]],
            "histograms":[[1795262400,{"count":"3","sum":"-0.5","buckets":[[3,"-0.1","0.1","2"],[1,"-2","-1","1"]]}]]}"#,
    );
    let Ok(Answer::Matrix(series)) = parse(Shape::Matrix, body.as_bytes()) else { panic!("{body}") };
    let RawSeries { samples, histograms, .. } = &series[0];
    assert_eq!((samples[0], samples[1].0), ((1_795_262_400_250, 1.0), 1_795_262_410_000));
    assert!(samples[1].1.is_nan());
    let (time, NativeHistogram { count, sum, buckets }) = &histograms[0];
    assert_eq!((*time, *count, *sum), (1_795_262_400_000, 3.0, -0.5));
    let around_zero = NativeBucket { boundary: Boundary::ClosedBoth, lower: -0.1, upper: 0.1, count: 2.0 };
    assert_eq!((&buckets[0], buckets[1].boundary), (&around_zero, Boundary::OpenRight));
}

/// What Prometheus 3 answered to `prometheus_http_request_duration_seconds{handler="/api/v1/query_range"}[6s]` about itself,
/// scraping once a second with `scrape_native_histograms`.
const RECORDED: &str = include_str!("recorded.json");

#[test]
fn a_recorded_body_is_read_to_the_last_bucket() {
    let Ok(Answer::Matrix(series)) = parse(Shape::Matrix, RECORDED.as_bytes()) else { panic!("{RECORDED}") };
    let [series] = series.as_slice() else { panic!("{series:?}") };
    assert!(series.samples.is_empty() && series.labels["pod"] == "p", "{series:?}");
    let counts: Vec<f64> = series.histograms.iter().map(|(_, histogram)| histogram.count).collect();
    assert_eq!(counts, [2.0, 4.0, 6.0, 7.0, 8.0, 10.0]);
    for (at, NativeHistogram { count, sum, buckets }) in &series.histograms {
        assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<f64>(), *count, "at {at}");
        let bounds =
            |bound: fn(&NativeBucket) -> f64| buckets.iter().map(|bucket| bound(bucket) * bucket.count).sum();
        let (least, most): (f64, f64) = (bounds(|bucket| bucket.lower), bounds(|bucket| bucket.upper));
        assert!(least <= *sum && *sum <= most, "{least} to {most} has {sum}");
        assert!(buckets.iter().all(|bucket| bucket.boundary == Boundary::OpenLeft), "{buckets:?}");
    }
}

#[test]
fn anything_else_says_why_it_is_none() {
    let many = vector(&vec![r#"{"metric":{},"value":[1,"1"]}"#; 1001].join(","));
    let table = [
        (
            Shape::Vector,
            success(r#"{"resultType":"scalar","result":[1,"2"]}"#),
            "type `scalar` instead of vector",
        ),
        (
            Shape::Vector,
            success(r#"{"resultType":"string","result":[1,"2"]}"#),
            "type `string` instead of vector",
        ),
        (Shape::Vector, matrix(""), "type `matrix` instead of vector"),
        (Shape::Matrix, vector(""), "type `vector` instead of matrix"),
        (Shape::Vector, vector(r#"{"metric":{},"value":[1,"x"]}"#), "number in quotation marks"),
        (Shape::Vector, vector(r#"{"metric":{},"value":[1,2]}"#), "number in quotation marks"),
        (Shape::Vector, vector(r#"{"metric":{},"value":[-1,"2"]}"#), "seconds since 1970"),
        (
            Shape::Vector,
            vector(r#"{"metric":{},"histogram":[1,{"count":"1","sum":"1"}]}"#),
            "native histogram",
        ),
        (Shape::Vector, many, "at most 1000"),
        (Shape::Matrix, matrix(r#"{"metric":{},"values":[[2,"1"],[1,"2"]]}"#), "order of time"),
        (Shape::Matrix, matrix(r#"{"metric":{},"values":[[2,"1"],[2,"2"]]}"#), "order of time"),
        (
            Shape::Matrix,
            matrix(r#"{"metric":{},"histograms":[[2,{"count":"1","sum":"1","buckets":[[4,"0","1","1"]]}]]}"#),
            "boundary rule",
        ),
        (Shape::Vector, r#"{"status":"success"}"#.into(), "no data"),
        (
            Shape::Vector,
            r#"{"status":"error","errorType":"bad_data","error":"parse"}"#.into(),
            "bad_data: parse",
        ),
        (Shape::Vector, r#"{"status":"error"}"#.into(), "without a reason"),
        (Shape::Vector, "<html>".into(), "no JSON of Prometheus"),
        (Shape::Vector, String::new(), "no JSON of Prometheus"),
        (Shape::Vector, "[".repeat(100_000), "no JSON of Prometheus"),
    ];
    for (shape, body, said) in table {
        let error = parse(shape, body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_warning_is_no_answer_and_an_info_is_no_warning() {
    let with = |more: &str| vector("").replace(r#""data""#, &format!(r#"{more},"data""#));
    let warned = parse(Shape::Vector, with(r#""warnings":["store gone"]"#).as_bytes()).unwrap_err();
    assert!(warned.to_string().contains("store gone"), "{warned}");
    for fine in [r#""warnings":[]"#, r#""warnings":null"#, r#""infos":["metric might not be a counter"]"#] {
        assert!(matches!(parse(Shape::Vector, with(fine).as_bytes()), Ok(Answer::Vector(_))), "{fine}");
    }
}
