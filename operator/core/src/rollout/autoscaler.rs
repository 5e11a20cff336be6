//! Autoscalers: one for each version's Deployment, of the kind and with the metrics that the spec asks for.
//!
//! `converge` lets [`Draft::autoscale`] write them last, so that one that is refused holds up no route. How many pods they must not go
//! below is recorded by `capacity`. Those of another kind than the spec's go before one of its kind comes: two would fight.

use anneal_crds::{
    ModelRollout, ModelVersion, VersionRef,
    common::shorten,
    model_rollout::{AutoscalerKind, Autoscaling, Keda, Scaler},
};
use serde_json::{Map, Value, json};

use super::{
    build::{self, Home},
    converge::name_conflict,
    draft::Draft,
    snapshot::Autoscalers,
};
use crate::{
    object::{Key, Kind, Object, covers},
    plan::Action,
    trouble::Trouble,
};

/// Most of an autoscaler's own words that are told, in bytes.
const MAX_WORDS: usize = 300;

/// The kind of a kind of autoscaler.
const fn kind_of(kind: AutoscalerKind) -> Kind {
    match kind {
        AutoscalerKind::HorizontalPodAutoscaler => Kind::HorizontalPodAutoscaler,
        AutoscalerKind::ScaledObject => Kind::ScaledObject,
    }
}

/// The kinds of autoscalers that a plan for the rollout must see: what its spec asks for, and what may be left of earlier ones. A
/// status that was lost may have had any, and an operator that was no leader any more may have written one late, which shows where somebody
/// scales these Deployments.
pub fn autoscaler_kinds(rollout: &ModelRollout, deployments: &[Value]) -> Vec<Kind> {
    let status = rollout.status.as_ref();
    // A refusal may be told in a status that no plan has written yet.
    let is_recorded = status.is_some_and(|status| status.phase_summary.is_some());
    let asked = rollout.spec.serving.autoscaling.as_ref().map(|scaling| scaling.scaler.kind());
    let made =
        status.and_then(|status| status.capacity.as_ref()).map(|capacity| capacity.autoscalers.as_slice());
    let replicas = i64::from(rollout.spec.serving.replicas);
    let names = build::workload_names(rollout);
    let is_scaled = |deployment: &Value| {
        let name = deployment["metadata"]["name"].as_str();
        let is_kept = name.is_some_and(|name| names.iter().any(|own| own == name));
        is_kept
            && Home::of(rollout).is_some_and(|home| home.owns(deployment))
            && deployment["spec"]["replicas"].as_i64() != Some(replicas)
    };
    let is_left = asked.is_none() && deployments.iter().any(is_scaled);
    let is_concerned = |kind: &AutoscalerKind| {
        !is_recorded || is_left || asked == Some(*kind) || made.unwrap_or_default().contains(kind)
    };
    AutoscalerKind::ALL.into_iter().filter(is_concerned).map(kind_of).collect()
}

/// The autoscaler of a version that keeps from `least` to `most` pods.
fn autoscaler(
    home: Home<'_>,
    version: &ModelVersion,
    scaling: &Autoscaling,
    (least, most): (i32, i32),
) -> Object {
    let number = &version.spec.version;
    let name = build::workload_name(home.name, number);
    let target = json!({"apiVersion": Kind::Deployment.api_version(), "kind": "Deployment", "name": name});
    let own = |objects: &[Map<String, Value>]| -> Vec<Value> {
        objects.iter().map(|object| with_names(&Value::Object(object.clone()), number, &name)).collect()
    };
    let spec = match &scaling.scaler {
        Scaler::Hpa(hpa) => {
            let mut spec = json!({"scaleTargetRef": target, "minReplicas": least, "maxReplicas": most,
                "metrics": own(&hpa.metrics)});
            if let Some(behavior) = &hpa.behavior {
                spec["behavior"] = Value::Object(behavior.clone());
            }
            spec
        }
        Scaler::Keda(keda) => {
            let mut spec = json!({"scaleTargetRef": target, "minReplicaCount": least,
                "maxReplicaCount": most, "triggers": own(&keda.triggers)});
            add_options(&mut spec, keda);
            spec
        }
    };
    let key = Key::new(kind_of(scaling.scaler.kind()), home.namespace, &name);
    Object::new(key, json!({"metadata": home.metadata(home.version_labels(number)), "spec": spec})).stamped()
}

fn add_options(spec: &mut Value, keda: &Keda) {
    if let Some(seconds) = keda.polling_interval {
        spec["pollingInterval"] = seconds.into();
    }
    if let Some(fallback) = &keda.fallback {
        spec["fallback"] = Value::Object(fallback.clone());
    }
    if let Some(behavior) = &keda.behavior {
        spec["advanced"] = json!({"horizontalPodAutoscalerConfig": {"behavior": behavior}});
    }
}

/// A value with the names of a version in all of its texts.
fn with_names(value: &Value, version: &str, workload: &str) -> Value {
    match value {
        Value::String(text) => {
            text.replace("$(ANNEAL_VERSION)", version).replace("$(ANNEAL_WORKLOAD)", workload).into()
        }
        Value::Array(items) => items.iter().map(|item| with_names(item, version, workload)).collect(),
        Value::Object(fields) => {
            let named =
                |(name, value): (&String, &Value)| (name.clone(), with_names(value, version, workload));
            Value::Object(fields.iter().map(named).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

impl Draft<'_> {
    fn asked_kind(&self) -> Option<Kind> {
        self.autoscaling().map(|scaling| kind_of(scaling.scaler.kind()))
    }

    /// The autoscalers of this rollout that are there and not about to go.
    pub(super) fn own_autoscalers<'s>(&'s self, home: Home<'s>) -> impl Iterator<Item = (Kind, &'s Value)> {
        let known = self.snapshot.children.autoscalers.iter().filter_map(|(kind, seen)| match seen {
            Autoscalers::Known(objects) => Some((*kind, objects)),
            Autoscalers::NoSuchKind | Autoscalers::Denied(_) | Autoscalers::Failed(_) => None,
        });
        let all = known.flat_map(|(kind, objects)| objects.iter().map(move |object| (kind, object)));
        all.filter(move |(_, object)| home.owns(object) && object["metadata"]["deletionTimestamp"].is_null())
    }

    /// Kinds of autoscalers that are asked for, that are there, and that were there and could not be read.
    pub(super) fn autoscalers_made(&self) -> Vec<AutoscalerKind> {
        let Some(home) = Home::of(self.rollout) else { return vec![] };
        let before = self.status.capacity.as_ref().map(|capacity| capacity.autoscalers.as_slice());
        let is_made = |kind: &AutoscalerKind| {
            let seen = self.snapshot.children.autoscalers.get(&kind_of(*kind));
            let may_be_there = match seen {
                Some(Autoscalers::Known(_) | Autoscalers::NoSuchKind) => false,
                // After a status was lost nobody knows.
                Some(Autoscalers::Failed(_)) => true,
                Some(Autoscalers::Denied(_)) | None => before.unwrap_or_default().contains(kind),
            };
            self.asked_kind() == Some(kind_of(*kind))
                || self.own_autoscalers(home).any(|(other, _)| other == kind_of(*kind))
                || may_be_there
        };
        AutoscalerKind::ALL.into_iter().filter(is_made).collect()
    }

    /// Makes the autoscalers of versions that have pods follow spec and status.
    pub(super) fn autoscale(&mut self, home: Home<'_>, wanted: &[VersionRef]) {
        let asked = self.asked_kind();
        let names: Vec<String> =
            wanted.iter().map(|version| build::workload_name(home.name, &version.version)).collect();
        let others = self.own_autoscalers(home).filter_map(|(kind, object)| {
            let name =
                object["metadata"]["name"].as_str().filter(|name| names.iter().any(|own| own == name))?;
            let uid = object["metadata"]["uid"].as_str()?.to_owned();
            (asked != Some(kind)).then(|| Action::Delete { key: Key::new(kind, home.namespace, name), uid })
        });
        let others: Vec<Action> = others.collect();
        self.actions.extend(others);
        let seen = asked.and_then(|kind| self.snapshot.children.autoscalers.get(&kind));
        let (Some(scaling), Some(Autoscalers::Known(seen))) = (self.autoscaling(), seen) else { return };
        let (mut writes, mut conflicts) = (vec![], vec![]);
        for version in wanted {
            let Some(record) = self.version(version) else { continue };
            let object = autoscaler(home, record, scaling, (self.floor(version), self.ceiling(version)));
            match seen.iter().find(|seen| seen["metadata"]["name"] == object.key.name.as_str()) {
                Some(seen) if !home.owns(seen) => conflicts.push(name_conflict(&object.key)),
                Some(seen) if covers(seen, &object.body) => {}
                Some(_) | None => writes.push(Action::Apply(object)),
            }
        }
        self.actions.extend(writes);
        conflicts.iter().for_each(|conflict| self.blocked(conflict));
    }

    /// Why there can be no autoscalers, if that is so.
    pub(super) fn autoscaler_trouble(&self) -> Option<Trouble> {
        let asked = self.asked_kind()?;
        self.lasting_autoscaler_trouble().or_else(|| {
            match self.snapshot.children.autoscalers.get(&asked)? {
                Autoscalers::Failed(why) => Some(unknown(asked, why)),
                Autoscalers::Known(_) | Autoscalers::NoSuchKind | Autoscalers::Denied(_) => None,
            }
        })
    }

    /// The same, without what may pass by itself.
    pub(super) fn lasting_autoscaler_trouble(&self) -> Option<Trouble> {
        let asked = self.asked_kind()?;
        let (_, _, name, _) = asked.resource();
        match self.snapshot.children.autoscalers.get(&asked)? {
            Autoscalers::NoSuchKind => {
                let message = format!(
                    "The API server knows no {name} ({}). Install KEDA, which brings it, or use spec.serving.autoscaling.hpa.",
                    asked.api_version()
                );
                Some(Trouble { reason: "AutoscalerKindMissing".to_owned(), message })
            }
            Autoscalers::Denied(why) => Some(unknown(asked, why)),
            Autoscalers::Known(_) | Autoscalers::Failed(_) => None,
        }
    }

    /// The autoscaler of a version, of the kind that is asked for.
    fn autoscaler_of(&self, version: &VersionRef) -> Option<&Value> {
        let home = Home::of(self.rollout)?;
        let name = build::workload_name(home.name, &version.version);
        let asked = self.asked_kind()?;
        let own =
            |(kind, object): &(Kind, &Value)| *kind == asked && object["metadata"]["name"] == name.as_str();
        self.own_autoscalers(home).find(own).map(|(_, object)| object)
    }

    /// Fewest pods that a version's autoscaler keeps; 0 if there is none.
    pub(super) fn least_of_autoscaler(&self, version: &VersionRef) -> i32 {
        let spec = self.autoscaler_of(version).map(|object| &object["spec"]);
        let fields = ["minReplicas", "minReplicaCount"];
        let least = spec.and_then(|spec| fields.iter().find_map(|field| spec[*field].as_i64()));
        least.and_then(|least| i32::try_from(least).ok()).unwrap_or(0)
    }

    /// What a version's autoscaler says that keeps it from making pods.
    pub(super) fn scaling_trouble(&self, version: &VersionRef) -> Option<Trouble> {
        let asked = self.asked_kind()?;
        let object = self.autoscaler_of(version)?;
        let name = object["metadata"]["name"].as_str()?;
        let mut said = object["status"]["conditions"].as_array()?.iter();
        let wrong = said.find(|said| {
            ["AbleToScale", "Ready"].iter().any(|able| said["type"] == *able) && said["status"] == "False"
        })?;
        let words = wrong["message"].as_str().unwrap_or_default().trim_end_matches('.');
        let message = format!("{} {name} does not scale: {}.", asked.resource().2, shorten(words, MAX_WORDS));
        Some(Trouble { reason: "AutoscalerFails".to_owned(), message })
    }
}

fn unknown(kind: Kind, why: &str) -> Trouble {
    let (.., plural) = kind.resource();
    let message = format!("The {plural} of this rollout could not be read: {}.", shorten(why, MAX_WORDS));
    Trouble { reason: "AutoscalerUnknown".to_owned(), message }
}
