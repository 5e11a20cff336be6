//! What every pod that Anneal starts has in common: storage and the restricted pod security profile.

use anneal_crds::Storage;
use serde_json::{Value, json};

/// Whether a pod may write to its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Trainers write.
    ReadWrite,
    /// Servers only read.
    ReadOnly,
}

/// The parts of a pod that follow from its storage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageParts {
    /// `env` entries.
    pub env: Vec<Value>,
    /// `volumes` entries.
    pub volumes: Vec<Value>,
    /// `volumeMounts` entries.
    pub mounts: Vec<Value>,
}

/// How a pod reaches `storage`.
pub fn storage(storage: &Storage, access: Access) -> StorageParts {
    match storage {
        Storage::PersistentVolumeClaim(claim) => {
            let read_only = access == Access::ReadOnly;
            StorageParts {
                env: vec![],
                volumes: vec![json!({
                    "name": "storage",
                    "persistentVolumeClaim": {"claimName": claim.claim_name, "readOnly": read_only},
                })],
                mounts: vec![
                    json!({"name": "storage", "mountPath": claim.mount_path, "readOnly": read_only}),
                ],
            }
        }
        Storage::S3(s3) => {
            let secret = |key: &str| json!({"name": key, "valueFrom": {"secretKeyRef": {"name": s3.secret_name, "key": key}}});
            let mut env = vec![
                secret("AWS_ACCESS_KEY_ID"),
                secret("AWS_SECRET_ACCESS_KEY"),
                json!({"name": "AWS_REGION", "value": s3.region}),
            ];
            if let Some(endpoint) = &s3.endpoint {
                let allow_http = endpoint.starts_with("http://").to_string();
                env.push(json!({"name": "AWS_ENDPOINT_URL", "value": endpoint}));
                env.push(json!({"name": "AWS_ALLOW_HTTP", "value": allow_http}));
            }
            StorageParts { env, ..StorageParts::default() }
        }
    }
}

/// `securityContext` of a pod: no root, and files that all pods of the model can share.
pub fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// `securityContext` of a container: the restricted profile, with a read-only root.
pub fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}
