//! The judge: is the candidate worse than the stable version? An always-valid sequential test over raw counters.
//!
//! The rollout's controller calls [`Judge::fold`] at each reconcile with the state it has in its status and the raw
//! samples since; `kubectl-anneal judge-bench` calls it on simulated traffic.
//!
//! ```text
//! raw samples -> samples: increments of one tick -> tick: every metric's evidence -> State -> Verdict
//! ```
//!
//! What always holds, however often one looks: if the candidate is no worse than the policy tolerates, it is rolled
//! back with a chance of at most `alpha`, over all metrics, tests, steps and ticks together (Ville's inequality: each
//! test is an e-process, a process whose expectation stays at most one, and their weighted mean is one too). Every
//! weight, tolerance and correction is fixed by the [`Policy`] before the first tick. Missing, stale or non-finite data
//! is neither evidence against the candidate nor for it, and never advances. A fold is total: no input makes it panic.
//!
//! `relative` compares the arms, `absolute` compares one arm with a threshold; `latency` makes shares of a histogram;
//! `means`, `paired` and `agreement` judge what is not a share; `labels` is what is known only later. `split` watches whether traffic is
//! divided as asked. `evidence` mixes alternatives and moments of change; `rules` resolves a policy once; `state` is what a
//! status keeps. `experiment` looks at an experiment at its planned times, and `winner` is the test that ends it. Beside the
//! fold: `dispersion` learns from stable's history before a rollout, `power` says what a step can see.

mod absolute;
mod agreement;
pub mod dispersion;
mod distribution;
mod estimate;
mod evidence;
mod experiment;
mod follows;
mod hypergeometric;
mod labels;
pub mod latency;
mod means;
mod paired;
mod policy;
pub mod power;
mod relative;
mod rules;
pub mod samples;
mod split;
mod state;
mod tick;
mod verdict;
pub mod winner;

pub use agreement::Compared;
pub use estimate::Estimate;
pub use evidence::Nats;
pub use experiment::Look;
pub use labels::Labels;
pub use means::{ArmSum, Differences, FEWEST_DIFFERENCES, FEWEST_VALUES, MeanState, Sums};
pub use paired::Pairs;
pub use policy::{
    Advance, Better, Events, Experiment, Inconclusive, Mean, MetricPolicy, PodSpread, Policy, PolicyError,
    Rule, Source,
};
pub use rules::Judge;
pub use split::{is_ignored, requests_to_tell};
pub use state::{MetricState, SCHEMA, State};
pub use tick::{ArmCount, Arms, Missing, Outcome, Shares, Step, Tick};
pub use verdict::{Hold, Rollback, TestName, Verdict};
