//! `anneal-operator`: the process that runs in the cluster.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anneal_operator::{
    notify::Format,
    run::{self, Options},
};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

// A plan is many small objects, and `cargo xtask bench plan` is timed with this allocator too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Retrains models and puts them into production.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "ANNEAL_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Where Alertmanager's messages are taken at /alerts; nowhere without it.
    #[arg(long, env = "ANNEAL_ALERT_LISTEN", requires = "alert_token_file")]
    alert_listen: Option<SocketAddr>,
    /// File with the token that Alertmanager sends; read anew for every message.
    #[arg(long, env = "ANNEAL_ALERT_TOKEN_FILE")]
    alert_token_file: Option<PathBuf>,
    /// File with the URL of a webhook that is told of every transition; read anew for every try.
    #[arg(long, env = "ANNEAL_NOTIFY_URL_FILE")]
    notify_url_file: Option<PathBuf>,
    /// What the webhook understands.
    #[arg(long, env = "ANNEAL_NOTIFY_FORMAT", value_enum, default_value = "slack")]
    notify_format: Format,
    /// Namespace of the operator's own Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Name of this process in leases and events.
    #[arg(long, env = "POD_NAME", default_value = "anneal-operator")]
    identity: String,
    /// Watch this namespace only.
    #[arg(long, env = "ANNEAL_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// What is logged, such as info or anneal_operator=debug.
    #[arg(long, env = "ANNEAL_LOG", default_value = "info")]
    log: String,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(EnvFilter::new(&args.log))
        .with_writer(std::io::stderr)
        .init();
    // The first provider wins; a second crate's default must not.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::warn!("a TLS provider was installed already");
    }
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let options = Options {
        listen: args.listen,
        alerts: args.alert_listen.zip(args.alert_token_file),
        webhook: args.notify_url_file.map(|url| (url, args.notify_format)),
        namespace: args.namespace,
        identity: args.identity,
        watch_namespace: args.watch_namespace,
    };
    match run::run(options, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(&error), "the operator ends");
            ExitCode::FAILURE
        }
    }
}

/// Kubernetes stops a pod with SIGTERM, a terminal with SIGINT.
fn stop_on_signal(stop: &CancellationToken) {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        match signal(kind) {
            Ok(mut stream) => {
                let stop = stop.clone();
                tokio::spawn(async move {
                    stream.recv().await;
                    stop.cancel();
                });
            }
            Err(error) => tracing::warn!(%error, "a signal cannot be handled"),
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
