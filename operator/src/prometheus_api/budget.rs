//! How much memory answers may take while they arrive, so that no server and no namespace can take all of it.
//!
//! Small answers, which is what nearly all are, cost nothing. Nobody ever waits for memory: there is some, or the answer is
//! refused.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a block; the first of each answer is free.
pub const BLOCK: usize = 64 << 10;
/// Blocks of all namespaces together: 32 MiB.
const ALL: usize = 512;
/// Blocks of one namespace: 8 MiB.
const OF_NAMESPACE: usize = 128;

/// What the answers of one namespace may take.
#[derive(Clone)]
pub struct Budget {
    all: Arc<Semaphore>,
    of_namespace: Arc<Semaphore>,
}

/// What one answer takes, until it is dropped.
#[derive(Default)]
pub struct Share(Vec<(OwnedSemaphorePermit, OwnedSemaphorePermit)>);

impl Default for Budget {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL)), of_namespace: Arc::new(Semaphore::new(OF_NAMESPACE)) }
    }
}

impl Budget {
    /// The budget of another namespace.
    pub fn other(&self) -> Self {
        Self { all: self.all.clone(), ..Self::default() }
    }

    /// Makes `share` large enough for so many bytes, if there is room.
    pub fn grow(&self, share: &mut Share, bytes: usize) -> bool {
        while share.0.len() < bytes.div_ceil(BLOCK).saturating_sub(1) {
            let permits =
                (self.of_namespace.clone().try_acquire_owned(), self.all.clone().try_acquire_owned());
            let (Ok(of_namespace), Ok(all)) = permits else { return false };
            share.0.push((of_namespace, all));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_can_take_its_part_and_leaves_the_others_theirs() {
        let budget = Budget::default();
        let (mut first, mut second) = (Share::default(), Share::default());
        assert!(budget.grow(&mut first, (OF_NAMESPACE + 1) * BLOCK));
        assert!(budget.grow(&mut second, BLOCK), "the first block is free");
        assert!(!budget.grow(&mut second, BLOCK + 1));
        assert!(budget.other().grow(&mut Share::default(), 2 * BLOCK));
        drop(first);
        assert!(budget.grow(&mut second, BLOCK + 1));
    }

    #[test]
    fn all_namespaces_together_cannot_take_more_than_there_is() {
        let budget = Budget::default();
        let mut shares = vec![];
        for _ in 0..ALL / OF_NAMESPACE {
            let mut share = Share::default();
            assert!(budget.other().grow(&mut share, (OF_NAMESPACE + 1) * BLOCK));
            shares.push(share);
        }
        assert!(!budget.other().grow(&mut Share::default(), 2 * BLOCK));
    }
}
