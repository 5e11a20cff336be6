//! Looks: what the last look at an active rollout saw, so that a tick in which nothing moved asks nobody but Prometheus.
//!
//! Filled and asked by [`crate::reconcile`], and told by `run` what the watches say. What is kept here never decides: it can
//! say that nothing is to be done, and for everything else the world is looked at again. So what is stale delays a look and no
//! more, and what is lost costs one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anneal_core::object::Key;
use anneal_crds::{ModelRolloutStatus, model_rollout::RolloutPhase};
use jiff::{SignedDuration, Timestamp};

use crate::{observe::Look, turns::Errand};

/// How long a look counts, for what no watch tells of, such as a Gateway that may not be watched.
const MAX_AGE: SignedDuration = SignedDuration::from_mins(5);

/// The last looks, by rollout.
#[derive(Debug, Default)]
pub struct Looks(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    /// How much was heard of, in all.
    heard: u64,
    entries: HashMap<Key, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// What had been heard of when something of this rollout moved last.
    moved: u64,
    look: Option<Arc<Look>>,
    errand: Errand,
}

/// When a look began.
#[derive(Clone, Copy, Debug)]
pub struct Begin(u64);

impl Looks {
    /// A look begins: whatever moves from now on, it may not have seen.
    pub fn begin(&self, rollout: &Key) -> Begin {
        let mut all = self.lock();
        let heard = all.heard;
        let entry = all.entries.entry(rollout.clone()).or_insert(Entry {
            moved: heard,
            look: None,
            errand: Errand::Other,
        });
        entry.look = None;
        Begin(heard)
    }

    /// What a reconcile of the rollout is about, by what was seen last.
    pub fn errand(&self, rollout: &Key) -> Errand {
        self.lock().entries.get(rollout).map_or(Errand::Other, |entry| entry.errand)
    }

    /// A look saw this status.
    pub fn note(&self, rollout: &Key, status: Option<&ModelRolloutStatus>) {
        let takes_part = |status: &ModelRolloutStatus| {
            let goes_back = status.phase == RolloutPhase::RolledBack && status.traffic_accepted_at.is_none();
            goes_back
                || status.phase.is_judged()
                || status.phase == RolloutPhase::RollingBack
                || status.waiting_rollback.is_some()
        };
        let errand = if status.is_some_and(takes_part) { Errand::Judged } else { Errand::Other };
        if let Some(entry) = self.lock().entries.get_mut(rollout) {
            entry.errand = errand;
        }
    }

    /// Keeps a look that asked for nothing, if it is one that is looked at often and nothing moved meanwhile. While something
    /// is in the way the world is looked at each time: there may be no watch of it.
    pub fn keep(&self, rollout: &Key, begin: Begin, look: Look) {
        let is_stalled = |status: &ModelRolloutStatus| {
            status.conditions.iter().any(|said| said.type_ == "Stalled" && said.status == "True")
        };
        let rests = look.status().is_none_or(|status| !status.phase.is_judged() || is_stalled(status));
        if rests || !look.is_whole() {
            return;
        }
        if let Some(entry) = self.lock().entries.get_mut(rollout).filter(|entry| entry.moved <= begin.0) {
            entry.look = Some(Arc::new(look.slim()));
        }
    }

    /// The last look, if it still counts.
    pub fn recall(&self, rollout: &Key, now: Timestamp) -> Option<Arc<Look>> {
        let look = self.lock().entries.get(rollout)?.look.clone()?;
        let age = now.duration_since(look.at);
        // A clock that was set back says nothing about its age.
        (SignedDuration::ZERO..=MAX_AGE).contains(&age).then_some(look)
    }

    /// The rollout is known to have this version: another one that was seen is old, or too new to be told of yet.
    pub fn is_at(&self, rollout: &Key, resource_version: Option<&str>) {
        if let Some(entry) = self.lock().entries.get_mut(rollout) {
            entry.look.take_if(|look| look.resource_version() != resource_version);
        }
    }

    /// Something that the rollout is judged by is not what it was.
    pub fn moved(&self, rollout: &Key) {
        let mut all = self.lock();
        all.heard += 1;
        let heard = all.heard;
        if let Some(entry) = all.entries.get_mut(rollout) {
            (entry.moved, entry.look) = (heard, None);
        }
    }

    /// The rollout is gone.
    pub fn gone(&self, rollout: &Key) {
        let mut all = self.lock();
        all.heard += 1;
        all.entries.remove(rollout);
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
