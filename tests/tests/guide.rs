//! The deployment chapter of the retraining guide, number by number: shadow of 7 days, 10 % and 15 % more each day, and 14 days of
//! watching beside the first 7, with its rollback triggers and its rollback by hand; and its A/B test in `guide/ab_test.rs`.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "this is a test")]

use anneal_core::rollout::{Answer, Query, Question, Series};
use anneal_crds::{ModelRolloutStatus, model_rollout::RolloutPhase as P};
use anneal_tests::cases::{self, RolloutCase};
use jiff::SignedDuration;
use serde_json::json;

#[path = "guide/ab_test.rs"]
mod ab_test;

const SPEC: &str = "
model: ads
candidate: {follow: NewestApproved}
serving: {image: serve:1, replicas: 2}
traffic: {gateway: {name: web}}
prometheus: {url: http://prometheus}
strategy:
  shadow: {percent: 100, duration: 7d, minRequests: 1000}
  canary: {initial: 10, increment: 15, interval: 1d, max: 100, minRequests: 1000}
  rollbackTriggers: [error_rate, latency_p95]
  bake:
    duration: 14d
    rollbackTriggers: [error_rate_after, latency_p99, accuracy]
    warnTriggers: [latency_p95, prediction_drift, feature_importance_stability]
metrics:
- {name: error_rate, window: 10m, ratio: {bad: 'requests{code=~\"5..\"}', total: requests, max: 0.01}}
- {name: latency_p95, window: 10m, histogram: {selector: duration_bucket, quantile: 0.95, max: 300ms}}
- {name: error_rate_after, window: 5m, ratio: {bad: 'requests{code=~\"5..\"}', total: requests, max: 0.02}}
- {name: latency_p99, window: 5m, histogram: {selector: duration_bucket, quantile: 0.99, max: 500ms}}
- {name: accuracy, window: 30m, labelDelay: 1h, ratio: {bad: right_total, total: labels_total, min: 0.80}}
- {name: prediction_drift, window: 1d, drift: {buckets: score_bucket, baseline: 7d, max: 0.1}}
- {name: feature_importance_stability, window: 1d, stability: {gauge: importance, by: feature, baseline: 7d, min: 0.8}}
judge: {evidence: none, maxHold: 1h}
";

/// What the new version does.
#[derive(Clone, Copy)]
struct Seen {
    errors: f64,
    /// Seconds that 95 and 99 of 100 requests take at most.
    p95: f64,
    p99: f64,
    accuracy: f64,
    scores: [f64; 2],
    importance: [f64; 5],
}

/// Everything at its bound, which is within it.
const AT_ITS_BOUNDS: Seen = Seen {
    errors: 0.01,
    p95: 0.3,
    p99: 0.5,
    accuracy: 0.80,
    scores: [6000.0, 4000.0],
    importance: [0.4, 0.3, 0.15, 0.1, 0.05],
};

fn series(labels: &[(&str, &str)], value: f64) -> Series {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Series { labels: labels.collect(), value }
}

fn part(name: &str, value: f64) -> Series {
    series(&[("anneal_part", name)], value)
}

fn buckets(part: &str, counts: &[(&str, f64)]) -> Vec<Series> {
    counts.iter().map(|(le, count)| series(&[("anneal_part", part), ("le", le)], *count)).collect()
}

fn answer(query: &Query, case: &RolloutCase, seen: Seen) -> Answer {
    let values = match query.metric.as_str() {
        "error_rate" | "error_rate_after" => {
            vec![part("bad", seen.errors * 10_000.0), part("total", 10_000.0)]
        }
        "latency_p95" | "latency_p99" => {
            let (p95, p99) = (seen.p95.to_string(), seen.p99.to_string());
            buckets("bucket", &[(&p95, 9500.0), (&p99, 9900.0), ("10", 10_000.0), ("+Inf", 10_000.0)])
        }
        "accuracy" => vec![part("bad", seen.accuracy * 10_000.0), part("total", 10_000.0)],
        "prediction_drift" => {
            let [low, high] = seen.scores;
            buckets("keyed", &[("0.5", low), ("+Inf", low + high)])
        }
        "feature_importance_stability" => ["age", "income", "region", "tenure", "visits"]
            .iter()
            .zip(seen.importance)
            .map(|(name, value)| series(&[("anneal_part", "keyed"), ("anneal_key", name)], value))
            .collect(),
        other => unreachable!("{other}"),
    };
    let now = case.now.as_second() as f64;
    let more = match query.question {
        Question::Baseline => vec![],
        _ => vec![part("step", 10_000.0), part("at", now)],
    };
    Answer::Vector([values, more].concat())
}

fn case() -> RolloutCase {
    let healthy = json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1),
        "trafficAcceptedAt": cases::ago(600)});
    let mut case = RolloutCase::new(healthy).unwrap();
    case.rollout.spec = serde_saphyr::from_str(SPEC).unwrap();
    // As the chart's objects are made by these specs.
    case.settle_children();
    case
}

/// The operator looks every ten minutes, until something is so; and when that is, in days.
fn watch(
    case: &mut RolloutCase,
    seen: Seen,
    until: impl Fn(&ModelRolloutStatus) -> bool,
) -> (f64, ModelRolloutStatus) {
    for _ in 0..40 * 144 {
        // A plan that writes is followed at once by the next one.
        for _ in 0..4 {
            let plan = case.plan_answering(|query| answer(query, case, seen));
            case.perform(&plan.actions);
            case.rollout.status = Some(plan.status);
        }
        let status = case.rollout.status.clone().unwrap();
        if until(&status) {
            return (case.now.duration_since(cases::now()).as_secs_f64() / 86_400.0, status);
        }
        case.now += SignedDuration::from_mins(10);
    }
    unreachable!("{:?}", case.rollout.status)
}

#[test]
fn seven_days_of_shadow_seven_of_canary_and_fourteen_of_watching() {
    let mut case = case();
    let mut timeline = vec![];
    for phase in [P::Shadow, P::Canary] {
        let (day, status) = watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == phase);
        timeline.push((day.round() as i64, phase, status.weight.to_string()));
    }
    for weight in ["25", "40", "55", "70", "85", "100"] {
        let (day, status) = watch(&mut case, AT_ITS_BOUNDS, |status| status.weight.to_string() == weight);
        timeline.push((day.round() as i64, status.phase, weight.to_owned()));
    }
    for phase in [P::Baking, P::Healthy] {
        let (day, status) = watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == phase);
        timeline.push((day.round() as i64, phase, status.stable.unwrap().version));
    }
    let wanted = [
        (0, P::Shadow, "0"),
        (7, P::Canary, "10"),
        (8, P::Canary, "25"),
        (9, P::Canary, "40"),
        (10, P::Canary, "55"),
        (11, P::Canary, "70"),
        (12, P::Canary, "85"),
        (13, P::Canary, "100"),
        (14, P::Baking, "v20261121.2"),
        (28, P::Healthy, "v20261121.2"),
    ];
    let wanted: Vec<_> = wanted.into_iter().map(|(day, phase, what)| (day, phase, what.to_owned())).collect();
    assert_eq!(timeline, wanted);
}

#[test]
fn each_trigger_rolls_back_just_beyond_its_number() {
    let worse = [
        (P::Shadow, Seen { errors: 0.0101, ..AT_ITS_BOUNDS }, "error_rate of"),
        (P::Canary, Seen { errors: 0.0101, ..AT_ITS_BOUNDS }, "error_rate of"),
        (P::Canary, Seen { p95: 0.301, ..AT_ITS_BOUNDS }, "latency_p95 of"),
        (P::Baking, Seen { errors: 0.0201, ..AT_ITS_BOUNDS }, "error_rate_after of"),
        (P::Baking, Seen { p99: 0.501, ..AT_ITS_BOUNDS }, "latency_p99 of"),
        (P::Baking, Seen { accuracy: 0.799, ..AT_ITS_BOUNDS }, "accuracy of"),
    ];
    for (phase, seen, named) in worse {
        let mut case = case();
        watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == phase);
        let (_, status) = watch(&mut case, seen, |status| status.phase == P::RolledBack);
        let decision = status.decision.unwrap();
        assert_eq!(decision.reason, "ThresholdBreached");
        assert!(decision.message.starts_with(named), "{}", decision.message);
        assert_eq!(status.stable.unwrap().version, "v20261121.1");
    }
}

#[test]
fn what_is_monitored_and_moves_away_is_warned_of() {
    let moved = [
        Seen { p95: 0.301, ..AT_ITS_BOUNDS },
        Seen { scores: [2000.0, 8000.0], ..AT_ITS_BOUNDS },
        // Spearman's coefficient is 0.7.
        Seen { importance: [0.15, 0.4, 0.3, 0.1, 0.05], ..AT_ITS_BOUNDS },
    ];
    let names = ["latency_p95", "prediction_drift", "feature_importance_stability"];
    for (seen, named) in moved.into_iter().zip(names) {
        let mut case = case();
        let is = |truth: &str| {
            let truth = truth.to_owned();
            move |status: &ModelRolloutStatus| {
                status.conditions.iter().any(|said| said.type_ == "Warned" && said.status == truth)
            }
        };
        watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == P::Baking && status.baselines.len() == 2);
        let (_, status) = watch(&mut case, seen, is("True"));
        let warned = status.conditions.iter().find(|said| said.type_ == "Warned").unwrap();
        assert!(warned.message.starts_with(named), "{}", warned.message);
        let (_, status) = watch(&mut case, seen, |status| status.phase != P::Baking);
        assert_eq!(status.phase, P::Healthy, "a warning decides nothing");
    }
}

#[test]
fn importance_that_is_as_stable_as_it_must_be_is_not_warned_of() {
    let mut case = case();
    watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == P::Baking && status.baselines.len() == 2);
    // Spearman's coefficient is 0.8.
    let seen = Seen { importance: [0.3, 0.4, 0.1, 0.15, 0.05], ..AT_ITS_BOUNDS };
    let warned = |status: &ModelRolloutStatus| {
        status.conditions.iter().any(|said| said.type_ == "Warned" && said.status == "True")
    };
    let (_, status) = watch(&mut case, seen, |status| warned(status) || status.phase == P::Healthy);
    assert_eq!((warned(&status), status.phase), (false, P::Healthy), "{:?}", status.conditions);
}

#[test]
fn each_metric_is_read_over_its_own_window_in_shadow_of_all_requests() {
    let mut case = case();
    let (_, _) = watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == P::Shadow);
    let mirror = &case.children.route.as_ref().unwrap()["spec"]["rules"][0]["filters"][0]["requestMirror"];
    // Without a share all requests are copied.
    assert_eq!(
        (mirror["backendRef"]["name"].as_str(), &mirror["percent"]),
        (Some("ads-v20261121-2"), &serde_json::Value::Null)
    );
    let minutes = |metric: &str, case: &RolloutCase| {
        let asked = anneal_core::rollout::queries(&case.rollout, case.now);
        let query = asked.into_iter().find(|query| query.metric == metric).unwrap().expression;
        [5, 10, 30]
            .into_iter()
            .filter(|minutes| query.contains(&format!("[{}ms]", minutes * 60_000)))
            .collect::<Vec<_>>()
    };
    for (phase, metric, window) in [
        (P::Canary, "error_rate", 10),
        (P::Canary, "latency_p95", 10),
        (P::Baking, "error_rate_after", 5),
        (P::Baking, "latency_p99", 5),
        (P::Baking, "accuracy", 30),
    ] {
        watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == phase);
        case.now += SignedDuration::from_hours(2);
        assert_eq!(minutes(metric, &case), [window], "{metric}");
    }
}

#[test]
fn staging_is_blue_green_with_the_resources_of_the_guide() {
    let mut case = case();
    let spec = SPEC
        .replace("serving: {image: serve:1, replicas: 2}", "serving: {image: serve:1, replicas: 2, resources: {requests: {cpu: '2', memory: 4Gi}, limits: {cpu: '2', memory: 4Gi}}}")
        .replace("  shadow: {percent: 100, duration: 7d, minRequests: 1000}\n", "")
        .replace("  canary: {initial: 10, increment: 15, interval: 1d, max: 100, minRequests: 1000}", "  blueGreen: {duration: 1d, minRequests: 1000}");
    case.rollout.spec = serde_saphyr::from_str(&spec).unwrap();
    case.settle_children();
    let (_, status) = watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == P::Canary);
    assert_eq!(status.weight.to_string(), "100", "all at once");
    for deployment in &case.children.deployments {
        let resources = &deployment["spec"]["template"]["spec"]["containers"][0]["resources"];
        let guides = json!({"cpu": "2", "memory": "4Gi"});
        assert_eq!((&resources["requests"], &resources["limits"]), (&guides, &guides));
    }
    watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == P::Baking);
}

#[test]
fn a_person_goes_back_to_a_named_version_with_a_reason() {
    let mut case = case();
    watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == P::Baking);
    let rollback = json!({"targetVersion": "v20261121.1", "reason": "Performance degradation observed"});
    case.rollout.spec.rollback = serde_json::from_value(rollback).unwrap();
    let (_, status) = watch(&mut case, AT_ITS_BOUNDS, |status| status.phase == P::RolledBack);
    assert_eq!(status.stable.unwrap().version, "v20261121.1");
    assert!(status.decision.unwrap().message.contains("Performance degradation observed"));
}
