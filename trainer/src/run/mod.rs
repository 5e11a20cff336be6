//! `train`: one run, in the order in which it happens.
//!
//! job file -> data -> schema -> train -> artifact -> evaluate -> gates -> result. The result is written last and once;
//! before it, nothing of the run counts. Called by `main`.

mod compare;
mod fence;
mod folders;
mod version;

use std::time::Duration;

use anneal_core::gates::passed;
use anneal_crds::{
    contract::{ExitCode, RESULT_SCHEMA, RowSet, RunResult},
    model_version::Artifact,
    retrain_job::ResolvedBaseline,
};
use serde_json::json;
use tokio::runtime::Handle;

pub use fence::Fence;
pub use folders::Folders;
pub use version::VersionManifest;

use crate::{
    artifact::{Description, Provenance, describe, digest_of, model_files},
    data::{self, DataError, Sets},
    error::Failure,
    evaluate::score,
    job::Job,
    nn::{Choice, Compute, LIBTORCH_VERSION, Network, choose},
    schema::{Schema, encode_features, encode_targets, trace},
    train::{self, Checkpoints, Encoded, Observer, Plan, Stop, Trained},
};

/// A run to be done, and how.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub job: Job,
    /// Where it writes.
    pub folders: Folders,
    /// What to compute on.
    pub device: Choice,
    /// Threads, at least 1; a checkpoint's own number stands before it.
    pub threads: u32,
}

/// Trains, evaluates, judges and publishes the result. A run that has a result is not trained again.
///
/// # Errors
/// [`Failure`] says why there is no result and which exit code follows.
pub fn run(
    runtime: &Handle,
    request: &Request,
    observer: &Observer,
    stop: &Stop,
) -> Result<RunResult, Failure> {
    let Request { job, folders, .. } = request;
    if let Some(result) = folders.result()? {
        observer.say("this run has a result already: reporting it again");
        return Ok(result);
    }
    let policy = &job.spec.failure_policy;
    let fence =
        Fence::enter(&folders.executions, 1 + u64::from(policy.max_retries) + u64::from(policy.max_resumes))?;
    let sets = data::load(runtime, &job.spec.data)?;
    let traced = Traced::new(&sets)?;
    observer.say(&format!(
        "{} training and {} validation rows, {} columns",
        sets.train.count,
        sets.validation.count,
        traced.schema.features.len()
    ));
    let gpu = job.asks_for_gpu();
    let compute = choose(request.device, gpu, job.spec.trainer.allow_cpu_fallback)?;
    if gpu && compute == Compute::CPU {
        observer.say("a GPU was asked for and cannot be used: training on the processor, as trainer.allowCpuFallback says");
    }
    let checkpoints = traced.checkpoints(request, &fence);
    let trained = traced.train(request, compute, &checkpoints, observer, stop)?;
    let artifact = write_artifact(request, &traced, &trained, compute, &fence)?;
    let evidence = compare::compare(runtime, job, &artifact, &sets.validation, compute)?;
    let version = match passed(&evidence.gates) {
        true => {
            fence.check()?;
            Some(version::allocate(&folders.model, &job.spec.model, job.run.as_str(), &artifact)?)
        }
        false => None,
    };
    let result = RunResult {
        schema: RESULT_SCHEMA,
        run_uid: job.run.as_str().to_owned(),
        artifact,
        version,
        device: compute.device,
        stop: trained.stop,
        epochs: trained.progress.epochs,
        best_epoch: trained.best.epoch,
        train: traced.train_rows,
        validation: traced.validation_rows,
        schema_digest: traced.schema_digest,
        candidate: evidence.candidate,
        baseline: evidence.baseline,
        gates: evidence.gates,
        seconds: trained.progress.seconds,
    };
    let result = folders.publish(result, &fence)?;
    // The run is over, whatever becomes of them.
    if let Err(error) = checkpoints.clear() {
        observer.say(&format!("the checkpoints stay: {error}"));
    }
    Ok(result)
}

/// How a process ends that reports this result.
pub fn exit_code(result: &RunResult) -> ExitCode {
    if passed(&result.gates) && result.version.is_some() { ExitCode::Done } else { ExitCode::GateFailed }
}

/// What is known of the data before a device is touched.
struct Traced {
    schema: Schema,
    schema_digest: String,
    train: Encoded,
    validation: Encoded,
    train_rows: RowSet,
    validation_rows: RowSet,
}

impl Traced {
    fn new(sets: &Sets) -> Result<Self, Failure> {
        let schema = trace(&sets.train)?;
        let text = serde_json::to_vec(&schema)
            .map_err(|source| Failure::Encoding { what: "schema.json", source })?;
        let encode = |rows| -> Result<Encoded, Failure> {
            Ok(Encoded { inputs: encode_features(&schema, rows)?, targets: encode_targets(&schema, rows)? })
        };
        let rows = |rows: &data::Rows| RowSet { rows: rows.count as u64, digest: data::digest(rows) };
        let (train_rows, validation_rows) = (rows(&sets.train), rows(&sets.validation));
        // Whatever the files are called.
        if train_rows == validation_rows {
            return Err(DataError::SameRows { rows: sets.train.count }.into());
        }
        Ok(Self {
            schema_digest: digest_of(&text),
            train: encode(&sets.train)?,
            validation: encode(&sets.validation)?,
            train_rows,
            validation_rows,
            schema,
        })
    }

    fn checkpoints(&self, request: &Request, fence: &Fence) -> Checkpoints {
        let training = &request.job.spec.training;
        let depends_on = json!([training, self.schema_digest, self.train_rows, self.validation_rows]);
        let fingerprint = digest_of(depends_on.to_string().as_bytes());
        Checkpoints::new(request.folders.checkpoints.clone(), fingerprint, fence.clone())
    }

    fn train(
        &self,
        request: &Request,
        compute: Compute,
        checkpoints: &Checkpoints,
        observer: &Observer,
        stop: &Stop,
    ) -> Result<Trained, Failure> {
        let spec = &request.job.spec;
        let plan = Plan {
            training: &spec.training,
            schema: &self.schema,
            train: &self.train,
            validation: &self.validation,
            compute,
            threads: request.threads,
            checkpoint_every: Duration::from_millis(
                u64::try_from(spec.checkpoint.every.as_millis()).unwrap_or(1),
            ),
        };
        train::train(&plan, checkpoints, observer, stop)
    }
}

fn write_artifact(
    request: &Request,
    traced: &Traced,
    trained: &Trained,
    compute: Compute,
    fence: &Fence,
) -> Result<Artifact, Failure> {
    let job = &request.job;
    let mut files = model_files(&traced.schema, &trained.architecture, &trained.weights)?;
    let network = Network::new(&trained.architecture, &trained.weights, compute)?;
    let outputs = network.infer(&traced.validation.inputs)?;
    let baseline = match &job.baseline {
        Some(ResolvedBaseline::Version(baseline)) => Some(&baseline.version),
        Some(ResolvedBaseline::Bootstrap(_)) | None => None,
    };
    let about = Description {
        spec: &job.spec,
        schema: &traced.schema,
        evaluation: &score(&traced.schema, &outputs, &traced.validation.targets),
        history: &trained.progress.history,
        provenance: Provenance {
            run_uid: job.run.as_str(),
            job: &job.name,
            trainer: env!("CARGO_PKG_VERSION"),
            libtorch: LIBTORCH_VERSION,
            device: compute.device,
            threads: trained.progress.threads,
            train: traced.train_rows.clone(),
            validation: traced.validation_rows.clone(),
            stop: trained.stop,
            best_epoch: trained.best.epoch,
            baseline,
            weights: digest_of(files.get(crate::artifact::MODEL_FILE)),
        },
    };
    describe(&mut files, &about)?;
    fence.check()?;
    Ok(files.write(&request.folders.model)?)
}
