//! The table, and one JSON line.

use std::io::Write;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::{process::Cost, round::Found};

/// What was found, by program and number of active rollouts.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rounds: Vec<(&'static str, usize, Found)>,
    rest: Option<(usize, usize, Cost)>,
}

/// All rounds of one program with one number of rollouts.
struct Row {
    program: &'static str,
    active: usize,
    /// Median, 90th and 99th percentile, and the worst, in milliseconds.
    delays: [f64; 4],
    missed: usize,
    cores: f64,
    megabytes: f64,
}

impl Report {
    pub(crate) fn add(&mut self, program: &'static str, active: usize, found: Found) {
        // Half an hour is long, and what is known by then is worth something even if the rest fails.
        drop(writeln!(std::io::stderr(), "{program} with {active} active: {found:?}"));
        self.rounds.push((program, active, found));
    }

    pub(crate) fn add_rest(&mut self, idle: usize, active: usize, cost: Cost) {
        self.rest = Some((idle, active, cost));
    }

    fn rows(&self) -> Vec<Row> {
        let mut names: Vec<(&'static str, usize)> = vec![];
        for (program, active, _) in &self.rounds {
            if !names.contains(&(*program, *active)) {
                names.push((*program, *active));
            }
        }
        names.into_iter().map(|(program, active)| self.row(program, active)).collect()
    }

    fn row(&self, program: &'static str, active: usize) -> Row {
        let mine = self.rounds.iter().filter(|(other, size, _)| *other == program && *size == active);
        let mine: Vec<&Found> = mine.map(|(_, _, found)| found).collect();
        let mut all: Vec<f64> = mine.iter().flat_map(|found| found.delays.clone()).collect();
        all.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (all.len() as f64 * share).ceil() as usize;
            all.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        let mean = |value: fn(&Cost) -> f64| {
            mine.iter().map(|found| value(&found.cost)).sum::<f64>() / mine.len().max(1) as f64
        };
        Row {
            program,
            active,
            delays: [at(0.5), at(0.9), at(0.99), at(1.0)],
            missed: mine.iter().map(|found| found.missed).sum(),
            cores: mean(|cost| cost.cores),
            megabytes: mean(|cost| cost.megabytes),
        }
    }

    pub(crate) fn print(&self, is_alone: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let mut figures = Map::new();
        let mut put = |key: String, value: f64| {
            figures.insert(key, ((value * 1000.0).round() / 1000.0).into());
        };
        let rows = self.rows();
        writeln!(
            out,
            "{:<14}{:>7}{:>9}{:>9}{:>9}{:>9}{:>8}{:>8}{:>8}",
            "at 1 s", "active", "p50 ms", "p90", "p99", "max", "missed", "cores", "MB"
        )?;
        for row in &rows {
            let Row { program, active, delays: [p50, p90, p99, max], missed, cores, megabytes } = row;
            writeln!(
                out,
                "{program:<14}{active:>7}{p50:>9.0}{p90:>9.0}{p99:>9.0}{max:>9.0}{missed:>8}{cores:>8.3}{megabytes:>8.0}"
            )?;
            for (what, value) in
                [("P50Millis", p50), ("P90Millis", p90), ("P99Millis", p99), ("MaxMillis", max)]
            {
                put(format!("{program}{active}{what}"), *value);
            }
            put(format!("{program}{active}Missed"), *missed as f64);
            put(format!("{program}{active}Cores"), *cores);
            put(format!("{program}{active}Megabytes"), *megabytes);
        }
        let first = rows.first();
        for peer in rows.iter().filter(|row| row.program != "anneal") {
            let Some(ours) = first.filter(|ours| ours.active == peer.active) else { continue };
            let ratios = [
                ("P50Ratio", ours.delays[0] / peer.delays[0]),
                ("P99Ratio", ours.delays[2] / peer.delays[2]),
                ("CoresRatio", ours.cores / peer.cores),
                ("MegabytesRatio", ours.megabytes / peer.megabytes),
            ];
            let [p50, p99, cores, megabytes] = ratios.map(|(_, ratio)| ratio);
            let name = peer.program;
            writeln!(out, "ours to {name}: p50 {p50:.2}, p99 {p99:.2}, cores {cores:.2}, MB {megabytes:.2}")?;
            ratios.into_iter().for_each(|(what, ratio)| put(format!("{name}{what}"), ratio));
        }
        if is_alone {
            writeln!(out, "no peer was given: --argo and --argo-crds name one")?;
        }
        if let Some((idle, active, cost)) = self.rest {
            let Cost { cores, megabytes } = cost;
            writeln!(out, "{idle} at rest and {active} active: {cores:.3} cores, {megabytes:.0} MB")?;
            put("restCores".to_owned(), cores);
            put("restMegabytes".to_owned(), megabytes);
        }
        writeln!(out, "{}", Value::Object(figures))?;
        Ok(())
    }
}
