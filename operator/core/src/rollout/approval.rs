//! Approval: what a step has shown is written down, and someone says by its digest that it may go on.
//!
//! Called by `step` when a step with an approval has passed. The evidence stays as it is until it is too old, so that who
//! approves, and what, can be told for ever; meanwhile the step goes on and is judged.

use anneal_crds::{
    VersionRef,
    model_rollout::{Approval, Evidence, JudgedMetric, PendingApproval, RecordedReading, RolloutPhase},
    names,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    command::{self, Consented, MIN_DIGEST},
    draft::Draft,
    incumbent::Incumbent,
};
use crate::{object::short_digest, plan::Severity};

/// Whether evidence waits for someone to approve it.
pub(super) const AWAITING_APPROVAL: &str = "AwaitingApproval";

/// What someone says about the evidence.
pub(super) enum Consent {
    /// It may go on: who says so and why.
    Given(String),
    /// Nobody has said so.
    Awaited(Awaited),
}

/// What is to be told of evidence that nobody has approved.
pub(super) struct Awaited {
    /// Whether nobody has said anything or something else: a condition's reason.
    pub(super) reason: &'static str,
    /// What to do.
    pub(super) how: String,
}

impl Draft<'_> {
    /// Whether what this step has shown is approved. Evidence that is missing, too old or of other terms is taken from
    /// `readings`; `promoted` says who has left time and requests out.
    pub(super) fn consent(
        &mut self,
        version: &VersionRef,
        promoted: Option<&str>,
        readings: &[RecordedReading],
    ) -> Consent {
        let terms = self.terms_digest();
        let fits = |pending: &PendingApproval| {
            let evidence = &pending.evidence;
            self.now < pending.expires_at.0
                && evidence.terms == terms
                && evidence.promoted.as_deref() == promoted
        };
        let kept = self.status.approval.take().filter(fits);
        let pending = match kept.or_else(|| self.take_evidence(version, promoted, terms, readings)) {
            Some(pending) => self.status.approval.insert(pending).clone(),
            // Nobody serves, and so there is no step.
            None => {
                let how = "There is no version to compare with.".to_owned();
                return Consent::Awaited(Awaited { reason: "EvidenceMissing", how });
            }
        };
        self.wake_at_latest(pending.expires_at.0.duration_since(self.now));
        let place = &pending.evidence.step;
        match self.said_about(version) {
            Some((digest, because)) if pending.digest.starts_with(&digest) => Consent::Given(format!(
                "{} was approved at {place} by the evidence {}, {because}.",
                version.version,
                short(&pending.digest)
            )),
            Some((digest, _)) => {
                let how = format!(
                    "{} names the evidence {}, which is not what waits for an approval. {}",
                    names::ANNOTATION_APPROVE,
                    short(&digest),
                    self.how_to_approve(version, &pending)
                );
                Consent::Awaited(Awaited { reason: "EvidenceMismatch", how })
            }
            None => {
                let how = self.how_to_approve(version, &pending);
                Consent::Awaited(Awaited { reason: "EvidenceReady", how })
            }
        }
    }

    /// Evidence of a step that someone promoted is worth nothing once nobody does.
    pub(super) fn forget_promoted_evidence(&mut self) {
        self.status.approval.take_if(|pending| pending.evidence.promoted.is_some());
    }

    /// The digest and the reason of the approval that is meant for `version` where it stands.
    fn said_about(&self, version: &VersionRef) -> Option<(String, String)> {
        let (command, Consented { place, digest }) = command::approve(self.rollout)?.ok()?;
        let here = place.is(self.status.phase, self.status.weight) && command.version == version.version;
        here.then(|| (digest, command.because()))
    }

    fn how_to_approve(&self, version: &VersionRef, pending: &PendingApproval) -> String {
        format!(
            "The step {} and waits for an approval of status.approval: kubectl annotate modelrollout {} {}=\"{}@{} {}: why\" {}=YOU --overwrite",
            came_to_its_end(&pending.evidence),
            self.rollout.metadata.name.as_deref().unwrap_or_default(),
            names::ANNOTATION_APPROVE,
            version.version,
            pending.evidence.step,
            short(&pending.digest),
            names::ANNOTATION_APPROVED_BY,
        )
    }

    /// By what a step is judged, in short.
    fn terms_digest(&self) -> String {
        let (spec, strategy) = (&self.rollout.spec, &self.rollout.spec.strategy);
        let steps = (&strategy.shadow, &strategy.progression, &strategy.rollback_triggers);
        // None of it has anything that JSON cannot say.
        let text = serde_json::to_string(&(steps, &spec.metrics, &spec.judge)).unwrap_or_default();
        // What had no experiment before there were any has the digest that it had.
        let experiment = strategy.experiment.as_ref().and_then(|own| serde_json::to_string(own).ok());
        short_digest(&(text + &experiment.unwrap_or_default()))
    }

    fn take_evidence(
        &mut self,
        version: &VersionRef,
        promoted: Option<&str>,
        terms: String,
        readings: &[RecordedReading],
    ) -> Option<PendingApproval> {
        let status = &self.status;
        let judged = |reading: &RecordedReading| JudgedMetric {
            metric: reading.metric.clone(),
            verdict: reading.verdict.clone(),
            value: reading.value.clone(),
            bound: reading.bound.clone(),
        };
        let (baseline, adopted) = match self.incumbent() {
            Incumbent::Nobody => return None,
            Incumbent::Adopted(service) => (None, Some(service)),
            Incumbent::Version(stable) => (Some(stable), None),
        };
        let evidence = Evidence {
            candidate: version.clone(),
            baseline,
            adopted,
            step: place_name(status.phase, &status.weight.to_string()),
            weight: status.weight,
            step_started_at: status.step_started_at.clone(),
            traffic_accepted_at: status.traffic_accepted_at.clone(),
            judged_at: Time(self.now),
            observed: status.observed.clone(),
            promoted: promoted.map(str::to_owned),
            terms,
            metrics: readings.iter().map(judged).collect(),
        };
        let expiry = self.rollout.spec.strategy.approval.as_ref();
        let expiry = expiry.map_or_else(Approval::default_expiry, |approval| approval.expires_after);
        let expires_at = Time(self.now.checked_add(expiry.get()).ok()?);
        let digest = digest(&evidence)?;
        let message = format!(
            "Step {} of {} {} and waits for an approval of the evidence {}.",
            evidence.step,
            version.version,
            came_to_its_end(&evidence),
            short(&digest)
        );
        self.note(Severity::Normal, AWAITING_APPROVAL, &message);
        Some(PendingApproval { digest, expires_at, evidence })
    }
}

const fn came_to_its_end(evidence: &Evidence) -> &'static str {
    match evidence.promoted {
        None => "has passed",
        Some(_) => "was promoted before it had passed",
    }
}

fn place_name(phase: RolloutPhase, weight: &str) -> String {
    if phase == RolloutPhase::Canary { weight.to_owned() } else { phase.name().to_owned() }
}

/// As many digits as a command needs.
fn short(digest: &str) -> &str {
    digest.get(..MIN_DIGEST).unwrap_or(digest)
}

fn digest(evidence: &Evidence) -> Option<String> {
    let mut canonical = String::new();
    write_canonical(&serde_json::to_value(evidence).ok()?, &mut canonical);
    Some(format!("{:x}", Sha256::digest(canonical.as_bytes())))
}

/// RFC 8785 for what evidence is made of: keys in order, no space. It has no numbers but whole ones and tenths, which every
/// writer writes alike.
fn write_canonical(value: &Value, to: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            to.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                to.push_str(&Value::from(key.as_str()).to_string());
                to.push(':');
                if let Some(value) = fields.get(key) {
                    write_canonical(value, to);
                }
            }
            to.push('}');
        }
        Value::Array(items) => {
            to.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write_canonical(item, to);
            }
            to.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            to.push_str(&value.to_string());
        }
    }
}
