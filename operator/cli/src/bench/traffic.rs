//! Traffic: one simulated rollout, tick by tick, from a seed.
//!
//! Used by [`super::trial`]. Requests come as a Poisson process and fail independently, unless the world says that users'
//! requests fail together or that pods differ. Two draws an arm: bad and good requests are independent Poisson counts.

use std::f64::consts::TAU;

use anneal_core::judge::ArmCount;
use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, Normal, Poisson};

/// Length of a day, and of a shared outage, in seconds.
const DAY_S: f64 = 86_400.0;
/// Points of stable's past that the operator reads.
const PAST_POINTS: u32 = 60;
const OUTAGE_S: f64 = 7_200.0;

/// A part of a rollout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// The candidate's share of traffic, from 0 to 1.
    pub weight: f64,
    /// How long.
    pub ticks: u32,
}

/// What traffic is like.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// Requests a second, both arms together.
    pub rps: f64,
    /// Stable's share of bad requests.
    pub rate: f64,
    /// What happens to both arms.
    pub weather: Weather,
    /// Whether the candidate is worse.
    pub defect: Option<Defect>,
    /// Requests that fail together; 1 for independent ones.
    pub group: f64,
    /// Pods of the candidate and of stable, and the standard deviation of the logarithm of their rates.
    pub pods: Option<Pods>,
    /// Length of a tick in seconds.
    pub tick_s: f64,
    /// The rollout; at least one stage.
    pub stages: Vec<Stage>,
}

impl World {
    /// Length of the rollout in ticks.
    pub fn ticks(&self) -> u32 {
        self.stages.iter().map(|stage| stage.ticks).sum()
    }

    /// How many ticks this many seconds are, at least one.
    fn in_ticks(&self, seconds: f64) -> u32 {
        (seconds / self.tick_s).ceil().max(1.0) as u32
    }
}

/// What happens to both arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Flat,
    /// The share of bad requests goes from 0.4 to 1.6 times its mean and back in a day.
    Diurnal,
    /// Two hours, at a random time, with ten times as many bad requests.
    Outage,
    /// Every process restarts every 30 minutes, and its counters start from zero. Through raw samples.
    Resets,
    /// A twentieth of all scrapes fail. Through raw samples.
    Gaps,
}

/// How the candidate is worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defect {
    /// How many times as many bad requests.
    pub ratio: f64,
    /// From which tick on.
    pub from: u32,
}

/// How pods of one version differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pods {
    /// Of the candidate.
    pub candidate: u32,
    /// Of stable.
    pub stable: u32,
    /// Standard deviation of the logarithm of a pod's rate.
    pub sd: f64,
}

/// One rollout's traffic.
pub struct Traffic {
    world: World,
    /// Its randomness.
    pub rng: ChaCha8Rng,
    outage: std::ops::Range<u32>,
    candidate_luck: f64,
    stable_luck: Vec<f64>,
}

impl Traffic {
    /// The `index`th rollout in `world`.
    pub fn new(world: World, seed: u64, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        let length = world.in_ticks(OUTAGE_S);
        let outage = rng.random_range(0..world.ticks().saturating_sub(length).max(1));
        let outage = outage..outage + length;
        let mut luck = |pods: u32, sd: f64| -> Vec<f64> {
            (0..pods)
                .map(|_| Normal::new(0.0, sd).map_or(1.0, |normal| normal.sample(&mut rng).exp()))
                .collect()
        };
        let (candidate, stable) = world.pods.map_or((vec![1.0], vec![1.0]), |pods| {
            (luck(pods.candidate, pods.sd), luck(pods.stable, pods.sd))
        });
        Self { world, rng, outage, candidate_luck: mean(&candidate), stable_luck: stable }
    }

    /// The candidate's share of traffic at `tick`.
    pub fn weight(&self, tick: u32) -> f64 {
        let mut left = tick;
        for stage in &self.world.stages {
            match left.checked_sub(stage.ticks) {
                Some(rest) => left = rest,
                None => return stage.weight,
            }
        }
        self.world.stages.last().map_or(0.0, |stage| stage.weight)
    }

    /// What the candidate and stable count in a part of `tick`, from 0 to 1.
    pub fn draw(&mut self, tick: u32, part: f64) -> (ArmCount, ArmCount) {
        let weight = self.weight(tick);
        let requests = self.world.rps * self.world.tick_s * part;
        let rate = self.world.rate * self.weather(tick);
        let defect =
            self.world.defect.filter(|defect| tick >= defect.from).map_or(1.0, |defect| defect.ratio);
        let stable_rate = rate * mean(&self.stable_luck);
        let candidate = self.arm(requests * weight, rate * defect * self.candidate_luck);
        (candidate, self.arm(requests * (1.0 - weight), stable_rate))
    }

    /// What each stable pod counted in the day before the rollout, when all traffic was theirs, as the operator reads it by the
    /// defaults of `learnFrom`: in [`PAST_POINTS`] points.
    pub fn history(&mut self) -> Vec<Vec<ArmCount>> {
        let ticks = self.world.in_ticks(DAY_S);
        let requests = self.world.rps * DAY_S / f64::from(PAST_POINTS) / self.stable_luck.len() as f64;
        let rates: Vec<f64> = self.stable_luck.iter().map(|luck| luck * self.world.rate).collect();
        (0..PAST_POINTS)
            .map(|point| {
                let weather = self.weather(point * ticks / PAST_POINTS);
                rates.iter().map(|rate| self.arm(requests, rate * weather)).collect()
            })
            .collect()
    }

    fn weather(&self, tick: u32) -> f64 {
        match self.world.weather {
            Weather::Flat | Weather::Resets | Weather::Gaps => 1.0,
            Weather::Diurnal => 1.0 + 0.6 * (TAU * f64::from(tick) * self.world.tick_s / DAY_S).sin(),
            Weather::Outage if self.outage.contains(&tick) => 10.0,
            Weather::Outage => 1.0,
        }
    }

    fn arm(&mut self, requests: f64, rate: f64) -> ArmCount {
        let rate = rate.min(1.0);
        let groups = poisson(&mut self.rng, requests * rate / self.world.group);
        let bad = groups * self.world.group as u64;
        let good = poisson(&mut self.rng, requests * (1.0 - rate));
        ArmCount { requests: bad + good, bad }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A Poisson count; none for a mean of zero.
fn poisson(rng: &mut ChaCha8Rng, mean: f64) -> u64 {
    Poisson::new(mean).map_or(0, |poisson| poisson.sample(rng) as u64)
}
