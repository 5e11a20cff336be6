//! `cargo xtask cluster up|down|status`: the throwaway Kubernetes of this machine.
//!
//! Called by people who want to look at Anneal in a cluster. All the work is in the crate `anneal-cluster`.

use anneal_cluster::Cluster;
use anyhow::{Result, bail};
use clap::Subcommand;

use crate::{Context, print};

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Brings it up and prints the path of its kubeconfig
    Up(Which),
    /// Takes it down and leaves nothing behind
    Down(Which),
    /// Shows what runs and how to use it; fails when it is not up
    Status(Which),
}

/// Which cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// Clusters of different names do not meet
    #[arg(long, default_value = anneal_cluster::DEFAULT_NAME)]
    name: String,
}

/// Does it.
pub(crate) fn run(context: &Context, action: &Action) -> Result<()> {
    match action {
        Action::Up(Which { name }) => {
            let cluster = Cluster::up(name, &context.cache, &context.progress)?;
            context.progress.say(&Cluster::status(name)?.to_string());
            print(&cluster.kubeconfig().display().to_string())
        }
        Action::Down(Which { name }) => Cluster::down(name, &context.progress),
        Action::Status(Which { name }) => {
            let status = Cluster::status(name)?;
            print(&status.to_string())?;
            if !status.is_up() {
                bail!("the cluster {name} is not up; run `cargo xtask cluster up`")
            }
            Ok(())
        }
    }
}
