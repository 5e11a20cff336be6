//! Counters and latencies of inference requests, by arm and code.
//!
//! The series that a rollout reads exist from the start with 0, so that a missing series means a missing server.

use std::{thread, time::Duration};

use prometheus::{CounterVec, HistogramOpts, HistogramVec, Opts, Registry};

use crate::{error::Failure, host::Stopwatch, schema::TargetKind};

/// Bounds of the latency histogram, in seconds; the thresholds of the rollout guides (300 ms, 500 ms) are among them.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0];
/// Bounds of the histogram of probabilities.
const PROBABILITIES: [f64; 20] = [
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95,
    1.0,
];
/// Bounds of the histogram of numbers, in standard deviations of the training rows.
const DEVIATIONS: [f64; 13] = [-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0];
/// Counted for a request whose client went away before the answer, as nginx does.
///
/// It is no error by itself: people close pages, and a server must not be rolled back for that. But a gateway that gives
/// up waiting looks the same from here, so what it waited is counted as a latency, which a latency trigger sees, and
/// the code is one of its own, which an error selector may add.
const CLIENT_GONE: u16 = 499;
const CODES: [u16; 5] = [200, 400, CLIENT_GONE, 500, 503];
const REQUESTS_HELP: &str = "Inference requests by code of the answer. 499: the client went away before it, of its own will or because a \
    gateway gave up waiting; select code=~\"5..|499\" to count that as an error.";
const ASKED_HELP: &str = "Requests that versions in shadow compared their answers by, by code of the answer. No other metric has them.";
const SCORE_HELP: &str = "Scores of answered rows: of two classes the probability of the second, of more that of the chosen one, of a number \
    its distance from the training rows' mean in their standard deviations.";
const DURATION_HELP: &str = "Time from an inference request's last byte to its answer, or to the moment its client went away (code 499).";

/// Whether an answer reaches a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arm {
    /// It does.
    Live,
    /// The gateway sent a copy of a request and drops the answer.
    Shadow,
}

impl Arm {
    const ALL: [Self; 2] = [Self::Live, Self::Shadow];

    /// Envoy marks a copy by adding `-shadow` to the host, before a port if there is one.
    pub(super) fn of_host(host: &str) -> Self {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) | None => host,
        };
        if name.ends_with("-shadow") { Self::Shadow } else { Self::Live }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Shadow => "shadow",
        }
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Answer(Arm),
    /// Chosen by another version's answers, it says nothing about how this one does.
    Comparison,
}

#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) registry: Registry,
    requests: CounterVec,
    duration: HistogramVec,
    score: HistogramVec,
    asked: CounterVec,
    model: String,
    version: String,
}

impl Metrics {
    pub(super) fn new(model: &str, version: &str, target: &TargetKind) -> Result<Self, Failure> {
        let bug = |error: prometheus::Error| Failure::Panic(format!("metrics: {error}"));
        let requests = Opts::new("anneal_serve_requests_total", REQUESTS_HELP);
        let requests = CounterVec::new(requests, &["model", "version", "arm", "code"]).map_err(bug)?;
        let duration = HistogramOpts::new("anneal_serve_request_duration_seconds", DURATION_HELP);
        let duration = HistogramVec::new(duration.buckets(BUCKETS.to_vec()), &["model", "version", "arm"])
            .map_err(bug)?;
        let bounds = match target {
            TargetKind::Classes { .. } => PROBABILITIES.to_vec(),
            TargetKind::Number { .. } => DEVIATIONS.to_vec(),
        };
        let score = HistogramOpts::new("anneal_serve_score", SCORE_HELP).buckets(bounds);
        let score = HistogramVec::new(score, &["model", "version", "arm"]).map_err(bug)?;
        let asked = Opts::new("anneal_serve_asked_total", ASKED_HELP);
        let asked = CounterVec::new(asked, &["model", "version", "code"]).map_err(bug)?;
        let registry = Registry::new();
        registry.register(Box::new(asked.clone())).map_err(bug)?;
        registry.register(Box::new(requests.clone())).map_err(bug)?;
        registry.register(Box::new(duration.clone())).map_err(bug)?;
        registry.register(Box::new(score.clone())).map_err(bug)?;
        for arm in Arm::ALL {
            duration.with_label_values(&[model, version, arm.name()]);
            score.with_label_values(&[model, version, arm.name()]);
            for code in CODES {
                requests.with_label_values(&[model, version, arm.name(), &code.to_string()]);
            }
        }
        let (model, version) = (model.to_owned(), version.to_owned());
        Ok(Self { registry, requests, duration, score, asked, model, version })
    }

    /// Begins to count a request, whatever becomes of it.
    pub(super) fn begin(&self, arm: Arm) -> Pending<'_> {
        self.pending(Purpose::Answer(arm))
    }

    /// Begins to count a request that a version in shadow compares its answer by.
    pub(super) fn begin_asked(&self) -> Pending<'_> {
        self.pending(Purpose::Comparison)
    }

    fn pending(&self, purpose: Purpose) -> Pending<'_> {
        Pending { metrics: self, purpose, watch: Stopwatch::start(), code: CLIENT_GONE }
    }

    fn record(&self, purpose: Purpose, code: u16, took: Duration) {
        let (model, version) = (self.model.as_str(), self.version.as_str());
        let arm = match purpose {
            Purpose::Answer(arm) => arm.name(),
            Purpose::Comparison => {
                return self.asked.with_label_values(&[model, version, &code.to_string()]).inc();
            }
        };
        self.requests.with_label_values(&[model, version, arm, &code.to_string()]).inc();
        self.duration.with_label_values(&[model, version, arm]).observe(took.as_secs_f64());
    }
}

/// A request that is counted when this is dropped: hyper drops the whole handler when the client goes away.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    metrics: &'a Metrics,
    purpose: Purpose,
    watch: Stopwatch,
    code: u16,
}

impl Pending<'_> {
    /// The body is there, and the server's own time begins.
    pub(super) fn arrived(&mut self) {
        self.watch = Stopwatch::start();
    }

    /// What the model says, as far as somebody asked for himself. What is no number says nothing.
    pub(super) fn scored(&self, scores: impl IntoIterator<Item = f64>) {
        let arm = match self.purpose {
            Purpose::Answer(arm) => arm.name(),
            Purpose::Comparison => return,
        };
        let Metrics { score, model, version, .. } = self.metrics;
        let score = score.with_label_values(&[model.as_str(), version, arm]);
        scores.into_iter().filter(|value| value.is_finite()).for_each(|value| score.observe(value));
    }

    /// There is an answer.
    pub(super) const fn answered(&mut self, code: u16) {
        self.code = code;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // A handler that panics is dropped too, and nobody but the server is to blame for that.
        let code = if thread::panicking() { 500 } else { self.code };
        self.metrics.record(self.purpose, code, self.watch.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_known_by_its_host() {
        for (host, arm) in [
            ("cars.example.com", Arm::Live),
            ("cars.example.com:8080", Arm::Live),
            ("cars.example.com-shadow", Arm::Shadow),
            ("cars.example.com-shadow:8080", Arm::Shadow),
            ("[::1]:80", Arm::Live),
            ("", Arm::Live),
        ] {
            assert_eq!(Arm::of_host(host), arm, "{host}");
        }
    }
}
