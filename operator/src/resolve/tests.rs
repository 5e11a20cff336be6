//! Whom a Secret is shown to.

use async_trait::async_trait;
use serde_json::json;

use super::*;

/// What the API server says to a read.
#[derive(Clone, Copy, PartialEq)]
enum Rights {
    Given,
    Missing,
    Down,
}

/// A namespace `team-a` with one Secret and one ConfigMap.
struct Namespace {
    annotation: Option<&'static str>,
    rights: Rights,
}

#[async_trait]
impl Reader for Namespace {
    async fn get(&self, key: &Key) -> Result<Option<Value>, ClusterError> {
        let (verb, what, message) = ("get", String::new(), "hunter2".to_owned());
        match self.rights {
            Rights::Given => {}
            Rights::Missing => return Err(ClusterError::Forbidden { verb, what, message }),
            Rights::Down => return Err(ClusterError::Transient { verb, what, message }),
        }
        assert_eq!(key.namespace, "team-a", "only the rollout's own namespace is read");
        let annotations = match self.annotation {
            Some(server) => json!({"anneal.dev/server": server}),
            None => json!({}),
        };
        // hunter2, ann, and a byte that is no text.
        let data = json!({"token": "aHVudGVyMg==", "username": "YW5u", "password": "aHVudGVyMg==", "colon": "YTpi",
            "bytes": "/w==", "broken": "hunter2", "empty": "", "ca.crt": "Q0E=", "tls.crt": "QQ==", "tls.key": "Qg=="});
        Ok(match (key.kind, key.name.as_str()) {
            (Kind::Secret, "s") => Some(json!({"metadata": {"annotations": annotations}, "data": data})),
            (Kind::ConfigMap, "c") => Some(json!({"data": {"ca.crt": "CA"}})),
            _ => None,
        })
    }
    async fn list(&self, _: Kind, _: &str, _: (&str, &str)) -> Result<Vec<Value>, ClusterError> {
        Ok(vec![])
    }
}

fn granted(annotation: &'static str) -> Namespace {
    Namespace { annotation: Some(annotation), rights: Rights::Given }
}

async fn of(namespace: &Namespace, spec: Value) -> Result<Server, Unusable> {
    resolve(namespace, "team-a", &serde_json::from_value(spec).unwrap()).await
}

fn bearer(url: &str) -> Value {
    json!({"url": url, "auth": {"bearer": {"secretName": "s"}}})
}

#[tokio::test]
async fn a_secret_is_used_for_the_server_that_it_names_however_its_port_is_written() {
    for (url, annotation) in [
        ("https://p.ns:9090/prefix", "https://p.ns:9090"),
        ("https://p.ns", "https://p.ns:443/"),
        ("https://P.ns:443", " https://p.ns"),
        ("http://p:80", "http://p"),
    ] {
        let server = of(&granted(annotation), bearer(url)).await.unwrap();
        assert_eq!(server.credential, Credential::bearer("hunter2"), "{url} {annotation}");
    }
}

#[tokio::test]
async fn a_secret_is_not_used_for_another_server_and_the_message_says_what_to_write() {
    for annotation in [
        None,
        Some(""),
        Some("*"),
        Some("p:9090"),
        Some("https://p"),
        Some("http://p:9090"),
        Some("https://p:9090/path"),
        Some("https://p:9090?x"),
        Some("https://u@p:9090"),
        Some("https://p:9090.evil"),
        Some("https://p:9090,https://q"),
        Some("file:///"),
    ] {
        let namespace = Namespace { annotation, rights: Rights::Given };
        let refused = of(&namespace, bearer("https://p:9090")).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Secret team-a/s does not say that https://p:9090 may have it: if it may, annotate it with \
             anneal.dev/server=https://p:9090",
            "{annotation:?}"
        );
    }
    let plain = of(&granted("https://p"), bearer("http://p")).await.unwrap_err().to_string();
    assert!(
        plain.contains("server=http://p (over plain http, whoever is on the way can read it)"),
        "{plain}"
    );
}

#[tokio::test]
async fn every_secret_must_name_the_server_and_a_config_map_need_not() {
    for spec in [
        json!({"url": "https://p", "auth": {"basic": {"secretName": "s"}}}),
        json!({"url": "https://p", "tls": {"ca": {"secretName": "s"}}}),
        json!({"url": "https://p", "tls": {"clientCertificate": {"secretName": "s"}}}),
    ] {
        let refused = of(&granted("https://q"), spec.clone()).await;
        assert!(matches!(refused, Err(Unusable::NotGranted { .. })), "{spec}: {refused:?}");
        of(&granted("https://p"), spec).await.unwrap();
    }
    let with_map = json!({"url": "https://p", "tls": {"ca": {"configMapName": "c"}}});
    assert_eq!(of(&granted("https://q"), with_map).await.unwrap().tls.ca, Some(b"CA".to_vec()));
}

#[tokio::test]
async fn what_cannot_be_read_says_what_to_do_and_never_what_was_read() {
    let basic = |user: &str, password: &str| json!({"url": "https://p", "auth": {"basic": {"secretName": "s", "usernameKey": user, "passwordKey": password}}});
    let key = |key: &str| json!({"url": "https://p", "auth": {"bearer": {"secretName": "s", "key": key}}});
    let other = json!({"url": "https://p", "auth": {"bearer": {"secretName": "t"}}});
    let headed = json!({"url": "https://p", "headers": [{"name": "Authorization", "value": "x"}]});
    let (given, missing, down) = (Rights::Given, Rights::Missing, Rights::Down);
    for (rights, spec, said) in [
        (missing, bearer("https://p"), "prometheusCredentials.enabled=true"),
        (down, bearer("https://p"), "Secret team-a/s could not be read (transient)"),
        (given, other, "Secret team-a/t does not exist"),
        (given, key("absent"), "no key `absent`"),
        (given, key("bytes"), "`bytes` of Secret team-a/s is not text"),
        (given, key("broken"), "is not base64"),
        (given, key("empty"), "is not a token"),
        (given, basic("colon", "password"), "without a colon"),
        (given, basic("username", "absent"), "no key `absent`"),
        (given, headed, "`Authorization` cannot be sent"),
        (given, json!({"url": "https://u:hunter2@p"}), "spec.prometheus.url"),
        (given, json!({"url": "file:///p"}), "spec.prometheus.url"),
        (given, json!({"url": "http://p", "tls": {"ca": {"configMapName": "c"}}}), "spec.prometheus.url"),
    ] {
        let namespace = Namespace { annotation: Some("https://p"), rights };
        let refused = of(&namespace, spec.clone()).await.unwrap_err().to_string();
        assert!(refused.contains(said) && !refused.contains("hunter2"), "{spec}: {refused}");
    }
}

#[tokio::test]
async fn a_server_without_credentials_needs_no_rights() {
    let nobody = Namespace { annotation: None, rights: Rights::Missing };
    let spec =
        json!({"url": "http://p/x", "timeout": "60s", "headers": [{"name": "X-Scope-OrgID", "value": "a"}]});
    let server = of(&nobody, spec).await.unwrap();
    assert_eq!((server.origin().as_str(), server.timeout), ("http://p", MAX_TIMEOUT));
    assert_eq!((server.headers[0].0.as_str(), server.headers.len()), ("x-scope-orgid", 1));
}
