//! Policy files: a user's own policy, as cells of the bench.
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
    traffic::{Defect, Stage, Weather, World},
    trial::{Cell, Learns},
};

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

/// The cells of the policy in `path`: healthy candidates in all weathers, and worse ones.
///
/// # Errors
///
/// If the file cannot be read, is no such YAML, or has numbers out of range.
pub fn read(path: &Path) -> anyhow::Result<Vec<(Section, Vec<Cell>)>> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .with_context(|| format!("{shown} cannot be read: give the path of a policy in YAML"))?;
    parse(&text).with_context(|| format!("{shown} is no policy: see `judge-bench --help` for its fields"))
}

fn parse(text: &str) -> anyhow::Result<Vec<(Section, Vec<Cell>)>> {
    let file: PolicyFile = serde_saphyr::from_str(text)?;
    ensure!(file.traffic.rps > 0.0 && file.traffic.rps.is_finite(), "traffic.rps must be above zero");
    ensure!(!file.steps.is_empty(), "steps is empty: add one, such as {{weight: 10, duration: 1d}}");
    for step in &file.steps {
        ensure!(step.weight > 0.0 && step.weight < 100.0, "a weight must lie between 0 and 100 percent");
    }
    for metric in &file.metrics {
        let normal = metric.rate > 0.0 && metric.rate < 1.0;
        ensure!(normal, "metric {}: rate must lie between 0 and 1, such as 0.005", metric.name);
    }
    let (world, policy) = (file.world()?, file.policy()?);
    // What is wrong with a policy is better said before hours of simulation.
    anneal_core::judge::Judge::new(policy.clone())?;
    let cell = |name: String, world: World| {
        let mut contenders = vec![cells::judge("policy", policy.clone(), Learns::Nothing)];
        contenders.extend(file.metrics[0].max.into_iter().flat_map(cells::peers));
        let others = file.metrics.iter().skip(1).map(|metric| metric.rate).collect();
        Cell { name, world, others, contenders }
    };
    let mut weathers = vec![Weather::Flat, Weather::Diurnal, Weather::Outage];
    if file.metrics.len() == 1 {
        weathers.extend([Weather::Resets, Weather::Gaps]);
    }
    let healthy = weathers
        .into_iter()
        .map(|weather| cell(format!("{weather:?}"), World { weather, ..world.clone() }))
        .collect();
    let worse = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0]
        .into_iter()
        .map(|ratio| {
            let defect = Some(Defect { ratio, from: 0 });
            cell(format!("{} x{ratio}", file.metrics[0].name), World { defect, ..world.clone() })
        })
        .collect();
    Ok(vec![(Section::Healthy, healthy), (Section::Delays, worse)])
}

impl PolicyFile {
    fn world(&self) -> anyhow::Result<World> {
        let rate = self.metrics.first().context("metrics is empty: add one with a max or a tolerance")?.rate;
        let stages = self
            .steps
            .iter()
            .map(|step| {
                let ticks = step.duration.as_millis() / self.tick.as_millis();
                let ticks = u32::try_from(ticks).context("a step has too many ticks: raise tick")?;
                ensure!(ticks > 0, "a step is shorter than a tick: lower tick");
                Ok(Stage { weight: step.weight / 100.0, ticks })
            })
            .collect::<anyhow::Result<_>>()?;
        let (weather, defect, group, pods) = (Weather::Flat, None, 1.0, None);
        let tick_s = self.tick.as_secs_f64();
        Ok(World { rps: self.traffic.rps, rate, weather, defect, group, pods, tick_s, stages })
    }

    fn policy(&self) -> anyhow::Result<Policy> {
        let metrics = self
            .metrics
            .iter()
            .map(|metric| MetricPolicy {
                name: metric.name.clone(),
                source: Source::Counters,
                rule: Test::Share { events: Events::Bad, relative: metric.tolerance, absolute: metric.max },
                design_effect: metric.design_effect,
                pods: None,
                labels: None,
            })
            .collect();
        let tick_ms = self.tick.as_millis();
        Ok(Policy {
            alpha: self.alpha,
            tick_ms,
            lookback_ms: tick_ms,
            horizon_ticks: self.world()?.ticks(),
            metrics,
            ..cells::policy(None, None)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
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

    #[test]
    fn a_policy_becomes_cells_of_its_own_steps_and_metrics() {
        let sections = parse(FILE).unwrap();
        assert_eq!((sections.len(), sections[0].1.len(), sections[1].1.len()), (2, 3, 6));
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
            let error = format!("{:#}", parse(&FILE.replace(from, to)).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
