//! Endpoints: whom requests to a Service reach, by what its EndpointSlices list.
//!
//! Filled by the shell's `observe`, asked wherever someone is to get requests. A pod is ready before its Service leads to it, and
//! a Service that someone changed leads nowhere although all pods are ready: a weight that is written in between is answered by
//! the gateway, with an error.

use std::collections::{BTreeMap, BTreeSet};

use anneal_crds::{ModelRollout, VersionRef};
use serde_json::Value;

use super::{
    build::{self, Home},
    draft::Draft,
    incumbent::Incumbent,
    steps,
};
use crate::trouble::Trouble;

/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Reason: pods are ready, and their Service does not lead to them.
const MISSING: &str = "EndpointsMissing";

/// How many endpoints take requests, by Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// Those of every Service that has an EndpointSlice.
    Known(BTreeMap<String, usize>),
    /// They could not be read this time.
    Unknown,
    /// The operator may not read them.
    Denied,
}

impl Endpoints {
    /// What these EndpointSlices list. A pod is in one of each family of addresses, and may be in two of them for a moment.
    pub fn of(slices: &[Value]) -> Self {
        let mut ready = BTreeMap::<String, BTreeSet<&str>>::new();
        for slice in slices {
            let Some(service) = slice["metadata"]["labels"][SERVICE_NAME].as_str() else { continue };
            let pods = ready.entry(service.to_owned()).or_default();
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            // Without a word it counts as ready, as the API has it.
            let endpoints = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
            pods.extend(
                endpoints.filter_map(|of| of["targetRef"]["uid"].as_str().or(of["addresses"][0].as_str())),
            );
        }
        Self::Known(ready.into_iter().map(|(service, pods)| (service, pods.len())).collect())
    }

    /// How many a Service leads to, if it has EndpointSlices and they could be read. Every Service with a selector has one, so where
    /// there is none it was not seen.
    fn behind(&self, service: &str) -> Option<usize> {
        match self {
            Self::Known(known) => known.get(service).copied(),
            Self::Unknown | Self::Denied => None,
        }
    }
}

/// The Service of someone else's whose EndpointSlices a plan looks at: the one that serves before any version does.
pub fn adopted_service(rollout: &ModelRollout) -> Option<&str> {
    Some(rollout.status.as_ref()?.adopted.as_ref()?.service.as_str())
}

impl Draft<'_> {
    /// Whether the Service of a version leads to so many pods. What is not known is not so.
    pub(super) fn leads_to(&self, version: &VersionRef, wanted: i32) -> bool {
        self.endpoints_of(version).is_some_and(|behind| behind >= count(wanted))
    }

    /// Whether all pods of a version are ready, and nothing speaks against their being reached: for who has to answer in any case.
    pub(super) fn answers(&self, version: &VersionRef) -> bool {
        let wanted = self.pods_to_be_ready(version);
        let reached = self.endpoints_of(version).is_none_or(|behind| behind >= count(wanted));
        self.has_ready_pods(version, wanted) && reached
    }

    /// Whether nobody would answer a request that is sent to a version from now on. What is not known keeps no rollback waiting.
    pub(super) fn nobody_answers_for(&self, version: &VersionRef) -> bool {
        self.unavailable(version) || self.endpoints_of(version) == Some(0)
    }

    /// Whether nobody would answer in place of a version. An adopted Service without EndpointSlices may be another kind of backend.
    pub(super) fn is_out_of_reach(&self, incumbent: &Incumbent) -> bool {
        match incumbent {
            Incumbent::Nobody => false,
            Incumbent::Adopted(service) => self.snapshot.endpoints.behind(service) == Some(0),
            Incumbent::Version(version) => self.nobody_answers_for(version),
        }
    }

    /// Pods of which so many are ready, and that no request reaches. That is nothing that the version could be blamed for.
    pub(super) fn endpoints_trouble(&self, version: &VersionRef, wanted: i32) -> Option<Trouble> {
        if !self.has_ready_pods(version, wanted) || self.leads_to(version, wanted) {
            return None;
        }
        let name = &version.version;
        let message = match (self.snapshot.endpoints, self.endpoints_of(version)) {
            (Endpoints::Unknown, _) => format!(
                "The pods of {name} are ready, and EndpointSlices could not be read this time, so nobody knows whether requests reach them."
            ),
            (Endpoints::Denied, _) => format!(
                "The pods of {name} are ready, and EndpointSlices may not be read, so nobody knows whether requests reach them. Let the operator list and watch endpointslices.discovery.k8s.io, as the chart's role does."
            ),
            (Endpoints::Known(_), behind) => format!(
                "The pods of {name} are ready, and its Service leads to {} of {wanted}. Look at the EndpointSlices of the Service.",
                behind.unwrap_or(0)
            ),
        };
        Some(Trouble { reason: MISSING.to_owned(), message })
    }

    /// Why the version on trial gets nothing although all its pods are ready. Endpoints that are a moment behind new pods, or could
    /// not be read this time, are no news.
    pub(super) fn nobody_reaches_the_trial(&self) -> Option<Trouble> {
        let version = steps::on_trial(&self.status)?;
        let is_known = match self.snapshot.endpoints {
            Endpoints::Known(_) => self.endpoints_of(version).unwrap_or(0) == 0,
            Endpoints::Unknown => false,
            Endpoints::Denied => true,
        };
        let trouble = || self.endpoints_trouble(version, self.pods_to_be_ready(version));
        is_known.then(trouble).flatten()
    }

    fn endpoints_of(&self, version: &VersionRef) -> Option<usize> {
        let home = Home::of(self.rollout)?;
        self.snapshot.endpoints.behind(&build::workload_name(home.name, &version.version))
    }
}

fn count(pods: i32) -> usize {
    usize::try_from(pods).unwrap_or(0)
}
