//! Endpoints: nobody new gets requests before a Service leads to all its pods, and nobody is sent back to one that leads nowhere.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::rollout::Endpoints;
use anneal_crds::{Weight, model_rollout::RolloutPhase as P};
use anneal_tests::cases::{self, Read, RolloutCase};
use serde_json::{Value, json};

const FIRST: &str = "ads-v20261121-1";
const SECOND: &str = "ads-v20261121-2";

fn leading(services: &[(&str, usize)]) -> Option<Endpoints> {
    Some(Endpoints::Known(services.iter().map(|(name, pods)| ((*name).to_owned(), *pods)).collect()))
}

fn preparing() -> RolloutCase {
    let mut case = RolloutCase::new(cases::moving("Preparing", 0)).unwrap();
    case.rollout.spec.strategy.shadow = None;
    case.rollout.status.as_mut().unwrap().step_started_at =
        serde_json::from_value(json!(cases::ago(5))).unwrap();
    case
}

#[test]
fn ready_pods_that_no_service_leads_to_get_no_weight() {
    let mut case = preparing();
    for blind in [
        leading(&[(FIRST, 2), (SECOND, 0)]),
        leading(&[(FIRST, 2), (SECOND, 1)]),
        leading(&[(FIRST, 2)]),
        Some(Endpoints::Unknown),
        Some(Endpoints::Denied),
    ] {
        case.endpoints = blind;
        let plan = case.plan();
        assert_eq!(
            (plan.status.phase, plan.status.weight),
            (P::Preparing, Weight::ZERO),
            "{:?}",
            case.endpoints
        );
    }
    case.endpoints = leading(&[(FIRST, 2), (SECOND, 2)]);
    assert_eq!(case.plan().status.phase, P::Canary);
}

#[test]
fn nobody_is_rejected_for_want_of_endpoints() {
    for (endpoints, told) in [
        (leading(&[(FIRST, 2), (SECOND, 1)]), "leads to 1 of 2"),
        (Some(Endpoints::Unknown), "could not be read this time"),
        (Some(Endpoints::Denied), "Let the operator list and watch"),
    ] {
        let mut case = preparing();
        case.endpoints = endpoints.clone();
        case.rollout.status.as_mut().unwrap().step_started_at =
            serde_json::from_value(json!(cases::ago(200))).unwrap();
        let status = case.plan().status;
        let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
        assert_eq!((status.phase, stalled.reason.as_str()), (P::Preparing, "EndpointsMissing"));
        assert!(stalled.message.contains(told), "{}", stalled.message);
        // Nor in a step, however long that lasts.
        for (accepted, holding) in [(75, Some(1000)), (1000, None)] {
            let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
            case.endpoints = endpoints.clone();
            let status = case.rollout.status.as_mut().unwrap();
            status.traffic_accepted_at = serde_json::from_value(json!(cases::ago(accepted))).unwrap();
            status.holding_since = holding.map(|ago| serde_json::from_value(json!(cases::ago(ago))).unwrap());
            assert_eq!(case.plan().status.phase, P::Canary);
        }
    }
}

#[test]
fn time_without_endpoints_counts_towards_no_deadline() {
    let mut case = preparing();
    case.endpoints = leading(&[(FIRST, 2), (SECOND, 0)]);
    case.rollout.status.as_mut().unwrap().step_started_at =
        serde_json::from_value(json!(cases::ago(2000))).unwrap();
    case.rollout.status = Some(case.plan().status);
    // It is reached now, and something else is in the way for a moment.
    case.endpoints = leading(&[(FIRST, 2), (SECOND, 2)]);
    let ask = json!({"requests": [{"path": "/v2/health/ready"}]});
    case.rollout.spec.serving.warmup = Some(serde_json::from_value(ask).unwrap());
    let status = case.plan().status;
    assert_eq!((status.phase, status.thawed_at.unwrap().0), (P::Preparing, case.now));
}

#[test]
fn a_right_that_is_missing_is_told_while_a_version_is_on_trial() {
    for (phase, stable, previous) in [("Canary", 1, Value::Null), ("Baking", 2, cases::reference(1))] {
        let mut status = cases::moving(phase, if phase == "Canary" { 20 } else { 0 });
        (status["stable"], status["previous"]) = (cases::reference(stable), previous);
        let mut case = RolloutCase::new(status).unwrap();
        let bake = json!({"duration": "1h", "rollbackTriggers": ["error_rate"]});
        case.rollout.spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
        case.endpoints = Some(Endpoints::Denied);
        let conditions = case.plan().status.conditions;
        let told = |type_: &str| conditions.iter().find(|told| told.type_ == type_).unwrap();
        assert_eq!((told("Stalled").status.as_str(), told("Ready").status.as_str()), ("True", "False"));
        assert!(told("Stalled").message.contains("endpointslices.discovery.k8s.io"), "{phase}");
    }
    let mut passing = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    passing.endpoints = Some(Endpoints::Unknown);
    let conditions = passing.plan().status.conditions;
    let waits = conditions.iter().find(|told| told.type_ == "Reconciling").unwrap();
    assert!(waits.status == "True" && waits.message.contains("could not be read"), "{}", waits.message);
}

#[test]
fn a_version_on_trial_that_nobody_reaches_is_told() {
    for phase in ["Canary", "Baking"] {
        for endpoints in [leading(&[(FIRST, 2), (SECOND, 0)]), leading(&[(FIRST, 2)])] {
            let mut status = cases::moving(phase, if phase == "Canary" { 20 } else { 0 });
            if phase == "Baking" {
                (status["stable"], status["previous"]) = (cases::reference(2), cases::reference(1));
                status["candidate"] = Value::Null;
            }
            let mut case = RolloutCase::new(status).unwrap();
            let bake = json!({"duration": "1h", "rollbackTriggers": ["error_rate"]});
            case.rollout.spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
            case.endpoints = endpoints;
            let conditions = case.plan().status.conditions;
            let told = |type_: &str| conditions.iter().find(|told| told.type_ == type_).unwrap();
            assert_eq!((told("Stalled").status.as_str(), told("Ready").status.as_str()), ("True", "False"));
            assert_eq!(told("Stalled").reason, "EndpointsMissing", "{phase}");
        }
    }
}

#[test]
fn what_serves_does_so_whether_endpoints_can_be_read_or_not() {
    let mut case = RolloutCase::new(json!({"phase": "Healthy", "stable": cases::reference(1)})).unwrap();
    case.versions.truncate(1);
    case.goes_on(3);
    let ready = |case: &RolloutCase| {
        let conditions = case.plan().status.conditions;
        conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap()
    };
    let told = |case: &RolloutCase| (ready(case).status, ready(case).reason);
    case.endpoints = Some(Endpoints::Unknown);
    assert_eq!(told(&case), ("True".to_owned(), "Serving".to_owned()));
    case.endpoints = leading(&[(FIRST, 0)]);
    assert_eq!(told(&case), ("False".to_owned(), "StableNotReady".to_owned()));
    assert!(ready(&case).message.contains("leads to 0 of 2"), "{}", ready(&case).message);
}

#[test]
fn a_step_does_not_go_on_while_endpoints_are_missing() {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    assert_eq!(case.plan().status.weight, Weight::FULL);
    case.endpoints = leading(&[(FIRST, 2), (SECOND, 1)]);
    assert_eq!(case.plan().status.weight, Weight::from_percent(20));
}

#[test]
fn nobody_is_sent_back_to_a_service_that_leads_nowhere() {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    case.read = Read::Errors(0.5, 1000.0);
    case.endpoints = leading(&[(FIRST, 0), (SECOND, 2)]);
    let plan = case.plan();
    assert_eq!(plan.status.phase, P::Canary);
    assert!(plan.notes.iter().any(|note| note.reason == "StableUnavailable"), "{:?}", plan.notes);
    case.rollout.status = Some(plan.status);
    // Where it is not known, a rollback waits for nobody.
    for knows in [Some(Endpoints::Unknown), leading(&[(SECOND, 2)]), leading(&[(FIRST, 1), (SECOND, 2)])] {
        case.endpoints = knows;
        let status = case.plan().status;
        assert_eq!(
            (status.phase, status.decision.unwrap().reason.as_str()),
            (P::RolledBack, "ThresholdBreached")
        );
    }
}

#[test]
fn what_slices_list_is_counted_once_for_each_pod() {
    let slice = |service: &str, endpoints: Value| json!({"metadata": {"labels": {"kubernetes.io/service-name": service}}, "endpoints": endpoints});
    let pod = |uid: &str, ready: Value| json!({"targetRef": {"uid": uid}, "addresses": ["x"], "conditions": {"ready": ready}});
    let slices = [
        slice("a", json!([pod("1", json!(true)), pod("2", json!(false)), pod("3", Value::Null)])),
        // Another family of addresses, and one that is being moved.
        slice("a", json!([pod("1", json!(true)), pod("4", json!(true))])),
        slice("b", json!([pod("1", json!(false))])),
        slice("c", Value::Null),
        slice(
            "d",
            json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"]}]),
        ),
        json!({"metadata": {"labels": {}}, "endpoints": [{"addresses": ["10.0.0.1"]}]}),
    ];
    assert_eq!(Some(Endpoints::of(&slices)), leading(&[("a", 3), ("b", 0), ("c", 0), ("d", 2)]));
}
