//! What has to be there before the story begins: Anneal, a namespace with a volume and a gateway, and the data.
//!
//! Called once by the scenario. It may be run again on the same cluster: what an earlier run left is replaced.

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::{
    kubectl::WAIT,
    manifests,
    site::{HOME, RELEASE, SYSTEM, Site},
};

impl Site {
    /// The namespaces, the operator by Helm, and volume and gateway as a user would have them.
    pub(crate) async fn install(&self) -> Result<()> {
        self.refuse_others().await?;
        let step = self.progress.step("Make the namespaces");
        // What an earlier run left on this cluster would be taken for this run's.
        self.kubectl
            .wait(&["delete", "namespace", HOME, "--ignore-not-found", "--timeout", WAIT], None)
            .await?;
        for manifest in [manifests::system(SYSTEM), manifests::namespace(HOME)] {
            self.kubectl.run_with(&["apply", "-f", "-"], manifest.to_string().as_bytes()).await?;
        }
        step.done();
        let step = self.progress.step("Install Anneal with Helm");
        self.operator().await?;
        step.done();
        let step = self.progress.step("Make a volume and a gateway");
        self.volume().await?;
        self.gateway().await?;
        step.done();
        Ok(())
    }

    async fn operator(&self) -> Result<()> {
        let (repository, tag) = split_image(&self.args.operator_image)?;
        let chart = self.args.repository.join("charts/anneal");
        let (chart, repository, tag) =
            (chart.to_string_lossy(), format!("image.repository={repository}"), format!("image.tag={tag}"));
        let mut args = vec!["upgrade", "--install", RELEASE, &chart, "--namespace", SYSTEM];
        args.extend(["--set", &repository, "--set", &tag, "--wait", "--timeout", WAIT]);
        let watch = format!("watchNamespace={HOME}");
        if self.args.own_cluster {
            let [pod, service] = manifests::pager(SYSTEM, &self.args.copy_image);
            let gone = ["delete", "pod/pager", "--namespace", SYSTEM, "--ignore-not-found", "--now"];
            self.kubectl.wait(&gone, None).await?;
            let secrets = [manifests::alert_token(SYSTEM, &token()?), manifests::pager_url(SYSTEM)];
            for manifest in secrets.into_iter().chain([pod, service]) {
                self.kubectl.run_with(&["apply", "-f", "-"], manifest.to_string().as_bytes()).await?;
            }
            args.extend(["--set", "alertReceiver.enabled=true"]);
            args.extend(["--set", "alertReceiver.tokenSecret.name=anneal-alerts"]);
            args.extend(["--set", "notifications.enabled=true", "--set", "notifications.format=json"]);
            args.extend(["--set", "notifications.urlSecret.name=anneal-pager"]);
        } else {
            // What others have on their cluster is not the demo's to act on.
            args.extend(["--set", &watch]);
        }
        self.kubectl.helm(&args).await.map(drop)
    }

    async fn volume(&self) -> Result<()> {
        let mut claim = self.example("storage.yaml")?;
        if let Some(path) = &self.args.host_path {
            self.kubectl
                .wait(&["delete", "persistentvolume", manifests::VOLUME, "--ignore-not-found"], None)
                .await?;
            self.apply_text(&manifests::local_volume(HOME, &path.to_string_lossy())).await?;
            claim = claim.replace("  resources:", "  storageClassName: \"\"\n  resources:");
        }
        self.apply_text(&claim).await
    }

    async fn gateway(&self) -> Result<()> {
        let gateway = self.example("gateway.yaml")?.replace(
            "gatewayClassName: anneal-demo",
            &format!("gatewayClassName: {}", self.args.gateway_class),
        );
        self.apply_text(&gateway).await?;
        let timeout = format!("--timeout={WAIT}");
        self.kubectl
            .wait(&["wait", "-n", HOME, "--for=condition=Programmed", "gateway/models", &timeout], None)
            .await
            .map(drop)
    }

    /// The Parquet files, onto the volume, as anyone could copy them: tar through a pod's standard input.
    pub(crate) async fn copy_data(&self) -> Result<()> {
        let step = self.progress.step("Copy the car-loan data set to the volume");
        let archive = Command::new("tar")
            .arg("-cC")
            .arg(&self.args.data)
            .arg(".")
            .output()
            .await
            .context("tar cannot be started; install it")?;
        ensure!(
            archive.status.success(),
            "{} cannot be packed: {}",
            self.args.data.display(),
            String::from_utf8_lossy(&archive.stderr)
        );
        let overrides = format!("--overrides={}", manifests::copy_pod(&self.args.copy_image));
        let image = format!("--image={}", self.args.copy_image);
        let running = format!("--pod-running-timeout={WAIT}");
        let mut args = vec!["run", "copy", "-n", HOME, "--rm", "--quiet", "--stdin", "--restart=Never"];
        args.extend([running.as_str(), &image, &overrides]);
        self.kubectl.wait(&args, Some(&archive.stdout)).await?;
        step.done();
        Ok(())
    }
}

/// A token that nobody can guess.
fn token() -> Result<String> {
    let random = "/proc/sys/kernel/random/uuid";
    let text = std::fs::read_to_string(random).with_context(|| format!("{random} cannot be read"))?;
    Ok(text.trim().to_owned())
}

fn split_image(image: &str) -> Result<(&str, &str)> {
    image
        .rsplit_once(':')
        .filter(|(_, tag)| !tag.contains('/'))
        .with_context(|| format!("{image} has no tag; add one, such as {image}:0.1.0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_split_at_its_tag_and_not_at_a_port() {
        assert_eq!(split_image("registry:5000/anneal:1").unwrap(), ("registry:5000/anneal", "1"));
        assert!(split_image("registry:5000/anneal").is_err());
    }
}
