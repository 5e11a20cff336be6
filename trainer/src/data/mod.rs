//! Data: rows from Parquet files, checked before any device is touched.
//!
//! `run` reads training and validation rows through [`load`]; `evaluate` reads rows for an artifact through [`read`].
//! What leaves this module has no empty, infinite or undefined number, at least one row, and the same columns in
//! every file.

mod batch;
mod digest;
mod error;
mod files;
mod load;
mod read;
mod split;
mod table;

pub use digest::digest;
pub use error::DataError;
pub use files::fingerprint;
pub use load::{Sets, load};
pub use read::{Columns, Features, Selection, read};
pub use table::{Categories, Column, ColumnKind, Rows, Values};
