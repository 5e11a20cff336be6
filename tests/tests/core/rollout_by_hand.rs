//! What people ask for by spec and by annotation, and the watch after the last step.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{
    object::Kind,
    plan::{Action, Plan},
    rollout::Endpoints,
};
use anneal_crds::{
    ModelRolloutStatus, Weight,
    model_rollout::{RolloutPhase as P, TrialState as T},
    names,
};
use anneal_tests::cases::{self, BLIND, Read, RolloutCase};
use serde_json::{Value, json};

fn case(status: Value) -> RolloutCase {
    RolloutCase::new(status).unwrap()
}

fn healthy() -> Value {
    json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1), "trafficAcceptedAt": cases::ago(600)})
}

/// Version 2 is watched, and version 1 stays warm.
fn baking() -> RolloutCase {
    let mut status = healthy();
    status["phase"] = "Baking".into();
    status["stable"] = cases::reference(2);
    status["previous"] = cases::reference(1);
    status["history"] = json!([cases::reference(1)]);
    status["stepStartedAt"] = cases::ago(60).into();
    status["trafficAcceptedAt"] = cases::ago(60).into();
    let mut case = case(healthy());
    let bake = json!({"duration": "50s", "rollbackTriggers": ["error_rate"]});
    case.rollout = cases::rollout(status).unwrap();
    case.rollout.spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
    case.settle_children();
    case
}

fn annotated(mut case: RolloutCase, key: &str, text: &str) -> RolloutCase {
    case.rollout.metadata.annotations = Some([(key.to_owned(), text.to_owned())].into());
    case
}

fn reason(status: &ModelRolloutStatus) -> &str {
    &status.decision.as_ref().unwrap().reason
}

fn said(status: &ModelRolloutStatus, type_: &str) -> Option<String> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    (condition.status == "True").then(|| condition.message.clone())
}

fn stable(status: &ModelRolloutStatus) -> &str {
    &status.stable.as_ref().unwrap().version
}

#[test]
fn the_last_step_leads_to_the_bake_and_the_version_before_stays_warm() {
    let mut case = case(cases::moving("Canary", 100));
    case.rollout.spec.strategy.bake =
        Some(serde_json::from_value(json!({"duration": "14d", "rollbackTriggers": ["error_rate"]})).unwrap());
    let plan = case.plan();
    let status = &plan.status;
    assert_eq!((status.phase, stable(status)), (P::Baking, "v20261121.2"));
    assert_eq!(status.previous, status.history.last().cloned());
    assert_eq!(status.previous.as_ref().unwrap().version, "v20261121.1");
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status);
    case.now += jiff::SignedDuration::from_secs(600);
    let deletes = case.plan().actions.iter().filter(|action| matches!(action, Action::Delete { .. })).count();
    assert_eq!(deletes, 0, "it takes the requests back at once if need be");
}

#[test]
fn a_bake_answers_every_reading() {
    let passed = baking().plan().status;
    assert_eq!((passed.phase, reason(&passed), passed.previous.clone()), (P::Healthy, "BakePassed", None));

    let mut bad = baking();
    bad.read = Read::Errors(0.5, 1000.0);
    let plan = bad.plan();
    let status = &plan.status;
    assert_eq!(
        (status.phase, stable(status), reason(status)),
        (P::RolledBack, "v20261121.1", "ThresholdBreached")
    );
    assert_eq!(status.rejected[0].version.version, "v20261121.2");
    assert!(status.history.is_empty(), "what failed is not gone back to");
    let backends = &cases::route_of(&plan).unwrap()["rules"][0]["backendRefs"];
    assert_eq!(
        (backends[0]["name"].as_str(), backends[0]["weight"].as_i64()),
        (Some("ads-v20261121-1"), Some(1000))
    );

    for read in BLIND {
        let mut blind = baking();
        blind.read = read;
        let status = blind.plan().status;
        assert_eq!((status.phase, stable(&status)), (P::Baking, "v20261121.2"), "{read:?}");
    }
    let mut early = baking();
    early.rollout.status.as_mut().unwrap().traffic_accepted_at.as_mut().unwrap().0 = early.now;
    assert_eq!(early.plan().status.phase, P::Baking);
}

#[test]
fn a_bake_that_nobody_can_see_goes_on_and_says_so() {
    let mut case = baking();
    case.read = Read::Silence;
    let since = serde_json::from_value(json!(cases::ago(130))).unwrap();
    case.rollout.status.as_mut().unwrap().holding_since = Some(since);
    let status = case.plan().status;
    assert_eq!(status.phase, P::Baking);
    assert!(said(&status, "Stalled").unwrap().contains("could not be judged within 2m"));
}

#[test]
fn nothing_new_begins_in_a_bake() {
    let mut case = baking();
    case.read = Read::Silence;
    case.versions.push(cases::version(3, Some(2)).unwrap());
    assert_eq!(case.plan().status.phase, P::Baking);
}

#[test]
fn a_bake_that_the_strategy_no_longer_has_is_over() {
    let mut case = baking();
    case.read = Read::Silence;
    case.rollout.spec.strategy.bake = None;
    let status = case.plan().status;
    assert_eq!((status.phase, reason(&status)), (P::Healthy, "StrategyChanged"));
}

#[test]
fn nobody_is_sent_to_a_version_without_pods_and_the_rollback_is_not_forgotten() {
    let lose_all = |case: &mut RolloutCase, number: u32| {
        let name = format!("ads-v20261121-{number}");
        for deployment in &mut case.children.deployments {
            if deployment["metadata"]["name"] == name.as_str() {
                deployment["status"]["readyReplicas"] = 0.into();
            }
        }
    };
    for (mut case, left, instead) in [(case(cases::moving("Canary", 20)), 2, 1), (baking(), 2, 1)] {
        let children = case.children.clone();
        let before = case.rollout.status.clone().unwrap();
        case.read = Read::Errors(0.5, 1000.0);
        lose_all(&mut case, instead);
        let plan = case.plan();
        assert_eq!((plan.status.phase, plan.status.weight), (before.phase, before.weight));
        assert!(
            said(&plan.status, "Stalled").unwrap().contains("has no ready endpoint"),
            "{:?}",
            plan.status.conditions
        );
        assert_eq!(plan.notes.iter().filter(|note| note.reason == "StableUnavailable").count(), 1);
        case.rollout.status = Some(plan.status);
        // The metric is fine again; the decision stands.
        case.read = Read::Errors(0.0, 1000.0);
        let again = case.plan();
        assert_eq!((again.status.phase, again.notes.len()), (before.phase, 0));
        let mut regardless = case.clone();
        regardless.rollout.spec.judge.on_stable_unavailable =
            anneal_crds::metric::OnStableUnavailable::Rollback;
        let plan = regardless.plan();
        assert_eq!(plan.status.phase, P::RolledBack);
        let told = plan.notes.iter().find(|note| note.reason == "StableUnavailable").unwrap();
        assert!(told.message.contains("has no ready endpoint"), "{}", told.message);
        // Where nobody answers anyway, nothing is lost.
        let mut both = case.clone();
        lose_all(&mut both, left);
        assert_eq!(both.plan().status.phase, P::RolledBack);
        case.children = children;
        let status = case.plan().status;
        assert_eq!((status.phase, reason(&status)), (P::RolledBack, "ThresholdBreached"));
        assert_eq!(status.waiting_rollback, None);
    }
}

#[test]
fn a_pause_stops_every_advance_and_no_rollback() {
    let mut waiting = case(healthy());
    waiting.versions = vec![cases::version(1, None).unwrap(), cases::version(2, Some(1)).unwrap()];
    for (case, phase) in [
        (waiting, P::Healthy),
        (case(cases::moving("Preparing", 0)), P::Preparing),
        (case(cases::moving("Shadow", 0)), P::Shadow),
        (case(cases::moving("Canary", 20)), P::Canary),
        (baking(), P::Baking),
    ] {
        let mut by_spec = case.clone();
        by_spec.rollout.spec.paused = true;
        let by_annotation = annotated(case.clone(), names::ANNOTATION_PAUSE, "wait for the weekend");
        for mut paused in [by_spec, by_annotation] {
            let status = paused.plan().status;
            assert_eq!(status.phase, phase);
            assert!(said(&status, "Paused").is_some());
            paused.read = Read::Errors(0.5, 1000.0);
            let judged = matches!(phase, P::Shadow | P::Canary | P::Baking);
            assert_eq!(paused.plan().status.phase == P::RolledBack, judged, "{phase:?}");
        }
        assert_eq!(said(&case.plan().status, "Paused"), None);
        assert_ne!(case.plan().status.phase, P::RolledBack);
    }
}

#[test]
fn who_pauses_why_and_that_it_is_over_is_told() {
    let mut by_spec = case(cases::moving("Canary", 20));
    by_spec.rollout.spec.paused = true;
    let mut with_reason = by_spec.clone();
    with_reason.rollout.spec.pause_reason = Some("the fair is on".to_owned());
    let fields = json!([{"manager": "argocd-controller", "operation": "Apply", "fieldsV1": {"f:spec": {"f:paused": {}},
        "f:metadata": {"f:annotations": {"f:anneal.dev/pause": {}}}}}]);
    for (mut case, told) in [
        (by_spec, "spec.paused is set by argocd-controller: no reason is given."),
        (with_reason, "spec.paused is set by argocd-controller: the fair is on"),
        (
            annotated(case(cases::moving("Canary", 20)), names::ANNOTATION_PAUSE, "wait for Ann"),
            "anneal.dev/pause is set by argocd-controller: wait for Ann",
        ),
    ] {
        case.rollout.metadata.managed_fields = Some(serde_json::from_value(fields.clone()).unwrap());
        let plan = case.plan();
        let notes = |plan: &anneal_core::plan::Plan<ModelRolloutStatus>, reason: &str| -> Vec<String> {
            plan.notes.iter().filter(|note| note.reason == reason).map(|note| note.message.clone()).collect()
        };
        assert_eq!(notes(&plan, "Paused"), [told]);
        assert_eq!(said(&plan.status, "Paused").as_deref(), Some(told));
        case.follow(plan);
        let plan = case.plan();
        assert!(notes(&plan, "Paused").is_empty(), "once");
        case.follow(plan);
        case.rollout.spec.paused = false;
        case.rollout.metadata.annotations = None;
        let plan = case.plan();
        assert_eq!(notes(&plan, "Resumed"), [format!("It is over that {told}")]);
        case.follow(plan);
        assert!(notes(&case.plan(), "Resumed").is_empty(), "once");
    }
}

#[test]
fn an_abort_with_nothing_to_go_back_to_says_so() {
    let first = |phase: &str| {
        let mut status = cases::moving(phase, 0);
        status["candidate"] = cases::reference(1);
        status["stable"].take();
        annotated(case(status), names::ANNOTATION_ABORT, "v20261121.1: no")
    };
    for phase in ["Preparing", "Staging"] {
        let status = first(phase).plan().status;
        let told = said(&status, "InvalidCommand").unwrap();
        assert!(told.contains("there is no version to go back to"), "{phase}: {told}");
        let mut other = first(phase);
        other.rollout.metadata.annotations =
            Some([(names::ANNOTATION_ABORT.to_owned(), "v20261121.2: no".to_owned())].into());
        assert_eq!(said(&other.plan().status, "InvalidCommand"), None, "it is meant for another one");
    }
}

#[test]
fn a_paused_step_is_not_rolled_back_for_want_of_requests_and_is_when_it_is_blind() {
    let mut case = case(cases::moving("Canary", 20));
    case.rollout.spec.paused = true;
    case.read = Read::Errors(0.0, 3.0);
    let status = case.rollout.status.as_mut().unwrap();
    status.step_started_at = Some(serde_json::from_value(json!(cases::ago(3000))).unwrap());
    assert_eq!(case.plan().status.phase, P::Canary);
    case.rollout.status.as_mut().unwrap().holding_since =
        Some(serde_json::from_value(json!(cases::ago(130))).unwrap());
    case.read = Read::Silence;
    assert_eq!(case.plan().status.phase, P::RolledBack);
}

#[test]
fn a_promotion_is_for_one_version_at_one_place() {
    let table = [
        ("Shadow", 0, "v20261121.2@Shadow: why", P::Canary, 20),
        ("Shadow", 0, "v20261121.2@20: why", P::Shadow, 0),
        ("Shadow", 0, "v20261121.2@full: why", P::Healthy, 0),
        ("Canary", 20, "v20261121.2@20: why", P::Canary, 100),
        ("Canary", 20, "v20261121.2@20%: why", P::Canary, 100),
        ("Canary", 20, "v20261121.2@Shadow: why", P::Canary, 20),
        ("Canary", 20, "v20261121.1@20: why", P::Canary, 20),
        ("Canary", 100, "v20261121.2@100: why", P::Healthy, 0),
        ("Preparing", 0, "v20261121.2@full: why", P::Shadow, 0),
    ];
    for (phase, weight, text, then, share) in table {
        let mut case = annotated(case(cases::moving(phase, weight)), names::ANNOTATION_PROMOTE, text);
        case.read = Read::Silence;
        let status = case.plan().status;
        assert_eq!((status.phase, status.weight), (then, Weight::from_percent(share)), "{phase} {text}");
        let promoted = status.decision.is_some_and(|decision| {
            decision.reason == "PromotedByHand" && decision.message.contains("someone: why")
        });
        let moved = then.name() != phase || share != weight;
        assert_eq!(promoted, moved && phase != "Preparing", "{phase} {text}");
        case.rollout.spec.paused = true;
        assert_eq!(case.plan().status.phase.name(), phase, "a pause comes first");
    }
    let mut watched = annotated(baking(), names::ANNOTATION_PROMOTE, "v20261121.2@Baking: why");
    watched.read = Read::Silence;
    let status = watched.plan().status;
    assert_eq!((status.phase, reason(&status)), (P::Healthy, "PromotedByHand"));
}

#[test]
fn a_promotion_needs_pods_and_does_not_excuse_a_breach() {
    let promoted = |text| annotated(case(cases::moving("Canary", 20)), names::ANNOTATION_PROMOTE, text);
    for text in ["v20261121.2@20: why", "v20261121.2@full: why"] {
        let mut bad = promoted(text);
        bad.read = Read::Errors(0.5, 1000.0);
        assert_eq!(bad.plan().status.phase, P::RolledBack);
        let mut few = promoted(text);
        few.lose_a_pod(2);
        let status = few.plan().status;
        assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_percent(20)));
    }
}

#[test]
fn a_step_may_wait_for_a_person() {
    let mut case = case(cases::moving("Canary", 20));
    let steps = json!({"steps": [{"weight": 20, "duration": "20s", "then": "Pause"}, {"weight": 99.9, "duration": "20s"}]});
    case.rollout.spec.strategy.progression = serde_json::from_value(steps).unwrap();
    let status = case.plan().status;
    assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_percent(20)));
    let how = status.conditions.iter().find(|condition| condition.type_ == "AwaitingPromotion").unwrap();
    assert_eq!(status.phase_summary.as_deref(), Some("Canary/AwaitingPromotion"));
    let command =
        how.message.split_once("anneal.dev/promote=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
    let told = |plan: &Plan<ModelRolloutStatus>| {
        plan.notes.iter().filter(|note| note.reason == "AwaitingPromotion").count()
    };
    let mut later = case.clone();
    later.rollout.status = Some(status.clone());
    assert_eq!((told(&case.plan()), told(&later.plan())), (1, 0), "it is told once");
    let plan = annotated(later, names::ANNOTATION_PROMOTE, &command).plan();
    assert!(plan.status.conditions.iter().all(|condition| condition.type_ != "AwaitingPromotion"));
    assert_eq!(plan.status.weight, Weight::from_per_mille(999));
    let backends = &cases::route_of(&plan).unwrap()["rules"][0]["backendRefs"];
    assert_eq!((&backends[0]["weight"], &backends[1]["weight"]), (&json!(1), &json!(999)));
}

#[test]
fn a_step_may_have_triggers_of_its_own() {
    let mut case = case(cases::moving("Canary", 20));
    let steps = json!({"steps": [{"weight": 20, "duration": "20s", "rollbackTriggers": ["nothing"]}]});
    case.rollout.spec.strategy.progression = serde_json::from_value(steps).unwrap();
    assert_eq!(case.plan().status.phase, P::Canary, "a metric that is not defined is no pass");
}

#[test]
fn an_abort_is_for_one_version() {
    for (phase, weight) in [("Preparing", 0), ("Shadow", 0), ("Canary", 20)] {
        let aborted =
            annotated(case(cases::moving(phase, weight)), names::ANNOTATION_ABORT, "v20261121.2: too slow")
                .plan()
                .status;
        assert_eq!((aborted.phase, reason(&aborted)), (P::RolledBack, "Aborted"));
        assert!(aborted.decision.as_ref().unwrap().message.contains("too slow"));
        assert_eq!(aborted.rejected[0].reason.as_deref(), Some("Aborted"));
        let other = annotated(case(cases::moving(phase, weight)), names::ANNOTATION_ABORT, "v20261121.9: no");
        assert_ne!(other.plan().status.phase, P::RolledBack);
    }
    let status = annotated(baking(), names::ANNOTATION_ABORT, "v20261121.2: no").plan().status;
    assert_eq!((status.phase, stable(&status)), (P::RolledBack, "v20261121.1"));
    // What serves and is not on trial cannot be aborted: that is what spec.rollback is for.
    let mut serving = annotated(case(healthy()), names::ANNOTATION_ABORT, "v20261121.1: no");
    serving.versions.truncate(1);
    assert_eq!(serving.plan().status.phase, P::Healthy);
}

#[test]
fn a_retry_is_granted_once_for_each_text_even_without_status() {
    let mut status = healthy();
    status["rejected"] = json!([cases::reference(2)]);
    let mut case = annotated(case(status), names::ANNOTATION_RETRY, "v20261121.2: the node was bad");
    let plan = case.plan();
    assert_eq!(plan.status.phase, P::Preparing);
    assert!(
        plan.notes.iter().any(|note| note.reason == "Retried" && note.message.contains("the node was bad"))
    );
    let decision = plan.status.decision.clone().unwrap().message;
    assert!(
        decision.contains("once more, asked for by") && decision.contains("the node was bad"),
        "{decision}"
    );
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status);
    let marks = |case: &RolloutCase| case.versions[1].metadata.annotations.clone().unwrap_or_default();
    assert!(!marks(&case).contains_key("rolled-back-in.anneal.dev/ads"), "{:?}", marks(&case));

    // It fails again, for good, and the mark knows about the retry.
    case.rollout
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(names::ANNOTATION_PAUSE.into(), "x".into());
    let mut status = case.rollout.status.clone().unwrap();
    (status.phase, status.weight) = (P::Canary, Weight::from_percent(20));
    status.traffic_accepted_at = status.step_started_at.clone();
    case.rollout.status = Some(status);
    case.settle_children();
    case.read = Read::Errors(0.5, 1000.0);
    let plan = case.plan();
    assert_eq!(plan.status.phase, P::RolledBack);
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status);
    case.rollout.metadata.annotations.as_mut().unwrap().remove(names::ANNOTATION_PAUSE);
    case.read = Read::Errors(0.0, 1000.0);
    assert_eq!(case.plan().status.phase, P::RolledBack);
    let mut lost = case.clone();
    lost.rollout.status = None;
    assert_eq!(lost.plan().status.phase, P::Healthy, "the same text gives no other try");
    for case in [case, lost] {
        let again = annotated(case, names::ANNOTATION_RETRY, "v20261121.2: one more time");
        assert_eq!(again.plan().status.phase, P::Preparing);
    }
}

#[test]
fn a_rollback_by_hand_goes_to_a_warm_version_at_once() {
    let mut case = baking();
    case.read = Read::Silence;
    case.rollout.spec.rollback = Some(
        serde_json::from_value(json!({"targetVersion": "v20261121.1", "reason": "complaints"})).unwrap(),
    );
    let plan = case.plan();
    let status = &plan.status;
    assert_eq!(
        (status.phase, stable(status), reason(status)),
        (P::RolledBack, "v20261121.1", "RolledBackByHand")
    );
    assert!(status.decision.as_ref().unwrap().message.contains("complaints"));
    assert_eq!(status.rejected[0].version.version, "v20261121.2");
    // Nothing else begins while it is asked for.
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status);
    case.versions.push(cases::version(3, Some(1)).unwrap());
    assert_eq!(case.plan().status.phase, P::RolledBack);
    case.rollout.spec.rollback = None;
    assert_eq!(case.plan().status.candidate.unwrap().version, "v20261121.3");
}

#[test]
fn a_rollback_by_hand_to_a_cold_version_waits_for_its_pods() {
    let mut status = healthy();
    status["stable"] = cases::reference(2);
    status["history"] = json!([cases::reference(1)]);
    let mut case = case(status);
    case.rollout.spec.rollback = Some(
        serde_json::from_value(json!({"targetVersion": "v20261121.1", "reason": "complaints"})).unwrap(),
    );
    let plan = case.plan();
    assert_eq!((plan.status.phase, stable(&plan.status)), (P::RollingBack, "v20261121.2"));
    let made = plan.actions.iter().any(|action| {
        matches!(action, Action::Apply(object) if object.key.kind == Kind::Deployment && object.key.name == "ads-v20261121-1")
    });
    assert!(made, "{:?}", plan.actions);
    case.rollout.status = Some(plan.status);
    assert_eq!(case.plan().status.phase, P::RollingBack);
    case.perform(&plan.actions);
    case.lose_a_pod(1);
    assert_eq!(case.plan().status.phase, P::RollingBack);
    case.settle_children();
    case.children
        .deployments
        .iter_mut()
        .for_each(|deployment| deployment["status"]["readyReplicas"] = 2.into());
    // Whether they are reached need not be known.
    for endpoints in [Some(Endpoints::Unknown), None] {
        case.endpoints = endpoints;
        let status = case.plan().status;
        assert_eq!((status.phase, stable(&status)), (P::RolledBack, "v20261121.1"));
    }
    // Whoever changes their mind on the way keeps what serves.
    case.rollout.spec.rollback = None;
    let status = case.plan().status;
    assert_eq!(
        (status.phase, stable(&status), reason(&status)),
        (P::Healthy, "v20261121.2", "RollbackWithdrawn")
    );
}

/// Version 2 is in its bake, and its smoke requests have been answered; version 3 was stable long ago and has no pods.
fn baking_over_a_cold_one() -> RolloutCase {
    let mut case = baking();
    case.read = Read::Errors(0.0, 3.0);
    case.versions.insert(0, cases::version(3, None).unwrap());
    let smoke = json!({"requests": [{"path": "/infer"}]});
    case.rollout.spec.strategy.smoke = Some(serde_json::from_value(smoke).unwrap());
    let status = case.rollout.status.as_mut().unwrap();
    status.history = vec![
        serde_json::from_value(cases::reference(3)).unwrap(),
        serde_json::from_value(cases::reference(1)).unwrap(),
    ];
    let passed = json!({"try": 1, "startedAt": cases::ago(50), "state": "Passed"});
    status.smoke = Some(serde_json::from_value(passed).unwrap());
    case
}

#[test]
fn a_bake_that_was_left_for_a_cold_version_begins_anew_when_nobody_wants_that_any_more() {
    let rollback = |to: &str| {
        Some(serde_json::from_value(json!({"targetVersion": to, "reason": "complaints"})).unwrap())
    };
    let mut back = baking_over_a_cold_one();
    back.rollout.spec.rollback = rollback("v20261121.3");
    for _ in 0..2 {
        let plan = back.plan();
        assert_eq!((plan.status.phase, stable(&plan.status)), (P::RollingBack, "v20261121.2"));
        assert_eq!(plan.status.previous.as_ref().unwrap().version, "v20261121.1");
        let deletes = |action: &Action| matches!(action, Action::Delete { .. });
        assert!(!plan.actions.iter().any(deletes), "the version before stays warm: {:?}", plan.actions);
        back.rollout.status = Some(plan.status);
        back.now += jiff::SignedDuration::from_secs(600);
    }
    // It was withdrawn, or the version that was in its bake is asked for, or one of which nobody knows.
    for to in [None, rollback("v20261121.2"), rollback("v20200101.1")] {
        let mut case = back.clone();
        case.rollout.spec.rollback = to.clone();
        let status = case.plan().status;
        assert_eq!((status.phase, reason(&status)), (P::Baking, "RollbackWithdrawn"), "{to:?}");
        assert_eq!((stable(&status), status.candidate.clone()), ("v20261121.2", None));
        assert_eq!(status.previous.as_ref().unwrap().version, "v20261121.1");
        assert_eq!(status.smoke.as_ref().unwrap().state, T::Running);
        assert_eq!(status.step_started_at.clone().unwrap().0, case.now);
    }
    // The version before may be gone back to meanwhile, and whoever stays with it gets the cold one.
    let mut other = back.clone();
    other.rollout.spec.rollback = rollback("v20261121.1");
    assert_eq!(stable(&other.plan().status), "v20261121.1");
    let actions = back.plan().actions;
    back.perform(&actions);
    let status = back.plan().status;
    assert_eq!((status.phase, stable(&status)), (P::RolledBack, "v20261121.3"));
    assert_eq!(status.previous, None);
}

#[test]
fn a_breach_that_waited_for_a_pod_is_not_forgotten_on_the_way_to_a_cold_version_and_back() {
    let rollback = |to: &str| {
        Some(serde_json::from_value(json!({"targetVersion": to, "reason": "complaints"})).unwrap())
    };
    let mut case = baking_over_a_cold_one();
    let breach = json!({"reason": "ThresholdBreached", "message": "errors", "at": cases::ago(5)});
    case.rollout.status.as_mut().unwrap().waiting_rollback = Some(serde_json::from_value(breach).unwrap());
    case.rollout.spec.rollback = rollback("v20261121.3");
    let on_its_way = case.plan().status;
    assert_eq!(on_its_way.phase, P::RollingBack);
    case.rollout.status = Some(on_its_way);
    case.rollout.spec.rollback = None;
    let anew = case.plan().status;
    assert_eq!((anew.phase, anew.waiting_rollback.is_some()), (P::Baking, true));
    // Unless someone names the version that breached.
    case.rollout.spec.rollback = rollback("v20261121.2");
    let kept = case.plan().status;
    assert_eq!((kept.phase, kept.waiting_rollback), (P::Baking, None));
}

#[test]
fn a_bake_whose_version_before_lost_its_pods_is_not_lost_either() {
    let mut case = baking_over_a_cold_one();
    case.rollout.spec.rollback =
        Some(serde_json::from_value(json!({"targetVersion": "v20261121.1", "reason": "no"})).unwrap());
    case.children
        .deployments
        .iter_mut()
        .filter(|it| it["metadata"]["name"] == "ads-v20261121-1")
        .for_each(|deployment| deployment["status"]["readyReplicas"] = 0.into());
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.status.previous.is_some()), (P::RollingBack, true));
    case.rollout.status = Some(plan.status);
    case.children.deployments.clear();
    let made = case.plan().actions.into_iter().filter(|action| {
        matches!(action, Action::Apply(object) if object.key.name == "ads-v20261121-1" && object.key.kind == Kind::Deployment)
    });
    assert_eq!(made.count(), 1);
    case.rollout.spec.rollback = None;
    assert_eq!(case.plan().status.phase, P::Baking);
}

#[test]
fn to_roll_back_to_what_is_stable_gives_up_the_candidate() {
    let mut case = case(cases::moving("Canary", 20));
    case.rollout.spec.rollback =
        Some(serde_json::from_value(json!({"targetVersion": "v20261121.1", "reason": "no"})).unwrap());
    let status = case.plan().status;
    assert_eq!((status.phase, status.rejected.len()), (P::RolledBack, 1));
}

#[test]
fn a_rollback_to_an_unknown_version_changes_nothing_and_says_which_are_known() {
    let mut case = case(cases::moving("Canary", 20));
    case.rollout.spec.rollback =
        Some(serde_json::from_value(json!({"targetVersion": "v20200101.1", "reason": "no"})).unwrap());
    let status = case.plan().status;
    assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_percent(20)));
    assert!(said(&status, "InvalidCommand").unwrap().contains("can be gone back to: v20261121.1"));
    case.read = Read::Errors(0.5, 1000.0);
    assert_eq!(case.plan().status.phase, P::RolledBack);
}

#[test]
fn a_pinned_version_that_was_stable_lately_comes_back_without_steps() {
    let mut status = healthy();
    status["stable"] = cases::reference(2);
    status["history"] = json!([cases::reference(1)]);
    let mut case = case(status);
    case.rollout.spec.candidate = serde_json::from_value(json!({"version": "v20261121.1"})).unwrap();
    let plan = case.plan();
    assert_eq!(plan.status.phase, P::RollingBack);
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status);
    let status = case.plan().status;
    assert_eq!((status.phase, stable(&status), status.rejected.len()), (P::RolledBack, "v20261121.1", 0));
    assert_eq!(status.history[0].version, "v20261121.2", "and back again");
    let mut closed = case.clone();
    closed.rollout.status.as_mut().unwrap().phase = P::Healthy;
    closed.rollout.status.as_mut().unwrap().history.clear();
    assert_eq!(closed.plan().status.phase, P::Healthy, "outside the window it must be compared first");
}

#[test]
fn history_is_as_long_as_the_window() {
    for (window, known) in [(0, 0), (1, 1), (3, 2)] {
        let mut status = cases::moving("Canary", 100);
        status["history"] = json!([cases::reference(7)]);
        let mut case = case(status);
        case.rollout.spec.strategy.rollback_window = window;
        let history = case.plan().status.history;
        assert_eq!(history.len(), known);
        assert!(history.last().is_none_or(|last| last.version == "v20261121.1"));
    }
}

#[test]
fn a_command_that_is_not_understood_is_told() {
    for (key, text) in [
        (names::ANNOTATION_ABORT, "please stop"),
        (names::ANNOTATION_ABORT, "v20261121.2"),
        (names::ANNOTATION_ABORT, "v20261121.2:  "),
        (names::ANNOTATION_RETRY, "latest: why"),
        (names::ANNOTATION_PROMOTE, "v20261121.2: why"),
        (names::ANNOTATION_PROMOTE, "v20261121.2@101: why"),
        (names::ANNOTATION_PROMOTE, "v20261121.2@Somewhere: why"),
    ] {
        let mut case = annotated(case(cases::moving("Canary", 20)), key, text);
        case.read = Read::Errors(0.0, 3.0);
        let status = case.plan().status;
        assert_eq!(status.weight, Weight::from_percent(20));
        assert!(said(&status, "InvalidCommand").unwrap().contains(key), "{key} {text}");
    }
}

#[test]
fn a_command_of_a_version_that_there_is_not_is_told_while_something_could_be_meant() {
    let told = |status: Value, key: &str, text: &str| {
        let mut case = annotated(case(status), key, text);
        case.read = Read::Errors(0.0, 3.0);
        said(&case.plan().status, "InvalidCommand")
    };
    let (abort, retry) = (names::ANNOTATION_ABORT, names::ANNOTATION_RETRY);
    let wrong = told(cases::moving("Canary", 20), abort, "v20261121.22: it is slow").unwrap();
    assert!(wrong.contains("names v20261121.22") && wrong.contains("Write v20261121.2 if"), "{wrong}");
    assert_eq!(told(healthy(), abort, "v20261121.22: it is slow"), None, "it may stay for ever");
    let rolled_back = || {
        let mut status = cases::moving("RolledBack", 0);
        let mut rejection = cases::reference(2);
        rejection["retried"] = "v20261121.2: fixed".into();
        status["rejected"] = json!([rejection]);
        status
    };
    assert!(told(rolled_back(), retry, "v20261121.22: fixed").unwrap().contains("no such version"));
    let spent = told(rolled_back(), retry, "v20261121.2: fixed").unwrap();
    assert!(spent.contains("give another reason"), "{spent}");
    assert_eq!(told(rolled_back(), retry, "v20261121.2: and now the node is"), None);
}

#[test]
fn a_version_that_a_person_went_back_from_tries_again_from_the_start() {
    let mut status = healthy();
    status["history"] = json!([cases::reference(2)]);
    status["rejected"] = json!([cases::reference(2)]);
    let mut case = case(status);
    case.rollout.spec.candidate = serde_json::from_value(json!({"version": "v20261121.2"})).unwrap();
    assert_eq!(case.plan().status.phase, P::Healthy);
    let status =
        annotated(case, names::ANNOTATION_RETRY, "v20261121.2: complaints are answered").plan().status;
    assert_eq!((status.phase, status.weight, stable(&status)), (P::Preparing, Weight::ZERO, "v20261121.1"));
}

#[test]
fn who_asked_is_recorded() {
    let mut case = annotated(case(cases::moving("Canary", 20)), names::ANNOTATION_ABORT, "v20261121.2: no");
    let fields = json!([
        {"manager": "helm", "operation": "Update", "fieldsV1": {"f:spec": {}}},
        {"manager": "kubectl-annotate", "operation": "Update",
            "fieldsV1": {"f:metadata": {"f:annotations": {".": {}, "f:anneal.dev/abort": {}}}}},
    ]);
    case.rollout.metadata.managed_fields = Some(serde_json::from_value(fields).unwrap());
    assert!(case.plan().status.decision.unwrap().message.contains("asked for by kubectl-annotate: no"));
}

#[test]
fn a_person_who_went_back_can_go_forward_again() {
    let mut case = baking();
    let back = |to: &str| {
        Some(serde_json::from_value(json!({"targetVersion": to, "reason": "complaints."})).unwrap())
    };
    case.rollout.spec.rollback = back("v20261121.1");
    let plan = case.plan();
    assert_eq!(
        (stable(&plan.status), plan.status.history[0].version.as_str()),
        ("v20261121.1", "v20261121.2")
    );
    assert!(plan.status.decision.as_ref().unwrap().message.ends_with("complaints."));
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status);
    // It does not come back by itself.
    case.rollout.spec.rollback = None;
    assert_eq!(stable(&case.plan().status), "v20261121.1");
    case.rollout.spec.rollback = back("v20261121.2");
    let plan = case.plan();
    let status = &plan.status;
    assert_eq!((stable(status), status.history[0].version.as_str()), ("v20261121.2", "v20261121.1"));
    assert!(
        !status.rejected.iter().any(|rejection| rejection.version.version == "v20261121.2"),
        "{:?}",
        status.rejected
    );
    case.perform(&plan.actions);
    let mark = case.versions[1].metadata.annotations.as_ref().unwrap().get("rolled-back-in.anneal.dev/ads");
    assert_eq!(mark, None, "what serves is not marked as rolled back");
}

#[test]
fn an_abort_that_has_done_its_work_does_not_stop_the_next_try() {
    let abort = |case: RolloutCase, text: &str| {
        let mut case = case;
        let all = case.rollout.metadata.annotations.get_or_insert_default();
        all.insert(names::ANNOTATION_ABORT.into(), text.into());
        case
    };
    let mut aborted = abort(case(cases::moving("Canary", 20)), "v20261121.2: too slow");
    let plan = aborted.plan();
    assert_eq!(reason(&plan.status), "Aborted");
    aborted.perform(&plan.actions);
    aborted.rollout.status = Some(plan.status);
    let all = aborted.rollout.metadata.annotations.get_or_insert_default();
    all.insert(names::ANNOTATION_RETRY.into(), "v20261121.2: it was the node".into());
    let plan = aborted.plan();
    assert_eq!((plan.status.phase, said(&plan.status, "InvalidCommand")), (P::Preparing, None));
    aborted.rollout.status = Some(plan.status);
    assert_ne!(aborted.plan().status.phase, P::RolledBack, "the old abort is spent");
    assert_eq!(abort(aborted, "v20261121.2: slow again").plan().status.phase, P::RolledBack);
}

#[test]
fn nobody_waits_for_metrics_that_could_change_nothing() {
    let asked = |case: &RolloutCase| anneal_core::rollout::queries(&case.rollout, case.now).len();
    let mut canary = case(cases::moving("Canary", 20));
    assert_eq!(asked(&canary), 1);
    canary.rollout.spec.rollback =
        Some(serde_json::from_value(json!({"targetVersion": "v20261121.1", "reason": "no"})).unwrap());
    assert_eq!(asked(&canary), 0);
    let aborted = annotated(case(cases::moving("Canary", 20)), names::ANNOTATION_ABORT, "v20261121.2: no");
    assert_eq!(asked(&aborted), 0);
    let other = annotated(case(cases::moving("Canary", 20)), names::ANNOTATION_ABORT, "v20261121.9: no");
    assert_eq!(asked(&other), 1);
    let mut kept = baking();
    kept.rollout.spec.rollback =
        Some(serde_json::from_value(json!({"targetVersion": "v20261121.2", "reason": "keep it"})).unwrap());
    assert_eq!(asked(&kept), 1, "the bake goes on and is judged");
}

#[test]
fn a_promotion_out_of_a_step_that_there_is_not_is_told() {
    let mut case =
        annotated(case(cases::moving("Canary", 20)), names::ANNOTATION_PROMOTE, "v20261121.2@33: why");
    case.read = Read::Errors(0.0, 3.0);
    let status = case.plan().status;
    assert!(said(&status, "InvalidCommand").unwrap().contains("it has @20, @100"));
}

#[test]
fn the_moment_in_which_nothing_can_be_judged_any_more_is_told_once() {
    let mut case = case(cases::moving("Canary", 20));
    case.read = Read::Silence;
    let plan = case.plan();
    assert_eq!(plan.notes.iter().filter(|note| note.reason == "MetricsUnavailable").count(), 1);
    case.rollout.status = Some(plan.status);
    assert_eq!(case.plan().notes, vec![]);
}
