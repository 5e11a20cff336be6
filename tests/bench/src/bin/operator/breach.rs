//! From a breach that Prometheus shows to the route that takes the candidate out.
//!
//! Real versions, real pods and a real route; only the Prometheus is one whose numbers change when it is told to.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Line, audit::AuditLog, cluster::Cluster, median_and_worst};

const ROUNDS: usize = 5;
/// How often the rollout looks.
const INTERVAL_SECONDS: f64 = 1.0;

pub(crate) fn measure(cluster: &Cluster, log: &AuditLog, host: &str) -> Result<Vec<Line>> {
    let listener = TcpListener::bind((host, 0)).context("the host's address cannot be listened on")?;
    let url = format!("http://{}", listener.local_addr()?);
    let bad = Arc::new(AtomicBool::new(false));
    let numbers = Arc::clone(&bad);
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|client| drop(answer(client, &numbers)))
    });
    let serving = cluster.get("modelrollout/car-loan")?;
    let second =
        serving["status"]["stable"]["name"].as_str().context("the demo's rollout serves nothing")?.to_owned();
    let first =
        cluster.get(&format!("modelversion/{second}"))?["spec"]["baseline"]["version"]["version"].clone();
    // A model has one rollout in a namespace: those of the rounds come one after the other in its place.
    cluster.run(&["delete", "modelrollout/car-loan"], "")?;
    let mut delays = vec![];
    for round in 0..ROUNDS {
        bad.store(false, Ordering::SeqCst);
        delays.push(one(cluster, log, &url, &bad, &format!("bench-{round}"), &first, &second)?);
    }
    let (median, worst) = median_and_worst(delays);
    let line = |key, what, ours| Line {
        key,
        what,
        unit: "ms",
        ours,
        peer: Some(("the rollout's interval", INTERVAL_SECONDS * 1000.0)),
    };
    Ok(vec![
        line("breachToRouteMillis", "breach visible to HTTPRoute patched, median", median),
        line("breachToRouteWorstMillis", "breach visible to HTTPRoute patched, worst", worst),
    ])
}

/// A rollout of its own goes to its canary, and the numbers turn bad.
fn one(
    cluster: &Cluster,
    log: &AuditLog,
    url: &str,
    bad: &AtomicBool,
    name: &str,
    first: &Value,
    second: &str,
) -> Result<f64> {
    let what = format!("modelrollout/{name}");
    let mut rollout = cluster.example("demo/modelrollout.yaml", name)?;
    let spec = &mut rollout["spec"];
    spec["candidate"] = json!({"version": first});
    spec["serving"]["replicas"] = 1.into();
    spec["traffic"]["gateway"]["hostnames"] = json!([format!("{name}.example.com")]);
    spec["prometheus"]["url"] = url.into();
    spec["strategy"] = json!({"canary": {"initial": 50, "increment": 50, "interval": "1h"}, "rollbackTriggers": ["error_rate"]});
    spec["metrics"] = json!([spec["metrics"][0]]);
    spec["metrics"][0]["interval"] = format!("{INTERVAL_SECONDS}s").into();
    cluster.create(&rollout)?;
    cluster.wait(&what, |rollout| rollout["status"]["phase"] == "Healthy")?;
    let next =
        json!({"spec": {"candidate": {"version": second.trim_start_matches("car-loan-")}}}).to_string();
    cluster.run(&["patch", &what, "--type=merge", "-p", &next], "")?;
    let judged = |rollout: &Value| {
        let reason =
            |condition: &Value| condition["type"] == "Reconciling" && condition["reason"] == "Judging";
        rollout["status"]["phase"] == "Canary"
            && rollout["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(reason))
    };
    cluster.wait(&what, judged)?;
    // Somewhere within the interval, another place each time.
    sleep(Duration::from_millis(130 * u64::from(name.bytes().next_back().unwrap_or_default() % 8)));
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    let turned = Timestamp::now();
    bad.store(true, Ordering::SeqCst);
    let patched = log.first("the route to be patched", |call| {
        call.is_operators()
            && call.resource == "httproutes"
            && call.verb == "patch"
            && call.name == name
            && call.done > turned
    })?;
    cluster.run(&["delete", &what], "")?;
    Ok(patched.done.duration_since(turned).as_secs_f64() * 1000.0)
}

/// One answer of a Prometheus that knows a hundred requests, all good or half of them bad.
fn answer(mut client: TcpStream, bad: &AtomicBool) -> Result<()> {
    let mut lines = BufReader::new(client.try_clone()?).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    let now = Timestamp::now().as_millisecond() as f64 / 1000.0;
    let share = if bad.load(Ordering::SeqCst) { 50.0 } else { 0.0 };
    let parts = [("bad", share), ("total", 100.0), ("step", 100.0), ("at", now)];
    let series: Vec<Value> = parts
        .iter()
        .map(|(part, value)| json!({"metric": {"anneal_part": part}, "value": [now, value.to_string()]}))
        .collect();
    let body = json!({"status": "success", "data": {"resultType": "vector", "result": series}}).to_string();
    write!(
        client,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}
