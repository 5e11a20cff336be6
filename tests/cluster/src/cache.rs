//! The build cache outside the checkout: programs, images and whatever else is slow to make.
//!
//! Called by everything here and in `xtask` that builds. An entry is named by the sha256 of what went into it, so
//! it is never updated in place, and it appears by one rename: a folder that exists is complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's cache: `$ANNEAL_CACHE`, else `$XDG_CACHE_HOME/anneal`, else `$HOME/.cache/anneal`.
    pub fn open() -> Result<Self> {
        Self::at(choose_root(var("ANNEAL_CACHE"), var("XDG_CACHE_HOME"), var("HOME"))?)
    }

    /// A cache in a given folder, made when missing.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        for folder in ["entries", "locks", "logs"] {
            make_dir(&root.join(folder))?;
        }
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the log of a named command goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// The entry made from exactly these inputs; it may not be built yet.
    ///
    /// Inputs are contents (a go.mod, a list of flags, a compiler's version), not paths.
    pub fn entry<I: AsRef<[u8]>>(&self, name: &str, inputs: &[I]) -> Entry {
        let mut hash = Sha256::new();
        for input in inputs {
            // Lengths keep ["ab", "c"] and ["a", "bc"] apart.
            hash.update((input.as_ref().len() as u64).to_le_bytes());
            hash.update(input.as_ref());
        }
        let key: String = hash.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect();
        let id = format!("{name}-{key}");
        Entry {
            dir: self.root.join("entries").join(&id),
            temp: self.root.join("entries").join(format!(".building-{id}")),
            lock: self.root.join("locks").join(format!("{id}.lock")),
        }
    }
}

/// One entry of the cache.
#[derive(Debug, Clone)]
pub struct Entry {
    dir: PathBuf,
    temp: PathBuf,
    lock: PathBuf,
}

impl Entry {
    /// The folder, when it is complete.
    pub fn ready(&self) -> Option<&Path> {
        self.dir.is_dir().then_some(self.dir.as_path())
    }

    /// The folder, built first when missing. `build` fills an empty folder beside it.
    ///
    /// Two processes that want the same entry build it once: the second waits for the first.
    pub fn get_or_build(&self, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        if let Some(dir) = self.ready() {
            return Ok(dir.to_owned());
        }
        let lock = File::create(&self.lock).with_context(|| {
            format!("cannot create {}; make the cache folder writable", self.lock.display())
        })?;
        lock.lock()
            .with_context(|| format!("cannot lock {}; remove it and try again", self.lock.display()))?;
        if let Some(dir) = self.ready() {
            return Ok(dir.to_owned());
        }
        // Whoever left this behind is dead: it would hold the lock.
        remove_dir(&self.temp)?;
        make_dir(&self.temp)?;
        build(&self.temp)?;
        fs::rename(&self.temp, &self.dir)
            .with_context(|| format!("cannot rename {}; try again", self.temp.display()))?;
        Ok(self.dir.clone())
    }
}

/// Creates a folder and its parents.
pub fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)
        .with_context(|| format!("cannot create {}; make its parent folder writable", dir.display()))
}

/// Removes a folder with all it holds; a missing one is fine.
pub fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}; remove it by hand", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file and the folders above it.
pub fn write_file(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    fs::write(path, contents)
        .with_context(|| format!("cannot write {}; free some space or make it writable", path.display()))
}

fn var(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn choose_root(own: Option<OsString>, xdg: Option<OsString>, home: Option<OsString>) -> Result<PathBuf> {
    if let Some(own) = own {
        return Ok(own.into());
    }
    if let Some(xdg) = xdg {
        return Ok(Path::new(&xdg).join("anneal"));
    }
    match home {
        Some(home) => Ok(Path::new(&home).join(".cache/anneal")),
        None => bail!("there is no folder for the cache; set ANNEAL_CACHE to one"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        (dir, cache)
    }

    #[test]
    fn the_most_specific_folder_wins() {
        let some = |text: &str| Some(OsString::from(text));
        assert_eq!(choose_root(some("/a"), some("/x"), some("/h")).unwrap(), Path::new("/a"));
        assert_eq!(choose_root(None, some("/x"), some("/h")).unwrap(), Path::new("/x/anneal"));
        assert_eq!(choose_root(None, None, some("/h")).unwrap(), Path::new("/h/.cache/anneal"));
        assert!(choose_root(None, None, None).unwrap_err().to_string().contains("ANNEAL_CACHE"));
    }

    #[test]
    fn an_entry_is_built_once_and_named_by_its_inputs() {
        let (_dir, cache) = cache();
        let entry = cache.entry("tool", &["v1", "flags"]);
        assert_eq!(entry.ready(), None);
        let dir = entry.get_or_build(|temp| write_file(&temp.join("bin"), "x")).unwrap();
        assert_eq!(fs::read(dir.join("bin")).unwrap(), b"x");
        assert_eq!(entry.get_or_build(|_| bail!("built twice")).unwrap(), dir);
        assert_eq!(cache.entry("tool", &["v1f", "lags"]).ready(), None);
    }

    #[test]
    fn a_failed_or_killed_build_leaves_no_entry() {
        let (_dir, cache) = cache();
        let entry = cache.entry("tool", &["v1"]);
        let half = |temp: &Path| write_file(&temp.join("half"), "x").and_then(|()| bail!("killed"));
        assert!(entry.get_or_build(half).is_err());
        assert_eq!(entry.ready(), None);
        let dir = entry.get_or_build(|temp| write_file(&temp.join("whole"), "x")).unwrap();
        assert!(!dir.join("half").exists(), "the next build starts from an empty folder");
    }

    #[test]
    fn concurrent_builds_of_one_entry_run_once() {
        let (_dir, cache) = cache();
        let builds = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let build = |temp: &Path| {
                        builds.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        write_file(&temp.join("bin"), "x")
                    };
                    cache.entry("tool", &["v1"]).get_or_build(build).unwrap();
                });
            }
        });
        assert_eq!(builds.into_inner(), 1);
    }
}
