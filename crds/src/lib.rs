//! Anneal's API types and the contract between operator and trainer.
