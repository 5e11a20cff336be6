//! Warnings: metrics that people are told of, and that decide nothing.
//!
//! Called by `step` on every tick. The condition says what is out of bounds without its value, which changes from tick to
//! tick; the event, told once, has it.

use anneal_crds::VersionRef;

use super::{
    draft::Draft,
    reading::{self, Verdict},
    steps,
};
use crate::{condition::Truth, plan::Severity};

/// Condition: whether some metric of `warnTriggers` is out of its bounds.
pub(super) const WARNED: &str = "Warned";

impl Draft<'_> {
    /// Tells what the metrics say that people are warned by.
    pub(super) fn tell_warnings(&mut self, version: &VersionRef) {
        let spec = &self.rollout.spec;
        let (mut breaches, mut blind) = (vec![], vec![]);
        for trigger in steps::warn_triggers(spec, &self.status) {
            let (verdict, record) = match spec.metrics.iter().find(|metric| metric.name == *trigger) {
                Some(metric) => self.read_plainly(version, metric),
                None => reading::undefined(trigger),
            };
            match verdict {
                Verdict::Pass { .. } => {}
                Verdict::Breach => breaches.push(record),
                Verdict::Hold(_, why) => blind.push(format!("{trigger}: {why}")),
            }
        }
        if steps::warn_triggers(spec, &self.status).is_empty() {
            return self.status.conditions.retain(|said| said.type_ != WARNED);
        }
        let of = &version.version;
        let asked: Vec<String> = breaches
            .iter()
            .map(|record| format!("{} of {of} is not {}", record.metric, record.bound))
            .collect();
        let unread = match blind.split_first() {
            None => String::new(),
            Some((first, [])) => format!("{first}."),
            Some((first, others)) => format!("{first}; and {} more cannot be read.", others.len()),
        };
        if asked.is_empty() && unread.is_empty() {
            let message = "Every metric to be warned by is within its bounds.";
            return self.condition(WARNED, Truth::False, "WithinBounds", message);
        }
        if asked.is_empty() {
            return self.condition(WARNED, Truth::Unknown, "NoReading", &unread);
        }
        let message = format!("{}. It decides nothing; look at it. {unread}", asked.join("; "));
        let message = message.trim_end().to_owned();
        let is_news =
            !self.status.conditions.iter().any(|said| said.type_ == WARNED && said.message == message);
        if is_news {
            let values: Vec<String> = breaches
                .iter()
                .map(|record| {
                    format!(
                        "{} of {of} is {}, and {} is asked for",
                        record.metric, record.value, record.bound
                    )
                })
                .collect();
            self.note(Severity::Warning, "MetricWarning", &format!("{}.", values.join("; ")));
        }
        self.condition(WARNED, Truth::True, "OutOfBounds", &message);
    }
}
