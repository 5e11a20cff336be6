//! `cargo xtask bench operator`: what the operator costs and how fast it is, in a cluster that has run the demo.
//!
//! Started by xtask, which says where the cluster is. Peers are what the same cluster runs anyway: Envoy Gateway, also a
//! controller of Gateway API objects, for memory, and Kubernetes' own Deployment controller for the way from an object to its
//! child, turn by turn with ours. Times are the API server's own, from its audit log. It measures; it passes or fails
//! nothing.

mod audit;
mod breach;
mod cluster;
mod reaction;
mod rest;

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use clap::Parser;
use serde_json::{Map, Value};

use crate::{audit::AuditLog, cluster::Cluster};

/// Measures the operator of a cluster that has run the demo.
#[derive(Debug, Parser)]
struct Args {
    /// The kubectl program, for the cluster of KUBECONFIG.
    #[arg(long)]
    kubectl: PathBuf,
    /// The API server's audit log.
    #[arg(long)]
    audit_log: PathBuf,
    /// An address of this machine that pods can reach.
    #[arg(long)]
    host_address: String,
    /// The trainer's image.
    #[arg(long)]
    trainer_image: String,
}

/// One line of the table: what, ours, the peer's, and the peer's name.
#[derive(Debug)]
struct Line {
    key: &'static str,
    what: &'static str,
    unit: &'static str,
    ours: f64,
    peer: Option<(&'static str, f64)>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let cluster = Cluster { kubectl: args.kubectl, image: args.trainer_image };
    let log = AuditLog(args.audit_log);
    let mut lines = rest::measure(&log)?;
    lines.extend(reaction::measure(&cluster, &log)?);
    lines.extend(breach::measure(&cluster, &log, &args.host_address)?);
    print(&lines)
}

fn print(lines: &[Line]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<52}{:>10}{:>10}{:>8}  peer", "", "ours", "peer's", "ratio")?;
    let mut figures = Map::new();
    for line in lines {
        let what = format!("{}, {}", line.what, line.unit);
        figures.insert(line.key.to_owned(), rounded(line.ours));
        match line.peer {
            Some((name, peer)) => {
                let ratio = line.ours / peer;
                writeln!(out, "{what:<52}{:>10.1}{peer:>10.1}{ratio:>8.2}  {name}", line.ours)?;
                figures.insert(format!("{}Ratio", line.key), rounded(ratio));
            }
            None => writeln!(out, "{what:<52}{:>10.1}", line.ours)?,
        }
    }
    writeln!(out, "{}", Value::Object(figures))?;
    Ok(())
}

fn rounded(value: f64) -> Value {
    ((value * 1000.0).round() / 1000.0).into()
}

/// Median and largest of some values; both zero of none.
fn median_and_worst(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
    (at(values.len() / 2), at(values.len().saturating_sub(1)))
}
