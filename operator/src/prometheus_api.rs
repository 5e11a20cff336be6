//! Prometheus over its HTTP API.

use std::{collections::BTreeMap, time::Duration};

use anneal_core::rollout::{Answer, Series};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;

use crate::ports::Prometheus;

/// Longest wait for an answer; a step's decision is not worth more.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer: a server that sends more must not take the operator's memory.
const MAX_BYTES: usize = 1 << 20;
/// Most series of an answer: a query sums, so more than a histogram's buckets are a mistake.
const MAX_SERIES: usize = 1000;

/// An HTTP client for any number of Prometheus servers.
#[derive(Clone, Debug)]
pub struct HttpPrometheus {
    client: reqwest::Client,
}

impl HttpPrometheus {
    /// A client that follows no redirects, because a URL in a spec must not lead elsewhere.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client })
    }

    async fn ask(&self, base_url: &str, expression: &str, at: Timestamp) -> Result<Vec<Series>, String> {
        let url = format!("{}/api/v1/query", base_url.trim_end_matches('/'));
        let time = format!("{:.3}", at.as_millisecond() as f64 / 1000.0);
        let request = self.client.get(url).query(&[("query", expression), ("time", &time)]);
        let response = request.send().await.map_err(|error| said(&error.without_url()))?;
        let status = response.status();
        let body: Response = serde_json::from_slice(&read(response).await?)
            .map_err(|error| format!("status {status} and no JSON of Prometheus: {error}"))?;
        match body {
            Response::Success { data: Data::Vector(vector) } if vector.len() <= MAX_SERIES => {
                vector.into_iter().map(Sample::series).collect()
            }
            Response::Success { data: Data::Vector(vector) } => {
                Err(format!("{} series, and at most {MAX_SERIES} are read", vector.len()))
            }
            Response::Success { data: Data::Other {} } => Err("the answer is not an instant vector".into()),
            Response::Error { error } => Err(error),
        }
    }
}

/// The body, as far as it may go.
async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| said(&error.without_url()))? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(format!("the answer is longer than {MAX_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error with its causes, because reqwest's own words name none.
fn said(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

#[async_trait]
impl Prometheus for HttpPrometheus {
    async fn query(&self, base_url: &str, expression: &str, at: Timestamp) -> Answer {
        match self.ask(base_url, expression, at).await {
            Ok(series) => Answer::Vector(series),
            Err(why) => Answer::Unreachable(why),
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Response {
    Success { data: Data },
    Error { error: String },
}

#[derive(Deserialize)]
#[serde(from = "RawData")]
enum Data {
    Vector(Vec<Sample>),
    Other {},
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawData {
    result_type: String,
    result: serde_json::Value,
}

impl From<RawData> for Data {
    fn from(raw: RawData) -> Self {
        match (raw.result_type.as_str(), serde_json::from_value(raw.result)) {
            ("vector", Ok(vector)) => Self::Vector(vector),
            (_, Ok(_) | Err(_)) => Self::Other {},
        }
    }
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

impl Sample {
    fn series(self) -> Result<Series, String> {
        let value = self.value.1.parse().map_err(|_| format!("`{}` is not a number", self.value.1))?;
        Ok(Series { labels: self.metric, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(body: &str) -> Option<Vec<Series>> {
        match serde_json::from_str(body) {
            Ok(Response::Success { data: Data::Vector(vector) }) => {
                vector.into_iter().map(Sample::series).collect::<Result<_, _>>().ok()
            }
            Ok(Response::Success { data: Data::Other {} } | Response::Error { .. }) | Err(_) => None,
        }
    }

    #[test]
    fn only_instant_vectors_of_numbers_are_read() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1,"+Inf"]}]}}"#;
        assert_eq!(series(vector).unwrap()[0].value, f64::INFINITY);
        for body in [
            r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}"#,
            r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#,
            "<html>",
        ] {
            assert_eq!(series(body), None, "{body}");
        }
    }
}
