//! Marks: what ModelVersions say about the rollouts that know them, as annotations.
//!
//! Called by `converge` for what a status says, by `recover` when that is lost, and by the shell for a rollout that is gone.
//! Backups keep them with the metadata, people can read them, and the chart's admission policy keeps a version that is marked
//! as used from being deleted. A rollout writes its own and leaves those of others.

use std::collections::BTreeMap;

use anneal_crds::{ModelVersion, VersionRef, model_rollout::CandidateSource, names};
use serde_json::json;

use super::{build::Home, draft::Draft, select};
use crate::{
    object::{Key, Kind, Object},
    plan::Action,
};

/// All kinds of marks.
const KINDS: [&str; 4] = [
    names::ANNOTATION_STABLE_IN,
    names::ANNOTATION_ROLLED_BACK_IN,
    names::ANNOTATION_USED_IN,
    names::ANNOTATION_PREVIOUS_IN,
];

/// Key of a rollout's mark of a kind.
pub(super) fn key(kind: &str, rollout: &str) -> String {
    format!("{kind}/{rollout}")
}

/// The text of a mark on `version`, if it is there.
pub(super) fn on<'a>(version: &'a ModelVersion, key: &str) -> Option<&'a String> {
    version.metadata.annotations.as_ref()?.get(key)
}

/// What makes versions free to go whose rollout is gone: the marks by which it would be found again stay.
pub fn let_go(namespace: &str, rollout: &str, versions: &[ModelVersion]) -> Vec<Action> {
    let used = key(names::ANNOTATION_USED_IN, rollout);
    let kept = |version: &ModelVersion| {
        let own = own(version, rollout).filter(|(key, _)| **key != used);
        own.map(|(key, text)| (key.clone(), text.clone())).collect()
    };
    versions
        .iter()
        .filter(|version| on(version, &used).is_some())
        .filter_map(|version| written(namespace, rollout, version, kept(version)).map(Action::Apply))
        .collect()
}

/// The marks on `version`, with the rollouts that they are of.
fn all(version: &ModelVersion) -> impl Iterator<Item = (&str, &String, &String)> {
    let annotations = version.metadata.annotations.iter().flatten();
    annotations.filter_map(|(key, text)| {
        let rollout = KINDS.iter().find_map(|kind| key.strip_prefix(kind)?.strip_prefix('/'))?;
        Some((rollout, key, text))
    })
}

fn own<'a>(version: &'a ModelVersion, rollout: &str) -> impl Iterator<Item = (&'a String, &'a String)> {
    all(version).filter(move |(of, ..)| *of == rollout).map(|(_, key, text)| (key, text))
}

/// `version` with just these marks of `rollout`, if it has not. Other rollouts' stay: an apply that left them out would remove
/// them.
fn written(
    namespace: &str,
    rollout: &str,
    version: &ModelVersion,
    wanted: BTreeMap<String, String>,
) -> Option<Object> {
    let pair = |(_, key, text): (&str, &String, &String)| (key.clone(), text.clone());
    let seen: BTreeMap<String, String> = all(version).map(pair).collect();
    let mut marks: BTreeMap<String, String> =
        all(version).filter(|(of, ..)| *of != rollout).map(pair).collect();
    marks.extend(wanted);
    if marks == seen {
        return None;
    }
    let key = Key::new(Kind::ModelVersion, namespace, version.metadata.name.as_deref()?);
    Some(Object::new(
        key,
        json!({"metadata": {"uid": version.metadata.uid.as_deref()?, "annotations": marks}}),
    ))
}

impl Draft<'_> {
    /// Stable and rejected versions are marked on their records too, where a lost status finds them, and so is every version
    /// that must not be deleted.
    pub(super) fn mark(&mut self, home: Home<'_>) {
        let stable = key(names::ANNOTATION_STABLE_IN, home.name);
        let mut marks = vec![];
        for version in self.snapshot.versions {
            let wanted = self.marks_for(home, version);
            let is_stable = wanted.contains_key(&stable);
            let object = written(home.namespace, home.name, version, wanted);
            marks.extend(object.map(|object| (is_stable, Action::Apply(object))));
        }
        // The new mark comes before the old one goes: at no moment does a version in production look like none.
        marks.sort_by_key(|(is_stable, _)| !is_stable);
        self.actions.extend(marks.into_iter().map(|(_, action)| action));
    }

    /// The mark of a rejected version stays, because status forgets the oldest, until it tries again or someone goes back to it.
    fn marks_for(&self, home: Home<'_>, version: &ModelVersion) -> BTreeMap<String, String> {
        let [stable_key, rejected_key, used_key, previous_key] = KINDS.map(|kind| key(kind, home.name));
        let status = &self.status;
        let digest = &version.spec.artifact.digest;
        // What was rolled back stays away under any name; who serves is just one of those with the same artifact.
        let rejection = status.rejected.iter().find(|rejection| rejection.version.digest == *digest);
        let reference = select::reference(version);
        let is = |other: &VersionRef| *other == reference;
        // While nobody is known to serve, a mark may yet say who does, and who is the way back.
        let may_be = |key: &String| {
            !self.incumbent().is_someone() && rejection.is_none() && on(version, key).is_some()
        };
        let (may_serve, may_be_previous) = (may_be(&stable_key), may_be(&previous_key));
        let is_stable = status.stable.as_ref().is_some_and(is);
        let serves = status.stable.as_ref().is_some_and(|stable| stable.digest == *digest);
        let rejected = match rejection {
            Some(rejection) => Some(rejection.retried.clone().unwrap_or_else(|| names::MARK.to_owned())),
            None => on(version, &rejected_key).filter(|_| !self.granted_retry(digest) && !serves).cloned(),
        };
        let is_previous = self.kept_warm().is_some_and(is);
        let mark = |is: bool| is.then(|| names::MARK.to_owned());
        [
            (stable_key, mark(may_serve || is_stable)),
            (rejected_key, rejected),
            (used_key, mark(may_serve || may_be_previous || self.uses(version))),
            (previous_key, mark(is_previous || may_be_previous)),
        ]
        .into_iter()
        .filter_map(|(key, text)| Some((key, text?)))
        .collect()
    }

    /// Whether the rollout needs the record of a version, or may: what serves, what it can go back to, and what it was told to
    /// take.
    fn uses(&self, version: &ModelVersion) -> bool {
        let (status, spec) = (&self.status, &self.rollout.spec);
        let moving = status.candidate.iter().filter(|_| status.phase.is_moving());
        let mut known = status.stable.iter().chain(moving).chain(&status.previous).chain(&status.history);
        let pinned = match &spec.candidate {
            CandidateSource::Version(number) => Some(number),
            CandidateSource::Follow(_) => None,
        };
        let mut named =
            pinned.into_iter().chain(spec.rollback.iter().map(|rollback| &rollback.target_version));
        known.any(|known| known.digest == version.spec.artifact.digest)
            || named.any(|number| *number == version.spec.version)
    }
}
