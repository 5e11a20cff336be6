//! What people and the operator type.

use std::{net::SocketAddr, path::PathBuf};

use anneal_crds::{
    Span,
    contract::{ENV_ATTEMPT, ENV_CHECKPOINT_URI, ENV_OUTPUT_URI, ENV_RUN_UID},
};
use anneal_trainer::{nn::Choice, serve::Fault};
use clap::{Args, Parser, Subcommand};
use reqwest::Url;

/// Trains, evaluates and serves models for Anneal.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train, evaluate against the baseline and publish the result.
    Train(TrainArgs),
    /// Report the result of a run again, from storage.
    Report(RunArgs),
    /// Evaluate an artifact on rows and print the metrics as JSON.
    Evaluate(EvaluateArgs),
    /// Serve an artifact by the Open Inference Protocol v2; a request has at most 4 MiB and 10,000 rows.
    Serve(ServeArgs),
}

impl Command {
    /// Where the termination message goes, if the command has one.
    pub fn notice(&self) -> Option<PathBuf> {
        match self {
            Self::Train(args) => Some(args.run.termination_log.clone()),
            Self::Report(args) => Some(args.termination_log.clone()),
            Self::Evaluate(_) | Self::Serve(_) => None,
        }
    }
}

/// Which run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A RetrainJob manifest.
    #[arg(short, long, value_name = "FILE")]
    pub file: String,
    /// Uid of the run; default: metadata.uid, or else a digest of spec, baseline and data files.
    #[arg(long, env = ENV_RUN_UID)]
    pub run_uid: Option<String>,
    /// Number of the child Job, from 1.
    #[arg(long, env = ENV_ATTEMPT, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: u32,
    /// Folder of all models; default: spec.output.uri.
    #[arg(long, env = ENV_OUTPUT_URI)]
    pub output_uri: Option<String>,
    /// Folder for checkpoints, in which each run has a folder of its own, <model>/<uid>; default: in the run's folder.
    #[arg(long, env = ENV_CHECKPOINT_URI)]
    pub checkpoint_uri: Option<String>,
    /// File for the termination message; used if it exists.
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// How to train.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Which run.
    #[command(flatten)]
    pub run: RunArgs,
    /// auto, cpu or cuda:N; auto takes a GPU when the job's resources ask for one.
    #[arg(long, default_value = "auto")]
    pub device: Choice,
    /// Threads; default: the job's CPU limit, or the processors that the container may use if there are fewer. A resumed
    /// run keeps its own number.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Serve /metrics here while training, such as 0.0.0.0:9090.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

/// What to evaluate.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Folder of the artifact, a URI or a path.
    #[arg(long)]
    pub artifact: String,
    /// Its digest, if it is to be checked.
    #[arg(long, value_name = "sha256:…")]
    pub digest: Option<String>,
    /// Parquet file or pattern, a URI or a path.
    #[arg(long)]
    pub data: String,
    /// The column to predict; it must be the artifact's.
    #[arg(long)]
    pub target: String,
}

/// What to serve.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Folder of the artifact.
    #[arg(long)]
    pub artifact: String,
    /// Its digest.
    #[arg(long, value_name = "sha256:…")]
    pub digest: String,
    /// Name of the model in URLs and metrics.
    #[arg(long)]
    pub model: String,
    /// Its version.
    #[arg(long = "version")]
    pub model_version: String,
    /// Port for requests and metrics.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Port for copied requests, which are counted with arm="shadow".
    #[arg(long)]
    pub shadow_port: Option<u16>,
    /// Where the stable version answers copies: answers to copied requests are compared with two of its.
    #[arg(long, value_name = "http://…", requires = "shadow_port", value_parser = url)]
    pub compare_with: Option<Url>,
    /// Most copied requests that are compared in a second.
    #[arg(long, default_value_t = 10, requires = "compare_with", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub compare_rate: u32,
    /// By how much numbers may differ that are the same answer; without it they are not compared.
    #[arg(long, requires = "compare_with", value_parser = tolerance)]
    pub compare_tolerance: Option<f64>,
    /// How much later than their requests labels come: so long answers that were compared are remembered.
    #[arg(long, default_value = "1h", requires = "compare_with")]
    pub label_delay: Span,
    /// Time to go on after being asked to stop.
    #[arg(long, default_value = "5s")]
    pub drain: Span,
    /// Faults on purpose: latency=200ms,error=0.3,wrong=0.1,arm=live.
    #[arg(long, default_value = "")]
    pub fault: Fault,
}

fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text)
        .map_err(|error| format!("{error}: give an address such as http://cars-stable:81"))?;
    if url.scheme() == "http" && url.has_host() {
        Ok(url)
    } else {
        Err("give an address such as http://cars-stable:81".to_owned())
    }
}

fn tolerance(text: &str) -> Result<f64, String> {
    let tolerance = text.parse().ok().filter(|tolerance: &f64| tolerance.is_finite() && *tolerance >= 0.0);
    tolerance.ok_or_else(|| "give a number of zero or more, such as 0.5".to_owned())
}
