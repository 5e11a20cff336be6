//! Names: from the name of a host to its addresses, one lookup of a lane at a time.
//!
//! The system's resolver blocks a thread, and goes on when nobody waits for it any more. Those threads are shared by all
//! lanes, so one whose name server hangs may hold one of them and no more.

use std::{net::ToSocketAddrs as _, sync::Arc};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// The system's resolver, for one lane.
pub struct Names(Arc<Semaphore>);

impl Default for Names {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let turns = self.0.clone();
        Box::pin(async move {
            let turn = turns.acquire_owned().await?;
            let lookup = move || {
                // Ends with the lookup, and not with whoever asked for it.
                let _turn = turn;
                (name.as_str(), 0).to_socket_addrs()
            };
            let addresses: Addrs = Box::new(spawn_blocking(lookup).await??);
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_after_the_one_before_it() {
        let names = Names::default();
        let before = names.0.clone().acquire_owned().await.unwrap();
        let mut after = names.resolve("localhost".parse().unwrap());
        assert!((&mut after).now_or_never().is_none());
        drop(before);
        let addresses: Vec<_> = after.await.unwrap_or_else(|error| panic!("{error}")).collect();
        assert!(addresses.iter().any(|address| address.ip().is_loopback()), "{addresses:?}");
        assert!(names.resolve("no-such-host.invalid".parse().unwrap()).await.is_err());
    }
}
