//! A model of the test's own beside the demo's: its versions, its rollout, and the clients that it serves.
//!
//! Its versions are those of the demo under other names, so nothing has to be trained: what one does wrong, the server is told.

use std::{
    env,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Kubectl, example, forget, with};

/// The demo's namespace, where its models are.
pub const HOME: &str = "anneal-demo";
/// Most time for a change of a rollout.
const PATIENCE: Duration = Duration::from_secs(240);
/// Clients at once, and the pause of each after an answer.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// Whether every delivery has the machine to itself, as `cargo xtask soak deliveries` lets it.
pub fn alone() -> bool {
    env::var_os("ANNEAL_TEST_ALONE").is_some()
}

/// Most time from a decision to the last request that the second version gets: 2 s, as promised, and what the decision's time lacks
/// for having whole seconds. While eight deliveries share two cores everybody waits for everybody.
fn longest() -> SignedDuration {
    SignedDuration::from_secs(if alone() { 3 } else { 20 })
}

/// An object as the API server has it.
pub fn get(what: &str) -> Value {
    serde_json::from_str(&Kubectl::run(&["get", what, "-n", HOME, "-o", "json"], None).unwrap()).unwrap()
}

/// Waits for something.
pub fn until(what: &str, mut there: impl FnMut() -> bool) {
    let started = Instant::now();
    while !there() {
        assert!(started.elapsed() < PATIENCE, "still waiting: {what}");
        sleep(Duration::from_millis(200));
    }
}

/// What a client saw.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it asked.
    pub at: Timestamp,
    /// The status, or what went wrong.
    pub status: Result<u16, String>,
    /// The version that answered, if it said so.
    pub version: Option<String>,
    /// Whether the server failed because it was told to.
    pub injected: bool,
}

/// Clients that ask again and again, each on a connection of its own.
pub struct Clients {
    stop: Arc<AtomicBool>,
    body: Arc<Mutex<String>>,
    answers: Arc<Mutex<Vec<Answer>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(address: &str, host: &str, model: &str) -> Self {
        let (stop, body) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(REQUEST.to_owned())));
        let answers = Arc::new(Mutex::new(vec![]));
        let client = |_| {
            let (stop, body, answers) = (Arc::clone(&stop), Arc::clone(&body), Arc::clone(&answers));
            let (address, host, path) = (address.to_owned(), host.to_owned(), infer(model));
            spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let request = request(&host, &path, &body.lock().unwrap());
                    let answer = ask(&address, &request);
                    answers.lock().unwrap().push(answer);
                    sleep(PAUSE);
                }
            })
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self { stop, body, answers, threads }
    }

    /// From now on they ask this.
    pub fn ask(&self, body: &Value) {
        *self.body.lock().unwrap() = body.to_string();
    }

    /// The answers so far.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap().clone()
    }

    /// All answers.
    pub fn finish(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.answers.lock().unwrap().clone()
    }
}

/// What the demo's model is asked.
pub const REQUEST: &str = include_str!("../../../../examples/car-loan/request.json");

/// Where a model is asked.
pub fn infer(model: &str) -> String {
    format!("/v2/models/{model}/infer")
}

fn request(host: &str, path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request as it is, and returns the whole answer.
pub fn exchange(address: (&str, u16), request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask(address: &str, request: &str) -> Answer {
    let at = Timestamp::now();
    let text = exchange((address, 80), request);
    let head = text.as_ref().map_or("", |text| text.split("\r\n\r\n").next().unwrap_or_default());
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let (version, injected) = (header("x-anneal-version"), header("x-anneal-fault").is_some());
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = match (&text, code) {
        (Ok(_), Some(code)) => Ok(code),
        (Ok(text), None) => Err(format!("no answer: {text}")),
        (Err(error), _) => Err(error.to_string()),
    };
    Answer { at, status, version, injected }
}

/// A model, and its rollout of the same name.
pub struct Model {
    /// What the model, its rollout and its route are called.
    pub name: &'static str,
    gateway: &'static str,
}

impl Model {
    /// Its first version is in production, judged as the demo's is but for what `spec` says.
    pub fn new(name: &'static str, gateway: &'static str, spec: Value) -> Self {
        Self::serving(name, gateway, spec, &[])
    }

    /// The same, with arguments of the first version's server.
    pub fn serving(name: &'static str, gateway: &'static str, spec: Value, args: &[&str]) -> Self {
        let model = Self { name, gateway };
        model.clean_up();
        model.version(1, args);
        let mut rollout = with(example("demo/modelrollout.yaml"), "/metadata/name", json!(name));
        rollout["spec"]["model"] = name.into();
        rollout["spec"]["traffic"] = json!({"gateway": {"name": gateway, "hostnames": [model.host()]}});
        rollout["spec"]["serving"]["replicas"] = 1.into();
        rollout["spec"]["deletionPolicy"] = "Delete".into();
        for (field, value) in spec.as_object().unwrap() {
            rollout["spec"][field] = value.clone();
        }
        Kubectl::apply(HOME, &rollout, false).unwrap();
        model.until("the first version is in production", |status| status["phase"] == "Healthy");
        until("the gateway leads to it", || {
            // The demo's route has no host name, so before that its model answers, which is another one.
            matches!(ask(&model.address(), &request(&model.host(), &infer(name), "{}")).status, Ok(400))
        });
        model
    }

    fn host(&self) -> String {
        format!("{}.example.com", self.name)
    }

    fn address(&self) -> String {
        let gateway = get(&format!("gateway/{}", self.gateway));
        gateway["status"]["addresses"][0]["value"].as_str().unwrap_or_default().to_owned()
    }

    /// Clients of it.
    pub fn clients(&self) -> Clients {
        Clients::start(&self.address(), &self.host(), self.name)
    }

    /// Asks it by its gateway.
    pub fn infer(&self, body: &Value) -> Answer {
        ask(&self.address(), &request(&self.host(), &infer(self.name), &body.to_string()))
    }

    /// Tells it the labels of a request, by its gateway.
    pub fn feedback(&self, id: &str, labels: &Value) -> Answer {
        let body = json!({"id": id, "labels": labels}).to_string();
        ask(&self.address(), &request(&self.host(), "/v2/feedback", &body))
    }

    /// Sum of a counter with such labels in a version's first pod.
    pub fn counted(&self, number: usize, counter: &str, labels: &str) -> f64 {
        let pods =
            Kubectl::run(&["get", "pods", "-n", HOME, "-l", &self.pods_of(number), "-o", "name"], None);
        let pods = pods.unwrap();
        let Some(pod) = pods.lines().next().and_then(|pod| pod.strip_prefix("pod/")) else { return 0.0 };
        let page = format!("/api/v1/namespaces/{HOME}/pods/{pod}:8080/proxy/metrics");
        let page = Kubectl::run(&["get", "--raw", &page], None).unwrap_or_default();
        let lines = page.lines().filter(|line| line.starts_with(counter) && line.contains(labels));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Records a version, which its server serves with these arguments besides.
    pub fn version(&self, number: usize, args: &[&str]) {
        let demo = |number: usize| {
            let all: Value = get("mv");
            let mut all: Vec<Value> = all["items"].as_array().unwrap().clone();
            all.retain(|version| version["spec"]["model"] == "car-loan");
            all.sort_by_key(|version| version["spec"]["version"].as_str().unwrap().to_owned());
            all.remove(number - 1)
        };
        let label = |number: usize| format!("v20261122.{number}");
        let record = demo(number);
        let mut spec = record["spec"].clone();
        spec["model"] = self.name.into();
        spec["version"] = label(number).into();
        spec["serving"] = json!({"args": args});
        if number > 1 {
            let before = demo(1)["spec"]["artifact"].clone();
            spec["baseline"] = json!({"version": {"digest": before["digest"], "uri": before["uri"],
                "name": format!("{}-{}", self.name, label(1)), "version": label(1)}});
        }
        let name = format!("{}-{}", self.name, label(number));
        let labels = json!({"anneal.dev/model": self.name, "app.kubernetes.io/managed-by": "anneal"});
        let metadata = json!({"name": name, "labels": labels,
            "annotations": {"anneal.dev/approved-by": "test"}});
        let version = json!({"apiVersion": record["apiVersion"], "kind": "ModelVersion", "metadata": metadata, "spec": spec});
        Kubectl::apply(HOME, &version, false).unwrap();
    }

    /// Its status.
    pub fn status(&self) -> Value {
        get(&format!("mro/{}", self.name))["status"].clone()
    }

    /// Waits for something of its status, and returns that.
    pub fn until(&self, what: &str, there: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let status = self.status();
            if there(&status) {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "{}: still waiting: {what}: {status:#}", self.name);
            sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the second version is rolled back, and for the data plane to know.
    pub fn rolled_back(&self) -> Value {
        self.until("the second version is rolled back", |status| {
            status["phase"] == "RolledBack" && !status["trafficAcceptedAt"].is_null()
        })
    }

    /// What a rollback promises: nobody was failed but by what was injected, and soon after the decision nobody is answered by
    /// the second version.
    #[expect(clippy::print_stdout, reason = "a soak repeats it")]
    pub fn left_in_time(&self, status: &Value, answers: &[Answer]) {
        let decided: Timestamp = status["decision"]["at"].as_str().unwrap().parse().unwrap();
        let second = answers.iter().filter(|answer| answer.version.as_deref() == Some("v20261122.2"));
        let last = second.map(|answer| answer.at).max().expect("the second version was asked").max(decided);
        let late = last.duration_since(decided);
        println!("measured: {}: {late:#} after its decision the second version was asked last", self.name);
        assert!(late < longest(), "{}: {late:#} after its decision", self.name);
        self.nobody_failed(answers);
    }

    /// No request failed but by what was injected.
    pub fn nobody_failed(&self, answers: &[Answer]) {
        let failed = |answer: &&Answer| !answer.injected && answer.status != Ok(200);
        let failed: Vec<_> = answers.iter().filter(failed).collect();
        assert!(answers.len() > 100, "{}: {} answers are too few to tell", self.name, answers.len());
        assert!(failed.is_empty(), "{}: {} of {} failed: {failed:?}", self.name, failed.len(), answers.len());
    }

    /// Selects the pods of a version.
    pub fn pods_of(&self, number: usize) -> String {
        format!("anneal.dev/rollout={},anneal.dev/version=v20261122.{number}", self.name)
    }

    /// Deletes the pods of a version as often as they come, until something is so of the status, which is returned.
    pub fn without_pods(&self, number: usize, what: &str, there: impl Fn(&Value) -> bool) -> Value {
        let selector = self.pods_of(number);
        let delete =
            ["delete", "pods", "-n", HOME, "-l", &selector, "--grace-period=0", "--force", "--wait=false"];
        let mut status = Value::Null;
        until(what, || {
            // One that is gone already is nobody's fault.
            let _ = Kubectl::run(&delete, None);
            status = self.status();
            there(&status)
        });
        status
    }

    /// Annotates the rollout.
    pub fn annotate(&self, annotations: &[&str]) {
        let all = [&["annotate", "mro", self.name, "-n", HOME, "--overwrite"], annotations].concat();
        Kubectl::run(&all, None).unwrap();
    }

    /// Merges this into the rollout's spec.
    pub fn patch(&self, spec: &Value) {
        let patch = json!({"spec": spec}).to_string();
        Kubectl::run(&["patch", "mro", self.name, "-n", HOME, "--type=merge", "-p", &patch], None).unwrap();
    }

    /// Service and weight of those that its route leads to, in the order of the route.
    pub fn weights(&self) -> Vec<(String, i64)> {
        let route = get(&format!("httproute/{}", self.name));
        let backends = route["spec"]["rules"][0]["backendRefs"].as_array().cloned().unwrap_or_default();
        let one = |backend: &Value| {
            (backend["name"].as_str().unwrap().to_owned(), backend["weight"].as_i64().unwrap())
        };
        backends.iter().map(one).collect()
    }

    /// Uids of the pods of a version.
    pub fn pod_uids(&self, number: usize) -> String {
        let all = ["get", "pods", "-n", HOME, "-l", &self.pods_of(number), "-o", "jsonpath={..metadata.uid}"];
        Kubectl::run(&all, None).unwrap()
    }

    /// Nothing of it is left.
    pub fn clean_up(&self) {
        let _ = Kubectl::run(&["delete", "mro", self.name, "-n", HOME, "--ignore-not-found"], None);
        let of_rollout = format!("anneal.dev/rollout={}", self.name);
        let children = "deployments,services,httproutes";
        let _ = Kubectl::run(&["delete", children, "-n", HOME, "-l", &of_rollout, "--wait=false"], None);
        forget(HOME, self.name);
    }
}
