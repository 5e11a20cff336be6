//! Kernel settings of the whole machine that the kubelet changes: kept when a cluster comes up, put back when it goes.
//!
//! Called by `up` and `down`.

use std::fs;

use anyhow::Result;

use crate::cache::write_file;
use crate::plan::Plan;

const SETTINGS: &[&str] = &[
    "/proc/sys/kernel/keys/root_maxbytes",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
];

const FILE: &str = "kernel-settings";

/// Writes the settings into the state folder.
pub(crate) fn save_settings(plan: &Plan) -> Result<()> {
    let lines = SETTINGS.iter().filter_map(|path| Some(format!("{path} {}", fs::read_to_string(path).ok()?)));
    write_file(&plan.path(FILE), lines.collect::<String>())
}

/// Puts them back as they were.
pub(crate) fn restore_settings(plan: &Plan) {
    for line in fs::read_to_string(plan.path(FILE)).unwrap_or_default().lines() {
        if let Some((path, value)) = line.split_once(' ')
            && SETTINGS.contains(&path)
        {
            // Where a setting cannot be written, the kubelet could not change it either.
            let _ = fs::write(path, value);
        }
    }
}
