//! What a rollout's plan makes of smoke requests: requests with expected answers to the version that took all traffic.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{object::Kind, plan::Action, plan::Severity, rollout::ProbeAnswer};
use anneal_crds::{
    Weight,
    model_rollout::{RolloutPhase as P, TrialState as T},
};
use anneal_tests::cases::{self, Read, RolloutCase};
use serde_json::{Value, json};

fn answered(status: u16, body: &str) -> ProbeAnswer {
    ProbeAnswer::Answered { status, body: body.as_bytes().to_vec() }
}

fn right() -> ProbeAnswer {
    answered(200, r#"{"outputs": [{"data": [0.751]}]}"#)
}

fn silent() -> ProbeAnswer {
    ProbeAnswer::Silent("connection refused".into())
}

/// Whether the strategy has a bake.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bake {
    Yes,
    No,
}

fn with_smoke(status: Value, bake: Bake) -> RolloutCase {
    let mut case = RolloutCase::new(status).unwrap();
    let expect = json!({"json": [{"pointer": "/outputs/0/data/0", "value": 0.75, "tolerance": 0.01}]});
    let smoke = json!({"tries": 2, "requests": [{"name": "a known row", "path": "/infer", "body": {"x": 1}, "expect": expect}]});
    let strategy = &mut case.rollout.spec.strategy;
    strategy.smoke = Some(serde_json::from_value(smoke).unwrap());
    if bake == Bake::Yes {
        let bake = json!({"duration": "20s", "rollbackTriggers": ["error_rate"]});
        strategy.bake = Some(serde_json::from_value(bake).unwrap());
    }
    case.settle_children();
    case
}

/// A status in which version 2 has taken all requests from version 1.
fn switched(number: u32, ago: i64, state: &str) -> Value {
    json!({"observedGeneration": 1, "phase": "Baking", "stable": cases::reference(2), "previous": cases::reference(1),
        "stepStartedAt": cases::ago(60), "trafficAcceptedAt": cases::ago(60), "history": [cases::reference(1)],
        "smoke": {"try": number, "startedAt": cases::ago(ago), "state": state}})
}

fn in_smoke(number: u32, ago: i64, bake: Bake) -> RolloutCase {
    let mut case = with_smoke(switched(number, ago, "Running"), bake);
    case.probed = right();
    case
}

#[test]
fn the_version_before_stays_warm_until_the_new_one_answers_as_expected() {
    let case = with_smoke(cases::moving("Canary", 100), Bake::No);
    let plan = case.plan();
    let status = plan.status;
    assert_eq!((status.phase, status.smoke.clone().unwrap().state), (P::Baking, T::Running));
    assert_eq!(status.previous.as_ref().unwrap().version, "v20261121.1");
    let removed =
        |action: &Action| matches!(action, Action::Delete { key, .. } if key.kind == Kind::Deployment);
    assert!(!plan.actions.iter().any(removed));

    let case = in_smoke(1, 1, Bake::No);
    let probes = case.probes();
    let [probe] = probes.as_slice() else { unreachable!("{probes:?}") };
    // By the door of users' requests.
    assert_eq!(probe.url, "http://10.96.0.2:80/infer");
    assert_eq!(probe.headers, [("host".to_owned(), "ads-v20261121-2.team-a.svc".to_owned())]);
    let status = case.plan().status;
    assert_eq!((status.phase, status.previous), (P::Healthy, None));
    assert_eq!(status.decision.unwrap().reason, "SmokePassed");
}

#[test]
fn a_candidate_is_asked_as_soon_as_it_has_all_requests() {
    let rises = with_smoke(cases::moving("Canary", 20), Bake::Yes).plan().status;
    assert_eq!((rises.weight, rises.smoke.as_ref().unwrap().state), (Weight::FULL, T::Running));
    let at_full = |bake| {
        let mut status = cases::moving("Canary", 100);
        (status["stepStartedAt"], status["trafficAcceptedAt"]) = (cases::ago(2).into(), cases::ago(2).into());
        status["smoke"] = json!({"try": 1, "startedAt": cases::ago(1), "state": "Running"});
        with_smoke(status, bake)
    };
    for bake in [Bake::Yes, Bake::No] {
        let mut case = at_full(bake);
        let probes = case.probes();
        assert_eq!(probes[0].url, "http://10.96.0.2:80/infer");
        case.probed = answered(500, "");
        let status = case.plan().status;
        assert_eq!((status.phase, status.stable.unwrap().version.as_str()), (P::RolledBack, "v20261121.1"));
        let decision = status.decision.unwrap();
        assert!(decision.reason == "SmokeFailed" && decision.message.contains("a known row"));
        assert_eq!(status.smoke, None, "that was not the stable version");

        // What it has passed is not asked again in the bake.
        case.probed = right();
        let status = case.plan().status;
        assert_eq!((status.phase, status.smoke.clone().unwrap().state), (P::Canary, T::Passed));
        case.rollout.status = Some(status);
        assert!(case.probes().is_empty());
        let status = case.rollout.status.as_mut().unwrap();
        (status.step_started_at, status.traffic_accepted_at) = (
            serde_json::from_value(json!(cases::ago(60))).unwrap(),
            serde_json::from_value(json!(cases::ago(60))).unwrap(),
        );
        let status = case.plan().status;
        assert_eq!((status.phase, status.smoke.unwrap().state), (P::Baking, T::Passed), "{bake:?}");
    }
    // Nobody is asked below that, and what another version answered counts for none.
    let mut other = cases::moving("Canary", 20);
    other["smoke"] = json!({"try": 1, "startedAt": cases::ago(1), "state": "Passed"});
    let mut other = with_smoke(other, Bake::No);
    assert!(other.probes().is_empty());
    let full = ("anneal.dev/promote".to_owned(), "v20261121.2@full: now".to_owned());
    other.rollout.metadata.annotations = Some([full].into());
    let status = other.plan().status;
    assert_eq!((status.phase, status.smoke.unwrap().state), (P::Baking, T::Running));
}

#[test]
fn a_wrong_answer_goes_back_at_once_and_silence_after_some_tries() {
    let wrong = [
        answered(200, r#"{"outputs": [{"data": [0.77]}]}"#),
        answered(200, r#"{"outputs": []}"#),
        answered(200, r#"{"outputs": [{"data": ["0.75"]}]}"#),
        answered(200, "<html>"),
        answered(200, ""),
        answered(500, r#"{"outputs": [{"data": [0.75]}]}"#),
        answered(404, ""),
    ];
    for (bake, answer) in
        [Bake::Yes, Bake::No].into_iter().flat_map(|bake| wrong.clone().map(|answer| (bake, answer)))
    {
        let mut case = in_smoke(1, 1, bake);
        case.probed = answer.clone();
        let status = case.plan().status;
        assert_eq!(status.phase, P::RolledBack, "{bake:?} {answer:?}");
        assert_eq!(status.stable.unwrap().version, "v20261121.1");
        let decision = status.decision.unwrap();
        assert!(
            decision.reason == "SmokeFailed" && decision.message.contains("a known row"),
            "{}",
            decision.message
        );
        assert_eq!(status.rejected[0].version.version, "v20261121.2");
    }
    for (number, ago, phase, then) in [(1, 1, P::Baking, 2), (2, 5, P::Baking, 2), (2, 10, P::RolledBack, 0)]
    {
        let mut case = in_smoke(number, ago, Bake::No);
        case.probed = silent();
        assert_eq!(case.probes().len(), usize::from(number == 1 || ago >= 10), "{number} {ago}");
        let status = case.plan().status;
        assert_eq!(
            (status.phase, status.smoke.map_or(0, |trial| trial.number)),
            (phase, then),
            "{number} {ago}"
        );
    }
}

#[test]
fn a_bake_ends_only_after_the_answers_and_metrics_count_meanwhile() {
    // A pass of the bake's triggers is there, and its time is over.
    let mut case = in_smoke(2, 5, Bake::Yes);
    assert_eq!((case.probes().len(), case.plan().status.phase), (0, P::Baking));
    case.read = Read::Errors(0.5, 1000.0);
    for bake in [Bake::Yes, Bake::No] {
        let mut case = in_smoke(2, 5, bake);
        case.read = Read::Errors(0.5, 1000.0);
        let decision = case.plan().status.decision.unwrap();
        assert_eq!(decision.reason, "ThresholdBreached", "{bake:?}");
    }
    let passed = with_smoke(switched(1, 30, "Passed"), Bake::Yes);
    assert!(passed.probes().is_empty());
    let decision = passed.plan().status.decision.unwrap();
    assert_eq!(decision.reason, "BakePassed");
}

#[test]
fn a_pause_keeps_the_version_before_warm_and_stops_no_rollback() {
    let pause = |answer: ProbeAnswer| {
        let mut case = in_smoke(1, 1, Bake::No);
        case.rollout.spec.paused = true;
        case.probed = answer;
        case
    };
    let status = pause(right()).plan().status;
    assert_eq!(
        (status.phase, status.previous.is_some(), status.smoke.unwrap().state),
        (P::Baking, true, T::Passed)
    );
    assert_eq!(pause(answered(500, "")).plan().status.phase, P::RolledBack);
}

#[test]
fn a_person_may_say_that_it_is_good() {
    let mut case = in_smoke(1, 1, Bake::No);
    case.probed = silent();
    let promote = ("anneal.dev/promote".to_owned(), "v20261121.2@Baking: I looked".to_owned());
    case.rollout.metadata.annotations = Some([promote].into());
    assert!(case.probes().is_empty());
    let decision = case.plan().status.decision.unwrap();
    assert_eq!(decision.reason, "PromotedByHand");
    case.rollout.metadata.annotations =
        Some([("anneal.dev/abort".to_owned(), "v20261121.2: no".to_owned())].into());
    assert_eq!(case.plan().status.decision.unwrap().reason, "Aborted");
}

#[test]
fn smoke_that_is_added_is_asked_for_and_smoke_that_is_removed_is_not() {
    let mut status = switched(1, 1, "Running");
    status["smoke"] = Value::Null;
    let added = with_smoke(status, Bake::Yes);
    assert!(added.probes().is_empty(), "nothing is asked before it is recorded");
    let status = added.plan().status;
    assert_eq!((status.phase, status.smoke.unwrap().number), (P::Baking, 1));
    let mut removed = in_smoke(1, 1, Bake::No);
    removed.rollout.spec.strategy.smoke = None;
    let status = removed.plan().status;
    assert_eq!((status.phase, status.decision.unwrap().reason.as_str()), (P::Healthy, "StrategyChanged"));
    assert_eq!(status.smoke, None);
}

#[test]
fn a_version_that_must_go_waits_for_a_pod_of_the_one_before() {
    let mut case = in_smoke(1, 1, Bake::No);
    case.probed = answered(500, "");
    for deployment in &mut case.children.deployments {
        if deployment["metadata"]["name"] == "ads-v20261121-1" {
            deployment["status"]["readyReplicas"] = 0.into();
        }
    }
    let status = case.plan().status;
    assert_eq!(
        (status.phase, status.waiting_rollback.clone().unwrap().reason.as_str()),
        (P::Baking, "SmokeFailed")
    );
    case.rollout.status = Some(status);
    case.probed = right();
    case.lose_a_pod(1);
    assert!(case.probes().is_empty());
    let decision = case.plan().status.decision.unwrap();
    assert_eq!(decision.reason, "SmokeFailed");
}

#[test]
fn a_first_version_that_answers_wrongly_serves_and_says_so_until_another_one_comes() {
    let mut status = switched(1, 1, "Running");
    (status["previous"], status["history"]) = (Value::Null, json!([]));
    let mut case = with_smoke(status, Bake::Yes);
    case.versions[1] = cases::version(2, None).unwrap();
    case.probed = answered(200, "{}");
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.notes.last().unwrap().severity), (P::Healthy, Severity::Warning));
    assert_eq!(plan.status.decision.as_ref().unwrap().reason, "SmokeFailed");
    case.rollout.status = Some(plan.status);
    let status = case.plan().status;
    let stalled = status.conditions.iter().find(|told| told.type_ == "Stalled").unwrap();
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "SmokeFailed"));
    assert!(stalled.message.contains("anneal.dev/retry=\"v20261121.2: why\""), "{}", stalled.message);
    case.rollout.status = Some(status);
    retried(&case);
    case.versions.push(cases::version(3, Some(2)).unwrap());
    assert_eq!(case.plan().status.phase, P::Preparing);
    // One that answers as expected has shown all that it can.
    let mut status = switched(1, 1, "Running");
    status["previous"] = Value::Null;
    let mut case = with_smoke(status, Bake::Yes);
    case.probed = right();
    let status = case.plan().status;
    assert_eq!((status.phase, status.decision.unwrap().reason.as_str()), (P::Healthy, "SmokePassed"));
}

#[test]
fn a_service_without_an_address_is_not_asked_by_name_and_that_is_told() {
    for (address, url) in [
        (json!("None"), None),
        (json!(""), None),
        (Value::Null, None),
        (json!("ads.example"), None),
        (json!("fd00::7"), Some("http://[fd00::7]:80/infer")),
    ] {
        for bake in [Bake::Yes, Bake::No] {
            let mut case = in_smoke(1, 1, bake);
            for service in &mut case.children.services {
                service["spec"]["clusterIP"] = address.clone();
            }
            let probes = case.probes();
            assert_eq!(probes.first().map(|probe| probe.url.as_str()), url, "{address}");
            let status = case.plan().status;
            let stalled = status.conditions.iter().find(|told| told.type_ == "Stalled").unwrap();
            let told = (stalled.status.as_str(), stalled.reason.as_str());
            let held = (status.phase, status.smoke.as_ref().unwrap().state) == (P::Baking, T::Running);
            assert_eq!(
                (told == ("True", "ServiceHeadless"), held),
                (url.is_none(), url.is_none()),
                "{address}"
            );
            assert!(url.is_some() || stalled.message.contains("Service ads-v20261121-2"));
        }
    }
}

/// Whoever corrected what was wrong has the requests sent again, once for each text.
fn retried(failed: &RolloutCase) {
    let retry = |mut case: RolloutCase, text: &str| {
        let retry = ("anneal.dev/retry".to_owned(), text.to_owned());
        case.rollout.metadata.annotations = Some([retry].into());
        case
    };
    for (text, paused) in [("v20261121.1: it is another one", false), ("v20261121.2: under a pause", true)] {
        let mut case = retry(failed.clone(), text);
        case.rollout.spec.paused = paused;
        assert_eq!(case.plan().status.phase, P::Healthy, "{text}");
    }
    let mut removed = retry(failed.clone(), "v20261121.2: nothing is expected");
    removed.rollout.spec.strategy.smoke = None;
    let status = removed.plan().status;
    assert!(!status.conditions.iter().any(|told| told.reason == "SmokeFailed" && told.type_ == "Stalled"));
    for (answer, phase, state) in
        [(right(), P::Healthy, T::Passed), (answered(500, ""), P::Healthy, T::Failed)]
    {
        let mut case = retry(failed.clone(), "v20261121.2: the feature store was down");
        let status = case.plan().status;
        assert_eq!((status.phase, status.decision.as_ref().unwrap().reason.as_str()), (P::Baking, "Retried"));
        assert_eq!(status.smoke.as_ref().unwrap().state, T::Running);
        case.rollout.status = Some(status);
        case.probed = answer;
        assert_eq!(case.probes().len(), 1);
        let status = case.plan().status;
        assert_eq!((status.phase, status.smoke.as_ref().unwrap().state), (phase, state));
        case.rollout.status = Some(status);
        assert_eq!(case.plan().status.phase, P::Healthy, "the same text gives no other try");
    }
}

#[test]
fn a_service_that_someone_sent_elsewhere_is_put_right_and_not_asked() {
    let mut case = in_smoke(1, 1, Bake::Yes);
    for service in &mut case.children.services {
        service["spec"]["type"] = "ExternalName".into();
        service["spec"]["externalName"] = "metadata.example".into();
    }
    assert_eq!(case.probes(), []);
    let plan = case.plan();
    let of_service = |action: &Action| match action {
        Action::Apply(object) => {
            object.key.kind == Kind::Service && object.body["spec"]["type"] == "ClusterIP"
        }
        Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => false,
    };
    assert!(plan.actions.iter().any(of_service), "{:?}", plan.actions);
    assert_eq!(plan.status.phase, P::Baking, "nothing was answered");
}
