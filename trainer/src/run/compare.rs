//! Candidate and baseline, each loaded from its artifact, by the same evaluator on the same rows.

use anneal_core::gates::{Comparison, judge};
use anneal_crds::{
    common::shorten,
    contract::{BaselineEvaluation, Evaluation, GateOutcome},
    model_version::Artifact,
    retrain_job::{BaselineVersion, ResolvedBaseline, WhenMissing},
};
use tokio::runtime::Handle;

use crate::{
    artifact::Model,
    data::Rows,
    error::Failure,
    evaluate::evaluate,
    job::Job,
    nn::Compute,
    schema::{MAX_DIFFERENCE, Schema, difference},
    storage::Location,
};

/// What the comparison showed.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The candidate on the validation rows.
    pub candidate: Evaluation,
    /// The baseline on the same rows; none when there is no baseline.
    pub baseline: Option<BaselineEvaluation>,
    /// The verdicts, in the order of the spec.
    pub gates: Vec<GateOutcome>,
}

/// Evaluates both and judges the gates.
///
/// # Errors
/// When an artifact cannot be read or is not what was recorded.
pub fn compare(
    runtime: &Handle,
    job: &Job,
    artifact: &Artifact,
    validation: &Rows,
    compute: Compute,
) -> Result<Evidence, Failure> {
    let folder = Location::open(runtime, &artifact.uri)?;
    let model = Model::load(&folder, Some(&artifact.digest), compute)?;
    let candidate = evaluate(&model, validation)?;
    let baseline = match &job.baseline {
        Some(ResolvedBaseline::Version(version)) => {
            Some(evaluate_baseline(runtime, version, &model.schema, validation, compute)?)
        }
        Some(ResolvedBaseline::Bootstrap(_)) | None => None,
    };
    let comparison = match (&job.baseline, &baseline) {
        (_, Some(baseline)) => Comparison::Baseline(baseline),
        (Some(ResolvedBaseline::Bootstrap(_)), None) => Comparison::Bootstrap,
        // Outside a cluster nobody resolves the baseline; the spec says whether to do without one.
        (None, None) if job.spec.baseline.when_missing == WhenMissing::Bootstrap => Comparison::Bootstrap,
        (_, None) => Comparison::Missing,
    };
    let gates = judge(&job.spec.gates, &candidate, comparison);
    Ok(Evidence { candidate, baseline, gates })
}

fn evaluate_baseline(
    runtime: &Handle,
    baseline: &BaselineVersion,
    candidate: &Schema,
    validation: &Rows,
    compute: Compute,
) -> Result<BaselineEvaluation, Failure> {
    let folder = Location::open(runtime, &baseline.uri)?;
    let digest = &baseline.version.digest;
    let model = Model::load(&folder, Some(digest), compute)?;
    let difference = difference(candidate, &model.schema);
    let (evaluation, schema_difference) = match evaluate(&model, validation) {
        Ok(evaluation) => (evaluation, difference),
        // Rows that the baseline cannot take are a difference, and no reason to fail the run.
        Err(Failure::Encode(error)) => {
            let nothing = Evaluation { rows: validation.count as u64, metrics: Vec::new() };
            let why = || shorten(&error.to_string(), MAX_DIFFERENCE).into_owned();
            (nothing, Some(difference.unwrap_or_else(why)))
        }
        Err(other) => return Err(other),
    };
    Ok(BaselineEvaluation { digest: digest.clone(), schema_difference, evaluation })
}
