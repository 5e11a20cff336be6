//! `serve`: answers with one artifact, by the Open Inference Protocol v2 over HTTP.
//!
//! Called by `main`. The artifact's digest is checked before anything is served. Inference runs on worker threads, never
//! on the threads that answer HTTP.

mod fault;
mod http;
mod metrics;
mod protocol;
mod worker;

use std::{
    io::{Write, stderr},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::serve::ListenerExt;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};

pub use fault::Fault;
pub(crate) use http::metrics_page;

use crate::{
    artifact::Model,
    error::Failure,
    host,
    nn::{Compute, set_threads},
    storage::Location,
};
use http::App;
use metrics::Metrics;
use worker::Workers;

/// Longest time that a request may still take once the drain is over.
const LAST_REQUESTS: Duration = Duration::from_secs(30);

/// What to serve, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the artifact.
    pub artifact: String,
    /// Its digest, `sha256:…`.
    pub digest: String,
    /// Name of the model in URLs and metrics.
    pub model: String,
    /// Its version, in every answer and in metrics.
    pub version: String,
    /// Where to listen.
    pub listen: SocketAddr,
    /// How long to go on after being asked to stop, so that nobody is sent here any more.
    pub drain: Duration,
    /// What to do wrong on purpose.
    pub fault: Fault,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the artifact is not what was recorded or the address cannot be used.
pub fn serve(runtime: &Handle, options: Options) -> Result<(), Failure> {
    set_threads(1);
    let folder = Location::open(runtime, &options.artifact)?;
    let model = Model::load(&folder, Some(&options.digest), Compute::CPU)?;
    let metrics = Metrics::new(&options.model, &options.version)?;
    let workers = Workers::start(&model, host::processors())?;
    let app = Arc::new(App::new(&options, model.schema, workers, metrics));
    runtime.block_on(listen(options, app))
}

async fn listen(options: Options, app: Arc<App>) -> Result<(), Failure> {
    let address = options.listen;
    let failed = |source| Failure::System { action: format!("listen on {address}"), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    if let Ok(address) = listener.local_addr() {
        // Without a place to write there is nothing to say.
        let _ = writeln!(stderr(), "serving {} {} on {address}", options.model, options.version);
    }
    // A small answer must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let (asked, mut stop) = tokio::sync::watch::channel(());
    let draining = app.clone();
    let drain = options.drain;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        draining.begin_drain();
        tokio::time::sleep(drain).await;
        drop(asked);
    };
    let server = axum::serve(listener, http::router(app)).with_graceful_shutdown(shutdown);
    tokio::select! {
        ended = async { server.await } => ended.map_err(failed),
        () = async { while stop.changed().await.is_ok() {} tokio::time::sleep(LAST_REQUESTS).await } => Ok(()),
    }
}
