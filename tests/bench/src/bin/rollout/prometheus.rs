//! A Prometheus that knows a hundred requests of every model, all good or half of them bad.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::{Context, Result};
use axum::{Form, Json, Router, routing::get};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Which models are bad, and since when.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Mutex<BTreeMap<String, Instant>>);

impl Numbers {
    /// From now on a model's numbers are bad.
    pub(crate) fn spoil(&self, model: &str) -> Instant {
        #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
        let now = Instant::now();
        self.lock().insert(model.to_owned(), now);
        now
    }

    fn are_bad(&self, query: &str) -> bool {
        let model = query.split_once("model=\"").and_then(|(_, rest)| Some(rest.split_once('"')?.0));
        model.is_some_and(|model| self.lock().contains_key(model))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens on loopback; the URL.
pub(crate) async fn serve(numbers: Arc<Numbers>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("loopback cannot be listened on")?;
    let url = format!("http://{}", listener.local_addr()?);
    // By the address or, as the clients of other programs do, in a form.
    let answer = move |Form(asked): Form<BTreeMap<String, String>>| {
        let query = asked.get("query").cloned().unwrap_or_default();
        let body = answer(&query, numbers.are_bad(&query));
        async move { Json(body) }
    };
    let query = get(answer.clone()).post(answer);
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/api/v1/query", query)).await });
    Ok(url)
}

/// All parts that a query of ours may ask for; for any other, the share of errors.
fn answer(query: &str, is_bad: bool) -> Value {
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    let now = Timestamp::now().as_millisecond() as f64 / 1000.0;
    let share = if is_bad { 50.0 } else { 0.0 };
    let one = |labels: Value, value: f64| json!({"metric": labels, "value": [now, value.to_string()]});
    let part = |part: &str, value: f64| one(json!({"anneal_part": part}), value);
    let bucket = |le: &str, value: f64| one(json!({"anneal_part": "bucket", "le": le}), value);
    // A range of raw samples: none is as good as any for a plain threshold.
    let is_range = query.trim_end().ends_with(']');
    let result = match query {
        _ if is_range => vec![],
        _ if query.contains("\"bucket\"") => {
            vec![bucket("0.1", 100.0 - share), bucket("+Inf", 100.0), part("step", 100.0), part("at", now)]
        }
        _ if query.contains("anneal_part") => {
            vec![part("bad", share), part("total", 100.0), part("step", 100.0), part("at", now)]
        }
        _ => vec![one(json!({}), share / 100.0)],
    };
    let kind = if is_range { "matrix" } else { "vector" };
    json!({"status": "success", "data": {"resultType": kind, "result": result}})
}
