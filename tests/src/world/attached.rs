//! A route of the user's, to which a rollout is attached: what it is like, and what of it an operator may change.

use anneal_core::object::{Key, Kind, Object};
use serde_json::{Value, json};

use super::{
    gateway::GATEWAY,
    sim::{NAMESPACE, Sim},
};

/// The Service that serves before any version does.
const LEGACY: &str = "legacy";

/// Where a rollout with such a route gets its requests from. The route is named like the rollout.
pub fn traffic(name: &str, adopts: bool) -> Value {
    let mut attach = json!({"route": name, "rule": "model"});
    if adopts {
        attach["service"] = LEGACY.into();
    }
    json!({"attach": attach})
}

/// Whether a rollout is attached to a route of the user's.
pub fn is_attached(rollout: &Value) -> bool {
    !rollout["spec"]["traffic"]["attach"].is_null()
}

/// The route of a rollout, as its user writes it.
fn route(rollout: &Value) -> Object {
    let name = rollout["metadata"]["name"].as_str().unwrap_or_default();
    let service = &rollout["spec"]["traffic"]["attach"]["service"];
    let backends = if service.is_null() {
        json!([])
    } else {
        json!([{"group": "", "kind": "Service", "name": service, "port": 8080, "weight": 1}])
    };
    let header = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x", "value": "y"}]}});
    let model = json!({"name": "model", "matches": [{"path": {"type": "PathPrefix", "value": "/v2"}}],
        "timeouts": {"request": "10s"}, "filters": [header], "backendRefs": backends});
    let elsewhere = json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "example.com"}});
    let site = json!({"name": "site", "filters": [elsewhere]});
    let spec =
        json!({"parentRefs": [{"name": GATEWAY}], "hostnames": ["shop.example.com"], "rules": [model, site]});
    let body = json!({"metadata": {"labels": {"app": "shop"}}, "spec": spec});
    Object::new(Key::new(Kind::HttpRoute, NAMESPACE, name), body)
}

/// A route without what is a rollout's of it, and without what the API server and controllers write.
fn of_the_user(route: &Value) -> Value {
    let mut spec = route["spec"].clone();
    let rule = &mut spec["rules"][0];
    rule["backendRefs"] = Value::Null;
    if let Some(filters) = rule["filters"].as_array_mut() {
        filters.retain(|filter| filter["type"] != "RequestMirror");
    }
    if rule["filters"].as_array().is_some_and(Vec::is_empty) {
        rule["filters"] = Value::Null;
    }
    let metadata = &route["metadata"];
    json!([spec, metadata["labels"], metadata["annotations"], metadata["ownerReferences"]])
}

impl Sim {
    /// Users make the routes of rollouts that are attached to one, where they are missing, and put back what serves.
    pub fn users_see_to_their_routes(&mut self) {
        let rollouts: Vec<Value> =
            self.store.all(Kind::ModelRollout).map(|(_, rollout)| rollout.clone()).collect();
        for rollout in rollouts.iter().filter(|rollout| is_attached(rollout)) {
            let route = route(rollout);
            let now = self.now;
            let told = |reason: &str| {
                let conditions = rollout["status"]["conditions"].as_array();
                conditions.is_some_and(|all| all.iter().any(|told| told["reason"] == reason))
            };
            let made = self.store.create(&route, now).is_ok();
            if made || told("BackendMissing") {
                self.say(|_| format!("a user writes the route {}", route.key.name));
                let fields = json!({"f:spec": {"f:rules": {}}});
                self.store.edit(&route.key, |seen| {
                    seen["spec"] = route.body["spec"].clone();
                    seen["metadata"]["managedFields"] =
                        json!([{"manager": "kubectl-create", "fieldsV1": fields}]);
                });
            }
        }
    }

    /// What worlds come to, to see that adoptions are not idle.
    pub(super) fn note_adopted(&mut self, old: &Value, new: &Value) {
        let is_beside = !new["adopted"].is_null() && old["phase"] != new["phase"];
        let came_to = if is_beside && new["phase"] == "Canary" {
            "canary beside what served before"
        } else if is_beside && new["phase"] == "RolledBack" && !old["stable"].is_null() {
            "bake that hands back to what served before"
        } else {
            return;
        };
        *self.laws.reached.entry(came_to.to_owned()).or_default() += 1;
    }

    /// An operator writes a route of the user's.
    pub(super) fn check_part(&mut self, key: &Key, before: Option<&Value>, after: &Value) {
        let rollout = self.store.get(&Key::new(Kind::ModelRollout, NAMESPACE, &key.name));
        if !rollout.is_some_and(is_attached) {
            return;
        }
        let Some(before) = before else {
            return self.broken("a user's route is not made", key.name.clone());
        };
        *self.laws.reached.entry("route of a user's that is written".to_owned()).or_default() += 1;
        if of_the_user(before) != of_the_user(after) {
            let why = format!("{}: {} then {}", key.name, of_the_user(before), of_the_user(after));
            self.broken("nothing of a user's route changes but the rollout's part", why);
        }
    }
}
