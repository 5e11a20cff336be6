//! Raw samples as Prometheus would answer them: reads the expressions that the core writes, and no others.
//!
//! Used by the tables of `tests/core/rollout_sequential.rs` and by the simulated world.

use jiff::Timestamp;

/// A range selector, or a subquery of a selector.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    /// The selector before the operator's own matchers.
    pub selector: String,
    /// The model; empty where only pods' names are asked for.
    pub model: String,
    /// The namespace.
    pub namespace: String,
    /// Versions that are asked for.
    pub versions: Vec<String>,
    /// Samples after this, in milliseconds since the epoch.
    pub from_ms: i64,
    /// Samples up to this, in milliseconds since the epoch.
    pub until_ms: i64,
    /// Distance of the points of a subquery, in milliseconds.
    pub point_ms: Option<i64>,
}

impl Raw {
    /// Nothing if it is no such expression.
    pub fn read(expression: &str, now: Timestamp) -> Option<Self> {
        let (scoped, range) = expression.split_once('[')?;
        let (range, at) = range.split_once(']')?;
        let millis = |text: &str| text.strip_suffix("ms")?.parse::<i64>().ok();
        let (length, point_ms) = match range.split_once(':') {
            Some((length, point)) => (millis(length)?, Some(millis(point)?)),
            None => (millis(range)?, None),
        };
        let until_ms = match at.strip_prefix(" @ ") {
            Some(at) => (at.parse::<f64>().ok()? * 1000.0).round() as i64,
            None if at.is_empty() => now.as_millisecond(),
            None => return None,
        };
        let label = |name: &str, operator: &str| {
            let (_, value) = scoped.split_once(&format!("{name}{operator}\""))?;
            Some(value.split_once('"')?.0.to_owned())
        };
        let versions = match label("version", "=~") {
            Some(any) => any.replace(r"\\.", ".").split('|').map(str::to_owned).collect(),
            None => {
                let labelled = label("version", "=").map(|version| vec![version]);
                labelled.or_else(|| of_names(scoped, "pod")).or_else(|| of_names(scoped, CLUSTER))?
            }
        };
        let starts = ["model=\"", "pod=~\"", "envoy_cluster_name=~\""];
        let own = starts.iter().find_map(|start| scoped.split_once(start))?.0;
        // A cluster's name begins with its namespace.
        let of_cluster = || label(CLUSTER, "=~")?.split('/').nth(1).map(str::to_owned);
        Some(Self {
            selector: own.trim_end_matches([',', '{']).to_owned(),
            model: label("model", "=").unwrap_or_default(),
            namespace: label("namespace", "=").or_else(of_cluster)?,
            versions,
            from_ms: until_ms.saturating_sub(length),
            until_ms,
            point_ms,
        })
    }

    /// The points of a subquery, which Prometheus aligns to its step; none of a range selector, which has samples.
    pub fn points(&self) -> Option<Vec<i64>> {
        let point = self.point_ms?;
        let first = self.from_ms.div_euclid(point).saturating_add(1).saturating_mul(point);
        Some((first..=self.until_ms).step_by(usize::try_from(point).ok()?).collect())
    }
}

const CLUSTER: &str = "envoy_cluster_name";

/// Versions whose pods or clusters are asked for, such as `pod=~"(ads-v20261121-1-)…"`.
fn of_names(scoped: &str, label: &str) -> Option<Vec<String>> {
    let prefixes = scoped.split_once(&format!("{label}=~\"("))?.1.split_once(')')?.0.split('|');
    prefixes
        .map(|prefix| {
            let version = prefix.split_once("-v")?.1.trim_end_matches(['-', '/']);
            Some(format!("v{}", version.replace('-', ".")))
        })
        .collect()
}
