//! The policy: everything that a judge must know before the first tick, and never changes after it.
//!
//! Made by the rollout's controller from its spec and from [`super::dispersion`]; [`super::Judge::new`] checks it.

use super::{labels::Labels, winner::Design};

/// What is judged, and how sure a verdict must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Chance of rolling back a candidate that is no worse than tolerated, over the whole rollout; above 0, below 1.
    pub alpha: f64,
    /// Chance of advancing by evidence at a step although a metric is at its limit; above 0, below 1.
    pub beta: f64,
    /// Length of a tick in milliseconds.
    pub tick_ms: i64,
    /// Ticks that the rollout is planned to last. A candidate that breaks after as many is found later.
    pub horizon_ticks: u32,
    /// How long a pod's samples are left out after it became ready, in milliseconds.
    pub warmup_ms: i64,
    /// How old the newest sample before a tick may be to count from it, in milliseconds; usually the tick, and at least
    /// two scrapes. Longer, and an arm that was not scraped for a while is compared with its past.
    pub lookback_ms: i64,
    /// Ticks in a row without candidate requests, or without data, after which the step's clock stops.
    pub blind_after: u32,
    /// By how much requests of one user raise the variance of the traffic split; 1 if each is routed for itself.
    pub split_design_effect: f64,
    /// What lets a step end.
    pub advance: Advance,
    /// What happens to a step that reached its longest duration.
    pub inconclusive: Inconclusive,
    /// The step that is an experiment, if one is.
    pub experiment: Option<Experiment>,
    /// What is judged; each needs data for a step to end.
    pub metrics: Vec<MetricPolicy>,
}

/// A step that ends when it is shown which version is better, and not before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experiment {
    /// Which step it is.
    pub step: u32,
    /// When it is looked at, and by which boundaries.
    pub design: Design,
    /// Ticks that count before the first events of its own requests are known: the delay of its labels.
    pub wait: u32,
    /// Ticks that count from then to its last look; at least one.
    pub ticks: u32,
}

/// What lets a step end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Advance {
    /// Its interval is over.
    Interval,
    /// Every compared metric's odds of a bad event are shown to be below this many times stable's; above 1.
    Evidence(f64),
}

/// What happens to a step that reached its longest duration without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inconclusive {
    /// It waits for a person.
    Hold,
    /// It ends.
    Advance,
    /// The candidate is rolled back.
    Rollback,
}

/// One metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricPolicy {
    /// Name in verdicts.
    pub name: String,
    /// How its samples become counts.
    pub source: Source,
    /// How its counts are judged.
    pub rule: Rule,
    /// By how much the variance of its counts exceeds that of independent requests, from an A/A comparison of stable
    /// pods; at least 1. Evidence is divided by it.
    pub design_effect: f64,
    /// How much pods of one version differ, from the same comparison. Without it pods are taken to be alike.
    pub pods: Option<PodSpread>,
    /// Set if its events come later than the requests they belong to: they stand for no requests then.
    pub labels: Option<Labels>,
}

/// How samples become counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// A counter of bad (or good) events and one of all.
    Counters,
    /// A sum of values, and a counter of how many they are.
    Sums,
    /// Counters of requests in which one version alone answered otherwise, and one of all that were compared.
    Compared,
    /// Counters of labels by which one version alone was right, and one of all.
    Pairs,
    /// A histogram: a request is bad if it took longer than this, in the histogram's unit.
    Histogram(f64),
}

/// How counts are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// A share of events, with evidence.
    Share {
        /// What the first counter counts.
        events: Events,
        /// T1: rolled back if the odds of a bad event are above this many times those of stable; at least 1.
        relative: Option<f64>,
        /// T2: rolled back if the share of bad events is above this, and stable's is not; from 0 to 1.
        absolute: Option<f64>,
    },
    /// The share of events that an experiment is about. It is counted, and rolls nothing back by itself.
    Primary {
        /// What the first counter counts.
        events: Events,
    },
    /// A share of events that must be shown to be no worse before an experiment is won. It rolls nothing back by itself.
    Secondary {
        /// What the first counter counts.
        events: Events,
        /// The odds ratio to stable that it must be shown to be below; above 1.
        below: f64,
        /// The share that it must be shown to be below as long as there is no bad event to compare; from 0 to 1.
        bound: f64,
    },
    /// A mean that is worse than stable's by more than a margin, or beyond its bound while stable's is not (T4).
    Mean(Mean),
    /// Pairs of answers to the same request, in shadow (T5).
    Paired {
        /// Rolled back if a larger share than this is lost of those that only one of the two got right; above 0, below 1.
        most: f64,
    },
    /// Answers of both versions to the same request, in shadow: rolled back if the candidate differs from stable in a larger
    /// share of requests than this, beyond what stable differs from itself; from 0 to 1.
    Agreement {
        /// The share.
        most: f64,
    },
}

/// What is asked of a mean, in its own unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// Which is better.
    pub better: Better,
    /// How much worse than stable's the mean may be; zero or more.
    pub margin: f64,
    /// The worst mean that is no defect.
    pub bound: f64,
    /// Differences of means after which the tests are to be strongest, at least 1: as many as half a step has ticks, say. They
    /// begin anew after twice as many.
    pub tuned_ticks: u32,
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// The fewer the better.
    Bad,
    /// The more the better.
    Good,
}

/// Which mean is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Errors and losses.
    Lower,
    /// Rewards and scores.
    Higher,
}

/// How much pods of one version differ from each other in a metric, for as long as they live.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PodSpread {
    /// Standard deviation of the logarithm of a pod's rate of bad events.
    pub sd: f64,
    /// Pods that it was estimated from, less one.
    pub degrees: u32,
    /// The fewest pods of the candidate in any judged step.
    pub candidate_pods: u32,
    /// The fewest pods of stable in any judged step.
    pub stable_pods: u32,
}

/// Why a policy cannot be judged by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A number is out of its range.
    #[error("{field} is out of range: give {range}")]
    OutOfRange {
        /// Which.
        field: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// There is nothing to judge.
    #[error("a policy needs a metric: add one with a relative or an absolute bound")]
    NoMetric,
    /// A metric has no test.
    #[error("metric {0} has no bound: give it a relative tolerance or an absolute threshold")]
    NoTest(String),
    /// An experiment is about nothing.
    #[error("an experiment needs a primary metric: name a share of events in strategy.experiment.primary")]
    NoPrimary,
}

impl Policy {
    /// Whether every number is finite and in its range.
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let chance = |value: f64| value > 0.0 && value < 1.0;
        require(chance(self.alpha), "alpha", "a number between 0 and 1, such as 0.05")?;
        require(chance(self.beta), "beta", "a number between 0 and 1, such as 0.05")?;
        require(self.tick_ms >= 1, "tick", "at least 1ms, such as 60s")?;
        require(self.horizon_ticks >= 1, "horizon", "at least one tick")?;
        require(self.warmup_ms >= 0, "warmup", "zero or more")?;
        require(self.lookback_ms >= 1, "lookback", "at least 1ms, such as 5m")?;
        require(self.blind_after >= 1, "blindAfter", "at least one tick")?;
        design_effect(self.split_design_effect)?;
        match self.advance {
            Advance::Interval => {}
            Advance::Evidence(ratio) => {
                require(ratio > 1.0 && ratio.is_finite(), "advance ratio", "a number above 1, such as 2")?;
            }
        }
        if self.metrics.is_empty() {
            return Err(PolicyError::NoMetric);
        }
        if let Some(Experiment { design, ticks, .. }) = self.experiment {
            require(chance(design.alpha), "experiment alpha", "a number between 0 and 1, such as 0.05")?;
            require(design.looks >= 1, "looks", "at least one")?;
            require(ticks >= 1, "experiment duration", "at least one tick")?;
            let is_primary = |metric: &MetricPolicy| matches!(metric.rule, Rule::Primary { .. });
            self.metrics.iter().find(|metric| is_primary(metric)).ok_or(PolicyError::NoPrimary)?;
        }
        self.metrics.iter().try_for_each(MetricPolicy::check)
    }
}

impl MetricPolicy {
    fn check(&self) -> Result<(), PolicyError> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let chance = |value: f64| value > 0.0 && value < 1.0;
        design_effect(self.design_effect)?;
        if let Source::Histogram(threshold) = self.source {
            require(threshold > 0.0 && threshold.is_finite(), "latency threshold", "a number above 0")?;
        }
        if let Some(pods) = self.pods {
            let counted = pods.degrees >= 1 && pods.candidate_pods >= 1 && pods.stable_pods >= 1;
            require(counted, "pods", "at least one pod in each arm, and two in the estimate")?;
            require(pods.sd >= 0.0 && pods.sd.is_finite(), "pod spread", "zero or more")?;
        }
        if let Some(labels) = self.labels {
            require(labels.delay_ms >= 0, "label delay", "zero or more")?;
            require(labels.fewest >= 1, "fewest labels", "at least one")?;
        }
        match self.rule {
            Rule::Share { relative: None, absolute: None, .. } => Err(PolicyError::NoTest(self.name.clone())),
            Rule::Share { relative, absolute, .. } => {
                let tolerance = relative.is_none_or(|ratio| ratio >= 1.0 && ratio.is_finite());
                require(tolerance, "tolerance", "a number of at least 1, such as 1.2")?;
                require(absolute.is_none_or(share), "threshold", "a share from 0 to 1")
            }
            Rule::Mean(Mean { margin, bound, tuned_ticks, .. }) => {
                require(margin >= 0.0 && margin.is_finite(), "margin", "zero or more")?;
                require(bound.is_finite(), "bound", "a finite number")?;
                require(tuned_ticks >= 1, "tuned ticks", "at least one tick")
            }
            Rule::Secondary { below, bound, .. } => {
                require(below > 1.0 && below.is_finite(), "non-inferiority", "a number above 1, such as 2")?;
                require(share(bound), "threshold", "a share from 0 to 1")
            }
            Rule::Primary { .. } => Ok(()),
            Rule::Paired { most } => require(chance(most), "share of lost pairs", "a number between 0 and 1"),
            Rule::Agreement { most } => require(share(most), "threshold", "a share from 0 to 1"),
        }
    }
}

fn design_effect(value: f64) -> Result<(), PolicyError> {
    require(value >= 1.0 && value.is_finite(), "design effect", "a number of at least 1; 1 if unknown")
}

fn require(holds: bool, field: &'static str, range: &'static str) -> Result<(), PolicyError> {
    if holds { Ok(()) } else { Err(PolicyError::OutOfRange { field, range }) }
}
