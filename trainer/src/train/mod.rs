//! The training loop: from encoded rows to the weights of the best epoch.
//!
//! Called by `run`. On a processor, the weights depend on the settings, the rows and the number of threads, and on
//! nothing else: not on time, and not on how often the run was interrupted.

mod checkpoint;
mod live;
mod observe;
mod order;
mod progress;
mod stop;

use std::time::Duration;

use anneal_crds::{contract::StopReason, gates::EvalMetric, retrain_job::Training};

pub use checkpoint::{Checkpoint, Checkpoints};
pub use live::listen;
pub use observe::{Observer, Show};
pub use progress::{Best, Progress};
pub use stop::Stop;

use crate::{
    error::Failure,
    evaluate::score,
    host::Stopwatch,
    nn::{Architecture, Compute, Learner, StepOptions, TaskTargets, set_threads},
    schema::{Schema, TargetKind, Targets},
};
use progress::Epoch;

/// Encoded rows.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Inputs, row by row.
    pub inputs: Vec<f32>,
    /// The target of each row.
    pub targets: Targets,
}

/// What a training run is made of.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The settings.
    pub training: &'a Training,
    /// The traced schema.
    pub schema: &'a Schema,
    /// Rows to learn from.
    pub train: &'a Encoded,
    /// Rows that decide about the best epoch.
    pub validation: &'a Encoded,
    /// The device.
    pub compute: Compute,
    /// Threads, unless a checkpoint says otherwise.
    pub threads: u32,
    /// Longest time between two checkpoints.
    pub checkpoint_every: Duration,
}

/// A trained model.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Shape of the network.
    pub architecture: Architecture,
    /// Weights of the best epoch.
    pub weights: Vec<f32>,
    /// How the run went.
    pub progress: Progress,
    /// The best epoch.
    pub best: Best,
    /// Why it ended.
    pub stop: StopReason,
}

/// Trains, going on from the newest checkpoint if there is one.
///
/// # Errors
/// [`Failure::Interrupted`] when asked to stop, with a checkpoint saved; [`Failure::Diverged`] on a loss that is not
/// finite; and when storage, fence or memory fail.
pub fn train(
    plan: &Plan<'_>,
    checkpoints: &Checkpoints,
    observer: &Observer,
    stop: &Stop,
) -> Result<Trained, Failure> {
    let mut run = Run::begin(plan, checkpoints, observer)?;
    let reason = loop {
        if run.progress.epochs_since_best >= plan.training.early_stop.patience {
            break StopReason::EarlyStop;
        }
        if run.progress.epochs >= plan.training.epochs {
            break StopReason::MaxEpochs;
        }
        run.epoch(stop)?;
    };
    observer.ended();
    run.finish(reason)
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    checkpoints: &'a Checkpoints,
    observer: &'a Observer,
    architecture: Architecture,
    learner: Learner,
    progress: Progress,
    best: Vec<f32>,
    started: Stopwatch,
    seconds_before: f64,
    saved: Stopwatch,
}

impl<'a> Run<'a> {
    fn begin(
        plan: &'a Plan<'a>,
        checkpoints: &'a Checkpoints,
        observer: &'a Observer,
    ) -> Result<Self, Failure> {
        let architecture = architecture(plan);
        let resumed = checkpoints.newest(|note| observer.say(note))?;
        let progress = resumed.as_ref().map(|checkpoint| checkpoint.progress.clone());
        let progress = progress.unwrap_or_else(|| Progress { threads: plan.threads, ..Progress::default() });
        // Before the first computation; the same in every execution of a run.
        set_threads(progress.threads);
        let initial = architecture.initial(plan.training.seed, &plan.schema.unknown_places());
        let targets = learner_targets(plan.schema, &plan.train.targets);
        let mut learner = Learner::new(&architecture, &initial, &plan.train.inputs, &targets, plan.compute)?;
        let mut best = Vec::new();
        if let Some(checkpoint) = resumed {
            learner.restore(&checkpoint.learner)?;
            learner.set_loss(progress.loss_in_epoch)?;
            best = checkpoint.best;
            let Progress { epochs, steps, .. } = progress;
            observer.say(&format!("going on from a checkpoint after {epochs} epochs and {steps} steps"));
        }
        observer.begun(&progress, plan.training.epochs);
        let (started, saved, seconds_before) = (Stopwatch::start(), Stopwatch::start(), progress.seconds);
        Ok(Self {
            plan,
            checkpoints,
            observer,
            architecture,
            learner,
            progress,
            best,
            started,
            seconds_before,
            saved,
        })
    }

    fn epoch(&mut self, stop: &Stop) -> Result<(), Failure> {
        let training = self.plan.training;
        let (watch, rows) = (Stopwatch::start(), self.plan.train.targets.len());
        let order = order::order_of_epoch(training.seed, self.progress.epochs, rows);
        let done = usize::try_from(self.progress.steps_in_epoch).unwrap_or(usize::MAX);
        for batch in order.chunks(training.batch_size as usize).skip(done) {
            if stop.requested(self.progress.steps) {
                self.save()?;
                return Err(Failure::Interrupted { step: self.progress.steps });
            }
            if self.saved.elapsed() >= self.plan.checkpoint_every {
                self.save()?;
            }
            self.step(batch)?;
        }
        let train_loss = self.take_loss()? / rows as f64;
        let validation_loss = self.validation_loss()?;
        if self.progress.end_epoch(train_loss, validation_loss, training.early_stop.min_delta) == Epoch::Best
        {
            self.best = self.learner.network().weights()?;
        }
        self.observer.epoch_ended(&self.progress, rows, watch.elapsed());
        Ok(())
    }

    fn step(&mut self, batch: &[i64]) -> Result<(), Failure> {
        let training = self.plan.training;
        let number = self.progress.steps + 1;
        let options = StepOptions {
            number,
            seed: order::seed_of_step(training.seed, number),
            learning_rate: training.optimizer.learning_rate,
            weight_decay: training.optimizer.weight_decay,
        };
        self.learner.step(batch, options)?;
        self.progress.steps = number;
        self.progress.steps_in_epoch += 1;
        self.observer.stepped(&self.progress);
        Ok(())
    }

    /// The training loss summed over this epoch's rows so far.
    fn take_loss(&mut self) -> Result<f64, Failure> {
        // Kept as one running sum, so that a checkpoint within the epoch does not change how it is rounded.
        let sum = self.learner.loss()?;
        if !sum.is_finite() {
            return Err(Failure::Diverged { set: "training", value: sum, step: self.progress.steps });
        }
        self.learner.set_loss(0.0)?;
        Ok(sum)
    }

    fn validation_loss(&self) -> Result<f64, Failure> {
        let outputs = self.learner.network().infer(&self.plan.validation.inputs)?;
        let evaluation = score(self.plan.schema, &outputs, &self.plan.validation.targets);
        let diverged = || Failure::Diverged { set: "validation", value: f64::NAN, step: self.progress.steps };
        evaluation.get(EvalMetric::Loss).ok_or_else(diverged)
    }

    fn save(&mut self) -> Result<(), Failure> {
        let loss = self.learner.loss()?;
        if !loss.is_finite() {
            // What has diverged must not be resumed.
            return Err(Failure::Diverged { set: "training", value: loss, step: self.progress.steps });
        }
        self.progress.loss_in_epoch = loss;
        self.progress.seconds = self.seconds_before + self.started.seconds();
        let (progress, best) = (self.progress.clone(), self.best.clone());
        self.checkpoints.save(&Checkpoint { progress, learner: self.learner.state()?, best })?;
        self.saved = Stopwatch::start();
        self.observer.checkpoint_saved();
        Ok(())
    }

    fn finish(mut self, stop: StopReason) -> Result<Trained, Failure> {
        self.progress.seconds = self.seconds_before + self.started.seconds();
        let diverged = || Failure::Diverged { set: "validation", value: f64::NAN, step: self.progress.steps };
        // There is a best epoch after the first, and the spec asks for at least one.
        let best = self.progress.best.ok_or_else(diverged)?;
        Ok(Trained {
            architecture: self.architecture,
            weights: self.best,
            progress: self.progress,
            best,
            stop,
        })
    }
}

fn architecture(plan: &Plan<'_>) -> Architecture {
    Architecture {
        inputs: plan.schema.input_width as usize,
        hidden: plan.training.hidden.iter().map(|&width| width as usize).collect(),
        outputs: plan.schema.outputs(),
        dropout: plan.training.dropout,
    }
}

fn learner_targets(schema: &Schema, targets: &Targets) -> TaskTargets {
    match (targets, &schema.target.kind) {
        (Targets::Classes(classes), _) => TaskTargets::Classes(classes.clone()),
        (Targets::Numbers(numbers), TargetKind::Number { mean, sd }) => {
            TaskTargets::Numbers(numbers.iter().map(|number| ((number - mean) / sd) as f32).collect())
        }
        (Targets::Numbers(numbers), TargetKind::Classes { .. }) => {
            TaskTargets::Numbers(numbers.iter().map(|&number| number as f32).collect())
        }
    }
}
