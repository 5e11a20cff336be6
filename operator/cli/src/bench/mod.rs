//! `judge-bench`: how often healthy candidates are rolled back and how fast bad ones are, simulated.
//!
//! `cells` says what is simulated, `traffic` draws it, `scrape` turns it into raw counters, `trial` lets the judge and its
//! `peers` watch it, `experiment`, `means` and `shadow` draw what is no count of a tick in two arms, `report` prints what they did.
//! Nothing here is asserted; tests assert it with fewer rollouts.

mod cells;
mod experiment;
mod means;
mod of_rollout;
mod peers;
mod policy_file;
mod report;
mod scrape;
mod shadow;
mod thresholds;
mod traffic;
mod trial;

use std::{io::Write, path::PathBuf};

use clap::{Args, ValueEnum};

use cells::Section;
use report::Report;
use trial::Cell;

/// Runs the judge, and the rules of Argo Rollouts and Flagger, over the same simulated rollouts.
///
/// Every number is made from the seed, and is the same on every run. Rates are percentages of rollouts; delays are
/// hours as median/90th percentile of the rollouts that were rolled back, with the share of those that were not. The last
/// line of the output is all figures as JSON.
#[derive(Args)]
pub struct Options {
    /// Which parts to run; all of them if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    cells: Vec<Section>,
    /// Simulated rollouts a cell. Its standard error at 5 % is 22 % divided by the root of this.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    rollouts: u64,
    /// What randomness starts from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs this policy instead, in all weathers and for candidates that are worse in one metric each: a ModelRollout,
    /// or a YAML file with `alpha`, `tick`, `traffic` (`rps`), `steps` (`weight` in percent, `duration`)
    /// and `metrics` (`name`, `rate` as it is normally, `max`, `tolerance`, `designEffect`).
    #[arg(long, conflicts_with = "cells")]
    policy: Option<PathBuf>,
    /// Requests a second that both versions of a ModelRollout get together.
    #[arg(long, requires = "policy")]
    rps: Option<f64>,
    /// Which share of a ModelRollout's metric is bad as a rule, such as `error_rate=0.005`; for a latency, how many are slower than
    /// its bound.
    #[arg(long = "rate", value_name = "METRIC=SHARE", value_parser = rate, requires = "policy")]
    rates: Vec<(String, f64)>,
}

fn rate(text: &str) -> Result<(String, f64), String> {
    let pair = text.split_once('=').and_then(|(name, share)| Some((name.to_owned(), share.parse().ok()?)));
    pair.ok_or_else(|| "write it as error_rate=0.005".to_owned())
}

/// Runs the bench and prints it to `out`.
///
/// # Errors
///
/// If the policy cannot be read or is none, or the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    let sections = if options.cells.is_empty() { Section::value_variants() } else { &options.cells };
    let mut report = Report::new(options.seed, options.rollouts);
    if let Some(path) = &options.policy {
        let planned = policy_file::read(path, options.rps, &options.rates)?;
        for what in &planned.left_out {
            writeln!(out, "not simulated: {what}")?;
        }
        for (section, cells) in planned.cells() {
            run_section(options, section, &cells, &mut report, out)?;
        }
        return report.finish(out);
    }
    for &section in sections {
        run_section(options, section, &cells::cells(section), &mut report, out)?;
        if section == Section::Winner {
            let experiments = experiment::run(options.seed, options.rollouts);
            for one in experiments.chunk_by(|one, other| one.name == other.name) {
                report.experiment(one, out)?;
            }
        }
        if section == Section::Means {
            for cell in means::run(options.seed, options.rollouts)? {
                report.means(&cell, out)?;
            }
        }
        if section == Section::Shadow {
            for cell in shadow::run(options.seed, options.rollouts)? {
                report.shadow(&cell, out)?;
            }
        }
    }
    report.finish(out)
}

fn run_section(
    options: &Options,
    section: Section,
    cells: &[Cell],
    report: &mut Report,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    report.section(section, out)?;
    for cell in cells {
        let decisions = trial::run(cell, options.seed, options.rollouts)?;
        report.cell(section, cell, &decisions, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
