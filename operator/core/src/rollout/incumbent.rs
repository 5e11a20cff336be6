//! Incumbent: who answers users' requests beside the version on trial, or in its place.
//!
//! Asked wherever a decision needs someone to go back to. Mostly it is the stable version. On a route of the user's it may be
//! a Service that served before: it stands for the stable version until the first one has taken over and passed its bake.

use std::fmt;

use anneal_crds::{
    ModelRolloutStatus, VersionRef,
    model_rollout::{Adopted, RolloutPhase, Traffic},
};

use super::{build::Home, draft::Draft, rule, select::Obstacle, transition::Fate};

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incumbent {
    /// No one: the first version has nothing beside it.
    Nobody,
    /// A Service of the user's, by its name. All that is known of it is whom it leads to.
    Adopted(String),
    /// A version that is stable, or was.
    Version(VersionRef),
}

impl fmt::Display for Incumbent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("no version"),
            Self::Adopted(service) => write!(f, "Service {service}"),
            Self::Version(version) => f.write_str(&version.version),
        }
    }
}

impl Incumbent {
    /// Who is in production.
    pub(super) fn of(status: &ModelRolloutStatus) -> Self {
        Self::first(status.stable.as_ref(), status)
    }

    /// Who was in production before the stable version, and is kept for the way back from its bake.
    pub(super) fn before(status: &ModelRolloutStatus) -> Self {
        Self::first(status.previous.as_ref(), status)
    }

    fn first(version: Option<&VersionRef>, status: &ModelRolloutStatus) -> Self {
        match (version, &status.adopted) {
            (Some(version), _) => Self::Version(version.clone()),
            (None, Some(adopted)) => Self::Adopted(adopted.service.clone()),
            (None, None) => Self::Nobody,
        }
    }

    /// Whether there is someone.
    pub(super) fn is_someone(&self) -> bool {
        match self {
            Self::Nobody => false,
            Self::Adopted(_) | Self::Version(_) => true,
        }
    }
}

impl Draft<'_> {
    /// Who is in production.
    pub(super) fn incumbent(&self) -> Incumbent {
        Incumbent::of(&self.status)
    }

    /// Who takes requests back from the stable version in its bake.
    pub(super) fn way_back(&self) -> Incumbent {
        Incumbent::before(&self.status)
    }

    /// What serves on a user's route stands for the stable version until there is one that has passed its bake. It does so from
    /// the moment at which its rule is there: until then a version may serve whose status was lost.
    pub(super) fn adopt(&mut self) {
        let named = match &self.rollout.spec.traffic {
            Traffic::Gateway(_) => None,
            Traffic::Attach(to) => to.service.as_ref().map(|service| (to, service)),
        };
        let bakes = self.status.phase == RolloutPhase::Baking;
        self.status.adopted = match (named, &self.status.stable, self.status.adopted.take()) {
            (Some((to, service)), None, known) => {
                let rule = rule::meant(to, self.snapshot.children.route.as_ref()).ok();
                (rule.is_some() || known.is_some()).then(|| {
                    let seen = rule.zip(Home::of(self.rollout));
                    let seen = seen.and_then(|((_, rule), home)| rule::backend(home, rule, service));
                    let port = seen.and_then(rule::port).or(known.and_then(|known| known.port));
                    Adopted { service: service.clone(), port }
                })
            }
            (Some(_), Some(_), known) if bakes => known,
            (Some(_) | None, _, _) => None,
        };
    }

    /// The first version leaves, and what served before it takes all requests back.
    pub(super) fn hand_back(&mut self, version: &VersionRef, fate: Fate, reason: &str) {
        self.status.stable = None;
        self.status.smoke = None;
        self.note_fate(version, fate, reason);
        self.status.candidate = Some(version.clone());
    }

    /// Nothing of this model serves yet.
    pub(super) fn no_version_yet(&self) -> Obstacle {
        let model = &self.rollout.spec.model;
        Obstacle {
            reason: "NoVersion",
            message: format!("Model {model} has no version yet. Create a RetrainJob."),
        }
    }
}
