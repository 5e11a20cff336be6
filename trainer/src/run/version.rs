//! Versions: `vYYYYMMDD.n`, given out by creating a manifest that nobody else can create.

use anneal_crds::model_version::Artifact;
use serde::{Deserialize, Serialize};

use crate::{
    error::Failure,
    host,
    storage::{Creation, Location},
};

/// `versions/<version>/manifest.json`: which artifact a version is. Never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionManifest {
    /// 1.
    pub schema: u32,
    /// Name of the model.
    pub model: String,
    /// `vYYYYMMDD.n`.
    pub version: String,
    /// Uid of the run that made it.
    pub run_uid: String,
    /// The artifact.
    pub artifact: Artifact,
    /// When it was given out, RFC 3339.
    pub created_at: String,
}

/// The version of a run's artifact: the one that it has already, or the next of today.
///
/// # Errors
/// When the storage fails.
pub fn allocate(
    model_folder: &Location,
    model: &str,
    run: &str,
    artifact: &Artifact,
) -> Result<String, Failure> {
    let versions = model_folder.join("versions");
    let names = versions.list()?.folders;
    // An earlier execution may have come this far and no further.
    for name in names.iter().rev() {
        let Some(bytes) = versions.join(name).join("manifest.json").read_if_exists()? else { continue };
        let manifest = serde_json::from_slice::<VersionManifest>(&bytes).ok();
        if manifest
            .is_some_and(|manifest| manifest.run_uid == run && manifest.artifact.digest == artifact.digest)
        {
            return Ok(name.clone());
        }
    }
    let date = host::today();
    let taken =
        names.iter().filter_map(|name| name.strip_prefix(&format!("v{date}."))?.parse::<u32>().ok()).max();
    let mut number = taken.unwrap_or(0);
    loop {
        number += 1;
        let manifest = VersionManifest {
            schema: 1,
            model: model.to_owned(),
            version: format!("v{date}.{number}"),
            run_uid: run.to_owned(),
            artifact: artifact.clone(),
            created_at: host::now().to_string(),
        };
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|source| Failure::Encoding { what: "manifest.json", source })?;
        if versions.join(&manifest.version).join("manifest.json").create(text)? == Creation::Created {
            return Ok(manifest.version);
        }
    }
}
