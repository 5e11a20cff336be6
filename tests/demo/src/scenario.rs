//! The main job, step by step.

use std::{fs, time::Duration};

use anneal_cluster::progress::Progress;
use anneal_crds::{
    ModelRolloutStatus, RetrainJobStatus, model_rollout::RolloutPhase, names, retrain_job::RetrainPhase,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{
    Args,
    checks::{self, Report},
    kubectl::Kubectl,
    load::Load,
    manifests,
    story::Story,
};

/// Namespace of the operator.
pub(crate) const SYSTEM: &str = "anneal-system";
/// Namespace of the model.
const HOME: &str = "anneal-demo";
/// Most generous times; nothing waits longer than it needs.
const RETRAIN_LIMIT: Duration = Duration::from_secs(420);
const ROLLOUT_LIMIT: Duration = Duration::from_secs(420);
const SETUP_LIMIT: &str = "300s";

/// One run of the demo.
pub(crate) struct Scenario {
    args: Args,
    kubectl: Kubectl,
    progress: Progress,
    story: Story,
}

impl Scenario {
    pub(crate) fn new(args: Args, kubectl: Kubectl, progress: Progress) -> Self {
        let story = Story::new(kubectl.clone(), HOME, progress.clone(), args.kill_operator_at.clone());
        Self { args, kubectl, progress, story }
    }

    /// Runs it all and checks what clients saw.
    pub(crate) async fn run(mut self) -> Result<Report> {
        let started = Instant::now();
        self.install().await?;
        self.copy_data().await?;
        self.first_version().await?;
        let load = Load::start(self.address().await?, self.request()?, self.args.rate)?;
        let (main, healthy) = self.next_version().await?;
        let rejected = self.rejected_versions(&healthy).await?;
        let faulty = self.faulty_version(&healthy).await?;
        self.enough_requests(&load).await;
        let seen = load.finish().await?;

        let (failed, reasons) = checks::failures(&seen);
        for reason in reasons {
            self.progress.say(&format!("  a request failed: {reason}"));
        }
        for line in checks::shares(&self.story.windows, &seen)? {
            self.progress.say(&line);
        }
        self.mirrored(&main).await?;
        ensure!(
            self.story.missed_kills().is_empty(),
            "the operator was to be killed at {:?}, which never came",
            self.story.missed_kills()
        );
        Ok(Report {
            retrain: format!("{:?}", main.phase),
            version: main.version.unwrap_or_default(),
            rollout: format!("{:?}", healthy.phase),
            rejected: rejected.to_owned(),
            faulty: format!("{:?}", faulty.phase),
            requests: seen.len(),
            failed,
            seconds: started.elapsed().as_secs(),
            wanted_requests: self.args.requests,
        })
    }

    /// The operator by Helm; namespace, volume and gateway as a user would have them.
    async fn install(&self) -> Result<()> {
        let step = self.progress.step("Install Anneal with Helm");
        let (repository, tag) = split_image(&self.args.operator_image)?;
        let chart = self.args.repository.join("charts/anneal");
        self.kubectl
            .helm(&[
                "upgrade",
                "--install",
                "anneal",
                &chart.to_string_lossy(),
                "--namespace",
                SYSTEM,
                "--create-namespace",
                "--set",
                &format!("image.repository={repository}"),
                "--set",
                &format!("image.tag={tag}"),
                "--wait",
                "--timeout",
                SETUP_LIMIT,
            ])
            .await?;
        step.done();
        let step = self.progress.step("Make a namespace with a volume and a gateway");
        // What an earlier run left on this cluster would be taken for this run's.
        self.kubectl
            .run(&["delete", "namespace", HOME, "--ignore-not-found", "--timeout", SETUP_LIMIT])
            .await?;
        self.kubectl.run(&["delete", "persistentvolume", manifests::VOLUME, "--ignore-not-found"]).await?;
        self.apply_text(&manifests::namespace(HOME)).await?;
        if let Some(path) = &self.args.host_path {
            self.apply_text(&manifests::local_volume(HOME, &path.to_string_lossy())).await?;
        }
        let storage = self.example("storage.yaml")?;
        let storage = if self.args.host_path.is_some() {
            storage.replace("  resources:", "  storageClassName: \"\"\n  resources:")
        } else {
            storage
        };
        self.apply_text(&storage).await?;
        let gateway = self.example("gateway.yaml")?.replace(
            "gatewayClassName: anneal-demo",
            &format!("gatewayClassName: {}", self.args.gateway_class),
        );
        self.apply_text(&gateway).await?;
        self.kubectl
            .run(&[
                "wait",
                "-n",
                HOME,
                "--for=condition=Programmed",
                "gateway/models",
                &format!("--timeout={SETUP_LIMIT}"),
            ])
            .await?;
        step.done();
        Ok(())
    }

    /// The Parquet files, onto the volume, as anyone could copy them: tar through a pod's standard input.
    async fn copy_data(&self) -> Result<()> {
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
        let overrides = manifests::copy_pod(&self.args.copy_image).to_string();
        // A run that was cut short may have left its pod.
        self.kubectl.run(&["delete", "pod", "copy", "-n", HOME, "--ignore-not-found"]).await?;
        self.kubectl
            .run_with(
                &[
                    "run",
                    "copy",
                    "-n",
                    HOME,
                    "--rm",
                    "--quiet",
                    "--stdin",
                    "--restart=Never",
                    "--pod-running-timeout=5m",
                    &format!("--image={}", self.args.copy_image),
                    &format!("--overrides={overrides}"),
                ],
                &archive.stdout,
            )
            .await?;
        step.done();
        Ok(())
    }

    /// Nothing serves yet: the first version is trained without comparison and approved by a person.
    async fn first_version(&mut self) -> Result<()> {
        self.chapter("The first version, on an older part of the data");
        self.apply("demo/modelrollout.yaml").await?;
        self.apply("retrainjob-first.yaml").await?;
        let first = self.succeeded("car-loan-first").await?;
        let version = first.version.context("the first run has no version")?;
        let waiting = self.story.rollout("the first version to wait for approval", ROLLOUT_LIMIT, |status| {
            status.conditions.iter().any(|condition| condition.reason == "ApprovalMissing")
        });
        waiting.await?;
        self.progress.say(&format!(
            "  {version} waits for approval, because there was nothing to compare it with; approving it"
        ));
        let approval = format!("{}=demo", names::ANNOTATION_APPROVED_BY);
        self.kubectl
            .run(&["annotate", "modelversion", &format!("car-loan-{version}"), "-n", HOME, &approval])
            .await?;
        self.healthy(&version).await.map(drop)
    }

    /// The main job: a better version goes through shadow and canary.
    async fn next_version(&mut self) -> Result<(RetrainJobStatus, ModelRolloutStatus)> {
        self.chapter("A retrained version, through shadow and canary");
        self.apply("retrainjob.yaml").await?;
        let main = self.succeeded("car-loan-recent").await?;
        let version = main.version.clone().context("the main run has no version")?;
        let healthy = self.healthy(&version).await?;
        Ok((main, healthy))
    }

    /// Two that must not get there: flipped labels, and a tie.
    async fn rejected_versions(&mut self, healthy: &ModelRolloutStatus) -> Result<&'static str> {
        self.chapter("Flipped labels, and the same training again");
        self.apply("demo/retrainjob-flipped.yaml").await?;
        self.apply("demo/retrainjob-again.yaml").await?;
        for name in ["car-loan-flipped", "car-loan-again"] {
            let status = self.story.retrained(name, RETRAIN_LIMIT).await?;
            ensure!(status.phase == RetrainPhase::Rejected, "{name} is {:?} and not Rejected", status.phase);
            let result = status.result.context("a rejected run has no result")?;
            let law = result
                .gates
                .iter()
                .find(|gate| gate.gate == "ironLaw")
                .context("the iron law was not judged")?;
            let baseline = result.baseline.context("a rejected run has no baseline")?;
            for evaluation in [&result.candidate, &baseline.evaluation] {
                let loss =
                    evaluation.get(anneal_crds::gates::EvalMetric::Loss).context("a loss is missing")?;
                ensure!(
                    law.message.contains(&loss.to_string()),
                    "the iron law does not show {loss}: {}",
                    law.message
                );
            }
            ensure!(status.version.is_none(), "{name} was rejected and has a version");
        }
        let versions = self.kubectl.list("modelversions", HOME).await?;
        ensure!(versions.len() == 2, "{} ModelVersions exist and not the two that passed", versions.len());
        let now = self.story.rollout("the rollout to be there", ROLLOUT_LIMIT, |_| true).await?;
        ensure!(now.stable == healthy.stable, "production changed although both runs were rejected");
        Ok("Rejected")
    }

    /// A better model in a server that fails: the canary finds out.
    async fn faulty_version(&mut self, healthy: &ModelRolloutStatus) -> Result<ModelRolloutStatus> {
        self.chapter("A version that fails in production");
        self.apply("demo/retrainjob-faulty.yaml").await?;
        let faulty = self.succeeded("car-loan-faulty").await?;
        let version = faulty.version.context("the faulty run has no version")?;
        let is_faulty = |status: &ModelRolloutStatus| {
            status.candidate.as_ref().is_some_and(|candidate| candidate.version == version)
        };
        self.story
            .rollout("the faulty version to enter canary", ROLLOUT_LIMIT, |status| {
                is_faulty(status) && matches!(status.phase, RolloutPhase::Canary | RolloutPhase::RolledBack)
            })
            .await?;
        let end = self.story.rollout("the faulty version to be rolled back", ROLLOUT_LIMIT, |status| {
            is_faulty(status)
                && status.phase == RolloutPhase::RolledBack
                && status.traffic_accepted_at.is_some()
        });
        let end = end.await?;
        let decision = end.decision.clone().context("the rollback has no decision")?;
        ensure!(
            decision.reason == "ThresholdBreached",
            "rolled back because of {} and not a threshold",
            decision.reason
        );
        let breach = decision
            .readings
            .iter()
            .find(|reading| reading.verdict == "Breach")
            .context("no reading is a breach")?;
        ensure!(
            decision.message.contains(&breach.metric)
                && decision.message.contains(&breach.value)
                && decision.message.contains(&breach.bound),
            "the decision does not say which metric, value and bound: {}",
            decision.message
        );
        // A step may end between two looks; its event stays.
        self.event_tells("StepStarted", &format!("{version} takes")).await?;
        ensure!(end.stable == healthy.stable, "production changed although the candidate was rolled back");
        self.event_tells("ThresholdBreached", &decision.message).await?;
        Ok(end)
    }

    async fn event_tells(&self, reason: &str, words: &str) -> Result<()> {
        let tells = |event: &Value| {
            event["reason"] == reason && event["message"].as_str().is_some_and(|said| said.contains(words))
        };
        for _ in 0..20 {
            if self.kubectl.list("events", HOME).await?.iter().any(tells) {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        bail!("no event {reason} says: {words}")
    }

    /// Copies reached the candidate; `shares` has shown that their answers reached nobody.
    async fn mirrored(&self, main: &RetrainJobStatus) -> Result<()> {
        let version = main.version.as_deref().unwrap_or_default();
        ensure!(
            self.story
                .windows
                .iter()
                .any(|window| window.version == version && window.phase == RolloutPhase::Shadow),
            "{version} was never in shadow"
        );
        let query = format!(
            "sum(max_over_time(anneal_serve_requests_total{{version=\"{version}\",arm=\"shadow\",code=\"200\"}}[1h]))"
        );
        let path = format!(
            "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query?query={}",
            encode(&query)
        );
        let answer: Value = serde_json::from_str(&self.kubectl.run(&["get", "--raw", &path]).await?)?;
        let count: f64 = answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0").parse()?;
        ensure!(count >= 100.0, "only {count} mirrored requests reached {version}");
        self.progress
            .say(&format!("  {version} answered {count} mirrored requests, and nobody saw the answers"));
        Ok(())
    }

    async fn enough_requests(&self, load: &Load) {
        let missing = self.args.requests.saturating_sub(load.count());
        if missing > 0 {
            let step = self.progress.step(format!("Send {missing} more requests"));
            while load.count() < self.args.requests {
                sleep(Duration::from_millis(200)).await;
            }
            step.done();
        }
    }

    async fn succeeded(&mut self, name: &str) -> Result<RetrainJobStatus> {
        let status = self.story.retrained(name, RETRAIN_LIMIT).await?;
        ensure!(
            status.phase == RetrainPhase::Succeeded,
            "{name} is {:?}: {:?}",
            status.phase,
            status.conditions
        );
        Ok(status)
    }

    async fn healthy(&mut self, version: &str) -> Result<ModelRolloutStatus> {
        let what = format!("{version} to be in production");
        let status = self.story.rollout(&what, ROLLOUT_LIMIT, |status| {
            let is_stable = status.stable.as_ref().is_some_and(|stable| stable.version == version);
            let ended = matches!(status.phase, RolloutPhase::Healthy | RolloutPhase::RolledBack);
            ended
                && status.traffic_accepted_at.is_some()
                && (is_stable || status.phase == RolloutPhase::RolledBack)
        });
        let status = status.await?;
        ensure!(status.phase == RolloutPhase::Healthy, "{version} was rolled back: {:?}", status.decision);
        Ok(status)
    }

    /// Where clients send: the gateway's address and the model's path.
    async fn address(&self) -> Result<String> {
        let gateway: Value = self.kubectl.get("gateway/models", HOME).await?;
        let address =
            gateway["status"]["addresses"][0]["value"].as_str().context("the gateway has no address")?;
        Ok(format!("http://{address}/v2/models/car-loan/infer"))
    }

    fn request(&self) -> Result<String> {
        self.example("request.json")
    }

    fn chapter(&self, title: &str) {
        self.progress.say(&format!("\n{title}"));
    }

    fn example(&self, file: &str) -> Result<String> {
        let path = self.args.repository.join("examples/car-loan").join(file);
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
    }

    async fn apply(&self, file: &str) -> Result<()> {
        let text = self.example(file)?.replace("anneal/trainer:0.1.0", &self.args.trainer_image);
        self.apply_text(&text).await
    }

    async fn apply_text(&self, text: &str) -> Result<()> {
        self.kubectl.run_with(&["apply", "-n", HOME, "-f", "-"], text.as_bytes()).await.map(drop)
    }
}

fn split_image(image: &str) -> Result<(&str, &str)> {
    image
        .rsplit_once(':')
        .filter(|(_, tag)| !tag.contains('/'))
        .with_context(|| format!("{image} has no tag"))
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}
