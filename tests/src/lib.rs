//! The world simulation and the end-to-end run.
