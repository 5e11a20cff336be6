//! Recover: what a status that was lost said, by the marks on ModelVersions and by what a user's route leads to.
//!
//! Called by [`super::plan`] before anything is decided. A mark alone is no proof where a user's rule leads: it may be that of an
//! older rollout of the same name, whose pods are long gone.

use anneal_crds::{
    ModelVersion, VersionRef, Weight,
    model_rollout::{Adopted, Attach, Rejection, RolloutPhase, Traffic},
    names,
};
use serde_json::Value;

use super::{
    build::{self, Home},
    draft::Draft,
    marks, rule, select,
    transition::MAX_REJECTED,
};

impl Draft<'_> {
    /// A status that was lost finds its stable and rejected versions again.
    pub(super) fn recover(&mut self) {
        // With an adopted Service there was a status: its first version has not taken over, or was handed back a moment ago.
        if self.status.stable.is_none() && self.status.adopted.is_none() {
            self.recover_stable();
        }
        if self.status.rejected.is_empty() {
            self.recover_rejected();
        }
    }

    /// Of several marked versions the newest counts: the marks of its predecessors were about to go.
    fn recover_stable(&mut self) {
        let marked = self.marked(names::ANNOTATION_STABLE_IN).into_iter().rev().map(select::reference);
        let rejected = &self.status.rejected;
        let mut marked = marked
            .filter(|version| !rejected.iter().any(|rejection| rejection.version.digest == version.digest));
        let spec = &self.rollout.spec;
        match (Home::of(self.rollout), &spec.traffic) {
            (Some(home), Traffic::Attach(to)) => {
                let Some(service) = &to.service else {
                    self.status.stable = marked.next();
                    return;
                };
                let Ok((_, rule)) = rule::meant(to, self.snapshot.children.route.as_ref()) else { return };
                let Some(stable) = marked.find(|version| leads_to(home, rule, version, service)) else {
                    return;
                };
                self.status.stable = Some(stable.clone());
                let is_watched = spec.strategy.bake.is_some() || spec.strategy.smoke.is_some();
                if let Some(warm) = rule::backend(home, rule, service).filter(|_| is_watched) {
                    self.bake_lost(&stable, to, service, warm);
                }
            }
            (_, Traffic::Gateway(_)) | (None, Traffic::Attach(_)) => self.status.stable = marked.next(),
        }
    }

    /// The Service that served before is still in the rule: the first version had not passed its bake.
    fn bake_lost(&mut self, stable: &VersionRef, to: &Attach, service: &str, warm: &Value) {
        self.status.adopted = Some(Adopted { service: service.to_owned(), port: rule::port(warm) });
        self.status.smoke = self.rollout.spec.strategy.smoke.as_ref().map(|_| self.first_try());
        let message = format!(
            "{} takes all requests; its bake begins anew, because HTTPRoute {} still has Service {service} for the way back.",
            stable.version, to.route
        );
        self.enter(RolloutPhase::Baking, Weight::ZERO, "Recovered", &message, vec![]);
    }

    fn recover_rejected(&mut self) {
        let marked = self.marked(names::ANNOTATION_ROLLED_BACK_IN);
        let granted = |version: &&ModelVersion| self.granted_retry(&version.spec.artifact.digest);
        let lost = marked.into_iter().filter(|version| !granted(version));
        let mut rejected: Vec<Rejection> = lost
            .map(|version| Rejection {
                version: select::reference(version),
                reason: None,
                retried: self.retry_marked_on(version),
            })
            .collect();
        rejected.drain(..rejected.len().saturating_sub(MAX_REJECTED));
        self.status.rejected = rejected;
    }

    /// Versions with one of this rollout's marks, oldest first.
    pub(super) fn marked(&self, kind: &str) -> Vec<&ModelVersion> {
        let Some(name) = &self.rollout.metadata.name else { return vec![] };
        let key = marks::key(kind, name);
        let has = |version: &&ModelVersion| marks::on(version, &key).is_some();
        let mut found: Vec<&ModelVersion> = self.snapshot.versions.iter().filter(has).collect();
        found.sort_by_key(|version| select::order(&version.spec.version));
        found
    }
}

/// Whether a rule sends more requests to a version than to the Service that served before; or has the version and not that Service:
/// then a step may have sent them all to the candidate.
fn leads_to(home: Home<'_>, rule: &Value, version: &VersionRef, service: &str) -> bool {
    let workload = build::workload_name(home.name, &version.version);
    let (own, before) = (rule::backend(home, rule, &workload), rule::backend(home, rule, service));
    match (own, before) {
        (Some(own), Some(before)) => rule::weight(own) > rule::weight(before),
        (Some(_), None) => true,
        (None, _) => false,
    }
}
