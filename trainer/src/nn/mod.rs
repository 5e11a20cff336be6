//! Everything that calls libtorch, and the only place that does.
//!
//! The rest of the trainer sees slices of numbers. Every call that can fail is the fallible one, so a lack of memory or
//! a wrong shape is an [`NnError`] and never a panic. Nothing here reads a clock, a file or the environment.

mod adamw;
mod cuda;
mod device;
mod learner;
mod mlp;

pub use device::{Choice, Compute, DeviceError, choose};
pub use learner::{Learner, LearnerState, StepOptions, TaskTargets};
pub use mlp::{Architecture, Network, Parameter};

/// libtorch refused.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// Not enough memory on the processor or the device.
    #[error(
        "out of memory ({0}): lower training.batchSize or training.hidden, or raise the memory limit of trainer.resources"
    )]
    OutOfMemory(String),
    /// Anything else is a bug: shapes are checked before.
    #[error("libtorch failed ({0}): report this as a bug with the job file")]
    Torch(String),
}

impl From<tch::TchError> for NnError {
    fn from(error: tch::TchError) -> Self {
        // The first line says what happened; a C++ stack trace follows.
        let text = error.to_string();
        let line =
            text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned();
        let lower = text.to_lowercase();
        let memory =
            ["out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory"];
        if memory.iter().any(|words| lower.contains(words)) {
            Self::OutOfMemory(line)
        } else {
            Self::Torch(line)
        }
    }
}

/// Sets how many threads a computation may use; results depend on it in their last bits.
pub fn set_threads(threads: u32) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

/// The libtorch that the trainer is built for.
pub const LIBTORCH_VERSION: &str = "2.11.0";

#[cfg(test)]
mod tests {
    use super::NnError;

    #[test]
    fn a_lack_of_memory_is_told_from_other_errors() {
        let error = |text: &str| NnError::from(tch::TchError::Torch(text.to_owned()));
        assert!(matches!(
            error("\nCUDA out of memory. Tried to allocate 2 GiB\nframe #0"),
            NnError::OutOfMemory(_)
        ));
        assert!(matches!(
            error("DefaultCPUAllocator: can't allocate memory: you tried"),
            NnError::OutOfMemory(_)
        ));
        assert!(matches!(error("mat1 and mat2 shapes cannot be multiplied"), NnError::Torch(_)));
    }
}
