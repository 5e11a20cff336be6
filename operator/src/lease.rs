//! Leader election over a Lease, by [`anneal_core::lease`]'s steps.
//!
//! Called by `run`. Every write replaces the lease as it was read, so the API server refuses the second of two.

use std::time::Duration;

use anneal_core::lease::{self, Step, View};
use jiff::SignedDuration;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, timeout};

use crate::ports::Clock;

/// Longest time of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// This process as a candidate for the lease.
pub(crate) struct Candidate<'a> {
    api: Api<Lease>,
    name: String,
    me: String,
    clock: &'a dyn Clock,
    seen: Option<(Lease, Instant)>,
}

impl<'a> Candidate<'a> {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, me: &str, clock: &'a dyn Clock) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me: me.to_owned(),
            clock,
            seen: None,
        }
    }

    /// One look and at most one write; whether this process holds the lease afterwards.
    pub(crate) async fn try_lead(&mut self) -> Result<bool, kube::Error> {
        let current = within(self.api.get_opt(&self.name)).await?;
        let now = Instant::now();
        let view = self.view(current.as_ref(), now);
        let wanted = match lease::step(&self.me, &view) {
            Step::Wait => return Ok(false),
            Step::Create => {
                let fresh = self.next(None);
                return Ok(accepted(within(self.api.create(&PostParams::default(), &fresh)).await)?.is_some());
            }
            Step::Take | Step::Renew => self.next(current),
        };
        let written = accepted(within(self.api.replace(&self.name, &PostParams::default(), &wanted)).await)?;
        Ok(written.is_some())
    }

    /// Gives the lease back, if it is still ours.
    pub(crate) async fn release(&mut self) -> Result<(), kube::Error> {
        let Some(mut current) = within(self.api.get_opt(&self.name)).await? else { return Ok(()) };
        let Some(spec) =
            current.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me))
        else {
            return Ok(());
        };
        spec.holder_identity = None;
        accepted(within(self.api.replace(&self.name, &PostParams::default(), &current)).await).map(|_| ())
    }

    fn view(&mut self, current: Option<&Lease>, now: Instant) -> View {
        let Some(current) = current else { return View::Absent };
        let holder = current
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone())
            .filter(|holder| !holder.is_empty());
        let since = match &self.seen {
            Some((seen, since)) if seen.metadata.resource_version == current.metadata.resource_version => {
                *since
            }
            Some(_) | None => now,
        };
        self.seen = Some((current.clone(), since));
        let unchanged_for =
            SignedDuration::try_from(now.duration_since(since)).unwrap_or(SignedDuration::MAX);
        holder.map_or(View::Free, |holder| View::Held { holder, unchanged_for })
    }

    /// The lease as this process would hold it.
    fn next(&self, current: Option<Lease>) -> Lease {
        let now = MicroTime(self.clock.now());
        let mut lease = current.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let old = lease.spec.take().unwrap_or_default();
        let keeps = old.holder_identity.as_deref() == Some(&self.me);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(lease::LEASE_DURATION.as_secs()).ok(),
            acquire_time: if keeps { old.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!keeps)),
            ..old
        });
        lease
    }
}

/// A write that came too late is no error: someone else leads.
fn accepted<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result,
        Err(_) => Err(kube::Error::Service("no answer to a lease call in time".into())),
    }
}
