//! Refusal: what the API server will say no to until someone changes something, told where people look.
//!
//! Called by [`crate::reconcile`] when a walk ended so. It writes conditions and nothing else: the decision stays as it was
//! recorded, and the next walk tries again.

use anneal_core::{
    condition::{KState, Refusal, RefusalReason, Writer, keep_times, not_before},
    object::Key,
    plan::{Note, Severity},
};
use anneal_crds::{Condition, common::shorten};
use serde_json::{Value, json};

use crate::{ports::ClusterError, reconcile::Ports};

/// Longest message, in bytes; a condition's may have 32 KiB, and nobody reads that.
const MESSAGE_LIMIT: usize = 1024;

/// Records a refusal as `Stalled` and publishes it once. Errors that may pass are left to the log.
pub(crate) async fn tell(ports: &Ports, key: &Key, error: &ClusterError) {
    let Some(refusal) = of(error) else { return };
    if let Err(error) = record(ports, key, refusal).await {
        tracing::warn!(%error, "a refusal could not be told");
    }
}

async fn record(ports: &Ports, key: &Key, refusal: Refusal) -> Result<(), ClusterError> {
    let cluster = ports.cluster.as_ref();
    // The walk may have recorded a status since it read the object.
    let Some(object) = cluster.get(key).await? else { return Ok(()) };
    let Some(status) = with(&object, &refusal, ports.clock.now()) else { return Ok(()) };
    match cluster.record_status(key, &object, status).await {
        Ok(()) => {}
        // Someone decided meanwhile, and knows better.
        Err(ClusterError::Conflict) => return Ok(()),
        Err(error) => return Err(error),
    }
    let reason = refusal.reason.name().to_owned();
    cluster.publish(&object, &Note { severity: Severity::Warning, reason, message: refusal.message }).await;
    Ok(())
}

fn of(error: &ClusterError) -> Option<Refusal> {
    let reason = match error {
        ClusterError::Refused { .. } => RefusalReason::Refused,
        ClusterError::Forbidden { .. } => RefusalReason::Forbidden,
        ClusterError::Conflict | ClusterError::NoSuchKind { .. } | ClusterError::Transient { .. } => {
            return None;
        }
    };
    Some(Refusal { reason, message: shorten(&error.to_string(), MESSAGE_LIMIT).into_owned() })
}

/// The status of `object` with the refusal in it; none if it says so already. The object may be one that this release
/// cannot read, so its JSON is changed and not its type.
fn with(object: &Value, refusal: &Refusal, now: jiff::Timestamp) -> Option<Value> {
    let mut status = object["status"].clone();
    let mut conditions: Vec<Condition> =
        serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
    let generation = object["metadata"]["generation"].as_i64();
    if conditions.iter().any(|told| is_told(told, refusal, generation)) {
        return None;
    }
    let before = conditions.clone();
    let now = not_before(now, &before, []);
    Writer { conditions: &mut conditions, generation, now }.set_kstatus(
        KState::Stalled,
        refusal.reason.name(),
        &refusal.message,
    );
    keep_times(&before, &mut conditions);
    if status.is_null() {
        status = json!({});
    }
    status["observedGeneration"] = generation.into();
    status["conditions"] = json!(conditions);
    Some(status)
}

/// Whether the same call was told for the same spec. A webhook may say it in other words each time, with a number or a time.
fn is_told(condition: &Condition, refusal: &Refusal, generation: Option<i64>) -> bool {
    let call = |message: &str| message.split(": ").next().map(str::to_owned);
    condition.type_ == "Stalled"
        && condition.status == "True"
        && condition.reason == refusal.reason.name()
        && condition.observed_generation == generation
        && call(&condition.message) == call(&refusal.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_written_once_and_keeps_the_rest_of_the_status() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let refusal = Refusal {
            reason: RefusalReason::Refused,
            message: "create Job n/j was refused: request 1".into(),
        };
        let mut object = json!({"metadata": {"generation": 3}, "status": {"phase": "Canary", "weight": 10}});
        let status = with(&object, &refusal, now).unwrap();
        assert_eq!((&status["phase"], &status["weight"]), (&json!("Canary"), &json!(10)));
        assert_eq!(status["conditions"][2]["reason"], "Refused");
        object["status"] = status;
        assert_eq!(with(&object, &refusal, now), None);
        let again = |message: &str| Refusal { message: message.into(), ..refusal.clone() };
        assert_eq!(with(&object, &again("create Job n/j was refused: request 2"), now), None);
        assert!(with(&object, &again("create Job n/k was refused: request 2"), now).is_some());
    }

    #[test]
    fn what_may_pass_is_not_told() {
        assert_eq!(of(&ClusterError::Conflict), None);
        let what = || "Job n/j".to_owned();
        let lost = ClusterError::Transient { verb: "create", what: what(), message: "timeout".into() };
        assert_eq!(of(&lost), None);
        let refused =
            ClusterError::Refused { verb: "create", what: what(), message: "duplicate mount".into() };
        assert_eq!(of(&refused).unwrap().message, "create Job n/j was refused: duplicate mount");
    }
}
