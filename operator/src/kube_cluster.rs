//! The real API server, through kube.
//!
//! Reads are not cached, every call has a timeout, and nothing is retried here: a retry that does not know the verb
//! could create twice.

use std::{future::Future, sync::Arc, time::Duration};

use anneal_core::{
    object::{Key, Kind, Object},
    patch,
    plan::{Note, Severity},
};
use anneal_crds::names;
use async_trait::async_trait;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{
        DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions,
        PropagationPolicy, TypeMeta,
    },
    core::ApiResource,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    clock::SystemClock,
    observe::describe,
    ports::{Clock as _, Cluster, ClusterError, Reader},
};

/// Field manager of everything that the operator applies.
pub(crate) const MANAGER: &str = names::FIELD_MANAGER;
/// Longest time of one call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What the API server says, with the code 500, of an object that is not of its kind's type.
const UNTYPED: &str = "failed to create typed patch object";
/// Who events are from.
const REPORTER: &str = "anneal.dev/operator";
/// Most bytes of an event's note.
const NOTE_LIMIT: usize = 1024;

/// How many objects are made, changed or removed at once. A slow API server that was asked for hundreds at a time answered none
/// of them within the timeout, and then was asked for all of them again.
const MAKERS: usize = 16;

/// The API server that the operator runs in.
#[derive(Clone)]
pub struct KubeCluster {
    client: Client,
    instance: String,
    makers: Arc<Semaphore>,
}

/// How kube calls a kind.
pub(crate) fn api_resource(kind: Kind) -> ApiResource {
    let (group, version, name, plural) = kind.resource();
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: kind.api_version(),
        kind: name.to_owned(),
        plural: plural.to_owned(),
    }
}

impl KubeCluster {
    /// The cluster of `client`; `instance` names this process in events.
    pub fn new(client: Client, instance: &str) -> Self {
        Self { client, instance: instance.to_owned(), makers: Arc::new(Semaphore::new(MAKERS)) }
    }

    /// A place among those who make, change or remove objects. Where users' requests go waits for nobody.
    async fn place(&self, kind: Kind) -> Option<SemaphorePermit<'_>> {
        if kind == Kind::HttpRoute {
            return None;
        }
        // Nobody closes the semaphore.
        self.makers.acquire().await.ok()
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let resource = api_resource(kind);
        if kind.is_cluster_wide() {
            return Api::all_with(self.client.clone(), &resource);
        }
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}

/// One call, with its timeout and its error told.
pub(crate) async fn call<T>(
    verb: &'static str,
    what: &Key,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| explain(verb, what, error)),
        Err(_) => Err(ClusterError::Transient {
            verb,
            what: describe(what),
            message: format!("no answer after {} s", TIMEOUT.as_secs()),
        }),
    }
}

fn explain(verb: &'static str, key: &Key, error: kube::Error) -> ClusterError {
    let what = describe(key);
    let kube::Error::Api(status) = error else {
        return ClusterError::Transient { verb, what, message: error.to_string() };
    };
    let (code, message) = (status.code, status.message);
    match code {
        409 => ClusterError::Conflict,
        401 | 403 => ClusterError::Forbidden { verb, what, message },
        400 | 405 | 413 | 415 | 422 => ClusterError::Refused { verb, what, message },
        // A server-side apply with a field that the kind does not have.
        500 if message.contains(UNTYPED) => ClusterError::Refused { verb, what, message },
        _ => ClusterError::Transient { verb, what, message },
    }
}

pub(crate) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether an object or a namespace may have this name (RFC 1123). In a URL another one would be another path: what a spec
/// names must not lead out of its namespace.
fn is_name(text: &str) -> bool {
    let is_end =
        |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    is_end(text.bytes().next())
        && is_end(text.bytes().next_back())
        && text.bytes().all(|byte| is_end(Some(byte)) || matches!(byte, b'-' | b'.'))
}

#[async_trait]
impl Reader for KubeCluster {
    async fn get(&self, key: &Key) -> Result<Option<Value>, ClusterError> {
        if !(key.kind.is_cluster_wide() || is_name(&key.namespace)) || !is_name(&key.name) {
            return Ok(None);
        }
        let api = self.api(key.kind, &key.namespace);
        let found = call("get", key, async {
            match api.get(&key.name).await {
                Ok(object) => Ok(Some(object)),
                Err(error) if is_missing(&error) => Ok(None),
                Err(error) => Err(error),
            }
        });
        Ok(found.await?.map(to_value))
    }

    async fn list(
        &self,
        kind: Kind,
        namespace: &str,
        label: (&str, &str),
    ) -> Result<Vec<Value>, ClusterError> {
        let api = self.api(kind, namespace);
        let params = ListParams::default().labels(&format!("{}={}", label.0, label.1));
        let key = Key::new(kind, namespace, "*");
        let found = call("list", &key, async {
            match api.list(&params).await {
                Ok(list) => Ok(Some(list.items)),
                // A namespace that does not exist has a list, too.
                Err(error) if is_missing(&error) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let missing = || ClusterError::NoSuchKind { verb: "list", what: describe(&key) };
        let found = found.await?.ok_or_else(missing)?;
        Ok(found.into_iter().map(|object| to_value(with_type(object, kind))).collect())
    }
}

#[async_trait]
impl Cluster for KubeCluster {
    async fn create(&self, object: &Object) -> Result<(), ClusterError> {
        let key = &object.key;
        let body = from_value("create", key, object.body.clone())?;
        let api = self.api(key.kind, &key.namespace);
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let _place = self.place(key.kind).await;
        call("create", key, async {
            match api.create(&params, &body).await {
                // A quota answers with the same code and another reason.
                Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
                    Ok(())
                }
                other => other.map(|_| ()),
            }
        })
        .await
    }

    async fn apply(&self, object: &Object) -> Result<(), ClusterError> {
        let key = &object.key;
        let api = self.api(key.kind, &key.namespace);
        let params = PatchParams::apply(MANAGER).force();
        let _place = self.place(key.kind).await;
        call("apply", key, api.patch(&key.name, &params, &Patch::Apply(&object.body))).await.map(|_| ())
    }

    async fn patch(&self, patch: &patch::Patch) -> Result<(), ClusterError> {
        let key = &patch.key;
        let operations = Patch::<()>::Json(from_value("patch", key, json!(patch.operations))?);
        let api = self.api(key.kind, &key.namespace);
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        match call("patch", key, api.patch(&key.name, &params, &operations)).await {
            Ok(_) => Ok(()),
            // The API server says of a test that failed what it says of an object that may not be so.
            Err(refused @ ClusterError::Refused { .. }) => match self.get(key).await? {
                Some(object) if patch.fits(&object) => Err(refused),
                Some(_) | None => Err(ClusterError::Conflict),
            },
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, key: &Key, uid: &str) -> Result<(), ClusterError> {
        let api = self.api(key.kind, &key.namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let _place = self.place(key.kind).await;
        let deleted = call("delete", key, async {
            match api.delete(&key.name, &params).await {
                Ok(_) => Ok(()),
                Err(error) if is_missing(&error) => Ok(()),
                Err(error) => Err(error),
            }
        });
        match deleted.await {
            // Another object has taken the name: the one that was meant is gone.
            Err(ClusterError::Conflict) => Ok(()),
            other => other,
        }
    }

    async fn record_status(&self, key: &Key, object: &Value, status: Value) -> Result<(), ClusterError> {
        let mut object = object.clone();
        object["status"] = status;
        let body = from_value("record", key, object)?;
        let api = self.api(key.kind, &key.namespace);
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        call("record", key, api.replace_status(&key.name, &params, &body)).await.map(|_| ())
    }

    async fn publish(&self, object: &Value, note: &Note) {
        let event = event(object, note, &self.instance);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match tokio::time::timeout(TIMEOUT, api.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason = note.reason, "an event could not be published"),
            Err(_) => tracing::warn!(reason = note.reason, "an event could not be published in time"),
        }
    }
}

/// One event for one note. kube's recorder would count all notes of one reason as repetitions of the first and drop their
/// words.
fn event(object: &Value, note: &Note, instance: &str) -> Event {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let metadata = &object["metadata"];
    let namespace = text(&metadata["namespace"]);
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", metadata["name"].as_str().unwrap_or_default())),
            namespace: namespace.clone(),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            name: text(&metadata["name"]),
            namespace,
            uid: text(&metadata["uid"]),
            ..ObjectReference::default()
        }),
        type_: Some(
            match note.severity {
                Severity::Normal => "Normal",
                Severity::Warning => "Warning",
            }
            .to_owned(),
        ),
        reason: Some(note.reason.clone()),
        action: Some(note.reason.clone()),
        note: Some(anneal_crds::common::shorten(&note.message, NOTE_LIMIT).into_owned()),
        event_time: Some(MicroTime(SystemClock.now())),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

/// In a list the API server says only once what its items are. Without it an item would never look as it is wanted.
pub(crate) fn with_type(object: DynamicObject, kind: Kind) -> DynamicObject {
    let types = TypeMeta { api_version: kind.api_version(), kind: kind.resource().2.to_owned() };
    DynamicObject { types: Some(types), ..object }
}

pub(crate) fn to_value(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn from_value<T: DeserializeOwned>(verb: &'static str, key: &Key, body: Value) -> Result<T, ClusterError> {
    serde_json::from_value(body).map_err(|error| ClusterError::Refused {
        verb,
        what: describe(key),
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_of_a_list_says_what_it_is() {
        let item: DynamicObject = serde_json::from_value(json!({"metadata": {"name": "d"}})).unwrap();
        let item = to_value(with_type(item, Kind::Deployment));
        assert_eq!((&item["apiVersion"], &item["kind"]), (&json!("apps/v1"), &json!("Deployment")));
    }

    #[test]
    fn a_field_that_a_kind_does_not_have_is_refused_for_good() {
        let key = Key::new(Kind::ScaledObject, "n", "s");
        let said = |message: &str| {
            let status = kube::core::Status { code: 500, message: message.to_owned(), ..Default::default() };
            explain("apply", &key, kube::Error::Api(Box::new(status))).category()
        };
        let untyped = "failed to create typed patch object (n/s; keda.sh/v1alpha1, Kind=ScaledObject): .spec.triggers[0].x: field not declared in schema";
        assert_eq!((said(untyped), said("etcdserver: request timed out")), ("refused", "transient"));
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for name in ["a", "prometheus-token", "kube-root-ca.crt", "0"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["", ".", "..", "../../other/secrets/x", "x/status", "x?watch=1", "x%2f..", "X", "-x", "x ", "é"]
        {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn an_event_keeps_the_words_of_its_note() {
        let object = json!({"apiVersion": "anneal.dev/v1alpha1", "kind": "ModelRollout",
            "metadata": {"name": "ads", "namespace": "team-a", "uid": "u"}});
        let message = "v2 takes 10 % (step 1 of 3).".to_owned();
        let note =
            Note { severity: Severity::Normal, reason: "StepStarted".into(), message: message.clone() };
        let event = event(&object, &note, "anneal-0");
        assert_eq!((event.note, event.metadata.name), (Some(message), None));
        assert_eq!(event.metadata.generate_name.as_deref(), Some("ads-"));
        assert_eq!(event.regarding.unwrap().uid.as_deref(), Some("u"));
    }
}
