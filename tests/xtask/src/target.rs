//! The build folder of this checkout, in the cache, with the dependencies that other checkouts have built.
//!
//! Called by `cargo.rs`. One folder for all checkouts would be wrong: cargo names the crates of a workspace the same in
//! every checkout and trusts modification times, so one clone would test what another clone has built. Each checkout
//! therefore has a folder of its own. A new one starts with the dependencies of the one used last, without the crates
//! of the workspace; from then on it is cargo's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anneal_cluster::cache::{make_dir, remove_dir, write_file};
use anneal_cluster::sh::Cmd;
use anyhow::{Context as _, Result};

use crate::Context;

const NAME: &str = "target";
/// Names the checkout that a build folder belongs to; its age is that of the last use.
const OWNER: &str = "checkout";
const PROFILES: [&str; 3] = ["debug", "release", "operator"];
/// What cargo keeps of a dependency. The rest (incremental data, final binaries) is the workspace's.
const PARTS: [&str; 3] = ["deps", ".fingerprint", "build"];

/// The build folder, seeded on first use.
pub(crate) fn prepare(context: &Context) -> Result<PathBuf> {
    let root = context.checkout.root();
    let entry = context.cache.entry(NAME, &[root.as_os_str().as_encoded_bytes()]);
    let own = entry.get_or_build(|own| {
        let mut neighbours = Neighbour::all(&context.cache.root().join("entries"));
        let Some(newest) = neighbours.pop() else { return Ok(()) };
        let step = context.progress.step("Take over the dependencies that another checkout has built");
        newest.seed(own, &members(root)?)?;
        for neighbour in neighbours.iter().filter(|neighbour| neighbour.orphan) {
            remove_dir(&neighbour.folder)?;
        }
        step.done();
        Ok(())
    })?;
    write_file(&own.join(OWNER), root.as_os_str().as_encoded_bytes())?;
    Ok(own)
}

/// The names of the workspace's own crates.
fn members(root: &Path) -> Result<Vec<String>> {
    let list = ["tree", "--locked", "--workspace", "--depth", "0", "--prefix", "none"];
    let tree = Cmd::new("cargo").args(list).cwd(root).capture()?;
    Ok(tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Another checkout's build folder.
#[derive(Debug)]
struct Neighbour {
    folder: PathBuf,
    /// Its checkout is gone, so nobody else needs it.
    orphan: bool,
}

impl Neighbour {
    /// All of them, the one used last at the end.
    fn all(entries: &Path) -> Vec<Self> {
        let used = |folder: PathBuf| {
            let owner = folder.join(OWNER);
            let time: SystemTime = owner.metadata().and_then(|meta| meta.modified()).ok()?;
            let orphan = !Path::new(&fs::read_to_string(owner).ok()?).exists();
            Some((time, Self { folder, orphan }))
        };
        let ours = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"target-"))
        };
        let Ok(list) = fs::read_dir(entries) else { return vec![] };
        let mut all: Vec<_> =
            list.filter_map(|entry| Some(entry.ok()?.path())).filter(ours).filter_map(used).collect();
        all.sort_by_key(|(time, _)| *time);
        all.into_iter().map(|(_, neighbour)| neighbour).collect()
    }

    /// Fills a new build folder.
    fn seed(&self, own: &Path, members: &[String]) -> Result<()> {
        for profile in PROFILES {
            let (from, to) = (self.folder.join(profile), own.join(profile));
            // Cargo's own lock: no build changes the folder while it is copied.
            let Ok(lock) = File::open(from.join(".cargo-lock")) else { continue };
            lock.lock_shared()
                .with_context(|| format!("cannot lock {}; remove it and try again", from.display()))?;
            make_dir(&to)?;
            for part in PARTS.iter().filter(|part| from.join(part).is_dir()) {
                let (from, to) = (from.join(part), to.join(part));
                if self.orphan {
                    fs::rename(&from, &to).with_context(|| {
                        format!("cannot move {}; remove it and try again", from.display())
                    })?;
                } else {
                    copy(&from, &to, *part == "deps")?;
                }
                forget(&to, members)?;
            }
        }
        if self.orphan { remove_dir(&self.folder) } else { Ok(()) }
    }
}

/// Copies a folder with its times, which cargo compares. Libraries are replaced, never written to, so links do.
fn copy(from: &Path, to: &Path, link: bool) -> Result<()> {
    let how = if link { "--link" } else { "--reflink=auto" };
    Cmd::new("cp").args(["--archive", how]).arg(from).arg(to).capture()?;
    Ok(())
}

/// Removes what belongs to the workspace's own crates.
fn forget(part: &Path, members: &[String]) -> Result<()> {
    let list = fs::read_dir(part)
        .with_context(|| format!("cannot list {}; remove it and try again", part.display()))?;
    for path in list.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().map(|name| name.to_string_lossy().replace('_', "-")).unwrap_or_default();
        let own = |member: &String| {
            let rest = name.strip_prefix("lib").unwrap_or(&name).strip_prefix(member.as_str());
            rest.is_some_and(|rest| rest.starts_with('-'))
        };
        if members.iter().any(own) {
            if path.is_dir() {
                remove_dir(&path)?;
            } else {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}; remove it by hand", path.display()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build_folder(entries: &Path, name: &str, checkout: &Path) -> PathBuf {
        let folder = entries.join(name);
        for file in [
            ".cargo-lock",
            "deps/libserde-1.rlib",
            "deps/libanneal_core-2.rlib",
            "deps/xtask-3",
            ".fingerprint/anneal-core-2/lib",
            "build/serde-1/out",
            "incremental/x",
        ] {
            write_file(&folder.join("debug").join(file), name).unwrap();
        }
        write_file(&folder.join(OWNER), checkout.as_os_str().as_encoded_bytes()).unwrap();
        folder
    }

    fn names() -> Vec<String> {
        ["anneal-core", "xtask"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_new_checkout_gets_the_dependencies_but_never_the_crates_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let folder = build_folder(dir.path(), "target-a", dir.path());
        let neighbour = Neighbour::all(dir.path()).pop().unwrap();
        assert!(!neighbour.orphan);
        let own = dir.path().join("own");
        neighbour.seed(&own, &names()).unwrap();
        for kept in ["deps/libserde-1.rlib", "build/serde-1/out"] {
            assert!(own.join("debug").join(kept).is_file(), "{kept}");
        }
        for gone in
            ["deps/libanneal_core-2.rlib", "deps/xtask-3", ".fingerprint/anneal-core-2", "incremental"]
        {
            assert!(!own.join("debug").join(gone).exists(), "{gone}");
            assert!(folder.join("debug").join(gone).exists(), "{gone} is still the neighbour's");
        }
    }

    #[test]
    fn the_folder_of_a_checkout_that_is_gone_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let folder = build_folder(dir.path(), "target-a", &dir.path().join("gone"));
        let own = dir.path().join("own");
        Neighbour::all(dir.path()).pop().unwrap().seed(&own, &names()).unwrap();
        assert!(own.join("debug/deps/libserde-1.rlib").is_file() && !folder.exists());
    }

    #[test]
    fn the_neighbour_used_last_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        for (name, age) in [("target-old", 100), ("target-new", 10), ("target-older", 1000)] {
            let folder = build_folder(dir.path(), name, dir.path());
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(10_000 - age);
            File::options().write(true).open(folder.join(OWNER)).unwrap().set_modified(time).unwrap();
        }
        assert!(Neighbour::all(dir.path()).pop().unwrap().folder.ends_with("target-new"));
        assert!(Neighbour::all(&dir.path().join("none")).is_empty());
    }
}
