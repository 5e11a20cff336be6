//! Metrics with a baseline in the first days of a bake, and those that only warn: the numbers of the guide's monitoring after a
//! deployment.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "this is a test")]

use anneal_core::{
    plan::Note,
    rollout::{Answer, Query, Question, RawSeries, Series, Shape, queries},
};
use anneal_crds::{Condition, ModelRolloutStatus, model_rollout::RolloutPhase as P};
use anneal_tests::{
    cases::{self, RolloutCase},
    raw::Raw,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const DAY: i64 = 24 * 3600;

/// A bake of 14 days that began this moment, and is judged by two metrics with baselines of 7 days.
fn case(rollback: Value, warn: Value) -> RolloutCase {
    let mut status = cases::moving("Baking", 0);
    for field in ["stepStartedAt", "trafficAcceptedAt", "trialStartedAt"] {
        status[field] = cases::ago(0).into();
    }
    (status["previous"], status["stable"], status["candidate"]) =
        (cases::reference(1), cases::reference(2), Value::Null);
    let mut case = RolloutCase::new(status).unwrap();
    let spec = &mut case.rollout.spec;
    spec.metrics = serde_json::from_value(json!([
        {"name": "prediction_drift", "window": "1d", "drift": {"buckets": "score_bucket", "max": 0.1}},
        {"name": "feature_importance_stability", "window": "1d",
            "stability": {"gauge": "feature_importance", "by": "feature", "min": 0.8}},
    ]))
    .unwrap();
    let bake = json!({"duration": "14d", "rollbackTriggers": rollback, "warnTriggers": warn});
    spec.strategy.bake = serde_json::from_value(bake).unwrap();
    spec.strategy.rollback_triggers = vec![];
    case.settle_children();
    case
}

/// What the model does: how its scores fall on three buckets, and what three features count for.
#[derive(Clone, Copy)]
struct Model {
    scores: [f64; 3],
    importance: [f64; 3],
}

const FIRST: Model = Model { scores: [2000.0, 1000.0, 500.0], importance: [0.6, 0.3, 0.1] };

fn series(labels: &[(&str, &str)], value: f64) -> Series {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Series { labels: labels.collect(), value }
}

fn answer(query: &Query, case: &RolloutCase, model: Model) -> Answer {
    let keyed = match query.metric.as_str() {
        "prediction_drift" => {
            let [low, middle, high] = model.scores;
            let bounds = [("0.3", low), ("0.7", low + middle), ("+Inf", low + middle + high)];
            bounds.map(|(le, count)| series(&[("anneal_part", "keyed"), ("le", le)], count))
        }
        _ => {
            let [age, income, region] = model.importance;
            let features = [("age", age), ("income", income), ("region", region)];
            features.map(|(name, value)| series(&[("anneal_part", "keyed"), ("anneal_key", name)], value))
        }
    };
    let now = case.now.as_second() as f64;
    let more = [series(&[("anneal_part", "at")], now), series(&[("anneal_part", "step")], 5000.0)];
    match query.question {
        Question::Baseline => Answer::Vector(keyed.into()),
        _ => Answer::Vector(keyed.into_iter().chain(more).collect()),
    }
}

/// The operator looks once a day and a half minute, and the model is another one from a day on.
fn watch(case: &mut RolloutCase, days: i64, later: impl Fn(i64) -> Model) -> (ModelRolloutStatus, Vec<Note>) {
    let mut notes = vec![];
    for day in 1..=days {
        case.now = cases::now() + SignedDuration::from_secs(day * DAY + 40);
        for _ in 0..2 {
            case.now += SignedDuration::from_secs(40);
            let plan = case.plan_answering(|query| answer(query, case, later(day)));
            case.perform(&plan.actions);
            case.rollout.status = Some(plan.status);
            notes.extend(plan.notes);
        }
    }
    (case.rollout.status.clone().unwrap(), notes)
}

fn warned(status: &ModelRolloutStatus) -> &Condition {
    status.conditions.iter().find(|condition| condition.type_ == "Warned").unwrap()
}

#[test]
fn scores_that_move_away_from_the_first_seven_days_roll_back() {
    let mut steady = case(json!(["prediction_drift", "feature_importance_stability"]), json!([]));
    let (status, _) = watch(&mut steady, 13, |_| FIRST);
    assert_eq!((status.phase, status.baselines.len()), (P::Baking, 2));
    let (status, _) = watch(&mut steady, 14, |_| FIRST);
    assert_eq!((status.phase, status.decision.unwrap().reason.as_str()), (P::Healthy, "BakePassed"));

    let moved = Model { scores: [500.0, 1000.0, 2000.0], ..FIRST };
    let reversed = Model { importance: [0.1, 0.3, 0.6], ..FIRST };
    for (later, named) in [(moved, "prediction_drift of"), (reversed, "feature_importance_stability of")] {
        let mut case = case(json!(["prediction_drift", "feature_importance_stability"]), json!([]));
        // In the first seven days there is nothing to compare with.
        let (status, _) = watch(&mut case, 6, |day| if day < 5 { FIRST } else { later });
        assert_eq!((status.phase, status.baselines.len()), (P::Baking, 0));
        let (status, _) = watch(&mut case, 9, |day| if day < 9 { FIRST } else { later });
        let decision = status.decision.unwrap();
        assert_eq!(decision.reason, "ThresholdBreached", "{named}");
        assert!(decision.message.contains(named), "{}", decision.message);
        assert!(status.baselines.is_empty() && status.stable.unwrap().version == "v20261121.1");
    }
}

/// Errors and requests of the version in its bake: ten a second, of which one in two hundred is bad.
fn counted(query: &Query, now: Timestamp) -> Answer {
    let raw = Raw::read(&query.expression, now).unwrap();
    let series = raw.versions.iter().filter(|version| version.ends_with('2')).map(|version| {
        let scrapes = (raw.from_ms / 10_000 + 1..=raw.until_ms / 10_000).map(|scrape| scrape * 10_000);
        let share = if raw.selector == "bad" { 20_000 } else { 100 };
        let samples = scrapes.map(|at| (at, (at / share) as f64)).collect();
        let labels = [("version", version.as_str()), ("pod", "p")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        RawSeries { labels, samples, histograms: vec![] }
    });
    Answer::Matrix(series.collect())
}

#[test]
fn scores_that_move_away_roll_back_where_versions_are_compared_too() {
    let moved = Model { scores: [500.0, 1000.0, 2000.0], ..FIRST };
    let reversed = Model { importance: [0.1, 0.3, 0.6], ..FIRST };
    for (later, named) in [
        (FIRST, None),
        (moved, Some("prediction_drift of")),
        (reversed, Some("feature_importance_stability of")),
    ] {
        let mut case = case(json!([]), json!([]));
        let spec = &mut case.rollout.spec;
        spec.judge = serde_json::from_value(
            json!({"evidence": "sequential", "maxHold": "10m", "sequential": {"dispersion": "Assumed"}}),
        )
        .unwrap();
        let errors = json!({"name": "error_rate", "window": "10m", "interval": "30s",
            "ratio": {"bad": "bad", "total": "all", "max": 0.02}});
        spec.metrics.push(serde_json::from_value(errors).unwrap());
        let drift = json!({"name": "prediction_drift", "window": "10m", "interval": "30s",
            "drift": {"buckets": "score_bucket", "max": 0.1, "baseline": "30m"}});
        spec.metrics[0] = serde_json::from_value(drift).unwrap();
        let stability = json!({"name": "feature_importance_stability", "window": "10m", "interval": "30s",
            "stability": {"gauge": "feature_importance", "by": "feature", "min": 0.8, "baseline": "30m"}});
        spec.metrics[1] = serde_json::from_value(stability).unwrap();
        let triggers = ["prediction_drift", "feature_importance_stability", "error_rate"];
        let bake = json!({"duration": "1h", "rollbackTriggers": triggers});
        spec.strategy.bake = serde_json::from_value(bake).unwrap();
        let mut looks = 0;
        while case.rollout.status.as_ref().unwrap().phase == P::Baking && looks < 200 {
            looks += 1;
            case.now += SignedDuration::from_secs(30);
            let model = if looks < 80 { FIRST } else { later };
            let plan = case.plan_answering(|query| match query.shape {
                Shape::Matrix => counted(query, case.now),
                Shape::Vector => answer(query, &case, model),
            });
            case.perform(&plan.actions);
            case.rollout.status = Some(plan.status);
        }
        let status = case.rollout.status.unwrap();
        let decision = status.decision.unwrap();
        match named {
            None => {
                assert_eq!((status.phase, decision.reason.as_str()), (P::Healthy, "BakePassed"), "{looks}")
            }
            Some(named) => {
                assert_eq!(decision.reason, "ThresholdBreached", "{named} {looks}");
                assert!(
                    decision.message.contains(named) && (80..85).contains(&looks),
                    "{looks} {decision:?}"
                );
                assert_eq!(status.stable.unwrap().version, "v20261121.1");
            }
        }
    }
}

#[test]
fn a_warning_is_told_once_and_decides_nothing() {
    let mut case = case(json!(["feature_importance_stability"]), json!(["prediction_drift"]));
    let (status, notes) = watch(&mut case, 8, |_| FIRST);
    assert_eq!((warned(&status).status.as_str(), warned(&status).reason.as_str()), ("False", "WithinBounds"));
    assert!(notes.iter().all(|note| note.reason != "MetricWarning"));
    let moved = Model { scores: [500.0, 1000.0, 2000.0], ..FIRST };
    let (status, notes) = watch(&mut case, 13, |day| if day < 9 { FIRST } else { moved });
    assert_eq!((status.phase, warned(&status).status.as_str()), (P::Baking, "True"));
    assert!(warned(&status).message.contains("prediction_drift of v20261121.2 is not <= 0.1 bits"));
    let told: Vec<_> = notes.iter().filter(|note| note.reason == "MetricWarning").collect();
    assert!(told.len() == 1 && told[0].message.contains("and <= 0.1 bits is asked for"), "{told:?}");
    let mut unwarned = case.clone();
    unwarned.rollout.spec.strategy.bake.as_mut().unwrap().warn_triggers.clear();
    let (status, _) = watch(&mut unwarned, 13, |_| moved);
    assert!(status.conditions.iter().all(|condition| condition.type_ != "Warned"));
    let (status, _) = watch(&mut case, 14, |_| moved);
    assert_eq!(status.phase, P::Healthy);
    assert!(status.conditions.iter().all(|condition| condition.type_ != "Warned"));
}

#[test]
fn what_cannot_be_compared_is_no_pass() {
    let reading = |later: Model| {
        let mut case = case(json!(["prediction_drift", "feature_importance_stability"]), json!([]));
        let (status, _) = watch(&mut case, 9, |day| if day < 9 { FIRST } else { later });
        let available = status.conditions.iter().find(|said| said.type_ == "MetricsAvailable").unwrap();
        (status.phase, available.status.clone(), available.message.clone())
    };
    let few = Model { scores: [400.0, 200.0, 100.0], ..FIRST };
    let equal = Model { importance: [0.3, 0.3, 0.3], ..FIRST };
    let broken = Model { importance: [f64::NAN, 0.3, 0.3], ..FIRST };
    for (later, why) in
        [(few, "fewer than 1000 events"), (equal, "not all equal"), (broken, "not a finite number")]
    {
        let (phase, available, message) = reading(later);
        assert_eq!((phase, available.as_str()), (P::Baking, "False"), "{why}");
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn a_baseline_that_nothing_could_be_compared_with_is_not_kept() {
    let few = Model { scores: [400.0, 200.0, 100.0], ..FIRST };
    let mut case = case(json!(["prediction_drift", "feature_importance_stability"]), json!([]));
    // Fresh samples are enough until it is taken.
    let (status, _) = watch(&mut case, 6, |_| few);
    let available = |status: &ModelRolloutStatus| {
        let said = status.conditions.iter().find(|said| said.type_ == "MetricsAvailable").unwrap();
        (said.status.clone(), said.message.clone())
    };
    assert_eq!(available(&status).0, "True");
    let (status, _) = watch(&mut case, 8, |_| few);
    assert_eq!(status.baselines.len(), 1, "{:?}", status.baselines);
    let (truth, message) = available(&status);
    assert_eq!(truth, "False");
    assert!(message.contains("fewer than 1000 events in its window or its baseline"), "{message}");
}

#[test]
fn a_selector_of_nothing_is_found_out_on_the_first_day() {
    let mut case = case(json!(["prediction_drift"]), json!([]));
    case.now += SignedDuration::from_secs(DAY);
    let status = case.plan_with(&Answer::Vector(vec![])).status;
    let said = status.conditions.iter().find(|said| said.type_ == "MetricsAvailable").unwrap();
    assert_eq!(said.status, "False");
    assert!(said.message.contains("no data for this version"), "{}", said.message);
}

#[test]
fn another_definition_is_measured_anew() {
    let mut case = case(json!(["prediction_drift", "feature_importance_stability"]), json!([]));
    let (status, _) = watch(&mut case, 8, |_| FIRST);
    let before = status.baselines.clone();
    let metrics = json!([
        {"name": "prediction_drift", "window": "1d", "drift": {"buckets": "scores_bucket", "max": 0.1}},
        serde_json::to_value(&case.rollout.spec.metrics[1]).unwrap(),
    ]);
    case.rollout.spec.metrics = serde_json::from_value(metrics).unwrap();
    let asked: Vec<Question> = queries(&case.rollout, case.now).iter().map(|query| query.question).collect();
    assert_eq!(asked, [Question::Baseline, Question::Reading]);
    let (status, _) = watch(&mut case, 8, |_| FIRST);
    assert_eq!(status.baselines.len(), 2);
    assert!(status.baselines.iter().filter(|taken| !before.contains(taken)).count() == 1);
}

#[test]
fn a_bake_that_ends_before_its_baseline_begins_no_trial() {
    let mut case = case(json!(["prediction_drift"]), json!([]));
    case.rollout.spec.strategy.bake.as_mut().unwrap().duration = "7d".parse().unwrap();
    let healthy = json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1),
        "trafficAcceptedAt": cases::ago(600)});
    case.rollout.status = Some(serde_json::from_value(healthy).unwrap());
    case.settle_children();
    let status = case.plan().status;
    let told = status.conditions.iter().find(|said| said.reason == "InvalidMetric").unwrap();
    assert!(told.message.contains("a bake of 7d has no room for its baseline of 7d"), "{}", told.message);
}

#[test]
#[ignore = "needs promtool; cargo xtask test runs it"]
fn prometheus_answers_what_is_asked() {
    let mut case = case(json!(["prediction_drift", "feature_importance_stability"]), json!([]));
    let spec = &mut case.rollout.spec;
    let short = |text: &str| text.replace("7d", "10m").replace("1d", "5m").replace("14d", "20m");
    spec.metrics = serde_json::from_str(&short(&serde_json::to_string(&spec.metrics).unwrap())).unwrap();
    // What promtool calls 0 s.
    let began = jiff::Timestamp::UNIX_EPOCH;
    let status = case.rollout.status.as_mut().unwrap();
    let time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(began));
    (status.step_started_at, status.traffic_accepted_at) = (time.clone(), time.clone());
    status.trial_started_at = time;
    case.now = began + SignedDuration::from_mins(11);
    let baseline = queries(&case.rollout, case.now);
    let plan = case.plan_answering(|query| answer(query, &case, FIRST));
    assert_eq!(plan.status.baselines.len(), 2);
    case.rollout.status = Some(plan.status);
    case.now = began + SignedDuration::from_mins(15);
    let window = queries(&case.rollout, case.now);

    let own = "model=\"ads\",version=\"v20261121.2\",namespace=\"team-a\"";
    let input = |name: &str, more: &str, values: &str| json!({"series": format!("{name}{{{own}{more}}}"), "values": values});
    let sample = |labels: &str, value: f64| json!({"labels": format!("{{{labels}}}"), "value": value});
    let buckets = |low: f64, all: f64| {
        vec![
            sample("anneal_part=\"keyed\", le=\"0.5\"", low),
            sample("anneal_part=\"keyed\", le=\"+Inf\"", all),
        ]
    };
    let ranks = |age: f64, income: f64| {
        let rank = |name: &str, value| {
            sample(&format!("anneal_part=\"keyed\", anneal_key=\"{name}\", feature=\"{name}\""), value)
        };
        vec![rank("age", age), rank("income", income)]
    };
    let at = |seconds: f64| sample("anneal_part=\"at\"", seconds);
    let expect = |query: &Query, at: &str, samples: Vec<Value>| json!({"expr": query.expression, "eval_time": at, "exp_samples": samples});
    let test = json!({"evaluation_interval": "1s", "tests": [{
        "interval": "1s",
        "input_series": [
            input("score_bucket", ",le=\"0.5\"", "0+1x600 603+3x400"), input("score_bucket", ",le=\"+Inf\"", "0+4x1000"),
            input("feature_importance", ",feature=\"age\"", "0.75x595 _x9 0.25x400"),
            input("feature_importance", ",feature=\"income\"", "0.25x595 _x9 0.75x400"),
        ],
        "promql_expr_test": [
            expect(&baseline[0], "11m", buckets(600.0, 2400.0)), expect(&baseline[1], "11m", ranks(0.75, 0.25)),
            expect(&window[0], "15m", [buckets(900.0, 1200.0), vec![sample("anneal_part=\"step\"", 3600.0), at(900.0)]].concat()),
            expect(&window[1], "15m", [ranks(0.25, 0.75), vec![at(900.0)]].concat()),
        ],
    }]});
    crate::promtool::test_rules(&test);
}
