//! Plain thresholds: `evidence: none`, as a rollout reads them: the share of a sliding window, compared with its bound at every look.

use std::collections::VecDeque;

use anneal_core::judge::ArmCount;

/// A metric's bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Length of the window in ticks, at least 1.
    pub window: usize,
    /// The largest share of bad events.
    pub max: f64,
}

/// Bounds in one rollout.
#[derive(Clone, Debug)]
pub struct Windows(Vec<(Threshold, VecDeque<ArmCount>)>);

impl Windows {
    /// Before the first tick.
    pub fn new(thresholds: &[Threshold]) -> Self {
        Self(thresholds.iter().map(|threshold| (*threshold, VecDeque::new())).collect())
    }

    /// Whether a bound is broken after a tick in which the candidate had these counts, a metric each; what was not counted adds
    /// nothing, and a window without requests says nothing.
    pub fn measure(&mut self, counts: &[ArmCount]) -> bool {
        let mut breaks = false;
        for ((threshold, window), count) in self.0.iter_mut().zip(counts) {
            window.push_back(*count);
            if window.len() > threshold.window {
                window.pop_front();
            }
            let bad: u64 = window.iter().map(|count| count.bad).sum();
            let requests: u64 = window.iter().map(|count| count.requests).sum();
            breaks |= requests > 0 && bad as f64 > threshold.max * requests as f64;
        }
        breaks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_window_breaks_its_bound() {
        let count = |bad, requests| ArmCount { requests, bad };
        let mut windows =
            Windows::new(&[Threshold { window: 2, max: 0.05 }, Threshold { window: 1, max: 0.5 }]);
        assert!(!windows.measure(&[count(0, 0), count(0, 0)]));
        assert!(!windows.measure(&[count(5, 100), count(0, 1)]), "no more than the bound is none too many");
        assert!(windows.measure(&[count(6, 100), count(0, 1)]));
        assert!(!windows.measure(&[count(3, 100), count(0, 1)]));
        assert!(windows.measure(&[count(0, 100), count(1, 1)]), "every metric counts");
    }
}
