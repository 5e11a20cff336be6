//! Our side: the operator, and ModelRollouts in a canary or at rest.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, DEPLOYMENT, ENDPOINT_SLICE, GATEWAY, Kind, NAMESPACE, ROUTE, SERVICE, each, home},
    plane::{self, Seen},
    process::Process,
    round::{Controller, name},
};

const ROLLOUT: Kind = ("anneal.dev", "v1alpha1", "ModelRollout", "modelrollouts");
const VERSION: Kind = ("anneal.dev", "v1alpha1", "ModelVersion", "modelversions");

/// What a rollout does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Its version serves.
    Rests,
    /// A canary looks at its metric every second.
    Moves,
}

/// The operator and its objects.
pub(crate) struct Ours {
    cluster: Cluster,
    operator: PathBuf,
    log: PathBuf,
    prometheus: String,
    seen: Seen,
}

impl Ours {
    pub(crate) fn new(cluster: Cluster, operator: &Path, logs: &Path, prometheus: &str) -> Self {
        let seen = Seen::default();
        plane::play(&cluster, &seen);
        let log = logs.join("bench-anneal.log");
        Self { cluster, operator: operator.to_owned(), log, prometheus: prometheus.to_owned(), seen }
    }

    /// Rollouts whose version serves.
    pub(crate) async fn make_idle(&self, round: &str, idle: usize) -> Result<()> {
        self.furnish(round).await?;
        each(0..idle, |number| self.rollout(round, number, Doing::Rests)).await
    }

    /// Namespaces, each with a gateway.
    async fn furnish(&self, round: &str) -> Result<()> {
        each(0..20, |number| async move {
            let namespace = home(round, number);
            self.cluster.create(NAMESPACE, json!({"metadata": {"name": namespace}})).await?;
            let condition = json!({"type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
                "lastTransitionTime": "2026-11-21T12:00:00Z"});
            let gateway = json!({
                "metadata": {"name": "models", "namespace": namespace},
                "spec": {"gatewayClassName": "none", "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]},
                "status": {"conditions": [condition]},
            });
            self.cluster.create(GATEWAY, gateway).await
        })
        .await
    }

    async fn rollout(&self, round: &str, number: usize, doing: Doing) -> Result<()> {
        let (name, namespace) = (name(round, number), home(round, number));
        self.cluster.create(VERSION, version(&name, &namespace, 1)).await?;
        if doing == Doing::Moves {
            self.cluster.create(VERSION, version(&name, &namespace, 2)).await?;
        }
        self.cluster.create(ROLLOUT, rollout(&name, &namespace, &self.prometheus, doing)).await
    }
}

impl Controller for Ours {
    async fn make(&self, round: &str, active: usize) -> Result<()> {
        self.furnish(round).await?;
        each(0..active, |number| self.rollout(round, number, Doing::Moves)).await
    }

    async fn clear(&self, round: &str) -> Result<()> {
        // What serves stays when its rollout goes, and would be in the next round's lists.
        for kind in [ROLLOUT, VERSION, DEPLOYMENT, SERVICE, ENDPOINT_SLICE, ROUTE] {
            each(0..20, |number| async move { self.cluster.clear(kind, &home(round, number)).await }).await?;
        }
        Ok(())
    }

    fn start(&self) -> Result<Process> {
        let mut command = Command::new(&self.operator);
        // As in the operator's image.
        command.env("MIMALLOC_ALLOW_THP", "0").args(["--listen", "127.0.0.1:0", "--namespace", "default"]);
        Process::start(&mut command, &self.log)
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}

fn reference(name: &str, number: u32) -> Value {
    json!({"name": format!("{name}-v20261121.{number}"), "version": format!("v20261121.{number}"),
        "digest": format!("sha256:{number:064x}")})
}

fn version(name: &str, namespace: &str, number: u32) -> Value {
    let (admission, baseline) = match number {
        1 => ("Bootstrap", json!({"bootstrap": {}})),
        _ => {
            let mut seen = reference(name, 1);
            seen["uri"] = "file:///models/1".into();
            ("Gates", json!({"version": seen}))
        }
    };
    let reference = reference(name, number);
    json!({
        "metadata": {"name": reference["name"], "namespace": namespace, "labels": {"anneal.dev/model": name},
            "annotations": {"anneal.dev/approved-by": "bench"}},
        "spec": {
            "model": name, "version": reference["version"], "admission": admission,
            "artifact": {"uri": format!("file:///models/{number}"), "digest": reference["digest"]},
            "storage": {"persistentVolumeClaim": {"claimName": "models"}},
            "origin": {"job": "bench", "uid": "0b7d7e0e-2f0a-4c4e-9d1b-000000000001"},
            "baseline": baseline,
            "evaluation": {"rows": 1000, "metrics": []},
            "gates": [{"gate": "ironLaw", "enforcement": "Required", "verdict": "Pass", "message": ""}],
        },
    })
}

fn rollout(name: &str, namespace: &str, prometheus: &str, doing: Doing) -> Value {
    let errors = json!({"name": "error_rate", "window": "10s", "ratio": {
        "bad": "anneal_serve_requests_total{code=~\"5..\"}", "total": "anneal_serve_requests_total", "max": 0.01}});
    let mut status = json!({"phase": "Healthy", "weight": 0, "stable": reference(name, 1)});
    if doing == Doing::Moves {
        status["phase"] = "Preparing".into();
        status["candidate"] = reference(name, 2);
        #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
        let now = jiff::Timestamp::now();
        status["stepStartedAt"] = now.to_string().into();
    }
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": name,
            "candidate": {"follow": "NewestApproved"},
            "serving": {"image": "anneal/trainer:0.1.0", "replicas": 2},
            "traffic": {"gateway": {"name": "models"}},
            "prometheus": {"url": prometheus},
            "strategy": {"canary": {"initial": 10, "increment": 90, "interval": "1d", "max": 100}, "rollbackTriggers": ["error_rate"]},
            "metrics": [errors],
            "judge": {"evidence": "none", "maxHold": "1h"},
        },
        "status": status,
    })
}
