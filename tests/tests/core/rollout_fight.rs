//! Other hands on the route: they are corrected, counted, told of, and given up on only for a minute at a time.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::plan::{Plan, Severity, Wake};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P, names};
use anneal_tests::cases::{self, Read, RolloutCase};
use jiff::SignedDuration;
use serde_json::{Value, json};

/// A rollout whose route was written by the operator, and whose step cannot end yet.
fn case(phase: &str, weight: i32) -> RolloutCase {
    let mut status = cases::moving(phase, weight);
    if phase == "RolledBack" {
        status["rejected"] = json!([cases::reference(2)]);
    }
    let mut case = RolloutCase::new(status).unwrap();
    case.read = Read::Errors(0.0, 3.0);
    case.children.route = None;
    walk(&mut case);
    walk(&mut case);
    case
}

/// One reconcile: what is planned is recorded and done.
fn walk(case: &mut RolloutCase) -> Plan<ModelRolloutStatus> {
    let plan = case.plan();
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status.clone());
    plan
}

/// Someone sends everything to the candidate.
fn edit(case: &mut RolloutCase, who: &str) {
    let route = case.children.route.as_mut().unwrap();
    route["spec"]["rules"][0]["backendRefs"] = json!([{"name": "ads-v20261121-2", "port": 80, "weight": 1}]);
    route["metadata"]["generation"] = (route["metadata"]["generation"].as_i64().unwrap() + 1).into();
    route["metadata"]["managedFields"] = json!([{"manager": who, "fieldsV1": {"f:spec": {"f:rules": {}}}}]);
}

fn fights(case: &RolloutCase) -> u32 {
    case.rollout.status.as_ref().unwrap().traffic.as_ref().map_or(0, |traffic| traffic.fights)
}

fn verified(plan: &Plan<ModelRolloutStatus>) -> (String, String, String) {
    let told = plan.status.conditions.iter().find(|told| told.type_ == "TrafficVerified").unwrap();
    (told.status.clone(), told.reason.clone(), told.message.clone())
}

/// Five changes, a second apart, each of them put right.
fn contested(phase: &str, weight: i32) -> RolloutCase {
    let mut case = case(phase, weight);
    for _ in 0..5 {
        edit(&mut case, "argocd-controller");
        case.now += SignedDuration::from_secs(1);
        assert!(cases::route_of(&walk(&mut case)).is_some());
    }
    case
}

#[test]
fn a_hand_that_slips_is_corrected_counted_and_told_of_once() {
    let mut case = case("Canary", 20);
    assert_eq!(fights(&case), 0, "what was never written was changed by nobody");
    let mut told = vec![];
    for count in 1..=3 {
        edit(&mut case, "kubectl-edit");
        let plan = walk(&mut case);
        assert!(cases::route_of(&plan).is_some());
        assert_eq!(fights(&case), count);
        told.extend(plan.notes);
        case.now += SignedDuration::from_secs(5);
        assert_eq!(verified(&walk(&mut case)).0, "True", "it is as it was");
    }
    let [note] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((note.severity, note.reason.as_str()), (Severity::Warning, "RouteEdited"));
    assert!(note.message.contains("kubectl-edit"), "{}", note.message);
    case.now += SignedDuration::from_mins(11);
    case.rollout.spec.judge.max_hold = "1h".parse().unwrap();
    edit(&mut case, "kubectl-edit");
    let news = case.plan().notes.into_iter().filter(|note| note.reason == "RouteEdited").count();
    assert_eq!(news, 1, "long after, it is news again");
}

#[test]
fn a_new_step_and_a_write_that_failed_are_no_fights() {
    let mut case = case("Canary", 20);
    case.read = Read::Errors(0.0, 1000.0);
    case.now += SignedDuration::from_secs(25);
    let plan = walk(&mut case);
    assert_eq!(cases::route_of(&plan).unwrap()["rules"][0]["backendRefs"][1]["weight"], 1000);
    assert_eq!(fights(&case), 0);
    case.read = Read::Errors(0.0, 3.0);
    edit(&mut case, "kubectl-edit");
    for _ in 0..7 {
        // Recorded, and never done.
        case.now += SignedDuration::from_secs(1);
        let plan = case.plan();
        assert!(cases::route_of(&plan).is_some());
        case.rollout.status = Some(plan.status);
        assert_eq!(fights(&case), 1);
    }
}

#[test]
fn a_fight_becomes_a_condition_and_a_write_a_minute() {
    let mut case = contested("Canary", 20);
    case.rollout.spec.judge.max_hold = "1h".parse().unwrap();
    let (status, reason, message) = verified(&case.plan());
    assert_eq!((status.as_str(), reason.as_str()), ("False", "RouteContested"));
    assert!(message.contains("argocd-controller") && message.contains("HTTPRoute ads"), "{message}");
    let mut writes = 0;
    for second in 1..=600 {
        case.now += SignedDuration::from_secs(1);
        let plan = walk(&mut case);
        if cases::route_of(&plan).is_some() {
            writes += 1;
        }
        let Wake::At(wake) = plan.wake else { panic!("second {second}: someone must look again") };
        assert!(wake.duration_since(case.now) <= SignedDuration::from_mins(1));
        assert_eq!(verified(&plan).0, "False", "second {second}");
        assert_eq!(plan.status.traffic_accepted_at, None, "a route that cannot be kept is not accepted");
        if writes > 0 || second == 1 {
            edit(&mut case, "argocd-controller");
        }
    }
    assert!((9..=10).contains(&writes), "{writes} writes in ten minutes");
}

#[test]
fn a_route_that_is_left_alone_counts_again() {
    let mut case = contested("Canary", 20);
    case.rollout.spec.judge.max_hold = "1h".parse().unwrap();
    for (seconds, status) in [(1, "False"), (118, "False"), (1, "True")] {
        case.now += SignedDuration::from_secs(seconds);
        assert_eq!(verified(&walk(&mut case)).0, status, "{seconds}");
    }
    edit(&mut case, "argocd-controller");
    assert!(cases::route_of(&walk(&mut case)).is_some(), "it is put right at once");
    assert_eq!(verified(&case.plan()).1, "RouteContested", "and they are at it again");
}

#[test]
fn a_canary_that_nobody_can_keep_in_place_is_rolled_back() {
    let mut case = contested("Canary", 20);
    for _ in 0..40 {
        case.now += SignedDuration::from_secs(10);
        walk(&mut case);
        edit(&mut case, "argocd-controller");
    }
    let status = case.rollout.status.unwrap();
    assert_eq!((status.phase, status.decision.unwrap().reason.as_str()), (P::RolledBack, "HeldTooLong"));
}

#[test]
fn a_rollback_is_written_at_once_and_again_until_it_went_through() {
    let mut case = contested("Canary", 20);
    edit(&mut case, "argocd-controller");
    assert!(cases::route_of(&case.plan()).is_none(), "it waits");
    case.read = Read::Errors(0.5, 1000.0);
    let plan = case.plan();
    assert_eq!(plan.status.phase, P::RolledBack);
    let backends =
        |plan: &Plan<_>| cases::route_of(plan).map(|route| route["rules"][0]["backendRefs"].clone());
    assert_eq!(backends(&plan).unwrap().as_array().unwrap().len(), 1);
    // The call failed, or they were faster.
    case.rollout.status = Some(plan.status);
    for _ in 0..50 {
        case.now += SignedDuration::from_secs(1);
        let plan = case.plan();
        assert_eq!(backends(&plan).unwrap()[0]["name"], "ads-v20261121-1");
        case.rollout.status = Some(plan.status);
        edit(&mut case, "argocd-controller");
    }
}

#[test]
fn someone_must_do_something_about_a_fight_where_nothing_is_on_its_way() {
    let mut case = contested("RolledBack", 0);
    case.now += SignedDuration::from_secs(1);
    let plan = walk(&mut case);
    let stalled = plan.status.conditions.iter().find(|told| told.type_ == "Stalled").unwrap();
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "RouteContested"));
    assert_eq!(case.plan().status, plan.status, "and nothing more is written");
}

#[test]
fn a_contested_route_that_is_gone_is_made_again_at_once() {
    let mut case = contested("RolledBack", 0);
    case.now += SignedDuration::from_secs(1);
    case.children.route = None;
    assert!(cases::route_of(&case.plan()).is_some());
}

#[test]
fn a_route_that_is_deleted_again_and_again_is_contested_too() {
    let mut case = case("RolledBack", 0);
    let mut writes = vec![];
    for second in 1..=300 {
        case.now += SignedDuration::from_secs(1);
        // It is seen, and then it is gone.
        if case.children.route.is_some() {
            walk(&mut case);
            case.children.route = None;
        }
        let plan = walk(&mut case);
        writes.extend(cases::route_of(&plan).map(|_| second));
        assert_eq!(verified(&plan).1 == "RouteContested", writes.len() >= 5, "second {second}");
        let Wake::At(wake) = plan.wake else { panic!("second {second}: someone must look again") };
        assert!(wake.duration_since(case.now) <= SignedDuration::from_secs(10));
    }
    assert_eq!(fights(&case), u32::try_from(writes.len()).unwrap());
    assert_eq!(writes[..6], [1, 2, 3, 4, 5, 15], "a few times a minute");
    assert!(writes.len() < 40, "{writes:?}");
    let (_, _, message) = verified(&case.plan());
    assert!(message.contains("HTTPRoute ads") && message.contains("whoever deletes it"), "{message}");
    // Another one in its place is no better.
    let mut case = self::case("RolledBack", 0);
    walk(&mut case);
    edit(&mut case, "kubectl-create");
    let metadata = &mut case.children.route.as_mut().unwrap()["metadata"];
    (metadata["uid"], metadata["generation"]) = ("uid-other".into(), 1.into());
    case.rollout.status.as_mut().unwrap().traffic.as_mut().unwrap().written.as_mut().unwrap().over = 7;
    walk(&mut case);
    assert_eq!(fights(&case), 1);
}

#[test]
fn a_route_whose_creation_failed_was_deleted_by_nobody() {
    let mut case = case("RolledBack", 0);
    case.children.route = None;
    case.rollout.status.as_mut().unwrap().traffic = None;
    for _ in 0..10 {
        case.now += SignedDuration::from_secs(1);
        let plan = case.plan();
        assert!(cases::route_of(&plan).is_some());
        case.rollout.status = Some(plan.status);
    }
    assert_eq!(fights(&case), 0);
}

#[test]
fn a_webhook_that_makes_the_same_of_every_write_is_contested_too() {
    let mut case = case("RolledBack", 0);
    let generation = case.children.route.as_ref().unwrap()["metadata"]["generation"].clone();
    let hook = |case: &mut RolloutCase| {
        let route = case.children.route.as_mut().unwrap();
        route["spec"]["rules"][0]["timeouts"] = json!({"request": "1s"});
        // It was so already: what comes out of the hook is no change.
        route["metadata"]["generation"] = generation.clone();
        route["metadata"]["managedFields"] =
            json!([{"manager": names::FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:rules": {}}}}]);
    };
    hook(&mut case);
    let (mut writes, mut records, mut since) = (0, 0, None);
    for second in 1..=300 {
        case.now += SignedDuration::from_secs(1);
        let before = case.rollout.status.clone();
        let plan = walk(&mut case);
        hook(&mut case);
        records += usize::from(before.as_ref() != Some(&plan.status));
        if verified(&plan).1 == "RouteContested" {
            since.get_or_insert(second);
            writes += usize::from(cases::route_of(&plan).is_some());
        }
    }
    assert_eq!(since, Some(21), "after five counts, five seconds apart");
    assert!(writes <= 6 && records <= 15, "{writes} writes, {records} records");
    assert!(verified(&case.plan()).2.contains("an admission webhook"));
}

#[test]
fn a_contest_counts_as_time_in_which_nothing_can_be_judged() {
    for (phase, then) in [(P::Canary, P::RolledBack), (P::Baking, P::Baking)] {
        let mut case = case("Canary", 20);
        let canary = json!({"canary": {"initial": 20, "increment": 80, "interval": "1h", "minRequests": 20}});
        case.rollout.spec.strategy.progression = serde_json::from_value(canary).unwrap();
        let bake = json!({"duration": "1h", "rollbackTriggers": ["error_rate"]});
        case.rollout.spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
        if phase == P::Baking {
            let status = case.rollout.status.as_mut().unwrap();
            (status.phase, status.weight) = (phase, Weight::ZERO);
            status.previous = std::mem::replace(&mut status.stable, status.candidate.take());
            case.settle_children();
        }
        for second in 0..200 {
            case.now += SignedDuration::from_secs(1);
            case.read = Read::Errors(0.0, 1000.0);
            let answer = case.fresh();
            let plan = case.plan_with(&answer);
            case.perform(&plan.actions);
            case.rollout.status = Some(plan.status);
            if case.rollout.status.as_ref().unwrap().phase == P::RolledBack {
                assert!(second > 120, "{second}");
                break;
            }
            edit(&mut case, "argocd-controller");
        }
        let status = case.rollout.status.unwrap();
        assert_eq!(status.phase, then);
        let told = status.conditions.iter().any(|told| told.reason == "HeldTooLong");
        assert!(told, "{:?}", status.conditions);
    }
}

#[test]
fn nothing_grows_with_the_number_of_fights() {
    let mut case = contested("RolledBack", 0);
    for _ in 0..100 {
        case.now += SignedDuration::from_mins(3);
        edit(&mut case, &"x".repeat(300));
        walk(&mut case);
    }
    let traffic: Value = serde_json::to_value(case.rollout.status.unwrap().traffic).unwrap();
    assert_eq!((&traffic["fights"], traffic["recentFights"].as_array().unwrap().len()), (&json!(105), 5));
    assert!(traffic.to_string().len() < 1000, "{traffic}");
}
