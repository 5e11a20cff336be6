//! An experiment in a rollout's plan: who wins, who loses, and what keeps a version from winning, on raw samples.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;

use anneal_core::{
    plan::Plan,
    rollout::{Answer, Query, RawSeries},
};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P, names};
use anneal_tests::{
    cases::{self, RolloutCase},
    raw::Raw,
};
use jiff::SignedDuration;
use serde_json::{Value, json};

/// What a version does with so many requests a second: how many of a thousand are errors, right answers and slow.
#[derive(Clone, Copy, Debug)]
struct Arm {
    rps: i64,
    errors: i64,
    right: i64,
    slow: i64,
}

const STABLE: Arm = Arm { rps: 100, errors: 5, right: 800, slow: 50 };
const BETTER: Arm = Arm { right: 900, ..STABLE };
const WORSE: Arm = Arm { right: 700, ..STABLE };

#[derive(Clone, Debug)]
struct World {
    case: RolloutCase,
    began_ms: i64,
    /// From which second on versions 1 and 2 did what.
    arms: Vec<(i64, [Arm; 2])>,
    /// Nothing is scraped between these.
    gap_ms: (i64, i64),
}

impl World {
    /// An experiment of 140 s that began this moment, with 14 looks and ticks of 1 s, by what `experiment` says besides.
    fn new(candidate: Arm, experiment: &Value) -> Self {
        let mut own = json!({"duration": "140s", "looks": 14, "primary": "accuracy", "secondary": ["slow"]});
        for (field, value) in experiment.as_object().into_iter().flatten() {
            own[field] = value.clone();
        }
        let mut status = cases::moving("Experiment", 50);
        for time in ["stepStartedAt", "trafficAcceptedAt", "trialStartedAt"] {
            status[time] = cases::ago(0).into();
        }
        let mut case = RolloutCase::new(status).unwrap();
        let spec = &mut case.rollout.spec;
        spec.strategy.experiment = Some(serde_json::from_value(own).unwrap());
        spec.judge = serde_json::from_value(
            json!({"evidence": "sequential", "maxHold": "2m", "sequential": {"dispersion": "Assumed"}}),
        )
        .unwrap();
        let metric = |name: &str, ratio: Value| json!({"name": name, "window": "40s", "interval": "1s", "ratio": ratio});
        spec.metrics = serde_json::from_value(json!([
            metric("error_rate", json!({"bad": "errors", "total": "all", "max": 0.05})),
            metric("accuracy", json!({"bad": "right", "total": "all", "min": 0.5})),
            metric("slow", json!({"bad": "slow", "total": "all", "max": 0.2})),
        ]))
        .unwrap();
        spec.prometheus.stale_after = "10s".parse().unwrap();
        case.settle_children();
        let began_ms = case.now.as_millisecond();
        let arms = vec![(began_ms / 1000 - 10_000, [STABLE, candidate])];
        Self { case, began_ms, arms, gap_ms: (0, 0) }
    }

    /// From now on.
    fn turn(&mut self, candidate: Arm) {
        self.arms.push((self.case.now.as_second(), [STABLE, candidate]));
    }

    /// All that a version's counter has counted until a second.
    fn counted(&self, version: usize, counter: &str, second: i64) -> i64 {
        let ends = self.arms.iter().skip(1).map(|(from, _)| *from).chain([i64::MAX]);
        let parts = self.arms.iter().zip(ends).map(|((from, arms), end)| {
            let arm = arms[version];
            let share = match counter {
                "errors" => arm.errors,
                "right" => arm.right,
                "slow" => arm.slow,
                _ => 1000,
            };
            arm.rps * (second.min(end) - from).max(0) * share / 1000
        });
        parts.sum()
    }

    fn answer(&self, query: &Query) -> Answer {
        let raw = Raw::read(&query.expression, self.case.now).unwrap();
        let series = raw.versions.iter().map(|version| {
            let number = usize::from(version.ends_with('2'));
            let scraped = (raw.from_ms.div_euclid(1000) + 1..=raw.until_ms.div_euclid(1000))
                .filter(|second| !(self.gap_ms.0..self.gap_ms.1).contains(&(second * 1000)));
            let samples = scraped
                .map(|second| (second * 1000, self.counted(number, &raw.selector, second) as f64))
                .collect();
            let labels = [("version", version.as_str()), ("pod", "p")];
            let labels: BTreeMap<_, _> =
                labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            RawSeries { labels, samples, histograms: vec![] }
        });
        Answer::Matrix(series.collect())
    }

    fn plan(&self) -> Plan<ModelRolloutStatus> {
        self.case.plan_answering(|query| self.answer(query))
    }

    fn record(&mut self) -> ModelRolloutStatus {
        let plan = self.plan();
        self.case.follow(plan)
    }

    /// A second passes, and the operator looks.
    fn tick(&mut self) -> ModelRolloutStatus {
        self.case.now += SignedDuration::from_secs(1);
        self.record()
    }

    /// The seconds until the experiment is over, at most 300, and how.
    fn end(&mut self) -> (usize, ModelRolloutStatus) {
        self.until(300, |status| status.phase != P::Experiment)
    }

    fn until(
        &mut self,
        ticks: usize,
        there: impl Fn(&ModelRolloutStatus) -> bool,
    ) -> (usize, ModelRolloutStatus) {
        cases::until(ticks, || self.tick(), there)
    }

    fn annotate(&mut self, key: &str, text: &str) {
        let annotations = self.case.rollout.metadata.annotations.get_or_insert_default();
        annotations.insert(key.to_owned(), text.to_owned());
    }

    fn seconds(&self) -> i64 {
        (self.case.now.as_millisecond() - self.began_ms) / 1000
    }
}

fn decision(status: &ModelRolloutStatus) -> (&str, &str) {
    let decision = status.decision.as_ref().unwrap();
    (&decision.reason, &decision.message)
}

fn says(status: &ModelRolloutStatus) -> String {
    let mut all = status.conditions.iter();
    let said = all.find(|condition| condition.type_ == "Reconciling" && condition.status == "True");
    said.map_or_else(String::new, |said| said.message.clone())
}

fn looks(status: &ModelRolloutStatus) -> Vec<Value> {
    let looks = &status.judge.as_ref().unwrap()["state"]["looks"];
    looks.as_array().cloned().unwrap_or_default()
}

#[test]
fn who_is_better_goes_on_and_who_is_not_is_taken_back() {
    let stable_is_slow = |arm: Arm| Arm { slow: 100, ..arm };
    let table = [
        // Half of its time is the shortest, and other steps begin from their first one.
        (BETTER, json!({}), P::Canary, 20, "ExperimentWon", 70..76),
        (BETTER, json!({"minDuration": "100s"}), P::Canary, 20, "ExperimentWon", 100..106),
        (BETTER, json!({"looks": 1}), P::Canary, 20, "ExperimentWon", 140..146),
        // A loser is not kept for its shortest time.
        (WORSE, json!({}), P::RolledBack, 0, "ExperimentLost", 10..40),
        (STABLE, json!({}), P::RolledBack, 0, "ExperimentInconclusive", 140..146),
        // Twice stable's odds are not shown to be no worse, whatever else is better.
        (stable_is_slow(BETTER), json!({}), P::RolledBack, 0, "ExperimentInconclusive", 140..146),
        (stable_is_slow(BETTER), json!({"secondary": []}), P::Canary, 20, "ExperimentWon", 70..76),
        (BETTER, json!({"minRequests": 9000}), P::Canary, 20, "ExperimentWon", 90..96),
    ];
    for (candidate, experiment, phase, weight, reason, when) in table {
        let mut world = World::new(candidate, &experiment);
        let (seconds, status) = world.end();
        let told = format!("{experiment}: {seconds} s, {:?}, {}", status.decision, says(&status));
        assert_eq!((status.phase, status.weight), (phase, Weight::from_percent(weight)), "{told}");
        assert_eq!(decision(&status).0, reason, "{told}");
        assert!(when.contains(&seconds), "{told}");
        assert_eq!(status.stable.unwrap().version, "v20261121.1");
        let readings = status.decision.unwrap().readings;
        let names: Vec<&str> = readings.iter().map(|reading| reading.metric.as_str()).collect();
        assert_eq!(names.len(), 2 + usize::from(experiment["secondary"] != json!([])), "{names:?}");
    }
}

#[test]
fn labels_put_off_looks_and_the_end_by_their_delay() {
    for (candidate, reason, when) in [
        (BETTER, "ExperimentWon", 130..136),
        (WORSE, "ExperimentLost", 70..100),
        (STABLE, "ExperimentInconclusive", 200..206),
    ] {
        let mut world = World::new(candidate, &json!({}));
        world.case.rollout.spec.metrics[1].label_delay = Some("60s".parse().unwrap());
        let (seconds, status) = world.end();
        assert_eq!(decision(&status).0, reason, "{seconds} s, {}", says(&status));
        assert!(when.contains(&seconds), "{reason}: {seconds} s");
    }
}

#[test]
fn the_end_says_by_which_look_and_what_was_missing() {
    let slow = Arm { slow: 100, ..BETTER };
    for (candidate, parts) in [
        (BETTER, vec!["v20261121.2 won its experiment, look 6 of 14: z ", "takes 20 % (step 1 of 2)"]),
        (WORSE, vec!["stable is better by accuracy, look 2 of 14: z -", "needs 5.6"]),
        (STABLE, vec!["neither version was shown to be better, look 14 of 14: z 0", "needs 2.1"]),
        (slow, vec!["slow was not shown to be no worse, look 14 of 14"]),
    ] {
        let (_, status) = World::new(candidate, &json!({})).end();
        for part in parts {
            assert!(decision(&status).1.contains(part), "{part}: {}", decision(&status).1);
        }
    }
}

#[test]
fn a_metric_of_the_experiment_is_told_for_what_it_is_there_for() {
    let mut world = World::new(BETTER, &json!({}));
    let (_, status) = world.end();
    let bounds: Vec<(String, String)> = status
        .decision
        .unwrap()
        .readings
        .into_iter()
        .map(|reading| (reading.metric, reading.bound))
        .collect();
    let wanted = [
        ("error_rate", "<= 0.05, 1.2 x stable"),
        ("accuracy", "better than stable"),
        ("slow", "below 2 x stable"),
    ];
    assert_eq!(bounds, wanted.map(|(metric, bound)| (metric.to_owned(), bound.to_owned())));
}

#[test]
fn what_is_told_changes_with_a_look_and_not_between_two() {
    // A little better: not enough for the first looks.
    let mut world = World::new(Arm { right: 815, ..STABLE }, &json!({"duration": "14m"}));
    world.until(150, |_| false);
    let (mut writes, mut told) = (0, vec![]);
    for _ in 0..120 {
        let before = world.case.rollout.status.clone().unwrap();
        let status = world.tick();
        writes += usize::from(status != before);
        if told.last() != Some(&says(&status)) {
            told.push(says(&status));
        }
        assert_eq!(status.phase_summary.as_deref(), Some("Experiment"));
    }
    assert!((2..=3).contains(&told.len()) && writes <= 8, "{writes} writes: {told:?}");
    let status = world.case.rollout.status.clone().unwrap();
    let look = looks(&status).len();
    assert_eq!(status.step_summary, Some(format!("{look}/14")));
    assert!(told.last().unwrap().contains(&format!("look {look} of 14: z ")), "{told:?}");
    assert_eq!(status.observed.unwrap().percent, "50.0 (49.5 to 50.5)".to_owned());
}

#[test]
fn it_says_which_difference_it_shows() {
    // 14,000 requests of each, of which a fifth are wrong: a standard error of 0.48 points, and |z| of about 2.1 + 0.84.
    let told = |status: &ModelRolloutStatus| {
        let told = status.conditions.iter().find(|told| told.type_ == "Detectability");
        told.map(|told| told.message.clone()).unwrap_or_default()
    };
    let mut world = World::new(STABLE, &json!({}));
    let (_, status) = world.until(9, |_| false);
    assert!(!told(&status).contains("percentage points"), "{}", told(&status));
    let (_, status) = world.until(130, |status| told(status).contains("percentage points"));
    let said = "accuracy: at its end the experiment shows, in four of five cases, a difference of about 1.4 percentage points.";
    assert!(told(&status).contains(said), "{}", told(&status));
    // A little more than that wins where nothing is left to chance.
    let (_, status) = World::new(Arm { right: 815, ..STABLE }, &json!({})).end();
    assert_eq!(status.phase, P::Canary, "{:?}", decision(&status));
}

#[test]
fn a_guard_rolls_back_between_two_looks() {
    let mut world = World::new(BETTER, &json!({"looks": 1}));
    world.until(30, |_| false);
    world.turn(Arm { errors: 300, ..BETTER });
    let (seconds, status) = world.end();
    assert_eq!((status.phase, decision(&status).0), (P::RolledBack, "ThresholdBreached"));
    assert!(seconds < 15, "{seconds}");
    // The metric that decides is no guard, however bad it is.
    let mut wrong = World::new(Arm { right: 100, ..STABLE }, &json!({"looks": 1}));
    let (seconds, status) = wrong.end();
    assert_eq!((decision(&status).0, seconds >= 140), ("ExperimentLost", true));
}

#[test]
fn looks_that_were_missed_are_made_up_once_with_the_counts_of_their_time() {
    let little_better = Arm { right: 815, ..STABLE };
    let mut watching = World::new(little_better, &json!({}));
    let mut away = watching.clone();
    watching.until(100, |_| false);
    away.until(15, |_| false);
    away.case.now += SignedDuration::from_secs(85 - 1);
    away.tick();
    assert_eq!(away.seconds(), watching.seconds());
    let (seen, made_up) = (watching.case.rollout.status.clone().unwrap(), away.record());
    assert_eq!(looks(&seen), looks(&made_up));
    assert_eq!(looks(&made_up).len(), 10, "each once: {:?}", looks(&made_up));
    // Without samples the clock stands still: what is missed then comes later, and is not skipped.
    let mut blind = World::new(little_better, &json!({}));
    blind.gap_ms = (blind.began_ms + 35_000, blind.began_ms + 98_000);
    blind.until(100, |_| false);
    let ticks: Vec<i64> =
        looks(&blind.record()).iter().map(|look| look.as_array().unwrap()[0].as_i64().unwrap()).collect();
    assert_eq!(ticks, [10, 20, 30]);
}

#[test]
fn an_operator_that_starts_at_any_moment_comes_to_the_same_end() {
    for candidate in [BETTER, WORSE, STABLE, Arm { right: 815, ..STABLE }] {
        let mut world = World::new(candidate, &json!({}));
        let mut moments = vec![];
        loop {
            moments.push(world.clone());
            if world.tick().phase != P::Experiment {
                break;
            }
            assert!(moments.len() < 200);
        }
        let ended = world.case.rollout.status.clone().unwrap();
        for mut other in moments.into_iter().skip(1).step_by(9) {
            other.case.now = world.case.now;
            let status = other.plan().status;
            let of = |status: &ModelRolloutStatus| (status.phase, status.decision.clone().unwrap().message);
            assert_eq!(of(&status), of(&ended));
            assert_eq!(looks(&status), looks(&ended));
        }
    }
}

#[test]
fn requests_that_are_divided_otherwise_let_nobody_win() {
    let mut ignored = World::new(Arm { rps: 20, ..BETTER }, &json!({}));
    let (_, status) = ignored.until(110, |status| status.phase != P::Experiment);
    assert_eq!(status.phase, P::Experiment, "{:?}", status.decision);
    let verified = status.conditions.iter().find(|condition| condition.type_ == "TrafficVerified").unwrap();
    assert_eq!((verified.status.as_str(), verified.reason.as_str()), ("False", "TrafficSplitMismatch"));
    let (_, status) = ignored.end();
    assert_eq!((status.phase, decision(&status).0), (P::RolledBack, "HeldTooLong"));
}

#[test]
fn time_without_requests_is_no_time_of_the_experiment() {
    let mut quiet = World::new(BETTER, &json!({}));
    quiet.until(20, |_| false);
    let idle = Arm { rps: 0, ..BETTER };
    quiet.arms.push((quiet.case.now.as_second(), [idle, idle]));
    let (_, status) = quiet.until(200, |status| status.phase != P::Experiment);
    assert_eq!(status.phase, P::Experiment);
    assert!(says(&status).contains("nobody gets any requests"), "{}", says(&status));
    quiet.turn(BETTER);
    let (seconds, status) = quiet.end();
    assert_eq!((status.phase, decision(&status).0), (P::Canary, "ExperimentWon"));
    assert!((46..56).contains(&seconds), "{seconds}");
}

#[test]
fn people_promote_pause_and_abort_it_as_any_step() {
    let mut promoted = World::new(STABLE, &json!({}));
    promoted.until(5, |_| false);
    promoted.annotate(names::ANNOTATION_PROMOTE, "v20261121.2@20: not this one");
    assert_eq!(promoted.tick().phase, P::Experiment);
    promoted.annotate(names::ANNOTATION_PROMOTE, "v20261121.2@Experiment: we know");
    let status = promoted.tick();
    assert_eq!((status.phase, status.weight), (P::Canary, Weight::from_percent(20)));
    assert!(decision(&status).1.contains("promoted out of Experiment"), "{}", decision(&status).1);
    let mut full = World::new(STABLE, &json!({}));
    full.annotate(names::ANNOTATION_PROMOTE, "v20261121.2@full: we know");
    assert_eq!(full.tick().phase, P::Healthy);
    let mut aborted = World::new(BETTER, &json!({}));
    aborted.annotate(names::ANNOTATION_ABORT, "v20261121.2: no");
    assert_eq!((aborted.tick().phase, decision(&aborted.record()).0), (P::RolledBack, "Aborted"));
    // A pause keeps who has won, and no one who has lost.
    let mut paused = World::new(BETTER, &json!({}));
    paused.case.rollout.spec.paused = true;
    let (_, status) = paused.until(200, |status| status.phase != P::Experiment);
    assert_eq!((status.phase, status.phase_summary.as_deref()), (P::Experiment, Some("Experiment/Paused")));
    assert!(says(&status).contains("has passed and waits"), "{}", says(&status));
    paused.case.rollout.spec.paused = false;
    assert_eq!((paused.tick().phase, decision(&paused.record()).0), (P::Canary, "ExperimentWon"));
    let mut lost = World::new(WORSE, &json!({}));
    lost.case.rollout.spec.paused = true;
    assert_eq!(lost.end().1.phase, P::RolledBack);
}

#[test]
fn a_freeze_keeps_who_has_won_and_no_one_who_has_not() {
    for (candidate, phase) in [(BETTER, P::Experiment), (STABLE, P::RolledBack), (WORSE, P::RolledBack)] {
        let mut frozen = World::new(candidate, &json!({}));
        let noon = json!([{"name": "noon", "schedule": "30 11 * * *", "duration": "1h"}]);
        frozen.case.rollout.spec.strategy.freezes = serde_json::from_value(noon).unwrap();
        let (_, status) = frozen.until(200, |status| status.phase != P::Experiment);
        assert_eq!(status.phase, phase, "{candidate:?}: {:?}", status.decision);
    }
}

#[test]
fn who_has_won_waits_for_an_approval_or_a_person_and_loses_nothing_meanwhile() {
    let mut world = World::new(BETTER, &json!({"then": "Approval"}));
    let (_, status) = world.until(200, |status| status.phase != P::Experiment);
    assert_eq!(status.phase_summary.as_deref(), Some("Experiment/AwaitingApproval"));
    let pending = status.approval.clone().unwrap();
    assert_eq!(pending.evidence.step, "Experiment");
    assert_eq!(pending.evidence.metrics.len(), 3);
    // Its time is long over, and the looks have ended with the winner.
    assert!(looks(&status).len() < 14);
    let text = format!("v20261121.2@Experiment {}: I saw it", &pending.digest[..12]);
    world.annotate(names::ANNOTATION_APPROVE, &text);
    let status = world.tick();
    assert_eq!((status.phase, decision(&status).0), (P::Canary, "Approved"));
    let mut person = World::new(BETTER, &json!({"then": "Pause"}));
    let (_, status) = person.until(200, |status| status.phase != P::Experiment);
    assert!(says(&status).contains("v20261121.2@Experiment: why"), "{}", says(&status));
}

#[test]
fn an_approval_before_full_traffic_is_one_of_the_experiment_where_no_step_is_below_it() {
    for (strategy, waits) in [
        (json!({"blueGreen": {"duration": "20s"}}), true),
        (json!({"canary": {"initial": 20, "increment": 80, "interval": "20s"}}), false),
    ] {
        let mut world = World::new(BETTER, &json!({}));
        let own = &mut world.case.rollout.spec.strategy;
        own.progression = serde_json::from_value(strategy.clone()).unwrap();
        own.approval = serde_json::from_value(json!({"before": "FullTraffic"})).unwrap();
        let (_, status) = world.until(100, |status| status.phase != P::Experiment);
        assert_eq!(status.approval.is_some(), waits, "{strategy}: {}", says(&status));
        assert_eq!(status.phase == P::Experiment, waits, "{strategy}");
        // Nobody goes past the one that lies ahead.
        let mut full = World::new(BETTER, &json!({}));
        full.case.rollout.spec.strategy = world.case.rollout.spec.strategy.clone();
        full.annotate(names::ANNOTATION_PROMOTE, "v20261121.2@full: now");
        assert_eq!(full.tick().phase, P::Experiment, "{strategy}");
    }
}

#[test]
fn who_did_not_win_does_not_come_back_by_itself_and_may_try_again() {
    for candidate in [WORSE, STABLE] {
        let mut world = World::new(candidate, &json!({}));
        let (_, status) = world.end();
        assert_eq!(status.rejected[0].version.version, "v20261121.2");
        let (_, status) = world.until(40, |status| status.phase != P::RolledBack);
        assert_eq!(status.phase, P::RolledBack);
        world.annotate(names::ANNOTATION_RETRY, "v20261121.2: the labels were wrong");
        let status = world.tick();
        assert_eq!((status.phase, status.weight, status.judge), (P::Preparing, Weight::ZERO, None));
    }
}

#[test]
fn a_newer_version_or_another_experiment_begins_anew() {
    let mut newer = World::new(BETTER, &json!({}));
    newer.until(20, |_| false);
    newer.case.versions.push(cases::version(3, Some(1)).unwrap());
    let status = newer.tick();
    assert_eq!(
        (status.phase, status.weight, decision(&status).0),
        (P::Preparing, Weight::ZERO, "Superseded")
    );
    // Another split, or none, is another way to take over.
    for split in [Some(20), None] {
        let mut other = World::new(BETTER, &json!({}));
        other.until(20, |_| false);
        let own = &mut other.case.rollout.spec.strategy.experiment;
        *own = own.take().and_then(|own| {
            Some(anneal_crds::model_rollout::Experiment { split: Weight::from_percent(split?), ..own })
        });
        let status = other.tick();
        assert_eq!((status.phase, decision(&status).0), (P::Preparing, "StrategyChanged"));
    }
    // Other looks are another test, whose time begins now: nobody chooses when to look by what was seen.
    let mut looked = World::new(BETTER, &json!({}));
    let (_, status) = looked.until(60, |_| false);
    assert_eq!(looks(&status).len(), 6);
    looked.case.rollout.spec.strategy.experiment.as_mut().unwrap().looks = Some(60);
    let status = looked.tick();
    assert_eq!(looks(&status)[0].as_array().unwrap()[0], 3, "the first of sixty");
    let (seconds, status) = looked.end();
    assert_eq!(decision(&status).0, "ExperimentWon", "{seconds}");
}

#[test]
fn it_comes_after_the_shadow_and_before_the_first_step() {
    let mut world = World::new(BETTER, &json!({"split": 12.5}));
    let mut status = cases::moving("Preparing", 0);
    status["trafficAcceptedAt"] = Value::Null;
    world.case.rollout.status = Some(serde_json::from_value(status).unwrap());
    let mut phases = vec![];
    for _ in 0..200 {
        let status = world.tick();
        let place = (status.phase, status.weight.to_string());
        if phases.last() != Some(&place) {
            phases.push(place);
        }
        if status.phase == P::Experiment {
            break;
        }
    }
    let wanted = [(P::Preparing, "0"), (P::Shadow, "0"), (P::Experiment, "12.5")];
    let wanted = wanted.map(|(phase, weight)| (phase, weight.to_owned()));
    assert!(wanted.ends_with(&phases) && phases.len() >= 2, "{phases:?}");
    let route = world.case.children.route.clone().unwrap();
    let backends = route["spec"]["rules"][0]["backendRefs"].as_array().unwrap().clone();
    let weights: Vec<i64> = backends.iter().map(|backend| backend["weight"].as_i64().unwrap()).collect();
    assert_eq!(weights, [875, 125]);
    let status = world.case.rollout.status.clone().unwrap();
    assert_eq!(status.step_summary.as_deref(), Some("0/14"));
    assert_eq!(decision(&status).0, "ExperimentStarted");
}

#[test]
fn without_a_test_that_could_name_a_winner_nobody_goes_on() {
    // The API server lets in none of these; a pass does not depend on it.
    let mut plain = World::new(BETTER, &json!({}));
    plain.case.rollout.spec.judge.evidence = anneal_crds::metric::JudgeEvidence::None;
    plain.case.rollout.spec.judge.sequential = None;
    plain.case.rollout.spec.strategy.experiment.as_mut().unwrap().primary = "slow".into();
    plain.case.rollout.spec.strategy.experiment.as_mut().unwrap().secondary.clear();
    let errors = cases::Read::Errors(0.0, 1000.0).answer();
    for _ in 0..5 {
        plain.case.now += SignedDuration::from_secs(1);
        let status = plain.case.plan_with(&errors).status;
        assert_eq!(status.phase, P::Experiment, "{:?}", status.decision);
    }
    let unasked = |change: &dyn Fn(&mut World)| {
        let mut world = World::new(BETTER, &json!({}));
        change(&mut world);
        let healthy = json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1),
            "trafficAcceptedAt": cases::ago(600)});
        world.case.rollout.status = Some(serde_json::from_value(healthy).unwrap());
        // The route leads to stable alone again.
        for _ in 0..3 {
            world.tick();
        }
        let status = world.record();
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!((status.phase, ready.reason.as_str()), (P::Healthy, "InvalidExperiment"), "{ready:?}");
        ready.message.clone()
    };
    let mine = |world: &mut World, change: &dyn Fn(&mut anneal_crds::model_rollout::Experiment)| {
        change(world.case.rollout.spec.strategy.experiment.as_mut().unwrap());
    };
    let long = unasked(&|world| mine(world, &|own| own.min_duration = Some("141s".parse().unwrap())));
    assert!(long.contains("minDuration is 2m21s and duration 2m20s"), "{long}");
    let none = unasked(&|world| {
        world.case.rollout.spec.judge.evidence = anneal_crds::metric::JudgeEvidence::None;
        world.case.rollout.spec.judge.sequential = None;
    });
    assert!(none.contains("judge.evidence: sequential"), "{none}");
    let unknown = unasked(&|world| mine(world, &|own| own.secondary = vec!["feeling".into()]));
    assert!(unknown.contains("names feeling"), "{unknown}");
}

#[test]
fn the_candidate_is_not_left_where_nobody_can_be_told_apart() {
    // No answer is ever right or wrong for certain: every event is a good one.
    let perfect = Arm { right: 1000, ..STABLE };
    let mut world = World::new(perfect, &json!({"secondary": []}));
    world.arms[0].1[0].right = 1000;
    let (seconds, status) = world.end();
    assert_eq!(decision(&status).0, "ExperimentInconclusive");
    assert!((140..146).contains(&seconds), "{seconds}");
    assert!(decision(&status).1.contains("nothing to tell the versions apart by"), "{}", decision(&status).1);
}
