//! Routes of users: one rule of one is written as far as it is the rollout's, and what served before is stable until a
//! version has taken over.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_core::{
    patch::Operation,
    plan::{Action, Plan},
    rollout::{Endpoints, ProbeAnswer},
};
use anneal_crds::{ModelRolloutStatus, Weight, model_rollout::RolloutPhase as P, names};
use anneal_tests::cases::{self, Read, RolloutCase};
use jiff::SignedDuration;
use serde_json::{Value, json};

/// A route as its user wrote it: a rule for the model and another one.
fn route() -> Value {
    let header = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x", "value": "y"}]}});
    json!({
        "metadata": {"name": "shop", "namespace": "team-a", "uid": "uid-shop", "generation": 3, "resourceVersion": "5",
            "labels": {"app": "shop"}},
        "spec": {
            "parentRefs": [{"name": "web"}], "hostnames": ["shop.example.com"],
            "rules": [
                {"name": "site", "backendRefs": [{"name": "site", "port": 80}]},
                {"name": "model", "timeouts": {"request": "10s"}, "filters": [header],
                    "backendRefs": [{"name": "old", "port": 8080, "weight": 7, "filters": [header]}]},
            ],
        },
        "status": {"parents": [{"conditions": [
            {"type": "Accepted", "status": "True", "observedGeneration": 3},
            {"type": "ResolvedRefs", "status": "True", "observedGeneration": 3},
        ]}]},
    })
}

/// A rollout that is attached to it, with version 1 of a model that nobody has served yet.
fn attached(attach: Value) -> RolloutCase {
    let mut case = RolloutCase::new(Value::Null).unwrap();
    case.rollout.spec.traffic = serde_json::from_value(json!({"attach": attach})).unwrap();
    case.rollout.status = None;
    case.versions.truncate(1);
    case.versions[0].metadata.annotations.get_or_insert_default().remove(STABLE);
    case.children = anneal_core::rollout::Children { route: Some(route()), ..Default::default() };
    case.read = Read::Errors(0.0, 3.0);
    case
}

const STABLE: &str = "stable-in.anneal.dev/ads";

fn adopting() -> RolloutCase {
    attached(json!({"route": "shop", "rule": "model", "service": "old"}))
}

/// One reconcile: what is planned is recorded and done, and some time passes.
fn walk(case: &mut RolloutCase) -> Plan<ModelRolloutStatus> {
    let plan = case.plan();
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status.clone());
    case.now += SignedDuration::from_secs(1);
    plan
}

fn status(case: &RolloutCase) -> &ModelRolloutStatus {
    case.rollout.status.as_ref().unwrap()
}

/// Reconciles until a phase is there.
fn until(case: &mut RolloutCase, phase: P) {
    for _ in 0..20 {
        if case.rollout.status.as_ref().is_some_and(|status| status.phase == phase) {
            return;
        }
        walk(case);
    }
    assert_eq!(status(case).phase, phase, "{:?}", status(case));
}

/// The step in which a rollout is passes.
fn step_passes(case: &mut RolloutCase) {
    walk(case);
    case.now += SignedDuration::from_secs(60);
    case.read = Read::Errors(0.0, 1000.0);
    let plan = case.plan_with(&case.fresh());
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status);
    case.read = Read::Errors(0.0, 3.0);
}

/// Backends of the model's rule with their weights.
fn backends(case: &RolloutCase) -> Vec<(String, i64)> {
    let rule = &case.children.route.as_ref().unwrap()["spec"]["rules"][1];
    let backend =
        |backend: &Value| (backend["name"].as_str().unwrap().to_owned(), backend["weight"].as_i64().unwrap());
    rule["backendRefs"].as_array().unwrap().iter().map(backend).collect()
}

fn mirrors(case: &RolloutCase) -> Vec<Value> {
    let rule = &case.children.route.as_ref().unwrap()["spec"]["rules"][1];
    let filters = rule["filters"].as_array().cloned().unwrap_or_default();
    filters.into_iter().filter(|filter| filter["type"] == "RequestMirror").collect()
}

fn live(first: (&str, i64), others: &[(&str, i64)]) -> Vec<(String, i64)> {
    [first].iter().chain(others).map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

/// What is not the rollout's of a route.
fn of_the_user(route: &Value) -> Value {
    let mut route = route.clone();
    route["spec"]["rules"][1]["backendRefs"] = Value::Null;
    if let Some(filters) = route["spec"]["rules"][1]["filters"].as_array_mut() {
        filters.retain(|filter| filter["type"] != "RequestMirror");
    }
    json!([
        route["spec"],
        route["metadata"]["labels"],
        route["metadata"]["annotations"],
        route["metadata"]["ownerReferences"]
    ])
}

fn said(status: &ModelRolloutStatus, type_: &str) -> (String, String, String) {
    let told = status.conditions.iter().find(|told| told.type_ == type_).unwrap();
    (told.status.clone(), told.reason.clone(), told.message.clone())
}

fn patches(plan: &Plan<ModelRolloutStatus>) -> usize {
    plan.actions.iter().filter(|action| matches!(action, Action::Patch(_))).count()
}

const V1: &str = "ads-v20261121-1";
const V2: &str = "ads-v20261121-2";

fn with_bake(case: &mut RolloutCase) {
    let bake = json!({"duration": "50s", "rollbackTriggers": ["error_rate"]});
    case.rollout.spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
}

#[test]
fn what_serves_is_stable_until_the_first_version_has_taken_over() {
    let mut case = adopting();
    with_bake(&mut case);
    let before = of_the_user(case.children.route.as_ref().unwrap());
    until(&mut case, P::Preparing);
    assert_eq!(
        case.children.route.as_ref().unwrap()["metadata"]["generation"],
        3,
        "nothing is written before"
    );
    assert_eq!(status(&case).adopted.as_ref().unwrap().port, Some(8080));
    until(&mut case, P::Shadow);
    assert_eq!((backends(&case), mirrors(&case).len()), (live(("old", 7), &[]), 1));
    assert_eq!(
        mirrors(&case)[0]["requestMirror"]["backendRef"],
        json!({"group": "", "kind": "Service", "name": V1, "port": 81})
    );
    step_passes(&mut case);
    assert_eq!((status(&case).phase, mirrors(&case).len()), (P::Canary, 0));
    assert_eq!(backends(&case), live(("old", 800), &[(V1, 200)]));
    step_passes(&mut case);
    assert_eq!(backends(&case), live(("old", 0), &[(V1, 1000)]));
    step_passes(&mut case);
    assert_eq!((status(&case).phase, backends(&case)), (P::Baking, live((V1, 1000), &[("old", 0)])));
    step_passes(&mut case);
    assert_eq!((status(&case).phase, backends(&case)), (P::Healthy, live((V1, 1000), &[])));
    assert_eq!(
        (status(&case).adopted.as_ref(), status(&case).stable.as_ref().unwrap().version.as_str()),
        (None, "v20261121.1")
    );
    assert_eq!(of_the_user(case.children.route.as_ref().unwrap()), before, "the rest is the user's");
    walk(&mut case);
    let plan = walk(&mut case);
    assert_eq!((patches(&plan), said(&plan.status, "Ready").0), (0, "True".to_owned()));
}

#[test]
fn the_way_back_of_the_first_version_leads_to_what_served_before() {
    for (phase, shares) in [
        (P::Shadow, live(("old", 7), &[])),
        (P::Canary, live(("old", 800), &[(V1, 200)])),
        (P::Baking, live((V1, 1000), &[("old", 0)])),
    ] {
        let mut case = adopting();
        with_bake(&mut case);
        until(&mut case, P::Shadow);
        for _ in 0..3 {
            if status(&case).phase != phase {
                step_passes(&mut case);
            }
        }
        walk(&mut case);
        assert_eq!((status(&case).phase, backends(&case)), (phase, shares));
        case.read = Read::Errors(0.5, 1000.0);
        let plan = case.plan_with(&case.fresh());
        case.perform(&plan.actions);
        assert_eq!((plan.status.phase, plan.status.stable.as_ref()), (P::RolledBack, None));
        assert_eq!((plan.status.rejected.len(), plan.status.history.len()), (1, 0));
        case.rollout.status = Some(plan.status);
        let (all, mirrors) = (backends(&case), mirrors(&case));
        assert!(all.len() == 1 && all[0].0 == "old" && all[0].1 > 0 && mirrors.is_empty(), "{all:?}");
        // And there it rests: the version does not come back, and its pods go.
        for _ in 0..100 {
            walk(&mut case);
        }
        let (status_, reason, message) = said(status(&case), "Ready");
        assert_eq!(
            (status(&case).phase, status_.as_str(), reason.as_str()),
            (P::RolledBack, "True", "VersionRejected")
        );
        assert!(message.starts_with("Service old serves all requests."), "{message}");
        assert!(case.children.deployments.is_empty() && case.children.services.is_empty());
    }
}

#[test]
fn smoke_that_fails_and_an_abort_lead_back_too() {
    for abort in [false, true] {
        let mut case = adopting();
        let smoke = json!({"requests": [{"path": "/v2", "expect": {"status": 200}}]});
        case.rollout.spec.strategy.smoke = Some(serde_json::from_value(smoke).unwrap());
        until(&mut case, P::Shadow);
        for _ in 0..3 {
            step_passes(&mut case);
        }
        assert_eq!((status(&case).phase, backends(&case)), (P::Baking, live((V1, 1000), &[("old", 0)])));
        if abort {
            let annotations = case.rollout.metadata.annotations.get_or_insert_default();
            annotations.insert(names::ANNOTATION_ABORT.to_owned(), "v20261121.1: no".to_owned());
        } else {
            case.probed = ProbeAnswer::Answered { status: 500, body: vec![] };
        }
        walk(&mut case);
        assert_eq!((status(&case).phase, backends(&case)), (P::RolledBack, live(("old", 1000), &[])));
    }
}

#[test]
fn a_first_version_that_never_starts_is_given_up_where_something_serves() {
    let mut case = adopting();
    until(&mut case, P::Preparing);
    case.children
        .deployments
        .iter_mut()
        .for_each(|deployment| deployment["status"]["readyReplicas"] = 0.into());
    case.now += SignedDuration::from_mins(3);
    let plan = case.plan();
    assert_eq!((plan.status.phase, patches(&plan)), (P::RolledBack, 0));
    assert_eq!(plan.status.decision.unwrap().reason, "ProgressDeadlineExceeded");
}

#[test]
fn without_a_version_what_serves_is_ready_and_nothing_is_written() {
    let mut case = adopting();
    case.versions.clear();
    walk(&mut case);
    let plan = walk(&mut case);
    assert_eq!((plan.status.phase, plan.actions.len()), (P::Pending, 0));
    assert_eq!(said(&plan.status, "Ready").1, "NoVersion");
    case.now += SignedDuration::from_secs(60);
    assert!(case.plan().is_idle(case.rollout.status.as_ref()));
}

#[test]
fn a_route_that_leads_to_strangers_or_nowhere_is_left_alone_and_told() {
    let attach = |rule: Option<&str>, service: Option<&str>| json!({"route": "shop", "rule": rule, "service": service});
    let model = |change: &dyn Fn(&mut Value)| {
        let mut route = route();
        change(&mut route["spec"]["rules"][1]);
        Some(route)
    };
    let also = |name: &str| json!([{"name": "old", "port": 8080}, {"name": name, "port": 80}]);
    for (attach, route, reason) in [
        (attach(Some("model"), Some("old")), None, "RouteMissing"),
        (attach(Some("modle"), Some("old")), Some(route()), "RuleNotFound"),
        (attach(None, Some("old")), Some(route()), "RuleAmbiguous"),
        (attach(Some("model"), None), Some(route()), "BackendUnknown"),
        (attach(Some("model"), Some("older")), Some(route()), "BackendUnknown"),
        (
            attach(Some("model"), Some("old")),
            model(&|rule| rule["backendRefs"] = also("else")),
            "BackendUnknown",
        ),
        (
            attach(Some("model"), Some("old")),
            model(&|rule| rule["backendRefs"][0]["namespace"] = "team-b".into()),
            "BackendUnknown",
        ),
        (
            attach(Some("model"), Some("old")),
            model(&|rule| rule["backendRefs"][0]["kind"] = "InferencePool".into()),
            "BackendUnknown",
        ),
        (
            attach(Some("model"), Some("old")),
            model(&|rule| rule["backendRefs"] = also("old")),
            "BackendAmbiguous",
        ),
        (
            attach(Some("model"), Some("old")),
            model(&|rule| rule["backendRefs"] = json!([])),
            "BackendMissing",
        ),
    ] {
        let mut case = attached(attach.clone());
        case.children.route.clone_from(&route);
        for _ in 0..6 {
            let plan = walk(&mut case);
            assert_eq!(patches(&plan), 0, "{attach} {route:?}");
        }
        let (stalled, told, message) = said(status(&case), "Stalled");
        assert_eq!(
            (stalled.as_str(), told.as_str(), status(&case).phase),
            ("True", reason, P::Preparing),
            "{attach}: {message}"
        );
        assert!(message.contains("HTTPRoute shop"), "{message}");
        let before = status(&case).clone();
        case.now += SignedDuration::from_secs(7);
        assert_eq!(case.plan().status, before, "{reason}: a message that changes is a write each time");
        // Nothing that is said in a rollout that never serves keeps another from doing so.
        assert_eq!(case.children.route, route);
    }
}

#[test]
fn a_rule_without_backends_waits_for_its_first_version() {
    let mut case = attached(json!({"route": "shop", "rule": "model"}));
    case.children.route.as_mut().unwrap()["spec"]["rules"][1]["backendRefs"] = json!([]);
    until(&mut case, P::Healthy);
    assert_eq!(status(&case).decision.as_ref().unwrap().reason, "Bootstrapped");
    assert_eq!(backends(&case), live((V1, 1000), &[]));
}

#[test]
fn a_patch_rests_on_all_that_it_replaces() {
    let mut case = adopting();
    until(&mut case, P::Shadow);
    step_passes(&mut case);
    let weight = status(&case).weight;
    assert_eq!(weight, Weight::from_percent(20));
    case.children.route = Some(route());
    let plan = case.plan();
    let patch = plan.actions.iter().find_map(|action| match action {
        Action::Patch(patch) => Some(patch),
        Action::Apply(_) | Action::Create(_) | Action::Delete { .. } => None,
    });
    let patch = patch.unwrap();
    let tested: Vec<&str> = patch
        .operations
        .iter()
        .filter_map(|operation| match operation {
            Operation::Test { path, .. } => Some(path.as_str()),
            Operation::Add { .. } | Operation::Replace { .. } | Operation::Remove { .. } => None,
        })
        .collect();
    assert_eq!(tested, ["/metadata/uid", "/metadata/generation", "/spec/rules/1/backendRefs"]);
    let edits: [(&str, Value); 4] = [
        ("/metadata/generation", json!(4)),
        ("/metadata/uid", json!("uid-again")),
        ("/spec/rules/1/backendRefs/0/weight", json!(8)),
        ("/spec/rules/1", json!({"name": "model"})),
    ];
    for (path, value) in edits {
        let mut edited = route();
        *edited.pointer_mut(path).unwrap() = value;
        assert_eq!(patch.applied(&edited), None, "{path}");
    }
    // A gateway's controller may tell of the route meanwhile.
    let mut told = route();
    told["status"] = json!({"parents": []});
    told["metadata"]["resourceVersion"] = "6".into();
    assert!(patch.applied(&told).is_some());
}

/// A rollout whose version 1 serves through the user's route, and version 2 has a share.
fn canary() -> RolloutCase {
    let mut case = adopting();
    until(&mut case, P::Shadow);
    for _ in 0..3 {
        step_passes(&mut case);
    }
    assert_eq!(status(&case).phase, P::Healthy);
    walk(&mut case);
    case.versions.push(cases::version(2, Some(1)).unwrap());
    until(&mut case, P::Shadow);
    step_passes(&mut case);
    walk(&mut case);
    assert_eq!(backends(&case), live((V1, 800), &[(V2, 200)]));
    case
}

#[test]
fn weights_count_once_every_gateway_of_the_route_has_them() {
    let mut case = canary();
    let route = case.children.route.as_mut().unwrap();
    route["spec"]["parentRefs"] = json!([{"name": "web"}, {"name": "partners"}]);
    let generation = route["metadata"]["generation"].as_i64().unwrap();
    let says = |name: &str, accepted: &str, resolved: &str, age: i64| {
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "observedGeneration": generation - age});
        json!({"parentRef": {"name": name},
            "conditions": [condition("Accepted", accepted), condition("ResolvedRefs", resolved)]})
    };
    let web = || says("web", "True", "True", 0);
    for (what, parents, taken) in [
        ("both have them", vec![web(), says("partners", "True", "True", 0)], true),
        ("one has not looked", vec![web(), says("partners", "True", "True", 1)], false),
        ("one does not know a Service", vec![web(), says("partners", "True", "False", 0)], false),
        ("one takes no request by this route", vec![web(), says("partners", "False", "True", 0)], true),
        (
            "nobody takes any",
            vec![says("web", "False", "True", 0), says("partners", "False", "True", 0)],
            false,
        ),
        ("one is no parent any more", vec![web(), says("gone", "True", "True", 1)], true),
        ("one has nobody who looks after it", vec![web()], true),
    ] {
        let mut case = case.clone();
        case.rollout.status.as_mut().unwrap().traffic_accepted_at = None;
        case.children.route.as_mut().unwrap()["status"]["parents"] = parents.into();
        assert_eq!(case.plan().status.traffic_accepted_at.is_some(), taken, "{what}");
    }
}

#[test]
fn edits_of_the_rollouts_part_are_put_right_and_counted_and_others_are_nobodys_business() {
    let edited = |path: &str, value: Value| {
        let mut case = canary();
        let route = case.children.route.as_mut().unwrap();
        *route.pointer_mut(path).unwrap() = value;
        route["metadata"]["generation"] = (route["metadata"]["generation"].as_i64().unwrap() + 1).into();
        let fields = json!({"f:spec": {"f:rules": {}}});
        route["metadata"]["managedFields"] = json!([{"manager": "kubectl-edit", "fieldsV1": fields}]);
        let plan = walk(&mut case);
        let traffic = plan.status.traffic.clone().unwrap();
        (backends(&case), patches(&plan), traffic.fights, traffic.changed_by)
    };
    let right = live((V1, 800), &[(V2, 200)]);
    let who = Some("kubectl-edit".to_owned());
    for (path, value) in [
        ("/spec/rules/1/backendRefs/0/weight", json!(1)),
        ("/spec/rules/1/backendRefs", json!([{"name": V2, "port": 80, "weight": 1}])),
        ("/spec/rules/1/backendRefs", json!([{"name": "old", "port": 8080, "weight": 1}])),
        (
            "/spec/rules/1/filters",
            json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": V2, "port": 81}}}]),
        ),
    ] {
        assert_eq!(edited(path, value.clone()), (right.clone(), 1, 1, who.clone()), "{path} {value}");
    }
    for (path, value) in [
        ("/spec/rules/0/backendRefs/0/weight", json!(1)),
        ("/spec/rules/1/timeouts", json!({"request": "20s"})),
        ("/spec/hostnames", json!(["other.example.com"])),
        (
            "/spec/rules/1/filters",
            json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "audit", "port": 80}}}]),
        ),
    ] {
        let path_ = path.replace("/backendRefs/0/weight", "/backendRefs");
        assert_eq!(edited(&path_, value.clone()), (right.clone(), 0, 0, None), "{path} {value}");
    }
}

#[test]
fn a_rule_with_a_new_place_is_found_by_its_name() {
    let mut case = canary();
    case.read = Read::Errors(0.5, 1000.0);
    case.children.route.as_mut().unwrap()["spec"]["rules"].as_array_mut().unwrap().swap(0, 1);
    let answer = case.fresh();
    let plan = case.plan_with(&answer);
    case.perform(&plan.actions);
    let rule = &case.children.route.as_ref().unwrap()["spec"]["rules"][0];
    assert_eq!((plan.status.phase, rule["name"].as_str()), (P::RolledBack, Some("model")));
    assert_eq!(rule["backendRefs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_route_that_goes_is_not_made_again_and_a_step_waits_for_it() {
    let mut case = canary();
    case.children.route = None;
    let plan = walk(&mut case);
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    assert_eq!(said(&plan.status, "Stalled").1, "RouteMissing");
    assert_eq!((plan.status.phase, said(&plan.status, "TrafficVerified").0.as_str()), (P::Canary, "False"));
}

#[test]
fn what_a_users_route_leads_to_outlives_the_rollout() {
    let mut case = canary();
    let owners =
        |of: &[Value]| of.iter().filter(|object| !object["metadata"]["ownerReferences"].is_null()).count();
    assert_eq!((owners(&case.children.deployments), owners(&case.children.services)), (0, 0));
    assert_eq!(case.children.deployments.len(), 2);
    // Deleted and created again, it finds its versions by their labels and marks, and what serves goes on.
    case.rollout.metadata.uid = Some("uid-again".to_owned());
    case.rollout.status = None;
    let first = walk(&mut case);
    assert_eq!(first.status.stable.as_ref().unwrap().version, "v20261121.1");
    assert_eq!(backends(&case), live((V1, 1000), &[]));
    assert!(case.children.deployments.iter().any(|deployment| deployment["metadata"]["name"] == V1));
}

#[test]
fn an_adoption_that_is_forgotten_begins_anew_with_what_served() {
    let mut case = adopting();
    until(&mut case, P::Shadow);
    step_passes(&mut case);
    assert_eq!(backends(&case), live(("old", 800), &[(V1, 200)]));
    case.rollout.metadata.uid = Some("uid-again".to_owned());
    case.rollout.status = None;
    walk(&mut case);
    assert_eq!(backends(&case), live(("old", 800), &[]), "all go where most of them went");
    assert_eq!(status(&case).phase, P::Preparing);
}

#[test]
fn a_service_that_another_rule_leads_to_is_not_deleted() {
    let mut case = canary();
    case.children.route.as_mut().unwrap()["spec"]["rules"][0]["backendRefs"] =
        json!([{"name": V2, "port": 80}]);
    case.read = Read::Errors(0.5, 1000.0);
    let plan = case.plan_with(&case.fresh());
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status);
    case.read = Read::Errors(0.0, 3.0);
    for _ in 0..60 {
        walk(&mut case);
    }
    assert_eq!(case.children.services.len(), 2);
}

#[test]
fn approvals_say_what_the_candidate_was_beside() {
    let mut case = adopting();
    let approval = json!({"before": "FullTraffic"});
    case.rollout.spec.strategy.approval = Some(serde_json::from_value(approval).unwrap());
    until(&mut case, P::Shadow);
    step_passes(&mut case);
    step_passes(&mut case);
    let evidence = &status(&case).approval.as_ref().unwrap().evidence;
    assert_eq!((evidence.adopted.as_deref(), evidence.baseline.as_ref()), (Some("old"), None));
}

#[test]
fn an_experiment_that_is_left_out_takes_no_approval_with_it() {
    let mut case = adopting();
    let spec = &mut case.rollout.spec;
    spec.judge = serde_json::from_value(json!({"evidence": "sequential"})).unwrap();
    spec.strategy = serde_json::from_value(json!({"blueGreen": {"duration": "10s"}, "approval": {"before": "FullTraffic"},
        "shadow": {"duration": "10s"}, "experiment": {"duration": "1d", "primary": "error_rate"}, "rollbackTriggers": ["error_rate"]}))
    .unwrap();
    until(&mut case, P::Shadow);
    let spec = &mut case.rollout.spec;
    spec.judge = serde_json::from_value(json!({"evidence": "none"})).unwrap();
    step_passes(&mut case);
    step_passes(&mut case);
    let status = status(&case);
    assert_eq!(status.phase, P::Shadow, "{:?}", status.decision);
    assert!(status.approval.is_some());
}

/// The rule of the model, as something other than this rollout writes it.
fn write_rule(case: &mut RolloutCase, backends: Value) {
    let route = case.children.route.as_mut().unwrap();
    route["spec"]["rules"][1]["backendRefs"] = backends;
    edited(route, "kubectl-edit");
}

/// Someone changed the route, and its gateway has taken that.
fn edited(route: &mut Value, manager: &str) {
    let generation = route["metadata"]["generation"].as_i64().unwrap() + 1;
    route["metadata"]["generation"] = generation.into();
    route["metadata"]["managedFields"] =
        json!([{"manager": manager, "fieldsV1": {"f:spec": {"f:rules": {}}}}]);
    for said in route["status"]["parents"][0]["conditions"].as_array_mut().unwrap() {
        said["observedGeneration"] = generation.into();
    }
}

/// A rollout whose first version takes all requests and is watched, beside the Service that served before.
fn baking() -> RolloutCase {
    let mut case = adopting();
    with_bake(&mut case);
    until(&mut case, P::Shadow);
    for _ in 0..3 {
        step_passes(&mut case);
    }
    walk(&mut case);
    assert_eq!((status(&case).phase, backends(&case)), (P::Baking, live((V1, 1000), &[("old", 0)])));
    case
}

/// What is read is a breach, and what is planned for that is done.
fn breach(case: &mut RolloutCase) -> Plan<ModelRolloutStatus> {
    case.read = Read::Errors(0.5, 1000.0);
    let plan = case.plan_with(&case.fresh());
    case.read = Read::Errors(0.0, 3.0);
    case.perform(&plan.actions);
    case.rollout.status = Some(plan.status.clone());
    assert_eq!(plan.status.phase, P::RolledBack);
    plan
}

#[test]
fn a_first_version_that_was_handed_back_stays_away_when_a_call_fails_after_the_record() {
    let mut case = baking();
    case.read = Read::Errors(0.5, 1000.0);
    let lost = case.plan_with(&case.fresh());
    assert_eq!(lost.status.phase, P::RolledBack);
    case.rollout.status = Some(lost.status);
    assert!(case.versions[0].metadata.annotations.as_ref().unwrap().contains_key(STABLE));
    for _ in 0..3 {
        walk(&mut case);
        assert_eq!((status(&case).phase, status(&case).stable.as_ref()), (P::RolledBack, None));
        assert_eq!(backends(&case), live(("old", 1000), &[]));
    }
}

#[test]
fn a_mark_does_not_make_a_rejected_version_stable() {
    let mut case = RolloutCase::new(Value::Null).unwrap();
    case.versions[0]
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(STABLE.to_owned(), "true".to_owned());
    for (rejected, stable) in [(vec![cases::reference(1)], false), (vec![], true)] {
        let lost = json!({"phase": "RolledBack", "candidate": cases::reference(1), "rejected": rejected});
        case.rollout.status = serde_json::from_value(lost).unwrap();
        assert_eq!(case.plan().status.stable.is_some(), stable);
    }
}

#[test]
fn a_rollout_that_is_made_again_has_the_stable_version_that_its_rule_leads_to() {
    let rule = |all: &[(&str, i64)]| -> Value {
        all.iter().map(|(name, weight)| json!({"name": name, "port": 8080, "weight": weight})).collect()
    };
    for (seen, stable, phase) in [
        (rule(&[("old", 1)]), false, P::Preparing),
        (rule(&[("old", 1), (V1, 0)]), false, P::Preparing),
        (rule(&[("old", 900), (V1, 100)]), false, P::Preparing),
        (rule(&[(V1, 1000)]), true, P::Healthy),
        (rule(&[(V1, 800), (V2, 200)]), true, P::Healthy),
        // Its last step has all requests.
        (rule(&[(V1, 0), (V2, 1000)]), true, P::Healthy),
        // The bake begins anew, and nobody answers in it.
        (rule(&[(V1, 1000), ("old", 0)]), false, P::RolledBack),
    ] {
        let mut case = adopting();
        with_bake(&mut case);
        case.versions[0]
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(STABLE.to_owned(), "true".to_owned());
        write_rule(&mut case, seen.clone());
        let old = case.children.route.clone();
        let plan = walk(&mut case);
        let found = (plan.status.stable.is_some(), plan.status.phase);
        assert_eq!(found, (stable, phase), "{seen}");
        assert_eq!(plan.status.adopted.is_some(), !stable, "{seen}");
        if !stable && seen.as_array().unwrap().len() == 1 {
            assert_eq!(case.children.route, old, "what serves stays as it is");
            assert!(!case.versions[0].metadata.annotations.as_ref().unwrap().contains_key(STABLE));
        }
    }
}

#[test]
fn a_bake_of_the_first_version_that_was_lost_begins_again_and_leads_back() {
    let mut case = baking();
    case.rollout.metadata.uid = Some("uid-again".to_owned());
    case.rollout.status = None;
    walk(&mut case);
    assert_eq!((status(&case).phase, backends(&case)), (P::Baking, live((V1, 1000), &[("old", 0)])));
    let told = status(&case).decision.clone().unwrap();
    assert!(told.reason == "Recovered" && told.message.contains("its bake begins anew"), "{}", told.message);
    walk(&mut case);
    breach(&mut case);
    assert_eq!(backends(&case), live(("old", 1000), &[]));
}

#[test]
fn a_service_without_a_version_has_no_answers_to_compare_with() {
    let mut case = adopting();
    let agreement = json!({"name": "agreement", "window": "40s", "agreement": {"min": 0.95}});
    case.rollout.spec.metrics.push(serde_json::from_value(agreement).unwrap());
    case.rollout.spec.strategy.shadow.as_mut().unwrap().rollback_triggers = Some(vec!["agreement".into()]);
    for _ in 0..5 {
        walk(&mut case);
    }
    let (_, reason, message) = said(status(&case), "Stalled");
    assert_eq!((status(&case).phase, reason.as_str()), (P::Preparing, "InvalidMetric"), "{message}");
    assert!(
        message.contains("Service old serves. Take it out of strategy.shadow.rollbackTriggers"),
        "{message}"
    );
    case.rollout.spec.strategy.shadow.as_mut().unwrap().rollback_triggers = None;
    until(&mut case, P::Shadow);
    assert!(case.children.services.iter().all(|service| service["metadata"]["name"] != "ads-stable"));
    // Asked for in mid-shadow, it sends nobody away for good.
    case.rollout.spec.strategy.shadow.as_mut().unwrap().rollback_triggers = Some(vec!["agreement".into()]);
    until(&mut case, P::Preparing);
    assert_eq!(status(&case).rejected, []);
}

#[test]
fn nothing_is_adopted_or_recovered_before_the_rule_is_there() {
    let mut case = adopting();
    until(&mut case, P::Shadow);
    for _ in 0..3 {
        step_passes(&mut case);
    }
    walk(&mut case);
    let route = case.children.route.take();
    case.rollout.status = None;
    let plan = walk(&mut case);
    assert_eq!((plan.status.stable, plan.status.adopted), (None, None));
    case.children.route = route;
    let plan = walk(&mut case);
    assert_eq!(plan.status.stable.unwrap().version, "v20261121.1");
    assert_eq!(backends(&case), live((V1, 1000), &[]));
    // Without a version there is nothing else to tell.
    let mut case = adopting();
    case.versions.clear();
    case.children.route = None;
    assert_eq!(said(&walk(&mut case).status, "Stalled").1, "RouteMissing");
}

#[test]
fn a_rule_that_leads_to_someone_is_not_pointed_at_a_version_without_pods() {
    let mut case = adopting();
    until(&mut case, P::Shadow);
    for _ in 0..3 {
        step_passes(&mut case);
    }
    walk(&mut case);
    case.children.deployments.clear();
    write_rule(&mut case, json!([{"name": V2, "port": 80, "weight": 1}]));
    let plan = walk(&mut case);
    assert_eq!((plan.status.phase, patches(&plan)), (P::Healthy, 0));
    let (reconciling, reason, message) = said(&plan.status, "Reconciling");
    assert_eq!((reconciling.as_str(), reason.as_str()), ("True", "VersionUnavailable"));
    assert!(message.contains("v20261121.1 has no ready endpoint") && message.contains(V2), "{message}");
    // The simulated cluster has made them.
    assert_eq!(patches(&walk(&mut case)), 1);
    assert_eq!(backends(&case), live((V1, 1000), &[]));
    // Where nobody answers, nothing is lost.
    case.children.deployments.clear();
    write_rule(&mut case, json!([]));
    assert_eq!(patches(&walk(&mut case)), 1);
}

#[test]
fn whoever_else_is_in_the_rule_keeps_his_share_and_no_version_in_it_that_was_rolled_back() {
    let shadow = || {
        let mut case = adopting();
        until(&mut case, P::Shadow);
        walk(&mut case);
        case
    };
    let port = json!({"name": "old", "port": 8081, "weight": 3});
    let urgent = json!({"name": "urgent", "port": 80, "weight": 50});
    for (case, stranger, reason, right) in [
        (canary(), &urgent, "BackendUnknown", live((V1, 1000), &[("urgent", 50)])),
        (baking(), &urgent, "BackendUnknown", live(("old", 1000), &[("urgent", 50)])),
        (baking(), &port, "BackendAmbiguous", live(("old", 1000), &[("old", 3)])),
        (shadow(), &urgent, "BackendUnknown", live(("old", 1000), &[("urgent", 50)])),
    ] {
        let mut case = case;
        let route = case.children.route.as_mut().unwrap();
        route["spec"]["rules"][1]["backendRefs"].as_array_mut().unwrap().push(stranger.clone());
        edited(route, "kubectl-edit");
        let before = of_the_user(route);
        assert_eq!(patches(&walk(&mut case)), 0, "nobody gets more of such a rule");
        let plan = breach(&mut case);
        assert_eq!((patches(&plan), backends(&case), mirrors(&case).len()), (1, right.clone(), 0));
        assert_eq!(said(&plan.status, "Stalled").1, reason);
        let after = &case.children.route.as_ref().unwrap()["spec"]["rules"][1]["backendRefs"];
        assert!(after.as_array().unwrap().contains(stranger), "{after}");
        assert_eq!(of_the_user(case.children.route.as_ref().unwrap()), before);
        let plan = walk(&mut case);
        assert_eq!((patches(&plan), said(&plan.status, "Stalled").1.as_str()), (0, reason));
        assert!(!plan.status.conditions.iter().any(|told| told.message.contains("still gets")));
    }
}

#[test]
fn a_rollback_finds_the_rule_that_leads_to_its_version() {
    let rename = |case: &mut RolloutCase| {
        let route = case.children.route.as_mut().unwrap();
        route["spec"]["rules"][1]["name"] = "other".into();
        edited(route, "kubectl-edit");
    };
    let mut case = canary();
    rename(&mut case);
    let plan = breach(&mut case);
    assert_eq!(
        (backends(&case), said(&plan.status, "Stalled").1),
        (live((V1, 1000), &[]), "RuleNotFound".to_owned())
    );
    assert_eq!(patches(&walk(&mut case)), 0);
    // A rule that was alone, and is not any more.
    let mut case = canary();
    case.rollout.spec.traffic =
        serde_json::from_value(json!({"attach": {"route": "shop", "service": "old"}})).unwrap();
    let plan = breach(&mut case);
    assert_eq!(
        (backends(&case), said(&plan.status, "Stalled").1),
        (live((V1, 1000), &[]), "RuleAmbiguous".to_owned())
    );
    // Two rules that could be meant.
    let mut case = canary();
    rename(&mut case);
    case.children.route.as_mut().unwrap()["spec"]["rules"][0]["backendRefs"] =
        json!([{"name": V2, "port": 80}]);
    let before = case.children.route.clone();
    let plan = breach(&mut case);
    assert_eq!((patches(&plan), &case.children.route), (0, &before));
    let (_, reason, message) = said(&plan.status, "Stalled");
    assert_eq!(reason, "RuleNotFound");
    assert!(message.ends_with("Until then v20261121.2 still gets requests."), "{message}");
}

#[test]
fn what_another_rollout_writes_to_the_same_route_says_nothing_of_ours() {
    // The write of the mirror was lost, and the other one wrote its rule.
    let beside = |writes: i64| {
        let mut case = adopting();
        until(&mut case, P::Shadow);
        let mut theirs = route();
        for weight in 0..writes {
            theirs["spec"]["rules"][0]["backendRefs"][0]["weight"] = weight.into();
            edited(&mut theirs, names::FIELD_MANAGER);
        }
        case.children.route = Some(theirs);
        let plan = walk(&mut case);
        let traffic = plan.status.traffic.clone().unwrap();
        assert_eq!((plan.status.phase, patches(&plan), mirrors(&case).len()), (P::Shadow, 1, 1));
        assert_eq!((traffic.fights, traffic.mirror_dropped), (0, None));
        case
    };
    beside(1);
    let mut case = beside(2);
    // Ours came through, and the mirror did not.
    let route = case.children.route.as_mut().unwrap();
    route["spec"]["rules"][1]["filters"]
        .as_array_mut()
        .unwrap()
        .retain(|filter| filter["type"] != "RequestMirror");
    let plan = walk(&mut case);
    assert_eq!(plan.status.decision.unwrap().reason, "MirrorUnsupported");
}

#[test]
fn what_a_gateway_refuses_of_a_users_route_is_not_held_against_a_version() {
    let refuse = |case: &mut RolloutCase, status: &str| {
        let route = case.children.route.as_mut().unwrap();
        edited(route, "kubectl-edit");
        let said = &mut route["status"]["parents"][0]["conditions"][1];
        (said["status"], said["reason"], said["message"]) =
            (status.into(), "BackendNotFound".into(), "no Service sitee".into());
    };
    let mut case = canary();
    refuse(&mut case, "False");
    let plan = walk(&mut case);
    let (_, reason, message) = said(&plan.status, "Stalled");
    assert_eq!(reason, "RouteNotAccepted");
    assert!(message.ends_with("Correct HTTPRoute shop, maybe in another rule, or its Gateway."), "{message}");
    for read in [Read::Errors(0.0, 3.0), Read::Nothing] {
        case.read = read;
        case.now += SignedDuration::from_hours(2);
        assert_eq!(case.plan_with(&case.fresh()).status.phase, P::Canary, "{read:?}");
        let status = case.plan_with(&case.fresh()).status;
        case.rollout.status = Some(status);
    }
    // It is corrected, which its controller has not seen yet; then it has. Deadlines begin from there.
    refuse(&mut case, "True");
    let taken = case.children.route.clone();
    case.children.route.as_mut().unwrap()["metadata"]["generation"] = 99.into();
    case.read = Read::Errors(0.0, 3.0);
    for (route, after, phase) in [
        (case.children.route.clone(), 7200, P::Canary),
        (taken.clone(), 1, P::Canary),
        (taken.clone(), 60, P::Canary),
        (taken, 600, P::RolledBack),
    ] {
        case.children.route = route;
        case.now += SignedDuration::from_secs(after);
        let plan = case.plan_with(&case.fresh());
        assert_eq!(plan.status.phase, phase, "{after}: {:?}", plan.status.conditions);
        case.rollout.status = Some(plan.status);
    }
    assert_eq!(status(&case).decision.as_ref().unwrap().reason, "HeldTooLong");
}

#[test]
fn troubles_with_the_rule_say_whose_it_is_and_why_it_has_no_name() {
    let told = |change: &dyn Fn(&mut Value)| {
        let mut case = adopting();
        change(&mut case.children.route.as_mut().unwrap()["spec"]["rules"]);
        until(&mut case, P::Preparing);
        let plan = walk(&mut case);
        said(&plan.status, "Stalled").2
    };
    let other = told(&|rules| rules[1]["backendRefs"] = json!([{"name": "bids-v20261121-3", "port": 80}]));
    assert!(
        other.contains("a version of ModelRollout bids. Give each of the two a rule of its own."),
        "{other}"
    );
    let pruned = told(&|rules| {
        for rule in rules.as_array_mut().unwrap() {
            rule.as_object_mut().unwrap().remove("name");
        }
    });
    assert!(pruned.contains("Gateway API before 1.4"), "{pruned}");
    let lookalike = told(&|rules| rules[1]["backendRefs"] = json!([{"name": "ads-v1-2", "port": 80}]));
    assert!(lookalike.contains("ads-v1-2, which is neither a version"), "{lookalike}");
}

#[test]
fn what_was_written_to_one_rule_was_not_written_to_another() {
    let digest = |rule: &str| {
        let mut case = attached(json!({"route": "shop", "rule": rule, "service": "old"}));
        let rules = &mut case.children.route.as_mut().unwrap()["spec"]["rules"];
        rules[0]["backendRefs"] = rules[1]["backendRefs"].clone();
        until(&mut case, P::Shadow);
        status(&case).traffic.clone().unwrap().written.unwrap().digest
    };
    assert_ne!(digest("model"), digest("site"));
}

#[test]
fn nobody_is_sent_back_to_an_adopted_service_that_leads_nowhere() {
    let mut case = adopting();
    until(&mut case, P::Shadow);
    step_passes(&mut case);
    until(&mut case, P::Canary);
    case.read = Read::Errors(0.5, 1000.0);
    let leading = |old: usize| {
        let known = [("old".to_owned(), old), ("ads-v20261121-1".to_owned(), 2)];
        Some(Endpoints::Known(known.into()))
    };
    case.endpoints = leading(0);
    let plan = case.plan_with(&case.fresh());
    assert_eq!(plan.status.phase, P::Canary);
    let told = plan.notes.iter().find(|note| note.reason == "StableUnavailable").unwrap();
    assert!(told.message.contains("Service old should answer instead"), "{}", told.message);
    // It is asked for by name, because nothing of it is the operator's.
    assert_eq!(anneal_core::rollout::adopted_service(&case.rollout), Some("old"));
    case.rollout.status = Some(plan.status);
    case.endpoints = leading(1);
    assert_eq!(case.plan_with(&case.fresh()).status.phase, P::RolledBack);
    // A backend without EndpointSlices may be something else that answers.
    case.endpoints = None;
    assert_eq!(case.plan_with(&case.fresh()).status.phase, P::RolledBack);
}

#[test]
fn no_version_waits_for_gpus_of_pods_that_another_rule_keeps() {
    // What names the version that begins counts it once.
    for (backend, begins) in [("site", true), ("ads-v20261121-1", false), ("ads-v20261121-3", true)] {
        let mut case = RolloutCase::new(
            json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(2),
            "trafficAcceptedAt": cases::ago(600)}),
        )
        .unwrap();
        let attach = json!({"attach": {"route": "shop", "rule": "model"}});
        case.rollout.spec.traffic = serde_json::from_value(attach).unwrap();
        case.rollout.spec.serving.replicas = 2;
        let gpu = json!({"limits": {"nvidia.com/gpu": "1"}});
        case.rollout.spec.serving.resources = serde_json::from_value(gpu).unwrap();
        case.rollout.spec.strategy.max_extra_gpus = Some(2);
        case.settle_children();
        let mut former = case.children.deployments[0].clone();
        former["metadata"]["name"] = "ads-v20261121-1".into();
        case.children.deployments.push(former);
        let mut route = route();
        route["spec"]["rules"][0]["backendRefs"][0]["name"] = backend.into();
        route["spec"]["rules"][1]["backendRefs"][0]["name"] = "ads-v20261121-2".into();
        case.children.route = Some(route);
        (0..3).for_each(|_| drop(walk(&mut case)));
        case.versions.push(cases::version(3, Some(2)).unwrap());
        let status = case.plan().status;
        assert_eq!(status.phase == P::Preparing, begins, "{backend}: {:?}", status.conditions);
        if !begins {
            let (_, reason, message) = said(&status, "Ready");
            assert_eq!(reason, "TooManyGPUs");
            let said = "2 of these pods are of former versions, which another rule of the route names.";
            assert!(message.contains("needs 4 GPUs") && message.contains(said), "{message}");
        }
    }
}
