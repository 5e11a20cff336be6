//! What serves remembers: the Service of the stable version says that it is, and which versions never come back.
//!
//! Written by `converge`, read by `recover`. A Service outlives its rollout (ADR 24), so whoever deletes status and ModelVersions,
//! and creates them again without their annotations, still finds there what takes all requests.

use anneal_crds::{VersionRef, model_rollout::Rejection, names};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    build::{self, Home},
    draft::Draft,
    rule, select,
};

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

    /// Whether that is what the recorded status asks for, too.
    pub(super) fn remembers_as_recorded(&self) -> bool {
        let now = &self.status;
        self.rollout.status.as_ref().is_some_and(|recorded| {
            recorded.phase == now.phase
                && recorded.stable == now.stable
                && recorded.previous == now.previous
                && recorded.history == now.history
                && recorded.rejected == now.rejected
        })
    }

    /// What the rollout's Services remember, that of the newest version first. The Service of one that was left a moment ago may
    /// not have forgotten yet; where another one knows that it was rolled back, it counts for nothing.
    pub(super) fn remembered(&self) -> Vec<Remembered> {
        let Some(home) = Home::of(self.rollout) else { return vec![] };
        let services = self.snapshot.children.services.iter().filter(|service| home.owns(service));
        // A rollout of that name may have been another model's.
        let services = services.filter(|service| {
            service["metadata"]["labels"][names::LABEL_MODEL] == home.rollout.spec.model.as_str()
        });
        let of_itself = services.filter_map(|service| {
            let name = service["metadata"]["name"].as_str()?;
            let known = Remembered::of(service)?;
            (name == build::workload_name(home.name, &known.stable.version)).then_some((name, known))
        });
        let everyone: Vec<(&str, Remembered)> = of_itself.collect();
        // Where a hand on the route leads is no proof against both who took a version back and its mark.
        let taken_back = self.marked(names::ANNOTATION_ROLLED_BACK_IN);
        let is_taken_back = |version: &VersionRef| {
            taken_back.iter().any(|marked| marked.spec.artifact.digest == version.digest)
                && everyone.iter().any(|(_, other)| other.rejects(version))
        };
        let all: Vec<(&str, Remembered)> =
            everyone.iter().filter(|(_, one)| !is_taken_back(&one.stable)).cloned().collect();
        // Who was left may not have forgotten yet; requests tell who serves.
        let has_requests = |name: &str| {
            self.snapshot.children.route.as_ref().is_some_and(|route| gets_requests(route, name))
        };
        let serving: Vec<_> = all.iter().filter(|(name, _)| has_requests(name)).cloned().collect();
        let all = if serving.is_empty() { all } else { serving };
        let all: Vec<Remembered> = all.into_iter().map(|(_, known)| known).collect();
        let is_left = |one: &&Remembered| all.iter().any(|other| other.rejects(&one.stable));
        let mut known: Vec<Remembered> = all.iter().filter(|one| !is_left(one)).cloned().collect();
        known.sort_by_key(|one| std::cmp::Reverse(select::order(&one.stable.version)));
        known
    }
}

/// Whether a route sends requests to a Service, but for those that name its version.
fn gets_requests(route: &Value, service: &str) -> bool {
    let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let by_name = |rule: &Value| {
        list(rule, "matches")
            .iter()
            .any(|one| list(one, "headers").iter().any(|header| header["name"] == build::VERSION_HEADER))
    };
    let rules = list(&route["spec"], "rules");
    let mut backends = rules.iter().filter(|rule| !by_name(rule)).flat_map(|rule| list(rule, "backendRefs"));
    backends.any(|backend| backend["name"] == service && rule::weight(&backend) > 0)
}
