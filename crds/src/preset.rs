//! Presets: what well-known model servers call their metrics.
//!
//! A preset is the ratio or histogram that a user would have written; `docs/prometheus.md` lists them. Names are those of each
//! server's own documentation.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    metric::{Absent, Histogram, Others, Ratio, Unit},
    span::Span,
};

/// Failed requests as a share of all requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Errors {
    /// Whose.
    pub of: ErrorsOf,
    /// Largest share that passes, inclusive, from 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max: f64,
}

/// Servers that count failed requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ErrorsOf {
    /// Anneal's own: answers with a code of 500 or more.
    Anneal,
    /// NVIDIA Triton: requests that failed, for whatever reason.
    Triton,
    /// vLLM: answers of its API with a code of 500 or more.
    #[serde(rename = "vLLM")]
    Vllm,
    /// Envoy, for a server that exports nothing: answers with a code of 500 or more, and requests without any. It needs
    /// `versionFrom: EnvoyCluster`.
    Envoy,
}

impl Errors {
    /// The same, written out.
    pub fn ratio(&self) -> Ratio {
        let (bad, others, absent) = match self.of {
            ErrorsOf::Anneal => (
                r#"anneal_serve_requests_total{code=~"5.."}"#,
                Others::Total("anneal_serve_requests_total".to_owned()),
                Absent::Missing,
            ),
            // https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html
            ErrorsOf::Triton => (
                "nv_inference_request_failure",
                Others::Good("nv_inference_request_success".to_owned()),
                Absent::Zero,
            ),
            // Made by prometheus-fastapi-instrumentator, with the first request of each kind.
            ErrorsOf::Vllm => (
                r#"http_requests_total{handler=~"/v1/.+",status="5xx"}"#,
                Others::Total(r#"http_requests_total{handler=~"/v1/.+"}"#.to_owned()),
                Absent::Zero,
            ),
            // https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats
            ErrorsOf::Envoy => (
                r#"envoy_cluster_upstream_rq_xx{envoy_response_code_class="5"}"#,
                Others::Total("envoy_cluster_upstream_rq_completed".to_owned()),
                Absent::Zero,
            ),
        };
        Ratio { bad: bad.to_owned(), others, absent, max: Some(self.max), min: None }
    }
}

/// A quantile of how long requests take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.quantile > 0.0 && self.quantile < 1.0").message("quantile must lie between 0 and 1, such as 0.95"))]
pub struct Latency {
    /// Whose.
    pub of: LatencyOf,
    /// Which quantile, above 0 and below 1.
    pub quantile: f64,
    /// Largest value that passes, inclusive, such as `300ms`. It must lie below the histogram's highest bucket.
    pub max: Span,
}

/// Servers that have a histogram of how long requests take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LatencyOf {
    /// Anneal's own: from the whole request to the answer.
    Anneal,
    /// NVIDIA Triton, until the first response, which is the only one unless the model is decoupled. It needs
    /// `--metrics-config histogram_latencies=true`.
    Triton,
    /// vLLM, until the last token.
    #[serde(rename = "vLLM")]
    Vllm,
    /// vLLM, until the first token.
    #[serde(rename = "vLLMFirstToken")]
    VllmFirstToken,
    /// Python servers of KServe: the call of `predict` alone.
    KServe,
    /// Envoy, until the last byte of the answer. It needs `versionFrom: EnvoyCluster`.
    Envoy,
}

impl Latency {
    /// The same, written out.
    pub fn histogram(&self) -> Histogram {
        let (selector, unit) = match self.of {
            LatencyOf::Anneal => ("anneal_serve_request_duration_seconds_bucket", Unit::Seconds),
            LatencyOf::Triton => ("nv_inference_first_response_histogram_ms_bucket", Unit::Milliseconds),
            LatencyOf::Vllm => ("vllm:e2e_request_latency_seconds_bucket", Unit::Seconds),
            LatencyOf::VllmFirstToken => ("vllm:time_to_first_token_seconds_bucket", Unit::Seconds),
            LatencyOf::KServe => ("request_predict_seconds_bucket", Unit::Seconds),
            LatencyOf::Envoy => ("envoy_cluster_upstream_rq_time_bucket", Unit::Milliseconds),
        };
        Histogram { selector: selector.to_owned(), unit, quantile: self.quantile, max: self.max }
    }
}
