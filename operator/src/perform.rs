//! Perform: one API call for each action, in the plan's order.
//!
//! Called by [`crate::reconcile`] after the status was recorded. Every call may be repeated.

use anneal_core::plan::Action;

use crate::ports::{Cluster, ClusterError};

/// Does what the plan asks for; stops at the first call that fails, because later ones may rest on it. Only a create does
/// not stop the others: what it makes may be there already, behind a quota that answers first.
pub async fn perform(cluster: &dyn Cluster, actions: &[Action]) -> Result<(), ClusterError> {
    let mut created = Ok(());
    for action in actions {
        match action {
            Action::Create(object) => created = created.and(cluster.create(object).await),
            Action::Apply(object) => cluster.apply(object).await?,
            Action::Patch(patch) => cluster.patch(patch).await?,
            Action::Delete { key, uid } => cluster.delete(key, uid).await?,
        }
    }
    created
}
