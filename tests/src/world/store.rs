//! The API server of the simulation: objects, resource versions, and what it answers to each verb.
//!
//! Called by [`super::calls`] for the operators and by controllers and users directly. A write that changes nothing
//! gets no new resource version, as in the real one. Old versions are kept, so that a read can be stale.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anneal_core::{
    object::{Key, Kind, Object},
    patch::Patch,
};
use anneal_crds::names;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::plane::Plane;

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is taken.
    Exists,
    /// A precondition on resourceVersion or uid does not hold.
    Conflict,
    /// There is no such object.
    NotFound,
    /// The object may not be so.
    Invalid(&'static str),
}

/// What became of a write that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The object is another now.
    Changed,
    /// It was so already.
    Same,
}

#[derive(Clone, Debug)]
struct Entry {
    body: Arc<Value>,
    /// What the operator applied last: what it leaves out the next time is removed.
    applied: Option<Value>,
}

/// From which version on an object was so; none if it was gone.
type Past = (u64, Option<Arc<Value>>);

/// All objects, and all that they were.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: BTreeMap<Key, Entry>,
    history: BTreeMap<Key, Vec<Past>>,
    log: Vec<(u64, Key)>,
    version: u64,
    uids: u64,
    /// What becomes of routes that are written.
    pub plane: Plane,
}

impl Store {
    /// The newest resource version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// An object as it is now.
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key).map(|entry| entry.body.as_ref())
    }

    /// An object as it is now, to keep.
    pub fn keep(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).map(|entry| Arc::clone(&entry.body))
    }

    /// An object as it was at `version`.
    pub fn get_at(&self, key: &Key, version: u64) -> Option<&Arc<Value>> {
        let past = self.history.get(key)?;
        past.iter().rev().find(|(at, _)| *at <= version)?.1.as_ref()
    }

    /// An object in every form that it had from `version` on.
    pub fn forms_since(&self, key: &Key, version: u64) -> impl Iterator<Item = &Value> {
        let past = self.history.get(key).map(Vec::as_slice).unwrap_or_default();
        let first = past.iter().rposition(|(at, _)| *at <= version).unwrap_or(0);
        past[first..].iter().filter_map(|(_, body)| body.as_deref())
    }

    /// All keys of a kind, as they are now.
    pub fn keys(&self, kind: Kind) -> Vec<Key> {
        self.all(kind).map(|(key, _)| key.clone()).collect()
    }

    /// All objects of a kind with a label, as they were at `version`.
    pub fn list_at(&self, kind: Kind, namespace: &str, label: (&str, &str), version: u64) -> Vec<Value> {
        let first = Key::new(kind, namespace, "");
        let here = |key: &Key| key.kind == kind && key.namespace == namespace;
        let found = self.history.range(first..).take_while(|(key, _)| here(key));
        found
            .filter_map(|(_, past)| past.iter().rev().find(|(at, _)| *at <= version)?.1.as_deref())
            .filter(|object| object["metadata"]["labels"][label.0] == label.1)
            .cloned()
            .collect()
    }

    /// All objects of a kind, as they are now.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Value)> {
        let first = Key::new(kind, "", "");
        let of_kind = self.objects.range(first..).take_while(move |(key, _)| key.kind == kind);
        of_kind.map(|(key, entry)| (key, entry.body.as_ref()))
    }

    /// What changed after `version`, and when: each object as it was left, or as it was before it went.
    pub fn changed_since(&self, version: u64) -> impl Iterator<Item = (u64, &Key, &Value)> {
        let first = self.log.partition_point(|(at, _)| *at <= version);
        self.log[first..].iter().filter_map(|(at, key)| {
            let past = self.history.get(key)?;
            let last = past.iter().rev().find_map(|(_, body)| body.as_deref())?;
            Some((*at, key, last))
        })
    }

    /// Creates an object.
    pub fn create(&mut self, object: &Object, now: Timestamp) -> Result<Written, Refusal> {
        if self.objects.contains_key(&object.key) {
            return Err(Refusal::Exists);
        }
        admit(&object.key, None, &object.body)?;
        self.uids += 1;
        let mut body = object.body.clone();
        if object.key.kind == Kind::HttpRoute {
            self.plane.admit(&mut body);
            author(&mut body);
        }
        one_pod_at_least(&object.key, &mut body);
        if object.key.kind == Kind::Service {
            body["spec"]["clusterIP"] = format!("10.{}.{}.7", self.uids / 256, self.uids % 256).into();
        }
        let metadata = &mut body["metadata"];
        metadata["uid"] = format!("uid-{}", self.uids).into();
        metadata["generation"] = 1.into();
        metadata["creationTimestamp"] = seconds(now).into();
        self.put(object.key.clone(), body, None);
        Ok(Written::Changed)
    }

    /// Makes the fields of `object` so for the operator, whatever others wrote.
    pub fn apply(&mut self, object: &Object, now: Timestamp) -> Result<Written, Refusal> {
        let wanted = &object.body;
        let Some(entry) = self.objects.get(&object.key) else {
            if !wanted["metadata"]["uid"].is_null() || !wanted["metadata"]["resourceVersion"].is_null() {
                return Err(Refusal::Conflict);
            }
            self.create(object, now)?;
            if let Some(entry) = self.objects.get_mut(&object.key) {
                entry.applied = Some(owned(wanted));
            }
            return Ok(Written::Changed);
        };
        for field in ["uid", "resourceVersion"] {
            let asked = &wanted["metadata"][field];
            if !asked.is_null() && *asked != entry.body["metadata"][field] {
                return Err(Refusal::Conflict);
            }
        }
        let mut body = entry.body.as_ref().clone();
        if let Some(applied) = &entry.applied {
            withdraw(&mut body, applied, wanted);
        }
        merge(&mut body, wanted);
        one_pod_at_least(&object.key, &mut body);
        if object.key.kind == Kind::HttpRoute {
            self.plane.admit(&mut body);
            if body["spec"] != entry.body["spec"] {
                author(&mut body);
            }
        }
        admit(&object.key, Some(&entry.body), &body)?;
        self.replace(&object.key, body, Some(owned(wanted)))
    }

    /// Changes a part of an object, if it is what the patch rests on.
    pub fn patch(&mut self, patch: &Patch) -> Result<Written, Refusal> {
        let entry = self.objects.get(&patch.key).ok_or(Refusal::NotFound)?;
        let mut body = patch.applied(&entry.body).ok_or(Refusal::Conflict)?;
        if patch.key.kind == Kind::HttpRoute {
            self.plane.admit(&mut body);
            if body["spec"] != entry.body["spec"] {
                author(&mut body);
            }
        }
        admit(&patch.key, Some(&entry.body), &body)?;
        let applied = entry.applied.clone();
        self.replace(&patch.key, body, applied)
    }

    /// Replaces the status of an object that must be as `read` has it.
    pub fn replace_status(&mut self, key: &Key, read: &Value, status: Value) -> Result<Written, Refusal> {
        let entry = self.objects.get(key).ok_or(Refusal::NotFound)?;
        let same = |field: &str| read["metadata"][field] == entry.body["metadata"][field];
        if !same("uid") || !same("resourceVersion") {
            return Err(Refusal::Conflict);
        }
        if status["rejected"].as_array().is_some_and(|rejected| rejected.len() > 64) {
            return Err(Refusal::Invalid("rejected must have at most 64 items"));
        }
        let mut body = entry.body.as_ref().clone();
        body["status"] = status;
        let applied = entry.applied.clone();
        self.replace(key, body, applied)
    }

    /// Deletes an object; with a uid, only this very one.
    pub fn delete(&mut self, key: &Key, uid: Option<&str>) -> Result<Written, Refusal> {
        let entry = self.objects.get(key).ok_or(Refusal::NotFound)?;
        if uid.is_some_and(|uid| entry.body["metadata"]["uid"] != uid) {
            return Err(Refusal::Conflict);
        }
        self.objects.remove(key);
        self.version += 1;
        self.history.entry(key.clone()).or_default().push((self.version, None));
        self.log.push((self.version, key.clone()));
        Ok(Written::Changed)
    }

    /// Changes an object in place, as controllers and users do; nothing if it is absent or may not be so.
    pub fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> Option<Written> {
        let entry = self.objects.get(key)?;
        let mut body = entry.body.as_ref().clone();
        change(&mut body);
        admit(key, Some(&entry.body), &body).ok()?;
        let applied = entry.applied.clone();
        self.replace(key, body, applied).ok()
    }

    /// Objects whose owners are all gone.
    pub fn orphans(&self) -> Vec<Key> {
        let uids: BTreeSet<&str> =
            self.objects.values().filter_map(|entry| entry.body["metadata"]["uid"].as_str()).collect();
        let alive = |owner: &Value| owner["uid"].as_str().is_some_and(|uid| uids.contains(uid));
        let orphaned = |body: &Value| {
            body["metadata"]["ownerReferences"]
                .as_array()
                .is_some_and(|owners| !owners.is_empty() && !owners.iter().any(alive))
        };
        self.objects.iter().filter(|(_, entry)| orphaned(&entry.body)).map(|(key, _)| key.clone()).collect()
    }

    fn replace(&mut self, key: &Key, mut body: Value, applied: Option<Value>) -> Result<Written, Refusal> {
        let entry = self.objects.get(key).ok_or(Refusal::NotFound)?;
        if *entry.body == body {
            if let Some(entry) = self.objects.get_mut(key) {
                entry.applied = applied;
            }
            return Ok(Written::Same);
        }
        if entry.body["spec"] != body["spec"] {
            let generation = entry.body["metadata"]["generation"].as_i64().unwrap_or(0);
            body["metadata"]["generation"] = (generation + 1).into();
        }
        self.put(key.clone(), body, applied);
        Ok(Written::Changed)
    }

    fn put(&mut self, key: Key, mut body: Value, applied: Option<Value>) {
        self.version += 1;
        body["metadata"]["resourceVersion"] = self.version.to_string().into();
        let body = Arc::new(body);
        self.history.entry(key.clone()).or_default().push((self.version, Some(Arc::clone(&body))));
        self.log.push((self.version, key.clone()));
        self.objects.insert(key, Entry { body, applied });
    }
}

/// What the writer of an object owns: a precondition is nobody's.
fn owned(wanted: &Value) -> Value {
    let mut owned = wanted.clone();
    if let Some(metadata) = owned["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    owned
}

/// The API server's default: a number that nobody says, or that nobody says any more, is 1.
fn one_pod_at_least(key: &Key, body: &mut Value) {
    if key.kind == Kind::Deployment && body["spec"]["replicas"].is_null() {
        body["spec"]["replicas"] = 1.into();
    }
}

/// Notes that the operator set the rules of a route.
fn author(route: &mut Value) {
    let fields = json!({"f:spec": {"f:rules": {}}});
    route["metadata"]["managedFields"] = json!([{"manager": names::FIELD_MANAGER, "fieldsV1": fields}]);
}

/// Time as Kubernetes writes it: whole seconds.
pub fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// The rules that the API server has for an object: what may not change, and what it cannot be.
fn admit(key: &Key, old: Option<&Value>, new: &Value) -> Result<(), Refusal> {
    let changed = |path: &str| old.is_some_and(|old| old.pointer(path) != new.pointer(path));
    match key.kind {
        Kind::RetrainJob | Kind::ModelVersion if changed("/spec") => {
            Err(Refusal::Invalid("spec is immutable"))
        }
        Kind::Deployment if changed("/spec/selector") => Err(Refusal::Invalid("selector is immutable")),
        Kind::Job if changed("/spec/template") => Err(Refusal::Invalid("template is immutable")),
        Kind::ConfigMap if changed("/data") => Err(Refusal::Invalid("data is immutable")),
        Kind::Deployment
            if new["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
                == "nonsense" =>
        {
            Err(Refusal::Invalid("nonsense is not a quantity"))
        }
        Kind::ConfigMap
        | Kind::Secret
        | Kind::Pod
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Job
        | Kind::Deployment
        | Kind::HorizontalPodAutoscaler
        | Kind::ScaledObject
        | Kind::Gateway
        | Kind::GatewayClass
        | Kind::HttpRoute
        | Kind::RetrainJob
        | Kind::ModelVersion
        | Kind::ModelRollout => Ok(()),
    }
}

/// Removes from `body` what was `applied` and is no longer `wanted`. Lists are atomic.
fn withdraw(body: &mut Value, applied: &Value, wanted: &Value) {
    let (Some(body), Some(applied)) = (body.as_object_mut(), applied.as_object()) else { return };
    let nothing = Map::new();
    let wanted = wanted.as_object().unwrap_or(&nothing);
    for (name, before) in applied {
        match wanted.get(name) {
            None => drop(body.remove(name)),
            Some(now) => {
                if let Some(inner) = body.get_mut(name) {
                    withdraw(inner, before, now);
                }
            }
        }
    }
}

fn merge(body: &mut Value, wanted: &Value) {
    match (body, wanted) {
        (Value::Object(body), Value::Object(wanted)) => {
            for (name, value) in wanted {
                if name != "resourceVersion" {
                    merge(body.entry(name.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (body, wanted) => *body = wanted.clone(),
    }
}

/// A condition that is true.
pub fn condition(type_: &str, reason: &str, generation: i64, now: Timestamp) -> Value {
    json!({
        "type": type_, "status": "True", "reason": reason, "message": "",
        "observedGeneration": generation, "lastTransitionTime": seconds(now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(weight: i32, annotations: Value) -> Object {
        let body = json!({"metadata": {"annotations": annotations}, "spec": {"rules": [{"weight": weight}]}});
        Object::new(Key::new(Kind::HttpRoute, "n", "r"), body)
    }

    #[test]
    fn an_apply_raises_the_generation_only_with_the_spec_and_the_version_only_with_a_change() {
        let mut store = Store::default();
        let key = Key::new(Kind::HttpRoute, "n", "r");
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(store.apply(&route(1, json!({"a": "1"})), now), Ok(Written::Changed));
        assert_eq!(store.apply(&route(1, json!({"a": "1"})), now), Ok(Written::Same));
        assert_eq!(store.version(), 1);
        assert_eq!(store.apply(&route(1, json!({"b": "1"})), now), Ok(Written::Changed));
        let body = store.get(&key).unwrap();
        assert_eq!(
            (&body["metadata"]["generation"], &body["metadata"]["annotations"]),
            (&json!(1), &json!({"b": "1"}))
        );
        assert_eq!(store.apply(&route(2, json!({"b": "1"})), now), Ok(Written::Changed));
        assert_eq!(store.get(&key).unwrap()["metadata"]["generation"], 2);
        assert_eq!(store.get_at(&key, 1).unwrap()["spec"]["rules"][0]["weight"], 1);
    }

    #[test]
    fn a_status_is_replaced_only_as_it_was_read() {
        let mut store = Store::default();
        let object = route(1, json!({}));
        store.apply(&object, Timestamp::UNIX_EPOCH).unwrap();
        let read = store.get(&object.key).unwrap().clone();
        assert_eq!(store.replace_status(&object.key, &read, json!({"a": 1})), Ok(Written::Changed));
        assert_eq!(store.replace_status(&object.key, &read, json!({"a": 2})), Err(Refusal::Conflict));
        assert_eq!(store.delete(&object.key, Some("uid-9")), Err(Refusal::Conflict));
    }
}
