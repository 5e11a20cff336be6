//! What an artifact says about itself: metrics, history, provenance and a card for people.
//!
//! Everything here follows from the run's inputs; nothing is measured by a clock.

use anneal_crds::{
    common::VersionRef,
    contract::{Device, Evaluation, RowSet, StopReason},
    retrain_job::RetrainJobSpec,
};
use serde::{Deserialize, Serialize};

use super::{Files, model::to_json};
use crate::{error::Failure, schema::Schema};

/// What the files are made of.
#[derive(Debug)]
pub struct Description<'a> {
    /// The run's spec.
    pub spec: &'a RetrainJobSpec,
    /// The traced schema.
    pub schema: &'a Schema,
    /// What the kept weights showed on the validation rows.
    pub evaluation: &'a Evaluation,
    /// All epochs.
    pub history: &'a [HistoryEntry],
    /// Where the model comes from.
    pub provenance: Provenance<'a>,
}

/// One epoch of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Mean loss of the training rows while they were learnt, with dropout; regression: of the standardised target.
    pub train_loss: f64,
    /// Loss of the validation rows after the epoch, as the gates see it.
    pub validation_loss: f64,
}

/// `provenance.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance<'a> {
    /// Uid of the RetrainJob.
    pub run_uid: &'a str,
    /// Name of the RetrainJob.
    pub job: &'a str,
    /// Version of the trainer.
    pub trainer: &'static str,
    /// Version of libtorch.
    pub libtorch: &'static str,
    /// The device that trained.
    pub device: Device,
    /// Threads that trained; results depend on it in their last bits.
    pub threads: u32,
    /// Training rows.
    pub train: RowSet,
    /// Validation rows.
    pub validation: RowSet,
    /// Why training stopped.
    pub stop: StopReason,
    /// Epoch of the weights, from 1.
    pub best_epoch: u32,
    /// What served when the run started; none without a baseline.
    pub baseline: Option<&'a VersionRef>,
    /// Digest of `model.safetensors`.
    pub weights: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProvenanceFile<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance<'a>,
    data: &'a anneal_crds::retrain_job::Data,
    training: &'a anneal_crds::retrain_job::Training,
}

/// Adds the describing files.
///
/// # Errors
/// When JSON cannot be written, which is a bug.
pub fn describe(files: &mut Files, about: &Description<'_>) -> Result<(), Failure> {
    let provenance = ProvenanceFile {
        provenance: &about.provenance,
        data: &about.spec.data,
        training: &about.spec.training,
    };
    files.insert("metrics.json", to_json("metrics.json", about.evaluation)?);
    files.insert("training_history.json", to_json("training_history.json", &about.history)?);
    files.insert("provenance.json", to_json("provenance.json", &provenance)?);
    files.insert("MODEL_CARD.md", card(about).into_bytes());
    Ok(())
}

fn card(about: &Description<'_>) -> String {
    let Description { spec, schema, evaluation, provenance, .. } = about;
    let metrics: String = evaluation
        .metrics
        .iter()
        .map(|metric| format!("| {} | {} |\n", metric.name.name(), metric.value))
        .collect();
    let features: Vec<_> = schema.features.iter().map(|feature| format!("`{}`", feature.name)).collect();
    format!(
        "# {model}\n\n\
         A multi-layer perceptron ({hidden:?}) that predicts `{target}` from {count} columns: {features}.\n\
         Trained by RetrainJob `{job}` ({uid}).\n\n\
         ## Data\n\n\
         | rows | count | digest |\n|---|---|---|\n\
         | training, {uri} | {train_rows} | {train_digest} |\n\
         | validation | {validation_rows} | {validation_digest} |\n\n\
         ## What it showed on the validation rows\n\n\
         | metric | value |\n|---|---|\n{metrics}\n\
         ## Limits\n\n\
         A text that training never saw counts as unknown. The numbers above hold for rows like the validation rows and \
         say nothing about others.\n",
        model = spec.model,
        hidden = spec.training.hidden,
        target = schema.target.name,
        count = features.len(),
        features = features.join(", "),
        job = provenance.job,
        uid = provenance.run_uid,
        uri = spec.data.train.uri,
        train_rows = provenance.train.rows,
        train_digest = provenance.train.digest,
        validation_rows = provenance.validation.rows,
        validation_digest = provenance.validation.digest,
    )
}
