//! Agreement: how a version in shadow is compared, answer by answer, with the stable one, and with labels when those arrive.
//!
//! The serving pods do it. Each is told the address of a Service that leads to the stable version, whichever that is, because a
//! promotion must not change a pod. `build` and `converge` make both; `expression`, `queries` and `pods` read what the pods
//! count, by the names of the contract.

use anneal_crds::{
    ModelRollout, ModelRolloutSpec, Span, VersionRef,
    contract::{Alone, COMPARED_RESULT},
    metric::{Agreement, Form, Metric},
};
use serde_json::{Value, json};

use super::{
    build::{self, Home},
    converge::{name_conflict, narrowed},
    draft::Draft,
    incumbent::Incumbent,
    samples::RawSeries,
};
use crate::{
    object::{Key, Kind, Object, covers},
    plan::Action,
    trouble::Trouble,
};

/// Selector of what `counter` counts of one version alone.
pub(super) fn alone(counter: &str, who: Alone) -> String {
    format!("{counter}{{{COMPARED_RESULT}=\"{}\"}}", who.name())
}

/// Selector of what `counter` counts of either version alone.
pub(super) fn either_alone(counter: &str) -> String {
    let [candidate, stable] = Alone::ALL.map(Alone::name);
    format!("{counter}{{{COMPARED_RESULT}=~\"{candidate}|{stable}\"}}")
}

/// Of which version alone a series counts something.
pub(super) fn who(series: &RawSeries) -> Option<Alone> {
    let result = series.labels.get(COMPARED_RESULT)?;
    Alone::ALL.into_iter().find(|who| who.name() == result)
}

/// Whether pods compare answers for a metric.
fn compares(metric: &Metric) -> bool {
    matches!(metric.source.form(), Form::Agreement(_) | Form::Paired(_))
}

fn is_wanted(spec: &ModelRolloutSpec) -> bool {
    spec.metrics.iter().any(compares)
}

/// How pods compare answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    /// By how much two numbers may differ and agree.
    pub(super) tolerance: Option<f64>,
    /// At most so many are compared.
    pub(super) requests_per_second: u32,
    /// How much later than its request a label may come.
    pub(super) label_delay: Option<Span>,
}

/// How they are compared, if they are.
pub(super) fn settings(spec: &ModelRolloutSpec) -> Option<Settings> {
    let agreement = spec.metrics.iter().find_map(|metric| {
        let Form::Agreement(agreement) = metric.source.form() else { return None };
        Some(agreement.clone())
    });
    let Agreement { tolerance, requests_per_second, .. } = agreement.unwrap_or_default();
    let mut compared = spec.metrics.iter().filter(|metric| compares(metric));
    let label_delay = compared.find_map(|metric| metric.label_delay);
    is_wanted(spec).then_some(Settings { tolerance, requests_per_second, label_delay })
}

/// What serving pods are told.
pub(super) fn args(home: Home<'_>) -> Vec<String> {
    let Some(settings) = settings(&home.rollout.spec) else { return vec![] };
    let with =
        format!("--compare-with=http://{}.{}.svc:{}", service_name(home.name), home.namespace, build::SHADOW);
    let rate = format!("--compare-rate={}", settings.requests_per_second);
    let tolerance = settings.tolerance.map(|tolerance| format!("--compare-tolerance={tolerance}"));
    let late = settings.label_delay.map(|delay| format!("--label-delay={delay}"));
    [with, rate].into_iter().chain(tolerance).chain(late).collect()
}

/// Name of the Service of the stable version, whichever that is. No version's has such a name.
fn service_name(rollout: &str) -> String {
    format!("{rollout}-stable")
}

/// Name of the Service that answers are compared by, if a rollout's are.
pub fn stable_service(rollout: &ModelRollout) -> Option<String> {
    rollout.metadata.name.as_deref().filter(|_| is_wanted(&rollout.spec)).map(service_name)
}

/// The Service of the stable version. Only copies go there: requests of users go to the version's own.
fn service(home: Home<'_>, stable: &VersionRef) -> Object {
    let body = json!({
        "metadata": home.metadata(home.labels()),
        "spec": {
            "type": "ClusterIP",
            "selector": home.version_labels(&stable.version),
            "ports": [{"name": "shadow", "port": build::SHADOW, "targetPort": "shadow", "protocol": "TCP"}],
        },
    });
    Object::new(Key::new(Kind::Service, home.namespace, &service_name(home.name)), body).stamped()
}

impl Draft<'_> {
    /// The Service that answers are compared by; the name of one that is to stay.
    pub(super) fn apply_stable_service(&mut self, home: Home<'_>) -> Option<String> {
        let stable = self.status.stable.as_ref().filter(|_| is_wanted(&home.rollout.spec));
        let service = service(home, stable?);
        match self.seen(&service.key) {
            Some(seen) if !home.owns(seen) => self.blocked(&name_conflict(&service.key)),
            Some(seen) if covers(seen, &service.body) => {
                if let Some(widened) = narrowed(seen, &service) {
                    self.widen(widened);
                }
            }
            Some(_) | None => self.actions.push(Action::Apply(service.clone())),
        }
        Some(service.key.name)
    }

    /// Why answers cannot be compared with those of whoever serves, though a shadow asks for it.
    pub(super) fn comparison_trouble(&self) -> Option<Trouble> {
        let (home, spec) = (Home::of(self.rollout)?, &self.rollout.spec);
        let shadow = spec.strategy.shadow.as_ref()?;
        let metric = spec.metrics.iter().find(|metric| compares(metric))?;
        match self.incumbent() {
            // It has no second door for copies.
            Incumbent::Adopted(service) => {
                shadow.rollback_triggers.as_ref().filter(|triggers| triggers.contains(&metric.name))?;
                let message = format!(
                    "Metric {} compares answers with those of a stable version, and Service {service} serves. Take it out of strategy.shadow.rollbackTriggers until a version is stable.",
                    metric.name
                );
                Some(Trouble { reason: "InvalidMetric".to_owned(), message })
            }
            // Nobody's requests are sent to a Service of someone else.
            Incumbent::Version(stable) => {
                let key = service(home, &stable).key;
                self.seen(&key).filter(|seen| !home.owns(seen)).map(|_| name_conflict(&key))
            }
            Incumbent::Nobody => None,
        }
    }

    fn seen(&self, key: &Key) -> Option<&Value> {
        let mut services = self.snapshot.children.services.iter();
        services.find(|seen| seen["metadata"]["name"] == key.name.as_str())
    }
}
