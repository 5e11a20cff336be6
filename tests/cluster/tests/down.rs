//! What `down` leaves of a cluster whose parts were killed: nothing. `cargo xtask test` runs it on its warm cache.
//!
//! It looks at the machine itself and not at what `down` thinks is there, so what `down` forgets is found.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anneal_cluster::{Cluster, cache::Cache, progress::Progress};

const NAME: &str = "down";

/// Takes the cluster down even when the test fails.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = Cluster::down(NAME, &Progress::new());
    }
}

#[test]
#[ignore = "needs root and minutes; cargo xtask test runs it"]
fn nothing_is_left_of_a_cluster_whose_container_runtime_was_killed() {
    let (cache, progress) = (Cache::open().unwrap(), Progress::new());
    let guard = Guard;
    Cluster::down(NAME, &progress).unwrap();
    let settings = kernel_settings();

    let cluster = Cluster::up(NAME, &cache, &progress).unwrap();
    let state = cluster.data().parent().unwrap().to_owned();
    let sockets = shim_sockets(&state);
    assert!(!sockets.is_empty() && sockets.iter().all(|socket| socket.exists()), "{sockets:?}");
    let seen = Leftovers::find(&state);
    assert!(
        seen.all().iter().all(|(_, found)| !found.is_empty()),
        "what is not seen now would not be missed later: {seen:?}"
    );

    // Nobody is left to stop the containers, to unmount their disks or to remove their networks.
    let shims = with_name(&seen.processes, "containerd-shim");
    assert!(!shims.is_empty(), "no shim runs");
    let daemons = ["containerd", "kubelet"].map(|name| {
        let id = fs::read_to_string(state.join("pids").join(name)).unwrap();
        id.trim().parse::<u32>().unwrap()
    });
    for id in daemons.iter().chain(&shims) {
        let killed = Command::new("sh").args(["-c", "kill -9 \"$0\"", &id.to_string()]).status().unwrap();
        assert!(killed.success(), "{id} cannot be killed");
    }

    Cluster::down(NAME, &progress).unwrap();
    for (kind, found) in Leftovers::find(&state).all() {
        assert!(found.is_empty(), "{kind} are left: {found:?}");
    }
    for gone in sockets.iter().chain([&state]) {
        assert!(!gone.exists(), "{} is left", gone.display());
    }
    for folder in ["/var/lib/cni/results", "/var/log/containers"] {
        let ours = entries(Path::new(folder)).into_iter().filter(|path| names(path, &state));
        assert_eq!(ours.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "{folder} names the cluster");
    }
    assert_eq!(kernel_settings(), settings, "settings of the kernel are not put back");
    assert!(!Cluster::status(NAME).unwrap().exists());
    // A second time has nothing to do, and says so by succeeding.
    drop(guard);
    Cluster::down(NAME, &progress).unwrap();
}

/// What of the machine bears the cluster's names.
#[derive(Debug)]
struct Leftovers {
    processes: Vec<u32>,
    /// Network namespaces are mounts too, so they are among these.
    mounts: Vec<String>,
    links: Vec<String>,
    routes: Vec<String>,
    cgroups: Vec<PathBuf>,
}

impl Leftovers {
    fn find(state: &Path) -> Self {
        let (link, group) = (format!("anl-{NAME}"), format!("anneal-{NAME}"));
        let lines = |file: &str, word: &str| -> Vec<String> {
            let text = fs::read_to_string(file).unwrap();
            text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
        };
        // A controller has a tree of its own in version 1 of cgroups.
        let mut trees = entries(Path::new("/sys/fs/cgroup"));
        trees.push("/sys/fs/cgroup".into());
        let cgroups = trees.iter().map(|tree| tree.join(&group)).filter(|path| path.exists());
        Self {
            processes: processes(state, &group),
            mounts: lines("/proc/self/mountinfo", &format!("{}/", state.display())),
            links: lines("/proc/net/dev", &format!("{link}:")),
            routes: lines("/proc/net/route", &format!("{link}\t")),
            cgroups: cgroups.collect(),
        }
    }

    fn all(&self) -> [(&'static str, Vec<String>); 5] {
        let text = |path: &PathBuf| path.display().to_string();
        [
            ("processes", self.processes.iter().map(u32::to_string).collect()),
            ("mounts and network namespaces", self.mounts.clone()),
            ("links", self.links.clone()),
            ("routes", self.routes.clone()),
            ("cgroups", self.cgroups.iter().map(text).collect()),
        ]
    }
}

/// Processes in the cluster's cgroup, or with its folder on their command line.
fn processes(state: &Path, group: &str) -> Vec<u32> {
    let id = |path: PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let ours = |id: &u32| {
        let read = |file: &str| {
            String::from_utf8_lossy(&fs::read(format!("/proc/{id}/{file}")).unwrap_or_default()).into_owned()
        };
        // The daemons are children of this test, which never asks how they ended: they stay as zombies, and are dead.
        let zombie = read("stat").rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z"));
        let inside = read("cgroup").split(['/', '\n']).any(|part| part == group);
        let named = read("cmdline").contains(&format!("{}/", state.display()));
        !zombie && (inside || named)
    };
    entries(Path::new("/proc")).into_iter().filter_map(id).filter(ours).collect()
}

/// Those whose program's name begins like this; the kernel keeps 15 characters of it.
fn with_name(processes: &[u32], name: &str) -> Vec<u32> {
    let is = |id: &&u32| {
        fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim().starts_with(name))
    };
    processes.iter().filter(is).copied().collect()
}

fn shim_sockets(state: &Path) -> Vec<PathBuf> {
    let tasks = entries(&state.join("containerd/run/io.containerd.runtime.v2.task/k8s.io"));
    let addresses = tasks.iter().filter_map(|task| fs::read_to_string(task.join("address")).ok());
    addresses.filter_map(|address| address.trim().strip_prefix("unix://").map(PathBuf::from)).collect()
}

/// Whether a file's text or a link's target lies in the state folder.
fn names(path: &Path, state: &Path) -> bool {
    let inside = format!("{}/", state.display());
    fs::read_link(path).is_ok_and(|target| target.starts_with(state))
        || fs::read_to_string(path).is_ok_and(|text| text.contains(&inside))
}

/// Of the whole machine, and changed by every kubelet.
fn kernel_settings() -> Vec<Option<String>> {
    ["kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom"]
        .map(|name| fs::read_to_string(Path::new("/proc/sys").join(name)).ok())
        .to_vec()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
