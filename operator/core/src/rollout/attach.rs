//! Attach: the part of a user's route that is the rollout's.
//!
//! Called by `route`, which treats it like the route that a rollout owns. Of one rule the backends and the mirror of a shadow
//! are ours; every other rule, match, filter and field stays as it is. A rule that leads to someone whom the rollout does not
//! know is left alone and told: dropping a backend could drop requests.

use anneal_crds::model_rollout::{Adopted, Attach};
use serde_json::{Value, json};

use super::{
    build::{self, Home, Shares, Target},
    route::same,
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
}

/// The key of the route.
pub(super) fn key(namespace: &str, to: &Attach) -> Key {
    Key::new(Kind::HttpRoute, namespace, &to.route)
}

/// The port at which the rule of a route refers to a Service.
pub(super) fn port_of(to: &Attach, service: &str, route: &Value) -> Option<i32> {
    let (_, rule) = rule(to, route).ok()?;
    let found = list(rule, "backendRefs").iter().find(|backend| backend["name"] == service)?;
    i32::try_from(found["port"].as_i64()?).ok()
}

impl Part {
    /// The part of `route` that shares asks for, or why there can be none.
    pub(super) fn of(
        home: Home<'_>,
        to: &Attach,
        shares: &Shares<'_>,
        route: Option<&Value>,
    ) -> Result<Self, Trouble> {
        let (index, rule) = known_rule(home, to, route)?;
        let seen = list(rule, "backendRefs");
        let live = shares.live();
        let alone = live.len() == 1;
        let backends = live.iter().map(|(target, weight)| match target {
            Target::Version(version) => {
                let mut backend = build::backend(home, version, build::LIVE);
                backend["weight"] = weight.per_mille().into();
                Ok(backend)
            }
            Target::Adopted(adopted) => {
                let mut backend = own(home, to, adopted, seen)?;
                // Until something changes, not even the way in which the user wrote it does.
                if !(alone && backend["weight"] != 0) {
                    backend["weight"] = weight.per_mille().into();
                }
                Ok(backend)
            }
        });
        let backends = backends.collect::<Result<Vec<_>, Trouble>>()?;
        let users = list(rule, "filters").iter().filter(|filter| !is_mirror(home, filter)).cloned();
        let filters = users.chain(build::mirror(home, shares)).collect();
        let digest = short_digest(&shares.words());
        Ok(Self { key: key(home.namespace, to), rule: index, backends, filters, digest })
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

/// The rule that is meant, with its index, if it leads to nobody whom the rollout does not know.
pub(super) fn known_rule<'r>(
    home: Home<'_>,
    to: &Attach,
    route: Option<&'r Value>,
) -> Result<(usize, &'r Value), Trouble> {
    let (index, rule) = rule(to, route.ok_or_else(|| missing(to))?)?;
    let is_known =
        |backend: &&Value| is_version(home, backend) || is_service(home, backend, to.service.as_deref());
    let strangers = list(rule, "backendRefs").iter().filter(|backend| !is_known(backend));
    let strangers: Vec<&str> =
        strangers.map(|backend| backend["name"].as_str().unwrap_or_default()).collect();
    if strangers.is_empty() { Ok((index, rule)) } else { Err(unknown(to, &strangers)) }
}

/// Whether any rule of a route leads to a Service, or copies requests to it.
pub(super) fn refers_to(route: &Value, service: &str) -> bool {
    list(&route["spec"], "rules").iter().any(|rule| {
        let mirrored = list(rule, "filters").iter().map(|filter| &filter["requestMirror"]["backendRef"]);
        list(rule, "backendRefs").iter().chain(mirrored).any(|backend| backend["name"] == service)
    })
}

fn list<'v>(of: &'v Value, field: &str) -> &'v [Value] {
    of[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The rule that is meant, with its index.
fn rule<'r>(to: &Attach, route: &'r Value) -> Result<(usize, &'r Value), Trouble> {
    let is_meant = |rule: &Value| to.rule.as_ref().is_none_or(|name| rule["name"] == name.as_str());
    let mut meant = list(&route["spec"], "rules").iter().enumerate().filter(|(_, rule)| is_meant(rule));
    match (meant.next(), meant.next(), &to.rule) {
        (Some(only), None, _) => Ok(only),
        (Some(_), Some(_), _) => Err(Trouble {
            reason: "RuleAmbiguous".to_owned(),
            message: format!(
                "HTTPRoute {} has several rules that could be meant. Give the one for this model a name of its own, and name it in spec.traffic.attach.rule.",
                to.route
            ),
        }),
        (None, _, name) => {
            let named = name.as_ref().map_or_else(String::new, |name| format!(" named {name}"));
            let message = format!(
                "HTTPRoute {} has no rule{named}. Add it, or correct spec.traffic.attach.rule.",
                to.route
            );
            Err(Trouble { reason: "RuleNotFound".to_owned(), message })
        }
    }
}

/// The backend of the adopted Service, as the user wrote it or would.
fn own(home: Home<'_>, to: &Attach, adopted: &Adopted, seen: &[Value]) -> Result<Value, Trouble> {
    let mut found = seen.iter().filter(|backend| is_service(home, backend, Some(&adopted.service)));
    match (found.next(), found.next(), adopted.port) {
        (Some(only), None, _) => Ok(only.clone()),
        (Some(_), Some(_), _) => Err(Trouble {
            reason: "BackendAmbiguous".to_owned(),
            message: format!(
                "{} of HTTPRoute {} names Service {} more than once. Leave it there once.",
                which(to),
                to.route,
                adopted.service
            ),
        }),
        (None, _, Some(port)) => {
            Ok(json!({"group": "", "kind": "Service", "name": adopted.service, "port": port}))
        }
        (None, _, None) => Err(Trouble {
            reason: "BackendMissing".to_owned(),
            message: format!(
                "{} of HTTPRoute {} sends nothing to Service {}, which spec.traffic.attach.service says is what serves. Add it to the rule, or create the ModelRollout without it.",
                which(to),
                to.route,
                adopted.service
            ),
        }),
    }
}

fn missing(to: &Attach) -> Trouble {
    let message = format!(
        "HTTPRoute {} does not exist in this namespace. Create it: a route that is yours is never made or deleted here.",
        to.route
    );
    Trouble { reason: "RouteMissing".to_owned(), message }
}

fn unknown(to: &Attach, strangers: &[&str]) -> Trouble {
    let message = format!(
        "{} of HTTPRoute {} sends requests to {}, which is neither a version of this rollout nor spec.traffic.attach.service. Take it out of the rule; if it is what serves, create the ModelRollout with it as spec.traffic.attach.service.",
        which(to),
        to.route,
        strangers.join(", ")
    );
    Trouble { reason: "BackendUnknown".to_owned(), message }
}

fn which(to: &Attach) -> String {
    to.rule.as_ref().map_or_else(|| "The rule".to_owned(), |name| format!("Rule {name}"))
}

/// Whether a reference leads to a Service of the rollout's namespace.
fn is_local(home: Home<'_>, backend: &Value) -> bool {
    let is_or_absent = |field: &str, value: &str| backend[field].is_null() || backend[field] == value;
    is_or_absent("group", "") && is_or_absent("kind", "Service") && is_or_absent("namespace", home.namespace)
}

fn is_service(home: Home<'_>, backend: &Value, service: Option<&str>) -> bool {
    is_local(home, backend) && service.is_some_and(|service| backend["name"] == service)
}

/// Whether a reference leads to the Service of a version of this rollout, whichever.
fn is_version(home: Home<'_>, backend: &Value) -> bool {
    is_local(home, backend)
        && backend["name"].as_str().is_some_and(|name| build::is_workload_name(home.name, name))
}

fn is_mirror(home: Home<'_>, filter: &Value) -> bool {
    filter["type"] == "RequestMirror" && is_version(home, &filter["requestMirror"]["backendRef"])
}
