//! One step of shadow or canary: may it end, must it go on, or does it roll back?
//!
//! Called by [`super::plan`] on every tick of a step. A breach comes first and has no precondition; a step ends only with
//! a fresh pass of every trigger, enough time and enough requests; a step that cannot be judged is rolled back in time.
//! How old a sample is, is told by the clock as it is; times that are compared with recorded ones never run backwards.

use anneal_crds::{
    Span, VersionRef,
    model_rollout::{RecordedReading, RolloutPhase},
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    draft::{self, Draft, METRICS_AVAILABLE},
    plan::Fate,
    query,
    reading::{self, Answer, Verdict},
    weights,
};
use crate::condition::Truth;

impl Draft<'_> {
    /// Shadow and canary: one breach rolls back; time, requests and fresh passes of every trigger go on.
    pub(super) fn judge_step(&mut self, candidate: &VersionRef) {
        let judged = self.judge();
        let readings: Vec<RecordedReading> = judged.iter().map(|(_, record)| record.clone()).collect();
        if let Some((_, breach)) = judged.iter().find(|(verdict, _)| *verdict == Verdict::Breach) {
            let message = format!(
                "{} of {} is {}, and {} is asked for.",
                breach.metric, candidate.version, breach.value, breach.bound
            );
            return self.take_out(candidate, Fate::Rejected, "ThresholdBreached", &message, readings);
        }
        if !self.is_step_of_strategy() {
            let message = format!(
                "{} starts again at weight 0, because its step is no longer in spec.strategy.",
                candidate.version
            );
            return self.prepare(candidate.clone(), "StrategyChanged", &message);
        }
        if self.status.phase == RolloutPhase::Canary && self.unavailable(candidate) {
            // Requests that nobody answers are in no server's counters.
            let why = self
                .pod_trouble(candidate)
                .map_or_else(String::new, |trouble| format!(" {}", trouble.message));
            let message = format!("{} has no ready pod and takes live requests.{why}", candidate.version);
            return self.take_out(candidate, Fate::Rejected, "CandidateUnavailable", &message, readings);
        }
        self.status.verdict = draft::worst(&readings);
        let (duration, min_requests) = self.step_terms();
        let hold = self.hold(candidate, &judged, duration, min_requests);
        let max_hold = self.rollout.spec.judge.max_hold.get();
        let blind_for = self
            .status
            .holding_since
            .as_ref()
            .map_or(SignedDuration::ZERO, |since| self.now.duration_since(since.0));
        match hold {
            None if self.accepted_age().is_some_and(|age| age >= duration.get()) => {
                self.step_passed(candidate, readings)
            }
            None => self.waiting("Judging", "Every trigger passes; the step goes on."),
            Some(why)
                if self.step_age() > duration.get().saturating_add(max_hold) || blind_for > max_hold =>
            {
                let message = format!(
                    "{} could not be judged within {}: {why}.",
                    candidate.version, self.rollout.spec.judge.max_hold
                );
                self.take_out(candidate, Fate::Rejected, "HeldTooLong", &message, readings);
            }
            Some(why) => self.waiting("Holding", &format!("The step waits: {why}.")),
        }
    }

    /// Whether the strategy, which may have changed since, has the step that the status is in: the next one follows from
    /// its number.
    fn is_step_of_strategy(&self) -> bool {
        let (status, strategy) = (&self.status, &self.rollout.spec.strategy);
        match status.phase {
            RolloutPhase::Shadow => strategy.shadow.is_some(),
            RolloutPhase::Canary => {
                let index = usize::try_from(status.step_index).unwrap_or(usize::MAX);
                weights::steps(&strategy.canary).get(index) == Some(&status.weight)
            }
            RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => true,
        }
    }

    fn step_passed(&mut self, candidate: &VersionRef, readings: Vec<RecordedReading>) {
        let status = &self.status;
        let next = match status.phase {
            RolloutPhase::Canary => {
                usize::try_from(status.step_index).unwrap_or(usize::MAX).saturating_add(1)
            }
            RolloutPhase::Shadow
            | RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => 0,
        };
        self.canary_step(candidate, next, readings);
    }

    /// The verdict of every trigger. One that no metric defines is none: the API server refuses that, but a pass must not
    /// depend on it.
    fn judge(&self) -> Vec<(Verdict, RecordedReading)> {
        let spec = &self.rollout.spec;
        let now = self.snapshot.now;
        let queries = query::queries(self.snapshot.rollout, now);
        let missing = Answer::Vector(vec![]);
        let server = spec.prometheus.server();
        let one = |trigger: &String| {
            let Some(metric) = spec.metrics.iter().find(|metric| metric.name == *trigger) else {
                return reading::undefined(trigger);
            };
            let answer = self.snapshot.answers.get(trigger).unwrap_or(&missing);
            let query =
                queries.iter().find(|query| query.metric == *trigger).map_or("", |query| &query.expression);
            let reading = reading::read(metric, answer, spec.prometheus.stale_after, now);
            reading::judge(metric, &reading, &server, query)
        };
        spec.strategy.rollback_triggers.iter().map(one).collect()
    }

    /// Why the step may not end yet although nothing is wrong; keeps track of since when nothing can be read.
    fn hold(
        &mut self,
        candidate: &VersionRef,
        judged: &[(Verdict, RecordedReading)],
        duration: Span,
        min_requests: u32,
    ) -> Option<String> {
        let none = judged.is_empty().then(|| "there are no triggers".to_owned());
        let blind = none.or(judged.iter().find_map(|(verdict, record)| match verdict {
            Verdict::Hold(why) => Some(format!("{}: {why}", record.metric)),
            Verdict::Pass { .. } | Verdict::Breach => None,
        }));
        // The first scrapes of a step take a moment; that is not blindness yet.
        let settled = self.step_age() > self.rollout.spec.prometheus.stale_after.get();
        let now = Time(self.now);
        let since = self.status.holding_since.clone();
        self.status.holding_since = blind.as_ref().and(since.or(settled.then_some(now)));
        let truth = Truth::from(blind.is_none());
        let (reason, message) =
            blind.as_ref().map_or(("Fresh", "Every trigger has a fresh reading."), |why| ("NoReading", why));
        self.condition(METRICS_AVAILABLE, truth, reason, message);
        if blind.is_some() {
            return blind;
        }
        if !self.traffic_accepted() {
            return Some("the data plane has not taken the weights yet".into());
        }
        if !self.ready(candidate) {
            return Some("not all of the candidate's pods are ready".into());
        }
        let answered = judged.iter().filter_map(|(verdict, _)| match verdict {
            Verdict::Pass { step_requests } => Some(*step_requests),
            Verdict::Breach | Verdict::Hold(_) => None,
        });
        let answered = answered.fold(f64::INFINITY, f64::min);
        let waited = self.accepted_age().is_some_and(|age| age >= duration.get());
        (waited && answered < f64::from(min_requests))
            .then(|| format!("the candidate answered fewer than {min_requests} requests in this step"))
    }

    /// Shortest time and fewest requests of the current step.
    fn step_terms(&self) -> (Span, u32) {
        let strategy = &self.rollout.spec.strategy;
        match (self.status.phase, &strategy.shadow) {
            (RolloutPhase::Shadow, Some(shadow)) => (shadow.duration, shadow.min_requests),
            (
                RolloutPhase::Shadow
                | RolloutPhase::Canary
                | RolloutPhase::Pending
                | RolloutPhase::Preparing
                | RolloutPhase::Healthy
                | RolloutPhase::RolledBack,
                _,
            ) => (strategy.canary.interval, strategy.canary.min_requests),
        }
    }
}
