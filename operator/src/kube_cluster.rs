//! The real API server, through kube.
//!
//! Reads are not cached, every call has a timeout, and nothing is retried here: a retry that does not know the verb
//! could create twice.

use std::{future::Future, time::Duration};

use anneal_core::{
    object::{Key, Kind, Object},
    plan::{Note, Severity},
};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client,
    api::{
        DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
        PropagationPolicy,
    },
    core::ApiResource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::Value;

use crate::{
    observe::describe,
    ports::{Cluster, ClusterError},
};

/// Field manager of everything that the operator applies.
const MANAGER: &str = "anneal.dev/operator";
/// Longest time of one call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an event's note.
const NOTE_LIMIT: usize = 1024;

/// The API server that the operator runs in.
#[derive(Clone)]
pub struct KubeCluster {
    client: Client,
    recorder: Recorder,
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
    pub fn new(client: Client, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: "anneal".into(), instance };
        Self { recorder: Recorder::new(client.clone(), reporter), client }
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &api_resource(kind))
    }
}

/// One call, with its timeout and its error told.
async fn call<T>(
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
    let message = status.message;
    match status.code {
        409 => ClusterError::Conflict,
        401 | 403 => ClusterError::Forbidden { verb, what, message },
        400 | 405 | 413 | 415 | 422 => ClusterError::Refused { verb, what, message },
        _ => ClusterError::Transient { verb, what, message },
    }
}

fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[async_trait]
impl Cluster for KubeCluster {
    async fn get(&self, key: &Key) -> Result<Option<Value>, ClusterError> {
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
                Ok(list) => Ok(list.items),
                Err(error) if is_missing(&error) => Ok(vec![]),
                Err(error) => Err(error),
            }
        });
        Ok(found.await?.into_iter().map(to_value).collect())
    }

    async fn create(&self, object: &Object) -> Result<(), ClusterError> {
        let key = &object.key;
        let body = from_value("create", key, object.body.clone())?;
        let api = self.api(key.kind, &key.namespace);
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match call("create", key, api.create(&params, &body)).await {
            Ok(_) | Err(ClusterError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn apply(&self, object: &Object) -> Result<(), ClusterError> {
        let key = &object.key;
        let api = self.api(key.kind, &key.namespace);
        let params = PatchParams::apply(MANAGER).force();
        call("apply", key, api.patch(&key.name, &params, &Patch::Apply(&object.body))).await.map(|_| ())
    }

    async fn delete(&self, key: &Key, uid: &str) -> Result<(), ClusterError> {
        let api = self.api(key.kind, &key.namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
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
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let about = ObjectReference {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            name: text(&object["metadata"]["name"]),
            namespace: text(&object["metadata"]["namespace"]),
            uid: text(&object["metadata"]["uid"]),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: match note.severity {
                Severity::Normal => EventType::Normal,
                Severity::Warning => EventType::Warning,
            },
            reason: note.reason.clone(),
            note: Some(anneal_crds::common::shorten(&note.message, NOTE_LIMIT).into_owned()),
            action: note.reason.clone(),
            secondary: None,
        };
        match tokio::time::timeout(TIMEOUT, self.recorder.publish(&event, &about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason = note.reason, "an event could not be published"),
            Err(_) => tracing::warn!(reason = note.reason, "an event could not be published in time"),
        }
    }
}

fn to_value(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn from_value(verb: &'static str, key: &Key, body: Value) -> Result<DynamicObject, ClusterError> {
    serde_json::from_value(body).map_err(|error| ClusterError::Refused {
        verb,
        what: describe(key),
        message: error.to_string(),
    })
}
