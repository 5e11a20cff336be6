//! What a step can see at the traffic that there is: said in a condition, before anyone trusts it.
//!
//! Called when a comparison is recorded, about once a minute. The numbers are those of [`crate::judge::power`], and for means
//! those of the confidence sequence that judges them.

use anneal_crds::{
    metric::{Form, JudgeEvidence, Metric},
    model_rollout::RolloutPhase,
};
use jiff::SignedDuration;

use super::{
    super::{
        draft::Draft,
        incumbent::Incumbent,
        labels::events,
        query::Question,
        reading::{four_digits, two_digits},
        shares::{self, share},
        steps,
    },
    Comparison, native,
    policy::{self, Limit, Role},
    queries::{control, witness},
};
use crate::{
    condition::Truth,
    judge::{
        FEWEST_DIFFERENCES, FEWEST_VALUES, MetricPolicy, MetricState, Rule, latency::Bounds, power,
        requests_to_tell,
    },
};

/// Whether the step can see what its metrics' bounds ask for.
pub(in crate::rollout) const DETECTABILITY: &str = "Detectability";
/// How much wider than the last one a bucket may be that nobody needs to know of.
const FINE: f64 = 1.1;
/// Whether a latency is judged by buckets beside its threshold.
pub(in crate::rollout) const BETWEEN_BUCKETS: &str = "ThresholdNotOnBucket";
/// How many times as long a step is thought of.
const MOST_TIMES: f64 = 1000.0;
/// Requests of stable from which on its own share of bad events is known well enough to plan by.
const ENOUGH: u64 = 200;
/// After this part of a step its traffic is known even where there was little.
const LONG_ENOUGH: f64 = 20.0;
/// And after so many ticks.
const TICKS_ENOUGH: f64 = 3.0;

impl Draft<'_> {
    /// Sets the condition, once enough is known for it.
    pub(in crate::rollout) fn tell_what_can_be_seen(&mut self, comparison: &Comparison) {
        self.tell_thresholds_between_buckets();
        let Some(terms) = steps::terms(&self.rollout.spec.strategy, &self.status) else { return };
        let bakes = self.status.phase == RolloutPhase::Baking;
        if bakes || (self.status.phase.divides_traffic() && control(&self.status).is_none()) {
            return self.tell_what_can_be_seen_alone(comparison, terms.duration.as_secs_f64());
        }
        let judged = policy::judged(&self.rollout.spec);
        // Before the first tick of a step has ended, what was counted is of the one before.
        let is_folded = comparison.record.state.step.index == self.step_index();
        let known: Vec<Result<(), String>> = comparison
            .record
            .state
            .metrics
            .iter()
            .zip(&judged)
            .zip(comparison.judge.tolerances())
            .zip(&comparison.asked)
            .filter(|(((_, judged), _), asked)| is_folded && **asked && judged.role == Role::Guard)
            .filter(|(((state, _), _), _)| comparison.is_traffic_known(state, terms.duration.as_secs_f64()))
            .filter_map(|(((state, judged), tolerance), _)| {
                if state.step_requests.max(compared(state)) == 0 {
                    return Some(Err(nothing_comes(judged.metric)));
                }
                // Labels of the step come for the rest of it.
                let delay = judged.metric.labels().map_or(0.0, |labels| labels.delay.as_secs_f64());
                let seconds = (terms.duration.as_secs_f64() - delay).max(0.0);
                match judged.limit {
                    Limit::Share { most, .. } => {
                        let plan = comparison.plan(state, tolerance.unwrap_or(1.0), most);
                        Some(can_see(judged.metric, most, &plan, seconds))
                    }
                    Limit::Mean { .. } => comparison.can_see_mean(judged.metric, state, seconds),
                    // It promises no bound: any difference is found some day.
                    Limit::Paired { .. } => None,
                    Limit::Agreement { most } => {
                        comparison.can_see_difference(judged.metric, most, state, seconds)
                    }
                }
            })
            .collect();
        let shows = self.what_the_experiment_shows(comparison);
        if known.is_empty() && shows.is_none() {
            return;
        }
        let sees = (!known.is_empty())
            .then(|| "At this traffic the step sees whatever breaks a metric's bound.".to_owned());
        let blind: Vec<String> = known.into_iter().filter_map(Result::err).collect();
        if blind.is_empty() {
            let reason = if sees.is_some() { "Sufficient" } else { "Experiment" };
            let message: Vec<String> = sees.into_iter().chain(shows).collect();
            return self.condition(DETECTABILITY, Truth::True, reason, &message.join(" "));
        }
        let message: Vec<String> = blind.into_iter().chain(shows).collect();
        self.condition(DETECTABILITY, Truth::False, "TooLittleTraffic", &message.join(" "));
    }
}

impl Draft<'_> {
    /// Nobody else answers requests that could be compared, so it is the bounds alone, and how soon they can break.
    fn tell_what_can_be_seen_alone(&mut self, comparison: &Comparison, seconds: f64) {
        let why = match (self.status.phase, self.incumbent()) {
            (RolloutPhase::Baking, _) => "In a bake there is no other version".to_owned(),
            (_, Incumbent::Adopted(service)) => {
                format!("Service {service} answers the other requests, and has no version")
            }
            (_, Incumbent::Version(_) | Incumbent::Nobody) => {
                format!("At {} % of the requests there is no stable version", self.status.weight)
            }
        };
        let mut message = format!(
            "{why} to compare with. Each metric is judged by its own bound alone, and an outage that would have hit both versions counts against the candidate."
        );
        let judged = policy::judged(&self.rollout.spec);
        let states = comparison.record.state.metrics.iter().zip(&judged);
        for (state, judged) in states.filter(|(state, judged)| state.asked && judged.role == Role::Guard) {
            let Limit::Share { most, .. } = judged.limit else { continue };
            if let Some(blind) = comparison.cannot_see_alone(judged.metric, most, state, seconds) {
                message.push(' ');
                message.push_str(&blind);
            }
        }
        self.condition(DETECTABILITY, Truth::False, "NoControl", &message);
    }

    /// How many requests show whether the data plane follows from the last step to this one, where they are counted.
    pub(in crate::rollout) fn what_it_takes_to_see_the_share(&self) -> Option<String> {
        let (spec, weight) = (&self.rollout.spec, self.status.weight);
        let counts = match spec.judge.evidence {
            JudgeEvidence::Sequential => witness(&self.status).is_some(),
            JudgeEvidence::None => shares::are_counted(self.rollout, &self.status),
        };
        let before = share(shares::weight_before(self.rollout, weight));
        let design_effect = policy::split_design_effect(spec);
        let requests = (counts && self.status.phase == RolloutPhase::Canary)
            .then(|| requests_to_tell(before, share(weight), design_effect))?;
        Some(requests.map_or_else(
            || {
                " The step is so small that nobody can tell by requests whether the data plane follows."
                    .to_owned()
            },
            |requests| {
                let within = match spec.judge.evidence {
                    JudgeEvidence::Sequential => "",
                    JudgeEvidence::None => " within an hour",
                };
                format!(
                    " About {} requests{within} show whether the data plane follows.",
                    two_digits(requests)
                )
            },
        ))
    }

    /// A quantile's threshold between two buckets is judged by those beside it, and people should know.
    fn tell_thresholds_between_buckets(&mut self) {
        let metrics = self.rollout.spec.metrics.iter();
        let read = metrics.filter(|metric| !self.series(metric, Question::Events).is_empty());
        let (mut latencies, mut between) = (false, vec![]);
        for metric in read {
            latencies |= matches!(metric.source.form(), Form::Histogram(_));
            between.extend(self.between_buckets(metric));
        }
        // What could not be read says nothing new.
        if latencies {
            let said = (!between.is_empty()).then(|| between.join(" "));
            self.condition_if(BETWEEN_BUCKETS, "NextBucketsCount", said.as_deref());
        }
    }

    fn between_buckets(&self, metric: &Metric) -> Option<String> {
        let Form::Histogram(histogram) = metric.source.form() else { return None };
        let unit = histogram.unit.per_second();
        let threshold = histogram.max.as_secs_f64() * unit;
        let series = self.series(metric, Question::Events);
        let classic = series.iter().filter_map(|series| series.labels.get("le")?.parse().ok());
        let native = || {
            let schema = series.iter().find_map(|series| native::schema(&series.histograms.last()?.1))?;
            // Where buckets are fine it makes no difference.
            Bounds::native(schema, threshold)
                .filter(|bounds| bounds.below.is_none_or(|below| bounds.above > below * FINE))
        };
        let bounds = Bounds::of(classic, threshold).filter(|bounds| !bounds.is_exact()).or_else(native)?;
        let name = |bound: f64| format!("{} ms", four_digits(bound / unit * 1000.0));
        let advancing = bounds.below.map_or_else(
            || "nothing shows that it is fast enough".to_owned(),
            |below| format!("to advance, one slower than {} does", name(below)),
        );
        Some(format!(
            "Metric {}: no bucket ends at {}. To roll back, a request slower than {} counts as slow; {advancing}. Give the server a bucket there, or set max to one of the two.",
            metric.name,
            name(threshold),
            name(bounds.above)
        ))
    }
}

impl Comparison {
    fn policy_of(&self, state: &MetricState) -> Option<&MetricPolicy> {
        self.judge.policy().metrics.iter().find(|metric| metric.name == state.name)
    }

    /// For how many seconds events of the step have come.
    fn elapsed(&self, metric: Option<&MetricPolicy>) -> f64 {
        let tick_ms = self.judge.policy().tick_ms;
        let delay_ms = metric.and_then(|metric| metric.labels).map_or(0, |labels| labels.delay_ms);
        self.judge.age(&self.record.state).saturating_sub(delay_ms).max(tick_ms) as f64 / 1000.0
    }

    /// Whether a step of so many seconds has seen enough, or lasted long enough without, to tell how much will come. Where nothing comes
    /// its own clock stands still.
    fn is_traffic_known(&self, state: &MetricState, seconds: f64) -> bool {
        let record = &self.record;
        let delay_ms =
            self.policy_of(state).and_then(|metric| metric.labels).map_or(0, |labels| labels.delay_ms);
        let waited_ms = record.ended_ms().saturating_sub(record.state.step.began_ms).saturating_sub(delay_ms);
        let fewest_ms = self.judge.policy().tick_ms as f64 * TICKS_ENOUGH;
        let long_enough_ms = fewest_ms.max(1000.0 * seconds / LONG_ENOUGH).min(1000.0 * seconds / 2.0);
        (state.stable_requests >= ENOUGH && state.step_requests > 0)
            || compared(state) >= ENOUGH
            || waited_ms as f64 >= long_enough_ms
    }

    /// The step as it has been so far, for a metric of which stable may have `most` bad ones.
    fn plan(&self, state: &MetricState, tolerance: f64, most: f64) -> power::Plan {
        let policy = self.judge.policy();
        // Half a request, or half an event, where there was none: rarer than what was seen, and not nothing.
        let [own, stable, bad] =
            [state.step_requests, state.stable_requests, state.stable_bad].map(|n| (n as f64).max(0.5));
        let requests = own + stable;
        let metric = self.policy_of(state);
        let elapsed = self.elapsed(metric);
        // None, or one bad answer of a few, is no share that anyone knows.
        let is_known = state.stable_bad > 0 && state.stable_requests >= ENOUGH;
        let most_likely = if is_known { 1.0 } else { most / 2.0 };
        let rate = (bad / stable).min(most_likely);
        power::Plan {
            rps: requests / elapsed,
            rate,
            weight: own / requests,
            tolerance,
            alpha: policy.alpha,
            horizon_ticks: policy.horizon_ticks,
            tests: u32::try_from(self.judge.tests()).unwrap_or(u32::MAX),
            design_effect: metric.map_or(1.0, |metric| metric.design_effect),
        }
    }
}

impl Comparison {
    /// Why a version that breaks its bound twice over is not found within the step, at the traffic so far; nothing if it is, and while
    /// that is not known.
    fn cannot_see_alone(
        &self,
        metric: &Metric,
        most: f64,
        state: &MetricState,
        seconds: f64,
    ) -> Option<String> {
        let (policy, of_metric) = (self.judge.policy(), self.policy_of(state)?);
        let elapsed = self.elapsed(Some(of_metric));
        if state.step_requests < ENOUGH && elapsed < seconds / LONG_ENOUGH {
            return None;
        }
        let a_second = state.step_requests as f64 / elapsed;
        let alpha = self.judge.alpha_of_a_test();
        let needed = |times: f64| {
            power::requests_to_break(most, times, alpha, policy.horizon_ticks, of_metric.design_effect)
        };
        let twice = needed(2.0)?;
        if twice <= a_second * seconds {
            return None;
        }
        let shows = |times: f64| needed(times).is_some_and(|needed| needed <= a_second * seconds);
        let least = power::least_from(2.0, 1.0 / most, shows).map_or_else(
            || "nothing at all shows".to_owned(),
            |times| format!("the least that shows is {} % bad", percent(times * most)),
        );
        let takes = if a_second > 0.0 {
            format!("which takes {} at {} a second", span(twice / a_second), two_digits(a_second))
        } else {
            "and there are none".to_owned()
        };
        Some(format!(
            "{}: twice its bound shows after about {} {}, {takes}; within {} {least}.",
            metric.name,
            two_digits(twice),
            events(metric),
            span(seconds),
        ))
    }
}

impl Comparison {
    /// Whether a candidate whose mean is at its bound is found within the step, at the traffic so far; else what is. Nothing
    /// while it is not known by how much means differ.
    fn can_see_mean(&self, metric: &Metric, state: &MetricState, seconds: f64) -> Option<Result<(), String>> {
        let policy = self.policy_of(state)?;
        let Rule::Mean(rule) = &policy.rule else { return None };
        let (mean, elapsed) = (state.mean?, self.elapsed(Some(policy)));
        let fewer = state.step_requests.min(state.stable_requests) as f64 / elapsed;
        let tick_ms = self.judge.policy().tick_ms;
        let differences_in =
            |seconds: f64| (seconds * fewer / FEWEST_VALUES as f64).min(seconds * 1000.0 / tick_ms as f64);
        let differences = differences_in(seconds);
        let of_stable = mean.step.stable.mean()?;
        let promised = rule.worse_than(rule.bound, of_stable);
        if promised <= 0.0 {
            return Some(Ok(()));
        }
        let said = format!(
            "{}: with {} {} a second of the version that has fewer,",
            metric.name,
            two_digits(fewer),
            events(metric),
        );
        if differences < f64::from(FEWEST_DIFFERENCES) {
            return Some(Err(format!(
                "{said} nothing at all can be seen within {}: it takes {FEWEST_DIFFERENCES} times {FEWEST_VALUES} of each version.",
                span(seconds),
            )));
        }
        let alpha = self.judge.alpha_of_a_test();
        let least_in = |differences: f64| {
            Some(rule.margin + mean.versus_stable.least(differences, rule.tuned_ticks, alpha)?)
        };
        let least = least_in(differences)?;
        if promised >= least {
            return Some(Ok(()));
        }
        let finds = |seconds: f64| least_in(differences_in(seconds)).is_some_and(|least| promised >= least);
        let way_out = match (promised > rule.margin, time_to(seconds, finds)) {
            (false, _) => "its margin must be smaller than that".to_owned(),
            (true, Some(time)) => format!("it would take {}, or more {}", span(time), events(metric)),
            (true, None) => format!("it would take more {} or a longer step", events(metric)),
        };
        Some(Err(format!(
            "{said} the least that can be seen within {} is a mean that is {} worse than stable's, and the bound is {} worse; {way_out}.",
            span(seconds),
            two_digits(least),
            two_digits(promised),
        )))
    }
}

impl Comparison {
    /// Whether a candidate that answers otherwise twice as often as it may is found within the step; else what is.
    fn can_see_difference(
        &self,
        metric: &Metric,
        most: f64,
        state: &MetricState,
        seconds: f64,
    ) -> Option<Result<(), String>> {
        // Any answer will do.
        let seen = state.compared.filter(|_| most < 1.0)?;
        let a_second = state.step_requests as f64 / self.elapsed(self.policy_of(state));
        let least_in =
            |seconds: f64| seen.least_visible(a_second * seconds, most, self.judge.alpha_of_a_test());
        // Where no difference is allowed, one of a hundred stands for a small one.
        let finds = |seconds: f64| least_in(seconds).is_some_and(|least| least <= (2.0 * most).max(0.01));
        if finds(seconds) {
            return Some(Ok(()));
        }
        let time = time_to(seconds, finds).map_or_else(String::new, |time| format!("{}, or ", span(time)));
        let least = least_in(seconds);
        let least = least.map_or_else(
            || "nothing at all can be seen".to_owned(),
            |least| format!("the least that can be seen is an agreement of {} %", percent(1.0 - least)),
        );
        Some(Err(format!(
            "{}: with {} answers compared a second, {least} within {}, and the bound is {} %; it would take {time}more requestsPerSecond.",
            metric.name,
            two_digits(a_second),
            span(seconds),
            percent(1.0 - most),
        )))
    }
}

fn nothing_comes(metric: &Metric) -> String {
    format!(
        "{}: no {} of the candidate have come so far, and without them nothing at all can be seen.",
        metric.name,
        events(metric)
    )
}

/// Requests whose answers were compared in shadow.
fn compared(state: &MetricState) -> u64 {
    state.compared.map_or(0, |compared| compared.all)
}

/// Whether a candidate at the metric's bound is found within the step; else what is, and what it would take.
fn can_see(metric: &Metric, most: f64, plan: &power::Plan, seconds: f64) -> Result<(), String> {
    if most <= 0.0 {
        // The first bad answer breaks it.
        return Ok(());
    }
    let promised = most / plan.rate;
    let needed = plan.seconds_to_detect(promised);
    if promised <= 1.0 || needed.is_some_and(|needed| needed <= seconds) {
        return Ok(());
    }
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
        "{}: with {} {} a second and {} % of them, {least} within {}, and the bound is {} %; {way_out}.",
        metric.name,
        two_digits(plan.rps),
        events(metric),
        percent(plan.weight),
        span(seconds),
        percent(most),
    ))
}

/// The shortest time above `seconds` in which something is found; none within [`MOST_TIMES`] that.
fn time_to(seconds: f64, finds: impl Fn(f64) -> bool) -> Option<f64> {
    power::least_from(1.0, MOST_TIMES, |times| finds(times * seconds)).map(|times| times * seconds)
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
