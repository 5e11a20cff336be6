//! `cargo xtask bench plan`: how long a decision takes.
//!
//! Prints a table and ends with one JSON line. It measures; it passes or fails nothing.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::{collections::BTreeMap, hint::black_box, io::Write, time::Instant};

use anneal_core::{
    object::Kind,
    plan::Action,
    retrain,
    rollout::{self, Answer, Answers, Children, Endpoints, GatewayState, Memo, Question, Series},
};
use anneal_crds::{ModelRollout, ModelVersion, RetrainJob};
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The operator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of each case; the median of all counts.
const ROUNDS: usize = 31;
/// Decisions of a round.
const DECISIONS: u32 = 2_000;

const JOB: &str = include_str!("../../../../examples/car-loan/retrainjob.yaml");
const ROLLOUT: &str = include_str!("../../../../examples/car-loan/modelrollout.yaml");

fn main() -> Result<()> {
    let now = Timestamp::from_second(1_800_000_000)?;
    let job = running_job()?;
    let rollout = canary()?;
    let answers = answers(now);
    let versions = versions(&rollout)?;
    let (memo, kept) = (Memo::default(), Memo::default());
    let (children, endpoints) = (Children::default(), Endpoints::Known(BTreeMap::new()));
    let retrain_snapshot = retrain::Snapshot {
        job: &job,
        rollout: None,
        stable: None,
        child: None,
        report: None,
        pods: &[],
        version: None,
        now,
    };
    let rollout_snapshot = rollout::Snapshot {
        rollout: &rollout,
        versions: &[],
        rivals: &[],
        members: &[],
        children: &children,
        endpoints: &endpoints,
        gateway: GatewayState::Programmed,
        features: rollout::Features::Unknown,
        answers: &answers,
        probed: &[],
        alerts: rollout::AlertReceiver::Listens,
        memo: &memo,
        now,
    };
    // The steady case: everything is as the status asks for.
    let rollout_snapshot = rollout::Snapshot { versions: &versions, ..rollout_snapshot };
    let children = settled(&rollout::plan(&rollout_snapshot).actions);
    let endpoints = leading(&children);
    let settled = rollout::Snapshot {
        children: &children,
        endpoints: &endpoints,
        memo: &kept,
        ..rollout_snapshot.clone()
    };
    let cases: [(&str, &dyn Fn()); 4] = [
        ("retrainTraining", &|| drop(black_box(retrain::plan(black_box(&retrain_snapshot))))),
        ("rolloutBegins", &|| drop(black_box(rollout::plan(black_box(&rollout_snapshot))))),
        ("rolloutSteady", &|| drop(black_box(rollout::plan(black_box(&settled))))),
        ("queries", &|| drop(black_box(rollout::queries(black_box(&rollout), now)))),
    ];
    let mut out = std::io::stdout().lock();
    let mut line = serde_json::Map::new();
    writeln!(out, "{:<18}{:>12}{:>12}", "plan()", "median µs", "worst µs")?;
    for (name, plan) in cases {
        let (median, worst) = measure(plan);
        writeln!(out, "{name:<18}{median:>12.2}{worst:>12.2}")?;
        line.insert(format!("{name}Micros"), json!((median * 100.0).round() / 100.0));
    }
    writeln!(out, "{}", serde_json::Value::Object(line))?;
    Ok(())
}

/// Microseconds of one decision: median and worst round.
fn measure(plan: &dyn Fn()) -> (f64, f64) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            (0..DECISIONS).for_each(|_| plan());
            started.elapsed().as_secs_f64() * 1e6 / f64::from(DECISIONS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    (rounds[ROUNDS / 2], rounds[ROUNDS - 1])
}

fn running_job() -> Result<RetrainJob> {
    let mut job: RetrainJob = serde_saphyr::from_str(JOB).context("the example cannot be read")?;
    job.metadata.namespace = Some("team-a".into());
    job.metadata.uid = Some("0b7d7e0e-2f0a-4c4e-9d1b-000000000001".into());
    job.status = Some(serde_json::from_value(
        json!({"phase": "Training", "attempt": 1, "baseline": {"bootstrap": {}}}),
    )?);
    Ok(job)
}

fn canary() -> Result<ModelRollout> {
    let mut rollout: ModelRollout = serde_saphyr::from_str(ROLLOUT).context("the example cannot be read")?;
    rollout.metadata.namespace = Some("team-a".into());
    rollout.metadata.uid = Some("0b7d7e0e-2f0a-4c4e-9d1b-000000000002".into());
    let version = |number: u32| json!({"name": format!("m-v20270101.{number}"), "version": format!("v20270101.{number}"), "digest": format!("sha256:{number:064}")});
    rollout.status = Some(serde_json::from_value(json!({
        "phase": "Canary", "weight": 10, "stable": version(1), "candidate": version(2),
        "stepStartedAt": "2027-01-15T07:00:00Z", "trafficAcceptedAt": "2027-01-15T07:00:01Z",
    }))?);
    Ok(rollout)
}

/// The stable version and the candidate, as a run would have recorded them.
fn versions(rollout: &ModelRollout) -> Result<Vec<ModelVersion>> {
    let status = rollout.status.as_ref().context("no status")?;
    let stable = status.stable.as_ref().context("no stable version")?;
    let mut seen = serde_json::to_value(stable)?;
    seen["uri"] = "file:///models/m".into();
    let first = (stable, "Bootstrap", json!({"bootstrap": {}}));
    let next = status.candidate.iter().map(|candidate| (candidate, "Gates", json!({"version": seen})));
    let recorded = std::iter::once(first).chain(next).map(|(version, admission, baseline)| {
        serde_json::from_value(json!({
            "apiVersion": "anneal.dev/v1alpha1", "kind": "ModelVersion",
            "metadata": {"name": version.name, "namespace": "team-a", "uid": version.name,
                "annotations": {"anneal.dev/approved-by": "bench"}},
            "spec": {
                "model": rollout.spec.model, "version": version.version, "admission": admission,
                "artifact": {"uri": "file:///models/m", "digest": version.digest},
                "storage": {"persistentVolumeClaim": {"claimName": "models"}},
                "origin": {"job": "bench", "uid": "0b7d7e0e-2f0a-4c4e-9d1b-000000000001"},
                "baseline": baseline, "evaluation": {"rows": 1000, "metrics": []},
                "gates": [{"gate": "ironLaw", "enforcement": "Required", "verdict": "Pass", "message": ""}],
            },
        }))
    });
    Ok(recorded.collect::<Result<_, _>>()?)
}

/// The children that were asked for, as a cluster would have them.
fn settled(actions: &[Action]) -> Children {
    let mut children = Children::default();
    for action in actions {
        let (Action::Apply(object) | Action::Create(object)) = action else { continue };
        let mut body = object.body.clone();
        body["metadata"]["uid"] = object.key.name.clone().into();
        body["metadata"]["generation"] = 1.into();
        match object.key.kind {
            Kind::Deployment => {
                let replicas = body["spec"]["replicas"].clone();
                body["status"] =
                    json!({"observedGeneration": 1, "updatedReplicas": replicas, "readyReplicas": replicas});
                children.deployments.push(body);
            }
            Kind::Service => {
                body["spec"]["clusterIP"] = "10.96.0.1".into();
                children.services.push(body);
            }
            Kind::HttpRoute => {
                let seen = |type_: &str| json!({"type": type_, "status": "True", "observedGeneration": 1});
                body["status"] =
                    json!({"parents": [{"conditions": [seen("Accepted"), seen("ResolvedRefs")]}]});
                children.route = Some(body);
            }
            Kind::ConfigMap
            | Kind::Secret
            | Kind::Pod
            | Kind::EndpointSlice
            | Kind::Job
            | Kind::HorizontalPodAutoscaler
            | Kind::ScaledObject
            | Kind::Gateway
            | Kind::GatewayClass
            | Kind::RetrainJob
            | Kind::ModelVersion
            | Kind::ModelRollout => {}
        }
    }
    children
}

/// Every Service leads to all pods of its Deployment.
fn leading(children: &Children) -> Endpoints {
    let pods = |deployment: &Value| {
        let pods = deployment["status"]["readyReplicas"].as_u64().and_then(|pods| usize::try_from(pods).ok());
        Some((deployment["metadata"]["name"].as_str()?.to_owned(), pods?))
    };
    Endpoints::Known(children.deployments.iter().filter_map(pods).collect())
}

fn answers(now: Timestamp) -> Answers {
    let series = |part: &str, value: f64| Series {
        labels: BTreeMap::from([("anneal_part".to_owned(), part.to_owned())]),
        value,
    };
    let at = now.as_millisecond() as f64 / 1000.0;
    let ratio = vec![series("bad", 1.0), series("total", 1000.0), series("step", 900.0), series("at", at)];
    let mut histogram = vec![series("step", 900.0), series("at", at)];
    for (index, bound) in ["0.005", "0.01", "0.1", "0.3", "0.5", "1", "+Inf"].into_iter().enumerate() {
        let mut bucket = series("bucket", 900.0 + index as f64);
        bucket.labels.insert("le".into(), bound.into());
        histogram.push(bucket);
    }
    BTreeMap::from([
        (("error_rate".to_owned(), Question::Reading), Answer::Vector(ratio)),
        (("latency_p95".to_owned(), Question::Reading), Answer::Vector(histogram)),
    ])
}
