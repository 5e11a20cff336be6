//! The operator's rights, by the API server's audit log of the whole demo: it asked for nothing that it may not do, and may do
//! nothing that it does not.

#![expect(clippy::unwrap_used, reason = "this is a test")]

mod common;

use std::{collections::BTreeSet, fs};

use common::Kubectl;
use serde_json::Value;

/// Verb, group and resource.
type Right = (String, String, String);

/// Rights that the log does not show: only some clusters check who may block an owner's deletion, and an apply that creates
/// needs the right to create but is logged as a patch.
const UNSEEN: [(&str, &str, &str); 5] = [
    ("update", "anneal.dev", "retrainjobs/finalizers"),
    ("update", "anneal.dev", "modelrollouts/finalizers"),
    ("create", "", "services"),
    ("create", "apps", "deployments"),
    ("create", "gateway.networking.k8s.io", "httproutes"),
];

const OPERATOR: &str = "system:serviceaccount:anneal-system:anneal";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What the operator asked for, and what of it was forbidden.
fn asked() -> (BTreeSet<Right>, BTreeSet<Right>) {
    let log = fs::read_to_string(common::variable("ANNEAL_TEST_AUDIT_LOG")).unwrap();
    let (mut asked, mut forbidden) = (BTreeSet::new(), BTreeSet::new());
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["user"]["username"] != OPERATOR || event["objectRef"].is_null() {
            continue;
        }
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
    for role in [&["clusterrole/anneal"][..], &["role/anneal-lease", "-n", "anneal-system"]] {
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
