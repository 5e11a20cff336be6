//! The checkout a command works on, and what its files say.
//!
//! Called by every command. Files are those that git tracks or would track, so build outputs never count.

use std::path::{Path, PathBuf};

use anneal_cluster::sh::Cmd;
use anyhow::{Context, Result};

/// A checkout of this repository.
#[derive(Debug)]
pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout around the current folder.
    ///
    /// Found at run time: a path compiled in would be another checkout's when a build is shared.
    pub(crate) fn find() -> Result<Self> {
        let here = std::env::current_dir().context("there is no current folder; change to the checkout")?;
        let root = here
            .ancestors()
            .find(|folder| folder.join("tests/xtask/Cargo.toml").is_file())
            .context("this is not a checkout of Anneal; change to one and try again")?;
        Ok(Self { root: root.to_owned() })
    }

    /// Its folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Names and contents of all files under some paths, in a fixed order: inputs of a cache entry.
    pub(crate) fn contents(&self, paths: &[&str]) -> Result<Vec<Vec<u8>>> {
        let list = Cmd::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"])
            .args(paths)
            .cwd(&self.root)
            .capture()?;
        let mut names: Vec<&str> = list.split('\0').filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        let mut contents = Vec::new();
        for name in names {
            // A file that is deleted but still tracked is absent from the build too.
            if let Ok(bytes) = std::fs::read(self.root.join(name)) {
                contents.push(name.as_bytes().to_vec());
                contents.push(bytes);
            }
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_follow_the_work_tree_and_skip_what_git_ignores() {
        let dir = tempfile::tempdir().unwrap();
        let checkout = Checkout { root: dir.path().to_owned() };
        Cmd::new("git").args(["init", "-q"]).cwd(dir.path()).capture().unwrap();
        for (name, text) in [(".gitignore", "/out\n"), ("a/x", "1"), ("out", "built"), ("b", "2")] {
            anneal_cluster::cache::write_file(&dir.path().join(name), text).unwrap();
        }
        let all = checkout.contents(&["."]).unwrap();
        assert_eq!(all, [&b".gitignore"[..], b"/out\n", b"a/x", b"1", b"b", b"2"]);
        assert_eq!(checkout.contents(&["a"]).unwrap(), [b"a/x", &b"1"[..]]);
        Cmd::new("git").args(["add", "a/x"]).cwd(dir.path()).capture().unwrap();
        std::fs::remove_file(dir.path().join("a/x")).unwrap();
        assert!(checkout.contents(&["a"]).unwrap().is_empty());
    }
}
