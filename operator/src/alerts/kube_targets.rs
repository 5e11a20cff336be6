//! The real API server's rollouts, for alerts.

use anneal_core::object::{Key, Kind};
use async_trait::async_trait;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::Targets;
use crate::{
    kube_cluster::{MANAGER, api_resource, call, is_missing, to_value, with_type},
    ports::ClusterError,
};

/// How many rollouts are read at once: a few megabytes.
const PAGE: u32 = 200;

/// The rollouts of a namespace, or of all.
pub struct KubeTargets {
    client: Client,
    namespace: Option<String>,
}

impl KubeTargets {
    /// The rollouts in `namespace`; none for all.
    pub fn new(client: Client, namespace: Option<String>) -> Self {
        Self { client, namespace }
    }

    fn api(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = api_resource(Kind::ModelRollout);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

#[async_trait]
impl Targets for KubeTargets {
    async fn page(&self, from: Option<&str>) -> Result<(Vec<Value>, Option<String>), ClusterError> {
        let api = self.api(self.namespace.as_deref());
        let mut params = ListParams::default().limit(PAGE);
        if let Some(from) = from {
            params = params.continue_token(from);
        }
        let key = Key::new(Kind::ModelRollout, self.namespace.as_deref().unwrap_or("*"), "*");
        let list = call("list", &key, api.list(&params)).await?;
        let next = list.metadata.continue_.filter(|token| !token.is_empty());
        let items = list.items.into_iter();
        Ok((items.map(|item| to_value(with_type(item, Kind::ModelRollout))).collect(), next))
    }

    async fn annotate(&self, object: &Value, name: &str, value: &str) -> Result<(), ClusterError> {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = Key::new(Kind::ModelRollout, text("namespace"), text("name"));
        let api = self.api(Some(&key.namespace));
        // The version makes it a patch of this very object as it was read.
        let patch =
            json!({"metadata": {"resourceVersion": text("resourceVersion"), "annotations": {name: value}}});
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        call("patch", &key, async {
            match api.patch(&key.name, &params, &Patch::Merge(&patch)).await {
                Ok(_) => Ok(()),
                Err(error) if is_missing(&error) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Json, Router,
        extract::{Path, RawQuery},
        http::{HeaderMap, StatusCode},
        routing::get,
    };
    use tokio::net::TcpListener;

    use super::*;

    type Seen = Arc<Mutex<Vec<(String, String, Value)>>>;

    fn status(code: StatusCode) -> (StatusCode, Json<Value>) {
        let answer = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "",
            "reason": "", "code": code.as_u16()});
        (code, Json(answer))
    }

    /// An API server with two pages of one rollout each; `taken` was changed, `gone` was deleted.
    async fn server(seen: Seen) -> Client {
        let list = |RawQuery(query): RawQuery| async move {
            let page = |name: &str, next: &str| {
                Json(
                    json!({"apiVersion": "anneal.dev/v1alpha1", "kind": "ModelRolloutList", "metadata": {"continue": next},
                    "items": [{"metadata": {"namespace": "team-a", "name": name, "resourceVersion": "7"}}]}),
                )
            };
            if query.is_some_and(|query| query.contains("continue=more")) {
                page("b", "")
            } else {
                page("a", "more")
            }
        };
        let patch = move |Path(name): Path<String>, headers: HeaderMap, Json(body): Json<Value>| async move {
            let kind = headers.get("content-type").unwrap().to_str().unwrap().to_owned();
            seen.lock().unwrap().push((name.clone(), kind, body.clone()));
            match name.as_str() {
                "taken" => status(StatusCode::CONFLICT),
                "gone" => status(StatusCode::NOT_FOUND),
                _ => (StatusCode::OK, Json(json!({"metadata": {"name": name}}))),
            }
        };
        let app = Router::new()
            .route("/apis/anneal.dev/v1alpha1/namespaces/team-a/modelrollouts", get(list))
            .route(
                "/apis/anneal.dev/v1alpha1/namespaces/team-a/modelrollouts/{name}",
                axum::routing::patch(patch),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap()
    }

    #[tokio::test]
    async fn rollouts_are_read_by_page_and_written_only_as_they_were_read() {
        let seen = Seen::default();
        let targets = KubeTargets::new(server(seen.clone()).await, Some("team-a".into()));
        let (page, next) = targets.page(None).await.unwrap();
        assert_eq!((&page[0]["metadata"]["name"], &page[0]["kind"]), (&json!("a"), &json!("ModelRollout")));
        let (rest, last) = targets.page(next.as_deref()).await.unwrap();
        assert_eq!((&rest[0]["metadata"]["name"], last), (&json!("b"), None));

        let named = |name: &str| {
            let mut object = page[0].clone();
            object["metadata"]["name"] = name.into();
            object
        };
        targets.annotate(&page[0], "anneal.dev/abort", "v2: why").await.unwrap();
        let patch =
            json!({"metadata": {"resourceVersion": "7", "annotations": {"anneal.dev/abort": "v2: why"}}});
        assert_eq!(*seen.lock().unwrap(), [("a".into(), "application/merge-patch+json".into(), patch)]);
        let taken = targets.annotate(&named("taken"), "anneal.dev/abort", "v2: why").await;
        assert!(matches!(taken, Err(ClusterError::Conflict)), "{taken:?}");
        targets.annotate(&named("gone"), "anneal.dev/abort", "v2: why").await.unwrap();
    }
}
