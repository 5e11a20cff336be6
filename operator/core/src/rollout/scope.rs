//! Whose series are read: what the operator adds to every selector.
//!
//! Used wherever a query is written. A selector is checked by the schema, or parsed by `value`, before it comes here, so
//! that nothing in it ends it early.

use anneal_crds::{ModelRollout, VersionRef, prometheus::VersionFrom};

use super::build;

/// What follows a version's name in those of its pods: the hash of its ReplicaSet and five letters, of which the API
/// server cuts as much of the hash as it has to.
const POD_SUFFIX: &str = r"(\\w{1,10}-\\w{5}|\\w{5,15})";

/// Start of the names of a version's pods.
pub(super) fn pod_prefix(rollout: &ModelRollout, version: &str) -> String {
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    format!("{}-", build::workload_name(name, version))
}

/// The label by which Envoy tells its clusters apart.
pub(super) const ENVOY_CLUSTER: &str = "envoy_cluster_name";

/// How Envoy Gateway calls the cluster of a version's Service, but for its port, if clusters are those of Services.
pub(super) fn envoy_cluster(rollout: &ModelRollout, version: &str) -> String {
    let metadata = &rollout.metadata;
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref().unwrap_or_default());
    format!("service/{}/{}/", namespace.unwrap_or_default(), build::workload_name(name, version))
}

/// A matcher's operator and value.
fn any_of(versions: &[&str]) -> String {
    match versions {
        [version] => format!("=\"{version}\""),
        // Nothing in a version but its dot means anything in a regular expression.
        versions => {
            let any: Vec<_> = versions.iter().map(|version| version.replace('.', r"\\.")).collect();
            format!("=~\"{}\"", any.join("|"))
        }
    }
}

/// Whose series are read: the matchers of a rollout's model and versions.
#[derive(Clone, Debug)]
pub(super) struct Scope(String);

impl Scope {
    /// Versions are numbered for each model, so a version alone may be another model's.
    pub(super) fn of(rollout: &ModelRollout, versions: &[&VersionRef]) -> Self {
        let names: Vec<&str> = versions.iter().map(|version| version.version.as_str()).collect();
        Self::of_named(rollout, &names)
    }

    /// The same of versions of which no more than the name is known, such as `v20261121.1`.
    pub(super) fn of_named(rollout: &ModelRollout, versions: &[&str]) -> Self {
        let prometheus = &rollout.spec.prometheus;
        let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
        let whose = match prometheus.version_from {
            VersionFrom::Labels => format!(
                "{}=\"{}\",{}{},namespace=\"{namespace}\"",
                prometheus.model_label,
                rollout.spec.model,
                prometheus.version_label,
                any_of(versions)
            ),
            VersionFrom::PodName => {
                let names = versions.iter().map(|version| pod_prefix(rollout, version)).collect::<Vec<_>>();
                format!(
                    "{}=~\"({}){POD_SUFFIX}\",namespace=\"{namespace}\"",
                    prometheus.pod_label,
                    names.join("|")
                )
            }
            // Envoy's own pods are in a namespace of theirs; whose Service it is says the cluster.
            VersionFrom::EnvoyCluster => {
                let names = versions.iter().map(|version| envoy_cluster(rollout, version));
                format!("{ENVOY_CLUSTER}=~\"({}).+\"", names.collect::<Vec<_>>().join("|"))
            }
        };
        Self(whose)
    }

    /// A scope that has the shape of every other one.
    pub(super) fn example() -> Self {
        Self("model=\"m\",version=\"v\",namespace=\"n\"".to_owned())
    }

    /// `selector` with the matchers added.
    pub(super) fn apply(&self, selector: &str) -> String {
        let matchers = &self.0;
        match selector.trim_end().strip_suffix('}') {
            None => format!("{selector}{{{matchers}}}"),
            Some(open) => {
                let open = open.trim_end().trim_end_matches(',');
                let comma = if open.ends_with('{') { "" } else { "," };
                format!("{open}{comma}{matchers}}}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_added_to_any_form_of_selector() {
        let added = "model=\"ads\",version=\"v20261121.1\",namespace=\"team-a\"";
        let scope = Scope(added.to_owned());
        assert_eq!(scope.apply("requests"), format!("requests{{{added}}}"));
        assert_eq!(scope.apply("requests{}"), format!("requests{{{added}}}"));
        assert_eq!(scope.apply("requests{code=~\"5..\"}"), format!("requests{{code=~\"5..\",{added}}}"));
        assert_eq!(scope.apply("requests{code=~\"5..\", }"), format!("requests{{code=~\"5..\",{added}}}"));
    }
}
