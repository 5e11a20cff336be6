//! `cargo xtask bench`: the measurements that README and issues quote.
//!
//! Called by people. Every measurement prints a table and ends with one JSON line; none passes or fails.

use std::path::{Path, PathBuf};

use anneal_cluster::Cluster;
use anneal_cluster::sh::Cmd;
use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::{
    Context,
    cargo::Cargo,
    demo::{self, Options},
    image::Which as Image,
    print,
};

/// What can be measured.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Which {
    /// One decision of each kind
    Plan,
    /// The operator in a cluster: memory, writes, and how soon it acts
    Operator,
    /// Active rollouts by the thousand: how soon a breach is out of traffic, processor time and memory
    Rollout(Rollout),
    /// False rollbacks and delays of the judge, and of the rules of Argo Rollouts and Flagger on the same simulated requests
    Judge(Judge),
}

/// How much is simulated.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Judge {
    /// Simulated rollouts in each cell
    #[arg(long, default_value_t = 1000)]
    rollouts: u32,
}

/// What is measured, and beside whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Rollout {
    /// Active rollouts at an interval of one second, for each measurement
    #[arg(long, default_value = "200,1000")]
    active: String,
    /// Rollouts at rest beside the active ones of the last measurement
    #[arg(long, default_value = "10000")]
    idle: String,
    /// A built controller of Argo Rollouts to measure in turns with ours; nothing is fetched
    #[arg(long, requires = "argo_crds")]
    argo: Option<PathBuf>,
    /// Its custom resource definitions: a file, or a folder of them
    #[arg(long, requires = "argo")]
    argo_crds: Option<PathBuf>,
}

/// The cluster of the measurements.
const CLUSTER: &str = "bench";

/// Builds it as it ships, and runs it.
pub(crate) fn run(context: &Context, which: &Which) -> Result<()> {
    match which {
        Which::Plan => {
            let program = build(context, "anneal-bench-plan")?;
            // As in the operator's image.
            print(Cmd::new(program).env("MIMALLOC_ALLOW_THP", "0").capture()?.trim_end())
        }
        Which::Operator => operator(context),
        Which::Rollout(what) => rollout(context, what),
        Which::Judge(what) => judge(context, what),
    }
}

/// On an API server of its own, on which nothing else happens.
fn rollout(context: &Context, what: &Rollout) -> Result<()> {
    let program = build(context, "anneal-bench-rollout")?;
    let step = context.progress.step("Build the operator");
    let cargo = Cargo::prepare(context)?;
    let log = context.cache.log("bench");
    cargo
        .command(&["build", "--profile", "operator", "--locked", "--package", "anneal-operator"])
        .run(&log)?;
    step.done();
    let cluster = Cluster::up_api_only(CLUSTER, &context.cache, &context.progress)?;
    let step = context.progress.step("Measure, which takes half an hour");
    let logs = log.parent().unwrap_or_else(|| Path::new("."));
    let mut command = Cmd::new(program)
        .arg("--operator")
        .arg(cargo.target().join("operator/anneal-operator"))
        .arg("--logs")
        .arg(logs)
        .args(["--active", &what.active, "--idle", &what.idle])
        .env("KUBECONFIG", cluster.kubeconfig());
    if let (Some(argo), Some(crds)) = (&what.argo, &what.argo_crds) {
        command = command.arg("--argo").arg(argo).arg("--argo-crds").arg(crds);
    }
    let measured = install_kinds(context, &cluster).and_then(|()| command.capture());
    step.done();
    Cluster::down(CLUSTER, &context.progress)?;
    print(measured?.trim_end())
}

/// The chart's custom resource definitions.
fn install_kinds(context: &Context, cluster: &Cluster) -> Result<()> {
    let folder = context.checkout.root().join("charts/anneal/templates/crds");
    let files = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for file in files.flatten() {
        let text = std::fs::read_to_string(file.path())
            .with_context(|| format!("cannot read {}", file.path().display()))?;
        // Helm's own lines; without Helm all of it is wanted.
        let plain: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("{{")).collect();
        cluster.apply(&plain.join("\n"))?;
    }
    Ok(())
}

/// On a fresh cluster that has run the demo, so that there are real versions and what the operator keeps in memory.
fn operator(context: &Context) -> Result<()> {
    let program = build(context, "anneal-bench-operator")?;
    Cluster::down(CLUSTER, &context.progress)?;
    demo::run(context, &Options::throwaway(CLUSTER, &[]))?;
    let cluster = Cluster::attach(CLUSTER)?;
    let step = context.progress.step("Measure");
    let measured = Cmd::new(program)
        .arg("--kubectl")
        .arg(cluster.program("kubectl"))
        .arg("--audit-log")
        .arg(cluster.audit_log())
        .args(["--host-address", &cluster.host_address(), "--trainer-image", &Image::Trainer.name()])
        .env("KUBECONFIG", cluster.kubeconfig())
        .capture();
    step.done();
    Cluster::down(CLUSTER, &context.progress)?;
    print(measured?.trim_end())
}

/// By the program that users have.
fn judge(context: &Context, what: &Judge) -> Result<()> {
    let program = build_of(context, "anneal-cli", "kubectl-anneal")?;
    let step = context.progress.step("Simulate rollouts");
    let simulated =
        Cmd::new(program).args(["judge-bench", "--rollouts", &what.rollouts.to_string()]).capture()?;
    step.done();
    print(simulated.trim_end())
}

fn build(context: &Context, program: &str) -> Result<PathBuf> {
    build_of(context, "anneal-bench", program)
}

fn build_of(context: &Context, package: &str, program: &str) -> Result<PathBuf> {
    let step = context.progress.step("Build the benchmark");
    let cargo = Cargo::prepare(context)?;
    cargo
        .command(&["build", "--release", "--locked", "--package", package, "--bin", program])
        .run(&context.cache.log("bench"))?;
    step.done();
    Ok(cargo.target().join("release").join(program))
}
