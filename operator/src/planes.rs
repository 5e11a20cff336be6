//! Planes: Gateways and their classes, as far as rollouts look at them, and which rollouts a change of one concerns.
//!
//! Used by `run` alone. A Gateway's status tells of every route that is attached to it, so only what is looked at wakes, and
//! of each object little is kept. Nothing here decides: who is woken looks for itself. A watch that cannot be, because
//! Gateway API is not installed or the operator has no right to it, is told once; then rollouts find out by looking now and then.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
};

use anneal_core::object::Kind;
use futures::{Stream, StreamExt, future::ready, stream};
use kube::{
    Api, Resource as _,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store},
        watcher::{self, Event, watcher},
    },
};

use crate::watched::{Facts, Plane, Rollout, Watched, everything};

/// Namespace, empty for a class, and name.
type Name = (String, String);

/// What is known of objects of one kind.
#[derive(Debug, Default)]
struct Known {
    objects: HashMap<Name, Plane>,
    /// Those that the list which is being read has had so far.
    listed: HashSet<Name>,
}

impl Known {
    /// The names of those that are not what they were.
    fn hear(&mut self, event: Event<Watched<Plane>>) -> Vec<Name> {
        match event {
            Event::Init => {
                self.listed.clear();
                vec![]
            }
            Event::InitApply(object) => {
                self.listed.insert(name(&object));
                self.put(object)
            }
            Event::Apply(object) => self.put(object),
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let gone: Vec<Name> =
                    self.objects.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| drop(self.objects.remove(name)));
                gone
            }
            Event::Delete(object) => {
                let name = name(&object);
                self.objects.remove(&name).map(|_| name).into_iter().collect()
            }
        }
    }

    fn put(&mut self, object: Watched<Plane>) -> Vec<Name> {
        let (name, plane) = (name(&object), object.facts);
        let same = self.objects.get(&name) == Some(&plane);
        self.objects.insert(name.clone(), plane);
        if same { vec![] } else { vec![name] }
    }
}

fn name(object: &Watched<Plane>) -> Name {
    let metadata = object.meta();
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// Gateways and classes.
#[derive(Debug, Default)]
struct Planes {
    gateways: Known,
    classes: Known,
}

impl Planes {
    /// The Gateways that are concerned.
    fn hear(&mut self, kind: Kind, event: Event<Watched<Plane>>) -> HashSet<Name> {
        if kind == Kind::Gateway {
            return self.gateways.hear(event).into_iter().collect();
        }
        let classes = self.classes.hear(event);
        let of = |plane: &Plane| classes.iter().any(|(_, class)| plane.class.as_ref() == Some(class));
        self.gateways.objects.iter().filter(|(_, plane)| of(plane)).map(|(name, _)| name.clone()).collect()
    }
}

/// The rollouts that name one of these Gateways.
fn concerned(rollouts: &[Arc<Watched>], gateways: &HashSet<Name>) -> Vec<ObjectRef<Watched>> {
    let names_one = |rollout: &&Arc<Watched>| {
        rollout.facts.gateway.as_ref().is_some_and(|(namespace, name)| {
            let namespace = namespace.as_ref().or(rollout.meta().namespace.as_ref());
            namespace.is_some_and(|namespace| gateways.contains(&(namespace.clone(), name.clone())))
        })
    };
    rollouts.iter().filter(names_one).map(|rollout| rollout.reference(Kind::ModelRollout)).collect()
}

/// The rollouts to look at, whenever a Gateway that they name changes, or its class.
pub(crate) fn changes(
    gateways: Api<Watched<Plane>>,
    classes: Api<Watched<Plane>>,
    rollouts: Store<Watched<Rollout>>,
) -> impl Stream<Item = ObjectRef<Watched>> + Send + 'static {
    let gateways = events(Kind::Gateway, gateways, everything());
    let both = stream::select(gateways, events(Kind::GatewayClass, classes, everything()));
    let mut planes = Planes::default();
    both.flat_map(move |(kind, event)| {
        let gateways = planes.hear(kind, event);
        let rollouts = if gateways.is_empty() { vec![] } else { concerned(&rollouts.state(), &gateways) };
        stream::iter(rollouts)
    })
}

/// What happens to objects of a kind that may not be there. Only the first of several failures in a row is told.
pub(crate) fn events<F: Facts + Clone + Debug + Send + 'static>(
    kind: Kind,
    api: Api<Watched<F>>,
    config: watcher::Config,
) -> impl Stream<Item = (Kind, Event<Watched<F>>)> + Send + 'static {
    let mut told = false;
    let heard = watcher(api, config).default_backoff();
    heard.filter_map(move |event| {
        let kind_name = kind.resource().2;
        match &event {
            // A list begins, and may fail.
            Ok(Event::Init) => {}
            Ok(Event::InitApply(_) | Event::InitDone | Event::Apply(_) | Event::Delete(_)) => told = false,
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::info!(%error, kind = kind_name, "this kind cannot be watched for now; rollouts look at it now and then");
            }
            Err(error) => tracing::debug!(%error, kind = kind_name, "this kind still cannot be watched"),
        }
        ready(event.ok().map(|event| (kind, event)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object<T: serde::de::DeserializeOwned>(body: Value) -> T {
        serde_json::from_value(body).unwrap()
    }

    fn gateway(name: &str, programmed: &str) -> Watched<Plane> {
        object(json!({"metadata": {"namespace": "infra", "name": name}, "spec": {"gatewayClassName": "c"},
            "status": {"conditions": [{"type": "Programmed", "status": programmed}]}}))
    }

    fn class(features: Value) -> Watched<Plane> {
        object(json!({"metadata": {"name": "c"}, "status": {"supportedFeatures": features}}))
    }

    fn names(found: HashSet<Name>) -> Vec<String> {
        let mut names: Vec<String> = found.into_iter().map(|(_, name)| name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_gateway_wakes_when_it_is_another_and_its_class_with_it() {
        let mut planes = Planes::default();
        let (gateways, classes) = (Kind::Gateway, Kind::GatewayClass);
        let features = || json!(["HTTPRouteRequestMirror"]);
        for (kind, event, woken) in [
            (gateways, Event::Init, vec![]),
            (gateways, Event::InitApply(gateway("a", "True")), vec!["a"]),
            (gateways, Event::InitApply(gateway("b", "True")), vec!["b"]),
            (gateways, Event::InitDone, vec![]),
            (gateways, Event::Apply(gateway("a", "True")), vec![]),
            (gateways, Event::Apply(gateway("a", "False")), vec!["a"]),
            (classes, Event::Apply(class(features())), vec!["a", "b"]),
            (classes, Event::Apply(class(features())), vec![]),
            (classes, Event::Apply(class(json!([]))), vec!["a", "b"]),
            // A watch that was lost and is there again.
            (gateways, Event::Init, vec![]),
            (gateways, Event::InitApply(gateway("a", "False")), vec![]),
            (gateways, Event::InitDone, vec!["b"]),
            (gateways, Event::Delete(gateway("a", "False")), vec!["a"]),
            (classes, Event::Delete(class(json!([]))), vec![]),
        ] {
            let said = format!("{event:?}");
            assert_eq!(names(planes.hear(kind, event)), woken, "{said}");
        }
    }

    #[test]
    fn a_gateway_concerns_the_rollouts_that_name_it() {
        let rollout = |name: &str, namespace: &str, traffic: Value| {
            let body =
                json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"traffic": traffic}});
            Arc::new(object::<Watched>(body))
        };
        let rollouts = [
            rollout("near", "infra", json!({"gateway": {"name": "web"}})),
            rollout("far", "team-a", json!({"gateway": {"name": "web", "namespace": "infra"}})),
            rollout("own", "team-a", json!({"gateway": {"name": "web"}})),
            rollout("other", "infra", json!({"gateway": {"name": "api"}})),
            rollout("attached", "infra", json!({"attach": {"route": "web"}})),
        ];
        let changed = HashSet::from([("infra".to_owned(), "web".to_owned())]);
        let found: Vec<String> = concerned(&rollouts, &changed).into_iter().map(|found| found.name).collect();
        assert_eq!(found, ["near", "far"]);
    }
}
