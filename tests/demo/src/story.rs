//! The story: watches the objects as a person with `kubectl get -w` would, and tells what changes.
//!
//! It also keeps every phase that was seen with its time, and, when asked to, kills the operator at named moments.

use std::{collections::BTreeSet, time::Duration};

use anneal_cluster::progress::Progress;
use anneal_crds::{
    ModelRollout, ModelRolloutStatus, RetrainJob, RetrainJobStatus, model_rollout::RolloutPhase,
    retrain_job::RetrainPhase,
};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::kubectl::Kubectl;

/// How often the objects are looked at.
const POLL: Duration = Duration::from_millis(500);

/// A step of shadow or canary as the data plane had it.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// The candidate.
    pub(crate) version: String,
    /// Shadow or canary.
    pub(crate) phase: RolloutPhase,
    /// Percentage of live requests.
    pub(crate) weight: i32,
    /// When the route's weights were accepted.
    pub(crate) from: Timestamp,
    /// When the next step began.
    pub(crate) to: Timestamp,
}

/// The watcher.
pub(crate) struct Story {
    kubectl: Kubectl,
    namespace: String,
    progress: Progress,
    told: BTreeSet<String>,
    last: Option<ModelRolloutStatus>,
    /// Steps that have ended.
    pub(crate) windows: Vec<Window>,
    kills: Vec<String>,
    /// Moments at which the operator was killed.
    pub(crate) killed: Vec<String>,
}

impl Story {
    pub(crate) fn new(kubectl: Kubectl, namespace: &str, progress: Progress, kills: Vec<String>) -> Self {
        Self {
            kubectl,
            namespace: namespace.to_owned(),
            progress,
            told: BTreeSet::new(),
            last: None,
            windows: vec![],
            kills,
            killed: vec![],
        }
    }

    /// Waits until a RetrainJob has ended and returns how.
    pub(crate) async fn retrained(&mut self, name: &str, limit: Duration) -> Result<RetrainJobStatus> {
        self.until(
            &format!("RetrainJob {name} to end"),
            limit,
            |job, _| {
                job.filter(|status| {
                    matches!(
                        status.phase,
                        RetrainPhase::Succeeded | RetrainPhase::Rejected | RetrainPhase::Failed
                    )
                })
                .cloned()
            },
            Some(name),
        )
        .await
    }

    /// Waits until the rollout is as `is` says.
    pub(crate) async fn rollout(
        &mut self,
        what: &str,
        limit: Duration,
        is: impl Fn(&ModelRolloutStatus) -> bool,
    ) -> Result<ModelRolloutStatus> {
        self.until(what, limit, |_, rollout| rollout.filter(|status| is(status)).cloned(), None).await
    }

    async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        found: impl Fn(Option<&RetrainJobStatus>, Option<&ModelRolloutStatus>) -> Option<T>,
        job: Option<&str>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            let (jobs, rollout) = self.look().await?;
            let job = jobs.iter().find(|(name, _)| Some(name.as_str()) == job).map(|(_, status)| status);
            if let Some(found) = found(job, rollout.as_ref()) {
                return Ok(found);
            }
            if started.elapsed() > limit {
                bail!("waited {} s for {what}; the last that was seen: {job:?} {rollout:?}", limit.as_secs());
            }
            sleep(POLL).await;
        }
    }

    async fn look(&mut self) -> Result<(Vec<(String, RetrainJobStatus)>, Option<ModelRolloutStatus>)> {
        let mut jobs = vec![];
        let mut rollout = None;
        for object in self.kubectl.list("retrainjobs,modelrollouts", &self.namespace).await? {
            if object["kind"] == "RetrainJob" {
                let job: RetrainJob =
                    serde_json::from_value(object).context("a RetrainJob has an unknown shape")?;
                jobs.push((job.metadata.name.unwrap_or_default(), job.status.unwrap_or_default()));
            } else {
                let seen: ModelRollout =
                    serde_json::from_value(object).context("a ModelRollout has an unknown shape")?;
                rollout = Some(seen.status.unwrap_or_default());
            }
        }
        for (name, status) in &jobs {
            self.tell_job(name, status).await?;
        }
        if let Some(status) = &rollout {
            self.tell_rollout(status).await?;
        }
        Ok((jobs, rollout))
    }

    async fn tell_job(&mut self, name: &str, status: &RetrainJobStatus) -> Result<()> {
        let moment = format!("{name}:{:?}", status.phase);
        if status.started_at.is_none() || !self.told.insert(moment.clone()) {
            return Ok(());
        }
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let message = ready.map(|condition| condition.message.as_str()).unwrap_or_default();
        self.progress.say(&format!("  {name}: {:?}. {message}", status.phase));
        self.kill_at(&moment).await
    }

    async fn tell_rollout(&mut self, status: &ModelRolloutStatus) -> Result<()> {
        let began = status.step_started_at.as_ref().map(|time| time.0);
        self.close_window(status);
        self.last = Some(status.clone());
        let version = status
            .candidate
            .as_ref()
            .or(status.stable.as_ref())
            .map(|version| version.version.clone())
            .unwrap_or_default();
        let moment = format!("rollout:{:?}:{version}:{}", status.phase, status.weight);
        let Some(decision) = status.decision.as_ref().filter(|_| began.is_some()) else { return Ok(()) };
        if !self.told.insert(moment) {
            return Ok(());
        }
        self.progress.say(&format!("  car-loan: {:?}. {}", status.phase, decision.message));
        self.kill_at(&format!("rollout:{:?}:{}", status.phase, status.weight)).await
    }

    /// A step that was accepted by the data plane and has ended becomes a window.
    fn close_window(&mut self, now: &ModelRolloutStatus) {
        let Some(last) = &self.last else { return };
        let (Some(accepted), Some(next)) = (&last.traffic_accepted_at, &now.step_started_at) else { return };
        let ended = last.step_started_at != now.step_started_at;
        let judged = matches!(last.phase, RolloutPhase::Shadow | RolloutPhase::Canary);
        if let (true, true, Some(candidate)) = (ended, judged, &last.candidate) {
            self.windows.push(Window {
                version: candidate.version.clone(),
                phase: last.phase,
                weight: last.weight,
                from: accepted.0,
                to: next.0,
            });
        }
    }

    async fn kill_at(&mut self, moment: &str) -> Result<()> {
        let Some(at) = self.kills.iter().position(|kill| kill == moment) else { return Ok(()) };
        self.kills.remove(at);
        self.progress.say(&format!("  … and the operator is killed ({moment})"));
        let selector = "app.kubernetes.io/name=anneal-operator";
        self.kubectl
            .run(&[
                "delete",
                "pod",
                "-n",
                crate::scenario::SYSTEM,
                "-l",
                selector,
                "--grace-period=0",
                "--force",
                "--wait=false",
            ])
            .await?;
        self.killed.push(moment.to_owned());
        Ok(())
    }

    /// Moments at which the operator was to be killed and that never came.
    pub(crate) fn missed_kills(&self) -> &[String] {
        &self.kills
    }
}
