//! Native histograms, live: two real Prometheus servers count how long their own answers take in native histograms, one
//! scrapes both, and what the operator's client reads of it decides a canary.
//!
//! Runs in `cargo xtask test`, which says where Prometheus is in `ANNEAL_TEST_PROMETHEUS`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is a test, and Prometheus has its own clock"
)]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anneal_core::rollout::{self, Answer};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase};
use anneal_operator::{
    ports::Prometheus as _,
    prometheus_api::HttpPrometheus,
    server::{Server, Tls},
};
use anneal_tests::{
    cases::{self, RolloutCase},
    programs::{Program, free_address, until},
};
use jiff::Timestamp;
use serde_json::{from_value, json};

/// Answers in milliseconds, and in tenths of a second.
const QUICK: &str = "1";
const SLOW: &str = "count_over_time(vector(1)[1h:1ms])";
const MAX: &str = "50ms";

/// A Prometheus that scrapes these, each as a pod of a version.
async fn start(folder: &Path, address: &str, versions: &[(&str, &str)]) -> Program {
    let job = |(version, target): &(&str, &str)| {
        json!({"job_name": version, "static_configs": [{"targets": [target],
            "labels": {"model": "ads", "version": version, "namespace": cases::NAMESPACE, "pod": target}}]})
    };
    let config = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "scrape_native_histograms": true},
        "scrape_configs": versions.iter().map(job).collect::<Vec<_>>(),
    });
    let file = folder.join(format!("{}.yaml", address.replace(':', "-")));
    fs::write(&file, config.to_string()).unwrap();
    let data = folder.join(address.replace(':', "-"));
    let program = Program::start(
        std::env::var_os("ANNEAL_TEST_PROMETHEUS").unwrap(),
        &[
            &format!("--config.file={}", file.display()),
            &format!("--storage.tsdb.path={}", data.display()),
            &format!("--web.listen-address={address}"),
            "--log.level=error",
        ],
    );
    let ready = format!("http://{address}/-/ready");
    until(async || reqwest::get(&ready).await.ok().filter(|answer| answer.status().is_success()))
        .await
        .unwrap();
    program.unwrap()
}

/// A request that counts for the version behind `address`; nobody else asks for ranges.
async fn ask(address: &str, expression: &str) {
    let url = format!("http://{address}/api/v1/query_range");
    let range = [("query", expression), ("start", "100000"), ("end", "100000"), ("step", "1")];
    let answer = reqwest::Client::new().get(url).query(&range).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

/// A canary of 20 % that begins now, in steps of five seconds, judged by a latency alone.
fn canary() -> RolloutCase {
    let now = Timestamp::now().to_string();
    let mut status = cases::moving("Canary", 20);
    for moment in ["stepStartedAt", "trafficAcceptedAt", "trialStartedAt"] {
        status[moment] = now.clone().into();
    }
    let mut case = RolloutCase::new(status).unwrap();
    let spec = &mut case.rollout.spec;
    let step = json!({"weight": 20, "duration": "5s", "minRequests": 10});
    let steps = [step.clone(), json!({"weight": 20.1, "duration": "5m"})];
    spec.strategy = from_value(json!({"rollbackTriggers": ["latency"], "steps": steps})).unwrap();
    let latency = json!({"name": "latency", "window": "10s", "interval": "1s", "histogram": {"quantile": 0.9, "max": MAX,
        "selector": "prometheus_http_request_duration_seconds{handler=\"/api/v1/query_range\"}"}});
    spec.metrics = vec![from_value(latency).unwrap()];
    let judge = json!({"evidence": "sequential", "maxHold": "1m", "sequential": {"dispersion": "Assumed"}});
    spec.judge = from_value(judge).unwrap();
    case
}

/// What the operator does in a tick.
async fn tick(case: &mut RolloutCase, server: &Server, prometheus: &HttpPrometheus) -> ModelRolloutStatus {
    case.now = Timestamp::now();
    let mut answers = BTreeMap::new();
    for query in rollout::queries(&case.rollout, case.now) {
        let answer = prometheus.query(server, &query, case.now).await;
        if let Answer::Matrix(series) = &answer {
            assert!(series.iter().all(|series| series.samples.is_empty()), "they are native: {answer:?}");
        }
        answers.insert((query.metric.clone(), query.question), answer);
    }
    let plan = case.plan_answering(|query| answers[&(query.metric.clone(), query.question)].clone());
    case.follow(plan)
}

#[tokio::test]
#[ignore = "needs Prometheus; cargo xtask test runs it"]
async fn a_canary_is_judged_by_the_native_histograms_of_a_real_prometheus() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (stable, candidate) = (free_address().await.unwrap(), free_address().await.unwrap());
    let versions = [("v20261121.1", stable.as_str()), ("v20261121.2", candidate.as_str())];
    let _stable = start(folder.path(), &stable, &[]).await;
    let _candidate = start(folder.path(), &candidate, &versions).await;
    let server = Server {
        namespace: cases::NAMESPACE.into(),
        url: format!("http://{candidate}").parse().unwrap(),
        headers: vec![],
        credential: None,
        tls: Tls::default(),
        timeout: Duration::from_secs(5),
    };
    // Both have counted before the canary begins.
    ask(&stable, QUICK).await;
    ask(&candidate, QUICK).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let (mut case, prometheus) = (canary(), HttpPrometheus::default());
    let mut reached = vec![];
    // Requests are divided as the canary says. Those of its second step are slow.
    let status = until(async || {
        let expression = if reached.len() < 2 { QUICK } else { SLOW };
        for _ in 0..4 {
            for _ in 0..4 {
                ask(&stable, QUICK).await;
            }
            ask(&candidate, expression).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = tick(&mut case, &server, &prometheus).await;
        if !reached.contains(&status.weight) {
            reached.push(status.weight);
        }
        (status.phase != RolloutPhase::Canary).then_some(status)
    });
    let status = status.await.unwrap_or_else(|| panic!("no decision: {:#?}", case.rollout.status));
    let decision = status.decision.unwrap();
    assert_eq!((status.phase, decision.reason.as_str()), (RolloutPhase::RolledBack, "ThresholdBreached"));
    assert!(decision.message.contains("latency"), "{}", decision.message);
    assert_eq!(
        reached,
        [200, 201, 0].map(Weight::from_per_mille),
        "the quick one advances, and the slow one goes"
    );
}
