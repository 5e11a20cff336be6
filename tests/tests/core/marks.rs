//! What is marked on ModelVersions: which of them a rollout needs, so that nobody deletes them by accident.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{
    object::Kind,
    plan::Action,
    rollout::{let_go, rivals},
};
use anneal_crds::{ModelVersion, model_rollout::RolloutPhase, names};
use anneal_tests::cases::{self, Read, RolloutCase};
use serde_json::{Value, from_value, json};

/// The numbers of the versions that are marked so, once the plan is performed.
fn marked(case: &RolloutCase, kind: &str) -> Vec<u32> {
    let mut case = case.clone();
    let plan = case.plan();
    case.follow(plan);
    let key = format!("{kind}/{}", cases::NAME);
    let has = |version: &ModelVersion| {
        version.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(&key))
    };
    (1..).zip(&case.versions).filter(|(_, version)| has(version)).map(|(number, _)| number).collect()
}

fn used(case: &RolloutCase) -> Vec<u32> {
    marked(case, names::ANNOTATION_USED_IN)
}

/// Five versions, of which 4 is stable, 3 was before it, and 1 and 2 long ago.
fn healthy() -> RolloutCase {
    let status = json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(4), "weight": 100,
        "previous": cases::reference(3), "history": [cases::reference(2), cases::reference(3)],
        "rejected": [cases::reference(5)],
        "stepStartedAt": cases::ago(600), "trafficAcceptedAt": cases::ago(600)});
    let mut case = RolloutCase::new(status).unwrap();
    case.versions.extend((3..=5).map(|number| cases::version(number, Some(number - 1)).unwrap()));
    case
}

#[test]
fn what_serves_what_may_come_back_and_what_is_asked_for_is_in_use() {
    let mut case = healthy();
    assert_eq!(used(&case), [2, 3, 4], "neither what was long ago nor what was rejected");
    case.rollout.spec.candidate = from_value(json!({"version": "v20261121.1"})).unwrap();
    assert!(used(&case).contains(&1));
    let moving = RolloutCase::new(cases::moving("Shadow", 0)).unwrap();
    assert_eq!((used(&moving), marked(&moving, names::ANNOTATION_STABLE_IN)), (vec![1, 2], vec![1]));
}

#[test]
fn the_mark_goes_when_a_version_can_no_longer_come_back() {
    let mut case = healthy();
    let plan = case.plan();
    case.perform(&plan.actions);
    let status = case.rollout.status.as_mut().unwrap();
    status.history.remove(0);
    assert_eq!(used(&case), [3, 4]);
    // Of a status that was lost nothing is known yet, and the marks stay.
    case.rollout.status = None;
    assert!(used(&case).contains(&4));
}

/// A version in its bake whose marks are written, with or without a bake to begin anew.
fn baking(bake: bool) -> RolloutCase {
    let mut status = cases::moving("Baking", 0);
    (status["stable"], status["previous"]) = (cases::reference(2), cases::reference(1));
    status["candidate"].take();
    let mut case = RolloutCase::new(status).unwrap();
    case.rollout.spec.strategy.bake =
        Some(from_value(json!({"duration": "1h", "rollbackTriggers": ["error_rate"]})).unwrap());
    let plan = case.plan();
    case.follow(plan);
    if !bake {
        case.rollout.spec.strategy.bake = None;
    }
    case
}

#[test]
fn a_bake_whose_status_was_lost_begins_anew_and_keeps_its_way_back() {
    let mut case = baking(true);
    let marks = |case: &RolloutCase| {
        [names::ANNOTATION_STABLE_IN, names::ANNOTATION_PREVIOUS_IN].map(|kind| marked(case, kind))
    };
    assert_eq!(marks(&case), [vec![2], vec![1]]);
    case.rollout.status = None;
    case.rollout.metadata.uid = Some("uid-next".to_owned());
    let plan = case.plan();
    assert!(!plan.actions.iter().any(|action| matches!(action, Action::Delete { .. })), "{:?}", plan.actions);
    let status = case.follow(plan);
    let version = |known: &Option<anneal_crds::VersionRef>| known.clone().unwrap().version;
    assert_eq!(
        (status.phase, version(&status.stable), version(&status.previous)),
        (RolloutPhase::Baking, "v20261121.2".to_owned(), "v20261121.1".to_owned())
    );
    let told = status.decision.unwrap();
    assert!(told.reason == "Recovered" && told.message.contains("v20261121.1 is kept"), "{}", told.message);
    // And it is a bake like any other.
    case.read = Read::Errors(0.5, 1000.0);
    let tick = || {
        case.now += jiff::SignedDuration::from_secs(5);
        let plan = case.plan();
        case.follow(plan)
    };
    let (_, status) = cases::until(4, tick, |status| status.phase == RolloutPhase::RolledBack);
    assert_eq!((status.phase, version(&status.stable)), (RolloutPhase::RolledBack, "v20261121.1".to_owned()));
    assert_eq!(marks(&case), [vec![1], vec![]]);
}

/// The status is lost, and the pods of what serves are not there yet.
fn restored() -> RolloutCase {
    let mut case = baking(true);
    case.rollout.status = None;
    for deployment in &mut case.children.deployments {
        deployment["status"]["readyReplicas"] = 0.into();
    }
    case
}

#[test]
fn what_serves_has_time_to_come_back_after_a_restore() {
    let mut case = restored();
    for phase in [RolloutPhase::Baking, RolloutPhase::Baking] {
        let plan = case.plan();
        let status = case.follow(plan);
        assert_eq!((status.phase, status.rejected.len()), (phase, 0), "{:?}", status.decision);
        case.children
            .deployments
            .iter_mut()
            .for_each(|deployment| deployment["status"]["readyReplicas"] = 0.into());
    }
    case.now += case.rollout.spec.serving.progress_deadline.get() + jiff::SignedDuration::from_secs(1);
    case.children.deployments.iter_mut().for_each(|deployment| {
        let is_previous = deployment["metadata"]["name"].as_str().unwrap().ends_with('1');
        deployment["status"]["readyReplicas"] = if is_previous { 2 } else { 0 }.into();
    });
    let plan = case.plan();
    assert_eq!(case.follow(plan).phase, RolloutPhase::RolledBack, "it does not come");
}

#[test]
fn the_mark_of_the_way_back_stays_until_it_is_known_who_serves() {
    let mut case = restored();
    let stable = case.versions.remove(1);
    let plan = case.plan();
    case.follow(plan);
    let mut without = case.clone();
    without.versions.push(stable);
    assert_eq!(marked(&without, names::ANNOTATION_PREVIOUS_IN), [1]);
    let plan = without.plan();
    assert_eq!(without.follow(plan).phase, RolloutPhase::Baking);
}

#[test]
fn an_abort_that_was_spent_does_not_end_a_bake_that_begins_anew() {
    let mut case = restored();
    let all = case.rollout.metadata.annotations.get_or_insert_default();
    all.insert(names::ANNOTATION_ABORT.into(), "v20261121.2: alert X fires".into());
    all.insert(names::ANNOTATION_RETRY.into(), "v20261121.2: it was the node".into());
    let plan = case.plan();
    let status = case.follow(plan);
    assert_eq!((status.phase, status.rejected.len()), (RolloutPhase::Baking, 0), "{:?}", status.decision);
    let all = case.rollout.metadata.annotations.get_or_insert_default();
    all.insert(names::ANNOTATION_ABORT.into(), "v20261121.2: really".into());
    case.children
        .deployments
        .iter_mut()
        .for_each(|deployment| deployment["status"]["readyReplicas"] = 2.into());
    let plan = case.plan();
    assert_eq!(case.follow(plan).phase, RolloutPhase::RolledBack);
}

#[test]
fn without_a_bake_a_version_that_was_in_one_serves_on() {
    let mut case = baking(false);
    case.rollout.status = None;
    let plan = case.plan();
    let status = case.follow(plan);
    assert_eq!(
        (status.phase, status.stable.unwrap().version),
        (RolloutPhase::Healthy, "v20261121.2".to_owned())
    );
    assert_eq!(marked(&case, names::ANNOTATION_PREVIOUS_IN), Vec::<u32>::new());
}

#[test]
fn a_rollout_that_is_gone_lets_its_versions_go_and_leaves_what_finds_them_again() {
    let mut case = healthy();
    let plan = case.plan();
    case.perform(&plan.actions);
    let others =
        [("used-in.anneal.dev/second", "true"), ("stable-in.anneal.dev/second", "true"), ("mine", "kept")];
    let annotations = case.versions[3].metadata.annotations.get_or_insert_default();
    annotations.extend(others.map(|(key, text)| (key.to_owned(), text.to_owned())));
    let actions = let_go(cases::NAMESPACE, cases::NAME, &case.versions);
    let written: Vec<(&str, &Value)> = actions
        .iter()
        .map(|action| match action {
            Action::Apply(object) => (object.key.name.as_str(), &object.body["metadata"]["annotations"]),
            Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => unreachable!("{action:?}"),
        })
        .collect();
    let stays = json!({"stable-in.anneal.dev/ads": "true", "used-in.anneal.dev/second": "true", "stable-in.anneal.dev/second": "true"});
    assert_eq!(
        written,
        [("ads-v20261121.2", &json!({})), ("ads-v20261121.3", &json!({})), ("ads-v20261121.4", &stays)]
    );
    assert!(
        actions
            .iter()
            .all(|action| matches!(action, Action::Apply(object) if object.key.kind == Kind::ModelVersion))
    );
    assert_eq!(rivals(&case.rollout, &case.versions), ["second".to_owned()].into());
    case.perform(&actions);
    assert_eq!(let_go(cases::NAMESPACE, cases::NAME, &case.versions), []);
}

#[test]
fn what_serves_stays_when_the_rollout_goes_unless_it_says_otherwise() {
    for (policy, owned) in [(None, false), (Some("Retain"), false), (Some("Delete"), true)] {
        let mut case = RolloutCase::new(cases::moving("Canary", 20)).unwrap();
        if let Some(policy) = policy {
            case.rollout.spec.deletion_policy = from_value(policy.into()).unwrap();
        }
        let plan = case.plan();
        case.perform(&plan.actions);
        let route = case.children.route.iter();
        let children: Vec<&Value> =
            case.children.deployments.iter().chain(&case.children.services).chain(route).collect();
        assert_eq!(children.len(), 5);
        let is_owned = |child: &&Value| !child["metadata"]["ownerReferences"].is_null();
        assert_eq!(
            children.iter().filter(|child| is_owned(child)).count(),
            if owned { 5 } else { 0 },
            "{policy:?}"
        );
        // The next one of that name takes them for its own.
        case.rollout.metadata.uid = Some("uid-next".to_owned());
        let again = case.plan();
        let conflicts = again.status.conditions.iter().any(|condition| condition.reason == "NameConflict");
        assert!(!conflicts, "{policy:?}");
    }
}

/// Every object of Anneal was deleted and made again from files, without what the operator had written on it.
fn make_again(case: &mut RolloutCase) {
    case.rollout.status = None;
    case.rollout.metadata.uid = Some("uid-next".to_owned());
    for version in &mut case.versions {
        version.metadata.annotations =
            Some([(names::ANNOTATION_APPROVED_BY.to_owned(), "ann".to_owned())].into());
    }
}

fn known(status: &anneal_crds::ModelRolloutStatus) -> (&str, Vec<&str>) {
    let rejected = status.rejected.iter().map(|rejection| rejection.version.version.as_str());
    (status.stable.as_ref().map_or("", |stable| &stable.version), rejected.collect())
}

#[test]
fn what_serves_says_so_itself_where_nothing_else_does() {
    let mut case = healthy();
    case.goes_on(2);
    make_again(&mut case);
    let all = std::mem::take(&mut case.versions);
    // Records come one by one: first what was rolled back, then one that would be the first here, and then all.
    for versions in
        [vec![], vec![all[4].clone()], vec![all[4].clone(), cases::version(6, None).unwrap()], all]
    {
        case.versions = versions;
        case.rollout.status = None;
        let plan = case.plan();
        let is_theirs = |action: &Action| match action {
            Action::Delete { .. } => true,
            Action::Apply(object) | Action::Create(object) => object.key.kind != Kind::ModelVersion,
            Action::Patch(_) => true,
        };
        let theirs: Vec<_> = plan.actions.iter().filter(|action| is_theirs(action)).collect();
        assert!(theirs.is_empty(), "nothing that serves changes: {theirs:?}");
        let status = case.follow(plan);
        assert_eq!(known(&status), ("v20261121.4", vec!["v20261121.5"]), "{status:?}");
    }
}

#[test]
fn a_bake_is_found_again_by_what_serves_and_one_that_was_given_up_is_not() {
    let mut case = baking(true);
    let plan = case.plan();
    case.follow(plan);
    let mut again = case.clone();
    make_again(&mut again);
    let plan = again.plan();
    let status = again.follow(plan);
    assert_eq!((status.phase, known(&status).0), (RolloutPhase::Baking, "v20261121.2"));
    assert_eq!(status.previous.unwrap().version, "v20261121.1");

    case.read = Read::Errors(0.5, 1000.0);
    let plan = case.plan();
    assert_eq!(case.follow(plan).phase, RolloutPhase::RolledBack);
    let remembers =
        |service: &&Value| !service["metadata"]["annotations"][names::ANNOTATION_REMEMBERS].is_null();
    assert_eq!(
        case.children.services.iter().filter(remembers).count(),
        2,
        "that of the second one is on its way out"
    );
    make_again(&mut case);
    let plan = case.plan();
    assert_eq!(known(&case.follow(plan)), ("v20261121.1", vec!["v20261121.2"]));
}

#[test]
fn what_serves_knows_better_than_marks_of_an_older_backup() {
    let mut case = baking(true);
    case.read = Read::Errors(0.5, 1000.0);
    for phase in [RolloutPhase::RolledBack, RolloutPhase::RolledBack] {
        let plan = case.plan();
        assert_eq!(case.follow(plan).phase, phase);
    }
    let older = baking(true).versions;
    assert_eq!(marked(&case, names::ANNOTATION_ROLLED_BACK_IN), [2]);
    case.versions = older;
    case.rollout.status = None;
    let plan = case.plan();
    assert_eq!(known(&case.follow(plan)), ("v20261121.1", vec!["v20261121.2"]));
}

#[test]
fn a_service_that_has_not_forgotten_yet_is_not_asked() {
    let mut case = healthy();
    case.goes_on(2);
    // Versions 5 and 4 were gone back from in turns, and each Service says so of the other one.
    let mut left = case
        .children
        .services
        .iter()
        .find(|one| one["metadata"]["name"] == "ads-v20261121-4")
        .cloned()
        .unwrap();
    left["metadata"]["name"] = "ads-v20261121-5".into();
    let memory = json!({"stable": cases::reference(5), "rejected": [cases::reference(4)]});
    left["metadata"]["annotations"][names::ANNOTATION_REMEMBERS] = memory.to_string().into();
    case.children.services.push(left);
    make_again(&mut case);
    let mut other = case.clone();
    let plan = case.plan();
    assert_eq!(known(&case.follow(plan)), ("v20261121.4", vec!["v20261121.5"]), "it has the requests");
    // Nor is what another model left under that name.
    other.versions.clear();
    other.rollout.spec.model = "clicks".to_owned();
    let plan = other.plan();
    assert_eq!(known(&other.follow(plan)), ("", vec![]));
}
