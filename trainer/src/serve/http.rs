//! Routes and answers. Every answer carries `x-anneal-version`; a user's mistake is a 400 that names it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::json;

use super::{
    Options,
    body::{Bodies, Body, NoBody},
    compare::{ASKED, Comparer, Copied, Own},
    fault::{Fault, Sequence},
    feedback::Feedback,
    metrics::{Arm, Metrics, Pending},
    protocol::{self, BadRequest},
    worker::{Answered, Refusal, Served, Workers},
};

const VERSION_HEADER: HeaderName = HeaderName::from_static("x-anneal-version");
const FAULT_HEADER: HeaderName = HeaderName::from_static("x-anneal-fault");

/// Everything that an answer may depend on.
#[derive(Debug)]
pub(super) struct App {
    served: Arc<Served>,
    workers: Workers,
    bodies: Bodies,
    metrics: Metrics,
    comparer: Option<Arc<Comparer>>,
    fault: Fault,
    faults: Mutex<Sequence>,
    ready: AtomicBool,
}

impl App {
    pub(super) fn new(
        options: &Options,
        served: Arc<Served>,
        workers: Workers,
        metrics: Metrics,
        comparer: Option<Arc<Comparer>>,
    ) -> Self {
        Self {
            served,
            workers,
            bodies: Bodies::new(),
            metrics,
            comparer,
            fault: options.fault,
            faults: Mutex::new(Sequence::new()),
            ready: AtomicBool::new(true),
        }
    }

    /// From here on the server is not ready, but still answers.
    pub(super) fn begin_drain(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }

    /// Whether the next of those happens that happen in such a share.
    fn next_happens(&self, share: f64) -> bool {
        self.faults.lock().is_ok_and(|mut sequence| sequence.next_happens(share))
    }
}

/// Which port a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The one for everything.
    Main,
    /// The one to which only copies are sent.
    Shadow,
}

pub(super) fn router(app: Arc<App>, door: Door) -> Router {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(|| async { Json(json!({"live": true})) }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(move |app, model, request| infer(app, model, request, door)))
        .route("/v2/feedback", post(move |app, request| feedback(app, request, door)))
        // For routes that know the models by their paths.
        .route(
            "/v2/models/{model}/feedback",
            post(move |app, Path(_): Path<String>, request| feedback(app, request, door)),
        )
        .route(
            "/metrics",
            get(|State(app): State<Arc<App>>| async move { metrics_page(&app.metrics.registry) }),
        )
        .fallback(|| async {
            answer_error(StatusCode::NOT_FOUND, "path", "there is nothing here: see GET /v2")
        })
        .layer(middleware::from_fn_with_state(app.clone(), add_version))
        .with_state(app)
}

async fn add_version(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Ok(version) = HeaderValue::from_str(&app.served.version) {
        response.headers_mut().insert(VERSION_HEADER, version);
    }
    response
}

async fn server() -> Response {
    Json(json!({"name": "anneal-trainer", "version": env!("CARGO_PKG_VERSION"), "extensions": []}))
        .into_response()
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let ready = app.ready.load(Ordering::Relaxed);
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({"ready": ready}))).into_response()
}

async fn model_ready(State(app): State<Arc<App>>, Path(model): Path<String>) -> Response {
    if model == app.served.model { ready(State(app)).await } else { no_model(&app) }
}

async fn metadata(State(app): State<Arc<App>>, Path(model): Path<String>) -> Response {
    if model == app.served.model {
        Json(protocol::metadata(&app.served.schema, &app.served.model, &app.served.version)).into_response()
    } else {
        no_model(&app)
    }
}

async fn infer(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    request: Request,
    door: Door,
) -> Response {
    let arm = arm(&request, door);
    // What a version in shadow asks is no request of a user, and no copy of one.
    let asked = door == Door::Shadow && request.headers().contains_key(ASKED);
    // Before anything is awaited, and so before the client can go away unseen.
    let mut pending = if asked { app.metrics.begin_asked() } else { app.metrics.begin(arm) };
    let response = if model == app.served.model {
        let comparer = app.comparer.as_ref().filter(|_| arm == Arm::Shadow && !asked);
        receive(&app, app.fault.for_arm(arm), comparer, request, &mut pending).await
    } else {
        no_model(&app)
    };
    pending.answered(response.status().as_u16());
    response
}

fn arm(request: &Request, door: Door) -> Arm {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match door {
        Door::Main => Arm::of_host(host),
        Door::Shadow => Arm::Shadow,
    }
}

/// Labels. A copy of them tells the version in shadow who was right.
async fn feedback(State(app): State<Arc<App>>, request: Request, door: Door) -> Response {
    let comparer = app.comparer.as_ref().filter(|_| arm(&request, door) == Arm::Shadow);
    let body = match app.bodies.receive(request).await {
        Ok(body) => body,
        Err(none) => return no_body(none),
    };
    match Feedback::parse(&body.bytes) {
        Ok(feedback) => {
            if let Some(comparer) = comparer {
                comparer.learn(&feedback);
            }
            (StatusCode::ACCEPTED, Json(json!({"id": feedback.id}))).into_response()
        }
        Err(bad) => bad_request(&bad),
    }
}

async fn receive(
    app: &App,
    fault: Fault,
    comparer: Option<&Arc<Comparer>>,
    request: Request,
    pending: &mut Pending<'_>,
) -> Response {
    let head = comparer.map(|comparer| {
        (comparer, request.uri().path().to_owned(), request.headers().get(header::CONTENT_TYPE).cloned())
    });
    let body = app.bodies.receive(request).await;
    pending.arrived();
    let body = match body {
        Ok(body) => body,
        Err(none) => return no_body(none),
    };
    let copy = head.and_then(|(comparer, path, kind)| {
        Some((comparer, comparer.next()?, Copied { path, kind, body: body.clone() }))
    });
    let answer = answer(app, fault, body, pending).await;
    if let Some((comparer, turn, copy)) = copy {
        comparer.compare(turn, copy, own(&answer));
    }
    match answer {
        Answer::Json(json) => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response()
        }
        Answer::Injected => {
            let mut response = answer_error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "fault",
                "injected by --fault: start without it",
            );
            // So that whoever counts errors can tell the wanted ones.
            response.headers_mut().insert(FAULT_HEADER, HeaderValue::from_static("error"));
            response
        }
        Answer::None(Refusal::Request(bad)) => bad_request(&bad),
        Answer::None(Refusal::Busy) => {
            answer_error(StatusCode::SERVICE_UNAVAILABLE, "queue", "is full: try again or add replicas")
        }
        Answer::None(Refusal::Failed(why)) => answer_error(StatusCode::INTERNAL_SERVER_ERROR, "model", &why),
    }
}

/// What became of a request.
#[derive(Debug)]
enum Answer {
    Json(Vec<u8>),
    Injected,
    None(Refusal),
}

async fn answer(app: &App, fault: Fault, body: Body, pending: &Pending<'_>) -> Answer {
    if fault.latency > Duration::ZERO {
        tokio::time::sleep(fault.latency).await;
    }
    if app.next_happens(fault.error) {
        return Answer::Injected;
    }
    match app.workers.infer(body).await {
        Ok(Answered { json, scores }) if app.next_happens(fault.wrong) => {
            pending.scored(scores.into_iter().map(|score| 1.0 - score));
            Answer::Json(protocol::spoilt(&json))
        }
        Ok(Answered { json, scores }) => {
            pending.scored(scores);
            Answer::Json(json)
        }
        Err(refusal) => Answer::None(refusal),
    }
}

/// The same for a comparison.
fn own(answer: &Answer) -> Own {
    match answer {
        Answer::Json(json) => Own::Answer(json.clone()),
        Answer::None(Refusal::Request(_)) => Own::Refused,
        Answer::Injected | Answer::None(Refusal::Busy | Refusal::Failed(_)) => Own::Failed,
    }
}

fn no_body(none: NoBody) -> Response {
    let (code, field, reason) = none.answer();
    answer_error(code, field, &reason)
}

fn bad_request(bad: &BadRequest) -> Response {
    answer_error(StatusCode::BAD_REQUEST, &bad.field, &bad.reason)
}

fn no_model(app: &App) -> Response {
    answer_error(StatusCode::NOT_FOUND, "model", &format!("is not served here: ask for {}", app.served.model))
}

fn answer_error(code: StatusCode, field: &str, reason: &str) -> Response {
    (code, Json(json!({"error": format!("{field}: {reason}"), "field": field, "reason": reason})))
        .into_response()
}

/// A page of metrics in Prometheus' text format.
pub(crate) fn metrics_page(registry: &Registry) -> Response {
    let encoder = TextEncoder::new();
    let mut page = Vec::new();
    match encoder.encode(&registry.gather(), &mut page) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], page).into_response(),
        Err(error) => answer_error(StatusCode::INTERNAL_SERVER_ERROR, "metrics", &error.to_string()),
    }
}
