//! Made-up clients: 60 requests a second, and who answered them.

use super::*;

const VERSION: &str = "v2";

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

/// A step of so many seconds whose weights were accepted a second after it was decided.
fn window(phase: RolloutPhase, weight: i32, began: i64, to: i64) -> Window {
    let second = |second| at(second * 1000);
    let (began, from, to) = (second(began), second(began + 1), second(to));
    Window { version: VERSION.into(), phase, weight: Weight::from_percent(weight), began, from, to }
}

/// A shadow and the steps of the demo, a quarter of a minute each.
fn windows() -> Vec<Window> {
    let canary = |weight, began| window(RolloutPhase::Canary, weight, began, began + 16);
    vec![window(RolloutPhase::Shadow, 0, 0, 16), canary(10, 16), canary(55, 32), canary(100, 48)]
}

/// Requests from the first window to the last, of which the candidate answers exactly its share.
fn clients(windows: &[Window], rate: i64) -> Vec<Seen> {
    let (mut seen, mut owed) = (vec![], 0);
    for number in 0..64 * rate {
        let at = at(number * 1000 / rate);
        let weight = windows
            .iter()
            .find(|window| window.began <= at && at < window.to)
            .map_or(0, |window| i64::from(window.weight.per_mille()));
        owed += weight;
        let version = if owed >= 1000 { VERSION } else { "v1" };
        owed -= if owed >= 1000 { 1000 } else { 0 };
        seen.push(Seen { at, version: Some(version.into()), outcome: Outcome::Ok });
    }
    seen
}

fn demo_steps() -> Vec<Step> {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/car-loan/demo/modelrollout.yaml"
    ));
    let rollout: anneal_crds::ModelRollout = serde_saphyr::from_str(&text.unwrap()).unwrap();
    steps(&rollout.spec.strategy)
}

fn all_steps(windows: &[Window], seen: &[Seen]) -> Result<()> {
    complete(windows, seen, VERSION, &demo_steps(), Duration::from_millis(700))
}

#[test]
fn the_steps_of_the_demo_are_read_from_its_manifest() {
    let canary = |weight| Step { phase: RolloutPhase::Canary, weight: Weight::from_percent(weight) };
    let shadow = Step { phase: RolloutPhase::Shadow, weight: Weight::ZERO };
    assert_eq!(demo_steps(), [shadow, canary(10), canary(55), canary(100)]);
}

#[test]
fn steps_end_at_the_maximum_whatever_the_increment() {
    let strategy = |initial: i32, increment: i32, max: i32| -> Strategy {
        serde_json::from_value(serde_json::json!({
            "canary": {"initial": initial, "increment": increment, "interval": "1s", "max": max},
            "rollbackTriggers": ["error_rate"],
        }))
        .unwrap()
    };
    let weights = |strategy| {
        steps(&strategy).iter().map(|step| i32::from(step.weight.per_mille()) / 10).collect::<Vec<_>>()
    };
    assert_eq!(weights(strategy(20, 50, 100)), [20, 70, 100]);
    assert_eq!(weights(strategy(10, 15, 40)), [10, 25, 40]);
    assert_eq!(weights(strategy(100, 1, 100)), [100]);
}

#[test]
fn clients_who_saw_every_step_at_its_weight_are_content() {
    let (windows, seen) = (windows(), clients(&windows(), 60));
    all_steps(&windows, &seen).unwrap();
    let lines = shares(&windows, &seen).unwrap();
    assert!(lines.len() == 4 && lines[2].contains("v2 at 55 %: 55."), "{lines:?}");
    mirrored(900.0, CopyShare::All, &windows, &seen, VERSION).unwrap();
}

#[test]
fn nothing_that_was_seen_proves_nothing() {
    let seen = clients(&windows(), 60);
    assert!(all_steps(&[], &seen).unwrap_err().to_string().contains("longest pause"));
    assert!(all_steps(&windows(), &[]).unwrap_err().to_string().contains("only 0 answers"));
    assert!(
        mirrored(900.0, CopyShare::All, &[], &seen, VERSION)
            .unwrap_err()
            .to_string()
            .contains("never in shadow")
    );
    assert!(mirrored(0.0, CopyShare::All, &windows(), &[], VERSION).is_err());
    assert!(rate(&[]).is_nan() && rate(&seen[..1]).is_nan());
}

#[test]
fn every_step_must_have_been_seen() {
    let seen = clients(&windows(), 60);
    for missing in 0..4 {
        let mut windows = windows();
        windows.remove(missing);
        let error = all_steps(&windows, &seen).unwrap_err().to_string();
        assert!(error.contains("0.7 s") && error.contains("was seen in"), "{error}");
    }
    let mut others = windows();
    others.iter_mut().for_each(|window| window.version = "v3".into());
    assert!(all_steps(&others, &seen).is_err());
}

#[test]
fn a_step_that_few_clients_saw_is_not_complete() {
    let windows = windows();
    let mut seen = clients(&windows, 60);
    seen.retain(|request| request.at < windows[2].began || request.at >= windows[2].to);
    let error = all_steps(&windows, &seen).unwrap_err().to_string();
    assert!(error.contains("in Canary at 55 %"), "{error}");
    // The promised rate is enough for every step.
    all_steps(&windows, &clients(&windows, 50)).unwrap();
    assert!(all_steps(&windows, &clients(&windows, 30)).is_err());
    // A step of another version that a breach cut short is told, and not judged.
    let lines = shares(&windows, &seen).unwrap();
    assert!(lines[2].contains("too few to judge"), "{lines:?}");
}

#[test]
fn a_wrong_share_is_found_at_any_weight() {
    for (real, wanted) in [(10, 17), (55, 46), (100, 97), (99, 100)] {
        let as_routed = vec![window(RolloutPhase::Canary, real, 0, 16)];
        let as_told = vec![window(RolloutPhase::Canary, wanted, 0, 16)];
        let error = shares(&as_told, &clients(&as_routed, 60)).unwrap_err().to_string();
        assert!(error.contains("sigma off"), "{error}");
    }
}

#[test]
fn one_answer_from_a_version_in_shadow_is_one_too_many() {
    let windows = windows();
    let mut seen = clients(&windows, 60);
    let first = seen.iter_mut().find(|request| request.at >= at(8_000)).unwrap();
    first.version = Some(VERSION.into());
    let error = shares(&windows, &seen).unwrap_err().to_string();
    assert!(error.contains("1 clients got an answer") && error.contains("in shadow"), "{error}");
}

#[test]
fn copies_must_be_as_many_as_the_requests_of_the_shadow() {
    let (windows, seen) = (windows(), clients(&windows(), 60));
    // Surely copied: from 3 s to 16 s. Possibly: from 0 s to 19 s.
    let judge = |copies, percent| mirrored(copies, CopyShare::Percent(percent), &windows, &seen, VERSION);
    for good in [780.0, 1140.0] {
        judge(good, 100).unwrap();
    }
    for bad in [0.0, 100.0, 700.0, 1141.0, 2000.0, f64::NAN] {
        let error = judge(bad, 100).unwrap_err().to_string();
        assert!(error.contains("702 to 1140"), "{error}");
    }
    judge(450.0, 50).unwrap();
    judge(900.0, 50).unwrap_err();
    judge(200.0, 50).unwrap_err();
}

#[test]
fn a_shadow_that_never_ended_cannot_be_judged() {
    let windows = windows();
    let seen = clients(&windows, 60);
    let error = mirrored(900.0, CopyShare::All, &windows[..1], &seen, VERSION).unwrap_err().to_string();
    assert!(error.contains("never left"), "{error}");
}

#[test]
fn the_rate_is_that_of_the_whole_run() {
    let seen = clients(&windows(), 60);
    assert!((rate(&seen) - 60.0).abs() < 0.1, "{}", rate(&seen));
    let paused: Vec<Seen> =
        seen.into_iter().filter(|request| request.at < at(10_000) || request.at > at(50_000)).collect();
    assert!(rate(&paused) < 50.0);
}

#[test]
fn injected_faults_are_no_failures() {
    let mut seen = clients(&windows(), 1);
    seen[0].outcome = Outcome::Injected;
    assert_eq!(failures(&seen).0, 0);
    for request in seen.iter_mut().take(7) {
        request.outcome = Outcome::Failed("503".into());
    }
    let (count, reasons) = failures(&seen);
    assert_eq!((count, reasons.len()), (7, 5));
}
