//! Steps whose evidence someone has to approve.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_crds::{
    ModelRolloutStatus, Weight,
    model_rollout::{PendingApproval, RolloutPhase as P},
    names,
};
use anneal_tests::cases::{self, Read, RolloutCase};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// At 20 %, in a step that needs an approval before 50 %.
fn waiting() -> RolloutCase {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    let steps = json!({"steps": [{"weight": 20, "duration": "20s", "then": "Approval"}, {"weight": 50, "duration": "20s"}]});
    case.rollout.spec.strategy.progression = serde_json::from_value(steps).unwrap();
    case
}

/// The same, as the plan records it.
fn recorded(mut case: RolloutCase) -> RolloutCase {
    let plan = case.plan();
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status);
    case
}

fn annotated(mut case: RolloutCase, all: &[(&str, &str)]) -> RolloutCase {
    let all = all.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
    case.rollout.metadata.annotations = Some(all.collect());
    case
}

fn pending(case: &RolloutCase) -> &PendingApproval {
    case.rollout.status.as_ref().unwrap().approval.as_ref().unwrap()
}

fn approved(case: &RolloutCase, place: &str) -> RolloutCase {
    let text = format!("v20261121.2@{place} {}: looks good", &pending(case).digest[..12]);
    annotated(
        case.clone(),
        &[(names::ANNOTATION_APPROVE, &text), (names::ANNOTATION_APPROVED_BY, "ann@example.com")],
    )
}

fn said<'a>(status: &'a ModelRolloutStatus, type_: &str) -> Option<&'a str> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    (condition.status == "True").then_some(condition.message.as_str())
}

fn weight(case: &RolloutCase) -> Weight {
    case.plan().status.weight
}

#[test]
fn a_step_waits_with_its_evidence_and_goes_on_when_that_is_approved() {
    let first = waiting().plan();
    assert_eq!(first.notes.iter().filter(|note| note.reason == "AwaitingApproval").count(), 1);
    let case = recorded(waiting());
    let status = case.rollout.status.as_ref().unwrap();
    assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_percent(20)));
    assert_eq!(status.phase_summary.as_deref(), Some("Canary/AwaitingApproval"));
    let evidence = &pending(&case).evidence;
    assert_eq!(
        (&evidence.candidate, &evidence.baseline),
        (status.candidate.as_ref().unwrap(), &status.stable)
    );
    assert_eq!(
        (evidence.step.as_str(), evidence.weight, evidence.metrics.len()),
        ("20", Weight::from_percent(20), 1)
    );
    let metric = &evidence.metrics[0];
    assert_eq!(
        (metric.metric.as_str(), metric.verdict.as_str(), metric.bound.as_str()),
        ("error_rate", "Pass", "<= 0.01")
    );

    let again = case.plan();
    assert!(again.is_idle(case.rollout.status.as_ref()), "what waits is told once: {:?}", again.status);

    // What the condition says to type does it.
    let how = said(status, "AwaitingApproval").unwrap();
    let text = how.split_once("anneal.dev/approve=\"").unwrap().1.split_once('"').unwrap().0;
    let plan = annotated(case.clone(), &[(names::ANNOTATION_APPROVE, text)]).plan();
    assert_eq!(plan.status.weight, Weight::from_percent(50));
    assert_eq!((said(&plan.status, "AwaitingApproval"), plan.status.approval.as_ref()), (None, None));

    let decision = approved(&case, "20").plan().status.decision.unwrap();
    assert_eq!(decision.reason, "Approved");
    let short = &pending(&case).digest[..12];
    let told = format!(
        "v20261121.2 was approved at 20 by the evidence {short}, asked for by ann@example.com: looks good."
    );
    assert!(decision.message.starts_with(&told), "{}", decision.message);
}

#[test]
fn the_digest_is_that_of_the_evidence_as_everyone_can_see_it() {
    let case = recorded(waiting());
    let status = serde_json::to_value(case.rollout.status.as_ref().unwrap()).unwrap();
    // As `jq -jcS .status.approval.evidence` prints it: every object of serde_json's has its keys in order.
    let text = status["approval"]["evidence"].to_string();
    let keys = text.find("\"baseline\"").unwrap() < text.find("\"candidate\"").unwrap();
    assert!(keys && text.contains("\"weight\":20"), "{text}");
    assert_eq!(status["approval"]["digest"], format!("{:x}", Sha256::digest(text.as_bytes())));
}

#[test]
fn only_an_approval_of_just_that_lets_it_go_on() {
    let case = recorded(waiting());
    let digest = pending(&case).digest.clone();
    let (short, long) = (&digest[..12], digest.as_str());
    let other = "0".repeat(12);
    for (text, goes, told) in [
        (format!("v20261121.2@20 {short}: why"), true, None),
        (format!("v20261121.2@20% {long}: why"), true, None),
        (format!("v20261121.2@20 {other}: why"), false, Some("not what waits for an approval")),
        (format!("v20261121.2@50 {short}: why"), false, None),
        (format!("v20261121.2@Shadow {short}: why"), false, None),
        (format!("v20261121.1@20 {short}: why"), false, None),
        (format!("v20261121.2@20 {}: why", &digest[..11]), false, Some("is not understood")),
        (format!("v20261121.2@20 {}: why", digest.to_uppercase()), false, Some("is not understood")),
        (format!("v20261121.2@full {short}: why"), false, Some("is not understood")),
        (format!("v20261121.2@20 {short}"), false, Some("is not understood")),
        (format!("v20261121.2@20 {short}: "), false, Some("is not understood")),
        ("v20261121.2@20: why".to_owned(), false, Some("is not understood")),
    ] {
        let status = annotated(case.clone(), &[(names::ANNOTATION_APPROVE, &text)]).plan().status;
        assert_eq!(status.weight == Weight::from_percent(50), goes, "{text}");
        let said = [said(&status, "AwaitingApproval"), said(&status, "InvalidCommand")];
        let said: String = said.into_iter().flatten().collect();
        assert!(told.is_none_or(|told| said.contains(told)), "{text}: {said}");
    }
}

#[test]
fn an_approval_excuses_nothing() {
    let case = recorded(waiting());
    let mut bad = case.clone();
    bad.read = Read::Errors(0.5, 1000.0);
    assert_eq!(bad.plan().status.phase, P::RolledBack, "what waits is judged");
    let mut bad = approved(&case, "20");
    bad.read = Read::Errors(0.5, 1000.0);
    assert_eq!(bad.plan().status.phase, P::RolledBack);
    let mut blind = approved(&case, "20");
    blind.read = Read::Silence;
    assert_eq!(weight(&blind), Weight::from_percent(20), "no reading is no pass");
    let mut paused = approved(&case, "20");
    paused.rollout.spec.paused = true;
    assert_eq!(weight(&paused), Weight::from_percent(20));
    let mut frozen = approved(&case, "20");
    let noon = json!([{"name": "noon", "schedule": "30 11 * * *", "duration": "1h"}]);
    frozen.rollout.spec.strategy.freezes = serde_json::from_value(noon).unwrap();
    let status = frozen.plan().status;
    assert_eq!(
        (status.weight, status.phase_summary.as_deref()),
        (Weight::from_percent(20), Some("Canary/Frozen"))
    );
    // And whoever looks at a frozen step sees what there is to approve.
    let mut waiting = waiting();
    waiting.rollout.spec.strategy.freezes = frozen.rollout.spec.strategy.freezes.clone();
    assert!(waiting.plan().status.approval.is_some());
}

#[test]
fn a_step_that_waits_for_weeks_is_not_given_up_for_one_look_without_requests() {
    let mut case = recorded(waiting());
    case.now += SignedDuration::from_hours(300);
    case.read = Read::Errors(0.0, 3.0);
    assert_eq!(case.plan().status.phase, P::Canary);
    // One that never passed is: at once for want of requests, and what cannot be read in its time.
    case.rollout.status.as_mut().unwrap().approval = None;
    let mut unread = recorded(case.clone());
    assert_eq!(unread.plan().status.phase, P::Canary);
    unread.now += unread.rollout.spec.judge.max_hold.get() + SignedDuration::from_secs(1);
    assert_eq!(unread.plan().status.phase, P::RolledBack);
    case.now = cases::now() + SignedDuration::from_mins(10);
    case.rollout.spec.prometheus.stale_after = "1h".parse().unwrap();
    assert_eq!(case.plan().status.phase, P::RolledBack);
}

#[test]
fn old_evidence_is_taken_anew_and_an_approval_of_it_is_void() {
    let mut case = waiting();
    let terms = json!({"expiresAfter": "1h"});
    case.rollout.spec.strategy.approval = Some(serde_json::from_value(terms).unwrap());
    let mut old = approved(&recorded(case), "20");
    let digest = pending(&old).digest.clone();
    let expires = |case: &mut RolloutCase, at: Timestamp| {
        let pending = case.rollout.status.as_mut().unwrap().approval.as_mut().unwrap();
        std::mem::replace(&mut pending.expires_at.0, at)
    };
    let hour = SignedDuration::from_hours(1);
    let now = old.now;
    assert_eq!(expires(&mut old, now + SignedDuration::from_secs(1)), now + hour);
    assert_eq!(weight(&old), Weight::from_percent(50));
    old.now += SignedDuration::from_secs(1);
    let status = old.plan().status;
    assert_eq!(status.weight, Weight::from_percent(20));
    let anew = status.approval.as_ref().unwrap();
    assert_eq!(anew.expires_at.0, old.now + hour);
    assert_ne!(anew.digest, digest);
    assert!(said(&status, "AwaitingApproval").unwrap().contains("not what waits"));
}

#[test]
fn a_promotion_leaves_out_no_approval() {
    // Of a step that has not shown anything yet.
    let mut case = annotated(waiting(), &[(names::ANNOTATION_PROMOTE, "v20261121.2@20: hurry")]);
    case.read = Read::Silence;
    let case = recorded(case);
    assert_eq!(case.rollout.status.as_ref().unwrap().weight, Weight::from_percent(20));
    assert_ne!(pending(&case).evidence.metrics[0].verdict, "Pass");
    let text = format!("v20261121.2@20 {}: I saw it", &pending(&case).digest[..12]);
    let both =
        [(names::ANNOTATION_PROMOTE, "v20261121.2@20: hurry"), (names::ANNOTATION_APPROVE, text.as_str())];
    let status = annotated(case, &both).plan().status;
    assert_eq!(status.weight, Weight::from_percent(50));
    let decision = status.decision.unwrap();
    assert_eq!(decision.reason, "PromotedByHand");
    assert!(
        decision.message.contains("hurry") && decision.message.contains("I saw it"),
        "{}",
        decision.message
    );

    for (phase, weight) in [("Shadow", 0), ("Canary", 20)] {
        let mut case = waiting();
        case.rollout.status = Some(serde_json::from_value(cases::moving(phase, weight)).unwrap());
        let case = annotated(case, &[(names::ANNOTATION_PROMOTE, "v20261121.2@full: hurry")]);
        let status = case.plan().status;
        assert_ne!(status.phase, P::Healthy, "{phase}");
        assert!(said(&status, "InvalidCommand").unwrap().contains("someone has to approve"), "{phase}");
    }
    // Behind the last approval nothing stands against it.
    let mut behind = waiting();
    behind.rollout.status = Some(serde_json::from_value(cases::moving("Canary", 50)).unwrap());
    let behind = annotated(behind, &[(names::ANNOTATION_PROMOTE, "v20261121.2@full: hurry")]);
    assert_eq!(behind.plan().status.phase, P::Healthy);
}

#[test]
fn full_traffic_needs_an_approval_where_the_strategy_says_so() {
    let canary = |max| json!({"canary": {"initial": 20, "increment": 40, "interval": "20s", "max": max}});
    let all = json!({"blueGreen": {"duration": "20s"}});
    for (form, phase, weight, waits) in [
        (canary(100), "Shadow", 0, false),
        (canary(100), "Canary", 20, false),
        (canary(100), "Canary", 60, true),
        (canary(100), "Canary", 100, false),
        (canary(60), "Canary", 60, true),
        (all.clone(), "Shadow", 0, true),
        (all, "Canary", 100, false),
    ] {
        let mut case = RolloutCase::new(cases::moving(phase, weight)).unwrap();
        case.rollout.spec.strategy.progression = serde_json::from_value(form.clone()).unwrap();
        case.rollout.spec.strategy.approval =
            Some(serde_json::from_value(json!({"before": "FullTraffic"})).unwrap());
        case.settle_children();
        let case = recorded(case);
        let status = case.rollout.status.as_ref().unwrap();
        assert_eq!(status.approval.is_some(), waits, "{form} {phase} {weight}");
        assert_eq!((status.phase.name() == phase) && status.weight == Weight::from_percent(weight), waits);
        if waits {
            let place = if phase == "Shadow" { phase.to_owned() } else { weight.to_string() };
            assert_ne!(
                approved(&case, &place).plan().status.weight,
                Weight::from_percent(weight),
                "{form} {phase}"
            );
        }
    }
}

#[test]
fn evidence_says_that_someone_has_promoted_the_step_and_is_for_those_terms_alone() {
    let mut young = waiting();
    let now = young.now;
    let status = young.rollout.status.as_mut().unwrap();
    status.step_started_at = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    status.traffic_accepted_at.clone_from(&status.step_started_at);
    let promote = [(names::ANNOTATION_PROMOTE, "v20261121.2@20: I am in a hurry")];
    let promoted = recorded(annotated(young, &promote));
    assert!(pending(&promoted).evidence.promoted.as_ref().unwrap().contains("I am in a hurry"));
    let said = said(promoted.rollout.status.as_ref().unwrap(), "AwaitingApproval").unwrap();
    assert!(said.contains("was promoted before it had passed"), "{said}");
    // When the step has passed by itself, that is other evidence.
    let mut passed = annotated(promoted.clone(), &[]);
    assert_eq!(recorded(passed.clone()).rollout.status.unwrap().approval, None);
    passed.now += SignedDuration::from_secs(25);
    let passed = recorded(passed);
    assert_eq!(pending(&passed).evidence.promoted, None);
    assert_ne!(pending(&passed).digest, pending(&promoted).digest);
    let mut other = passed.clone();
    other.rollout.spec.metrics[0].window = "41s".parse().unwrap();
    assert_ne!(pending(&recorded(other)).digest, pending(&passed).digest);
}
