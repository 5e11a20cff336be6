//! Probes: requests that the shell sends for a plan, to warm a version up, to see what it answers, and to ask a test.
//!
//! The shell asks [`probes`] what to send and puts the answers into the snapshot, in the same order. Warm-up and smoke go to
//! the version's own Service, whose address follows from names; only the question of staging goes where the spec says. None
//! carries a credential, and a plan that did not get an answer takes that for no pass.

use anneal_crds::{
    ModelRollout, Span, VersionRef,
    common::shorten,
    model_rollout::{Request, RolloutPhase},
};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{build, by_hand, draft::Draft, snapshot::Snapshot};

/// How long after a try that failed, or was not answered, the next one is sent.
pub(super) const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(10);
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
    let mut draft = Draft::new(snapshot);
    draft.note_commands();
    match (status.phase, &status.candidate, &status.stable) {
        (RolloutPhase::Preparing, Some(candidate), _) => draft.warmup(candidate),
        (RolloutPhase::Staging, Some(candidate), _) => draft.question(candidate).into_iter().collect(),
        (RolloutPhase::Baking, _, Some(stable)) => draft.smoke_requests(stable),
        (
            RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::Staging
            | RolloutPhase::Shadow
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

/// Where a version is reached inside the cluster.
pub(super) fn address(rollout: &ModelRollout, version: &VersionRef, door: Door) -> String {
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let port = match door {
        Door::Live => build::LIVE,
        Door::Shadow => build::SHADOW,
    };
    format!("http://{}.{namespace}.svc:{port}", build::workload_name(name, &version.version))
}

impl Draft<'_> {
    /// The warm-up of a candidate whose pods are ready.
    fn warmup(&self, candidate: &VersionRef) -> Vec<Probe> {
        let serving = &self.rollout.spec.serving;
        let Some(warmup) = serving.warmup.as_ref().filter(|_| self.pause.is_none() && self.ready(candidate))
        else {
            return vec![];
        };
        let address = address(self.rollout, candidate, Door::Shadow);
        let probe = |request: &Request| Probe {
            url: format!("{address}{}", request.path),
            headers: vec![],
            body: request.body.clone(),
            timeout: warmup.timeout,
        };
        let count =
            usize::try_from(warmup.count).unwrap_or(1) * usize::try_from(serving.replicas).unwrap_or(1);
        let all = warmup.requests.iter().cycle().take(warmup.requests.len().saturating_mul(count));
        all.take(MAX_WARMUP).map(probe).collect()
    }

    /// Why a candidate whose pods are ready may not take traffic yet; none if it may.
    pub(super) fn cold(&self) -> Option<String> {
        self.rollout.spec.serving.warmup.as_ref()?;
        let answers = self.snapshot.probed;
        if answers.is_empty() {
            return Some("Its warm-up requests were not sent yet.".to_owned());
        }
        let why = answers.iter().find_map(|answer| match answer {
            ProbeAnswer::Answered { status: 200..=299, .. } => None,
            ProbeAnswer::Answered { status, body } => Some(format!("was answered {status}: {}", words(body))),
            ProbeAnswer::Silent(why) => Some(format!("got no answer: {why}")),
        })?;
        let why = why.trim_end_matches('.');
        Some(format!("A warm-up request {why}. Correct spec.serving.warmup, or look into the pod's log."))
    }
}

/// The beginning of a body, as far as it is text.
pub(super) fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let printable: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shorten(&printable, MAX_WORDS).into_owned()
}
