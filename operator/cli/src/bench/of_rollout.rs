//! A ModelRollout as a policy of the bench: what its judge would do, on traffic as its user describes it.
//!
//! Used by [`super::policy_file`]. What has no share of bad events, and steps that leave stable no requests, are left out, and said so.

use std::collections::BTreeSet;

use anneal_core::{
    judge::{Advance, MetricPolicy, Policy, Rule as Test, Source},
    rollout,
};
use anneal_crds::{
    ModelRollout, ModelRolloutSpec, Span, Weight, metric::JudgeEvidence, model_rollout::Step,
    sequential::Dispersion,
};
use anyhow::{Context, ensure};

use super::{
    policy_file::{Evidence, Planned, ticks},
    thresholds::Threshold,
    traffic::Stage,
    trial::Learns,
};

/// Most ticks of a simulated rollout: beyond that, they are made longer.
const MOST_TICKS: i64 = 2000;
/// The same for plain thresholds: each look is a chance to break a bound, and fewer would look better than they are.
const MOST_LOOKS: i64 = 50_000;
/// A larger share of requests leaves the stable version too few to compare with.
const MOST_WEIGHT: f64 = 0.95;

/// What a rollout's judge is simulated by, at so many requests a second, of which so many are bad for each metric.
///
/// # Errors
///
/// If nothing of it can be simulated, or something of its traffic is not said.
pub fn planned(rollout: ModelRollout, rps: Option<f64>, rates: &[(String, f64)]) -> anyhow::Result<Planned> {
    let spec = &rollout.spec;
    let rps = rps.context("say by --rps how many requests a second both versions get together")?;
    let share = |weight: Weight| f64::from(weight.per_mille()) / 1000.0;
    let compares = spec.judge.evidence == JudgeEvidence::Sequential;
    let (divided, whole): (Vec<_>, Vec<_>) = rollout::steps(&spec.strategy)
        .into_iter()
        .partition(|step| !compares || share(step.weight) <= MOST_WEIGHT);
    ensure!(!divided.is_empty(), "no step of spec.strategy divides requests, so there is nothing to compare");
    let mut left_out: Vec<String> = whole
        .iter()
        .map(|step| format!("the step of {} %, where nothing is compared", step.weight))
        .collect();
    let triggers = |step: &Step| {
        step.rollback_triggers.clone().unwrap_or_else(|| spec.strategy.rollback_triggers.clone())
    };
    let triggers: BTreeSet<String> = divided.iter().flat_map(triggers).collect();
    let mut policy = rollout::policy_of(spec);
    policy.experiment = None;
    left_out.extend(untold(spec, &policy, &triggers));
    if policy.advance != Advance::Interval {
        policy.advance = Advance::Interval;
        left_out.push("advance: Evidence, each step lasts its duration".to_owned());
    }
    policy.metrics.retain_mut(|metric| keep(metric, &triggers, &mut left_out));
    ensure!(!policy.metrics.is_empty(), "no trigger has a share of bad events that could be simulated");
    let rate = |metric: &MetricPolicy| {
        let found = rates.iter().find(|(name, _)| *name == metric.name).map(|(_, rate)| *rate);
        found.with_context(|| format!("say by --rate {}=0.005 which share is bad as a rule", metric.name))
    };
    let known = policy.metrics.iter().map(rate).collect::<anyhow::Result<Vec<_>>>()?;
    if let Some((name, _)) =
        rates.iter().find(|(name, _)| !policy.metrics.iter().any(|metric| metric.name == *name))
    {
        anyhow::bail!("--rate names {name}, which is no trigger with a share of bad events");
    }
    let longest: i64 = divided.iter().map(|step| step.duration.as_millis()).sum();
    let tick_ms = policy.tick_ms.max(longest / if compares { MOST_TICKS } else { MOST_LOOKS });
    if tick_ms > policy.tick_ms {
        left_out.push(format!("ticks of {}: they last {}", told(policy.tick_ms), told(tick_ms)));
    }
    let stage = |step: &Step| Ok(Stage { weight: share(step.weight), ticks: ticks(step.duration, tick_ms)? });
    let stages = divided.iter().map(stage).collect::<anyhow::Result<Vec<_>>>()?;
    let evidence = match spec.judge.evidence {
        JudgeEvidence::Sequential => Evidence::Compared(learns(spec)),
        JudgeEvidence::None => Evidence::Thresholds(thresholds(spec, &mut policy, tick_ms)),
    };
    policy.tick_ms = tick_ms;
    policy.lookback_ms = policy.lookback_ms.max(tick_ms);
    policy.horizon_ticks = stages.iter().map(|stage| stage.ticks).sum::<u32>().max(1);
    Ok(Planned { policy, evidence, rps, rates: known, stages, left_out })
}

/// Phases, conditions and triggers that no stream of requests of two arms has.
fn untold(spec: &ModelRolloutSpec, policy: &Policy, triggers: &BTreeSet<String>) -> Vec<String> {
    let strategy = &spec.strategy;
    let phases = [
        ("the staging test", strategy.staging.is_some()),
        ("the shadow", strategy.shadow.is_some()),
        ("the experiment", strategy.experiment.is_some()),
        ("the bake", strategy.bake.is_some()),
    ];
    let phases = phases.into_iter().filter(|(_, has)| *has).map(|(what, _)| what.to_owned());
    let is_judged = |name: &String| policy.metrics.iter().any(|metric| metric.name == *name);
    let others = triggers.iter().filter(|name| !is_judged(name));
    let others = others.map(|name| format!("{name}, which has no share of bad events"));
    let waits = ["minRequests, maxHold and people: a step ends with its duration".to_owned()];
    phases.chain(others).chain(waits).collect()
}

fn learns(spec: &ModelRolloutSpec) -> Learns {
    match spec.judge.sequential.clone().unwrap_or_default().dispersion {
        Dispersion::Learned => Learns::Dispersion,
        Dispersion::Assumed => Learns::Nothing,
    }
}

/// Each metric's bound over its window. A tolerance is one of comparisons, and no plain threshold knows it.
fn thresholds(spec: &ModelRolloutSpec, policy: &mut Policy, tick_ms: i64) -> Vec<Threshold> {
    let window = |name: &str| {
        let metric = spec.metrics.iter().find(|metric| metric.name == name);
        let ticks = metric.map_or(0, |metric| (metric.window.as_millis() + tick_ms / 2) / tick_ms.max(1));
        usize::try_from(ticks).unwrap_or(1).max(1)
    };
    let mut thresholds = vec![];
    for metric in &mut policy.metrics {
        if let Test::Share { relative, absolute: Some(max), .. } = &mut metric.rule {
            *relative = None;
            thresholds.push(Threshold { window: window(&metric.name), max: *max });
        }
    }
    thresholds
}

fn told(millis: i64) -> String {
    Span::from_secs(u32::try_from(millis / 1000).unwrap_or(u32::MAX)).to_string()
}

/// Whether a metric can be simulated; then as a counter whose labels come at once.
fn keep(metric: &mut MetricPolicy, triggers: &BTreeSet<String>, left_out: &mut Vec<String>) -> bool {
    let what = match metric.rule {
        Test::Share { .. } if !triggers.contains(&metric.name) => {
            "no trigger of a step that divides requests"
        }
        Test::Share { .. } => {
            metric.source = Source::Counters;
            if metric.labels.take().is_some() {
                left_out.push(format!("the delay of {}'s labels", metric.name));
            }
            return true;
        }
        Test::Mean(_) => "a mean",
        Test::Agreement { .. } | Test::Paired { .. } => "of a shadow",
        Test::Primary { .. } | Test::Secondary { .. } => "of an experiment",
    };
    left_out.push(format!("{}, which is {what}", metric.name));
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ModelRollout {
        let text = include_str!("../../../../examples/car-loan/modelrollout.yaml");
        let mut rollout: ModelRollout = serde_saphyr::from_str(text).unwrap();
        rollout.spec.judge.evidence = JudgeEvidence::Sequential;
        rollout
    }

    fn rates() -> [(String, f64); 2] {
        [("error_rate", 0.002), ("latency_p95", 0.02)].map(|(name, rate)| (name.to_owned(), rate))
    }

    #[test]
    fn the_example_is_simulated_with_its_own_steps_and_metrics() {
        let planned = planned(example(), Some(10.0), &rates()).unwrap();
        let names: Vec<_> = planned.policy.metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(
            (names, planned.rates.as_slice()),
            (vec!["error_rate", "latency_p95"], [0.002, 0.02].as_slice())
        );
        let steps = rollout::steps(&example().spec.strategy);
        assert_eq!(planned.stages.len(), steps.len() - 1, "but the last one");
        for what in ["100 %", "the shadow", "the bake", "minRequests"] {
            assert!(
                planned.left_out.iter().any(|left_out| left_out.contains(what)),
                "{:?}",
                planned.left_out
            );
        }
        let total: u32 = planned.stages.iter().map(|stage| stage.ticks).sum();
        assert!(i64::from(total) <= MOST_TICKS && planned.policy.horizon_ticks == total);
        let worse = &planned.cells()[1].1[4];
        let decisions = super::super::trial::run(worse, 1, 20).unwrap();
        assert!(
            decisions[0].iter().all(Option::is_some),
            "{}: five times as many errors are found",
            worse.name
        );
    }

    #[test]
    fn what_is_not_said_of_the_traffic_is_asked_for() {
        let said = |rollout: ModelRollout, rps: Option<f64>, rates: &[(String, f64)]| {
            planned(rollout, rps, rates).unwrap_err().to_string()
        };
        assert!(said(example(), None, &rates()).contains("--rps"));
        assert!(said(example(), Some(1.0), &rates()[..1]).contains("--rate latency_p95="));
        let more = [rates().to_vec(), vec![("other".to_owned(), 0.1)]].concat();
        assert!(said(example(), Some(1.0), &more).contains("--rate names other"));
        let mut whole = example();
        whole.spec.strategy.progression =
            serde_json::from_value(serde_json::json!({"blueGreen": {"duration": "1h", "minRequests": 20}}))
                .unwrap();
        assert!(said(whole, Some(1.0), &rates()).contains("nothing to compare"));
    }

    #[test]
    fn what_is_not_simulated_is_said() {
        let mut rollout = example();
        rollout.spec.judge.sequential =
            serde_json::from_value(serde_json::json!({"advance": "Evidence"})).unwrap();
        let value = serde_json::json!({"name": "memory", "window": "5m", "value": {"expression": "avg_over_time(memory[$window])", "max": 5}});
        rollout.spec.metrics.push(serde_json::from_value(value).unwrap());
        rollout.spec.strategy.rollback_triggers.push("memory".to_owned());
        let planned = planned(rollout, Some(10.0), &rates()).unwrap();
        for what in ["memory, which has no share", "advance: Evidence"] {
            assert!(
                planned.left_out.iter().any(|left_out| left_out.contains(what)),
                "{:?}",
                planned.left_out
            );
        }
        // Every step is watched, whatever the first one showed.
        let worse = &planned.cells()[1].1[4];
        let decisions = super::super::trial::run(worse, 1, 20).unwrap().remove(0);
        assert!(decisions.iter().flatten().all(|decision| decision.rollback), "{}", worse.name);
    }

    #[test]
    fn plain_thresholds_are_simulated_over_their_windows() {
        let mut plain = example();
        plain.spec.judge.evidence = JudgeEvidence::None;
        let planned = planned(plain.clone(), Some(10.0), &rates()).unwrap();
        assert_eq!(planned.stages.len(), rollout::steps(&plain.spec.strategy).len());
        let Evidence::Thresholds(thresholds) = &planned.evidence else { unreachable!() };
        let bounds: Vec<f64> = thresholds.iter().map(|threshold| threshold.max).collect();
        assert!((bounds[0] - 0.01).abs() < 1e-9 && (bounds[1] - 0.05).abs() < 1e-9, "{bounds:?}");
        assert!(thresholds.iter().all(|threshold| threshold.window > 1), "{thresholds:?}");
        let rolled_back = |planned: &Planned, section: usize, cell: usize| {
            let cell = &planned.cells()[section].1[cell];
            let decisions = super::super::trial::run(cell, 1, 20).unwrap().remove(0);
            decisions.iter().flatten().count()
        };
        assert_eq!(rolled_back(&planned, 1, 5), 20, "ten times as many errors");
        let calm = rates().map(|(name, rate)| (name, rate / 100.0));
        let planned = super::planned(plain, Some(10.0), &calm).unwrap();
        assert_eq!(rolled_back(&planned, 0, 0), 0);
    }
}
