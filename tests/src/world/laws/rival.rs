//! Laws of rivals: of several rollouts of one model, only the oldest takes new versions.

use anneal_core::object::{Key, Kind};
use anneal_crds::names;
use serde_json::Value;

use super::{stable_marks, text};
use crate::world::{
    manifests::MODEL,
    sim::{NAMESPACE, Sim},
};

impl Sim {
    /// Whether an older rollout of the model was marked as serving when the store had this `version`.
    pub fn is_taken(&self, name: &str, version: u64) -> bool {
        let age = |name: &str| {
            let rollout = self.store.get_at(&Key::new(Kind::ModelRollout, NAMESPACE, name), version)?;
            Some(seniority(name, rollout))
        };
        let Some(own) = age(name) else { return false };
        let records = self.store.list_at(Kind::ModelVersion, NAMESPACE, (names::LABEL_MODEL, MODEL), version);
        let mut marked = records.iter().flat_map(stable_marks);
        marked.any(|rival| age(&rival).is_some_and(|rival| rival < own))
    }

    /// The rollout that was created first: it may always take a version.
    pub fn oldest_rollout(&self) -> Option<Key> {
        let rollouts = self.store.all(Kind::ModelRollout);
        rollouts.min_by_key(|(key, rollout)| seniority(&key.name, rollout)).map(|(key, _)| key.clone())
    }

    /// A version begins here.
    pub(super) fn check_alone(&mut self, caller: usize, name: &str) {
        // Whatever was read, and whenever, an older one was there.
        let floor = self.callers[caller].walk.floor;
        if self.is_taken(name, floor) && self.is_taken(name, u64::MAX) {
            self.broken("the oldest rollout of a model takes the versions", name);
        }
    }
}

/// The smaller, the older.
fn seniority(name: &str, rollout: &Value) -> (String, String) {
    (text(&rollout["metadata"]["creationTimestamp"]).to_owned(), name.to_owned())
}
