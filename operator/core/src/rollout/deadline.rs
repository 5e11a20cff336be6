//! Deadlines: how much of the time is over in which a version's pods must be ready, or its step be judged.
//!
//! Asked by `plan`, `staging` and `step`. No time counts that is none of the version's own: that of a freeze, and that in which it was
//! ready and something else kept it where it was.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{draft::Draft, freeze::Freezes};

impl Draft<'_> {
    /// The version is ready, and waits for people, for others or for the route.
    pub(super) fn stop_deadline(&mut self) {
        let now = Time(self.now);
        self.status.waiting_since.get_or_insert(now);
    }

    /// It is not ready. What it waited for before took nothing of its time, which begins anew.
    pub(super) fn run_deadline(&mut self) {
        if self.status.waiting_since.take().is_some() {
            self.status.thawed_at = Some(Time(self.now));
        }
    }

    /// How much of a deadline that runs since then is over: nothing in a freeze, and it begins anew when one ends.
    pub(super) fn overdue_since(&self, since: &Time) -> SignedDuration {
        match self.freezes {
            Freezes::Open(_) | Freezes::Invalid(_) => SignedDuration::ZERO,
            Freezes::Closed => {
                let thawed = self.status.thawed_at.as_ref().map_or(since.0, |thawed| thawed.0);
                self.now.duration_since(since.0.max(thawed))
            }
        }
    }
}
