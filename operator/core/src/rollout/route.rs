//! The route as it is, beside what the status asks for; and what its gateway's controller says of it.
//!
//! Called by `converge`, which writes it, and by everything that waits until the data plane has it. A route is as asked only
//! if nothing was added to it that leads requests elsewhere.

use anneal_crds::{
    ModelRollout, ModelRolloutStatus,
    model_rollout::{RolloutPhase, Traffic, TrafficStatus, WrittenRoute},
    names,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{
    attach::{self, Part},
    build::{self, Home, Shares},
    draft::{Draft, RECHECK},
    rule,
    shares::Split,
};
use crate::{
    condition::{KState, Truth},
    object::{Key, Kind, Object, covers},
    plan::Action,
    trouble::Trouble,
};

/// The key of the route that brings a rollout's requests.
pub fn route_key(rollout: &ModelRollout) -> Option<Key> {
    let namespace = rollout.metadata.namespace.as_deref()?;
    Some(match &rollout.spec.traffic {
        Traffic::Gateway(_) => Key::new(Kind::HttpRoute, namespace, rollout.metadata.name.as_deref()?),
        Traffic::Attach(to) => attach::key(namespace, to),
    })
}

/// The key of the gateway that the route attaches to; none for a route of the user's that names none, as in a mesh.
pub fn gateway_key(rollout: &ModelRollout, route: Option<&Value>) -> Option<Key> {
    let own = rollout.metadata.namespace.as_deref()?;
    match &rollout.spec.traffic {
        Traffic::Gateway(gateway) => {
            Some(Key::new(Kind::Gateway, gateway.namespace.as_deref().unwrap_or(own), &gateway.name))
        }
        Traffic::Attach(_) => {
            let parents = route?["spec"]["parentRefs"].as_array()?;
            let (group, _, kind, _) = Kind::Gateway.resource();
            let is =
                |parent: &Value, field: &str, value: &str| parent[field].is_null() || parent[field] == value;
            let parent =
                parents.iter().find(|parent| is(parent, "group", group) && is(parent, "kind", kind))?;
            let namespace = parent["namespace"].as_str().unwrap_or(own);
            Some(Key::new(Kind::Gateway, namespace, parent["name"].as_str()?))
        }
    }
}

/// What a rollout wants of its route.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    /// All of an object of its own.
    Whole(Object),
    /// A part of a user's.
    Part(Part),
}

impl Wanted {
    /// What is wanted, or why it may not be.
    pub(super) fn of(home: Home<'_>, shares: &Shares<'_>, seen: Option<&Value>) -> Result<Self, Trouble> {
        match &home.rollout.spec.traffic {
            Traffic::Gateway(gateway) => {
                let object = build::route(home, gateway, shares);
                match seen.filter(|seen| !home.owns(seen)) {
                    Some(_) => Err(super::converge::name_conflict(&object.key)),
                    None => Ok(Self::Whole(object)),
                }
            }
            Traffic::Attach(to) => Part::of(home, to, shares, seen).map(Self::Part),
        }
    }

    /// What tells it from what was wanted before.
    fn digest(&self) -> &str {
        match self {
            Self::Whole(object) => {
                object.body["metadata"]["annotations"][names::ANNOTATION_APPLIED].as_str().unwrap_or_default()
            }
            Self::Part(part) => &part.digest,
        }
    }

    fn is_in(&self, seen: &Value) -> bool {
        match self {
            Self::Whole(object) => same(seen, &object.body),
            Self::Part(part) => part.is_in(seen),
        }
    }

    fn mirror_differs(&self, seen: &Value) -> bool {
        let filters = |route: &Value| route["spec"]["rules"][0]["filters"].clone();
        match self {
            Self::Whole(object) => !same(&filters(seen), &filters(&object.body)),
            Self::Part(part) => part.mirror_differs(seen),
        }
    }

    /// What tells one state of what others write there from another.
    fn others(&self, seen: &Value) -> Option<String> {
        match self {
            Self::Whole(_) => None,
            Self::Part(part) => Some(part.others(seen)),
        }
    }

    /// What makes it so. Only as it was read: whoever decided by an older status must not overwrite a later decision.
    fn write(&self, seen: Option<&Value>) -> Action {
        match (self, seen) {
            (Self::Whole(object), seen) => {
                let mut object = object.clone();
                if let Some(seen) = seen {
                    object.body["metadata"]["resourceVersion"] = seen["metadata"]["resourceVersion"].clone();
                }
                Action::Apply(object)
            }
            (Self::Part(part), seen) => Action::Patch(part.patch(seen.unwrap_or(&Value::Null))),
        }
    }

    /// Whether it is what was done to the route last, whatever that is like since.
    fn landed(&self, seen: &Value, before: Option<&WrittenRoute>) -> bool {
        let written = match self {
            Self::Whole(_) => seen["metadata"]["annotations"][names::ANNOTATION_APPLIED] == self.digest(),
            // A user's route gets no annotation. Nor is it ours alone: other rollouts write their rules of it under the same
            // name. What a write makes of the generation that it rests on is the next one, and of what is theirs nothing.
            Self::Part(part) => before.is_some_and(|before| {
                before.digest == part.digest
                    && generation(Some(seen)) == before.over + 1
                    && before.others == Some(part.others(seen))
            }),
        };
        written && Author::of(seen) == Author::Us
    }
}

/// Reason: the gateway's controller refuses the route, or a part of it.
const NOT_TAKEN: &str = "RouteNotAccepted";
/// Condition: whether requests are divided as the step asks for.
pub(super) const VERIFIED: &str = "TrafficVerified";
/// Reason: requests go another way than the route says.
pub(super) const MISMATCH: &str = "TrafficSplitMismatch";

/// Whether a status says that requests go another way than the route says.
pub(super) fn is_mismatch_told(status: &ModelRolloutStatus) -> bool {
    status.conditions.iter().any(|told| told.type_ == VERIFIED && told.reason == MISMATCH)
}

/// Its reason where the version on trial has no counter, and the one beside it has.
const UNCOUNTED: &str = "CandidateNotCounted";

/// Whether a status says so.
pub(super) fn is_told_uncounted(status: &ModelRolloutStatus) -> bool {
    status.conditions.iter().any(|told| told.type_ == VERIFIED && told.reason == UNCOUNTED)
}

/// Its reason where requests went otherwise when they were counted last, and cannot be counted now.
pub(super) const UNREAD: &str = "NotCounted";

/// Whether a status says so.
pub(super) fn is_told_unread(status: &ModelRolloutStatus) -> bool {
    status.conditions.iter().any(|told| told.type_ == VERIFIED && told.reason == UNREAD)
}

/// How the route is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing<'a> {
    /// No version may serve yet.
    NotAsked,
    /// It may not be written, and why.
    Blocked(Trouble),
    /// It is left as it is until someone could answer, and why.
    Waits(Trouble),
    /// It is missing or differs, and this makes it so.
    Differs(Write),
    /// It is as the status asks for.
    Same(&'a Value),
}

/// What makes a route so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    /// The call.
    pub(super) action: Action,
    /// What is remembered of it.
    pub(super) record: WrittenRoute,
    /// Whether the route has another mirror than it is to have.
    mirror_differs: bool,
    /// Whether the same write was the last thing that was done to the route.
    pub(super) landed: bool,
    /// Whether other rollouts write the same route.
    pub(super) is_shared: bool,
    /// Why this is not all that the status asks for.
    besides: Option<Trouble>,
}

/// Who set the rules of a route last, by what the API server keeps of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author<'a> {
    /// This operator.
    Us,
    /// Someone else, by the name of the tool.
    Other(&'a str),
    /// The API server does not say.
    Unknown,
}

impl<'a> Author<'a> {
    /// Who owns `spec.rules`, which is one atomic list.
    pub(super) fn of(route: &'a Value) -> Self {
        let fields = route["metadata"]["managedFields"].as_array().into_iter().flatten();
        let owners = fields.filter(|entry| !entry["fieldsV1"]["f:spec"]["f:rules"].is_null());
        let mut author = Self::Unknown;
        for manager in owners.filter_map(|entry| entry["manager"].as_str()) {
            author = match author {
                Self::Us | Self::Unknown if manager != names::FIELD_MANAGER => Self::Other(manager),
                Self::Unknown => Self::Us,
                Self::Us | Self::Other(_) => author,
            };
        }
        author
    }
}

impl Draft<'_> {
    /// How the route is.
    pub(super) fn standing(&self) -> Standing<'_> {
        let seen = self.snapshot.children.route.as_ref();
        if let Some(seen) = seen.filter(|seen| self.is_known_right(seen)) {
            return Standing::Same(seen);
        }
        let wanted = match self.wanted_route() {
            None => return Standing::NotAsked,
            Some(Err(trouble)) => return Standing::Blocked(trouble.clone()),
            Some(Ok(wanted)) => wanted,
        };
        if let Some(seen) = seen.filter(|seen| wanted.is_in(seen)) {
            if self.asks_as_recorded() {
                self.snapshot.memo.note_right(Kind::HttpRoute, name(seen));
            }
            return Standing::Same(seen);
        }
        if let Some(trouble) = self.nobody_answers(wanted) {
            return Standing::Waits(trouble);
        }
        let (is_shared, besides) = match wanted {
            Wanted::Whole(_) => (false, None),
            Wanted::Part(part) => (true, part.besides.clone()),
        };
        Standing::Differs(Write {
            action: wanted.write(seen),
            record: WrittenRoute {
                digest: wanted.digest().to_owned(),
                over: generation(seen),
                others: seen.and_then(|seen| wanted.others(seen)),
                seen: None,
            },
            mirror_differs: seen.is_some_and(|seen| wanted.mirror_differs(seen)),
            landed: seen.is_some_and(|seen| wanted.landed(seen, self.written())),
            is_shared,
            besides,
        })
    }

    /// Whether an earlier look at the same world found the route to be as the recorded status asks for, and that still does.
    fn is_known_right(&self, seen: &Value) -> bool {
        self.snapshot.memo.is_right(Kind::HttpRoute, name(seen)) && self.asks_as_recorded()
    }

    /// Whether the status asks for what the recorded one does.
    fn asks_as_recorded(&self) -> bool {
        let (Some(home), Some(recorded)) = (Home::of(self.rollout), &self.rollout.status) else {
            return false;
        };
        let services = &self.snapshot.children.services;
        build::shares(home, &self.status, services) == build::shares(home, recorded, services)
    }

    /// Why a user's rule stays as it is although it could be written: it leads to someone, and would lead to a version that
    /// nobody answers for. Whom a rollback takes out goes all the same.
    fn nobody_answers(&self, wanted: &Wanted) -> Option<Trouble> {
        let (Wanted::Part(part), Some(home)) = (wanted, Home::of(self.rollout)) else { return None };
        let route = self.snapshot.children.route.as_ref()?;
        let version = part.newcomers.iter().find(|version| self.nobody_answers_for(version))?;
        let gives_up = self.status.phase == RolloutPhase::RolledBack;
        let given_up = self.status.candidate.as_ref().filter(|_| gives_up);
        let given_up = given_up.map(|version| build::workload_name(home.name, &version.version));
        let present: Vec<&str> = part.present(route).collect();
        if present.is_empty() || given_up.is_some_and(|service| present.contains(&service.as_str())) {
            return None;
        }
        let message = format!(
            "{} has no ready endpoint, so HTTPRoute {} still sends requests to {}.",
            version.version,
            self.route_name(),
            present.join(", ")
        );
        Some(Trouble { reason: "VersionUnavailable".to_owned(), message })
    }

    /// Why the route of the user's cannot be written; none for one of our own, which is made anew.
    pub(super) fn attach_trouble(&self) -> Option<Trouble> {
        match (&self.rollout.spec.traffic, self.wanted_route()) {
            (Traffic::Attach(_), Some(Ok(wanted))) => match wanted {
                Wanted::Part(part) => part.besides.clone().or_else(|| self.nobody_answers(wanted)),
                Wanted::Whole(_) => None,
            },
            (Traffic::Attach(_), Some(Err(trouble))) => Some(trouble.clone()),
            // Nobody serves yet, and the first version is about to.
            (Traffic::Attach(to), None) => {
                let route = self.snapshot.children.route.as_ref();
                rule::known(Home::of(self.rollout)?, to, route).err()
            }
            (Traffic::Gateway(_), _) => None,
        }
    }

    /// Writes the route, if it is not as the status asks for.
    pub(super) fn apply_route(&mut self) {
        match self.standing() {
            Standing::NotAsked => {}
            Standing::Same(route) => {
                let uid = uid(route).map(str::to_owned);
                self.note_seen(uid);
            }
            Standing::Blocked(trouble) => self.blocked(&trouble),
            Standing::Waits(trouble) => {
                self.kstatus(KState::Reconciling, &trouble.reason, &trouble.message);
                self.wake_at_latest(RECHECK);
            }
            Standing::Differs(write) => {
                if let Some(trouble) = &write.besides {
                    self.blocked(trouble);
                }
                if self.waits_to_rewrite(&write.record) {
                    return;
                }
                self.note_fight(&write);
                self.traffic().written = Some(write.record);
                self.actions.push(write.action);
            }
        }
    }

    /// What is remembered of the route.
    pub(super) fn traffic(&mut self) -> &mut TrafficStatus {
        self.status.traffic.get_or_insert_default()
    }

    /// Whether the route that this operator wrote has not the mirror that it wrote, and nobody else wrote since.
    pub(super) fn written_by_us_and_dropped(&self) -> bool {
        match self.standing() {
            Standing::Differs(write) => write.mirror_differs && write.landed,
            Standing::NotAsked | Standing::Blocked(_) | Standing::Waits(_) | Standing::Same(_) => false,
        }
    }

    /// The step's clock starts when the data plane's controller has accepted the weights that were asked for, and starts
    /// again when they are no longer so.
    pub(super) fn note_accepted_traffic(&mut self) {
        self.await_calm();
        let accepted = self.traffic_accepted();
        let contest = self.contest();
        let refused = self.gateway_says_no();
        let (verified, reason, message) = match (&contest, accepted, self.split) {
            (Some(contest), _, _) => (Truth::False, contest.reason.as_str(), contest.message.as_str()),
            (None, false, _) if self.lies_with_the_user() => {
                let said = refused.as_ref().map(|trouble| trouble.message.as_str());
                (
                    Truth::False,
                    NOT_TAKEN,
                    said.unwrap_or("The gateway has not taken the route since it was corrected."),
                )
            }
            (None, false, _) => {
                (Truth::False, "NotAccepted", "The route does not have the weights of this step yet.")
            }
            (None, true, Split::Otherwise) => (
                Truth::False,
                MISMATCH,
                "The route has the weights of this step, and the counters show another share, see status.observed. Look at the gateway's data plane, and at whatever sends requests past it.",
            ),
            (None, true, Split::Uncounted) => (
                Truth::Unknown,
                UNCOUNTED,
                "The route has the weights of this step, and the counters show requests of the version beside it alone: either the pods of the version on trial are not scraped, or export no such counter, or the gateway's data plane does not follow.",
            ),
            (None, true, Split::Unread) => (
                Truth::Unknown,
                UNREAD,
                "The route has the weights of this step. Requests did not go by them when they were counted last, and nobody can count them now.",
            ),
            (None, true, Split::AsAsked) => {
                (Truth::True, "Accepted", "The route has the weights of this step.")
            }
        };
        if self.incumbent().is_someone() {
            let takes =
                self.what_it_takes_to_see_the_share().filter(|_| verified == Truth::True).unwrap_or_default();
            self.condition(VERIFIED, verified, reason, &format!("{message}{takes}"));
        }
        let now = Time(self.now);
        if accepted {
            self.status.traffic_accepted_at.get_or_insert(now);
        } else if contest.is_some() || self.current_route().is_none() || !self.status.phase.is_judged() {
            // Someone changed the route: who knows where requests went meanwhile. Where no step's clock runs, a time that
            // rests on a stale read is worth nothing either.
            self.status.traffic_accepted_at = None;
        }
    }

    /// The route, if it asks for what the status says.
    fn current_route(&self) -> Option<&Value> {
        match self.standing() {
            Standing::Same(route) => Some(route),
            Standing::NotAsked | Standing::Blocked(_) | Standing::Waits(_) | Standing::Differs(_) => None,
        }
    }

    /// Whether the route asks for what the status says, nobody else keeps changing it, and its gateway's controller has
    /// accepted all of it.
    pub(super) fn traffic_accepted(&self) -> bool {
        !self.contested()
            && self.current_route().is_some_and(|route| {
                let says = |parent: &Value, type_, status| {
                    verdict_on(route, parent, type_).is_some_and(|said| said["status"] == status)
                };
                let takes = |parent: &Value| {
                    says(parent, "Accepted", "True")
                        && says(parent, "ResolvedRefs", "True")
                        && !says(parent, "PartiallyInvalid", "True")
                };
                // One that refuses the route sends no requests by it; one that has not looked may send them where they went.
                let named = || parents(route).iter().filter(|parent| is_named(route, parent));
                named().any(&takes)
                    && named().all(|parent| takes(parent) || says(parent, "Accepted", "False"))
            })
    }

    /// Whether the gateway refuses a user's route, or did when it was last looked at and has not taken it since. What is wrong
    /// may lie in a rule that is no business of the rollout's, so it is not held against a version.
    pub(super) fn lies_with_the_user(&self) -> bool {
        self.is_attached()
            && !self.traffic_accepted()
            && (self.was_refused() || self.gateway_says_no().is_some())
    }

    /// Deadlines begin anew once a user's route that was refused is taken.
    pub(super) fn note_taken(&mut self) {
        if self.is_attached() && self.was_refused() && self.is_under_way() && self.traffic_accepted() {
            self.status.thawed_at = Some(Time(self.now));
        }
    }

    fn was_refused(&self) -> bool {
        self.status.conditions.iter().any(|told| told.type_ == VERIFIED && told.reason == NOT_TAKEN)
    }

    fn is_attached(&self) -> bool {
        match self.rollout.spec.traffic {
            Traffic::Gateway(_) => false,
            Traffic::Attach(_) => true,
        }
    }

    /// Why the route does not bring requests as it should, if anyone says so.
    pub(super) fn route_trouble(&self) -> Option<Trouble> {
        self.contest().or_else(|| self.gateway_says_no())
    }

    fn gateway_says_no(&self) -> Option<Trouble> {
        let route = self.current_route()?;
        let against = |parent| {
            [("Accepted", "False"), ("ResolvedRefs", "False"), ("PartiallyInvalid", "True")]
                .into_iter()
                .filter_map(move |(type_, status)| Some((verdict_on(route, parent, type_)?, status)))
                .find_map(|(said, status)| (said["status"] == status).then_some(said))
        };
        let said = parents(route).iter().find_map(against)?;
        let text = |field: &str| said[field].as_str().unwrap_or_default();
        let name = name(route);
        let what = if self.is_attached() {
            // A controller tells of the whole route.
            format!("Correct HTTPRoute {name}, maybe in another rule, or its Gateway")
        } else {
            "Correct the Gateway or spec.traffic".to_owned()
        };
        let or = if self.status.phase == RolloutPhase::Shadow {
            ", or remove strategy.shadow if the gateway cannot copy requests"
        } else {
            ""
        };
        let message = format!(
            "The gateway does not take HTTPRoute {name}: {} ({}). {what}{or}.",
            text("message").trim_end_matches('.'),
            text("reason")
        );
        Some(Trouble { reason: NOT_TAKEN.to_owned(), message })
    }
}

/// Which of the routes that had the name it is.
pub(super) fn uid(route: &Value) -> Option<&str> {
    route["metadata"]["uid"].as_str()
}

fn name(route: &Value) -> &str {
    route["metadata"]["name"].as_str().unwrap_or_default()
}

fn generation(route: Option<&Value>) -> i64 {
    route.and_then(|route| route["metadata"]["generation"].as_i64()).unwrap_or(0)
}

/// Fields by which requests are led elsewhere, or are no longer shared by weight. The API server sets none of them.
const STRAYS: [&str; 9] = [
    "filters",
    "fraction",
    "headers",
    "method",
    "percent",
    "queryParams",
    "retry",
    "sessionPersistence",
    "timeouts",
];

/// Whether `seen` says what `wanted` says, and nothing besides that matters to where requests go.
pub(super) fn same(seen: &Value, wanted: &Value) -> bool {
    covers(seen, wanted) && !strays(seen, wanted)
}

fn strays(seen: &Value, wanted: &Value) -> bool {
    match (seen, wanted) {
        (Value::Object(seen), Value::Object(wanted)) => {
            seen.iter().any(|(name, value)| match wanted.get(name) {
                Some(wanted) => strays(value, wanted),
                None => STRAYS.contains(&name.as_str()) && !is_empty(value),
            })
        }
        (Value::Array(seen), Value::Array(wanted)) => {
            seen.iter().zip(wanted).any(|(seen, wanted)| strays(seen, wanted))
        }
        (_, _) => false,
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn parents(route: &Value) -> &[Value] {
    route["status"]["parents"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether the route still asks for what a controller speaks of.
fn is_named(route: &Value, parent: &Value) -> bool {
    let (said, home) = (&parent["parentRef"], &route["metadata"]["namespace"]);
    let namespace = |reference: &Value| reference["namespace"].as_str().or(home.as_str()).map(str::to_owned);
    let kind = |reference: &Value| reference["kind"].as_str().unwrap_or("Gateway").to_owned();
    let is = |wanted: &Value| {
        kind(wanted) == kind(said)
            && ["name", "sectionName", "port"].iter().all(|field| wanted[*field] == said[*field])
            && namespace(wanted) == namespace(said)
    };
    said.is_null() || route["spec"]["parentRefs"].as_array().is_some_and(|all| all.iter().any(is))
}

/// What a parent's controller says of the route as it is now.
fn verdict_on<'a>(route: &Value, parent: &'a Value, type_: &str) -> Option<&'a Value> {
    let generation = route["metadata"]["generation"].as_i64().unwrap_or(i64::MAX);
    parent["conditions"].as_array()?.iter().find(|condition| {
        condition["type"] == type_
            && condition["observedGeneration"].as_i64().is_some_and(|seen| seen >= generation)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_leads_requests_elsewhere_does_not_go_unseen() {
        let wanted = json!({"rules": [{"backendRefs": [{"name": "a", "weight": 1000}], "filters": [],
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]});
        assert!(same(&wanted, &wanted));
        let mut defaults = wanted.clone();
        defaults["rules"][0]["backendRefs"][0]["group"] = "".into();
        defaults["rules"][0]["backendRefs"][0]["filters"] = json!([]);
        assert!(same(&defaults, &wanted), "what the API server adds does not count");
        for (place, value) in [
            ("/rules/0/backendRefs/0", json!({"filters": [{"type": "RequestRedirect"}]})),
            ("/rules/0/matches/0", json!({"headers": [{"name": "x", "value": "y"}]})),
            ("/rules/0/matches/0", json!({"method": "GET"})),
            ("/rules/0", json!({"timeouts": {"request": "1s"}})),
            ("/rules/0", json!({"sessionPersistence": {"type": "Cookie"}})),
        ] {
            let mut seen = wanted.clone();
            let object = seen.pointer_mut(place).and_then(Value::as_object_mut).unwrap();
            object.extend(value.as_object().unwrap().clone());
            assert!(!same(&seen, &wanted), "{place} {value}");
        }
    }

    #[test]
    fn the_api_server_says_who_set_the_rules() {
        let entry =
            |manager: &str, field: &str| json!({"manager": manager, "fieldsV1": {"f:spec": {(field): {}}}});
        let ours = names::FIELD_MANAGER;
        for (entries, author) in [
            (json!([]), Author::Unknown),
            (json!([entry(ours, "f:rules")]), Author::Us),
            (
                json!([entry(ours, "f:hostnames"), entry("kubectl-edit", "f:rules")]),
                Author::Other("kubectl-edit"),
            ),
            (json!([entry("envoy-gateway", "f:status"), entry(ours, "f:rules")]), Author::Us),
            (json!([entry(ours, "f:rules"), entry("argocd", "f:rules")]), Author::Other("argocd")),
        ] {
            let route = json!({"metadata": {"managedFields": entries}});
            assert_eq!(Author::of(&route), author, "{route}");
        }
    }
}
