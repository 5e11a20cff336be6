//! Peers: the rules of Argo Rollouts and Flagger, literally, one measurement a tick.
//!
//! Argo Rollouts (`evaluate.go` at 9f8d111): a `successCondition` on NaN is false, so 0/0 is a failure; an empty vector is
//! an error, and more than four errors in a row abort. Failures are counted in total. Flagger (`scheduler.go` at 15bd6ad): no
//! value, NaN or a breach are a failed check, in total; the tick after the last allowed one rolls back.

use anneal_core::judge::ArmCount;

/// Argo's `consecutiveErrorLimit`, as it is by default.
const ARGO_ERRORS: u32 = 4;

/// A rule.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// Argo Rollouts with this `failureLimit`.
    Argo(u32),
    /// Flagger with this `threshold`.
    Flagger(u32),
}

/// A rule in one rollout.
#[derive(Clone, Copy, Debug)]
pub struct Strikes {
    rule: Peer,
    max: f64,
    failed: u32,
    errors: u32,
}

impl Strikes {
    /// Before the first tick of a rollout whose share of bad events may be at most `max`.
    pub const fn new(rule: Peer, max: f64) -> Self {
        Self { rule, max, failed: 0, errors: 0 }
    }

    /// Whether it rolls back at this tick, in which the candidate had `count`, or there is no sample.
    pub fn measure(&mut self, count: Option<ArmCount>) -> bool {
        // 0/0 is NaN, and no comparison with it holds.
        let passes = count.map(|count| count.bad as f64 / count.requests as f64 <= self.max);
        match self.rule {
            Peer::Argo(limit) => {
                match passes {
                    None => self.errors += 1,
                    Some(passes) => {
                        self.errors = 0;
                        self.failed += u32::from(!passes);
                    }
                }
                self.failed > limit || self.errors > ARGO_ERRORS
            }
            Peer::Flagger(threshold) => {
                let rolls_back = self.failed >= threshold;
                self.failed += u32::from(passes != Some(true));
                rolls_back
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Option<ArmCount> = Some(ArmCount { requests: 100, bad: 1 });
    const BAD: Option<ArmCount> = Some(ArmCount { requests: 100, bad: 2 });
    const IDLE: Option<ArmCount> = Some(ArmCount { requests: 0, bad: 0 });

    fn fires_at(rule: Peer, ticks: &[Option<ArmCount>]) -> Option<usize> {
        let mut strikes = Strikes::new(rule, 0.01);
        ticks.iter().position(|&count| strikes.measure(count))
    }

    #[test]
    fn argo_counts_failures_in_total_and_errors_in_a_row() {
        assert_eq!(fires_at(Peer::Argo(0), &[GOOD, BAD]), Some(1));
        assert_eq!(fires_at(Peer::Argo(3), &[BAD, GOOD, BAD, BAD, GOOD, BAD]), Some(5));
        assert_eq!(fires_at(Peer::Argo(0), &[GOOD, IDLE]), Some(1));
        assert_eq!(fires_at(Peer::Argo(0), &[None, None, None, None, GOOD, None]), None);
        assert_eq!(fires_at(Peer::Argo(0), &[None; 5]), Some(4));
    }

    #[test]
    fn flagger_rolls_back_one_tick_after_its_last_strike() {
        assert_eq!(fires_at(Peer::Flagger(2), &[BAD, GOOD, None, GOOD]), Some(3));
        assert_eq!(fires_at(Peer::Flagger(1), &[IDLE, GOOD]), Some(1));
    }
}
