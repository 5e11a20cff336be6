//! Chance: how often a plain threshold takes back a version that is well, at the requests that there are.
//!
//! Called by `step` for `evidence: none`. A share of few requests varies by itself, and a threshold does not know that: whoever sets
//! one is told once a step. With `evidence: sequential` the judge knows, and says what it can see.

use anneal_crds::{
    metric::{Form, Metric},
    model_rollout::RolloutPhase,
};

use super::{
    draft::Draft,
    expression::{BUCKET, PART},
    query::Question,
    reading::{Answer, two_digits},
    sequential::DETECTABILITY,
    steps,
};
use crate::condition::Truth;

/// Reason of the condition.
const CHANCE_BREACHES: &str = "ChanceBreaches";
/// A chance at one look that nobody needs to know of.
const RARE: f64 = 0.001;
/// So many bad events vary too little to be twice as many.
const SURE: f64 = 200.0;

impl Draft<'_> {
    /// Tells of the first trigger whose bound chance alone would break now and then.
    pub(super) fn tell_chance(&mut self) {
        let told = self.told_before(DETECTABILITY).is_some_and(|told| told.reason == CHANCE_BREACHES);
        if told || self.status.phase == RolloutPhase::Experiment {
            return;
        }
        let triggers = steps::triggers(&self.rollout.spec, &self.status);
        let mut metrics = self.rollout.spec.metrics.iter().filter(|metric| triggers.contains(&metric.name));
        if let Some(message) = metrics.find_map(|metric| self.chance_of(metric)) {
            self.condition(DETECTABILITY, Truth::False, CHANCE_BREACHES, &message);
        }
    }

    fn chance_of(&self, metric: &Metric) -> Option<String> {
        let most = most_bad(metric)?;
        let requests = self.requests_in_window(metric).filter(|requests| *requests >= 1.0)?;
        let chance = more_than(requests, most, most / 2.0);
        (chance > RARE).then(|| {
            format!(
                "{}: there are about {} requests in its window of {}. A version with half as many bad ones as the bound allows breaks it by chance at {} % of all looks. Take a longer window, or judge.evidence: sequential.",
                metric.name,
                two_digits(requests),
                metric.window,
                two_digits(100.0 * chance)
            )
        })
    }

    fn requests_in_window(&self, metric: &Metric) -> Option<f64> {
        let answer = self.snapshot.answers.get(&(metric.name.clone(), Question::Reading))?;
        let Answer::Vector(series) = answer else { return None };
        let part = |name: &'static str| {
            series.iter().filter(move |series| series.labels.get(PART).is_some_and(|part| part == name))
        };
        let all = match metric.source.form() {
            Form::Histogram(_) => part(BUCKET).map(|bucket| bucket.value).fold(f64::NAN, f64::max),
            Form::Ratio(_) => part("total").next()?.value,
            Form::Mean(_)
            | Form::Value(_)
            | Form::Drift(_)
            | Form::Stability(_)
            | Form::Agreement(_)
            | Form::Paired(_) => return None,
        };
        all.is_finite().then_some(all)
    }
}

/// The largest share of bad events that is within bounds.
fn most_bad(metric: &Metric) -> Option<f64> {
    match metric.source.form() {
        Form::Ratio(ratio) => ratio.max.or(ratio.min.map(|min| 1.0 - min)),
        Form::Histogram(histogram) => Some(1.0 - histogram.quantile),
        Form::Mean(_)
        | Form::Value(_)
        | Form::Drift(_)
        | Form::Stability(_)
        | Form::Agreement(_)
        | Form::Paired(_) => None,
    }
}

/// Chance that a larger share than `most` of so many requests is bad, where each is with the chance `rate`: the upper tail of the
/// binomial distribution.
fn more_than(requests: f64, most: f64, rate: f64) -> f64 {
    let mean = requests * rate;
    if !(rate > 0.0 && rate < 1.0) || mean > SURE {
        return 0.0;
    }
    let requests = requests.round();
    let odds = rate / (1.0 - rate);
    let mut at = libm::exp(requests * libm::log1p(-rate));
    let (mut within, mut bad) = (at, 0.0);
    while bad + 1.0 <= requests * most {
        at *= (requests - bad) / (bad + 1.0) * odds;
        within += at;
        bad += 1.0;
    }
    (1.0 - within).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_requests_break_a_bound_by_chance() {
        // Exact sums of the upper tail.
        for (requests, most, chance) in [
            (20.0, 0.01, 0.095_390),
            (100.0, 0.01, 0.089_822),
            (1000.0, 0.01, 0.013_469),
            (600.0, 0.05, 0.000_159),
        ] {
            let found = more_than(requests, most, most / 2.0);
            assert!((found - chance).abs() < 1e-6, "{requests} {most}: {found}");
        }
        assert_eq!(more_than(1e9, 0.01, 0.005), 0.0);
        assert_eq!(more_than(10.0, 1.0, 0.5), 0.0);
        assert_eq!(more_than(10.0, 0.0, 0.0), 0.0);
    }
}
