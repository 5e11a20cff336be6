//! Which files a URI or pattern names, looked at before any of them is read.
//!
//! Called by `load` and `read`, and for the name of a run that nobody named.

use std::collections::BTreeSet;

use anneal_crds::retrain_job::Data;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::{error::DataError, pattern::matches};
use crate::storage::Location;

/// The files of a URI, or of a pattern in the order of their names.
pub(super) fn expand(runtime: &Handle, uri: &str) -> Result<Vec<Location>, DataError> {
    let place = Location::open(runtime, uri)?;
    let missing = || DataError::Missing { uri: uri.to_owned() };
    let (folder, name) = place.split().ok_or_else(missing)?;
    if !name.contains('*') {
        return Ok(vec![place]);
    }
    let names = folder.list()?.files;
    let files: Vec<_> =
        names.iter().filter(|file| matches(&name, file)).map(|file| folder.join(file)).collect();
    if files.is_empty() { Err(missing()) } else { Ok(files) }
}

/// Refuses a file that is to be learnt from and to be judged on.
pub(super) fn refuse_shared(train: &[Location], validation: &[Location]) -> Result<(), DataError> {
    let learnt: BTreeSet<String> = train.iter().map(Location::uri).collect();
    match validation.iter().map(Location::uri).find(|file| learnt.contains(file)) {
        Some(file) => Err(DataError::Shared { file }),
        None => Ok(()),
    }
}

/// A digest of the files that a run reads, which changes when one is added, removed or written again. Nothing is read.
///
/// # Errors
/// When a file is missing or the storage does not answer.
pub fn fingerprint(runtime: &Handle, data: &Data) -> Result<String, DataError> {
    let mut hash = Sha256::new();
    for source in [Some(&data.train), data.validation.as_ref()].into_iter().flatten() {
        for file in expand(runtime, &source.uri)? {
            let uri = file.uri();
            let stat = file.stat()?.ok_or_else(|| DataError::Missing { uri: uri.clone() })?;
            // The zero bytes keep apart what would else read the same.
            hash.update(format!("{uri}\0{}\0{}\0", stat.size, stat.mark));
        }
        hash.update("\0");
    }
    Ok(format!("{:x}", hash.finalize()))
}
