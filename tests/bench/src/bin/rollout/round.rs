//! One round: so many active rollouts, what they cost, and how soon breaches are out of traffic.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::sleep;

use crate::{
    ours::Ours,
    plane::{Place, Seen},
    process::{Cost, Process},
    prometheus::Numbers,
};

/// How long a steady world is looked at.
const CALM: Duration = Duration::from_secs(30);
/// How long after the last of its rollouts has come to its place a world is steady.
const SETTLE: Duration = Duration::from_secs(20);
/// Longest wait for rollouts to come to their place.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Something that takes rollouts out of traffic.
pub(crate) trait Controller {
    /// Makes rollouts with these numbers, each of the model that `name` says.
    async fn make(&self, round: &str, active: usize) -> Result<()>;
    /// Starts the program.
    fn start(&self) -> Result<Process>;
    /// Takes all of a round away, so that the next one is alone.
    async fn clear(&self, round: &str) -> Result<()>;
    /// What came of them.
    fn seen(&self) -> &Seen;
}

/// What a round found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) cost: Cost,
    /// From the first bad answer that could be given to the write that takes the candidate out, in milliseconds.
    pub(crate) delays: Vec<f64>,
    /// How many breaches were not out of traffic in time.
    pub(crate) missed: usize,
}

/// Name and model of the rollout with a number.
pub(crate) fn name(round: &str, number: usize) -> String {
    format!("{round}-{number}")
}

/// Measures `active` rollouts at an interval of one second, of which some breach, each at a moment of its own.
pub(crate) async fn measure(
    controller: &impl Controller,
    numbers: &Numbers,
    active: usize,
    breaches: usize,
) -> Result<Found> {
    static ROUND: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let round = format!("r{}", ROUND.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
    // At every moment at least as many as promised are active.
    let all = active + breaches;
    let process = controller.start()?;
    controller.make(&round, all).await?;
    wait(controller.seen(), &format!("{round}-"), Place::Both, all).await?;
    sleep(SETTLE).await;
    let cost = process.cost(CALM).await?;
    let mut spoiled = vec![];
    for number in 0..breaches {
        let name = name(&round, number);
        spoiled.push((numbers.spoil(&name), name));
        // Somewhere within the interval, another place each time.
        sleep(Duration::from_millis(170 + 37 * (number as u64 % 11))).await;
    }
    for _ in 0..60 {
        let out = |(_, name): &(_, String)| controller.seen().since(name, Place::One).is_some();
        if spoiled.iter().all(out) {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    let delay = |(at, name): &(std::time::Instant, String)| {
        let out = controller.seen().since(name, Place::One)?;
        Some(out.saturating_duration_since(*at).as_secs_f64() * 1000.0)
    };
    let delays: Vec<f64> = spoiled.iter().filter_map(delay).collect();
    controller.clear(&round).await?;
    Ok(Found { cost, missed: breaches - delays.len(), delays })
}

/// Measures rollouts at rest beside active ones.
pub(crate) async fn rest(ours: &Ours, idle: usize, active: usize) -> Result<Cost> {
    let process = ours.start()?;
    ours.make_idle("idle", idle).await?;
    wait(ours.seen(), "idle-", Place::One, idle).await?;
    ours.make("moving", active).await?;
    wait(ours.seen(), "moving-", Place::Both, active).await?;
    drop(process);
    // As after a restart: what it took to set the world up does not count.
    let process = ours.start()?;
    settle(&process).await?;
    process.cost(CALM * 4).await
}

/// Waits until a program has caught up with the world: it takes no more in ten seconds than in the ten before.
async fn settle(process: &Process) -> Result<()> {
    let span = Duration::from_secs(10);
    let mut before = process.cost(span).await?.cores;
    for _ in 0..120 {
        let now = process.cost(span).await?.cores;
        if now < 0.7 && now > before * 0.8 {
            return Ok(());
        }
        before = now;
    }
    bail!("the operator did not come to rest in twenty minutes; read its log")
}

/// Waits until so many rollouts are at a place.
pub(crate) async fn wait(seen: &Seen, prefix: &str, place: Place, count: usize) -> Result<()> {
    let pause = Duration::from_millis(500);
    for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
        if seen.count(prefix, place) >= count {
            return Ok(());
        }
        sleep(pause).await;
    }
    bail!("{} of {count} rollouts are where they should be; read the logs", seen.count(prefix, place))
}
