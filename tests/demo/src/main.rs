//! The main job from end to end: train, prove, shadow, canary, production; and what must not get there.
//!
//! Called by `cargo xtask demo`, which builds what it needs, and by `cargo xtask test`. Prints a story on stderr and
//! one JSON line on stdout, and fails unless every field of that line is as promised.

mod checks;
mod expect;
mod install;
mod kubectl;
mod load;
mod manifests;
mod owner;
mod report;
mod scenario;
mod site;
mod story;

use std::{io::Write, path::PathBuf, process::ExitCode};

use anneal_cluster::progress::Progress;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{kubectl::Kubectl, report::Report, scenario::Scenario};

/// Runs the main job from end to end on a cluster.
#[derive(Debug, Parser)]
struct Args {
    /// Folder with the chart and the examples.
    #[arg(long)]
    repository: PathBuf,
    /// The kubectl program.
    #[arg(long, default_value = "kubectl")]
    kubectl: PathBuf,
    /// The helm program.
    #[arg(long, default_value = "helm")]
    helm: PathBuf,
    /// Kubeconfig file.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig.
    #[arg(long)]
    context: Option<String>,
    /// Folder with the Parquet files.
    #[arg(long)]
    data: PathBuf,
    /// Image with tar, to copy the data with.
    #[arg(long)]
    copy_image: String,
    /// The cluster is a throwaway one: whatever has the names that the demo uses may be overwritten and deleted.
    #[arg(long)]
    own_cluster: bool,
    /// Folder on the node for a hostPath volume; without it the cluster's default storage class is used.
    #[arg(long, requires = "own_cluster")]
    host_path: Option<PathBuf>,
    /// GatewayClass for the demo's gateway.
    #[arg(long, default_value = "anneal-demo")]
    gateway_class: String,
    /// Image of the operator, with tag.
    #[arg(long, default_value = "anneal/operator:0.1.0")]
    operator_image: String,
    /// Image of the trainer, with tag.
    #[arg(long, default_value = "anneal/trainer:0.1.0")]
    trainer_image: String,
    /// Requests a second.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(i64::from(report::MIN_RATE)..))]
    rate: u32,
    /// Fewest requests in all.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Moments at which the operator pod is killed, such as `rollout:Shadow:0` or `car-loan-recent:Training`.
    #[arg(long, value_delimiter = ',')]
    kill_operator_at: Vec<String>,
    /// End when the program that started this one does.
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if args.end_with_parent {
        // Where the kernel cannot do that, this run ends by itself.
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
    // Only an error if a provider is there already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubectl = Kubectl {
        kubectl: args.kubectl.clone(),
        helm: args.helm.clone(),
        kubeconfig: args.kubeconfig.clone(),
        context: args.context.clone(),
    };
    match Scenario::new(args, kubectl, Progress::new()).run().await.and_then(|report| finish(&report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the last line, whatever it says.
fn finish(report: &Report) -> Result<()> {
    writeln!(std::io::stdout(), "{}", report.line()?)
        .context("the report cannot be written; give the demo an open stdout")?;
    let differences = report.differences();
    ensure!(differences.is_empty(), "{}; read the story above for when", differences.join(", "));
    Ok(())
}
