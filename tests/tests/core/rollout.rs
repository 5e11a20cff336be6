//! Tables of the rollout's plan: every phase with every kind of observation, and each bug that was found.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{
    object::Kind,
    plan::{Action, Wake},
    rollout::{Answer, queries},
};
use anneal_crds::{Weight, model_rollout::RolloutPhase as P};
use anneal_tests::cases::{self, BLIND, Read, RolloutCase};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

fn case(status: Value) -> RolloutCase {
    RolloutCase::new(status).unwrap()
}

fn healthy() -> Value {
    json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1), "trafficAcceptedAt": cases::ago(600)})
}

#[test]
fn every_phase_answers_every_reading() {
    let (good, bad, few) = (Read::Errors(0.0, 1000.0), Read::Errors(0.5, 1000.0), Read::Errors(0.0, 3.0));
    let table = [
        ("Preparing", 0, good, P::Shadow, 0),
        ("Preparing", 0, bad, P::Shadow, 0),
        ("Preparing", 0, Read::Silence, P::Shadow, 0),
        ("Shadow", 0, good, P::Canary, 20),
        ("Shadow", 0, bad, P::RolledBack, 0),
        ("Shadow", 0, few, P::Shadow, 0),
        ("Canary", 20, good, P::Canary, 100),
        ("Canary", 20, bad, P::RolledBack, 0),
        ("Canary", 20, few, P::Canary, 20),
    ];
    for (phase, weight, read, then, share) in table {
        let mut case = case(cases::moving(phase, weight));
        case.read = read;
        let status = case.plan().status;
        assert_eq!((status.phase, status.weight), (then, Weight::from_percent(share)), "{phase} {read:?}");
    }
    for (phase, read) in ["Shadow", "Canary"].into_iter().flat_map(|phase| BLIND.map(|read| (phase, read))) {
        let mut status = cases::moving(phase, if phase == "Canary" { 20 } else { 0 });
        status["verdict"] = "Pass".into();
        let mut case = case(status);
        case.read = read;
        let status = case.plan().status;
        assert_eq!(status.phase, case.rollout.status.clone().unwrap().phase, "{phase} {read:?}");
        assert!(status.holding_since.is_some(), "{phase} {read:?}");
        let class = match read {
            Read::Nothing => "NoData",
            Read::Old(_) => "Stale",
            Read::NotANumber | Read::Silence | Read::Errors(..) => "Error",
        };
        assert_eq!(status.verdict.as_deref(), Some(class), "{phase} {read:?}");
        assert_eq!(status.missing.len(), 1, "{phase} {read:?}");
        assert_eq!(status.missing[0].class.name(), class, "{phase} {read:?}");
    }
}

#[test]
fn the_last_step_that_passes_makes_the_candidate_stable() {
    let status = case(cases::moving("Canary", 100)).plan().status;
    assert_eq!((status.phase, status.stable.unwrap().version.as_str()), (P::Healthy, "v20261121.2"));
}

#[test]
fn a_step_does_not_end_before_its_time() {
    for (accepted, then) in [(19, 20), (20, 100)] {
        let mut status = cases::moving("Canary", 20);
        status["trafficAcceptedAt"] = cases::ago(accepted).into();
        assert_eq!(case(status).plan().status.weight, Weight::from_percent(then), "{accepted} s");
    }
}

#[test]
fn a_step_that_cannot_be_judged_is_rolled_back_in_time_and_says_so() {
    let mut status = cases::moving("Canary", 20);
    status["holdingSince"] = cases::ago(121).into();
    let mut case = case(status);
    case.read = Read::Silence;
    let status = case.plan().status;
    assert_eq!(status.phase, P::RolledBack);
    assert_eq!(status.decision.unwrap().reason, "HeldTooLong");
    assert_eq!(status.verdict.as_deref(), Some("Error"), "no reading is no pass");
}

#[test]
fn a_reason_counts_from_when_it_was_first_seen_and_anew_once_it_was_gone() {
    let mut case = case(cases::moving("Canary", 20));
    case.rollout.spec.judge.on_error =
        serde_json::from_value(json!({"action": "Rollback", "after": "30s"})).unwrap();
    let mut tick = |read: Read, seconds: i64| {
        case.read = read;
        case.now += SignedDuration::from_secs(seconds);
        let status = case.plan().status;
        case.rollout.status = Some(status.clone());
        status.phase
    };
    assert_eq!(tick(Read::Silence, 1), P::Canary);
    assert_eq!(tick(Read::Nothing, 29), P::Canary);
    assert_eq!(tick(Read::Silence, 1), P::Canary);
    assert_eq!(tick(Read::Silence, 29), P::Canary);
    assert_eq!(tick(Read::Silence, 1), P::RolledBack);
}

#[test]
fn the_first_scrapes_of_a_step_may_take_a_moment() {
    for (began, phase) in [(29, P::Canary), (31, P::RolledBack)] {
        let mut status = cases::moving("Canary", 20);
        status["stepStartedAt"] = cases::ago(began).into();
        status["trafficAcceptedAt"] = cases::ago(began).into();
        let mut case = case(status);
        case.rollout.spec.judge.on_no_data = serde_json::from_value(json!({"action": "Rollback"})).unwrap();
        case.read = Read::Nothing;
        assert_eq!(case.plan().status.phase, phase, "{began} s");
    }
}

#[test]
fn a_rollback_that_is_recorded_needs_no_metrics_no_versions_and_no_pods() {
    let mut case = case(cases::moving("Canary", 100));
    let mut status = cases::moving("RolledBack", 0);
    status["trafficAcceptedAt"] = Value::Null;
    case.rollout = cases::rollout(status).unwrap();
    case.versions.clear();
    case.children.deployments.clear();
    case.read = Read::Silence;
    let plan = case.plan();
    let backends = &cases::route_of(&plan).unwrap()["rules"][0]["backendRefs"];
    assert_eq!(backends[0]["weight"], 1000);
    assert_eq!((backends.as_array().unwrap().len(), &backends[0]["name"]), (1, &json!("ads-v20261121-1")));
}

#[test]
fn a_rollback_writes_the_route_before_anything_that_could_fail() {
    let mut case = case(cases::moving("Canary", 20));
    case.rollout.spec.serving.image = "serve:refused".into();
    case.read = Read::Errors(0.5, 1000.0);
    let plan = case.plan();
    let kind = plan.actions.iter().find_map(|action| match action {
        Action::Apply(object) => Some(object.key.kind),
        Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => None,
    });
    assert_eq!((plan.status.phase, kind), (P::RolledBack, Some(Kind::HttpRoute)));
}

#[test]
fn leaving_shadow_ends_the_mirror() {
    let mut case = case(cases::moving("Shadow", 0));
    assert!(
        case.children.route.as_ref().unwrap()["spec"]["rules"][0]["filters"][0]["requestMirror"].is_object()
    );
    case.read = Read::Errors(0.5, 1000.0);
    let plan = case.plan();
    assert_eq!(plan.status.phase, P::RolledBack);
    let route = cases::route_of(&plan).expect("the mirror must go, so the route must be written");
    assert_eq!(route["rules"][0]["filters"], json!([]));
}

#[test]
fn host_names_that_the_spec_drops_leave_the_route() {
    let mut case = case(healthy());
    let through = |hostnames: Value| json!({"gateway": {"name": "web", "hostnames": hostnames}});
    case.rollout.spec.traffic = serde_json::from_value(through(json!(["ads.example.com"]))).unwrap();
    case.settle_children();
    case.rollout.spec.traffic = serde_json::from_value(through(json!([]))).unwrap();
    let plan = case.plan();
    assert_eq!(cases::route_of(&plan).expect("the route must be written")["hostnames"], json!([]));
}

#[test]
fn the_route_is_written_only_as_it_was_read() {
    let mut case = case(cases::moving("Canary", 20));
    case.read = Read::Errors(0.5, 1000.0);
    let plan = case.plan();
    let version = plan.actions.iter().find_map(|action| match action {
        Action::Apply(object) if object.key.kind == Kind::HttpRoute => {
            Some(&object.body["metadata"]["resourceVersion"])
        }
        Action::Apply(_) | Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => None,
    });
    assert_eq!(version, Some(&json!("8")), "another leader's later write must not be undone");
}

#[test]
fn more_traffic_waits_until_all_pods_are_ready() {
    for (phase, weight) in [("Preparing", 0), ("Shadow", 0), ("Canary", 20)] {
        let mut case = case(cases::moving(phase, weight));
        case.lose_a_pod(2);
        let status = case.plan().status;
        let weight = Weight::from_percent(weight);
        assert_eq!((status.phase, status.weight), (case.rollout.status.unwrap().phase, weight), "{phase}");
    }
}

#[test]
fn two_versions_of_the_same_weights_are_two_versions() {
    let mut case = case(json!({"observedGeneration": 1, "phase": "Preparing", "stable": cases::reference(1),
        "candidate": cases::reference(2), "stepStartedAt": cases::ago(5)}));
    // An older record of the very same artifact, listed first.
    let mut twin = cases::version(9, Some(1)).unwrap();
    twin.spec.version = "v20261120.9".into();
    twin.spec.artifact.digest = cases::digest(2);
    case.versions.insert(0, twin);
    case.children = anneal_core::rollout::Children::default();
    let made: Vec<String> = case
        .plan()
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Apply(object) if object.key.kind == Kind::Deployment => Some(object.key.name.clone()),
            Action::Apply(_) | Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => None,
        })
        .collect();
    assert_eq!(made, ["ads-v20261121-1", "ads-v20261121-2"]);
}

#[test]
fn a_lost_status_finds_the_newest_stable_version_again() {
    let mut case = case(json!({}));
    for (number, name) in [(10, "ads-v20261121.10"), (9, "ads-v20261121.9")] {
        let mut version = cases::version(number, Some(1)).unwrap();
        version.metadata.name = Some(name.into());
        version.metadata.annotations =
            Some([("stable-in.anneal.dev/ads".to_owned(), "true".to_owned())].into());
        case.versions.push(version);
    }
    assert_eq!(case.plan().status.stable.unwrap().version, "v20261121.10");
}

#[test]
fn a_rejected_version_does_not_come_back_even_without_status() {
    let mut with_status = healthy();
    with_status["rejected"] = json!([cases::reference(2)]);
    for status in [with_status, json!({})] {
        let mut case = case(status);
        let mark = |rollout: &str| (format!("{rollout}.anneal.dev/ads"), "true".to_owned());
        case.versions[0].metadata.annotations = Some([mark("stable-in")].into());
        case.versions[1].metadata.annotations = Some([mark("rolled-back-in")].into());
        let status = case.plan().status;
        assert_eq!((status.phase, status.candidate), (P::Healthy, None));
        assert_eq!(status.rejected.len(), 1);
    }
}

#[test]
fn a_version_that_was_compared_with_another_does_not_serve() {
    for baseline in [None, Some(7)] {
        let mut case = case(healthy());
        case.versions[1] = cases::version(2, baseline).unwrap();
        let status = case.plan().status;
        assert_eq!((status.phase, status.candidate), (P::Healthy, None), "{baseline:?}");
    }
}

#[test]
fn a_first_version_waits_for_a_persons_approval() {
    for (who, phase) in [("", P::Pending), (" ", P::Pending), ("ann", P::Preparing)] {
        let mut case = case(json!({}));
        case.versions.truncate(1);
        case.versions[0].metadata.annotations =
            Some([("anneal.dev/approved-by".to_owned(), who.to_owned())].into());
        assert_eq!(case.plan().status.phase, phase, "{who:?}");
    }
}

#[test]
fn no_time_is_written_that_lies_before_a_recorded_one() {
    let ahead = cases::ago(-50);
    let mut status = cases::moving("Canary", 20);
    status["trafficAcceptedAt"] = ahead.clone().into();
    status["conditions"] = json!([{"type": "MetricsAvailable", "status": "True", "reason": "Fresh", "message": "",
        "lastTransitionTime": ahead}]);
    let mut case = case(status);
    case.read = Read::Silence;
    for condition in case.plan().status.conditions {
        assert!(condition.last_transition_time.0 >= ahead.parse().unwrap(), "{}", condition.type_);
    }
}

#[test]
fn a_trigger_without_a_metric_is_no_pass() {
    for triggers in [vec![], vec!["nothing".to_owned()]] {
        let mut case = case(cases::moving("Canary", 20));
        case.rollout.spec.strategy.rollback_triggers = triggers.clone();
        assert_eq!(case.plan().status.weight, Weight::from_percent(20), "{triggers:?}");
    }
}

#[test]
fn a_version_that_left_traffic_keeps_its_pods_until_no_request_can_reach_it() {
    for (accepted, deleted) in [(Some(69), 0), (Some(71), 2), (None, 0)] {
        let mut case = case(cases::moving("Canary", 20));
        let children = case.children.clone();
        let mut status = cases::moving("RolledBack", 0);
        status["rejected"] = json!([cases::reference(2)]);
        status["trafficAcceptedAt"] = accepted.map(cases::ago).into();
        case.rollout = cases::rollout(status).unwrap();
        case.settle_children();
        case.children.deployments = children.deployments;
        case.children.services = children.services;
        if accepted.is_none() {
            case.children.route.as_mut().unwrap()["status"] = Value::Null;
        }
        let plan = case.plan();
        let deletes = plan.actions.iter().filter(|action| matches!(action, Action::Delete { .. })).count();
        assert_eq!(deletes, deleted, "{accepted:?}");
        assert!(deletes > 0 || plan.wake != Wake::OnChange, "someone must come back for it");
    }
}

#[test]
fn a_version_that_is_still_asked_keeps_its_pods_whatever_the_gateway_says() {
    let left = |phase: &str, ago: i64| {
        let mut case = case(cases::moving("Canary", 20));
        let children = case.children.clone();
        let mut status = cases::moving(phase, 0);
        if phase == "Healthy" {
            (status["candidate"], status["stable"]) = (Value::Null, cases::reference(2));
            status["history"] = json!([cases::reference(1)]);
        } else {
            status["rejected"] = json!([cases::reference(2)]);
        }
        status["trafficAcceptedAt"] = cases::ago(ago).into();
        case.rollout = cases::rollout(status).unwrap();
        case.settle_children();
        case.children.deployments = children.deployments;
        case.children.services = children.services;
        case
    };
    let deletes = |case: &RolloutCase| {
        let actions = case.plan().actions;
        actions.iter().filter(|action| matches!(action, Action::Delete { .. })).count()
    };
    for phase in ["RolledBack", "Healthy"] {
        assert_eq!(left(phase, 69).query_of_who_left(), None, "nobody has been scraped twice");
        assert_eq!(deletes(&left(phase, 69)), 0);
        let query = left(phase, 71).query_of_who_left().unwrap();
        let version = if phase == "Healthy" { "v20261121.1" } else { "v20261121.2" };
        assert!(query.expression.contains(version) && query.expression.contains("[60s]"), "{query:?}");
        let away = Answer::Unreachable("connection refused".into());
        for (answer, deleted) in [
            (cases::left(0.0), 2),
            (cases::left(0.4), 2),
            (cases::left(2.0), 2),
            (cases::left(f64::NAN), 2),
            (away.clone(), 2),
            (Answer::Vector(vec![]), 2),
            (cases::left(9.0), 2),
            (cases::left(11.0), 0),
            (cases::left(500.0), 0),
            (cases::left_beside(9.0, Some(500.0)), 2),
            // One that serves and gets fewer is not where requests go.
            (cases::left_beside(2.0, Some(1.0)), 0),
            (cases::left_beside(2.0, None), 0),
        ] {
            let mut case = left(phase, 71);
            case.left = answer.clone();
            assert_eq!(deletes(&case), deleted, "{phase} {answer:?}");
        }
        let mut case = left(phase, 71);
        case.left = cases::left(50.0);
        let status = case.plan().status;
        let told = |type_: &str| {
            let told = status.conditions.iter().find(|told| told.type_ == type_).unwrap();
            (told.status.as_str(), told.reason.as_str())
        };
        assert_eq!(
            (told("Stalled"), told("TrafficVerified")),
            (("True", "TrafficSplitMismatch"), ("False", "TrafficSplitMismatch"))
        );
        case.rollout.status = Some(status.clone());
        assert_eq!(case.plan().status, status, "no look is a write");
        // However long it takes, and not longer.
        case.now += SignedDuration::from_mins(20);
        assert_eq!(deletes(&case), 0);
        for unknown in [away.clone(), cases::left(f64::NAN), Answer::Vector(vec![])] {
            case.left = unknown;
            assert_eq!(deletes(&case), 0, "what was known is not undone");
            // Nobody is there who could answer.
            let mut gone = case.clone();
            for deployment in &mut gone.children.deployments {
                deployment["status"]["readyReplicas"] = 0.into();
            }
            assert_eq!(deletes(&gone), 2);
        }
        // Others are counted, and its counters are gone: the server has just come back, or has lost it.
        let mut ended = case.clone();
        let Answer::Vector(mut rest) = cases::left(0.0) else { unreachable!() };
        rest.retain(|series| series.labels["anneal_part"] == "rest");
        ended.left = Answer::Vector(rest);
        assert_eq!(deletes(&ended), 0);
        let mut late = ended.clone();
        for deployment in &mut ended.children.deployments {
            deployment["status"]["readyReplicas"] = 0.into();
        }
        assert_eq!(deletes(&ended), 2, "nobody is there who could answer");
        // Not for ever, and each look that counts it begins anew.
        let (gone, asked) = (late.left.clone(), cases::left(50.0));
        for (minutes, answer, deleted) in
            [(0, &gone, 0), (9, &gone, 0), (9, &asked, 0), (9, &gone, 0), (9, &gone, 0), (2, &gone, 2)]
        {
            late.left = answer.clone();
            late.now += SignedDuration::from_mins(minutes);
            assert_eq!(deletes(&late), deleted, "{phase} {minutes}");
            late.rollout.status = Some(late.plan().status);
        }
        // Another version that begins takes no pods away that are asked.
        let mut newer = case.clone();
        let stable = if phase == "Healthy" { 2 } else { 1 };
        newer.versions.push(cases::version(3, Some(stable)).unwrap());
        newer.rollout.status = Some(newer.plan().status);
        assert_eq!(newer.rollout.status.as_ref().unwrap().phase.name(), "Preparing");
        newer.left = away.clone();
        let accepted = newer.now - SignedDuration::from_secs(71);
        newer.rollout.status.as_mut().unwrap().traffic_accepted_at = Some(Time(accepted));
        newer.settle_children();
        newer.children.deployments = case.children.deployments.clone();
        newer.children.services = case.children.services.clone();
        // What was told is known, though its route is another one.
        for (answer, deleted) in [(cases::left(500.0), 0), (away.clone(), 0), (cases::left(0.0), 2)] {
            newer.left = answer;
            assert_eq!(deletes(&newer), deleted, "{phase}");
        }
        newer.left = cases::left(500.0);
        let before = usize::from(phase != "Healthy");
        let troubles = [
            // What it waits for is told, and is nothing that it could be rejected for.
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}]}),
                "Unschedulable",
                true,
                before,
            ),
            // Nobody is in the way of an image, or a volume, that is not there.
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "persistentvolumeclaim \"ads\" not found"}]}),
                "Unschedulable",
                false,
                before + 1,
            ),
            (
                json!({"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
                "ImagePullBackOff",
                false,
                before + 1,
            ),
            // A quota has no room for more of what crashes.
            (
                json!({"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "CrashLoopBackOff",
                false,
                before + 1,
            ),
        ];
        for (pod, reason, stays, rejected) in troubles {
            let mut waits = newer.clone();
            let pod = json!({"metadata": {"name": "ads-v20261121-3-a", "labels": {"anneal.dev/version": "v20261121.3"}}, "status": pod});
            waits.children.pods = vec![serde_json::from_value(pod).unwrap()];
            if reason == "CrashLoopBackOff" {
                let mut deployment = waits.children.deployments[0].clone();
                deployment["metadata"]["name"] = "ads-v20261121-3".into();
                let failure = json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "pods \"b\" is forbidden: exceeded quota: gpus"});
                deployment["status"] = json!({"conditions": [failure]});
                waits.children.deployments.push(deployment);
            }
            let status = waits.plan().status;
            let told = |type_: &str| {
                let told = status.conditions.iter().find(|told| told.type_ == type_).unwrap();
                (told.status.as_str(), told.reason.as_str())
            };
            assert_eq!(told("Stalled"), ("True", reason), "{phase}");
            assert_eq!(told("TrafficVerified"), ("False", "TrafficSplitMismatch"), "{phase}");
            waits.rollout.status = Some(status);
            for _ in 0..2 {
                waits.rollout.status = Some(waits.plan().status);
                waits.now += SignedDuration::from_hours(1);
            }
            let status = waits.plan().status;
            let is_moving = status.phase == P::Preparing;
            assert_eq!((is_moving, status.rejected.len()), (stays, rejected), "{phase} {reason}");
        }
        case.left = cases::left(0.0);
        assert_eq!(deletes(&case), 2);
        let rested = case.plan().status;
        let verified = rested.conditions.iter().find(|told| told.type_ == "TrafficVerified").unwrap();
        assert_eq!(verified.status, "True");
        case.rollout.status = Some(rested);
        let stays = format!("ads-v20261121-{stable}");
        case.children.deployments.retain(|deployment| deployment["metadata"]["name"] == stays.as_str());
        assert_eq!(case.query_of_who_left(), None, "nobody asks for ever");
        // Who was away for long asks, whatever may be gone back to.
        let mut late = left(phase, 86_400);
        late.rollout.status.as_mut().unwrap().history.clear();
        late.left = cases::left(500.0);
        assert_eq!(deletes(&late), 0);
    }
}

/// Pods of these versions beside what the case has, and how many of those the plan deletes.
fn deleted_beside(case: &RolloutCase) -> usize {
    let actions = case.plan().actions;
    let deleted = actions
        .iter()
        .filter(|action| matches!(action, Action::Delete { key, .. } if key.kind == Kind::Deployment));
    deleted.count()
}

#[test]
fn what_a_step_saw_of_requests_is_known_after_the_rollback_too() {
    let away = Answer::Unreachable("connection refused".into());
    for (strays, deleted) in
        [(json!([{"version": "v20261121.2"}]), 0), (json!([{"version": "v20261121.1"}]), 1), (json!([]), 1)]
    {
        let mut case = case(cases::moving("Canary", 20));
        let children = case.children.clone();
        let mut status = cases::moving("RolledBack", 0);
        status["rejected"] = json!([cases::reference(2)]);
        status["trafficAcceptedAt"] = cases::ago(71).into();
        status["strays"] = strays.clone();
        case.rollout = cases::rollout(status).unwrap();
        case.settle_children();
        case.children.deployments = children.deployments;
        case.children.services = children.services;
        case.left = away.clone();
        assert_eq!(deleted_beside(&case), deleted, "{strays}");
        // It serves well, and what is not known is told as that.
        let status = case.plan().status;
        let told = |type_: &str| status.conditions.iter().find(|told| told.type_ == type_).unwrap();
        assert_eq!(told("Ready").status, "True", "{strays}");
        let unread = ("Unknown", "NotCounted");
        let verified = (told("TrafficVerified").status.as_str(), told("TrafficVerified").reason.as_str());
        assert_eq!(verified == unread, deleted == 0, "{strays}: {verified:?}");
        // A server that has lost what it knew counts a few of many after two scrapes.
        case.left = cases::left_beside(7.5, Some(100.0));
        assert_eq!(deleted_beside(&case), deleted, "{strays}");
        // One that counts so few all the time counts probes, unless hardly anybody asks the other one either.
        let mut probed = case.clone();
        probed.rollout.status = Some(probed.plan().status);
        probed.now += SignedDuration::from_mins(11);
        let mut quiet = probed.clone();
        assert_eq!(deleted_beside(&probed), 1, "{strays}");
        quiet.left = cases::left_beside(7.5, Some(10.0));
        assert_eq!(deleted_beside(&quiet), deleted, "{strays}");
        // A server that is away says nothing new, however long ago it said something.
        quiet.left = away.clone();
        assert_eq!(deleted_beside(&quiet), deleted, "{strays}");
        // One look that counts none ends it.
        case.left = cases::left(0.0);
        assert_eq!(deleted_beside(&case), 1);
        assert!(case.plan().status.strays.iter().all(|stray| stray.version != "v20261121.2"));
    }
}

/// Two requests a second to the version that left, ten to the one that serves, by counters of every form.
#[test]
#[ignore = "needs promtool; cargo xtask test runs it"]
fn prometheus_counts_who_is_still_asked() {
    let of = |name: &str, more: &str, version: u32| {
        format!(
            "{name}{{{more}model=\"ads\",version=\"v20261121.{version}\",namespace=\"{}\"}}",
            cases::NAMESPACE
        )
    };
    let counter = |name: &str, more: &str, version: u32, rate: u32| json!({"series": of(name, more, version), "values": format!("0+{rate}x600")});
    let share = |has_bad: bool| {
        let good =
            [counter("good_total", "", 2, if has_bad { 1 } else { 2 }), counter("good_total", "", 1, 10)];
        good.into_iter().chain(has_bad.then(|| counter("bad_total", "", 2, 1))).collect::<Vec<_>>()
    };
    let classic = json!({"quantile": 0.9, "max": "1s", "selector": "seconds_bucket"});
    let bucket = |version, rate| counter("seconds_bucket", "le=\"+Inf\",", version, rate);
    let ratio = json!({"bad": "bad_total", "good": "good_total", "max": 0.1});
    let table = [
        ("ratio", ratio.clone(), share(true)),
        ("ratio", ratio, share(false)),
        ("histogram", classic, vec![bucket(2, 2), bucket(1, 10)]),
    ];
    for (form, source, series) in table {
        let mut case = case(cases::moving("Canary", 20));
        let children = case.children.clone();
        let mut status = cases::moving("RolledBack", 0);
        status["rejected"] = json!([cases::reference(2)]);
        status["trafficAcceptedAt"] = cases::ago(71).into();
        case.rollout = cases::rollout(status).unwrap();
        case.children = children;
        let metric = json!({"name": "error_rate", "window": "40s", form: source});
        case.rollout.spec.metrics = vec![serde_json::from_value(metric).unwrap()];
        let query = case.query_of_who_left().unwrap().expression;
        let part =
            |name: &str, value: f64| json!({"labels": format!("{{anneal_part=\"{name}\"}}"), "value": value});
        let test = json!({"evaluation_interval": "1s", "tests": [{
            "interval": "1s",
            "input_series": series,
            "promql_expr_test": [{"expr": query, "eval_time": "10m",
                "exp_samples": [part("v20261121.2", 120.0), part("rest", 600.0)]}],
        }]});
        crate::promtool::test_rules(&test);
    }
}

#[test]
fn what_a_release_told_that_wrote_no_strays_is_known() {
    let mut case = case(cases::moving("Canary", 20));
    let children = case.children.clone();
    let mut status = cases::moving("RolledBack", 0);
    status["rejected"] = json!([cases::reference(2)]);
    status["trafficAcceptedAt"] = cases::ago(600).into();
    status["conditions"] = json!([{"type": "TrafficVerified", "status": "False", "reason": "TrafficSplitMismatch", "message": "", "lastTransitionTime": cases::ago(300)}]);
    case.rollout = cases::rollout(status).unwrap();
    case.settle_children();
    case.children.deployments = children.deployments;
    case.children.services = children.services;
    case.left = Answer::Unreachable("connection refused".into());
    assert_eq!(deleted_beside(&case), 0);
    assert_eq!(case.plan().status.strays[0].version, "v20261121.2");
}

#[test]
fn requests_of_a_native_histogram_are_counted_by_its_count() {
    let mut case = case(cases::moving("RolledBack", 0));
    case.children = self::case(cases::moving("Canary", 20)).children;
    case.rollout.status.as_mut().unwrap().traffic_accepted_at =
        Some(Time(case.now - SignedDuration::from_secs(71)));
    let metric = json!({"name": "latency", "window": "40s", "histogram": {"quantile": 0.9, "max": "1s", "selector": "seconds"}});
    let of = |case: &mut RolloutCase, metric: &Value| {
        case.rollout.spec.metrics = vec![serde_json::from_value(metric.clone()).unwrap()];
        case.query_of_who_left().unwrap().expression
    };
    let native = "or sum(histogram_count(increase(seconds{";
    assert!(!of(&mut case, &metric).contains(native), "plain thresholds read no native histograms");
    case.rollout.spec.judge = serde_json::from_value(json!({"evidence": "sequential"})).unwrap();
    assert!(of(&mut case, &metric).contains(native));
    // Not every server knows the function.
    let mut classic = metric;
    classic["histogram"]["selector"] = "seconds_bucket{path=\"/\"}".into();
    assert!(!of(&mut case, &classic).contains("histogram_count"));
}

#[test]
fn who_is_gone_back_to_waits_for_no_count() {
    let mut status = cases::moving("Canary", 20);
    let children = case(status.clone()).children;
    status["phase"] = "RollingBack".into();
    status["weight"] = 0.into();
    status["candidate"] = cases::reference(1);
    status["stable"] = cases::reference(3);
    status["strays"] = json!([{"version": "v20261121.2"}]);
    for (ago, deleted) in [(29, 0), (31, 1)] {
        status["trafficAcceptedAt"] = cases::ago(ago).into();
        let mut case = case(status.clone());
        case.versions.push(cases::version(3, Some(2)).unwrap());
        case.rollout.spec.candidate = serde_json::from_value(json!({"version": "v20261121.1"})).unwrap();
        case.settle_children();
        case.children.deployments.extend(
            children
                .deployments
                .clone()
                .into_iter()
                .filter(|one| one["metadata"]["name"] == "ads-v20261121-2"),
        );
        // Its pods are on their way.
        for deployment in &mut case.children.deployments {
            if deployment["metadata"]["name"] == "ads-v20261121-1" {
                deployment["status"]["readyReplicas"] = 0.into();
            }
        }
        assert_eq!(case.query_of_who_left(), None);
        assert_eq!(deleted_beside(&case), deleted, "{ago}");
    }
}

#[test]
fn a_foreign_deployment_is_not_deleted() {
    let mut status = cases::moving("RolledBack", 0);
    status["rejected"] = json!([cases::reference(2)]);
    let mut case = case(status);
    case.children
        .deployments
        .push(json!({"metadata": {"name": "ads-old", "uid": "uid-x", "ownerReferences": [
        {"uid": "uid-someone", "controller": true}]}}));
    assert!(!case.plan().actions.iter().any(|action| matches!(action, Action::Delete { .. })));
}

#[test]
fn a_steady_world_gets_no_writes_and_no_events() {
    for status in [healthy(), cases::moving("Shadow", 0), cases::moving("Canary", 20)] {
        let mut case = case(status);
        case.versions.truncate(if case.rollout.status.as_ref().unwrap().phase == P::Healthy { 1 } else { 2 });
        case.read = Read::Errors(0.0, 3.0);
        for _ in 0..3 {
            let plan = case.plan();
            case.perform(&plan.actions);
            case.rollout.status = Some(plan.status);
            case.now += SignedDuration::from_millis(1);
        }
        let plan = case.plan();
        assert_eq!(Some(&plan.status), case.rollout.status.as_ref());
        assert_eq!((plan.actions, plan.notes), (vec![], vec![]));
    }
}

#[test]
fn a_plain_threshold_looks_back_to_the_start_of_the_trial_and_no_further() {
    // Seconds since the trial began, and the window of 40 s in milliseconds.
    for (since, window) in [
        (None, 40_000),
        (Some(600), 40_000),
        (Some(12), 12_000),
        (Some(0), 1),
        (Some(-5), 1),
        (Some(-60), 40_000),
    ] {
        let mut status = cases::moving("Canary", 20);
        if let Some(since) = since {
            status["trialStartedAt"] = cases::ago(since).into();
        }
        let case = RolloutCase::new(status).unwrap();
        let asked = queries(&case.rollout, case.now);
        let expression = &asked[0].expression;
        assert_eq!(expression.matches(&format!("[{window}ms]")).count(), 2, "{since:?}: {expression}");
    }
}
