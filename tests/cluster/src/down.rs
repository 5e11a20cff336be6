//! Takes a cluster down and leaves nothing behind, whatever state it is in.
//!
//! Called by `Cluster::down`, and by `Cluster::up` over the ruins of an older one. It relies on no process of the
//! cluster: what is ours is found by cgroup, link name and the state folder's path, so it works after any crash and
//! twice in a row.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cache::remove_dir;
use crate::plan::Plan;
use crate::sh::Cmd;
use crate::{cgroup, kernel, net};

/// Removes all of it.
pub(crate) fn down(plan: &Plan) -> Result<()> {
    // Daemons, shims and pods die together, so none can bring another back.
    cgroup::remove(&plan.cgroup())?;
    remove_outside(plan);
    net::remove_link(plan)?;
    unmount(plan.state())?;
    kernel::restore_settings(plan);
    remove_dir(plan.state())
}

/// Whether there is anything to remove.
pub(crate) fn leftovers(plan: &Plan) -> bool {
    plan.state().exists() || net::link_exists(plan) || cgroup::exists(&plan.cgroup())
}

fn unmount(state: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The latest mount first: it may lie on an earlier one.
    for mount in mounts_below(&table, state).iter().rev() {
        if Cmd::new("umount").arg(mount).capture().is_err() {
            Cmd::new("umount").arg("--lazy").arg(mount).capture()?;
        }
    }
    Ok(())
}

fn mounts_below(table: &str, state: &Path) -> Vec<PathBuf> {
    let paths = table.lines().filter_map(|line| line.split(' ').nth(4));
    // The kernel writes a blank as \040, and the names under the state folder have nothing else that it escapes.
    paths
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(state))
        .collect()
}

/// What the parts put at fixed places outside of the state folder. Leftovers there are harmless, so failing is too.
fn remove_outside(plan: &Plan) {
    for socket in shim_sockets(&plan.path("containerd/run")) {
        let _ = fs::remove_file(socket);
    }
    let state = plan.text("");
    for path in entries(Path::new("/var/lib/cni/results")) {
        // It names the pod's network namespace, which is in the state folder.
        if fs::read_to_string(&path).is_ok_and(|text| text.contains(&state)) {
            let _ = fs::remove_file(path);
        }
    }
    for path in entries(Path::new("/var/log/containers")) {
        if fs::read_link(&path).is_ok_and(|target| target.starts_with(plan.state())) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The sockets of containerd's shims, which are not under its state folder.
fn shim_sockets(run: &Path) -> Vec<PathBuf> {
    let tasks = entries(&run.join("io.containerd.runtime.v2.task/k8s.io"));
    let addresses = tasks.iter().filter_map(|task| fs::read_to_string(task.join("address")).ok());
    addresses.filter_map(|address| Some(PathBuf::from(address.trim().strip_prefix("unix://")?))).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_in_the_state_folder_are_ours() {
        let table = "\
22 27 0:21 / /proc rw - proc proc rw
30 27 0:30 / /s/demo/netns rw - nsfs nsfs rw
31 27 0:31 / /s/demo2/netns rw - nsfs nsfs rw
32 27 0:32 / /s/demo/a\\040b rw - tmpfs tmpfs rw
";
        assert_eq!(
            mounts_below(table, Path::new("/s/demo")),
            ["/s/demo/netns", "/s/demo/a b"].map(PathBuf::from)
        );
    }

    #[test]
    fn shim_sockets_are_read_from_the_tasks() {
        let dir = tempfile::tempdir().unwrap();
        let task = dir.path().join("io.containerd.runtime.v2.task/k8s.io/x");
        fs::create_dir_all(&task).unwrap();
        fs::write(task.join("address"), "unix:///run/containerd/s/abc").unwrap();
        assert_eq!(shim_sockets(dir.path()), [PathBuf::from("/run/containerd/s/abc")]);
    }
}
