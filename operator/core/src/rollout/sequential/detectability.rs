//! What a step can see at the traffic that there is: said in a condition, before anyone trusts it.
//!
//! Called when a comparison is recorded, about once a minute. The numbers are those of [`crate::judge::power`].

use anneal_crds::metric::Metric;
use jiff::SignedDuration;

use super::{
    super::{draft::Draft, incumbent::Incumbent, reading::two_digits, steps},
    Comparison,
    policy::{self, Judged, Role},
    queries::control,
};
use crate::{
    condition::Truth,
    judge::{MetricState, power},
};

/// Whether the step can see what its metrics' bounds ask for.
pub(in crate::rollout) const DETECTABILITY: &str = "Detectability";
/// Requests of stable from which on its own share of bad events is known well enough to plan by.
const ENOUGH: u64 = 200;

impl Draft<'_> {
    /// Sets the condition, once enough is known for it.
    pub(in crate::rollout) fn tell_what_can_be_seen(&mut self, comparison: &Comparison) {
        let Some(terms) = steps::terms(&self.rollout.spec.strategy, &self.status) else { return };
        if self.status.phase.divides_traffic() && control(&self.status).is_none() {
            let why = match self.incumbent() {
                Incumbent::Version(_) | Incumbent::Nobody => {
                    format!("At {} % of the requests there is no stable version", self.status.weight)
                }
                Incumbent::Adopted(service) => {
                    format!("Service {service} answers the other requests, and has no version")
                }
            };
            let message = format!(
                "{why} to compare with. Each metric is judged by its own bound alone, and an outage that would have hit both versions counts against the candidate."
            );
            return self.condition(DETECTABILITY, Truth::False, "NoControl", &message);
        }
        let judged = policy::judged(&self.rollout.spec);
        let known: Vec<Result<(), String>> = comparison
            .record
            .state
            .metrics
            .iter()
            .zip(&judged)
            .zip(comparison.judge.tolerances())
            .filter(|((_, judged), _)| judged.role == Role::Guard)
            .filter(|((state, _), _)| state.asked && state.stable_requests >= ENOUGH)
            .map(|((state, judged), tolerance)| {
                let plan = comparison.plan(state, tolerance.unwrap_or(1.0));
                // Labels of the step come for the rest of it.
                let delay = judged.metric.labels().map_or(0.0, |labels| labels.delay.as_secs_f64());
                can_see(judged, &plan, (terms.duration.as_secs_f64() - delay).max(0.0))
            })
            .collect();
        if known.is_empty() {
            return;
        }
        let blind: Vec<String> = known.into_iter().filter_map(Result::err).collect();
        if blind.is_empty() {
            let message = "At this traffic the step sees whatever breaks a metric's bound.";
            return self.condition(DETECTABILITY, Truth::True, "Sufficient", message);
        }
        self.condition(DETECTABILITY, Truth::False, "TooLittleTraffic", &blind.join(" "));
    }
}

impl Comparison {
    /// The step as it has been so far.
    fn plan(&self, state: &MetricState, tolerance: f64) -> power::Plan {
        let policy = self.judge.policy();
        let requests = (state.step_requests + state.stable_requests) as f64;
        let metric = policy.metrics.iter().find(|metric| metric.name == state.name);
        let delay_ms = metric.and_then(|metric| metric.labels).map_or(0, |labels| labels.delay_ms);
        let age_ms = i64::from(self.record.state.step.ticks).saturating_mul(policy.tick_ms);
        let elapsed = age_ms.saturating_sub(delay_ms).max(policy.tick_ms) as f64 / 1000.0;
        // Half an event where there was none: rarer than what was seen, and not nothing.
        let rate = (state.stable_bad as f64).max(0.5) / state.stable_requests as f64;
        power::Plan {
            rps: requests / elapsed,
            rate,
            weight: state.step_requests as f64 / requests,
            tolerance,
            alpha: policy.alpha,
            horizon_ticks: policy.horizon_ticks,
            tests: u32::try_from(self.judge.tests()).unwrap_or(u32::MAX),
            design_effect: metric.map_or(1.0, |metric| metric.design_effect),
        }
    }
}

/// Whether a candidate at the metric's bound is found within the step; else what is, and what it would take.
fn can_see(judged: &Judged<'_>, plan: &power::Plan, seconds: f64) -> Result<(), String> {
    let promised = judged.most / plan.rate;
    let needed = plan.seconds_to_detect(promised);
    if promised <= 1.0 || needed.is_some_and(|needed| needed <= seconds) {
        return Ok(());
    }
    let Metric { name, .. } = judged.metric;
    let least = plan.detectable_ratio(seconds).map_or_else(
        || "nothing at all can be seen".to_owned(),
        |ratio| format!("the least that can be seen is {} % bad", percent(ratio * plan.rate)),
    );
    let time = needed.map(|needed| format!("{} at this weight", span(needed)));
    let weight =
        plan.weight_to_detect(promised, seconds).map(|weight| format!("a weight of {} %", percent(weight)));
    let way_out: Vec<String> = time.into_iter().chain(weight).collect();
    let way_out = if way_out.is_empty() {
        "no duration and no weight would do".to_owned()
    } else {
        format!("it would take {}", way_out.join(", or "))
    };
    Err(format!(
        "{name}: with {} {} a second and {} % of them, {least} within {}, and the bound is {} %; {way_out}.",
        two_digits(plan.rps),
        if judged.metric.labels().is_some() { "labels" } else { "requests" },
        percent(plan.weight),
        span(seconds),
        percent(judged.most),
    ))
}

fn percent(share: f64) -> String {
    two_digits(100.0 * share)
}

/// A length of time in its largest unit.
fn span(seconds: f64) -> String {
    let round = SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX).as_secs();
    match round {
        ..120 => format!("{round}s"),
        120..7_200 => format!("{}m", round / 60),
        7_200..172_800 => format!("{}h", round / 3_600),
        _ => format!("{}d", round / 86_400),
    }
}
