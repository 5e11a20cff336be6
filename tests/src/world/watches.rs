//! What an operator's watches tell it, and when: all that happened, in order, and late.

use anneal_core::object::{Key, Kind};
use anneal_crds::names;
use anneal_operator::looks::Looks;
use serde_json::Value;

use super::sim::Sim;

/// How much of the news reaches an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// All of it.
    All,
    /// As much as chance has it, which may be nothing.
    Some,
}

impl Sim {
    /// Watches tell an operator what happened, as `run` does in production, before it goes to work on `key`.
    pub fn watches_tell(&mut self, caller: usize, looks: &Looks, news: News, key: &Key) {
        let (from, newest) = (self.callers[caller].watched, self.store.version());
        let behind = usize::try_from(newest - from).unwrap_or(usize::MAX);
        let told = match news {
            News::All => newest,
            News::Some => from + u64::try_from(self.dice.below(behind + 1)).unwrap_or(0),
        };
        let rollouts = self.store.keys(Kind::ModelRollout);
        for (_, other, object) in self.store.changed_since(from).take_while(|(at, ..)| *at <= told) {
            let concerned = rollouts.iter().filter(|rollout| self.concerns(rollout, other, object));
            concerned.for_each(|rollout| looks.moved(rollout));
        }
        let seen = self.store.get_at(key, told);
        looks.is_at(key, seen.and_then(|object| object["metadata"]["resourceVersion"].as_str()));
        self.callers[caller].watched = told;
    }

    /// Whether the watch of `other` wakes `key`.
    pub fn concerns(&self, key: &Key, other: &Key, object: &Value) -> bool {
        let uid = self.store.get(key).map_or(&Value::Null, |object| &object["metadata"]["uid"]);
        let labels = &object["metadata"]["labels"];
        let owners = &object["metadata"]["ownerReferences"];
        let owned = owners[0]["uid"] == *uid
            || (owners.is_null() && labels[names::LABEL_ROLLOUT] == key.name.as_str());
        let attached = || {
            let route = self.store.get(key).map(|rollout| &rollout["spec"]["traffic"]["attach"]["route"]);
            route.is_some_and(|route| *route == other.name.as_str())
        };
        match (key.kind, other.kind) {
            (
                Kind::ModelRollout,
                Kind::Deployment
                | Kind::Service
                | Kind::EndpointSlice
                | Kind::Job
                | Kind::HorizontalPodAutoscaler
                | Kind::ScaledObject,
            ) => owned,
            (Kind::ModelRollout, Kind::HttpRoute) => owned || attached(),
            (Kind::ModelRollout, Kind::ModelVersion) => true,
            (Kind::ModelRollout, Kind::Pod) => labels[names::LABEL_ROLLOUT] == key.name.as_str(),
            (Kind::RetrainJob, Kind::Job) => owned,
            (Kind::RetrainJob, Kind::Pod) => labels[names::LABEL_JOB] == key.name.as_str(),
            _ => false,
        }
    }

    /// A reconcile ended without a read: by what was seen last there was nothing to do.
    pub fn note_glance(&mut self, caller: usize) {
        let walk = &self.callers[caller].walk;
        let Some(key) = walk.key.clone() else { return };
        if walk.has_read() {
            let floor = walk.floor;
            self.callers[caller].looked.insert(key, floor);
            return;
        }
        // What was seen last may have been old already then.
        let seen = self.callers[caller].looked.get(&key).copied().unwrap_or_default();
        let mut news = self.store.changed_since(self.callers[caller].watched.min(seen));
        let is_old = news.any(|(_, other, object)| *other == key || self.concerns(&key, other, object));
        let kind = if is_old { "glance at what is old" } else { "glance" };
        *self.laws.reached.entry(kind.to_owned()).or_default() += 1;
        self.callers[caller].walk.disturbed |= is_old;
    }
}
