//! Answers in shadow: how often a candidate is rolled back for answering otherwise or for being wrong more often, and after how
//! many requests.
//!
//! Agreement is judged beside plain thresholds on the last requests, with what stable differs by itself subtracted and without.
//! Labels are judged in pairs, and beside that by two arms that have requests of their own, with as many labels in all.

use std::collections::VecDeque;

use anneal_core::judge::{
    ArmCount, Compared, Events, Judge, Outcome, Pairs, PolicyError, Rule, Shares, Source, State,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Binomial, Distribution};

use super::{cells, trial::judge_counts};

/// Share of requests in which the candidate may answer otherwise.
const MOST: f64 = 0.05;
/// Requests of a tick.
const TICK: u64 = 50;
/// Ticks that a plain threshold is asked about.
const WINDOW: usize = 10;
/// Requests of a shadow.
const REQUESTS: u64 = 50_000;
/// How often stable is right.
const ACCURACY: f64 = 0.85;

/// Chances of a request: the candidate alone is one thing, or stable alone is.
#[derive(Clone, Copy, Debug)]
struct World {
    candidate: f64,
    stable: f64,
}

/// What everyone did in one world.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The world's name.
    pub name: String,
    /// One for each contender.
    pub figures: Vec<Figure>,
}

/// What one contender did.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Whose figure it is.
    pub contender: &'static str,
    /// Share of shadows that were rolled back.
    pub decided: f64,
    /// Requests until then in half of all shadows, and in nine of ten, if as many were rolled back.
    pub requests: [Option<u64>; 2],
}

/// Whether a contender rolls back after one more tick.
type Watcher = Box<dyn FnMut(&mut ChaCha8Rng) -> bool>;

/// A contender's name, and what it does in a world.
type Contender = (&'static str, fn(World) -> Result<Watcher, PolicyError>);

/// Lets all contenders watch shadows of every kind.
///
/// # Errors
///
/// If a policy is none, which tests would show.
pub fn run(seed: u64, shadows: u64) -> Result<Vec<Cell>, PolicyError> {
    let mut cells = vec![];
    let percent = |share: f64| (share * 1000.0).round() / 10.0;
    for (candidate, stable) in
        [(0.0, 0.0), (0.05, 0.0), (0.15, 0.10), (0.06, 0.0), (0.10, 0.0), (0.20, 0.10), (1.0, 0.0)]
    {
        let world = World { candidate, stable };
        let name =
            format!("differs in {} %, stable from itself in {} %", percent(candidate), percent(stable));
        let contenders: [Contender; 3] = [
            ("judge", agreement),
            ("threshold", |world| Ok(threshold(world, true))),
            ("not subtracted", |world| Ok(threshold(world, false))),
        ];
        cells.push(cell(name, seed, shadows, world, &contenders)?);
    }
    for (candidate, stable) in [(0.04, 0.04), (0.03, 0.05), (0.02, 0.06), (0.05, 0.03)] {
        let world = World { candidate, stable };
        let name = format!("right alone in {} %, stable in {} %", percent(candidate), percent(stable));
        let contenders: [Contender; 2] = [("pairs", pairs), ("two arms", arms)];
        cells.push(cell(name, seed, shadows, world, &contenders)?);
    }
    Ok(cells)
}

fn cell(
    name: String,
    seed: u64,
    shadows: u64,
    world: World,
    contenders: &[Contender],
) -> Result<Cell, PolicyError> {
    let mut figures = vec![];
    for &(contender, watcher) in contenders {
        let mut ended = vec![];
        for number in 0..shadows {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(number);
            let mut rolls_back = watcher(world)?;
            ended.extend((1..=REQUESTS / TICK).find(|_| rolls_back(&mut rng)).map(|ticks| ticks * TICK));
        }
        ended.sort_unstable();
        let rank = |share: f64| (shadows as f64 * share).ceil() as usize;
        let requests = [0.5, 0.9].map(|share| ended.get(rank(share).saturating_sub(1)).copied());
        figures.push(Figure { contender, decided: ended.len() as f64 / shadows as f64, requests });
    }
    Ok(Cell { name, figures })
}

fn agreement(world: World) -> Result<Watcher, PolicyError> {
    let mut judge = judge(Source::Compared, Rule::Agreement { most: MOST })?;
    Ok(Box::new(move |rng| {
        let [candidate, stable] = draw(TICK, [world.candidate, world.stable], rng);
        let compared = Compared { all: TICK, candidate, stable };
        judge_counts(&mut judge, 0.0, &[Outcome::Compared(compared)]) == Some(true)
    }))
}

fn threshold(world: World, subtracts: bool) -> Watcher {
    let mut window = VecDeque::from([0_i64; WINDOW]);
    let mut ticks = 0;
    Box::new(move |rng| {
        let [candidate, stable] = draw(TICK, [world.candidate, world.stable], rng).map(|count| count as i64);
        window.pop_front();
        window.push_back(if subtracts { candidate - stable } else { candidate });
        ticks += 1;
        ticks >= WINDOW && window.iter().sum::<i64>() as f64 > MOST * (TICK as usize * WINDOW) as f64
    })
}

fn pairs(world: World) -> Result<Watcher, PolicyError> {
    let mut judge = judge(Source::Pairs, Rule::Paired { most: 0.5 })?;
    Ok(Box::new(move |rng| {
        let [won, lost] = draw(TICK, [world.candidate, world.stable], rng);
        judge_counts(&mut judge, 0.0, &[Outcome::Pairs(Pairs { all: TICK, lost, won })]) == Some(true)
    }))
}

fn arms(world: World) -> Result<Watcher, PolicyError> {
    let rule = Rule::Share { events: Events::Bad, relative: Some(1.0), absolute: None };
    let mut judge = judge(Source::Counters, rule)?;
    Ok(Box::new(move |rng| {
        let mut arm = |wrong: f64| {
            let [bad, _] = draw(TICK / 2, [wrong, 0.0], rng);
            ArmCount { requests: TICK / 2, bad }
        };
        let stable = arm(1.0 - ACCURACY);
        let shares = Shares { candidate: arm(1.0 - ACCURACY + world.stable - world.candidate), stable };
        judge_counts(&mut judge, 0.5, &[Outcome::Both { shares, strict: shares }]) == Some(true)
    }))
}

fn judge(source: Source, rule: Rule) -> Result<(Judge, State), PolicyError> {
    let mut policy = cells::policy(None, None);
    for metric in &mut policy.metrics {
        (metric.source, metric.rule) = (source, rule);
    }
    let state = State::new(&policy, 0, 0);
    Ok((Judge::new(policy)?, state))
}

/// How many of `all` are of each of two kinds that exclude each other.
fn draw(all: u64, [one, other]: [f64; 2], rng: &mut ChaCha8Rng) -> [u64; 2] {
    let mut binomial = |all: u64, chance: f64| {
        Binomial::new(all, chance.clamp(0.0, 1.0)).map_or(0, |drawn| drawn.sample(rng))
    };
    let first = binomial(all, one);
    let rest = if one < 1.0 { other / (1.0 - one) } else { 0.0 };
    [first, binomial(all - first, rest)]
}
