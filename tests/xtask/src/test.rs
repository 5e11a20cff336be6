//! `cargo xtask test`: everything a change must pass.
//!
//! Called by people and by `.ci/run`. It runs on a machine without a GPU, stops at the first failure, and says where
//! the whole output is. What a test run counts is printed, so that nobody has to take its word.

use std::path::PathBuf;

use anneal_cluster::{Cluster, sh::Cmd, space, tools as parts};
use anyhow::{Context as _, Result};

use crate::{
    Context,
    cargo::Cargo,
    crds, data,
    demo::{self, Options},
    image::Which,
    tools,
};

/// What to leave out.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Selection {
    /// Only what needs no cluster
    #[arg(long)]
    no_cluster: bool,
}

/// The cluster of the tests; a demo that was kept is another one.
const CLUSTER: &str = "test";
/// Every test that needs no cluster.
const HOST: [&str; 6] = ["test", "--locked", "--no-fail-fast", "--workspace", "--exclude", "anneal-demo"];
/// MiB that the checks of a checkout take besides what the cache has; the first ones take 35 GiB.
const ROOM: u64 = 8192;

/// Moments at which the operator pod is killed, in two end-to-end runs.
pub(crate) const KILLS: [&[&str]; 2] = [
    &[
        "car-loan-first:Training",
        "rollout:Preparing:0",
        "rollout:Shadow:0",
        "rollout:Canary:10",
        "car-loan-flipped:Rejected",
    ],
    &[
        "car-loan-recent:Training",
        "car-loan-recent:Succeeded",
        "rollout:Canary:55",
        "rollout:Canary:100",
        "rollout:Baking:0",
        "rollout:RolledBack:0",
    ],
];

/// Runs all checks, the quick ones first.
pub(crate) fn run(context: &Context, selection: Selection) -> Result<()> {
    space::ensure_free(context.cache.root(), ROOM)?;
    let cargo = Cargo::prepare(context)?;
    let check = |what: &str, args: &[&str]| -> Result<()> {
        let step = context.progress.step(what);
        cargo.command(args).run(&context.cache.log("test"))?;
        step.done();
        Ok(())
    };
    check("Check the format", &["fmt", "--all", "--check", "--", "--color", "never"])?;
    licences(context)?;
    check("Lint", &["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    crds::run(context, crds::Mode::Check)?;
    // The tests of the demo need its cluster.
    counted(context, &cargo, "Test", &HOST)?;
    if selection.no_cluster {
        return Ok(());
    }
    storage(context, &cargo)?;
    chart(context)?;
    readers(context, &cargo)?;
    for (run, kills) in KILLS.into_iter().enumerate() {
        end_to_end(context, &cargo, run == 0, kills)?;
    }
    let down =
        ["test", "--locked", "--package", "anneal-cluster", "--test", "down", "--", "--include-ignored"];
    counted(context, &cargo, "Test that nothing is left of a cluster", &down)
}

/// One whole run on a fresh cluster, and with it the tests that need Anneal installed.
fn end_to_end(context: &Context, cargo: &Cargo, refusals: bool, kills: &[&str]) -> Result<()> {
    Cluster::down(CLUSTER, &context.progress)?;
    demo::run(context, &Options::throwaway(CLUSTER, kills))?;
    if refusals {
        on_cluster(context, cargo, &Cluster::attach(CLUSTER)?)?;
    }
    Cluster::down(CLUSTER, &context.progress)
}

/// What needs a cluster with Anneal that has run the demo.
fn on_cluster(context: &Context, cargo: &Cargo, cluster: &Cluster) -> Result<()> {
    let step = context.progress.step("Check the chart against the API server");
    let chart = context.checkout.root().join("charts/anneal");
    for switches in [
        "replicas=2,grafana.dashboards.enabled=true,alertReceiver.enabled=true,alertReceiver.tokenSecret.name=t,prometheusCredentials.enabled=true",
        "notifications.enabled=true,notifications.urlSecret.name=n",
        "watchNamespace=anneal-demo,rbac.aggregate=false,rbac.gatewayClasses=false,retention.enforce=Never",
        "networkPolicy.enabled=false,approvals.enforce=Always,retention.enforce=Always",
    ] {
        let chart = chart.as_os_str();
        let objects = cluster.helm(
            ["template", "anneal", "--namespace", "anneal-system", "--set", switches]
                .map(std::ffi::OsStr::new)
                .into_iter()
                .chain([chart]),
        )?;
        cluster.dry_run(&objects)?;
    }
    step.done();
    let command = on_demo_cluster(context, cargo, cluster, &[])?;
    count(context, "Test bad input, rights and S3 on the cluster", &command)
}

/// Tests of a cluster with Anneal that has run the demo.
pub(crate) fn on_demo_cluster(
    context: &Context,
    cargo: &Cargo,
    cluster: &Cluster,
    more: &[&str],
) -> Result<Cmd> {
    Ok(cargo
        .command(&["test", "--locked", "--no-fail-fast", "--package", "anneal-demo"])
        .args(more)
        .env("ANNEAL_TEST_KUBECTL", cluster.program("kubectl"))
        .env("ANNEAL_TEST_TRAINER_IMAGE", Which::Trainer.name())
        .env("ANNEAL_TEST_AUDIT_LOG", cluster.audit_log())
        .env("ANNEAL_TEST_HOST_ADDRESS", cluster.host_address())
        .env("ANNEAL_TEST_S3_SERVER", s3_server(context)?)
        .env("ANNEAL_TEST_DATA", data::prepare(context)?)
        .env("KUBECONFIG", cluster.kubeconfig()))
}

/// The trainer's storage against a real S3 server.
fn storage(context: &Context, cargo: &Cargo) -> Result<()> {
    let server = s3_server(context)?;
    let tests = cargo.command(&HOST).args(["--test", "s3", "--", "--ignored"]);
    count(context, "Test storage on S3", &tests.env("ANNEAL_TEST_S3_SERVER", server))
}

fn s3_server(context: &Context) -> Result<PathBuf> {
    Ok(parts::go_part(&context.cache, &context.progress, &parts::S3_SERVER)?.join("versitygw"))
}

fn counted(context: &Context, cargo: &Cargo, what: &str, args: &[&str]) -> Result<()> {
    count(context, what, &cargo.command(args))
}

/// Lines of a panic that are repeated, and how much of each.
const PANIC: (usize, usize) = (6, 600);

/// Runs tests and repeats their closing lines, which failed and why, and what they measured.
///
/// What failed keeps a log of its own, which no later run writes over but one that fails, too.
pub(crate) fn count(context: &Context, what: &str, command: &Cmd) -> Result<()> {
    let step = context.progress.step(what);
    let log = context.cache.log("cargo-test");
    // Logs grow, and only this run's lines are to be counted.
    if log.exists() {
        std::fs::remove_file(&log)
            .with_context(|| format!("cannot remove {}; remove it by hand", log.display()))?;
    }
    let outcome = command.run(&log);
    if outcome.is_ok() {
        step.done();
    }
    let text = std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    news(&text).into_iter().try_for_each(crate::print)?;
    let failed = context.cache.log("cargo-test-failed");
    outcome.with_context(|| match std::fs::copy(&log, &failed) {
        Ok(_) => format!("{what}: failed; its output stays in {}", failed.display()),
        Err(error) => format!("{what}: failed, and {} cannot be written: {error}", failed.display()),
    })
}

fn news(text: &str) -> Vec<&str> {
    let mut of_panic = 0;
    let is_told = |line: &&str| {
        of_panic = if line.contains("panicked at") { PANIC.0 } else { of_panic.saturating_sub(1) };
        of_panic > 0 || is_news(line)
    };
    text.lines().filter(is_told).map(|line| &line[..line.floor_char_boundary(PANIC.1)]).collect()
}

fn is_news(line: &str) -> bool {
    let is_result = line.starts_with("test result:") && !line.contains(" 0 passed; 0 failed");
    let has_failed = line.starts_with("test ") && line.ends_with(" ... FAILED");
    is_result || has_failed || line.starts_with("measured: ")
}

/// The chart as Helm sees it, with every switch.
fn chart(context: &Context) -> Result<()> {
    let helm = parts::go_part(&context.cache, &context.progress, &parts::HELM)?.join("helm");
    let step = context.progress.step("Check the Helm chart");
    let log = context.cache.log("helm");
    let chart = context.checkout.root().join("charts/anneal");
    Cmd::new(&helm).args(["lint", "--strict"]).arg(&chart).run(&log)?;
    for switches in [
        "replicas=1",
        "approvals.enforce=Always,retention.enforce=Always,watchNamespace=team-a,serviceMonitor.enabled=true,podMonitor.enabled=true,prometheusRule.enabled=true,grafana.dashboards.enabled=true,alertReceiver.enabled=true,alertReceiver.tokenSecret.name=t,notifications.enabled=true,notifications.urlSecret.name=n,rbac.aggregate=false,rbac.autoscaling=false,crds.enabled=false,prometheusCredentials.enabled=true",
    ] {
        Cmd::new(&helm).args(["template", "anneal"]).arg(&chart).args(["--set", switches]).run(&log)?;
    }
    step.done();
    Ok(())
}

/// Tests with cases for programs that read what we write.
const READERS: [&str; 5] = ["promql", "core", "gitops", "native", "notifications"];

/// Alerts, dashboards, queries and statuses, by the programs that read them: Prometheus, Alertmanager, and what Flux and Helm are
/// built on.
fn readers(context: &Context, cargo: &Cargo) -> Result<()> {
    parts::apt(
        &context.cache,
        &context.progress,
        &["prometheus", "prometheus-alertmanager", "python3-aiosmtpd"],
    )?;
    let kstatus = parts::go_part(&context.cache, &context.progress, &parts::KSTATUS)?.join("kstatus");
    let prometheus =
        parts::go_part(&context.cache, &context.progress, &parts::PROMETHEUS)?.join("prometheus");
    let command = cargo
        // What needs none of them has run, and another choice of packages would be built anew.
        .command(&HOST)
        .args(READERS.iter().flat_map(|test| ["--test", test]))
        .args(["--", "--ignored"])
        .env("ANNEAL_TEST_PROMTOOL", "/usr/bin/promtool")
        .env("ANNEAL_TEST_ALERTMANAGER", "/usr/bin/prometheus-alertmanager")
        .env("ANNEAL_TEST_PROMETHEUS", prometheus)
        .env("ANNEAL_TEST_KSTATUS", kstatus);
    count(context, "Test alerts, dashboards, queries and statuses with what reads them", &command)
}

fn licences(context: &Context) -> Result<()> {
    let deny = tools::cargo_deny(context)?;
    let step = context.progress.step("Check licences and sources of dependencies");
    Cmd::new(deny)
        // Warnings are for whoever asks `cargo deny check`; here they would bury the error.
        .args(["--log-level", "error", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"])
        .cwd(context.checkout.root())
        .run(&context.cache.log("test"))?;
    step.done();
    Ok(())
}
