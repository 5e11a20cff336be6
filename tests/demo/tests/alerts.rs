//! An alert that fires takes a candidate back, and a pager is told: from the chart's receiver to the route and to the chart's webhook, on a
//! real cluster.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod common;

use common::{
    Kubectl,
    delivery::{Model, exchange, until},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const SYSTEM: &str = "anneal-system";

fn read(what: &str, template: &str) -> String {
    Kubectl::run(&["get", what, "-n", SYSTEM, "-o", &format!("go-template={template}")], None).unwrap()
}

/// Sends what Alertmanager would; the status, and the rest of the answer.
fn tell(token: &str, alert: &str, since: Timestamp) -> (u16, String) {
    let labels = json!({"alertname": alert, "severity": "page"});
    let alert = json!({"status": "firing", "labels": labels, "annotations": {}, "startsAt": since.to_string(),
        "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "1"});
    let body = json!({"version": "4", "groupKey": "{}", "status": "firing", "receiver": "anneal", "groupLabels": {},
        "commonLabels": labels, "commonAnnotations": {}, "externalURL": "", "truncatedAlerts": 0, "alerts": [alert]})
    .to_string();
    let request = format!(
        "POST /alerts HTTP/1.1\r\nhost: anneal\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = read("service/anneal", "{{.spec.clusterIP}}");
    let text = exchange((&address, 8082), &request).unwrap();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

#[test]
fn an_alert_of_its_own_time_takes_the_candidate_back() {
    let errors = json!({"name": "error_rate", "window": "10s", "interval": "1s", "ratio": {
        "bad": "anneal_serve_requests_total{code=~\"5..\"}", "total": "anneal_serve_requests_total", "max": 0.05}});
    let strategy = json!({"canary": {"initial": 20, "increment": 80, "interval": "10m", "minRequests": 20},
        "rollbackTriggers": ["error_rate"], "abortOnAlerts": ["alertname=\"CheckoutErrors\",severity=\"page\""]});
    let spec =
        json!({"metrics": [errors], "judge": {"evidence": "none", "maxHold": "2m"}, "strategy": strategy});
    let model = Model::new("alerted", "models", spec);
    let clients = model.clients();
    model.version(2, &[]);
    let status: Value = model.until("it is in its canary", |status| {
        status["phase"] == "Canary" && !status["trafficAcceptedAt"].is_null()
    });
    let token = read("secret/anneal-alerts", "{{.data.token | base64decode}}");
    let began: Timestamp = status["trialStartedAt"].as_str().unwrap().parse().unwrap();
    let (then, before) = (began + SignedDuration::from_secs(1), began - SignedDuration::from_mins(5));

    assert_eq!(tell("guessed", "CheckoutErrors", then).0, 401);
    for (alert, since) in [("SomethingElse", then), ("CheckoutErrors", before)] {
        let (code, text) = tell(&token, alert, since);
        assert!(code == 200 && !text.contains("alerted"), "{text}");
    }
    assert_eq!(model.status()["phase"], "Canary");

    let (code, text) = tell(&token, "CheckoutErrors", then);
    assert!(code == 200 && text.contains("alerted"), "{text}");
    let status = model.rolled_back();
    assert_eq!(status["decision"]["reason"], "Aborted", "{status:#}");
    assert!(
        status["decision"]["message"].as_str().unwrap().contains("alert CheckoutErrors fires"),
        "{status:#}"
    );
    let before = clients.answers().len();
    until("clients ask on", || clients.answers().len() > before + 100);
    model.left_in_time(&status, &clients.finish());
    let is_of_it = |page: &Value| {
        let at: Timestamp = page["at"].as_str().unwrap().parse().unwrap();
        at > began && (&page["name"], &page["reason"]) == (&json!("alerted"), &json!("Aborted"))
    };
    // The pager took it at the second try.
    let of_it = || pages().into_iter().filter(is_of_it).collect::<Vec<_>>();
    until("the pager was told of it twice", || of_it().len() >= 2);
    let told = of_it();
    assert!(told.iter().all(|page| page == &told[0]), "{told:?}");
    assert!(told[0]["message"].as_str().unwrap().contains("alert CheckoutErrors fires"), "{told:?}");
    model.clean_up();
}

/// What the demo's pager was told since the operator was installed.
fn pages() -> Vec<Value> {
    let told = Kubectl::run(&["exec", "pager", "-n", SYSTEM, "--", "cat", "/tmp/told"], None).unwrap();
    told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
