//! Room on the disk, looked at before anything long begins.
//!
//! Called by `up` and by `cargo xtask test`. A disk that fills up later shows itself as pods that are evicted and never
//! come back, in a wait that runs out of time and names something else.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

const MIB: u64 = 1 << 20;

/// An error unless `MiB` are free where `path` is, or where it is going to be.
pub fn ensure_free(path: &Path, mebibytes: u64) -> Result<()> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    let disk = rustix::fs::statvfs(there)
        .with_context(|| format!("cannot tell how full the disk of {} is", there.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize) / MIB;
    ensure!(
        free >= mebibytes,
        "the disk of {} has {free} MiB left, and this needs {mebibytes} MiB; free some space (`du -xh --max-depth=2 / | sort -h` shows what takes it) and try again",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_an_error_that_says_how_much() {
        let dir = tempfile::tempdir().unwrap();
        let later = dir.path().join("not/yet/there");
        ensure_free(&later, 0).unwrap();
        let error = ensure_free(&later, u64::MAX / MIB).unwrap_err().to_string();
        assert!(error.contains("not/yet/there has ") && error.contains("MiB left"), "{error}");
    }
}
