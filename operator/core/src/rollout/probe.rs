//! Probes: requests that the shell sends for a plan, to warm a version up, to see what it answers, and to ask a test.
//!
//! The shell asks [`probes`] what to send and puts the answers into the snapshot, in the same order. Warm-up and smoke go to
//! the address that the version's own Service had when it was looked at; only the question of staging goes where the spec
//! says. None carries a credential, and a plan that did not get an answer takes that for no pass.

use std::net::{IpAddr, SocketAddr};

use anneal_crds::{
    ModelRollout, Span, VersionRef, Weight,
    common::shorten,
    model_rollout::{Request, RolloutPhase, Trial},
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{build, by_hand, draft::Draft, snapshot::Snapshot};
use crate::trouble::Trouble;

/// How long after a try that failed, or was not answered, the next one is sent.
pub(super) const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// Longest time between two warm-ups.
const MOST_BETWEEN: SignedDuration = SignedDuration::from_mins(1);
/// Most requests of one warm-up.
const MAX_WARMUP: usize = 200;
/// Most bytes of an answer, or of a test's words, that are told.
pub(super) const MAX_WORDS: usize = 200;

/// A request: a POST if it has a body, else a GET.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The whole address.
    pub url: String,
    /// Headers, name and value.
    pub headers: Vec<(String, String)>,
    /// JSON.
    pub body: Option<Value>,
    /// Longest time from the request to the last byte of its answer.
    pub timeout: Span,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// An answer, of bounded length.
    Answered {
        /// Its status.
        status: u16,
        /// Its body.
        body: Vec<u8>,
    },
    /// None, and why.
    Silent(String),
}

/// By which door a request comes to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// That of users' requests.
    Live,
    /// That of requests whose answers no user gets.
    Shadow,
}

/// What must be sent before [`super::plan`] can go on; nothing where nothing waits for an answer.
pub fn probes(snapshot: &Snapshot<'_>) -> Vec<Probe> {
    let rollout = snapshot.rollout;
    let Some(status) = rollout.status.as_ref().filter(|status| {
        rollout.metadata.deletion_timestamp.is_none() && !by_hand::is_decided(rollout, status)
    }) else {
        return vec![];
    };
    // Most looks are at a phase in which nobody is asked, so a draft is made by those that need it.
    let draft = || {
        let mut draft = Draft::new(snapshot);
        draft.note_commands();
        draft
    };
    match (status.phase, &status.candidate, &status.stable) {
        (RolloutPhase::Preparing, Some(candidate), _) => draft().warmup(candidate),
        (RolloutPhase::Staging, Some(candidate), _) => draft().question(candidate).into_iter().collect(),
        (RolloutPhase::Canary, Some(candidate), _) if status.weight == Weight::FULL => {
            draft().smoke_requests(candidate)
        }
        (RolloutPhase::Baking, _, Some(stable)) => draft().smoke_requests(stable),
        (
            RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::Staging
            | RolloutPhase::Shadow
            | RolloutPhase::Experiment
            | RolloutPhase::Canary
            | RolloutPhase::Baking
            | RolloutPhase::RollingBack
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack,
            _,
            _,
        ) => vec![],
    }
}

impl Door {
    const fn port(self) -> u16 {
        match self {
            Self::Live => build::LIVE,
            Self::Shadow => build::SHADOW,
        }
    }
}

/// Where a version is reached inside the cluster, for those who look its name up themselves.
pub(super) fn address(rollout: &ModelRollout, version: &VersionRef, door: Door) -> String {
    format!("http://{}", host(rollout, version, door))
}

fn host(rollout: &ModelRollout, version: &VersionRef, door: Door) -> String {
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    format!("{}.{namespace}.svc:{}", build::workload_name(name, &version.version), door.port())
}

/// A request of the operator's own to a version.
pub(super) struct Sent<'a> {
    /// Path and query.
    pub(super) path: &'a str,
    /// JSON.
    pub(super) body: Option<&'a Value>,
    /// Longest time.
    pub(super) timeout: Span,
}

impl Draft<'_> {
    /// The address that the API server gave to the Service of a version.
    fn cluster_ip(&self, version: &VersionRef) -> Option<IpAddr> {
        self.service(version)?["spec"]["clusterIP"].as_str()?.parse().ok()
    }

    /// A request to a version, if its Service has an address. A name could lead anywhere by the time that it is looked up:
    /// whoever may write Services must not send the operator's own requests elsewhere.
    pub(super) fn probe(&self, version: &VersionRef, door: Door, sent: &Sent<'_>) -> Option<Probe> {
        let address = SocketAddr::new(self.cluster_ip(version)?, door.port());
        let host = host(self.rollout, version, door);
        // As whoever looks the name up says it: the port that goes without saying is left out.
        let host = host.strip_suffix(":80").unwrap_or(&host).to_owned();
        Some(Probe {
            url: format!("http://{address}{}", sent.path),
            headers: vec![("host".to_owned(), host)],
            body: sent.body.cloned(),
            timeout: sent.timeout,
        })
    }

    /// Why no request can be sent to a version whose Service is there.
    pub(super) fn unreachable(&self, version: &VersionRef) -> Option<Trouble> {
        let service = self.service(version).filter(|_| self.cluster_ip(version).is_none())?;
        let message = format!(
            "Service {} has no cluster IP, so warm-up and smoke requests cannot be sent to {}. Delete the Service: it is made again.",
            service["metadata"]["name"].as_str().unwrap_or_default(),
            version.version
        );
        Some(Trouble { reason: "ServiceHeadless".to_owned(), message })
    }

    /// The warm-up of a candidate whose pods are ready, if nothing else is in the way.
    fn warmup(&self, candidate: &VersionRef) -> Vec<Probe> {
        let serving = &self.rollout.spec.serving;
        let free = self.pause.is_none()
            && self.shadow_trouble().is_none()
            && self.attach_trouble().is_none()
            && self.autoscaler_trouble().is_none()
            && self.ready(candidate)
            && !self.is_held_at_the_start();
        let Some(warmup) = serving.warmup.as_ref().filter(|_| free && self.warmup_is_due()) else {
            return vec![];
        };
        let probe = |request: &Request| {
            let sent = Sent { path: &request.path, body: request.body.as_ref(), timeout: warmup.timeout };
            self.probe(candidate, Door::Shadow, &sent)
        };
        let pods = self.pods_to_be_ready(candidate);
        let count = usize::try_from(warmup.count).unwrap_or(1) * usize::try_from(pods).unwrap_or(1);
        let all = warmup.requests.iter().cycle().take(warmup.requests.len().saturating_mul(count));
        all.take(MAX_WARMUP).filter_map(probe).collect()
    }

    /// A version that does not answer is asked more and more rarely.
    fn warmup_is_due(&self) -> bool {
        self.status.warmup.as_ref().is_none_or(|trial| {
            let doublings = trial.number.saturating_sub(1).min(8);
            let between = AGAIN_AFTER.saturating_mul(1 << doublings).min(MOST_BETWEEN);
            self.age(&trial.started_at) >= between
        })
    }

    /// Why a candidate whose pods are ready may not take traffic yet; none if it may. A warm-up that failed is recorded.
    pub(super) fn cold(&mut self, candidate: &VersionRef) -> Option<Trouble> {
        self.rollout.spec.serving.warmup.as_ref()?;
        let answers = self.snapshot.probed;
        let message = match (answers, failed(answers), &self.status.warmup) {
            ([], _, _) if self.unreachable(candidate).is_some() => return self.unreachable(candidate),
            ([], _, None) => "Its warm-up requests were not sent yet.".to_owned(),
            ([], _, Some(trial)) => trial.message.clone().unwrap_or_default(),
            ([..], None, _) => {
                self.status.warmup = None;
                return None;
            }
            ([..], Some(message), before) => {
                let number = before.as_ref().map_or(1, |trial| trial.number.saturating_add(1));
                let first = Trial { message: Some(message.clone()), ..self.first_try() };
                self.status.warmup = Some(Trial { number, started_at: Time(self.now), ..first });
                message
            }
        };
        Some(Trouble { reason: "WarmingUp".to_owned(), message })
    }
}

/// Which warm-up requests failed, without the words of answers: those may differ each time.
fn failed(answers: &[ProbeAnswer]) -> Option<String> {
    let failures = answers.iter().filter_map(|answer| match answer {
        ProbeAnswer::Answered { status: 200..=299, .. } => None,
        ProbeAnswer::Answered { status, .. } => Some(format!("was answered {status}")),
        ProbeAnswer::Silent(why) => Some(format!("got no answer: {why}")),
    });
    let failures: Vec<String> = failures.collect();
    let first = shorten(failures.first()?.trim_end_matches('.'), MAX_WORDS);
    Some(format!(
        "{} of {} warm-up requests failed, the first of them {first}. Correct spec.serving.warmup, or look into the pod's log.",
        failures.len(),
        answers.len()
    ))
}

/// The beginning of a body, as far as it is text.
pub(super) fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let printable: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shorten(&printable, MAX_WORDS).into_owned()
}
