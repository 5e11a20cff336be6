//! An artifact: the files of a model in a folder that is named by their digest and never changes.
//!
//! `run` writes one after training and reads it back before it evaluates; `evaluate` and `serve` read one. Nothing of
//! an artifact is used before its files were compared with `SHA256SUMS`, and that with the digest if one is known.

mod describe;
mod files;
mod model;

use anneal_crds::contract::ExitCode;

use crate::{nn::NnError, storage::StorageError};

pub use describe::{Description, HistoryEntry, Provenance, describe};
pub use files::Files;
pub(crate) use files::digest_of;
pub use model::{Model, model_files};

/// Name of the weights' file.
pub const MODEL_FILE: &str = "model.safetensors";
/// Name of the architecture's file.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the schema's file.
pub const SCHEMA_FILE: &str = "schema.json";
/// Name of the list of digests, whose own digest is the artifact's.
pub const SUMS_FILE: &str = "SHA256SUMS";

/// Why an artifact cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// It cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its content is not what was recorded.
    #[error(
        "{uri} is not what was recorded ({file} has digest {found} instead of {expected}): restore the artifact, and do not serve this one"
    )]
    Digest {
        /// The artifact.
        uri: String,
        /// Which of its files.
        file: String,
        /// The digest of the file.
        found: String,
        /// The digest that was recorded.
        expected: String,
    },
    /// A file has the wrong shape.
    #[error("{uri}: {file} cannot be used ({cause}): use an artifact that this trainer wrote")]
    Malformed {
        /// The artifact.
        uri: String,
        /// Which of its files.
        file: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// libtorch refused.
    #[error(transparent)]
    Nn(#[from] NnError),
}

impl ArtifactError {
    /// How a process ends for which this is the reason.
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::Storage(error) if error.is_not_found() => ExitCode::BadData,
            Self::Storage(_) => ExitCode::Storage,
            Self::Digest { .. } | Self::Malformed { .. } => ExitCode::BadData,
            Self::Nn(NnError::OutOfMemory(_)) => ExitCode::OutOfMemory,
            Self::Nn(NnError::Torch(_)) => ExitCode::Bug,
        }
    }
}
