//! Attach: the part of a user's route that is the rollout's.
//!
//! Called by `route`, which treats it like the route that a rollout owns. Of one rule the backends and the mirror of a shadow
//! are ours; every other rule, match, filter and field stays as it is. A rule that leads to someone whom the rollout does not
//! know gets no more of ours, and that is told: dropping a backend could drop requests. What is ours still leaves it, so that
//! nobody who edits a rule keeps a rollback from coming true.

use std::collections::BTreeSet;

use anneal_crds::{
    VersionRef, Weight,
    model_rollout::{Adopted, Attach},
};
use serde_json::{Value, json};

use super::{
    build::{self, Home, Shares, Target},
    route::same,
    rule::{self, backends, list},
};
use crate::{
    object::{Key, Kind, short_digest},
    patch::{Operation, Patch},
    trouble::Trouble,
};

/// What the rollout wants of one rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    key: Key,
    /// Index of the rule.
    rule: usize,
    backends: Vec<Value>,
    filters: Vec<Value>,
    /// What tells one decision about shares from another, whatever the route is like.
    pub(super) digest: String,
    /// Versions that get requests and that the rule does not name yet.
    pub(super) newcomers: Vec<VersionRef>,
    /// Why this is not all that shares ask for: it only takes versions out.
    pub(super) besides: Option<Trouble>,
}

/// The key of the route.
pub(super) fn key(namespace: &str, to: &Attach) -> Key {
    Key::new(Kind::HttpRoute, namespace, &to.route)
}

impl Part {
    /// The part of `route` that shares asks for, or as much of it as takes versions out; or why there can be none.
    pub(super) fn of(
        home: Home<'_>,
        to: &Attach,
        shares: &Shares<'_>,
        route: Option<&Value>,
    ) -> Result<Self, Trouble> {
        let known = rule::known(home, to, route);
        let all = known.and_then(|(index, rule)| {
            let backends = live(home, to, shares, rule)?;
            Ok(Self::new(home, to, shares, (index, rule), backends))
        });
        all.or_else(|trouble| {
            let route = route.ok_or_else(|| trouble.clone())?;
            Self::leaving(home, to, shares, route, &trouble)
                .ok_or_else(|| still(home, shares, route, trouble))
        })
    }

    fn new(
        home: Home<'_>,
        to: &Attach,
        shares: &Shares<'_>,
        (index, rule): (usize, &Value),
        backends: Vec<Value>,
    ) -> Self {
        let users = list(rule, "filters").iter().filter(|filter| !rule::is_mirror(home, filter)).cloned();
        let filters = users.chain(build::mirror(home, shares)).collect();
        let digest = short_digest(&json!([to.rule, shares.words()]).to_string());
        let is_new = |version: &&VersionRef| {
            rule::backend(home, rule, &build::workload_name(home.name, &version.version)).is_none()
        };
        let newcomers = shares.versions().filter(is_new).cloned().collect();
        Self {
            key: key(home.namespace, to),
            rule: index,
            backends,
            filters,
            digest,
            newcomers,
            besides: None,
        }
    }

    /// The part that takes versions out of a rule that cannot be written as shares ask for. Whoever else is there keeps his
    /// weight. None if no version leaves, or if nobody is known who could answer instead.
    fn leaving(
        home: Home<'_>,
        to: &Attach,
        shares: &Shares<'_>,
        route: &Value,
        trouble: &Trouble,
    ) -> Option<Self> {
        let incumbent = shares.only()?;
        let (index, rule) = rule::meant(to, Some(route)).ok().or_else(|| rule::with_versions(home, route))?;
        rule::versions(home, rule).find(|service| *service != incumbent.service(home))?;
        let mut others: Vec<Value> =
            backends(rule).iter().filter(|backend| !rule::is_version(home, backend)).cloned().collect();
        let backend = match incumbent {
            Target::Version(version) => Some(build::backend(home, version, build::LIVE)),
            Target::Adopted(adopted) => {
                let is = |backend: &Value| rule::is_service(home, backend, Some(&adopted.service));
                let seen = others.iter().position(is).map(|place| others.remove(place));
                seen.or_else(|| adopted.port.map(|port| service(adopted, port)))
            }
        };
        let backend = backend.map(|mut backend| {
            backend["weight"] = Weight::FULL.per_mille().into();
            backend
        });
        let all: Vec<Value> = backend.into_iter().chain(others).collect();
        all.iter().any(|backend| rule::weight(backend) > 0).then(|| Self {
            besides: Some(trouble.clone()),
            ..Self::new(home, to, shares, (index, rule), all)
        })
    }

    /// Names of those who get requests of the rule as it is.
    pub(super) fn present<'r>(&self, route: &'r Value) -> impl Iterator<Item = &'r str> {
        backends(self.rule_of(route)).iter().filter(|backend| rule::weight(backend) > 0).map(rule::name)
    }

    /// Digest of what no write of the part touches.
    pub(super) fn others(&self, route: &Value) -> String {
        let mut spec = route["spec"].clone();
        let rule = spec.pointer_mut(&format!("/rules/{}", self.rule)).and_then(Value::as_object_mut);
        if let Some(rule) = rule {
            rule.retain(|field, _| !["backendRefs", "filters"].contains(&field.as_str()));
        }
        short_digest(&spec.to_string())
    }

    /// Whether the route has it.
    pub(super) fn is_in(&self, route: &Value) -> bool {
        self.fields(route).is_empty()
    }

    /// Whether the route has another mirror.
    pub(super) fn mirror_differs(&self, route: &Value) -> bool {
        !same(&self.rule_of(route)["filters"], &json!(self.filters))
    }

    /// What makes the route have it, as it was read. The generation tells of every edit, also of one that was taken back
    /// since; it does not change when a gateway's controller writes the status.
    pub(super) fn patch(&self, route: &Value) -> Patch {
        let test =
            |path: String| Operation::Test { value: route.pointer(&path).cloned().unwrap_or_default(), path };
        let identity = ["uid", "generation"].map(|field| test(format!("/metadata/{field}")));
        let mut operations: Vec<Operation> = identity.into();
        for (field, wanted) in self.fields(route) {
            let path = format!("/spec/rules/{}/{field}", self.rule);
            match (self.rule_of(route).get(field), wanted.is_empty()) {
                (Some(_), true) => operations.extend([test(path.clone()), Operation::Remove { path }]),
                (Some(_), false) => {
                    operations.extend([test(path.clone()), Operation::Replace { path, value: json!(wanted) }])
                }
                (None, _) => operations.push(Operation::Add { path, value: json!(wanted) }),
            }
        }
        Patch { key: self.key.clone(), operations }
    }

    /// The fields that differ, as they are to be.
    fn fields(&self, route: &Value) -> Vec<(&'static str, &Vec<Value>)> {
        let rule = self.rule_of(route);
        let all = [("backendRefs", &self.backends), ("filters", &self.filters)];
        all.into_iter().filter(|(field, wanted)| !same(&rule[*field], &json!(wanted))).collect()
    }

    fn rule_of<'r>(&self, route: &'r Value) -> &'r Value {
        &route["spec"]["rules"][self.rule]
    }
}

/// What the rule is to lead to, if that can be said.
fn live(home: Home<'_>, to: &Attach, shares: &Shares<'_>, rule: &Value) -> Result<Vec<Value>, Trouble> {
    let live = shares.live();
    let alone = live.len() == 1;
    let backend = |(target, weight): (Target<'_>, Weight)| match target {
        Target::Version(version) => Ok(build::weighted(home, version, weight.per_mille())),
        Target::Adopted(adopted) => {
            let mut backend = own(home, to, adopted, rule)?;
            // Until something changes, not even the way in which the user wrote it does.
            if !(alone && backend["weight"] != 0) {
                backend["weight"] = weight.per_mille().into();
            }
            Ok(backend)
        }
    };
    live.into_iter().map(backend).collect()
}

/// The backend of the adopted Service, as the user wrote it or would.
fn own(home: Home<'_>, to: &Attach, adopted: &Adopted, rule: &Value) -> Result<Value, Trouble> {
    let mut found =
        backends(rule).iter().filter(|backend| rule::is_service(home, backend, Some(&adopted.service)));
    match (found.next(), found.next(), adopted.port) {
        (Some(only), None, _) => Ok(only.clone()),
        (Some(_), Some(_), _) => Err(Trouble {
            reason: "BackendAmbiguous".to_owned(),
            message: format!(
                "{} of HTTPRoute {} names Service {} more than once. Leave it there once.",
                rule::called(to),
                to.route,
                adopted.service
            ),
        }),
        (None, _, Some(port)) => Ok(service(adopted, port)),
        (None, _, None) => Err(Trouble {
            reason: "BackendMissing".to_owned(),
            message: format!(
                "{} of HTTPRoute {} sends nothing to Service {}, which spec.traffic.attach.service says is what serves. Add it to the rule, or create the ModelRollout without it.",
                rule::called(to),
                to.route,
                adopted.service
            ),
        }),
    }
}

fn service(adopted: &Adopted, port: i32) -> Value {
    json!({"group": "", "kind": "Service", "name": adopted.service, "port": port})
}

/// A trouble that keeps versions in a route which are to have left it says so.
fn still(home: Home<'_>, shares: &Shares<'_>, route: &Value, trouble: Trouble) -> Trouble {
    let wanted = |service: &str| shares.names(home, service);
    let left = rule::rules(route).flat_map(|rule| rule::versions(home, rule)).filter(|name| !wanted(name));
    let left: BTreeSet<String> = left.filter_map(|name| build::version_of(home.name, name)).collect();
    if left.is_empty() {
        return trouble;
    }
    let left: Vec<String> = left.into_iter().collect();
    let get = if left.len() == 1 { "gets" } else { "get" };
    let message = format!("{} Until then {} still {get} requests.", trouble.message, left.join(", "));
    Trouble { message, ..trouble }
}
