//! What an experiment has shown so far, in words that change with each look and not between two.
//!
//! Used by `told` for what follows, by `step` for messages, and by `draft` for the column STEP.

use anneal_crds::{metric::Metric, model_rollout::Experiment};

use super::{
    super::{
        draft::Draft,
        reading::two_digits,
        steps::{self, Terms},
    },
    Comparison, fewest, policy,
};
use crate::judge::Look;

impl Draft<'_> {
    /// The experiment that is going on.
    fn experiment(&self) -> Option<&Experiment> {
        steps::experiment(&self.rollout.spec.strategy, &self.status)
    }

    /// What a metric is compared with that no trigger names.
    pub(super) fn bound_in_experiment(&self, metric: &Metric) -> Option<String> {
        let experiment = self.experiment().filter(|own| own.names(&metric.name))?;
        if self.rollout.spec.strategy.rollback_triggers.contains(&metric.name) {
            return None;
        }
        if experiment.primary == metric.name {
            return Some("better than stable".to_owned());
        }
        Some(format!("below {} x stable", policy::terms(&self.rollout.spec).non_inferiority))
    }

    /// Reason and words for a candidate that is worse.
    pub(super) fn lost(&self, comparison: &Comparison) -> (&'static str, String) {
        let primary = self.experiment().map_or("its metric", |own| own.primary.as_str());
        (
            "ExperimentLost",
            format!("the experiment showed that stable is better by {primary}, {}", comparison.look()),
        )
    }

    /// Reason and words for a candidate that is not shown to be better.
    pub(super) fn no_winner(&self, comparison: &Comparison) -> (&'static str, String) {
        let why = match (comparison.is_ahead(), comparison.unproven()) {
            (false, _) => "neither version was shown to be better".to_owned(),
            (true, Some(name)) => format!("{name} was not shown to be no worse"),
            (true, None) => "the candidate was ahead by too few requests or labels".to_owned(),
        };
        ("ExperimentInconclusive", format!("the experiment is over and {why}, {}", comparison.look()))
    }

    /// What the experiment has shown, if one is going on.
    pub(in crate::rollout) fn experiment_told(&self) -> Option<String> {
        self.experiment()?;
        Some(self.comparison.as_ref()?.look())
    }

    /// Which difference it shows at this traffic, once it has looked.
    pub(super) fn what_the_experiment_shows(&self, comparison: &Comparison) -> Option<String> {
        let experiment = self.experiment()?;
        let difference = comparison.judge.visible_difference(&comparison.record.state)?;
        Some(format!(
            "{}: at its end the experiment shows, in four of five cases, a difference of about {} percentage points.",
            experiment.primary,
            two_digits(100.0 * difference)
        ))
    }

    /// Looks that were taken, of those that are planned.
    pub(in crate::rollout) fn looks_in_short(&self) -> Option<String> {
        let planned = self.experiment()?.planned_looks();
        let before = self.rollout.status.as_ref();
        let before = before.filter(|before| before.step_started_at == self.status.step_started_at);
        let taken = self.comparison.as_ref().map(Comparison::looks_taken);
        match (taken, before.and_then(|before| before.step_summary.clone())) {
            (None, Some(before)) => Some(before),
            (taken, _) => Some(format!("{}/{planned}", taken.unwrap_or(0))),
        }
    }
}

impl Comparison {
    fn last_look(&self) -> Option<&Look> {
        let state = &self.record.state;
        self.judge.experiment(state.step.index).and_then(|_| state.looks.last())
    }

    fn looks_taken(&self) -> u32 {
        let experiment = self.judge.experiment(self.record.state.step.index);
        experiment.zip(self.last_look()).map_or(0, |(experiment, look)| experiment.due(look.ticks))
    }

    fn known_for(&self) -> i64 {
        let state = &self.record.state;
        let experiment = self.judge.experiment(state.step.index);
        experiment.map_or(0, |experiment| self.judge.known_for(&experiment, state))
    }

    /// Such as `look 3 of 14: z 1.2, needs 4.5`.
    fn look(&self) -> String {
        let planned = self.judge.policy().experiment.map_or(0, |experiment| experiment.design.looks);
        let Some(look) = self.last_look() else { return format!("before the first of {planned} looks") };
        let said = match (look.z, look.needs) {
            (Some(z), Some(needs)) => format!("z {}, needs {}", two_digits(z), two_digits(needs)),
            (Some(_) | None, _) => "nothing to tell the versions apart by".to_owned(),
        };
        format!("look {} of {planned}: {said}", self.looks_taken())
    }

    /// Whether the newest look would let the candidate win.
    fn is_ahead(&self) -> bool {
        let look = self.last_look().and_then(|look| look.z.zip(look.needs));
        look.is_some_and(|(z, needs)| z >= needs)
    }

    /// A metric that is not shown to be as good as it must be.
    fn unproven(&self) -> Option<&str> {
        self.judge.unproven(&self.record.state).next()
    }

    /// Why a candidate that is ahead has not won.
    pub(super) fn keeps_from_winning(&self, terms: &Terms) -> Option<String> {
        let why = match self.unproven().filter(|_| self.is_ahead()) {
            Some(name) => format!(
                "it is not shown yet that {name} is no worse than judge.sequential.nonInferiority allows"
            ),
            None if !self.is_ahead() => return None,
            None if self.known_for() < terms.shortest.as_millis() => {
                format!("the candidate does not win before {}", terms.shortest)
            }
            None => format!("fewer than {} requests were answered", fewest(terms)),
        };
        Some(format!("{why}, {}", self.look()))
    }
}
