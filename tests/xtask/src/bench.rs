//! `cargo xtask bench`: the measurements that README and issues quote.
//!
//! Called by people. Every measurement prints a table and ends with one JSON line; none passes or fails.

use anneal_cluster::Cluster;
use anneal_cluster::sh::Cmd;
use anyhow::Result;
use clap::ValueEnum;

use crate::{
    Context,
    cargo::Cargo,
    demo::{self, Options},
    image::Which as Image,
    print,
};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// One decision of each kind
    Plan,
    /// The operator in a cluster: memory, writes, and how soon it acts
    Operator,
}

/// The cluster of the measurements.
const CLUSTER: &str = "bench";

/// Builds it as it ships, and runs it.
pub(crate) fn run(context: &Context, which: Which) -> Result<()> {
    match which {
        Which::Plan => {
            let program = build(context, "anneal-bench-plan")?;
            // As in the operator's image.
            print(Cmd::new(program).env("MIMALLOC_ALLOW_THP", "0").capture()?.trim_end())
        }
        Which::Operator => operator(context),
    }
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

fn build(context: &Context, program: &str) -> Result<std::path::PathBuf> {
    let step = context.progress.step("Build the benchmark");
    let cargo = Cargo::prepare(context)?;
    cargo
        .command(&["build", "--release", "--locked", "--package", "anneal-bench", "--bin", program])
        .run(&context.cache.log("bench"))?;
    step.done();
    Ok(cargo.target().join("release").join(program))
}
