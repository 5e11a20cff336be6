//! The same for raw samples of two versions: a step that was about to end does not, unless all that came is fresh and finite.

use anneal_core::rollout::{Answer, Question, Shape};
use anneal_crds::Weight;
use anneal_operator::prometheus_api::body;
use anneal_tests::world::dice::Dice;
use serde_json::{Value, json};

use super::{arms::World, dirt, number};

const BODIES: u64 = 4_000;
/// `prometheus.staleAfter` of the world.
const STALE_AFTER_MS: f64 = 10_000.0;

/// A canary whose step ends with the next tick, if that sees what it should.
fn about_to_end() -> World {
    let mut world = World::new([(80, 200), (20, 200)], json!({}));
    let mut before = world.clone();
    while world.tick().weight == Weight::from_per_mille(200) {
        before = world.clone();
    }
    assert_eq!(world.case.rollout.status.unwrap().weight, Weight::FULL);
    before
}

/// An answer as Prometheus writes it.
fn written(answer: &Answer) -> Value {
    let Answer::Matrix(series) = answer else { unreachable!("{answer:?}") };
    let one = |series: &anneal_core::rollout::RawSeries| {
        let values: Vec<_> = series
            .samples
            .iter()
            .map(|(at, value)| json!([*at as f64 / 1000.0, value.to_string()]))
            .collect();
        json!({"metric": series.labels, "values": values})
    };
    let result: Vec<_> = series.iter().map(one).collect();
    json!({"status": "success", "data": {"resultType": "matrix", "result": result}})
}

/// Changes numbers, moments and series, so that the answer is still one.
fn soil(body: &mut Value, dice: &mut Dice) {
    let result = body["data"]["result"].as_array_mut().unwrap();
    let place = dice.below(result.len());
    let values = result[place]["values"].as_array_mut().unwrap();
    if values.is_empty() || dice.chance(100) {
        return drop(result.remove(place));
    }
    let sample = if dice.chance(500) { values.len() - 1 } else { dice.below(values.len()) };
    match dice.below(4) {
        0 => values.truncate(sample),
        1 => values[sample][0] = json!(values[sample][0].as_f64().unwrap() + dice.below(60) as f64 - 30.0),
        _ => values[sample][1] = dirt::odd_number(dice),
    }
}

/// Whether a step may end by a body, by another way of reading it: both versions have a newest sample that is fresh, and no
/// number is none.
fn may_end(bytes: &[u8], now_ms: f64) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return false };
    let result = body["data"]["result"].as_array().cloned().unwrap_or_default();
    let values = |series: &Value| -> Vec<(f64, f64)> {
        let values = series["values"].as_array().cloned().unwrap_or_default();
        let pair = |pair: &Value| Some((pair[0].as_f64()? * 1000.0, pair[1].as_str()?.parse().ok()?));
        let all = values.iter().map(|value| pair(value).unwrap_or((f64::NAN, f64::NAN)));
        // What was not there yet when it was asked for counts for nothing; clocks differ a little.
        all.filter(|(at, _)| at.is_nan() || *at <= now_ms + 1000.0).collect()
    };
    // What came before the last tick is counted already, and what comes after this one is counted by the next. Events of a pod
    // without requests count for nothing.
    let of_known = result.iter().filter(|series| series["metric"]["pod"] == "p");
    let mut new =
        of_known.flat_map(values).filter(|(at, _)| at.is_nan() || (now_ms - 1000.0..=now_ms).contains(at));
    let finite = new.all(|(at, value)| at.is_finite() && value.is_finite() && value >= 0.0);
    let fresh = |version: &str| {
        let of_version = result.iter().filter(|series| series["metric"]["version"] == version);
        let newest = of_version.flat_map(values).map(|(at, _)| at).fold(f64::NEG_INFINITY, f64::max);
        now_ms - newest <= STALE_AFTER_MS
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

fn look(seed: u64, world: &World, seen: &mut Seen) {
    let mut dice = Dice::new(seed);
    let mut world = world.clone();
    let dirty = if dice.chance(500) { Question::Events } else { Question::All };
    let (dice, sent) = (std::cell::RefCell::new(dice), std::cell::RefCell::new(vec![]));
    let status = world.look(|world, query| {
        let answer = world.answer(query);
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
        assert!(sent.iter().all(|bytes| may_end(bytes, now_ms)), "RAW_BODY={seed}: {dirty:?} {:?}", shown());
    } else {
        seen.stayed += 1;
        seen.doubted += u64::from(sent.iter().all(|bytes| body::parse(Shape::Matrix, bytes).is_ok()));
    }
}

#[test]
fn no_step_ends_by_raw_samples_that_are_not_fresh_and_finite() {
    let (world, mut seen) = (about_to_end(), Seen::default());
    if let Some(seed) = number("RAW_BODY") {
        return look(seed, &world, &mut seen);
    }
    let bodies = number("PROMETHEUS_BODIES").unwrap_or(BODIES);
    for seed in 0..bodies {
        look(seed, &world, &mut seen);
    }
    println!("{bodies} raw bodies: {seen:?}");
    for count in [seen.ended, seen.stayed, seen.doubted] {
        assert!(count > bodies / 50, "{seen:?}");
    }
}
