//! Checkpoints: the whole state of a run, complete or not there.
//!
//! A checkpoint is a folder with weights, progress, and a manifest with their digests that is written last. The newest
//! one that is whole is resumed; a damaged one is removed and the one before it taken. Nothing is ever removed but the
//! three files of a checkpoint, in a folder with a checkpoint's name: the folder around them may hold a user's files.

use std::{collections::BTreeMap, fmt};

use safetensors::{
    SafeTensors,
    tensor::{Dtype, TensorView, serialize},
};
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use crate::{
    artifact::digest_of,
    error::Failure,
    nn::LearnerState,
    run::Fence,
    storage::{Location, StorageError},
};

/// How many checkpoints are kept: a second one for when the newest is damaged.
const KEEP: usize = 2;
const MANIFEST: &str = "manifest.json";
const STATE: &str = "state.safetensors";
const PROGRESS: &str = "state.json";

/// Everything that a run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// How far the run is.
    pub progress: Progress,
    /// Weights and optimizer.
    pub learner: LearnerState,
    /// Weights of the best epoch; empty before the first ends.
    pub best: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema: u32,
    /// What the run's steps depend on; a checkpoint of other data or settings is of no use.
    fingerprint: String,
    files: BTreeMap<String, String>,
}

/// The folder of a run's checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: Location,
    fingerprint: String,
    fence: Fence,
}

impl Checkpoints {
    /// The checkpoints in `folder` of runs with this fingerprint.
    pub const fn new(folder: Location, fingerprint: String, fence: Fence) -> Self {
        Self { folder, fingerprint, fence }
    }

    /// Saves a checkpoint and removes all but the newest two.
    ///
    /// # Errors
    /// When the storage fails or a newer execution has started.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let own = Name { steps: checkpoint.progress.steps, execution: self.fence.own() };
        let folder = self.at(own);
        let files = BTreeMap::from([
            (STATE.to_owned(), tensors(checkpoint)?),
            (PROGRESS.to_owned(), json("state.json", &checkpoint.progress)?),
        ]);
        for (name, content) in &files {
            folder.join(name).write(content.clone())?;
        }
        let digests = files.iter().map(|(name, content)| (name.clone(), digest_of(content))).collect();
        let manifest = Manifest { schema: 1, fingerprint: self.fingerprint.clone(), files: digests };
        // Asked last: what an execution that was superseded wrote is no checkpoint without a manifest.
        self.fence.check()?;
        folder.join(MANIFEST).create(json("manifest.json", &manifest)?)?;
        Ok(self.tidy(own)?)
    }

    /// Removes what is older than the newest whole ones, and what earlier executions left unfinished. The one just
    /// written stays, whatever else is there.
    fn tidy(&self, own: Name) -> Result<(), StorageError> {
        let mut whole = 0;
        for name in self.names()?.into_iter().rev() {
            let is_whole = name == own || self.at(name).join(MANIFEST).stat()?.is_some();
            whole += usize::from(is_whole);
            let spare = if is_whole { whole > KEEP } else { name.execution < own.execution };
            if spare && name != own {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    /// The newest checkpoint that is whole; removes those that are not. `note` is told of each.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn newest(&self, mut note: impl FnMut(&str)) -> Result<Option<Checkpoint>, Failure> {
        for name in self.names()?.into_iter().rev() {
            match self.load(name) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(Unusable::Storage(error)) if !error.is_not_found() => return Err(error.into()),
                Err(why) => {
                    note(&format!("checkpoint {name} is of no use ({why}): going back to the one before"));
                    self.fence.check()?;
                    self.remove(name)?;
                }
            }
        }
        Ok(None)
    }

    /// Removes the run's checkpoints, because it is over.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn clear(&self) -> Result<(), StorageError> {
        self.names()?.into_iter().try_for_each(|name| self.remove(name))?;
        self.folder.remove_if_empty();
        Ok(())
    }

    /// The folders with a checkpoint's name, oldest first; others are none of ours.
    fn names(&self) -> Result<Vec<Name>, StorageError> {
        let mut names: Vec<_> =
            self.folder.list()?.folders.iter().filter_map(|name| Name::of(name)).collect();
        names.sort();
        Ok(names)
    }

    fn at(&self, name: Name) -> Location {
        self.folder.join(&name.to_string())
    }

    fn load(&self, name: Name) -> Result<Checkpoint, Unusable> {
        let folder = self.at(name);
        let manifest: Manifest = parse(MANIFEST, &folder.join(MANIFEST).read()?)?;
        if manifest.schema != 1 || manifest.fingerprint != self.fingerprint {
            return Err(Unusable::Other("it belongs to other data or settings".to_owned()));
        }
        let read = |name: &str| {
            let content = folder.join(name).read()?;
            match manifest.files.get(name) {
                Some(digest) if *digest == digest_of(&content) => Ok(content),
                Some(_) | None => Err(Unusable::Other(format!("the digest of {name} differs"))),
            }
        };
        let progress = parse(PROGRESS, &read(PROGRESS)?)?;
        let state = read(STATE)?;
        let broken = |error: safetensors::SafeTensorError| Unusable::Other(error.to_string());
        let tensors = SafeTensors::deserialize(&state).map_err(broken)?;
        let numbers = |name: &str| -> Result<Vec<f32>, Unusable> {
            let tensor = tensors.tensor(name).map_err(broken)?;
            Ok(tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        };
        let learner =
            LearnerState { weights: numbers("weights")?, mean: numbers("mean")?, square: numbers("square")? };
        Ok(Checkpoint { progress, learner, best: numbers("best")? })
    }

    fn remove(&self, name: Name) -> Result<(), StorageError> {
        let folder = self.at(name);
        // The manifest first: a folder without one is no checkpoint.
        for file in [MANIFEST, STATE, PROGRESS] {
            folder.join(file).remove()?;
        }
        folder.remove_if_empty();
        Ok(())
    }
}

/// Name of a checkpoint's folder, `step-<12 digits>-<6 digits>`; the newest is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    steps: u64,
    execution: u64,
}

impl Name {
    fn of(folder: &str) -> Option<Self> {
        let (steps, execution) = folder.strip_prefix("step-")?.split_once('-')?;
        let name = Self { steps: steps.parse().ok()?, execution: execution.parse().ok()? };
        (name.to_string() == folder).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step-{:012}-{:06}", self.steps, self.execution)
    }
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("{0}")]
    Other(String),
}

fn tensors(checkpoint: &Checkpoint) -> Result<Vec<u8>, Failure> {
    let Checkpoint { learner, best, .. } = checkpoint;
    let bytes =
        |numbers: &[f32]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_le_bytes()).collect() };
    let named = [
        ("weights", bytes(&learner.weights)),
        ("mean", bytes(&learner.mean)),
        ("square", bytes(&learner.square)),
        ("best", bytes(best)),
    ];
    named
        .iter()
        .map(|(name, bytes)| Ok((*name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .and_then(|views| serialize(views, None))
        .map_err(|error| Failure::Panic(format!("safetensors: {error}")))
}

fn json(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|source| Failure::Encoding { what, source })
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Unusable> {
    serde_json::from_slice(bytes).map_err(|error| Unusable::Other(format!("{name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn only_the_exact_name_of_a_checkpoint_is_one() {
        let name = Name { steps: 40, execution: 2 };
        assert_eq!(Name::of(&name.to_string()), Some(name));
        for other in [
            "step-40-2",
            "step-+00000000040-000002",
            "step-000000000040-000002-old",
            "step-000000000040",
            "my-step-000000000040-000002",
            "steps",
        ] {
            assert_eq!(Name::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_later_step_is_newer_whichever_execution_wrote_it() {
        let newest = Name { steps: 1_000_000_000_000, execution: 1 };
        assert!(newest > Name { steps: 999_999_999_999, execution: 9 });
        assert_eq!(Name::of(&newest.to_string()), Some(newest));
    }
}
