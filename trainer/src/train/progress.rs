//! How far a run is: everything beside weights and optimizer that a later step depends on.

use serde::{Deserialize, Serialize};

use crate::artifact::HistoryEntry;

/// How far a run is. `state.json` of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Whole epochs trained.
    pub epochs: u32,
    /// Optimizer steps in all.
    pub steps: u64,
    /// Optimizer steps of the epoch that has begun.
    pub steps_in_epoch: u64,
    /// Sum of the training loss over the rows of the epoch that has begun.
    pub loss_in_epoch: f64,
    /// The best epoch; none before the first ends.
    pub best: Option<Best>,
    /// Whole epochs since the best one.
    pub epochs_since_best: u32,
    /// All whole epochs.
    pub history: Vec<HistoryEntry>,
    /// Threads of the run, fixed by its first execution.
    pub threads: u32,
    /// Seconds of all executions up to here.
    pub seconds: f64,
}

/// The best epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Best {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Its validation loss.
    pub loss: f64,
}

/// What an epoch was for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Epoch {
    /// The best so far: its weights are to be kept.
    Best,
    /// No better than the best.
    Other,
}

impl Progress {
    /// Ends an epoch.
    pub(super) fn end_epoch(&mut self, train_loss: f64, validation_loss: f64, min_delta: f64) -> Epoch {
        self.epochs += 1;
        (self.steps_in_epoch, self.loss_in_epoch) = (0, 0.0);
        self.history.push(HistoryEntry { epoch: self.epochs, train_loss, validation_loss });
        if self.best.is_none_or(|best| validation_loss < best.loss - min_delta) {
            self.best = Some(Best { epoch: self.epochs, loss: validation_loss });
            self.epochs_since_best = 0;
            Epoch::Best
        } else {
            self.epochs_since_best += 1;
            Epoch::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fall_by_more_than_min_delta_is_better() {
        let mut progress = Progress::default();
        assert_eq!(progress.end_epoch(1.0, 0.5, 0.1), Epoch::Best);
        assert_eq!(progress.end_epoch(1.0, 0.45, 0.1), Epoch::Other);
        assert_eq!((progress.epochs_since_best, progress.best), (1, Some(Best { epoch: 1, loss: 0.5 })));
        assert_eq!(progress.end_epoch(1.0, 0.3, 0.1), Epoch::Best);
        assert_eq!((progress.epochs, progress.epochs_since_best, progress.history.len()), (3, 0, 3));
    }
}
