//! Latencies of a world in both forms of histogram. Used by the tables of `evidence: sequential` and by bodies that no server should send.

use anneal_core::rollout::{Answer, Boundary, NativeBucket, NativeHistogram, Query, RawSeries};
use anneal_tests::raw::Raw;
use serde_json::json;

use super::arms::World;

/// A canary with a latency, whose versions answer in 200 ms, and `slow` of 100 in 800 ms, as a histogram of one of the forms.
pub fn latency(max: &str, slow: i64) -> World {
    let mut world = World::new([(80, 200), (20, 200)], json!({}));
    let metric = json!({"name": "error_rate", "window": "40s", "interval": "1s",
        "histogram": {"selector": "seconds_bucket", "quantile": 0.95, "max": max}});
    world.case.rollout.spec.metrics = vec![serde_json::from_value(metric).unwrap()];
    world.traffic[0].1 = [(80, i64::MAX), (20, if slow == 0 { i64::MAX } else { 100 / slow })];
    world
}

pub fn classic(world: &World, query: &Query) -> Answer {
    let raw = Raw::read(&query.expression, world.case.now).unwrap();
    let versions = raw.versions.iter();
    let series = versions.flat_map(|version| {
        ["0.1", "0.25", "0.5", "1", "+Inf"].into_iter().map(|le| {
            let labels = [("version", version.as_str()), ("pod", "p"), ("le", le)];
            let samples = (raw.from_ms.div_euclid(1000) + 1..=raw.until_ms.div_euclid(1000)).map(|second| {
                let (all, slow) = world.counted(usize::from(version.ends_with('2')), second);
                let count = match le {
                    "0.1" => 0,
                    "0.25" | "0.5" => all - slow,
                    _ => all,
                };
                (second * 1000, count as f64)
            });
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            RawSeries { labels, samples: samples.collect(), histograms: vec![] }
        })
    });
    Answer::Matrix(series.collect())
}

/// The same with buckets that end at powers of 2^(1/8), as a native histogram of schema 3.
pub fn native(world: &World, query: &Query) -> Answer {
    let raw = Raw::read(&query.expression, world.case.now).unwrap();
    let series = raw.versions.iter().map(|version| {
        let bucket = |value: f64, count: i64| {
            let index = (value.log2() * 8.0).ceil();
            let bound = |index: f64| (index / 8.0).exp2();
            NativeBucket {
                boundary: Boundary::OpenLeft,
                lower: bound(index - 1.0),
                upper: bound(index),
                count: count as f64,
            }
        };
        let histograms = (raw.from_ms.div_euclid(1000) + 1..=raw.until_ms.div_euclid(1000)).map(|second| {
            let (all, slow) = world.counted(usize::from(version.ends_with('2')), second);
            let mut buckets = vec![bucket(0.2, all - slow), bucket(0.8, slow)];
            buckets.retain(|bucket| bucket.count > 0.0);
            (second * 1000, NativeHistogram { count: all as f64, sum: 0.0, buckets })
        });
        let labels = [("version", version.as_str()), ("pod", "p")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        RawSeries { labels, samples: vec![], histograms: histograms.collect() }
    });
    Answer::Matrix(series.collect())
}

/// A form of histogram.
pub type Form = fn(&World, &Query) -> Answer;
