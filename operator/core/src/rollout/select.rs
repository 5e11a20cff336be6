//! Which version is to serve.
//!
//! The iron law's last door: a version may become the candidate only if its gates passed against the very version that
//! is stable now. Where nothing serves yet there is no canary to find a mistake, so the first version must be approved.

use std::collections::BTreeSet;

use anneal_crds::{
    ModelRolloutSpec, ModelRolloutStatus, ModelVersion, VersionRef,
    model_rollout::{CandidateSource, RolloutPhase},
    model_version::Admission,
    names,
    retrain_job::ResolvedBaseline,
};

use crate::gates;

/// What the spec asks for, given what exists.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Choice {
    /// Take this version to production.
    Candidate(VersionRef),
    /// Go back to this version, which was stable here.
    Return(VersionRef),
    /// What is stable stays, for this reason if there is one.
    Stay(Option<Obstacle>),
}

/// Why a version may not serve.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Obstacle {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// A reference to a version object.
pub(super) fn reference(version: &ModelVersion) -> VersionRef {
    VersionRef {
        name: version.metadata.name.clone().unwrap_or_default(),
        version: version.spec.version.clone(),
        digest: version.spec.artifact.digest.clone(),
    }
}

/// The version that is to serve; `rejected` holds the digests of those that never come back.
pub(super) fn choose(
    spec: &ModelRolloutSpec,
    status: &ModelRolloutStatus,
    versions: &[ModelVersion],
    rejected: &BTreeSet<String>,
) -> Choice {
    let stable = status.stable.as_ref();
    let of_model = versions.iter().filter(|version| version.spec.model == spec.model);
    let mut candidates: Vec<&ModelVersion> = match &spec.candidate {
        CandidateSource::Follow(_) => of_model.collect(),
        CandidateSource::Version(wanted) => {
            let wanted: Vec<_> = of_model.filter(|version| version.spec.version == *wanted).collect();
            if wanted.is_empty() {
                let message = format!(
                    "There is no ModelVersion of model {} with the version that spec.candidate.version names. Create it, or correct the name.",
                    spec.model
                );
                return Choice::Stay(Some(Obstacle { reason: "VersionMissing", message }));
            }
            wanted
        }
    };
    candidates.sort_by_key(|version| std::cmp::Reverse(order(&version.spec.version)));
    let pinned = match &spec.candidate {
        CandidateSource::Version(_) => true,
        CandidateSource::Follow(_) => false,
    };
    let mut obstacle = None;
    for version in candidates {
        let digest = &version.spec.artifact.digest;
        if stable.is_some_and(|stable| stable.digest == *digest) {
            return Choice::Stay(obstacle);
        }
        if pinned
            && !rejected.contains(digest)
            && let Some(known) = returnable(status, version)
        {
            return Choice::Return(known);
        }
        match may_serve(version, stable, rejected) {
            Ok(()) => return Choice::Candidate(reference(version)),
            Err(why) => obstacle = obstacle.or(Some(why)),
        }
    }
    Choice::Stay(obstacle)
}

/// A version that was stable here lately, or whose pods start because it was: it has shown what it can do. One that is
/// on its way by steps again has something to show.
fn returnable(status: &ModelRolloutStatus, version: &ModelVersion) -> Option<VersionRef> {
    let wanted = reference(version);
    let under_way = status.candidate.as_ref() == Some(&wanted);
    let is_way_back = status.previous.as_ref() == Some(&wanted);
    let returnable = match status.phase {
        RolloutPhase::RollingBack => under_way || is_way_back || status.history.contains(&wanted),
        RolloutPhase::Baking => is_way_back || status.history.contains(&wanted),
        RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::Shadow
        | RolloutPhase::Experiment
        | RolloutPhase::Canary => !under_way && status.history.contains(&wanted),
        RolloutPhase::Pending | RolloutPhase::Healthy | RolloutPhase::RolledBack => {
            status.history.contains(&wanted)
        }
    };
    returnable.then_some(wanted)
}

fn may_serve(
    version: &ModelVersion,
    stable: Option<&VersionRef>,
    rejected: &BTreeSet<String>,
) -> Result<(), Obstacle> {
    let name = &version.spec.version;
    let stop = |reason, message| Err(Obstacle { reason, message });
    if rejected.contains(&version.spec.artifact.digest) {
        return stop(
            "VersionRejected",
            format!(
                "{name} was rolled back here and does not come back by itself. Retrain, or let it try again: annotate the rollout with {}=\"{name}: why\", in words that it has not had.",
                names::ANNOTATION_RETRY,
            ),
        );
    }
    if !gates::passed(&version.spec.gates) {
        return stop("GatesNotPassed", format!("{name} did not pass its required gates. Retrain."));
    }
    match (version.spec.admission, &version.spec.baseline, stable) {
        (Admission::Gates, ResolvedBaseline::Version(baseline), Some(stable))
            if baseline.version.digest == stable.digest =>
        {
            Ok(())
        }
        (Admission::Gates, ResolvedBaseline::Version(baseline), Some(stable)) => stop(
            "BaselineOutdated",
            format!(
                "{name} was compared with {}, but {} is in production. Retrain against it.",
                baseline.version.version, stable.version
            ),
        ),
        (Admission::Gates, ResolvedBaseline::Version(_), None)
        | (Admission::Bootstrap, ResolvedBaseline::Bootstrap(_), None)
            if approved(version) =>
        {
            Ok(())
        }
        (Admission::Gates, ResolvedBaseline::Version(_), None)
        | (Admission::Bootstrap, ResolvedBaseline::Bootstrap(_), None) => stop(
            "ApprovalMissing",
            format!(
                "{name} would take all requests without a version to be compared with, so a person must approve it: kubectl annotate modelversion {} {}=\"your name\"",
                version.metadata.name.as_deref().unwrap_or_default(),
                names::ANNOTATION_APPROVED_BY
            ),
        ),
        (Admission::Bootstrap, ResolvedBaseline::Bootstrap(_), Some(stable)) => stop(
            "NotCompared",
            format!(
                "{name} was never compared with {}, which is in production. Retrain against it.",
                stable.version
            ),
        ),
        (Admission::Gates, ResolvedBaseline::Bootstrap(_), _)
        | (Admission::Bootstrap, ResolvedBaseline::Version(_), _) => stop(
            "RecordContradictory",
            format!(
                "{name}'s admission and baseline contradict each other. Delete the ModelVersion and retrain."
            ),
        ),
    }
}

fn approved(version: &ModelVersion) -> bool {
    let annotations = version.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(names::ANNOTATION_APPROVED_BY))
        .is_some_and(|who| !who.trim().is_empty())
}

/// `vYYYYMMDD.n` as numbers; anything else comes first.
pub(super) fn order(version: &str) -> (u64, u64) {
    let parts = version.strip_prefix('v').and_then(|rest| rest.split_once('.'));
    parts.and_then(|(date, build)| Some((date.parse().ok()?, build.parse().ok()?))).unwrap_or((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_date_and_number_not_by_text() {
        assert!(order("v20261121.10") > order("v20261121.9"));
        assert!(order("v20261122.1") > order("v20261121.99"));
        assert_eq!(order("latest"), (0, 0));
    }
}
