//! The bodies of requests: bounded in size, in time, and in how much of them is in memory at once.
//!
//! Called by `http` for every inference request. A body's share of memory is reserved before its first byte is read and
//! given back when nobody has the body any more: the request is answered or dropped, and compared if it is.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{BodyDataStream, Bytes, HttpBody},
    extract::Request,
    http::StatusCode,
};
use bytes::BytesMut;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest body of a request, in bytes: 10,000 rows of some dozens of columns.
pub(super) const MAX_BODY: usize = 4 << 20;
/// Most bytes of bodies in memory at once; beyond that the answer is 503.
pub(super) const MAX_IN_FLIGHT: usize = 16 * MAX_BODY;
/// What is reserved at least for a body, and in steps of which.
const UNIT: usize = 4 << 10;
/// Longest time for a body to arrive: a client that sends nothing must not keep its share.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a refused body is read and dropped, so that its sender gets to read the answer.
const MAX_DROPPED: usize = 8 * MAX_BODY;

/// The memory for bodies.
#[derive(Clone, Debug)]
pub(super) struct Bodies(Arc<Semaphore>);

/// A whole body, and its share of the memory.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    _share: Arc<OwnedSemaphorePermit>,
}

/// Why there is no body.
#[derive(Debug)]
pub(super) enum NoBody {
    /// It is too large.
    TooLarge,
    /// Too many others are being answered.
    Full,
    /// It did not arrive in time.
    Late,
    /// The connection broke, or what came was not HTTP.
    Broken(String),
}

impl NoBody {
    /// The answer: code, part of the request, and what is wrong with it.
    pub(super) fn answer(self) -> (StatusCode, &'static str, String) {
        match self {
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body",
                format!("is too large: send at most {MAX_BODY} bytes"),
            ),
            Self::Full => {
                let reason = "is full: try again, send smaller requests or add replicas".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "memory", reason)
            }
            Self::Late => {
                let seconds = PATIENCE.as_secs();
                let reason = format!("did not arrive within {seconds} s: send it in one go");
                (StatusCode::REQUEST_TIMEOUT, "body", reason)
            }
            Self::Broken(cause) => (StatusCode::BAD_REQUEST, "body", format!("{cause}: send it again")),
        }
    }
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_IN_FLIGHT / UNIT)))
    }

    /// The whole body of a request.
    pub(super) async fn receive(&self, request: Request) -> Result<Body, NoBody> {
        tokio::time::timeout(PATIENCE, self.read(request)).await.unwrap_or(Err(NoBody::Late))
    }

    async fn read(&self, request: Request) -> Result<Body, NoBody> {
        let announced = request.body().size_hint().exact();
        // Who does not say how much comes may send the most.
        let room = announced.map_or(MAX_BODY, |length| usize::try_from(length).unwrap_or(usize::MAX));
        let mut stream = request.into_body().into_data_stream();
        if room > MAX_BODY {
            drop_rest(&mut stream).await;
            return Err(NoBody::TooLarge);
        }
        let units = u32::try_from(room.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX);
        let Ok(share) = self.0.clone().try_acquire_many_owned(units) else {
            drop_rest(&mut stream).await;
            return Err(NoBody::Full);
        };
        let mut bytes = BytesMut::new();
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| NoBody::Broken(error.to_string()))?;
            if bytes.len() + part.len() > MAX_BODY {
                drop((bytes, share));
                drop_rest(&mut stream).await;
                return Err(NoBody::TooLarge);
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Body { bytes: bytes.freeze(), _share: Arc::new(share) })
    }
}

/// Reads on without keeping anything: a client that is still sending would not see an answer.
async fn drop_rest(stream: &mut BodyDataStream) {
    let mut left = MAX_DROPPED;
    while let Some(Ok(part)) = stream.next().await {
        match left.checked_sub(part.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
