//! Shadows on data planes that cannot copy requests, say so, or drop what was written.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{
    plan::{Plan, Wake},
    rollout::Features,
};
use anneal_crds::{ModelRolloutStatus, model_rollout::RolloutPhase as P};
use anneal_tests::cases::{self, Read, RolloutCase};
use serde_json::{Value, json};

const PLAIN: &str = "HTTPRouteRequestMirror";
const PART: &str = "HTTPRouteRequestPercentageMirror";

fn listed(names: &[&str]) -> Features {
    Features::Listed { class: "contour".into(), names: names.iter().map(|name| (*name).to_owned()).collect() }
}

/// A candidate before or in its shadow of this share.
fn case(phase: &str, share: Value) -> RolloutCase {
    let mut status = cases::moving(phase, 0);
    status["stepStartedAt"] = cases::ago(5).into();
    let mut case = RolloutCase::new(status).unwrap();
    let mut shadow = json!({"duration": "30s", "minRequests": 50});
    for (field, value) in share.as_object().unwrap() {
        shadow[field] = value.clone();
    }
    case.rollout.spec.strategy.shadow = Some(serde_json::from_value(shadow).unwrap());
    case.settle_children();
    case.read = Read::Errors(0.0, 3.0);
    case
}

fn stalled(plan: &Plan<ModelRolloutStatus>) -> Option<(String, String)> {
    let told = plan.status.conditions.iter().find(|told| told.type_ == "Stalled" && told.status == "True")?;
    Some((told.reason.clone(), told.message.clone()))
}

fn mirror(plan: &Plan<ModelRolloutStatus>) -> Value {
    cases::route_of(plan).unwrap()["rules"][0]["filters"][0]["requestMirror"].clone()
}

#[test]
fn a_shadow_begins_only_where_requests_can_be_copied() {
    let (all, part) = (json!({}), json!({"percent": 20}));
    let table = [
        (&all, listed(&[PLAIN]), None),
        (&all, listed(&["HTTPRouteRetry"]), Some(PLAIN)),
        (&part, listed(&[PLAIN, PART]), None),
        (&part, listed(&[PLAIN]), Some(PART)),
        (&part, Features::Unknown, None),
    ];
    for (share, features, lacks) in table {
        for phase in ["Preparing", "Shadow"] {
            let mut case = case(phase, share.clone());
            case.features = features.clone();
            let plan = case.plan();
            let Some(lacks) = lacks else {
                assert_eq!(plan.status.phase, P::Shadow, "{share} {features:?}");
                continue;
            };
            assert_eq!(plan.status.phase, P::Preparing, "{phase} {share} {features:?}");
            case.rollout.status = Some(plan.status);
            let plan = case.plan();
            let (reason, message) = stalled(&plan).unwrap();
            assert_eq!(reason, "MirrorUnsupported");
            for part in ["contour", lacks, "strategy.shadow"] {
                assert!(message.contains(part), "{message}");
            }
            assert_ne!(plan.wake, Wake::OnChange, "nobody tells when the class lists more");
            // The way out.
            case.rollout.spec.strategy.shadow = None;
            assert_eq!(case.plan().status.phase, P::Canary);
        }
    }
}

#[test]
fn it_is_said_before_the_pods_are_ready() {
    let mut case = case("Preparing", json!({}));
    case.lose_a_pod(2);
    case.features = listed(&["HTTPRouteRetry"]);
    assert_eq!(stalled(&case.plan()).unwrap().0, "MirrorUnsupported");
}

#[test]
fn the_first_version_needs_no_copies() {
    let mut status = cases::moving("Preparing", 0);
    (status["stable"], status["candidate"]) = (Value::Null, cases::reference(1));
    status["stepStartedAt"] = cases::ago(5).into();
    let mut case = RolloutCase::new(status).unwrap();
    case.versions.truncate(1);
    case.settle_children();
    case.features = listed(&["HTTPRouteRetry"]);
    assert_eq!(case.plan().status.phase, P::Healthy);
}

#[test]
fn shares_are_written_as_they_are_asked_for() {
    let written = [
        (json!({}), Value::Null, Value::Null),
        (json!({"percent": 100}), Value::Null, Value::Null),
        (json!({"percent": 20}), json!(20), Value::Null),
        (
            json!({"fraction": {"numerator": 5, "denominator": 1000}}),
            Value::Null,
            json!({"numerator": 5, "denominator": 1000}),
        ),
        (json!({"fraction": {"numerator": 7}}), Value::Null, json!({"numerator": 7, "denominator": 100})),
        (json!({"fraction": {"numerator": 3, "denominator": 3}}), Value::Null, Value::Null),
    ];
    for (share, percent, fraction) in written {
        let mut case = case("Preparing", share.clone());
        case.children.route = None;
        let mirror = mirror(&case.plan());
        assert_eq!((&mirror["percent"], &mirror["fraction"]), (&percent, &fraction), "{share}");
        assert_eq!(mirror["backendRef"]["name"], "ads-v20261121-2");
    }
}

#[test]
fn a_share_that_someone_adds_is_taken_away() {
    let mut case = case("Shadow", json!({}));
    case.children.route.as_mut().unwrap()["spec"]["rules"][0]["filters"][0]["requestMirror"]["percent"] =
        1.into();
    assert_eq!(mirror(&case.plan())["percent"], Value::Null);
}

/// The route as the API server has it once something has dropped parts of what was written.
fn dropped(case: &mut RolloutCase, author: &str, drop: impl Fn(&mut Value)) {
    let route = case.children.route.as_mut().unwrap();
    route["metadata"]["managedFields"] =
        json!([{"manager": author, "operation": "Apply", "fieldsV1": {"f:spec": {"f:rules": {}}}}]);
    drop(&mut route["spec"]["rules"][0]);
}

#[test]
fn a_mirror_that_is_dropped_ends_the_shadow_until_the_spec_changes() {
    let drops: [fn(&mut Value); 2] = [
        |rule| rule["filters"] = json!([]),
        |rule| drop(rule["filters"][0]["requestMirror"].as_object_mut().unwrap().remove("percent")),
    ];
    for drop in drops {
        let mut case = case("Shadow", json!({"percent": 20}));
        dropped(&mut case, "anneal.dev/operator", drop);
        let plan = case.plan();
        assert_eq!(plan.status.phase, P::Preparing);
        assert_eq!(cases::route_of(&plan).map(|route| &route["rules"][0]["filters"]), Some(&json!([])));
        case.perform(&plan.actions);
        case.rollout.status = Some(plan.status);
        let plan = case.plan();
        assert_eq!((plan.status.phase, plan.actions.len()), (P::Preparing, 0));
        let (reason, message) = stalled(&plan).unwrap();
        assert!(reason == "MirrorUnsupported" && message.contains("HTTPRoute ads"), "{reason} {message}");
        case.rollout.metadata.generation = Some(2);
        assert_eq!(case.plan().status.phase, P::Shadow, "another spec is another try");
    }
}

#[test]
fn a_mirror_that_a_person_removes_is_put_back() {
    let mut case = case("Shadow", json!({"percent": 20}));
    dropped(&mut case, "kubectl-edit", |rule| rule["filters"] = json!([]));
    let plan = case.plan();
    assert_eq!((plan.status.phase, mirror(&plan)["percent"].clone()), (P::Shadow, json!(20)));
}

#[test]
fn a_route_that_is_taken_in_part_is_not_accepted() {
    let mut case = case("Shadow", json!({"percent": 20}));
    let route = case.children.route.as_mut().unwrap();
    let generation = route["metadata"]["generation"].clone();
    let conditions = &mut route["status"]["parents"][0]["conditions"];
    conditions.as_array_mut().unwrap().push(json!({"type": "PartiallyInvalid", "status": "True",
        "reason": "UnsupportedValue", "message": "Dropped Rule 0", "observedGeneration": generation}));
    let plan = case.plan();
    assert_eq!(plan.status.phase, P::Shadow);
    let verified = plan.status.conditions.iter().find(|told| told.type_ == "TrafficVerified").unwrap();
    assert_eq!(verified.status, "False");
    let (reason, message) = stalled(&plan).unwrap();
    assert_eq!(reason, "RouteNotAccepted");
    assert!(message.contains("Dropped Rule 0") && message.contains("remove strategy.shadow"), "{message}");
}
