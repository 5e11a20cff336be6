//! What people change while a version is on its way, and what a rollout makes of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

use anneal_core::{object::Kind, plan::Action, rollout};
use anneal_crds::{
    ModelRolloutStatus, Weight,
    model_rollout::{Canary, Progression, RolloutPhase as P},
};
use anneal_tests::cases::{self, Read, RolloutCase};
use serde_json::{Value, json};

fn case(status: Value) -> RolloutCase {
    RolloutCase::new(status).unwrap()
}

fn healthy() -> Value {
    json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1), "trafficAcceptedAt": cases::ago(600)})
}

fn canary(case: &mut RolloutCase) -> &mut Canary {
    match &mut case.rollout.spec.strategy.progression {
        Progression::Canary(canary) => canary,
        other @ (Progression::Steps(_) | Progression::BlueGreen(_)) => panic!("{other:?}"),
    }
}

/// Status and reason of a condition.
fn said(status: &ModelRolloutStatus, type_: &str) -> Option<(String, String)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((condition.status.clone(), condition.reason.clone()))
}

fn reason_of_decision(status: &ModelRolloutStatus) -> &str {
    &status.decision.as_ref().unwrap().reason
}

#[test]
fn a_step_that_the_strategy_no_longer_has_leads_to_no_other_step() {
    for (initial, increment, max) in [(100, 80, 100), (50, 80, 50), (10, 90, 100)] {
        let mut case = case(cases::moving("Canary", 20));
        let canary = canary(&mut case);
        (canary.initial, canary.increment, canary.max) = (initial, increment, max);
        let status = case.plan().status;
        assert_eq!(
            (status.phase, status.weight),
            (P::Preparing, Weight::ZERO),
            "{initial} {increment} {max}"
        );
        assert_eq!(reason_of_decision(&status), "StrategyChanged");
    }
    let mut shorter = case(cases::moving("Canary", 100));
    canary(&mut shorter).max = 20;
    assert_eq!(shorter.plan().status.phase, P::Preparing);
    let mut without_shadow = case(cases::moving("Shadow", 0));
    without_shadow.rollout.spec.strategy.shadow = None;
    assert_eq!(reason_of_decision(&without_shadow.plan().status), "StrategyChanged");
}

#[test]
fn a_breach_comes_before_a_changed_strategy() {
    let mut case = case(cases::moving("Canary", 20));
    canary(&mut case).initial = 50;
    case.read = Read::Errors(0.5, 1000.0);
    assert_eq!(case.plan().status.phase, P::RolledBack);
}

#[test]
fn later_steps_may_change_while_one_runs() {
    let mut case = case(cases::moving("Canary", 20));
    case.read = Read::Errors(0.0, 3.0);
    assert_eq!(case.plan().status.step_summary.as_deref(), Some("1/2"));
    canary(&mut case).increment = 40;
    assert_eq!(case.plan().status.step_summary.as_deref(), Some("1/3"));
    case.read = Read::Errors(0.0, 1000.0);
    let status = case.plan().status;
    assert_eq!((status.weight, status.step_summary.as_deref()), (Weight::from_percent(60), Some("2/3")));
}

#[test]
fn a_newer_version_says_whose_place_it_takes() {
    let mut case = case(cases::moving("Canary", 20));
    case.versions.push(cases::version(3, Some(1)).unwrap());
    let status = case.plan().status;
    assert_eq!(
        (status.phase, status.weight, reason_of_decision(&status)),
        (P::Preparing, Weight::ZERO, "Superseded")
    );
    let message = status.decision.unwrap().message;
    assert!(message.contains("v20261121.2") && message.contains("Canary"), "{message}");
}

#[test]
fn a_candidate_without_a_record_is_taken_back_and_nothing_is_said_about_its_metrics() {
    let mut case = case(cases::moving("Canary", 20));
    case.read = Read::Silence;
    case.rollout.status = Some(case.plan().status);
    assert_eq!(said(case.rollout.status.as_ref().unwrap(), "MetricsAvailable").unwrap().0, "False");
    case.versions.truncate(1);
    let status = case.plan().status;
    assert_eq!((status.phase, reason_of_decision(&status)), (P::RolledBack, "CandidateWithdrawn"));
    assert!(status.decision.as_ref().unwrap().message.contains("ModelVersion ads-v20261121.2 was deleted"));
    assert_eq!(said(&status, "MetricsAvailable"), None);
}

#[test]
fn a_stable_version_without_a_record_is_told_before_its_pods_are_lost() {
    for status in [healthy(), cases::moving("Preparing", 0), cases::moving("Canary", 20)] {
        let mut case = case(status.clone());
        case.read = Read::Errors(0.0, 3.0);
        if let Some(started) = case.rollout.status.as_mut().and_then(|status| status.step_started_at.as_mut())
        {
            started.0 = case.now;
        }
        case.versions.remove(0);
        if status == healthy() {
            case.versions.clear();
        }
        case.lose_a_pod(2);
        let plan = case.plan();
        let told = said(&plan.status, "Stalled").unwrap();
        assert_eq!((told.0.as_str(), told.1.as_str()), ("True", "StableRecordMissing"), "{status}");
        let touched = plan.actions.iter().any(|action| match action {
            Action::Apply(object) | Action::Create(object) => object.key.name == "ads-v20261121-1",
            Action::Delete { key, .. } => key.name == "ads-v20261121-1",
            Action::Patch(_) => false,
        });
        assert!(!touched, "what runs is left alone: {:?}", plan.actions);
    }
}

/// A rollout of the same model that was created so many seconds ago.
fn rival(case: &mut RolloutCase, name: &str, seconds: i64) {
    let mut rival = cases::rollout(healthy()).unwrap();
    rival.metadata.name = Some(name.to_owned());
    rival.metadata.creation_timestamp = Some(serde_json::from_value(json!(cases::ago(seconds))).unwrap());
    case.rivals = vec![rival];
}

#[test]
fn of_two_rollouts_of_a_model_the_younger_takes_no_version() {
    // The case's own was created an hour ago.
    for (name, seconds, taken) in
        [("old", 3601, true), ("a", 3600, true), ("z", 3600, false), ("new", 3599, false)]
    {
        let mut moving = case(cases::moving("Canary", 20));
        rival(&mut moving, name, seconds);
        let status = moving.plan().status;
        assert_eq!(status.phase == P::RolledBack, taken, "{name}");
        assert!(status.rejected.is_empty(), "it did nothing wrong");

        let mut first = case(json!({}));
        rival(&mut first, name, seconds);
        let status = first.plan().status;
        assert_eq!(status.phase == P::Pending, taken, "{name}");
        assert_eq!(said(&status, "Stalled") == Some(("True".into(), "ModelTaken".into())), taken, "{name}");
    }
    let mut other_model = case(cases::moving("Canary", 20));
    rival(&mut other_model, "old", 3601);
    other_model.rivals[0].spec.model = "other".into();
    assert_eq!(other_model.plan().status.weight, Weight::FULL);
}

#[test]
fn rivals_are_known_by_their_marks() {
    let mut case = case(healthy());
    let annotations = case.versions[0].metadata.annotations.get_or_insert_default();
    for key in ["stable-in.anneal.dev/ads", "stable-in.anneal.dev/second", "rolled-back-in.anneal.dev/third"]
    {
        annotations.insert(key.to_owned(), "true".to_owned());
    }
    assert_eq!(rollout::rivals(&case.rollout, &case.versions), ["second".to_owned()].into());
}

#[test]
fn the_names_of_children_are_those_of_stable_and_candidate() {
    let case = case(cases::moving("Shadow", 0));
    assert_eq!(rollout::workload_names(&case.rollout), ["ads-v20261121-1", "ads-v20261121-2"]);
}

#[test]
fn pods_that_serve_from_s3_get_the_keys_and_others_get_none() {
    let env = |storage: Value| {
        let mut case = case(healthy());
        case.versions[0].spec.storage = serde_json::from_value(storage).unwrap();
        case.children.deployments.clear();
        let made = case.plan().actions.into_iter().find_map(|action| match action {
            Action::Apply(object) if object.key.kind == Kind::Deployment => Some(object.body),
            Action::Apply(_) | Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => None,
        });
        made.unwrap()["spec"]["template"]["spec"]["containers"][0]["env"].clone()
    };
    assert_eq!(env(json!({"persistentVolumeClaim": {"claimName": "models"}})), Value::Null);
    let keys = env(json!({"s3": {"secretName": "keys"}}));
    assert_eq!(keys[0]["valueFrom"]["secretKeyRef"], json!({"name": "keys", "key": "AWS_ACCESS_KEY_ID"}));
}
