//! The images of the cluster's own workloads, each made from one program and the libraries it needs.
//!
//! Called by `up`. Their names begin with a host in `.test`, a domain that cannot exist, so a missing image is found
//! nowhere else.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::archive::{self, Item};
use crate::cache::Cache;
use crate::progress::Progress;
use crate::sh::Cmd;
use crate::tools::Tools;

/// busybox with all of its applets; without a command it sleeps, so it is the pause image too.
pub const BUSYBOX: &str = "anneal.test/busybox:1";
/// CoreDNS.
pub const COREDNS: &str = "anneal.test/coredns:1.15.0";
/// Envoy Gateway.
pub const ENVOY_GATEWAY: &str = "anneal.test/gateway:1.9.1";
/// Envoy.
pub const ENVOY: &str = "anneal.test/envoy:1.40.0";
/// Prometheus.
pub const PROMETHEUS: &str = "anneal.test/prometheus:3.15.0";

/// The archives of all images, the pause image first: nothing runs without it.
pub(crate) fn prepare(cache: &Cache, progress: &Progress, tools: &Tools) -> Result<Vec<PathBuf>> {
    let busybox = Path::new("/bin/busybox");
    let applets = Cmd::new(busybox).arg("--list").capture()?;
    let links = applets.lines().filter(|applet| *applet != "busybox").collect();
    let shell = Image { name: BUSYBOX, program: busybox, links, entrypoint: &[] };
    let others = [
        (COREDNS, tools.coredns.join("coredns")),
        (ENVOY_GATEWAY, tools.gateway.join("envoy-gateway")),
        (ENVOY, tools.envoy.clone()),
        (PROMETHEUS, tools.prometheus.join("prometheus")),
    ];
    let mut archives = vec![shell.archive(cache, progress)?];
    for (name, program) in &others {
        let own = program.file_name().unwrap_or_default().to_string_lossy();
        let image = Image { name, program, links: vec![], entrypoint: &[&own] };
        archives.push(image.archive(cache, progress)?);
    }
    Ok(archives)
}

struct Image<'a> {
    name: &'a str,
    program: &'a Path,
    links: Vec<&'a str>,
    entrypoint: &'a [&'a str],
}

impl Image<'_> {
    fn archive(&self, cache: &Cache, progress: &Progress) -> Result<PathBuf> {
        let file = self.program.file_name().unwrap_or_default().to_string_lossy();
        let meta = std::fs::metadata(self.program)
            .with_context(|| format!("cannot read {}; build it again", self.program.display()))?;
        // An entry of the cache never changes and a package's file changes its time: no need to read 100 MB.
        let stamp = format!("{} {} {:?}", self.program.display(), meta.len(), meta.modified().ok());
        let short = file.replace('/', "-");
        let folder =
            cache.entry(&format!("image-{short}"), &[self.name, &stamp]).get_or_build(|folder| {
                let step = progress.step(format!("Make the image {}", self.name));
                let libraries = libraries(self.program)?;
                let mut items = vec![
                    Item::Dir { path: "tmp".into() },
                    Item::File { path: format!("bin/{file}"), from: self.program },
                ];
                items.extend(self.links.iter().map(|link| Item::Link {
                    path: format!("bin/{link}"),
                    target: file.clone().into_owned(),
                }));
                items.extend(libraries.iter().map(|library| Item::File {
                    path: library.trim_start_matches('/').to_owned(),
                    from: Path::new(library),
                }));
                let sleep = ["/bin/busybox", "sleep", "2147483647"];
                archive::write(
                    folder,
                    self.name,
                    &items,
                    if self.entrypoint.is_empty() { &sleep } else { self.entrypoint },
                )?;
                step.done();
                Ok(())
            })?;
        Ok(folder.join("image.tar"))
    }
}

/// The shared libraries and the loader that a program needs; none when it is static.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let is_static = Cmd::new("ldd").arg(program).capture().is_err();
    if is_static {
        return Ok(vec![]);
    }
    Ok(parse_ldd(&Cmd::new("ldd").arg(program).capture()?))
}

fn parse_ldd(output: &str) -> Vec<String> {
    output.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_found_in_the_output_of_ldd() {
        let output = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld.so (0x1)\n";
        assert_eq!(parse_ldd(output), ["/lib/libc.so.6", "/lib64/ld.so"]);
    }
}
