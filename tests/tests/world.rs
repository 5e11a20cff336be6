//! Thousands of seeded worlds, in which every law holds and everything comes to rest.
//!
//! `SEED=n cargo test -p anneal-tests --test world -- --nocapture` replays one and prints its story; `SEEDS=n` plays
//! those below that number, from `FROM=m` on; `SURVEY=1` goes on after a failure and counts which laws broke.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is a test")]

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use anneal_tests::world::{self, Report, Story};

// A world is objects that are copied: this allocator makes it a third faster.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEEDS: u64 = 10_000;
/// Seeds of each law that a survey tells.
const TOLD: usize = 20;

#[expect(clippy::disallowed_methods, reason = "a test's arguments come from the environment")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn fail(report: &Report) -> ! {
    let told = world::run(report.seed, Story::Kept);
    let story = told.trace.join("\n");
    panic!(
        "{story}\n\nseed {} breaks a law: {:?}\nreplay it with SEED={}",
        report.seed, report.violation, report.seed
    )
}

/// Plays seeds on all cores until all are played or, unless `survey`, one fails.
fn play(seeds: u64, survey: bool) -> (Vec<Report>, Option<Report>) {
    let (next, failed) = (AtomicU64::new(number("FROM").unwrap_or(0)), Mutex::new(None::<Report>));
    let worker = || {
        let mut reports = vec![];
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || (!survey && failed.lock().unwrap().is_some()) {
                return reports;
            }
            let report = world::run(seed, Story::Dropped);
            if report.violation.is_some() {
                let mut failed = failed.lock().unwrap();
                if failed.as_ref().is_none_or(|other| other.seed > seed) {
                    *failed = Some(report.clone());
                }
            }
            reports.push(report);
        }
    };
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let reports = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    (reports, failed.into_inner().unwrap())
}

fn print_survey(reports: &[Report]) {
    let mut broken = BTreeMap::<&str, Vec<(u64, &str)>>::new();
    for report in reports {
        if let Some(violation) = &report.violation {
            broken.entry(violation.law).or_default().push((report.seed, &violation.why));
        }
    }
    for (law, mut seeds) in broken {
        seeds.sort_unstable();
        println!("{law}: {} of {} seeds", seeds.len(), reports.len());
        for (seed, why) in seeds.iter().take(TOLD) {
            println!("  seed {seed}: {why}");
        }
    }
}

#[test]
fn every_law_holds_in_every_world_and_every_world_comes_to_rest() {
    if let Some(seed) = number("SEED") {
        let report = world::run(seed, Story::Kept);
        println!("{}", report.trace.join("\n"));
        assert_eq!(report.violation, None, "seed {seed}");
        return;
    }
    let survey = number("SURVEY").is_some();
    let (reports, failed) = play(number("SEEDS").unwrap_or(SEEDS), survey);
    if survey {
        return print_survey(&reports);
    }
    if let Some(report) = failed {
        fail(&report);
    }
    let steps: usize = reports.iter().map(|report| report.steps).sum();
    let reconciles: usize = reports.iter().map(|report| report.reconciles).sum();
    let mut reached = BTreeMap::<&str, usize>::new();
    for (name, count) in reports.iter().flat_map(|report| &report.reached) {
        *reached.entry(name).or_default() += count;
    }
    println!("{} seeds, {steps} steps, {reconciles} reconciles; at rest: {reached:?}", reports.len());
    for end in [
        "rollout Healthy",
        "rollout RolledBack",
        "rollout Pending",
        "job Succeeded",
        "job Rejected",
        "job Failed",
        "decision Bootstrapped",
        "decision StepStarted",
        "decision Promoted",
        "decision PromotedByHand",
        "decision BakePassed",
        "decision ThresholdBreached",
        "decision CandidateUnavailable",
        "decision HeldTooLong",
        "decision ProgressDeadlineExceeded",
        "decision CandidateWithdrawn",
        "decision StrategyChanged",
        "decision Superseded",
        "decision ExperimentStarted",
        "decision ExperimentWon",
        "decision ExperimentLost",
        "decision ExperimentInconclusive",
        "decision Aborted",
        "decision MirrorUnsupported",
        "decision RollingBack",
        "decision RolledBackByHand",
        "decision Staging",
        "decision StagingFailed",
        "staging Shadow",
        "staging StepStarted",
        "staging PromotedByHand",
        "decision SmokePassed",
        "decision SmokeFailed",
        "rollback that waits",
        "glance",
        "glance at what is old",
        "route that is contested",
        "raw samples that are too much",
        "counters that began anew",
        "step with labels",
        "decision Approved",
        "candidate that is frozen",
        "candidate that needs an approval",
        "promotion despite a freeze",
        "route of a user's that is written",
        "canary beside what served before",
        "candidate that waits for pods",
        "autoscaler that nobody knows",
    ] {
        assert!(reached.contains_key(end), "no world came to {end}");
    }
}

#[test]
fn an_operator_may_die_after_any_write() {
    // Each write of these worlds is once the last one of an operator.
    let mortal = number("SEEDS").unwrap_or(SEEDS) / 1000;
    let plays: Vec<(u64, usize)> = (0..mortal)
        .flat_map(|seed| (1..=world::run(seed, Story::Dropped).writes).map(move |after| (seed, after)))
        .collect();
    assert!(plays.len() as u64 >= 50 * mortal, "{} deaths", plays.len());
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some(&(seed, after)) = plays.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = world::run_with_a_death(seed, Story::Dropped, Some(after));
            assert_eq!(report.violation, None, "seed {seed}, dead after {after} writes");
        }
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
        (0..cores).for_each(|_| drop(scope.spawn(worker)));
    });
    println!("{} deaths", plays.len());
}

#[test]
fn a_seed_is_the_whole_story() {
    for seed in 0..5 {
        assert_eq!(world::run(seed, Story::Kept), world::run(seed, Story::Kept));
    }
}
