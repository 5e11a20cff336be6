//! What the demo applies besides the examples: its namespace, its volume, and the pod that copies its data.

use serde_json::{Value, json};

/// Name of the volume on the node.
pub(crate) const VOLUME: &str = "anneal-demo-models";

/// The namespace of the model.
pub(crate) fn namespace(home: &str) -> String {
    // The demo's pods must pass the strictest profile.
    format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {home}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
    )
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
