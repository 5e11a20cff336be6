//! What the demo applies besides the examples: its namespaces, its volume, and the pod that copies its data.
//!
//! Called by `install`. Its namespaces bear its label, by which it knows them again.

use serde_json::{Value, json};

use crate::owner::{DEMO, MADE_BY};

/// Name of the volume on the node.
pub(crate) const VOLUME: &str = "anneal-demo-models";

/// The namespace of the operator.
pub(crate) fn system(name: &str) -> Value {
    labelled(name, json!({MADE_BY: DEMO}))
}

/// The namespace of the model.
pub(crate) fn namespace(home: &str) -> Value {
    // The demo's pods must pass the strictest profile.
    labelled(home, json!({MADE_BY: DEMO, "pod-security.kubernetes.io/enforce": "restricted"}))
}

fn labelled(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// What the operator's receiver of alerts knows its sender by.
pub(crate) fn alert_token(namespace: &str, token: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "anneal-alerts", "namespace": namespace},
        "stringData": {"token": token}})
}

/// Where the operator tells of its transitions.
pub(crate) fn pager_url(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "anneal-pager", "namespace": namespace},
        "stringData": {"url": format!("http://pager.{namespace}.svc/cgi-bin/page")}})
}

/// A pager that writes down what it is told, /tmp/told, and takes nothing of a rollout named `alerted` before it hears it again.
pub(crate) fn pager(namespace: &str, image: &str) -> [Value; 2] {
    let page = r#"#!/bin/sh
told=$(head -c "$CONTENT_LENGTH")
known=$(grep -cxF "$told" /tmp/told)
echo "$told" >> /tmp/told
case "$known $told" in
0*'"name":"alerted"'*) echo 'Status: 503 Service Unavailable' ;;
*) echo 'Status: 204 No Content' ;;
esac
echo
"#;
    let serve = "mkdir -p /tmp/www/cgi-bin && touch /tmp/told && printf '%s' \"$PAGE\" > /tmp/www/cgi-bin/page && \
        chmod +x /tmp/www/cgi-bin/page && exec httpd -f -p 8080 -h /tmp/www";
    let labels = json!({"app": "pager"});
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pager", "namespace": namespace, "labels": labels},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "httpd",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", serve],
                "env": [{"name": "PAGE", "value": page}],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "pager", "namespace": namespace},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    [pod, service]
}

/// A folder of the node as the volume that the namespace's claim asks for.
pub(crate) fn local_volume(home: &str, path: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": VOLUME},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": home, "name": "models"},
            "hostPath": {"path": path, "type": "Directory"},
        },
    })
    .to_string()
}

/// A pod that unpacks what it gets on standard input.
pub(crate) fn copy_pod(image: &str) -> Value {
    let folder = "/var/lib/anneal/data/car-loan";
    json!({
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "copy",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", format!("mkdir -p {folder} && tar -xC {folder}")],
                "stdin": true,
                "stdinOnce": true,
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "storage", "mountPath": "/var/lib/anneal"}],
            }],
            "volumes": [{"name": "storage", "persistentVolumeClaim": {"claimName": "models"}}],
        },
    })
}
