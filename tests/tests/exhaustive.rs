//! A small rollout, checked in every state that it can come to.
//!
//! A shadow, two steps and a bake, one good version and one newer one, and at every moment all that may happen: a fresh pass, a
//! breach, no answer, and a disturbance, such as an operator that dies between its record and what follows from that.
//! States that differ only in when they were reached are one. What the world (`world.rs`) samples is complete here.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "this is a test that an environment variable widens"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use anneal_core::rollout::Answer;
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P, names};
use anneal_tests::cases::{self, Read, RolloutCase};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Between two looks; longer than any step.
const TICK: SignedDuration = SignedDuration::from_secs(61);
/// Ages above so many ticks are alike: longer than any deadline of the spec.
const OLD: i64 = 12;
/// Disturbances of one history: one, or as many as `DISTURBANCES` says. Two take some minutes.
fn disturbances() -> usize {
    std::env::var("DISTURBANCES").map_or(1, |many| many.parse().unwrap())
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// A look with such a reading.
    Look(Reading),
    /// The same, and the operator dies as soon as it has recorded what it decided.
    Dies(Reading),
    /// A newer version is recorded.
    Newer,
    /// A person gives up version 2.
    Aborts,
    /// A person changes the weights of the route.
    EditsRoute,
    /// The status is lost.
    LosesStatus,
    /// The pod of version 2 is lost.
    LosesPod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Pass,
    Breach,
    Blind,
}

const LOOKS: [Act; 3] = [Act::Look(Reading::Pass), Act::Look(Reading::Breach), Act::Look(Reading::Blind)];
const DISTURBS: [Act; 8] = [
    Act::Dies(Reading::Pass),
    Act::Dies(Reading::Breach),
    Act::Dies(Reading::Blind),
    Act::Newer,
    Act::Aborts,
    Act::EditsRoute,
    Act::LosesStatus,
    Act::LosesPod,
];

#[derive(Clone, Debug)]
struct State {
    case: RolloutCase,
    disturbed: usize,
    /// Versions that went back, and are marked so.
    burned: BTreeSet<String>,
}

impl State {
    fn first() -> Self {
        let mut case = RolloutCase::new(json!({"phase": "Healthy", "stable": cases::reference(1)})).unwrap();
        let bake = json!({"duration": "20s", "rollbackTriggers": ["error_rate"]});
        case.rollout.spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
        case.settle_children();
        Self { case, disturbed: 0, burned: BTreeSet::new() }
    }

    fn status(&self) -> ModelRolloutStatus {
        self.case.rollout.status.clone().unwrap_or_default()
    }

    fn after(&self, act: Act) -> Self {
        let mut state = self.clone();
        if !LOOKS.contains(&act) {
            state.disturbed += 1;
        }
        let case = &mut state.case;
        match act {
            Act::Look(reading) => state.look(reading, true),
            Act::Dies(reading) => state.look(reading, false),
            Act::Newer => case.versions.push(cases::version(3, Some(1)).unwrap()),
            Act::Aborts => {
                let abort = [(names::ANNOTATION_ABORT.to_owned(), "v20261121.2: no".to_owned())];
                case.rollout.metadata.annotations = Some(BTreeMap::from(abort));
            }
            Act::EditsRoute => {
                if let Some(route) = &mut case.children.route {
                    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = 7.into();
                    let generation = route["metadata"]["generation"].as_i64().unwrap() + 1;
                    route["metadata"]["generation"] = generation.into();
                }
            }
            Act::LosesStatus => case.rollout.status = None,
            Act::LosesPod => case.lose_a_pod(2),
        }
        state
    }

    fn look(&mut self, reading: Reading, performs: bool) {
        let case = &mut self.case;
        let read = match reading {
            Reading::Pass => Read::Errors(0.0, 1000.0),
            Reading::Breach => Read::Errors(0.5, 1000.0),
            Reading::Blind => Read::Silence,
        };
        let late = case.now.duration_since(cases::now()).as_secs_f64();
        let mut answer = read.answer();
        if let Answer::Vector(series) = &mut answer {
            let at = series.iter_mut().filter(|one| one.labels.values().any(|part| part == "at"));
            at.for_each(|one| one.value += late);
        }
        let plan = case.plan_with(&answer);
        case.rollout.status = Some(plan.status);
        if performs {
            case.perform(&plan.actions);
        }
        case.now += TICK;
        // Lost pods are there again by the next look.
        for deployment in &mut case.children.deployments {
            let pods = deployment["spec"]["replicas"].clone();
            deployment["status"] =
                json!({"observedGeneration": 1, "updatedReplicas": pods, "readyReplicas": pods});
        }
        let marked = case.versions.iter().filter(|version| {
            let marks = version.metadata.annotations.iter().flatten();
            marks.into_iter().any(|(key, _)| key.starts_with(names::ANNOTATION_ROLLED_BACK_IN))
        });
        self.burned.extend(marked.map(|version| version.spec.version.clone()));
    }

    /// What tells it from other states, now.
    fn key(&self) -> String {
        let mut status = serde_json::to_value(&self.case.rollout.status).unwrap();
        let children = &self.case.children;
        let generation = children.route.as_ref().and_then(|route| route["metadata"]["generation"].as_i64());
        if let (Some(over), Some(generation)) = (status["traffic"]["written"]["over"].as_i64(), generation) {
            status["traffic"]["written"]["over"] = (generation - over).min(3).into();
        }
        let mut all = json!([
            status,
            children.deployments,
            children.services,
            children.route.as_ref().map(|route| json!([route["spec"], route["metadata"]["annotations"]])),
            self.case.rollout.metadata.annotations,
            self.case.versions.iter().map(|version| &version.metadata.annotations).collect::<Vec<_>>(),
            self.disturbed,
        ]);
        age(&mut all, self.case.now);
        all.to_string()
    }

    /// Services that get requests, and how many of a thousand.
    fn serving(&self) -> Vec<(String, i64)> {
        let route = self.case.children.route.clone().unwrap_or_default();
        let backends = route["spec"]["rules"][0]["backendRefs"].as_array().cloned().unwrap_or_default();
        let share = |backend: &Value| {
            (backend["name"].as_str().unwrap().to_owned(), backend["weight"].as_i64().unwrap())
        };
        backends.iter().map(share).filter(|(_, weight)| *weight > 0).collect()
    }
}

/// Times become ages, in ticks.
fn age(value: &mut Value, now: Timestamp) {
    match value {
        Value::String(text) if text.ends_with('Z') => {
            if let Ok(at) = text.parse::<Timestamp>() {
                let ticks = now.duration_since(at).as_secs() / TICK.as_secs();
                *value = ticks.min(OLD).into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|one| age(one, now)),
        Value::Object(fields) => fields.values_mut().for_each(|one| age(one, now)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn check(before: &State, act: Act, after: &State) {
    let (was, is) = (before.status(), after.status());
    let told = || {
        format!(
            "{act:?} from {:?} {} to {:?} {}: {:?}",
            was.phase, was.weight, is.phase, is.weight, is.decision
        )
    };
    let Act::Look(reading) = act else { return };
    // A recorded decision is done in the same look, so the route is what the status says.
    let serving = after.serving();
    assert_eq!(serving.iter().map(|(_, weight)| weight).sum::<i64>(), 1000, "{}: {serving:?}", told());
    for (name, _) in &serving {
        let exists = |list: &[Value]| list.iter().any(|child| child["metadata"]["name"] == name.as_str());
        let children = &after.case.children;
        assert!(exists(&children.services) && exists(&children.deployments), "{}: {name}", told());
    }
    // What went back does not come back by itself.
    for version in &before.burned {
        let name = format!("ads-{}", version.replace('.', "-"));
        assert!(serving.iter().all(|(serving, _)| *serving != name), "{}: {name} serves", told());
    }
    let goes_on = |phase: P| match phase {
        P::Pending | P::Preparing | P::Staging | P::RollingBack | P::RolledBack => 0,
        P::Shadow => 1,
        P::Experiment => 2,
        P::Canary => 3,
        P::Baking => 4,
        P::Healthy => 5,
    };
    let place = |status: &ModelRolloutStatus| (goes_on(status.phase), status.weight);
    let on_trial =
        matches!(was.phase, P::Shadow | P::Canary | P::Baking) && was.traffic_accepted_at.is_some();
    // Nothing passes but by a fresh pass.
    if on_trial && place(&is) > place(&was) && is.phase != P::RolledBack {
        assert_eq!(reading, Reading::Pass, "{}", told());
    }
    // A breach takes it back at once.
    if on_trial && reading == Reading::Breach && is.phase != P::Preparing {
        assert!(matches!(is.phase, P::RolledBack | P::RollingBack), "{}", told());
        let back = format!("ads-{}", is.stable.as_ref().unwrap().version.replace('.', "-"));
        assert_eq!(serving, vec![(back, 1000)], "{}", told());
    }
    // No step is left out.
    if is.phase == P::Canary && was.phase == P::Canary && is.weight > was.weight {
        assert_eq!((was.weight, is.weight), (Weight::from_percent(20), Weight::FULL), "{}", told());
    }
}

#[test]
fn every_state_of_a_small_rollout_keeps_its_promises_and_none_is_a_dead_end() {
    let (first, most) = (State::first(), disturbances());
    let mut known = HashMap::from([(first.key(), 0)]);
    let mut queue = VecDeque::from([first]);
    // Where a fresh pass leads from each state, and whether it rests there.
    let mut by_pass: Vec<(usize, bool, String)> = vec![];
    while let Some(state) = queue.pop_front() {
        let disturbs = DISTURBS.iter().filter(|_| state.disturbed < most);
        for act in LOOKS.iter().chain(disturbs) {
            let after = state.after(*act);
            check(&state, *act, &after);
            let count = known.len();
            let index = *known.entry(after.key()).or_insert(count);
            if *act == LOOKS[0] {
                let is = after.status();
                let told = format!("{:?} at {}: {:?}", is.phase, is.weight, is.conditions.first());
                by_pass.push((index, matches!(is.phase, P::Healthy | P::RolledBack), told));
            }
            if index == count {
                queue.push_back(after);
            }
        }
    }
    assert!(known.len() > 1000, "{} states", known.len());
    println!("{} states", known.len());
    for start in 0..by_pass.len() {
        let (mut at, mut looks) = (start, 0);
        while !by_pass[at].1 {
            at = by_pass[at].0;
            looks += 1;
            assert!(looks < 60, "state {start} never comes to rest by fresh passes: {}", by_pass[at].2);
        }
    }
}
