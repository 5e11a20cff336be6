//! One server that hangs, and everyone else.

use std::{sync::Arc, time::Duration};

use anneal_core::rollout::{Answer, Query, Shape};
use anneal_operator::{
    ports::Prometheus as _,
    prometheus_api::HttpPrometheus,
    server::{Credential, Server},
};
use axum::{Router, http::HeaderMap, routing::get};
use jiff::SignedDuration;
use tokio::sync::Semaphore;

use super::harness::{EMPTY, Log, failure, now, query, serve, server};

/// A server that answers a question for each permit, and how often it was asked.
async fn gated() -> (String, Log, Arc<Semaphore>) {
    let (log, gate) = (Log::default(), Arc::new(Semaphore::new(0)));
    let (noted, entered) = (log.clone(), gate.clone());
    let answer = move |headers: HeaderMap| async move {
        noted.note(&headers);
        entered.acquire().await.unwrap().forget();
        EMPTY
    };
    (serve(Router::new().route("/api/v1/query", get(answer))).await, log, gate)
}

/// Until the server was asked so often. A paused clock stands still meanwhile.
async fn asked(log: &Log, hits: usize) {
    while log.hits() < hits {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_keeps_nobody_else_waiting() {
    let (hanging, log, gate) = gated().await;
    let good = serve(Router::new().route("/api/v1/query", get(|| async { EMPTY }))).await;
    let prometheus = HttpPrometheus::default();
    let many: Vec<_> = (0..100)
        .map(|number| {
            let (prometheus, server) = (prometheus.clone(), server(&hanging));
            tokio::spawn(
                async move { prometheus.query(&server, &query(&format!("up{number}")), now()).await },
            )
        })
        .collect();
    asked(&log, 4).await;

    let other = Server { namespace: "team-b".into(), ..server(&good) };
    for server in [server(&good), other] {
        assert_eq!(prometheus.query(&server, &query("up"), now()).await, Answer::Vector(vec![]));
    }
    assert!(many.iter().all(|task| !task.is_finished()), "the others still wait");
    assert_eq!(log.hits(), 4, "few questions are on their way to one server at once");

    gate.add_permits(100);
    for task in many {
        assert_eq!(task.await.unwrap(), Answer::Vector(vec![]));
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_left_alone_for_a_while_and_by_its_namespace_only() {
    let (hanging, log, _gate) = gated().await;
    let prometheus = HttpPrometheus::default();
    let server = Server { timeout: Duration::from_millis(50), ..server(&hanging) };
    for _ in 0..3 {
        let why = failure(&server, prometheus.query(&server, &query("up"), now()).await);
        assert!(why.contains("no answer within 50ms"), "{why}");
    }
    let why = failure(&server, prometheus.query(&server, &query("up"), now()).await);
    assert!(why.contains("3 times in a row"), "{why}");
    assert!(log.hits() <= 3, "what timed out before it was sent never came");
    // Another namespace may have another way there.
    let other = Server { namespace: "team-b".into(), ..server };
    let why = failure(&other, prometheus.query(&other, &query("up"), now()).await);
    assert!(why.contains("no answer within 50ms"), "{why}");
}

// Paused, so that the four time out in one moment: were the first of them alone, whoever waits would be sent in its place.
#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_server_that_hangs_are_told_as_soon_as_that_is_known() {
    let (hanging, log, _gate) = gated().await;
    let prometheus = HttpPrometheus::default();
    let impatient = Server { timeout: Duration::from_millis(50), ..server(&hanging) };
    let hung = (0..4).map(|number| {
        let (prometheus, server) = (prometheus.clone(), impatient.clone());
        tokio::spawn(async move { prometheus.query(&server, &query(&format!("up{number}")), now()).await })
    });
    let hung: Vec<_> = hung.collect();
    asked(&log, 4).await;
    let patient = server(&hanging);
    let why = failure(&patient, prometheus.query(&patient, &query("up"), now()).await);
    assert!(why.contains("3 times in a row"), "{why}");
    assert_eq!(log.hits(), 4);
    for task in hung {
        assert!(matches!(task.await.unwrap(), Answer::Unreachable(_)));
    }
}

/// How often a server is asked by two questions at once.
async fn hits(first: (&Server, &Query, i64), second: (&Server, &Query, i64)) -> usize {
    let (url, log, gate) = gated().await;
    let prometheus = HttpPrometheus::default();
    let ask = |(server, query, later): (&Server, &Query, i64)| {
        let server = Server { url: url.parse().unwrap(), ..server.clone() };
        let (prometheus, query) = (prometheus.clone(), query.clone());
        let at = now() + SignedDuration::from_millis(later);
        async move { prometheus.query(&server, &query, at).await }
    };
    let free = async {
        asked(&log, 1).await;
        gate.add_permits(2);
    };
    let (one, two, ()) = tokio::join!(ask(first), ask(second), free);
    // What was asked for numbers is none for raw samples, and that is an answer too.
    assert_eq!(one, Answer::Vector(vec![]));
    assert!(two == one || matches!(two, Answer::Unreachable(_)), "{two:?}");
    log.hits()
}

#[tokio::test]
async fn the_same_question_of_one_moment_is_asked_once() {
    let plain = server("http://p");
    let (up, down) = (query("up"), query("down"));
    let raw = Query { shape: Shape::Matrix, ..query("up") };
    let longer = Server { timeout: Duration::from_secs(29), ..plain.clone() };
    let of_b = Server { namespace: "team-b".into(), ..plain.clone() };
    let with_token = Server { credential: Credential::bearer("t"), ..plain.clone() };
    assert_eq!(hits((&plain, &up, 0), (&plain, &up, 99)).await, 1);
    for second in [
        (&plain, &up, 100),
        (&plain, &down, 0),
        (&plain, &raw, 0),
        (&longer, &up, 0),
        (&of_b, &up, 0),
        (&with_token, &up, 0),
    ] {
        assert_eq!(hits((&plain, &up, 0), second).await, 2);
    }
}
