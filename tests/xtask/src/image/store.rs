//! buildah with a store of its own in the cache folder.
//!
//! Called by `image.rs` and `base.rs`. Builds run in a chroot, so they work where no further namespaces can be made,
//! and never fetch an image: what they start from is prepared before.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anneal_cluster::cache::make_dir;
use anneal_cluster::sh::Cmd;
use anyhow::Result;

use crate::Context;

/// Layers of earlier builds are what makes the next one quick; beyond this many, they are only disk.
const MAX_LAYERS: usize = 400;
/// How an image is built; the profile is optimised like a release, but built incrementally.
const BUILD: [&str; 5] = ["build", "--layers", "--pull-never", "--build-arg", "PROFILE=image"];
/// The trust store of this machine, and where a build container looks for one.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// buildah's images, layers and build folders.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    driver: &'static str,
    log: PathBuf,
}

impl Store {
    /// Opens it.
    pub(crate) fn open(context: &Context) -> Result<Self> {
        let folder = context.cache.root().join("images");
        make_dir(&folder.join("mounts"))?;
        let mut store = Self { folder, driver: "overlay", log: context.cache.log("image") };
        // Inside a container the disk may be an overlay already, which cannot carry another.
        if store.buildah(&["info"]).capture().is_err() {
            store.driver = "vfs";
        }
        Ok(store)
    }

    /// A buildah command on this store.
    pub(crate) fn buildah(&self, args: &[&str]) -> Cmd {
        let at = |name: &str| -> OsString { self.folder.join(format!("{}-{name}", self.driver)).into() };
        Cmd::new("buildah")
            .args(["--root".into(), at("root"), "--runroot".into(), at("run")])
            .args(["--storage-driver", self.driver])
            .args(args)
            .env("BUILDAH_ISOLATION", "chroot")
            // The folders of `RUN --mount=type=cache` lie below it.
            .env("TMPDIR", self.folder.join("mounts"))
    }

    /// What an image gets from here besides the Dockerfile and the sources.
    pub(crate) fn recipe() -> String {
        BUILD.join(" ")
    }

    /// Where commands of this store write what they say.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Builds one target of the Dockerfile.
    pub(crate) fn build(&self, root: &Path, target: &str, name: &str) -> Result<()> {
        let mut build = self.buildah(&BUILD).args(["--target", target, "--tag", name]);
        if Path::new(CERTIFICATES).is_file() {
            // Registries behind a company's proxy are trusted while building; the image does not get it.
            build = build.args(["--volume", &format!("{CERTIFICATES}:{CERTIFICATES}:ro")]);
        }
        build.arg(root).run(&self.log)
    }

    /// Writes an image into an archive.
    pub(crate) fn save(&self, name: &str, archive: &Path) -> Result<()> {
        let to = format!("docker-archive:{}:{name}", archive.display());
        self.buildah(&["push", "--quiet", name, &to]).run(&self.log)
    }

    /// Forgets all layers when they have become too many; the base images are made again in a minute.
    pub(crate) fn shrink(&self) -> Result<()> {
        let images = self.buildah(&["images", "--all", "--quiet"]).capture()?;
        if images.lines().count() > MAX_LAYERS {
            self.buildah(&["rmi", "--all", "--force"]).run(&self.log)?;
        }
        Ok(())
    }
}
