//! The operator's calls, by the API server's audit log of the whole demo: it asked for nothing that it may not do, may do
//! nothing that it does not, and wrote nothing that was so already.

#![expect(clippy::unwrap_used, reason = "this is a test")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use common::Kubectl;
use serde_json::Value;

/// Verb, group and resource.
type Right = (String, String, String);

/// Rights that the log does not show: only some clusters check who may block an owner's deletion, and an apply that creates
/// needs the right to create but is logged as a patch.
const UNSEEN: [(&str, &str, &str); 11] = [
    ("update", "anneal.dev", "retrainjobs/finalizers"),
    ("update", "anneal.dev", "modelrollouts/finalizers"),
    ("create", "", "services"),
    ("create", "apps", "deployments"),
    ("create", "gateway.networking.k8s.io", "httproutes"),
    ("create", "autoscaling", "horizontalpodautoscalers"),
    // The cluster has no KEDA, so a list is all that is asked for.
    ("get", "keda.sh", "scaledobjects"),
    ("watch", "keda.sh", "scaledobjects"),
    ("create", "keda.sh", "scaledobjects"),
    ("patch", "keda.sh", "scaledobjects"),
    ("delete", "keda.sh", "scaledobjects"),
];

const OPERATOR: &str = "system:serviceaccount:anneal-system:anneal";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// All calls of the operator.
fn calls() -> Vec<Value> {
    let log = fs::read_to_string(common::variable("ANNEAL_TEST_AUDIT_LOG")).unwrap();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["user"]["username"] == OPERATOR && event["objectRef"].is_object()).collect()
}

/// What the operator asked for, and what of it was forbidden.
fn asked() -> (BTreeSet<Right>, BTreeSet<Right>) {
    let (mut asked, mut forbidden) = (BTreeSet::new(), BTreeSet::new());
    for event in calls() {
        let object = &event["objectRef"];
        let resource = match object["subresource"].as_str() {
            Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        let right = (text(&event["verb"]), text(&object["apiGroup"]), resource);
        if event["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            forbidden.insert(right.clone());
        }
        asked.insert(right);
    }
    (asked, forbidden)
}

fn granted() -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    let roles = [
        &["clusterrole/anneal"][..],
        &["clusterrole/anneal-autoscaling"],
        &["role/anneal-lease", "-n", "anneal-system"],
    ];
    for role in roles {
        let args: Vec<&str> = ["get"].into_iter().chain(role.iter().copied()).chain(["-o", "json"]).collect();
        let role: Value = serde_json::from_str(&Kubectl::run(&args, None).unwrap()).unwrap();
        let list =
            |rule: &Value, field: &str| rule[field].as_array().unwrap().iter().map(text).collect::<Vec<_>>();
        for rule in role["rules"].as_array().unwrap() {
            for verb in list(rule, "verbs") {
                for group in list(rule, "apiGroups") {
                    for resource in list(rule, "resources") {
                        rights.insert((verb.clone(), group.clone(), resource));
                    }
                }
            }
        }
    }
    rights
}

#[test]
fn the_operator_may_do_what_it_does_and_nothing_else() {
    let (asked, forbidden) = asked();
    assert!(asked.len() > 20, "the audit log is not of a whole demo: {asked:?}");
    assert_eq!(forbidden, BTreeSet::new(), "forbidden");
    let unseen =
        UNSEEN.map(|(verb, group, resource)| (verb.to_owned(), group.to_owned(), resource.to_owned()));
    let unused: BTreeSet<Right> =
        granted().difference(&asked).filter(|right| !unseen.contains(right)).cloned().collect();
    assert_eq!(unused, BTreeSet::new(), "granted and never used");
}

#[test]
fn a_child_is_written_only_when_it_has_to_change() {
    let mut writes = BTreeMap::<[String; 3], usize>::new();
    for event in calls().iter().filter(|event| event["verb"] == "patch") {
        let object = &event["objectRef"];
        let child = ["namespace", "resource", "name"].map(|field| text(&object[field]));
        *writes.entry(child).or_default() += 1;
    }
    // A step changes the route, and what becomes of a version its marks and what its Service remembers; a killed operator may do
    // its last write again.
    let most = |resource: &str| match resource {
        "httproutes" => 40,
        "modelversions" | "services" => 12,
        _ => 6,
    };
    let hot: Vec<_> = writes.iter().filter(|([_, resource, _], count)| **count > most(resource)).collect();
    assert!(!writes.is_empty() && hot.is_empty(), "{hot:?}");
}
