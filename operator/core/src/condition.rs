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
}

impl Truth {
    const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
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
    /// Sets a condition. Its time of transition changes only with its value.
    pub fn set(&mut self, type_: &str, truth: Truth, reason: &str, message: &str) {
        let position = self.conditions.iter().position(|condition| condition.type_ == type_);
        let unchanged =
            position.map(|at| &self.conditions[at]).filter(|condition| condition.status == truth.name());
        let condition = Condition {
            type_: type_.to_owned(),
            status: truth.name().to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: self.generation,
            last_transition_time: unchanged
                .map_or(Time(self.now), |condition| condition.last_transition_time.clone()),
        };
        match position {
            Some(at) => self.conditions[at] = condition,
            None => self.conditions.push(condition),
        }
    }

    /// The three conditions that kstatus reads: done, working or stuck.
    pub fn set_kstatus(&mut self, state: KState, reason: &str, message: &str) {
        self.set("Ready", (state == KState::Ready).into(), reason, message);
        self.set("Reconciling", (state == KState::Reconciling).into(), reason, message);
        self.set("Stalled", (state == KState::Stalled).into(), reason, message);
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
