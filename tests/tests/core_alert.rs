//! Which alerts take a candidate out of traffic: by their time, their state and the rollout's selectors.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;

use anneal_core::alert::{self, Alert, AlertStatus};
use anneal_crds::{ModelRollout, names};
use anneal_tests::cases;
use jiff::SignedDuration;
use serde_json::{Value, json};

/// An alert that began to fire this long ago.
fn alert(name: &str, seconds: i64) -> Alert {
    Alert {
        status: AlertStatus::Firing,
        labels: BTreeMap::from([("alertname".to_owned(), name.to_owned())]),
        starts_at: cases::now() - SignedDuration::from_secs(seconds),
        fingerprint: "f".into(),
    }
}

/// A rollout in a status, moving since some time, with selectors.
fn rollout(mut status: Value, moving_for: i64, selectors: &str) -> ModelRollout {
    status["conditions"] = json!([{"type": "Progressing", "status": "True", "reason": "StepStarted", "message": "",
        "lastTransitionTime": cases::ago(moving_for)}]);
    let mut rollout = cases::rollout(status).unwrap();
    annotate(&mut rollout, names::ANNOTATION_ABORT_ON_ALERTS, selectors);
    rollout
}

fn annotate(rollout: &mut ModelRollout, name: &str, value: &str) {
    rollout.metadata.annotations.get_or_insert_default().insert(name.to_owned(), value.to_owned());
}

fn abort(rollout: &ModelRollout, alerts: &[Alert]) -> Option<String> {
    alert::abort(rollout, &alert::selectors(rollout).unwrap(), alerts)
}

const SELECTORS: &str = "alertname=\"HighErrors\"\n\n  alertname=~\"Slow.*\"";

#[test]
fn only_alerts_that_began_while_the_candidate_answered_count() {
    // The case's shadow lasts at least 30 s and a canary step 20 s; every step here began 60 s ago.
    for (phase, weight, moving_for, began, wanted) in [
        ("Preparing", 0, 600, 10, false),
        ("Shadow", 0, 600, 60, true),
        ("Shadow", 0, 600, 61, false),
        // After at least 30 s of shadow.
        ("Canary", 20, 600, 90, true),
        ("Canary", 20, 600, 91, false),
        // After shadow and one canary step.
        ("Canary", 100, 600, 110, true),
        ("Canary", 100, 600, 111, false),
        // The strategy was faster when the earlier steps were lived.
        ("Canary", 100, 80, 81, false),
        ("Canary", 100, 80, 80, true),
        ("Healthy", 0, 600, 10, false),
        ("RolledBack", 0, 600, 10, false),
    ] {
        let rollout = rollout(cases::moving(phase, weight), moving_for, SELECTORS);
        let said = abort(&rollout, &[alert("HighErrors", began)]);
        assert_eq!(said.is_some(), wanted, "{phase} {weight} {moving_for} {began}");
    }
}

#[test]
fn without_a_known_time_an_alert_must_be_of_this_step() {
    let mut moving = rollout(cases::moving("Canary", 100), 600, SELECTORS);
    moving.status.as_mut().unwrap().conditions.clear();
    assert_eq!(abort(&moving, &[alert("HighErrors", 61)]), None);
    assert!(abort(&moving, &[alert("HighErrors", 60)]).is_some());
    moving.status.as_mut().unwrap().step_started_at = None;
    assert_eq!(abort(&moving, &[alert("HighErrors", 1)]), None);
}

#[test]
fn the_first_firing_alert_that_a_selector_means_is_named() {
    let rollout = rollout(cases::moving("Canary", 20), 600, SELECTORS);
    let mut ended = alert("HighErrors", 10);
    ended.status = AlertStatus::Resolved;
    assert_eq!(abort(&rollout, &[ended.clone(), alert("Other", 10)]), None);
    let alerts = [ended, alert("Other", 10), alert("SlowAnswers", 10), alert("HighErrors", 10)];
    assert_eq!(abort(&rollout, &alerts).as_deref(), Some("v20261121.2: alert SlowAnswers fires"));
}

#[test]
fn what_is_written_is_not_written_again_and_says_nothing_of_another_version() {
    let mut rollout = rollout(cases::moving("Canary", 20), 600, SELECTORS);
    annotate(&mut rollout, names::ANNOTATION_ABORT, "v20261121.2: alert Other fires");
    assert_eq!(abort(&rollout, &[alert("HighErrors", 10)]), None);
    annotate(&mut rollout, names::ANNOTATION_ABORT, "v20261121.20: alert Other fires");
    assert!(abort(&rollout, &[alert("HighErrors", 10)]).is_some());
}

#[test]
fn a_rollout_without_selectors_fears_no_alert_and_a_wrong_one_is_an_error() {
    assert_eq!(abort(&rollout(cases::moving("Canary", 20), 600, " \n"), &[alert("HighErrors", 10)]), None);
    let wrong = rollout(cases::moving("Canary", 20), 600, "alertname=\"HighErrors\"\nseverity=page");
    assert!(alert::selectors(&wrong).is_err());
    let many = rollout(cases::moving("Canary", 20), 600, &"alertname=\"HighErrors\"\n".repeat(17));
    assert!(alert::selectors(&many).is_err(), "none is left out in silence");
}
