//! The measured API server, by kind and plain JSON.

use std::future::Future;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use serde_json::{Value, json};

/// How many calls the benchmark has on their way at once.
const AT_ONCE: usize = 16;

/// Group, version, kind and plural.
pub(crate) type Kind = (&'static str, &'static str, &'static str, &'static str);

pub(crate) const NAMESPACE: Kind = ("", "v1", "Namespace", "namespaces");
pub(crate) const DEPLOYMENT: Kind = ("apps", "v1", "Deployment", "deployments");
pub(crate) const REPLICA_SET: Kind = ("apps", "v1", "ReplicaSet", "replicasets");
pub(crate) const SERVICE: Kind = ("", "v1", "Service", "services");
pub(crate) const ENDPOINT_SLICE: Kind = ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
pub(crate) const GATEWAY: Kind = ("gateway.networking.k8s.io", "v1", "Gateway", "gateways");
pub(crate) const ROUTE: Kind = ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes");
pub(crate) const CRD: Kind =
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");

/// The API server of KUBECONFIG.
#[derive(Clone)]
pub(crate) struct Cluster(Client);

impl Cluster {
    pub(crate) async fn connect() -> Result<Self> {
        let client = Client::try_default().await.context("KUBECONFIG names no API server")?;
        Ok(Self(client))
    }

    /// All objects of a kind, wherever they are.
    pub(crate) fn all(&self, kind: Kind) -> Api<DynamicObject> {
        Api::all_with(self.0.clone(), &resource(kind))
    }

    fn within(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.0.clone(), namespace, &resource(kind)),
            None => self.all(kind),
        }
    }

    /// Creates an object with its status.
    pub(crate) async fn create(&self, kind: Kind, mut object: Value) -> Result<()> {
        let status = object.as_object_mut().and_then(|object| object.remove("status"));
        let (group, version, name, _) = kind;
        object["apiVersion"] =
            if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
        object["kind"] = name.into();
        let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
        let (namespace, named) = (text("namespace"), text("name").context("an object has no name")?);
        let api = self.within(kind, namespace.as_deref());
        let object: DynamicObject = serde_json::from_value(object).context("an object has no metadata")?;
        api.create(&PostParams::default(), &object).await.with_context(|| format!("{name} {named}"))?;
        match status {
            Some(status) => self.set_status(kind, namespace.as_deref(), &named, &status).await,
            None => Ok(()),
        }
    }

    /// Says how an object is.
    pub(crate) async fn set_status(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
        status: &Value,
    ) -> Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        let api = self.within(kind, namespace);
        api.patch_status(name, &PatchParams::default(), &patch).await.with_context(|| name.to_owned())?;
        Ok(())
    }

    /// Deletes all objects of a kind in a namespace. Nobody collects what they leave.
    pub(crate) async fn clear(&self, kind: Kind, namespace: &str) -> Result<()> {
        let api = self.within(kind, Some(namespace));
        let deleted = api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        deleted.with_context(|| format!("{} in {namespace}", kind.3)).map(drop)
    }

    /// Changes an object.
    pub(crate) async fn patch(&self, kind: Kind, namespace: &str, name: &str, patch: &Value) -> Result<()> {
        let api = self.within(kind, Some(namespace));
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| name.to_owned())?;
        Ok(())
    }
}

fn resource((group, version, kind, plural): Kind) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Does something with each number, a few at once.
pub(crate) async fn each<F: Future<Output = Result<()>>>(
    numbers: impl IntoIterator<Item = usize>,
    what: impl Fn(usize) -> F,
) -> Result<()> {
    stream::iter(numbers).map(what).buffer_unordered(AT_ONCE).try_collect().await
}

/// The namespace of the measured object with a number: as many as a cluster with many teams has.
pub(crate) fn home(prefix: &str, number: usize) -> String {
    format!("{prefix}-{}", number % 20)
}
