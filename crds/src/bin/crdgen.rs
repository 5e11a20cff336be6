//! Writes the custom resource definitions into the folder given as argument, one file each, or with `--check` fails
//! if a file there differs. Called by `cargo xtask crds`.
#![expect(clippy::print_stderr, reason = "a command-line tool")]

use std::{env, fs, io, path::Path, process::ExitCode};

use anneal_crds::{ModelRollout, ModelVersion, RetrainJob};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let (folder, check) = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [folder] => (Path::new(*folder).to_owned(), false),
        ["--check", folder] => (Path::new(*folder).to_owned(), true),
        _ => {
            eprintln!("usage: crdgen [--check] FOLDER");
            return ExitCode::from(2);
        }
    };
    for (name, crd) in [
        ("retrainjobs", RetrainJob::crd()),
        ("modelversions", ModelVersion::crd()),
        ("modelrollouts", ModelRollout::crd()),
    ] {
        let path = folder.join(format!("{name}.yaml"));
        let result =
            render(&crd).and_then(|text| if check { compare(&path, &text) } else { fs::write(&path, text) });
        if let Err(error) = result {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The definition as a Helm template: kept on uninstall, because deleting it would delete every object of its kind.
fn render(crd: &CustomResourceDefinition) -> io::Result<String> {
    let mut crd = crd.clone();
    crd.metadata.annotations.get_or_insert_default().insert("helm.sh/resource-policy".into(), "keep".into());
    unseen_until_observed(&mut crd);
    let yaml = serde_saphyr::to_string(&crd).map_err(io::Error::other)?;
    // Descriptions may contain braces, which Helm would take for its own.
    let yaml = yaml.replace("{{", "{{ \"{{\" }}");
    Ok(format!(
        "{{{{- if .Values.crds.enabled }}}}\n# Made by `cargo xtask crds` from crds/src; do not edit.\n{yaml}{{{{- end }}}}\n"
    ))
}

/// Lets the API server give every new object a status that no generation has. kstatus takes an object without a status for
/// one that is ready, so `helm install --wait` and Flux would not wait for the operator's first look.
fn unseen_until_observed(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let properties = schema.and_then(|schema| schema.properties.as_mut());
        if let Some(status) = properties.and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
        }
    }
}

fn compare(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path)? == text {
        return Ok(());
    }
    Err(io::Error::other("differs from crds/src: run `cargo xtask crds` and commit the result"))
}
