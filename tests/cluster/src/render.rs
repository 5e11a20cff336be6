//! Fills the cluster's configuration files and manifests in. Pure.
//!
//! Called by `up` and `addons`. What comes out has no `{{…}}` left.

use crate::images;
use crate::plan::{NODE, Plan};

/// What the API server notes down.
pub(crate) const AUDIT: &str = include_str!("../config/audit.yaml");
/// The configuration of containerd.
pub(crate) const CONTAINERD: &str = include_str!("../config/containerd.toml");
/// The pod network.
pub(crate) const CNI: &str = include_str!("../config/cni.conflist");
/// The configuration of the kubelet.
pub(crate) const KUBELET: &str = include_str!("../config/kubelet.yaml");
/// The configuration of kube-proxy.
pub(crate) const PROXY: &str = include_str!("../config/proxy.yaml");
/// The cluster's DNS.
pub(crate) const COREDNS: &str = include_str!("../manifests/coredns.yaml");
/// Prometheus.
pub(crate) const PROMETHEUS: &str = include_str!("../manifests/prometheus.yaml");
/// The GatewayClass of the demo.
pub(crate) const GATEWAY_CLASS: &str = include_str!("../manifests/gateway-class.yaml");

/// A template with the values of this cluster.
pub(crate) fn render(template: &str, plan: &Plan) -> String {
    let values = [
        ("state", plan.state().display().to_string()),
        ("node", NODE.to_owned()),
        ("cgroup", plan.cgroup()),
        ("network", plan.pod_network()),
        ("pods", plan.pods()),
        ("node-pods", plan.node_pods()),
        ("node-address", plan.node_address()),
        ("dns-service", plan.dns_service()),
        ("prometheus-service", plan.prometheus_service()),
        ("image.busybox", images::BUSYBOX.to_owned()),
        ("image.coredns", images::COREDNS.to_owned()),
        ("image.envoy", images::ENVOY.to_owned()),
        ("image.prometheus", images::PROMETHEUS.to_owned()),
    ];
    values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn nothing_is_left_to_fill_in() {
        let plan = Plan::new(Path::new("/s"), "demo").unwrap();
        for template in [AUDIT, CONTAINERD, CNI, KUBELET, PROXY, COREDNS, PROMETHEUS, GATEWAY_CLASS] {
            let text = render(template, &plan);
            assert!(!text.contains("{{"), "{text}");
        }
        assert!(render(KUBELET, &plan).contains("unix:///s/demo/containerd.sock"));
        assert!(render(PROMETHEUS, &plan).contains("clusterIP: 10.64.0.90"));
    }
}
