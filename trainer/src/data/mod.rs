//! Data: rows from files, checked before any device is touched.
//!
//! `run` reads training and validation rows through [`load`]; `evaluate` reads rows for an artifact through [`read`].
//! What leaves this module has no empty, infinite or undefined number, at least one row, and the same columns in
//! every file.

mod batch;
mod checks;
mod choice;
mod digest;
mod error;
mod files;
mod format;
mod load;
mod pattern;
mod read;
mod split;
mod table;
mod window;

pub use choice::Choice;
pub use digest::digest;
pub use error::DataError;
pub use files::fingerprint;
pub use format::Format;
pub use load::{Sets, load};
pub use read::{Beside, Columns, Features, Selection, are_booleans, read};
pub use table::{Categories, Column, ColumnKind, Rows, Values};
