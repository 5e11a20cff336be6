//! Fit: a status that people can read, and that every write and every watch can carry.
//!
//! Called by `draft` for a status that is about to be written. What decisions rest on always stays; what only explains them is cut
//! where all of it together is too much: sixteen metrics in a comparison, each with a long query, after twenty rollbacks.

use anneal_crds::{ModelRolloutStatus, common::shorten, model_rollout::RecordedReading};

use super::reading;

/// Most bytes of a status.
const MOST: usize = 32 * 1024;
/// Most bytes of a query in a status that is too long.
const SHORT_QUERY: usize = 60;
/// Rejected versions that are kept in one. Those before are marked on their records.
const LAST_REJECTED: usize = 8;

/// Most bytes of a message in a status that is too long without all that.
const SHORT_MESSAGE: usize = 200;

/// What can be left out, and first what is missed least.
const CUTS: [fn(&mut ModelRolloutStatus); 5] =
    [shorten_queries, leave_out_passes, forget_first_rejections, leave_out_readings, shorten_messages];

/// Cuts as much as is needed.
pub(super) fn fit(status: &mut ModelRolloutStatus) {
    for cut in CUTS {
        if serde_json::to_string(status).map_or(0, |text| text.len()) <= MOST {
            return;
        }
        cut(status);
    }
}

fn readings(status: &mut ModelRolloutStatus) -> impl Iterator<Item = &mut Vec<RecordedReading>> {
    let decisions = status.decision.iter_mut().chain(&mut status.waiting_rollback);
    decisions.map(|decision| &mut decision.readings)
}

fn shorten_queries(status: &mut ModelRolloutStatus) {
    for reading in readings(status).flatten() {
        reading.query = shorten(&reading.query, SHORT_QUERY).into_owned();
    }
}

fn leave_out_passes(status: &mut ModelRolloutStatus) {
    readings(status).for_each(|readings| readings.retain(|reading| reading.verdict != reading::PASS));
}

fn forget_first_rejections(status: &mut ModelRolloutStatus) {
    let surplus = status.rejected.len().saturating_sub(LAST_REJECTED);
    status.rejected.drain(..surplus);
}

fn leave_out_readings(status: &mut ModelRolloutStatus) {
    readings(status).for_each(Vec::clear);
}

fn shorten_messages(status: &mut ModelRolloutStatus) {
    let decisions = status.decision.iter_mut().chain(&mut status.waiting_rollback);
    let decisions = decisions.map(|decision| &mut decision.message);
    let told = status.conditions.iter_mut().map(|condition| &mut condition.message);
    for message in decisions.chain(told) {
        *message = shorten(message, SHORT_MESSAGE).into_owned();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Two decisions on sixteen metrics, twenty rollbacks, and `judge` bytes of a comparison.
    fn status(judge: usize) -> ModelRolloutStatus {
        let reading = |number: usize| {
            let verdict = if number == 7 { "Breach" } else { "Pass" };
            json!({"metric": format!("{}{number}", "m".repeat(60)), "verdict": verdict, "value": "v".repeat(60),
                "bound": "b".repeat(40), "query": "q".repeat(300)})
        };
        let readings: Vec<Value> = (0..16).map(reading).collect();
        let decision = json!({"reason": "ThresholdBreached", "message": "x".repeat(1000), "at": "2026-11-22T00:00:00Z",
            "readings": readings});
        let reference = |number: usize| {
            json!({"name": format!("{}-v20261121.{number}", "m".repeat(40)),
            "version": format!("v20261121.{number}"), "digest": format!("sha256:{number:064}")})
        };
        let rejection = |number| {
            let mut rejection = reference(number);
            rejection["reason"] = "ProgressDeadlineExceeded".into();
            rejection["retried"] = "x".repeat(200).into();
            rejection
        };
        let body = json!({"phase": "Canary", "weight": 20, "stable": reference(1), "candidate": reference(2),
            "decision": decision, "waitingRollback": decision, "judge": {"state": "j".repeat(judge)},
            "rejected": (100..120).map(rejection).collect::<Vec<_>>()});
        serde_json::from_value(body).unwrap()
    }

    fn fitted(judge: usize) -> (ModelRolloutStatus, usize) {
        let mut status = status(judge);
        fit(&mut status);
        let length = serde_json::to_string(&status).unwrap().len();
        (status, length)
    }

    #[test]
    fn what_is_short_enough_stays_as_it_is() {
        assert_eq!(fitted(1_000).0, status(1_000));
    }

    #[test]
    fn a_status_is_cut_no_more_than_it_must_be_and_never_what_decides() {
        let cut = |judge| {
            let (status, length) = fitted(judge);
            assert!(length <= MOST, "{judge}: {length} bytes");
            assert_eq!(status.judge, self::status(judge).judge);
            let readings = &status.decision.as_ref().unwrap().readings;
            let query = readings.first().map_or(0, |reading| reading.query.len());
            (query < 300, readings.len(), status.rejected.len())
        };
        assert_eq!(cut(10_000), (true, 16, 20));
        assert_eq!(cut(16_000), (true, 1, 20));
        assert_eq!(cut(22_000), (true, 1, 8));
        assert_eq!(cut(27_000), (true, 0, 8));
        let (long, _) = fitted(27_000);
        assert!(long.decision.unwrap().message.len() <= SHORT_MESSAGE);
    }
}
