//! Scalers: the autoscalers of versions, as far as rollouts look at them, and which rollouts a change of one concerns.
//!
//! Used by `run` alone. An autoscaler's status moves every few seconds, so only what was written wakes, and of each object a digest is
//! kept. Nothing here decides: who is woken looks for itself. KEDA's kind cannot be watched where KEDA is not installed.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use anneal_core::object::Kind;
use anneal_crds::names;
use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Resource as _,
    runtime::{
        reflector::ObjectRef,
        watcher::{Config, Event},
    },
};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::{
    planes::events,
    watched::{Facts, Watched},
};

/// What is kept of an autoscaler: a digest of what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scaler(u64);

/// A status, of which nothing is kept.
#[derive(Default)]
pub(crate) struct Nothing;

impl<'de> serde::Deserialize<'de> for Nothing {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(from).map(|_| Self)
    }
}

impl Facts for Scaler {
    type Spec = Value;
    type Status = Nothing;

    fn of(spec: Value, _: Nothing) -> Self {
        let mut digest = DefaultHasher::new();
        spec.to_string().hash(&mut digest);
        Self(digest.finish())
    }
}

/// Kind, namespace and name.
type Name = (Kind, String, String);

/// What is known of autoscalers.
#[derive(Debug, Default)]
struct Known {
    objects: HashMap<Name, (Option<ObjectRef<Watched>>, Scaler)>,
    /// Those that the list of each kind which is being read has had so far.
    listed: HashSet<Name>,
}

impl Known {
    /// The rollouts whose autoscalers are not what they were.
    fn hear(&mut self, kind: Kind, event: Event<Watched<Scaler>>) -> Vec<ObjectRef<Watched>> {
        match event {
            Event::Init => {
                self.listed.retain(|name| name.0 != kind);
                vec![]
            }
            Event::InitApply(object) => {
                self.listed.insert(name(kind, &object));
                self.put(kind, &object)
            }
            Event::Apply(object) => self.put(kind, &object),
            Event::InitDone => {
                let is_gone = |name: &&Name| name.0 == kind && !self.listed.contains(*name);
                let gone: Vec<Name> = self.objects.keys().filter(is_gone).cloned().collect();
                gone.iter().filter_map(|name| self.objects.remove(name)?.0).collect()
            }
            Event::Delete(object) => {
                let gone = self.objects.remove(&name(kind, &object));
                gone.and_then(|(rollout, _)| rollout).into_iter().collect()
            }
        }
    }

    fn put(&mut self, kind: Kind, object: &Watched<Scaler>) -> Vec<ObjectRef<Watched>> {
        let rollout = object.parent(Kind::ModelRollout, names::LABEL_ROLLOUT);
        let before = self.objects.insert(name(kind, object), (rollout.clone(), object.facts));
        if before.is_some_and(|(_, facts)| facts == object.facts) {
            return vec![];
        }
        rollout.into_iter().collect()
    }
}

fn name(kind: Kind, object: &Watched<Scaler>) -> Name {
    let metadata = object.meta();
    (kind, metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// The rollouts to look at, whenever someone writes an autoscaler of theirs, or deletes it.
pub(crate) fn changes(
    hpas: Api<Watched<Scaler>>,
    scaled_objects: Api<Watched<Scaler>>,
    config: &Config,
) -> impl Stream<Item = ObjectRef<Watched>> + Send + 'static {
    let hpas = events(Kind::HorizontalPodAutoscaler, hpas, config.clone());
    let both = stream::select(hpas, events(Kind::ScaledObject, scaled_objects, config.clone()));
    let mut known = Known::default();
    both.flat_map(move |(kind, event)| stream::iter(known.hear(kind, event)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scaler(name: &str, least: u32, pods: u32) -> Watched<Scaler> {
        serde_json::from_value(
            json!({"metadata": {"namespace": "n", "name": name, "labels": {names::LABEL_ROLLOUT: "ads"}},
            "spec": {"minReplicas": least}, "status": {"currentReplicas": pods}}),
        )
        .unwrap()
    }

    #[test]
    fn what_someone_writes_wakes_and_what_is_scaled_does_not() {
        let mut known = Known::default();
        let (hpa, keda) = (Kind::HorizontalPodAutoscaler, Kind::ScaledObject);
        for (kind, event, woken) in [
            (hpa, Event::Init, 0),
            (hpa, Event::InitApply(scaler("a", 2, 2)), 1),
            (keda, Event::Init, 0),
            (keda, Event::InitDone, 0),
            (hpa, Event::InitDone, 0),
            (hpa, Event::Apply(scaler("a", 2, 7)), 0),
            (hpa, Event::Apply(scaler("a", 3, 7)), 1),
            (keda, Event::Apply(scaler("a", 3, 7)), 1),
            (hpa, Event::Delete(scaler("a", 3, 7)), 1),
            (hpa, Event::Delete(scaler("a", 3, 7)), 0),
            // A watch that was lost and is there again.
            (keda, Event::Init, 0),
            (keda, Event::InitDone, 1),
        ] {
            let said = format!("{kind:?} {event:?}");
            assert_eq!(known.hear(kind, event).len(), woken, "{said}");
        }
    }
}
