//! The operator's own metrics, `anneal_*`, on a registry of their own.

mod family;
mod rollouts;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

pub use rollouts::Rollouts;

/// Everything on the page. Runs have no names here, because they never end to come; rollouts have, and lose their series
/// when they go.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Reconciles by kind and outcome.
    pub reconciles: IntCounterVec,
    /// Seconds from reading an object to the end of its reconcile.
    pub reconcile_seconds: Histogram,
    /// 1 while this process leads.
    pub leading: IntGauge,
    /// Phases that RetrainJobs entered, by namespace, model and phase.
    pub retrain_phases: IntCounterVec,
    /// Messages of Alertmanager by outcome.
    pub alert_messages: IntCounterVec,
    /// Notifications by outcome.
    pub notifications: IntCounterVec,
    /// What rollouts are doing.
    pub rollouts: Rollouts,
}

impl Metrics {
    /// Metrics on a fresh registry.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let reconciles = IntCounterVec::new(
            Opts::new(
                "anneal_reconciles_total",
                "Reconciles by kind and outcome (ok or the error's category).",
            ),
            &["kind", "outcome"],
        )?;
        let buckets = vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
        let reconcile_seconds = Histogram::with_opts(
            HistogramOpts::new("anneal_reconcile_seconds", "Seconds of one reconcile, API calls included.")
                .buckets(buckets),
        )?;
        let leading = IntGauge::new("anneal_leading", "1 while this process holds the lease.")?;
        let retrain_phases = IntCounterVec::new(
            Opts::new("anneal_retrain_phases_total", "Phases that RetrainJobs entered."),
            &["namespace", "model", "phase"],
        )?;
        let alert_messages = IntCounterVec::new(
            Opts::new(
                "anneal_alert_messages_total",
                "Messages of Alertmanager by outcome (ok, unauthorized, malformed or failed).",
            ),
            &["outcome"],
        )?;
        let notifications = IntCounterVec::new(
            Opts::new(
                "anneal_notifications_total",
                "Notifications by outcome (sent, refused, gave_up or dropped).",
            ),
            &["outcome"],
        )?;
        let rollouts = Rollouts::new()?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        registry.register(Box::new(leading.clone()))?;
        registry.register(Box::new(retrain_phases.clone()))?;
        registry.register(Box::new(alert_messages.clone()))?;
        registry.register(Box::new(notifications.clone()))?;
        registry.register(Box::new(rollouts.clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            registry,
            reconciles,
            reconcile_seconds,
            leading,
            retrain_phases,
            alert_messages,
            notifications,
            rollouts,
        })
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
