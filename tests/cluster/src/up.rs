//! Brings a cluster up: programs, images, namespace, daemons, addons, in that order.
//!
//! Called by `Cluster::up`, which holds the cluster's lock and has made sure that nothing of an older one is left.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Cluster;
use crate::cache::{Cache, make_dir, write_file};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::render::render;
use crate::sh::tail;
use crate::tools::Tools;
use crate::{addons, cgroup, daemons, images, kernel, net, pki, render, space};

const COMPLETE: &str = "complete";
/// MiB that a node takes with all images and the data of a long run, and then some.
const ROOM: u64 = 4096;

/// Everything from an empty state folder to a cluster that serves.
pub(crate) fn up(cluster: &Cluster, cache: &Cache, progress: &Progress) -> Result<()> {
    let tools = Tools::prepare(cache, progress)?;
    let archives = images::prepare(cache, progress, &tools)?;
    space::ensure_free(&cluster.plan.path("data"), ROOM)?;
    let step = progress.step("Prepare the node");
    prepare(cluster, &tools)?;
    step.done();
    let step = progress.step("Start Kubernetes");
    daemons::start(&cluster.plan, &tools, "etcd")?;
    daemons::start(&cluster.plan, &tools, "containerd")?;
    daemons::start(&cluster.plan, &tools, "kube-apiserver")?;
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(cluster, &archives));
        start(cluster, &tools)?;
        step.done();
        addons::install_basics(cluster, progress)?;
        let step = progress.step("Load images");
        loading.join().unwrap_or_else(|_| bail!("the thread that loads images died; try again"))?;
        step.done();
        anyhow::Ok(())
    })?;
    addons::install_gateway(cluster, &tools, progress)?;
    addons::wait(cluster, progress)?;
    write_file(&cluster.plan.path(COMPLETE), "")
}

/// The API server and what it stores in. It never counts as a cluster that is up.
pub(crate) fn up_api_only(cluster: &Cluster, cache: &Cache, progress: &Progress) -> Result<()> {
    let tools = Tools::prepare(cache, progress)?;
    let step = progress.step("Start the API server");
    prepare(cluster, &tools)?;
    daemons::start(&cluster.plan, &tools, "etcd")?;
    daemons::start(&cluster.plan, &tools, "kube-apiserver")?;
    ready(cluster)?;
    let kinds = tools.gateway.join("chart/charts/crds/crds/gatewayapi-crds.yaml");
    let kinds = fs::read_to_string(&kinds).with_context(|| {
        format!("cannot read {}; delete it from the cache and try again", kinds.display())
    })?;
    cluster.apply(&kinds)?;
    step.done();
    Ok(())
}

/// Whether `up` came to its end.
pub(crate) fn is_complete(plan: &Plan) -> bool {
    plan.path(COMPLETE).exists()
}

fn prepare(cluster: &Cluster, tools: &Tools) -> Result<()> {
    let plan = &cluster.plan;
    kernel::save_settings(plan)?;
    cgroup::create(&plan.cgroup())?;
    net::create(plan)?;
    pki::make(plan)?;
    for (file, template) in [
        ("audit.yaml", render::AUDIT),
        ("containerd.toml", render::CONTAINERD),
        ("cni/conf/10-pods.conflist", render::CNI),
        ("kubelet.yaml", render::KUBELET),
        ("proxy.yaml", render::PROXY),
    ] {
        write_file(&plan.path(file), render(template, plan))?;
    }
    make_dir(&cluster.data())?;
    let bin = plan.path("bin");
    make_dir(&bin)?;
    for program in [tools.kubernetes.join("kubectl"), tools.helm.join("helm")] {
        let link = bin.join(program.file_name().unwrap_or_default());
        std::os::unix::fs::symlink(&program, &link).with_context(|| {
            format!("cannot link {}; take the cluster down and try again", link.display())
        })?;
    }
    Ok(())
}

fn start(cluster: &Cluster, tools: &Tools) -> Result<()> {
    let plan = &cluster.plan;
    ready(cluster)?;
    for name in ["kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"] {
        daemons::start(plan, tools, name)?;
    }
    Ok(())
}

fn ready(cluster: &Cluster) -> Result<()> {
    eventually(cluster, "the API server", 600, || {
        cluster.kubectl(["get", "--raw", "/readyz"]).is_ok_and(|answer| answer == "ok")
    })
}

fn load(cluster: &Cluster, archives: &[PathBuf]) -> Result<()> {
    eventually(cluster, "containerd", 300, || cluster.containerd(["version"]).is_ok())?;
    archives.iter().try_for_each(|archive| cluster.load_image(archive))
}

/// Waits until something holds, at most `tries` tenths of a second, or until a daemon dies.
pub(crate) fn eventually(cluster: &Cluster, what: &str, tries: u32, holds: impl Fn() -> bool) -> Result<()> {
    let plan = &cluster.plan;
    for _ in 0..tries {
        if holds() {
            return Ok(());
        }
        let processes = cgroup::processes(&plan.cgroup());
        for name in daemons::NAMES {
            let started = plan.path(&format!("pids/{name}")).exists();
            if started && daemons::running(plan, name, &processes).is_none() {
                let log = daemons::log(plan, name);
                let text = fs::read_to_string(&log).unwrap_or_default();
                bail!("{name} died. It ended with:\n{}\nRead {} for the rest.", tail(&text), log.display());
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("{what} was not ready in time; read the logs in {} and try again", plan.path("logs").display())
}
