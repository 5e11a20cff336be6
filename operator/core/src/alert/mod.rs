//! Alerts of Alertmanager, and which versions they take out of traffic.
//!
//! Called by the shell's receiver of alerts. Everything here is total and bounded: a body, a selector and an expression
//! come from elsewhere. An alert that may have begun before the candidate answered a request is never held against it.

mod selector;

use std::{collections::BTreeMap, str::FromStr as _};

use anneal_crds::{ModelRollout, common::shorten, names};
use jiff::Timestamp;
use serde::Deserialize;

pub use selector::{Selector, SelectorError};

use crate::rollout::abortable;

/// Most alerts of one message.
pub const MAX_ALERTS: usize = 1000;
/// Longest name of an alert that is repeated, in bytes.
const MAX_NAME: usize = 120;

/// An alert as Alertmanager tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Whether it still fires.
    pub status: AlertStatus,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it began to fire. Prometheus counts from the end of the rule's `for`.
    pub starts_at: Timestamp,
    /// What Alertmanager knows it by.
    pub fingerprint: String,
}

/// Whether an alert still fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// It fires.
    Firing,
    /// It has ended.
    Resolved,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// It has another shape.
    #[error("this is no message of Alertmanager's webhook; send its webhook_configs here")]
    Shape(#[source] serde_json::Error),
    /// It has another version.
    #[error("version {0} of Alertmanager's webhook is not known; version 4 is")]
    Version(String),
    /// It is too long.
    #[error("{0} alerts in one message, and at most {MAX_ALERTS} are read; set max_alerts")]
    TooMany(usize),
}

/// The alerts in a message of Alertmanager's webhook, version 4
/// (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>). The caller bounds its length.
pub fn alerts(message: &[u8]) -> Result<Vec<Alert>, MessageError> {
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    #[derive(Deserialize)]
    struct Message {
        alerts: Vec<Alert>,
    }
    let Version { version } = serde_json::from_slice(message).map_err(MessageError::Shape)?;
    if version != "4" {
        return Err(MessageError::Version(shorten(&version, 20).into_owned()));
    }
    let Message { alerts } = serde_json::from_slice(message).map_err(MessageError::Shape)?;
    if alerts.len() > MAX_ALERTS {
        return Err(MessageError::TooMany(alerts.len()));
    }
    Ok(alerts)
}

/// The selectors that a rollout declares; any of them may match.
pub fn selectors(rollout: &ModelRollout) -> Result<Vec<Selector>, SelectorError> {
    rollout.spec.strategy.abort_on_alerts.iter().map(|text| Selector::from_str(text)).collect()
}

/// What to write into [`names::ANNOTATION_ABORT`] of `rollout`, if one of the alerts takes its candidate out of traffic:
/// `<candidate's version>: alert <name> fires`. None if that is written already.
pub fn abort(rollout: &ModelRollout, selectors: &[Selector], alerts: &[Alert]) -> Option<String> {
    let status = rollout.status.as_ref()?;
    let version = &abortable(status)?.version;
    // What the version before did is no reason to give this one up.
    let since = status.trial_started_at.as_ref().or(status.step_started_at.as_ref())?.0;
    let told = rollout.metadata.annotations.as_ref().and_then(|all| all.get(names::ANNOTATION_ABORT));
    let spent = status.retry.as_ref().and_then(|retry| retry.spent_abort.as_ref());
    let still_meant = told.filter(|told| Some(*told) != spent);
    if still_meant.and_then(|told| told.split_once(": ")).is_some_and(|(other, _)| other == version) {
        return None;
    }
    let fires = |alert: &&Alert| match alert.status {
        AlertStatus::Firing => alert.starts_at >= since,
        AlertStatus::Resolved => false,
    };
    let mut held_against = alerts.iter().filter(fires);
    let alert = held_against.find(|alert| selectors.iter().any(|selector| selector.matches(alert)))?;
    let name = alert.labels.get("alertname").map_or("without a name", String::as_str);
    let why = format!("{version}: alert {} fires", shorten(name, MAX_NAME));
    // The same words again would be taken for those that have done their work.
    Some(if told == Some(&why) { format!("{why} again") } else { why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_alertmanager_sends_it() {
        // From Alertmanager 0.28.
        let message = br#"{"receiver":"anneal","status":"firing","alerts":[{"status":"firing","labels":{"alertname":"HighErrors"},
            "annotations":{"summary":"x"},"startsAt":"2026-11-21T12:00:00.123456789+01:00","endsAt":"0001-01-01T00:00:00Z",
            "generatorURL":"http://p/graph","fingerprint":"c7f6"},{"status":"resolved","labels":{},"annotations":{},
            "startsAt":"2026-11-21T12:00:00Z","endsAt":"2026-11-21T12:05:00Z","generatorURL":"","fingerprint":"c7f7"}],
            "groupLabels":{},"commonLabels":{},"commonAnnotations":{},"externalURL":"http://a","version":"4",
            "groupKey":"{}:{}","truncatedAlerts":0}"#;
        let alerts = alerts(message).unwrap();
        assert_eq!(
            alerts.iter().map(|alert| alert.status).collect::<Vec<_>>(),
            [AlertStatus::Firing, AlertStatus::Resolved]
        );
        assert_eq!(alerts[0].starts_at.to_string(), "2026-11-21T11:00:00.123456789Z");
    }

    #[test]
    fn other_messages_are_refused() {
        let many = vec![
            r#"{"status":"firing","labels":{},"startsAt":"2026-11-21T12:00:00Z","fingerprint":""}"#;
            MAX_ALERTS + 1
        ];
        for (message, why) in [
            ("{}".to_owned(), "no message"),
            (r#"{"version":"5","alerts":1}"#.to_owned(), "version 5"),
            (r#"{"version":"4","alerts":[{"status":"firing"}]}"#.to_owned(), "no message"),
            (format!(r#"{{"version":"4","alerts":[{}]}}"#, many.join(",")), "1001 alerts"),
        ] {
            let error = alerts(message.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
