//! What a decision is: the status to record, and what follows from it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    object::{Key, Object},
    patch::Patch,
};

/// A decision. The shell records `status` first; only when that has succeeded does it perform `actions`, in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan<S> {
    /// The whole status as it is to be.
    pub status: S,
    /// What makes the cluster follow the status. Every action may be performed any number of times.
    pub actions: Vec<Action>,
    /// What people are told: one for each transition, none while nothing changes.
    pub notes: Vec<Note>,
    /// When to decide again if nothing is seen to change before.
    pub wake: Wake,
}

impl<S: PartialEq> Plan<S> {
    /// Whether nothing is to be written and nobody to be told, where the status is as `seen`.
    pub fn is_idle(&self, seen: Option<&S>) -> bool {
        seen == Some(&self.status) && self.actions.is_empty() && self.notes.is_empty()
    }
}

/// One write to the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Creates an object that is never changed afterwards. One that exists already stays as it is.
    Create(Object),
    /// Makes an object so, whatever it was before, and creates it if it is absent.
    Apply(Object),
    /// Changes a part of an object that is someone else's, if it is still as it was read.
    Patch(Patch),
    /// Deletes this very object and none that took its name since.
    Delete {
        /// Where it lies.
        key: Key,
        /// Its uid.
        uid: String,
    },
}

/// An event for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Whether someone should look.
    pub severity: Severity,
    /// CamelCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// Whether someone should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// As expected.
    Normal,
    /// Someone should look.
    Warning,
}

/// When to decide again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wake {
    /// When something changes.
    OnChange,
    /// At this time, or when something changes before.
    At(Timestamp),
}

impl Wake {
    /// In `span` from `now`.
    pub fn after(now: Timestamp, span: jiff::SignedDuration) -> Self {
        Self::At(now.saturating_add(span).unwrap_or(Timestamp::MAX))
    }
}
