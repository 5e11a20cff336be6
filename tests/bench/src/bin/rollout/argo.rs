//! The peer: Argo Rollouts, as a built program that is given, with equivalent Rollouts and AnalysisTemplates.
//!
//! It has no gateway here, so what is measured of it ends earlier than of ours: with `status.abort`, which it writes when it
//! has decided, before any traffic moves.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use futures::StreamExt;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    cluster::{CRD, Cluster, Kind, NAMESPACE, each, home},
    plane::{self, Place, Seen},
    process::Process,
    round::{Controller, name, wait},
};

const ROLLOUT: Kind = ("argoproj.io", "v1alpha1", "Rollout", "rollouts");
const TEMPLATE: Kind = ("argoproj.io", "v1alpha1", "AnalysisTemplate", "analysistemplates");
const ANALYSIS: Kind = ("argoproj.io", "v1alpha1", "AnalysisRun", "analysisruns");

/// Argo Rollouts with some flags.
pub(crate) struct Argo {
    name: &'static str,
    flags: &'static [&'static str],
    cluster: Cluster,
    program: PathBuf,
    logs: PathBuf,
    prometheus: String,
    seen: Seen,
}

impl Argo {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// Its kinds.
pub(crate) async fn install(cluster: &Cluster, crds: &Path) -> Result<()> {
    let files = if crds.is_dir() {
        let entries = fs::read_dir(crds).with_context(|| format!("cannot read {}", crds.display()))?;
        entries.flatten().map(|entry| entry.path()).collect()
    } else {
        vec![crds.to_owned()]
    };
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("{} is no YAML", file.display()))?;
        for crd in documents.into_iter().filter(|document| document["kind"] == CRD.2) {
            cluster.create(CRD, crd).await?;
        }
    }
    plane::play_replica_sets(cluster);
    Ok(())
}

/// As it comes, and with the limits of its client lifted.
pub(crate) fn peers(cluster: &Cluster, program: &Path, logs: &Path, prometheus: &str) -> Vec<Argo> {
    let seen = Seen::default();
    let rollouts = plane::changes(cluster.all(ROLLOUT));
    let noted = seen.clone();
    tokio::spawn(rollouts.for_each(move |rollout| {
        let status = &rollout.data["status"];
        // It is nowhere before its first revision is there; a canary has begun where there are two.
        if status["stableRS"].as_str().is_some_and(|stable| !stable.is_empty()) {
            let is_canary = status["currentPodHash"] != status["stableRS"] && status["abort"] != true;
            noted.note(&rollout.name_any(), if is_canary { Place::Both } else { Place::One });
        }
        std::future::ready(())
    }));
    let argo = |name, flags| Argo {
        name,
        flags,
        cluster: cluster.clone(),
        program: program.to_owned(),
        logs: logs.to_owned(),
        prometheus: prometheus.to_owned(),
        seen: seen.clone(),
    };
    vec![argo("argoLifted", &["--qps", "1000", "--burst", "2000"]), argo("argoDefault", &[])]
}

impl Controller for Argo {
    async fn make(&self, round: &str, active: usize) -> Result<()> {
        each(0..20, |number| async move {
            let namespace = json!({"metadata": {"name": home(round, number)}});
            self.cluster.create(NAMESPACE, namespace).await
        })
        .await?;
        each(0..active, |number| async move {
            let (name, namespace) = (name(round, number), home(round, number));
            self.cluster.create(TEMPLATE, template(&name, &namespace, &self.prometheus)).await?;
            self.cluster.create(ROLLOUT, rollout(&name, &namespace)).await
        })
        .await?;
        // The first revision takes no canary; it has to be there before the second.
        wait(&self.seen, &format!("{round}-"), Place::One, active).await?;
        let second = json!({"spec": {"template": {"metadata": {"annotations": {"revision": "2"}}}}});
        let second = &second;
        each(0..active, |number| async move {
            self.cluster.patch(ROLLOUT, &home(round, number), &name(round, number), second).await
        })
        .await
    }

    async fn clear(&self, round: &str) -> Result<()> {
        each(0..20, |number| async move {
            self.cluster.clear(ROLLOUT, &home(round, number)).await?;
            self.cluster.clear(ANALYSIS, &home(round, number)).await
        })
        .await
    }

    fn start(&self) -> Result<Process> {
        let kubeconfig = std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?;
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(kubeconfig).arg("--leader-elect=false").args(self.flags);
        Process::start(&mut command, &self.logs.join(format!("bench-{}.log", self.name)))
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}

fn template(name: &str, namespace: &str, prometheus: &str) -> Value {
    let query =
        format!("sum(rate(errors{{model=\"{name}\"}}[10s])) / sum(rate(requests{{model=\"{name}\"}}[10s]))");
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"metrics": [{
            "name": "error-rate", "interval": "1s", "failureLimit": 0, "successCondition": "result[0] <= 0.01",
            "provider": {"prometheus": {"address": prometheus, "query": query}},
        }]},
    })
}

fn rollout(name: &str, namespace: &str) -> Value {
    let labels = json!({"app": name});
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "anneal.test/absent:1"}]}},
            "strategy": {"canary": {
                "analysis": {"templates": [{"templateName": name}]},
                "steps": [{"setWeight": 50}, {"pause": {}}],
            }},
        },
    })
}
