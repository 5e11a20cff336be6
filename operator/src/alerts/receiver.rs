//! `POST /alerts`: Alertmanager's webhook, for those who know the token.
//!
//! Who does not know it learns nothing and costs a comparison: the body is read afterwards, up to a bound, and one
//! message is worked on at a time.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use anneal_core::alert::{self, MessageError};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::post,
};
use subtle::ConstantTimeEq as _;
use tokio::{net::TcpListener, sync::Mutex, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Targets, hold_against};
use crate::{metrics::Metrics, ports::ClusterError};

/// Longest message, in bytes: a thousand alerts of a kilobyte.
const MAX_BYTES: usize = 1 << 20;
/// Longest time to receive one.
const RECEIVE: Duration = Duration::from_secs(10);

/// Takes messages of Alertmanager.
pub struct Receiver {
    targets: Arc<dyn Targets>,
    /// Read for every message, so that a Secret may change.
    token: PathBuf,
    metrics: Metrics,
    turn: Mutex<()>,
}

/// Why a message did nothing.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("send the token of alertReceiver.tokenSecret as a bearer token")]
    Unauthorized,
    #[error("the operator's token file cannot be used ({0}); see the chart's alertReceiver.tokenSecret")]
    NoToken(String),
    #[error("the message did not arrive whole, or has more than {MAX_BYTES} bytes; set max_alerts")]
    NotReceived,
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("a rollout could not be stopped; send it again")]
    Cluster(#[from] ClusterError),
}

impl Error {
    /// The answer. Alertmanager sends again what gets 5xx, and nothing else.
    const fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotReceived => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Message(_) => StatusCode::BAD_REQUEST,
            Self::NoToken(_) | Self::Cluster(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn outcome(&self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::NotReceived | Self::Message(_) => "malformed",
            Self::NoToken(_) | Self::Cluster(_) => "failed",
        }
    }
}

impl Receiver {
    /// A receiver for those who know what is in the file `token`.
    pub fn new(targets: Arc<dyn Targets>, token: PathBuf, metrics: Metrics) -> Self {
        Self { targets, token, metrics, turn: Mutex::default() }
    }

    async fn answer(&self, request: Request) -> (StatusCode, String) {
        let (parts, body) = request.into_parts();
        let ended = match self.authorize(&parts.headers) {
            Ok(()) => self.take(body).await,
            Err(error) => Err(error),
        };
        let outcome = ended.as_ref().map_or_else(Error::outcome, |_| "ok");
        self.metrics.alert_messages.with_label_values(&[outcome]).inc();
        match ended {
            Ok(stopped) => (StatusCode::OK, format!("stopped: {}\n", stopped.join(" "))),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause, "a message of Alertmanager did nothing");
                (error.status(), format!("{error}\n"))
            }
        }
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Error> {
        let wanted =
            std::fs::read_to_string(&self.token).map_err(|error| Error::NoToken(error.to_string()))?;
        let wanted = wanted.trim();
        if wanted.is_empty() {
            return Err(Error::NoToken("it is empty".into()));
        }
        let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let same = given.is_some_and(|given| bool::from(given.ct_eq(wanted.as_bytes())));
        if same { Ok(()) } else { Err(Error::Unauthorized) }
    }

    async fn take(&self, body: Body) -> Result<Vec<String>, Error> {
        let message = match timeout(RECEIVE, to_bytes(body, MAX_BYTES)).await {
            Ok(Ok(message)) => message,
            Ok(Err(_)) | Err(_) => return Err(Error::NotReceived),
        };
        let alerts = alert::alerts(&message)?;
        let _turn = self.turn.lock().await;
        Ok(hold_against(self.targets.as_ref(), &alerts).await?)
    }
}

/// Serves on `listener` until `stop`.
pub async fn serve(listener: TcpListener, receiver: Receiver, stop: CancellationToken) -> io::Result<()> {
    let receiver = Arc::new(receiver);
    let app = Router::new()
        .route("/alerts", post(move |request: Request| async move { receiver.answer(request).await }));
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}
