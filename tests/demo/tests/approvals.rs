//! Who may approve a step, on a real API server: whoever has the verb, and only in their own name.

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "this is a test, and a cluster has its own clock"
)]

mod common;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use common::{Kubectl, Namespace, example};
use serde_json::{Value, json};

const HOME: &str = "anneal-approvals";
const ROLLOUT: &str = "mro/car-loan";
/// The evidence is none of this test's business.
const APPROVAL: &str = "anneal.dev/approve=v20261121.2@10 3f2a9c04d1e7: looks good";

fn annotate(user: &str, annotations: &[&str]) -> Result<String, String> {
    let who = format!("--as={user}");
    let mut args = vec!["annotate", ROLLOUT, "-n", HOME, "--overwrite", &who];
    args.extend(annotations);
    Kubectl::run(&args, None)
}

fn refused(user: &str, annotations: &[&str], why: &str) {
    let refusal = annotate(user, annotations).expect_err(why);
    assert!(refusal.contains(why), "expected `{why}` in: {refusal}");
}

/// What `kubectl auth can-i` says.
fn can_approve(user: &str) -> bool {
    let who = format!("--as={user}");
    Kubectl::run(&["auth", "can-i", "approve", "modelrollouts.anneal.dev", "-n", HOME, &who], None).is_ok()
}

fn role(name: &str, verbs: &[&str], users: &[&str]) -> [Value; 2] {
    let rules = json!([{"apiGroups": ["anneal.dev"], "resources": ["modelrollouts"], "verbs": verbs}]);
    let group = "rbac.authorization.k8s.io";
    let subject = |user: &&str| json!({"kind": "User", "apiGroup": group, "name": user});
    let metadata = json!({"name": name});
    [
        json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata, "rules": rules}),
        json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": users.iter().map(subject).collect::<Vec<_>>()}),
    ]
}

#[test]
fn only_who_has_the_verb_approves_and_only_in_their_own_name() {
    let home = Namespace::new(HOME);
    Kubectl::apply(home.0, &example("modelrollout.yaml"), false).unwrap();
    let edits = role("edits", &["get", "list", "create", "update", "patch"], &["ann", "bob"]);
    for object in edits.iter().chain(&role("approves", &["approve"], &["ann"])) {
        Kubectl::apply(home.0, object, false).unwrap();
    }
    // Rights take a moment.
    let started = Instant::now();
    while !(can_approve("ann") && annotate("bob", &["anneal.dev/pause=wait for ann"]).is_ok()) {
        assert!(started.elapsed() < Duration::from_secs(60), "the roles do not work");
        sleep(Duration::from_millis(200));
    }
    assert!(!can_approve("bob"));

    refused(
        "bob",
        &[APPROVAL, "anneal.dev/approved-by=bob"],
        "needs the verb approve on modelrollouts, which bob",
    );
    refused("bob", &[APPROVAL, "anneal.dev/approved-by=ann"], "needs the verb approve");
    refused("ann", &[APPROVAL], "who writes it, which is ann");
    refused("ann", &[APPROVAL, "anneal.dev/approved-by=bob"], "who writes it, which is ann");
    annotate("ann", &[APPROVAL, "anneal.dev/approved-by=ann"]).unwrap();

    // What ann has written stays hers, and stands in nobody's way.
    annotate("bob", &["anneal.dev/pause=wait for me too"]).unwrap();
    refused("bob", &["anneal.dev/approved-by=bob"], "needs the verb approve");
    refused("bob", &["anneal.dev/approve=v20261121.2@100 3f2a9c04d1e7: more"], "needs the verb approve");
    annotate("bob", &["anneal.dev/approve-"]).unwrap();
    refused("bob", &[APPROVAL], "needs the verb approve");

    // One from a backup may bring its approval along: there is no evidence that it could be of.
    let mut another = example("modelrollout.yaml");
    another["metadata"]["name"] = "another".into();
    another["metadata"]["annotations"] =
        json!({"anneal.dev/approve": "v20261121.2@10 3f2a9c04d1e7: why", "anneal.dev/approved-by": "ann"});
    Kubectl::run(&["create", "-n", HOME, "-f", "-", "--as=bob"], Some(&another.to_string())).unwrap();
}
