//! What a bare cluster lacks: DNS, Prometheus, Envoy Gateway, and GPUs that exist on paper.
//!
//! Called by `up`. `install_…` only ask for them; `wait` returns when they serve.

use anyhow::Result;

use crate::Cluster;
use crate::images;
use crate::plan::NODE;
use crate::progress::Progress;
use crate::render::{COREDNS, GATEWAY_CLASS, PROMETHEUS, render};
use crate::sh::tail;
use crate::tools::Tools;
use crate::up::eventually;

const GPUS: &str = r#"{"status":{"capacity":{"nvidia.com/gpu":"4"},"allocatable":{"nvidia.com/gpu":"4"}}}"#;
const GATEWAY_NAMESPACE: &str = "envoy-gateway-system";

/// Asks for DNS and Prometheus, and gives the node its GPUs.
pub(crate) fn install_basics(cluster: &Cluster, progress: &Progress) -> Result<()> {
    let step = progress.step("Install DNS and Prometheus");
    cluster.apply(&render(COREDNS, &cluster.plan))?;
    cluster.apply(&render(PROMETHEUS, &cluster.plan))?;
    step.done();
    let step = progress.step("Wait for the node");
    eventually(cluster, "the node", 600, || {
        let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        cluster.kubectl(["get", "node", NODE, "-o", ready]).is_ok_and(|status| status == "True")
    })?;
    cluster.kubectl(["patch", "node", NODE, "--subresource=status", "--type=merge", "-p", GPUS])?;
    step.done();
    Ok(())
}

/// Asks for Envoy Gateway. Its chart runs a job first, so its image has to be there.
pub(crate) fn install_gateway(cluster: &Cluster, tools: &Tools, progress: &Progress) -> Result<()> {
    let step = progress.step("Install Envoy Gateway");
    let chart = tools.gateway.join("chart").display().to_string();
    let envoy = format!("global.images.envoyProxy.image={}", images::ENVOY);
    cluster.helm([
        "upgrade",
        "--install",
        "gateway",
        &chart,
        "--namespace",
        GATEWAY_NAMESPACE,
        "--create-namespace",
        "--set",
        &envoy,
        "--set",
        "global.images.envoyProxy.pullPolicy=IfNotPresent",
        "--timeout",
        "120s",
        // It only matters with several zones.
        "--set",
        "topologyInjector.enabled=false",
    ])?;
    cluster.apply(&render(GATEWAY_CLASS, &cluster.plan))?;
    step.done();
    Ok(())
}

/// Waits until all of it serves.
pub(crate) fn wait(cluster: &Cluster, progress: &Progress) -> Result<()> {
    let step = progress.step("Wait for DNS, Prometheus and Envoy Gateway");
    for (namespace, deployment) in
        [("kube-system", "coredns"), ("monitoring", "prometheus"), (GATEWAY_NAMESPACE, "envoy-gateway")]
    {
        let deployment = format!("deployment/{deployment}");
        cluster
            .kubectl(["rollout", "status", &deployment, "-n", namespace, "--timeout=120s"])
            .map_err(|error| error.context(trouble(cluster)))?;
    }
    cluster.kubectl(["wait", "--for=condition=Accepted", "gatewayclass/anneal-demo", "--timeout=60s"])?;
    step.done();
    Ok(())
}

/// What the cluster says about why something does not start: its warnings, the last ones at the end.
fn trouble(cluster: &Cluster) -> String {
    let warnings = ["get", "events", "-A", "--field-selector=type=Warning", "--sort-by=.lastTimestamp"];
    let warnings = cluster.kubectl(warnings).unwrap_or_else(|error| format!("{error:#}"));
    format!("the cluster's own parts did not start; it warns:\n{}", tail(&warnings))
}
