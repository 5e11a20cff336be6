//! The car-loan data set of NannyML (Apache-2.0, in the wheel `nannyml` on PyPI) as Parquet files.
//!
//! 100,000 loans in order of time; whether each was repaid is known. From about loan 66,000 on cars are dearer, so a model
//! of old loans is worse on new ones, and retraining helps. Called by the binary and by whatever needs data for a
//! demo. The same source always gives the same files.

mod loan;
mod write;

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

pub use loan::Loan;

/// The files, and which loans each has. No training file shares a loan with the validation file.
pub const FILES: [(&str, Range<usize>); 4] = [
    ("older.parquet", 0..1_500),
    ("recent.parquet", 85_500..88_000),
    ("full.parquet", 78_000..90_000),
    ("validation.parquet", 96_000..100_000),
];

/// Like the recent loans, but a share of them with the wrong answer: a model that must not pass.
pub const FLIPPED: &str = "flipped.parquet";
const FLIPPED_SHARE: f64 = 0.3;
const FLIPPED_SEED: u64 = 2025;

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub path: PathBuf,
    /// How many loans.
    pub rows: usize,
}

/// Converts the CSV files below `source` (the unpacked wheel) to Parquet files in the folder `out`.
///
/// # Errors
/// When a CSV file is missing or is not the expected one, or a Parquet file cannot be written.
pub fn car_loan(source: &Path, out: &Path) -> Result<Vec<Written>> {
    let loans = loan::read(source)?;
    fs::create_dir_all(out)?;
    let mut files: Vec<(&str, Vec<Loan>)> =
        FILES.iter().map(|(name, range)| (*name, loans[range.clone()].to_vec())).collect();
    files.push((FLIPPED, flip(&loans[FILES[1].1.clone()])));
    let write = |(name, loans): (&str, Vec<Loan>)| {
        let path = out.join(name);
        write::write(&path, &loans)?;
        Ok(Written { path, rows: loans.len() })
    };
    files.into_iter().map(write).collect()
}

fn flip(loans: &[Loan]) -> Vec<Loan> {
    let mut random = ChaCha8Rng::seed_from_u64(FLIPPED_SEED);
    let flipped =
        |loan: &Loan| Loan { repaid: loan.repaid != random.random_bool(FLIPPED_SHARE), ..loan.clone() };
    loans.iter().map(flipped).collect()
}
