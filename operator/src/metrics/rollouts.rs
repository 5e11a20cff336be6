//! What rollouts are doing, as metrics with their names.
//!
//! Fed by [`crate::metered`] with every ModelRollout that is read and every status that is recorded; encoded at a scrape.
//! Only a leader reads rollouts, and a process that loses the lease ends, so a new leader leaves no series of the old one
//! behind. A rollout at rest is one series, and one that is gone is none.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};
use serde_json::Value;

use super::family::{Family, Shape};

/// Every rollout that this process knows, by namespace and name. Clones share it.
#[derive(Clone, Debug)]
pub struct Rollouts {
    seen: Arc<Mutex<BTreeMap<Name, Seen>>>,
    descriptions: Arc<Vec<Desc>>,
}

type Name = (Box<str>, Box<str>);

/// What is kept of a rollout.
#[derive(Debug)]
struct Seen {
    model: Box<str>,
    phase: Box<str>,
    stable: Box<str>,
    candidate: Box<str>,
    /// While a candidate is on its way.
    step: Option<Step>,
    verdict: Option<Box<str>>,
    holding_since: Option<Timestamp>,
    stalled: Option<Box<str>>,
    decision: Option<Decision>,
    decisions: BTreeMap<Box<str>, u32>,
}

#[derive(Debug)]
struct Step {
    /// From 0 to 1.
    weight: f64,
    started_at: Option<Timestamp>,
}

/// When and why; the record has no more than one for each pair.
#[derive(Debug, PartialEq, Eq)]
struct Decision {
    at: Timestamp,
    reason: Box<str>,
}

impl Rollouts {
    /// No rollouts.
    pub(super) fn new() -> prometheus::Result<Self> {
        let described = FAMILIES.iter().map(|shape| {
            let labels = shape.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(shape.name.to_owned(), shape.help.to_owned(), labels, HashMap::new())
        });
        let descriptions = described.collect::<prometheus::Result<Vec<_>>>()?;
        Ok(Self { seen: Arc::default(), descriptions: Arc::new(descriptions) })
    }

    /// A rollout was read. A decision that is newer than the known one was recorded by a call whose answer was lost, and is
    /// counted; of a rollout that was not known, nothing is. A read that is older than what is known says nothing: another
    /// object's reconcile may have waited with it.
    pub fn read(&self, object: &Value) {
        let Some(name) = name(object) else { return };
        let seen = Seen::of(object, &object["status"]);
        let mut all = self.lock();
        let Some(known) = all.get_mut(&name) else {
            all.insert(name, seen);
            return;
        };
        let newer = seen.decided_at() > known.decided_at();
        if newer || seen.decided_at() == known.decided_at() {
            known.follow(seen, newer);
        }
    }

    /// A status was recorded. Its decision is counted once, however often the same status is recorded.
    pub fn recorded(&self, object: &Value, status: &Value) {
        let Some(name) = name(object) else { return };
        let seen = Seen::of(object, status);
        let mut all = self.lock();
        let known = all.entry(name).or_insert_with(|| Seen::of(object, &object["status"]));
        let new = seen.decision.is_some() && seen.decision != known.decision;
        known.follow(seen, new);
    }

    /// A rollout is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.into(), name.into()));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn of(object: &Value, status: &Value) -> Self {
        let moving = condition(status, "Progressing").is_some();
        let decision = &status["decision"];
        Self {
            model: text(&object["spec"]["model"]),
            phase: text(&status["phase"]),
            stable: text(&status["stable"]["version"]),
            candidate: text(&status["candidate"]["version"]),
            step: moving.then(|| Step {
                weight: status["weight"].as_f64().unwrap_or_default() / 100.0,
                started_at: time(&status["stepStartedAt"]),
            }),
            verdict: status["verdict"].as_str().map(Into::into),
            holding_since: time(&status["holdingSince"]),
            stalled: condition(status, "Stalled").map(|condition| text(&condition["reason"])),
            decision: time(&decision["at"]).map(|at| Decision { at, reason: text(&decision["reason"]) }),
            decisions: BTreeMap::new(),
        }
    }

    fn decided_at(&self) -> Option<Timestamp> {
        self.decision.as_ref().map(|decision| decision.at)
    }

    /// Becomes `seen`, and keeps the counts.
    fn follow(&mut self, seen: Self, new_decision: bool) {
        let mut decisions = std::mem::take(&mut self.decisions);
        if let Some(decision) = seen.decision.as_ref().filter(|_| new_decision) {
            let count = decisions.entry(decision.reason.clone()).or_default();
            *count = count.saturating_add(1);
        }
        *self = Self { decisions, ..seen };
    }
}

fn name(object: &Value) -> Option<Name> {
    let metadata = &object["metadata"];
    Some((metadata["namespace"].as_str()?.into(), metadata["name"].as_str()?.into()))
}

fn text(value: &Value) -> Box<str> {
    value.as_str().unwrap_or_default().into()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// A condition that is true.
fn condition<'a>(status: &'a Value, type_: &str) -> Option<&'a Value> {
    let mut conditions = status["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == type_ && condition["status"] == "True")
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

const INFO: Shape = Shape::gauge(
    "anneal_rollout_info",
    "1 for each ModelRollout, with its phase, the version in production and the one on its way or rolled back last.",
    &["namespace", "rollout", "model", "phase", "stable", "candidate"],
);
const WEIGHT: Shape = Shape::gauge(
    "anneal_rollout_weight_ratio",
    "Share of live requests that the candidate is to answer, from 0 to 1, while one is on its way.",
    &["namespace", "rollout"],
);
const STEP_STARTED: Shape = Shape::gauge(
    "anneal_rollout_step_started_timestamp_seconds",
    "When the phase or step began, in Unix time, while a candidate is on its way.",
    &["namespace", "rollout"],
);
const HOLDING_SINCE: Shape = Shape::gauge(
    "anneal_rollout_holding_since_timestamp_seconds",
    "Since when a step cannot be judged, in Unix time, while that is so.",
    &["namespace", "rollout"],
);
const VERDICT: Shape = Shape::gauge(
    "anneal_rollout_verdict",
    "1 with the worst of the last verdicts, such as Breach, NoData or Pass; nothing while nothing was judged.",
    &["namespace", "rollout", "verdict"],
);
const STALLED: Shape = Shape::gauge(
    "anneal_rollout_stalled",
    "1 with the reason while someone must do something first.",
    &["namespace", "rollout", "reason"],
);
const DECISIONS: Shape = Shape::counter(
    "anneal_rollout_decisions_total",
    "Decisions that were recorded since this process leads, by reason.",
    &["namespace", "rollout", "reason"],
);
const FAMILIES: [Shape; 7] = [INFO, WEIGHT, STEP_STARTED, HOLDING_SINCE, VERDICT, STALLED, DECISIONS];

impl Collector for Rollouts {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.lock();
        let [
            mut info,
            mut weight,
            mut step_started,
            mut holding_since,
            mut verdict,
            mut stalled,
            mut decisions,
        ] = FAMILIES.map(Family::new);
        for ((namespace, rollout), seen) in all.iter() {
            let Seen { model, phase, stable, candidate, .. } = seen;
            info.add(&[namespace, rollout, model, phase, stable, candidate], 1.0);
            if let Some(step) = &seen.step {
                weight.add(&[namespace, rollout], step.weight);
                if let Some(at) = step.started_at {
                    step_started.add(&[namespace, rollout], seconds(at));
                }
            }
            if let Some(since) = seen.holding_since {
                holding_since.add(&[namespace, rollout], seconds(since));
            }
            if let Some(said) = &seen.verdict {
                verdict.add(&[namespace, rollout, said], 1.0);
            }
            if let Some(reason) = &seen.stalled {
                stalled.add(&[namespace, rollout, reason], 1.0);
            }
            for (reason, count) in &seen.decisions {
                decisions.add(&[namespace, rollout, reason], f64::from(*count));
            }
        }
        let families = [info, weight, step_started, holding_since, verdict, stalled, decisions];
        families.into_iter().filter_map(Family::finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};
    use serde_json::json;

    use super::*;

    fn object(status: Value) -> Value {
        json!({"metadata": {"namespace": "team-a", "name": "ads"}, "spec": {"model": "ads"}, "status": status})
    }

    /// A status whose decision was made at this second of a minute.
    fn decided(second: u32, reason: &str) -> Value {
        json!({"phase": "Canary", "decision": {"reason": reason, "at": format!("2026-11-21T12:00:{second:02}Z")}})
    }

    fn page(rollouts: &Rollouts) -> String {
        let registry = Registry::new();
        registry.register(Box::new(rollouts.clone())).unwrap();
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    fn counts(rollouts: &Rollouts) -> Vec<String> {
        let page = page(rollouts);
        let counted = page.lines().filter_map(|line| line.strip_prefix("anneal_rollout_decisions_total"));
        counted.map(|line| line.split("reason=").nth(1).unwrap().to_owned()).collect()
    }

    #[test]
    fn a_rollout_that_moves_says_how_and_one_that_is_gone_says_nothing() {
        let rollouts = Rollouts::new().unwrap();
        let condition =
            |type_: &str, reason: &str| json!({"type": type_, "status": "True", "reason": reason});
        rollouts.read(&object(json!({
            "phase": "Canary", "weight": 25, "stepStartedAt": "1970-01-01T00:01:40Z", "verdict": "NoData",
            "holdingSince": "1970-01-01T00:02:00Z", "stable": {"version": "v1"}, "candidate": {"version": "v\"2"},
            "conditions": [condition("Progressing", "StepStarted"), condition("Stalled", "GatewayMissing")],
        })));
        let page_now = page(&rollouts);
        for line in [
            r#"anneal_rollout_info{namespace="team-a",rollout="ads",model="ads",phase="Canary",stable="v1",candidate="v\"2"} 1"#,
            r#"anneal_rollout_weight_ratio{namespace="team-a",rollout="ads"} 0.25"#,
            r#"anneal_rollout_step_started_timestamp_seconds{namespace="team-a",rollout="ads"} 100"#,
            r#"anneal_rollout_holding_since_timestamp_seconds{namespace="team-a",rollout="ads"} 120"#,
            r#"anneal_rollout_verdict{namespace="team-a",rollout="ads",verdict="NoData"} 1"#,
            r#"anneal_rollout_stalled{namespace="team-a",rollout="ads",reason="GatewayMissing"} 1"#,
        ] {
            assert!(page_now.lines().any(|other| other == line), "{line} in {page_now}");
        }
        rollouts.read(&object(json!({"phase": "Healthy", "stable": {"version": "v1"}})));
        let at_rest = page(&rollouts);
        let series: Vec<_> = at_rest.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(series.len(), 1, "{series:?}");
        rollouts.forget("team-a", "ads");
        assert_eq!(page(&rollouts), "");
    }

    #[test]
    fn a_decision_is_counted_once_when_it_is_recorded() {
        let rollouts = Rollouts::new().unwrap();
        let before = object(decided(1, "Shadow"));
        rollouts.read(&before);
        assert!(counts(&rollouts).is_empty(), "the leader before this one counted it");
        rollouts.recorded(&before, &decided(2, "StepStarted"));
        rollouts.recorded(&object(decided(2, "StepStarted")), &decided(2, "StepStarted"));
        rollouts.read(&object(decided(2, "StepStarted")));
        assert_eq!(counts(&rollouts), [r#""StepStarted"} 1"#]);
    }

    #[test]
    fn a_decision_whose_answer_was_lost_is_counted_and_an_old_read_is_not_believed() {
        let rollouts = Rollouts::new().unwrap();
        rollouts.read(&object(decided(1, "Shadow")));
        rollouts.read(&object(decided(2, "StepStarted")));
        rollouts.read(&object(decided(1, "Shadow")));
        rollouts.read(&object(json!({})));
        rollouts.read(&object(decided(2, "StepStarted")));
        assert_eq!(counts(&rollouts), [r#""StepStarted"} 1"#]);
        assert!(page(&rollouts).contains(r#"phase="Canary""#));
    }

    #[test]
    fn the_first_decision_of_a_new_rollout_is_counted() {
        let rollouts = Rollouts::new().unwrap();
        rollouts.recorded(&object(Value::Null), &decided(1, "Preparing"));
        assert_eq!(counts(&rollouts), [r#""Preparing"} 1"#]);
    }
}
