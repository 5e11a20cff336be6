//! Missing readings: what becomes of a version on trial that cannot be judged, as the spec says for each reason.
//!
//! Called by `step` on every tick. A reason counts from when it was first seen in this step, and anew once it was gone.

use anneal_crds::{
    VersionRef,
    metric::{MissingAction, MissingClass, OnMissing},
    model_rollout::{Missing, RecordedReading},
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{draft::Draft, reading::Verdict};

impl Draft<'_> {
    /// Keeps track of since when readings are missing for which reason; nothing counts before a step has `settled`.
    pub(super) fn note_missing(&mut self, judged: &[(Verdict, RecordedReading)], settled: bool) {
        let before = std::mem::take(&mut self.status.missing);
        for class in [MissingClass::NoData, MissingClass::Stale, MissingClass::Error] {
            let is = |(verdict, _): &(Verdict, RecordedReading)| match verdict {
                Verdict::Hold(other, _) => *other == class,
                Verdict::Pass { .. } | Verdict::Breach | Verdict::AwaitsLabels(_) => false,
            };
            let known = before.iter().find(|missing| missing.class == class).cloned();
            let missing = known.or(settled.then_some(Missing { class, since: Time(self.now) }));
            self.status.missing.extend(missing.filter(|_| judged.iter().any(is)));
        }
    }

    /// Reason and message of the rollback that the spec asks for, if a reading has been missing for long enough.
    pub(super) fn missing_too_long(
        &self,
        version: &VersionRef,
        judged: &[(Verdict, RecordedReading)],
    ) -> Option<(&'static str, String)> {
        judged.iter().find_map(|(verdict, record)| match verdict {
            Verdict::Hold(class, why) => {
                let missing = self.status.missing.iter().find(|missing| missing.class == *class)?;
                let (field, policy) = self.policy(*class);
                let after = policy.after.map_or(SignedDuration::ZERO, |after| after.get());
                let due = self.now.duration_since(missing.since.0) >= after;
                (policy.action == MissingAction::Rollback && due).then(|| {
                    let message = format!(
                        "{} of {} cannot be read: {why}. {field} asks for a rollback.",
                        record.metric, version.version
                    );
                    ("ReadingMissing", message)
                })
            }
            Verdict::Pass { .. } | Verdict::Breach | Verdict::AwaitsLabels(_) => None,
        })
    }

    fn policy(&self, class: MissingClass) -> (&'static str, &OnMissing) {
        let judge = &self.rollout.spec.judge;
        match class {
            MissingClass::NoData => ("judge.onNoData", &judge.on_no_data),
            MissingClass::Stale => ("judge.onStale", &judge.on_stale),
            MissingClass::Error => ("judge.onError", &judge.on_error),
        }
    }
}
