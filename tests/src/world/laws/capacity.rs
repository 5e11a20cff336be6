//! Laws of capacity: pods come before requests, and only autoscalers say how many there are.

use anneal_core::object::{Key, Kind};
use anneal_crds::names;
use serde_json::Value;

use super::{
    rollout::{divides, workload},
    text,
};
use crate::world::{
    serving::bounds,
    sim::{NAMESPACE, Sim},
};

impl Sim {
    /// How many ready pods a candidate needs at least for a share, in per mille, by what an operator may have read.
    pub(super) fn pods_needed(&self, caller: usize, name: &str, stable: &Value, share: i64) -> i64 {
        let walk = &self.callers[caller].walk;
        let serving = &walk.read["spec"]["serving"];
        let least = serving["replicas"].as_i64().unwrap_or(i64::MAX);
        let Some(most) = serving["autoscaling"]["maxReplicas"].as_i64() else { return least };
        let deployment = Key::new(Kind::Deployment, NAMESPACE, &workload(name, stable));
        let forms = self.store.forms_since(&deployment, walk.floor);
        let pods = forms.filter_map(|form| form["spec"]["replicas"].as_i64()).min().unwrap_or(0);
        // Rounded up.
        ((pods * share + 999) / 1000).clamp(least, most.max(least))
    }

    /// An operator that writes a Deployment leaves it as many pods as it has, unless it was off when this one looked: two
    /// leaders may both bring up what is to come, and know of different numbers of stable's pods.
    pub(super) fn check_number_stays(&mut self, caller: usize, key: &Key, before: &Value, after: &Value) {
        let walk = &self.callers[caller].walk;
        let read = &walk.read["spec"]["serving"]["autoscaling"];
        let (old, new) = (&before["spec"]["replicas"], &after["spec"]["replicas"]);
        let was_off = match self.store.get_at(key, walk.floor) {
            Some(form) => form["spec"]["replicas"] == 0,
            None => true,
        };
        if !read.is_null() && !was_off && *old != 0 && old != new {
            let why = format!("{} had {old} pods and gets {new}", key.name);
            self.broken("only autoscalers say how many pods there are", why);
        }
    }

    /// Who may have to take all requests back keeps its pods.
    pub(super) fn check_way_back_stays_warm(
        &mut self,
        caller: usize,
        key: &Key,
        before: &Value,
        after: &Value,
    ) {
        let walk = &self.callers[caller].walk;
        let Some(rollout) = walk.key.as_ref().filter(|_| !walk.late && !walk.disturbed) else { return };
        let status = self.store.get(rollout).map(|rollout| rollout["status"].clone()).unwrap_or_default();
        let way_back = match text(&status["phase"]) {
            "Baking" => &status["previous"],
            _ if divides(&status) => &status["stable"],
            _ => return,
        };
        let ((least, _), (now, most)) = (bounds(&before["spec"]), bounds(&after["spec"]));
        let Some(deployment) = self.store.get(&Key::new(Kind::Deployment, NAMESPACE, &key.name)) else {
            return;
        };
        // Whoever asked for so many pods of each version and does not any more keeps those that came.
        let was_asked = |form: &Value| form["spec"]["serving"]["replicas"] == least;
        let pods = deployment["spec"]["replicas"].as_i64().unwrap_or(0);
        let held = if self.store.forms_since(rollout, 0).any(was_asked) { pods.min(least) } else { least };
        if workload(&rollout.name, way_back) == key.name && now < held.min(most) {
            let why = format!("{} had {least} pods at least and gets {now}", key.name);
            self.broken("the way back stays warm", why);
        }
    }

    /// What serves has the autoscaler that is asked for, within whose bounds it is, and no other one.
    pub(crate) fn check_autoscalers(&mut self, name: &str, rollout: &Value, stable: &str) {
        let scaling = &rollout["spec"]["serving"]["autoscaling"];
        for (kind, field) in [(Kind::HorizontalPodAutoscaler, "hpa"), (Kind::ScaledObject, "keda")] {
            let found = self.store.list_at(kind, NAMESPACE, (names::LABEL_ROLLOUT, name), u64::MAX);
            let names: Vec<&str> = found.iter().map(|object| text(&object["metadata"]["name"])).collect();
            let wanted = if scaling[field].is_null() { vec![] } else { vec![stable] };
            if names != wanted {
                let why = format!("{name}: {kind:?} {names:?}, and {wanted:?} is asked for");
                self.broken("what serves has the autoscaler that is asked for", why);
            }
            let deployment = Key::new(Kind::Deployment, NAMESPACE, stable);
            let pods =
                self.store.get(&deployment).and_then(|deployment| deployment["spec"]["replicas"].as_i64());
            let is_outside = |scaler: &Value| {
                let (least, most) = bounds(&scaler["spec"]);
                pods.is_some_and(|pods| !(least..=most).contains(&pods))
            };
            if found.iter().any(is_outside) {
                self.broken("pods are within the bounds of their autoscaler", format!("{name}: {pods:?}"));
            }
        }
    }

    /// What worlds came to.
    pub(super) fn note_capacity(&mut self, old: &Value, new: &Value) {
        if old["capacity"]["awaited"].is_null() && !new["capacity"]["awaited"].is_null() {
            *self.laws.reached.entry("candidate that waits for pods".to_owned()).or_default() += 1;
        }
        let missing = |status: &Value| {
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            conditions.any(|condition| condition["reason"] == "AutoscalerKindMissing")
        };
        if missing(new) && !missing(old) {
            *self.laws.reached.entry("autoscaler that nobody knows".to_owned()).or_default() += 1;
        }
    }
}
