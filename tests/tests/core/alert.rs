//! Which alerts take a candidate out of traffic: by their time, their state and the rollout's selectors.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;

use anneal_core::{
    alert::{self, Alert, AlertStatus},
    rollout::AlertReceiver,
};
use anneal_crds::{ModelRollout, names};
use anneal_tests::cases::{self, RolloutCase};
use jiff::SignedDuration;
use serde_json::Value;

/// An alert that began to fire this long ago.
fn alert(name: &str, seconds: i64) -> Alert {
    Alert {
        status: AlertStatus::Firing,
        labels: BTreeMap::from([("alertname".to_owned(), name.to_owned())]),
        starts_at: cases::now() - SignedDuration::from_secs(seconds),
        fingerprint: "f".into(),
    }
}

/// A rollout in a status, with selectors.
fn rollout(status: Value, selectors: &[&str]) -> ModelRollout {
    let mut rollout = cases::rollout(status).unwrap();
    rollout.spec.strategy.abort_on_alerts = selectors.iter().map(|&text| text.to_owned()).collect();
    rollout
}

fn annotate(rollout: &mut ModelRollout, name: &str, value: &str) {
    rollout.metadata.annotations.get_or_insert_default().insert(name.to_owned(), value.to_owned());
}

fn abort(rollout: &ModelRollout, alerts: &[Alert]) -> Option<String> {
    alert::abort(rollout, &alert::selectors(rollout).unwrap(), alerts)
}

const SELECTORS: &[&str] = &["alertname=\"HighErrors\"", " alertname=~\"Slow.*\""];

#[test]
fn only_alerts_that_began_while_the_version_was_on_trial_count() {
    // Every step here began 60 s ago.
    for (phase, weight, trial, began, wanted) in [
        ("Preparing", 0, None, 10, false),
        ("Shadow", 0, Some(60), 60, true),
        ("Shadow", 0, Some(60), 61, false),
        ("Canary", 20, Some(600), 600, true),
        ("Canary", 20, Some(600), 601, false),
        // An older release wrote down only when the step began.
        ("Canary", 100, None, 60, true),
        ("Canary", 100, None, 61, false),
        ("Healthy", 0, None, 10, false),
        ("RolledBack", 0, Some(600), 10, false),
    ] {
        let mut status = cases::moving(phase, weight);
        if let Some(trial) = trial {
            status["trialStartedAt"] = cases::ago(trial).into();
        }
        let said = abort(&rollout(status, SELECTORS), &[alert("HighErrors", began)]);
        assert_eq!(said.is_some(), wanted, "{phase} {weight} {trial:?} {began}");
    }
    let mut unknown = rollout(cases::moving("Canary", 100), SELECTORS);
    unknown.status.as_mut().unwrap().step_started_at = None;
    assert_eq!(abort(&unknown, &[alert("HighErrors", 1)]), None);
}

#[test]
fn in_a_bake_it_is_the_stable_version_that_is_taken_back() {
    let mut status = cases::moving("Baking", 0);
    (status["candidate"], status["previous"]) = (Value::Null, cases::reference(2));
    status["trialStartedAt"] = cases::ago(600).into();
    let said = abort(&rollout(status, SELECTORS), &[alert("HighErrors", 10)]);
    assert_eq!(said.as_deref(), Some("v20261121.1: alert HighErrors fires"));
}

#[test]
fn the_first_firing_alert_that_a_selector_means_is_named() {
    let rollout = rollout(cases::moving("Canary", 20), SELECTORS);
    let mut ended = alert("HighErrors", 10);
    ended.status = AlertStatus::Resolved;
    assert_eq!(abort(&rollout, &[ended.clone(), alert("Other", 10)]), None);
    let alerts = [ended, alert("Other", 10), alert("SlowAnswers", 10), alert("HighErrors", 10)];
    assert_eq!(abort(&rollout, &alerts).as_deref(), Some("v20261121.2: alert SlowAnswers fires"));
}

#[test]
fn what_is_written_is_not_written_again_and_says_nothing_of_another_version() {
    let mut rollout = rollout(cases::moving("Canary", 20), SELECTORS);
    annotate(&mut rollout, names::ANNOTATION_ABORT, "v20261121.2: alert Other fires");
    assert_eq!(abort(&rollout, &[alert("HighErrors", 10)]), None);
    annotate(&mut rollout, names::ANNOTATION_ABORT, "v20261121.20: alert Other fires");
    assert!(abort(&rollout, &[alert("HighErrors", 10)]).is_some());
}

#[test]
fn a_rollout_without_selectors_fears_no_alert_and_a_wrong_one_is_told() {
    let without = rollout(cases::moving("Canary", 20), &[]);
    assert_eq!(abort(&without, &[alert("HighErrors", 10)]), None);
    let wrong = rollout(cases::moving("Canary", 20), &["alertname=\"HighErrors\"", "severity=page"]);
    assert!(alert::selectors(&wrong).is_err(), "none is left out in silence");
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    case.rollout.spec.strategy.abort_on_alerts = wrong.spec.strategy.abort_on_alerts;
    let conditions = case.plan().status.conditions;
    let told = conditions.iter().find(|condition| condition.type_ == "InvalidCommand").unwrap();
    assert!(told.message.contains("severity=page"), "{}", told.message);
}

#[test]
fn alerts_that_nobody_hears_are_told() {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    let told = |case: &RolloutCase| {
        let conditions = case.plan().status.conditions;
        let told = conditions.into_iter().find(|condition| condition.type_ == "InvalidCommand");
        told.map(|told| told.message)
    };
    case.alerts = AlertReceiver::Off;
    assert_eq!(told(&case), None);
    case.rollout.spec.strategy.abort_on_alerts = vec!["alertname=\"Orders\"".to_owned()];
    assert!(told(&case).unwrap().contains("alertReceiver.enabled"));
    case.alerts = AlertReceiver::Listens;
    assert_eq!(told(&case), None);
}
