//! From a result to a record: the evidence decides, and what passed becomes a ModelVersion.

use anneal_crds::{
    contract::{GateOutcome, GateVerdict, RunResult},
    gates::Enforcement,
    retrain_job::{ResolvedBaseline, RetrainPhase},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    build::{self, Run},
    draft::{Draft, SOON},
    outcome,
};
use crate::{
    condition::{KState, Truth},
    gates,
    plan::Action,
};

impl Draft<'_> {
    /// A result is there: its evidence decides, not its word.
    pub(super) fn conclude(&mut self, run: Run<'_>, baseline: &ResolvedBaseline, mut result: RunResult) {
        let outcomes = match outcome::judge(&run.job.spec, run.uid, baseline, &result) {
            Ok(outcomes) => outcomes,
            Err(why) => {
                return self.fail("ResultInvalid", &format!("The trainer's result cannot be used: {why}."));
            }
        };
        let passed = gates::passed(&outcomes);
        self.status.gates = Some(tally(&outcomes));
        let summary = sentence(&outcomes);
        result.gates = outcomes;
        let version = result.version.clone();
        self.status.result = Some(result);
        self.condition("DataValidated", Truth::True, "Valid", "The data passed their checks.");
        match (passed, version) {
            (true, Some(version)) => {
                self.status.version = Some(version);
                self.condition("GatesPassed", Truth::True, "Passed", &summary);
                self.enter(RetrainPhase::Registering, KState::Reconciling, "GatesPassed", &summary);
                self.registering();
            }
            (true, None) => {
                self.fail("ResultInvalid", "The gates pass but the trainer set no version aside. Use a trainer image of this release.");
            }
            (false, _) => {
                self.status.finished_at = Some(Time(self.now));
                self.condition("GatesPassed", Truth::False, "Rejected", &summary);
                self.condition("Complete", Truth::True, "Rejected", &summary);
                self.enter(RetrainPhase::Rejected, KState::Ready, "Rejected", &summary);
            }
        }
    }

    /// Registering: the ModelVersion exists or is made.
    pub(super) fn registering(&mut self) {
        let Some((run, baseline)) = self.run() else { return };
        let (Some(version), Some(result)) = (self.status.version.clone(), self.status.result.clone()) else {
            return self.fail("StatusLost", "The status lost its result. Create the RetrainJob again.");
        };
        match self.snapshot.version {
            None => {
                self.actions.push(Action::Create(build::model_version(run, &baseline, &result, &version)));
                // RetrainJobs do not watch ModelVersions.
                self.wake_after(SOON);
            }
            Some(record) if record.spec.origin.uid == run.uid && record.spec.artifact == result.artifact => {
                let message = format!("{} is recorded as {version}.", run.job.spec.model);
                self.status.finished_at = Some(Time(self.now));
                self.condition("Registered", Truth::True, "Recorded", &message);
                self.condition("Complete", Truth::True, "Succeeded", &message);
                self.enter(RetrainPhase::Succeeded, KState::Ready, "Succeeded", &message);
            }
            Some(_) => self.fail(
                "VersionConflict",
                &format!("A ModelVersion for {version} exists that another run made. Give each cluster an output folder of its own."),
            ),
        }
    }
}

fn tally(outcomes: &[GateOutcome]) -> String {
    let passed = outcomes
        .iter()
        .filter(|outcome| matches!(outcome.verdict, GateVerdict::Pass | GateVerdict::Bootstrap))
        .count();
    format!("{passed}/{}", outcomes.len())
}

/// The verdicts that decided, in one line.
fn sentence(outcomes: &[GateOutcome]) -> String {
    let (stopped, passed): (Vec<_>, Vec<_>) = outcomes
        .iter()
        .filter(|outcome| outcome.enforcement == Enforcement::Required)
        .partition(|outcome| !gates::passed(std::slice::from_ref(outcome)));
    let decisive = if stopped.is_empty() { passed } else { stopped };
    decisive
        .iter()
        .map(|outcome| format!("{}: {}", outcome.gate, outcome.message))
        .collect::<Vec<_>>()
        .join("; ")
}
