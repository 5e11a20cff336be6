//! The cluster's network namespace, and the veth pair that joins it to the host.
//!
//! Called by `up` and `down`. The namespace has no default route, so nothing in it reaches beyond this machine.
//! It is a mount in the state folder and not in the folder of `ip netns`, which would stay mounted for ever after.

use anyhow::{Context, Result};

use crate::cache::write_file;
use crate::plan::Plan;
use crate::sh::Cmd;

/// Makes the namespace and the pair, and the host's routes to Services and pods.
pub(crate) fn create(plan: &Plan) -> Result<()> {
    let netns = plan.netns().display().to_string();
    write_file(&plan.netns(), "")?;
    Cmd::new("unshare").args([&format!("--net={netns}"), "true"]).capture()?;
    let (link, host, node) = (plan.link(), plan.host_address(), plan.node_address());
    ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &netns])?;
    ip(&["address", "add", &format!("{host}/30"), "dev", &link])?;
    ip(&["link", "set", &link, "up"])?;
    // A process sees the sysctls of its own namespace, so the shell has to be inside.
    let script = format!(
        "ip link set lo up && ip address add {node}/30 dev eth0 && ip link set eth0 up \
         && ip route add {} via {host} && echo 1 > /proc/sys/net/ipv4/ip_forward",
        // Never followed: kube-proxy rewrites or rejects it. But without a route nothing is sent at all.
        plan.services(),
    );
    Cmd::new("sh").args(["-c", &script]).under("nsenter", [format!("--net={netns}")]).capture()?;
    for destination in [plan.services(), plan.pods()] {
        ip(&["route", "add", &destination, "via", &node]).with_context(|| {
            format!(
                "{destination} is taken on this machine; give the cluster another name to get other addresses"
            )
        })?;
    }
    Ok(())
}

/// Removes the pair; its routes go with it.
pub(crate) fn remove_link(plan: &Plan) -> Result<()> {
    if !link_exists(plan) {
        return Ok(());
    }
    match ip(&["link", "delete", &plan.link()]) {
        // The kernel removes it too, when the last process in the namespace is gone.
        Err(error) if link_exists(plan) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the host's end is there.
pub(crate) fn link_exists(plan: &Plan) -> bool {
    std::path::Path::new("/sys/class/net").join(plan.link()).exists()
}

fn ip(args: &[&str]) -> Result<()> {
    Cmd::new("ip").args(args).capture().map(drop)
}
