//! Capacity: an autoscaler for each version, pods before requests, and a way back that stays warm.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;

use anneal_core::{
    object::Kind,
    plan::{Action, Plan},
    rollout::Autoscalers,
};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P};
use anneal_tests::cases::{self, Read, RolloutCase};
use jiff::SignedDuration;
use serde_json::{Value, json};

const HPA: Kind = Kind::HorizontalPodAutoscaler;
const KEDA: Kind = Kind::ScaledObject;

fn hpa() -> Value {
    let target = json!({"type": "AverageValue", "averageValue": "0.5"});
    let metric = json!({"metric": {"name": "queue", "selector": {"matchLabels": {"version": "$(ANNEAL_VERSION)"}}}, "target": target});
    json!({"maxReplicas": 10, "hpa": {"metrics": [{"type": "External", "external": metric}], "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0}}}})
}

fn keda() -> Value {
    let trigger = json!({"type": "prometheus", "metadata": {"query": "sum(load{app=\"$(ANNEAL_WORKLOAD)\"})", "threshold": "10"}});
    json!({"maxReplicas": 10, "keda": {"triggers": [trigger], "pollingInterval": 5, "fallback": {"failureThreshold": 3, "replicas": 4},
        "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}})
}

fn case(status: Value) -> RolloutCase {
    RolloutCase::new(status).unwrap().autoscaled(hpa()).unwrap()
}

/// The same with version 1 alone.
fn alone(autoscaling: Value) -> RolloutCase {
    let mut case = RolloutCase::new(healthy()).unwrap();
    case.versions.truncate(1);
    case.children = anneal_core::rollout::Children::default();
    case.rollout.status = Some(serde_json::from_value(healthy()).unwrap());
    case.autoscaled(autoscaling).unwrap()
}

fn healthy() -> Value {
    json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1), "trafficAcceptedAt": cases::ago(600)})
}

fn with_bake(mut case: RolloutCase) -> RolloutCase {
    let bake = json!({"duration": "50s", "rollbackTriggers": ["error_rate"]});
    case.rollout.spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
    case
}

/// One reconcile, in which the cluster follows.
fn walk(case: &mut RolloutCase) -> Plan<ModelRolloutStatus> {
    let plan = case.plan();
    case.rollout.status = Some(plan.status.clone());
    case.perform(&plan.actions);
    plan
}

fn applied(plan: &Plan<ModelRolloutStatus>, kind: Kind) -> Vec<Value> {
    let applied = plan.actions.iter().filter_map(|action| match action {
        Action::Apply(object) if object.key.kind == kind => Some(object.body.clone()),
        Action::Apply(_) | Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => None,
    });
    applied.collect()
}

fn deleted(plan: &Plan<ModelRolloutStatus>, kind: Kind) -> Vec<String> {
    let deleted = plan.actions.iter().filter_map(|action| match action {
        Action::Delete { key, .. } if key.kind == kind => Some(key.name.clone()),
        Action::Apply(_) | Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => None,
    });
    deleted.collect()
}

fn known(case: &RolloutCase, kind: Kind) -> Vec<Value> {
    match &case.children.autoscalers[&kind] {
        Autoscalers::Known(list) => list.clone(),
        Autoscalers::NoSuchKind | Autoscalers::Denied(_) | Autoscalers::Failed(_) => vec![],
    }
}

/// A field of the autoscalers, by the numbers of their versions.
fn field(case: &RolloutCase, field: &str) -> BTreeMap<String, i64> {
    let number = |name: &Value| name.as_str().unwrap().rsplit('-').next().unwrap().to_owned();
    let of = |scaler: &Value| (number(&scaler["metadata"]["name"]), scaler["spec"][field].as_i64().unwrap());
    known(case, HPA).iter().map(of).collect()
}

/// The fewest pods of versions.
fn floors(case: &RolloutCase) -> BTreeMap<String, i64> {
    field(case, "minReplicas")
}

fn numbers(all: &[(&str, i64)]) -> BTreeMap<String, i64> {
    all.iter().map(|(version, number)| ((*version).to_owned(), *number)).collect()
}

fn told(status: &ModelRolloutStatus, type_: &str) -> (String, String) {
    let told = status.conditions.iter().find(|told| told.type_ == type_ && told.status == "True");
    told.map(|told| (told.reason.clone(), told.message.clone())).unwrap_or_default()
}

fn place(status: &ModelRolloutStatus) -> (P, Weight) {
    (status.phase, status.weight)
}

fn percent(weight: i32) -> Weight {
    Weight::from_percent(weight)
}

#[test]
fn each_version_has_an_autoscaler_of_its_own_and_nobody_else_says_how_many_pods_it_has() {
    let mut case = alone(hpa());
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "ads-v20261121-1"});
    let [scaler] = known(&case, HPA).try_into().unwrap();
    let (spec, owner) = (&scaler["spec"], &scaler["metadata"]["ownerReferences"][0]["uid"]);
    assert_eq!((&spec["scaleTargetRef"], owner), (&target, &Value::Null));
    assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(2), &json!(10)));
    let selector = &spec["metrics"][0]["external"]["metric"]["selector"]["matchLabels"];
    assert_eq!(
        (&selector["version"], &spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"]),
        (&json!("v20261121.1"), &json!(0))
    );
    // Whatever it makes of the load is right.
    walk(&mut case);
    case.load(1, 7);
    assert_eq!(case.plan().actions, []);
    // What is written for another reason leaves the number as it was read, and is not written over another one.
    case.rollout.spec.serving.image = "serve:2".into();
    let [deployment] = applied(&case.plan(), Kind::Deployment).try_into().unwrap();
    assert_eq!(
        (&deployment["spec"]["replicas"], &deployment["metadata"]["resourceVersion"]),
        (&json!(7), &json!("8"))
    );
    // An autoscaler leaves alone what someone has scaled to nothing, and then nobody would answer.
    walk(&mut case);
    case.children.deployments[0]["spec"]["replicas"] = 0.into();
    assert_eq!(applied(&case.plan(), Kind::Deployment)[0]["spec"]["replicas"], 2);
    case.load(1, 7);
    // A hand on the autoscaler is put right, and how the API server writes an amount is none.
    let amount = &mut case.autoscaler(HPA)["spec"]["metrics"][0]["external"]["target"]["averageValue"];
    *amount = "500m".into();
    assert_eq!(case.plan().actions, []);
    case.autoscaler(HPA)["spec"]["minReplicas"] = 1.into();
    assert_eq!(applied(&case.plan(), HPA)[0]["spec"]["minReplicas"], 2);
    case.autoscaler(HPA)["metadata"]["ownerReferences"] = json!([{"uid": "other", "controller": true}]);
    let plan = case.plan();
    assert_eq!((applied(&plan, HPA), told(&plan.status, "Stalled").0.as_str()), (vec![], "NameConflict"));
}

#[test]
fn keda_gets_what_it_needs() {
    let case = alone(keda());
    let [scaler] = known(&case, KEDA).try_into().unwrap();
    let behavior = json!({"scaleDown": {"selectPolicy": "Disabled"}});
    let trigger = json!({"type": "prometheus", "metadata": {"query": "sum(load{app=\"ads-v20261121-1\"})", "threshold": "10"}});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "ads-v20261121-1"});
    let spec = json!({"scaleTargetRef": target, "minReplicaCount": 2, "maxReplicaCount": 10, "triggers": [trigger], "pollingInterval": 5,
        "fallback": {"failureThreshold": 3, "replicas": 4}, "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}}});
    assert_eq!((scaler["spec"].clone(), scaler["apiVersion"].as_str()), (spec, Some("keda.sh/v1alpha1")));
}

#[test]
fn a_version_starts_with_the_pods_for_its_first_requests() {
    for (shadow, copies, initial, stable, pods) in [
        (true, 100, 20, 8, 8),
        (true, 30, 20, 8, 3),
        (false, 0, 20, 8, 2),
        (false, 0, 50, 7, 4),
        (false, 0, 100, 7, 7),
        // Never more than the spec allows.
        (true, 100, 20, 90, 10),
    ] {
        let mut case = alone(hpa());
        case.versions.push(cases::version(2, Some(1)).unwrap());
        let strategy = &mut case.rollout.spec.strategy;
        match strategy.shadow.as_mut().filter(|_| shadow) {
            Some(shadow) => shadow.percent = Some(copies),
            None => strategy.shadow = None,
        }
        let canary = json!({"initial": initial, "increment": 80, "interval": "20s", "minRequests": 20});
        strategy.progression = serde_json::from_value(json!({"canary": canary})).unwrap();
        case.load(1, stable.min(10));
        case.children.deployments[0]["spec"]["replicas"] = stable.into();
        walk(&mut case);
        assert_eq!(
            (case.rollout.status.as_ref().unwrap().phase, case.pods(2)),
            (P::Preparing, Some(pods)),
            "{initial} {stable}"
        );
        case.children.deployments[1]["status"]["readyReplicas"] = (pods - 1).into();
        assert_eq!(case.plan().status.phase, P::Preparing);
        case.children.deployments[1]["status"]["readyReplicas"] = pods.into();
        let status = case.plan().status;
        let there = if shadow { (P::Shadow, percent(0)) } else { (P::Canary, percent(initial)) };
        assert_eq!(place(&status), there);
    }
}

#[test]
fn a_bigger_share_comes_after_the_pods_for_it() {
    let mut case = case(cases::moving("Canary", 20));
    case.load(1, 8);
    case.load(2, 2);
    let plan = walk(&mut case);
    assert_eq!(place(&plan.status), (P::Canary, percent(20)));
    assert_eq!(plan.status.capacity.as_ref().unwrap().awaited, Some(percent(100)));
    let (reason, message) = told(&plan.status, "Reconciling");
    assert_eq!(reason, "AwaitingCapacity");
    assert!(message.contains("gets 8 pods before it takes 100 %"), "{message}");
    assert_eq!(floors(&case), numbers(&[("1", 8), ("2", 8)]));
    // The pods start. What has passed is not held for too long.
    case.children.deployments[1]["status"]["readyReplicas"] = 7.into();
    let status = case.rollout.status.as_mut().unwrap();
    status.traffic_accepted_at = Some(serde_json::from_value(json!(cases::ago(9000))).unwrap());
    let plan = walk(&mut case);
    assert_eq!(place(&plan.status), (P::Canary, percent(20)));
    // Nothing is lowered while the step cannot be judged for a moment, nor is it given up.
    case.read = Read::Nothing;
    let plan = walk(&mut case);
    assert_eq!(
        (place(&plan.status), floors(&case)),
        ((P::Canary, percent(20)), numbers(&[("1", 8), ("2", 8)]))
    );
    case.read = Read::Errors(0.0, 1000.0);
    // A rollback waits for nothing.
    let mut bad = case.clone();
    bad.read = Read::Errors(0.5, 1000.0);
    assert_eq!(bad.plan().status.phase, P::RolledBack);
    case.children.deployments[1]["status"]["readyReplicas"] = 8.into();
    let plan = walk(&mut case);
    assert_eq!(place(&plan.status), (P::Canary, percent(100)));
    assert_eq!(plan.status.capacity.unwrap().awaited, None);
    // Both keep what they have, however little load the one has left.
    case.load(1, 1);
    walk(&mut case);
    assert_eq!((case.pods(1), case.pods(2)), (Some(8), Some(8)));
}

#[test]
fn a_promotion_by_hand_waits_for_pods_too() {
    for (text, pods) in [("v20261121.2@20: why", 8), ("v20261121.2@full: why", 8)] {
        let mut case = case(cases::moving("Canary", 20));
        case.load(1, 8);
        case.read = Read::Silence;
        let annotation = anneal_crds::names::ANNOTATION_PROMOTE.to_owned();
        case.rollout.metadata.annotations = Some(BTreeMap::from([(annotation, text.to_owned())]));
        let plan = case.plan();
        assert_eq!(place(&plan.status), (P::Canary, percent(20)), "{text}");
        case.rollout.status = Some(plan.status.clone());
        case.perform(&plan.actions);
        assert_eq!(case.pods(2), Some(pods));
        assert_ne!(place(&case.plan().status), (P::Canary, percent(20)), "{text}");
    }
}

#[test]
fn the_way_back_stays_as_warm_as_it_may_have_to_be() {
    let mut case = with_bake(case(cases::moving("Canary", 100)));
    case.load(1, 6);
    case.load(2, 6);
    walk(&mut case);
    let baking = case.rollout.status.as_ref().unwrap();
    assert_eq!((baking.phase, floors(&case)), (P::Baking, numbers(&[("1", 6), ("2", 2)])));
    case.read = Read::Errors(0.0, 0.0);
    // Nobody asks the version before anything, and it keeps its pods; and where the other one needs more, so would it.
    case.load(1, 1);
    case.load(2, 9);
    walk(&mut case);
    assert_eq!((case.pods(1), case.pods(2)), (Some(9), Some(9)));
    // What it must have was recorded in a status that is lost, before there were so many pods.
    let mut lost = case.clone();
    lost.load(1, 2);
    lost.load(2, 3);
    lost.rollout.status.as_mut().unwrap().capacity = None;
    walk(&mut lost);
    assert_eq!(floors(&lost)["1"], 9);
    case.load(2, 3);
    walk(&mut case);
    assert_eq!((case.pods(1), case.pods(2)), (Some(9), Some(3)));
    case.read = Read::Errors(0.5, 1000.0);
    let plan = walk(&mut case);
    assert_eq!((plan.status.phase, case.pods(1)), (P::RolledBack, Some(9)));
    // Its autoscaler knows only the time without requests, so it is not left alone with them at once.
    for (seconds, floor) in [(60, 9), (599, 9), (600, 2)] {
        let status = case.rollout.status.as_mut().unwrap();
        let accepted = case.now - SignedDuration::from_secs(seconds);
        status.traffic_accepted_at = Some(serde_json::from_value(json!(accepted)).unwrap());
        walk(&mut case);
        assert_eq!(floors(&case)["1"], floor, "{seconds}");
    }
}

#[test]
fn a_former_version_gets_as_many_pods_as_stable_has_before_it_takes_everything() {
    let mut case = alone(hpa());
    case.versions.push(cases::version(2, Some(1)).unwrap());
    case.rollout.status.as_mut().unwrap().history =
        vec![serde_json::from_value(cases::reference(2)).unwrap()];
    case.load(1, 5);
    let rollback = json!({"targetVersion": "v20261121.2", "reason": "complaints"});
    case.rollout.spec.rollback = Some(serde_json::from_value(rollback).unwrap());
    walk(&mut case);
    assert_eq!((case.rollout.status.as_ref().unwrap().phase, case.pods(2)), (P::RollingBack, Some(5)));
    case.children.deployments[1]["status"]["readyReplicas"] = 4.into();
    assert_eq!(case.plan().status.phase, P::RollingBack);
    case.children.deployments[1]["status"]["readyReplicas"] = 5.into();
    assert_eq!(case.plan().status.phase, P::RolledBack);
}

#[test]
fn a_version_that_goes_takes_its_autoscaler_along() {
    let mut case = case(cases::moving("Canary", 20));
    assert_eq!(floors(&case).len(), 2);
    case.rollout.status.as_mut().unwrap().phase = P::RolledBack;
    case.rollout.status.as_mut().unwrap().weight = Weight::ZERO;
    case.rollout.spec.candidate = serde_json::from_value(json!({"version": "v20261121.1"})).unwrap();
    walk(&mut case);
    walk(&mut case);
    case.now += SignedDuration::from_secs(80);
    let plan = walk(&mut case);
    let gone = ["ads-v20261121-2".to_owned()];
    assert_eq!((deleted(&plan, Kind::Deployment), deleted(&plan, HPA)), (gone.to_vec(), gone.to_vec()));
}

#[test]
fn another_kind_or_a_fixed_number_takes_the_place_of_an_autoscaler() {
    let mut case = alone(hpa());
    walk(&mut case);
    case.load(1, 7);
    case.rollout.spec.serving.autoscaling = serde_json::from_value(keda()).unwrap();
    let plan = walk(&mut case);
    let is_delete = |action: &Action| matches!(action, Action::Delete { key, .. } if key.kind == HPA);
    let is_apply = |action: &Action| matches!(action, Action::Apply(object) if object.key.kind == KEDA);
    let order = (plan.actions.iter().position(is_delete), plan.actions.iter().position(is_apply));
    assert!(order.0.is_some() && order.0 < order.1, "{order:?}");
    assert_eq!((case.pods(1), known(&case, HPA).len(), known(&case, KEDA).len()), (Some(7), 0, 1));
    assert_eq!(json!(case.plan().status.capacity.unwrap().autoscalers), json!(["ScaledObject"]));

    case.rollout.spec.serving.autoscaling = None;
    walk(&mut case);
    assert_eq!((case.pods(1), known(&case, KEDA).len()), (Some(2), 0));
    walk(&mut case);
    assert_eq!(
        (case.rollout.status.as_ref().unwrap().capacity.clone(), case.plan().actions.len()),
        (None, 0)
    );
}

#[test]
fn what_the_cluster_does_not_know_is_told_and_no_version_gets_requests() {
    for (seen, reason, says) in [
        (Autoscalers::NoSuchKind, "AutoscalerKindMissing", "Install KEDA"),
        (Autoscalers::Denied("list is forbidden".into()), "AutoscalerUnknown", "forbidden"),
    ] {
        for (status, stays) in [
            (healthy(), (P::Healthy, percent(0))),
            (cases::moving("Preparing", 0), (P::Preparing, percent(0))),
            (cases::moving("Canary", 20), (P::Canary, percent(20))),
        ] {
            let mut case = RolloutCase::new(status).unwrap();
            case.rollout.spec.serving.autoscaling = serde_json::from_value(keda()).unwrap();
            if stays.0 == P::Healthy {
                case.versions.truncate(1);
            }
            case.children.autoscalers.insert(KEDA, seen.clone());
            let plan = walk(&mut case);
            let (told, message) = told(&plan.status, "Stalled");
            assert_eq!((place(&plan.status), told.as_str()), (stays, reason), "{message}");
            assert!(message.contains(says), "{message}");
            assert_eq!(applied(&plan, KEDA), Vec::<Value>::new());
            let again = case.plan();
            assert_eq!((again.status == plan.status, again.notes.len()), (true, 0));
            case.read = Read::Errors(0.5, 1000.0);
            let rolls_back = stays.0 == P::Canary;
            assert_eq!(case.plan().status.phase == P::RolledBack, rolls_back);
        }
    }
}

#[test]
fn an_autoscaler_that_does_not_scale_is_quoted() {
    let mut case = case(cases::moving("Canary", 20));
    case.load(1, 8);
    walk(&mut case);
    case.load(2, 2);
    case.children.deployments[1]["status"]["readyReplicas"] = 2.into();
    let said =
        json!([{"type": "AbleToScale", "status": "False", "message": "the target could not be found."}]);
    for scaler in known(&case, HPA) {
        let name = scaler["metadata"]["name"].clone();
        case.autoscaler_of(HPA, &name)["status"] = json!({"conditions": said});
    }
    let status = case.plan().status;
    let (reason, message) = told(&status, "Stalled");
    assert_eq!(reason, "AutoscalerFails");
    assert!(message.ends_with("does not scale: the target could not be found."), "{message}");
}

/// With so many GPUs for each pod, and so many that may be used beside those of stable.
fn with_gpus(mut case: RolloutCase, per_pod: i32, allowed: i32) -> RolloutCase {
    let resources = json!({"limits": {"cpu": "4", "nvidia.com/gpu": per_pod.to_string()}});
    case.rollout.spec.serving.resources = serde_json::from_value(resources).unwrap();
    case.rollout.spec.strategy.max_extra_gpus = Some(allowed);
    case.settle_children();
    case
}

#[test]
fn a_version_that_would_need_too_many_gpus_does_not_begin() {
    let test = |gpus: &str| json!({"test": {"job": {"image": "tests:1", "resources": {"limits": {"nvidia.com/gpu": gpus}}}}});
    for (per_pod, staging, allowed, says) in [
        (1, None, 2, None),
        (2, None, 4, None),
        (
            2,
            None,
            3,
            Some(
                "v20261121.2 needs 4 GPUs beyond those of stable, for 2 pods, and spec.strategy.maxExtraGPUs allows 3.",
            ),
        ),
        (2, Some("1"), 4, Some("needs 5 GPUs")),
        (2, Some("1"), 5, None),
        (0, None, 1, None),
    ] {
        let mut case = RolloutCase::new(healthy()).unwrap();
        case.versions.truncate(1);
        case.children = anneal_core::rollout::Children::default();
        let mut case = with_gpus(case, per_pod, allowed);
        case.rollout.spec.strategy.staging = staging.map(|gpus| serde_json::from_value(test(gpus)).unwrap());
        // A first version has nothing beside it.
        let mut first = case.clone();
        first.rollout.status = None;
        first.children = anneal_core::rollout::Children::default();
        first.versions[0].metadata.annotations.get_or_insert_default().remove("stable-in.anneal.dev/ads");
        assert_eq!(first.plan().status.phase, P::Preparing);
        case.versions.push(cases::version(2, Some(1)).unwrap());
        let plan = case.plan();
        assert_eq!(plan.status.phase == P::Preparing, says.is_none(), "{per_pod} {allowed}");
        if let Some(says) = says {
            let (reason, message) = told(&plan.status, "Ready");
            assert_eq!(reason, "TooManyGPUs");
            assert!(message.contains(says), "{message}");
        }
    }
}

#[test]
fn no_autoscaler_takes_more_gpus_than_a_rollout_may() {
    let begins = |stable: i64, allowed: i32| {
        let mut case = with_gpus(alone(hpa()), 2, allowed);
        case.rollout.spec.strategy.shadow = None;
        case.load(1, stable);
        case.versions.push(cases::version(2, Some(1)).unwrap());
        walk(&mut case);
        case
    };
    assert_eq!(begins(6, 11).rollout.status.unwrap().phase, P::Healthy);
    let mut case = begins(6, 13);
    assert_eq!(case.rollout.status.as_ref().unwrap().phase, P::Preparing);
    let most = |case: &RolloutCase| field(case, "maxReplicas");
    assert_eq!(most(&case), numbers(&[("1", 10), ("2", 6)]));
    // Stable has grown since: the candidate has no way to all requests, and does not take more for nothing.
    let canary = serde_json::from_value(cases::moving("Canary", 20)).unwrap();
    case.rollout.status = Some(canary);
    case.settle_children();
    case.load(1, 7);
    case.load(2, 2);
    let plan = walk(&mut case);
    let (reason, message) = told(&plan.status, "Stalled");
    assert_eq!((reason.as_str(), case.pods(2)), ("TooManyGPUs", Some(2)), "{message}");
    assert!(message.contains("needs 14 GPUs"), "{message}");
    // In a bake it is the version before that is beside the stable one; what it has, it keeps.
    let mut case = with_bake(begins(6, 12));
    let canary = serde_json::from_value(cases::moving("Canary", 100)).unwrap();
    case.rollout.status = Some(canary);
    case.settle_children();
    case.load(2, 6);
    let plan = walk(&mut case);
    assert_eq!((plan.status.phase, most(&case)), (P::Baking, numbers(&[("1", 6), ("2", 10)])));
    case.load(2, 9);
    case.read = Read::Errors(0.0, 0.0);
    walk(&mut case);
    assert_eq!(case.pods(1), Some(6));
}

#[test]
fn the_pods_of_a_former_candidate_go_before_those_of_the_next_one_come() {
    for (allowed, waits) in [(2, true), (4, false)] {
        let mut case = with_gpus(RolloutCase::new(cases::moving("Preparing", 0)).unwrap(), 1, allowed);
        case.versions.push(cases::version(3, Some(1)).unwrap());
        let plan = walk(&mut case);
        assert_eq!(plan.status.candidate.as_ref().unwrap().version, "v20261121.3");
        let (reason, _) = told(&plan.status, "Reconciling");
        assert_eq!((case.pods(3).is_none(), reason == "AwaitingGPUs"), (waits, waits), "{allowed}");
        if !waits {
            continue;
        }
        walk(&mut case);
        // Who waits for those that are still asked is not given up for that.
        let mut asked = case.clone();
        asked.left = cases::left(500.0);
        for _ in 0..3 {
            asked.now += SignedDuration::from_hours(1);
            walk(&mut asked);
        }
        let status = asked.rollout.status.as_ref().unwrap();
        assert_eq!((status.phase, status.rejected.len(), asked.pods(3)), (P::Preparing, 0, None));
        case.now += SignedDuration::from_secs(80);
        walk(&mut case);
        assert_eq!((case.pods(2), case.pods(3)), (None, None));
        walk(&mut case);
        assert_eq!(case.pods(3), Some(2));
    }
}

#[test]
fn no_rollback_asks_for_gpus() {
    let mut case = with_gpus(alone(hpa()), 2, 1);
    case.versions.push(cases::version(2, Some(1)).unwrap());
    case.rollout.status.as_mut().unwrap().history =
        vec![serde_json::from_value(cases::reference(2)).unwrap()];
    case.load(1, 5);
    let rollback = json!({"targetVersion": "v20261121.2", "reason": "complaints"});
    case.rollout.spec.rollback = Some(serde_json::from_value(rollback).unwrap());
    walk(&mut case);
    assert_eq!((case.rollout.status.as_ref().unwrap().phase, case.pods(2)), (P::RollingBack, Some(5)));
    assert_eq!(case.plan().status.phase, P::RolledBack);
}

#[test]
fn an_autoscaler_that_was_written_late_is_looked_for_where_somebody_scales() {
    let mut case = RolloutCase::new(healthy()).unwrap();
    case.rollout.status = Some(case.plan().status);
    let kinds = |case: &RolloutCase| {
        anneal_core::rollout::autoscaler_kinds(&case.rollout, &case.children.deployments).len()
    };
    assert_eq!(kinds(&case), 0, "nobody asks for one, and none was made");
    let scaled = |case: &mut RolloutCase| case.children.deployments[0]["spec"]["replicas"] = 7.into();
    let mut foreign = case.clone();
    scaled(&mut foreign);
    foreign.children.deployments[0]["metadata"]["ownerReferences"] =
        json!([{"kind": "App", "name": "other", "uid": "other", "controller": true}]);
    assert_eq!(kinds(&foreign), 0, "what somebody else has is nobody's business");
    scaled(&mut case);
    assert_eq!(kinds(&case), 2);
    case.rollout.status = None;
    case.children.deployments.clear();
    assert_eq!(kinds(&case), 2, "a status that was lost may have had any");
}
