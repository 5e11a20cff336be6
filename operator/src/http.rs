//! `/livez`, `/readyz` and `/metrics`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Whether the operator can do its work: the API server answers, and it leads or stands by.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Sets it.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    fn code(&self) -> StatusCode {
        if self.0.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }
}

/// Serves on `listener` until `stop`.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(move || async move { readiness.code() }))
        .route("/metrics", get(move || async move { metrics.text() }));
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probes_and_metrics_are_served_until_the_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (readiness, metrics, stop) =
            (Readiness::default(), Metrics::new().unwrap(), CancellationToken::new());
        metrics.leading.set(1);
        let server = tokio::spawn(serve(listener, readiness.clone(), metrics, stop.clone()));
        let get = |path: &str| reqwest::get(format!("{url}{path}"));
        assert_eq!(get("/livez").await.unwrap().status(), StatusCode::OK);
        assert_eq!(get("/readyz").await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        readiness.set(true);
        assert_eq!(get("/readyz").await.unwrap().status(), StatusCode::OK);
        let page = get("/metrics").await.unwrap().text().await.unwrap();
        assert!(
            page.contains("anneal_leading 1") && page.contains("process_resident_memory_bytes"),
            "{page}"
        );
        stop.cancel();
        server.await.unwrap().unwrap();
        assert!(get("/livez").await.is_err());
    }
}
