//! Whose cluster is it: on one that is not the demo's own, it touches nothing that it did not make.
//!
//! Called by `install` before anything is changed. The demo labels its namespaces, and takes only those as its own.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::site::{HOME, RELEASE, SYSTEM, Site};

/// Label of the demo's namespaces.
pub(crate) const MADE_BY: &str = "anneal.dev/made-by";
/// Its value.
pub(crate) const DEMO: &str = "demo";
/// There is one on a cluster, whoever installed Anneal and wherever.
const DEFINITION: &str = "customresourcedefinition/retrainjobs.anneal.dev";

impl Site {
    /// Refuses a cluster on which the demo would overwrite or delete what somebody else made.
    pub(crate) async fn refuse_others(&self) -> Result<()> {
        if self.args.own_cluster {
            return Ok(());
        }
        let definition = self.kubectl.find(DEFINITION).await?;
        refuse(&self.kubectl.namespaces().await?, definition.as_ref())
    }

    /// How to get rid of it all, where nothing else does.
    pub(crate) fn tell_how_to_remove(&self) {
        if !self.args.own_cluster {
            self.progress.say("\nThe demo stays on the cluster; remove it with:");
            self.progress.say(&format!("  helm uninstall {RELEASE} -n {SYSTEM}"));
            self.progress.say(&format!("  kubectl delete namespace -l {MADE_BY}={DEMO}"));
            self.progress.say("  kubectl delete crd {retrainjobs,modelrollouts,modelversions}.anneal.dev");
        }
    }
}

fn refuse(namespaces: &[Value], definition: Option<&Value>) -> Result<()> {
    for namespace in namespaces {
        let metadata = &namespace["metadata"];
        let ours = metadata["labels"][MADE_BY] == DEMO;
        if let Some(name @ (SYSTEM | HOME)) = metadata["name"].as_str()
            && !ours
        {
            bail!(
                "the namespace {name} is on this cluster and is not of the demo, which would overwrite what is in it; \
                 remove it or take another cluster"
            )
        }
    }
    let Some(definition) = definition else { return Ok(()) };
    let by = |what: &str| {
        definition["metadata"]["annotations"][format!("meta.helm.sh/{what}")].as_str().unwrap_or("nobody")
    };
    let (release, namespace) = (by("release-name"), by("release-namespace"));
    ensure!(
        (release, namespace) == (RELEASE, SYSTEM),
        "Anneal is on this cluster already (Helm release {release} in namespace {namespace}), and a second one would take its \
         objects; uninstall it with its definitions or take another cluster"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(name: &str, made_by: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {MADE_BY: made_by}}})
    }

    fn definition(release: &str, namespace: &str) -> Value {
        json!({"metadata": {"annotations": {
            "meta.helm.sh/release-name": release,
            "meta.helm.sh/release-namespace": namespace,
        }}})
    }

    #[test]
    fn a_bare_cluster_and_one_of_an_earlier_demo_will_do() {
        let others = json!({"metadata": {"name": "default"}});
        refuse(std::slice::from_ref(&others), None).unwrap();
        let earlier = [others, namespace(SYSTEM, DEMO), namespace(HOME, DEMO)];
        refuse(&earlier, Some(&definition(RELEASE, SYSTEM))).unwrap();
        // Helm keeps the definitions when it uninstalls.
        refuse(&[], Some(&definition(RELEASE, SYSTEM))).unwrap();
    }

    #[test]
    fn a_namespace_that_the_demo_did_not_make_is_refused() {
        for name in [SYSTEM, HOME] {
            for other in [namespace(name, "somebody"), json!({"metadata": {"name": name}})] {
                let error = refuse(&[other], None).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("another cluster"), "{error}");
            }
        }
    }

    #[test]
    fn an_installation_elsewhere_on_the_cluster_is_refused() {
        for other in [definition(RELEASE, "platform"), definition("ml", SYSTEM), json!({"metadata": {}})] {
            let error = refuse(&[], Some(&other)).unwrap_err().to_string();
            assert!(error.contains("already"), "{error}");
        }
    }
}
