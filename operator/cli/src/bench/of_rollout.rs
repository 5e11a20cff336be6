//! A ModelRollout as a policy of the bench: what its judge would do, on traffic as its user describes it.
//!
//! Used by [`super::policy_file`]. What has no share of bad events, and steps that leave stable no requests, are left out, and said so.

use std::collections::BTreeSet;

use anneal_core::{
    judge::{MetricPolicy, Rule as Test, Source},
    rollout,
};
use anneal_crds::{ModelRollout, Span, Weight, metric::JudgeEvidence, model_rollout::Step};
use anyhow::{Context, ensure};

use super::{
    policy_file::{Planned, ticks},
    traffic::Stage,
};

/// Most ticks of a simulated rollout: beyond that, they are made longer.
const MOST_TICKS: i64 = 2000;
/// A larger share of requests leaves the stable version too few to compare with.
const MOST_WEIGHT: f64 = 0.95;

/// What a rollout's judge is simulated by, at so many requests a second, of which so many are bad for each metric.
///
/// # Errors
///
/// If nothing of it can be simulated, or something of its traffic is not said.
pub fn planned(rollout: ModelRollout, rps: Option<f64>, rates: &[(String, f64)]) -> anyhow::Result<Planned> {
    let spec = &rollout.spec;
    ensure!(
        spec.judge.evidence == JudgeEvidence::Sequential,
        "spec.judge.evidence must be sequential: plain thresholds are what the peers are simulated with"
    );
    let rps = rps.context("say by --rps how many requests a second both versions get together")?;
    let share = |weight: Weight| f64::from(weight.per_mille()) / 1000.0;
    let (divided, whole): (Vec<_>, Vec<_>) =
        rollout::steps(&spec.strategy).into_iter().partition(|step| share(step.weight) <= MOST_WEIGHT);
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
    let tick_ms = policy.tick_ms.max(longest / MOST_TICKS);
    if tick_ms > policy.tick_ms {
        left_out.push(format!("ticks of {}: they last {}", told(policy.tick_ms), told(tick_ms)));
    }
    let stage = |step: &Step| Ok(Stage { weight: share(step.weight), ticks: ticks(step.duration, tick_ms)? });
    let stages = divided.iter().map(stage).collect::<anyhow::Result<Vec<_>>>()?;
    policy.tick_ms = tick_ms;
    policy.lookback_ms = policy.lookback_ms.max(tick_ms);
    policy.horizon_ticks = stages.iter().map(|stage| stage.ticks).sum::<u32>().max(1);
    Ok(Planned { policy, rps, rates: known, stages, left_out })
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
        assert!(planned.left_out.iter().any(|what| what.contains("100 %")), "{:?}", planned.left_out);
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
        let mut plain = example();
        plain.spec.judge.evidence = JudgeEvidence::None;
        assert!(said(plain, Some(1.0), &rates()).contains("sequential"));
    }
}
