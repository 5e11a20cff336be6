//! Where a run reads and writes: `<output>/<model>/{runs/<uid>, blobs, versions}`.

use anneal_crds::{common::shorten, contract::RunResult};
use tokio::runtime::Handle;

use super::Fence;
use crate::{
    error::Failure,
    job::Job,
    storage::{Creation, Location},
};

/// Longest URI of the folder of all models, as JSON writes it. With it the notice of every result fits.
const MAX_OUTPUT_URI: usize = 512;

fn short_enough(uri: &str) -> Result<(), Failure> {
    let length = serde_json::to_string(uri).map_or(usize::MAX, |text| text.len() - 2);
    if length <= MAX_OUTPUT_URI {
        return Ok(());
    }
    let uri = shorten(uri, 60);
    Err(Failure::Usage(format!(
        "the output folder {uri} has {length} bytes in JSON: give one with at most {MAX_OUTPUT_URI}"
    )))
}

/// The folders of a run.
#[derive(Clone, Debug)]
pub struct Folders {
    /// `<output>/<model>`.
    pub model: Location,
    /// `…/runs/<uid>/executions`.
    pub executions: Location,
    /// `…/runs/<uid>/checkpoints`, or `<model>/<uid>` in the folder that was given.
    pub checkpoints: Location,
    /// `…/runs/<uid>/result.json`.
    pub result: Location,
}

impl Folders {
    /// The folders of a job's run; `output` and `checkpoints` stand before the job's own.
    ///
    /// # Errors
    /// When a URI names no place, or is too long to be reported.
    pub fn open(
        runtime: &Handle,
        job: &Job,
        output: Option<&str>,
        checkpoints: Option<&str>,
    ) -> Result<Self, Failure> {
        let output = Location::open(runtime, output.unwrap_or(&job.spec.output.uri))?;
        short_enough(&output.uri())?;
        let model = output.join(&job.spec.model);
        let run = model.join("runs").join(job.run.as_str());
        let own = run.join("checkpoints");
        let checkpoints = match checkpoints {
            // Whoever gives a folder may give it to several runs, which must not take each other's for their own.
            Some(uri) => match Location::open(runtime, uri)? {
                given if given.uri() == own.uri() => own,
                given => given.join(&job.spec.model).join(job.run.as_str()),
            },
            None => own,
        };
        Ok(Self { model, executions: run.join("executions"), checkpoints, result: run.join("result.json") })
    }

    /// The run's result, if it was published.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn result(&self) -> Result<Option<RunResult>, Failure> {
        let Some(bytes) = self.result.read_if_exists()? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Failure::Unreadable { uri: self.result.uri(), cause: error.to_string() })
    }

    /// Publishes the result, last and once. If there is one already, that is the run's result.
    ///
    /// # Errors
    /// When the storage fails or a newer execution has started.
    pub fn publish(&self, result: RunResult, fence: &Fence) -> Result<RunResult, Failure> {
        let text = serde_json::to_vec_pretty(&result)
            .map_err(|source| Failure::Encoding { what: "result.json", source })?;
        fence.check()?;
        match self.result.create(text)? {
            Creation::Created => Ok(result),
            Creation::Existed => Ok(self.result()?.unwrap_or(result)),
        }
    }
}
