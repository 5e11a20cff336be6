//! What stays within reach: of people, alerts, the judge and a new start, a version that has requests and one that had them.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{alert, rollout};
use anneal_crds::{ModelRolloutStatus, ModelVersion, VersionRef, model_rollout::RolloutPhase as P, names};
use anneal_tests::cases::{self, Read, RolloutCase};
use jiff::SignedDuration;
use serde_json::{from_value, json};

fn record(case: &mut RolloutCase) -> ModelRolloutStatus {
    let plan = case.plan();
    case.follow(plan)
}

fn reason(status: &ModelRolloutStatus) -> &str {
    &status.decision.as_ref().unwrap().reason
}

fn number(version: &Option<VersionRef>) -> &str {
    version.as_ref().map_or("", |version| &version.version)
}

fn said(status: &ModelRolloutStatus, type_: &str) -> Option<String> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    (condition.status == "True").then(|| condition.message.clone())
}

fn annotate(case: &mut RolloutCase, key: &str, text: &str) {
    case.rollout.metadata.annotations.get_or_insert_default().insert(key.into(), text.into());
}

/// Version 2 is in its bake, version 1 stays warm, and version 7 was stable long ago.
fn baking() -> RolloutCase {
    let mut status = cases::moving("Baking", 0);
    (status["stable"], status["previous"]) = (cases::reference(2), cases::reference(1));
    status["candidate"].take();
    status["trialStartedAt"] = cases::ago(60).into();
    status["history"] = json!([cases::reference(7), cases::reference(1)]);
    let mut case = RolloutCase::new(status).unwrap();
    case.versions.insert(0, cases::version(7, None).unwrap());
    let bake = json!({"duration": "1h", "rollbackTriggers": ["error_rate"]});
    case.rollout.spec.strategy.bake = Some(from_value(bake).unwrap());
    case.settle_children();
    case
}

/// Somebody wants version 7 instead, whose pods do not come.
fn left_for_a_cold_version() -> RolloutCase {
    let mut case = baking();
    let back = json!({"targetVersion": "v20261121.7", "reason": "complaints"});
    case.rollout.spec.rollback = Some(from_value(back).unwrap());
    assert_eq!(record(&mut case).phase, P::RollingBack);
    for deployment in &mut case.children.deployments {
        if deployment["metadata"]["name"] == "ads-v20261121-7" {
            deployment["status"]["readyReplicas"] = 0.into();
        }
    }
    assert_eq!(record(&mut case).phase, P::RollingBack);
    case
}

#[test]
fn who_pins_the_version_before_goes_back_to_it_out_of_the_bake() {
    let mut case = baking();
    case.rollout.spec.candidate = from_value(json!({"version": "v20261121.2"})).unwrap();
    assert_eq!(record(&mut case).phase, P::Baking, "it is what is asked for");
    case.rollout.spec.candidate = from_value(json!({"version": "v20261121.1"})).unwrap();
    let status = record(&mut case);
    assert_eq!((status.phase, number(&status.stable)), (P::RolledBack, "v20261121.1"));
    assert!(status.rejected.is_empty(), "it did nothing wrong");

    let mut cold = baking();
    cold.rollout.spec.candidate = from_value(json!({"version": "v20261121.7"})).unwrap();
    assert_eq!(record(&mut cold).phase, P::RollingBack, "its pods start first");
    let status = record(&mut cold);
    assert_eq!((status.phase, number(&status.stable)), (P::RolledBack, "v20261121.7"));
}

#[test]
fn a_version_that_is_being_left_can_be_aborted_and_goes_to_who_is_warm() {
    let mut case = left_for_a_cold_version();
    case.rollout.spec.strategy.abort_on_alerts = vec!["alertname=\"Orders\"".to_owned()];
    let fires = json!({"version": "4", "alerts": [{"status": "firing", "labels": {"alertname": "Orders"},
        "startsAt": cases::now().to_string(), "fingerprint": "1"}]});
    let alerts = alert::alerts(fires.to_string().as_bytes()).unwrap();
    let selectors = alert::selectors(&case.rollout).unwrap();
    let text = alert::abort(&case.rollout, &selectors, &alerts).unwrap();
    annotate(&mut case, names::ANNOTATION_ABORT, &text);
    let status = record(&mut case);
    assert_eq!(
        (status.phase, number(&status.stable), reason(&status)),
        (P::RolledBack, "v20261121.1", "Aborted")
    );
    assert_eq!(status.rejected[0].version.version, "v20261121.2");
    // Whoever wants version 7 still does.
    assert_eq!(record(&mut case).phase, P::RollingBack);
}

/// How many pods of a version are ready.
fn leave_ready(case: &mut RolloutCase, number: u32, ready: u32) {
    let name = format!("ads-v20261121-{number}");
    for deployment in
        case.children.deployments.iter_mut().filter(|one| one["metadata"]["name"] == name.as_str())
    {
        deployment["status"]["readyReplicas"] = ready.into();
    }
}

#[test]
fn an_abort_does_not_stand_in_the_way_of_the_version_that_starts() {
    let mut case = left_for_a_cold_version();
    leave_ready(&mut case, 1, 0);
    annotate(&mut case, names::ANNOTATION_ABORT, "v20261121.2: it is bad");
    for _ in 0..2 {
        let status = record(&mut case);
        assert_eq!(
            (status.phase, number(&status.stable)),
            (P::RollingBack, "v20261121.2"),
            "nobody else could answer"
        );
        assert_eq!(status.waiting_rollback.unwrap().reason, "Aborted");
    }
    let mut before = case.clone();
    leave_ready(&mut case, 7, 2);
    let status = record(&mut case);
    assert_eq!((status.phase, number(&status.stable)), (P::RolledBack, "v20261121.7"));
    let rejected: Vec<_> =
        status.rejected.iter().map(|one| (one.version.version.as_str(), one.reason.as_deref())).collect();
    assert_eq!(rejected, [("v20261121.2", Some("Aborted"))], "it does not come back by itself");
    leave_ready(&mut before, 1, 1);
    assert_eq!(number(&record(&mut before).stable), "v20261121.1", "who can answer first does");
}

#[test]
fn an_alert_of_the_bake_counts_after_it_was_left() {
    let mut case = baking();
    let began = case.rollout.status.clone().unwrap().trial_started_at;
    case = left_for_a_cold_version();
    assert_eq!(case.rollout.status.as_ref().unwrap().trial_started_at, began);
}

#[test]
fn a_rollback_that_waited_for_pods_happens_while_a_colder_version_starts() {
    let mut case = left_for_a_cold_version();
    let waiting = json!({"reason": "ThresholdBreached", "message": "it is bad", "at": cases::ago(5)});
    case.rollout.status.as_mut().unwrap().waiting_rollback = Some(from_value(waiting).unwrap());
    let status = record(&mut case);
    assert_eq!(
        (status.phase, number(&status.stable), reason(&status)),
        (P::RolledBack, "v20261121.1", "ThresholdBreached")
    );
}

#[test]
fn an_abort_that_has_done_its_work_says_so() {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    case.read = Read::Errors(0.0, 3.0);
    annotate(&mut case, names::ANNOTATION_ABORT, "v20261121.2: errors");
    assert_eq!(record(&mut case).phase, P::RolledBack);
    annotate(&mut case, names::ANNOTATION_RETRY, "v20261121.2: it was the network");
    assert_eq!(record(&mut case).phase, P::Preparing);
    let told = said(&record(&mut case), "InvalidCommand").unwrap();
    assert!(told.contains("give another reason"), "{told}");
    annotate(&mut case, names::ANNOTATION_ABORT, "v20261121.2: errors again");
    assert_eq!(record(&mut case).phase, P::RolledBack);
}

#[test]
fn of_two_versions_with_one_artifact_the_one_that_serves_is_found_again() {
    let mut case = baking();
    // Two runs made the same weights; the later one never began.
    for (of, number) in [(2, 3), (1, 4)] {
        let mut twin = cases::version(number, Some(1)).unwrap();
        twin.spec.artifact.digest = cases::digest(of);
        case.versions.push(twin);
    }
    for _ in 0..2 {
        record(&mut case);
    }
    let marked = |kind: &str| -> Vec<&str> {
        let key = format!("{kind}/{}", cases::NAME);
        let has = |version: &&ModelVersion| {
            version.metadata.annotations.iter().flatten().any(|(name, _)| *name == key)
        };
        case.versions.iter().filter(has).map(|version| version.spec.version.as_str()).collect()
    };
    assert_eq!(marked(names::ANNOTATION_STABLE_IN), ["v20261121.2"]);
    assert_eq!(marked(names::ANNOTATION_PREVIOUS_IN), ["v20261121.1"]);
    case.rollout.status = None;
    let status = record(&mut case);
    assert_eq!((number(&status.stable), number(&status.previous)), ("v20261121.2", "v20261121.1"));
}

#[test]
fn what_can_be_gone_back_to_outlives_the_status() {
    let mut case = baking();
    record(&mut case);
    let history = case.rollout.status.clone().unwrap().history;
    case.rollout.status = None;
    assert_eq!(record(&mut case).history, history);
    let back = json!({"targetVersion": "v20261121.7", "reason": "complaints"});
    case.rollout.spec.rollback = Some(from_value(back).unwrap());
    assert_eq!(record(&mut case).phase, P::RollingBack);
}

#[test]
fn a_time_that_is_still_to_come_does_not_make_the_judge_blind() {
    let mut status = cases::moving("Canary", 20);
    for field in ["trialStartedAt", "trafficAcceptedAt", "stepStartedAt"] {
        status[field] = cases::ago(-600).into();
    }
    let case = RolloutCase::new(status).unwrap();
    let queries = rollout::queries(&case.rollout, case.now);
    let asked = &queries[0].expression;
    assert!(asked.contains("[40000ms]") && asked.contains("[40s]"), "the whole window: {asked}");
}

#[test]
fn words_of_a_warning_that_change_are_no_reason_to_write() {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    case.rollout.spec.strategy.warn_triggers = vec!["error_rate".to_owned()];
    case.read = Read::Silence;
    let silent =
        |at: u32| rollout::Answer::Unreachable(format!("no answer of 10.0.0.{at}:9090 after {at}.5s"));
    let plan = case.plan_with(&silent(1));
    let first = case.follow(plan);
    let plan = case.plan_with(&silent(2));
    assert_eq!(case.follow(plan).conditions, first.conditions);
    let plan = case.plan_with(&rollout::Answer::Unreachable("the name is not known".to_owned()));
    assert_ne!(case.follow(plan).conditions, first.conditions, "other words are told");
}

#[test]
fn nothing_is_sent_again_and_again_to_a_warm_version_that_cannot_go_on() {
    let mut case = RolloutCase::new(cases::moving("Preparing", 0)).unwrap();
    let warmup = json!({"requests": [{"path": "/v2/health/ready"}]});
    case.rollout.spec.serving.warmup = Some(from_value(warmup).unwrap());
    assert!(!case.probes().is_empty());
    case.rollout.spec.traffic = from_value(json!({"attach": {"route": "theirs"}})).unwrap();
    case.children.route = None;
    case.now += SignedDuration::from_secs(5);
    assert!(case.probes().is_empty(), "there is no route to attach to");
}
