//! `cargo xtask bench rollout`: what active rollouts cost, and how soon a breach is out of traffic.
//!
//! Started by xtask against a real API server. The operator is the real one; Deployments become ready and routes are accepted
//! because `plane` says so, and Prometheus is one whose numbers turn bad when it is told to. A peer is measured in the same
//! run, in turns, against the same Prometheus. It measures; it passes or fails nothing.

mod argo;
mod cluster;
mod ours;
mod plane;
mod process;
mod prometheus;
mod report;
mod round;

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;
use clap::Parser;

use crate::{
    cluster::Cluster,
    ours::Ours,
    prometheus::Numbers,
    report::Report,
    round::{measure, rest},
};

/// Measures rollouts on the cluster of KUBECONFIG.
#[derive(Debug, Parser)]
struct Args {
    /// The operator.
    #[arg(long)]
    operator: PathBuf,
    /// Where the logs of the measured programs go.
    #[arg(long)]
    logs: PathBuf,
    /// Active rollouts of the first measurement, and of the second.
    #[arg(long, value_delimiter = ',', default_value = "200,1000")]
    active: Vec<usize>,
    /// Rollouts at rest of the last measurement, beside as many active ones as in the one before.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// How many rollouts breach in each round.
    #[arg(long, default_value_t = 60)]
    breaches: usize,
    /// Rounds of each measurement with a peer.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// A built controller of Argo Rollouts.
    #[arg(long, requires = "argo_crds")]
    argo: Option<PathBuf>,
    /// The custom resource definitions of Argo Rollouts: a file, or a folder of them.
    #[arg(long)]
    argo_crds: Option<PathBuf>,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let args = Args::parse();
    // The first provider wins; there is no other.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let numbers = Arc::new(Numbers::default());
    let prometheus = prometheus::serve(Arc::clone(&numbers)).await?;
    let cluster = Cluster::connect().await?;
    let ours = Ours::new(cluster.clone(), &args.operator, &args.logs, &prometheus);
    let mut report = Report::default();
    let peers = match (&args.argo, &args.argo_crds) {
        (Some(program), Some(crds)) => {
            argo::install(&cluster, crds).await?;
            argo::peers(&cluster, program, &args.logs, &prometheus)
        }
        (Some(_) | None, Some(_) | None) => vec![],
    };
    for (index, &active) in args.active.iter().enumerate() {
        // The peer is known to be slow; it is compared at the first size, in turns.
        let rounds = if index == 0 && !peers.is_empty() { args.rounds } else { 1 };
        for _ in 0..rounds {
            report.add("anneal", active, measure(&ours, &numbers, active, args.breaches).await?);
            for peer in peers.iter().filter(|_| index == 0) {
                report.add(peer.name(), active, measure(peer, &numbers, active, args.breaches).await?);
            }
        }
    }
    if args.idle > 0 {
        let active = args.active.last().copied().unwrap_or_default();
        report.add_rest(args.idle, active, rest(&ours, args.idle, active).await?);
    }
    report.print(peers.is_empty())
}
