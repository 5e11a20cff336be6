//! The API server's audit log: who wrote what, and when.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::Value;

/// The log's file.
pub(crate) struct AuditLog(pub(crate) PathBuf);

/// One finished call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) user: String,
    pub(crate) verb: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    /// When the API server got it.
    pub(crate) received: Timestamp,
    /// When the API server had done it.
    pub(crate) done: Timestamp,
}

/// The operator, as the API server knows it.
const OPERATOR: &str = "system:serviceaccount:anneal-system:anneal";

impl Call {
    pub(crate) fn is_operators(&self) -> bool {
        self.user == OPERATOR
    }

    pub(crate) fn writes(&self) -> bool {
        ["create", "update", "patch", "delete"].contains(&self.verb.as_str())
    }
}

impl AuditLog {
    /// All calls that went through, in order.
    pub(crate) fn calls(&self) -> Result<Vec<Call>> {
        let text = fs::read_to_string(&self.0)
            .with_context(|| format!("cannot read {}; bring the cluster up anew", self.0.display()))?;
        Ok(text.lines().filter_map(|line| call(&serde_json::from_str(line).ok()?)).collect())
    }

    /// The first call that `is` it, waited for.
    pub(crate) fn first(&self, what: &str, is: impl Fn(&Call) -> bool) -> Result<Call> {
        for _ in 0..600 {
            if let Some(found) = self.calls()?.into_iter().find(&is) {
                return Ok(found);
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        bail!("waited a minute for {what}, and it did not happen; read the operator's log")
    }
}

fn call(event: &Value) -> Option<Call> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let time = |field: &str| event[field].as_str()?.parse().ok();
    let code = event["responseStatus"]["code"].as_i64().unwrap_or(200);
    (event["stage"] == "ResponseComplete" && code < 400).then_some(())?;
    let object = &event["objectRef"];
    Some(Call {
        user: text(&event["user"]["username"]),
        verb: text(&event["verb"]),
        resource: text(&object["resource"]),
        name: text(&object["name"]),
        received: time("requestReceivedTimestamp")?,
        done: time("stageTimestamp")?,
    })
}
