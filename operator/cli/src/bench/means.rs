//! Means: how often a candidate is rolled back by the mean of its errors although it is healthy, and how soon if it is worse.
//!
//! What is drawn are sums of values as skewed as squared errors, in the same six days and steps as everywhere. The peers compare the
//! mean of each tick with the bound.

use anneal_core::judge::{
    ArmCount, ArmSum, Better, Judge, Mean, Outcome, Policy, PolicyError, Rule, Source, State,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, Gamma, Poisson, StandardNormal};

use super::{
    cells,
    peers::{Peer, Strikes},
    trial::judge_counts,
};

/// Normally, squared errors have this mean.
const NORMAL: f64 = 1.0;
/// The largest mean that is no defect.
const BOUND: f64 = 1.2;
/// Seconds of a tick.
const TICK_S: f64 = 600.0;
/// Pods of the candidate and of stable.
const PODS: [u32; 2] = [2, 9];
const CONTENDERS: [&str; 5] = ["margin 0", "margin 0.1", "argo 0", "argo 3", "flagger 5"];

/// What is simulated.
#[derive(Clone, Copy, Debug)]
struct World {
    /// Values a second, of both versions together.
    values: f64,
    /// How many times stable's the candidate's mean is.
    ratio: f64,
    /// From which hour on it is.
    from: u32,
    /// Standard deviation of the logarithm of a pod's mean, for as long as it lives.
    pods: f64,
}

impl World {
    fn name(&self) -> String {
        let Self { values, ratio, from, pods } = self;
        let mut name = format!("{values} values/s, mean x{ratio}");
        if *from > 0 {
            name.push_str(&format!(" from hour {from}"));
        }
        if *pods > 0.0 {
            name.push_str(&format!(", pods sd {pods}"));
        }
        name
    }
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
    /// Share of rollouts that were rolled back.
    pub decided: f64,
    /// Hours from when it was worse until then in half of all rollouts, and in nine of ten, if as many were rolled back.
    pub hours: [Option<f64>; 2],
}

/// Lets all contenders watch the same rollouts.
///
/// # Errors
///
/// If a policy is none, which tests would show.
pub fn run(seed: u64, rollouts: u64) -> Result<Vec<Cell>, PolicyError> {
    let world = |values, ratio, pods| World { values, ratio, from: 0, pods };
    let worlds = [
        world(1.0, 1.0, 0.0),
        world(10.0, 1.0, 0.0),
        world(100.0, 1.0, 0.0),
        world(10.0, 1.0, 0.05),
        world(100.0, 1.0, 0.05),
        world(1.0, 1.15, 0.0),
        world(10.0, 1.15, 0.0),
        world(1.0, 1.3, 0.0),
        world(10.0, 1.3, 0.0),
        world(10.0, 2.0, 0.0),
        World { from: 36, ..world(10.0, 1.3, 0.0) },
    ];
    let mut cells = vec![];
    for world in worlds {
        let mut ticks: [Vec<u32>; CONTENDERS.len()] = Default::default();
        for number in 0..rollouts {
            for (ticks, decided) in ticks.iter_mut().zip(rollout(world, seed, number)?) {
                ticks.extend(decided);
            }
        }
        let figure = |(mut ticks, contender): (Vec<u32>, _)| {
            ticks.sort_unstable();
            let hours = [0.5, 0.9].map(|share| {
                let rank = (rollouts as f64 * share).ceil() as usize;
                let ticks = ticks.get(rank.saturating_sub(1));
                ticks.map(|&ticks| f64::from(ticks) * TICK_S / 3600.0 - f64::from(world.from))
            });
            let decided = ticks.len() as f64 / rollouts as f64;
            Figure { contender, decided, hours }
        };
        let figures = ticks.into_iter().zip(CONTENDERS).map(figure).collect();
        cells.push(Cell { name: world.name(), figures });
    }
    Ok(cells)
}

/// At which tick, from 1, each contender rolled back.
fn rollout(world: World, seed: u64, number: u64) -> Result<[Option<u32>; CONTENDERS.len()], PolicyError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let means = PODS.map(|pods| {
        let luck = |_| (world.pods * Distribution::<f64>::sample(&StandardNormal, &mut rng)).exp();
        NORMAL * (0..pods).map(luck).sum::<f64>() / f64::from(pods)
    });
    let mut judges = [judge(0.0)?, judge(0.1)?];
    let mut peers = [Peer::Argo(0), Peer::Argo(3), Peer::Flagger(5)].map(|peer| Strikes::new(peer, BOUND));
    let mut decided = [None; CONTENDERS.len()];
    let stages = cells::stages();
    let weights = stages.iter().flat_map(|stage| (0..stage.ticks).map(|_| stage.weight));
    for (tick, weight) in (1_u32..).zip(weights) {
        let values = [weight, 1.0 - weight].map(|share| world.values * TICK_S * share);
        let ratio =
            if f64::from(tick - 1) * TICK_S < f64::from(world.from) * 3600.0 { 1.0 } else { world.ratio };
        let means = [ratio * means[0], means[1]];
        let [candidate, stable] = [0, 1].map(|arm| draw(values[arm], means[arm], &mut rng));
        let ours = judges.iter_mut().map(|judge| decides(judge, weight, candidate, stable));
        let theirs = peers.iter_mut().map(|peer| peer.measure(Some(in_millionths(candidate))));
        for (decided, now) in decided.iter_mut().zip(ours.chain(theirs)) {
            if now && decided.is_none() {
                *decided = Some(tick);
            }
        }
        if decided.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(decided)
}

/// Values that come one by one, and their sum.
fn draw(expected: f64, mean: f64, rng: &mut ChaCha8Rng) -> ArmSum {
    let count = Poisson::new(expected).map_or(0.0, |values| values.sample(rng));
    let sum = Gamma::new(count, mean).map_or(0.0, |sum| sum.sample(rng));
    ArmSum { count: count as u64, sum }
}

/// A mean as a share of a million, as peers are asked about shares.
fn in_millionths(arm: ArmSum) -> ArmCount {
    arm.mean().map_or(ArmCount { requests: 0, bad: 0 }, |mean| ArmCount {
        requests: 1_000_000,
        bad: (mean * 1e6) as u64,
    })
}

fn judge(margin: f64) -> Result<(Judge, State), PolicyError> {
    let day = cells::stages().first().map_or(1, |stage| stage.ticks);
    let mut policy: Policy = cells::policy(None, None);
    for metric in &mut policy.metrics {
        metric.source = Source::Sums;
        metric.rule = Rule::Mean(Mean { better: Better::Lower, margin, bound: BOUND, tuned_ticks: day / 2 });
    }
    let state = State::new(&policy, 0, 0);
    Ok((Judge::new(policy)?, state))
}

fn decides(judge: &mut (Judge, State), weight: f64, candidate: ArmSum, stable: ArmSum) -> bool {
    let outcomes = [Outcome::Means { candidate, stable: Some(stable) }];
    judge_counts(judge, weight, &outcomes) == Some(true)
}
