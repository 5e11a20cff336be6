//! What holds for every status and every spec, sensible or not.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{object::Kind, plan::Action, rollout::ProbeAnswer};
use anneal_crds::{
    ModelRollout, ModelRolloutStatus, RetrainJobStatus, Weight,
    metric::OnStableUnavailable,
    model_rollout::{
        CandidateSource, ManualRollback, Progression, Rejection, RolloutPhase, Trial, TrialState,
    },
    names,
};
use anneal_tests::cases::{self, Read, RetrainCase, RolloutCase};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Value, json};

fn version_ref() -> impl Strategy<Value = Value> {
    (1..=4_u32).prop_map(cases::reference)
}

fn time() -> impl Strategy<Value = Option<Time>> {
    // Around now, and at the ends of time.
    let near = (-7200..7200_i64).prop_map(|seconds| cases::now() + SignedDuration::from_secs(seconds));
    option::of(prop_oneof![8 => near, 1 => Just(Timestamp::MIN), 1 => Just(Timestamp::MAX)])
        .prop_map(|at| at.map(Time))
}

fn rollout_status() -> impl Strategy<Value = ModelRolloutStatus> {
    let phases = vec![
        "Pending",
        "Preparing",
        "Staging",
        "Shadow",
        "Experiment",
        "Canary",
        "Baking",
        "RollingBack",
        "Healthy",
        "RolledBack",
    ];
    let refs = (
        option::of(version_ref()),
        option::of(version_ref()),
        vec(version_ref(), 0..3),
        option::of(version_ref()),
        vec(version_ref(), 0..3),
    );
    let numbers = 0..=1000;
    let times = (time(), time(), time());
    (prop::sample::select(phases), refs, numbers, times).prop_map(
        |(phase, (stable, candidate, rejected, previous, history), weight, (started, accepted, holding))| {
            let mut status: ModelRolloutStatus = serde_json::from_value(json!({"phase": phase})).unwrap();
            let read = |value: Value| serde_json::from_value(value).unwrap();
            status.stable = stable.map(read);
            status.previous = previous.map(read);
            status.history = history.into_iter().map(read).collect();
            status.candidate = candidate.map(read);
            status.rejected = rejected
                .into_iter()
                .map(|version| Rejection { version: read(version), reason: None, retried: None })
                .collect();
            status.weight = Weight::from_per_mille(weight);
            (status.step_started_at, status.traffic_accepted_at, status.holding_since) =
                (started, accepted, holding);
            status
        },
    )
}

fn read() -> impl Strategy<Value = Read> {
    prop_oneof![
        (0.0..1.0_f64, 0.0..1e9_f64).prop_map(|(share, requests)| Read::Errors(share, requests)),
        (any::<f64>(), any::<f64>()).prop_map(|(share, requests)| Read::Errors(share, requests)),
        (0..100_i64).prop_map(Read::Old),
        Just(Read::NotANumber),
        Just(Read::Nothing),
        Just(Read::Silence),
    ]
}

/// What people ask for, sensible or not.
#[derive(Clone, Debug)]
struct ByHand {
    paused: bool,
    rollback: Option<u32>,
    annotations: Vec<(&'static str, String)>,
}

impl ByHand {
    fn apply(self, rollout: &mut ModelRollout) {
        rollout.spec.paused = self.paused;
        rollout.spec.rollback = self.rollback.map(|number| ManualRollback {
            target_version: format!("v20261121.{number}"),
            reason: "it was better".into(),
        });
        let annotations = self.annotations.into_iter().map(|(key, text)| (key.to_owned(), text));
        rollout.metadata.annotations = Some(annotations.collect());
    }
}

fn by_hand() -> impl Strategy<Value = ByHand> {
    let keys = vec![names::ANNOTATION_ABORT, names::ANNOTATION_RETRY, names::ANNOTATION_PAUSE];
    let text = prop_oneof![(1..=4_u32).prop_map(|number| format!("v20261121.{number}: why")), ".{0,20}"];
    let place = prop::sample::select(vec!["Staging", "Shadow", "20", "0.5", "Baking", "full", "nowhere"]);
    let promote = (1..=4_u32, place).prop_map(|(number, place)| format!("v20261121.{number}@{place}: why"));
    let others = vec((prop::sample::select(keys), text), 0..2);
    // Most worlds have nobody who interferes.
    let some =
        (prop::bool::weighted(0.1), option::weighted(0.2, 1..=4_u32), others, option::weighted(0.3, promote))
            .prop_map(|(paused, rollback, mut annotations, promote)| {
                annotations.extend(promote.map(|text| (names::ANNOTATION_PROMOTE, text)));
                ByHand { paused, rollback, annotations }
            });
    let none = Just(ByHand { paused: false, rollback: None, annotations: vec![] });
    prop_oneof![2 => none, 1 => some]
}

fn trial() -> impl Strategy<Value = Option<Trial>> {
    let state = prop::sample::select(vec![TrialState::Running, TrialState::Passed, TrialState::Failed]);
    (option::of(0..5_u32), time(), state).prop_map(|(number, at, state)| {
        number.zip(at).map(|(number, started_at)| Trial {
            number,
            started_at,
            state,
            test: None,
            message: None,
        })
    })
}

fn probed() -> impl Strategy<Value = ProbeAnswer> {
    let body =
        prop_oneof![Just("{\"passed\": true}".to_owned()), Just("{\"passed\": false}".to_owned()), ".{0,20}"];
    prop_oneof![
        1 => Just(ProbeAnswer::Silent("connection refused".into())),
        3 => (prop::sample::select(vec![200_u16, 204, 500]), body)
            .prop_map(|(status, body)| ProbeAnswer::Answered { status, body: body.into_bytes() }),
    ]
}

/// What must be shown before and after the switch: by a Job or a webhook, by warm-up, by smoke.
fn ask(case: &mut RolloutCase, asked: (Option<bool>, bool, bool), trials: (Option<Trial>, Option<Trial>)) {
    let (staging, warmup, smoke) = asked;
    let spec = &mut case.rollout.spec;
    let test =
        |job| if job { json!({"job": {"image": "t"}}) } else { json!({"webhook": {"url": "http://t"}}) };
    spec.strategy.staging =
        staging.map(|job| serde_json::from_value(json!({"test": test(job), "tries": 2})).unwrap());
    let request =
        json!({"requests": [{"path": "/", "expect": {"json": [{"pointer": "/passed", "value": true}]}}]});
    spec.strategy.smoke = smoke.then(|| serde_json::from_value(request).unwrap());
    let request = json!({"requests": [{"path": "/"}]});
    spec.serving.warmup = warmup.then(|| serde_json::from_value(request).unwrap());
    if let Some(status) = &mut case.rollout.status {
        status.warmup.clone_from(&trials.0);
        (status.staging, status.smoke) = trials;
    }
}

prop_compose! {
    fn rollout_case()(
        status in rollout_status(),
        read in read(),
        canary in (any::<i32>(), any::<i32>(), any::<i32>()),
        shadow in any::<bool>(),
        triggers in vec("error_rate|nothing", 0..3),
        baselines in vec(option::of(1..=4_u32), 0..4),
        settled in any::<bool>(),
        lost in option::of(1..=4_u32),
        by_hand in by_hand(),
        steps in option::of(vec(0..=1000_i32, 0..5)),
        bake in any::<bool>(),
        asked in (option::of(any::<bool>()), any::<bool>(), any::<bool>()),
        trials in (trial(), trial()),
        probed in probed(),
    ) -> RolloutCase {
        let mut case = RolloutCase::new(json!({})).unwrap();
        case.children = anneal_core::rollout::Children::default();
        case.versions = (1..).zip(baselines).map(|(number, baseline)| cases::version(number, baseline).unwrap()).collect();
        case.rollout.status = Some(status);
        let strategy = &mut case.rollout.spec.strategy;
        if let Progression::Canary(steps) = &mut strategy.progression {
            (steps.initial, steps.increment, steps.max) = canary;
        }
        if bake {
            let bake = json!({"duration": "20s", "rollbackTriggers": triggers});
            strategy.bake = Some(serde_json::from_value(bake).unwrap());
        }
        if let Some(weights) = steps {
            let step = |weight: i32| json!({"weight": f64::from(weight) / 10.0, "duration": "20s", "minRequests": 20});
            let steps = json!({"steps": weights.into_iter().map(step).collect::<Vec<_>>()});
            strategy.progression = serde_json::from_value(steps).unwrap();
        }
        strategy.rollback_triggers = triggers;
        by_hand.apply(&mut case.rollout);
        ask(&mut case, asked, trials);
        case.probed = probed;
        let strategy = &mut case.rollout.spec.strategy;
        if !shadow {
            strategy.shadow = None;
        }
        if settled {
            case.settle_children();
        }
        lost.into_iter().for_each(|number| case.lose_a_pod(number));
        case.read = read;
        case
    }
}

/// Whether a plan lets a version answer, or answer more than before.
fn rises(before: &ModelRolloutStatus, after: &ModelRolloutStatus) -> bool {
    let share = |status: &ModelRolloutStatus| match status.phase {
        RolloutPhase::Experiment | RolloutPhase::Canary => status.weight,
        RolloutPhase::Pending
        | RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::Shadow
        | RolloutPhase::RollingBack
        | RolloutPhase::Baking
        | RolloutPhase::Healthy
        | RolloutPhase::RolledBack => Weight::ZERO,
    };
    let more = before.candidate == after.candidate && share(after) > share(before);
    let promoted = after.stable != before.stable && after.stable == before.candidate;
    let judged =
        matches!(before.phase, RolloutPhase::Shadow | RolloutPhase::Experiment | RolloutPhase::Canary);
    judged && before.candidate.is_some() && (more || promoted)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rollouts_plan_is_total_and_its_routes_are_shares(case in rollout_case()) {
        let plan = case.plan();
        if let Some(route) = cases::route_of(&plan) {
            let weights: Vec<i64> = route["rules"][0]["backendRefs"].as_array().unwrap().iter()
                .map(|backend| backend["weight"].as_i64().unwrap()).collect();
            prop_assert_eq!(weights.iter().sum::<i64>(), 1000);
            prop_assert!(weights.iter().all(|weight| (0..=1000).contains(weight)));
        }
    }

    #[test]
    fn without_a_fresh_pass_of_every_trigger_no_version_gets_more(case in rollout_case()) {
        let before = case.rollout.status.clone().unwrap();
        let after = case.plan().status;
        let reason = after.decision.as_ref().map_or("", |decision| decision.reason.as_str());
        let asked_for = reason == "PromotedByHand" || reason == "RolledBackByHand";
        if rises(&before, &after) && !asked_for {
            prop_assert!(!case.rollout.spec.paused);
            let triggers = &case.rollout.spec.strategy.rollback_triggers;
            prop_assert!(!triggers.is_empty() && triggers.iter().all(|trigger| trigger == "error_rate"));
            let passes = matches!(case.read, Read::Errors(share, requests)
                if (0.0..=0.01 + 1e-9).contains(&share) && requests >= 20.0)
                || matches!(case.read, Read::Old(age) if age <= 30);
            prop_assert!(passes, "{:?}", case.read);
            prop_assert_eq!(after.decision.unwrap().readings.len(), triggers.len());
        }
    }

    #[test]
    fn nothing_but_a_pass_leaves_the_phases_in_which_nobody_sees_a_version(case in rollout_case()) {
        let before = case.rollout.status.clone().unwrap();
        let plan = case.plan();
        let after = &plan.status;
        let unseen = matches!(before.phase, RolloutPhase::Preparing | RolloutPhase::Staging) && before.candidate.is_some();
        let seen = matches!(after.phase, RolloutPhase::Shadow | RolloutPhase::Experiment | RolloutPhase::Canary) && after.candidate == before.candidate;
        let promoted = after.stable == before.candidate && after.stable != before.stable;
        let reason = after.decision.as_ref().map_or("", |decision| decision.reason.as_str());
        let by_hand = reason == "PromotedByHand" || reason == "RolledBackByHand";
        if unseen && (seen || promoted) && !by_hand {
            let spec = &case.rollout.spec;
            let said = match &case.probed {
                ProbeAnswer::Answered { status: 200..=299, body } => Some(String::from_utf8_lossy(body).into_owned()),
                ProbeAnswer::Answered { .. } | ProbeAnswer::Silent(_) => None,
            };
            if before.phase == RolloutPhase::Preparing {
                prop_assert!(spec.strategy.staging.is_none() && (spec.serving.warmup.is_none() || said.is_some()));
            } else {
                // No Job of these cases ever ends, and what passed before is recorded.
                prop_assert!(spec.strategy.staging.is_some());
                let recorded = before.staging.is_some_and(|trial| trial.state == TrialState::Passed);
                let passed = said.as_deref() == Some("{\"passed\": true}");
                prop_assert!(recorded || passed);
            }
        }
    }

    #[test]
    fn what_is_rejected_is_never_chosen(case in rollout_case()) {
        let before = case.rollout.status.clone().unwrap();
        let after = case.plan().status;
        let begun = after.phase == RolloutPhase::Preparing && before.candidate != after.candidate;
        if let Some(candidate) = after.candidate.filter(|_| begun) {
            let retried = after.retry.as_ref().is_some_and(|retry| retry.digest == candidate.digest);
            let rejected = before.rejected.iter().any(|rejected| rejected.version.digest == candidate.digest);
            prop_assert!(!rejected || retried);
        }
    }

    #[test]
    fn plans_come_to_rest(mut case in rollout_case()) {
        // Whatever the status was, deciding, recording and performing at one moment ends, and then nothing more happens.
        for _ in 0..150 {
            let plan = case.plan();
            case.perform(&plan.actions);
            if Some(&plan.status) == case.rollout.status.as_ref() && plan.actions.is_empty() {
                prop_assert_eq!(&plan.notes, &vec![]);
                return Ok(());
            }
            case.rollout.status = Some(plan.status);
        }
        prop_assert!(false, "still {:?}", case.rollout.status);
    }

    #[test]
    fn a_breach_rolls_back_from_every_step_and_a_recorded_one_needs_no_prometheus(
        mut case in rollout_case(), share in 0.02..1.0_f64, shadow in any::<bool>(),
    ) {
        let stable: anneal_crds::VersionRef = serde_json::from_value(cases::reference(1)).unwrap();
        let status = case.rollout.status.as_mut().unwrap();
        status.phase = if shadow { RolloutPhase::Shadow } else { RolloutPhase::Canary };
        status.stable = Some(stable);
        status.candidate = Some(serde_json::from_value(cases::reference(2)).unwrap());
        status.rejected.clear();
        (status.step_started_at, status.traffic_accepted_at, status.holding_since) = (None, None, None);
        case.rollout.spec.strategy.rollback_triggers = vec!["error_rate".into()];
        case.rollout.spec.strategy.progression = serde_json::from_value(json!({"canary": {"initial": 20, "increment": 80, "interval": "20s"}})).unwrap();
        case.rollout.spec.judge.on_stable_unavailable = OnStableUnavailable::Rollback;
        case.rollout.spec.candidate = CandidateSource::Version("v20261121.2".into());
        case.versions = vec![cases::version(1, None).unwrap(), cases::version(2, Some(1)).unwrap()];
        // Nobody asks for anything else; to pause it stops no rollback.
        (case.rollout.spec.rollback, case.rollout.metadata.annotations) = (None, None);
        case.read = Read::Errors(share, 1000.0);
        let plan = case.plan();
        prop_assert_eq!(plan.status.phase, RolloutPhase::RolledBack);
        case.rollout.status = Some(plan.status);
        case.read = Read::Silence;
        let again = case.plan();
        prop_assert_eq!(again.status.phase, RolloutPhase::RolledBack);
        case.perform(&again.actions);
        let rule = &case.children.route.as_ref().unwrap()["spec"]["rules"][0];
        prop_assert_eq!(rule["backendRefs"].as_array().unwrap().len(), 1);
        prop_assert_eq!(&rule["filters"], &json!([]));
    }

    #[test]
    fn a_run_goes_forwards_and_makes_nothing_when_it_is_over(
        phase in 0..6_usize, attempt in option::of(any::<u32>()), baseline in any::<bool>(), result in any::<bool>(),
        version in any::<bool>(), started in time(), child in option::of((any::<bool>(), 0..4_usize)),
        codes in vec(any::<i32>(), 0..4), message in ".{0,40}",
    ) {
        let phases = ["Pending", "Training", "Registering", "Succeeded", "Rejected", "Failed"];
        let mut status = RetrainCase::training();
        status["phase"] = phases[phase].into();
        let notice: Value = serde_json::from_str(&cases::notice(cases::UID, 0.4, 1)).unwrap();
        if !baseline { status["baseline"] = Value::Null; }
        if result { status["result"] = notice["result"].clone(); }
        if version { status["version"] = "v20261121.2".into(); }
        let mut case = RetrainCase::new(status).unwrap();
        let recorded: &mut RetrainJobStatus = case.job.status.as_mut().unwrap();
        (recorded.attempt, recorded.started_at) = (attempt, started);
        let ends = [None, Some(("Complete", "C")), Some(("Failed", "PodFailurePolicy")), Some(("Failed", "DeadlineExceeded"))];
        case.child = child.map(|(own, end)| {
            cases::child("ads-1", if own { cases::UID } else { "uid-other" }, ends[end]).unwrap()
        });
        let pods = (0_i64..).zip(codes);
        case.pods = pods.map(|(order, code)| cases::pod("ads-1", order, Some((i64::from(code), &message))).unwrap()).collect();
        let plan = case.plan();
        let rank = |status: &RetrainJobStatus| (status.phase as usize).min(3);
        prop_assert!(rank(&plan.status) >= rank(case.job.status.as_ref().unwrap()));
        if phase > 2 {
            prop_assert_eq!(Some(&plan.status), case.job.status.as_ref());
            prop_assert_eq!(&plan.actions, &vec![]);
        }
        let makes_version = |action: &Action| matches!(action, Action::Create(object) if object.key.kind == Kind::ModelVersion);
        if plan.actions.iter().any(makes_version) {
            prop_assert!(plan.status.result.is_some() && plan.status.version.is_some());
        }
        case.job.status = Some(plan.status.clone());
        prop_assert_eq!(case.plan().status, plan.status);
    }
}
