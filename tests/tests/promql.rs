//! Alerts and dashboards: they ask for metrics that the operator has, and get an answer.
//!
//! What needs promtool runs in `cargo xtask test`, which says where it is in `ANNEAL_TEST_PROMTOOL`.

#![expect(clippy::unwrap_used, reason = "this is a test")]

mod promtool;

use std::{collections::BTreeSet, fs, path::PathBuf};

use anneal_operator::metrics::Metrics;
use anneal_tests::cases::{Read, RolloutCase, ago, moving};
use serde_json::{Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The operator's page while it leads, with rollouts as the plan records them.
fn page() -> String {
    let metrics = Metrics::new().unwrap();
    metrics.leading.set(1);
    for outcome in ["ok", "refused"] {
        metrics.reconciles.with_label_values(&["ModelRollout", outcome]).inc();
    }
    metrics.reconcile_seconds.observe(0.02);
    metrics.notifications.with_label_values(&["sent"]).inc();
    metrics.alert_messages.with_label_values(&["ok"]).inc();
    metrics.retrain_phases.with_label_values(&["team-a", "ads", "Succeeded"]).inc();
    for (name, read) in [("good", Read::Errors(0.0, 1000.0)), ("bad", Read::Errors(0.5, 1000.0))] {
        record(&metrics, name, moving("Canary", 20), read);
    }
    let mut blind = moving("Canary", 20);
    blind["holdingSince"] = ago(60).into();
    record(&metrics, "blind", blind, Read::Silence);
    let mut lost = RolloutCase::new(moving("Canary", 20)).unwrap();
    lost.read = Read::Errors(0.0, 3.0);
    lost.gateway = anneal_core::rollout::GatewayState::Missing;
    tell(&metrics, "lost", &lost);
    metrics.text()
}

fn record(metrics: &Metrics, name: &str, status: Value, read: Read) {
    let mut case = RolloutCase::new(status).unwrap();
    case.read = read;
    tell(metrics, name, &case);
}

fn tell(metrics: &Metrics, name: &str, case: &RolloutCase) {
    let mut object = serde_json::to_value(&case.rollout).unwrap();
    object["metadata"]["name"] = name.into();
    metrics.rollouts.read(&object);
    metrics.rollouts.recorded(&object, &serde_json::to_value(case.plan().status).unwrap());
}

/// The page's samples: series and number.
fn samples(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Names of the operator's metrics in a query.
fn names(text: &str) -> BTreeSet<&str> {
    words(text).filter(|word| word.starts_with("anneal_") || word.starts_with("process_")).collect()
}

/// Name and names of the labels of a series such as `a{b="c"}`.
fn shape(series: &str) -> (&str, BTreeSet<&str>) {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    (name, labels.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.trim())).collect())
}

/// Texts of a field wherever it is.
fn all(value: &Value, field: &str) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let own = map.get(field).and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(map.values().flat_map(|value| all(value, field))).collect()
        }
        Value::Array(list) => list.iter().flat_map(|value| all(value, field)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![],
    }
}

fn rules() -> Value {
    serde_saphyr::from_str(&read("charts/anneal/rules/anneal.yaml")).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("charts/anneal/dashboards/rollouts.json")).unwrap()
}

#[test]
fn alerts_and_dashboards_ask_only_for_what_the_operator_has() {
    let page = page();
    let has: BTreeSet<&str> = samples(&page).map(|(series, _)| shape(series).0).collect();
    let asked = [all(&rules(), "expr"), all(&dashboard(), "expr"), all(&dashboard(), "definition")].concat();
    assert!(asked.len() > 20, "{asked:?}");
    for query in &asked {
        let names = names(query);
        assert!(!names.is_empty() && names.is_subset(&has), "{query}");
    }
    let asked: BTreeSet<&str> = asked.iter().flat_map(|query| names(query)).collect();
    let mut unasked = has.iter().filter(|name| name.starts_with("anneal_") && !asked.contains(*name));
    // Parts of the histogram.
    assert!(unasked.all(|name| name.starts_with("anneal_reconcile_seconds_")), "no panel shows a metric");
}

#[test]
fn the_cases_of_the_alerts_have_series_as_the_operator_makes_them() {
    let page = page();
    let has: Vec<_> = samples(&page).map(|(series, _)| shape(series)).collect();
    let cases: Value = serde_saphyr::from_str(&read("tests/alerts/anneal_test.yaml")).unwrap();
    let series = all(&cases, "series");
    assert!(series.len() > 10);
    for series in &series {
        let (name, mut labels) = shape(series);
        // What a scrape adds.
        labels.remove("pod");
        let made = has.iter().any(|(other, own)| {
            let mut scraped = own.clone();
            scraped.insert("namespace");
            *other == name && scraped == labels
        });
        assert!(made, "{series}");
    }
}

#[test]
fn every_alert_has_its_place_in_the_runbook_and_its_cases() {
    let (runbook, cases) = (read("docs/runbook.md"), read("tests/alerts/anneal_test.yaml"));
    let cases: Value = serde_saphyr::from_str(&cases).unwrap();
    let alerts = all(&rules(), "alert");
    assert_eq!(alerts.len(), all(&rules(), "runbook_url").len());
    for (alert, url) in alerts.iter().zip(all(&rules(), "runbook_url")) {
        assert!(runbook.contains(&format!("\n## {alert}\n")), "{alert}");
        assert_eq!(
            url,
            format!("https://anneal.dev/docs/runbook.md#{}", alert.to_lowercase()),
            "anchors are small letters"
        );
        let tests = cases["tests"].as_array().unwrap().iter().flat_map(|test| {
            test["alert_rule_test"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|one| one["alertname"] == alert.as_str())
        });
        let (silent, firing): (Vec<_>, Vec<_>) =
            tests.partition(|one| one["exp_alerts"].as_array().unwrap().is_empty());
        assert!(!silent.is_empty() && !firing.is_empty(), "{alert} fires in one case and not in another");
    }
}

#[test]
#[ignore = "needs promtool; cargo xtask test runs it"]
fn prometheus_takes_the_rules_and_they_fire_when_they_should() {
    promtool::run(&["check", "rules", "charts/anneal/rules/anneal.yaml"], &root());
    promtool::run(&["test", "rules", "tests/alerts/anneal_test.yaml"], &root());
}

/// Every query of the dashboard, on half an hour of the operator's page as a scrape would store it.
#[test]
#[ignore = "needs promtool; cargo xtask test runs it"]
fn every_panel_shows_something_on_the_operators_own_page() {
    let page = page();
    let series: Vec<Value> = samples(&page)
        .map(|(series, number)| {
            let (name, labels) = shape(series);
            let grows = ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end));
            let values = if grows { format!("0+{number}x60") } else { format!("{number}x60") };
            json!({"series": scraped(series, &labels), "values": values})
        })
        .collect();
    let queries: Vec<Value> = all(&dashboard(), "expr")
        .iter()
        .map(|query| {
            let query =
                query.replace("$namespace", ".*").replace("$rollout", ".*").replace("$__rate_interval", "5m");
            json!({"expr": format!("count({query}) > bool 0"), "eval_time": "25m",
                "exp_samples": [{"labels": "{}", "value": 1}]})
        })
        .collect();
    assert!(queries.len() > 15);
    let test = json!({"evaluation_interval": "30s",
        "tests": [{"interval": "30s", "input_series": series, "promql_expr_test": queries}]});
    promtool::test_rules(&test);
}

/// A series as a scrape stores it: with the pod, and with the operator's namespace unless it has one.
fn scraped(series: &str, labels: &BTreeSet<&str>) -> String {
    let (name, own) = series.split_once('{').unwrap_or((series, "}"));
    let namespace = if labels.contains("namespace") { "" } else { r#"namespace="anneal-system","# };
    let own = own.trim_start_matches('}');
    let own = if own.is_empty() { "}" } else { own };
    format!(r#"{name}{{{namespace}pod="anneal-0",{own}"#).replace(",}", "}")
}
