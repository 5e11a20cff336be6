//! Cells: which worlds the bench simulates, section by section, and who watches them.
//!
//! The sections are those of the judge's acceptance: healthy candidates, delays, a total outage, advancing by evidence,
//! sticky users, and pods that differ.

use anneal_core::judge::{Advance, Events, Inconclusive, MetricPolicy, Policy, Rule as Test, Source};
use clap::ValueEnum;

use super::{
    peers::Peer,
    traffic::{Defect, Pods, Stage, Weather, World},
    trial::{Cell, Contender, Learns, Rule},
};

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// Healthy candidates in any weather, with a threshold of twice their normal rate: how often they are rolled back.
    Healthy,
    /// Healthy candidates against a threshold of 1 %, test by test.
    Thresholds,
    /// Worse candidates: how long until they are rolled back, in hours.
    Delays,
    /// A candidate that fails every request: how many it failed before the deciding minute.
    Outage,
    /// Advancing by evidence: how long for a good candidate, how often for one at the limit.
    Noninferiority,
    /// Experiments of 14 daily looks: how often there is a winner.
    Winner,
    /// Healthy candidates whose users' requests fail together.
    Sticky,
    /// Healthy candidates on pods that differ.
    Pods,
    /// Candidates with a mean of errors, healthy and worse.
    Means,
    /// Answers in shadow beside those of the stable version, and labels of both.
    Shadow,
}

/// Ticks of ten minutes in a day.
const DAY: u32 = 144;
/// A rollout of six days, one weight a day.
const ROLLOUT: u32 = 6 * DAY;

/// The rollout of the specification's tables.
pub fn stages() -> Vec<Stage> {
    [0.10, 0.25, 0.40, 0.55, 0.70, 0.85].map(|weight| Stage { weight, ticks: DAY }).to_vec()
}

/// The policy of the specification's tables: one metric, ticks of ten minutes.
pub fn policy(relative: Option<f64>, absolute: Option<f64>) -> Policy {
    Policy {
        alpha: 0.05,
        beta: 0.05,
        tick_ms: 600_000,
        horizon_ticks: ROLLOUT,
        warmup_ms: 0,
        lookback_ms: 600_000,
        blind_after: 2,
        split_design_effect: 1.0,
        advance: Advance::Interval,
        inconclusive: Inconclusive::Hold,
        experiment: None,
        metrics: vec![MetricPolicy {
            name: "error_rate".to_owned(),
            source: Source::Counters,
            rule: Test::Share { events: Events::Bad, relative, absolute },
            design_effect: 1.0,
            pods: None,
            labels: None,
        }],
    }
}

/// Our judge, under this name.
pub const fn judge(name: &'static str, policy: Policy, learns: Learns) -> Contender {
    Contender { name, rule: Rule::Judge { policy, learns } }
}

/// The others, with this largest share of bad requests.
pub fn peers(max: f64) -> [Contender; 3] {
    [("argo 0", Peer::Argo(0)), ("argo 3", Peer::Argo(3)), ("flagger 5", Peer::Flagger(5))]
        .map(|(name, peer)| Contender { name, rule: Rule::Peer(peer, max) })
}

/// One request a second, one of two hundred bad, and nothing happens.
fn calm() -> World {
    World {
        rps: 1.0,
        rate: 0.005,
        weather: Weather::Flat,
        defect: None,
        group: 1.0,
        pods: None,
        tick_s: 600.0,
        stages: stages(),
    }
}

/// The cells of `section`.
pub fn cells(section: Section) -> Vec<Cell> {
    match section {
        Section::Healthy => healthy(),
        Section::Thresholds => thresholds(),
        Section::Delays => delays(),
        Section::Outage => outage(),
        Section::Noninferiority => noninferiority(),
        // Experiments have looks and no ticks, means are no counts, and a shadow has one arm.
        Section::Winner | Section::Means | Section::Shadow => vec![],
        Section::Sticky => sticky(),
        Section::Pods => pods(),
    }
}

fn healthy() -> Vec<Cell> {
    let mut cells = Vec::new();
    for weather in [Weather::Flat, Weather::Diurnal, Weather::Outage, Weather::Resets, Weather::Gaps] {
        for rps in [1.0, 10.0, 100.0] {
            for rate in [0.001, 0.005, 0.02] {
                // A threshold at twice what is normal.
                let max = 2.0 * rate;
                let mut contenders = vec![
                    judge("relative 1.0", policy(Some(1.0), None), Learns::Nothing),
                    judge("default", policy(Some(1.2), Some(max)), Learns::Nothing),
                ];
                contenders.extend(peers(max));
                let name = format!("{weather:?} {rps} rps {}%", rate * 100.0);
                cells.push(Cell {
                    name,
                    world: World { rps, rate, weather, ..calm() },
                    others: vec![],
                    contenders,
                });
            }
        }
    }
    cells
}

fn thresholds() -> Vec<Cell> {
    let worlds = [1.0, 10.0, 100.0].into_iter().flat_map(|rps| [(rps, 0.005), (rps, 0.008)]);
    worlds
        .map(|(rps, rate)| {
            let mut contenders = vec![
                judge("relative 1.0", policy(Some(1.0), None), Learns::Nothing),
                judge("absolute", policy(None, Some(0.01)), Learns::Nothing),
            ];
            contenders.extend(peers(0.01));
            let name = format!("{rps} rps {}%", rate * 100.0);
            Cell { name, world: World { rps, rate, ..calm() }, others: vec![], contenders }
        })
        .collect()
}

fn delays() -> Vec<Cell> {
    let defects = [
        (1.0, 2.0, 0),
        (1.0, 3.0, 0),
        (1.0, 5.0, 0),
        (10.0, 1.5, 0),
        (10.0, 2.0, 0),
        (10.0, 3.0, 0),
        (10.0, 5.0, 0),
        (100.0, 1.5, 0),
        (100.0, 2.0, 0),
        (10.0, 2.0, 36 * 6),
    ];
    defects
        .into_iter()
        .map(|(rps, ratio, from)| {
            let mut contenders = vec![
                judge("relative 1.0", policy(Some(1.0), None), Learns::Nothing),
                judge("relative 1.2", policy(Some(1.2), None), Learns::Nothing),
                judge("default", policy(Some(1.2), Some(0.01)), Learns::Nothing),
            ];
            contenders.extend(peers(0.01));
            let name = format!("{rps} rps x{ratio} from hour {}", from / 6);
            let world = World { rps, defect: Some(Defect { ratio, from }), ..calm() };
            Cell { name, world, others: vec![], contenders }
        })
        .collect()
}

fn outage() -> Vec<Cell> {
    let minutes = 6 * 24 * 60;
    let policy = Policy {
        tick_ms: 60_000,
        lookback_ms: 60_000,
        horizon_ticks: minutes,
        ..policy(Some(1.2), Some(0.01))
    };
    let world = World {
        tick_s: 60.0,
        stages: vec![Stage { weight: 0.1, ticks: minutes }],
        defect: Some(Defect { ratio: 200.0, from: 0 }),
        ..calm()
    };
    let mut contenders = vec![judge("default", policy, Learns::Nothing)];
    contenders.extend(peers(0.01));
    vec![Cell { name: "1 rps 10% fails all".to_owned(), world, others: vec![], contenders }]
}

fn noninferiority() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (rps, limit) in [(1.0, 2.0), (1.0, 3.0), (10.0, 2.0)] {
        for (what, ratio) in [("good", 1.0), ("at the limit", limit)] {
            let policy = Policy { advance: Advance::Evidence(limit), ..policy(Some(limit), None) };
            // Odds and not rates: the limit is on the odds ratio.
            let odds = ratio * calm().rate / (1.0 - calm().rate);
            let defect = Defect { ratio: odds / (1.0 + odds) / calm().rate, from: 0 };
            cells.push(Cell {
                name: format!("{rps} rps limit {limit} {what}"),
                world: World {
                    rps,
                    stages: vec![Stage { weight: 0.1, ticks: ROLLOUT }],
                    defect: Some(defect),
                    ..calm()
                },
                others: vec![],
                contenders: vec![judge("evidence", policy, Learns::Nothing)],
            });
        }
    }
    cells
}

fn sticky() -> Vec<Cell> {
    [1.0, 10.0]
        .into_iter()
        .map(|rps| {
            let alike = Pods { candidate: 1, stable: 9, sd: 0.0 };
            Cell {
                name: format!("{rps} rps, requests fail by three"),
                world: World { rps, group: 3.0, pods: Some(alike), ..calm() },
                others: vec![],
                contenders: vec![
                    judge("relative 1.0", policy(Some(1.0), None), Learns::Nothing),
                    judge("relative 1.2", policy(Some(1.2), None), Learns::Nothing),
                    judge("relative 1.0 learned", policy(Some(1.0), None), Learns::Dispersion),
                    judge("relative 1.2 learned", policy(Some(1.2), None), Learns::Dispersion),
                ],
            }
        })
        .collect()
}

fn pods() -> Vec<Cell> {
    let mut cells = Vec::new();
    for rps in [1.0, 10.0, 100.0] {
        for sd in [0.0, 0.1, 0.2, 0.3] {
            for candidate in [1, 2, 3] {
                for ratio in [1.0, 3.0] {
                    let what = if ratio > 1.0 { format!(", x{ratio}") } else { String::new() };
                    let defect = Some(Defect { ratio, from: 0 });
                    cells.push(Cell {
                        name: format!("{rps} rps sd {sd} {candidate} of {} pods{what}", candidate + 9),
                        world: World { rps, defect, pods: Some(Pods { candidate, stable: 9, sd }), ..calm() },
                        others: vec![],
                        contenders: vec![
                            judge("relative 1.0", policy(Some(1.0), None), Learns::Nothing),
                            judge("relative 1.2", policy(Some(1.2), None), Learns::Nothing),
                            judge("relative 1.2 learned", policy(Some(1.2), None), Learns::Dispersion),
                        ],
                    });
                }
            }
        }
    }
    cells
}
