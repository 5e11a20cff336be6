//! A plan in the making: what has been decided so far, and the helpers with which every decision is written down.

use anneal_crds::{
    RetrainJobStatus,
    retrain_job::{ResolvedBaseline, RetrainPhase},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::batch::v1::Job, apimachinery::pkg::apis::meta::v1::Time};

use super::{build::Run, plan::Snapshot};
use crate::{
    condition::{KState, Truth, Writer, keep_refusal, keep_times, not_before},
    plan::{Action, Note, Plan, Severity, Wake},
};

/// How soon to look for what was just made.
pub(super) const SOON: SignedDuration = SignedDuration::from_secs(1);

/// A plan in the making.
pub(super) struct Draft<'a> {
    pub(super) snapshot: &'a Snapshot<'a>,
    pub(super) status: RetrainJobStatus,
    /// The time that is recorded: never before one that was.
    pub(super) now: Timestamp,
    pub(super) actions: Vec<Action>,
    notes: Vec<Note>,
    wake: Wake,
}

impl<'a> Draft<'a> {
    /// The status as it was read, and nothing to do.
    pub(super) fn new(snapshot: &'a Snapshot<'a>) -> Self {
        let job = snapshot.job;
        let mut status = job.status.clone().unwrap_or_default();
        status.observed_generation = job.metadata.generation;
        let times = [&status.started_at, &status.finished_at].map(Option::as_ref);
        let now = not_before(snapshot.now, &status.conditions, times);
        Self { snapshot, status, now, actions: vec![], notes: vec![], wake: Wake::OnChange }
    }

    /// The plan.
    pub(super) fn finish(mut self) -> Plan<RetrainJobStatus> {
        if let Some(before) = &self.snapshot.job.status {
            keep_times(&before.conditions, &mut self.status.conditions);
            if !self.actions.is_empty() && before.phase == self.status.phase {
                keep_refusal(&before.conditions, &mut self.status.conditions);
            }
        }
        Plan { status: self.status, actions: self.actions, notes: self.notes, wake: self.wake }
    }

    pub(super) fn age(&self, child: &Job) -> SignedDuration {
        let created = child.metadata.creation_timestamp.as_ref();
        created.map_or(SignedDuration::ZERO, |created| self.snapshot.now.duration_since(created.0))
    }

    pub(super) fn wake_after(&mut self, span: SignedDuration) {
        // By the clock as it is: a recorded time that lies ahead must not put anything off.
        self.wake = Wake::after(self.snapshot.now, span);
    }

    /// The run as the status fixed it; fails a status that lost what it must have.
    pub(super) fn run(&mut self) -> Option<(Run<'a>, ResolvedBaseline)> {
        let metadata = &self.snapshot.job.metadata;
        let (Some(namespace), Some(name), Some(uid)) =
            (metadata.namespace.as_deref(), metadata.name.as_deref(), metadata.uid.as_deref())
        else {
            return None;
        };
        let (Some(attempt), Some(baseline)) = (self.status.attempt, self.status.baseline.clone()) else {
            self.fail("StatusLost", "The status lost its baseline. Create the RetrainJob again.");
            return None;
        };
        Some((Run { job: self.snapshot.job, namespace, name, uid, attempt }, baseline))
    }

    pub(super) fn fail(&mut self, reason: &str, message: &str) {
        self.status.finished_at = Some(Time(self.now));
        if reason == anneal_crds::contract::ExitCode::BadData.reason() {
            self.condition("DataValidated", Truth::False, reason, message);
        }
        self.condition("Failed", Truth::True, reason, message);
        self.enter(RetrainPhase::Failed, KState::Stalled, reason, message);
    }

    pub(super) fn enter(&mut self, phase: RetrainPhase, state: KState, reason: &str, message: &str) {
        self.status.phase = phase;
        self.kstatus(state, reason, message);
        let severity = match phase {
            RetrainPhase::Failed | RetrainPhase::Rejected => Severity::Warning,
            RetrainPhase::Pending
            | RetrainPhase::Training
            | RetrainPhase::Registering
            | RetrainPhase::Succeeded => Severity::Normal,
        };
        self.notes.push(Note { severity, reason: reason.to_owned(), message: message.to_owned() });
    }

    pub(super) fn kstatus(&mut self, state: KState, reason: &str, message: &str) {
        self.writer().set_kstatus(state, reason, message);
    }

    pub(super) fn condition(&mut self, type_: &str, truth: Truth, reason: &str, message: &str) {
        self.writer().set(type_, truth, reason, message);
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer {
            conditions: &mut self.status.conditions,
            generation: self.snapshot.job.metadata.generation,
            now: self.now,
        }
    }
}
