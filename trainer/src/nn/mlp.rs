//! The multi-layer perceptron: linear layers with ReLU and dropout between them.
//!
//! All weights lie in one flat buffer, so that the optimizer and a checkpoint handle one tensor whatever the depth.

use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{Compute, NnError};

/// Shape of a network; `config.json` holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Architecture {
    /// Numbers that it takes for one row; at least 1.
    pub inputs: usize,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Numbers that it gives for one row; at least 1.
    pub outputs: usize,
    /// Share of activations dropped in training, from 0 to below 1.
    pub dropout: f64,
}

/// A named part of the flat buffer, named as `torch.nn.Sequential` would name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Such as `layers.0.weight`.
    pub name: String,
    /// `[outputs, inputs]` or `[outputs]`.
    pub shape: Vec<usize>,
    /// Where it begins.
    pub start: usize,
}

impl Parameter {
    /// How many numbers it has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Architecture {
    /// The parts of the flat buffer, in order.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut start = 0;
        let mut parameters = Vec::new();
        for (layer, (inputs, outputs)) in self.layers().enumerate() {
            for (kind, shape) in [("weight", vec![outputs, inputs]), ("bias", vec![outputs])] {
                let parameter = Parameter { name: format!("layers.{layer}.{kind}"), shape, start };
                start += parameter.len();
                parameters.push(parameter);
            }
        }
        parameters
    }

    /// Length of the flat buffer.
    pub fn size(&self) -> usize {
        self.layers().map(|(inputs, outputs)| (inputs + 1) * outputs).sum()
    }

    /// Initial weights, uniform within ±1/√inputs as in `torch.nn.Linear`. Weights of the input places `silent` are zero,
    /// so a category that training never saw adds nothing instead of noise.
    pub fn initial(&self, seed: u32, silent: &[usize]) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(u64::from(seed));
        let mut weights = Vec::with_capacity(self.size());
        for (inputs, outputs) in self.layers() {
            let bound = 1.0 / (inputs as f32).sqrt();
            weights.extend((0..(inputs + 1) * outputs).map(|_| random.random_range(-bound..bound)));
        }
        let first = self.hidden.first().copied().unwrap_or(self.outputs);
        for place in silent {
            (0..first).for_each(|row| weights[row * self.inputs + place] = 0.0);
        }
        weights
    }

    fn layers(&self) -> impl Iterator<Item = (usize, usize)> {
        let widths = || [self.inputs].into_iter().chain(self.hidden.iter().copied()).chain([self.outputs]);
        widths().zip(widths().skip(1))
    }
}

/// A network on a device.
#[derive(Debug)]
pub struct Network {
    architecture: Architecture,
    pub(super) flat: Tensor,
    pub(super) leaves: Vec<Tensor>,
    compute: Compute,
}

/// Whether activations are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Train,
    Infer,
}

/// Rows that pass through the network at once in inference. Fixed, because results depend on it in their last bits.
const CHUNK: usize = 4096;

impl Network {
    /// A network with the given weights, as long as [`Architecture::size`].
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(architecture: &Architecture, weights: &[f32], compute: Compute) -> Result<Self, NnError> {
        let flat = Tensor::f_from_slice(weights)?.f_to_device(compute.torch)?;
        let mut leaves = Vec::new();
        for parameter in architecture.parameters() {
            let shape: Vec<_> = parameter.shape.iter().map(|&n| n as i64).collect();
            let view =
                flat.f_narrow(0, parameter.start as i64, parameter.len() as i64)?.f_view(shape.as_slice())?;
            // Detached, it shares the buffer and is a leaf of its own.
            leaves.push(view.f_detach()?.f_set_requires_grad(true)?);
        }
        Ok(Self { architecture: architecture.clone(), flat, leaves, compute })
    }

    /// The weights.
    ///
    /// # Errors
    /// When they cannot be copied from the device.
    pub fn weights(&self) -> Result<Vec<f32>, NnError> {
        to_vec(&self.flat)
    }

    /// The outputs for rows of inputs: logits, or one standardised number for each row.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn infer(&self, inputs: &[f32]) -> Result<Vec<f32>, NnError> {
        let width = self.architecture.inputs;
        let mut outputs = Vec::with_capacity(inputs.len() / width * self.architecture.outputs);
        let _guard = tch::no_grad_guard();
        for chunk in inputs.chunks(CHUNK * width) {
            let rows = Tensor::f_from_slice(chunk)?.f_view([(chunk.len() / width) as i64, width as i64])?;
            let result = self.forward(&rows.f_to_device(self.compute.torch)?, Mode::Infer)?;
            outputs.extend(to_vec(&result.f_contiguous()?.f_view([-1])?)?);
        }
        Ok(outputs)
    }

    pub(super) fn forward(&self, inputs: &Tensor, mode: Mode) -> Result<Tensor, NnError> {
        let mut x = inputs.shallow_clone();
        let mut layers = self.leaves.chunks_exact(2).peekable();
        while let Some([weight, bias]) = layers.next() {
            x = x.f_linear(weight, Some(bias))?;
            if layers.peek().is_some() {
                x = x.f_relu()?;
                if self.architecture.dropout > 0.0 && mode == Mode::Train {
                    x = x.f_dropout(self.architecture.dropout, true)?;
                }
            }
        }
        Ok(x)
    }
}

pub(super) fn to_vec(tensor: &Tensor) -> Result<Vec<f32>, NnError> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut values = vec![0.0; tensor.numel()];
    let count = values.len();
    tensor.f_copy_data(&mut values, count)?;
    Ok(values)
}
