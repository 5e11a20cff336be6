//! Anneal's decisions: pure, total functions from a snapshot to a plan.
