//! What the API server says to `spec.prometheus`: CEL as it evaluates it, and the pattern of the URL.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use anneal_crds::{
    ModelRollout,
    prometheus::{Auth, Ca, CaSource, Header, Prometheus},
};
use kube::{CustomResourceExt as _, core::cel::validate_cel_schema};
use serde_json::{Value, json};

fn refusal(spec: &Value) -> Option<String> {
    // The API server fills in defaults before it checks.
    let spec: Prometheus = serde_json::from_value(spec.clone()).unwrap();
    let errors = validate_cel_schema::<Prometheus>(&serde_json::to_value(spec).unwrap(), None).err()?;
    Some(format!("{errors:?}"))
}

fn with_header(name: &str) -> Value {
    json!({"url": "https://p", "headers": [{"name": name, "value": "x"}]})
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let table = [
        (
            json!({"url": "http://p", "tls": {"clientCertificate": {"secretName": "s"}}}),
            "needs an https:// url",
        ),
        (json!({"url": "https://p", "tls": {}}), "ca, clientCertificate or both"),
        (json!({"url": "http://p", "timeout": "30001ms"}), "at most 30s"),
        (json!({"url": "http://p", "timeout": "1d"}), "at most 30s"),
        (
            json!({"url": "http://p", "headers": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}]}),
            "different names",
        ),
        (with_header("authorization"), "prometheus.auth"),
        (with_header("Host"), "prometheus.auth"),
        (with_header("Proxy-Authorization"), "prometheus.auth"),
        (with_header("Content-Length"), "prometheus.auth"),
        (with_header("TE"), "prometheus.auth"),
    ];
    for (spec, said) in table {
        let refusal = refusal(&spec).unwrap_or_default();
        assert!(refusal.contains(said), "{spec} was answered with: {refusal}");
    }
}

#[test]
fn what_can_be_is_taken() {
    for spec in [
        json!({"url": "http://p"}),
        json!({"url": "http://p", "timeout": "30s"}),
        json!({"url": "https://p", "timeout": "250ms", "tls": {"ca": {"configMapName": "kube-root-ca.crt"}}}),
        with_header("X-Scope-OrgID"),
        with_header("Terminal"),
    ] {
        assert_eq!(refusal(&spec), None, "{spec}");
    }
}

#[test]
fn every_header_that_cel_refuses_the_operator_refuses_too() {
    for name in
        ["Authorization", "HOST", "cookie", "proxy-x", "content-type", "upgrade", "X-Scope-OrgID", "Terminal"]
    {
        let header = Header { name: name.to_owned(), value: "x".to_owned() };
        assert_eq!(header.is_reserved(), refusal(&with_header(name)).is_some(), "{name}");
    }
}

#[test]
fn a_url_has_a_host_and_no_user() {
    let crd = serde_json::to_value(ModelRollout::crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let pattern = spec["prometheus"]["properties"]["url"]["pattern"].as_str().unwrap();
    let pattern = regex::Regex::new(pattern).unwrap();
    for url in ["http://p", "https://p.ns:9090/", "http://[::1]:9090/prometheus", "https://p/a@b"] {
        assert!(pattern.is_match(url), "{url}");
    }
    for url in [
        "p:9090",
        "ftp://p",
        "http://",
        "http://u:p@h",
        "http://u@h/",
        "http://good\\@bad",
        "http://h/?q",
        "http://h#f",
        "http://h /",
    ] {
        assert!(!pattern.is_match(url), "{url}");
    }
}

#[test]
fn messages_name_the_server_and_never_a_user() {
    for (url, server) in [
        ("https://p.ns:9090/prefix", "https://p.ns:9090"),
        ("http://u:secret@p", "http://p"),
        ("http://p\\@q", "http://p"),
        ("nonsense", "http://nonsense"),
    ] {
        let spec: Prometheus = serde_json::from_value(json!({"url": url})).unwrap();
        assert_eq!(spec.server(), server);
    }
}

#[test]
fn forms_are_read_with_their_defaults() {
    let spec: Prometheus = serde_json::from_value(json!({
        "url": "https://p", "auth": {"basic": {"secretName": "s"}}, "tls": {"ca": {"secretName": "c"}},
    }))
    .unwrap();
    let Some(Auth::Basic(basic)) = spec.auth else { panic!("{:?}", spec.auth) };
    assert_eq!((basic.username_key.as_str(), basic.password_key.as_str()), ("username", "password"));
    let ca = spec.tls.unwrap().ca.unwrap();
    assert_eq!(ca, Ca { source: CaSource::SecretName("c".into()), key: "ca.crt".into() });
    let both =
        json!({"url": "https://p", "auth": {"basic": {"secretName": "s"}, "bearer": {"secretName": "s"}}});
    assert!(serde_json::from_value::<Prometheus>(both).is_err());
}
