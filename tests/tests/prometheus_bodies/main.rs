//! Bodies that no server should send: none makes the operator panic, and none passes unless it is fresh and finite.
//!
//! `PROMETHEUS_BODIES=n cargo test -p anneal-tests --test prometheus_bodies` reads that many; `BODY=n` shows one, and `RAW_BODY=n`
//! replays one of raw samples.

#![expect(clippy::unwrap_used, reason = "this is a test")]

#[path = "../core/rollout_sequential/arms.rs"]
#[expect(dead_code, reason = "the tables of `sequential` ask for more")]
mod arms;
mod compared;
mod dirt;
#[path = "../core/rollout_sequential/forms.rs"]
mod forms;

use anneal_core::rollout::{Answer, RawSeries, Shape, Verdict, judge, read};
use anneal_crds::{Span, metric::Metric};
use anneal_operator::prometheus_api::body;
use anneal_tests::world::dice::Dice;
use jiff::Timestamp;
use serde_json::{Value, json};

const BODIES: u64 = 20_000;
const NOW: i64 = 1_795_262_400;
const STALE_AFTER: u32 = 30;

#[expect(clippy::disallowed_methods, reason = "a test's arguments come from the environment")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Ratio,
    Mean,
    Histogram,
    Value,
    Drift,
    Stability,
    Agreement,
    Paired,
}

const SOURCES: [Source; 8] = [
    Source::Ratio,
    Source::Mean,
    Source::Histogram,
    Source::Value,
    Source::Drift,
    Source::Stability,
    Source::Agreement,
    Source::Paired,
];

/// What drift is compared with.
const SCORES: [(&str, f64); 3] = [("0.5", 700.0), ("1", 900.0), ("inf", 1000.0)];
/// What the order of features is compared with.
const FEATURES: [(&str, f64); 4] = [("age", 0.5), ("income", 0.3), ("term", 0.1), ("zip", 0.05)];

impl Source {
    fn metric(self) -> Metric {
        let source = match self {
            Self::Ratio => {
                json!({"name": "m", "window": "60s", "ratio": {"bad": "b", "total": "t", "max": 0.01}})
            }
            Self::Mean => {
                json!({"name": "m", "window": "60s", "mean": {"sum": "s", "count": "c", "max": 0.01}})
            }
            Self::Histogram => {
                json!({"name": "m", "window": "60s", "histogram": {"selector": "h", "quantile": 0.95, "max": "300ms"}})
            }
            Self::Value => {
                json!({"name": "m", "window": "60s", "value": {"expression": "min(a[$window])", "max": 0.5, "min": -1.0}})
            }
            Self::Drift => {
                json!({"name": "m", "window": "60s", "drift": {"buckets": "b", "minEvents": 100, "max": 0.1}})
            }
            Self::Stability => {
                json!({"name": "m", "window": "60s", "stability": {"gauge": "g", "by": "feature", "min": 0.8}})
            }
            Self::Agreement => json!({"name": "m", "window": "60s", "agreement": {"min": 0.95}}),
            Self::Paired => json!({"name": "m", "window": "60s", "paired": {"max": 0.6}}),
        };
        serde_json::from_value(source).unwrap()
    }

    /// What a healthy server says, good, bad or old.
    fn body(self, dice: &mut Dice) -> Value {
        let count = dice.below(10_000) as f64;
        let series = |part: &str, le: Option<&str>, value: f64| {
            let mut metric = json!({"anneal_part": part});
            if let Some(le) = le {
                metric["le"] = le.into();
            }
            json!({"metric": metric, "value": [NOW, value.to_string()]})
        };
        let at = NOW as f64 - dice.below(45_000) as f64 / 1000.0;
        let mut result = vec![series("step", None, count), series("at", None, at)];
        match self {
            Self::Ratio => {
                result.push(series("bad", None, count * dice.below(20) as f64 / 1000.0));
                result.push(series("total", None, count));
            }
            Self::Mean => {
                result.push(series("sum", None, count * dice.below(20) as f64 / 1000.0));
                result.push(series("count", None, count));
                result.push(series("fell", None, -(dice.below(3) as f64)));
            }
            Self::Histogram => {
                let fast = count * dice.below(1001) as f64 / 1000.0;
                let buckets = [("0.1", fast), ("0.25", (fast + count) / 2.0), ("1", count), ("+Inf", count)];
                result.extend(buckets.map(|(le, value)| series("bucket", Some(le), value)));
            }
            Self::Value => result.push(series("value", None, dice.below(1000) as f64 / 1000.0)),
            Self::Drift => {
                let low = count * dice.below(1001) as f64 / 1000.0;
                let buckets = [("0.5", low), ("1.0", (low + count) / 2.0), ("+Inf", count)];
                result.extend(buckets.map(|(le, value)| series("keyed", Some(le), value)));
            }
            Self::Stability => result.extend(FEATURES.map(|(feature, rank)| {
                let mut series = series("keyed", None, rank * dice.below(3) as f64);
                series["metric"]["anneal_key"] = feature.into();
                series
            })),
            Self::Agreement | Self::Paired => {
                let one_of = |dice: &mut Dice| count * dice.below(100) as f64 / 1000.0;
                result.push(series("candidate", None, one_of(dice)));
                result.push(series("stable", None, one_of(dice)));
                result.push(series("total", None, count));
            }
        }
        json!({"status": "success", "data": {"resultType": "vector", "result": result}})
    }
}

/// What a range selector is answered with.
fn matrix(dice: &mut Dice) -> Value {
    let times = (0..dice.below(5)).map(|place| NOW + 10 * i64::try_from(place).unwrap());
    let values: Vec<_> = times.clone().map(|time| json!([time, dice.below(100).to_string()])).collect();
    let histogram =
        json!({"count": "3", "sum": "1.5", "buckets": [[3, "-0.1", "0.1", "1"], [0, "0.1", "0.2", "2"]]});
    let histograms: Vec<_> = times.map(|time| json!([time, histogram])).collect();
    let result = json!([{"metric": {"pod": "p"}, "values": values, "histograms": histograms}]);
    json!({"status": "success", "data": {"resultType": "matrix", "result": result}})
}

fn body(seed: u64) -> (Option<Source>, Vec<u8>) {
    let mut dice = Dice::new(seed);
    let source = dice.pick(&SOURCES).copied().filter(|_| !dice.chance(200));
    let value = match source {
        Some(source) => source.body(&mut dice),
        None => matrix(&mut dice),
    };
    (source, dirt::bytes(value, &mut dice))
}

/// Whether a body may pass, by another way of reading it.
fn is_fresh_and_finite(bytes: &[u8], source: Source) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return false };
    let result = body["data"]["result"].as_array().cloned().unwrap_or_default();
    let all = |part: &str| -> Vec<f64> {
        let of_part = result.iter().filter(|series| series["metric"]["anneal_part"] == part);
        of_part.map(|series| series["value"][1].as_str().unwrap().parse().unwrap()).collect()
    };
    let one = |part: &str| match all(part).as_slice() {
        [value] if value.is_finite() => Some(*value),
        _ => None,
    };
    let versus = || {
        let counts = (one("candidate")?, one("stable")?, one("total")?);
        (counts.0 >= 0.0 && counts.1 >= 0.0 && counts.2 > 0.0).then_some(counts)
    };
    let silent = body["warnings"].as_array().is_none_or(Vec::is_empty);
    let fresh = one("at").is_some_and(|at| (-1.0..=f64::from(STALE_AFTER)).contains(&(NOW as f64 - at)));
    let counted = one("step").is_some_and(|step| step >= 0.0);
    let finite = match source {
        Source::Ratio => one("bad")
            .zip(one("total"))
            .is_some_and(|(bad, total)| bad >= 0.0 && total > 0.0 && bad / total <= 0.01),
        Source::Mean => one("sum").zip(one("count")).zip(one("fell")).is_some_and(|((sum, count), fell)| {
            sum >= 0.0 && count > 0.0 && sum / count <= 0.01 && fell <= 0.0
        }),
        Source::Histogram => {
            let buckets = all("bucket");
            buckets.iter().all(|count| count.is_finite() && *count >= 0.0)
                && buckets.iter().any(|count| *count > 0.0)
        }
        Source::Value => one("value").is_some_and(|value| (-1.0..=0.5).contains(&value)),
        Source::Drift => {
            let buckets = all("keyed");
            buckets.len() >= SCORES.len()
                && buckets.iter().all(|count| count.is_finite())
                && buckets.iter().any(|count| *count >= 100.0)
        }
        Source::Stability => {
            let ranks = all("keyed");
            ranks.len() >= FEATURES.len() && ranks.iter().all(|rank| rank.is_finite())
        }
        Source::Agreement => versus()
            .is_some_and(|(candidate, stable, all)| all >= 100.0 && 1.0 - (candidate - stable) / all >= 0.95),
        Source::Paired => {
            versus().is_some_and(|(won, lost, _)| won + lost < 10.0 || lost / (lost + won) <= 0.6)
        }
    };
    body["status"] == "success"
        && body["data"]["resultType"] == "vector"
        && silent
        && fresh
        && (counted || [Source::Value, Source::Stability].contains(&source))
        && finite
}

fn is_in_order(series: &RawSeries) -> bool {
    series.samples.windows(2).all(|pair| pair[0].0 < pair[1].0)
        && series.histograms.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

#[derive(Debug, Default)]
struct Seen {
    passes: u64,
    breaches: u64,
    holds: u64,
    matrices: u64,
    unread: u64,
}

fn look(seed: u64, seen: &mut Seen) {
    let (source, bytes) = body(seed);
    let shown = || format!("BODY={seed}: {}", String::from_utf8_lossy(&bytes));
    let shape = source.map_or(Shape::Matrix, |_| Shape::Vector);
    // Whatever was asked for may come when something else was.
    let other = if shape == Shape::Vector { Shape::Matrix } else { Shape::Vector };
    let answers = [body::parse(shape, &bytes), body::parse(other, &bytes)];
    seen.unread += u64::from(answers.iter().all(Result::is_err));
    let now = Timestamp::from_second(NOW).unwrap();
    for answer in answers.into_iter().flatten() {
        if let Answer::Matrix(series) = &answer {
            seen.matrices += 1;
            assert!(series.iter().all(is_in_order), "{}", shown());
        }
        for judged in SOURCES {
            let (metric, of) = (judged.metric(), |(name, value): (&str, f64)| (name.to_owned(), value));
            let baseline = match judged {
                Source::Stability => FEATURES.map(of).into(),
                Source::Ratio
                | Source::Mean
                | Source::Histogram
                | Source::Value
                | Source::Drift
                | Source::Agreement
                | Source::Paired => SCORES.map(of).into(),
            };
            let reading = read(&metric, &answer, Some(&baseline), Span::from_secs(STALE_AFTER), now);
            match judge(&metric, &reading, "http://p", "q").0 {
                Verdict::Pass { .. } => {
                    seen.passes += 1;
                    assert!(is_fresh_and_finite(&bytes, judged), "{judged:?} passes {}", shown());
                }
                Verdict::Breach => seen.breaches += 1,
                Verdict::Hold(_, why) => {
                    seen.holds += 1;
                    assert!(why.contains("http://p"), "{why}");
                }
                Verdict::AwaitsLabels(why) => {
                    seen.holds += 1;
                    assert!(judged == Source::Agreement, "{judged:?} {why} {}", shown());
                }
            }
        }
    }
}

#[test]
fn no_body_makes_a_panic_and_none_passes_that_is_not_fresh_and_finite() {
    let mut seen = Seen::default();
    if let Some(seed) = number("BODY") {
        println!("{}", String::from_utf8_lossy(&body(seed).1));
        return look(seed, &mut seen);
    }
    let bodies = number("PROMETHEUS_BODIES").unwrap_or(BODIES);
    for seed in 0..bodies {
        look(seed, &mut seen);
    }
    println!("{bodies} bodies: {seen:?}");
    // A test that reads nothing would pass as well.
    for count in [seen.passes, seen.breaches, seen.holds, seen.matrices, seen.unread] {
        assert!(count > bodies / 50, "{seen:?}");
    }
}
