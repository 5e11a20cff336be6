//! Policies of users, as cells of the bench: a ModelRollout as `kubectl apply` takes it, or a file with nothing but numbers.
//!
//! ```yaml
//! alpha: 0.05
//! tick: 10m
//! traffic: {rps: 10}
//! steps:
//! - {weight: 10, duration: 1d}
//! - {weight: 50, duration: 1d}
//! metrics:
//! - {name: error_rate, rate: 0.005, max: 0.01, tolerance: 1.2}
//! ```

use std::{fs, path::Path};

use anneal_core::judge::{Events, MetricPolicy, Policy, Rule as Test, Source};
use anneal_crds::Span;
use anyhow::{Context, ensure};
use serde::Deserialize;

use super::{
    cells::{self, Section},
    of_rollout,
    thresholds::Threshold,
    traffic::{Defect, Stage, Weather, World},
    trial::{Cell, Contender, Learns, Rule},
};

/// How a policy decides.
#[derive(Clone, Debug)]
pub enum Evidence {
    /// By comparing both versions, after what was learned of stable before.
    Compared(Learns),
    /// By plain thresholds, a metric each: `evidence: none`.
    Thresholds(Vec<Threshold>),
}

/// What a policy is simulated by.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The policy; every metric is a share of events.
    pub policy: Policy,
    /// How it decides.
    pub evidence: Evidence,
    /// Requests a second, both arms together.
    pub rps: f64,
    /// What share of events is bad as a rule, for each metric.
    pub rates: Vec<f64>,
    /// The steps.
    pub stages: Vec<Stage>,
    /// What of the policy is not simulated, for people.
    pub left_out: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PolicyFile {
    alpha: f64,
    tick: Span,
    traffic: TrafficPart,
    steps: Vec<StepPart>,
    metrics: Vec<MetricPart>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrafficPart {
    rps: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepPart {
    weight: f64,
    duration: Span,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MetricPart {
    name: String,
    rate: f64,
    max: Option<f64>,
    tolerance: Option<f64>,
    #[serde(default = "independent")]
    design_effect: f64,
}

const fn independent() -> f64 {
    1.0
}

/// The policy in `path`; what a ModelRollout does not say of its traffic, `rps` and `rates` do.
///
/// # Errors
///
/// If the file cannot be read, is no such YAML, or has numbers out of range.
pub fn read(path: &Path, rps: Option<f64>, rates: &[(String, f64)]) -> anyhow::Result<Planned> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .with_context(|| format!("{shown} cannot be read: give the path of a policy in YAML"))?;
    parse(&text, rps, rates)
        .with_context(|| format!("{shown} is no policy: see `judge-bench --help` for its fields"))
}

fn parse(text: &str, rps: Option<f64>, rates: &[(String, f64)]) -> anyhow::Result<Planned> {
    let value: serde_json::Value = serde_saphyr::from_str(text)?;
    let planned = if value["kind"] == "ModelRollout" {
        of_rollout::planned(serde_json::from_value(value)?, rps, rates)?
    } else {
        ensure!(
            rps.is_none() && rates.is_empty(),
            "the file itself has rps and rates: leave out --rps and --rate"
        );
        serde_json::from_value::<PolicyFile>(value)?.planned()?
    };
    planned.check()?;
    Ok(planned)
}

impl Planned {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.rps > 0.0 && self.rps.is_finite(), "traffic.rps must be above zero");
        ensure!(!self.stages.is_empty(), "steps is empty: add one, such as {{weight: 10, duration: 1d}}");
        let compares = match self.evidence {
            Evidence::Compared(_) => true,
            Evidence::Thresholds(_) => false,
        };
        for stage in &self.stages {
            let is_one = stage.weight > 0.0 && (stage.weight < 1.0 || (stage.weight <= 1.0 && !compares));
            ensure!(is_one, "a weight must lie between 0 and 100 percent");
        }
        ensure!(!self.rates.is_empty(), "metrics is empty: add one with a max or a tolerance");
        for (metric, rate) in self.policy.metrics.iter().zip(&self.rates) {
            let normal = *rate > 0.0 && *rate < 1.0;
            ensure!(normal, "metric {}: rate must lie between 0 and 1, such as 0.005", metric.name);
        }
        // What is wrong with a policy is better said before hours of simulation.
        anneal_core::judge::Judge::new(self.policy.clone())?;
        Ok(())
    }

    /// Healthy candidates in all weathers, and candidates that are worse in one metric each.
    pub fn cells(&self) -> Vec<(Section, Vec<Cell>)> {
        let mut weathers = vec![Weather::Flat, Weather::Diurnal, Weather::Outage];
        if self.rates.len() == 1 {
            weathers.extend([Weather::Resets, Weather::Gaps]);
        }
        let healthy = weathers
            .into_iter()
            .map(|weather| self.cell(0, format!("{weather:?}"), |world| World { weather, ..world }));
        let worse = (0..self.rates.len()).flat_map(|metric| {
            [1.25, 1.5, 2.0, 3.0, 5.0, 10.0].map(|ratio| {
                let defect = Some(Defect { ratio, from: 0 });
                let name = format!("{} x{ratio}", self.policy.metrics[metric].name);
                self.cell(metric, name, |world| World { defect, ..world })
            })
        });
        vec![(Section::Healthy, healthy.collect()), (Section::Delays, worse.collect())]
    }

    /// A world whose first metric is number `metric`, by which the peers go too.
    fn cell(&self, metric: usize, name: String, world: impl FnOnce(World) -> World) -> Cell {
        let (mut policy, mut rates) = (self.policy.clone(), self.rates.clone());
        policy.metrics.rotate_left(metric);
        rates.rotate_left(metric);
        let max = match policy.metrics[0].rule {
            Test::Share { absolute, .. } => absolute,
            Test::Primary { .. }
            | Test::Secondary { .. }
            | Test::Mean(_)
            | Test::Agreement { .. }
            | Test::Paired { .. } => None,
        };
        let world = world(World {
            rps: self.rps,
            rate: rates.remove(0),
            weather: Weather::Flat,
            defect: None,
            group: 1.0,
            pods: None,
            tick_s: policy.tick_ms as f64 / 1000.0,
            stages: self.stages.clone(),
        });
        let own = match &self.evidence {
            Evidence::Compared(learns) => cells::judge("policy", policy, *learns),
            Evidence::Thresholds(thresholds) => {
                let mut thresholds = thresholds.clone();
                thresholds.rotate_left(metric);
                Contender { name: "policy", rule: Rule::Thresholds(thresholds) }
            }
        };
        let mut contenders = vec![own];
        contenders.extend(max.into_iter().flat_map(cells::peers));
        Cell { name, world, others: rates, contenders }
    }
}

/// How many ticks a step has.
///
/// # Errors
///
/// If it has none, or more than can be counted.
pub fn ticks(duration: Span, tick_ms: i64) -> anyhow::Result<u32> {
    let ticks = duration.as_millis() / tick_ms.max(1);
    let ticks = u32::try_from(ticks).context("a step has too many ticks: raise tick")?;
    ensure!(ticks > 0, "a step is shorter than a tick: lower tick");
    Ok(ticks)
}

impl PolicyFile {
    fn planned(&self) -> anyhow::Result<Planned> {
        let tick_ms = self.tick.as_millis();
        let stage = |step: &StepPart| {
            Ok(Stage { weight: step.weight / 100.0, ticks: ticks(step.duration, tick_ms)? })
        };
        let stages = self.steps.iter().map(stage).collect::<anyhow::Result<Vec<_>>>()?;
        let metric = |metric: &MetricPart| MetricPolicy {
            name: metric.name.clone(),
            source: Source::Counters,
            rule: Test::Share { events: Events::Bad, relative: metric.tolerance, absolute: metric.max },
            design_effect: metric.design_effect,
            pods: None,
            labels: None,
        };
        let policy = Policy {
            alpha: self.alpha,
            tick_ms,
            lookback_ms: tick_ms,
            horizon_ticks: stages.iter().map(|stage| stage.ticks).sum(),
            metrics: self.metrics.iter().map(metric).collect(),
            ..cells::policy(None, None)
        };
        let rates = self.metrics.iter().map(|metric| metric.rate).collect();
        let evidence = Evidence::Compared(Learns::Nothing);
        Ok(Planned { policy, evidence, rps: self.traffic.rps, rates, stages, left_out: vec![] })
    }
}

/// A policy of two metrics.
#[cfg(test)]
pub const EXAMPLE: &str = "
alpha: 0.05
tick: 10m
traffic: {rps: 10}
steps:
- {weight: 10, duration: 1d}
- {weight: 50, duration: 12h}
metrics:
- {name: error_rate, rate: 0.005, max: 0.01, tolerance: 1.2}
- {name: slow, rate: 0.03, max: 0.05}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_becomes_cells_of_its_own_steps_and_metrics() {
        let sections = parse(EXAMPLE, None, &[]).unwrap().cells();
        assert_eq!((sections.len(), sections[0].1.len(), sections[1].1.len()), (2, 3, 12));
        let other = &sections[1].1[8];
        assert_eq!(
            (other.name.as_str(), other.world.rate, other.others.as_slice()),
            ("slow x2", 0.03, [0.005].as_slice())
        );
        let cell = &sections[1].1[2];
        assert_eq!((cell.world.ticks(), cell.others.as_slice()), (216, [0.03].as_slice()));
        let decisions = crate::bench::trial::run(cell, 1, 20).unwrap();
        assert!(decisions[0].iter().all(Option::is_some), "a doubled rate at 10 rps is found");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (from, to, said) in [
            ("rps: 10", "rps: 0", "traffic.rps"),
            ("weight: 50", "weight: 100", "weight"),
            ("tick: 10m", "tick: 13h", "shorter than a tick"),
            ("rate: 0.03, max: 0.05", "rate: 0.03", "slow"),
            ("alpha: 0.05", "alpha: 5", "alpha"),
            ("name: slow", "nom: slow", "nom"),
            ("rate: 0.03", "rate: 3", "rate"),
        ] {
            let error = format!("{:#}", parse(&EXAMPLE.replace(from, to), None, &[]).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
