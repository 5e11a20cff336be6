//! Rule: the rule of a user's route that is a rollout's, and whom it leads to.
//!
//! Asked by `attach`, which writes it, and by `recover` and `incumbent`, which read from it who served. Nothing here decides
//! what it is to be.

use anneal_crds::model_rollout::Attach;
use serde_json::Value;

use super::build::{self, Home};
use crate::trouble::Trouble;

/// The rule that is meant, with its index, or why there is none.
pub(super) fn meant<'r>(to: &Attach, route: Option<&'r Value>) -> Result<(usize, &'r Value), Trouble> {
    let route = route.ok_or_else(|| missing(to))?;
    let is_meant = |rule: &Value| to.rule.as_ref().is_none_or(|name| rule["name"] == name.as_str());
    let mut meant = rules(route).enumerate().filter(|(_, rule)| is_meant(rule));
    match (meant.next(), meant.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(ambiguous(to)),
        (None, _) => Err(not_found(to, route)),
    }
}

/// The rule that is meant, if it leads to nobody whom the rollout does not know.
pub(super) fn known<'r>(
    home: Home<'_>,
    to: &Attach,
    route: Option<&'r Value>,
) -> Result<(usize, &'r Value), Trouble> {
    let (index, rule) = meant(to, route)?;
    let is_known =
        |backend: &&Value| is_version(home, backend) || is_service(home, backend, to.service.as_deref());
    let strangers = backends(rule).iter().filter(|backend| !is_known(backend));
    let strangers: Vec<&str> = strangers.map(name).collect();
    if strangers.is_empty() { Ok((index, rule)) } else { Err(unknown(to, &strangers)) }
}

/// The one rule that leads to versions of the rollout, or copies requests to one.
pub(super) fn with_versions<'r>(home: Home<'_>, route: &'r Value) -> Option<(usize, &'r Value)> {
    let mut found = rules(route).enumerate().filter(|(_, rule)| versions(home, rule).next().is_some());
    found.next().filter(|_| found.next().is_none())
}

/// Names of the versions' Services that get requests of a rule, or copies of them.
pub(super) fn versions<'r>(home: Home<'r>, rule: &'r Value) -> impl Iterator<Item = &'r str> {
    let live = backends(rule).iter().filter(|backend| weight(backend) > 0);
    let copied = list(rule, "filters").iter().map(mirrored);
    live.chain(copied).filter(move |backend| is_version(home, backend)).map(name)
}

/// All rules of a route.
pub(super) fn rules(route: &Value) -> impl Iterator<Item = &Value> {
    list(&route["spec"], "rules").iter()
}

/// What a rule leads to.
pub(super) fn backends(rule: &Value) -> &[Value] {
    list(rule, "backendRefs")
}

/// The list in a field.
pub(super) fn list<'v>(of: &'v Value, field: &str) -> &'v [Value] {
    of[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The backend by which a rule leads to a Service of the rollout's namespace; the first, if there are several.
pub(super) fn backend<'r>(home: Home<'_>, rule: &'r Value, service: &str) -> Option<&'r Value> {
    backends(rule).iter().find(|backend| is_service(home, backend, Some(service)))
}

/// Share of a backend: one where it is not said.
pub(super) fn weight(backend: &Value) -> i64 {
    backend["weight"].as_i64().unwrap_or(1)
}

/// Port of a backend.
pub(super) fn port(backend: &Value) -> Option<i32> {
    i32::try_from(backend["port"].as_i64()?).ok()
}

/// Whether any rule of a route leads to a Service, or copies requests to it.
pub(super) fn refers_to(route: &Value, service: &str) -> bool {
    rules(route).any(|rule| {
        let copied = list(rule, "filters").iter().map(mirrored);
        backends(rule).iter().chain(copied).any(|backend| backend["name"] == service)
    })
}

/// Whether a reference leads to this Service of the rollout's namespace.
pub(super) fn is_service(home: Home<'_>, backend: &Value, service: Option<&str>) -> bool {
    is_local(home, backend) && service.is_some_and(|service| backend["name"] == service)
}

/// Whether a reference leads to the Service of a version of this rollout, whichever.
pub(super) fn is_version(home: Home<'_>, backend: &Value) -> bool {
    is_local(home, backend)
        && backend["name"].as_str().is_some_and(|name| build::version_of(home.name, name).is_some())
}

/// Whether a filter copies requests to a version of this rollout.
pub(super) fn is_mirror(home: Home<'_>, filter: &Value) -> bool {
    filter["type"] == "RequestMirror" && is_version(home, mirrored(filter))
}

/// Name of what a reference leads to.
pub(super) fn name(backend: &Value) -> &str {
    backend["name"].as_str().unwrap_or_default()
}

/// The rule, for people.
pub(super) fn called(to: &Attach) -> String {
    to.rule.as_ref().map_or_else(|| "The rule".to_owned(), |name| format!("Rule {name}"))
}

fn mirrored(filter: &Value) -> &Value {
    &filter["requestMirror"]["backendRef"]
}

/// Whether a reference leads to a Service of the rollout's namespace.
fn is_local(home: Home<'_>, backend: &Value) -> bool {
    let is_or_absent = |field: &str, value: &str| backend[field].is_null() || backend[field] == value;
    is_or_absent("group", "") && is_or_absent("kind", "Service") && is_or_absent("namespace", home.namespace)
}

fn missing(to: &Attach) -> Trouble {
    let message = format!(
        "HTTPRoute {} does not exist in this namespace. Create it: a route that is yours is never made or deleted here.",
        to.route
    );
    Trouble { reason: "RouteMissing".to_owned(), message }
}

fn ambiguous(to: &Attach) -> Trouble {
    let message = format!(
        "HTTPRoute {} has several rules that could be meant. Leave the one for this model alone there, or give it a name of its own and create the ModelRollout with that as spec.traffic.attach.rule.",
        to.route
    );
    Trouble { reason: "RuleAmbiguous".to_owned(), message }
}

fn not_found(to: &Attach, route: &Value) -> Trouble {
    let has_names = rules(route).any(|rule| rule["name"].is_string());
    let message = match &to.rule {
        None => format!("HTTPRoute {} has no rule. Add one.", to.route),
        Some(name) if has_names => format!(
            "HTTPRoute {} has no rule named {name}. Add it, or give the rule that is meant this name.",
            to.route
        ),
        Some(name) => format!(
            "HTTPRoute {} has no rule named {name}, and none of its rules has a name: resource definitions of Gateway API before 1.4 drop them. Update those, or give the model a route of its own and leave out spec.traffic.attach.rule.",
            to.route
        ),
    };
    Trouble { reason: "RuleNotFound".to_owned(), message }
}

fn unknown(to: &Attach, strangers: &[&str]) -> Trouble {
    let told = strangers.iter().find_map(|name| Some((*name, build::rollout_of(name)?)));
    let message = match told {
        Some((name, other)) => format!(
            "{} of HTTPRoute {} sends requests to {name}, which is by its name a version of ModelRollout {other}. Give each of the two a rule of its own.",
            called(to),
            to.route
        ),
        None => format!(
            "{} of HTTPRoute {} sends requests to {}, which is neither a version of this rollout nor spec.traffic.attach.service. Take it out of the rule; if it is what serves, create the ModelRollout with it as spec.traffic.attach.service.",
            called(to),
            to.route,
            strangers.join(", ")
        ),
    };
    Trouble { reason: "BackendUnknown".to_owned(), message }
}
