//! Converge: what makes the cluster follow a recorded status, whatever state it is in.
//!
//! Called by [`super::plan`] after the transition. It changes nothing in the status but the time at which the data plane
//! took the weights.

use std::collections::BTreeMap;

use anneal_crds::{VersionRef, model_rollout::RolloutPhase, names};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{
    build::{self, Home},
    plan::{Draft, RECHECK},
};
use crate::{
    object::{Key, Kind, Object, covers},
    plan::Action,
};

/// How long a version that left traffic is kept, so that requests on their way still find it.
const RETIRE_AFTER: SignedDuration = SignedDuration::from_secs(30);

impl Draft<'_> {
    /// What makes the cluster follow the status.
    pub(super) fn converge(&mut self) {
        let rollout = self.rollout.clone();
        let Some(home) = Home::of(&rollout) else { return };
        let wanted = self.wanted_versions();
        // A rollback has no preconditions: nothing that may be refused comes before its route.
        let rolled_back =
            rollout.status.as_ref().is_some_and(|status| status.phase == RolloutPhase::RolledBack);
        if rolled_back {
            self.apply_route(home);
        }
        for name in &wanted {
            // Without its record a version's Deployment cannot be made again; the one that runs is left alone.
            if let Some(version) = self.version(name) {
                self.apply(&self.snapshot.children.deployments, build::deployment(home, version));
                self.apply(&self.snapshot.children.services, build::service(home, &version.spec.version));
            }
        }
        if !rolled_back {
            self.apply_route(home);
        }
        self.note_accepted_traffic();
        self.mark(home);
        self.retire(home, &wanted);
    }

    fn wanted_versions(&self) -> Vec<VersionRef> {
        let status = self.seen();
        let candidate = match status.phase {
            RolloutPhase::Preparing | RolloutPhase::Shadow | RolloutPhase::Canary => status.candidate,
            RolloutPhase::Pending | RolloutPhase::Healthy | RolloutPhase::RolledBack => None,
        };
        status.stable.into_iter().chain(candidate).collect()
    }

    /// The route is written only as it was read: whoever decided by an older status must not overwrite a later decision.
    fn apply_route(&mut self, home: Home<'_>) {
        let Some(shares) = build::shares(home.rollout) else { return };
        let mut wanted = build::route(home, &shares);
        match &self.snapshot.children.route {
            Some(seen) if covers(seen, &wanted.body) => {}
            Some(seen) => {
                wanted.body["metadata"]["resourceVersion"] = seen["metadata"]["resourceVersion"].clone();
                self.actions.push(Action::Apply(wanted));
            }
            None => self.actions.push(Action::Apply(wanted)),
        }
    }

    fn apply(&mut self, seen: &[Value], wanted: Object) {
        let current = seen.iter().find(|object| object["metadata"]["name"] == wanted.key.name.as_str());
        if !current.is_some_and(|current| covers(current, &wanted.body)) {
            self.actions.push(Action::Apply(wanted));
        }
    }

    /// The step's clock starts when the data plane's controller has accepted the weights that were asked for.
    fn note_accepted_traffic(&mut self) {
        let accepted = self.traffic_accepted();
        let (reason, message) = if accepted {
            ("Accepted", "The route has the weights of this step.")
        } else {
            ("NotAccepted", "The route does not have the weights of this step yet.")
        };
        if self.seen().stable.is_some() {
            self.condition("TrafficVerified", accepted.into(), reason, message);
        }
        let now = Time(self.now);
        if accepted && self.status().traffic_accepted_at.is_none() {
            self.status().traffic_accepted_at = Some(now);
        }
    }

    /// Whether the route asks for what the status says and its gateway's controller has accepted that.
    pub(super) fn traffic_accepted(&self) -> bool {
        let (Some(home), Some(shares)) = (Home::of(&self.rollout), build::shares(&self.rollout)) else {
            return false;
        };
        let Some(route) = &self.snapshot.children.route else { return false };
        if !covers(route, &build::route(home, &shares).body) {
            return false;
        }
        let generation = route["metadata"]["generation"].as_i64().unwrap_or(i64::MAX);
        let parents = route["status"]["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
        let holds = |parent: &Value, type_: &str| {
            parent["conditions"].as_array().is_some_and(|conditions| {
                conditions.iter().any(|condition| {
                    condition["type"] == type_
                        && condition["status"] == "True"
                        && condition["observedGeneration"].as_i64().is_some_and(|seen| seen >= generation)
                })
            })
        };
        parents.iter().any(|parent| holds(parent, "Accepted") && holds(parent, "ResolvedRefs"))
    }

    /// Stable and rejected versions are marked on their records too, where a lost status finds them.
    fn mark(&mut self, home: Home<'_>) {
        let status = self.seen();
        for version in self.snapshot.versions {
            let is = |other: &VersionRef| other.digest == version.spec.artifact.digest;
            let mut wanted = BTreeMap::new();
            if status.stable.as_ref().is_some_and(is) {
                wanted.insert(format!("{}/{}", names::ANNOTATION_STABLE_IN, home.name), "true".to_owned());
            }
            if status.rejected.iter().any(is) {
                wanted
                    .insert(format!("{}/{}", names::ANNOTATION_ROLLED_BACK_IN, home.name), "true".to_owned());
            }
            self.actions.extend(build::marks(home, version, wanted).map(Action::Apply));
        }
    }

    /// Versions that left traffic go, once the data plane has had time to forget them.
    fn retire(&mut self, home: Home<'_>, wanted: &[VersionRef]) {
        let names: Vec<String> =
            wanted.iter().map(|version| build::workload_name(home.name, &version.version)).collect();
        let children = self.snapshot.children;
        let kinds = [(Kind::Deployment, &children.deployments), (Kind::Service, &children.services)];
        let surplus: Vec<Action> = kinds
            .into_iter()
            .flat_map(|(kind, objects)| objects.iter().map(move |object| (kind, object)))
            .filter(|(_, object)| home.owner().owns(object))
            .filter_map(|(kind, object)| {
                let name = object["metadata"]["name"].as_str()?;
                let uid = object["metadata"]["uid"].as_str()?.to_owned();
                (!names.iter().any(|wanted| wanted == name))
                    .then(|| Action::Delete { key: Key::new(kind, home.namespace, name), uid })
            })
            .collect();
        if surplus.is_empty() || self.seen().stable.is_none() {
            return;
        }
        match self.accepted_age() {
            Some(age) if age >= RETIRE_AFTER && self.traffic_accepted() => self.actions.extend(surplus),
            Some(age) => self.wake_by(RETIRE_AFTER.saturating_sub(age).max(SignedDuration::from_secs(1))),
            None => self.wake_by(RECHECK),
        }
    }
}
