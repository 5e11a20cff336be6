//! What a rollout's plan makes of a candidate before any user sees it: its pods, its warm-up, and the test in staging.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{
    object::{Kind, Object},
    plan::{Action, Plan, Severity},
    rollout::{self, ProbeAnswer},
};
use anneal_crds::{
    ModelRolloutStatus,
    model_rollout::{RolloutPhase as P, TrialState as T},
};
use anneal_tests::cases::{self, RolloutCase};
use jiff::SignedDuration;
use serde_json::{Value, json};

fn answered(status: u16, body: &str) -> ProbeAnswer {
    ProbeAnswer::Answered { status, body: body.as_bytes().to_vec() }
}

fn job() -> Value {
    json!({"job": {"image": "tests:1", "args": ["--fast"], "env": [{"name": "SUITE", "value": "all"}]}})
}

fn webhook() -> Value {
    json!({"webhook": {"url": "https://tests.example.com/ads", "headers": [{"name": "X-Team", "value": "a"}]}})
}

/// A rollout whose spec asks for a test.
fn with_test(status: Value, test: &Value) -> RolloutCase {
    let mut case = RolloutCase::new(status).unwrap();
    let staging = json!({"test": test, "timeout": "5m", "tries": 2});
    case.rollout.spec.strategy.staging = Some(serde_json::from_value(staging).unwrap());
    case
}

fn staging(number: u32, ago: i64) -> Value {
    let mut status = cases::moving("Staging", 0);
    status["staging"] = json!({"try": number, "startedAt": cases::ago(ago), "state": "Running"});
    status
}

/// A rollout in staging, with the Job of the present try in this state.
fn with_job(number: u32, ago: i64, condition: Option<(&str, &str)>) -> RolloutCase {
    let mut case = with_test(staging(number, 0), &job());
    let actions = case.plan().actions;
    case.perform(&actions);
    let trial = case.rollout.status.as_mut().unwrap().staging.as_mut().unwrap();
    trial.started_at.0 -= SignedDuration::from_secs(ago);
    if let (Some(job), Some((type_, reason))) = (&mut case.children.test, condition) {
        job["status"] = json!({"conditions": [{"type": type_, "status": "True", "reason": reason, "message": "so it is"}]});
    }
    case
}

#[test]
fn a_candidate_has_three_tries_unless_the_spec_says_otherwise() {
    for (number, phase) in [(1, P::Staging), (2, P::Staging), (3, P::RolledBack)] {
        let mut case = with_job(number, 10, Some(("Failed", "BackoffLimitExceeded")));
        let staging = json!({"test": job(), "timeout": "5m"});
        case.rollout.spec.strategy.staging = Some(serde_json::from_value(staging).unwrap());
        assert_eq!(case.plan().status.phase, phase, "try {number}");
    }
}

fn jobs(plan: &Plan<ModelRolloutStatus>) -> Vec<&Object> {
    let jobs = plan.actions.iter().filter_map(|action| match action {
        Action::Create(object) if object.key.kind == Kind::Job => Some(object),
        Action::Create(_) | Action::Apply(_) | Action::Patch(_) | Action::Delete { .. } => None,
    });
    jobs.collect()
}

fn told(status: &ModelRolloutStatus) -> (&str, &str) {
    let said = status.conditions.iter().find(|told| told.status == "True" && told.type_ != "Progressing");
    said.map_or(("", ""), |told| (told.reason.as_str(), told.message.as_str()))
}

fn annotated(mut case: RolloutCase, key: &str, text: &str) -> RolloutCase {
    case.rollout.metadata.annotations.get_or_insert_default().insert(key.into(), text.into());
    case
}

#[test]
fn a_candidate_whose_pods_are_ready_is_tested_before_anyone_sees_it() {
    let case = with_test(cases::moving("Preparing", 0), &job());
    let plan = case.plan();
    let trial = plan.status.staging.clone().unwrap();
    assert_eq!((plan.status.phase, trial.number, trial.state), (P::Staging, 1, T::Running));
    let jobs = jobs(&plan);
    let [job] = jobs.as_slice() else { unreachable!("{jobs:?}") };
    assert!(job.key.name.starts_with("ads-v20261121-2-1-") && job.key.name.len() == 24, "{}", job.key.name);
    let pod = &job.body["spec"]["template"];
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let value = |name: &str| env.iter().find(|entry| entry["name"] == name).unwrap()["value"].clone();
    assert_eq!(value("ANNEAL_CANDIDATE_URL"), "http://ads-v20261121-2.team-a.svc:81");
    assert_eq!((value("ANNEAL_VERSION"), value("ANNEAL_MODEL")), (json!("v20261121.2"), json!("ads")));
    assert_eq!((value("ANNEAL_ROLLOUT"), value("ANNEAL_TRY")), (json!("ads"), json!("1")));
    assert_eq!((value("ANNEAL_DIGEST"), value("SUITE")), (json!(cases::digest(2)), json!("all")));
    // A rollout gives nobody more rights than a server of a model has.
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
    assert_eq!(job.body["spec"]["activeDeadlineSeconds"], 300);
    // With the labels of the version the test would get the version's requests.
    assert!(pod["metadata"]["labels"]["anneal.dev/version"].is_null());
    // The stable version answers everything.
    let backends = &case.children.route.as_ref().unwrap()["spec"]["rules"][0]["backendRefs"];
    assert_eq!((backends.as_array().unwrap().len(), cases::route_of(&plan)), (1, None));
}

#[test]
fn every_end_of_a_job_is_a_pass_or_uses_a_try() {
    let ends = [
        (1, 10, None, P::Staging, 1, T::Running),
        (1, 299, None, P::Staging, 1, T::Running),
        (1, 301, None, P::Staging, 2, T::Running),
        (2, 301, None, P::RolledBack, 2, T::Failed),
        (1, 10, Some(("Complete", "CompletionsReached")), P::Shadow, 1, T::Passed),
        // It ended in time, and nobody looked.
        (1, 900, Some(("Complete", "CompletionsReached")), P::Shadow, 1, T::Passed),
        (1, 10, Some(("Failed", "BackoffLimitExceeded")), P::Staging, 2, T::Running),
        (2, 10, Some(("Failed", "BackoffLimitExceeded")), P::RolledBack, 2, T::Failed),
        (2, 10, Some(("Failed", "DeadlineExceeded")), P::RolledBack, 2, T::Failed),
        (1, 10, Some(("Suspended", "Queued")), P::Staging, 1, T::Running),
    ];
    for (number, ago, end, phase, then, state) in ends {
        let plan = with_job(number, ago, end).plan();
        let trial = plan.status.staging.clone().unwrap();
        assert_eq!(
            (plan.status.phase, trial.number, trial.state),
            (phase, then, state),
            "{number} {ago} {end:?}"
        );
        // A new try is a new Job, and a Job is never made twice.
        assert_eq!(jobs(&plan).len(), usize::from(phase == P::Staging && then > number), "{number} {end:?}");
        if phase == P::RolledBack {
            let decision = plan.status.decision.unwrap();
            assert_eq!((decision.reason.as_str(), plan.status.rejected.len()), ("StagingFailed", 1));
            assert_eq!(plan.notes.last().unwrap().severity, Severity::Warning);
        }
    }
}

#[test]
fn a_pass_waits_where_the_data_plane_has_come_to_be_unable_to_copy_requests() {
    let mut case = with_job(1, 10, Some(("Complete", "CompletionsReached")));
    let names = ["HTTPRouteRetry".to_owned()].into();
    case.features = rollout::Features::Listed { class: "contour".into(), names };
    let status = case.plan().status;
    assert_eq!((status.phase, status.staging.as_ref().unwrap().state), (P::Staging, T::Passed));
    let stalled = status.conditions.iter().find(|said| said.type_ == "Stalled").unwrap();
    assert_eq!(stalled.reason, "MirrorUnsupported");
    case.features = rollout::Features::Unknown;
    case.rollout.status = Some(status);
    assert_eq!(case.plan().status.phase, P::Shadow);
}

#[test]
fn the_last_words_of_a_test_are_told() {
    let mut case = with_job(2, 10, Some(("Failed", "BackoffLimitExceeded")));
    let job = case.children.test.clone().unwrap();
    let pod = json!({
        "metadata": {"name": "p", "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job",
            "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}]},
        "status": {"containerStatuses": [{"name": "test", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": {"terminated": {"exitCode": 1, "message": "row 7: expected\n0.75"}}}]},
    });
    case.children.pods = vec![serde_json::from_value(pod).unwrap()];
    let message = case.plan().status.decision.unwrap().message;
    assert!(message.contains("try 2 of 2") && message.contains("row 7: expected 0.75"), "{message}");
}

#[test]
fn a_job_of_another_try_another_round_another_test_or_another_owner_is_none() {
    let passed = Some(("Complete", "CompletionsReached"));
    assert_eq!(with_job(1, 10, passed).plan().status.phase, P::Shadow);
    let mut others = vec![];
    let mut case = with_job(1, 10, passed);
    case.rollout.status.as_mut().unwrap().staging.as_mut().unwrap().number = 2;
    others.push(case);
    let mut case = with_job(1, 10, passed);
    case.rollout.status.as_mut().unwrap().step_started_at.as_mut().unwrap().0 += SignedDuration::from_secs(5);
    others.push(case);
    let mut case = with_job(1, 10, passed);
    let other = json!({"test": {"job": {"image": "tests:2"}}});
    case.rollout.spec.strategy.staging = Some(serde_json::from_value(other).unwrap());
    others.push(case);
    for case in others {
        let plan = case.plan();
        assert_eq!((plan.status.phase, jobs(&plan).len()), (P::Staging, 1));
        let name = rollout::staging_job(&case.rollout).unwrap();
        assert_eq!(jobs(&plan)[0].key.name, name);
    }
    let mut case = with_job(1, 10, passed);
    case.children.test.as_mut().unwrap()["metadata"]["ownerReferences"][0]["uid"] = "uid-other".into();
    let plan = case.plan();
    assert_eq!((plan.status.phase, jobs(&plan).len()), (P::Staging, 0));
    assert!(told(&plan.status).1.contains("is not this rollout's"), "{:?}", told(&plan.status));
}

#[test]
fn a_job_that_someone_deletes_is_made_again_while_its_try_lasts() {
    let mut case = with_job(1, 10, None);
    let name = case.children.test.take().unwrap()["metadata"]["name"].clone();
    let plan = case.plan();
    assert_eq!(jobs(&plan)[0].key.name, name.as_str().unwrap());
    assert_eq!(plan.status.staging.unwrap().number, 1);
}

#[test]
fn only_a_webhook_that_says_so_is_a_pass() {
    let case = with_test(staging(1, 2), &webhook());
    let probes = case.probes();
    let [question] = probes.as_slice() else { unreachable!("{probes:?}") };
    let body = question.body.as_ref().unwrap();
    assert_eq!(question.url, "https://tests.example.com/ads");
    assert_eq!(question.headers, [("X-Team".to_owned(), "a".to_owned())]);
    assert_eq!(
        (&body["version"], &body["model"], &body["try"]),
        (&json!("v20261121.2"), &json!("ads"), &json!(1))
    );
    assert_eq!(body["candidateUrl"], "http://ads-v20261121-2.team-a.svc:81");
    assert_eq!(body["id"].as_str().unwrap().len(), 16);
    let table = [
        (answered(200, r#"{"passed": true}"#), true),
        (answered(201, r#"{"passed": true, "message": "fine", "more": 1}"#), true),
        (answered(200, r#"{"passed": false, "message": "row 7"}"#), false),
        (answered(200, r#"{"passed": "true"}"#), false),
        (answered(200, r#"{"message": "ok"}"#), false),
        (answered(200, ""), false),
        (answered(204, ""), false),
        (answered(302, r#"{"passed": true}"#), false),
        (answered(500, r#"{"passed": true}"#), false),
        (ProbeAnswer::Silent("none within 10s".into()), false),
    ];
    for (answer, passed) in table {
        let mut case = with_test(staging(1, 2), &webhook());
        case.probed = answer.clone();
        let status = case.plan().status;
        let trial = status.staging.unwrap();
        let wanted = if passed { (P::Shadow, 1, T::Passed) } else { (P::Staging, 2, T::Running) };
        assert_eq!((status.phase, trial.number, trial.state), wanted, "{answer:?}");
        let mut last = with_test(staging(2, 20), &webhook());
        last.probed = answer.clone();
        let status = last.plan().status;
        assert_eq!(status.phase, if passed { P::Shadow } else { P::RolledBack }, "{answer:?}");
    }
}

#[test]
fn the_words_of_a_server_that_is_no_test_are_not_told() {
    let mut case = with_test(staging(2, 20), &webhook());
    case.probed = answered(404, r#"{"token": "hunter2"}"#);
    let message = case.plan().status.decision.unwrap().message;
    assert!(message.contains("404") && !message.contains("hunter2"), "{message}");
}

#[test]
fn a_try_is_asked_again_by_the_same_id_and_the_next_one_after_a_while_by_another() {
    let id =
        |case: &RolloutCase| case.probes().first().map(|probe| probe.body.clone().unwrap()["id"].clone());
    let first = id(&with_test(staging(1, 2), &webhook()));
    assert_eq!(first, id(&with_test(staging(1, 200), &webhook())));
    assert_eq!(id(&with_test(staging(2, 9), &webhook())), None);
    let second = id(&with_test(staging(2, 10), &webhook()));
    assert!(second.is_some() && second != first);
}

#[test]
fn a_pause_begins_nothing_and_a_pass_waits_for_its_end() {
    let pause = |mut case: RolloutCase| {
        case.rollout.spec.paused = true;
        case
    };
    let passed = pause(with_job(1, 10, Some(("Complete", "CompletionsReached")))).plan().status;
    assert_eq!((passed.phase, passed.staging.unwrap().number), (P::Staging, 1));
    let failed = pause(with_job(1, 10, Some(("Failed", "BackoffLimitExceeded")))).plan();
    assert_eq!((failed.status.staging.as_ref().unwrap().number, jobs(&failed).len()), (1, 0));
    // Nobody asks, so nobody's silence counts.
    let mut case = pause(with_test(staging(2, 900), &webhook()));
    assert_eq!((case.probes().len(), case.plan().status.phase), (0, P::Staging));
    case.rollout.spec.paused = false;
    case.probed = answered(200, r#"{"passed": true}"#);
    assert_eq!(case.plan().status.phase, P::Shadow);
}

#[test]
fn what_a_test_said_under_a_pause_outlives_its_job() {
    for (end, said, phase, then) in
        [("Complete", T::Passed, P::Shadow, 1), ("Failed", T::Failed, P::Staging, 2)]
    {
        let mut case = with_job(1, 10, Some((end, "x")));
        case.rollout.spec.paused = true;
        let status = case.plan().status;
        assert_eq!(status.staging.as_ref().unwrap().state, said);
        case.rollout.status = Some(status);
        // Its time to live is over, or someone tidied up.
        case.children.test = None;
        let plan = case.plan();
        assert_eq!((plan.status.phase, jobs(&plan).len()), (P::Staging, 0), "{end}");
        assert_eq!(Some(&plan.status), case.rollout.status.as_ref(), "nothing more is written");
        case.rollout.spec.paused = false;
        let plan = case.plan();
        let number = plan.status.staging.as_ref().unwrap().number;
        assert_eq!((plan.status.phase, number), (phase, then), "{end}");
        assert_eq!(jobs(&plan).len(), usize::from(phase == P::Staging), "{end}");
    }
    // So does a pass while a pod is missing.
    let mut case = with_test(staging(1, 2), &webhook());
    case.rollout.status.as_mut().unwrap().staging.as_mut().unwrap().state = T::Passed;
    assert_eq!((case.probes(), case.plan().status.phase), (vec![], P::Shadow));
}

#[test]
fn an_edited_test_begins_its_tries_anew() {
    let edit = |case: &mut RolloutCase, test: &Value| {
        let staging = case.rollout.spec.strategy.staging.as_mut().unwrap();
        staging.test = serde_json::from_value(test.clone()).unwrap();
    };
    for test in [json!({"job": {"image": "tests:2"}}), webhook()] {
        let mut case = with_test(cases::moving("Preparing", 0), &job());
        let plan = case.plan();
        case.perform(&plan.actions);
        case.rollout.status = Some(plan.status);
        // The last try, and its time is nearly over.
        case.rollout.status.as_mut().unwrap().staging.as_mut().unwrap().number = 2;
        case.now += SignedDuration::from_secs(299);
        edit(&mut case, &test);
        assert_eq!(case.probes(), [], "nothing is asked before it is recorded");
        let mut paused = case.clone();
        paused.rollout.spec.paused = true;
        let plan = paused.plan();
        assert_eq!((plan.status.staging.as_ref().unwrap().number, jobs(&plan).len()), (2, 0), "it waits");
        let plan = case.plan();
        let trial = plan.status.staging.clone().unwrap();
        assert_eq!((trial.number, trial.state, trial.started_at.0), (1, T::Running, case.now));
        assert_eq!(plan.notes[0].reason, "StagingTestChanged");
        case.perform(&plan.actions);
        case.rollout.status = Some(plan.status);
        case.now += SignedDuration::from_secs(200);
        case.probed = answered(200, r#"{"passed": false}"#);
        let trial = case.plan().status.staging.unwrap();
        let is_asked = test == webhook();
        assert_eq!(trial.number, if is_asked { 2 } else { 1 });
        // How long and how often is no other test.
        case.rollout.spec.strategy.staging.as_mut().unwrap().tries = 9;
        assert_eq!(case.plan().status.staging.unwrap().number, trial.number);
    }
}

#[test]
fn a_candidate_that_passed_and_lost_its_pods_gets_no_requests_and_not_for_ever() {
    for (ago, phase) in [(10, P::Staging), (300 + 119, P::Staging), (300 + 121, P::RolledBack)] {
        let mut case = with_job(1, ago, Some(("Complete", "CompletionsReached")));
        case.lose_a_pod(2);
        assert_eq!(case.plan().status.phase, phase, "{ago}");
    }
    // What it waits for while it is ready takes nothing of that time.
    let mut case = with_job(1, 3000, Some(("Complete", "CompletionsReached")));
    case.rollout.spec.paused = true;
    case.rollout.status = Some(case.plan().status);
    case.lose_a_pod(2);
    case.rollout.spec.paused = false;
    for (seconds, phase) in [(1, P::Staging), (418, P::Staging), (3, P::RolledBack)] {
        case.now += SignedDuration::from_secs(seconds);
        let status = case.plan().status;
        assert_eq!(status.phase, phase);
        case.rollout.status = Some(status);
    }
    let mut case = with_test(staging(1, 10), &webhook());
    case.lose_a_pod(2);
    assert!(case.probes().is_empty());
    assert_eq!(case.plan().status.phase, P::Staging);
}

#[test]
fn people_leave_staging_go_back_and_try_again() {
    for (place, phase) in [("Staging", P::Shadow), ("full", P::Healthy), ("Shadow", P::Staging)] {
        let text = format!("v20261121.2@{place}: I tested it myself");
        let case = annotated(with_job(1, 10, None), "anneal.dev/promote", &text);
        let status = case.plan().status;
        assert_eq!(status.phase, phase, "{place}");
        assert_eq!(status.decision.is_some_and(|it| it.reason == "PromotedByHand"), phase != P::Staging);
        assert!(
            annotated(with_test(staging(1, 2), &webhook()), "anneal.dev/promote", &text).probes().len() < 2
        );
    }
    let aborted = annotated(with_job(1, 10, None), "anneal.dev/abort", "v20261121.2: no").plan().status;
    assert_eq!((aborted.phase, aborted.rejected.len()), (P::RolledBack, 1));

    let mut case = with_job(2, 10, Some(("Failed", "BackoffLimitExceeded")));
    case.rollout.status = Some(case.plan().status);
    let mut case = annotated(case, "anneal.dev/retry", "v20261121.2: the test was wrong");
    for phase in [P::Preparing, P::Staging] {
        let status = case.plan().status;
        assert_eq!(status.phase, phase);
        assert_eq!(status.staging.as_ref().map(|trial| trial.number), (phase == P::Staging).then_some(1));
        case.rollout.status = Some(status);
    }
}

#[test]
fn a_strategy_that_changes_meanwhile_counts_from_now_on() {
    let mut case = with_job(1, 10, None);
    case.rollout.spec.strategy.staging = None;
    let status = case.plan().status;
    assert_eq!((status.phase, status.decision.unwrap().reason.as_str()), (P::Preparing, "StrategyChanged"));
    // What has left these phases does not go back.
    let case = with_test(cases::moving("Shadow", 0), &job());
    assert_eq!(case.plan().status.phase, P::Canary);
    // A status that lost its count begins to count.
    let case = with_test(cases::moving("Staging", 0), &webhook());
    let status = case.plan().status;
    assert_eq!((case.probes().len(), status.phase, status.staging.unwrap().number), (0, P::Staging, 1));
    // A newer version takes the place of one that is tested.
    let mut case = with_job(1, 10, None);
    case.versions.push(cases::version(3, Some(1)).unwrap());
    let status = case.plan().status;
    assert_eq!((status.phase, status.staging), (P::Preparing, None));
    assert_eq!(status.decision.unwrap().reason, "Superseded");
}

#[test]
fn the_first_version_is_tested_too_and_a_bad_one_serves_nobody() {
    let mut status = staging(2, 10);
    status["stable"] = Value::Null;
    for (end, phase) in [("Complete", P::Healthy), ("Failed", P::RolledBack)] {
        let mut case = with_test(status.clone(), &job());
        case.versions = vec![cases::version(2, None).unwrap()];
        case.perform(&case.plan().actions.clone());
        case.children.test.as_mut().unwrap()["status"] =
            json!({"conditions": [{"type": end, "status": "True", "reason": "x"}]});
        let plan = case.plan();
        assert_eq!((plan.status.phase, plan.status.stable.is_some()), (phase, end == "Complete"));
        assert_eq!(cases::route_of(&plan).is_some(), end == "Complete");
        case.rollout.status = Some(plan.status);
        let next = case.plan().status;
        assert_eq!(next.phase, if end == "Complete" { P::Healthy } else { P::Pending });
    }
}

fn warm() -> RolloutCase {
    let mut status = cases::moving("Preparing", 0);
    status["stepStartedAt"] = cases::ago(5).into();
    let mut case = RolloutCase::new(status).unwrap();
    let warmup = json!({"requests": [{"path": "/a", "body": {"x": 1}}, {"path": "/b"}], "count": 2});
    case.rollout.spec.serving.warmup = Some(serde_json::from_value(warmup).unwrap());
    case
}

#[test]
fn no_version_takes_requests_before_it_is_warm() {
    let case = warm();
    let probes = case.probes();
    // Two requests, twice for each of two pods.
    assert_eq!(probes.len(), 8);
    assert_eq!(probes[0].url, "http://10.96.0.2:81/a");
    assert_eq!(probes[0].headers, [("host".to_owned(), "ads-v20261121-2.team-a.svc:81".to_owned())]);
    assert_eq!((probes[0].body.clone(), probes[1].body.clone()), (Some(json!({"x": 1})), None));
    for (answer, phase) in [
        (answered(200, ""), P::Shadow),
        (answered(400, "no such input"), P::Preparing),
        (ProbeAnswer::Silent("none within 10s".into()), P::Preparing),
    ] {
        let mut case = warm();
        case.probed = answer.clone();
        let status = case.plan().status;
        assert_eq!(status.phase, phase, "{answer:?}");
        if phase == P::Preparing {
            assert!(told(&status).0 == "WarmingUp" && told(&status).1.contains("spec.serving.warmup"));
            // The deadline counts as for pods that do not start.
            case.now += SignedDuration::from_secs(120);
            let status = case.plan().status;
            let decision = status.decision.unwrap();
            assert_eq!((status.phase, decision.reason.as_str()), (P::RolledBack, "ProgressDeadlineExceeded"));
        }
    }
    let mut cold = warm();
    cold.lose_a_pod(2);
    assert!(cold.probes().is_empty());
    let mut paused = warm();
    paused.rollout.spec.paused = true;
    assert!(paused.probes().is_empty());
    let mut many = warm();
    many.rollout.spec.serving.replicas = 1000;
    many.children.deployments[1]["status"] =
        json!({"observedGeneration": 1, "updatedReplicas": 1000, "readyReplicas": 1000});
    assert_eq!(many.probes().len(), 200);
}

#[test]
fn a_warmup_that_fails_is_sent_more_and_more_rarely_and_told_without_its_words() {
    let mut case = warm();
    case.rollout.spec.serving.progress_deadline = "1h".parse().unwrap();
    let began = case.now;
    let mut sent = vec![];
    for tick in 0..60 {
        // Whatever it says is something else each time.
        case.probed = answered(503, &format!("request {tick} failed"));
        let asked = !case.probes().is_empty();
        let plan = case.plan();
        assert_eq!(told(&plan.status).0, "WarmingUp");
        assert!(told(&plan.status).1.contains("8 of 8 warm-up requests failed"), "{}", told(&plan.status).1);
        let same = Some(&plan.status) == case.rollout.status.as_ref();
        assert_eq!(same, !asked, "only what is sent is a write, and wakes the next look");
        case.rollout.status = Some(plan.status);
        sent.extend(asked.then(|| case.now.duration_since(began).as_secs()));
        case.now += SignedDuration::from_secs(5);
    }
    assert_eq!(sent, [0, 10, 30, 70, 130, 190, 250]);
    // The next one may be answered, and the one after a new start is sent at once.
    case.now += SignedDuration::from_secs(10);
    case.probed = answered(200, "");
    let status = case.plan().status;
    assert_eq!((status.phase, status.warmup), (P::Shadow, None));
    let mut other = case.clone();
    other.versions.push(cases::version(3, Some(1)).unwrap());
    assert_eq!(other.plan().status.warmup, None);
}

#[test]
fn nothing_is_warmed_up_while_something_else_is_in_the_way() {
    let mut case = warm();
    case.features = rollout::Features::of(
        &json!({"metadata": {"name": "plain"}, "status": {"supportedFeatures": ["HTTPRouteRetry"]}}),
    );
    assert_eq!(case.probes(), []);
    assert_eq!(told(&case.plan().status).0, "MirrorUnsupported");
    let mut headless = warm();
    for service in &mut headless.children.services {
        service["spec"]["clusterIP"] = "None".into();
    }
    assert_eq!((headless.probes(), told(&headless.plan().status).0), (vec![], "ServiceHeadless"));
}

#[test]
fn pods_that_no_node_can_take_are_told_at_once_and_not_waited_for_for_ever() {
    let said = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
    let pod = json!({
        "metadata": {"name": "p", "labels": {"anneal.dev/version": "v20261121.2"}},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}]},
    });
    let mut status = cases::moving("Preparing", 0);
    status["stepStartedAt"] = cases::ago(1).into();
    let mut case = RolloutCase::new(status).unwrap();
    case.lose_a_pod(2);
    case.children.pods = vec![serde_json::from_value(pod).unwrap()];
    let status = case.plan().status;
    assert_eq!((status.phase, told(&status).0), (P::Preparing, "Unschedulable"));
    assert!(told(&status).1.contains("Insufficient nvidia.com/gpu"), "{}", told(&status).1);
    case.now += SignedDuration::from_secs(120);
    let decision = case.plan().status.decision.unwrap();
    assert!(decision.message.contains("Insufficient nvidia.com/gpu"), "{}", decision.message);
}
