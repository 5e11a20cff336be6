//! Asks a training loop to stop after its current step.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};

use crate::error::Failure;

/// Whether to stop; the loop asks after every step.
#[derive(Clone)]
pub struct Stop(Arc<dyn Fn(u64) -> bool + Send + Sync>);

impl Stop {
    /// Stops when the condition on the number of steps first holds.
    pub fn when(condition: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(condition))
    }

    /// Never stops.
    pub fn never() -> Self {
        Self::when(|_| false)
    }

    /// Stops on SIGTERM or SIGINT. From here on neither ends the process by itself.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signal(runtime: &Handle) -> Result<Self, Failure> {
        let failed = |source| Failure::System { action: "watch for signals".to_owned(), source };
        let _guard = runtime.enter();
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let asked = Arc::new(AtomicBool::new(false));
        let flag = asked.clone();
        runtime.spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Self::when(move |_| asked.load(Ordering::Relaxed)))
    }

    pub(crate) fn requested(&self, step: u64) -> bool {
        (self.0)(step)
    }
}
