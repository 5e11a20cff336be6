//! The live view over HTTP: `/metrics` while a run trains.

use std::net::SocketAddr;

use axum::{Router, routing::get};
use prometheus::Registry;
use tokio::{net::TcpListener, runtime::Handle};

use crate::{error::Failure, serve::metrics_page};

/// Serves a registry's `/metrics` in the background until the process ends.
///
/// # Errors
/// When the address cannot be used.
pub fn listen(runtime: &Handle, address: SocketAddr, registry: &Registry) -> Result<(), Failure> {
    let failed = |source| Failure::System { action: format!("listen on {address}"), source };
    let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
    let registry = registry.clone();
    let router = Router::new().route("/metrics", get(move || async move { metrics_page(&registry) }));
    runtime.spawn(async move { axum::serve(listener, router).await });
    Ok(())
}
