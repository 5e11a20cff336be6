//! The trainer's `serve`, and a client of it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anneal_crds::contract::RunResult;
use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::process::BINARY;

pub struct Server {
    pub child: Child,
    pub url: String,
    /// Where it takes copies, if it does.
    pub copies: Option<String>,
}

impl Server {
    pub fn start(result: &RunResult, more: &[&str]) -> Self {
        Self::start_in(&[], result, more)
    }

    pub fn start_in(environment: &[(String, String)], result: &RunResult, more: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--artifact", &result.artifact.uri, "--digest", &result.artifact.digest]);
        command.args(["--model", "cars", "--version", "v20261121.1", "--port", "0"]).args(more);
        command.envs(environment.iter().cloned());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut door = |said: &str| {
            let line = lines.find(|line| line.as_ref().unwrap().starts_with(said)).unwrap().unwrap();
            format!("http://127.0.0.1:{}", line.rsplit_once(':').unwrap().1)
        };
        let url = door("serving ");
        let copies = more.contains(&"--shadow-port").then(|| door("copies on "));
        Self { child, url, copies }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    pub fn infer_url(&self) -> String {
        format!("{}/v2/models/cars/infer", self.url)
    }

    pub async fn get(&self, path: &str) -> Response {
        Client::new().get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub async fn infer(&self, body: &Value) -> Response {
        Client::new().post(self.infer_url()).json(body).send().await.unwrap()
    }

    /// Sends what a gateway sends to a version in shadow.
    pub async fn copy(&self, body: &Value) -> Response {
        let request = Client::new().post(self.infer_url()).header("host", "cars.example.com-shadow");
        request.json(body).send().await.unwrap()
    }

    /// Requests that were asked for a comparison, and answered.
    pub async fn asked(&self) -> Option<f64> {
        let labels = "code=\"200\",model=\"cars\",version=\"v20261121.1\"";
        self.series("anneal_serve_asked_total", labels).await
    }

    /// Value of a series of `anneal_serve_requests_total`.
    pub async fn count(&self, arm: &str, code: u16) -> Option<f64> {
        let labels = format!("arm=\"{arm}\",code=\"{code}\",model=\"cars\",version=\"v20261121.1\"");
        self.series("anneal_serve_requests_total", &labels).await
    }

    /// Copied requests by who answered otherwise.
    pub async fn compared(&self, result: &str) -> Option<f64> {
        let labels = format!("model=\"cars\",result=\"{result}\",version=\"v20261121.1\"");
        self.series("anneal_serve_compared_total", &labels).await
    }

    /// Labels of copied requests by who was right.
    pub async fn paired(&self, result: &str) -> Option<f64> {
        let labels = format!("model=\"cars\",result=\"{result}\",version=\"v20261121.1\"");
        self.series("anneal_serve_paired_total", &labels).await
    }

    /// Copied requests that were not compared, by the reason.
    pub async fn not_compared(&self, reason: &str) -> Option<f64> {
        let labels = format!("model=\"cars\",reason=\"{reason}\",version=\"v20261121.1\"");
        self.series("anneal_serve_not_compared_total", &labels).await
    }

    async fn series(&self, name: &str, labels: &str) -> Option<f64> {
        let page = self.get("/metrics").await.text().await.unwrap();
        let start = format!("{name}{{{labels}}} ");
        page.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two rows for a model of the world's data.
pub fn body() -> Value {
    json!({"id": "42", "inputs": [
        {"name": "x", "shape": [2], "datatype": "FP64", "data": [900.0, 10.0]},
        {"name": "noise", "shape": [2, 1], "datatype": "FP32", "data": [[0.5], [0.5]]},
        {"name": "color", "shape": [2], "datatype": "BYTES", "data": ["red", "mauve"]},
        {"name": "flag", "shape": [2], "datatype": "BOOL", "data": [true, false]},
    ]})
}
