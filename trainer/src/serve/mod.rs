//! `serve`: answers with one artifact, by the Open Inference Protocol v2 over HTTP.
//!
//! Called by `main`. The artifact's digest is checked before anything is served. Inference requests are
//! parsed and answered on worker threads, never on the threads that speak HTTP.

mod agree;
mod body;
mod compare;
mod datum;
mod fault;
mod feedback;
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

use anneal_crds::contract::SERVE_LAST_REQUESTS_SECONDS;
use axum::serve::ListenerExt;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};

pub use compare::Options as CompareOptions;
pub use fault::Fault;
pub(crate) use http::metrics_page;

use crate::{
    artifact::Model,
    error::Failure,
    host,
    nn::{Compute, set_threads},
    storage::Location,
};
use compare::Comparer;
use http::{App, Door};
use metrics::Metrics;
use worker::{Served, Workers};

/// Longest time that a request may still take once the drain is over. The pod's grace period covers it.
const LAST_REQUESTS: Duration = Duration::from_secs(SERVE_LAST_REQUESTS_SECONDS as u64);

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
    /// Where to listen for copied requests, whose answers reach nobody.
    pub shadow: Option<SocketAddr>,
    /// How answers to copies are compared with the stable version's, if they are.
    pub compare: Option<CompareOptions>,
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
    let metrics = Metrics::new(&options.model, &options.version, &model.schema.target.kind)?;
    let comparer = options.compare.clone().map(|compare| {
        Comparer::new(compare, &options.model, &options.version, &metrics.registry).map(Arc::new)
    });
    let comparer = comparer.transpose()?;
    let served = Served {
        model: options.model.clone(),
        version: options.version.clone(),
        schema: model.schema.clone(),
    };
    let served = Arc::new(served);
    let workers = Workers::start(&model, &served, host::processors())?;
    // Each worker has a network of its own by now.
    drop(model);
    let app = Arc::new(App::new(&options, served, workers, metrics, comparer));
    runtime.block_on(listen(options, app))
}

async fn listen(options: Options, app: Arc<App>) -> Result<(), Failure> {
    let failed = |source| Failure::System { action: "handle signals".to_owned(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let main = bind(options.listen).await?;
    let shadow = match options.shadow {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    if let Ok(address) = main.local_addr() {
        // Without a place to write there is nothing to say.
        let _ = writeln!(stderr(), "serving {} {} on {address}", options.model, options.version);
    }
    let (asked, mut stop) = tokio::sync::watch::channel(());
    let draining = app.clone();
    let drain = options.drain;
    if let Some(address) = shadow.as_ref().and_then(|shadow| shadow.local_addr().ok()) {
        let _ = writeln!(stderr(), "copies on {address}");
    }
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        draining.begin_drain();
        tokio::time::sleep(drain).await;
        drop(asked);
    };
    let copies = async {
        match shadow {
            Some(listener) => axum::serve(quick(listener), http::router(app.clone(), Door::Shadow)).await,
            None => std::future::pending().await,
        }
    };
    let router = http::router(app.clone(), Door::Main);
    let server = axum::serve(quick(main), router).with_graceful_shutdown(shutdown);
    tokio::select! {
        ended = async { server.await } => ended.map_err(lost),
        // Copies need no farewell: nobody waits for them.
        ended = copies => ended.map_err(lost),
        () = async { while stop.changed().await.is_ok() {} tokio::time::sleep(LAST_REQUESTS).await } => Ok(()),
    }
}

fn lost(source: std::io::Error) -> Failure {
    Failure::System { action: "serve".to_owned(), source }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let failed = |source| Failure::System { action: format!("listen on {address}"), source };
    TcpListener::bind(address).await.map_err(failed)
}

/// A small answer must not wait for the acknowledgement of the one before.
fn quick(listener: TcpListener) -> impl axum::serve::Listener<Addr = SocketAddr> {
    listener.tap_io(|stream| drop(stream.set_nodelay(true)))
}
