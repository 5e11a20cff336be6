//! Autoscalers of a case: they keep the number of pods within their bounds, at once, and tests say what load asks for.

use anneal_core::{object::Kind, rollout::Autoscalers};
use serde_json::{Value, json};

use super::{Made, NAME, RolloutCase};

impl RolloutCase {
    /// The same with autoscalers, as `spec.serving.autoscaling` asks for them, on a cluster that knows every kind of them.
    pub fn autoscaled(mut self, autoscaling: Value) -> Made<Self> {
        self.rollout.spec.serving.autoscaling = serde_json::from_value(autoscaling)?;
        for kind in [Kind::HorizontalPodAutoscaler, Kind::ScaledObject] {
            self.children.autoscalers.insert(kind, Autoscalers::Known(vec![]));
        }
        self.settle_children();
        Ok(self)
    }

    /// Autoscalers of a kind, where the cluster knows it.
    pub(super) fn autoscalers(&mut self, kind: Kind) -> Option<&mut Vec<Value>> {
        match self.children.autoscalers.get_mut(&kind)? {
            Autoscalers::Known(list) => Some(list),
            Autoscalers::NoSuchKind | Autoscalers::Denied(_) | Autoscalers::Failed(_) => None,
        }
    }

    /// Every autoscaler brings its pods within its bounds.
    pub(super) fn scale(&mut self) {
        for kind in [Kind::HorizontalPodAutoscaler, Kind::ScaledObject] {
            for scaler in self.autoscalers(kind).cloned().unwrap_or_default() {
                let spec = &scaler["spec"];
                let bound =
                    |own: &str, keda: &str| spec[own].as_i64().or_else(|| spec[keda].as_i64()).unwrap_or(1);
                let (least, most) =
                    (bound("minReplicas", "minReplicaCount"), bound("maxReplicas", "maxReplicaCount"));
                let name = &scaler["metadata"]["name"];
                let own = |deployment: &&mut Value| deployment["metadata"]["name"] == *name;
                if let Some(deployment) = self.children.deployments.iter_mut().find(own) {
                    let pods = deployment["spec"]["replicas"].as_i64().unwrap_or(1).clamp(least, most);
                    run(deployment, pods);
                }
            }
        }
    }

    /// The autoscaler with this name, to be changed by hand.
    ///
    /// # Panics
    /// If there is none.
    #[expect(clippy::unwrap_used, reason = "a helper of tests")]
    pub fn autoscaler_of(&mut self, kind: Kind, name: &Value) -> &mut Value {
        let mut all = self.autoscalers(kind).unwrap().iter_mut();
        all.find(|scaler| scaler["metadata"]["name"] == *name).unwrap()
    }

    /// The only autoscaler of a kind.
    ///
    /// # Panics
    /// If there is none.
    #[expect(clippy::unwrap_used, reason = "a helper of tests")]
    pub fn autoscaler(&mut self, kind: Kind) -> &mut Value {
        self.autoscalers(kind).unwrap().first_mut().unwrap()
    }

    fn deployment(&mut self, number: u32) -> Option<&mut Value> {
        let name = format!("{NAME}-v20261121-{number}");
        self.children
            .deployments
            .iter_mut()
            .find(|deployment| deployment["metadata"]["name"] == name.as_str())
    }

    /// Load asks for so many pods of a version, and it gets them as far as its autoscaler may.
    pub fn load(&mut self, number: u32, pods: i64) {
        if let Some(deployment) = self.deployment(number) {
            run(deployment, pods);
        }
        self.scale();
    }

    /// How many pods a version has; none if it has no Deployment.
    pub fn pods(&mut self, number: u32) -> Option<i64> {
        self.deployment(number)?["spec"]["replicas"].as_i64()
    }
}

/// So many pods run and are ready.
fn run(deployment: &mut Value, pods: i64) {
    deployment["spec"]["replicas"] = pods.into();
    deployment["status"] = json!({"observedGeneration": 1, "updatedReplicas": pods, "readyReplicas": pods});
}
