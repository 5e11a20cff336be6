//! Recover: what a status that was lost said, by the marks on ModelVersions, by what a user's route leads to, and by what the
//! Service of the stable version remembers.
//!
//! Called by [`super::plan`] before anything is decided. A mark alone is no proof where a user's rule leads: it may be that of an
//! older rollout of the same name, whose pods are long gone.

use std::collections::BTreeSet;

use anneal_crds::{
    ModelVersion, VersionRef, Weight,
    model_rollout::{Adopted, Attach, Rejection, Retry, RolloutPhase, Traffic},
    names,
};
use jiff::SignedDuration;
use serde_json::Value;

use super::{
    build::{self, Home},
    draft::Draft,
    incumbent::Incumbent,
    marks,
    remembered::Remembered,
    rule, select,
    transition::MAX_REJECTED,
};

/// How long the pods of what serves may come later than those of the way back.
const HEAD_START: SignedDuration = SignedDuration::from_mins(1);
/// Reason of a bake that begins because the status of one was lost.
const RECOVERED: &str = "Recovered";

impl Draft<'_> {
    /// A status that was lost finds its stable and rejected versions again.
    pub(super) fn recover(&mut self) {
        // With an adopted Service there was a status: its first version has not taken over, or was handed back a moment ago.
        let is_lost = self.status.stable.is_none() && self.status.adopted.is_none();
        let remembered = if is_lost { self.remembered() } else { vec![] };
        if is_lost {
            self.recover_stable(&remembered);
        }
        if self.status.rejected.is_empty() {
            self.recover_rejected(&remembered);
        }
        let stable = self.status.stable.as_ref();
        if let Some(known) = remembered.into_iter().find(|known| Some(&known.stable) == stable) {
            self.status.history = known.history;
        }
    }

    /// Of several marked versions the newest counts: the marks of its predecessors were about to go. Without any mark a Service
    /// says it.
    fn recover_stable(&mut self, remembered: &[Remembered]) {
        let marked = self.marked(names::ANNOTATION_STABLE_IN).into_iter().rev().map(select::reference);
        let marked = marked.chain(remembered.iter().map(|remembered| remembered.stable.clone()));
        // What serves knows it better than a mark from an older backup.
        let rejected = self.status.rejected.iter().chain(remembered.iter().flat_map(|known| &known.rejected));
        let rejected: BTreeSet<&String> = rejected.map(|rejection| &rejection.version.digest).collect();
        let mut marked = marked.filter(|version| !rejected.contains(&version.digest));
        let spec = &self.rollout.spec;
        match (Home::of(self.rollout), &spec.traffic) {
            (Some(home), Traffic::Attach(to @ Attach { service: Some(service), .. })) => {
                let Ok((_, rule)) = rule::meant(to, self.snapshot.children.route.as_ref()) else { return };
                let Some(stable) = marked.find(|version| leads_to(home, rule, version, service)) else {
                    return;
                };
                match rule::backend(home, rule, service) {
                    Some(warm) => self.recover_first_bake(stable, to, service, warm),
                    None => self.recover_bake(stable, remembered),
                }
            }
            (_, Traffic::Gateway(_) | Traffic::Attach(_)) => {
                if let Some(stable) = marked.next() {
                    self.recover_bake(stable, remembered);
                }
            }
        }
    }

    /// The Service that served before is still in the rule: the first version had not passed its bake.
    fn recover_first_bake(&mut self, stable: VersionRef, to: &Attach, service: &str, warm: &Value) {
        let adopted = Adopted { service: service.to_owned(), port: rule::port(warm) };
        let why = format!("HTTPRoute {} still has Service {service} for the way back", to.route);
        if self.bake_lost(stable, &why) {
            self.status.adopted = Some(adopted);
        }
    }

    /// Another version is known as the way back: stable had not passed its bake.
    fn recover_bake(&mut self, stable: VersionRef, remembered: &[Remembered]) {
        let rejected = &self.status.rejected;
        let may_serve = |version: &VersionRef| {
            version.digest != stable.digest
                && !rejected.iter().any(|rejection| rejection.version.digest == version.digest)
        };
        let marked = self.marked(names::ANNOTATION_PREVIOUS_IN).into_iter().rev().map(select::reference);
        let of_stable = remembered.iter().filter(|remembered| remembered.stable == stable);
        let mut known = marked.chain(of_stable.filter_map(|remembered| remembered.previous.clone()));
        let Some(previous) = known.find(may_serve) else {
            self.status.stable = Some(stable);
            return;
        };
        if self.bake_lost(stable, &format!("{} is kept for the way back", previous.version)) {
            self.status.previous = Some(previous);
        }
    }

    /// What a bake had shown until its status was lost was not all. Whether stable has a bake at all.
    fn bake_lost(&mut self, stable: VersionRef, why: &str) -> bool {
        let strategy = &self.rollout.spec.strategy;
        let is_watched = strategy.bake.is_some() || strategy.smoke.is_some();
        let message = format!("{} takes all requests; its bake begins anew, because {why}.", stable.version);
        if is_watched {
            self.status.smoke = strategy.smoke.as_ref().map(|_| self.first_try());
            self.status.candidate = None;
            self.note_spent_commands(&stable);
            self.enter(RolloutPhase::Baking, Weight::ZERO, RECOVERED, &message, vec![]);
        }
        self.status.stable = Some(stable);
        is_watched
    }

    /// Whoever takes all requests has passed what people asked for on its way there: an abort of it that is still there was
    /// spent, by a try that is forgotten.
    fn note_spent_commands(&mut self, stable: &VersionRef) {
        let Some(spent) = self.spent_abort(&stable.version).filter(|_| self.status.retry.is_none()) else {
            return;
        };
        let retry = self.command(names::ANNOTATION_RETRY).filter(|retry| retry.version == stable.version);
        let text = retry.map_or_else(|| names::MARK.to_owned(), |retry| retry.text);
        self.status.retry = Some(Retry { digest: stable.digest.clone(), text, spent_abort: Some(spent) });
    }

    /// Whether `version` was found in production without its pods, as after a restore, and they may still come: for some time
    /// whatever the way back is like, and then as long as that could not answer either.
    pub(super) fn comes_back(&self, version: &VersionRef) -> bool {
        let found = self.status.decision.as_ref().is_some_and(|decision| decision.reason == RECOVERED);
        let is_bake = self.status.phase == RolloutPhase::Baking;
        let waits = match self.way_back() {
            Incumbent::Version(previous) => {
                let most = self.rollout.spec.serving.progress_deadline.get();
                let age = self.step_age();
                age <= HEAD_START.min(most) || (age <= most && !self.answers(&previous))
            }
            Incumbent::Adopted(_) | Incumbent::Nobody => false,
        };
        found && is_bake && self.unavailable(version) && waits
    }

    fn recover_rejected(&mut self, remembered: &[Remembered]) {
        let marked = self.marked(names::ANNOTATION_ROLLED_BACK_IN);
        let of_mark = |version: &ModelVersion| Rejection {
            version: select::reference(version),
            reason: None,
            retried: self.retry_marked_on(version),
        };
        let remembered = remembered.iter().flat_map(|remembered| &remembered.rejected).cloned();
        let mut rejected: Vec<Rejection> = vec![];
        for lost in remembered.chain(marked.into_iter().map(of_mark)) {
            let digest = &lost.version.digest;
            let is_known = rejected.iter().any(|known| known.version.digest == *digest);
            if !is_known && !self.granted_retry(digest) {
                rejected.push(lost);
            }
        }
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
