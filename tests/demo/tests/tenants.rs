//! Two namespaces on a real API server: a credential of one is of no use to a rollout of the other, be it for metrics or models.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod common;

use common::{
    Kubectl, Namespace,
    delivery::{HOME, Model, get},
};
use serde_json::json;

const SERVER: &str = "http://prometheus.monitoring:9090";

/// A token for the metrics server, which the operator may read.
fn token(namespace: &str) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"token": "t"},
        "metadata": {"name": "tenant-token", "annotations": {"anneal.dev/server": SERVER}}});
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["tenant-token"], "verbs": ["get"]}]);
    let (group, metadata) = ("rbac.authorization.k8s.io", json!({"name": "tenant-token"}));
    let api = format!("{group}/v1");
    let role = json!({"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": rules});
    let binding = json!({"apiVersion": api, "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "tenant-token"},
        "subjects": [{"kind": "ServiceAccount", "name": "anneal", "namespace": "anneal-system"}]});
    for object in [secret, role, binding] {
        Kubectl::apply(namespace, &object, false).unwrap();
    }
}

#[test]
fn the_credential_of_another_namespace_is_of_no_use() {
    let other = Namespace::new("anneal-tenant");
    token(other.0);
    let errors = json!({"name": "error_rate", "window": "10s", "interval": "1s", "ratio": {
        "bad": "anneal_serve_requests_total{code=~\"5..\"}", "total": "anneal_serve_requests_total", "max": 0.05}});
    let spec = json!({"metrics": [errors], "judge": {"evidence": "none", "maxHold": "10m"},
        "prometheus": {"url": SERVER, "auth": {"bearer": {"secretName": "tenant-token"}}},
        "strategy": {"shadow": {"duration": "5s", "minRequests": 20}, "rollbackTriggers": ["error_rate"],
            "canary": {"initial": 100, "increment": 100, "interval": "5s", "minRequests": 20}}});
    let model = Model::new("tenant", "models", spec);
    let clients = model.clients();
    model.version(2, &[]);
    let status = model.until("it says which Secret it lacks", |status| {
        status.to_string().contains(&format!("may not read Secret {HOME}/tenant-token"))
    });
    assert_eq!(
        (status["phase"].as_str(), status["weight"].as_f64()),
        (Some("Shadow"), Some(0.0)),
        "{status:#}"
    );

    token(HOME);
    model.until("with its own it goes on", |status| {
        status["phase"] == "Healthy" && status["stable"]["version"] == "v20261122.2"
    });
    model.nobody_failed(&clients.finish());

    // Nor are keys to a model storage.
    let keys = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tenant-keys"},
        "stringData": {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}});
    Kubectl::apply(other.0, &keys, false).unwrap();
    let mut stored = get("mv/tenant-v20261122.2");
    let mut spec = stored["spec"].take();
    let mut baseline = spec["artifact"].take();
    (baseline["name"], baseline["version"]) = (stored["metadata"]["name"].clone(), spec["version"].take());
    spec["baseline"] = json!({"version": baseline});
    spec["version"] = "v20261122.3".into();
    spec["artifact"] = json!({"uri": "s3://models/tenant/3", "digest": format!("sha256:{}", "3".repeat(64))});
    spec["storage"] = json!({"s3": {"secretName": "tenant-keys", "endpoint": "http://storage.invalid"}});
    let metadata = json!({"name": "tenant-v20261122.3", "labels": stored["metadata"]["labels"],
        "annotations": {"anneal.dev/approved-by": "test"}});
    let version = json!({"apiVersion": stored["apiVersion"], "kind": "ModelVersion", "metadata": metadata, "spec": spec});
    Kubectl::apply(HOME, &version, false).unwrap();
    let status = model.until("its pods have no keys", |status| status.to_string().contains("tenant-keys"));
    assert_eq!(
        (status["phase"].as_str(), status["weight"].as_f64()),
        (Some("Preparing"), Some(0.0)),
        "{status:#}"
    );
    model.clean_up();
    let own = ["delete", "secret/tenant-token", "role/tenant-token", "rolebinding/tenant-token", "-n", HOME];
    Kubectl::run(&own, None).unwrap();
}
