//! What a rollout's plan makes of trouble: objects of others, too many rejected versions, clocks that were ahead, refusals.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{
    object::Kind,
    plan::{Action, Wake},
    rollout::{self, GatewayState},
};
use anneal_crds::{
    Weight,
    model_rollout::{Baseline, RolloutPhase as P},
};
use anneal_tests::cases::{self, Read, RolloutCase};
use jiff::SignedDuration;
use serde_json::{Value, json};

fn case(status: Value) -> RolloutCase {
    RolloutCase::new(status).unwrap()
}

fn healthy() -> Value {
    json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1), "trafficAcceptedAt": cases::ago(600)})
}

#[test]
fn an_object_of_someone_else_is_never_written() {
    let foreign = |name: &str| {
        json!({"metadata": {"name": name, "uid": "uid-x", "resourceVersion": "3", "labels": {"app": "mine"}},
            "spec": {"rules": []}})
    };
    let mut status = cases::moving("Preparing", 0);
    status["trafficAcceptedAt"] = Value::Null;
    let mut case = case(status);
    case.children.route = Some(foreign("ads"));
    case.children.deployments = vec![foreign("ads-v20261121-1"), foreign("ads-v20261121-2")];
    case.children.services = case.children.deployments.clone();
    let plan = case.plan();
    let writes = |kind| {
        plan.actions.iter().any(|action| match action {
            Action::Apply(object) | Action::Create(object) => object.key.kind == kind,
            Action::Patch(_) | Action::Delete { .. } => true,
        })
    };
    assert!(
        ![Kind::HttpRoute, Kind::Deployment, Kind::Service].into_iter().any(writes),
        "{:?}",
        plan.actions
    );
    let stalled = plan.status.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "NameConflict"));
    // Nothing changes while it lasts.
    case.rollout.status = Some(plan.status.clone());
    case.now += SignedDuration::from_secs(7);
    assert_eq!(case.plan().status, plan.status);
}

#[test]
fn pods_of_someone_else_take_no_requests() {
    let someone = |kind: &str, name: &str| json!({"ownerReferences": [{"kind": kind, "name": name, "uid": "uid-someone", "controller": true}]});
    let labelled = |manager: &str, rollout: &str| {
        json!({"ownerReferences": [],
            "labels": {"app.kubernetes.io/managed-by": manager, "anneal.dev/rollout": rollout}})
    };
    let strangers = [
        someone("Deployment", "ads"),
        someone("ModelRollout", "other"),
        labelled("helm", "ads"),
        labelled("anneal", "other"),
    ];
    let own = || {
        let mut case = case(cases::moving("Canary", 20));
        let mut status = cases::moving("Preparing", 0);
        status["stepStartedAt"] = cases::ago(5).into();
        case.rollout = cases::rollout(status).unwrap();
        case
    };
    assert_eq!(own().plan().status.phase, P::Shadow);
    for (lists, stranger) in [[true, false], [false, true]]
        .into_iter()
        .flat_map(|lists| strangers.iter().map(move |who| (lists, who)))
    {
        let mut case = own();
        let children = [&mut case.children.deployments, &mut case.children.services];
        for (list, foreign) in children.into_iter().zip(lists) {
            for object in
                list.iter_mut().filter(|object| foreign && object["metadata"]["name"] == "ads-v20261121-2")
            {
                for (field, value) in stranger.as_object().unwrap() {
                    object["metadata"][field] = value.clone();
                }
            }
        }
        assert_eq!(case.plan().status.phase, P::Preparing, "{lists:?} {stranger}");
    }
}

#[test]
fn pods_whose_labels_a_hand_took_away_are_still_the_rollouts() {
    let mut case = case(healthy());
    let deployment = &mut case.children.deployments[0];
    let name = deployment["metadata"]["name"].clone();
    deployment["metadata"]["labels"].as_object_mut().unwrap().remove("anneal.dev/rollout");
    let applied = case.plan().actions.into_iter().any(|action| match action {
        anneal_core::plan::Action::Apply(object) => object.body["metadata"]["name"] == name,
        anneal_core::plan::Action::Create(_)
        | anneal_core::plan::Action::Patch(_)
        | anneal_core::plan::Action::Delete { .. } => false,
    });
    assert!(applied, "they are put right");
}

#[test]
fn a_gateway_that_cannot_be_read_is_no_trouble_once_it_took_the_route() {
    let mut case = case(healthy());
    case.versions.truncate(1);
    case.gateway = GatewayState::Unknown("forbidden".into());
    let ready = |case: &RolloutCase| {
        let conditions = case.plan().status.conditions;
        conditions.iter().find(|condition| condition.type_ == "Ready").unwrap().status.clone()
    };
    assert_eq!(ready(&case), "True");
    case.children.route.as_mut().unwrap()["status"] = Value::Null;
    assert_eq!(ready(&case), "False");
}

#[test]
fn what_a_former_rollout_of_this_name_left_is_taken_back() {
    let former = json!([{"kind": "ModelRollout", "name": "ads", "uid": "uid-former", "controller": true}]);
    for (owners, weight) in [(json!([]), 1), (former, 1)] {
        let mut case = case(healthy());
        let route = case.children.route.as_mut().unwrap();
        route["metadata"]["ownerReferences"] = owners;
        route["spec"]["rules"][0]["backendRefs"][0]["weight"] = weight.into();
        assert!(cases::route_of(&case.plan()).is_some(), "it is written as this one wants it");
    }
}

#[test]
fn the_oldest_of_many_rejected_versions_does_not_come_back() {
    let mut status = healthy();
    status["stable"] = cases::reference(1);
    status["rejected"] = (100..164).map(cases::reference).collect();
    let mut case = case(status);
    // Version 2 was rejected before all of them: only its mark says so.
    case.versions[1].metadata.annotations =
        Some([("rolled-back-in.anneal.dev/ads".to_owned(), "true".to_owned())].into());
    let plan = case.plan();
    assert_eq!(
        (plan.status.phase, plan.status.candidate, plan.status.rejected.len()),
        (P::Healthy, None, 64)
    );
    let unmarks = plan.actions.iter().any(|action| match action {
        Action::Apply(object) => object.key.name == "ads-v20261121.2",
        Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => false,
    });
    assert!(!unmarks, "{:?}", plan.actions);
}

#[test]
fn a_status_that_was_lost_remembers_as_many_rejected_versions_as_it_may_hold() {
    let mut case = case(json!({}));
    for number in 100..200 {
        let mut version = cases::version(number, Some(1)).unwrap();
        version.metadata.annotations =
            Some([("rolled-back-in.anneal.dev/ads".to_owned(), "true".to_owned())].into());
        case.versions.push(version);
    }
    let status = case.plan().status;
    assert_eq!((status.rejected.len(), status.rejected[19].version.version.as_str()), (20, "v20261121.199"));
}

#[test]
fn a_canary_that_nobody_answers_for_is_rolled_back_at_once() {
    let mut case = case(cases::moving("Canary", 20));
    case.read = Read::Silence;
    case.children.deployments[1]["status"]["readyReplicas"] = 0.into();
    let status = case.plan().status;
    assert_eq!(
        (status.phase, status.decision.unwrap().reason.as_str()),
        (P::RolledBack, "CandidateUnavailable")
    );
}

#[test]
fn nor_is_one_left_in_a_bake_or_an_experiment_that_nobody_answers_for() {
    let mut bake = cases::moving("Baking", 0);
    (bake["stable"], bake["previous"], bake["candidate"]) =
        (cases::reference(2), cases::reference(1), Value::Null);
    let experiment = cases::moving("Experiment", 50);
    for status in [bake, experiment] {
        let mut case = RolloutCase::new(status.clone()).unwrap();
        let strategy = &mut case.rollout.spec.strategy;
        strategy.bake = Some(
            serde_json::from_value(json!({"duration": "1h", "rollbackTriggers": ["error_rate"]})).unwrap(),
        );
        let experiment = json!({"split": 50, "duration": "1d", "primary": "error_rate"});
        strategy.experiment = Some(serde_json::from_value(experiment).unwrap());
        case.rollout.spec.judge = serde_json::from_value(json!({"evidence": "sequential"})).unwrap();
        case.settle_children();
        let second = "ads-v20261121-2";
        let lost = case.children.deployments.iter_mut().find(|of| of["metadata"]["name"] == second).unwrap();
        lost["status"]["readyReplicas"] = 0.into();
        let decided = case.plan().status;
        let reason = decided.decision.as_ref().map(|decision| decision.reason.as_str());
        assert_eq!((decided.phase, reason), (P::RolledBack, Some("CandidateUnavailable")), "{status}");
        assert_eq!(decided.stable.unwrap().version, "v20261121.1");
    }
}

#[test]
fn a_candidate_that_was_taken_back_may_be_asked_for_again() {
    let mut case = case(cases::moving("Canary", 20));
    case.rollout.spec.candidate = serde_json::from_value(json!({"version": "v20261121.7"})).unwrap();
    let status = case.plan().status;
    assert_eq!((status.phase, status.rejected.as_slice()), (P::RolledBack, [].as_slice()));
}

#[test]
fn nothing_is_ready_before_the_route_is_accepted() {
    let refused = json!({"parents": [{"conditions": [{"type": "Accepted", "status": "False",
        "reason": "NotAllowedByListeners", "message": "no", "observedGeneration": 1}]}]});
    for (route, state) in [(Value::Null, "Reconciling"), (refused, "Stalled")] {
        let mut case = case(healthy());
        case.versions.truncate(1);
        case.children.route.as_mut().unwrap()["status"] = route;
        let conditions = case.plan().status.conditions;
        let told = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        assert_eq!((told("Ready").status.as_str(), told(state).status.as_str()), ("False", "True"));
        assert_eq!(told(state).reason, "RouteNotAccepted");
    }
}

#[test]
fn a_clock_that_was_ahead_does_not_stop_the_judge() {
    let mut status = cases::moving("Canary", 20);
    // The last leader's clock was ten minutes ahead.
    status["trafficAcceptedAt"] = cases::ago(-600).into();
    status["stepStartedAt"] = cases::ago(-600).into();
    let mut case = case(status);
    case.read = Read::Errors(0.5, 1000.0);
    assert_eq!(case.plan().status.phase, P::RolledBack, "fresh numbers are fresh");
    case.read = Read::Errors(0.0, 1000.0);
    let Wake::At(wake) = case.plan().wake else { panic!("someone must look again") };
    assert!(wake.duration_since(case.now) <= SignedDuration::from_secs(60), "{wake}");
}

#[test]
fn what_was_refused_stays_told_until_it_went_through() {
    let mut case = case(healthy());
    case.versions.truncate(1);
    case.rollout.spec.serving.image = "serve:2".into();
    let told = json!([
        {"type": "Ready", "status": "False", "reason": "Refused", "message": "no", "lastTransitionTime": cases::ago(5)},
        {"type": "Reconciling", "status": "False", "reason": "Refused", "message": "no", "lastTransitionTime": cases::ago(5)},
        {"type": "Stalled", "status": "True", "reason": "Refused", "message": "no", "lastTransitionTime": cases::ago(5)},
    ]);
    case.rollout.status.as_mut().unwrap().conditions = serde_json::from_value(told).unwrap();
    let reason = |case: &RolloutCase| {
        let conditions = case.plan().status.conditions;
        conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap().reason.clone()
    };
    assert_eq!(reason(&case), "Refused");
    case.settle_children();
    assert_eq!(reason(&case), "Serving");
}

#[test]
fn a_first_version_that_never_gets_ready_says_so() {
    let mut status = cases::moving("Preparing", 0);
    status["stable"] = Value::Null;
    status["candidate"] = cases::reference(1);
    status["stepStartedAt"] = cases::ago(121).into();
    let mut case = case(status);
    case.versions.truncate(1);
    case.children.deployments.clear();
    let status = case.plan().status;
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
    assert_eq!((status.phase, stalled.reason.as_str()), (P::Preparing, "ProgressDeadlineExceeded"));
    // Pods of one before it, that nobody takes away while nobody serves, hold nothing up.
    let mut second = cases::moving("Preparing", 0);
    second["stable"] = Value::Null;
    second["stepStartedAt"] = cases::ago(121).into();
    let children = RolloutCase::new(cases::moving("Canary", 20)).unwrap().children;
    let mut case = self::case(second);
    case.children.deployments = children.deployments;
    for deployment in &mut case.children.deployments {
        deployment["status"] = serde_json::json!({"replicas": 1, "readyReplicas": 0});
    }
    let status = case.plan().status;
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
    assert_eq!((status.phase, stalled.reason.as_str()), (P::Preparing, "ProgressDeadlineExceeded"));
}

#[test]
fn time_in_which_people_keep_a_ready_version_waiting_is_none_that_its_pods_take() {
    let mut paused = case(cases::moving("Preparing", 0));
    paused.rollout.status.as_mut().unwrap().step_started_at =
        serde_json::from_value(json!(cases::ago(3000))).unwrap();
    paused.rollout.spec.paused = true;
    let mut unable = paused.clone();
    (unable.rollout.spec.paused, unable.rollout.spec.strategy.shadow) =
        (false, Some(serde_json::from_value(json!({"percent": 100, "duration": "1h"})).unwrap()));
    let class = json!({"metadata": {"name": "c"}, "status": {"supportedFeatures": [{"name": "HTTPRoutePortRedirect"}]}});
    unable.features = rollout::Features::of(&class);
    for mut case in [paused, unable] {
        let status = case.plan().status;
        assert_eq!(status.phase, P::Preparing, "{:?}", status.decision);
        case.rollout.status = Some(status.clone());
        assert_eq!(case.plan().status, status, "no look is a write");
        case.lose_a_pod(2);
        for (seconds, phase) in [(1, P::Preparing), (118, P::Preparing), (3, P::RolledBack)] {
            case.now += SignedDuration::from_secs(seconds);
            let status = case.plan().status;
            assert_eq!(status.phase, phase, "{:?}", status.decision);
            case.rollout.status = Some(status);
        }
    }
}

#[test]
fn queries_ask_for_this_model_alone() {
    let case = case(cases::moving("Canary", 20));
    let queries = anneal_core::rollout::queries(&case.rollout, case.now);
    for part in ["model=\"ads\"", "version=\"v20261121.2\"", "namespace=\"team-a\""] {
        assert!(queries.iter().all(|query| query.expression.contains(part)), "{part}: {queries:?}");
    }
}

#[test]
fn a_route_that_someone_changed_starts_the_clock_again() {
    let mut case = case(cases::moving("Canary", 20));
    case.read = Read::Errors(0.0, 3.0);
    case.children.route.as_mut().unwrap()["spec"]["rules"][0]["backendRefs"][0]["weight"] = 1.into();
    let plan = case.plan();
    assert!(cases::route_of(&plan).is_some());
    assert_eq!((plan.status.phase, plan.status.traffic_accepted_at), (P::Canary, None));
}

#[test]
fn no_status_grows_beyond_what_one_can_read() {
    let long = |part: &str| format!("{part}{{code=~\"{}\"}}", "5..|".repeat(250));
    let mut status = cases::moving("Canary", 20);
    cases::remember_most(&mut status);
    status["holdingSince"] = cases::ago(130).into();
    let mut case = RolloutCase::new(status).unwrap();
    let metric = |number: usize| {
        json!({"name": format!("{}{number:02}", "m".repeat(61)), "window": "40s",
            "ratio": {"bad": long("bad"), "total": long("all"), "max": 0.01}})
    };
    case.rollout.spec.metrics =
        (0..16).map(|number| serde_json::from_value(metric(number)).unwrap()).collect();
    let names = case.rollout.spec.metrics.iter().map(|metric| metric.name.clone());
    case.rollout.spec.strategy.rollback_triggers = names.collect();
    for read in [Read::Silence, Read::Nothing, Read::Errors(0.5, 1000.0), Read::Errors(0.0, 1000.0)] {
        case.read = read;
        let mut status = case.plan().status;
        status.waiting_rollback = status.decision.clone();
        let values =
            (0..48).map(|number| (format!("{}{number:02}", "f".repeat(46)), 0.123_456_789_012_345_67));
        let baseline = |name: &str| Baseline {
            metric: name.repeat(63),
            of: "0".repeat(16),
            values: values.clone().collect(),
        };
        status.baselines = vec![baseline("a")];
        let length = serde_json::to_string(&status).unwrap().len();
        assert!(length < 32 * 1024, "{read:?}: {length} bytes");
    }
}

#[test]
fn pods_that_could_not_be_listed_are_not_taken_for_none() {
    let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    let judge = json!({"evidence": "sequential", "maxHold": "2m", "onError": {"action": "Rollback"}});
    case.rollout.spec.judge = serde_json::from_value(judge).unwrap();
    case.children.pods_listed = rollout::Listed::Failed;
    let known = json!({"version": "what was known"});
    case.rollout.status.as_mut().unwrap().judge = Some(known.clone());
    for (seconds, phase) in [(0, P::Canary), (119, P::Canary), (2, P::RolledBack)] {
        case.now += SignedDuration::from_secs(seconds);
        let status = case.plan().status;
        assert_eq!((status.phase, status.judge.as_ref()), (phase, Some(&known)), "{seconds}");
        let said = status.conditions.iter().find(|told| told.type_ == "MetricsAvailable");
        assert!(phase != P::Canary || said.unwrap().message == "the pods could not be listed");
        case.rollout.status = Some(status);
    }
    assert_eq!(case.rollout.status.unwrap().decision.unwrap().reason, "HeldTooLong");
    // Plain thresholds need no pods.
    let mut plain = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
    plain.children.pods_listed = rollout::Listed::Failed;
    assert_eq!(plain.plan().status.weight, Weight::FULL);
}

#[test]
fn a_threshold_that_chance_breaks_is_told_once_a_step() {
    let told = |status: &anneal_crds::ModelRolloutStatus| {
        let condition = status.conditions.iter().find(|condition| condition.type_ == "Detectability")?;
        Some((condition.reason.clone(), condition.message.clone()))
    };
    let mut few = case(cases::moving("Canary", 20));
    few.read = Read::Errors(0.0, 30.0);
    few.rollout.spec.strategy.progression = serde_json::from_value(
        json!({"canary": {"initial": 20, "increment": 80, "interval": "1h", "minRequests": 20}}),
    )
    .unwrap();
    let plan = few.plan();
    let status = few.follow(plan);
    let (reason, message) = told(&status).unwrap();
    assert_eq!(reason, "ChanceBreaches");
    assert!(
        message.contains("about 30 requests in its window of 40s")
            && message.contains("at 14 % of all looks"),
        "{message}"
    );
    few.read = Read::Errors(0.0, 35.0);
    assert_eq!(told(&few.plan().status), told(&status), "its words do not change with each look");

    let mut many = few.clone();
    many.rollout.status = case(cases::moving("Canary", 20)).rollout.status;
    many.read = Read::Errors(0.0, 1_000_000.0);
    assert_eq!(told(&many.plan().status), None);
    let mut next = few.clone();
    next.read = Read::Errors(0.0, 1000.0);
    next.rollout.spec.strategy.progression = serde_json::from_value(
        json!({"canary": {"initial": 20, "increment": 80, "interval": "20s", "minRequests": 20}}),
    )
    .unwrap();
    let status = next.plan().status;
    assert_eq!((status.weight, told(&status)), (anneal_crds::Weight::FULL, None), "each step has its own");
}
