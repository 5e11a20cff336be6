//! Warnings: metrics that people are told of, and that decide nothing.
//!
//! Called by `step` on every tick. The condition says what is out of bounds without its value, which changes from tick to
//! tick; the event, told once, has it.

use anneal_crds::{VersionRef, model_rollout::RecordedReading};

use super::{
    draft::Draft,
    reading::{self, Verdict},
    step, steps,
};
use crate::{condition::Truth, plan::Severity};

/// Condition: whether some metric of `warnTriggers` is out of its bounds.
pub(super) const WARNED: &str = "Warned";

/// What follows what is out of bounds.
const LOOK: &str = ". It decides nothing; look at it.";

/// What the metrics say that people are warned by.
struct Warnings {
    /// Readings out of their bounds.
    breaches: Vec<RecordedReading>,
    /// What could not be read and why.
    unread: String,
}

impl Draft<'_> {
    /// Tells what the metrics say that people are warned by.
    pub(super) fn tell_warnings(&mut self, version: &VersionRef) {
        if steps::warn_triggers(&self.rollout.spec, &self.status).is_empty() {
            return self.status.conditions.retain(|said| said.type_ != WARNED);
        }
        let Warnings { breaches, unread } = self.warnings(version);
        let unread = self.unread_as_told(unread);
        let of = &version.version;
        let each = |words: &dyn Fn(&RecordedReading) -> String| {
            breaches
                .iter()
                .map(|reading| format!("{} of {of} {}", reading.metric, words(reading)))
                .collect::<Vec<_>>()
                .join("; ")
        };
        if breaches.is_empty() && unread.is_empty() {
            let message = "Every metric to be warned by is within its bounds.";
            return self.condition(WARNED, Truth::False, "WithinBounds", message);
        }
        if breaches.is_empty() {
            return self.condition(WARNED, Truth::Unknown, "NoReading", &unread);
        }
        let what = format!("{}{LOOK}", each(&|reading| format!("is not {}", reading.bound)));
        let message = format!("{what} {unread}");
        let message = message.trim_end();
        if !self.status.conditions.iter().any(|said| said.type_ == WARNED && said.message.starts_with(&what))
        {
            let values = each(&|reading| format!("is {}, and {} is asked for", reading.value, reading.bound));
            self.note(Severity::Warning, "MetricWarning", &format!("{values}."));
        }
        self.condition(WARNED, Truth::True, "OutOfBounds", message);
    }

    /// Words that change with every answer of a server would be a write each time, and a write wakes the next look.
    fn unread_as_told(&self, unread: String) -> String {
        let Some(told) = self.told_before(WARNED).filter(|_| !unread.is_empty()) else { return unread };
        let before =
            told.message.split_once(LOOK).map_or(told.message.as_str(), |(_, rest)| rest.trim_start());
        step::as_before(before, &unread).to_owned()
    }

    fn warnings(&self, version: &VersionRef) -> Warnings {
        let spec = &self.rollout.spec;
        let (mut breaches, mut blind) = (vec![], vec![]);
        for trigger in steps::warn_triggers(spec, &self.status) {
            let (verdict, record) = match spec.metrics.iter().find(|metric| metric.name == *trigger) {
                Some(metric) => self.read_plainly(version, metric),
                None => reading::undefined(trigger),
            };
            match verdict {
                Verdict::Pass { .. } | Verdict::AwaitsLabels(_) => {}
                Verdict::Breach => breaches.push(record),
                Verdict::Hold(_, why) => blind.push(format!("{trigger}: {why}")),
            }
        }
        let unread = match blind.split_first() {
            None => String::new(),
            Some((first, [])) => format!("{first}."),
            Some((first, others)) => format!("{first}; and {} more cannot be read.", others.len()),
        };
        Warnings { breaches, unread }
    }
}
