//! A network that learns: data on the device, one optimizer step at a time.

use tch::{Kind, Reduction, Tensor};

use super::{
    Compute, NnError,
    adamw::AdamW,
    mlp::{Architecture, Mode, Network, to_vec},
};

/// What the network is to give.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskTargets {
    /// Index of the class.
    Classes(Vec<i64>),
    /// Standardised numbers.
    Numbers(Vec<f32>),
}

/// What one step needs.
#[derive(Clone, Copy, Debug)]
pub struct StepOptions {
    /// Number of the step, from 1.
    pub number: u64,
    /// Seed of this step's dropout.
    pub seed: u64,
    /// Step size.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Everything that a later step depends on, as flat buffers of the same length.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnerState {
    /// The weights.
    pub weights: Vec<f32>,
    /// The optimizer's moving mean of the gradient.
    pub mean: Vec<f32>,
    /// The optimizer's moving mean of its square.
    pub square: Vec<f32>,
}

/// A network with its optimizer and its training rows on the device. Dropout draws from libtorch's one generator, so a
/// process has one learner at a time.
#[derive(Debug)]
pub struct Learner {
    network: Network,
    optimizer: AdamW,
    inputs: Tensor,
    targets: Tensor,
    task: Task,
    compute: Compute,
    loss: Tensor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Classes,
    Numbers,
}

impl Learner {
    /// A learner with these weights and a fresh optimizer.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(
        architecture: &Architecture,
        weights: &[f32],
        inputs: &[f32],
        targets: &TaskTargets,
        compute: Compute,
    ) -> Result<Self, NnError> {
        let network = Network::new(architecture, weights, compute)?;
        let optimizer = AdamW::new(&network.flat)?;
        let inputs = Tensor::f_from_slice(inputs)?
            .f_view([-1, architecture.inputs as i64])?
            .f_to_device(compute.torch)?;
        let (targets, task) = match targets {
            TaskTargets::Classes(classes) => (Tensor::f_from_slice(classes)?, Task::Classes),
            TaskTargets::Numbers(numbers) => (Tensor::f_from_slice(numbers)?.f_view([-1, 1])?, Task::Numbers),
        };
        let targets = targets.f_to_device(compute.torch)?;
        let loss = Tensor::f_zeros([1], (Kind::Double, compute.torch))?;
        Ok(Self { network, optimizer, inputs, targets, task, compute, loss })
    }

    /// One optimizer step on these training rows.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn step(&mut self, rows: &[i64], options: StepOptions) -> Result<(), NnError> {
        // Dropout is a function of the step alone, so no generator state has to be saved.
        tch::manual_seed(options.seed as i64);
        let rows = Tensor::f_from_slice(rows)?.f_to_device(self.compute.torch)?;
        let inputs = self.inputs.f_index_select(0, &rows)?;
        let targets = self.targets.f_index_select(0, &rows)?;
        let outputs = self.network.forward(&inputs, Mode::Train)?;
        let loss = match self.task {
            Task::Classes => {
                outputs.f_cross_entropy_loss(&targets, None::<&Tensor>, Reduction::Mean, -100, 0.0)?
            }
            Task::Numbers => outputs.f_mse_loss(&targets, Reduction::Mean)?,
        };
        let gradients = Tensor::f_run_backward(&[&loss], &self.network.leaves, false, false)?;
        let _guard = tch::no_grad_guard();
        // Added up on the device: reading it here would make a GPU wait at every step.
        let sum = loss.f_detach()?.f_to_kind(Kind::Double)?.f_mul_scalar(rows.numel() as f64)?;
        let _ = self.loss.f_add_(&sum)?;
        let flat =
            gradients.iter().map(|gradient| gradient.f_reshape([-1])).collect::<Result<Vec<_>, _>>()?;
        let gradient = Tensor::f_cat(&flat, 0)?;
        let StepOptions { number, learning_rate, weight_decay, .. } = options;
        self.optimizer.step(&mut self.network.flat, &gradient, number, learning_rate, weight_decay)
    }

    /// Sum of the training loss over the rows of all steps since it was last set.
    ///
    /// # Errors
    /// When it cannot be copied from the device.
    pub fn loss(&self) -> Result<f64, NnError> {
        Ok(self.loss.f_double_value(&[])?)
    }

    /// Sets the sum of the training loss.
    ///
    /// # Errors
    /// When it cannot be copied to the device.
    pub fn set_loss(&mut self, sum: f64) -> Result<(), NnError> {
        self.loss = Tensor::f_from_slice(&[sum])?.f_to_device(self.compute.torch)?;
        Ok(())
    }

    /// The network as it is now.
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Everything that a later step depends on.
    ///
    /// # Errors
    /// When it cannot be copied from the device.
    pub fn state(&self) -> Result<LearnerState, NnError> {
        let AdamW { mean, square } = &self.optimizer;
        Ok(LearnerState { weights: self.network.weights()?, mean: to_vec(mean)?, square: to_vec(square)? })
    }

    /// Goes on from a saved state of the same architecture.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn restore(&mut self, state: &LearnerState) -> Result<(), NnError> {
        let _guard = tch::no_grad_guard();
        self.network.flat.f_copy_(&Tensor::f_from_slice(&state.weights)?)?;
        self.optimizer.mean.f_copy_(&Tensor::f_from_slice(&state.mean)?)?;
        self.optimizer.square.f_copy_(&Tensor::f_from_slice(&state.square)?)?;
        Ok(())
    }
}
