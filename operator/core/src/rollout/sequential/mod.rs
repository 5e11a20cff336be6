//! `evidence: sequential`: the judge in a rollout.
//!
//! Called by `step` on every tick of a judged phase. It begins a comparison when the data plane has taken the first
//! weights, folds what was scraped since, and says what that means; [`Record`] is what a status keeps. Missing, stale or
//! spoiled samples are told for each metric as with plain thresholds, and fold no tick.
//!
//! ```text
//! queries -> answers -> pods -> judge::fold -> told: one verdict for each trigger, and one for the step
//!                                           -> experiment: who has won, and by how much
//! ```

mod detectability;
mod early;
mod experiment;
mod native;
mod past;
mod pods;
mod policy;
mod queries;
mod record;
mod series;
mod told;

use anneal_crds::{VersionRef, metric::Metric, model_rollout::RolloutPhase};

pub use self::policy::policy_of;
pub(super) use self::policy::split_design_effect;
pub(super) use self::{
    detectability::{BETWEEN_BUCKETS, DETECTABILITY},
    queries::{queries, witness},
};
use self::{
    pods::{Absent, Labels},
    policy::{Frozen, Judged, Role},
    queries::{NOW, control},
    record::{Kept, Range, Record, Stored},
};
use super::{
    draft::Draft,
    labels,
    query::Question,
    reading::Answer,
    shares::Split,
    step::{self, StepSays},
    steps::Terms,
};
use crate::judge::{
    Arms, Judge, State, Step,
    samples::{Arm, Beside, Observations, Seen, WeightChange},
};

/// A sample that is not there when others are this much newer will not come, in milliseconds. Until then a tick waits for
/// the slowest pod.
const SETTLE_MS: i64 = 5_000;
/// Index of a bake for the judge; a canary's steps have their weight in per mille, shadow has none, and the experiment has
/// [`policy::EXPERIMENT`].
const BAKE: u32 = 1001;

/// One comparison, as far as this look can tell.
pub(super) struct Comparison {
    judge: Judge,
    pub(super) record: Record,
    /// What the record is known by that the status has.
    pub(super) kept: Option<Kept>,
    verdict: crate::judge::Verdict,
    range: Range,
    /// What this step judges by, in the order of the policy's metrics.
    asked: Vec<bool>,
}

/// Why a step by evidence cannot end.
const NOTHING_COUNTED: &str =
    "none of the step's triggers counts requests: name a ratio, a mean or a histogram without labelDelay too";

/// Why nothing is compared.
enum Unable {
    /// It will be, or somebody must do something first.
    NotYet(String),
    /// Something could not be read.
    Unread(String),
}

impl Draft<'_> {
    /// What raw samples of both versions say about the version on trial.
    pub(super) fn compare(&mut self, trial: &VersionRef, terms: Option<&Terms>) -> step::Judged {
        let stored = Stored::of(&self.rollout.spec, &self.status, trial);
        let range = Range::of(&self.rollout.spec, &self.status, &stored, self.snapshot.now);
        if terms.is_some() && !self.counts_requests(terms) {
            let unable = Unable::Unread(NOTHING_COUNTED.to_owned());
            self.split = self.split_unread();
            let verdicts = self.tell(trial, range, Err(&unable));
            return step::Judged { verdicts, step: StepSays::Unseen(NOTHING_COUNTED) };
        }
        let comparison = match self.comparison(trial, stored, range, terms) {
            Ok(comparison) => comparison,
            Err(unable) => {
                let verdicts = self.tell(trial, range, Err(&unable));
                self.split = self.split_unread();
                let (Unable::NotYet(why) | Unable::Unread(why)) = unable;
                return step::Judged { verdicts, step: StepSays::Waits(why) };
            }
        };
        let verdicts = self.tell(trial, range, Ok(&comparison));
        let mut step = self.step_says(&comparison, terms);
        if step.goes_on() {
            self.split = self.goes_on_as_before(trial, &comparison);
        }
        if self.split == Split::Otherwise {
            step = StepSays::Mismatched;
        }
        self.comparison = Some(comparison);
        step::Judged { verdicts, step }
    }

    /// Why there is none, if there is none.
    fn comparison(
        &self,
        trial: &VersionRef,
        stored: Stored,
        range: Range,
        terms: Option<&Terms>,
    ) -> Result<Comparison, Unable> {
        let (kept, record) = match stored {
            Stored::Known(record) => (Some(record.kept()), *record),
            Stored::Foreign => {
                return Err(Unable::NotYet("status.judge was written by another version of Anneal. Run that version until the rollout has ended, or abort it".to_owned()));
            }
            Stored::Nothing => (None, self.begin(trial)?),
        };
        let judge = Judge::new(policy::policy(&self.rollout.spec, &record.frozen))
            .map_err(|error| Unable::NotYet(error.to_string()))?;
        let seen = self.observations(trial, range, terms, judge.policy().metrics.len());
        let (state, verdict) = judge.fold(record.state, &seen);
        let piece_ms = range.next_piece_ms(record.piece_ms, self.is_too_much());
        let asked = policy::judged(&self.rollout.spec);
        let asked = asked.iter().map(|judged| self.is_asked(judged, terms)).collect();
        Ok(Comparison { judge, record: Record { state, piece_ms, ..record }, kept, verdict, range, asked })
    }

    /// Whether any trigger of the step counts requests. The spec of a version that begins has one in every step, but it may be
    /// edited on the way, and ticks that ask for nothing would pass.
    fn counts_requests(&self, terms: Option<&Terms>) -> bool {
        let judged = policy::judged(&self.rollout.spec);
        judged.iter().any(|judged| self.is_asked(judged, terms) && judged.metric.labels().is_none())
    }

    /// Whether this step judges by it. In an experiment its own metrics are no triggers, whatever they are in other steps.
    fn is_asked(&self, judged: &Judged<'_>, terms: Option<&Terms>) -> bool {
        let (phase, name) = (self.status.phase, &judged.metric.name);
        let guards = &self.rollout.spec.strategy.rollback_triggers;
        match (judged.role, terms) {
            (Role::Guard, Some(terms)) if phase != RolloutPhase::Experiment => terms.triggers.contains(name),
            (Role::Guard, _) => guards.contains(name),
            (Role::Primary | Role::Secondary, _) => phase == RolloutPhase::Experiment,
        }
    }

    /// The first look after the data plane has taken the weights.
    fn begin(&self, trial: &VersionRef) -> Result<Record, Unable> {
        if self.status.traffic_accepted_at.is_none() || !self.traffic_accepted() {
            return Err(Unable::NotYet("the data plane has not taken the weights yet".to_owned()));
        }
        let spec = &self.rollout.spec;
        let tick_ms = policy::tick_ms(spec);
        let frozen = Frozen {
            terms: policy::fingerprint(spec),
            tick_ms,
            horizon_ticks: policy::horizon_ticks(spec, tick_ms),
            half_step_ticks: policy::half_step_ticks(spec, tick_ms),
            replicas: policy::replicas(spec),
            stale_after_ms: spec.prometheus.stale_after.as_millis(),
            learned: self.learn().map_err(Unable::Unread)?,
        };
        let began_ms = Range::first_ms(&self.status, self.snapshot.now.as_millisecond());
        let state = State::new(&policy::policy(spec, &frozen), began_ms, self.step_index());
        Ok(Record::begin(trial, frozen, state))
    }

    fn observations(
        &self,
        trial: &VersionRef,
        range: Range,
        terms: Option<&Terms>,
        metrics: usize,
    ) -> Observations {
        let spec = &self.rollout.spec;
        let labels = self.labels(trial);
        let judged = policy::judged(spec);
        let is_asked = |judged: &Judged<'_>| self.is_asked(judged, terms);
        let asked: Vec<(&Metric, Question)> = judged
            .iter()
            .filter(|judged| is_asked(judged))
            .flat_map(|judged| questions(judged.metric))
            .collect();
        let (step, mut beside) = (self.judged_step(terms), None);
        let seen = |judged: &Judged<'_>| {
            if !is_asked(judged) {
                return Seen::NotAsked;
            }
            let (events, all) =
                (self.series(judged.metric, Question::Events), self.series(judged.metric, Question::All));
            let pods = labels.pods(judged.source, &events, &all);
            let is_own = |arm: Arm| arm == Arm::Candidate || step.arms == Arms::Both;
            let (own, others): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| is_own(pod.arm));
            if beside.is_none() && !others.is_empty() {
                beside = Some(Beside { source: judged.source, pods: others });
            }
            Seen::Pods(own)
        };
        let series: Vec<_> = asked.iter().map(|&(metric, question)| self.series(metric, question)).collect();
        let until_ms = match pods::scraped(series.iter().flat_map(|series| series.iter())) {
            // A question without an answer is asked again; what it was about is not lost.
            _ if asked.iter().any(|&(metric, question)| self.is_unread(metric, question)) => i64::MIN,
            // What is long past will not change any more, if there is anything or not.
            _ if range.is_behind() => range.until_ms,
            // Samples may take their time on the way, and then they all do.
            Some((slowest, newest)) => slowest.max(newest.saturating_sub(SETTLE_MS)).min(range.until_ms),
            None => i64::MIN,
        };
        let seen = judged.iter().map(seen).take(metrics).collect();
        Observations { until_ms, step, weights: self.weights(), metrics: seen, beside }
    }

    /// How series say whose they are; those of `candidate` are the candidate's, all others stable's.
    fn labels<'d>(&'d self, candidate: &'d VersionRef) -> Labels<'d> {
        let (prometheus, pods) = (&self.rollout.spec.prometheus, &self.snapshot.children.pods);
        // Only live requests that are divided between two versions have a split that would show a pod that is not scraped.
        let is_split = self.status.phase.divides_traffic() && control(&self.status).is_some();
        let absent = if is_split { Absent::Quiet } else { Absent::NotScraped };
        Labels { prometheus, candidate, pods, absent }
    }

    fn is_unread(&self, metric: &Metric, question: Question) -> bool {
        match self.snapshot.answers.get(&(metric.name.clone(), question)) {
            Some(Answer::Unreachable(_) | Answer::TooMuch(_) | Answer::Vector(_)) => true,
            Some(Answer::Matrix(_)) | None => false,
        }
    }

    /// Whether the server did not give all that it was asked for.
    fn is_too_much(&self) -> bool {
        self.snapshot.answers.values().any(|answer| match answer {
            Answer::TooMuch(_) => true,
            Answer::Unreachable(_) | Answer::Vector(_) | Answer::Matrix(_) => false,
        })
    }

    fn judged_step(&self, terms: Option<&Terms>) -> Step {
        let sequential = policy::terms(&self.rollout.spec);
        let accepted = self.status.traffic_accepted_at.as_ref().filter(|_| self.traffic_accepted());
        let duration = terms.map_or(i64::MAX, |terms| terms.duration.as_millis());
        let delay = terms.map_or(0, |terms| labels::longest_delay_ms(&self.rollout.spec, &terms.triggers));
        Step {
            index: self.step_index(),
            arms: if control(&self.status).is_some() { Arms::Both } else { Arms::CandidateAlone },
            began_ms: accepted.map_or(i64::MAX, |at| at.0.as_millisecond()),
            min_ms: terms.map_or(i64::MAX, |terms| terms.shortest.as_millis()),
            interval_ms: duration,
            // What waits for people is not given up for lasting long.
            max_ms: sequential
                .max_duration
                .filter(|_| self.status.approval.is_none() && self.pause.is_none())
                .map(|max| max.as_millis().max(duration).saturating_add(delay)),
            min_requests: terms.map_or(0, fewest),
        }
    }

    fn step_index(&self) -> u32 {
        match self.status.phase {
            RolloutPhase::Canary => self.status.weight.per_mille().into(),
            RolloutPhase::Experiment => policy::EXPERIMENT,
            RolloutPhase::Baking => BAKE,
            RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::Staging
            | RolloutPhase::Shadow
            | RolloutPhase::RollingBack
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => 0,
        }
    }

    /// Since when the candidate has had which share. Between the decision and the data plane's word for it nobody knows.
    fn weights(&self) -> Vec<WeightChange> {
        let weight = match self.status.phase {
            RolloutPhase::Experiment | RolloutPhase::Canary => {
                f64::from(self.status.weight.per_mille()) / 1000.0
            }
            RolloutPhase::Baking => 1.0,
            RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::Staging
            | RolloutPhase::Shadow
            | RolloutPhase::RollingBack
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => 0.0,
        };
        let decided = self.status.step_started_at.as_ref().map(|at| (at.0.as_millisecond(), 0.0));
        let accepted = self.status.traffic_accepted_at.as_ref().map(|at| (at.0.as_millisecond(), weight));
        let changes = decided.into_iter().chain(accepted);
        changes.map(|(at_ms, weight)| WeightChange { at_ms, weight }).collect()
    }
}

/// Fewest requests that the version on trial must have answered. Without any there is nothing that could have passed,
/// not even in a bake, which asks for none.
fn fewest(terms: &Terms) -> u64 {
    u64::from(terms.min_requests).max(1)
}

/// What is asked about a metric at each look.
fn questions(metric: &Metric) -> impl Iterator<Item = (&Metric, Question)> {
    queries::selectors(metric, NOW).map(move |(question, _)| (metric, question))
}
