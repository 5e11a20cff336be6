//! Trials: many simulated rollouts, each watched by every contender at once.
//!
//! A rollout's traffic depends on the seed and its number alone, so figures are the same whatever the number of threads, and
//! all contenders see the same requests.

use std::{num::NonZero, thread};

use anneal_core::judge::{
    ArmCount, Arms, Judge, MetricPolicy, Outcome, PodSpread, Policy, PolicyError, Shares, State, Step, Tick,
    Verdict, dispersion,
};

use super::{
    peers::{Peer, Strikes},
    scrape::Scraper,
    thresholds::{Threshold, Windows},
    traffic::{Traffic, Weather, World},
};

/// A world, and who watches it.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its name in tables.
    pub name: String,
    /// What traffic is like.
    pub world: World,
    /// Normal shares of bad requests of the policy's metrics after the first, which stay healthy.
    pub others: Vec<f64>,
    /// Who watches.
    pub contenders: Vec<Contender>,
}

/// Somebody who may roll back.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its name in tables.
    pub name: &'static str,
    /// How it decides.
    pub rule: Rule,
}

/// How a contender decides.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Our judge.
    Judge {
        /// Its policy.
        policy: Policy,
        /// What it learns from stable's last day before the rollout.
        learns: Learns,
    },
    /// Plain thresholds, a metric each.
    Thresholds(Vec<Threshold>),
    /// Another product's rule, with the largest share of bad requests.
    Peer(Peer, f64),
}

/// What a judge learns from history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learns {
    /// Nothing.
    Nothing,
    /// Design effect and spread of pods.
    Dispersion,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// At the end of which tick, from 1.
    pub tick: u32,
    /// Whether it rolled back; otherwise the step was advanced.
    pub rollback: bool,
    /// Bad requests of the candidate before that tick.
    pub bad_before: u64,
}

/// What each contender decided, if anything, in `rollouts` rollouts.
///
/// # Errors
///
/// If a policy is not one.
pub fn run(cell: &Cell, seed: u64, rollouts: u64) -> Result<Vec<Vec<Option<Decision>>>, PolicyError> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                scope.spawn(move || {
                    let numbers = (first..rollouts).step_by(threads as usize);
                    numbers.map(|number| rollout(cell, seed, number)).collect::<Result<Vec<_>, _>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let mut decisions = vec![Vec::new(); cell.contenders.len()];
    for decided in parts.into_iter().flatten() {
        for (all, decision) in decisions.iter_mut().zip(decided) {
            all.push(decision);
        }
    }
    Ok(decisions)
}

/// A contender in one rollout.
enum Watcher {
    Judge(Box<(Judge, State)>),
    Thresholds(Windows),
    Peer(Strikes),
    Done(Decision),
}

fn rollout(cell: &Cell, seed: u64, number: u64) -> Result<Vec<Option<Decision>>, PolicyError> {
    let mut traffic = Traffic::new(cell.world.clone(), seed, number);
    let mut others: Vec<Traffic> = (1..)
        .zip(&cell.others)
        .map(|(metric, &rate)| {
            let world = World { rate, defect: None, ..cell.world.clone() };
            Traffic::new(world, seed, number | metric << 48)
        })
        .collect();
    let learns = cell.contenders.iter().any(|contender| match &contender.rule {
        Rule::Judge { learns, .. } => *learns == Learns::Dispersion,
        Rule::Thresholds(_) | Rule::Peer(..) => false,
    });
    let learned = if learns { dispersion::estimate(&traffic.history()) } else { None };
    let mut watchers: Vec<Watcher> = cell
        .contenders
        .iter()
        .map(|contender| Watcher::new(contender, &cell.world, learned))
        .collect::<Result<_, _>>()?;
    let raw = match cell.world.weather {
        Weather::Flat | Weather::Diurnal | Weather::Outage => None,
        Weather::Resets | Weather::Gaps => Some(&cell.world),
    };
    let mut scraper = raw.map(|world| Scraper::new(world, STEP));
    let (mut bad_before, mut outcomes, mut counts) = (0, Vec::new(), Vec::new());
    for tick in 0..cell.world.ticks() {
        counts.clear();
        let candidate = match &mut scraper {
            Some(scraper) => scraper.tick(&mut traffic, tick),
            None => {
                outcomes.clear();
                let (candidate, stable) = traffic.draw(tick, 1.0);
                outcomes.push(counted(candidate, stable));
                for other in &mut others {
                    let (candidate, stable) = other.draw(tick, 1.0);
                    outcomes.push(counted(candidate, stable));
                    counts.push(candidate);
                }
                Some(candidate)
            }
        };
        candidate.into_iter().for_each(|candidate| counts.insert(0, candidate));
        let weight = traffic.weight(tick);
        for watcher in &mut watchers {
            let decided = match (&mut *watcher, &scraper) {
                (Watcher::Judge(judge), None) => judge_counts(judge, weight, &outcomes),
                (Watcher::Judge(judge), Some(scraper)) => judge_samples(judge, scraper),
                (Watcher::Thresholds(windows), _) => windows.measure(&counts).then_some(true),
                (Watcher::Done(_), _) => None,
                (Watcher::Peer(strikes), _) => strikes.measure(candidate).then_some(true),
            };
            if let Some(rollback) = decided {
                *watcher = Watcher::Done(Decision { tick: tick + 1, rollback, bad_before });
            }
        }
        bad_before += candidate.map_or(0, |count| count.bad);
        if watchers.iter().all(|watcher| matches!(watcher, Watcher::Done(_))) {
            break;
        }
    }
    let decision = |watcher| match watcher {
        Watcher::Done(decision) => Some(decision),
        Watcher::Judge(_) | Watcher::Thresholds(_) | Watcher::Peer(_) => None,
    };
    Ok(watchers.into_iter().map(decision).collect())
}

impl Watcher {
    fn new(
        contender: &Contender,
        world: &World,
        learned: Option<dispersion::Dispersion>,
    ) -> Result<Self, PolicyError> {
        match &contender.rule {
            Rule::Judge { policy, learns } => {
                let mut policy = policy.clone();
                if *learns == Learns::Dispersion
                    && let Some(learned) = learned
                {
                    policy.split_design_effect = learned.design_effect;
                    policy.metrics.iter_mut().for_each(|metric| learn(metric, world, learned));
                }
                let state = State::new(&policy, 0, 0);
                Ok(Self::Judge(Box::new((Judge::new(policy)?, state))))
            }
            Rule::Thresholds(thresholds) => Ok(Self::Thresholds(Windows::new(thresholds))),
            Rule::Peer(peer, max) => Ok(Self::Peer(Strikes::new(*peer, *max))),
        }
    }
}

fn learn(metric: &mut MetricPolicy, world: &World, learned: dispersion::Dispersion) {
    metric.design_effect = learned.design_effect;
    metric.pods = world.pods.map(|pods| PodSpread {
        sd: learned.pod_sd,
        degrees: learned.pods - 1,
        candidate_pods: pods.candidate,
        stable_pods: pods.stable,
    });
}

/// No step of a trial ends by its interval.
const STEP: Step = Step {
    index: 0,
    arms: Arms::Both,
    began_ms: 0,
    min_ms: 0,
    interval_ms: i64::MAX,
    max_ms: None,
    min_requests: 0,
};

const fn counted(candidate: ArmCount, stable: ArmCount) -> Outcome {
    let shares = Shares { candidate, stable };
    Outcome::Both { shares, strict: shares }
}

/// What the judge decides after a tick's counts: true is a rollback.
pub(super) fn judge_counts(judge: &mut (Judge, State), weight: f64, outcomes: &[Outcome]) -> Option<bool> {
    let (judge, state) = judge;
    judge.fold_tick(state, &STEP, &Tick { weight: Some(weight), outcomes, beside: None });
    decided(judge.verdict(state, &STEP))
}

fn judge_samples(judge: &mut (Judge, State), scraper: &Scraper) -> Option<bool> {
    let (judge, state) = judge;
    let empty = State::new(judge.policy(), 0, 0);
    let (folded, verdict) = judge.fold(std::mem::replace(state, empty), scraper.seen());
    *state = folded;
    decided(verdict)
}

fn decided(verdict: Verdict) -> Option<bool> {
    match verdict {
        Verdict::Rollback(_) | Verdict::Lost | Verdict::NoWinner => Some(true),
        Verdict::Advance => Some(false),
        Verdict::Hold(_) | Verdict::Progressing => None,
    }
}
