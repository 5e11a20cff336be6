//! What must hold while nobody looks: no version leaves for one that cannot answer, no command works twice, and nothing that
//! waits is forgotten or given up for one look.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{plan::Action, rollout::Answer};
use anneal_crds::{
    ModelRolloutStatus, Weight, metric::OnStableUnavailable, model_rollout::RolloutPhase as P, names,
};
use anneal_tests::cases::{self, Read, RolloutCase};
use jiff::SignedDuration;
use serde_json::{Value, from_value, json};

fn case(status: Value) -> RolloutCase {
    RolloutCase::new(status).unwrap()
}

fn record(case: &mut RolloutCase) -> ModelRolloutStatus {
    let plan = case.plan();
    case.follow(plan)
}

fn reason(status: &ModelRolloutStatus) -> &str {
    &status.decision.as_ref().unwrap().reason
}

fn stalled(status: &ModelRolloutStatus) -> Option<&str> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == "Stalled")?;
    (condition.status == "True").then_some(condition.reason.as_str())
}

fn annotate(case: &mut RolloutCase, key: &str, text: &str) {
    case.rollout.metadata.annotations.get_or_insert_default().insert(key.into(), text.into());
}

/// All pods of a version but so many are gone.
fn leave_ready(case: &mut RolloutCase, number: u32, ready: u32) {
    let name = format!("ads-v20261121-{number}");
    let of_version = |deployment: &&mut Value| deployment["metadata"]["name"] == name.as_str();
    for deployment in case.children.deployments.iter_mut().filter(of_version) {
        deployment["status"]["readyReplicas"] = ready.into();
    }
}

/// A canary whose stable version has no pods left.
fn orphaned() -> RolloutCase {
    let mut case = case(cases::moving("Canary", 20));
    case.read = Read::Errors(0.0, 3.0);
    leave_ready(&mut case, 1, 0);
    case
}

type Edit = fn(&mut RolloutCase);

#[test]
fn no_new_version_begins_while_only_the_candidate_can_answer() {
    let newer = |case: &mut RolloutCase| case.versions.push(cases::version(3, Some(1)).unwrap());
    let another_strategy = |case: &mut RolloutCase| {
        let steps = json!({"steps": [{"weight": 50, "duration": "20s"}], "rollbackTriggers": ["error_rate"]});
        case.rollout.spec.strategy = from_value(steps).unwrap();
    };
    let back = |case: &mut RolloutCase| {
        case.versions.insert(0, cases::version(7, None).unwrap());
        case.rollout.status.as_mut().unwrap().history = vec![from_value(cases::reference(7)).unwrap()];
        case.rollout.spec.rollback =
            Some(from_value(json!({"targetVersion": "v20261121.7", "reason": "no"})).unwrap());
    };
    let edits: [(&str, Edit, Option<&str>, P); 3] = [
        ("a newer version: the candidate is judged meanwhile", newer, None, P::Preparing),
        ("another strategy", another_strategy, Some("StableUnavailable"), P::Preparing),
        ("a rollback to a cold version", back, Some("StableUnavailable"), P::RolledBack),
    ];
    for (what, edit, told, goes_on) in edits {
        let mut case = orphaned();
        edit(&mut case);
        let mut regardless = case.clone();
        let status = record(&mut case);
        assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_percent(20)), "{what}");
        assert_eq!(stalled(&status), told, "{what}");
        regardless.rollout.spec.judge.on_stable_unavailable = OnStableUnavailable::Rollback;
        assert_ne!(regardless.plan().status.phase, P::Canary, "{what}");
        if told.is_none() || goes_on == P::Preparing {
            leave_ready(&mut case, 1, 2);
        }
        assert_eq!(record(&mut case).phase, goes_on, "{what}");
    }
}

#[test]
fn a_rollback_that_waits_for_stable_is_not_forgotten_for_a_newer_version() {
    let mut case = orphaned();
    case.read = Read::Errors(0.5, 1000.0);
    assert!(record(&mut case).waiting_rollback.is_some());
    case.versions.push(cases::version(3, Some(1)).unwrap());
    case.read = Read::Errors(0.0, 3.0);
    let status = record(&mut case);
    assert_eq!((status.phase, status.candidate.unwrap().version.as_str()), (P::Canary, "v20261121.2"));
    leave_ready(&mut case, 1, 2);
    let status = record(&mut case);
    assert_eq!((status.phase, reason(&status)), (P::RolledBack, "ThresholdBreached"));
    assert_eq!(status.rejected.last().unwrap().version.version, "v20261121.2");
    assert_eq!(record(&mut case).candidate.unwrap().version, "v20261121.3");
}

#[test]
fn whoever_goes_back_by_hand_leaves_a_version_that_was_given_up_rejected() {
    let mut case = orphaned();
    case.read = Read::Errors(0.5, 1000.0);
    record(&mut case);
    case.versions.insert(0, cases::version(7, None).unwrap());
    case.rollout.status.as_mut().unwrap().history = vec![from_value(cases::reference(7)).unwrap()];
    case.rollout.spec.rollback =
        Some(from_value(json!({"targetVersion": "v20261121.7", "reason": "no"})).unwrap());
    leave_ready(&mut case, 1, 2);
    let status = record(&mut case);
    assert_eq!(status.phase, P::RollingBack);
    let rejected: Vec<_> = status.rejected.iter().map(|known| known.version.version.as_str()).collect();
    assert_eq!(rejected, ["v20261121.2"]);
}

#[test]
fn a_cold_version_takes_over_with_the_pods_that_there_is_room_for() {
    let mut status =
        json!({"observedGeneration": 1, "phase": "Healthy", "trafficAcceptedAt": cases::ago(600)});
    status["stable"] = cases::reference(2);
    status["history"] = json!([cases::reference(1)]);
    let mut case = case(status);
    case.rollout.spec.rollback =
        Some(from_value(json!({"targetVersion": "v20261121.1", "reason": "complaints"})).unwrap());
    assert_eq!(record(&mut case).phase, P::RollingBack);
    leave_ready(&mut case, 1, 1);
    let deadline = case.rollout.spec.serving.progress_deadline.get();
    case.now += deadline;
    assert_eq!(record(&mut case).phase, P::RollingBack, "more of them may come");
    case.now += SignedDuration::from_secs(1);
    let mut none = case.clone();
    leave_ready(&mut none, 1, 0);
    assert_eq!(none.plan().status.phase, P::RollingBack, "nobody would answer");
    let status = record(&mut case);
    assert_eq!((status.phase, status.stable.unwrap().version.as_str()), (P::RolledBack, "v20261121.1"));
}

#[test]
fn a_promotion_does_its_work_once() {
    let mut case = case(cases::moving("Shadow", 0));
    annotate(&mut case, names::ANNOTATION_PROMOTE, "v20261121.2@full: hotfix");
    let status = record(&mut case);
    assert_eq!(
        (reason(&status), status.promoted.as_deref()),
        ("PromotedByHand", Some("v20261121.2@full: hotfix"))
    );
    // It fails, and comes back.
    annotate(&mut case, names::ANNOTATION_RETRY, "v20261121.2: it was the node");
    let mut again = cases::moving("Shadow", 0);
    again["promoted"] = "v20261121.2@full: hotfix".into();
    case.rollout.status = Some(from_value(again).unwrap());
    case.read = Read::Errors(0.0, 3.0);
    case.settle_children();
    let status = record(&mut case);
    assert_eq!(
        (status.phase, status.promoted.is_some()),
        (P::Shadow, true),
        "what it did once it does not do again"
    );
    let told = status.conditions.iter().find(|condition| condition.type_ == "InvalidCommand").unwrap();
    assert!(told.message.contains("give another reason"), "{}", told.message);
    // Other words are another promotion, and the same ones after those as well.
    let mut other = case.clone();
    annotate(&mut other, names::ANNOTATION_PROMOTE, "v20261121.2@full: I am sure");
    assert_ne!(record(&mut other).phase, P::Shadow);
    case.rollout.metadata.annotations.as_mut().unwrap().remove(names::ANNOTATION_PROMOTE);
    assert_eq!(record(&mut case).promoted, None);
    annotate(&mut case, names::ANNOTATION_PROMOTE, "v20261121.2@full: hotfix");
    assert_ne!(record(&mut case).phase, P::Shadow);
}

#[test]
fn an_abort_that_has_done_its_work_is_not_revived_by_another_versions_retry() {
    let mut case = case(cases::moving("Canary", 20));
    case.versions.push(cases::version(3, Some(1)).unwrap());
    let status = case.rollout.status.as_mut().unwrap();
    status.rejected = from_value(json!([cases::reference(3)])).unwrap();
    status.retry = Some(
        from_value(json!({"digest": cases::digest(2), "text": "v20261121.2: again", "spentAbort": "v20261121.2: slow"}))
            .unwrap(),
    );
    case.rollout.spec.candidate = from_value(json!({"version": "v20261121.2"})).unwrap();
    annotate(&mut case, names::ANNOTATION_ABORT, "v20261121.2: slow");
    case.read = Read::Errors(0.0, 3.0);
    assert_eq!(record(&mut case).phase, P::Canary);
    annotate(&mut case, names::ANNOTATION_RETRY, "v20261121.3: that one too");
    let status = record(&mut case);
    assert_eq!((status.phase, status.retry.unwrap().digest), (P::Canary, cases::digest(3)));
    // One that is meant is obeyed, whoever else tries again.
    annotate(&mut case, names::ANNOTATION_ABORT, "v20261121.2: really");
    assert_eq!(record(&mut case).phase, P::RolledBack);
}

#[test]
fn a_step_that_has_passed_and_waits_is_not_given_up_for_one_look() {
    let mut case = case(cases::moving("Canary", 20));
    let steps = json!([{"weight": 20, "duration": "20s", "minRequests": 20, "then": "Pause"}, {"weight": 100, "duration": "20s"}]);
    case.rollout.spec.strategy =
        from_value(json!({"rollbackTriggers": ["error_rate"], "steps": steps})).unwrap();
    record(&mut case);
    case.now += SignedDuration::from_hours(12);
    case.read = Read::Silence;
    let status = record(&mut case);
    assert_eq!((status.phase, status.holding_since.is_some()), (P::Canary, true));
    // What stays unseen is given up in its time.
    case.now += case.rollout.spec.judge.max_hold.get();
    assert_eq!(record(&mut case).phase, P::Canary);
    case.now += SignedDuration::from_secs(1);
    let status = record(&mut case);
    assert_eq!((status.phase, reason(&status)), (P::RolledBack, "HeldTooLong"));
}

#[test]
fn a_server_that_words_its_failures_anew_is_no_reason_to_write() {
    let mut case = case(cases::moving("Canary", 20));
    case.now += SignedDuration::from_secs(1);
    let mut look = |words: &str| {
        case.now += SignedDuration::from_millis(1);
        let plan = case.plan_with(&Answer::Unreachable(words.to_owned()));
        case.follow(plan)
    };
    look("error 503 when executing q at time=1795262400123 (request 3f2a9c04-d1e7, 10.0.0.3:40822)");
    let before =
        look("error 503 when executing q at time=1795262400124 (request 3f2a9c05-d1e8, 10.0.0.3:40823)");
    let after =
        look("error 503 when executing q at time=1795262400777 (request deadbeef-11e9, 10.0.0.4:40824)");
    assert_eq!(before, after);
    assert_ne!(before, look("connection refused"));
}

#[test]
fn a_service_that_someone_narrowed_leads_to_its_pods_again() {
    let mut case = case(json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1),
        "trafficAcceptedAt": cases::ago(600)}));
    case.versions.truncate(1);
    let wanted = case.children.services[0]["spec"]["selector"].clone();
    assert!(record(&mut case).conditions.iter().all(|condition| condition.reason != "ServiceNarrowed"));
    case.children.services[0]["spec"]["selector"]["mesh"] = "in".into();
    let plan = case.plan();
    assert_eq!(stalled(&plan.status), Some("ServiceNarrowed"));
    let patched = plan.actions.iter().find_map(|action| match action {
        Action::Patch(patch) => patch.applied(&case.children.services[0]),
        Action::Apply(_) | Action::Create(_) | Action::Delete { .. } => None,
    });
    assert_eq!(patched.unwrap()["spec"]["selector"], wanted);
}
