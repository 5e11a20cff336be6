//! Tables of the RetrainJob's plan: every phase with every end of a trainer, and each bug that was found.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{
    object::Kind,
    plan::{Action, Wake},
};
use anneal_crds::retrain_job::RetrainPhase as P;
use anneal_tests::cases::{self, RetrainCase};
use serde_json::{Value, json};

const CHILD: &str = "ads-1";
const REPORT: &str = "ads-1-report";

fn case(status: Value) -> RetrainCase {
    RetrainCase::new(status).unwrap()
}

/// A run whose child ended so, and whose pods ended so.
fn ended(condition: (&str, &str), pods: &[(i64, &str)]) -> RetrainCase {
    let mut case = case(RetrainCase::training());
    case.child = Some(cases::child(CHILD, cases::UID, Some(condition)).unwrap());
    case.pods =
        (0_i64..).zip(pods).map(|(order, end)| cases::pod(CHILD, order, Some(*end)).unwrap()).collect();
    case
}

fn made(case: &RetrainCase) -> Vec<Kind> {
    case.plan()
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Create(object) => Some(object.key.kind),
            Action::Apply(_) | Action::Patch(_) | Action::Delete { .. } => None,
        })
        .collect()
}

const COMPLETE: (&str, &str) = ("Complete", "CompletionsReached");
const FAILED: (&str, &str) = ("Failed", "PodFailurePolicy");

#[test]
fn the_evidence_decides_and_not_the_exit_code() {
    let notice = |loss| cases::notice(cases::UID, loss, 1);
    for (loss, phase) in [(0.4, P::Registering), (0.5, P::Rejected), (0.6, P::Rejected)] {
        for (condition, code) in [(COMPLETE, 0), (FAILED, 4)] {
            let plan = ended(condition, &[(code, &notice(loss))]).plan();
            assert_eq!(plan.status.phase, phase, "loss {loss}, code {code}");
        }
    }
}

#[test]
fn results_of_others_prove_nothing() {
    let foreign_run = ended(COMPLETE, &[(0, &cases::notice("uid-other", 0.4, 1))]).plan();
    assert_eq!(foreign_run.status.phase, P::Failed);
    let foreign_baseline = ended(COMPLETE, &[(0, &cases::notice(cases::UID, 0.4, 7))]).plan();
    assert_eq!(foreign_baseline.status.phase, P::Rejected);
}

#[test]
fn a_result_of_another_release_is_kept_for_the_operator_that_can_read_it() {
    let later = cases::notice(cases::UID, 0.4, 1).replace("\"schema\":1", "\"schema\":2");
    let unknown = json!({"result": {"schema": 2, "findings": []}}).to_string();
    for notice in [&later, &unknown] {
        for (condition, code) in [(COMPLETE, 0), (FAILED, 4)] {
            let plan = ended(condition, &[(code, notice)]).plan();
            let stalled =
                plan.status.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
            assert_eq!((plan.status.phase, plan.actions.len()), (P::Training, 0), "{notice}");
            assert_eq!(stalled.reason, "ResultOfAnotherRelease");
            assert!(stalled.message.contains("schema 2"), "{}", stalled.message);
        }
        // So is one whose notice was lost.
        let mut case = ended(COMPLETE, &[(0, "")]);
        case.report = Some(cases::child(REPORT, cases::UID, Some(COMPLETE)).unwrap());
        case.pods.push(cases::pod(REPORT, 9, Some((0, notice))).unwrap());
        assert_eq!(case.plan().status.phase, P::Training, "{notice}");
    }
}

#[test]
fn every_permanent_end_is_told_by_its_name() {
    let table = [
        (1, "TrainerFailed"),
        (2, "InvalidConfiguration"),
        (3, "InvalidData"),
        (5, "Diverged"),
        (6, "OutOfMemory"),
        (7, "StorageUnavailable"),
        (8, "DeviceUnavailable"),
        (70, "TrainerBug"),
        (101, "TrainerBug"),
    ];
    for (code, reason) in table {
        let status = ended(("Failed", "BackoffLimitExceeded"), &[(code, "no JSON")]).plan().status;
        let failed = status.conditions.iter().find(|condition| condition.type_ == "Failed").unwrap();
        assert_eq!((status.phase, failed.reason.as_str()), (P::Failed, reason), "{code}");
    }
}

#[test]
fn a_lost_notice_is_asked_for_again_before_the_run_fails() {
    for pods in [&[][..], &[(0, "")], &[(0, "cut {")], &[(4, "")]] {
        let mut case =
            ended(if pods.first().is_some_and(|pod| pod.0 == 4) { FAILED } else { COMPLETE }, pods);
        assert_eq!((case.plan().status.phase, made(&case)), (P::Training, vec![Kind::Job]), "{pods:?}");
        case.report = Some(cases::child(REPORT, cases::UID, Some(COMPLETE)).unwrap());
        let notice = cases::notice(cases::UID, 0.4, 1);
        case.pods.push(cases::pod(REPORT, 9, Some((0, &notice))).unwrap());
        assert_eq!(case.plan().status.phase, P::Registering, "{pods:?}");
        case.pods.pop();
        assert_eq!(case.plan().status.phase, P::Failed, "{pods:?}");
    }
}

#[test]
fn an_earlier_execution_does_not_explain_how_a_run_ended() {
    // The pod that succeeded is gone; one that was interrupted or failed before it is still there.
    for code in [75, 1, 7] {
        let case = ended(COMPLETE, &[(code, "{\"failure\": {\"message\": \"interrupted\"}}")]);
        assert_eq!((case.plan().status.phase, made(&case)), (P::Training, vec![Kind::Job]), "{code}");
    }
    // The pod that a gate rejected is gone; the policy failed the Job, which no retryable code does.
    for code in [75, 1, 7] {
        let case = ended(FAILED, &[(code, "")]);
        assert_eq!((case.plan().status.phase, made(&case)), (P::Training, vec![Kind::Job]), "{code}");
    }
}

#[test]
fn a_deadline_is_told_as_such() {
    let status = ended(("Failed", "DeadlineExceeded"), &[(75, "")]).plan().status;
    let failed = status.conditions.iter().find(|condition| condition.type_ == "Failed").unwrap();
    assert_eq!((status.phase, failed.reason.as_str()), (P::Failed, "DeadlineExceeded"));
}

#[test]
fn nothing_starts_without_a_baseline() {
    let mut case = case(json!({}));
    assert_eq!((case.plan().status.phase, made(&case)), (P::Training, vec![Kind::ConfigMap, Kind::Job]));
    case.stable.as_mut().unwrap().spec.artifact.digest = cases::digest(9);
    assert_eq!((case.plan().status.phase, made(&case)), (P::Pending, vec![]), "another's artifact");
    case.stable = None;
    assert_eq!((case.plan().status.phase, made(&case)), (P::Pending, vec![]));
    case.rollout = None;
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.actions), (P::Pending, vec![]));
    assert_ne!(plan.wake, Wake::OnChange);
}

#[test]
fn a_foreign_job_is_not_adopted() {
    let mut case = case(RetrainCase::training());
    case.child = Some(cases::child(CHILD, "uid-other", Some(COMPLETE)).unwrap());
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.actions), (P::Training, vec![]));
    assert_ne!(plan.wake, Wake::OnChange);
}

#[test]
fn the_job_file_of_another_run_of_the_same_name_is_not_this_runs() {
    let file = |uid: &str| {
        let mut case = case(json!({}));
        case.job.metadata.uid = Some(uid.into());
        case.plan().actions.iter().find_map(|action| match action {
            Action::Create(object) if object.key.kind == Kind::ConfigMap => Some(object.key.name.clone()),
            Action::Create(_) | Action::Apply(_) | Action::Patch(_) | Action::Delete { .. } => None,
        })
    };
    let (old, new) = ("4be1c8f2-0000-4000-8000-000000000000", "93d07a11-0000-4000-8000-000000000000");
    assert!(file(old).is_some());
    assert_ne!(file(old), file(new));
}

#[test]
fn a_job_file_that_was_deleted_is_made_again_for_the_next_pod() {
    let mut case = case(RetrainCase::training());
    case.child = Some(cases::child(CHILD, cases::UID, None).unwrap());
    case.pods = vec![cases::pod(CHILD, 0, None).unwrap()];
    assert_eq!(made(&case), [Kind::ConfigMap]);
    assert_ne!(case.plan().wake, Wake::OnChange, "no watch tells of it");
}

#[test]
fn a_record_that_could_not_be_made_is_tried_again_soon() {
    let mut status = RetrainCase::training();
    status["phase"] = "Registering".into();
    status["version"] = "v20261121.2".into();
    let notice: Value = serde_json::from_str(&cases::notice(cases::UID, 0.4, 1)).unwrap();
    status["result"] = notice["result"].clone();
    let case = case(status);
    assert_eq!(made(&case), [Kind::ModelVersion]);
    assert_ne!(case.plan().wake, Wake::OnChange, "no watch of RetrainJobs tells of ModelVersions");
}

#[test]
fn success_needs_the_record_of_this_very_result() {
    let mut status = RetrainCase::training();
    status["phase"] = "Registering".into();
    status["version"] = "v20261121.2".into();
    let notice: Value = serde_json::from_str(&cases::notice(cases::UID, 0.4, 1)).unwrap();
    status["result"] = notice["result"].clone();
    let mut case = case(status);
    for (uid, digest, phase) in
        [(cases::UID, 2, P::Succeeded), ("uid-other", 2, P::Failed), (cases::UID, 3, P::Failed)]
    {
        let mut record = cases::version(2, Some(1)).unwrap();
        record.spec.origin.uid = uid.into();
        record.spec.artifact.digest = cases::digest(digest);
        case.version = Some(record);
        assert_eq!(case.plan().status.phase, phase, "{uid} {digest}");
    }
}

#[test]
fn a_run_that_is_over_stays_as_it_is() {
    for phase in ["Succeeded", "Rejected", "Failed"] {
        let mut status = RetrainCase::training();
        status["phase"] = phase.into();
        let case = case(status);
        let plan = case.plan();
        assert_eq!(Some(&plan.status), case.job.status.as_ref());
        assert_eq!((plan.actions, plan.notes, plan.wake), (vec![], vec![], Wake::OnChange));
    }
}

#[test]
fn no_time_is_written_that_lies_before_a_recorded_one() {
    let ahead = cases::ago(-50);
    let mut case = ended(FAILED, &[(2, "")]);
    let status = case.job.status.as_mut().unwrap();
    let condition =
        json!({"type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": ahead});
    status.conditions = vec![serde_json::from_value(condition).unwrap()];
    let status = case.plan().status;
    assert_eq!(status.phase, P::Failed);
    for condition in status.conditions {
        assert!(condition.last_transition_time.0 >= ahead.parse().unwrap(), "{}", condition.type_);
    }
    assert!(status.finished_at.unwrap().0 >= ahead.parse().unwrap());
}

#[test]
fn a_run_without_a_job_ends_at_its_deadline() {
    let started = |seconds| {
        let mut status = RetrainCase::training();
        status["startedAt"] = cases::ago(seconds).into();
        case(status).plan().status
    };
    assert_eq!(started(24 * 3600).phase, P::Training);
    let status = started(24 * 3600 + 1);
    let failed = status.conditions.iter().find(|condition| condition.type_ == "Failed").unwrap();
    assert_eq!((status.phase, failed.reason.as_str()), (P::Failed, "DeadlineExceeded"));
}

#[test]
fn a_job_without_pods_says_where_to_look() {
    let mut case = case(RetrainCase::training());
    case.child = Some(cases::child(CHILD, cases::UID, None).unwrap());
    let stalled = |case: &RetrainCase| {
        let conditions = case.plan().status.conditions;
        conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap().clone()
    };
    assert_eq!((stalled(&case).status.as_str(), stalled(&case).reason.as_str()), ("True", "NoPods"));
    let created = |seconds: i64| serde_json::from_value(json!(cases::ago(seconds))).unwrap();
    for (seconds, reason) in [(8, "Training"), (9, "NoPods")] {
        case.child.as_mut().unwrap().metadata.creation_timestamp = Some(created(seconds));
        assert_eq!(stalled(&case).reason, reason, "a Job's pod may take {seconds} s");
    }
    let mut with_pod = case.clone();
    with_pod.pods = vec![cases::pod(CHILD, 0, None).unwrap()];
    assert_eq!(stalled(&with_pod).reason, "Training");
    case.child.as_mut().unwrap().spec =
        Some(serde_json::from_value(json!({"suspend": true, "template": {}})).unwrap());
    assert_eq!((stalled(&case).status.as_str(), stalled(&case).reason.as_str()), ("False", "Suspended"));
}

#[test]
fn a_rollout_of_another_model_is_no_baseline() {
    let mut case = case(json!({}));
    case.rollout.as_mut().unwrap().spec.model = "other".into();
    let status = case.plan().status;
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
    assert_eq!((status.phase, stalled.reason.as_str()), (P::Pending, "BaselineMissing"));
    assert!(stalled.message.contains("serves model other"), "{}", stalled.message);
}

#[test]
fn a_deadline_is_told_as_one_even_when_its_pods_are_gone() {
    let mut case = ended(("Failed", "DeadlineExceeded"), &[]);
    case.report = Some(cases::child(REPORT, cases::UID, Some(FAILED)).unwrap());
    let status = case.plan().status;
    let failed = status.conditions.iter().find(|condition| condition.type_ == "Failed").unwrap();
    assert_eq!(failed.reason, "DeadlineExceeded");
}

#[test]
fn a_report_of_someone_else_is_not_believed() {
    let mut case = ended(COMPLETE, &[]);
    case.report = Some(cases::child(REPORT, "uid-someone", Some(COMPLETE)).unwrap());
    let status = case.plan().status;
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
    assert_eq!((status.phase, stalled.reason.as_str()), (P::Training, "NameConflict"));
}

#[test]
fn a_lost_result_is_looked_for_through_an_outage_and_without_a_gpu() {
    let mut case = ended(COMPLETE, &[]);
    case.job.spec.trainer.resources = serde_json::from_value(
        json!({"limits": {"nvidia.com/gpu": "1", "memory": "2Gi"}, "requests": {"cpu": "1"}}),
    )
    .unwrap();
    let plan = case.plan();
    let report = plan.actions.iter().find_map(|action| match action {
        Action::Create(object) if object.key.kind == Kind::Job => Some(&object.body["spec"]),
        Action::Create(_) | Action::Apply(_) | Action::Patch(_) | Action::Delete { .. } => None,
    });
    let report = report.unwrap();
    let pod = &report["template"]["spec"]["containers"][0]["resources"];
    assert_eq!(*pod, json!({"limits": {"memory": "2Gi"}, "requests": {"cpu": "1"}}));
    let ends_it = |code: i64| {
        let rules = report["podFailurePolicy"]["rules"].as_array().unwrap();
        rules.iter().any(|rule| {
            rule["action"] == "FailJob"
                && rule["onExitCodes"]["values"].as_array().unwrap().contains(&json!(code))
        })
    };
    assert!(ends_it(3) && !ends_it(7) && report["backoffLimit"].as_i64().unwrap() > 100);
}
