//! Rollouts that take their new versions together.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

use std::collections::BTreeMap;

use anneal_core::rollout::Answer;
use anneal_crds::{
    ModelRolloutStatus, Weight,
    model_rollout::{Group, RolloutPhase as P},
};
use anneal_tests::cases::{self, Read, RolloutCase};
use jiff::SignedDuration;
use proptest::{collection::vec, prelude::ProptestConfig, prop_assert, proptest};
use serde_json::json;

/// Members of a group, each with its own rollout of 20 and 100 % and a bake, and all with the same versions to choose from.
struct Members(BTreeMap<&'static str, RolloutCase>);

const ALL: [&str; 3] = ["ads", "bids", "clicks"];

impl Members {
    /// All of them serve version 1, and version 2 is there for those that `has_new` names.
    fn new(has_new: &[&str]) -> Self {
        let member = |name: &'static str| {
            let mut case =
                RolloutCase::new(json!({"phase": "Healthy", "stable": cases::reference(1)})).unwrap();
            case.rollout.metadata.name = Some(name.to_owned());
            case.children = anneal_core::rollout::Children::default();
            case.rollout.spec.group = Some(Group { members: ALL.map(str::to_owned).to_vec() });
            let bake = json!({"duration": "20s", "rollbackTriggers": ["error_rate"]});
            case.rollout.spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
            if !has_new.contains(&name) {
                case.versions.truncate(1);
            }
            case.settle_children();
            (name, case)
        };
        Self(ALL.into_iter().map(member).collect())
    }

    /// One look of one member at the others as they are.
    fn look(&mut self, name: &str) {
        let others = self.0.iter().filter(|(other, _)| **other != name);
        let members = others.map(|(_, case)| case.rollout.clone()).collect();
        let case = self.0.get_mut(name).unwrap();
        case.members = members;
        let late = case.now.duration_since(cases::now()).as_secs_f64();
        let mut answer = case.read.answer();
        if let Answer::Vector(series) = &mut answer {
            let at = series.iter_mut().filter(|one| one.labels.values().any(|part| part == "at"));
            at.for_each(|one| one.value += late);
        }
        let plan = case.plan_with(&answer);
        case.perform(&plan.actions);
        case.rollout.status = Some(plan.status);
        // What was accepted long ago is over.
        case.now += SignedDuration::from_secs(61);
    }

    fn round(&mut self, looks: usize) {
        for _ in 0..looks {
            ALL.into_iter().for_each(|name| self.look(name));
        }
    }

    fn status(&self, name: &str) -> &ModelRolloutStatus {
        self.0[name].rollout.status.as_ref().unwrap()
    }

    fn at(&self, name: &str) -> (P, Weight) {
        (self.status(name).phase, self.status(name).weight)
    }

    fn read(&mut self, name: &str, read: Read) {
        self.0.get_mut(name).unwrap().read = read;
    }
}

/// How far a member has come on the way of version 2.
fn progress(members: &Members, name: &str) -> usize {
    let status = members.status(name);
    match (status.phase, status.weight.to_string().as_str()) {
        (P::Healthy, _) if status.stable.as_ref().unwrap().version.ends_with(".1") => 0,
        (P::Preparing, _) => 0,
        (P::Shadow, _) => 1,
        (P::Canary, "20") => 2,
        (P::Canary, _) => 3,
        (P::Baking, _) => 4,
        (P::Healthy, _) => 5,
        (phase, weight) => panic!("{name} is in {phase:?} at {weight}"),
    }
}

fn skew(members: &Members) -> usize {
    let all = ALL.map(|name| progress(members, name));
    all.iter().max().unwrap() - all.iter().min().unwrap()
}

fn said<'a>(status: &'a ModelRolloutStatus, type_: &str) -> Option<(&'a str, &'a str)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((condition.reason.as_str(), condition.message.as_str()))
}

#[test]
fn members_take_their_new_versions_together() {
    let mut members = Members::new(&ALL);
    for _ in 0..20 {
        members.round(1);
        assert!(skew(&members) <= 1);
    }
    for name in ALL {
        assert_eq!(members.at(name), (P::Healthy, Weight::ZERO));
        assert_eq!(members.status(name).stable.as_ref().unwrap().version, "v20261121.2");
        assert_eq!(said(members.status(name), "AwaitingGroup"), None);
    }
}

#[test]
fn one_that_has_passed_waits_for_the_others_and_says_for_whom() {
    let mut members = Members::new(&ALL);
    members.round(2);
    // Only this one looks.
    (0..20).for_each(|_| members.look("ads"));
    assert_eq!(members.at("ads"), (P::Shadow, Weight::ZERO), "the others are ready to enter the shadow");
    let status = members.status("ads");
    assert_eq!(status.phase_summary.as_deref(), Some("Shadow/AwaitingGroup"));
    let (reason, message) = said(status, "AwaitingGroup").unwrap();
    assert_eq!(reason, "MembersBehind");
    assert_eq!(message, "It goes on together with bids, which is in Shadow; clicks, which is in Shadow.");
    members.look("bids");
    members.look("clicks");
    assert_eq!(members.at("ads"), (P::Shadow, Weight::ZERO));
    members.round(8);
    assert!(progress(&members, "ads") > 1);
}

#[test]
fn nobody_begins_without_the_others() {
    let mut members = Members::new(&["ads", "clicks"]);
    members.round(20);
    for name in ["ads", "clicks"] {
        assert_eq!(members.at(name), (P::Preparing, Weight::ZERO), "{name}");
        let (_, message) = said(members.status(name), "AwaitingGroup").unwrap();
        assert_eq!(message, "It goes on together with bids, which has no new version yet.");
    }
    assert_eq!(members.at("bids").0, P::Healthy);
    members.0.get_mut("bids").unwrap().versions.push(cases::version(2, Some(1)).unwrap());
    members.round(20);
    assert!(ALL.iter().all(|name| progress(&members, name) == 5));
}

#[test]
fn the_next_wave_needs_new_versions_of_all_again() {
    let mut members = Members::new(&ALL);
    members.round(20);
    members.0.get_mut("ads").unwrap().versions.push(cases::version(3, Some(2)).unwrap());
    members.round(20);
    assert_eq!(
        members.at("ads").0,
        P::Preparing,
        "what the others passed in the wave before is no pass of this one"
    );
    for name in ["bids", "clicks"] {
        members.0.get_mut(name).unwrap().versions.push(cases::version(3, Some(2)).unwrap());
    }
    members.round(20);
    for name in ALL {
        assert_eq!(members.status(name).stable.as_ref().unwrap().version, "v20261121.3", "{name}");
    }
}

#[test]
fn one_that_goes_back_takes_the_others_with_it_wherever_they_are() {
    for rounds in 4..20 {
        let mut members = Members::new(&ALL);
        members.round(rounds);
        if !matches!(members.at("bids").0, P::Shadow | P::Canary | P::Baking) {
            continue;
        }
        members.read("bids", Read::Errors(0.5, 1000.0));
        members.look("bids");
        members.look("ads");
        members.look("clicks");
        for name in ALL {
            let status = members.status(name);
            assert_eq!(status.phase, P::RolledBack, "{name} after {rounds}");
            assert_eq!(status.stable.as_ref().unwrap().version, "v20261121.1", "{name} after {rounds}");
        }
        let reason = |name: &str| members.status(name).decision.as_ref().unwrap().reason.clone();
        assert_eq!([reason("ads"), reason("bids")], ["GroupAborted", "ThresholdBreached"]);
        let message = &members.status("ads").decision.as_ref().unwrap().message;
        assert!(message.contains("bids") && message.contains("ThresholdBreached"), "{message}");
    }
}

#[test]
fn those_that_did_nothing_wrong_come_again_when_the_one_that_did_has_another_version() {
    let mut members = Members::new(&ALL);
    members.round(6);
    members.read("bids", Read::Errors(0.5, 1000.0));
    members.round(20);
    assert!(ALL.iter().all(|name| members.at(name).0 == P::RolledBack), "nobody comes back by itself");
    members.read("bids", Read::Errors(0.0, 1000.0));
    members.0.get_mut("bids").unwrap().versions.push(cases::version(3, Some(1)).unwrap());
    members.round(20);
    let stable = |name: &str| members.status(name).stable.as_ref().unwrap().version.clone();
    assert_eq!(ALL.map(stable), ["v20261121.2", "v20261121.3", "v20261121.2"]);
}

#[test]
fn a_first_version_waits_for_nobody() {
    let mut members = Members::new(&[]);
    members.0.get_mut("ads").unwrap().rollout.status = None;
    (0..5).for_each(|_| members.look("ads"));
    assert_eq!(members.at("ads").0, P::Healthy);
}

#[test]
fn a_group_that_is_wrong_holds_and_says_what_is() {
    let mut members = Members::new(&ALL);
    members.0.get_mut("bids").unwrap().rollout.spec.group.as_mut().unwrap().members.pop();
    members.round(10);
    assert_eq!(members.at("ads").0, P::Preparing);
    let wrong = |members: &Members| {
        let (reason, message) = said(members.status("ads"), "AwaitingGroup").unwrap();
        assert_eq!(reason, "InvalidGroup");
        assert_eq!(said(members.status("ads"), "Stalled").unwrap().0, "InvalidGroup");
        message.to_owned()
    };
    assert!(wrong(&members).contains("spec.group of bids"));
    members.0.remove("bids");
    members.look("ads");
    assert!(wrong(&members).contains("ModelRollout bids does not exist"));
}

#[test]
fn one_that_leaves_the_group_goes_on_alone() {
    let mut members = Members::new(&["ads"]);
    members.round(5);
    assert_eq!(members.at("ads").0, P::Preparing);
    members.0.get_mut("ads").unwrap().rollout.spec.group = None;
    (0..30).for_each(|_| members.look("ads"));
    assert_eq!(progress(&members, "ads"), 5);
    assert_eq!(members.status("ads").group, None);
}

#[test]
fn whoever_promotes_one_past_all_steps_does_not_leave_the_others_behind() {
    let mut members = Members::new(&ALL);
    members.round(3);
    let promote = BTreeMap::from([("anneal.dev/promote".to_owned(), "v20261121.2@full: now".to_owned())]);
    members.0.get_mut("ads").unwrap().rollout.metadata.annotations = Some(promote);
    (0..5).for_each(|_| members.look("ads"));
    assert_eq!(progress(&members, "ads"), 1);
    members.round(20);
    assert!(ALL.iter().all(|name| progress(&members, name) == 5));
}

#[test]
fn a_first_version_with_smoke_requests_waits_for_nobody_either() {
    let mut members = Members::new(&[]);
    for name in ALL {
        let rollout = &mut members.0.get_mut(name).unwrap().rollout;
        rollout.status = None;
        let smoke = json!({"requests": [{"path": "/"}]});
        rollout.spec.strategy.smoke = Some(serde_json::from_value(smoke).unwrap());
    }
    members.round(8);
    for name in ALL {
        let status = members.status(name);
        assert_eq!(
            (status.phase, said(status, "AwaitingGroup")),
            (P::Healthy, None),
            "{:?}",
            status.decision
        );
    }
}

#[test]
fn one_whose_pod_is_lost_while_it_waits_has_its_whole_time_to_be_ready_again() {
    let mut members = Members::new(&["ads"]);
    members.round(30);
    assert_eq!(members.at("ads").0, P::Preparing);
    members.0.get_mut("ads").unwrap().lose_a_pod(2);
    members.look("ads");
    assert_eq!(members.at("ads").0, P::Preparing, "{:?}", members.status("ads").decision);
    let deadline = members.0["ads"].rollout.spec.serving.progress_deadline.get().as_secs() / 61;
    (0..=deadline).for_each(|_| members.look("ads"));
    assert_eq!(members.at("ads").0, P::RolledBack);
    assert_eq!(members.status("ads").decision.as_ref().unwrap().reason, "ProgressDeadlineExceeded");
}

#[test]
fn a_promotion_that_is_taken_back_takes_nobody_further() {
    let mut members = Members::new(&ALL);
    members.round(3);
    let promote = BTreeMap::from([("anneal.dev/promote".to_owned(), "v20261121.2@full: now".to_owned())]);
    members.0.get_mut("ads").unwrap().rollout.metadata.annotations = Some(promote);
    members.look("ads");
    assert_eq!(members.status("ads").group.as_ref().unwrap().next, P::Baking);
    let rollout = &mut members.0.get_mut("ads").unwrap().rollout;
    rollout.metadata.annotations = None;
    rollout.spec.paused = true;
    members.look("ads");
    for _ in 0..10 {
        members.look("bids");
        members.look("clicks");
    }
    assert_eq!(members.at("ads"), (P::Shadow, Weight::ZERO));
    assert!(skew(&members) <= 1, "{:?}", ALL.map(|name| members.at(name)));
}

#[test]
fn one_that_goes_back_takes_the_others_with_it_while_another_is_missing() {
    let mut members = Members::new(&ALL);
    members.round(6);
    assert_eq!(members.at("ads").0, P::Canary);
    members.0.remove("clicks");
    members.read("bids", Read::Errors(0.5, 1000.0));
    members.look("bids");
    members.look("ads");
    assert_eq!((members.at("bids").0, members.at("ads").0), (P::RolledBack, P::RolledBack));
}

#[test]
fn one_that_joins_while_the_lists_disagree_takes_part_in_the_next_wave() {
    let mut members = Members::new(&ALL);
    let two: Vec<String> = ["ads", "bids"].map(str::to_owned).into();
    for name in ["ads", "bids"] {
        members.0.get_mut(name).unwrap().rollout.spec.group.as_mut().unwrap().members.clone_from(&two);
    }
    members.round(25);
    assert_eq!((progress(&members, "ads"), progress(&members, "bids")), (5, 5));
    assert_eq!(progress(&members, "clicks"), 0, "it waits, and in no wave");
    assert_eq!(members.status("clicks").group.as_ref().unwrap().wave, 0);
    for name in ["ads", "bids"] {
        members.0.get_mut(name).unwrap().rollout.spec.group.as_mut().unwrap().members =
            ALL.map(str::to_owned).into();
    }
    members.round(5);
    assert_eq!(members.at("clicks").0, P::Preparing);
    assert_eq!(members.status("clicks").group.as_ref().unwrap().wave, 2);
    for name in ["ads", "bids"] {
        members.0.get_mut(name).unwrap().versions.push(cases::version(3, Some(2)).unwrap());
    }
    members.round(20);
    assert!(ALL.iter().all(|name| members.at(name).0 == P::Healthy));
}

#[test]
fn a_retry_that_was_used_is_not_granted_again_because_a_group_came_between() {
    let mut members = Members::new(&ALL);
    let again = BTreeMap::from([("anneal.dev/retry".to_owned(), "v20261121.2: fixed".to_owned())]);
    members.round(4);
    members.read("ads", Read::Errors(0.5, 1000.0));
    members.round(10);
    assert!(ALL.iter().all(|name| members.at(name).0 == P::RolledBack));
    // It is tried again, and goes back because another one does.
    members.read("ads", Read::Errors(0.0, 1000.0));
    members.0.get_mut("ads").unwrap().rollout.metadata.annotations = Some(again);
    members.round(4);
    assert!(progress(&members, "ads") >= 1);
    members.read("bids", Read::Errors(0.5, 1000.0));
    members.round(10);
    assert_eq!(members.status("ads").decision.as_ref().unwrap().reason, "GroupAborted");
    // It comes again with the others, and is really bad.
    members.read("bids", Read::Errors(0.0, 1000.0));
    members.0.get_mut("bids").unwrap().versions.push(cases::version(3, Some(1)).unwrap());
    members.round(4);
    members.read("ads", Read::Errors(0.5, 1000.0));
    members.round(20);
    assert_eq!(members.at("ads").0, P::RolledBack);
    assert_eq!(members.status("ads").decision.as_ref().unwrap().reason, "ThresholdBreached");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_schedule_of_looks_lets_one_member_run_ahead(order in vec(0..3_usize, 0..120)) {
        let mut members = Members::new(&ALL);
        for index in order {
            members.look(ALL[index]);
            prop_assert!(skew(&members) <= 1);
        }
        members.round(20);
        prop_assert!(ALL.iter().all(|name| progress(&members, name) == 5));
    }

    #[test]
    fn no_schedule_of_looks_leaves_a_member_behind_that_went_back(
        order in vec(0..3_usize, 0..60), bad in 0..3_usize, rest in vec(0..3_usize, 0..60)
    ) {
        let mut members = Members::new(&ALL);
        order.into_iter().for_each(|index| members.look(ALL[index]));
        members.read(ALL[bad], Read::Errors(0.5, 1000.0));
        rest.into_iter().for_each(|index| members.look(ALL[index]));
        members.round(20);
        let phases: Vec<P> = ALL.iter().map(|name| members.at(name).0).collect();
        prop_assert!(phases.iter().all(|phase| *phase == P::RolledBack) || phases.iter().all(|phase| *phase == P::Healthy), "{phases:?}");
    }
}
