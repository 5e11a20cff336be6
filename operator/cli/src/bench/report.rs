//! The report: a Markdown table a section, as docs/judge.md has them, and all figures as one line of JSON at the end.

use std::io::Write;

use serde::Serialize;

use super::{
    cells::Section,
    experiment::Experiment,
    means, shadow,
    traffic::World,
    trial::{Cell, Contender, Decision},
};

/// Figures so far.
#[derive(Debug, Serialize)]
pub struct Report {
    seed: u64,
    rollouts: u64,
    figures: Vec<Figure>,
    /// The columns of the table that is being printed.
    #[serde(skip)]
    heads: Vec<&'static str>,
}

/// What one contender did in one cell.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    section: String,
    cell: String,
    contender: &'static str,
    /// Share of rollouts in which it rolled back, or advanced where that is what is asked.
    pub decided: f64,
    /// Share of rollouts that were decided before the candidate became worse.
    pub early: f64,
    /// Hours from when the candidate became worse, if half of all were decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median_hours: Option<f64>,
    /// The same for nine of ten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p90_hours: Option<f64>,
    /// Requests until then, if half of all were decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median_requests: Option<u64>,
    /// The same for nine of ten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p90_requests: Option<u64>,
    /// The most bad requests of a candidate before the deciding tick.
    pub bad_before: u64,
}

impl Figure {
    /// What `decisions` come to.
    pub fn new(
        section: Section,
        cell: &Cell,
        contender: &'static str,
        decisions: &[Option<Decision>],
    ) -> Self {
        let from = cell.world.defect.map_or(0, |defect| defect.from);
        let count = decisions.len() as f64;
        // A candidate at the limit may be rolled back too, which is no advance.
        let rollback = section != Section::Noninferiority;
        let decisions: Vec<&Decision> =
            decisions.iter().flatten().filter(|decision| decision.rollback == rollback).collect();
        let early = decisions.iter().filter(|decision| decision.tick <= from).count() as f64;
        let mut ticks: Vec<u32> = decisions.iter().filter(|d| d.tick > from).map(|d| d.tick - from).collect();
        ticks.sort_unstable();
        // A rollout that was never decided took longer than any that was.
        let at = |share: f64| {
            let rank = ((count - early) * share).ceil() as usize;
            ticks.get(rank.saturating_sub(1)).map(|&ticks| hours(&cell.world, ticks))
        };
        Self {
            early: early / count,
            median_hours: at(0.5),
            p90_hours: at(0.9),
            bad_before: decisions.iter().map(|decision| decision.bad_before).max().unwrap_or(0),
            ..Self::of(section, &cell.name, contender, decisions.len() as f64 / count)
        }
    }

    /// One of which only the share of decided rollouts is known.
    fn of(section: Section, cell: &str, contender: &'static str, decided: f64) -> Self {
        Self {
            section: format!("{section:?}").to_lowercase(),
            cell: cell.to_owned(),
            contender,
            decided,
            early: 0.0,
            median_hours: None,
            p90_hours: None,
            median_requests: None,
            p90_requests: None,
            bad_before: 0,
        }
    }

    fn show(&self, section: Section) -> String {
        let hours = |hours: Option<f64>| hours.map_or("-".to_owned(), |hours| format!("{hours:.1}"));
        match section {
            Section::Healthy | Section::Thresholds | Section::Sticky | Section::Pods | Section::Winner => {
                format!("{:.2}%", self.decided * 100.0)
            }
            Section::Delays | Section::Means => {
                format!(
                    "{}/{} ({:.0}%)",
                    hours(self.median_hours),
                    hours(self.p90_hours),
                    self.decided * 100.0
                )
            }
            Section::Shadow => {
                let said =
                    |requests: Option<u64>| requests.map_or("-".to_owned(), |requests| requests.to_string());
                let (median, p90) = (said(self.median_requests), said(self.p90_requests));
                format!("{:.2}% ({median}/{p90})", self.decided * 100.0)
            }
            Section::Noninferiority => {
                format!("{:.2}% {}/{}", self.decided * 100.0, hours(self.median_hours), hours(self.p90_hours))
            }
            Section::Outage => {
                format!("{} bad, {:.1} min", self.bad_before, self.median_hours.unwrap_or(0.0) * 60.0)
            }
        }
    }
}

fn hours(world: &World, ticks: u32) -> f64 {
    f64::from(ticks) * world.tick_s / 3600.0
}

impl Report {
    /// Nothing yet.
    pub const fn new(seed: u64, rollouts: u64) -> Self {
        Self { seed, rollouts, figures: vec![], heads: vec![] }
    }

    /// Prints a section's head.
    pub fn section(&mut self, section: Section, out: &mut impl Write) -> anyhow::Result<()> {
        let what = match section {
            Section::Healthy => "healthy candidates: rolled back",
            Section::Thresholds => "healthy candidates: rolled back (threshold: 1 %)",
            Section::Delays => "worse candidates: hours, median/90th percentile (rolled back at all)",
            Section::Outage => {
                "a candidate that fails every request: most it failed before the deciding minute"
            }
            Section::Winner => "experiments of 14 looks: decided for either side",
            Section::Noninferiority => "advanced by evidence: rollouts, hours as median/90th percentile",
            Section::Sticky => "healthy candidates, users' requests fail together: rolled back",
            Section::Means => {
                "means of errors: hours, median/90th percentile (rolled back at all; bound: x1.2)"
            }
            Section::Pods => "pods of one version differ: rolled back",
            Section::Shadow => {
                "answers in shadow: rolled back (requests, median/90th percentile; 5 % may differ)"
            }
        };
        writeln!(out, "\n{what}")?;
        self.heads.clear();
        Ok(())
    }

    /// Prints a row, below a head of its own where the columns are others than before, and keeps its figures.
    fn row(&mut self, section: Section, figures: Vec<Figure>, out: &mut impl Write) -> anyhow::Result<()> {
        let Some(first) = figures.first() else { return Ok(()) };
        let heads: Vec<&'static str> = figures.iter().map(|figure| figure.contender).collect();
        if heads != self.heads {
            writeln!(out, "\n| | {} |\n|---|{}", heads.join(" | "), "---|".repeat(heads.len()))?;
            self.heads = heads;
        }
        let shown: Vec<String> = figures.iter().map(|figure| figure.show(section)).collect();
        writeln!(out, "| {} | {} |", first.cell, shown.join(" | "))?;
        out.flush()?;
        self.figures.extend(figures);
        Ok(())
    }

    /// Prints a cell and keeps its figures.
    pub fn cell(
        &mut self,
        section: Section,
        cell: &Cell,
        decisions: &[Vec<Option<Decision>>],
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let contenders = cell.contenders.iter().zip(decisions);
        let figure = |(contender, decisions): (&Contender, &Vec<_>)| {
            Figure::new(section, cell, contender.name, decisions)
        };
        self.row(section, contenders.map(figure).collect(), out)
    }

    /// Prints what all rules did in one experiment, and keeps their figures.
    pub fn experiment(&mut self, experiments: &[Experiment], out: &mut impl Write) -> anyhow::Result<()> {
        let section = Section::Winner;
        let figure = |one: &Experiment| Figure::of(section, &one.name, one.rule, one.decided);
        self.row(section, experiments.iter().map(figure).collect(), out)
    }

    /// Prints what was decided by means, and keeps its figures.
    pub fn means(&mut self, cell: &means::Cell, out: &mut impl Write) -> anyhow::Result<()> {
        let section = Section::Means;
        let figure = |one: &means::Figure| Figure {
            median_hours: one.hours[0],
            p90_hours: one.hours[1],
            ..Figure::of(section, &cell.name, one.contender, one.decided)
        };
        self.row(section, cell.figures.iter().map(figure).collect(), out)
    }

    /// Prints what was decided by answers in shadow, and keeps its figures.
    pub fn shadow(&mut self, cell: &shadow::Cell, out: &mut impl Write) -> anyhow::Result<()> {
        let section = Section::Shadow;
        let figure = |one: &shadow::Figure| Figure {
            median_requests: one.requests[0],
            p90_requests: one.requests[1],
            ..Figure::of(section, &cell.name, one.contender, one.decided)
        };
        self.row(section, cell.figures.iter().map(figure).collect(), out)
    }

    /// Prints all figures as JSON.
    pub fn finish(&self, out: &mut impl Write) -> anyhow::Result<()> {
        writeln!(out, "\n{}", serde_json::to_string(self)?)?;
        Ok(())
    }
}
