//! The same under `evidence: sequential`: labels of both versions, from raw counters.

use anneal_core::rollout::{Query, RawSeries};
use anneal_tests::raw::Raw;

use super::*;

/// How much later than its request a label comes, in seconds.
const DELAY: i64 = 2 * HOUR;

/// Versions 1 and 2, whose requests and labels are scraped every ten seconds. The candidate gets its first request when its
/// step begins.
#[derive(Clone, Debug)]
struct World {
    case: RolloutCase,
    /// Requests a second of each version, and none from this second of the step on.
    requests: ([i64; 2], i64),
    /// Labels a second of each version, of which one in so many is wrong; none from this second of the step on.
    labels: ([(i64, i64); 2], i64),
    pods: bool,
}

impl World {
    /// A canary of 20 % that began this moment and takes this long, in ticks of ten seconds.
    fn new(duration: &str, wrong: [i64; 2], sequential: Value) -> Self {
        let mut case = began(P::Canary, 0, json!({"ratio": {"bad": "wrong", "total": "labels", "max": 0.3}}));
        let spec = &mut case.rollout.spec;
        for metric in &mut spec.metrics {
            metric.interval = Some("10s".parse().unwrap());
        }
        spec.metrics[1].label_delay = Some(format!("{DELAY}s").parse().unwrap());
        spec.strategy = from_value(json!({"rollbackTriggers": ["error_rate", "accuracy"],
            "steps": [{"weight": 20, "duration": duration, "minRequests": 20}, {"weight": 100, "duration": "1h"}]}))
        .unwrap();
        let mut terms = json!({"dispersion": "Assumed"});
        terms.as_object_mut().unwrap().extend(sequential.as_object().unwrap().clone());
        spec.judge =
            from_value(json!({"evidence": "sequential", "maxHold": "10m", "sequential": terms})).unwrap();
        let labels = ([(40, wrong[0]), (10, wrong[1])], i64::MAX);
        Self { case, requests: ([80, 20], i64::MAX), labels, pods: false }
    }

    /// What a counter has counted at a second of the step; nothing where it does not exist.
    fn counted(&self, selector: &str, version: usize, second: i64) -> Option<i64> {
        let since = [-100_000, 0][version];
        let served = |until: i64, late: i64| second.min(until).saturating_sub(since + late);
        let (requests, labels) =
            (served(self.requests.1, 0).max(0) * self.requests.0[version], served(self.labels.1, DELAY));
        let (rate, one_in) = self.labels.0[version];
        match selector {
            "all" => Some(requests),
            "bad" => Some(requests / 1000),
            "labels" => (labels > 0).then_some(labels * rate),
            "wrong" => (labels > 0).then_some(labels * rate / one_in),
            other => unreachable!("{other}"),
        }
    }

    fn answer(&self, query: &Query) -> Answer {
        let raw = Raw::read(&query.expression, self.case.now).unwrap();
        let began = cases::now().as_second();
        let of = |version: &String| {
            let number = usize::from(version.ends_with('2'));
            let scrapes =
                (raw.from_ms.div_euclid(10_000) + 1..=raw.until_ms.div_euclid(10_000)).map(|at| at * 10);
            let samples: Vec<(i64, f64)> = scrapes
                .filter_map(|at| Some((at * 1000, self.counted(&raw.selector, number, at - began)? as f64)))
                .collect();
            let name = format!("ads-{}-5d9f7c6b8d-x2x4z", version.replace('.', "-"));
            let labels = if self.pods {
                [("__name__", raw.selector.as_str()), ("pod", name.as_str())]
            } else {
                [("version", version.as_str()), ("pod", "p")]
            };
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            (!samples.is_empty()).then_some(RawSeries { labels, samples, histograms: vec![] })
        };
        Answer::Matrix(raw.versions.iter().filter_map(of).collect())
    }

    /// Ten seconds pass, and the operator looks.
    fn tick(&mut self) -> ModelRolloutStatus {
        self.case.now += SignedDuration::from_secs(10);
        let plan = self.case.plan_answering(|query| self.answer(query));
        self.case.perform(&plan.actions);
        self.case.rollout.status = Some(plan.status.clone());
        plan.status
    }

    /// Second of the step in which something was so, if it was before `most`.
    fn until(&mut self, most: i64, there: impl Fn(&ModelRolloutStatus) -> bool) -> (i64, ModelRolloutStatus) {
        for second in (0..most).step_by(10) {
            let status = self.tick();
            if there(&status) {
                return (second + 10, status);
            }
        }
        (i64::MAX, self.case.rollout.status.clone().unwrap())
    }
}

fn left(status: &ModelRolloutStatus) -> bool {
    status.weight != Weight::from_percent(20)
}

#[test]
fn a_step_waits_for_its_labels_and_then_ends() {
    for pods in [false, true] {
        let mut world = World::new("30m", [10, 10], json!({}));
        world.pods = pods;
        if pods {
            world.case.rollout.spec.prometheus.version_from = from_value(json!("PodName")).unwrap();
        }
        let (_, status) = world.until(HOUR, left);
        assert!(waits(&status).contains("needs 50 labels of accuracy"), "{}", waits(&status));
        assert!(status.holding_since.is_none() && status.missing.is_empty(), "{status:?}");
        let (second, status) = world.until(2 * HOUR, left);
        assert_eq!(status.weight, Weight::FULL, "{}", waits(&status));
        assert!((DELAY..DELAY + 60).contains(&(second + HOUR)), "{second}");
        assert!(status.decision.unwrap().readings.iter().all(|reading| reading.verdict == "Pass"));
    }
}

#[test]
fn a_regression_that_only_labels_show_is_found_soon_after_they_come() {
    let mut world = World::new("1d", [10, 2], json!({}));
    let (second, status) = world.until(4 * HOUR, left);
    let decision = status.decision.unwrap();
    assert_eq!((status.phase, decision.reason.as_str()), (P::RolledBack, "ThresholdBreached"));
    assert!(decision.message.starts_with("accuracy of "), "{}", decision.message);
    assert!((DELAY..DELAY + 120).contains(&second), "{second}");
    // Labels that are early for their requests are not like all of them, and are not compared.
    let mut next = World::new("1d", [10, 2], json!({}));
    next.case.rollout.spec.metrics[1].label_delay = Some("6h".parse().unwrap());
    let (second, status) = next.until(8 * HOUR, left);
    assert_eq!(status.phase, P::RolledBack);
    assert!((6 * HOUR..6 * HOUR + 120).contains(&second), "{second}");
}

#[test]
fn labels_that_never_come_are_missing_from_when_they_should_be_there_on() {
    let mut silent = World::new("30m", [10, 10], json!({}));
    silent.labels.1 = 0;
    let (second, status) = silent.until(4 * HOUR, |status| status.holding_since.is_some());
    assert!((DELAY + 30..DELAY + 90).contains(&second), "{second}: {}", waits(&status));
    assert!(status.verdict.as_deref() == Some("NoData"), "{:?}", status.verdict);
    let (second, status) = silent.until(HOUR, left);
    assert_eq!((status.phase, status.decision.unwrap().reason.as_str()), (P::RolledBack, "HeldTooLong"));
    assert!((600..660).contains(&second), "{second}");
}

#[test]
fn labels_that_come_are_no_requests() {
    let mut quiet = World::new("3h", [10, 10], json!({}));
    quiet.requests.1 = 0;
    let (_, status) = quiet.until(6 * HOUR, left);
    assert_eq!(status.weight, Weight::from_percent(20));
    assert!(waits(&status).contains("nobody gets any requests"), "{}", waits(&status));
    // Nor do they say how requests are divided.
    let mut divided = World::new("3h", [10, 10], json!({}));
    divided.labels.0 = [(10, 10), (90, 10)];
    divided.case.rollout.spec.strategy.rollback_triggers = vec!["accuracy".into(), "error_rate".into()];
    divided.case.rollout.spec.metrics.reverse();
    let (second, status) = divided.until(4 * HOUR, left);
    assert_eq!(status.weight, Weight::FULL, "{}", waits(&status));
    assert!((3 * HOUR..3 * HOUR + 60).contains(&second), "{second}");
}

#[test]
fn evidence_for_labels_begins_with_those_of_the_step() {
    let mut sure = World::new("30m", [10, 10], json!({"advance": "Evidence", "maxDuration": "40m"}));
    let (second, status) = sure.until(4 * HOUR, left);
    assert_eq!(status.weight, Weight::FULL, "{}", waits(&status));
    assert!((DELAY..DELAY + 900).contains(&second), "{second}");
    // 40 minutes, and the time that labels take.
    let terms = json!({"advance": "Evidence", "nonInferiority": 1.01, "maxDuration": "40m", "onInconclusive": "Rollback"});
    let mut unsure = World::new("30m", [10, 10], terms);
    let (second, status) = unsure.until(4 * HOUR, left);
    assert_eq!(status.decision.unwrap().reason, "Inconclusive");
    assert!((DELAY + 2400..DELAY + 2460).contains(&second), "{second}");
}

#[test]
fn a_step_sees_by_labels_what_comes_in_the_rest_of_its_time() {
    let mut world = World::new("121m", [100, 100], json!({"tolerance": 1.0}));
    world.labels.0 = [(4, 100), (1, 100)];
    world.case.rollout.spec.metrics[1] = from_value(json!({"name": "accuracy", "window": "30m", "interval": "10s",
        "labelDelay": "2h", "minLabels": 1_000_000, "ratio": {"bad": "wrong", "total": "labels", "max": 0.02}}))
    .unwrap();
    world.until(DELAY + 300, left);
    let told = world.case.rollout.status.unwrap().conditions;
    let told = told.iter().find(|told| told.type_ == "Detectability").unwrap();
    for part in ["accuracy: with ", "labels a second", "within 60s, and the bound is 2.0 %"] {
        assert!(told.message.contains(part), "{part}: {}", told.message);
    }
}
