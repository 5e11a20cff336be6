//! Endpoints: whom requests to a Service reach, by what its EndpointSlices list.
//!
//! Filled by the shell's `observe`, asked wherever someone is to get requests. A pod is ready before its Service leads to it, and
//! a Service that someone changed leads nowhere although all pods are ready: a weight that is written in between is answered by
//! the gateway, with an error.

use std::collections::BTreeMap;

use anneal_crds::{ModelRollout, VersionRef};
use serde_json::Value;

use super::{
    build::{self, Home},
    draft::Draft,
    incumbent::Incumbent,
};
use crate::trouble::Trouble;

/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How many endpoints take requests, by Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// Those of every Service that has an EndpointSlice.
    Known(BTreeMap<String, usize>),
    /// They could not be read this time.
    Unknown,
}

impl Endpoints {
    /// What these EndpointSlices list. One of each family of addresses lists the same pods.
    pub fn of(slices: &[Value]) -> Self {
        let mut by_family = BTreeMap::<(&str, &str), usize>::new();
        for slice in slices {
            let Some(service) = slice["metadata"]["labels"][SERVICE_NAME].as_str() else { continue };
            let family = slice["addressType"].as_str().unwrap_or_default();
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            // Without a word it counts as ready, as the API has it.
            let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
            *by_family.entry((service, family)).or_default() += ready.count();
        }
        let mut known = BTreeMap::<String, usize>::new();
        for ((service, _), ready) in by_family {
            let most = known.entry(service.to_owned()).or_default();
            *most = ready.max(*most);
        }
        Self::Known(known)
    }

    /// How many a Service of the operator's leads to; none if that is not known.
    fn behind(&self, service: &str) -> Option<usize> {
        match self {
            Self::Known(known) => Some(known.get(service).copied().unwrap_or(0)),
            Self::Unknown => None,
        }
    }

    /// Whether a Service of someone else's is known to lead nowhere. One without EndpointSlices may be no Service with pods at all.
    fn lead_nowhere(&self, service: &str) -> bool {
        match self {
            Self::Known(known) => known.get(service) == Some(&0),
            Self::Unknown => false,
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
        let behind = self.endpoints_of(version);
        behind.is_some_and(|behind| behind >= usize::try_from(wanted).unwrap_or(0))
    }

    /// Whether nobody would answer a request that is sent to a version from now on. What is not known keeps no rollback waiting.
    pub(super) fn nobody_answers_for(&self, version: &VersionRef) -> bool {
        self.unavailable(version) || self.endpoints_of(version) == Some(0)
    }

    /// Whether nobody would answer in place of a version.
    pub(super) fn is_out_of_reach(&self, incumbent: &Incumbent) -> bool {
        match incumbent {
            Incumbent::Nobody => false,
            Incumbent::Adopted(service) => self.snapshot.endpoints.lead_nowhere(service),
            Incumbent::Version(version) => self.nobody_answers_for(version),
        }
    }

    /// Pods that are ready and that no request reaches.
    pub(super) fn endpoints_trouble(&self, version: &VersionRef) -> Option<Trouble> {
        let wanted = self.pods_to_be_ready(version);
        if !self.has_ready_pods(version, wanted) || self.leads_to(version, wanted) {
            return None;
        }
        let message = match self.endpoints_of(version) {
            Some(behind) => format!(
                "All its pods are ready, and its Service leads to {behind} of {wanted} pods. Look at the EndpointSlices of the Service."
            ),
            None => "All its pods are ready, and EndpointSlices cannot be read. Look at the operator's log."
                .to_owned(),
        };
        Some(Trouble { reason: "EndpointsMissing".to_owned(), message })
    }

    fn endpoints_of(&self, version: &VersionRef) -> Option<usize> {
        let home = Home::of(self.rollout)?;
        self.snapshot.endpoints.behind(&build::workload_name(home.name, &version.version))
    }
}
