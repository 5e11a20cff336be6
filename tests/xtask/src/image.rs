//! `cargo xtask image`: the images of the Dockerfile, as archives that any container runtime loads.
//!
//! Called by people and by what brings up a cluster. An archive is kept by the content of what goes into it, so an
//! unchanged tree costs nothing, and every build folder and download outlives the build.

mod base;
mod store;

use std::path::{Path, PathBuf};

use anneal_cluster::cache::{make_dir, remove_dir};
use anneal_cluster::tools::apt;
use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::Context;
use store::Store;

/// What decides an image besides the crates in it.
const SHARED: [&str; 4] = ["Dockerfile", ".dockerignore", "Cargo.toml", "Cargo.lock"];
/// Archives of one image that stay in the cache: somebody may be loading the one before.
const KEEP: usize = 3;

/// An image of the Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// The operator
    Operator,
    /// The trainer, without GPU libraries
    Trainer,
    /// The trainer with GPU libraries: 2.5 GB
    Cuda,
}

impl Which {
    fn target(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Trainer => "trainer",
            Self::Cuda => "trainer-cuda",
        }
    }

    /// The image's name. `.test` is a domain that cannot exist, so a missing image is never looked for elsewhere.
    pub(crate) fn name(self) -> String {
        format!("anneal.test/{}:dev", self.target())
    }

    /// The operator's image is promised to be small; the others are as large as libtorch.
    fn check_size(self, archive: &Path) -> Result<()> {
        let most = match self {
            Self::Operator => 40,
            Self::Trainer | Self::Cuda => return Ok(()),
        };
        let bytes = archive.metadata().with_context(|| format!("cannot read {}", archive.display()))?.len();
        ensure!(
            bytes <= most * 1_000_000,
            "{} has {} MB, and at most {most} are allowed; see what a dependency brought in",
            self.name(),
            bytes / 1_000_000
        );
        Ok(())
    }

    fn sources(self) -> &'static [&'static str] {
        match self {
            Self::Operator => &["crds", "operator"],
            Self::Trainer | Self::Cuda => &["crds", "operator/core", "trainer"],
        }
    }

    fn bases(self) -> &'static [base::Base] {
        match self {
            Self::Operator => &[base::RUST],
            Self::Trainer | Self::Cuda => &[base::RUST, base::PYTHON],
        }
    }
}

/// The image's archive (docker-archive format), built when its sources changed.
pub(crate) fn build(context: &Context, which: Which) -> Result<PathBuf> {
    let paths: Vec<&str> = SHARED.iter().chain(which.sources()).copied().collect();
    let mut inputs = context.checkout.contents(&paths)?;
    inputs.push(Store::recipe().into_bytes());
    inputs.extend(which.bases().iter().map(|base| base.recipe().into_bytes()));
    let prefix = format!("image-{}", which.target());
    let folder = context.cache.entry(&prefix, &inputs).get_or_build(|folder| {
        apt(&context.cache, &context.progress, &["buildah", "mmdebstrap"])?;
        let store = Store::open(context)?;
        for base in which.bases() {
            base::prepare(context, &store, base)?;
        }
        let step = context.progress.step(format!("Build the image {}", which.name()));
        store.build(context.checkout.root(), which.target(), &which.name())?;
        let archive = folder.join("image.tar");
        store.save(&which.name(), &archive)?;
        which.check_size(&archive)?;
        step.done();
        store.shrink()
    })?;
    drop_old(&context.cache.root().join("entries"), &prefix, &folder)?;
    Ok(folder.join("image.tar"))
}

/// Removes all but the newest archives of an image.
fn drop_old(entries: &Path, prefix: &str, current: &Path) -> Result<()> {
    make_dir(entries)?;
    let list = std::fs::read_dir(entries)
        .with_context(|| format!("cannot list {}; make it readable", entries.display()))?;
    let own = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // The rest is the key: `image-trainer` is not `image-trainer-cuda`.
        let key = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
        key.is_some_and(|key| !key.contains('-')) && path != current
    };
    let mut old: Vec<(_, PathBuf)> = list
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(own)
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    old.sort();
    for (_, path) in old.iter().rev().skip(KEEP - 1) {
        remove_dir(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anneal_cluster::cache::write_file;
    use std::time::{Duration, SystemTime};

    #[test]
    fn old_archives_go_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["image-trainer-1", "image-trainer-2", "image-trainer-3", "image-trainer-4"];
        for (age, name) in names.iter().chain(&["image-trainer-cuda-1", "image-operator-1"]).enumerate() {
            let folder = dir.path().join(name);
            write_file(&folder.join("image.tar"), name).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + age as u64);
            std::fs::File::open(&folder).unwrap().set_modified(time).unwrap();
        }
        // The oldest is the current one: somebody went back to an old commit.
        drop_old(dir.path(), "image-trainer", &dir.path().join(names[0])).unwrap();
        let left = |name: &str| dir.path().join(name).exists();
        assert!(left(names[0]) && !left(names[1]) && left(names[2]) && left(names[3]));
        assert!(left("image-trainer-cuda-1") && left("image-operator-1"));
    }
}
