//! Upgrades of the operator, with rollouts on their way: no decision changes, and no pod that serves is replaced.
//!
//! `upgrade/<release>.json` is what a release left in a cluster, and what it decided next. Every later one must go on from there
//! in the same way. A new release is recorded with `UPGRADE_RECORD=1 cargo test -p anneal-tests --test core upgrade`.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::path::PathBuf;

use anneal_core::{
    object::Kind,
    plan::{Action, Plan},
};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P};
use anneal_tests::cases::{self, RolloutCase};
use serde::{Deserialize, Serialize};
use serde_json::{Value, from_value, json, to_value};

use crate::rollout_sequential::arms::World;

/// The release of this checkout.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// A rollout in the middle of its way, as a release left it, and what followed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Left {
    /// What it is about.
    about: String,
    rollout: Value,
    deployments: Vec<Value>,
    services: Vec<Value>,
    route: Value,
    /// Requests a second of both versions, and one in how many was bad.
    arms: [(i64, i64); 2],
    /// Seconds since the rollout began.
    seconds: u32,
    /// What the same release decided in the next seconds: phase, weight and reason of each that was new.
    then: Vec<(u32, String)>,
}

/// A world that is recorded: name, requests, terms and how many seconds have passed.
type Begun = (&'static str, [(i64, i64); 2], Value, u32);

fn worlds() -> Vec<Begun> {
    vec![
        ("a healthy canary", [(80, 200), (20, 200)], json!({}), 11),
        ("a canary with more errors than stable", [(80, 200), (20, 8)], json!({}), 3),
        ("an incident of both", [(80, 4), (20, 4)], json!({"tolerance": 1.5}), 12),
        ("a canary that advances on evidence", [(80, 20), (20, 20)], json!({"advance": "Evidence"}), 15),
        ("a canary without requests", [(80, 200), (0, 1)], json!({}), 9),
        ("a gateway that ignores the weight", [(90, 200), (10, 200)], json!({}), 8),
    ]
}

/// What a status decides, in short.
fn decision(status: &ModelRolloutStatus) -> String {
    let reason = status.decision.as_ref().map_or("", |decision| decision.reason.as_str());
    format!("{} {} {reason}", status.phase.name(), status.weight)
}

/// Decisions of the next seconds.
fn follow(world: &mut World) -> Vec<(u32, String)> {
    let mut decisions = vec![];
    let mut before = decision(world.case.rollout.status.as_ref().unwrap());
    for second in 1..=200 {
        let status = world.tick();
        let now = decision(&status);
        if now != before && status.weight == Weight::FULL {
            // Nobody asks the other one any more.
            let [_, candidate] = world.traffic[0].1;
            world.turn([(0, 1), candidate]);
        }
        if now != before {
            decisions.push((second, now.clone()));
        }
        before = now;
    }
    decisions
}

fn record((about, arms, terms, seconds): Begun) -> Left {
    let mut world = World::new(arms, terms);
    (0..seconds).for_each(|_| drop(world.tick()));
    // A tick that changes nothing else is not recorded: what the cluster has is what was written last.
    let children = &world.case.children;
    Left {
        about: about.to_owned(),
        rollout: to_value(&world.case.rollout).unwrap(),
        deployments: children.deployments.clone(),
        services: children.services.clone(),
        route: children.route.clone().unwrap(),
        arms,
        seconds,
        then: follow(&mut world.clone()),
    }
}

/// The cluster as it was left.
fn restore(left: &Left) -> World {
    let mut world = World::new(left.arms, json!({}));
    world.case.now += jiff::SignedDuration::from_secs(left.seconds.into());
    world.case.rollout = from_value(left.rollout.clone()).unwrap();
    world.case.children.deployments.clone_from(&left.deployments);
    world.case.children.services.clone_from(&left.services);
    world.case.children.route = Some(left.route.clone());
    world
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/core/upgrade")
}

/// What every release left that is on record.
fn releases() -> Vec<(String, Vec<Left>)> {
    let own = folder().join(format!("{RELEASE}.json"));
    if std::env::var_os("UPGRADE_RECORD").is_some() {
        let left: Vec<Left> = worlds().into_iter().map(record).collect();
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(&own, format!("{}\n", serde_json::to_string_pretty(&left).unwrap())).unwrap();
    }
    assert!(
        own.exists(),
        "release {RELEASE} is not on record: UPGRADE_RECORD=1 cargo test -p anneal-tests --test core upgrade"
    );
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    files
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            (file.file_stem().unwrap().to_string_lossy().into_owned(), serde_json::from_str(&text).unwrap())
        })
        .collect()
}

fn touches_pods(plan: &Plan<ModelRolloutStatus>, case: &RolloutCase) -> Vec<String> {
    let templates = |name: &str| {
        let mut all = case.children.deployments.iter();
        all.find(|seen| seen["metadata"]["name"] == name).map(|seen| seen["spec"]["template"].clone())
    };
    let of = |action: &Action| match action {
        Action::Apply(object) | Action::Create(object) if object.key.kind == Kind::Deployment => {
            let seen = templates(&object.key.name);
            (seen.as_ref() != Some(&object.body["spec"]["template"])).then(|| object.key.name.clone())
        }
        Action::Delete { key, .. } if key.kind == Kind::Deployment => Some(key.name.clone()),
        Action::Apply(_) | Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => None,
    };
    plan.actions.iter().filter_map(of).collect()
}

#[test]
fn what_another_release_left_is_gone_on_with_in_the_same_way() {
    for (release, all) in releases() {
        for left in all {
            let mut world = restore(&left);
            // Nothing is lost by reading and writing it.
            let read = to_value(&world.case.rollout).unwrap();
            assert_eq!(read["status"], left.rollout["status"], "{release}: {}", left.about);
            let plan = world.plan();
            assert_eq!(touches_pods(&plan, &world.case), Vec::<String>::new(), "{release}: {}", left.about);
            assert_eq!(follow(&mut world), left.then, "{release}: {}", left.about);
        }
    }
}

#[test]
fn the_records_are_of_decisions() {
    let (_, all) = releases().pop().unwrap();
    let ends = |about: &str| {
        let left = all.iter().find(|left| left.about == about).unwrap();
        left.then.iter().map(|(_, decision)| decision.as_str()).collect::<Vec<_>>().join(", ")
    };
    assert!(ends("a healthy canary").contains("Healthy"), "{}", ends("a healthy canary"));
    let faulty = ends("a canary with more errors than stable");
    assert!(faulty.contains("ThresholdBreached"), "{faulty}");
    assert!(ends("a canary without requests").contains("HeldTooLong"));
}

/// Every object with a field that this release does not know.
fn with_news(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(with_news);
            fields.insert("news".to_owned(), json!({"of": "a later release"}));
        }
        Value::Array(items) => items.iter_mut().for_each(with_news),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn what_a_later_release_adds_to_a_status_changes_no_decision() {
    for left in worlds().into_iter().map(record) {
        let mut later = left.clone();
        with_news(&mut later.rollout["status"]);
        assert_eq!(follow(&mut restore(&later)), left.then, "{}", left.about);
    }
}

#[test]
fn a_later_release_comes_and_goes_and_its_own_state_waits_for_it() {
    let [about, ..] = ["a canary with more errors than stable"];
    let world = worlds().into_iter().find(|world| world.0 == about).unwrap();
    let left = record(world);
    let mut later = left.clone();
    later.rollout["status"]["judge"]["state"]["schema"] = 2.into();
    let mut here = restore(&later);
    for _ in 0..60 {
        let status = here.tick();
        assert_eq!((status.phase, status.weight), (P::Canary, anneal_crds::Weight::from_percent(20)));
        assert_eq!(status.judge.unwrap(), later.rollout["status"]["judge"], "it is kept as it is");
    }
    // The later release goes on from its own state, here with what it knows by the same name.
    let mut judge = here.case.rollout.status.clone().unwrap().judge.unwrap();
    judge["state"]["schema"] = 1.into();
    here.case.rollout.status.as_mut().unwrap().judge = Some(judge);
    let decisions = follow(&mut here);
    assert!(
        decisions
            .first()
            .is_some_and(|(second, decision)| *second < 5 && decision.contains("ThresholdBreached")),
        "{decisions:?}"
    );
}

/// A rollout at rest whose pods another release made, which gave them one argument more.
fn made_by_another() -> RolloutCase {
    let status = json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1), "weight": 100,
        "stepStartedAt": cases::ago(600), "trafficAcceptedAt": cases::ago(600)});
    let mut case = RolloutCase::new(status).unwrap();
    case.versions.truncate(1);
    for deployment in &mut case.children.deployments {
        deployment["metadata"]["annotations"]["anneal.dev/release"] = "0.0.9".into();
        deployment["metadata"]["annotations"]["anneal.dev/applied"] = "of-another-release".into();
        let args = &mut deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        args.as_array_mut().unwrap().push("--of-old=1".into());
    }
    case
}

fn template(plan: &Plan<ModelRolloutStatus>) -> Option<Value> {
    plan.actions.iter().find_map(|action| match action {
        Action::Apply(object) if object.key.kind == Kind::Deployment => {
            Some(object.body["spec"]["template"].clone())
        }
        Action::Apply(_) | Action::Create(_) | Action::Patch(_) | Action::Delete { .. } => None,
    })
}

#[test]
fn pods_of_another_release_serve_on_until_the_spec_asks_for_others() {
    let mut case = made_by_another();
    let old = case.children.deployments[0]["spec"]["template"].clone();
    let plan = case.plan();
    assert_eq!(template(&plan), Some(old), "what is around the pods is of this release");
    case.perform(&plan.actions);
    assert_eq!(template(&case.plan()), None, "and is written once");
    // An owner that is no longer wanted goes with that, and takes nothing along when it goes.
    case.rollout.spec.deletion_policy = from_value("Delete".into()).unwrap();
    let plan = case.plan();
    case.perform(&plan.actions);
    assert!(!case.children.deployments[0]["metadata"]["ownerReferences"].is_null());
    case.rollout.spec.deletion_policy = from_value("Retain".into()).unwrap();
    let plan = case.plan();
    case.perform(&plan.actions);
    assert!(case.children.deployments[0]["metadata"]["ownerReferences"].is_null());
    assert!(case.children.deployments[0].to_string().contains("--of-old"));
    // What is no part of the pods is put right, around them.
    let mut scaled = made_by_another();
    scaled.children.deployments[0]["spec"]["replicas"] = 1.into();
    let old = scaled.children.deployments[0]["spec"]["template"].clone();
    assert_eq!(template(&scaled.plan()), Some(old));
    // How many there are, when they count as late and what they are warmed up with changes no pod.
    let mut more = made_by_another();
    more.rollout.spec.serving.replicas = 3;
    more.rollout.spec.serving.progress_deadline = "7m".parse().unwrap();
    assert!(template(&more.plan()).unwrap().to_string().contains("--of-old"));
    // Another image does, and then they are of this release.
    let mut image = made_by_another();
    image.rollout.spec.serving.image = "serve:2".into();
    let new = template(&image.plan()).unwrap();
    assert!(new.to_string().contains("serve:2") && !new.to_string().contains("--of-old"), "{new}");
}

#[test]
fn a_hand_that_changes_pods_of_this_release_is_corrected() {
    let mut case = made_by_another();
    case.children.deployments[0]["metadata"]["annotations"]["anneal.dev/release"] = RELEASE.into();
    assert!(!template(&case.plan()).unwrap().to_string().contains("--of-old"));
    // Whoever takes the mark away asks for pods of this release.
    let mut asked = made_by_another();
    asked.children.deployments[0]["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .remove("anneal.dev/asked-for");
    assert!(!template(&asked.plan()).unwrap().to_string().contains("--of-old"));
}
