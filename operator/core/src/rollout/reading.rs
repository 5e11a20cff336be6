//! Readings: what Prometheus answered, and what that means for one metric.
//!
//! Anything but fresh, finite numbers is no reading, and no reading is ever a pass.

use std::collections::{BTreeMap, BTreeSet};

use anneal_crds::{
    Span,
    common::shorten,
    metric::{Form, MeanBound, Metric, MissingClass, Source},
    model_rollout::RecordedReading,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    baseline::{self, Values},
    expression::{BUCKET, KEY, KEYED, PART},
    query::without_ranges,
    samples::RawSeries,
};

/// One sample of an instant vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// What came back for one query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// An instant vector.
    Vector(Vec<Series>),
    /// Raw samples.
    Matrix(Vec<RawSeries>),
    /// No answer, and why, in words that name the server and the query.
    Unreachable(String),
    /// The server did not give raw samples, and may give fewer of them; in the same words.
    TooMuch(String),
}

/// What one metric says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reading {
    /// A fresh, finite value, made of this many requests since the step began.
    Value {
        /// A share from 0 to 1, seconds, or what a user's expression says.
        value: f64,
        /// Requests since the step began; none of what does not count any.
        step_requests: Option<f64>,
    },
    /// No such series, or no requests in the window.
    Empty,
    /// The newest sample is this old.
    Stale(SignedDuration),
    /// Fewer events than this in the window or in the baseline.
    Few(u32),
    /// Fewer answers were compared than the least that say anything, which this is.
    Sparse(u32),
    /// A number that is not finite or cannot be.
    NotFinite,
    /// Numbers of which it is not clear what they say, and why.
    Malformed(String),
    /// The quantile lies above the histogram's highest bucket.
    AboveBuckets,
    /// Prometheus did not answer, and why.
    Unreachable(String),
}

/// A reading compared with its bound.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Within bounds.
    Pass {
        /// Requests since the step began; none of what does not count any.
        step_requests: Option<f64>,
    },
    /// Out of bounds.
    Breach,
    /// Nothing to compare, and why.
    Hold(MissingClass, String),
    /// Nothing speaks against it and nothing is missing, but its labels are not all there yet; what it waits for.
    AwaitsLabels(String),
}

impl Verdict {
    /// The same, where nothing was said about the metric but about something else of it.
    pub(super) fn about(self, what: &str) -> Self {
        match self {
            Self::Hold(class, why) => Self::Hold(class, format!("{what}: {why}")),
            Self::Pass { .. } | Self::Breach | Self::AwaitsLabels(_) => self,
        }
    }
}

/// Most of a query that is recorded and told, in bytes: a status must stay small, however long selectors are.
pub(super) const MAX_QUERY: usize = 300;
/// Answers that an agreement needs.
const FEWEST_COMPARED: u32 = 100;
/// Labels by which one version alone was right that a share of them needs.
const FEWEST_DISCORDANT: f64 = 10.0;
/// Milliseconds by which a sample may be newer than the question: clocks are read and rounded in two places.
pub(super) const CLOCK_TOLERANCE_MS: i64 = 1000;

/// What `answer` says about `metric` at `now`, beside its baseline if it has one.
pub fn read(
    metric: &Metric,
    answer: &Answer,
    baseline: Option<&Values>,
    stale_after: Span,
    now: Timestamp,
) -> Reading {
    let vector = match answer {
        Answer::Unreachable(why) | Answer::TooMuch(why) => return Reading::Unreachable(why.clone()),
        Answer::Matrix(_) => return Reading::Malformed("raw samples instead of numbers".to_owned()),
        Answer::Vector(vector) => vector,
    };
    if let Some(name) = repeated(vector) {
        return Reading::Malformed(format!("`{name}` was answered more than once"));
    }
    let (Some(sampled_at), step_requests) = (part(vector, "at"), part(vector, "step")) else {
        return Reading::Empty;
    };
    if step_requests.is_none() && counts_requests(&metric.source) {
        return Reading::Empty;
    }
    let age = now.as_millisecond() as f64 / 1000.0 - sampled_at;
    let tolerance = CLOCK_TOLERANCE_MS as f64 / 1000.0;
    // A sample of the future was not scraped, and would stay fresh for ever.
    let is_count = |requests: f64| requests.is_finite() && requests >= 0.0;
    if !age.is_finite() || age < -tolerance || !step_requests.is_none_or(is_count) {
        return Reading::NotFinite;
    }
    if age > stale_after.as_secs_f64() {
        return Reading::Stale(SignedDuration::try_from_secs_f64(age).unwrap_or(SignedDuration::MAX));
    }
    let value = match metric.source.form() {
        Form::Ratio(_) => share(vector),
        Form::Agreement(_) => agreement(vector),
        Form::Paired(_) => lost(vector),
        Form::Mean(_) => mean(vector),
        Form::Histogram(histogram) => {
            quantile(vector, histogram.quantile).map(|value| value / histogram.unit.per_second())
        }
        Form::Value(_) => part(vector, "value").ok_or(Reading::Empty),
        Form::Drift(_) | Form::Stability(_) => baseline
            .ok_or_else(|| Reading::Malformed("it is compared with its baseline, and has none".to_owned()))
            .and_then(|baseline| baseline::compare(metric, &baseline::values(metric, vector)?, baseline)),
    };
    match value {
        Ok(value) if value.is_finite() => Reading::Value { value, step_requests },
        Ok(_) => Reading::NotFinite,
        Err(reading) => reading,
    }
}

fn counts_requests(source: &Source) -> bool {
    match source.form() {
        Form::Ratio(_)
        | Form::Mean(_)
        | Form::Histogram(_)
        | Form::Drift(_)
        | Form::Agreement(_)
        | Form::Paired(_) => true,
        Form::Value(value) => value.requests.is_some(),
        Form::Stability(_) => false,
    }
}

/// A part, or a bucket of a histogram, that the answer has twice: which of the two is meant, nobody can tell.
fn repeated(vector: &[Series]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    let mut names = vector.iter().filter_map(|series| {
        let label = |name: &str| series.labels.get(name).map(String::as_str);
        let part = label(PART)?;
        // Only these have a number for each of something.
        let of = if [BUCKET, KEYED].contains(&part) { (label("le"), label(KEY)) } else { (None, None) };
        Some((part, of))
    });
    names.find(|name| !seen.insert(*name)).map(|(part, ..)| part)
}

/// The series of one part of an answer.
pub(super) fn of_part<'s>(vector: &'s [Series], name: &str) -> impl Iterator<Item = &'s Series> {
    vector.iter().filter(move |series| series.labels.get(PART).is_some_and(|part| part == name))
}

/// The number of one part of an answer.
pub(super) fn part(vector: &[Series], name: &str) -> Option<f64> {
    of_part(vector, name).next().map(|series| series.value)
}

fn share(vector: &[Series]) -> Result<f64, Reading> {
    let (Some(bad), Some(total)) = (part(vector, "bad"), part(vector, "total")) else {
        return Err(Reading::Empty);
    };
    if !bad.is_finite() || !total.is_finite() || bad < 0.0 || total < 0.0 {
        return Err(Reading::NotFinite);
    }
    if total == 0.0 {
        return Err(Reading::Empty);
    }
    // `increase` extrapolates, so the parts of one whole may disagree in the last digits.
    Ok((bad / total).min(1.0))
}

/// How often the version in shadow agrees with the stable one, as often as that agrees with itself being 1.
fn agreement(vector: &[Series]) -> Result<f64, Reading> {
    let (candidate, stable, all) = versus(vector)?;
    if all < f64::from(FEWEST_COMPARED) {
        return Err(Reading::Sparse(FEWEST_COMPARED));
    }
    Ok(1.0 - (candidate - stable) / all)
}

/// Of the labels by which one version alone was right, the share by which the stable one was. Too few say nothing of either.
fn lost(vector: &[Series]) -> Result<f64, Reading> {
    let (won, lost, _) = versus(vector)?;
    Ok(if lost + won < FEWEST_DISCORDANT { 0.0 } else { lost / (lost + won) })
}

/// Counts of the candidate alone, of the stable version alone, and of all.
fn versus(vector: &[Series]) -> Result<(f64, f64, f64), Reading> {
    let (Some(candidate), Some(stable), Some(all)) =
        (part(vector, "candidate"), part(vector, "stable"), part(vector, "total"))
    else {
        return Err(Reading::Empty);
    };
    if [candidate, stable, all].iter().any(|count| !count.is_finite() || *count < 0.0) {
        return Err(Reading::NotFinite);
    }
    if all == 0.0 { Err(Reading::Empty) } else { Ok((candidate, stable, all)) }
}

/// The mean of the values in the window.
fn mean(vector: &[Series]) -> Result<f64, Reading> {
    let (Some(sum), Some(count), Some(fell)) =
        (part(vector, "sum"), part(vector, "count"), part(vector, "fell"))
    else {
        return Err(Reading::Empty);
    };
    if !sum.is_finite() || !count.is_finite() || !fell.is_finite() || sum < 0.0 || count < 0.0 {
        return Err(Reading::NotFinite);
    }
    if fell > 0.0 {
        let why = "its sum fell while its count did not: where it is compared with its bound alone, no value may be below zero";
        return Err(Reading::Malformed(why.to_owned()));
    }
    if count == 0.0 {
        return Err(Reading::Empty);
    }
    Ok(sum / count)
}

/// The quantile of a classic histogram, linear within its bucket as `histogram_quantile` has it.
fn quantile(vector: &[Series], quantile: f64) -> Result<f64, Reading> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for series in of_part(vector, BUCKET) {
        let bound: f64 = series.labels.get("le").and_then(|le| le.parse().ok()).ok_or(Reading::NotFinite)?;
        if !series.value.is_finite() || series.value < 0.0 || bound.is_nan() {
            return Err(Reading::NotFinite);
        }
        buckets.push((bound, series.value));
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Exporters write one bound in two ways, `1` and `1.0`: each way counts other pods.
    buckets.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        kept.1 += if same { next.1 } else { 0.0 };
        same
    });
    if buckets.iter().any(|(_, count)| !count.is_finite()) {
        return Err(Reading::NotFinite);
    }
    let Some(&(last, count)) = buckets.last() else { return Err(Reading::Empty) };
    if last != f64::INFINITY || count <= 0.0 {
        return Err(Reading::Empty);
    }
    let rank = quantile * count;
    let (mut below, mut lower) = (0.0, 0.0_f64);
    for (bound, cumulative) in buckets {
        if cumulative >= rank && bound == f64::INFINITY {
            return Err(Reading::AboveBuckets);
        }
        if cumulative >= rank {
            let within = cumulative - below;
            let share = if within > 0.0 { (rank - below) / within } else { 1.0 };
            return Ok(lower + (bound - lower) * share);
        }
        (below, lower) = (cumulative.max(below), bound);
    }
    Err(Reading::AboveBuckets)
}

/// The verdict on a reading of `query` by `server`, and the record of it.
pub fn judge(metric: &Metric, reading: &Reading, server: &str, query: &str) -> (Verdict, RecordedReading) {
    let (bound, within): (String, fn(&Source, f64) -> bool) = (bound(&metric.source), within);
    let asked = asked(metric, query);
    let asked = shorten(&asked, MAX_QUERY);
    let query = shorten(query, MAX_QUERY);
    let hold = |class, why: &str| Verdict::Hold(class, format!("{why} ({server}: {asked})"));
    let (verdict, shown) = match reading {
        Reading::Value { value, step_requests } if within(&metric.source, *value) => {
            (Verdict::Pass { step_requests: *step_requests }, show(&metric.source, *value))
        }
        Reading::Value { value, .. } => (Verdict::Breach, show(&metric.source, *value)),
        Reading::AboveBuckets => (Verdict::Breach, "above the highest bucket".to_owned()),
        Reading::Empty => (hold(MissingClass::NoData, "no data for this version"), "no data".to_owned()),
        Reading::Stale(age) => (
            hold(MissingClass::Stale, "the newest sample is too old"),
            format!("newest sample is {}s old", age.as_secs()),
        ),
        Reading::Few(least) => (
            hold(MissingClass::NoData, &format!("fewer than {least} events in its window or its baseline")),
            "too few events".to_owned(),
        ),
        Reading::Sparse(least) => (
            Verdict::AwaitsLabels(format!(
                "{} needs {least} compared answers in its window of {}",
                metric.name, metric.window
            )),
            "too few answers".to_owned(),
        ),
        Reading::NotFinite => {
            (hold(MissingClass::Error, "not a finite number"), "not a finite number".to_owned())
        }
        Reading::Malformed(why) => (hold(MissingClass::Error, why), "not understood".to_owned()),
        Reading::Unreachable(why) => {
            // The adapter's words name server and query already.
            (
                Verdict::Hold(MissingClass::Error, format!("Prometheus did not answer: {why}")),
                "no answer".to_owned(),
            )
        }
    };
    let record = RecordedReading {
        metric: metric.name.clone(),
        verdict: name(&verdict).to_owned(),
        value: shown,
        bound,
        query: query.into_owned(),
    };
    (verdict, record)
}

/// What was asked, in a message: without anything that changes from look to look.
fn asked(metric: &Metric, query: &str) -> String {
    match metric.source.form() {
        Form::Value(value) => value.expression.clone(),
        Form::Ratio(_)
        | Form::Mean(_)
        | Form::Histogram(_)
        | Form::Drift(_)
        | Form::Stability(_)
        | Form::Agreement(_)
        | Form::Paired(_) => without_ranges(query),
    }
}

/// How a status calls a verdict that nothing is wrong.
pub(super) const PASS: &str = "Pass";

/// As status writes it.
pub(super) const fn name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pass { .. } => PASS,
        Verdict::Breach => "Breach",
        Verdict::Hold(class, _) => class.name(),
        Verdict::AwaitsLabels(_) => "AwaitingLabels",
    }
}

/// The verdict on a metric whose baseline is measured until then: there is nothing yet that it could be compared with, and
/// that is as it should be.
pub(super) fn gathering(metric: &Metric, until: Timestamp) -> (Verdict, RecordedReading) {
    let record = RecordedReading {
        metric: metric.name.clone(),
        verdict: PASS.to_owned(),
        value: format!("its baseline is measured until {until}"),
        bound: bound(&metric.source),
        query: String::new(),
    };
    (Verdict::Pass { step_requests: None }, record)
}

/// The verdict on a trigger that no metric defines.
pub(super) fn undefined(trigger: &str) -> (Verdict, RecordedReading) {
    let record = RecordedReading {
        metric: trigger.to_owned(),
        verdict: MissingClass::Error.name().to_owned(),
        value: "not defined".to_owned(),
        bound: String::new(),
        query: String::new(),
    };
    (Verdict::Hold(MissingClass::Error, "spec.metrics does not define it".into()), record)
}

fn within(source: &Source, value: f64) -> bool {
    match source.form() {
        Form::Ratio(ratio) => is_between(value, ratio.min, ratio.max),
        Form::Mean(mean) => match mean.bound {
            MeanBound::Max(max) => value <= max,
            MeanBound::Min(min) => value >= min,
        },
        Form::Value(bounds) => is_between(value, bounds.min, bounds.max),
        Form::Histogram(histogram) => value <= histogram.max.as_secs_f64(),
        Form::Drift(drift) => value <= drift.max,
        Form::Stability(stability) => value >= stability.min,
        Form::Agreement(agreement) => value >= agreement.min,
        Form::Paired(paired) => value <= paired.max(),
    }
}

fn is_between(value: f64, min: Option<f64>, max: Option<f64>) -> bool {
    min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max)
}

/// What a value is compared with, such as `<= 0.01`.
pub(super) fn bound(source: &Source) -> String {
    let (min, max) = match source.form() {
        Form::Ratio(ratio) => (ratio.min, ratio.max),
        Form::Mean(mean) => match mean.bound {
            MeanBound::Max(max) => (None, Some(max)),
            MeanBound::Min(min) => (Some(min), None),
        },
        Form::Value(value) => (value.min, value.max),
        Form::Histogram(histogram) => return format!("<= {}", histogram.max),
        Form::Drift(drift) => return format!("<= {} bits", drift.max),
        Form::Stability(stability) => (Some(stability.min), None),
        Form::Agreement(agreement) => (Some(agreement.min), None),
        Form::Paired(paired) => (None, Some(paired.max())),
    };
    match (min, max) {
        (Some(min), Some(max)) => format!(">= {min} and <= {max}"),
        (Some(min), None) => format!(">= {min}"),
        (None, Some(max)) => format!("<= {max}"),
        (None, None) => "no bound".to_owned(),
    }
}

fn show(source: &Source, value: f64) -> String {
    match source.form() {
        // Enough digits to tell a breach from its bound.
        Form::Ratio(_)
        | Form::Mean(_)
        | Form::Value(_)
        | Form::Drift(_)
        | Form::Stability(_)
        | Form::Agreement(_)
        | Form::Paired(_) => significant(value),
        Form::Histogram(_) => format!("{}ms", significant(value * 1000.0)),
    }
}

/// Two significant digits: they change rarely.
pub(super) fn two_digits(value: f64) -> String {
    digits(value, 2)
}

/// Six significant digits without trailing zeros.
fn significant(value: f64) -> String {
    trimmed(value, 6)
}

/// Four significant digits without trailing zeros, for means that lie close together.
pub(super) fn four_digits(value: f64) -> String {
    trimmed(value, 4)
}

fn trimmed(value: f64, significant: u8) -> String {
    let text = digits(value, significant);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// So many significant digits, and at most twelve decimals.
fn digits(value: f64, significant: u8) -> String {
    let magnitude = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let decimals = (f64::from(significant) - 1.0 - magnitude).clamp(0.0, 12.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests;
