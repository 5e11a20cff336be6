//! The same for raw samples of two versions: a step that was about to end does not, unless all that came is fresh and finite.

use anneal_core::rollout::{Answer, Boundary, NativeHistogram, Query, Question, RawSeries, Shape};
use anneal_crds::Weight;
use anneal_operator::prometheus_api::body;
use anneal_tests::world::dice::Dice;
use serde_json::{Value, json};

use super::{
    arms::World,
    dirt,
    forms::{self, Form},
    number,
};

/// Of all forms together.
const BODIES: u64 = 9_000;
/// `prometheus.staleAfter` of the world.
const STALE_AFTER_MS: f64 = 10_000.0;

/// How requests are counted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Counted {
    Ratio,
    Classic,
    Native,
}

impl Counted {
    fn world(self) -> World {
        match self {
            Self::Ratio => World::new([(80, 200), (20, 200)], json!({})),
            Self::Classic | Self::Native => forms::latency("500ms", 0),
        }
    }

    fn answer(self) -> Form {
        match self {
            Self::Ratio => World::answer,
            Self::Classic => two_buckets,
            Self::Native => forms::native,
        }
    }

    /// How many series of each version a step needs.
    fn needed(self) -> usize {
        match self {
            Self::Ratio | Self::Native => 1,
            Self::Classic => 2,
        }
    }
}

/// With more of them, another bound would stand for one that is gone.
fn two_buckets(world: &World, query: &Query) -> Answer {
    let Answer::Matrix(mut series) = forms::classic(world, query) else { unreachable!() };
    series.retain(|series| ["0.5", "+Inf"].contains(&series.labels["le"].as_str()));
    Answer::Matrix(series)
}

/// A canary whose step ends with the next tick, if that sees what it should.
fn about_to_end(counted: Counted) -> World {
    let mut world = counted.world();
    let mut before = world.clone();
    while world.look(counted.answer()).weight == Weight::from_per_mille(200) {
        before = world.clone();
    }
    assert_eq!(world.case.rollout.status.unwrap().weight, Weight::FULL);
    before
}

/// An answer as Prometheus writes it.
fn written(answer: &Answer) -> Value {
    let Answer::Matrix(series) = answer else { unreachable!("{answer:?}") };
    let at = |at: &i64| *at as f64 / 1000.0;
    let one = |series: &RawSeries| {
        let mut written = json!({"metric": series.labels});
        if series.histograms.is_empty() {
            let values = series.samples.iter().map(|(time, value)| json!([at(time), value.to_string()]));
            written["values"] = values.collect();
        } else {
            written["histograms"] =
                series.histograms.iter().map(|(time, one)| json!([at(time), histogram(one)])).collect();
        }
        written
    };
    let result: Vec<_> = series.iter().map(one).collect();
    json!({"status": "success", "data": {"resultType": "matrix", "result": result}})
}

fn histogram(one: &NativeHistogram) -> Value {
    let buckets = one.buckets.iter().map(|bucket| {
        let rule = match bucket.boundary {
            Boundary::OpenLeft => 0,
            Boundary::OpenRight => 1,
            Boundary::OpenBoth => 2,
            Boundary::ClosedBoth => 3,
        };
        json!([rule, bucket.lower.to_string(), bucket.upper.to_string(), bucket.count.to_string()])
    });
    json!({"count": one.count.to_string(), "sum": one.sum.to_string(), "buckets": buckets.collect::<Vec<_>>()})
}

/// What a series of either kind has.
fn samples(series: &Value) -> &str {
    if series["histograms"].is_array() { "histograms" } else { "values" }
}

/// Changes numbers, moments and series, so that the answer is still one.
fn soil(body: &mut Value, dice: &mut Dice) {
    let result = body["data"]["result"].as_array_mut().unwrap();
    let place = dice.below(result.len());
    let kind = samples(&result[place]).to_owned();
    let values = result[place][&kind].as_array_mut().unwrap();
    if values.is_empty() || dice.chance(100) {
        return drop(result.remove(place));
    }
    let sample = if dice.chance(500) { values.len() - 1 } else { dice.below(values.len()) };
    match dice.below(4) {
        0 => values.truncate(sample),
        1 => values[sample][0] = json!(values[sample][0].as_f64().unwrap() + dice.below(60) as f64 - 30.0),
        _ if kind == "values" => values[sample][1] = dirt::odd_number(dice),
        2 => values[sample][1]["count"] = dirt::odd_number(dice),
        _ => values[sample][1]["buckets"][0][3] = dirt::odd_number(dice),
    }
}

/// All numbers of a sample that count something; one that is none if it is no sample.
fn numbers(sample: &Value) -> Vec<f64> {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
    match sample {
        Value::Object(histogram) => {
            let buckets = histogram.get("buckets").and_then(Value::as_array).into_iter().flatten();
            buckets.map(|bucket| number(&bucket[3])).chain([number(&sample["count"])]).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            vec![number(sample)]
        }
    }
}

/// Whether a step may end by a body, by another way of reading it: both versions have a newest sample that is fresh, and no
/// number is none.
fn may_end(bytes: &[u8], now_ms: f64, counted: Counted) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return false };
    let result = body["data"]["result"].as_array().cloned().unwrap_or_default();
    let values = |series: &Value| -> Vec<(f64, Vec<f64>)> {
        let values = series[samples(series)].as_array().cloned().unwrap_or_default();
        let pair = |pair: &Value| Some((pair[0].as_f64()? * 1000.0, numbers(pair.get(1)?)));
        let all = values.iter().map(|value| pair(value).unwrap_or((f64::NAN, vec![f64::NAN])));
        // What was not there yet when it was asked for counts for nothing; clocks differ a little.
        all.filter(|(at, _)| at.is_nan() || *at <= now_ms + 1000.0).collect()
    };
    // What came before the last tick is counted already, and what comes after this one is counted by the next. Events of a pod
    // without requests count for nothing.
    let of_known = result.iter().filter(|series| series["metric"]["pod"] == "p");
    let mut new =
        of_known.flat_map(values).filter(|(at, _)| at.is_nan() || (now_ms - 1000.0..=now_ms).contains(at));
    let finite = new.all(|(at, numbers)| {
        at.is_finite() && numbers.iter().all(|number| number.is_finite() && *number >= 0.0)
    });
    let is_fresh = |series: &&Value| {
        let newest = values(series).into_iter().map(|(at, _)| at).fold(f64::NEG_INFINITY, f64::max);
        now_ms - newest <= STALE_AFTER_MS
    };
    let fresh = |version: &str| {
        let of_version = result.iter().filter(|series| series["metric"]["version"] == version);
        of_version.filter(is_fresh).count() >= counted.needed()
    };
    body["status"] == "success"
        && body["data"]["resultType"] == "matrix"
        && body["warnings"].as_array().is_none_or(Vec::is_empty)
        && finite
        && fresh("v20261121.1")
        && fresh("v20261121.2")
}

#[derive(Debug, Default)]
struct Seen {
    ended: u64,
    stayed: u64,
    /// By an answer that could be read.
    doubted: u64,
}

fn look(seed: u64, world: &World, counted: Counted, seen: &mut Seen) {
    let mut dice = Dice::new(seed);
    let mut world = world.clone();
    // A histogram has all that is asked for.
    let has_one = counted != Counted::Ratio;
    let dirty = if has_one || dice.chance(500) { Question::Events } else { Question::All };
    let (dice, sent) = (std::cell::RefCell::new(dice), std::cell::RefCell::new(vec![]));
    let status = world.look(|world, query| {
        let answer = counted.answer()(world, query);
        if query.question != dirty {
            return answer;
        }
        let (mut body, dice) = (written(&answer), &mut *dice.borrow_mut());
        for _ in 0..dice.below(3) {
            soil(&mut body, dice);
        }
        let is_cut = dice.chance(300);
        let bytes = if is_cut { dirt::bytes(body, dice) } else { serde_json::to_vec(&body).unwrap() };
        let read = body::parse(Shape::Matrix, &bytes);
        sent.borrow_mut().push(bytes);
        read.unwrap_or_else(|why| Answer::Unreachable(why.to_string()))
    });
    let now_ms = world.case.now.as_millisecond() as f64;
    let sent = sent.into_inner();
    let shown = || sent.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<Vec<_>>();
    assert!(!sent.is_empty());
    if status.weight == Weight::FULL {
        seen.ended += 1;
        assert!(
            sent.iter().all(|bytes| may_end(bytes, now_ms, counted)),
            "RAW_BODY={seed}: {counted:?} {dirty:?} {:?}",
            shown()
        );
    } else {
        seen.stayed += 1;
        seen.doubted += u64::from(sent.iter().all(|bytes| body::parse(Shape::Matrix, bytes).is_ok()));
    }
}

#[test]
fn no_step_ends_by_raw_samples_that_are_not_fresh_and_finite() {
    let forms = [Counted::Ratio, Counted::Classic, Counted::Native];
    for counted in forms {
        let (world, mut seen) = (about_to_end(counted), Seen::default());
        if let Some(seed) = number("RAW_BODY") {
            look(seed, &world, counted, &mut seen);
            continue;
        }
        let bodies = number("PROMETHEUS_BODIES").unwrap_or(BODIES) / forms.len() as u64;
        for seed in 0..bodies {
            look(seed, &world, counted, &mut seen);
        }
        println!("{bodies} raw bodies, {counted:?}: {seen:?}");
        for count in [seen.ended, seen.stayed, seen.doubted] {
            assert!(count > bodies / 50, "{counted:?}: {seen:?}");
        }
    }
}
