//! Answers in shadow beside those of the stable version: who is asked, what is read, and what follows.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;

use anneal_core::{
    object::Kind,
    plan::Action,
    rollout::{Answer, Query, Question, RawSeries, Series, queries, stable_service},
};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P};
use anneal_tests::{
    cases::{self, Read, RolloutCase},
    raw::Raw,
};
use jiff::SignedDuration;
use serde_json::{Value, from_value, json};

/// A rollout whose shadow is judged by such a metric too.
fn judged(status: Value, metric: Value) -> RolloutCase {
    let mut case = RolloutCase::new(status).unwrap();
    let spec = &mut case.rollout.spec;
    let mut whole = json!({"name": "agreement", "window": "40s", "interval": "10s"});
    whole.as_object_mut().unwrap().extend(metric.as_object().unwrap().clone());
    spec.metrics.push(from_value(whole).unwrap());
    spec.strategy.shadow.as_mut().unwrap().rollback_triggers =
        Some(vec!["error_rate".into(), "agreement".into()]);
    case.settle_children();
    case
}

/// One that allows one answer in twenty to be another one.
fn case(status: Value) -> RolloutCase {
    judged(status, json!({"agreement": {"min": 0.95}}))
}

fn shadow() -> RolloutCase {
    case(cases::moving("Shadow", 0))
}

/// What Prometheus says of so many comparisons, and of errors that there are none.
fn says(case: &RolloutCase, query: &Query, counts: [(&str, f64); 4]) -> Answer {
    if query.metric == "error_rate" {
        return Read::Errors(0.0, 1000.0).answer();
    }
    let part = |name: &str, value: f64| Series {
        labels: BTreeMap::from([("anneal_part".to_owned(), name.to_owned())]),
        value,
    };
    let at = part("at", case.now.as_second() as f64);
    Answer::Vector(counts.map(|(name, count)| part(name, count)).into_iter().chain([at]).collect())
}

fn compared(all: f64, candidate: f64, stable: f64) -> [(&'static str, f64); 4] {
    [("candidate", candidate), ("stable", stable), ("total", all), ("step", all)]
}

fn reading(status: &ModelRolloutStatus) -> String {
    let readings = &status.decision.as_ref().unwrap().readings;
    let reading = readings.iter().find(|reading| reading.metric == "agreement").unwrap();
    format!("{} {} {}", reading.verdict, reading.value, reading.bound)
}

#[test]
fn a_threshold_on_agreement_subtracts_what_stable_differs_by_itself() {
    let case = shadow();
    let then = |counts| case.plan_answering(|query| says(&case, query, counts)).status;
    for (candidate, stable) in [(0.0, 0.0), (50.0, 0.0), (200.0, 150.0), (10.0, 40.0)] {
        let status = then(compared(1000.0, candidate, stable));
        assert_eq!(
            (status.phase, status.weight),
            (P::Canary, Weight::from_percent(20)),
            "{candidate} {stable}"
        );
    }
    for (candidate, stable, value) in [(51.0, 0.0, "0.949"), (200.0, 100.0, "0.9")] {
        let status = then(compared(1000.0, candidate, stable));
        assert_eq!(status.phase, P::RolledBack, "{candidate} {stable}");
        assert_eq!(reading(&status), format!("Breach {value} >= 0.95"));
        let decision = status.decision.unwrap();
        assert!(decision.message.starts_with("agreement of v20261121.2 is"), "{}", decision.message);
    }
}

#[test]
fn without_comparisons_nothing_passes() {
    let case = shadow();
    let wrong = [f64::NAN, f64::INFINITY, -1.0].map(|wrong| compared(1000.0, wrong, 0.0));
    let few = [compared(0.0, 0.0, 0.0), compared(49.0, 0.0, 0.0), compared(49.0, 20.0, 0.0)];
    for counts in wrong.into_iter().chain(few) {
        let status = case.plan_answering(|query| says(&case, query, counts)).status;
        assert_eq!((status.phase, status.weight), (P::Shadow, Weight::ZERO), "{counts:?}");
    }
    // Not one of ninety answers is the same, and nobody says that they agree.
    let sparse = case.plan_answering(|query| says(&case, query, compared(90.0, 90.0, 0.0))).status;
    assert_eq!((sparse.phase, sparse.verdict.as_deref()), (P::Shadow, Some("AwaitingLabels")));
    let told = sparse.conditions.iter().find(|told| told.type_ == "Reconciling").unwrap();
    assert!(told.message.contains("agreement needs 100 compared answers"), "{}", told.message);
    let mut alone = case.clone();
    alone.rollout.spec.strategy.shadow.as_mut().unwrap().rollback_triggers = Some(vec!["agreement".into()]);
    let sparse = alone.plan_answering(|query| says(&alone, query, compared(90.0, 90.0, 0.0))).status;
    let told = sparse.conditions.iter().find(|told| told.type_ == "Reconciling").unwrap();
    assert!(told.message.contains("agreement needs 100 compared answers"), "{}", told.message);
    let silent = case.plan_answering(|query| match query.metric.as_str() {
        "agreement" => Answer::Vector(vec![]),
        _ => Read::Errors(0.0, 1000.0).answer(),
    });
    assert_eq!(silent.status.phase, P::Shadow);
    let waits = silent.status.conditions.iter().find(|told| told.type_ == "Reconciling").unwrap();
    assert!(waits.message.contains("agreement") && waits.message.contains("no data"), "{}", waits.message);
}

#[test]
fn agreement_is_asked_in_shadow_and_nowhere_else() {
    let asked = |case: &RolloutCase| {
        let queries = queries(&case.rollout, case.now).into_iter();
        queries.filter(|query| query.metric == "agreement").map(|query| query.expression).collect::<Vec<_>>()
    };
    let [query] = asked(&shadow()).try_into().unwrap();
    for part in [
        r#"increase(anneal_serve_compared_total{result="candidate",model="ads",version="v20261121.2","#,
        r#"increase(anneal_serve_compared_total{result="stable",model="ads",version="v20261121.2","#,
        r#"increase(anneal_serve_compared_total{model="ads",version="v20261121.2","#,
    ] {
        assert!(query.contains(part), "{query}");
    }
    assert_eq!(asked(&case(cases::moving("Canary", 20))), Vec::<String>::new());
    let mut warned = shadow();
    let shadow = warned.rollout.spec.strategy.shadow.as_mut().unwrap();
    (shadow.rollback_triggers, shadow.warn_triggers) = (None, Some(vec!["agreement".into()]));
    let plan = warned.plan_answering(|query| says(&warned, query, compared(1000.0, 500.0, 0.0)));
    assert_eq!(plan.status.phase, P::Canary, "a warning decides nothing");
    let told = plan.notes.iter().find(|note| note.reason == "MetricWarning");
    assert!(told.unwrap().message.contains("agreement"), "{told:?}");
}

#[test]
fn a_threshold_on_labels_looks_at_those_by_which_one_alone_was_right() {
    let case = judged(cases::moving("Shadow", 0), json!({"paired": {"max": 0.6}}));
    let then = |counts| case.plan_answering(|query| says(&case, query, counts)).status;
    for (candidate, stable) in [(0.0, 0.0), (10.0, 0.0), (40.0, 60.0), (400.0, 500.0)] {
        assert_eq!(then(compared(1000.0, candidate, stable)).phase, P::Canary, "{candidate} {stable}");
    }
    let status = then(compared(1000.0, 10.0, 30.0));
    assert_eq!((status.phase, reading(&status)), (P::RolledBack, "Breach 0.75 <= 0.6".to_owned()));
    assert_eq!(then(compared(0.0, 0.0, 0.0)).phase, P::Shadow, "no labels are no pass");
    let query = &queries(&case.rollout, case.now)[1].expression;
    assert!(query.contains(r#"anneal_serve_paired_total{result="stable",model="ads""#), "{query}");
}

fn service<'c>(case: &'c RolloutCase, name: &str) -> Option<&'c Value> {
    case.children.services.iter().find(|service| service["metadata"]["name"] == name)
}

#[test]
fn pods_are_told_where_the_stable_version_is_whichever_that_is() {
    let mut case = shadow();
    let args = |case: &RolloutCase| -> Vec<Value> {
        let args =
            |deployment: &Value| deployment["spec"]["template"]["spec"]["containers"][0]["args"].clone();
        case.children.deployments.iter().map(args).collect()
    };
    let told = args(&case);
    assert_eq!(told.len(), 2);
    for args in &told {
        let args: Vec<String> = from_value(args.clone()).unwrap();
        assert!(args.contains(&"--compare-with=http://ads-stable.team-a.svc:81".to_owned()), "{args:?}");
        assert!(args.contains(&"--compare-rate=10".to_owned()), "{args:?}");
        assert!(!args.iter().any(|arg| arg.starts_with("--compare-tolerance")), "{args:?}");
    }
    let terms = json!({"min": 0.95, "tolerance": 0.25, "requestsPerSecond": 3});
    let late = judged(cases::moving("Shadow", 0), json!({"agreement": terms, "labelDelay": "2h"}));
    for part in ["--compare-tolerance=0.25", "--label-delay=2h", "--compare-rate=3"] {
        assert!(args(&late)[0].to_string().contains(part), "{part}: {:?}", args(&late));
    }
    assert_eq!(stable_service(&case.rollout).as_deref(), Some("ads-stable"));
    let leads_to = |case: &RolloutCase| {
        service(case, "ads-stable").unwrap()["spec"]["selector"]["anneal.dev/version"].clone()
    };
    assert_eq!(leads_to(&case), "v20261121.1");

    // The candidate takes over: the Service leads to it, and no pod changes.
    case.rollout.status =
        from_value(json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(2),
        "weight": 100, "stepStartedAt": cases::ago(80), "trafficAcceptedAt": cases::ago(80)}))
        .unwrap();
    for _ in 0..2 {
        let plan = case.plan();
        case.perform(&plan.actions);
    }
    assert_eq!(leads_to(&case), "v20261121.2");
    assert_eq!(args(&case), told[1..]);

    // Nobody compares any more.
    case.rollout.spec.metrics.pop();
    case.rollout.spec.strategy.shadow.as_mut().unwrap().rollback_triggers = None;
    let plan = case.plan();
    case.perform(&plan.actions);
    assert_eq!(service(&case, "ads-stable"), None);
    assert!(!args(&case)[0].to_string().contains("compare"));
}

#[test]
fn a_service_of_someone_else_stays_as_it_is() {
    let mut case = shadow();
    let services = &mut case.children.services;
    let own = services.iter_mut().find(|service| service["metadata"]["name"] == "ads-stable").unwrap();
    *own = json!({"metadata": {"name": "ads-stable", "uid": "u", "labels": {}}, "spec": {"selector": {"app": "x"}}});
    let plan = case.plan();
    let touches = |action: &Action| match action {
        Action::Create(object) | Action::Apply(object) => object.key.name == "ads-stable",
        Action::Patch(_) => false,
        Action::Delete { key, .. } => key.kind == Kind::Service && key.name == "ads-stable",
    };
    assert!(!plan.actions.iter().any(touches), "{:?}", plan.actions);
    assert_eq!(plan.status.phase, P::Preparing, "nobody's requests are sent there");
    let told = plan.status.conditions.iter().find(|told| told.reason == "NameConflict").unwrap();
    assert!(told.message.contains("Service ads-stable exists"), "{}", told.message);
}

/// What was counted by second so many of a shadow, ten requests a second: of a thousand, so many differ.
#[derive(Clone, Copy, Debug)]
struct Counts {
    candidate: i64,
    stable: i64,
}

impl Counts {
    fn answer(self, case: &RolloutCase, query: &Query) -> Answer {
        let raw = Raw::read(&query.expression, case.now).unwrap();
        let began = cases::now().as_millisecond();
        let series = |labels: &[(&str, &str)], counted: &dyn Fn(i64) -> i64| {
            let scrapes = raw.from_ms.div_euclid(10_000) + 1..=raw.until_ms.div_euclid(10_000);
            let samples =
                scrapes.map(|at| (at * 10_000, counted((at * 10_000 - began) / 1000 + 1000) as f64));
            let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            RawSeries { labels: labels.collect(), samples: samples.collect(), histograms: vec![] }
        };
        let of = |version: &String| {
            let labels = |more: Option<&'static str>| {
                let more = more.map(|result| ("result", result));
                [("version", version.as_str()), ("pod", version.as_str())]
                    .into_iter()
                    .chain(more)
                    .collect::<Vec<_>>()
            };
            let is_candidate = version.ends_with('2');
            let share =
                |part: i64| move |second: i64| if is_candidate { 10 * second * part / 1000 } else { 0 };
            let series_of = |result, part| series(&labels(Some(result)), &share(part));
            match (raw.selector.as_str(), query.question) {
                ("bad", _) => vec![series(&labels(None), &|_| 0)],
                ("all", _) => vec![series(&labels(None), &|second| 10 * second)],
                (_, Question::Events) => {
                    vec![series_of("candidate", self.candidate), series_of("stable", self.stable)]
                }
                (_, Question::All) => vec![
                    series_of("candidate", self.candidate),
                    series_of("stable", self.stable),
                    series_of("nobody", 1000 - self.candidate - self.stable),
                ],
                other => unreachable!("{other:?}"),
            }
        };
        Answer::Matrix(raw.versions.iter().flat_map(of).collect())
    }
}

/// A shadow of half an hour that began this moment, judged by such a metric with evidence.
fn begun(metric: Value) -> RolloutCase {
    let mut status = cases::moving("Shadow", 0);
    for time in ["stepStartedAt", "trafficAcceptedAt", "trialStartedAt"] {
        status[time] = cases::ago(0).into();
    }
    let mut case = judged(status, metric);
    let spec = &mut case.rollout.spec;
    spec.strategy.shadow.as_mut().unwrap().duration = "30m".parse().unwrap();
    spec.judge = from_value(
        json!({"evidence": "sequential", "maxHold": "10m", "sequential": {"dispersion": "Assumed"}}),
    )
    .unwrap();
    case
}

/// Its end with such counts, the second at which that was, and whether it said that it could see what it promises.
fn sequential(metric: Value, counts: Counts) -> (i64, ModelRolloutStatus, bool) {
    let mut case = begun(metric);
    let mut sees = false;
    for second in (10..3600).step_by(10) {
        case.now += SignedDuration::from_secs(10);
        let plan = case.plan_answering(|query| counts.answer(&case, query));
        case.perform(&plan.actions);
        let phase = plan.status.phase;
        case.rollout.status = Some(plan.status.clone());
        if phase != P::Shadow {
            return (second, plan.status, sees);
        }
        let told = plan.status.conditions.iter().find(|told| told.type_ == "Detectability");
        sees = told.is_some_and(|told| told.status == "True");
    }
    (3600, case.rollout.status.unwrap(), sees)
}

#[test]
fn evidence_of_other_answers_rolls_a_shadow_back() {
    let (second, status, _) =
        sequential(json!({"agreement": {"min": 0.95}}), Counts { candidate: 200, stable: 0 });
    assert!(second < 120, "{second}");
    let decision = status.decision.as_ref().unwrap();
    assert_eq!((status.phase, decision.reason.as_str()), (P::RolledBack, "ThresholdBreached"));
    assert!(reading(&status).starts_with("Breach 0.8 of "), "{}", reading(&status));
}

#[test]
fn a_shadow_goes_on_that_differs_no_more_than_it_may_or_than_stable_from_itself() {
    for (candidate, stable) in [(0, 0), (50, 0), (200, 160)] {
        let (second, status, sees) =
            sequential(json!({"agreement": {"min": 0.95}}), Counts { candidate, stable });
        assert_eq!(status.phase, P::Canary, "{candidate} {stable} at {second}: {:?}", status.conditions);
        assert!((1800..1900).contains(&second), "{second}");
        assert!(sees, "{candidate} {stable}");
    }
}

#[test]
fn labels_roll_a_shadow_back_that_is_wrong_more_often() {
    let paired = || json!({"paired": {}});
    let (second, status, _) = sequential(paired(), Counts { candidate: 20, stable: 60 });
    assert!(second < 900, "{second}");
    assert_eq!(status.phase, P::RolledBack, "{:?}", status.conditions);
    assert!(reading(&status).ends_with("labels <= 0.5"), "{}", reading(&status));
    for (candidate, stable) in [(0, 0), (40, 40), (60, 20)] {
        let (second, status, _) = sequential(paired(), Counts { candidate, stable });
        assert_eq!(status.phase, P::Canary, "{candidate} {stable} at {second}: {:?}", status.conditions);
    }
}

#[test]
fn labels_that_come_later_are_awaited() {
    let metric = json!({"paired": {}, "labelDelay": "40m", "minLabels": 100});
    let (second, status, _) = sequential(metric, Counts { candidate: 0, stable: 0 });
    assert_eq!(status.phase, P::Canary, "{:?}", status.conditions);
    assert!((2400..2600).contains(&second), "{second}");
}

/// Twenty requests a second for ten minutes, one in ten of which the candidate alone answers otherwise, and one in twenty stable alone.
#[test]
#[ignore = "needs promtool; cargo xtask test runs it"]
fn prometheus_reads_what_is_asked() {
    let series = |counter: &str, result: &str, version: u32, values: &str| {
        let namespace = cases::NAMESPACE;
        json!({"series": format!("{counter}{{result=\"{result}\",model=\"ads\",version=\"v20261121.{version}\",namespace=\"{namespace}\"}}"),
            "values": values})
    };
    let part =
        |(name, value): (&str, f64)| json!({"labels": format!("{{anneal_part=\"{name}\"}}"), "value": value});
    let tests = [
        ("anneal_serve_compared_total", ["nobody", "both"], json!({"agreement": {"min": 0.95}})),
        ("anneal_serve_paired_total", ["both", "neither"], json!({"paired": {}})),
    ]
    .map(|(counter, [one, other], metric)| {
        let case = judged(cases::moving("Shadow", 0), metric);
        let query = &queries(&case.rollout, case.now)[1].expression;
        let parts =
            [("candidate", 80.0), ("stable", 40.0), ("total", 800.0), ("step", 1200.0), ("at", 600.0)];
        let parts = parts.map(part);
        json!({"interval": "1s", "input_series": [
            series(counter, one, 2, "0+16x600"), series(counter, other, 2, "0+1x600"),
            series(counter, "candidate", 2, "0+2x600"), series(counter, "stable", 2, "0+1x600"),
            series(counter, "candidate", 1, "0+9x600"),
        ], "promql_expr_test": [{"expr": query, "eval_time": "10m", "exp_samples": parts}]})
    });
    crate::promtool::test_rules(&json!({"evaluation_interval": "1s", "tests": tests}));
}

#[test]
fn a_shadow_whose_answers_nobody_compares_is_given_up_and_says_why() {
    let mut case = begun(json!({"agreement": {"min": 0.95}}));
    let none = Counts { candidate: 0, stable: 0 };
    for _ in 0..300 {
        case.now += SignedDuration::from_secs(10);
        let plan = case.plan_answering(|query| {
            let mut answer = none.answer(&case, query);
            if let (Answer::Matrix(series), "agreement") = (&mut answer, query.metric.as_str()) {
                series.iter_mut().flat_map(|series| &mut series.samples).for_each(|sample| sample.1 = 0.0);
            }
            answer
        });
        case.perform(&plan.actions);
        case.rollout.status = Some(plan.status);
    }
    let status = case.rollout.status.unwrap();
    let decision = status.decision.unwrap();
    assert_eq!((status.phase, decision.reason.as_str()), (P::RolledBack, "HeldTooLong"));
    assert!(decision.message.contains("none of its answers was compared"), "{}", decision.message);
}
