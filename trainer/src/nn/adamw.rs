//! AdamW (Loshchilov and Hutter, 2019) on one flat buffer, with a state that can be saved.
//!
//! tch can neither save nor load the state of its own optimizers.

use tch::Tensor;

use super::NnError;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The optimizer's state.
#[derive(Debug)]
pub(super) struct AdamW {
    /// Moving mean of the gradient.
    pub mean: Tensor,
    /// Moving mean of its square.
    pub square: Tensor,
}

impl AdamW {
    pub(super) fn new(weights: &Tensor) -> Result<Self, NnError> {
        Ok(Self { mean: weights.f_zeros_like()?, square: weights.f_zeros_like()? })
    }

    /// Changes the weights by one step; `number` counts from 1.
    pub(super) fn step(
        &mut self,
        weights: &mut Tensor,
        gradient: &Tensor,
        number: u64,
        learning_rate: f64,
        weight_decay: f64,
    ) -> Result<(), NnError> {
        let exponent = i32::try_from(number).unwrap_or(i32::MAX);
        let (correction1, correction2) = (1.0 - BETA1.powi(exponent), 1.0 - BETA2.powi(exponent));
        let _ = self.mean.f_lerp_(gradient, 1.0 - BETA1)?;
        let _ = self.square.f_lerp_(&gradient.f_square()?, 1.0 - BETA2)?;
        let mut divisor = self.square.f_sqrt()?;
        let _ = divisor.f_mul_scalar_(-correction1 / (learning_rate * correction2.sqrt()))?;
        let _ = divisor.f_sub_scalar_(EPSILON * correction1 / learning_rate)?;
        if weight_decay > 0.0 {
            let _ = weights.f_mul_scalar_(1.0 - learning_rate * weight_decay)?;
        }
        let _ = weights.f_addcdiv_(&self.mean, &divisor)?;
        Ok(())
    }
}
