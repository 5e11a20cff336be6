//! Who leads: one step of leader election, without clock or cluster.
//!
//! A lease is judged by the time since this process saw it change, on its own monotonic clock, as client-go does: the
//! times inside the lease come from other machines' clocks. Every write carries the resourceVersion that was read, so of
//! two that see the same expired lease one wins. A lease is advice; what protects the cluster is that every status write
//! carries a resourceVersion too.

use jiff::SignedDuration;

/// How long a leader may be silent before others take over.
pub const LEASE_DURATION: SignedDuration = SignedDuration::from_secs(15);
/// How long a leader tries to renew before it gives up.
pub const RENEW_DEADLINE: SignedDuration = SignedDuration::from_secs(10);
/// How often everyone looks.
pub const RETRY_PERIOD: SignedDuration = SignedDuration::from_secs(2);

/// What is known of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// It does not exist.
    Absent,
    /// It was released.
    Free,
    /// `holder` has it, and it has not changed for `unchanged_for`.
    Held {
        /// Identity of the holder.
        holder: String,
        /// Time since this process saw it change.
        unchanged_for: SignedDuration,
    },
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create it.
    Create,
    /// Take it over.
    Take,
    /// Renew it.
    Renew,
    /// Leave it.
    Wait,
}

/// The next step of `me`.
pub fn step(me: &str, view: &View) -> Step {
    match view {
        View::Absent => Step::Create,
        View::Free => Step::Take,
        View::Held { holder, .. } if holder == me => Step::Renew,
        View::Held { unchanged_for, .. } if *unchanged_for >= LEASE_DURATION => Step::Take,
        View::Held { .. } => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_only_when_free_or_silent_for_its_whole_duration() {
        let held = |holder: &str, seconds| View::Held {
            holder: holder.into(),
            unchanged_for: SignedDuration::from_secs(seconds),
        };
        assert_eq!(step("a", &View::Absent), Step::Create);
        assert_eq!(step("a", &View::Free), Step::Take);
        assert_eq!(step("a", &held("a", 60)), Step::Renew);
        assert_eq!(step("a", &held("b", 14)), Step::Wait);
        assert_eq!(step("a", &held("b", 15)), Step::Take);
    }
}
