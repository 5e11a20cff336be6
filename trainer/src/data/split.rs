//! Which rows are for validation: a function of seed and key alone, so a row keeps its side when others are added.

use sha2::{Digest, Sha256};

/// Numbers of the training rows and of the validation rows, both in the order of the rows.
pub fn split(key: &[String], seed: u32, validation_fraction: f64) -> (Vec<usize>, Vec<usize>) {
    (0..key.len()).partition(|&row| position(&key[row], seed) >= validation_fraction)
}

/// Where a key lies between 0 (inclusive) and 1 (exclusive).
fn position(key: &str, seed: u32) -> f64 {
    let hash = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(key.as_bytes()).finalize();
    // 53 bits: all that a double holds exactly.
    let bits = hash.iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte)) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_its_side_when_rows_are_added() {
        let key: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
        let (_, before) = split(&key[..6_000], 2025, 0.1);
        let (_, after) = split(&key, 2025, 0.1);
        assert!(after.starts_with(&before));
        assert!((900..1_100).contains(&after.len()), "{}", after.len());
        assert_ne!(split(&key, 2026, 0.1).1, after);
    }

    #[test]
    fn the_hash_never_changes() {
        // Sides of rows must not move when a library is updated.
        let key: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        assert_eq!(split(&key, 2025, 0.2).1, [3, 4, 6, 10, 14, 34]);
    }
}
