//! Conditions: what `kubectl wait`, Argo CD and Flux read.

use anneal_crds::Condition;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A condition's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Nobody can tell.
    Unknown,
}

impl Truth {
    const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Writes conditions of one generation at one time.
pub struct Writer<'a> {
    /// The conditions so far.
    pub conditions: &'a mut Vec<Condition>,
    /// `metadata.generation` that was looked at.
    pub generation: Option<i64>,
    /// Now.
    pub now: Timestamp,
}

impl Writer<'_> {
    /// Sets a condition. Its time is now; `keep_times` puts the old one back where nothing changed in the end.
    pub fn set(&mut self, type_: &str, truth: Truth, reason: &str, message: &str) {
        let condition = Condition {
            type_: type_.to_owned(),
            status: truth.name().to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: self.generation,
            last_transition_time: Time(self.now),
        };
        match self.conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(old) => *old = condition,
            None => self.conditions.push(condition),
        }
    }

    /// The three conditions that kstatus reads: done, working or stuck.
    pub fn set_kstatus(&mut self, state: KState, reason: &str, message: &str) {
        for (type_, meant) in KSTATUS.into_iter().zip([KState::Ready, KState::Reconciling, KState::Stalled]) {
            self.set(type_, (state == meant).into(), reason, message);
        }
    }
}

/// Now, but not before any time that was recorded: a leader on a machine whose clock is behind must not see time run
/// backwards.
pub fn not_before<'a>(
    now: Timestamp,
    conditions: &'a [Condition],
    times: impl IntoIterator<Item = Option<&'a Time>>,
) -> Timestamp {
    let transitions = conditions.iter().map(|condition| &condition.last_transition_time);
    transitions.chain(times.into_iter().flatten()).fold(now, |latest, time| latest.max(time.0))
}

/// The API server's no to something that a plan asks for. It will say no again until someone changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whether the object or the right to write it is wrong.
    pub reason: RefusalReason,
    /// What was tried, and the API server's words.
    pub message: String,
}

/// Why the API server says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The object may not be so.
    Refused,
    /// The operator lacks a right, or a quota is used up.
    Forbidden,
}

impl RefusalReason {
    const ALL: [Self; 2] = [Self::Refused, Self::Forbidden];

    /// As conditions and events write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "Refused",
            Self::Forbidden => "Forbidden",
        }
    }
}

/// A condition that ends with the value that it had has not changed, however often it was set in between.
pub fn keep_times(before: &[Condition], conditions: &mut [Condition]) {
    for condition in conditions {
        let same = |old: &&Condition| old.type_ == condition.type_ && old.status == condition.status;
        if let Some(old) = before.iter().find(same) {
            condition.last_transition_time = old.last_transition_time.clone();
        }
    }
}

const KSTATUS: [&str; 3] = ["Ready", "Reconciling", "Stalled"];

/// What was refused stays told for as long as something waits to be done: else every try would take the message away
/// before it can be read, and write twice.
pub(crate) fn keep_refusal(before: &[Condition], conditions: &mut [Condition]) {
    let refused = |condition: &Condition| {
        condition.type_ == "Stalled"
            && condition.status == "True"
            && RefusalReason::ALL.iter().any(|reason| reason.name() == condition.reason)
    };
    if !before.iter().any(refused) {
        return;
    }
    for condition in conditions.iter_mut().filter(|condition| KSTATUS.contains(&condition.type_.as_str())) {
        if let Some(told) = before.iter().find(|told| told.type_ == condition.type_) {
            *condition = told.clone();
        }
    }
}

/// What kstatus makes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KState {
    /// As wished.
    Ready,
    /// On the way.
    Reconciling,
    /// Someone must do something first.
    Stalled,
}
