//! The operator at rest: its memory, and what it writes while nothing happens.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context, Result};

use crate::{Line, audit::AuditLog};

/// How long nothing happens.
const CALM: Duration = Duration::from_secs(60);

pub(crate) fn measure(log: &AuditLog) -> Result<Vec<Line>> {
    let before = log.calls()?.len();
    sleep(CALM);
    let calls = log.calls()?;
    let written = calls[before.min(calls.len())..].iter().filter(|call| call.is_operators() && call.writes());
    // Renewing the lease says that the process lives; it is no write about an object.
    let (leases, others): (Vec<_>, Vec<_>) = written.partition(|call| call.resource == "leases");
    let minutes = CALM.as_secs_f64() / 60.0;
    let line = |key, what, unit, ours, peer| Line { key, what, unit, ours, peer };
    Ok(vec![
        line(
            "idleMegabytes",
            "resident memory at rest",
            "MB",
            resident("anneal-operator")?,
            Some(("Envoy Gateway", resident("envoy-gateway")?)),
        ),
        line("writesPerMinute", "writes in a steady world", "a minute", others.len() as f64 / minutes, None),
        line(
            "leaseWritesPerMinute",
            "renewals of the lease",
            "a minute",
            leases.len() as f64 / minutes,
            None,
        ),
    ])
}

/// Megabytes that all processes of a name have in memory.
fn resident(name: &str) -> Result<f64> {
    let processes = fs::read_dir("/proc").context("cannot read /proc")?.flatten();
    let kilobytes: f64 = processes
        .filter_map(|process| {
            let read = |file: &str| fs::read_to_string(process.path().join(file)).ok();
            // The kernel keeps fifteen characters of a name.
            let named = read("comm")?.trim() == name.get(..15).unwrap_or(name);
            let status = named.then(|| read("status"))??;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.parse::<f64>().ok()
        })
        .sum();
    anyhow::ensure!(kilobytes > 0.0, "no process {name} runs; bring the cluster up anew");
    Ok(kilobytes / 1024.0)
}
