//! The operator's shell: watch, observe, record, perform.
