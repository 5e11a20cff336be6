//! The cluster's long-running parts and their command lines.
//!
//! Called by `up`, which starts them, and by `status`. Each runs in the cluster's network namespace and cgroup, in a
//! session of its own, with its output in `logs/<name>.log` and its process id in `pids/<name>`.

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::write_file;
use crate::cgroup;
use crate::plan::{NODE, Plan};
use crate::sh::Cmd;
use crate::tools::Tools;

/// The names of all daemons, in the order of their start.
pub(crate) const NAMES: &[&str] = &[
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
];

/// Starts one of them.
pub(crate) fn start(plan: &Plan, tools: &Tools, name: &str) -> Result<()> {
    let command = inside(plan, Cmd::new(program(tools, name)).args(flags(plan, name)))?;
    let pid = command.spawn_detached(&log(plan, name))?;
    write_file(&plan.path(&format!("pids/{name}")), pid.to_string())
}

/// A command that runs in the cluster's network namespace and cgroup.
pub(crate) fn inside(plan: &Plan, command: Cmd) -> Result<Cmd> {
    // `ip netns exec` would hide the cgroup mounts.
    let netns = format!("--net={}", plan.netns().display());
    cgroup::joined(&plan.cgroup(), command.under("nsenter", [netns]))
}

/// The process id of a daemon that runs.
pub(crate) fn running(plan: &Plan, name: &str, processes: &[u32]) -> Option<u32> {
    let text = std::fs::read_to_string(plan.path(&format!("pids/{name}"))).ok()?;
    // An id that was given to another program since is not in our cgroup.
    text.trim().parse().ok().filter(|pid| processes.contains(pid))
}

/// Where a daemon's output goes.
pub(crate) fn log(plan: &Plan, name: &str) -> PathBuf {
    plan.path(&format!("logs/{name}.log"))
}

fn program(tools: &Tools, name: &str) -> PathBuf {
    match name {
        "etcd" => tools.etcd.join("etcd"),
        "containerd" => PathBuf::from("containerd"),
        other => tools.kubernetes.join(other),
    }
}

fn flags(plan: &Plan, name: &str) -> Vec<String> {
    let (node, state) = (plan.node_address(), plan.state().display().to_string());
    let pki = |file: &str| format!("{state}/pki/{file}");
    let kubeconfig = format!("--kubeconfig={state}/{}.kubeconfig", name.trim_start_matches("kube-"));
    match name {
        "etcd" => vec![
            format!("--data-dir={state}/etcd"),
            // The data is as throwaway as the cluster.
            "--unsafe-no-fsync".into(),
            "--listen-client-urls=http://127.0.0.1:2379".into(),
            "--advertise-client-urls=http://127.0.0.1:2379".into(),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
        ],
        "containerd" => vec![format!("--config={state}/containerd.toml")],
        "kube-apiserver" => vec![
            "--etcd-servers=http://127.0.0.1:2379".into(),
            format!("--advertise-address={node}"),
            "--authorization-mode=Node,RBAC".into(),
            "--allow-privileged".into(),
            format!("--service-cluster-ip-range={}", plan.services()),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--kubelet-certificate-authority={}", pki("ca.crt")),
            format!("--kubelet-client-certificate={}", pki("apiserver-kubelet.crt")),
            format!("--kubelet-client-key={}", pki("apiserver-kubelet.key")),
            // The node's name resolves nowhere.
            "--kubelet-preferred-address-types=InternalIP".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", pki("accounts.pub")),
            format!("--service-account-signing-key-file={}", pki("accounts.key")),
            format!("--audit-policy-file={state}/audit.yaml"),
            format!("--audit-log-path={}", plan.audit_log().display()),
            // Whoever looks for an event right after it happened must find it.
            "--audit-log-mode=blocking-strict".into(),
        ],
        "kube-controller-manager" => vec![
            kubeconfig,
            "--leader-elect=false".into(),
            "--allocate-node-cidrs".into(),
            format!("--cluster-cidr={}", plan.pods()),
            "--use-service-account-credentials".into(),
            format!("--root-ca-file={}", pki("ca.crt")),
            format!("--service-account-private-key-file={}", pki("accounts.key")),
        ],
        "kube-scheduler" => vec![kubeconfig, "--leader-elect=false".into()],
        "kube-proxy" => vec![format!("--config={state}/proxy.yaml")],
        _kubelet => vec![
            kubeconfig,
            format!("--config={state}/kubelet.yaml"),
            format!("--root-dir={state}/kubelet"),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={node}"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_daemon_has_flags_of_its_own() {
        let plan = Plan::new(std::path::Path::new("/s"), "demo").unwrap();
        let all: Vec<String> = NAMES.iter().map(|name| flags(&plan, name).join(" ")).collect();
        for (index, name) in NAMES.iter().enumerate() {
            assert!(!all[..index].contains(&all[index]), "{name} has the flags of another");
        }
        assert!(
            flags(&plan, "kube-scheduler").contains(&"--kubeconfig=/s/demo/scheduler.kubeconfig".to_owned())
        );
        assert!(flags(&plan, "kubelet").contains(&"--kubeconfig=/s/demo/kubelet.kubeconfig".to_owned()));
    }
}
