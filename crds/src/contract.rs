//! The contract between operator and trainer: environment, exit codes, result and notice.
//!
//! Any image may fulfil it; `anneal-trainer` is the reference. The operator reads no storage: the trainer writes
//! `result.json` last, then the same result as its termination message ([`Notice`]). When that message is lost, a pod
//! with the same rights reads `result.json` and reports it again.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    gates::{Enforcement, EvalMetric},
    model_version::Artifact,
};

/// Uid of the RetrainJob; names the run's folder.
pub const ENV_RUN_UID: &str = "ANNEAL_RUN_UID";
/// Number of the child Job, from 1.
pub const ENV_ATTEMPT: &str = "ANNEAL_ATTEMPT";
/// Folder of all models, as in the spec.
pub const ENV_OUTPUT_URI: &str = "ANNEAL_OUTPUT_URI";
/// Folder of this run's checkpoints. The reference trainer makes a folder for each run in any but the one that the
/// operator gives, `<output>/<model>/runs/<uid>/checkpoints`.
pub const ENV_CHECKPOINT_URI: &str = "ANNEAL_CHECKPOINT_URI";

/// Seconds that a server keeps answering after it was asked to stop, until the data plane sends nobody there any more.
pub const SERVE_DRAIN_SECONDS: u32 = 10;
/// Seconds that the last requests may still take after the drain.
pub const SERVE_LAST_REQUESTS_SECONDS: u32 = 30;
/// Seconds between the request to stop and the kill of a serving pod: more than the server takes by itself.
pub const SERVE_GRACE_SECONDS: u32 = SERVE_DRAIN_SECONDS + SERVE_LAST_REQUESTS_SECONDS + 5;

/// Counter of a serving pod: copied requests whose answer it compared with two of the stable version's, by model, version
/// and [`COMPARED_RESULT`], zero from the start.
pub const COMPARED: &str = "anneal_serve_compared_total";
/// Label of [`COMPARED`] that says what came of it: a name of [`Differs`].
pub const COMPARED_RESULT: &str = "result";

/// Of which of the two versions something is so, and not of the other: the results of [`COMPARED`] and [`PAIRED`] that say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// The version in shadow.
    Candidate,
    /// The stable version.
    Stable,
}

impl Alone {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Candidate, Self::Stable];

    /// As the label has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Stable => "stable",
        }
    }
}

/// Who answered a request otherwise: the version in shadow, or the stable one when it was asked once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differs {
    /// All three answers are the same.
    Nobody,
    /// The version in shadow alone.
    Candidate,
    /// The stable version alone.
    Stable,
    /// Both differ from the stable version's first answer.
    Both,
}

impl Differs {
    /// All results.
    pub const ALL: [Self; 4] = [Self::Nobody, Self::Candidate, Self::Stable, Self::Both];

    /// As the label has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Candidate => Alone::Candidate.name(),
            Self::Stable => Alone::Stable.name(),
            Self::Both => "both",
        }
    }
}

/// Counter of a serving pod: labels of copied requests whose answers it compared, by model, version and [`COMPARED_RESULT`],
/// zero from the start.
pub const PAIRED: &str = "anneal_serve_paired_total";

/// Who was right about a request whose label came; of two numbers, whichever is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WasRight {
    /// The version in shadow and the stable one, or both are as near.
    Both,
    /// The version in shadow alone.
    Candidate,
    /// The stable version alone.
    Stable,
    /// None of the two.
    Neither,
}

impl WasRight {
    /// All results.
    pub const ALL: [Self; 4] = [Self::Both, Self::Candidate, Self::Stable, Self::Neither];

    /// As the label has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Candidate => Alone::Candidate.name(),
            Self::Stable => Alone::Stable.name(),
            Self::Neither => "neither",
        }
    }
}

/// Most bytes that Kubernetes keeps of a termination message.
pub const NOTICE_LIMIT: usize = 4096;

/// How a trainer process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExitCode {
    /// A result was written; the gates let the version pass.
    Done,
    /// Anything without a code of its own.
    Unclassified,
    /// The job file asks for something impossible.
    BadConfiguration,
    /// Data are missing, malformed or too few.
    BadData,
    /// A result was written; a required gate did not pass.
    GateFailed,
    /// The loss became infinite or not a number.
    Diverged,
    /// Out of memory.
    OutOfMemory,
    /// Storage or network failed.
    Storage,
    /// The device asked for cannot be used.
    Device,
    /// A bug in the trainer.
    Bug,
    /// Asked to stop; a checkpoint was saved.
    Interrupted,
}

impl ExitCode {
    /// All codes.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::Unclassified,
        Self::BadConfiguration,
        Self::BadData,
        Self::GateFailed,
        Self::Diverged,
        Self::OutOfMemory,
        Self::Storage,
        Self::Device,
        Self::Bug,
        Self::Interrupted,
    ];

    /// The process's exit code.
    pub const fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Unclassified => 1,
            Self::BadConfiguration => 2,
            Self::BadData => 3,
            Self::GateFailed => 4,
            Self::Diverged => 5,
            Self::OutOfMemory => 6,
            Self::Storage => 7,
            Self::Device => 8,
            Self::Bug => 70,
            Self::Interrupted => 75,
        }
    }

    /// The reason that the operator gives for a run that ended so, CamelCase.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Done => "ResultMissing",
            Self::Unclassified => "TrainerFailed",
            Self::BadConfiguration => "InvalidConfiguration",
            Self::BadData => "InvalidData",
            Self::GateFailed => "ResultMissing",
            Self::Diverged => "Diverged",
            Self::OutOfMemory => "OutOfMemory",
            Self::Storage => "StorageUnavailable",
            Self::Device => "DeviceUnavailable",
            Self::Bug => "TrainerBug",
            Self::Interrupted => "Interrupted",
        }
    }

    /// The meaning of a process's exit code; unknown ones are unclassified, and 101 is a Rust panic.
    pub fn of(code: i32) -> Self {
        if code == 101 {
            return Self::Bug;
        }
        Self::ALL.into_iter().find(|known| known.code() == code).unwrap_or(Self::Unclassified)
    }
}

/// Whether the target is a class or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// The target is one of a few values; the loss is cross-entropy.
    Classification,
    /// The target is a number; the loss is the mean squared error.
    Regression,
}

/// The trainer's termination message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Notice {
    /// A copy of `result.json`.
    Result(Box<RunResult>),
    /// Why there is no result, in one sentence that tells what to do.
    Failure(FailureNotice),
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureNotice {
    /// One sentence that tells what to do.
    pub message: String,
}

/// The only version of [`RunResult`] that is understood.
pub const RESULT_SCHEMA: u32 = 1;

/// `result.json`: what a run found out. Written once, last, and never changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// Version of this shape; a reader that does not know it refuses the result.
    pub schema: u32,
    /// Uid of the RetrainJob.
    pub run_uid: String,
    /// The artifact, also when a gate did not pass.
    pub artifact: Artifact,
    /// The version that was set aside for the artifact; none when a required gate did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The device that was used.
    pub device: Device,
    /// Why training stopped.
    pub stop: StopReason,
    /// Epochs trained.
    pub epochs: u32,
    /// Epoch of the weights that were kept, from 1.
    pub best_epoch: u32,
    /// Training rows and their digest.
    pub train: RowSet,
    /// Validation rows and their digest.
    pub validation: RowSet,
    /// Digest of the traced schema.
    pub schema_digest: String,
    /// The candidate, loaded again from its artifact, on the validation rows.
    pub candidate: Evaluation,
    /// The baseline on the same rows by the same evaluator; none when there is no baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineEvaluation>,
    /// The verdicts, in the order of the spec.
    pub gates: Vec<GateOutcome>,
    /// Seconds from start to result, over all executions.
    pub seconds: f64,
}

/// A set of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RowSet {
    /// How many.
    pub rows: u64,
    /// `sha256:` of their content.
    pub digest: String,
}

/// A model on the validation rows. Metrics that do not apply to the task, or are not finite, are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// Rows that were evaluated.
    pub rows: u64,
    /// The metrics.
    #[schemars(length(max = 16))]
    pub metrics: Vec<MetricValue>,
}

impl Evaluation {
    /// A metric's value, if it was computed and is finite.
    pub fn get(&self, metric: EvalMetric) -> Option<f64> {
        self.metrics.iter().find(|m| m.name == metric).map(|m| m.value).filter(|value| value.is_finite())
    }
}

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricValue {
    /// Which metric.
    pub name: EvalMetric,
    /// Its value, in the metric's own unit.
    pub value: f64,
}

/// The baseline on the same rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BaselineEvaluation {
    /// Digest of the baseline's artifact.
    pub digest: String,
    /// Whether its traced dimensions are the candidate's; if not, what differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_difference: Option<String>,
    /// What it showed.
    pub evaluation: Evaluation,
}

/// The verdict of one gate, with what it was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateOutcome {
    /// The gate, such as `ironLaw` or `value/accuracy`.
    pub gate: String,
    /// Whether it can stop the version.
    pub enforcement: Enforcement,
    /// The verdict.
    pub verdict: GateVerdict,
    /// The comparison in one sentence with both numbers.
    pub message: String,
}

/// What a gate said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateVerdict {
    /// The candidate showed what was asked.
    Pass,
    /// It did not.
    Fail,
    /// There was nothing to compare, or a number was missing or not finite. Never a pass.
    NotEvaluable,
    /// There is no baseline and this run was allowed to start without one.
    Bootstrap,
}

/// What computed; written `cpu` or `cuda:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub enum Device {
    /// The processor.
    Cpu,
    /// A CUDA device, by number.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(index)) => Ok(Self::Cuda(index)),
            None if text == "cpu" => Ok(Self::Cpu),
            Some(Err(_)) | None => Err(format!("`{text}` is not a device: expected cpu or cuda:0")),
        }
    }
}

/// Why training stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StopReason {
    /// The validation loss no longer fell.
    EarlyStop,
    /// All epochs were trained.
    MaxEpochs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_read_back_as_written_and_a_panic_is_a_bug() {
        for code in ExitCode::ALL {
            assert_eq!(ExitCode::of(code.code()), code);
        }
        assert_eq!(ExitCode::of(101), ExitCode::Bug);
        assert_eq!(ExitCode::of(137), ExitCode::Unclassified);
    }
}
