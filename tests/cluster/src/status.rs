//! What of a cluster runs.
//!
//! Called by `Cluster::status`, for people and for `Cluster::up`, which leaves a healthy cluster alone.

use std::fmt;

use crate::Cluster;
use crate::daemons;
use crate::plan::NODE;
use crate::{cgroup, down, up};

/// What was found. Its text tells a person what runs and how to use it.
#[derive(Debug, Clone)]
pub struct Status {
    cluster: Cluster,
    exists: bool,
    complete: bool,
    daemons: Vec<(&'static str, Option<u32>)>,
    node: Option<Node>,
}

#[derive(Debug, Clone)]
struct Node {
    ready: bool,
    version: String,
    runtime: String,
    gpus: String,
}

impl Status {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let plan = &cluster.plan;
        let processes = cgroup::processes(&plan.cgroup());
        let daemons: Vec<_> =
            daemons::NAMES.iter().map(|name| (*name, daemons::running(plan, name, &processes))).collect();
        let api = daemons.iter().any(|(name, pid)| *name == "kube-apiserver" && pid.is_some());
        let node = if api { node(cluster) } else { None };
        Self {
            cluster: cluster.clone(),
            exists: down::leftovers(plan),
            complete: up::is_complete(plan),
            daemons,
            node,
        }
    }

    /// Whether every part runs, the node is ready, and `up` came to its end.
    pub fn is_up(&self) -> bool {
        self.complete
            && self.daemons.iter().all(|(_, pid)| pid.is_some())
            && self.node.as_ref().is_some_and(|node| node.ready)
    }

    /// Whether there is anything at all to take down.
    pub fn exists(&self) -> bool {
        self.exists
    }
}

fn node(cluster: &Cluster) -> Option<Node> {
    let fields = [
        r#"{.status.conditions[?(@.type=="Ready")].status}"#,
        "{.status.nodeInfo.kubeletVersion}",
        "{.status.nodeInfo.containerRuntimeVersion}",
        r"{.status.allocatable.nvidia\.com/gpu}",
    ];
    let path = format!("jsonpath={}", fields.join("|"));
    let text = cluster.kubectl(["get", "node", NODE, "-o", &path, "--request-timeout=5s"]).ok()?;
    let mut values = text.split('|').map(str::to_owned);
    Some(Node {
        ready: values.next()? == "True",
        version: values.next()?,
        runtime: values.next()?,
        gpus: values.next()?,
    })
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.cluster.plan.name();
        if !self.exists {
            return write!(out, "The cluster {name} is not up; start it with `cargo xtask cluster up`.");
        }
        for (part, pid) in &self.daemons {
            match pid {
                Some(pid) => writeln!(out, "✓ {part:24} process {pid}")?,
                None => writeln!(out, "✗ {part:24} not running")?,
            }
        }
        match &self.node {
            Some(node) => {
                let mark = if node.ready { '✓' } else { '✗' };
                let Node { version, runtime, gpus, .. } = node;
                writeln!(out, "{mark} {NODE:24} Kubernetes {version}, {runtime}, {gpus} GPUs (not real)")?;
            }
            None => writeln!(out, "✗ {NODE:24} no answer from the API server")?,
        }
        if !self.is_up() {
            return write!(
                out,
                "The cluster {name} is broken; bring it up anew with `cargo xtask cluster up`."
            );
        }
        let plan = &self.cluster.plan;
        writeln!(out, "\nThe cluster {name} is up. Use it with:")?;
        writeln!(out, "  export KUBECONFIG={}", plan.kubeconfig().display())?;
        writeln!(out, "  export PATH={}:$PATH", plan.path("bin").display())?;
        writeln!(out, "  Prometheus      http://{}:9090", plan.prometheus_service())?;
        writeln!(out, "  GatewayClass    anneal-demo; `kubectl get gateway` shows the address of each")?;
        write!(out, "  Its network     nsenter --net={} sh", plan.netns().display())
    }
}
