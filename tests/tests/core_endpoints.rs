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
fn a_version_that_no_service_ever_leads_to_is_given_up() {
    let mut case = preparing();
    case.endpoints = leading(&[(FIRST, 2), (SECOND, 1)]);
    case.rollout.status.as_mut().unwrap().step_started_at =
        serde_json::from_value(json!(cases::ago(200))).unwrap();
    let status = case.plan().status;
    let decision = status.decision.unwrap();
    assert_eq!((status.phase, decision.reason.as_str()), (P::RolledBack, "ProgressDeadlineExceeded"));
    assert!(decision.message.contains("1 of 2 pods"), "{}", decision.message);
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
    for knows in [Some(Endpoints::Unknown), leading(&[(FIRST, 1), (SECOND, 2)])] {
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
    let slice = |service: &str, family: &str, ready: &[Value]| {
        let endpoints: Vec<Value> =
            ready.iter().map(|ready| json!({"conditions": {"ready": ready}})).collect();
        json!({"metadata": {"labels": {"kubernetes.io/service-name": service}}, "addressType": family, "endpoints": endpoints})
    };
    let slices = [
        slice("a", "IPv4", &[json!(true), json!(false), Value::Null]),
        slice("a", "IPv4", &[json!(true)]),
        slice("a", "IPv6", &[json!(true), json!(true)]),
        slice("b", "IPv4", &[json!(false)]),
        json!({"metadata": {"labels": {}}, "endpoints": [{}]}),
        json!({"metadata": {"labels": {"kubernetes.io/service-name": "c"}}, "addressType": "IPv4", "endpoints": null}),
    ];
    assert_eq!(Some(Endpoints::of(&slices)), leading(&[("a", 3), ("b", 0), ("c", 0)]));
}
