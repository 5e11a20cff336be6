//! One certificate authority, a certificate for each part, and the kubeconfig files that carry them.
//!
//! Called by `up`. Everything is made anew for each cluster and goes with its state folder.

use anyhow::Result;

use crate::cache::{make_dir, write_file};
use crate::plan::{NODE, Plan};
use crate::sh::Cmd;

/// Who gets a certificate: its file's name and its subject.
const PARTS: &[(&str, &str)] = &[
    ("apiserver", "/CN=kube-apiserver"),
    ("kubelet", "/O=system:nodes/CN=system:node:node1"),
    ("apiserver-kubelet", "/O=system:masters/CN=apiserver-kubelet"),
    ("admin", "/O=system:masters/CN=admin"),
    ("controller-manager", "/CN=system:kube-controller-manager"),
    ("scheduler", "/CN=system:kube-scheduler"),
    ("proxy", "/CN=system:kube-proxy"),
];

/// Who talks to the API server with a kubeconfig file.
const CLIENTS: &[&str] = &["admin", "controller-manager", "scheduler", "kubelet", "proxy"];

/// Makes `pki/*.crt`, `pki/*.key` and `*.kubeconfig` in the state folder.
pub(crate) fn make(plan: &Plan) -> Result<()> {
    make_dir(&plan.path("pki"))?;
    let ca = ["-subj", "/CN=anneal-cluster", "-out", "ca.crt", "-keyout", "ca.key"];
    request(plan, &[&ca[..], &["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]].concat())?;
    let names = names(plan);
    for (file, subject) in PARTS {
        let (certificate, key) = (format!("{file}.crt"), format!("{file}.key"));
        let files = ["-subj", subject, "-out", &certificate, "-keyout", &key];
        let signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
        let uses = ["-addext", "extendedKeyUsage=serverAuth,clientAuth", "-addext", &names];
        request(plan, &[&files[..], &signed, &uses].concat())?;
    }
    openssl(
        plan,
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "accounts.key"],
    )?;
    openssl(plan, &["pkey", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"])?;
    CLIENTS.iter().try_for_each(|client| {
        write_file(&plan.path(&format!("{client}.kubeconfig")), kubeconfig(plan, client))
    })
}

fn request(plan: &Plan, args: &[&str]) -> Result<()> {
    let key =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "365"];
    openssl(plan, &[&key[..], args].concat())
}

fn openssl(plan: &Plan, args: &[&str]) -> Result<()> {
    Cmd::new("openssl").args(args).cwd(plan.path("pki")).capture().map(drop)
}

fn names(plan: &Plan) -> String {
    let dns = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", NODE];
    let addresses = [plan.node_address(), plan.api_service(), "127.0.0.1".to_owned()];
    let dns = dns.iter().map(|name| format!("DNS:{name}"));
    let addresses = addresses.iter().map(|address| format!("IP:{address}"));
    format!("subjectAltName={}", dns.chain(addresses).collect::<Vec<_>>().join(","))
}

fn kubeconfig(plan: &Plan, client: &str) -> String {
    let (server, ca) = (plan.server(), plan.text("pki/ca.crt"));
    let (certificate, key) =
        (plan.text(&format!("pki/{client}.crt")), plan.text(&format!("pki/{client}.key")));
    format!(
        "apiVersion: v1
kind: Config
current-context: anneal
clusters:
- name: anneal
  cluster:
    server: {server}
    certificate-authority: {ca}
users:
- name: {client}
  user:
    client-certificate: {certificate}
    client-key: {key}
contexts:
- name: anneal
  context:
    cluster: anneal
    user: {client}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_verify_and_carry_the_addresses_that_clients_use() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::new(dir.path(), "demo").unwrap();
        make(&plan).unwrap();
        let pki = plan.path("pki");
        let verify = ["verify", "-CAfile", "ca.crt", "-purpose", "sslserver", "apiserver.crt"];
        Cmd::new("openssl").args(verify).cwd(&pki).capture().unwrap();
        let show = ["x509", "-in", "kubelet.crt", "-noout", "-subject", "-ext", "subjectAltName"];
        let text = Cmd::new("openssl").args(show).cwd(&pki).capture().unwrap();
        for part in ["system:nodes", "system:node:node1", "10.66.0.2", "10.64.0.1", "kubernetes.default.svc"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let config = std::fs::read_to_string(plan.kubeconfig()).unwrap();
        assert!(config.contains("server: https://10.66.0.2:6443"));
    }
}
