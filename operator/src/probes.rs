//! Probes over HTTP: warm-up, smoke and the question of staging's webhook.
//!
//! Called by [`crate::observe`] through the port. Whoever writes a rollout chooses what is sent, and for a webhook where
//! to, so a probe has nothing of the operator's own: no credential, no proxy, no cookie, no redirect. Each has a connection
//! and a name lookup of its own, so that one that hangs delays no other, and requests reach several pods of a Service.

use std::time::Duration;

use anneal_core::rollout::{Probe, ProbeAnswer};
use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use reqwest::{Method, Url};
use tokio::time::{Instant, timeout_at};

use crate::{ports::Probes, prometheus_api::client::client, server::Tls};

/// How many probes of one rollout are on their way at once.
const AT_ONCE: usize = 16;
/// Longest time for all probes of one rollout.
const TOTAL: Duration = Duration::from_secs(60);
/// Longest body that is read, in bytes; a longer one is no answer.
const MAX_BODY: usize = 64 * 1024;

/// The real network.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpProbes;

#[async_trait]
impl Probes for HttpProbes {
    async fn send(&self, probes: &[Probe]) -> Vec<ProbeAnswer> {
        let end = Instant::now() + TOTAL;
        let one = |probe: Probe| async move {
            let timeout = probe.timeout.get().unsigned_abs();
            let deadline = end.min(Instant::now() + timeout);
            match timeout_at(deadline, ask(&probe)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(why)) => ProbeAnswer::Silent(why),
                Err(_) => ProbeAnswer::Silent(format!("none within {timeout:?}")),
            }
        };
        stream::iter(probes.to_vec()).map(one).buffered(AT_ONCE).collect().await
    }
}

async fn ask(probe: &Probe) -> Result<ProbeAnswer, String> {
    let url = Url::parse(&probe.url).map_err(|error| format!("{error}; correct the address"))?;
    let client = client(&Tls::default(), url.scheme() == "https").map_err(|error| error.to_string())?;
    let method = if probe.body.is_some() { Method::POST } else { Method::GET };
    let mut request = client.request(method, url);
    for (name, value) in &probe.headers {
        request = request.header(name, value);
    }
    if let Some(body) = &probe.body {
        request = request.json(body);
    }
    let mut answer = request.send().await.map_err(|error| said(&error.without_url()))?;
    let status = answer.status().as_u16();
    let mut body = vec![];
    while let Some(chunk) = answer.chunk().await.map_err(|error| said(&error.without_url()))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(format!("it is longer than {MAX_BODY} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(ProbeAnswer::Answered { status, body })
}

/// The last cause says most: `connection refused`, and not only that there was an error.
fn said(error: &dyn std::error::Error) -> String {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.by_ref().last().map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use anneal_crds::Span;
    use axum::{
        Json, Router,
        http::{HeaderMap, Uri},
        response::Redirect,
        routing::{get, post},
    };
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that tells what it was sent, sends elsewhere, says too much, or says nothing.
    async fn server() -> String {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let told = |headers: HeaderMap, uri: Uri, body: Option<Json<Value>>| async move {
            let names: Vec<&str> = headers.keys().map(|name| name.as_str()).collect();
            let host = headers.get("host").and_then(|host| host.to_str().ok());
            Json(
                json!({"path": uri.to_string(), "host": host, "headers": names, "body": body.map(|Json(body)| body)}),
            )
        };
        let app = Router::new()
            .route("/told", post(told))
            .route("/get", get(|| async { "it is there" }))
            .route("/elsewhere", get(|| async { Redirect::temporary("/get") }))
            .route("/long", get(|| async { "x".repeat(MAX_BODY + 1) }))
            .route("/never", get(std::future::pending::<()>));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    fn probe(url: String, body: Option<Value>) -> Probe {
        Probe { url, headers: vec![("x-team".into(), "a".into())], body, timeout: Span::from_secs(5) }
    }

    async fn one(probe: Probe) -> ProbeAnswer {
        HttpProbes.send(&[probe]).await.remove(0)
    }

    fn why(answer: ProbeAnswer) -> String {
        match answer {
            ProbeAnswer::Silent(why) => why,
            ProbeAnswer::Answered { status, .. } => panic!("{status}"),
        }
    }

    #[tokio::test]
    async fn what_is_sent_holds_nothing_of_the_operators() {
        let address = server().await;
        let ProbeAnswer::Answered { status: 200, body } =
            one(probe(format!("{address}/told?a=1"), Some(json!({"x": 1})))).await
        else {
            panic!("no answer")
        };
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&told["path"], &told["body"]), (&json!("/told?a=1"), &json!({"x": 1})));
        let mut headers: Vec<&str> =
            told["headers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        headers.sort_unstable();
        assert_eq!(
            headers,
            ["accept", "accept-encoding", "content-length", "content-type", "host", "x-team"]
        );
    }

    #[tokio::test]
    async fn a_probe_says_which_host_it_means_wherever_it_is_sent() {
        let mut named = probe(format!("{}/told", server().await), Some(json!({})));
        named.headers = vec![("host".into(), "ads-v20261121-1.team-a.svc:81".into())];
        let ProbeAnswer::Answered { body, .. } = one(named).await else { panic!("no answer") };
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(told["host"], "ads-v20261121-1.team-a.svc:81");
        let hosts = told["headers"].as_array().unwrap().iter().filter(|name| **name == "host");
        assert_eq!(hosts.count(), 1);
    }

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_probes_and_redirects_are_answers() {
        let address = server().await;
        let paths =
            ["get", "elsewhere", "missing", "get"].map(|path| probe(format!("{address}/{path}"), None));
        let answers = HttpProbes.send(&paths).await;
        let statuses: Vec<u16> = answers
            .into_iter()
            .map(|answer| match answer {
                ProbeAnswer::Answered { status, .. } => status,
                ProbeAnswer::Silent(why) => panic!("{why}"),
            })
            .collect();
        assert_eq!(statuses, [200, 307, 404, 200]);
    }

    #[tokio::test]
    async fn too_much_nothing_and_nobody_are_no_answers() {
        let address = server().await;
        assert!(why(one(probe(format!("{address}/long"), None)).await).contains("longer than 65536 bytes"));
        let mut never = probe(format!("{address}/never"), None);
        never.timeout = "50ms".parse().unwrap();
        assert_eq!(why(one(never).await), "none within 50ms");
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = free.local_addr().unwrap();
        drop(free);
        let refused = why(one(probe(format!("http://{nobody}/"), None)).await);
        assert!(refused.to_lowercase().contains("refused"), "{refused}");
        assert!(why(one(probe("http://no-such-host.invalid/".into(), None)).await).len() > 5);
        assert!(why(one(probe("not an address".into(), None)).await).contains("correct the address"));
    }
}
