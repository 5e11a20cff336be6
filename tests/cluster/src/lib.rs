//! A throwaway single-node Kubernetes made of real parts, brought up and torn down by code.
//!
//! Called by `xtask` and by the end-to-end tests. Everything runs in one network namespace without an uplink, so
//! nothing inside can reach beyond this machine.

mod addons;
mod archive;
pub mod cache;
mod cgroup;
mod daemons;
mod down;
pub mod images;
mod kernel;
mod net;
mod pki;
mod plan;
pub mod progress;
mod render;
pub mod sh;
pub mod space;
mod status;
pub mod tools;
mod up;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cache::{Cache, make_dir};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::sh::Cmd;
pub use crate::status::Status;

/// The name of the cluster when nobody names one.
pub const DEFAULT_NAME: &str = "demo";

/// The GatewayClass whose Gateways become Programmed here.
pub const GATEWAY_CLASS: &str = "anneal-demo";

/// A cluster on this machine. It lives on when the value, or the whole process, is gone.
#[derive(Debug, Clone)]
pub struct Cluster {
    plan: Plan,
}

impl Cluster {
    /// Brings a cluster up, and leaves one that is up alone. What is left of a broken one goes first.
    pub fn up(name: &str, cache: &Cache, progress: &Progress) -> Result<Self> {
        let cluster = Self::named(name)?;
        let _lock = cluster.lock()?;
        let status = Status::of(&cluster);
        if status.is_up() {
            return Ok(cluster);
        }
        if status.exists() {
            cluster.remove(progress)?;
        }
        up::up(&cluster, cache, progress)?;
        Ok(cluster)
    }

    /// Starts only etcd and the API server, with the kinds of the Gateway API: for measurements in which the caller plays
    /// controllers and node. What is left of an older one goes first.
    pub fn up_api_only(name: &str, cache: &Cache, progress: &Progress) -> Result<Self> {
        let cluster = Self::named(name)?;
        let _lock = cluster.lock()?;
        if down::leftovers(&cluster.plan) {
            cluster.remove(progress)?;
        }
        up::up_api_only(&cluster, cache, progress)?;
        Ok(cluster)
    }

    /// A cluster that is up.
    pub fn attach(name: &str) -> Result<Self> {
        let cluster = Self::named(name)?;
        ensure!(
            Status::of(&cluster).is_up(),
            "the cluster {name} is not up; run `cargo xtask cluster up` and try again"
        );
        Ok(cluster)
    }

    /// Takes a cluster down, whatever state it is in. One that is not there is fine.
    pub fn down(name: &str, progress: &Progress) -> Result<()> {
        let cluster = Self::named(name)?;
        let _lock = cluster.lock()?;
        if down::leftovers(&cluster.plan) { cluster.remove(progress) } else { Ok(()) }
    }

    /// What of a cluster runs.
    pub fn status(name: &str) -> Result<Status> {
        Ok(Status::of(&Self::named(name)?))
    }

    /// The administrator's kubeconfig file; it works on the host and inside the namespace.
    pub fn kubeconfig(&self) -> PathBuf {
        self.plan.kubeconfig()
    }

    /// The API server's address.
    pub fn server(&self) -> String {
        self.plan.server()
    }

    /// The address of Prometheus, from the host, from pods and inside the namespace.
    pub fn prometheus(&self) -> String {
        format!("http://{}:9090", self.plan.prometheus_service())
    }

    /// The host's address as pods see it: where something that runs on the host listens.
    pub fn host_address(&self) -> String {
        self.plan.host_address()
    }

    /// A client program of the cluster's own version: `kubectl` or `helm`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.plan.path("bin").join(name)
    }

    /// The network namespace, for `nsenter --net=`. [`Cluster::inside`] is the better way in.
    pub fn netns(&self) -> PathBuf {
        self.plan.netns()
    }

    /// The API server's audit log, one JSON object a line: all calls of the operator, and what creates Anneal's kinds, Jobs,
    /// Deployments and ReplicaSets.
    pub fn audit_log(&self) -> PathBuf {
        self.plan.audit_log()
    }

    /// A folder on the host for a hostPath or local volume. It goes with the cluster.
    pub fn data(&self) -> PathBuf {
        self.plan.path("data")
    }

    /// A command that runs in the cluster's network, and ends with the cluster at the latest.
    pub fn inside(&self, command: Cmd) -> Result<Cmd> {
        daemons::inside(&self.plan, command)
    }

    /// Runs kubectl as the administrator and returns what it prints.
    pub fn kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        self.client("kubectl")?.args(args).capture()
    }

    /// Applies a manifest with kubectl.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.client("kubectl")?.args(["apply", "--server-side", "-f", "-"]).input(manifest).capture()
    }

    /// Lets the API server check a manifest as if it were applied.
    pub fn dry_run(&self, manifest: &str) -> Result<String> {
        self.client("kubectl")?.args(["apply", "--dry-run=server", "-f", "-"]).input(manifest).capture()
    }

    /// Runs helm as the administrator and returns what it prints.
    pub fn helm<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        self.client("helm")?.args(args).capture()
    }

    /// Loads an image from a docker-archive or OCI archive; pods then find it under the name it has in there.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        self.containerd([OsStr::new("images"), OsStr::new("import"), archive.as_os_str()]).map(drop)
    }

    /// Gives an image that was loaded another name besides.
    pub fn tag_image(&self, name: &str, other: &str) -> Result<()> {
        self.containerd(["images", "tag", "--force", name, other]).map(drop)
    }

    fn containerd<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        let socket = self.plan.text("containerd.sock");
        let command = Cmd::new("ctr").args(["--address", &socket, "--namespace", "k8s.io"]).args(args);
        cgroup::joined(&self.plan.cgroup(), command)?.capture()
    }

    fn client(&self, program: &str) -> Result<Cmd> {
        let command = cgroup::joined(&self.plan.cgroup(), Cmd::new(self.plan.path("bin").join(program)))?;
        Ok(command
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.plan.path("kubectl-cache"))
            .env("HELM_CACHE_HOME", self.plan.path("helm"))
            .env("HELM_CONFIG_HOME", self.plan.path("helm"))
            .env("HELM_DATA_HOME", self.plan.path("helm")))
    }

    fn named(name: &str) -> Result<Self> {
        let states = std::env::var_os("ANNEAL_STATE").filter(|value| !value.is_empty());
        let states = states.map_or_else(|| PathBuf::from("/var/lib/anneal-cluster"), PathBuf::from);
        Ok(Self { plan: Plan::new(&states, name)? })
    }

    fn remove(&self, progress: &Progress) -> Result<()> {
        let step = progress.step(format!("Take the cluster {} down", self.plan.name()));
        down::down(&self.plan)?;
        step.done();
        Ok(())
    }

    fn lock(&self) -> Result<File> {
        let path = self.plan.lock();
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let file = File::create(&path)
            .with_context(|| format!("cannot create {}; run as root, or set ANNEAL_STATE", path.display()))?;
        // A command that was just killed lets go a moment later.
        for _ in 0..20 {
            if file.try_lock().is_ok() {
                return Ok(file);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("another command brings the cluster {} up or down; wait for it and try again", self.plan.name())
    }
}
