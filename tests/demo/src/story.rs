//! The story: watches the objects as a person with `kubectl get -w` would, and tells what changes.
//!
//! Called by the scenario, which waits through it. It also keeps every step that was seen with its times, and, when
//! asked to, kills the operator at named moments. Whatever it waits for, a person sees how far it is.

use std::{collections::BTreeSet, time::Duration};

use anneal_cluster::progress::Progress;
use anneal_crds::{
    ModelRollout, ModelRolloutStatus, RetrainJob, RetrainJobStatus, Weight, model_rollout::RolloutPhase,
    retrain_job::RetrainPhase,
};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::{kubectl::Kubectl, load::Answers, site::SYSTEM};

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
    pub(crate) weight: Weight,
    /// When it was decided; the route changes after.
    pub(crate) began: Timestamp,
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
    looked: Option<Instant>,
    /// Longest time between two looks: what is shorter may have gone unseen.
    pub(crate) pause: Duration,
    /// Clients, once there are some.
    answers: Option<Answers>,
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
            looked: None,
            pause: Duration::ZERO,
            answers: None,
            windows: vec![],
            kills,
            killed: vec![],
        }
    }

    /// From now on, waits show how many answers clients got.
    pub(crate) fn count(&mut self, answers: &Answers) {
        self.answers = Some(answers.clone());
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
        let wait = self.progress.wait(format!("Wait for {what}"));
        loop {
            let (jobs, rollout) = self.look().await?;
            let of_job = jobs.iter().find(|(name, _)| Some(name.as_str()) == job).map(|(_, status)| status);
            if let Some(found) = found(of_job, rollout.as_ref()) {
                wait.done();
                return Ok(found);
            }
            let count = self.answers.as_ref().map(Answers::count);
            wait.detail(&how_far(job.map(|_| of_job), rollout.as_ref(), count));
            if started.elapsed() > limit {
                bail!(
                    "waited {} s for {what}; the last that was seen: {of_job:?} {rollout:?}",
                    limit.as_secs()
                );
            }
            sleep(POLL).await;
        }
    }

    async fn look(&mut self) -> Result<(Vec<(String, RetrainJobStatus)>, Option<ModelRolloutStatus>)> {
        let mut jobs = vec![];
        let mut rollout = None;
        let now = Instant::now();
        if let Some(before) = self.looked.replace(now) {
            self.pause = self.pause.max(now.duration_since(before));
        }
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
        let (Some(began), Some(accepted), Some(next)) =
            (&last.step_started_at, &last.traffic_accepted_at, &now.step_started_at)
        else {
            return;
        };
        let ended = last.step_started_at != now.step_started_at;
        let judged = last.phase.shares_traffic();
        if let (true, true, Some(candidate)) = (ended, judged, &last.candidate) {
            self.windows.push(Window {
                version: candidate.version.clone(),
                phase: last.phase,
                weight: last.weight,
                began: began.0,
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
                SYSTEM,
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

/// How far it is, for a person who waits: the run if one is waited for, else the rollout; and the clients.
fn how_far(
    job: Option<Option<&RetrainJobStatus>>,
    rollout: Option<&ModelRolloutStatus>,
    answers: Option<usize>,
) -> String {
    let doing = match (job, rollout) {
        (Some(job), _) => format!("{:?}", job.map(|job| job.phase).unwrap_or_default()),
        (None, None) => "no rollout yet".to_owned(),
        (None, Some(rollout)) => match rollout.phase {
            phase @ (RolloutPhase::Experiment | RolloutPhase::Canary) => {
                format!("{phase:?} at {} %", rollout.weight)
            }
            phase @ (RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::Staging
            | RolloutPhase::Shadow
            | RolloutPhase::Baking
            | RolloutPhase::RollingBack
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack) => format!("{phase:?}"),
        },
    };
    answers.map_or_else(|| doing.clone(), |count| format!("{doing}, {count} requests answered"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_waits_sees_the_run_or_the_rollout_and_the_clients() {
        let training = RetrainJobStatus { phase: RetrainPhase::Training, ..Default::default() };
        let canary = ModelRolloutStatus {
            phase: RolloutPhase::Canary,
            weight: Weight::from_percent(55),
            ..Default::default()
        };
        assert_eq!(how_far(Some(Some(&training)), Some(&canary), None), "Training");
        assert_eq!(how_far(Some(None), None, None), "Pending");
        assert_eq!(how_far(None, None, None), "no rollout yet");
        assert_eq!(how_far(None, Some(&canary), Some(5321)), "Canary at 55 %, 5321 requests answered");
    }

    #[test]
    fn a_step_becomes_a_window_when_the_next_one_is_seen() {
        let at = |second| Timestamp::from_second(second).unwrap().to_string();
        let status = |phase: RolloutPhase, weight: i32, began, accepted| -> ModelRolloutStatus {
            serde_json::from_value(json!({
                "phase": phase,
                "weight": weight,
                "stepStartedAt": at(began),
                "trafficAcceptedAt": at(accepted),
                "candidate": {"name": "car-loan-v2", "version": "v2", "digest": "sha256:x"},
            }))
            .unwrap()
        };
        let kubectl =
            Kubectl { kubectl: "none".into(), helm: "none".into(), kubeconfig: None, context: None };
        let mut story = Story::new(kubectl, "home", Progress::new(), vec![]);
        for now in [
            status(RolloutPhase::Shadow, 0, 10, 12),
            status(RolloutPhase::Shadow, 0, 10, 12),
            status(RolloutPhase::Canary, 10, 30, 31),
            status(RolloutPhase::Healthy, 0, 50, 51),
        ] {
            story.close_window(&now);
            story.last = Some(now);
        }
        let seen: Vec<_> = story
            .windows
            .iter()
            .map(|window| {
                let times = [window.began, window.from, window.to].map(Timestamp::as_second);
                (window.phase, window.weight.to_string(), times)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (RolloutPhase::Shadow, "0".to_owned(), [10, 12, 30]),
                (RolloutPhase::Canary, "10".to_owned(), [30, 31, 50])
            ]
        );
    }
}
