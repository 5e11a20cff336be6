//! Rules between values: those CEL rules of the RetrainJob that the trainer relies on.

use anneal_crds::{
    gates::Gate,
    retrain_job::{Data, RetrainJobSpec},
};

use super::{
    JobError,
    gpu::{self, Vendor},
};

/// Checks the rules that need more than one value.
pub(super) fn check(spec: &RetrainJobSpec) -> Result<(), JobError> {
    check_data(&spec.data)?;
    // Unseen, it would leave a reserved accelerator idle while the processor trains.
    if let Some((name, _)) = gpu::asked_for(&spec.trainer).find(|(_, vendor)| *vendor == Vendor::Other) {
        return wrong(
            "spec.trainer.resources",
            &format!(
                "asks for `{name}`, which this trainer cannot use: ask for nvidia.com/gpu, nvidia.com/mig-… or no accelerator"
            ),
        );
    }
    if !spec.gates.iter().any(|gate| matches!(gate, Gate::IronLaw(_))) {
        return wrong(
            "spec.gates",
            "lack ironLaw: {}: add it, because no version may serve that was not compared",
        );
    }
    if spec.training.optimizer.learning_rate <= 0.0 {
        return wrong("spec.training.optimizer.learningRate", "must be above 0: the default is 0.003");
    }
    Ok(())
}

fn check_data(data: &Data) -> Result<(), JobError> {
    match (&data.validation, &data.split) {
        (Some(_), Some(_)) | (None, None) => {
            return wrong(
                "spec.data",
                "needs exactly one of validation (a file of its own) and split (a part of train)",
            );
        }
        (None, Some(split)) => {
            if !(split.validation_fraction > 0.0 && split.validation_fraction < 1.0) {
                return wrong(
                    "spec.data.split.validationFraction",
                    "must lie between 0 and 1: give for example 0.1",
                );
            }
            if !data.exclude.contains(&split.key) {
                // As a feature the key would tell the model which rows it has seen.
                return wrong(
                    "spec.data.split.key",
                    &format!("`{}` must be listed in spec.data.exclude", split.key),
                );
            }
        }
        (Some(_), None) => {}
    }
    if let Some(window) = &data.window {
        if window.last.is_none() && window.start.is_none() && window.end.is_none() {
            return wrong("spec.data.window", "needs last, start or end: give for example last: 90d");
        }
        if window.last.is_some() && window.start.is_some() {
            return wrong("spec.data.window", "takes last or start, and not both: remove one");
        }
    }
    if data.exclude.contains(&data.target) {
        return wrong("spec.data.exclude", &format!("holds the target `{}`: remove it there", data.target));
    }
    Ok(())
}

fn wrong(path: &str, problem: &str) -> Result<(), JobError> {
    Err(JobError::Value { path: path.to_owned(), problem: problem.to_owned() })
}
