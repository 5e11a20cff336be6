//! Baselines: what drift and stability were in the first days of a bake, which later days are compared with.
//!
//! `query` asks for a baseline once, when its days are over; `step` records it in the status, and `reading` compares with it.
//! So a comparison needs no samples that are older than the bake, and each tick reads its window alone.

use std::collections::BTreeMap;

use anneal_crds::{
    ModelRollout, ModelRolloutSpec, ModelRolloutStatus, Span,
    metric::{Form, Metric},
    model_rollout::{Baseline, RolloutPhase},
};
use jiff::Timestamp;

use super::{
    draft::Draft,
    expression::{self, KEY, KEYED},
    query::Question,
    reading::{self, Answer, Reading, Series},
    scope::Scope,
};
use crate::{
    object::short_digest,
    statistics::{jensen_shannon, spearman},
};

/// A number for each bucket or thing.
pub(super) type Values = BTreeMap<String, f64>;

/// Most buckets or things of all metrics together, and most bytes of the name of one: they are kept in the status, which
/// must stay small.
const MAX_VALUES: usize = 48;
const MAX_NAME: usize = 48;

/// What is known of a metric's baseline.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage<'a> {
    /// It needs none.
    NotNeeded,
    /// There is no bake that it could be measured in.
    NoBake,
    /// Its days are not over before this.
    Gathering(Timestamp),
    /// It can be asked for; its days ended here.
    Due(Timestamp),
    /// It is recorded.
    Taken(&'a Values),
}

/// How a metric's baseline stands in `status`.
pub(super) fn stage<'a>(
    rollout: &ModelRollout,
    status: &'a ModelRolloutStatus,
    metric: &Metric,
    now: Timestamp,
) -> Stage<'a> {
    let Some(length) = length(metric) else { return Stage::NotNeeded };
    let began = status.step_started_at.as_ref().filter(|_| status.phase == RolloutPhase::Baking);
    let Some(began) = began else { return Stage::NoBake };
    let of = fingerprint(metric);
    if let Some(taken) = status.baselines.iter().find(|taken| taken.metric == metric.name && taken.of == of) {
        return Stage::Taken(&taken.values);
    }
    let until = began.0.saturating_add(length.get()).unwrap_or(Timestamp::MAX);
    // The last samples may take their time on the way.
    let due = until.saturating_add(rollout.spec.prometheus.stale_after.get()).unwrap_or(Timestamp::MAX);
    if now < due { Stage::Gathering(until) } else { Stage::Due(until) }
}

fn length(metric: &Metric) -> Option<Span> {
    match metric.source.form() {
        Form::Drift(drift) => Some(drift.baseline),
        Form::Stability(stability) => Some(stability.baseline),
        Form::Ratio(_)
        | Form::Mean(_)
        | Form::Histogram(_)
        | Form::Value(_)
        | Form::Agreement(_)
        | Form::Paired(_) => None,
    }
}

fn fingerprint(metric: &Metric) -> String {
    // A metric has nothing that JSON cannot say. Its bounds are no part of what was measured, and cost a new measurement.
    let text = serde_json::to_string(&metric.source).unwrap_or_default();
    short_digest(&text)
}

/// Why the bake is too short for `metric`, if it is: after the baseline a whole window must fit.
pub(super) fn too_short(spec: &ModelRolloutSpec, metric: &Metric) -> Option<String> {
    let (bake, baseline) = (spec.strategy.bake.as_ref()?.duration, length(metric)?);
    let late = spec.prometheus.stale_after.get();
    let needed = baseline.get().saturating_add(metric.window.get()).saturating_add(late);
    (bake.get() < needed).then(|| {
        format!(
            "a bake of {bake} has no room for its baseline of {baseline}, prometheus.staleAfter and its window of {} after them",
            metric.window
        )
    })
}

/// What a baseline is whose days ended at `until`.
pub(super) fn expression(metric: &Metric, scope: &Scope, until: Timestamp) -> Option<String> {
    let range = format!("{}ms", length(metric)?.as_millis());
    expression::keyed(metric, scope, &range, &format!(" @ {}", until.as_second()))
}

/// The numbers that an answer has for `metric`, by their keys; else why they are none.
pub(super) fn values(metric: &Metric, vector: &[Series]) -> Result<Values, Reading> {
    let mut values = Values::new();
    for series in reading::of_part(vector, KEYED) {
        let name = name(metric, series).ok_or_else(|| {
            malformed(&format!(
                "a series does not say what it is of, or with a name of more than {MAX_NAME} bytes"
            ))
        })?;
        if !series.value.is_finite() {
            return Err(Reading::NotFinite);
        }
        // Exporters write one bound in two ways, `1` and `1.0`: each way counts other pods.
        *values.entry(name).or_insert(0.0) += series.value;
    }
    match values.len() {
        0 => Err(Reading::Empty),
        1..=MAX_VALUES => Ok(values),
        more => Err(malformed(&format!("{more} buckets or ranks, and {MAX_VALUES} are the most"))),
    }
}

fn name(metric: &Metric, series: &Series) -> Option<String> {
    match metric.source.form() {
        Form::Drift(_) => {
            let bound: f64 = series.labels.get("le")?.parse().ok()?;
            (!bound.is_nan()).then(|| bound.to_string())
        }
        Form::Stability(_) => {
            series.labels.get(KEY).filter(|name| (1..=MAX_NAME).contains(&name.len())).cloned()
        }
        Form::Ratio(_)
        | Form::Mean(_)
        | Form::Histogram(_)
        | Form::Value(_)
        | Form::Agreement(_)
        | Form::Paired(_) => None,
    }
}

fn malformed(why: &str) -> Reading {
    Reading::Malformed(why.to_owned())
}

/// How far the values of this window are from those of the baseline; else why that cannot be said.
pub(super) fn compare(metric: &Metric, window: &Values, baseline: &Values) -> Result<f64, Reading> {
    if !window.keys().eq(baseline.keys()) {
        return Err(malformed(
            "its buckets or ranks are not those of its baseline; give the metric another name to measure it anew",
        ));
    }
    match metric.source.form() {
        Form::Drift(drift) => {
            let (window, baseline) = (bins(window), bins(baseline));
            let few = |bins: &[f64]| bins.iter().sum::<f64>() < f64::from(drift.min_events);
            if few(&window) || few(&baseline) {
                return Err(Reading::Few(drift.min_events));
            }
            jensen_shannon(&window, &baseline).ok_or(Reading::NotFinite)
        }
        Form::Stability(_) => {
            let list = |values: &Values| values.values().copied().collect::<Vec<_>>();
            let equal = "it needs three ranks or more that are not all equal";
            spearman(&list(window), &list(baseline)).ok_or_else(|| malformed(equal))
        }
        Form::Ratio(_)
        | Form::Mean(_)
        | Form::Histogram(_)
        | Form::Value(_)
        | Form::Agreement(_)
        | Form::Paired(_) => Err(malformed("it has no baseline")),
    }
}

/// What each bucket counts alone.
fn bins(cumulative: &Values) -> Vec<f64> {
    let mut buckets: Vec<(f64, f64)> =
        cumulative.iter().filter_map(|(bound, count)| Some((bound.parse().ok()?, *count))).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let below = std::iter::once(0.0).chain(buckets.iter().map(|bucket| bucket.1));
    // `increase` extrapolates, so the parts of one whole may disagree in the last digits.
    buckets.iter().zip(below).map(|(bucket, below)| (bucket.1 - below).max(0.0)).collect()
}

impl Draft<'_> {
    /// Records the baselines whose days are over, as far as they were answered.
    pub(super) fn take_baselines(&mut self) {
        let metrics = &self.rollout.spec.metrics;
        self.status.baselines.retain(|known| metrics.iter().any(|metric| metric.name == known.metric));
        for metric in metrics {
            let Stage::Due(_) = stage(self.rollout, &self.status, metric, self.snapshot.now) else {
                continue;
            };
            if let Ok(values) = self.measured(metric) {
                self.status.baselines.retain(|known| known.metric != metric.name);
                let (metric, of) = (metric.name.clone(), fingerprint(metric));
                self.status.baselines.push(Baseline { metric, of, values });
            }
        }
    }

    /// What the first days were, if that is good enough to be compared with; else what is wrong with it.
    pub(super) fn measured(&self, metric: &Metric) -> Result<Values, Reading> {
        let values = match self.snapshot.answers.get(&(metric.name.clone(), Question::Baseline)) {
            Some(Answer::Vector(vector)) => values(metric, vector)?,
            Some(Answer::Unreachable(why) | Answer::TooMuch(why)) => {
                return Err(Reading::Unreachable(why.clone()));
            }
            Some(Answer::Matrix(_)) | None => return Err(Reading::Empty),
        };
        // Whatever cannot be compared with itself cannot be compared with anything.
        compare(metric, &values, &values)?;
        let others = self.status.baselines.iter().filter(|known| known.metric != metric.name);
        let all = others.map(|known| known.values.len()).sum::<usize>().saturating_add(values.len());
        if all > MAX_VALUES {
            let why = format!(
                "the baselines of all metrics have {all} buckets and ranks, and {MAX_VALUES} are the most"
            );
            return Err(malformed(&why));
        }
        Ok(values)
    }
}
