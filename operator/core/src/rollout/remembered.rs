//! What serves remembers: the Service of the stable version says that it is, and which versions never come back.
//!
//! Written by `converge`, read by `recover`. A Service outlives its rollout (ADR 24), so whoever deletes status and ModelVersions,
//! and creates them again without their annotations, still finds there what takes all requests.

use anneal_crds::{VersionRef, model_rollout::Rejection, names};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{build::Home, draft::Draft, select};

/// What the Service of the stable version remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remembered {
    /// The version whose Service it is.
    pub(super) stable: VersionRef,
    /// The way back of its bake, while that lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<VersionRef>,
    /// What was stable before, oldest first, and can be gone back to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) history: Vec<VersionRef>,
    /// What was rolled back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rejected: Vec<Rejection>,
}

impl Remembered {
    /// As the annotation has it; none of what cannot be read.
    fn of(service: &Value) -> Option<Self> {
        serde_json::from_str(service["metadata"]["annotations"][names::ANNOTATION_REMEMBERS].as_str()?).ok()
    }

    fn rejects(&self, version: &VersionRef) -> bool {
        self.rejected.iter().any(|rejection| rejection.version.digest == version.digest)
    }
}

impl Draft<'_> {
    /// What the Service of `version` is to remember; nothing unless that is the stable one.
    pub(super) fn to_remember(&self, version: &VersionRef) -> Option<Remembered> {
        let status = &self.status;
        (status.stable.as_ref() == Some(version)).then(|| Remembered {
            stable: version.clone(),
            previous: self.kept_warm().cloned(),
            history: status.history.clone(),
            rejected: status.rejected.clone(),
        })
    }

    /// What the rollout's Services remember, that of the newest version first. The Service of one that was left a moment ago may
    /// not have forgotten yet; where another one knows that it was rolled back, it counts for nothing.
    pub(super) fn remembered(&self) -> Vec<Remembered> {
        let Some(home) = Home::of(self.rollout) else { return vec![] };
        let services = self.snapshot.children.services.iter().filter(|service| home.owns(service));
        let all: Vec<Remembered> = services.filter_map(Remembered::of).collect();
        let is_left = |one: &&Remembered| all.iter().any(|other| other.rejects(&one.stable));
        let mut known: Vec<Remembered> = all.iter().filter(|one| !is_left(one)).cloned().collect();
        known.sort_by_key(|one| std::cmp::Reverse(select::order(&one.stable.version)));
        known
    }
}
