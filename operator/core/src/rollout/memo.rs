//! Memo: what plans for one and the same world have found out, so that a tick in which nothing moved does not compare every
//! child with what it is to be once more.
//!
//! Kept by the shell beside what a look saw, and handed in with the snapshot. It holds results of pure functions of what never
//! changes between the plans that share it (the rollout with its recorded status, its versions and its children), so it changes no
//! plan.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use crate::object::Kind;

/// What is known of a world in which only time and answers move. A new one knows nothing.
#[derive(Debug, Default)]
pub struct Memo {
    /// Children that are as the spec asks for; the route and Services, if they are as the recorded status does.
    right: Mutex<BTreeSet<(Kind, String)>>,
}

impl Memo {
    /// Whether the child with this name is known to be as it is to be.
    pub fn is_right(&self, kind: Kind, name: &str) -> bool {
        self.right
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|known| known.0 == kind && known.1 == name)
    }

    /// It was compared, and is.
    pub(super) fn note_right(&self, kind: Kind, name: &str) {
        self.right.lock().unwrap_or_else(PoisonError::into_inner).insert((kind, name.to_owned()));
    }
}
