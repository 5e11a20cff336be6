//! `cargo xtask soak`: the long runs that do not fit into `cargo xtask test`.
//!
//! Called by people, before something is called done. It stops at the first broken law or failed demo; mutants that no test
//! catches are listed. The last line is one JSON object of what ran.

use std::path::Path;

use anneal_cluster::{Cluster, cache::remove_dir};
use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::{
    Context,
    cargo::Cargo,
    demo::{self, Options},
    print, test, tools, upgrade,
};

/// How long to soak.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Selection {
    /// What to run; everything if nothing is named, and upgrade only with --from
    parts: Vec<Part>,
    /// Simulated worlds
    #[arg(long, default_value_t = 100_000)]
    seeds: u32,
    /// Answers of a Prometheus that is not one
    #[arg(long, default_value_t = 1_000_000)]
    bodies: u32,
    /// Which part of the mutants, such as 3/40; all if left out
    #[arg(long)]
    shard: Option<String>,
    /// How often both kill matrices are gone through
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// The revision of the earlier operator of an upgrade, such as a release's tag
    #[arg(long)]
    from: Option<String>,
}

/// One long run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Seeded worlds with every law
    Worlds,
    /// A small model in every order of events, disturbed twice
    Exhaustive,
    /// Bodies that no Prometheus should send, and no pass on data that is not fresh and finite
    Bodies,
    /// Every decision of the core changed a little: does a test notice?
    Mutants,
    /// The demo, with the operator killed at ten moments
    Kills,
    /// Deliveries on a real data plane, each with the machine to itself: how long a rollback takes
    Deliveries,
    /// The judge's promise in every simulated cell, ten thousand rollouts each
    Judge,
    /// Rollouts on their way while an earlier operator and this one take turns; needs --from
    Upgrade,
}

const CLUSTER: &str = "soak";

/// Runs the parts and prints what ran.
pub(crate) fn run(context: &Context, selection: &Selection) -> Result<()> {
    let chosen = |part| selection.parts.is_empty() || selection.parts.contains(&part);
    ensure!(
        selection.from.is_some() || !selection.parts.contains(&Part::Upgrade),
        "an upgrade needs an earlier operator: name its revision by --from, such as a release's tag"
    );
    let cargo = Cargo::prepare(context)?;
    let mut line = vec![];
    if chosen(Part::Worlds) {
        worlds(context, &cargo, selection.seeds)?;
        line.push(format!("\"seeds\":{}", selection.seeds));
    }
    if chosen(Part::Exhaustive) {
        exhaustive(context, &cargo)?;
        line.push("\"disturbances\":2".to_owned());
    }
    if chosen(Part::Bodies) {
        bodies(context, &cargo, selection.bodies)?;
        line.push(format!("\"bodies\":{}", selection.bodies));
    }
    if chosen(Part::Judge) {
        judge(context, &cargo)?;
        line.push("\"judged\":10000".to_owned());
    }
    if chosen(Part::Mutants) {
        let [caught, missed, unviable] = mutants(context, &cargo, selection.shard.as_deref())?;
        line.push(format!(
            "\"mutantsCaught\":{caught},\"mutantsMissed\":{missed},\"mutantsUnviable\":{unviable}"
        ));
    }
    if chosen(Part::Kills) {
        let demos = kills(context, selection.rounds)?;
        line.push(format!("\"demos\":{demos}"));
    }
    if chosen(Part::Deliveries) {
        deliveries(context, &cargo)?;
        line.push("\"deliveries\":10".to_owned());
    }
    match selection.from.as_ref().filter(|_| chosen(Part::Upgrade)) {
        Some(from) => {
            upgrade::run(context, &cargo, from)?;
            line.push(format!("\"upgradedFrom\":\"{from}\""));
        }
        None if chosen(Part::Upgrade) => {
            print("no upgrade: name the revision of an earlier operator by --from to run it")?;
            line.push("\"upgradedFrom\":null".to_owned());
        }
        None => {}
    }
    print(&format!("{{{}}}", line.join(",")))
}

fn exhaustive(context: &Context, cargo: &Cargo) -> Result<()> {
    let args = ["test", "--locked", "--package", "anneal-tests", "--test", "exhaustive"];
    let command = cargo.command(&args).env("DISTURBANCES", "2");
    test::count(context, "Disturb a small model twice in every way", &command)
}

fn worlds(context: &Context, cargo: &Cargo, seeds: u32) -> Result<()> {
    let args = ["test", "--locked", "--package", "anneal-tests", "--test", "world", "--", "--nocapture"];
    let command = cargo.command(&args).env("SEEDS", seeds.to_string());
    test::count(context, &format!("Play {seeds} worlds"), &command)
}

fn bodies(context: &Context, cargo: &Cargo, count: u32) -> Result<()> {
    let args = ["test", "--locked", "--package", "anneal-tests", "--test", "prometheus_bodies"];
    let command = cargo.command(&args).env("PROMETHEUS_BODIES", count.to_string());
    test::count(context, &format!("Read {count} bodies"), &command)
}

fn judge(context: &Context, cargo: &Cargo) -> Result<()> {
    let args = [
        "test",
        "--locked",
        "--package",
        "anneal-cli",
        "--",
        "--include-ignored",
        "every_cell_keeps_the_promise",
    ];
    test::count(context, "Simulate ten thousand healthy rollouts of every kind", &cargo.command(&args))
}

/// How many mutants were caught, missed, and could not be built.
fn mutants(context: &Context, cargo: &Cargo, shard: Option<&str>) -> Result<[usize; 3]> {
    let program = tools::cargo_mutants(context)?;
    let step = context.progress.step("Mutate the core");
    let out = context.cache.root().join("mutants");
    // What an earlier run found must not be taken for this one's.
    remove_dir(&out.join("mutants.out"))?;
    let mut command = cargo
        .command(&["mutants", "--package", "anneal-core", "--test-package", "anneal-core,anneal-tests"])
        .args(["--no-shuffle", "--minimum-test-timeout", "120", "--output"])
        .arg(&out)
        // Builds of mutated code stay out of the folder that the tests share.
        .env("CARGO_TARGET_DIR", out.join("target"))
        // Tables and properties of the core; a world that runs on for ever would only cost time.
        .env("SEEDS", "50")
        .env("PATH", joined_path(&program)?);
    if let Some(shard) = shard {
        command = command.args(["--shard", shard]);
    }
    // It fails when a mutant survives; what it wrote is what counts.
    let ended = command.run(&context.cache.log("mutants"));
    let count = |file: &str| -> Result<Vec<String>> {
        let path = out.join("mutants.out").join(file);
        let text = std::fs::read_to_string(&path).with_context(|| match &ended {
            Ok(()) => format!("cannot read {}", path.display()),
            Err(error) => format!("no mutant ran: {error:#}"),
        })?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let (caught, missed, unviable) = (count("caught.txt")?, count("missed.txt")?, count("unviable.txt")?);
    let timeout = count("timeout.txt")?;
    ensure!(!caught.is_empty(), "no mutant was caught, so nothing was tested: {ended:?}");
    step.done();
    missed.iter().try_for_each(|mutant| print(&format!("missed: {mutant}")))?;
    Ok([caught.len() + timeout.len(), missed.len(), unviable.len()])
}

fn joined_path(program: &Path) -> Result<std::ffi::OsString> {
    let own = program.parent().map(Path::to_owned);
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&rest)))
        .context("PATH holds a folder with a colon; remove it")
}

fn kills(context: &Context, rounds: u32) -> Result<u32> {
    let mut demos = 0;
    for _ in 0..rounds {
        for kills in test::KILLS {
            Cluster::down(CLUSTER, &context.progress)?;
            demo::run(context, &Options::throwaway(CLUSTER, kills))?;
            demos += 1;
        }
    }
    Cluster::down(CLUSTER, &context.progress)?;
    Ok(demos)
}

fn deliveries(context: &Context, cargo: &Cargo) -> Result<()> {
    Cluster::down(CLUSTER, &context.progress)?;
    demo::run(context, &Options::throwaway(CLUSTER, &[]))?;
    let tests = ["--test", "delivery", "--", "--nocapture"];
    let command = test::on_demo_cluster(context, cargo, &Cluster::attach(CLUSTER)?, &tests)?
        .env("ANNEAL_TEST_ALONE", "1");
    test::count(context, "Deliver one thing after the other", &command)?;
    Cluster::down(CLUSTER, &context.progress)
}
