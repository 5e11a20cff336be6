//! Converge: what makes the cluster follow a recorded status, whatever state it is in.
//!
//! Called by [`super::plan`] after the transition. It changes nothing in the status but the time at which the data plane
//! took the weights, and what stands in the way. An object of someone else is never written.

use std::collections::BTreeMap;

use anneal_crds::{VersionRef, model_rollout::RolloutPhase, names};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{
    build::{self, Home},
    draft::{Draft, RECHECK},
};
use crate::{
    object::{Key, Kind, Object, covers},
    plan::Action,
    trouble::Trouble,
};

/// How long a version that left traffic is kept, so that requests on their way still find it.
const RETIRE_AFTER: SignedDuration = SignedDuration::from_secs(30);

impl Draft<'_> {
    /// What makes the cluster follow the status.
    pub(super) fn converge(&mut self) {
        let Some(home) = Home::of(self.rollout) else { return };
        let wanted = self.wanted_versions();
        // While only the stable version takes requests, nothing that may be refused comes before its route.
        let candidate_takes_requests = self.status.phase.shares_traffic();
        if !candidate_takes_requests {
            self.apply_route(home);
        }
        for name in &wanted {
            // Without its record a version's Deployment cannot be made again; the one that runs is left alone.
            if let Some(version) = self.version(name) {
                let children = self.snapshot.children;
                self.apply(home, &children.deployments, build::deployment(home, version));
                self.apply(home, &children.services, build::service(home, &version.spec.version));
            }
        }
        if candidate_takes_requests {
            self.apply_route(home);
        }
        self.make_test(home);
        self.note_accepted_traffic();
        self.mark(home);
        self.retire(home, &wanted);
    }

    fn wanted_versions(&self) -> Vec<VersionRef> {
        let status = &self.status;
        let candidate = status.candidate.clone().filter(|_| status.phase.is_moving());
        // In a bake the way back is kept warm.
        let previous = status.previous.clone().filter(|_| status.phase == RolloutPhase::Baking);
        status.stable.clone().into_iter().chain(candidate).chain(previous).collect()
    }

    /// The route is written only as it was read: whoever decided by an older status must not overwrite a later decision.
    fn apply_route(&mut self, home: Home<'_>) {
        let Some(mut wanted) = self.wanted_route().cloned() else { return };
        match &self.snapshot.children.route {
            Some(seen) if !home.owns(seen) => self.name_conflict(&wanted.key),
            Some(seen) if covers(seen, &wanted.body) => {}
            Some(seen) => {
                wanted.body["metadata"]["resourceVersion"] = seen["metadata"]["resourceVersion"].clone();
                self.actions.push(Action::Apply(wanted));
            }
            None => self.actions.push(Action::Apply(wanted)),
        }
    }

    fn apply(&mut self, home: Home<'_>, seen: &[Value], wanted: Object) {
        match seen.iter().find(|object| object["metadata"]["name"] == wanted.key.name.as_str()) {
            Some(seen) if !home.owns(seen) => self.name_conflict(&wanted.key),
            Some(seen) if covers(seen, &wanted.body) => {}
            Some(_) | None => self.actions.push(Action::Apply(wanted)),
        }
    }

    fn name_conflict(&mut self, key: &Key) {
        let kind = key.kind.resource().2;
        let message = format!(
            "{kind} {} exists and is not this rollout's, so it stays as it is. Delete it, or rename the ModelRollout.",
            key.name
        );
        self.stalled(&Trouble { reason: "NameConflict".to_owned(), message });
        self.wake_at_latest(RECHECK);
    }

    /// The step's clock starts when the data plane's controller has accepted the weights that were asked for, and starts
    /// again when they are no longer so.
    fn note_accepted_traffic(&mut self) {
        let accepted = self.traffic_accepted();
        let (verified, reason, message) = match (accepted, self.mismatched) {
            (false, _) => (false, "NotAccepted", "The route does not have the weights of this step yet."),
            (true, true) => (
                false,
                "TrafficSplitMismatch",
                "The route has the weights of this step, and the counters show another share, see status.observed. Look at the gateway's data plane, and at whatever sends requests past it.",
            ),
            (true, false) => (true, "Accepted", "The route has the weights of this step."),
        };
        if self.status.stable.is_some() {
            self.condition("TrafficVerified", verified.into(), reason, message);
        }
        let now = Time(self.now);
        if accepted {
            self.status.traffic_accepted_at.get_or_insert(now);
        } else if self.current_route().is_none() || !self.status.phase.is_judged() {
            // Someone changed the route: who knows where requests went meanwhile. Where no step's clock runs, a time that
            // rests on a stale read is worth nothing either.
            self.status.traffic_accepted_at = None;
        }
    }

    /// The route, if it asks for what the status says.
    fn current_route(&self) -> Option<&Value> {
        let wanted = self.wanted_route()?;
        self.snapshot.children.route.as_ref().filter(|route| covers(route, &wanted.body))
    }

    /// Whether the route asks for what the status says and its gateway's controller has accepted that.
    pub(super) fn traffic_accepted(&self) -> bool {
        self.current_route().is_some_and(|route| {
            let said =
                |parent, type_| verdict_on(route, parent, type_).is_some_and(|said| said["status"] == "True");
            parents(route).iter().any(|parent| said(parent, "Accepted") && said(parent, "ResolvedRefs"))
        })
    }

    /// Why the gateway's controller does not take the route, if it says so.
    pub(super) fn route_trouble(&self) -> Option<Trouble> {
        let route = self.current_route()?;
        let no = |parent| {
            ["Accepted", "ResolvedRefs"]
                .into_iter()
                .filter_map(move |type_| verdict_on(route, parent, type_))
                .find(|said| said["status"] == "False")
        };
        let said = parents(route).iter().find_map(no)?;
        let text = |field: &str| said[field].as_str().unwrap_or_default();
        let message = format!(
            "The gateway does not take HTTPRoute {}: {} ({}). Correct the Gateway or spec.traffic.",
            route["metadata"]["name"].as_str().unwrap_or_default(),
            text("message").trim_end_matches('.'),
            text("reason")
        );
        Some(Trouble { reason: "RouteNotAccepted".to_owned(), message })
    }

    /// Stable and rejected versions are marked on their records too, where a lost status finds them. The mark of a
    /// rejected version stays, because status forgets the oldest, until it tries again or someone goes back to it.
    fn mark(&mut self, home: Home<'_>) {
        let (stable_key, rejected_key) = (
            build::mark_key(names::ANNOTATION_STABLE_IN, home.name),
            build::mark_key(names::ANNOTATION_ROLLED_BACK_IN, home.name),
        );
        let mut marks = vec![];
        for version in self.snapshot.versions {
            let is = |other: &VersionRef| other.digest == version.spec.artifact.digest;
            let status = &self.status;
            let mut wanted = BTreeMap::new();
            if status.stable.as_ref().is_some_and(is) {
                wanted.insert(stable_key.clone(), names::MARK.to_owned());
            }
            let digest = &version.spec.artifact.digest;
            let rejection = status.rejected.iter().find(|rejection| is(&rejection.version));
            if let Some(rejection) = rejection {
                let text = rejection.retried.clone().unwrap_or_else(|| names::MARK.to_owned());
                wanted.insert(rejected_key.clone(), text);
            } else if let Some(mark) = build::mark_on(version, &rejected_key)
                .filter(|_| !self.granted_retry(digest) && !status.stable.as_ref().is_some_and(is))
            {
                wanted.insert(rejected_key.clone(), mark.clone());
            }
            let is_stable = wanted.contains_key(&stable_key);
            marks.extend(build::marks(home, version, wanted).map(|mark| (is_stable, Action::Apply(mark))));
        }
        // The new mark comes before the old one goes: at no moment does a version in production look like none.
        marks.sort_by_key(|(is_stable, _)| !is_stable);
        self.actions.extend(marks.into_iter().map(|(_, action)| action));
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
            .filter(|(_, object)| home.owns(object))
            .filter_map(|(kind, object)| {
                let name = object["metadata"]["name"].as_str()?;
                let uid = object["metadata"]["uid"].as_str()?.to_owned();
                (!names.iter().any(|wanted| wanted == name))
                    .then(|| Action::Delete { key: Key::new(kind, home.namespace, name), uid })
            })
            .collect();
        if surplus.is_empty() || self.status.stable.is_none() {
            return;
        }
        match self.accepted_age() {
            Some(age) if age >= RETIRE_AFTER && self.traffic_accepted() => self.actions.extend(surplus),
            Some(age) => {
                self.wake_at_latest(RETIRE_AFTER.saturating_sub(age).max(SignedDuration::from_secs(1)))
            }
            None => self.wake_at_latest(RECHECK),
        }
    }
}

fn parents(route: &Value) -> &[Value] {
    route["status"]["parents"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What a parent's controller says of the route as it is now.
fn verdict_on<'a>(route: &Value, parent: &'a Value, type_: &str) -> Option<&'a Value> {
    let generation = route["metadata"]["generation"].as_i64().unwrap_or(i64::MAX);
    parent["conditions"].as_array()?.iter().find(|condition| {
        condition["type"] == type_
            && condition["observedGeneration"].as_i64().is_some_and(|seen| seen >= generation)
    })
}
