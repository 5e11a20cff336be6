//! From a rollout's spec to the judge's policy.
//!
//! What depends on the moment at which a rollout began is frozen in [`Frozen`], because a policy must not change after its
//! first tick.

use anneal_crds::{
    ModelRolloutSpec, Span,
    metric::{Form, Mean, MeanBound, Metric},
    model_rollout::Experiment,
    sequential::{Advance, OnInconclusive, Sequential},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::{labels, steps};
use crate::judge::{
    self, Better, Events, Inconclusive, MetricPolicy, PodSpread, Policy, Rule, winner::Design,
};

/// Index of the experiment for the judge.
pub(super) const EXPERIMENT: u32 = 1002;

/// Ticks without data or traffic after which a step's clock stops.
const BLIND_AFTER: u32 = 3;

/// What was so when the first tick began, and counts until the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Frozen {
    /// [`fingerprint`] of the spec.
    pub(super) terms: String,
    /// Length of a tick in milliseconds.
    pub(super) tick_ms: i64,
    /// Ticks that the rollout is planned to last.
    pub(super) horizon_ticks: u32,
    /// Ticks of half of its shortest step, after which means are seen best; zero in a record of a version that knew no means.
    #[serde(default)]
    pub(super) half_step_ticks: u32,
    /// Pods of each version.
    pub(super) replicas: u32,
    /// How old a sample may be, in milliseconds.
    pub(super) stale_after_ms: i64,
    /// What stable's history showed, in the order of the policy's metrics; none where there was nothing to learn.
    pub(super) learned: Vec<Option<Learned>>,
}

/// How one metric varied among stable's own pods.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Learned {
    /// By how much counts varied more than independent requests would, at least 1.
    pub(super) design_effect: f64,
    /// How much pods differed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pods: Option<Spread>,
}

/// How much pods differed for as long as they lived.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spread {
    /// Standard deviation of the logarithm of a pod's rate of bad events.
    pub(super) sd: f64,
    /// Pods that were compared.
    pub(super) pods: u32,
}

/// One metric of the spec as the judge takes it: a share that has both a lower and an upper bound is two.
#[derive(Clone, Debug)]
pub(super) struct Judged<'a> {
    pub(super) metric: &'a Metric,
    pub(super) source: judge::Source,
    pub(super) limit: Limit,
    pub(super) role: Role,
}

/// What a metric is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit {
    /// A share of events.
    Share {
        /// What its first counter counts.
        events: Events,
        /// Largest share of bad events, from 0 to 1.
        most: f64,
    },
    /// A mean, which nothing but a guard is.
    Mean {
        /// Which is better.
        better: Better,
        /// How much worse than stable's it may be.
        margin: f64,
        /// The worst that is no defect.
        bound: f64,
    },
    /// Answers to the same requests, which nothing but a guard is.
    Agreement {
        /// Largest share of requests in which the candidate may answer otherwise, from 0 to 1.
        most: f64,
    },
    /// Who is right about the same requests, which nothing but a guard is either.
    Paired {
        /// Largest share of the labels by which one alone was right that may be stable's.
        most: f64,
    },
}

/// What a metric is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It may roll back, in the phases that have it as a trigger.
    Guard,
    /// The experiment is about it.
    Primary,
    /// It stands against a winner of the experiment until it is shown to be no worse.
    Secondary,
}

/// Everything that any phase of the strategy may judge by, in the order of `spec.metrics`. What guards a step and is looked at in
/// the experiment too is there twice: each is counted for itself.
pub(super) fn judged(spec: &ModelRolloutSpec) -> Vec<Judged<'_>> {
    let lists: Vec<_> = steps::trigger_lists(&spec.strategy).collect();
    let roles = |metric: &Metric| {
        let guards = lists.iter().any(|list| list.contains(&metric.name)).then_some(Role::Guard);
        let experiment = spec.strategy.experiment.as_ref();
        let looked_at = experiment
            .filter(|own| own.names(&metric.name))
            .map(|own| if own.primary == metric.name { Role::Primary } else { Role::Secondary });
        guards.into_iter().chain(looked_at)
    };
    let of_role = |metric, role| {
        bounds(metric, role).into_iter().take(match role {
            Role::Guard | Role::Secondary => usize::MAX,
            Role::Primary => 1,
        })
    };
    spec.metrics.iter().flat_map(|metric| roles(metric).flat_map(move |role| of_role(metric, role))).collect()
}

fn bounds(metric: &Metric, role: Role) -> Vec<Judged<'_>> {
    let one = |source, events, most| Judged { metric, source, limit: Limit::Share { events, most }, role };
    match metric.source.form() {
        Form::Ratio(ratio) => {
            let upper = ratio.max.map(|max| one(judge::Source::Counters, Events::Bad, max));
            // Above a lower bound is good.
            let lower = ratio.min.map(|min| one(judge::Source::Counters, Events::Good, 1.0 - min));
            upper.into_iter().chain(lower).collect()
        }
        Form::Histogram(histogram) => {
            let threshold = histogram.max.as_secs_f64() * histogram.unit.per_second();
            vec![one(judge::Source::Histogram(threshold), Events::Bad, 1.0 - histogram.quantile)]
        }
        Form::Mean(mean) => match role {
            Role::Guard => {
                vec![Judged { metric, source: judge::Source::Sums, limit: limit(mean), role }]
            }
            // `obstacle` says so before anything begins.
            Role::Primary | Role::Secondary => vec![],
        },
        Form::Agreement(agreement) => match role {
            Role::Guard => {
                let limit = Limit::Agreement { most: 1.0 - agreement.min };
                vec![Judged { metric, source: judge::Source::Compared, limit, role }]
            }
            // `obstacle` says so before anything begins.
            Role::Primary | Role::Secondary => vec![],
        },
        Form::Paired(paired) => match role {
            Role::Guard => {
                let limit = Limit::Paired { most: paired.max() };
                vec![Judged { metric, source: judge::Source::Pairs, limit, role }]
            }
            Role::Primary | Role::Secondary => vec![],
        },
        Form::Value(_) | Form::Drift(_) | Form::Stability(_) => vec![],
    }
}

fn limit(mean: &Mean) -> Limit {
    let (better, bound) = match mean.bound {
        MeanBound::Max(max) => (Better::Lower, max),
        MeanBound::Min(min) => (Better::Higher, min),
    };
    Limit::Mean { better, margin: mean.margin.unwrap_or(0.0), bound }
}

/// The terms of `evidence: sequential`, with every default.
pub(super) fn terms(spec: &ModelRolloutSpec) -> Sequential {
    spec.judge.sequential.clone().unwrap_or_default()
}

/// By how much less requests tell of where they go than independent ones.
pub(in crate::rollout) fn split_design_effect(spec: &ModelRolloutSpec) -> f64 {
    terms(spec).split_design_effect
}

/// What the policy is made of, in short: another one is another comparison.
pub(super) fn fingerprint(spec: &ModelRolloutSpec) -> String {
    let metrics: Vec<&Metric> = judged(spec).iter().map(|judged| judged.metric).collect();
    // Neither has anything that JSON cannot say.
    let mut text = serde_json::to_string(&(metrics, terms(spec))).unwrap_or_default();
    // An experiment that is changed while it goes on is another one. Without any, the text is what it was before there were some.
    let experiment = spec.strategy.experiment.as_ref().map(serde_json::to_string);
    text.push_str(&experiment.and_then(Result::ok).unwrap_or_default());
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Length of a tick in milliseconds: the shortest interval at which a metric is read.
pub(super) fn tick_ms(spec: &ModelRolloutSpec) -> i64 {
    let shortest = judged(spec).iter().map(|judged| super::super::plan::tick(judged.metric)).min();
    shortest.map_or(60_000, |tick| i64::try_from(tick.as_millis()).unwrap_or(i64::MAX)).max(1)
}

/// Pods of each version.
pub(super) fn replicas(spec: &ModelRolloutSpec) -> u32 {
    u32::try_from(spec.serving.replicas).unwrap_or(1).max(1)
}

/// How long each step is planned to take, in milliseconds.
fn planned_ms(spec: &ModelRolloutSpec) -> Vec<i64> {
    let strategy = &spec.strategy;
    let all = &strategy.rollback_triggers;
    // No step ends before its labels.
    let lasts = |duration: Span, triggers: &[String]| {
        duration.as_millis().max(labels::longest_delay_ms(spec, triggers))
    };
    let canary = steps::steps(strategy).into_iter();
    let canary = canary.map(|step| lasts(step.duration, step.rollback_triggers.as_deref().unwrap_or(all)));
    let others = [
        strategy
            .shadow
            .as_ref()
            .map(|shadow| lasts(shadow.duration, shadow.rollback_triggers.as_deref().unwrap_or(all))),
        strategy
            .experiment
            .as_ref()
            .map(|own| own.duration.as_millis().saturating_add(known_after_ms(spec, own))),
        strategy.bake.as_ref().map(|bake| lasts(bake.duration, &bake.rollback_triggers)),
    ];
    canary.chain(others.into_iter().flatten()).collect()
}

/// Ticks that all steps are planned to take.
pub(super) fn horizon_ticks(spec: &ModelRolloutSpec, tick_ms: i64) -> u32 {
    let planned = planned_ms(spec).into_iter().fold(0_i64, i64::saturating_add);
    u32::try_from(planned / tick_ms).unwrap_or(u32::MAX).max(1)
}

/// Ticks of half of the shortest step.
pub(super) fn half_step_ticks(spec: &ModelRolloutSpec, tick_ms: i64) -> u32 {
    let shortest = planned_ms(spec).into_iter().min().unwrap_or(0);
    u32::try_from(shortest / 2 / tick_ms).unwrap_or(u32::MAX)
}

/// The policy of a rollout of whose pods nothing is known yet, as simulations have it.
pub fn policy_of(spec: &ModelRolloutSpec) -> Policy {
    let tick_ms = tick_ms(spec);
    let frozen = Frozen {
        terms: fingerprint(spec),
        tick_ms,
        horizon_ticks: horizon_ticks(spec, tick_ms),
        half_step_ticks: half_step_ticks(spec, tick_ms),
        replicas: replicas(spec),
        stale_after_ms: spec.prometheus.stale_after.as_millis(),
        learned: vec![],
    };
    policy(spec, &frozen)
}

/// The policy of a rollout that began as `frozen` says.
pub(super) fn policy(spec: &ModelRolloutSpec, frozen: &Frozen) -> Policy {
    let terms = terms(spec);
    let metric = |(index, judged): (usize, Judged<'_>)| {
        let learned = frozen.learned.get(index).copied().flatten();
        let spread = learned.and_then(|learned| learned.pods).map(|spread| PodSpread {
            sd: spread.sd,
            degrees: spread.pods.saturating_sub(1).max(1),
            candidate_pods: frozen.replicas,
            stable_pods: frozen.replicas,
        });
        MetricPolicy {
            name: judged.metric.name.clone(),
            source: judged.source,
            rule: rule(&judged, &terms, frozen.half_step_ticks),
            design_effect: learned.map_or(1.0, |learned| learned.design_effect),
            pods: spread,
            labels: judged.metric.labels().map(|labels| judge::Labels {
                delay_ms: labels.delay.as_millis(),
                fewest: labels.fewest.into(),
            }),
        }
    };
    Policy {
        alpha: terms.alpha,
        beta: terms.beta,
        tick_ms: frozen.tick_ms,
        horizon_ticks: frozen.horizon_ticks,
        warmup_ms: terms.warmup.map_or(2 * frozen.tick_ms, |warmup| warmup.as_millis()),
        lookback_ms: frozen.tick_ms.max(frozen.stale_after_ms),
        blind_after: BLIND_AFTER,
        split_design_effect: terms.split_design_effect,
        advance: match terms.advance {
            Advance::Interval => judge::Advance::Interval,
            Advance::Evidence => judge::Advance::Evidence(terms.non_inferiority),
        },
        inconclusive: match terms.on_inconclusive {
            OnInconclusive::Hold => Inconclusive::Hold,
            OnInconclusive::Advance => Inconclusive::Advance,
            OnInconclusive::Rollback => Inconclusive::Rollback,
        },
        experiment: experiment(spec, frozen.tick_ms),
        metrics: self::judged(spec).into_iter().enumerate().map(metric).collect(),
    }
}

fn rule(judged: &Judged<'_>, terms: &Sequential, half_step_ticks: u32) -> Rule {
    let (events, most) = match judged.limit {
        Limit::Share { events, most } => (events, most),
        Limit::Mean { better, margin, bound } => {
            // Before as many differences there is no evidence that could be strongest.
            let tuned_ticks = half_step_ticks.max(judge::FEWEST_DIFFERENCES);
            return Rule::Mean(judge::Mean { better, margin, bound, tuned_ticks });
        }
        Limit::Agreement { most } => return Rule::Agreement { most },
        Limit::Paired { most } => return Rule::Paired { most },
    };
    match judged.role {
        Role::Guard => Rule::Share { events, relative: Some(terms.tolerance), absolute: Some(most) },
        Role::Primary => Rule::Primary { events },
        Role::Secondary => Rule::Secondary { events, below: terms.non_inferiority, bound: most },
    }
}

/// How long after its requests everything is known that an experiment is decided by, in milliseconds.
fn known_after_ms(spec: &ModelRolloutSpec, own: &Experiment) -> i64 {
    let names: Vec<String> = own.metrics().cloned().collect();
    labels::longest_delay_ms(spec, &names)
}

fn experiment(spec: &ModelRolloutSpec, tick_ms: i64) -> Option<judge::Experiment> {
    let own = spec.strategy.experiment.as_ref()?;
    let tick_ms = tick_ms.max(1);
    let ticks = |ms: i64| u32::try_from(ms.saturating_add(tick_ms - 1) / tick_ms).unwrap_or(u32::MAX);
    Some(judge::Experiment {
        step: EXPERIMENT,
        design: Design { alpha: own.alpha, looks: own.planned_looks() },
        wait: ticks(known_after_ms(spec, own)),
        ticks: ticks(own.duration.as_millis()).max(1),
    })
}
