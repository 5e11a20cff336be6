//! Windows in which no version gets more traffic, and what does not care about them.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::plan::Wake;
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P, names};
use anneal_tests::cases::{self, BLIND, Read, RolloutCase};
use jiff::SignedDuration;
use serde_json::{Value, json};

/// A window around noon, at which every case plays.
fn noon() -> Value {
    json!([{"name": "noon", "schedule": "30 11 * * *", "duration": "1h"}])
}

fn frozen(status: Value, freezes: Value) -> RolloutCase {
    let mut case = RolloutCase::new(status).unwrap();
    case.rollout.spec.strategy.freezes = serde_json::from_value(freezes).unwrap();
    case
}

fn healthy() -> Value {
    json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1), "trafficAcceptedAt": cases::ago(600)})
}

fn baking() -> Value {
    json!({"observedGeneration": 1, "phase": "Baking", "stable": cases::reference(2), "previous": cases::reference(1),
        "history": [cases::reference(1)], "stepStartedAt": cases::ago(60), "trafficAcceptedAt": cases::ago(60)})
}

fn with_bake(mut case: RolloutCase) -> RolloutCase {
    let bake = json!({"duration": "50s", "rollbackTriggers": ["error_rate"]});
    case.rollout.spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
    case.settle_children();
    case
}

fn annotated(mut case: RolloutCase, key: &str, text: &str) -> RolloutCase {
    case.rollout.metadata.annotations = Some([(key.to_owned(), text.to_owned())].into());
    case
}

fn said<'a>(status: &'a ModelRolloutStatus, type_: &str) -> Option<(&'a str, &'a str)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    (condition.status == "True").then_some((condition.reason.as_str(), condition.message.as_str()))
}

fn ago(seconds: i64) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    serde_json::from_value(json!(cases::ago(seconds))).unwrap()
}

/// The rollout in every phase, with the share that it has there.
fn phases(freezes: &Value) -> Vec<RolloutCase> {
    let moving = |phase, weight| frozen(cases::moving(phase, weight), freezes.clone());
    vec![
        frozen(healthy(), freezes.clone()),
        moving("Preparing", 0),
        moving("Shadow", 0),
        moving("Canary", 20),
        moving("Canary", 100),
        with_bake(frozen(baking(), freezes.clone())),
    ]
}

#[test]
fn nothing_advances_in_an_open_window_and_everything_does_outside() {
    let before = json!([{"name": "night", "schedule": "0 2 * * *", "duration": "9h59m"}]);
    let after = json!([{"name": "night", "schedule": "1 12 * * *", "duration": "9h"}]);
    let just_closed = json!([{"name": "morning", "schedule": "0 11 * * *", "duration": "1h"}]);
    let just_opened = json!([{"name": "afternoon", "schedule": "0 12 * * *", "duration": "1h"}]);
    let saturday = json!([{"name": "weekend", "schedule": "0 18 * * 5", "duration": "62h", "timeZone": "Europe/Berlin"}]);
    let elsewhere =
        json!([{"name": "night", "schedule": "0 0 * * *", "duration": "6h", "timeZone": "Pacific/Auckland"}]);
    for (freezes, open) in [
        (json!([]), false),
        (before, false),
        (after, false),
        (just_closed, false),
        (just_opened, true),
        (noon(), true),
        (saturday, true),
        (elsewhere, true),
    ] {
        for case in phases(&freezes) {
            let before = case.rollout.status.clone().unwrap();
            let status = case.plan().status;
            let moved = (status.phase, status.weight) != (before.phase, before.weight);
            assert_eq!(moved, !open, "{:?} {} {freezes}", before.phase, before.weight);
            assert_eq!(said(&status, "Frozen").is_some(), open, "{freezes}");
            assert_eq!(said(&status, "Paused"), None);
        }
    }
}

#[test]
fn a_window_says_its_name_and_wakes_at_its_end() {
    let plan = frozen(cases::moving("Canary", 20), noon()).plan();
    let (reason, message) = said(&plan.status, "Frozen").unwrap();
    assert_eq!(
        (reason, message),
        ("Frozen", "Nothing advances in the freeze noon until 2026-11-21T12:30:00Z.")
    );
    assert_eq!(plan.status.phase_summary.as_deref(), Some("Canary/Frozen"));
    assert_eq!(plan.notes.iter().filter(|note| note.reason == "Frozen").count(), 1);

    let mut idle = frozen(healthy(), noon());
    idle.versions.truncate(1);
    let plan = idle.plan();
    assert_eq!(plan.status.phase_summary.as_deref(), Some("Healthy"));
    assert_eq!(plan.wake, Wake::At("2026-11-21T12:30:00Z".parse().unwrap()));
    idle.perform(&plan.actions);
    idle.rollout.status = Some(plan.status);
    assert!(idle.plan().is_idle(idle.rollout.status.as_ref()), "a window is told once");
    idle.now += SignedDuration::from_mins(30);
    let plan = idle.plan();
    assert_eq!((said(&plan.status, "Frozen"), plan.wake), (None, Wake::OnChange));
}

#[test]
fn the_first_version_waits_too() {
    let mut case = frozen(json!({}), noon());
    case.versions.truncate(1);
    let status = case.plan().status;
    let ready = status.conditions.iter().find(|said| said.type_ == "Ready").unwrap();
    assert_eq!(
        (ready.reason.as_str(), ready.message.contains("the freeze noon")),
        ("Frozen", true),
        "{}",
        ready.message
    );
    assert!(!status.conditions.iter().any(|said| said.type_ == "Stalled" && said.status == "True"));
    assert_eq!((status.phase, status.stable), (P::Pending, None));
}

#[test]
fn no_rollback_waits_for_a_window_to_close() {
    for case in phases(&noon()) {
        let judged = matches!(case.rollout.status.as_ref().unwrap().phase, P::Shadow | P::Canary | P::Baking);
        let mut bad = case.clone();
        bad.read = Read::Errors(0.5, 1000.0);
        assert_eq!(bad.plan().status.phase == P::RolledBack, judged);
        let under_way = case.rollout.status.as_ref().unwrap().phase != P::Healthy;
        let aborted = annotated(case.clone(), names::ANNOTATION_ABORT, "v20261121.2: no").plan().status;
        assert_eq!(aborted.phase == P::RolledBack, under_way);
        let mut back = case;
        let wanted = json!({"targetVersion": "v20261121.1", "reason": "no"});
        back.rollout.spec.rollback = Some(serde_json::from_value(wanted).unwrap());
        assert_eq!(back.plan().status.phase == P::RolledBack, under_way);
    }
}

#[test]
fn a_promotion_goes_on_only_if_it_names_the_window() {
    let both = json!([noon()[0], {"name": "saturday", "schedule": "0 0 * * 6", "duration": "1d"}]);
    for (freezes, text, goes) in [
        (noon(), "v20261121.2@20: why", false),
        (noon(), "v20261121.2@full: why", false),
        (noon(), "v20261121.2@20 despite noon: it cannot wait", true),
        (noon(), "v20261121.2@full despite noon: it cannot wait", true),
        (noon(), "v20261121.2@20 despite night: it cannot wait", false),
        (both, "v20261121.2@20 despite noon: it cannot wait", false),
        (
            json!([{"name": "noon", "schedule": "0 2 * * *", "duration": "1h"}]),
            "v20261121.2@20 despite noon: why",
            true,
        ),
    ] {
        let mut case =
            annotated(frozen(cases::moving("Canary", 20), freezes.clone()), names::ANNOTATION_PROMOTE, text);
        case.read = Read::Silence;
        let status = case.plan().status;
        assert_eq!(status.weight != Weight::from_percent(20), goes, "{text} in {freezes}");
        let told = said(&status, "Frozen").is_some() && goes;
        let decision = status.decision.map_or_else(String::new, |decision| decision.message);
        assert_eq!(decision.contains("despite the freeze noon: it cannot wait"), told, "{decision}");
        case.rollout.spec.paused = true;
        assert_eq!(case.plan().status.weight, Weight::from_percent(20), "a pause comes first");
    }
    let unknown = annotated(
        frozen(cases::moving("Canary", 20), noon()),
        names::ANNOTATION_PROMOTE,
        "v20261121.2@20 despite night: why",
    );
    assert!(said(&unknown.plan().status, "InvalidCommand").unwrap().1.contains("it has noon"));
    let mut bake = with_bake(frozen(baking(), noon()));
    bake.read = Read::Silence;
    let bake = |text| annotated(bake.clone(), names::ANNOTATION_PROMOTE, text).plan().status.phase;
    assert_eq!(bake("v20261121.2@Baking: why"), P::Baking);
    assert_eq!(bake("v20261121.2@Baking despite noon: why"), P::Healthy);
}

#[test]
fn time_in_a_window_is_not_held_against_a_version() {
    // What is long overdue, and goes at once where nothing is frozen.
    let blind = || {
        let mut case = frozen(cases::moving("Canary", 20), noon());
        case.read = Read::Silence;
        case.rollout.status.as_mut().unwrap().holding_since = Some(ago(3000));
        case
    };
    let few = || {
        let mut case = frozen(cases::moving("Canary", 20), noon());
        case.read = Read::Errors(0.0, 3.0);
        let status = case.rollout.status.as_mut().unwrap();
        status.step_started_at = Some(ago(3000));
        status.traffic_accepted_at = Some(ago(3000));
        case
    };
    let unready = || {
        let mut case = frozen(cases::moving("Preparing", 0), noon());
        case.rollout.status.as_mut().unwrap().step_started_at = Some(ago(3000));
        case.lose_a_pod(2);
        case
    };
    for (what, mut case) in [("blind", blind()), ("few", few()), ("unready", unready())] {
        let phase = case.rollout.status.as_ref().unwrap().phase;
        let plan = case.plan();
        assert_eq!(plan.status.phase, phase, "{what}: the window is open");
        let mut lifted = case.clone();
        lifted.rollout.spec.strategy.freezes.clear();
        assert_eq!(lifted.plan().status.phase, P::RolledBack, "{what}: nobody has seen a window");
        case.rollout.status = Some(plan.status);
        case.now += SignedDuration::from_mins(31);
        let plan = case.plan();
        assert_eq!(plan.status.phase, phase, "{what}: the window has just closed");
        assert_eq!(plan.status.thawed_at.as_ref().map(|at| at.0), Some(case.now));
        case.rollout.status = Some(plan.status);
        case.now += SignedDuration::from_secs(60);
        assert_eq!(case.plan().status.phase, phase, "{what}: the deadline begins anew");
        case.now += SignedDuration::from_mins(10);
        assert_eq!(case.plan().status.phase, P::RolledBack, "{what}");
    }
}

#[test]
fn what_the_spec_says_of_missing_readings_holds_in_a_window() {
    for read in BLIND {
        let mut case = frozen(cases::moving("Canary", 20), noon());
        case.read = read;
        let policy = json!({"action": "Rollback"});
        let judge = &mut case.rollout.spec.judge;
        for on in [&mut judge.on_no_data, &mut judge.on_stale, &mut judge.on_error] {
            *on = serde_json::from_value(policy.clone()).unwrap();
        }
        assert_eq!(case.plan().status.phase, P::RolledBack, "{read:?}");
    }
}

#[test]
fn what_cannot_be_understood_holds_until_it_is_corrected() {
    for (freeze, why) in [
        (
            json!({"name": "night", "schedule": "0 25 * * *", "duration": "1h"}),
            "schedule `0 25 * * *` is not understood",
        ),
        (json!({"name": "night", "schedule": "0 0 30 2 *", "duration": "1h"}), "never comes up"),
        (
            json!({"name": "night", "schedule": "0 2 * * *", "duration": "1h", "timeZone": "Mars/Olympus"}),
            "time zone `Mars/Olympus` is unknown",
        ),
        (
            json!({"name": "night", "schedule": "0 2 * * *", "duration": "24h"}),
            "it would open again before it closes",
        ),
        (
            json!({"name": "night", "schedule": "0 2 24 12 *", "duration": "366d"}),
            "it would open again before it closes",
        ),
    ] {
        let case = frozen(cases::moving("Canary", 20), json!([freeze]));
        let plan = case.plan();
        assert_eq!(plan.status.weight, Weight::from_percent(20));
        let (reason, message) = said(&plan.status, "Frozen").unwrap();
        assert_eq!(reason, "InvalidFreeze");
        assert!(message.contains("freeze night") && message.contains(why), "{message}");
        let promoted =
            annotated(case.clone(), names::ANNOTATION_PROMOTE, "v20261121.2@20 despite night: why");
        assert_eq!(promoted.plan().status.weight, Weight::from_percent(20));
        let mut bad = case;
        bad.read = Read::Errors(0.5, 1000.0);
        assert_eq!(bad.plan().status.phase, P::RolledBack);
    }
}

#[test]
fn a_window_lasts_its_time_when_clocks_change() {
    let night =
        json!([{"name": "night", "schedule": "30 2 * * *", "duration": "2h", "timeZone": "Europe/Berlin"}]);
    for (at, open) in [
        // 02:30 does not exist on that day, and it opens at 03:30 summer time.
        ("2026-03-29T01:29:59Z", false),
        ("2026-03-29T01:30:00Z", true),
        ("2026-03-29T03:29:59Z", true),
        ("2026-03-29T03:30:00Z", false),
        // 02:30 comes twice on that day, and it opens at the first.
        ("2026-10-25T00:29:59Z", false),
        ("2026-10-25T00:30:00Z", true),
        ("2026-10-25T02:29:59Z", true),
        ("2026-10-25T02:30:00Z", false),
    ] {
        let mut case = frozen(healthy(), night.clone());
        case.versions.truncate(1);
        case.now = at.parse().unwrap();
        assert_eq!(said(&case.plan().status, "Frozen").is_some(), open, "{at}");
    }
}
