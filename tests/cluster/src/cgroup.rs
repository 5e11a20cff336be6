//! The cluster's cgroup: it holds every process of the cluster, so ending them needs no list of process ids.
//!
//! Called by `up`, `down` and `status`. Works with version 1 (one tree for each controller) and version 2 (one tree).
//! A process cannot leave its cgroup by dying parents or new sessions, so what is in it is ours, and nothing else is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::cache::make_dir;
use crate::sh::Cmd;

const ROOT: &str = "/sys/fs/cgroup";
/// Where the daemons are; pods are in `kubepods` beside it.
const DAEMONS: &str = "daemons";

/// The trees: the root itself on version 2, a folder for each controller on version 1.
fn trees() -> Vec<PathBuf> {
    let root = PathBuf::from(ROOT);
    if root.join("cgroup.procs").exists() {
        return vec![root];
    }
    let folders = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    // Links such as cpu,cpuacct would name a tree twice.
    let mut trees: Vec<PathBuf> =
        folders.filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists()).collect();
    trees.sort();
    trees
}

/// Makes the cgroup in every tree.
pub(crate) fn create(name: &str) -> Result<()> {
    for tree in trees() {
        let group = tree.join(name);
        make_dir(&group)?;
        // Version 1: a new cpuset is empty, and an empty one takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (Ok(all), true) = (fs::read_to_string(tree.join(file)), group.join(file).exists()) {
                let _ = fs::write(group.join(file), all);
            }
        }
        // Version 2: children get the controllers that their parent passes on.
        for parent in [&tree, &group] {
            for controller in ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"] {
                let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }
    make_dir(&home(name)?)
}

/// The cgroup that the daemons join, in the tree that needs no setting up.
fn home(name: &str) -> Result<PathBuf> {
    let trees = trees();
    let tree = trees.iter().find(|tree| tree.ends_with("pids")).or(trees.first());
    let tree = tree.with_context(|| format!("there are no cgroups under {ROOT}; mount them"))?;
    Ok(tree.join(name).join(DAEMONS))
}

/// Makes a command join the daemons' cgroup before it starts.
pub(crate) fn joined(name: &str, command: Cmd) -> Result<Cmd> {
    let procs = home(name)?.join("cgroup.procs");
    Ok(command.under("sh", ["-c", "echo $$ > \"$0\" && exec \"$@\"", &procs.display().to_string()]))
}

/// The ids of all processes in the cgroup and those below it.
pub(crate) fn processes(name: &str) -> Vec<u32> {
    let mut found = vec![];
    for tree in trees() {
        for group in groups(&tree.join(name)) {
            let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Kills every process in it and removes it from every tree.
pub(crate) fn remove(name: &str) -> Result<()> {
    let mut refused = None;
    for _ in 0..300 {
        for id in processes(name) {
            refused = kill(id).err().or(refused);
        }
        // A program that was just being started may join after the last look. Once the cgroup is gone it cannot,
        // and then it does not start at all; so it has to go before anything else does.
        for group in trees().iter().flat_map(|tree| groups(&tree.join(name))) {
            let _ = fs::remove_dir(group);
        }
        if !exists(name) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    let why = refused.map_or_else(String::new, |error| format!(" ({error})"));
    bail!(
        "processes {:?} in the cgroup {name} do not end{why}; look at them in /proc and try again as root",
        processes(name)
    )
}

/// By a system call: a bare Debian has no program for it.
fn kill(id: u32) -> rustix::io::Result<()> {
    // 0 is a process outside of this container's view.
    let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match kill_process(pid, Signal::KILL) {
        // Some end on their own in between.
        Err(Errno::SRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether any tree has it.
pub(crate) fn exists(name: &str) -> bool {
    trees().iter().any(|tree| tree.join(name).exists())
}

/// A cgroup and all below it, the deepest first.
fn groups(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(groups(&entry.path()));
        }
    }
    if top.is_dir() {
        found.push(top.to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_killed_and_one_that_is_gone_is_no_error() {
        use std::os::unix::process::ExitStatusExt as _;
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        kill(child.id()).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        // No kernel gives such an id away.
        kill(i32::MAX.unsigned_abs()).unwrap();
        kill(0).unwrap();
    }

    #[test]
    fn groups_come_deepest_first() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        assert_eq!(groups(&top), [top.join("a/b"), top.join("a"), top.clone()]);
        assert_eq!(groups(&dir.path().join("none")), Vec::<PathBuf>::new());
    }
}
