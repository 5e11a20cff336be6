//! With plain thresholds too a data plane that does not follow the weights is found, and no other.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::{collections::BTreeMap, iter};

use anneal_core::{
    plan::Wake,
    rollout::{Answer, Query, RawSeries, Series, Shape, queries},
};
use anneal_crds::{ModelRolloutStatus, model_rollout::RolloutPhase as P};
use anneal_tests::{
    cases::{self, Read, RolloutCase},
    raw::Raw,
    world::dice::Dice,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

/// A canary of 20, 30 and 100 %, or the bake after it, whose data plane took the weights so many seconds ago.
fn case(phase: &str, weight: i32, ago: i64) -> RolloutCase {
    let mut status = cases::moving(phase, weight);
    status["trafficAcceptedAt"] = cases::ago(ago).into();
    status["trialStartedAt"] = cases::ago(ago).into();
    if phase == "Baking" {
        status["previous"] = cases::reference(1);
        (status["stable"], status["candidate"]) = (cases::reference(2), Value::Null);
    }
    let mut case = RolloutCase::new(status).unwrap();
    let step = |weight: i32| json!({"weight": weight, "duration": "10m", "minRequests": 20});
    let strategy = json!({"steps": [step(20), step(30), step(100)], "bake": {"duration": "1h", "rollbackTriggers": ["error_rate"]}, "rollbackTriggers": ["error_rate"]});
    case.rollout.spec.strategy = serde_json::from_value(strategy).unwrap();
    case.settle_children();
    case
}

/// What every trigger passes by, and requests of the version on trial and of the other one.
fn counted(own: Option<f64>, rest: Option<f64>) -> Answer {
    let part = |name: &str, value| Series {
        labels: BTreeMap::from([("anneal_part".to_owned(), name.to_owned())]),
        value,
    };
    // Whoever gets none has none to be judged by.
    let judged = if own == Some(0.0) { 0.0 } else { 1000.0 };
    let Answer::Vector(mut vector) = Read::Errors(0.0, judged).answer() else { unreachable!() };
    vector.extend(own.map(|own| part("own", own)));
    vector.extend(rest.map(|rest| part("rest", rest)));
    Answer::Vector(vector)
}

fn verified(status: &ModelRolloutStatus) -> (&str, &str) {
    let told = status.conditions.iter().find(|told| told.type_ == "TrafficVerified").unwrap();
    (told.status.as_str(), told.reason.as_str())
}

const MISMATCH: (&str, &str) = ("False", "TrafficSplitMismatch");
const ACCEPTED: (&str, &str) = ("True", "Accepted");
const UNCOUNTED: (&str, &str) = ("Unknown", "CandidateNotCounted");
const UNREAD: (&str, &str) = ("Unknown", "NotCounted");

#[test]
fn both_versions_are_asked_for_requests_since_the_weights_were_taken() {
    let ranges = [
        // Every pod has been scraped twice.
        ("Canary", 20, 34, None),
        ("Canary", 20, 35, Some("[30s]")),
        ("Canary", 30, 90, Some("[85s]")),
        ("Canary", 30, 86_400, Some("[3600s]")),
        // What was under way at a switch is past soon.
        ("Canary", 100, 90, Some("[85s]")),
        ("Canary", 100, 600, Some("[300s]")),
        ("Canary", 100, 1205, Some("[900s]")),
        ("Baking", 100, 86_400, Some("[3600s]")),
    ];
    for (phase, weight, ago, range) in ranges {
        let case = case(phase, weight, ago);
        let [query] = queries(&case.rollout, case.now).try_into().unwrap();
        let expression = query.expression;
        let asks = |part: &str, version: &str| {
            let named = expression.split("label_replace(").find(|text| text.contains(&format!("\"{part}\"")));
            named
                .is_some_and(|text| range.is_some_and(|range| text.contains(range) && text.contains(version)))
        };
        let asked = (asks("own", "v20261121.2"), asks("rest", "v20261121.1"));
        assert_eq!(asked, (range.is_some(), range.is_some()), "{phase} {weight} {ago}: {expression}");
    }
    let mut shadow = cases::moving("Shadow", 0);
    shadow["trafficAcceptedAt"] = cases::ago(90).into();
    let case = RolloutCase::new(shadow).unwrap();
    assert!(queries(&case.rollout, case.now).iter().all(|query| !query.expression.contains("\"rest\"")));
}

#[test]
fn requests_that_go_where_they_went_before_hold_the_step() {
    let table = [
        ("Canary", 20, Some(0.0), Some(600.0), MISMATCH, Some("0.0 (0.0 to 0.0)")),
        ("Canary", 20, Some(0.0), Some(60.0), MISMATCH, Some("0.0 (0.0 to 0.0)")),
        ("Canary", 30, Some(120.0), Some(480.0), MISMATCH, Some("20.0 (16.7 to 23.3)")),
        ("Canary", 30, Some(180.0), Some(420.0), ACCEPTED, Some("30.0 (26.3 to 33.7)")),
        // Surely another share, and not the one before: users that come back make such.
        ("Canary", 30, Some(2200.0), Some(3800.0), ACCEPTED, Some("36.7 (35.4 to 37.9)")),
        ("Canary", 30, Some(10.0), Some(40.0), ACCEPTED, None),
        ("Canary", 100, Some(300.0), Some(700.0), MISMATCH, Some("30.0 (27.1 to 32.9)")),
        ("Canary", 100, Some(0.0), Some(700.0), MISMATCH, Some("0.0 (0.0 to 0.0)")),
        ("Canary", 100, Some(1000.0), None, ACCEPTED, Some("100.0 (100.0 to 100.0)")),
        ("Canary", 100, Some(1000.0), Some(9.0), ACCEPTED, Some("99.1 (98.5 to 99.7)")),
        ("Baking", 100, Some(1000.0), Some(100.0), MISMATCH, Some("90.9 (89.2 to 92.6)")),
        // Nobody knows.
        ("Canary", 20, None, Some(600.0), UNCOUNTED, None),
        ("Canary", 20, None, Some(10.0), ACCEPTED, None),
        ("Canary", 100, None, Some(700.0), UNCOUNTED, None),
        ("Baking", 100, None, Some(700.0), UNCOUNTED, None),
        ("Canary", 20, Some(600.0), None, ACCEPTED, None),
        ("Canary", 20, None, None, ACCEPTED, None),
        ("Canary", 20, Some(1.0), Some(f64::NAN), ACCEPTED, None),
        ("Canary", 20, Some(1.0), Some(f64::INFINITY), ACCEPTED, None),
        ("Canary", 20, Some(-1.0), Some(600.0), ACCEPTED, None),
    ];
    for (phase, weight, own, rest, told, observed) in table {
        let mut case = case(phase, weight, 300);
        let why = format!("{phase} {weight} {own:?} {rest:?}");
        let status = case.plan_with(&counted(own, rest)).status;
        assert_eq!(verified(&status), told, "{why}");
        assert_eq!(status.observed.as_ref().map(|seen| seen.percent.as_str()), observed, "{why}");
        if told != MISMATCH {
            assert_eq!(status.holding_since, None, "{why}");
            continue;
        }
        assert!(status.holding_since.is_some(), "{why}");
        let strays: Vec<&str> = status.strays.iter().map(|stray| stray.version.as_str()).collect();
        assert_eq!(strays, ["v20261121.1", "v20261121.2"], "{why}");
        assert_eq!(i32::from(status.weight.per_mille()), weight * 10, "{why}");
        case.rollout.status = Some(status.clone());
        assert_eq!(case.plan_with(&counted(own, rest)).status, status, "{why}: no look is a write");
        // Whoever shows nothing else either is not kept for that.
        case.rollout.status.as_mut().unwrap().holding_since =
            serde_json::from_value(cases::ago(121).into()).unwrap();
        let Answer::Vector(mut silent) = counted(own, rest) else { unreachable!() };
        silent.retain(|series| !["bad", "total"].contains(&series.labels["anneal_part"].as_str()));
        let (silent, is_proven) = (Answer::Vector(silent), own == Some(0.0));
        let mut blind = case.clone();
        let status = case.plan_with(&silent).status;
        assert_eq!(status.phase == P::RolledBack, is_proven, "{why}: it has not been blind for long");
        blind.rollout.status = Some(status);
        blind.now += SignedDuration::from_secs(121);
        let phase_of_blind = blind.plan_with(&silent).status.phase;
        assert_eq!(phase_of_blind == P::RolledBack, phase != "Baking", "{why}");
        // What is no proof rejects nobody, and people are told; that no request came at all is one.
        case.rollout.status.as_mut().unwrap().holding_since =
            serde_json::from_value(cases::ago(121).into()).unwrap();
        let status = case.plan_with(&counted(own, rest)).status;
        assert_eq!(status.phase.name(), if is_proven { "RolledBack" } else { phase }, "{why}");
        if is_proven {
            continue;
        }
        // A server that is away begins a time of its own.
        let away = case.plan_with(&Answer::Unreachable("connection refused".to_owned())).status;
        assert_eq!((away.phase.name(), away.holding_since.as_ref()), (phase, Some(&Time(case.now))), "{why}");
        let mut back = case.clone();
        back.rollout.status = Some(away);
        let still = back.plan_with(&Answer::Unreachable("connection refused".to_owned())).status;
        assert_eq!(verified(&still), UNREAD, "{why}: that nobody answers takes nothing back");
        back.rollout.status = Some(still);
        assert_eq!(verified(&back.plan_with(&counted(own, rest)).status), MISMATCH, "{why}");
        let mended = f64::from(weight);
        let mended = counted(Some(mended), Some(100.0 - mended));
        assert_eq!(verified(&back.plan_with(&mended).status), ACCEPTED, "{why}");
        let stalled = status.conditions.iter().find(|told| told.type_ == "Stalled" && told.status == "True");
        assert_eq!(stalled.unwrap().reason, "HeldTooLong", "{why}");
    }
}

#[test]
fn who_serves_for_good_is_no_stray_and_a_step_that_passes_acquits_nobody() {
    let strays = |status: &ModelRolloutStatus| {
        status.strays.iter().map(|stray| stray.version.clone()).collect::<Vec<_>>().join(" ")
    };
    let seen = ["v20261121.1", "v20261121.2"].map(|version| json!({"version": version}));
    for (phase, weight, ago, then, known) in [
        ("Canary", 20, 10, P::Canary, "v20261121.1 v20261121.2"),
        // Whoever has no counters any more would pass, too.
        ("Canary", 20, 601, P::Canary, "v20261121.1 v20261121.2"),
        ("Baking", 100, 3601, P::Healthy, "v20261121.1"),
    ] {
        let mut case = case(phase, weight, ago);
        case.children.deployments = self::case("Canary", 20, 10).children.deployments;
        case.rollout.status.as_mut().unwrap().strays = serde_json::from_value(json!(seen)).unwrap();
        let status = case.plan_with(&counted(Some(1000.0), (weight < 100).then_some(4000.0))).status;
        assert_eq!((status.phase, strays(&status).as_str()), (then, known), "{phase} {ago}");
    }
}

#[test]
fn what_is_observed_is_written_when_it_is_worth_it() {
    let mut case = case("Canary", 20, 60);
    let mut written = vec![];
    for requests in (50..=1000).step_by(50).map(f64::from) {
        let status = case.plan_with(&counted(Some(0.2 * requests), Some(0.8 * requests))).status;
        let observed = status.observed.as_ref().map_or(0, |seen| seen.requests);
        if written.last() != Some(&observed) {
            written.push(observed);
        }
        case.rollout.status = Some(status);
    }
    assert_eq!(written, [0, 100, 200, 400, 800]);
}

/// Where Prometheus scrapes every ten seconds and ten requests come in one, of which the version on trial gets this share.
fn scraped(query: &Query, now: Timestamp, share: f64) -> Answer {
    if query.shape == Shape::Vector {
        let (_, range) = query.expression.rsplit_once('[').unwrap();
        let seconds = range.split_once("s]").unwrap().0.parse::<f64>();
        let seconds = seconds.ok().filter(|_| query.expression.contains("\"rest\""));
        let at = now.as_second() as f64;
        let Answer::Vector(mut vector) =
            counted(seconds.map(|s| 10.0 * s * share), seconds.map(|s| 10.0 * s * (1.0 - share)))
        else {
            unreachable!()
        };
        for series in &mut vector {
            if series.labels["anneal_part"] == "at" {
                series.value = at;
            }
        }
        return Answer::Vector(vector);
    }
    let raw = Raw::read(&query.expression, now).unwrap();
    let series = raw.versions.iter().map(|version| {
        let own = if version.ends_with('2') { share } else { 1.0 - share };
        let scrapes = (raw.from_ms / 10_000 + 1..=raw.until_ms / 10_000).map(|scrape| scrape * 10_000);
        let bad = if raw.selector == "bad" { 0.0 } else { 1.0 };
        let samples =
            scrapes.map(|at| (at, (bad * own * (at - 1_795_000_000_000) as f64 / 100.0).floor())).collect();
        let labels = [("version", version.as_str()), ("pod", "p")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        RawSeries { labels, samples, histograms: vec![] }
    });
    Answer::Matrix(series.collect())
}

#[test]
fn a_plane_that_ignores_ten_points_is_found_within_a_minute_however_seldom_metrics_are_read() {
    for (evidence, weight, share, is_found) in [
        ("none", 20, 0.0, true),
        ("none", 30, 0.2, true),
        ("none", 30, 0.3, false),
        ("sequential", 20, 0.0, true),
        ("sequential", 30, 0.2, true),
        ("sequential", 30, 0.3, false),
    ] {
        let why = format!("{evidence} {weight} {share}");
        let mut case = case("Canary", weight, 0);
        // Looked at each minute by default.
        case.rollout.spec.metrics[0].window = "10m".parse().unwrap();
        case.rollout.spec.metrics[0].interval = None;
        let sequential = (evidence == "sequential").then(|| json!({"dispersion": "Assumed"}));
        let judge = json!({"evidence": evidence, "maxHold": "10m", "sequential": sequential});
        case.rollout.spec.judge = serde_json::from_value(judge).unwrap();
        let started = case.now;
        let mut found = None;
        while found.is_none() && case.now < started + SignedDuration::from_secs(200) {
            let plan = case.plan_answering(|query| scraped(query, case.now, share));
            let Wake::At(at) = plan.wake else { panic!("{why}: nobody looks again") };
            if verified(&plan.status) == MISMATCH {
                assert!(plan.status.observed.is_some(), "{why}");
                found = Some(case.now.duration_since(started).as_secs());
            }
            case.rollout.status = Some(plan.status);
            case.now = at;
        }
        assert_eq!(found.is_some(), is_found, "{why}: {found:?}");
        assert!(found.is_none_or(|seconds| seconds <= 60), "{why}: {found:?}");
    }
}

/// Pods of each version, what each had answered at each second since the switch, and when it is scraped.
struct Pods {
    switch_ms: i64,
    every: i64,
    pods: Vec<(&'static str, i64, Vec<u32>)>,
}

impl Pods {
    /// Fewer than `most` requests a second come by chance, `weight` percent of them to the one pod on trial.
    fn new(dice: &mut Dice, switch: Timestamp, weight: usize, most: usize) -> Self {
        let every = [5, 10, 15][dice.below(3)];
        let stable = 1 + dice.below(4);
        let versions = iter::once("v20261121.2").chain(iter::repeat_n("v20261121.1", stable));
        let phase = |dice: &mut Dice| i64::try_from(dice.below(usize::try_from(every).unwrap())).unwrap();
        let mut pods: Vec<_> = versions.map(|version| (version, phase(dice), vec![0_u32])).collect();
        for _ in 0..200 {
            for (.., counts) in &mut pods {
                counts.push(*counts.last().unwrap());
            }
            for _ in 0..dice.below(most) {
                let pod = if dice.below(100) < weight { 0 } else { 1 + dice.below(stable) };
                *pods[pod].2.last_mut().unwrap() += 1;
            }
        }
        Self { switch_ms: switch.as_millisecond(), every, pods }
    }

    fn answer(&self, query: &Query, now: Timestamp) -> Answer {
        let raw = Raw::read(&query.expression, now).unwrap();
        let asked = self
            .pods
            .iter()
            .enumerate()
            .filter(|(_, (version, ..))| raw.versions.iter().any(|wanted| wanted == version));
        let series = asked.map(|(pod, (version, phase, counts))| {
            let counted = |second: i64| {
                let at_ms = self.switch_ms + 1000 * second;
                let is_scraped = (second - phase).rem_euclid(self.every) == 0;
                let count = match usize::try_from(second) {
                    Ok(second) if raw.selector != "bad" => f64::from(counts[second]),
                    Ok(_) | Err(_) => 0.0,
                };
                (is_scraped && at_ms > raw.from_ms && at_ms <= raw.until_ms).then_some((at_ms, count))
            };
            let labels = [("version", (*version).to_owned()), ("pod", pod.to_string())];
            RawSeries {
                labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
                samples: (-300..200).filter_map(counted).collect(),
                histograms: vec![],
            }
        });
        Answer::Matrix(series.collect())
    }
}

#[test]
fn pods_that_are_scraped_one_after_another_seldom_make_a_right_share_look_wrong() {
    let mut dice = Dice::new(20_261_121);
    let (mut wrong, mut looks) = (0, 0);
    for _ in 0..600 {
        let weight = [20, 30][dice.below(2)];
        let mut case = compared(weight);
        let most = 5 + dice.below(200);
        let pods = Pods::new(&mut dice, case.now, usize::try_from(weight).unwrap(), most);
        let (found, looked) = found_after(&mut case, &pods);
        wrong += usize::from(found.is_some());
        looks += looked;
    }
    // One in a thousand is allowed at each weight; more than four of 600 would be no chance.
    assert!(looks > 600 * 8 && wrong <= 4, "{wrong} of {looks} looks");
}

/// A canary at `weight` that compares, and is looked at each minute by default.
fn compared(weight: i32) -> RolloutCase {
    let mut case = case("Canary", weight, 0);
    case.rollout.spec.metrics[0].window = "10m".parse().unwrap();
    case.rollout.spec.metrics[0].interval = None;
    let judge = json!({"evidence": "sequential", "maxHold": "10m", "sequential": {"dispersion": "Assumed"}});
    case.rollout.spec.judge = serde_json::from_value(judge).unwrap();
    case
}

/// After how many seconds of two minutes a mismatch was told, and how often somebody looked.
fn found_after(case: &mut RolloutCase, pods: &Pods) -> (Option<i64>, usize) {
    let (started, mut looks) = (case.now, 0);
    while case.now < started + SignedDuration::from_secs(130) {
        let plan = case.plan_answering(|query| pods.answer(query, case.now));
        let Wake::At(at) = plan.wake else { unreachable!("nobody looks again") };
        looks += 1;
        if verified(&plan.status) == MISMATCH {
            return (Some(case.now.duration_since(started).as_secs()), looks);
        }
        case.rollout.status = Some(plan.status);
        case.now = at;
    }
    (None, looks)
}

#[test]
fn ten_points_are_found_within_a_minute_at_ten_requests_a_second_as_often_as_the_page_says() {
    let mut dice = Dice::new(20_261_123);
    for (before, in_a_minute, in_two) in [(10, 95, 100), (40, 60, 95)] {
        let mut found = vec![];
        for _ in 0..100 {
            let weight = before + 10;
            let mut case = compared(weight);
            let step = |weight: i32| json!({"weight": weight, "duration": "10m", "minRequests": 20});
            let strategy =
                json!({"steps": [step(before), step(weight), step(100)], "rollbackTriggers": ["error_rate"]});
            case.rollout.spec.strategy = serde_json::from_value(strategy).unwrap();
            case.settle_children();
            let pods = Pods::new(&mut dice, case.now, usize::try_from(before).unwrap(), 21);
            found.extend(found_after(&mut case, &pods).0);
        }
        let minute = found.iter().filter(|seconds| **seconds <= 60).count();
        assert!(
            minute >= in_a_minute && found.len() >= in_two,
            "{before}: {minute} and {} of 100",
            found.len()
        );
    }
}

#[test]
fn a_candidate_that_is_not_counted_at_all_is_told_as_that() {
    let mut dice = Dice::new(20_261_123);
    for weight in [20, 30] {
        let mut case = compared(weight);
        let mut pods = Pods::new(&mut dice, case.now, 0, 21);
        pods.pods.retain(|(version, ..)| version.ends_with('1'));
        assert_eq!(found_after(&mut case, &pods).0, None, "nobody knows where requests go");
        let status = case.rollout.status.as_ref().unwrap();
        assert_eq!(verified(status), UNCOUNTED);
        assert_eq!((&status.observed, status.strays.len()), (&None, 0), "nothing was seen");
        // Just after a tick fewer requests are known.
        let few = |query: &Query| match pods.answer(query, case.now) {
            Answer::Matrix(mut series) => {
                for series in &mut series {
                    let keep = series.samples.len().saturating_sub(2);
                    series.samples.drain(..keep);
                }
                Answer::Matrix(series)
            }
            other @ (Answer::Vector(_) | Answer::Unreachable(_) | Answer::TooMuch(_)) => other,
        };
        assert_eq!(verified(&case.plan_answering(few).status), UNCOUNTED);
    }
}
