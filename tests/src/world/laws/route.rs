//! Laws of traffic: routes follow the status, and no backend goes while requests still reach it.

use anneal_core::object::{Key, Kind};
use anneal_crds::names;
use anneal_operator::ports::ClusterError;
use jiff::SignedDuration;
use serde_json::Value;

use super::rollout::{divides, on_the_way, per_mille, workload};
use crate::world::{
    gateway::{Shares, copied},
    plane::Plane,
    sim::{NAMESPACE, Sim, Verdict},
};

/// How long requests may be on their way; a little less than the operator gives them, whose times are whole seconds.
const ON_THEIR_WAY: SignedDuration = SignedDuration::from_secs(28);

impl Sim {
    pub(super) fn check_route(&mut self, caller: usize, key: &Key, route: &Value) {
        let shares = Shares::of(route);
        let name = &key.name;
        self.check_mirror(caller, key, route);
        // One that was gone is made again at once.
        if route["metadata"]["generation"] != 1 {
            self.check_rewrite(caller, name, &shares);
        }
        let sum = shares.live.values().sum::<i64>();
        let is_users = route["metadata"]["labels"][names::LABEL_ROLLOUT].is_null();
        if !(sum == 1000 || (is_users && sum > 0))
            || shares.live.values().any(|weight| !(0..=1000).contains(weight))
        {
            self.broken("weights sum to 1000", format!("{name}: {shares:?}"));
        }
        if let Some(out) = self.laws.taken_out.get(name).cloned()
            && shares.reach(&out)
        {
            self.broken("a late write does not undo a rollback", format!("{name}: {shares:?}"));
        }
        let Some(rollout) = self.store.get(&Key::new(Kind::ModelRollout, NAMESPACE, name)).cloned() else {
            return;
        };
        let read = self.callers[caller].walk.read.clone();
        let allowed = |status: &Value| {
            let wanted = wanted(name, status);
            shares.services().all(|service| wanted.as_ref().is_some_and(|wanted| wanted.reach(service)))
        };
        if !allowed(&rollout["status"]) && !allowed(&read["status"]) && !self.callers[caller].walk.disturbed {
            self.broken("a route follows its status", format!("{name}: {shares:?} in {}", rollout["status"]));
        }
    }

    pub(super) fn check_deployment_deleted(&mut self, caller: usize, key: &Key, before: &Value) {
        let rollout = super::string(&before["metadata"]["labels"][names::LABEL_ROLLOUT]);
        let status = self.status_of(&rollout);
        let is = |version: &Value| !version.is_null() && workload(&rollout, version) == key.name;
        let waits = on_the_way(&status) && ["candidate", "previous"].iter().any(|of| is(&status[*of]));
        if is(&status["stable"]) || waits {
            self.broken(
                "what serves keeps its pods",
                format!("{} was deleted in {}", key.name, status["phase"]),
            );
        }
        let reached = self.data_plane.routes.get(&rollout).is_some_and(|shares| shares.reach(&key.name));
        if reached && !self.callers[caller].walk.disturbed {
            self.broken("no backend goes while requests reach it", key.name.clone());
        }
        let left = self.data_plane.left.get(&key.name).copied();
        // A leader whose clock is behind writes down too early a time, and the next one believes it.
        if left.is_some_and(|left| self.now.duration_since(left) + self.laws.skew < ON_THEIR_WAY)
            && !self.callers[caller].walk.disturbed
        {
            self.broken("requests on their way find their backend", format!("{} left at {left:?}", key.name));
        }
    }

    fn status_of(&self, rollout: &str) -> Value {
        let key = Key::new(Kind::ModelRollout, NAMESPACE, rollout);
        self.store.get(&key).map(|rollout| rollout["status"].clone()).unwrap_or_default()
    }

    /// A reconcile of a rollout has ended.
    pub fn check_walk(&mut self, caller: usize, result: Result<(), &ClusterError>) {
        let walk = self.callers[caller].walk.clone();
        let Some(key) = walk.key.filter(|key| key.kind == Kind::ModelRollout) else { return };
        let name = &key.name;
        let status = self.status_of(name);
        let route = self.store.get(&Key::new(Kind::HttpRoute, NAMESPACE, name)).cloned();
        let shares = route.as_ref().map(Shares::of).unwrap_or_default().in_thousand();
        let refused = matches!(result, Err(ClusterError::Refused { .. }));
        let candidate = workload(name, &status["candidate"]);
        if result.is_ok() && status["phase"] == "RolledBack" && !shares.reach(&candidate) {
            self.laws.taken_out.insert(name.clone(), candidate.clone());
        }
        if walk.disturbed || !(result.is_ok() || refused) {
            return;
        }
        let told = status["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|told| told["type"] == "Stalled" && told["status"] == "True"));
        if refused && !told {
            self.broken("what is refused is told", format!("{name}: {result:?}, {}", status["conditions"]));
        }
        if result.is_ok() && divides(&status) && self.nobody_is_ready(&candidate) {
            let why = format!("{candidate} at weight {}", status["weight"]);
            self.broken("no live request goes where nobody answers", why);
        }
        for told in walk.told.iter().filter(|told| told.verdict == Verdict::Breach) {
            let service = workload(name, &serde_json::json!({"version": told.version}));
            // Where nobody could answer instead, traffic stays until someone can.
            let instead = if status["phase"] == "Baking" { "previous" } else { "stable" };
            let waits = self.may_wait(&status)
                || (!status["waitingRollback"].is_null()
                    && self.nobody_answers(&workload(name, &status[instead])));
            if shares.reach(&service) && !waits {
                let why = format!("{name}: {} breaches and has {shares:?}", told.version);
                self.broken("a breach takes a version out at once", why);
            }
        }
        // A first version that someone else's hand sent requests to has nobody beside it that could get them instead, or one whose
        // port nobody but the user knows.
        let someone = !status["stable"].is_null() || !status["adopted"].is_null();
        let rolled_back = status["phase"] == "RolledBack" && someone;
        let is_known = !is_told(&status, &["BackendMissing"]);
        if rolled_back && shares.reach(&candidate) && is_known && !self.may_wait(&status) {
            self.broken("a rollback has no preconditions", format!("{name}: {shares:?}"));
        }
        // A user's own route is not made anew, whatever else is told, and may wait for a reason that another one hides.
        let is_attached = !walk.read["spec"]["traffic"]["attach"].is_null();
        let is_left = is_attached && (route.is_none() || self.hides_why(name, &status));
        if result.is_ok()
            && !self.may_wait(&status)
            && !lies_with_the_user(&status)
            && !is_left
            && let Some(wanted) = self.wanted_of(name, &status, &shares)
            && (wanted != shares || !self.hostnames_follow(&key, route.as_ref()))
        {
            self.broken(
                "a reconcile leaves the route as the status has it",
                format!("{name}: {shares:?}, not {wanted:?}"),
            );
        }
    }

    /// The shares that a status asks for, as far as the API server takes them.
    fn wanted_of(&self, name: &str, status: &Value, seen: &Shares) -> Option<Shares> {
        let mut wanted = wanted(name, status)?;
        let rollout = self.store.get(&Key::new(Kind::ModelRollout, NAMESPACE, name))?;
        let shadow = &rollout["spec"]["strategy"]["shadow"];
        for share in wanted.mirrored.values_mut() {
            *share = copied(shadow);
        }
        if shadow.is_null() {
            wanted.mirrored.clear();
        }
        // What is dropped of a write depends on when it was written.
        if self.store.plane == Plane::Pruning {
            wanted.mirrored.clone_from(&seen.mirrored);
        }
        Some(wanted)
    }

    fn nobody_answers(&self, workload: &str) -> bool {
        self.nobody_is_ready(workload) || self.leads_nowhere(workload)
    }

    fn nobody_is_ready(&self, workload: &str) -> bool {
        let deployment = self.store.get(&Key::new(Kind::Deployment, NAMESPACE, workload));
        deployment.is_none_or(|deployment| deployment["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0)
    }

    /// Whether something that was refused is still told, in the place of why a user's route stays as it is: only the user knows
    /// what served before, or nobody answers for a version that is to get requests.
    fn hides_why(&self, name: &str, status: &Value) -> bool {
        let refused = |told: &Value| {
            let reason = super::text(&told["reason"]);
            told["type"] == "Stalled" && ["Forbidden", "Refused"].contains(&reason)
        };
        let newcomers = wanted(name, status).unwrap_or_default().live;
        let is_held =
            !status["adopted"].is_null() || newcomers.keys().any(|service| self.nobody_answers(service));
        is_held && status["conditions"].as_array().is_some_and(|all| all.iter().any(refused))
    }

    fn hostnames_follow(&self, key: &Key, route: Option<&Value>) -> bool {
        let none = serde_json::json!([]);
        let list = |value: Option<&Value>| {
            value.filter(|value| !value.is_null()).cloned().unwrap_or_else(|| none.clone())
        };
        let traffic = self.store.get(key).map(|rollout| &rollout["spec"]["traffic"]);
        if traffic.is_some_and(|traffic| traffic["gateway"].is_null()) {
            return true;
        }
        let spec = traffic.map(|traffic| &traffic["gateway"]["hostnames"]);
        list(spec) == list(route.map(|route| &route["spec"]["hostnames"]))
    }
}

/// Whether a route of the user's is missing, or lacks what nobody but the user knows, or leads to someone while a version that
/// is to take over has no pods.
pub fn lies_with_the_user(status: &Value) -> bool {
    is_told(status, &["RouteMissing", "BackendMissing", "VersionUnavailable"])
}

/// Whether a condition has one of these reasons.
fn is_told(status: &Value, reasons: &[&str]) -> bool {
    let told = |told: &Value| reasons.iter().any(|reason| told["reason"] == *reason);
    status["conditions"].as_array().is_some_and(|all| all.iter().any(told))
}

/// The shares that a status asks for.
fn wanted(rollout: &str, status: &Value) -> Option<Shares> {
    let mut shares = Shares::default();
    let candidate = workload(rollout, &status["candidate"]);
    let adopted = status["adopted"]["service"].as_str().map(str::to_owned);
    let stable = match (&status["stable"], adopted) {
        (Value::Null, None) => return None,
        (Value::Null, Some(service)) => service,
        (stable, adopted) => {
            shares.live.extend(adopted.map(|service| (service, 0)));
            workload(rollout, stable)
        }
    };
    let weight = if divides(status) { per_mille(&status["weight"]) } else { 0 };
    shares.live.insert(stable, 1000 - weight);
    if divides(status) {
        shares.live.insert(candidate.clone(), weight);
    }
    if status["phase"] == "Shadow" {
        shares.mirrored.insert(candidate, 1000);
    }
    Some(shares)
}
