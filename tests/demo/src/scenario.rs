//! The main job, step by step.
//!
//! Called by `main`. Each chapter applies what a person would apply, waits as a person would, and ends with what must hold
//! then; what clients saw is checked at the end.

use std::time::Duration;

use anneal_cluster::progress::Progress;
use anneal_crds::{
    ModelRollout, ModelRolloutStatus, RetrainJobStatus, model_rollout::RolloutPhase, names,
    retrain_job::RetrainPhase,
};
use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};

use crate::{
    Args, checks, expect,
    kubectl::Kubectl,
    load::{Load, Seen},
    report::Report,
    site::{HOME, Site},
    story::Story,
};

/// Most generous times; nothing waits longer than it needs.
const RETRAIN_LIMIT: Duration = Duration::from_secs(420);
const ROLLOUT_LIMIT: Duration = Duration::from_secs(420);

/// One run of the demo.
pub(crate) struct Scenario {
    site: Site,
    story: Story,
}

impl Scenario {
    pub(crate) fn new(args: Args, kubectl: Kubectl, progress: Progress) -> Self {
        let story = Story::new(kubectl.clone(), HOME, progress.clone(), args.kill_operator_at.clone());
        Self { site: Site { args, kubectl, progress }, story }
    }

    /// Runs it all and checks what clients saw.
    pub(crate) async fn run(mut self) -> Result<Report> {
        let started = Instant::now();
        self.site.install().await?;
        self.site.copy_data().await?;
        self.first_version().await?;
        let load =
            Load::start(self.site.address().await?, self.site.example("request.json")?, self.site.args.rate)?;
        self.story.count(load.answers());
        let (main, healthy) = self.next_version().await?;
        self.rejected_versions(&healthy).await?;
        let faulty = self.faulty_version(&healthy).await?;
        let seen = self.all_answers(load).await?;
        let failed = self.check(&main, &seen).await?;
        self.site.tell_how_to_remove();
        Ok(Report {
            retrain: format!("{:?}", main.phase),
            version: main.version.unwrap_or_default(),
            rollout: format!("{:?}", healthy.phase),
            rejected: format!("{:?}", RetrainPhase::Rejected),
            faulty: format!("{:?}", faulty.phase),
            requests: seen.len(),
            failed,
            seconds: started.elapsed().as_secs(),
            wanted_requests: self.site.args.requests,
            rate: checks::rate(&seen),
        })
    }

    /// Nothing serves yet: the first version is trained without comparison and approved by a person.
    async fn first_version(&mut self) -> Result<()> {
        self.site.chapter("The first version, on an older part of the data");
        self.site.apply("demo/modelrollout.yaml").await?;
        self.site.apply("retrainjob-first.yaml").await?;
        let first = self.succeeded("car-loan-first").await?;
        let version = first.version.context("the first run has no version")?;
        let waiting = self.story.rollout("the first version to wait for approval", ROLLOUT_LIMIT, |status| {
            status.conditions.iter().any(|condition| condition.reason == "ApprovalMissing")
        });
        waiting.await?;
        self.site.progress.say(&format!(
            "  {version} waits for approval, because there was nothing to compare it with; approving it"
        ));
        let approval = format!("{}=demo", names::ANNOTATION_APPROVED_BY);
        self.site
            .kubectl
            .run(&["annotate", "modelversion", &format!("car-loan-{version}"), "-n", HOME, &approval])
            .await?;
        self.healthy(&version).await.map(drop)
    }

    /// The main job: a better version goes through shadow and canary.
    async fn next_version(&mut self) -> Result<(RetrainJobStatus, ModelRolloutStatus)> {
        self.site.chapter("A retrained version, through shadow and canary");
        self.site.apply("retrainjob.yaml").await?;
        let main = self.succeeded("car-loan-recent").await?;
        let version = main.version.clone().context("the main run has no version")?;
        let healthy = self.healthy(&version).await?;
        Ok((main, healthy))
    }

    /// Two that must not get there: flipped labels, and a tie.
    async fn rejected_versions(&mut self, healthy: &ModelRolloutStatus) -> Result<()> {
        self.site.chapter("Flipped labels, and the same training again");
        self.site.apply("demo/retrainjob-flipped.yaml").await?;
        self.site.apply("demo/retrainjob-again.yaml").await?;
        for name in ["car-loan-flipped", "car-loan-again"] {
            let status = self.story.retrained(name, RETRAIN_LIMIT).await?;
            expect::rejected(name, &status)?;
        }
        let versions = self.site.kubectl.list("modelversions", HOME).await?;
        ensure!(versions.len() == 2, "{} ModelVersions exist and not the two that passed", versions.len());
        let now = self.story.rollout("the rollout to be there", ROLLOUT_LIMIT, |_| true).await?;
        ensure!(now.stable == healthy.stable, "production changed although both runs were rejected");
        Ok(())
    }

    /// A better model in a server that fails: the canary finds out.
    async fn faulty_version(&mut self, healthy: &ModelRolloutStatus) -> Result<ModelRolloutStatus> {
        self.site.chapter("A version that fails in production");
        self.site.apply("demo/retrainjob-faulty.yaml").await?;
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
        let message = expect::rolled_back(&end)?;
        // A step may end between two looks; its event stays.
        self.site.event_tells("StepStarted", &format!("{version} takes")).await?;
        ensure!(end.stable == healthy.stable, "production changed although the candidate was rolled back");
        self.site.event_tells("ThresholdBreached", message).await?;
        Ok(end)
    }

    /// Lets the clients send what is still missing, and waits for the last answers.
    async fn all_answers(&self, load: Load) -> Result<Vec<Seen>> {
        let wanted = self.site.args.requests;
        let wait = self.site.progress.wait(format!("Send {wanted} requests in all"));
        while load.answers().count() < wanted {
            wait.detail(&format!("{} are answered", load.answers().count()));
            sleep(Duration::from_millis(200)).await;
        }
        wait.detail("the last are on their way");
        let seen = load.finish().await?;
        wait.done();
        Ok(seen)
    }

    /// Tells what clients saw, and fails where it is not what was promised. Returns how many requests failed.
    async fn check(&self, main: &RetrainJobStatus, seen: &[Seen]) -> Result<usize> {
        let say = |line: &str| self.site.progress.say(line);
        say("\nWhat clients saw");
        let (failed, reasons) = checks::failures(seen);
        reasons.iter().for_each(|reason| say(&format!("  a request failed: {reason}")));

        let rollout: ModelRollout = self.site.kubectl.get("modelrollout/car-loan", HOME).await?;
        let (strategy, windows) = (&rollout.spec.strategy, &self.story.windows);
        let version = main.version.as_deref().context("the main run has no version")?;
        for line in checks::shares(windows, seen)? {
            say(&line);
        }
        checks::complete(windows, seen, version, &checks::steps(strategy), self.story.pause)?;
        let shadow =
            strategy.shadow.as_ref().context("the demo's rollout has no shadow; restore its example")?;
        let copies = self.site.copies(version).await?;
        say(&checks::mirrored(copies, shadow.share(), windows, seen, version)?);
        ensure!(
            self.story.missed_kills().is_empty(),
            "the operator was to be killed at {:?}, which never came",
            self.story.missed_kills()
        );
        Ok(failed)
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
}
