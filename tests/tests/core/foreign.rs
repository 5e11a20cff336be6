//! Model servers that know nothing of Anneal: their names for things, and versions that only their pods' names tell.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;

use anneal_core::rollout::{Answer, Query, RawSeries, queries};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P};
use anneal_tests::{
    cases::{self, RolloutCase},
    raw::Raw,
};
use jiff::SignedDuration;
use serde_json::{Value, json};

const STABLE: &str = "ads-v20261121-1-5d9f7c6b8d-x2x4z";
const CANDIDATE: &str = "ads-v20261121-2-7f6d5c4b3a-q8r9t";

/// A canary of 20 % that began this moment, judged by this metric of servers whose series only say the pod.
fn case(evidence: &str, metric: Value) -> RolloutCase {
    let mut status = cases::moving("Canary", 20);
    for field in ["stepStartedAt", "trafficAcceptedAt", "trialStartedAt"] {
        status[field] = cases::ago(0).into();
    }
    let mut case = RolloutCase::new(status).unwrap();
    let spec = &mut case.rollout.spec;
    let mut metrics = json!([{"name": "error_rate", "window": "40s", "interval": "1s"}]);
    metrics[0].as_object_mut().unwrap().extend(metric.as_object().unwrap().clone());
    spec.metrics = serde_json::from_value(metrics).unwrap();
    spec.judge = serde_json::from_value(json!({"evidence": evidence, "maxHold": "2m",
        "sequential": (evidence == "sequential").then(|| json!({"dispersion": "Assumed"}))}))
    .unwrap();
    spec.prometheus.version_from = serde_json::from_value(json!("PodName")).unwrap();
    spec.prometheus.stale_after = "10s".parse().unwrap();
    case
}

fn triton() -> Value {
    json!({"errors": {"of": "Triton", "max": 0.05}})
}

/// Good and bad requests a second of each version since the rollout's first second. A counter of nothing has no series.
fn answer(query: &Query, case: &RolloutCase, rates: [(i64, i64); 2], apart_ms: i64) -> Answer {
    let raw = Raw::read(&query.expression, case.now).unwrap();
    let from = cases::now().as_second() - 600;
    let one = |version: &String| {
        let (pod, (good, bad)) =
            if version.ends_with('2') { (CANDIDATE, rates[1]) } else { (STABLE, rates[0]) };
        let (rate, early_ms) = match raw.selector.as_str() {
            "nv_inference_request_success" => (good, 0),
            "nv_inference_request_failure" => (bad, apart_ms),
            other => unreachable!("{other}"),
        };
        let seconds = raw.from_ms.div_euclid(1000) + 1..=raw.until_ms.div_euclid(1000);
        let labels = [("__name__", raw.selector.as_str()), ("pod", pod), ("model", "m"), ("version", "1")];
        (rate > 0).then(|| RawSeries {
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            samples: seconds
                .map(|second| (second * 1000 - early_ms, (rate * (second - from)) as f64))
                .collect(),
            histograms: vec![],
        })
    };
    Answer::Matrix(raw.versions.iter().filter_map(one).collect())
}

fn after(seconds: usize, rates: [(i64, i64); 2]) -> ModelRolloutStatus {
    after_on(seconds, rates, 0)
}

/// The same, where bad requests are scraped so many milliseconds before the others.
fn after_on(seconds: usize, rates: [(i64, i64); 2], apart_ms: i64) -> ModelRolloutStatus {
    let mut case = case("sequential", triton());
    for _ in 0..seconds {
        case.now += SignedDuration::from_secs(1);
        let plan = case.plan_answering(|query| answer(query, &case, rates, apart_ms));
        case.perform(&plan.actions);
        case.rollout.status = Some(plan.status);
    }
    case.rollout.status.unwrap()
}

#[test]
fn servers_that_do_not_know_their_version_are_compared_by_their_pods() {
    let healthy = after(40, [(80, 0), (20, 0)]);
    assert_eq!((healthy.phase, healthy.weight), (P::Canary, Weight::FULL), "{:?}", healthy.conditions);
    // Most fail, and all: then there is no counter of good requests at all.
    for rates in [[(80, 0), (10, 10)], [(80, 0), (0, 20)]] {
        let faulty = after(20, rates);
        assert_eq!(
            (faulty.phase, faulty.weight),
            (P::RolledBack, Weight::ZERO),
            "{rates:?} {:?}",
            faulty.conditions
        );
        assert_eq!(faulty.decision.unwrap().reason, "ThresholdBreached");
    }
    // Of a Prometheus that answers for two, a counter may be one server's and the next one the other's.
    let apart = after_on(40, [(80, 0), (20, 0)], 500);
    assert_eq!((apart.phase, apart.weight), (P::Canary, Weight::FULL), "{:?}", apart.conditions);
    let apart = after_on(40, [(8000, 20), (2000, 5)], 500);
    assert_eq!((apart.phase, apart.weight), (P::Canary, Weight::FULL), "{:?}", apart.conditions);
    // Nothing is scraped of the candidate.
    let blind = after(20, [(80, 0), (0, 0)]);
    assert_eq!((blind.phase, blind.verdict.as_deref()), (P::Canary, Some("NoData")));
}

/// The same after so many seconds, counted by one Envoy in front of both versions.
fn after_by_envoy(seconds: usize, rates: [(i64, i64); 2]) -> ModelRolloutStatus {
    let mut case = case("sequential", json!({"errors": {"of": "Envoy", "max": 0.05}}));
    case.rollout.spec.prometheus.version_from = serde_json::from_value(json!("EnvoyCluster")).unwrap();
    let from = cases::now().as_second() - 600;
    let answer = |query: &Query, case: &RolloutCase| {
        let raw = Raw::read(&query.expression, case.now).unwrap();
        assert_eq!(raw.namespace, "team-a");
        let one = |version: &String| {
            let (good, bad) = rates[usize::from(version.ends_with('2'))];
            let (name, rate) = match raw.selector.as_str() {
                "envoy_cluster_upstream_rq_completed" => ("envoy_cluster_upstream_rq_completed", good + bad),
                _ => ("envoy_cluster_upstream_rq_xx", bad),
            };
            let cluster = format!("service/team-a/ads-{}/80", version.replace('.', "-"));
            let labels = [
                ("__name__", name),
                ("pod", "envoy-1"),
                ("namespace", "gateways"),
                ("envoy_cluster_name", &cluster),
            ];
            let seconds = raw.from_ms.div_euclid(1000) + 1..=raw.until_ms.div_euclid(1000);
            // A counter of a class of answers is made with the first of them.
            (rate > 0 || name.ends_with("completed")).then(|| RawSeries {
                labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                samples: seconds.map(|second| (second * 1000, (rate * (second - from)) as f64)).collect(),
                histograms: vec![],
            })
        };
        Answer::Matrix(raw.versions.iter().filter_map(one).collect())
    };
    for _ in 0..seconds {
        case.now += SignedDuration::from_secs(1);
        let plan = case.plan_answering(|query| answer(query, &case));
        case.perform(&plan.actions);
        case.rollout.status = Some(plan.status);
    }
    case.rollout.status.unwrap()
}

#[test]
fn servers_that_export_nothing_are_compared_by_what_envoy_counts() {
    let healthy = after_by_envoy(40, [(80, 0), (20, 0)]);
    assert_eq!((healthy.phase, healthy.weight), (P::Canary, Weight::FULL), "{:?}", healthy.conditions);
    for rates in [[(80, 0), (10, 10)], [(79, 1), (10, 10)], [(80, 0), (0, 20)]] {
        let faulty = after_by_envoy(20, rates);
        assert_eq!(
            faulty.decision.map(|decision| decision.reason).as_deref(),
            Some("ThresholdBreached"),
            "{rates:?}"
        );
    }
}

/// Envoy refuses requests for a moment when a cluster is made, so that of a version is there before its share is.
#[test]
fn a_version_that_envoy_counts_is_on_the_route_before_it_gets_requests() {
    let mut case = case("sequential", json!({"errors": {"of": "Envoy", "max": 0.05}}));
    case.rollout.status = Some(serde_json::from_value(cases::moving("Preparing", 0)).unwrap());
    case.settle_children();
    assert!(cases::route_of(&case.plan()).is_none(), "it is as it is asked for");
    case.rollout.spec.prometheus.version_from = serde_json::from_value(json!("EnvoyCluster")).unwrap();
    let plan = case.plan();
    let rules = cases::route_of(&plan).unwrap()["rules"].as_array().unwrap().clone();
    assert_eq!(rules[0]["backendRefs"].as_array().unwrap().len(), 1, "all requests are stable's");
    let named = |rule: &Value| {
        (rule["matches"][0]["headers"][0]["value"].clone(), rule["backendRefs"][0]["name"].clone())
    };
    let wanted = [("v20261121.1", "ads-v20261121-1"), ("v20261121.2", "ads-v20261121-2")];
    assert_eq!(
        rules[1..].iter().map(named).collect::<Vec<_>>(),
        wanted.map(|(version, name)| (json!(version), json!(name)))
    );
}

/// Labels of a series as Prometheus' own tests write them, and its values each second.
fn series(name: &str, labels: &str, values: &str) -> Value {
    json!({"series": format!("{name}{{{labels}}}"), "values": values})
}

/// What each preset asks, of ten minutes of series as these servers have them.
#[test]
#[ignore = "needs promtool; cargo xtask test runs it"]
fn prometheus_answers_what_the_presets_ask() {
    let of = |pod: &str, more: &str| format!("namespace=\"team-a\",pod=\"{pod}\"{more}");
    let both = |name: &str, more: &str, candidate: &str| {
        vec![series(name, &of(CANDIDATE, more), candidate), series(name, &of(STABLE, more), "0+1000x600")]
    };
    let buckets = |name: &str, bounds: [&str; 3]| {
        let bucket = |(le, rate): (&str, u32)| both(name, &format!(",le=\"{le}\""), &format!("0+{rate}x600"));
        let [low, middle, high] = bounds;
        [(low, 8), (middle, 10), (high, 10)].into_iter().flat_map(bucket).collect::<Vec<_>>()
    };
    let part =
        |name: &str, value: f64| json!({"labels": format!("{{anneal_part=\"{name}\"}}"), "value": value});
    // Requests of both versions come with it, since five seconds after the switch.
    let both_arms = |own: f64, counters: f64| [part("own", own * 550.0), part("rest", counters * 55_000.0)];
    let share = |bad: f64, total: f64, counters: f64| {
        let own = [part("bad", bad), part("total", total), part("step", total * 1.5), part("at", 600.0)];
        own.into_iter().chain(both_arms(total / 400.0, counters)).collect::<Vec<_>>()
    };
    let quantile = |bounds: [&str; 3]| {
        let bucket = |(le, value): (&str, f64)| json!({"labels": format!("{{anneal_part=\"bucket\", le=\"{le}\"}}"), "value": value});
        let [low, middle, high] = bounds;
        let buckets = [(low, 320.0), (middle, 400.0), (high, 400.0)].map(bucket);
        let step = [part("step", 600.0), part("at", 600.0)];
        buckets.into_iter().chain(step).chain(both_arms(1.0, 1.0)).collect::<Vec<_>>()
    };
    let handler = ",handler=\"/v1/completions\",status=";
    let (good, bad) = (
        both("nv_inference_request_success", "", "0+9x600"),
        both("nv_inference_request_failure", ",reason=\"OTHER\"", "0+1x600"),
    );
    let (ok, failed) = (format!("{handler}\"2xx\""), format!("{handler}\"5xx\""));
    let (seconds, millis) = (["0.1", "0.3", "+Inf"], ["100", "300", "+Inf"]);
    let cases = [
        (
            json!({"errors": {"of": "Triton", "max": 0.05}}),
            [good.clone(), bad.clone()].concat(),
            share(40.0, 400.0, 2.0),
        ),
        (json!({"errors": {"of": "Triton", "max": 0.05}}), good, share(0.0, 360.0, 1.0)),
        (json!({"errors": {"of": "Triton", "max": 0.05}}), bad, share(40.0, 40.0, 1.0)),
        (
            json!({"errors": {"of": "vLLM", "max": 0.05}}),
            [
                both("http_requests_total", &ok, "0+9x600"),
                both("http_requests_total", &failed, "0+1x600"),
                both("http_requests_total", ",handler=\"/health\",status=\"2xx\"", "0+50x600"),
            ]
            .concat(),
            share(40.0, 400.0, 2.0),
        ),
        (
            json!({"errors": {"of": "vLLM", "max": 0.05}}),
            both("http_requests_total", &ok, "0+9x600"),
            share(0.0, 360.0, 1.0),
        ),
        (
            json!({"latency": {"of": "Triton", "quantile": 0.9, "max": "300ms"}}),
            buckets("nv_inference_first_response_histogram_ms_bucket", millis),
            quantile(millis),
        ),
        (
            json!({"latency": {"of": "vLLM", "quantile": 0.9, "max": "300ms"}}),
            buckets("vllm:e2e_request_latency_seconds_bucket", seconds),
            quantile(seconds),
        ),
        (
            json!({"latency": {"of": "vLLMFirstToken", "quantile": 0.9, "max": "300ms"}}),
            buckets("vllm:time_to_first_token_seconds_bucket", seconds),
            quantile(seconds),
        ),
        (
            json!({"latency": {"of": "KServe", "quantile": 0.9, "max": "300ms"}}),
            buckets("request_predict_seconds_bucket", seconds),
            quantile(seconds),
        ),
    ];
    let tests: Vec<Value> = cases
        .into_iter()
        .map(|(metric, series, samples)| {
            let mut case = case("none", metric);
            case.now += SignedDuration::from_secs(60);
            let query = &queries(&case.rollout, case.now)[0].expression;
            json!({"interval": "1s", "input_series": series,
                "promql_expr_test": [{"expr": query, "eval_time": "10m", "exp_samples": samples}]})
        })
        .collect();
    let test = json!({"evaluation_interval": "1s", "tests": tests});
    crate::promtool::test_rules(&test);
}

#[test]
fn milliseconds_are_read_as_such() {
    let vector = |metric: Value| {
        let mut case = case("none", metric);
        case.now += SignedDuration::from_secs(60);
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let bucket = |le: &str, value: f64| anneal_core::rollout::Series {
            labels: BTreeMap::from([label("anneal_part", "bucket"), label("le", le)]),
            value,
        };
        let part = |name: &str, value: f64| anneal_core::rollout::Series {
            labels: BTreeMap::from([label("anneal_part", name)]),
            value,
        };
        let answer = Answer::Vector(vec![
            bucket("100", 80.0),
            bucket("300", 100.0),
            bucket("+Inf", 100.0),
            part("step", 100.0),
            part("at", case.now.as_second() as f64),
        ]);
        let status = case.plan_with(&answer).status;
        (status.weight, status.decision.unwrap().message)
    };
    let latency = |max: &str| json!({"latency": {"of": "Triton", "quantile": 0.9, "max": max}});
    assert_eq!(vector(latency("200ms")).0, Weight::FULL);
    let (weight, message) = vector(latency("199ms"));
    assert_eq!(weight, Weight::ZERO);
    assert!(message.contains("is 200ms"), "{message}");
}
