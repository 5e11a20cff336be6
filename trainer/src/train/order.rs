//! The order of rows and the seeds of steps: pure functions of seed, epoch and step.
//!
//! So a resumed run needs no saved generator to go on exactly as the interrupted one would have.

use rand::seq::SliceRandom;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// The rows of an epoch in a random order that depends on seed and epoch alone.
pub(super) fn order_of_epoch(seed: u32, epoch: u32, rows: usize) -> Vec<i64> {
    let mut order: Vec<i64> = (0..rows as i64).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(u64::from(seed) << 32 | u64::from(epoch)));
    order
}

/// The seed of a step's dropout (splitmix64, Steele and others, 2014).
pub(super) const fn seed_of_step(seed: u32, step: u64) -> u64 {
    let mut z = ((seed as u64) << 32 ^ step).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_sees_every_row_in_its_own_order() {
        let (first, second) = (order_of_epoch(1, 0, 1000), order_of_epoch(1, 1, 1000));
        assert_ne!(first, second);
        assert_eq!(first, order_of_epoch(1, 0, 1000));
        let mut sorted = first;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn steps_have_different_seeds() {
        assert_ne!(seed_of_step(1, 1), seed_of_step(1, 2));
        assert_ne!(seed_of_step(1, 1), seed_of_step(2, 1));
    }
}
