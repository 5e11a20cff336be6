//! Requests, the counters that serving pods export about them, and the Prometheus that scrapes those.
//!
//! A version's error rate and speed are fixed truths, so the simulation knows what each answer means without reading it.

use std::collections::BTreeMap;

use anneal_core::{
    object::{Key, Kind},
    rollout::{Answer, RawSeries, Series},
};
use anneal_crds::{
    contract::{COMPARED, Differs},
    names,
};
use jiff::{SignedDuration, Timestamp};

use super::{
    manifests::MODEL,
    sim::{NAMESPACE, Sim, Told, Truth, Verdict},
};
use crate::raw::Raw;

/// Requests each second through each route.
const REQUESTS: f64 = 50.0;
/// Largest share of errors that the generated rollouts accept.
pub const MAX_ERRORS: f64 = 0.01;
/// How much later than its request a label comes, in seconds.
pub const LABEL_DELAY: i64 = 15;
/// How many labels a step of the generated rollouts needs.
pub const MIN_LABELS: u32 = 5;
/// How old a sample may be in the generated rollouts, in seconds.
const STALE_AFTER: f64 = 30.0;
/// How far back Prometheus looks for a sample, in seconds.
const LOOKBACK: f64 = 300.0;
/// The most raw samples that Prometheus gives at once, in milliseconds.
const MOST_RAW: i64 = 180_000;

/// What happens to the scrapes and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weather {
    /// All is well.
    #[default]
    Fair,
    /// No answer.
    Unreachable,
    /// An answer without series.
    Empty,
    /// Numbers that are none.
    NotANumber,
    /// One part of the answer is missing.
    Partial,
    /// Nothing is scraped any more.
    NoScrapes,
}

/// What Prometheus knows, by version.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Requests of each version since it first served.
    totals: BTreeMap<String, f64>,
    /// What was scraped of them.
    samples: BTreeMap<String, Vec<Scrape>>,
    /// The requests of each version when its process began anew.
    began: BTreeMap<String, f64>,
    /// What is wrong at present.
    pub weather: Weather,
}

/// What a version had answered at a moment.
#[derive(Clone, Copy, Debug)]
struct Scrape {
    /// In seconds.
    at: f64,
    /// Since it first served.
    total: f64,
    /// Before its process began.
    began: f64,
}

impl Scrape {
    /// What its process counts.
    fn counted(&self) -> f64 {
        self.total - self.began
    }
}

fn instant(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

impl Counters {
    /// The counter at `at`, between samples as if it rose evenly.
    fn at(&self, version: &str, at: f64) -> Option<f64> {
        let samples = self.samples.get(version)?;
        let after = samples.iter().position(|scrape| scrape.at >= at);
        match after {
            None => samples.last().map(|scrape| scrape.total),
            Some(0) => samples.first().map(|scrape| scrape.total),
            Some(place) => {
                let (before, after) = (samples[place - 1], samples[place]);
                let passed = (at - before.at) / (after.at - before.at);
                Some(before.total + (after.total - before.total) * passed)
            }
        }
    }

    fn newest(&self, version: &str, at: f64) -> Option<f64> {
        let samples = self.samples.get(version)?;
        let newest = samples.iter().rev().find(|scrape| scrape.at <= at)?.at;
        (at - newest < LOOKBACK).then_some(newest)
    }

    /// The process of a version begins anew, and its counters at zero.
    pub fn restart(&mut self, version: &str) {
        let total = self.totals.get(version).copied().unwrap_or(0.0);
        self.began.insert(version.to_owned(), total);
    }
}

impl Sim {
    /// Requests are answered for a while, by those whom the data plane sends them to.
    pub fn serve_traffic(&mut self, span: SignedDuration) {
        let requests = REQUESTS * span.as_secs_f64();
        let mut answered: Vec<(String, f64)> = vec![];
        for shares in self.data_plane.routes.values() {
            for (service, per_mille) in &shares.live {
                answered.push((service.clone(), requests * *per_mille as f64 / 1000.0));
            }
            for (service, per_mille) in &shares.mirrored {
                answered.push((service.clone(), requests * *per_mille as f64 / 1000.0));
            }
        }
        for (service, count) in answered {
            if let Some(version) = self.version_behind(&service) {
                *self.counters.totals.entry(version).or_default() += count;
            }
        }
    }

    /// The version whose ready pods a Service finds.
    fn version_behind(&self, service: &str) -> Option<String> {
        self.store.get(&Key::new(Kind::Service, NAMESPACE, service))?;
        if self.leads_nowhere(service) {
            return None;
        }
        let deployment = self.store.get(&Key::new(Kind::Deployment, NAMESPACE, service))?;
        let ready = deployment["status"]["readyReplicas"].as_i64().unwrap_or(0) > 0;
        let version = deployment["metadata"]["labels"][names::LABEL_VERSION].as_str()?;
        ready.then(|| version.to_owned())
    }

    /// Prometheus scrapes all pods.
    pub fn scrape(&mut self) {
        if self.counters.weather == Weather::NoScrapes {
            return;
        }
        let now = instant(self.now);
        let services: Vec<String> =
            self.store.all(Kind::Deployment).map(|(key, _)| key.name.clone()).collect();
        for version in services.iter().filter_map(|service| self.version_behind(service)).collect::<Vec<_>>()
        {
            let total = self.counters.totals.get(&version).copied().unwrap_or(0.0);
            let began = self.counters.began.get(&version).copied().unwrap_or(0.0);
            let samples = self.counters.samples.entry(version).or_default();
            if samples.last().is_none_or(|scrape| scrape.at < now) {
                samples.push(Scrape { at: now, total, began });
            }
        }
    }

    /// Prometheus answers an operator.
    pub fn prometheus_answers(&mut self, caller: usize, expression: &str, at: Timestamp) -> Answer {
        if let Some(raw) = Raw::read(expression, at) {
            return self.prometheus_has(caller, &raw, at);
        }
        let Some(question) = Question::read(expression) else {
            self.broken("queries are understood", format!("no one understands {expression}"));
            return Answer::Vector(vec![]);
        };
        let weather = self.counters.weather;
        let (answer, verdict) = match weather {
            Weather::Fair | Weather::NoScrapes => self.honest(&question, at),
            Weather::Unreachable => (Answer::Unreachable("connection refused".into()), Verdict::Nothing),
            Weather::Empty => (Answer::Vector(vec![]), Verdict::Nothing),
            Weather::NotANumber => {
                (self.spoiled(&question, at, |series| series.value = f64::NAN), Verdict::Nothing)
            }
            Weather::Partial => {
                let (mut answer, _) = self.honest(&question, at);
                if let Answer::Vector(vector) = &mut answer {
                    vector.retain(|series| series.labels.get("anneal_part").is_some_and(|part| part != "at"));
                }
                (answer, Verdict::Nothing)
            }
        };
        self.say(|_| {
            format!(
                "Prometheus tells operator {caller} about {}: {verdict:?} ({weather:?})",
                question.version
            )
        });
        // Who left is asked for no more than how many requests it has.
        if expression.contains("\"step\"") {
            self.callers[caller].walk.told.push(Told { version: question.version, verdict });
        }
        answer
    }

    /// Whether a version has (nearly) all requests, so that nothing can be compared with another one.
    fn is_alone(&self, version: &str) -> bool {
        self.store.all(Kind::ModelRollout).any(|(_, rollout)| {
            let status = &rollout["status"];
            let is_on_trial =
                [&status["stable"], &status["candidate"]].iter().any(|of| of["version"] == version);
            is_on_trial && (status["phase"] == "Baking" || status["weight"].as_f64() > Some(95.0))
        })
    }

    /// Prometheus answers with raw samples.
    fn prometheus_has(&mut self, caller: usize, raw: &Raw, at: Timestamp) -> Answer {
        let weather = self.counters.weather;
        if raw.model != MODEL || raw.namespace != NAMESPACE {
            self.broken("queries are understood", format!("nobody else's series are asked for: {raw:?}"));
        }
        let mut series: Vec<RawSeries> =
            raw.versions.iter().flat_map(|version| self.raw_series(raw, version)).collect();
        let falls = |series: &RawSeries| series.samples.windows(2).any(|pair| pair[1].1 < pair[0].1);
        if series.iter().any(falls) {
            *self.laws.reached.entry("counters that began anew".to_owned()).or_default() += 1;
        }
        let now = instant(at);
        let is_too_much = raw.point_ms.is_none() && raw.until_ms - raw.from_ms > MOST_RAW;
        let newest =
            |version: &String| self.counters.newest(version, now).is_some_and(|at| now - at <= STALE_AFTER);
        // There may be requests and no label yet.
        let is_seen = |version: &String| {
            !are_labels(&raw.selector) || series.iter().any(|series| series.labels["version"] == *version)
        };
        let needed = if self.is_alone(&raw.versions[0]) { &raw.versions[..1] } else { &raw.versions };
        let mut fresh = needed.iter().all(|version| newest(version) && is_seen(version)) && !is_too_much;
        if is_too_much {
            *self.laws.reached.entry("raw samples that are too much".to_owned()).or_default() += 1;
        }
        match weather {
            Weather::Fair | Weather::NoScrapes => {}
            Weather::Unreachable | Weather::Empty => fresh = false,
            Weather::NotANumber => {
                fresh = false;
                series
                    .iter_mut()
                    .flat_map(|series| &mut series.samples)
                    .for_each(|sample| sample.1 = f64::NAN);
            }
            Weather::Partial => {
                // Who has all requests needs no series of the other one.
                let of_needed = |series: &[RawSeries]| {
                    series.iter().filter(|series| needed.contains(&series.labels["version"])).count()
                };
                let before = of_needed(&series);
                series.truncate(series.len() / 2);
                fresh &= of_needed(&series) == before;
            }
        }
        self.say(|_| {
            format!(
                "Prometheus has raw samples for operator {caller}: {} series of {raw:?} ({weather:?})",
                series.len()
            )
        });
        if raw.point_ms.is_none() {
            // A lost tick before now is no loss: what cannot be counted now can be told, and holds.
            let verdict = if fresh { Verdict::Samples } else { Verdict::Nothing };
            self.callers[caller].walk.told.push(Told { version: raw.versions[0].clone(), verdict });
        }
        match weather {
            Weather::Unreachable => Answer::Unreachable("connection refused".into()),
            _ if is_too_much => Answer::TooMuch("it says: too many samples".into()),
            Weather::Empty => Answer::Matrix(vec![]),
            Weather::Fair | Weather::NoScrapes | Weather::NotANumber | Weather::Partial => {
                Answer::Matrix(series)
            }
        }
    }

    fn raw_series(&self, raw: &Raw, version: &str) -> Vec<RawSeries> {
        let Some(truth) = self.truth_of(version) else { return vec![] };
        // There is no such counter before its first label.
        let labelled = |scrape: &Scrape| {
            let count = self.counters.at(version, scrape.at - LABEL_DELAY as f64)?;
            (count >= 1.0).then_some((scrape.at, count))
        };
        let of = |more: Option<(&str, &str)>, share: f64| {
            let labels = [("version", version), ("pod", "only")].into_iter().chain(more);
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let samples = self.counters.samples.get(version).into_iter().flatten();
            let samples = samples.filter_map(|scrape| match are_labels(&raw.selector) {
                true => labelled(scrape),
                false => Some((scrape.at, scrape.counted())),
            });
            let samples =
                samples.map(|(at, count)| ((at * 1000.0).round() as i64, (count.floor() * share).floor()));
            let within = |sample: &(i64, f64)| sample.0 > raw.from_ms && sample.0 <= raw.until_ms;
            RawSeries {
                labels: labels.collect(),
                samples: samples.filter(within).collect(),
                histograms: vec![],
            }
        };
        let fast = if truth.slow { 0.5 } else { 1.0 };
        let series = match raw.selector.as_str() {
            "seconds_bucket" => {
                let buckets = [("0.1", fast), ("0.3", fast), ("1", 1.0), ("+Inf", 1.0)];
                buckets.into_iter().map(|(le, share)| of(Some(("le", le)), share)).collect()
            }
            "requests" | "labels" | COMPARED => vec![of(None, 1.0)],
            selector if selector.starts_with(COMPARED) => vec![
                of(Some(("result", Differs::Candidate.name())), otherwise(truth)),
                of(Some(("result", Differs::Stable.name())), 0.0),
            ],
            "mistakes" => vec![of(None, truth.mistakes)],
            _ => vec![of(None, truth.error_rate)],
        };
        series.into_iter().filter(|series| !series.samples.is_empty()).collect()
    }

    /// Requests that a version answered in a span of time.
    pub fn answered(&self, version: &str, since: Timestamp, until: Timestamp) -> f64 {
        let at = |time| self.counters.at(version, instant(time)).unwrap_or(0.0);
        at(until) - at(since)
    }

    /// The same as far as scrapes were near enough to each other to tell when.
    pub fn told_of(&self, version: &str, since: Timestamp, until: Timestamp) -> f64 {
        let samples = self.counters.samples.get(version).map(Vec::as_slice).unwrap_or_default();
        let within = |at: f64| at > instant(since) && at <= instant(until);
        let near = |pair: &&[Scrape]| within(pair[1].at) && pair[1].at - pair[0].at <= STALE_AFTER;
        // What a process had counted since its last scrape went with it.
        let rose = |pair: &[Scrape]| pair[1].total - pair[0].total.max(pair[1].began);
        samples.windows(2).filter(near).map(rose).sum()
    }

    fn spoiled(&self, question: &Question, at: Timestamp, spoil: impl Fn(&mut Series)) -> Answer {
        let (mut answer, _) = self.honest(question, at);
        if let Answer::Vector(vector) = &mut answer {
            vector.iter_mut().for_each(spoil);
        }
        answer
    }

    /// What Prometheus would say in fair weather, and what that means.
    fn honest(&self, question: &Question, at: Timestamp) -> (Answer, Verdict) {
        let now = instant(at);
        let version = &question.version;
        let (Some(newest), Some(truth)) = (self.counters.newest(version, now), self.truth_of(version)) else {
            return (Answer::Vector(vec![]), Verdict::Nothing);
        };
        let late = if question.labels { LABEL_DELAY as f64 } else { 0.0 };
        let increase = |span: f64| {
            let until = now - late;
            let (end, start) = (self.counters.at(version, until), self.counters.at(version, until - span));
            (end.unwrap_or(0.0) - start.unwrap_or(0.0)).max(0.0)
        };
        let (window, step) = (increase(question.window), increase(question.elapsed));
        let mut vector = vec![series("step", None, step), series("at", None, newest)];
        if question.histogram {
            let fast = if truth.slow { window * 0.5 } else { window };
            vector.push(series("bucket", Some("0.1"), fast));
            vector.push(series("bucket", Some("0.3"), fast));
            vector.push(series("bucket", Some("1"), window));
            vector.push(series("bucket", Some("+Inf"), window));
        } else if question.compared {
            vector.push(series("candidate", None, window * otherwise(truth)));
            vector.push(series("stable", None, 0.0));
            vector.push(series("total", None, window));
        } else {
            vector.push(series("bad", None, window * truth.error_rate));
            vector.push(series("total", None, window));
        }
        for (part, version, span) in &question.shares {
            let requests = |at| self.counters.at(version, at);
            let asked = requests(now).map(|count| (count - requests(now - span).unwrap_or(0.0)).max(0.0));
            vector.extend(asked.map(|asked| series(part, None, asked)));
        }
        let fine = if question.histogram { !truth.slow } else { truth.error_rate <= MAX_ERRORS };
        let verdict = match (window > 0.0 && now - newest <= STALE_AFTER, fine) {
            (false, _) => Verdict::Nothing,
            (true, true) if question.labels => Verdict::Labels(step),
            (true, true) => Verdict::Pass(step),
            (true, false) => Verdict::Breach,
        };
        (Answer::Vector(vector), verdict)
    }

    /// The truth about the model that a version's pods serve.
    pub fn truth_of(&self, version: &str) -> Option<&Truth> {
        let serves = |(_, deployment): &(&Key, &serde_json::Value)| {
            deployment["metadata"]["labels"][names::LABEL_VERSION] == version
        };
        let (_, deployment) = self.store.all(Kind::Deployment).find(serves)?;
        self.truth.get(&self.digest_of(deployment)?)
    }
}

/// Share of requests in which a version answers otherwise than the stable one: what fails more often is another model.
fn otherwise(truth: &Truth) -> f64 {
    if truth.error_rate <= MAX_ERRORS { 0.0 } else { 0.3 }
}

/// Whether a counter counts labels of requests, and not requests.
fn are_labels(selector: &str) -> bool {
    ["labels", "wrong"].contains(&selector)
}

fn series(part: &str, le: Option<&str>, value: f64) -> Series {
    let mut labels = BTreeMap::from([("anneal_part".to_owned(), part.to_owned())]);
    labels.extend(le.map(|le| ("le".to_owned(), le.to_owned())));
    Series { labels, value }
}

/// The version that the first selector of an expression names.
fn named(expression: &str) -> Option<String> {
    let (_, version) = expression.split_once("version=\"")?;
    Some(version.split_once('"')?.0.to_owned())
}

/// What a part of an expression is called that counts nothing but requests, whose they are, and over how many seconds.
fn share(part: &str) -> Option<(String, String, f64)> {
    let (counted, name) = part.split_once(", \"anneal_part\", \"")?;
    let (name, _) = name.split_once('"')?;
    let version = named(counted)?;
    let (_, range) = counted.split_once('[')?;
    let counts = ["own", "rest", &version].contains(&name);
    counts.then_some(())?;
    Some((name.to_owned(), version, range.split_once("s]")?.0.parse().ok()?))
}

/// What an expression asks for.
#[derive(Clone, Debug, PartialEq)]
struct Question {
    version: String,
    histogram: bool,
    labels: bool,
    compared: bool,
    window: f64,
    elapsed: f64,
    /// Parts that count the requests of a version over so many seconds.
    shares: Vec<(String, String, f64)>,
}

impl Question {
    fn read(expression: &str) -> Option<Self> {
        let between = |start: &str, end: &str| {
            let (_, rest) = expression.split_once(start)?;
            Some(rest.split_once(end)?.0.to_owned())
        };
        let ranges: Vec<&str> =
            expression.split('[').skip(1).filter_map(|rest| Some(rest.split_once(']')?.0)).collect();
        let seconds = ranges
            .iter()
            .filter(|range| !range.ends_with("ms"))
            .find_map(|range| range.strip_suffix('s')?.parse::<f64>().ok())?;
        // Who left is asked for nothing but its requests.
        let millis = ranges.iter().find_map(|range| range.strip_suffix("ms"));
        let millis = millis.map_or(Some(1000.0 * seconds), |millis| millis.parse::<f64>().ok())?;
        // Versions are numbered for each model, and namespaces know nothing of each other.
        let ours = between("model=\"", "\"")? == MODEL && between("namespace=\"", "\"")? == NAMESPACE;
        ours.then_some(())?;
        Some(Self {
            version: named(expression)?,
            histogram: expression.contains("sum by (le)"),
            labels: expression.contains("labels{"),
            compared: expression.contains(COMPARED),
            window: millis / 1000.0,
            elapsed: seconds,
            shares: expression.split("label_replace(").filter_map(share).collect(),
        })
    }
}
