//! All lanes: found again by namespace, origin, credential and certificates, and dropped when nobody uses them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{budget::Budget, failure::Failure, lane::Lane};
use crate::server::{Credential, Server, Tls};

/// Most servers that the rollouts of one namespace ask at once.
const MAX_LANES: usize = 16;
/// A lane that was not used for so long is dropped, with its connections and its certificates.
const IDLE: Duration = Duration::from_secs(300);

/// What makes two servers the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct LaneKey {
    namespace: String,
    origin: String,
    credential: Option<Credential>,
    tls: Tls,
}

struct Entry {
    lane: Arc<Lane>,
    used_at: Instant,
}

impl Entry {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.lane) == 1
    }
}

/// All lanes.
#[derive(Default)]
pub struct Lanes {
    lanes: HashMap<LaneKey, Entry>,
    budget: Budget,
}

impl Lanes {
    /// The lane to `server`, whichever of its paths is asked with whichever headers.
    pub fn of(&mut self, server: &Server, now: Instant) -> Result<Arc<Lane>, Failure> {
        self.lanes.retain(|_, entry| !entry.is_idle() || now.duration_since(entry.used_at) < IDLE);
        let key = LaneKey {
            namespace: server.namespace.clone(),
            origin: server.origin(),
            credential: server.credential.clone(),
            tls: server.tls.clone(),
        };
        if let Some(entry) = self.lanes.get_mut(&key) {
            entry.used_at = now;
            return Ok(entry.lane.clone());
        }
        self.make_room(&key.namespace)?;
        let mut others = self.lanes.iter().filter(|(other, _)| other.namespace == key.namespace);
        let budget =
            others.next().map_or_else(|| self.budget.other(), |(_, other)| other.lane.budget().clone());
        let lane = Arc::new(Lane::new(&server.tls, server.url.scheme() == "https", budget)?);
        self.lanes.insert(key, Entry { lane: lane.clone(), used_at: now });
        Ok(lane)
    }

    /// Drops the lane of the namespace that was idle for longest, if it has too many.
    fn make_room(&mut self, namespace: &str) -> Result<(), Failure> {
        let of_namespace = || self.lanes.iter().filter(|(key, _)| key.namespace == namespace);
        if of_namespace().count() < MAX_LANES {
            return Ok(());
        }
        let idle = of_namespace().filter(|(_, entry)| entry.is_idle());
        let oldest = idle.min_by_key(|(_, entry)| entry.used_at).map(|(key, _)| key.clone());
        let oldest = oldest.ok_or(Failure::TooManyServers)?;
        self.lanes.remove(&oldest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(namespace: &str, url: &str) -> Server {
        Server {
            namespace: namespace.into(),
            url: url.parse().unwrap(),
            headers: vec![],
            credential: None,
            tls: Tls::default(),
            timeout: Duration::from_secs(5),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_a_server_and_a_credential_have_a_lane_of_their_own() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let mut of = |server: &Server| lanes.of(server, now).unwrap();
        let first = of(&server("a", "http://p"));
        assert!(Arc::ptr_eq(&first, &of(&server("a", "http://p:80/prefix"))));
        assert!(!Arc::ptr_eq(&first, &of(&server("a", "http://p:81"))));
        assert!(!Arc::ptr_eq(&first, &of(&server("b", "http://p"))));
        let other = Server { credential: Credential::bearer("t"), ..server("a", "http://p") };
        assert!(!Arc::ptr_eq(&first, &of(&other)));
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_stay_few_and_idle_ones_go() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let busy: Vec<_> = (0..MAX_LANES)
            .map(|port| lanes.of(&server("a", &format!("http://p:{}", 1000 + port)), now).unwrap())
            .collect();
        assert!(matches!(lanes.of(&server("a", "http://q"), now), Err(Failure::TooManyServers)));
        lanes.of(&server("b", "http://q"), now).unwrap();
        drop(busy);
        lanes.of(&server("a", "http://q"), now).unwrap();
        assert_eq!(lanes.lanes.len(), MAX_LANES + 1);
        lanes.of(&server("b", "http://q"), now + IDLE).unwrap();
        assert_eq!(lanes.lanes.len(), 1);
    }
}
