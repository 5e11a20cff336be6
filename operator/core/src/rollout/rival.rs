//! Rivals: other rollouts that serve the same model.
//!
//! Metrics are read by namespace, model and version. Two rollouts of one model would read each other's requests, and a
//! version that nobody asked anything would pass on the numbers of another's pods. So only the oldest takes new versions.

use std::collections::BTreeSet;

use anneal_crds::{ModelRollout, ModelVersion, names};

use super::select::Obstacle;

/// Names of the other rollouts that are marked on `versions` as having one of them in production. They may be gone.
pub fn rivals(rollout: &ModelRollout, versions: &[ModelVersion]) -> BTreeSet<String> {
    let annotations = versions.iter().filter_map(|version| version.metadata.annotations.as_ref());
    let marked = annotations.flat_map(|all| all.keys()).filter_map(|key| {
        let (prefix, name) = key.split_once('/')?;
        (prefix == names::ANNOTATION_STABLE_IN).then_some(name)
    });
    marked.filter(|name| rollout.metadata.name.as_deref() != Some(name)).map(str::to_owned).collect()
}

/// Why `rollout` takes no new version: another one of its model is older.
pub(super) fn obstacle(rollout: &ModelRollout, rivals: &[ModelRollout]) -> Option<Obstacle> {
    let model = &rollout.spec.model;
    let age = |rollout: &ModelRollout| {
        let metadata = &rollout.metadata;
        (metadata.creation_timestamp.as_ref().map(|time| time.0), metadata.name.clone())
    };
    let older = rivals.iter().find(|rival| rival.spec.model == *model && age(rival) < age(rollout))?;
    let name = older.metadata.name.as_deref().unwrap_or_default();
    let message = format!(
        "ModelRollout {name} serves model {model} in this namespace already, and their metrics could not be told apart. Delete one of the two, or take another namespace."
    );
    Some(Obstacle { reason: "ModelTaken", message })
}
