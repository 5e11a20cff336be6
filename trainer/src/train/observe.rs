//! What people and Prometheus see of a training run while it runs. Nothing here influences the run.

use std::{
    io::{IsTerminal, Write, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use prometheus::{Gauge, GaugeVec, IntGauge, Opts, Registry};

use super::progress::Progress;
use crate::{error::Failure, host};

/// The live view: a progress bar in a terminal or plain lines elsewhere, and gauges.
#[derive(Clone, Debug)]
pub struct Observer {
    registry: Registry,
    epoch: IntGauge,
    step: IntGauge,
    loss: GaugeVec,
    rate: Gauge,
    checkpoint: Gauge,
    show: Show,
    bar: ProgressBar,
}

impl Observer {
    /// An observer with a registry of its own.
    ///
    /// # Errors
    /// When a metric's name is taken, which is a bug.
    pub fn new(show: Show) -> Result<Self, Failure> {
        let bug = |error: prometheus::Error| Failure::Panic(format!("metrics: {error}"));
        let observer = Self {
            registry: Registry::new(),
            epoch: IntGauge::new("anneal_train_epoch", "Whole epochs trained.").map_err(bug)?,
            step: IntGauge::new("anneal_train_step", "Optimizer steps of the run.").map_err(bug)?,
            loss: GaugeVec::new(Opts::new("anneal_train_loss", "Loss of the last whole epoch."), &["split"])
                .map_err(bug)?,
            rate: Gauge::new(
                "anneal_train_rows_per_second",
                "Training rows of the last whole epoch per second.",
            )
            .map_err(bug)?,
            checkpoint: Gauge::new(
                "anneal_train_last_checkpoint_timestamp_seconds",
                "When the last checkpoint was saved; 0 before the first.",
            )
            .map_err(bug)?,
            show,
            bar: if show == Show::Progress && stderr().is_terminal() {
                ProgressBar::new(0)
            } else {
                ProgressBar::hidden()
            },
        };
        let registry = &observer.registry;
        registry.register(Box::new(observer.epoch.clone())).map_err(bug)?;
        registry.register(Box::new(observer.step.clone())).map_err(bug)?;
        registry.register(Box::new(observer.loss.clone())).map_err(bug)?;
        registry.register(Box::new(observer.rate.clone())).map_err(bug)?;
        registry.register(Box::new(observer.checkpoint.clone())).map_err(bug)?;
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} epoch {pos}/{len} {msg} [{elapsed}, at most {eta} left]")
        {
            observer.bar.set_style(style);
        }
        Ok(observer)
    }

    /// The registry, for a page of metrics.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Says one line.
    pub fn say(&self, line: &str) {
        match self.show {
            // Without a place to write there is nothing to say.
            Show::Progress if self.bar.is_hidden() => drop(writeln!(stderr(), "{line}")),
            Show::Progress => self.bar.println(line),
            Show::Nothing => {}
        }
    }

    pub(super) fn begun(&self, progress: &Progress, epochs: u32) {
        self.bar.set_length(u64::from(epochs));
        self.bar.set_position(u64::from(progress.epochs));
        self.stepped(progress);
    }

    pub(super) fn stepped(&self, progress: &Progress) {
        self.epoch.set(i64::from(progress.epochs));
        self.step.set(i64::try_from(progress.steps).unwrap_or(i64::MAX));
    }

    pub(super) fn epoch_ended(&self, progress: &Progress, rows: usize, took: Duration) {
        self.stepped(progress);
        let Some(last) = progress.history.last() else { return };
        self.loss.with_label_values(&["train"]).set(last.train_loss);
        self.loss.with_label_values(&["validation"]).set(last.validation_loss);
        let rate = rows as f64 / took.as_secs_f64().max(1e-9);
        self.rate.set(rate);
        let best = progress.best.map_or(0, |best| best.epoch);
        let text = format!(
            "training loss {:.5}, validation loss {:.5} (best in epoch {best}), {rate:.0} rows/s",
            last.train_loss, last.validation_loss
        );
        if self.bar.is_hidden() {
            self.say(&format!("epoch {}: {text}", last.epoch));
        } else {
            self.bar.set_position(u64::from(progress.epochs));
            self.bar.set_message(text);
        }
    }

    pub(super) fn checkpoint_saved(&self) {
        self.checkpoint.set(host::now().as_duration().as_secs_f64());
    }

    pub(super) fn ended(&self) {
        self.bar.finish_and_clear();
    }
}

/// What to write to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// A progress bar if it is a terminal, plain lines if not.
    Progress,
    /// Nothing.
    Nothing,
}
