//! Freezes: windows in which no version gets more traffic and none begins.
//!
//! Called by `by_hand`, before anything is decided. A freeze that cannot be understood is open until it is corrected: whoever
//! wrote it wanted something to stand still. No rollback asks here.

use anneal_crds::model_rollout::{Freeze, RolloutPhase};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use crate::{condition::Truth, cron::Cron, plan::Severity};

/// Whether a freeze is open, or cannot be understood.
pub(super) const FROZEN: &str = "Frozen";
/// How often something comes up that does so once a year.
const A_YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Why nothing may advance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    /// Whose doing it is.
    pub(super) cause: PauseCause,
    /// The same in words.
    pub(super) why: String,
}

/// Whose doing a pause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PauseCause {
    /// Someone asks for it.
    Person,
    /// The calendar does.
    Freeze,
}

impl PauseCause {
    /// As conditions write it.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Person => "Paused",
            Self::Freeze => FROZEN,
        }
    }
}

/// The freezes at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Freezes {
    /// None is open.
    #[default]
    Closed,
    /// These are.
    Open(Vec<Window>),
    /// Nobody knows, and why.
    Invalid(String),
}

/// An open window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Name of the freeze.
    pub(super) name: String,
    /// When it closes.
    pub(super) until: Timestamp,
}

impl Freezes {
    /// What is open at `now`. A window holds its first moment, and not its last.
    pub(super) fn at(freezes: &[Freeze], now: Timestamp) -> Self {
        let (mut open, mut wrong) = (vec![], vec![]);
        for freeze in freezes {
            match until(freeze, now) {
                Ok(Some(until)) => open.push(Window { name: freeze.name.clone(), until }),
                Ok(None) => {}
                Err(why) => wrong.push(format!("freeze {}: {why}", freeze.name)),
            }
        }
        if !wrong.is_empty() {
            return Self::Invalid(format!(
                "spec.strategy.freezes is wrong, so nothing advances until it is corrected: {}.",
                wrong.join("; ")
            ));
        }
        if open.is_empty() { Self::Closed } else { Self::Open(open) }
    }

    /// For people; none if nothing is frozen.
    fn told(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Closed => None,
            Self::Open(windows) => {
                let open: Vec<String> =
                    windows.iter().map(|open| format!("{} until {}", open.name, open.until)).collect();
                Some((FROZEN, format!("Nothing advances in the freeze {}.", open.join(", and "))))
            }
            Self::Invalid(why) => Some(("InvalidFreeze", why.clone())),
        }
    }

    /// Whether what is frozen may go on for someone who names this freeze.
    pub(super) fn yields_to(&self, despite: Option<&str>) -> bool {
        match self {
            Self::Closed => true,
            Self::Open(windows) => windows.iter().all(|open| despite == Some(open.name.as_str())),
            Self::Invalid(_) => false,
        }
    }
}

/// When the freeze closes; none if it is not open.
fn until(freeze: &Freeze, now: Timestamp) -> Result<Option<Timestamp>, String> {
    let cron = Cron::parse(&freeze.schedule, &freeze.time_zone).map_err(|error| error.to_string())?;
    let duration = freeze.duration.get();
    if duration >= cron.shortest_period().unwrap_or(A_YEAR) {
        return Err(format!(
            "it would open again before it closes, because {} is not less than the time from one opening of `{}` to the next",
            freeze.duration, freeze.schedule
        ));
    }
    let opened = now.checked_sub(duration).ok().and_then(|before| cron.last_within(before, now));
    Ok(opened.and_then(|opened| opened.checked_add(duration).ok()))
}

impl Draft<'_> {
    /// Looks at the calendar, and remembers when a freeze ends.
    pub(super) fn note_freezes(&mut self) {
        self.freezes = Freezes::at(&self.rollout.spec.strategy.freezes, self.snapshot.now);
        let was_frozen = self.was_frozen();
        let Some((reason, message)) = self.freezes.told() else {
            self.status.conditions.retain(|condition| condition.type_ != FROZEN);
            if was_frozen && self.is_under_way() {
                self.status.thawed_at = Some(Time(self.now));
            }
            return;
        };
        if !was_frozen && self.is_under_way() {
            self.note(Severity::Normal, reason, &message);
        }
        self.condition(FROZEN, Truth::True, reason, &message);
        if let Freezes::Open(windows) = &self.freezes
            && let Some(closes) = windows.iter().map(|open| open.until).min()
        {
            self.wake_at_latest(closes.duration_since(self.snapshot.now));
        }
    }

    /// The pause that the calendar asks for.
    pub(super) fn freeze(&self) -> Option<Pause> {
        self.freezes.told().map(|(_, why)| Pause { cause: PauseCause::Freeze, why })
    }

    fn was_frozen(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.type_ == FROZEN && condition.status == "True")
    }

    /// Whether a version is on its way or on trial.
    pub(super) fn is_under_way(&self) -> bool {
        self.status.phase.is_moving() || self.status.phase == RolloutPhase::Baking
    }
}
