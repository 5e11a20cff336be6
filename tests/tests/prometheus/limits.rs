//! Answers that are too long, packed, or elsewhere.

use std::io::Write as _;

use anneal_core::rollout::Answer;
use axum::{
    Router,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use flate2::{Compression, write::GzEncoder};

use super::harness::{EMPTY, Log, ask, failure, serve, server};

const TOO_LONG: usize = (256 << 10) + 1;

fn packed(body: &[u8]) -> impl IntoResponse + use<> {
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    encoder.write_all(body).unwrap();
    ([(header::CONTENT_ENCODING, "gzip")], encoder.finish().unwrap())
}

#[tokio::test]
async fn an_answer_may_be_packed_and_counts_by_what_it_holds() {
    let router = Router::new()
        .route("/small/api/v1/query", get(|| async { packed(EMPTY.as_bytes()) }))
        .route("/bomb/api/v1/query", get(|| async { packed(&vec![b' '; TOO_LONG]) }))
        .route("/plain/api/v1/query", get(|| async { vec![b' '; TOO_LONG] }));
    let url = serve(router).await;
    assert_eq!(ask(&server(&format!("{url}/small"))).await, Answer::Vector(vec![]));
    for path in ["bomb", "plain"] {
        let server = server(&format!("{url}/{path}"));
        let why = failure(&server, ask(&server).await);
        assert!(why.contains("longer than 262144 bytes"), "{path}: {why}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Log::default();
    let log = elsewhere.clone();
    let router = Router::new()
        .route("/api/v1/query", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]) }))
        .route(
            "/elsewhere",
            get(move |headers: HeaderMap| async move {
                log.note(&headers);
                EMPTY
            }),
        );
    let server = server(&serve(router).await);
    let why = failure(&server, ask(&server).await);
    assert!(why.contains("302 Found") && why.contains("not followed"), "{why}");
    assert_eq!(elsewhere.hits(), 0);
}
