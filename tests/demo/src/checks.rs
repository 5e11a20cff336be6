//! What clients saw, against what was promised. Pure.
//!
//! Called by the scenario when the clients have stopped. A check that has nothing to look at fails: an empty list of
//! requests proves nothing.

use std::time::Duration;

use anneal_crds::{
    Weight,
    model_rollout::{CopyShare, Progression, RolloutPhase, Strategy},
};
use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};

use crate::{
    load::{Outcome, Seen},
    story::Window,
};

/// How long after the acceptance of a route the proxies may take to have it. Times in a status are cut to seconds, which
/// is part of it.
const SETTLE: SignedDuration = SignedDuration::from_secs(2);
/// Fewest requests of a step whose share says something.
const MIN_REQUESTS: usize = 500;
/// Standard deviations that a share may be off.
const SIGMAS: f64 = 4.5;
/// Copies may be lost, because nobody waits for their answers; but not more than this part of them.
const LOST: f64 = 0.1;

/// Requests that failed outside the injected faults, with the first few reasons.
pub(crate) fn failures(seen: &[Seen]) -> (usize, Vec<String>) {
    let mut reasons = vec![];
    let mut count = 0;
    for request in seen {
        match &request.outcome {
            Outcome::Ok | Outcome::Injected => {}
            Outcome::Failed(why) => {
                count += 1;
                if reasons.len() < 5 {
                    reasons.push(format!("{} from {:?}: {why}", request.at, request.version));
                }
            }
        }
    }
    (count, reasons)
}

/// Requests a second from the first to the last; not a number when there are too few to say.
pub(crate) fn rate(seen: &[Seen]) -> f64 {
    let times = || seen.iter().map(|request| request.at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return f64::NAN };
    // The first one starts the clock: 61 requests span 60 intervals.
    (seen.len() as f64 - 1.0) / last.duration_since(first).as_secs_f64()
}

/// A step that a version must go through on its way to production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    phase: RolloutPhase,
    weight: Weight,
}

/// What a strategy asks for: shadow and experiment if it has them, then `initial` and `increment` more each time up to `max`, or the
/// weights of its list.
pub(crate) fn steps(strategy: &Strategy) -> Vec<Step> {
    let weights = match &strategy.progression {
        Progression::Canary(canary) => {
            let mut weights = vec![canary.initial];
            while let Some(last) = weights.last().copied().filter(|last| *last < canary.max) {
                weights.push(last.saturating_add(canary.increment.max(1)).min(canary.max));
            }
            weights.into_iter().map(Weight::from_percent).collect()
        }
        Progression::Steps(steps) => steps.iter().map(|step| step.weight).collect(),
        Progression::BlueGreen(_) => vec![Weight::FULL],
    };
    let shadow = strategy.shadow.as_ref().map(|_| Step { phase: RolloutPhase::Shadow, weight: Weight::ZERO });
    let experiment = strategy.experiment.as_ref();
    let experiment = experiment.map(|own| Step { phase: RolloutPhase::Experiment, weight: own.split });
    let canary = weights.into_iter().map(|weight| Step { phase: RolloutPhase::Canary, weight });
    shadow.into_iter().chain(experiment).chain(canary).collect()
}

/// The version went through every step in order, and enough clients were there to see each.
///
/// `pause` is the longest time between two looks at the rollout: a step shorter than that could have gone unseen.
pub(crate) fn complete(
    windows: &[Window],
    seen: &[Seen],
    version: &str,
    steps: &[Step],
    pause: Duration,
) -> Result<()> {
    let own: Vec<&Window> = windows.iter().filter(|window| window.version == version).collect();
    let taken: Vec<Step> =
        own.iter().map(|window| Step { phase: window.phase, weight: window.weight }).collect();
    ensure!(
        taken == steps,
        "{version} was to go through {steps:?} and was seen in {taken:?}; the longest pause between two looks was {:.1} s, \
         and a step that is shorter goes unseen: try again with less load on this machine",
        pause.as_secs_f64()
    );
    for window in own {
        let (answered, _) = answers(window, seen)?;
        ensure!(
            answered >= MIN_REQUESTS,
            "only {answered} answers came while {version} was in {:?} at {} %, and a share of fewer than {MIN_REQUESTS} says \
             nothing; send more requests a second",
            window.phase,
            window.weight
        );
    }
    Ok(())
}

/// Every step's share is its weight, and nobody got an answer from a version in shadow. Returns a line for each step.
pub(crate) fn shares(windows: &[Window], seen: &[Seen]) -> Result<Vec<String>> {
    windows.iter().map(|window| share(window, seen)).collect()
}

fn share(window: &Window, seen: &[Seen]) -> Result<String> {
    let Window { version, weight, .. } = window;
    let (all, candidate) = answers(window, seen)?;
    ensure!(
        window.phase != RolloutPhase::Shadow || candidate == 0,
        "{candidate} clients got an answer from {version} while it was in shadow; look at the route's backends"
    );
    if all < MIN_REQUESTS {
        // A step that a breach has cut short.
        return Ok(format!("  {version} at {weight} %: {candidate} of {all} requests, too few to judge"));
    }
    let (n, part) = (all as f64, f64::from(weight.per_mille()) / 1000.0);
    let observed = candidate as f64 / n;
    let allowed = SIGMAS * (part * (1.0 - part) / n).sqrt();
    ensure!(
        (observed - part).abs() <= allowed,
        "{version} took {:.1} % of {all} requests at weight {weight} %, more than {SIGMAS} sigma off; look at the route's \
         weights",
        observed * 100.0
    );
    Ok(format!("  {version} at {weight} %: {:.1} % of {all} requests", observed * 100.0))
}

/// Answers while the proxies had the step's weights: all that name a version, and those of the step's candidate.
fn answers(window: &Window, seen: &[Seen]) -> Result<(usize, usize)> {
    let from = window.from.saturating_add(SETTLE)?;
    let versions = between(seen, from, window.to).filter_map(|request| request.version.as_ref());
    Ok(versions.fold((0, 0), |(all, own), version| (all + 1, own + usize::from(*version == window.version))))
}

/// The candidate answered as many copies as its shadow was to get, and none twice.
///
/// At least those of the time in which all proxies surely copied, but for a few lost ones; at most those of the time in
/// which any proxy may have. The servers' counters are read long after, so no scrape is still to come.
pub(crate) fn mirrored(
    copies: f64,
    share: CopyShare,
    windows: &[Window],
    seen: &[Seen],
    version: &str,
) -> Result<String> {
    let mut own = windows.iter().filter(|window| window.version == version);
    let shadow = own
        .find(|window| window.phase == RolloutPhase::Shadow)
        .with_context(|| format!("{version} was never in shadow; look at its rollout's events"))?;
    let next = own
        .next()
        .with_context(|| format!("{version} never left its shadow; look at its rollout's events"))?;
    let count = |from, to| between(seen, from, to).count() as f64;
    let (sure, possible) = (
        count(shadow.from.saturating_add(SETTLE)?, shadow.to),
        count(shadow.began, next.from.saturating_add(SETTLE)?),
    );
    let part = share.part();
    let sigma = |n: f64| SIGMAS * (part * (1.0 - part) * n).sqrt();
    let (least, most) = (sure * part * (1.0 - LOST) - sigma(sure), possible * part + sigma(possible));
    ensure!(
        sure >= MIN_REQUESTS as f64 && copies >= least && copies <= most,
        "{version} answered {copies} copies in its shadow of {share}, and {least:.0} to {most:.0} were promised for the \
         {sure} requests of that time; look at the route's mirror"
    );
    Ok(format!(
        "  {version} answered {copies} copies of {sure} to {possible} requests, and nobody saw the answers"
    ))
}

fn between(seen: &[Seen], from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Seen> {
    seen.iter().filter(move |request| request.at >= from && request.at < to)
}

#[cfg(test)]
mod tests;
