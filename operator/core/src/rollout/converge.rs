//! Converge: what makes the cluster follow a recorded status, whatever state it is in.
//!
//! Called by [`super::plan`] after the transition. It changes nothing in the status but what became of the route, and what
//! stands in the way. An object of someone else is never written. The route is in `route`.

use anneal_crds::{
    ModelVersion, VersionRef,
    model_rollout::{RolloutPhase, Traffic},
};
use jiff::SignedDuration;
use serde_json::Value;

use super::{
    build::{self, Home},
    draft::{Draft, RECHECK},
    release, rule,
};
use crate::{
    object::{Key, Kind, Object, covers},
    patch::{Operation, Patch},
    plan::Action,
    trouble::Trouble,
};

/// How long a version that left traffic is kept, so that requests on their way still find it.
pub(super) const RETIRE_AFTER: SignedDuration = SignedDuration::from_secs(30);

impl Draft<'_> {
    /// What makes the cluster follow the status.
    pub(super) fn converge(&mut self) {
        let Some(home) = Home::of(self.rollout) else { return };
        let wanted = self.wanted_versions();
        // While only the stable version takes requests, nothing that may be refused comes before its route.
        let candidate_takes_requests = self.status.phase.shares_traffic();
        if !candidate_takes_requests {
            self.apply_route();
        }
        for name in &wanted {
            // Without its record a version's Deployment cannot be made again; the one that runs is left alone.
            if let Some(version) = self.version(name) {
                let children = self.snapshot.children;
                let child = build::workload_name(home.name, &version.spec.version);
                self.apply_deployment(home, name, version);
                let remembered = self.to_remember(name);
                let make = || build::service(home, &version.spec.version, remembered.as_ref());
                let missing = self.missing(home, Kind::Service, &children.services, &child, make);
                self.actions.extend(missing.map(Action::Apply));
            }
        }
        if candidate_takes_requests {
            self.apply_route();
        }
        self.make_test(home);
        self.note_accepted_traffic();
        self.mark(home);
        let stable_service = self.apply_stable_service(home);
        self.retire(home, &wanted, stable_service);
        self.autoscale(home, &wanted);
    }

    /// Versions that are to have pods.
    pub(super) fn wanted_versions(&self) -> Vec<VersionRef> {
        let status = &self.status;
        let moving = status.candidate.as_ref().filter(|_| status.phase.is_moving());
        let previous = self.kept_warm().filter(|previous| moving != Some(*previous));
        status.stable.iter().chain(moving).chain(previous).chain(&self.asked_back).cloned().collect()
    }

    /// The way back in a bake, and while people go back from it too.
    pub(super) fn kept_warm(&self) -> Option<&VersionRef> {
        self.status.previous.as_ref().filter(|_| match self.status.phase {
            RolloutPhase::Baking | RolloutPhase::RollingBack => true,
            RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::Staging
            | RolloutPhase::Shadow
            | RolloutPhase::Experiment
            | RolloutPhase::Canary
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => false,
        })
    }

    fn apply_deployment(&mut self, home: Home<'_>, name: &VersionRef, version: &ModelVersion) {
        let children = self.snapshot.children;
        let child = build::workload_name(home.name, &version.spec.version);
        let seen = self.deployment(name);
        let make = || release::with_pods_of(seen, build::deployment(home, version));
        let missing = self.missing(home, Kind::Deployment, &children.deployments, &child, make);
        let pods = if self.autoscaling().is_some() { self.floor(name) } else { self.pods_for_all() };
        if missing.is_some() && self.waits_for_gpus(home, name, pods) {
            return;
        }
        if self.autoscaling().is_none() {
            self.actions.extend(missing.map(Action::Apply));
            return;
        }
        let is_empty = seen.is_some_and(|seen| seen["spec"]["replicas"] == 0);
        let written = missing.or_else(|| is_empty.then(make));
        self.actions.extend(written.map(|object| Action::Apply(build::with_pods(object, seen, pods))));
    }

    /// The child as it is to be, if it is not so.
    fn missing(
        &mut self,
        home: Home<'_>,
        kind: Kind,
        seen: &[Value],
        name: &str,
        make: impl FnOnce() -> Object,
    ) -> Option<Object> {
        // What a Service remembers is in the status, which plans of one and the same world may draft otherwise.
        let counts = kind != Kind::Service || self.remembers_as_recorded();
        if counts && self.snapshot.memo.is_right(kind, name) {
            return None;
        }
        let wanted = make();
        match seen.iter().find(|object| object["metadata"]["name"] == name) {
            Some(seen) if !home.owns(seen) => self.blocked(&name_conflict(&wanted.key)),
            Some(seen) if covers(seen, &wanted.body) => match narrowed(seen, &wanted) {
                Some(widened) => self.widen(widened),
                None if counts => self.snapshot.memo.note_right(kind, name),
                None => {}
            },
            Some(_) | None => return Some(wanted),
        }
        None
    }

    /// Requests to such a Service find nobody, and an apply leaves what others have added.
    pub(super) fn widen(&mut self, patch: Patch) {
        let message = format!(
            "Service {} selects pods by labels that they do not have, so nobody would answer. The operator takes them out; keep whoever adds them from doing so.",
            patch.key.name
        );
        self.blocked(&Trouble { reason: "ServiceNarrowed".to_owned(), message });
        self.actions.push(Action::Patch(patch));
    }

    /// What is asked for may not be done, and nothing that is watched tells when it may.
    pub(super) fn blocked(&mut self, trouble: &Trouble) {
        self.stalled(trouble);
        self.wake_at_latest(RECHECK);
    }

    /// Versions that left traffic go, once the data plane has had time to forget them.
    fn retire(&mut self, home: Home<'_>, wanted: &[VersionRef], stable_service: Option<String>) {
        let wanted = wanted.iter().map(|version| build::workload_name(home.name, &version.version));
        let names: Vec<String> = wanted.chain(stable_service).collect();
        let children = self.snapshot.children;
        let kinds = [(Kind::Deployment, &children.deployments), (Kind::Service, &children.services)];
        let mut surplus: Vec<Action> = kinds
            .into_iter()
            .flat_map(|(kind, objects)| objects.iter().map(move |object| (kind, object)))
            .filter(|(_, object)| home.owns(object))
            .chain(self.own_autoscalers(home))
            .filter_map(|(kind, object)| {
                let name = object["metadata"]["name"].as_str()?;
                let uid = object["metadata"]["uid"].as_str()?.to_owned();
                (!names.iter().any(|wanted| wanted == name) && !self.is_named_elsewhere(name))
                    .then(|| Action::Delete { key: Key::new(kind, home.namespace, name), uid })
            })
            .collect();
        self.recall_strays();
        if surplus.is_empty() || !self.incumbent().is_someone() {
            return;
        }
        let stays_for = self.stays_for(&surplus);
        let age = self.accepted_age();
        if age.is_some_and(|age| age >= stays_for) && self.traffic_accepted() {
            self.keep_who_is_asked(&mut surplus);
            return self.actions.extend(surplus);
        }
        self.retell_who_is_asked(&surplus);
        let left = age.map(|age| stays_for.saturating_sub(age).max(SignedDuration::from_secs(1)));
        self.wake_at_latest(left.unwrap_or(RECHECK));
    }

    /// Whether a rule of the user's own sends requests to a Service: then it stays, whatever the rollout's rule says.
    pub(super) fn is_named_elsewhere(&self, service: &str) -> bool {
        match self.rollout.spec.traffic {
            Traffic::Gateway(_) => false,
            Traffic::Attach(_) => {
                let route = self.snapshot.children.route.as_ref();
                route.is_some_and(|route| rule::refers_to(route, service))
            }
        }
    }
}

/// What makes a Service select as it is to, if someone has added to its selector.
pub(super) fn narrowed(seen: &Value, wanted: &Object) -> Option<Patch> {
    let path = "/spec/selector";
    let (now, then) = (seen.pointer(path)?, wanted.body.pointer(path)?);
    (wanted.key.kind == Kind::Service && now != then).then(|| Patch {
        key: wanted.key.clone(),
        operations: vec![
            Operation::Test { path: path.to_owned(), value: now.clone() },
            Operation::Replace { path: path.to_owned(), value: then.clone() },
        ],
    })
}

/// The name of a child is taken.
pub(super) fn name_conflict(key: &Key) -> Trouble {
    let kind = key.kind.resource().2;
    let or_attach = if key.kind == Kind::HttpRoute {
        ", or let another ModelRollout attach to it by spec.traffic.attach"
    } else {
        ""
    };
    let message = format!(
        "{kind} {} exists and is not this rollout's, so it stays as it is. Delete it, or rename the ModelRollout{or_attach}.",
        key.name
    );
    Trouble { reason: "NameConflict".to_owned(), message }
}
