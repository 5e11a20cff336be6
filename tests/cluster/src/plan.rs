//! Where everything of one cluster is: names, folders, addresses. Pure.
//!
//! Called by every other module. Two clusters of different names share no folder, link or cgroup, and no address
//! unless their names meet in one of 31 slots.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

/// The name of the one node.
pub const NODE: &str = "node1";

// A link's name has at most 15 characters, and ours begins with "anl-".
const LONGEST_NAME: usize = 11;
// 0 belongs to the demo, which people look at most.
const SLOTS: u8 = 31;

/// Names, folders and addresses of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    name: String,
    state: PathBuf,
    base: u8,
}

impl Plan {
    /// The plan of a named cluster with its state in a folder of that name under `states`.
    pub fn new(states: &Path, name: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(plain),
            "{name:?} cannot name a cluster; use 1 to {LONGEST_NAME} lower-case letters, digits and dashes"
        );
        let slot = if name == "demo" { 0 } else { 1 + Sha256::digest(name)[0] % SLOTS };
        Ok(Self { name: name.to_owned(), state: states.join(name), base: 64 + 4 * slot })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that holds all of its state.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// A path inside the state folder.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.state.join(inside)
    }

    /// A path inside the state folder, for a flag.
    pub fn text(&self, inside: &str) -> String {
        self.path(inside).display().to_string()
    }

    /// The file that keeps two `up` or `down` of this name apart; it outlives the state folder.
    pub fn lock(&self) -> PathBuf {
        self.state.with_extension("lock")
    }

    /// The administrator's kubeconfig, good on the host and inside the namespace.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    /// The API server's audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.path("logs/audit.log")
    }

    /// The network namespace, for `nsenter --net=`.
    pub fn netns(&self) -> PathBuf {
        self.path("netns")
    }

    /// The host's end of the veth pair.
    pub fn link(&self) -> String {
        format!("anl-{}", self.name)
    }

    /// The cgroup that holds every process of the cluster, in each hierarchy.
    pub fn cgroup(&self) -> String {
        format!("anneal-{}", self.name)
    }

    /// The name of the pod network.
    pub fn pod_network(&self) -> String {
        format!("anneal-{}", self.name)
    }

    /// The host's address on the veth pair.
    pub fn host_address(&self) -> String {
        format!("10.{}.0.1", self.base + 2)
    }

    /// The node's address on the veth pair.
    pub fn node_address(&self) -> String {
        format!("10.{}.0.2", self.base + 2)
    }

    /// The API server's address.
    pub fn server(&self) -> String {
        format!("https://{}:6443", self.node_address())
    }

    /// The addresses of Services.
    pub fn services(&self) -> String {
        format!("10.{}.0.0/16", self.base)
    }

    /// The address of the Service `kubernetes`.
    pub fn api_service(&self) -> String {
        format!("10.{}.0.1", self.base)
    }

    /// The address of the cluster's DNS.
    pub fn dns_service(&self) -> String {
        format!("10.{}.0.10", self.base)
    }

    /// The address of the Service of Prometheus.
    pub fn prometheus_service(&self) -> String {
        format!("10.{}.0.90", self.base)
    }

    /// The addresses of pods of all nodes.
    pub fn pods(&self) -> String {
        format!("10.{}.0.0/16", self.base + 1)
    }

    /// The addresses of pods of the one node.
    pub fn node_pods(&self) -> String {
        format!("10.{}.0.0/24", self.base + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> Plan {
        Plan::new(Path::new("/s"), name).unwrap()
    }

    #[test]
    fn the_demo_has_fixed_addresses() {
        let demo = plan("demo");
        assert_eq!(demo.services(), "10.64.0.0/16");
        assert_eq!(demo.pods(), "10.65.0.0/16");
        assert_eq!(demo.server(), "https://10.66.0.2:6443");
        assert_eq!(demo.path("etcd"), Path::new("/s/demo/etcd"));
        assert_eq!(demo.lock(), Path::new("/s/demo.lock"));
    }

    #[test]
    fn every_name_stays_inside_private_space_and_off_the_demo() {
        for number in 0..500 {
            let other = plan(&format!("t{number}"));
            assert!((68..=188).contains(&other.base), "{other:?}");
            assert_eq!(other.base % 4, 0);
            assert!(other.link().len() <= 15);
        }
    }

    #[test]
    fn names_that_cannot_be_links_or_folders_are_refused() {
        for bad in ["", "Demo", "a/b", "..", "twelve-chars"] {
            assert!(Plan::new(Path::new("/s"), bad).unwrap_err().to_string().contains("lower-case"), "{bad}");
        }
    }
}
