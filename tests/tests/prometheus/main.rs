//! The real Prometheus adapter against real servers on this machine, over HTTP and TLS.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

mod credentials;
mod harness;
mod isolation;
mod limits;
mod table;
mod tls;
