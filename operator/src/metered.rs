//! The cluster port, with a look at what passes.
//!
//! `run` puts it around the real API server, so that metrics tell of what was read and recorded, and the webhook of what was
//! published, and `reconcile` need not know of either. It changes no call and no answer.

use std::sync::Arc;

use anneal_core::{
    object::{Key, Kind, Object},
    patch::Patch,
    plan::Note,
};
use async_trait::async_trait;
use serde_json::Value;

use crate::{
    clock::SystemClock,
    metrics::Metrics,
    notify::{Notification, Outbox},
    ports::{Clock as _, Cluster, ClusterError, Reader},
};

/// A cluster whose rollouts and runs are told to metrics and to a webhook.
pub struct Metered {
    cluster: Arc<dyn Cluster>,
    metrics: Metrics,
    outbox: Option<Outbox>,
}

impl Metered {
    /// A look at `cluster`; events go to `outbox` as well.
    pub fn new(cluster: Arc<dyn Cluster>, metrics: Metrics, outbox: Option<Outbox>) -> Self {
        Self { cluster, metrics, outbox }
    }

    fn recorded(&self, key: &Key, object: &Value, status: &Value) {
        match key.kind {
            Kind::ModelRollout => self.metrics.rollouts.recorded(object, status),
            Kind::RetrainJob => {
                let phase = status["phase"].as_str().unwrap_or_default();
                if object["status"]["phase"] != phase {
                    let model = object["spec"]["model"].as_str().unwrap_or_default();
                    self.metrics.retrain_phases.with_label_values(&[&key.namespace, model, phase]).inc();
                }
            }
            Kind::ConfigMap
            | Kind::Secret
            | Kind::Pod
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::Job
            | Kind::Deployment
            | Kind::HorizontalPodAutoscaler
            | Kind::ScaledObject
            | Kind::Gateway
            | Kind::GatewayClass
            | Kind::HttpRoute
            | Kind::ModelVersion => {}
        }
    }
}

#[async_trait]
impl Reader for Metered {
    async fn get(&self, key: &Key) -> Result<Option<Value>, ClusterError> {
        let found = self.cluster.get(key).await?;
        if key.kind == Kind::ModelRollout {
            match &found {
                Some(object) => self.metrics.rollouts.read(object),
                None => self.metrics.rollouts.forget(&key.namespace, &key.name),
            }
        }
        Ok(found)
    }

    async fn list(
        &self,
        kind: Kind,
        namespace: &str,
        label: (&str, &str),
    ) -> Result<Vec<Value>, ClusterError> {
        self.cluster.list(kind, namespace, label).await
    }
}

#[async_trait]
impl Cluster for Metered {
    async fn create(&self, object: &Object) -> Result<(), ClusterError> {
        self.cluster.create(object).await
    }

    async fn apply(&self, object: &Object) -> Result<(), ClusterError> {
        self.cluster.apply(object).await
    }

    async fn patch(&self, patch: &Patch) -> Result<(), ClusterError> {
        self.cluster.patch(patch).await
    }

    async fn delete(&self, key: &Key, uid: &str) -> Result<(), ClusterError> {
        self.cluster.delete(key, uid).await
    }

    async fn record_status(&self, key: &Key, object: &Value, status: Value) -> Result<(), ClusterError> {
        self.cluster.record_status(key, object, status.clone()).await?;
        self.recorded(key, object, &status);
        Ok(())
    }

    async fn publish(&self, object: &Value, note: &Note) {
        if let Some(outbox) = &self.outbox {
            outbox.put(Notification::new(object, note, SystemClock.now()));
        }
        self.cluster.publish(object, note).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;

    /// One object, whose status can be recorded unless someone else has written it.
    #[derive(Default)]
    struct One {
        object: Mutex<Option<Value>>,
        taken: Mutex<bool>,
    }

    #[async_trait]
    impl Reader for One {
        async fn get(&self, _: &Key) -> Result<Option<Value>, ClusterError> {
            Ok(self.object.lock().unwrap().clone())
        }
        async fn list(&self, _: Kind, _: &str, _: (&str, &str)) -> Result<Vec<Value>, ClusterError> {
            Ok(vec![])
        }
    }

    #[async_trait]
    impl Cluster for One {
        async fn create(&self, _: &Object) -> Result<(), ClusterError> {
            Ok(())
        }
        async fn apply(&self, _: &Object) -> Result<(), ClusterError> {
            Ok(())
        }
        async fn patch(&self, _: &Patch) -> Result<(), ClusterError> {
            Ok(())
        }
        async fn delete(&self, _: &Key, _: &str) -> Result<(), ClusterError> {
            Ok(())
        }
        async fn record_status(&self, _: &Key, _: &Value, _: Value) -> Result<(), ClusterError> {
            if *self.taken.lock().unwrap() { Err(ClusterError::Conflict) } else { Ok(()) }
        }
        async fn publish(&self, _: &Value, _: &Note) {}
    }

    fn setting() -> (Arc<One>, Metered, Metrics) {
        let (one, metrics) = (Arc::new(One::default()), Metrics::new().unwrap());
        (one.clone(), Metered::new(one, metrics.clone(), None), metrics)
    }

    #[tokio::test]
    async fn only_what_was_recorded_counts_and_a_rollout_that_is_not_found_is_forgotten() {
        let (one, metered, metrics) = setting();
        let key = Key::new(Kind::ModelRollout, "team-a", "ads");
        let object = json!({"metadata": {"namespace": "team-a", "name": "ads"}, "spec": {"model": "ads"}});
        *one.object.lock().unwrap() = Some(object.clone());
        metered.get(&key).await.unwrap();
        let status =
            json!({"phase": "Preparing", "decision": {"reason": "Preparing", "at": "2026-11-21T12:00:00Z"}});
        *one.taken.lock().unwrap() = true;
        metered.record_status(&key, &object, status.clone()).await.unwrap_err();
        assert!(!metrics.text().contains("anneal_rollout_decisions_total"));
        *one.taken.lock().unwrap() = false;
        metered.record_status(&key, &object, status).await.unwrap();
        assert!(metrics.text().contains(r#"reason="Preparing"} 1"#), "{}", metrics.text());
        *one.object.lock().unwrap() = None;
        metered.get(&key).await.unwrap();
        assert!(!metrics.text().contains("anneal_rollout"), "{}", metrics.text());
    }

    #[tokio::test]
    async fn what_is_published_is_put_into_the_outbox_too() {
        let metrics = Metrics::new().unwrap();
        let (outbox, mut waiting) = crate::notify::outbox(metrics.clone());
        let metered = Metered::new(Arc::new(One::default()), metrics, Some(outbox));
        let note = Note {
            severity: anneal_core::plan::Severity::Normal,
            reason: "Promoted".into(),
            message: "v2 is stable now.".into(),
        };
        metered.publish(&json!({"kind": "ModelRollout", "metadata": {"name": "ads"}}), &note).await;
        let told = serde_json::to_value(waiting.recv().await.unwrap()).unwrap();
        assert_eq!((&told["name"], &told["reason"]), (&json!("ads"), &json!("Promoted")));
    }

    #[tokio::test]
    async fn a_run_counts_the_phases_that_it_enters_and_no_other_writes() {
        let (_, metered, metrics) = setting();
        let key = Key::new(Kind::RetrainJob, "team-a", "ads-7");
        let object = |phase: &str| json!({"spec": {"model": "ads"}, "status": {"phase": phase}});
        for phase in ["Training", "Registering", "Registering"] {
            metered.record_status(&key, &object("Training"), json!({"phase": phase})).await.unwrap();
            metered.record_status(&key, &object(phase), json!({"phase": phase})).await.unwrap();
        }
        let line = r#"anneal_retrain_phases_total{model="ads",namespace="team-a",phase="Registering"} 2"#;
        assert!(metrics.text().contains(line), "{}", metrics.text());
        assert!(!metrics.text().contains("Training"));
    }
}
