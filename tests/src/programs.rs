//! Real programs beside a test: started by it, on addresses of this machine alone, and ended with it.
//!
//! Used by tests that `cargo xtask test` tells where the programs are.

use std::{
    ffi::OsStr,
    io,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::net::TcpListener;

/// A program that ends with the test.
#[derive(Debug)]
pub struct Program(Child);

impl Program {
    /// Starts it.
    pub fn start(program: impl AsRef<OsStr>, args: &[&str]) -> io::Result<Self> {
        Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn().map(Self)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An address that was free a moment ago.
pub async fn free_address() -> io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string())
}

/// Looks again until there is something, at most for a minute.
pub async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    for _ in 0..600 {
        if let Some(found) = look().await {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}
