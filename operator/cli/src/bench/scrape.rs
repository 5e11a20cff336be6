//! Scrapes: a simulated rollout as Prometheus would have it, one pod an arm, raw counters scraped twice a tick.
//!
//! Used by [`super::trial`] where processes restart or scrapes fail, so that the judge's own way from samples to counts is
//! what is measured.

use anneal_core::judge::{
    ArmCount, Step,
    samples::{Arm, Counter, Counters, Observations, Pod, Sample, Seen, WeightChange},
};
use rand::Rng;

use super::traffic::{Traffic, Weather, World};

/// Scrapes in a tick.
const SCRAPES: i64 = 2;
/// Time between restarts in milliseconds.
const LIFE_MS: i64 = 1_800_000;
/// Share of scrapes that fail.
const FAILING: f64 = 0.05;

/// Both arms' counters, and what was scraped of them lately.
pub struct Scraper {
    weather: Weather,
    tick_ms: i64,
    now_ms: i64,
    restarted_ms: i64,
    totals: [ArmCount; 2],
    seen: Observations,
}

impl Scraper {
    /// Counters at zero, scraped once at time 0.
    pub fn new(world: &World, step: Step) -> Self {
        let pod = |arm| Pod {
            arm,
            started_ms: Some(0),
            ready_ms: None,
            counters: Counters::Share { events: vec![first()], all: vec![first()] },
        };
        let (tick_ms, mut at_ms, mut weights) = ((world.tick_s * 1000.0) as i64, 0, Vec::new());
        for stage in &world.stages {
            // A moment after a tick ends: the next one is left out.
            weights.push(WeightChange { at_ms: at_ms + i64::from(at_ms > 0), weight: stage.weight });
            at_ms += i64::from(stage.ticks) * tick_ms;
        }
        let metrics = vec![Seen::Pods(vec![pod(Arm::Candidate), pod(Arm::Stable)])];
        let seen = Observations { until_ms: 0, step, weights, metrics, beside: None };
        let totals = [ArmCount::default(); 2];
        Self { weather: world.weather, tick_ms, now_ms: 0, restarted_ms: 0, totals, seen }
    }

    /// Lives through `tick`. What a query over it would have of the candidate, if there is a sample.
    pub fn tick(&mut self, traffic: &mut Traffic, tick: u32) -> Option<ArmCount> {
        self.forget();
        let mut measured = None::<ArmCount>;
        for _ in 0..SCRAPES {
            self.now_ms += self.tick_ms / SCRAPES;
            let before = self.totals[0];
            self.live(traffic, tick);
            for arm in 0..2 {
                if self.weather == Weather::Gaps && traffic.rng.random_bool(FAILING) {
                    continue;
                }
                self.sample(arm);
                if arm == 0 {
                    let grown = if self.totals[0].requests < before.requests {
                        self.totals[0]
                    } else {
                        ArmCount {
                            requests: self.totals[0].requests - before.requests,
                            bad: self.totals[0].bad.saturating_sub(before.bad),
                        }
                    };
                    let sum = measured.unwrap_or_default();
                    measured =
                        Some(ArmCount { requests: sum.requests + grown.requests, bad: sum.bad + grown.bad });
                }
            }
        }
        self.seen.until_ms = self.now_ms;
        measured
    }

    /// What a controller would read now.
    pub const fn seen(&self) -> &Observations {
        &self.seen
    }

    fn live(&mut self, traffic: &mut Traffic, tick: u32) {
        let part = 1.0 / SCRAPES as f64;
        let restarts = self.weather == Weather::Resets && self.now_ms - self.restarted_ms >= LIFE_MS;
        if restarts {
            self.restarted_ms = self.now_ms;
        }
        // What was counted between the last scrape and the restart, nobody will know.
        let kept = if restarts { traffic.rng.random_range(0.0..1.0) } else { 1.0 };
        let (candidate, stable) = traffic.draw(tick, part * kept);
        for (total, count) in self.totals.iter_mut().zip([candidate, stable]) {
            if restarts {
                *total = ArmCount::default();
            }
            total.requests += count.requests;
            total.bad += count.bad;
        }
    }

    fn sample(&mut self, arm: usize) {
        let (total, at_ms) = (self.totals[arm], self.now_ms);
        if let Some(Counters::Share { events, all }) = self.pods().get_mut(arm).map(|pod| &mut pod.counters) {
            events[0].push(Sample { at_ms, value: total.bad as f64 });
            all[0].push(Sample { at_ms, value: total.requests as f64 });
        }
    }

    fn pods(&mut self) -> &mut [Pod] {
        match self.seen.metrics.first_mut() {
            Some(Seen::Pods(pods)) => pods,
            Some(Seen::NotAsked) | None => &mut [],
        }
    }

    /// A controller reads two ticks back.
    fn forget(&mut self) {
        let oldest = self.seen.until_ms - 2 * self.tick_ms;
        for pod in self.pods() {
            if let Counters::Share { events, all } = &mut pod.counters {
                events[0].retain(|sample| sample.at_ms >= oldest);
                all[0].retain(|sample| sample.at_ms >= oldest);
            }
        }
    }
}

fn first() -> Counter {
    vec![Sample { at_ms: 0, value: 0.0 }]
}
