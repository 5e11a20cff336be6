//! Why a command ended without what it was asked for, and with which exit code.

use anneal_crds::contract::ExitCode;

use crate::{
    artifact::ArtifactError, data::DataError, job::JobError, nn::DeviceError, nn::NnError,
    schema::EncodeError, storage::StorageError,
};

/// A failed command. Every message is one sentence that ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The job file.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Rows that do not fit an artifact.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// libtorch.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// The loss is not finite.
    #[error(
        "the {set} loss is {value} after step {step}: lower training.optimizer.learningRate or check the data for extreme values"
    )]
    Diverged {
        /// `training` or `validation`.
        set: &'static str,
        /// The loss.
        value: f64,
        /// Steps so far.
        step: u64,
    },
    /// Another execution of the same run has started.
    #[error(
        "execution {own} of this run was superseded by execution {newest}: nothing needs to be done, the newer one goes on"
    )]
    Superseded {
        /// This execution.
        own: u64,
        /// The newest.
        newest: u64,
    },
    /// Too many executions.
    #[error(
        "this run was started {started} times and failurePolicy allows {allowed}: find out what interrupts it, then create a new RetrainJob"
    )]
    TooManyExecutions {
        /// Executions with this one.
        started: u64,
        /// 1 + maxRetries + maxResumes.
        allowed: u64,
    },
    /// The process was asked to stop.
    #[error("asked to stop after step {step}: a checkpoint is saved, and the next execution goes on from it")]
    Interrupted {
        /// Steps so far.
        step: u64,
    },
    /// `report` found no result.
    #[error("{uri} does not exist: the run has not finished, so run `train` again")]
    NoResult {
        /// Where it should be.
        uri: String,
    },
    /// A file that the trainer itself wrote cannot be understood.
    #[error("{uri} cannot be understood ({cause}): use the trainer image that wrote it")]
    Unreadable {
        /// Which file.
        uri: String,
        /// Why.
        cause: String,
    },
    /// A value could not be written as JSON.
    #[error("cannot write {what} ({source}): report this as a bug with the job file")]
    Encoding {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The machine refused something other than storage.
    #[error("cannot {action} ({source}): check the address, the port and the permissions of the container")]
    System {
        /// What was tried.
        action: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A command line that asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// A bug.
    #[error("the trainer panicked ({0}): report this as a bug with the job file")]
    Panic(String),
}

impl Failure {
    /// How the process ends.
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::Job(_)
            | Self::TooManyExecutions { .. }
            | Self::Usage(_)
            | Self::Storage(StorageError::NoConditions { .. } | StorageError::Uri(_)) => {
                ExitCode::BadConfiguration
            }
            Self::Data(DataError::Storage(_)) | Self::Storage(_) => ExitCode::Storage,
            Self::Data(_) | Self::Encode(_) | Self::NoResult { .. } | Self::Unreadable { .. } => {
                ExitCode::BadData
            }
            Self::Artifact(error) => error.exit_code(),
            Self::Device(_) => ExitCode::Device,
            Self::Nn(NnError::OutOfMemory(_)) => ExitCode::OutOfMemory,
            Self::Nn(NnError::Torch(_)) | Self::Encoding { .. } | Self::Panic(_) => ExitCode::Bug,
            Self::Diverged { .. } => ExitCode::Diverged,
            Self::Superseded { .. } | Self::System { .. } => ExitCode::Unclassified,
            Self::Interrupted { .. } => ExitCode::Interrupted,
        }
    }
}
