//! Plane: whether the data plane can copy requests, by what its class says and by what became of a mirror that was written.
//!
//! Asked by `plan` before a shadow begins and on every look at one. A class that lists nothing is believed to be able, and
//! what it does is read back; a shadow without copies would wait for requests that never come.

use std::collections::BTreeSet;

use anneal_crds::{
    ModelRollout,
    model_rollout::{CopyShare, MirrorDropped, RolloutPhase},
};
use serde_json::Value;

use super::draft::Draft;
use crate::trouble::Trouble;

/// Reason of a shadow that cannot be.
pub(super) const MIRROR_UNSUPPORTED: &str = "MirrorUnsupported";

/// What a data plane says that it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Features {
    /// Its GatewayClass lists nothing, or could not be read, or nobody asked.
    #[default]
    Unknown,
    /// What its GatewayClass lists.
    Listed {
        /// Name of the class.
        class: String,
        /// Names of the features of Gateway API.
        names: BTreeSet<String>,
    },
}

impl Features {
    /// What a GatewayClass lists: objects with a name since Gateway API 1.3, plain names before.
    pub fn of(class: &Value) -> Self {
        let listed = class["status"]["supportedFeatures"].as_array().into_iter().flatten();
        let name = |feature: &Value| feature["name"].as_str().or(feature.as_str()).map(str::to_owned);
        let names: BTreeSet<String> = listed.filter_map(name).collect();
        if names.is_empty() {
            return Self::Unknown;
        }
        Self::Listed { class: class["metadata"]["name"].as_str().unwrap_or_default().to_owned(), names }
    }

    /// The class and the feature that copies of `share` need and the class does not list.
    fn lacks(&self, share: CopyShare) -> Option<(&str, &'static str)> {
        let Self::Listed { class, names } = self else { return None };
        let part = match share {
            CopyShare::All => None,
            CopyShare::Percent(_) | CopyShare::Fraction(_) => Some("HTTPRouteRequestPercentageMirror"),
        };
        let missing =
            ["HTTPRouteRequestMirror"].into_iter().chain(part).find(|name| !names.contains(*name))?;
        Some((class, missing))
    }
}

/// Whether a plan for `rollout` looks at what the data plane can do.
pub fn asks_for_features(rollout: &ModelRollout) -> bool {
    let phase = rollout.status.as_ref().map(|status| status.phase).unwrap_or_default();
    let before_or_in_shadow = match phase {
        RolloutPhase::Preparing | RolloutPhase::Staging | RolloutPhase::Shadow => true,
        RolloutPhase::Pending
        | RolloutPhase::Experiment
        | RolloutPhase::Canary
        | RolloutPhase::Baking
        | RolloutPhase::RollingBack
        | RolloutPhase::Healthy
        | RolloutPhase::RolledBack => false,
    };
    before_or_in_shadow && rollout.spec.strategy.shadow.is_some()
}

impl Draft<'_> {
    /// Why the candidate cannot be in shadow; none if it can, or if no shadow is asked for.
    pub(super) fn shadow_trouble(&self) -> Option<Trouble> {
        self.mirror_trouble().or_else(|| self.comparison_trouble())
    }

    /// Why the candidate gets no copies.
    fn mirror_trouble(&self) -> Option<Trouble> {
        let shadow = self.rollout.spec.strategy.shadow.as_ref()?;
        // Where nobody serves, the first version has no shadow.
        self.incumbent().is_someone().then_some(())?;
        let message = match self.snapshot.features.lacks(shadow.share()) {
            Some((class, feature)) => format!(
                "GatewayClass {class} does not list {feature}, so it cannot copy {}. Remove strategy.shadow{}, or take a Gateway of another class.",
                shadow.share(),
                if feature.contains("Percentage") { ", or its share" } else { "" }
            ),
            None => self.mirror_dropped_before()?,
        };
        Some(Trouble { reason: MIRROR_UNSUPPORTED.to_owned(), message })
    }

    fn mirror_dropped_before(&self) -> Option<String> {
        let dropped = self.status.traffic.as_ref()?.mirror_dropped.as_ref()?;
        (Some(dropped.generation) == self.rollout.metadata.generation).then(|| dropped.message.clone())
    }

    /// Remembers that a mirror that was written is not in the route. Trying again would copy nothing, or everything.
    pub(super) fn note_dropped_mirror(&mut self) {
        let wanted = self.status.phase == RolloutPhase::Shadow;
        let Some(shadow) = self.rollout.spec.strategy.shadow.as_ref().filter(|_| wanted) else { return };
        if !self.written_by_us_and_dropped() {
            return;
        }
        let message = format!(
            "The mirror that copies {} was written to HTTPRoute {} and is not in it as it was written: an admission webhook or the Gateway API's resource definitions dropped it. Update them to Gateway API 1.3 and change strategy.shadow, or remove it.",
            shadow.share(),
            self.route_name()
        );
        let generation = self.rollout.metadata.generation.unwrap_or(0);
        self.traffic().mirror_dropped = Some(MirrorDropped { generation, message });
    }
}

#[cfg(test)]
mod tests {
    use anneal_crds::model_rollout::Fraction;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_of_the_requests_needs_more_than_all_of_them() {
        let class = |features: Value| {
            Features::of(&json!({"metadata": {"name": "c"}, "status": {"supportedFeatures": features}}))
        };
        let (plain, part) = ("HTTPRouteRequestMirror", "HTTPRouteRequestPercentageMirror");
        let half = CopyShare::Fraction(Fraction { numerator: 1, denominator: 2 });
        for (features, all, some) in [
            (json!([plain, part]), None, None),
            (json!([{"name": plain}, {"name": part}]), None, None),
            (json!([{"name": plain}]), None, Some(part)),
            (json!(["HTTPRouteRetry"]), Some(plain), Some(plain)),
            (json!([]), None, None),
            (Value::Null, None, None),
        ] {
            let features = class(features);
            let lacks = |share| features.lacks(share).map(|(_, feature)| feature);
            assert_eq!((lacks(CopyShare::All), lacks(half)), (all, some), "{features:?}");
            assert_eq!(lacks(CopyShare::Percent(20)), some, "{features:?}");
        }
    }
}
