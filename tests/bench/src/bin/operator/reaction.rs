//! From an object to its child: a RetrainJob's Job, and turn by turn with it a Deployment's ReplicaSet.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{Line, audit::AuditLog, cluster::Cluster, median_and_worst};

const ROUNDS: usize = 20;

pub(crate) fn measure(cluster: &Cluster, log: &AuditLog) -> Result<Vec<Line>> {
    let (mut ours, mut peers) = (vec![], vec![]);
    for round in 0..ROUNDS {
        let name = format!("bench-{round}");
        cluster.create(&retrain_job(cluster, &name)?)?;
        ours.push(between(log, ("retrainjobs", &name), ("jobs", &name))?);
        cluster.create(&deployment(&name))?;
        peers.push(between(log, ("deployments", &name), ("replicasets", &name))?);
        cluster.run(&["delete", &format!("retrainjob/{name}"), &format!("deployment/{name}")], "")?;
    }
    let ((median, worst), (peer_median, peer_worst)) = (median_and_worst(ours), median_and_worst(peers));
    let peer = "Deployment to ReplicaSet";
    let line = |key, what, ours, peers| Line { key, what, unit: "ms", ours, peer: Some((peer, peers)) };
    Ok(vec![
        line("applyToJobMillis", "RetrainJob created to Job created, median", median, peer_median),
        line("applyToJobWorstMillis", "RetrainJob created to Job created, worst", worst, peer_worst),
    ])
}

/// Milliseconds from the creation of one object, as the client sees it, to that of its child.
fn between(log: &AuditLog, parent: (&str, &str), child: (&str, &str)) -> Result<f64> {
    let created = |(resource, name): (&str, &str)| {
        let (resource, prefix) = (resource.to_owned(), format!("{name}-"));
        let name = name.to_owned();
        log.first(&format!("{resource} {name} to be created"), move |call| {
            call.verb == "create"
                && call.resource == resource
                && (call.name == name || call.name.starts_with(&prefix))
        })
    };
    let (parent, child) = (created(parent)?, created(child)?);
    Ok(child.done.duration_since(parent.received).as_secs_f64() * 1000.0)
}

/// A run whose pod cannot start, so that nothing else takes the processors.
fn retrain_job(cluster: &Cluster, name: &str) -> Result<Value> {
    let mut job = cluster.example("retrainjob-first.yaml", name)?;
    job["spec"]["trainer"]["image"] = "anneal.test/absent:1".into();
    job["spec"]["trainer"]["imagePullPolicy"] = "Never".into();
    job["spec"]["baseline"]["rollout"] = "nothing-serves-here".into();
    Ok(job)
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "anneal.test/absent:1"}]}},
        },
    })
}
