//! Run: watches, leads, reconciles and stops.
//!
//! Called by `main`. The only place that starts tasks. Controllers run only while this process holds the lease; a
//! process that loses it ends, and its successor starts from the recorded status.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anneal_core::{
    lease,
    object::{Key, Kind},
    plan::Wake,
    rollout::AlertReceiver,
};
use anneal_crds::names;
use futures::{StreamExt, future::ready};
use kube::{
    Api, Client, Resource as _,
    api::DynamicObject,
    runtime::{
        Controller, WatchStreamExt as _,
        controller::{self, Action, Config},
        reflector::ObjectRef,
        watcher,
    },
};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    alerts::{self, KubeTargets, Receiver},
    clock::SystemClock,
    http::{self, Readiness},
    kube_cluster::{KubeCluster, api_resource},
    lease::Candidate,
    members,
    metered::Metered,
    metrics::Metrics,
    notify::{self, Outbox, Retry, Webhook},
    planes,
    ports::{Clock, ClusterError},
    probes::HttpProbes,
    prometheus_api::HttpPrometheus,
    reconcile::{Failed, Machine, Ports, let_go, reconcile},
    scalers,
    turns::Turns,
    watched::{Watched, everything},
};

/// What an operator process is told at start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// Where `/alerts` is served, and the file with its token; none for nowhere.
    pub alerts: Option<(SocketAddr, PathBuf)>,
    /// The file with the URL of the webhook that is told of transitions, and what it understands.
    pub webhook: Option<(PathBuf, notify::Format)>,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of this process: the pod's.
    pub identity: String,
    /// Namespace to watch; none for all.
    pub watch_namespace: Option<String>,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No API server.
    #[error("no Kubernetes API server could be configured; run inside a cluster or set KUBECONFIG")]
    Configuration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A client could not be made.
    #[error("a client could not be made; this is a bug in the image")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address is taken.
    #[error("{0} cannot be listened on; choose another address with --listen or --alert-listen")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A task ended that must not.
    #[error("the controllers ended by themselves; the process ends so that it is started anew")]
    Controllers(#[source] Option<tokio::task::JoinError>),
    /// Another process leads now.
    #[error("the lease was lost; the process ends so that it cannot act beside its successor")]
    LeaseLost,
}

/// Objects are looked at again at least this often, so that a lost watch event costs no more.
const RESYNC: Duration = Duration::from_secs(3600);
/// Longest wait after an error.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// No sooner is tried again what was refused.
const SHORTEST: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
/// How many reconciles of each errand are under way at once.
const TURNS: usize = 16;
/// How many objects of one kind are reconciled at once; most of them wait for a turn, or for a metrics server that hangs.
const CONCURRENCY: u16 = 512;
/// How long reconciles may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs until `stop`, or until the lease is lost.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    let mut config = kube::Config::infer().await.map_err(|error| Error::Configuration(error.into()))?;
    // kube's own retry does not look at the verb.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|error| Error::Client(error.into()))?;
    let metrics = Metrics::new().map_err(|error| Error::Client(error.into()))?;
    let readiness = Readiness::default();
    let cluster = Arc::new(KubeCluster::new(client.clone(), &options.identity));
    let alerts = if options.alerts.is_some() { AlertReceiver::Listens } else { AlertReceiver::Off };
    let ports = Ports {
        alerts,
        cluster: Arc::new(Metered::new(cluster, metrics.clone(), notify(&options, &metrics, &stop)?)),
        prometheus: Arc::new(HttpPrometheus::default()),
        probes: Arc::new(HttpProbes),
        clock: Arc::new(SystemClock),
        turns: Arc::new(Turns::new(TURNS)),
        looks: Arc::default(),
    };
    let server_stop = CancellationToken::new();
    let listener = TcpListener::bind(options.listen).await;
    let listener = listener.map_err(|error| Error::Listen(options.listen, error))?;
    let server = tokio::spawn(http::serve(listener, readiness.clone(), metrics.clone(), server_stop.clone()));
    let alerts = take_alerts(&options, &client, &metrics, &server_stop).await?;
    let led = lead(&options, &client, &ports, &metrics, &readiness, &stop).await;
    readiness.set(false);
    metrics.leading.set(0);
    server_stop.cancel();
    for (address, server) in alerts.into_iter().chain([(options.listen, server)]) {
        if let Ok(Err(error)) = server.await {
            return Err(Error::Listen(address, error));
        }
    }
    led
}

/// Tells the webhook of transitions until `stop`, if there is one.
fn notify(options: &Options, metrics: &Metrics, stop: &CancellationToken) -> Result<Option<Outbox>, Error> {
    let Some((url, format)) = options.webhook.clone() else { return Ok(None) };
    let webhook = Webhook::new(url, format, Retry::default(), metrics.clone())
        .map_err(|error| Error::Client(error.into()))?;
    let (outbox, waiting) = notify::outbox(metrics.clone());
    tokio::spawn(notify::deliver(waiting, webhook, stop.clone()));
    Ok(Some(outbox))
}

/// A server and where it listens.
type Server = (SocketAddr, JoinHandle<io::Result<()>>);

/// Takes Alertmanager's messages until `stop`, whether this process leads or not.
async fn take_alerts(
    options: &Options,
    client: &Client,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Option<Server>, Error> {
    let Some((address, token)) = options.alerts.clone() else { return Ok(None) };
    let listener = TcpListener::bind(address).await.map_err(|error| Error::Listen(address, error))?;
    let targets = Arc::new(KubeTargets::new(client.clone(), options.watch_namespace.clone()));
    let receiver = Receiver::new(targets, token, metrics.clone());
    Ok(Some((address, tokio::spawn(alerts::serve(listener, receiver, stop.clone())))))
}

/// Waits for the lease, then runs the controllers under it.
async fn lead(
    options: &Options,
    client: &Client,
    ports: &Ports,
    metrics: &Metrics,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let clock: &dyn Clock = &SystemClock;
    let mut candidate =
        Candidate::new(client.clone(), &options.namespace, "anneal-operator", &options.identity, clock);
    let retry = period(lease::RETRY_PERIOD);
    loop {
        match candidate.try_lead().await {
            Ok(true) => break,
            Ok(false) => readiness.set(true),
            Err(error) => {
                readiness.set(false);
                tracing::warn!(%error, "the lease could not be read or written");
            }
        }
        tokio::select! {
            () = sleep(retry) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
    tracing::info!("this process leads");
    readiness.set(true);
    metrics.leading.set(1);
    let controllers_stop = stop.child_token();
    let mut controllers = tokio::spawn(controllers(
        options.clone(),
        client.clone(),
        ports.clone(),
        metrics.clone(),
        controllers_stop.clone(),
    ));
    let ended = tokio::select! {
        () = keep(&mut candidate, retry) => Err(Error::LeaseLost),
        ended = &mut controllers => match ended {
            Ok(()) if stop.is_cancelled() => Ok(()),
            Ok(()) => Err(Error::Controllers(None)),
            Err(error) => Err(Error::Controllers(Some(error))),
        },
    };
    controllers_stop.cancel();
    if let Err(Error::LeaseLost) = ended {
        return ended;
    }
    if let Err(error) = candidate.release().await {
        tracing::warn!(%error, "the lease could not be given back; it expires by itself");
    }
    ended
}

/// Renews until that is no longer possible. It ends in time before anyone else may take the lease, even while a call hangs.
async fn keep(candidate: &mut Candidate<'_>, retry: Duration) {
    let mut deadline = Instant::now() + period(lease::RENEW_DEADLINE);
    loop {
        sleep(retry).await;
        // What counts is when the renewal was sent: it may be written that early.
        let sent = Instant::now();
        match timeout_at(deadline, candidate.try_lead()).await {
            Ok(Ok(true)) => deadline = sent + period(lease::RENEW_DEADLINE),
            Ok(Ok(false)) | Err(_) => return,
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be renewed"),
        }
    }
}

fn period(span: jiff::SignedDuration) -> Duration {
    span.unsigned_abs()
}

async fn controllers(
    options: Options,
    client: Client,
    ports: Ports,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let scope = Scope { client, namespace: options.watch_namespace };
    let rollouts = scope.controller(Machine::ModelRollout);
    let store = rollouts.store();
    let children = [Kind::Deployment, Kind::Service, Kind::Job, Kind::Pod];
    let rollouts = children.into_iter().fold(rollouts, |controller, kind| {
        let looks = ports.looks.clone();
        scope.watches(controller, kind, managed(), move |child| {
            let parent = child.parent(Kind::ModelRollout, names::LABEL_ROLLOUT);
            parent.inspect(|rollout| looks.moved(&key(rollout)))
        })
    });
    let (looks, attached) = (ports.looks.clone(), store.clone());
    let rollouts = scope.watches(rollouts, Kind::HttpRoute, everything(), move |route| {
        let concerned = led_by(&attached.state(), &route);
        concerned.iter().for_each(|rollout| looks.moved(&key(rollout)));
        concerned
    });
    let planes = planes::changes(scope.api(Kind::Gateway), scope.classes(), store.clone());
    let looks = ports.looks.clone();
    let rollouts = rollouts.reconcile_on(planes.inspect(move |rollout| looks.moved(&key(rollout))));
    let scalers =
        scalers::changes(scope.api(Kind::HorizontalPodAutoscaler), scope.api(Kind::ScaledObject), &managed());
    let looks = ports.looks.clone();
    let rollouts = rollouts.reconcile_on(scalers.inspect(move |rollout| looks.moved(&key(rollout))));
    // Who upgrades may not have given the right yet, and that holds up no other watch.
    let slices = planes::events(Kind::EndpointSlice, scope.api(Kind::EndpointSlice), managed());
    let slices = slices.map(|(_, event)| Ok(event)).touched_objects();
    let parent = |slice: Watched| slice.parent(Kind::ModelRollout, names::LABEL_ROLLOUT);
    let slices = slices.filter_map(move |slice| ready(slice.ok().and_then(parent)));
    let looks = ports.looks.clone();
    let rollouts = rollouts.reconcile_on(slices.inspect(move |rollout| looks.moved(&key(rollout))));
    // Any version may be the next candidate of any rollout of its model beside it.
    let looks = ports.looks.clone();
    let rollouts = scope.watches(rollouts, Kind::ModelVersion, everything(), move |version| {
        let concerns = |rollout: &Arc<Watched>| {
            rollout.meta().namespace == version.meta().namespace && rollout.facts.model == version.facts.model
        };
        let rollouts = store.state().into_iter().filter(concerns);
        let concerned: Vec<_> = rollouts.map(|rollout| rollout.reference(Kind::ModelRollout)).collect();
        concerned.iter().for_each(|rollout| looks.moved(&key(rollout)));
        concerned
    });
    let (looks, members) = (ports.looks.clone(), members::changes(scope.api(Kind::ModelRollout)));
    let rollouts = rollouts.reconcile_on(members.inspect(move |rollout| looks.moved(&key(rollout))));
    let retrains =
        [Kind::Job, Kind::Pod].into_iter().fold(scope.controller(Machine::RetrainJob), |controller, kind| {
            let parent = |child: Watched| child.parent(Kind::RetrainJob, names::LABEL_JOB);
            scope.watches(controller, kind, managed(), parent)
        });
    let drained = async {
        tokio::join!(
            drive(rollouts, Machine::ModelRollout, &ports, &metrics, &stop),
            drive(retrains, Machine::RetrainJob, &ports, &metrics, &stop),
        )
    };
    tokio::select! {
        _ = drained => {}
        () = async { stop.cancelled().await; sleep(DRAIN).await } => tracing::warn!("reconciles did not end in time"),
    }
}

/// The rollouts whose requests come by this route: the one whose own it is, and those that write a rule of it, of which a route
/// of the user's has no mark.
fn led_by(rollouts: &[Arc<Watched>], route: &Watched) -> Vec<ObjectRef<Watched>> {
    let (namespace, name) = (&route.meta().namespace, &route.meta().name);
    let concerns = |rollout: &&Arc<Watched>| {
        let attached_to = &rollout.facts.attached_to;
        rollout.meta().namespace == *namespace && attached_to.is_some() && attached_to == name
    };
    let attached = rollouts.iter().filter(concerns).map(|rollout| rollout.reference(Kind::ModelRollout));
    attached.chain(route.parent(Kind::ModelRollout, names::LABEL_ROLLOUT)).collect()
}

/// Which namespaces are watched.
struct Scope {
    client: Client,
    namespace: Option<String>,
}

impl Scope {
    fn api<F>(&self, kind: Kind) -> Api<Watched<F>> {
        let resource = api_resource(kind);
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Classes have no namespace.
    fn classes<F>(&self) -> Api<Watched<F>> {
        Api::all_with(self.client.clone(), &api_resource(Kind::GatewayClass))
    }

    fn controller(&self, machine: Machine) -> Controller<Watched> {
        let kind = machine.kind();
        Controller::new_with(self.api(kind), everything(), api_resource(kind))
            .with_config(Config::default().concurrency(CONCURRENCY))
    }

    /// Another kind, whose objects wake those that `whom` names.
    fn watches<I>(
        &self,
        controller: Controller<Watched>,
        kind: Kind,
        config: watcher::Config,
        whom: impl Fn(Watched) -> I + Send + Sync + 'static,
    ) -> Controller<Watched>
    where
        I: IntoIterator<Item = ObjectRef<Watched>, IntoIter: Send> + 'static,
    {
        controller.watches_with(self.api(kind), api_resource(kind), config, whom)
    }
}

/// Of children, only what the operator made is watched.
fn managed() -> watcher::Config {
    everything().labels(&format!("{}={}", names::MANAGED_BY, names::MANAGER))
}

fn key(rollout: &ObjectRef<Watched>) -> Key {
    Key::new(Kind::ModelRollout, rollout.namespace.as_deref().unwrap_or_default(), &rollout.name)
}

/// Runs one controller until `stop`.
async fn drive(
    controller: Controller<Watched>,
    machine: Machine,
    ports: &Ports,
    metrics: &Metrics,
    stop: &CancellationToken,
) {
    let context = Arc::new((ports.clone(), metrics.clone()));
    controller
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(
            move |object, context| one(machine, object, context),
            |_, failed, context: Arc<(Ports, Metrics)>| {
                Action::requeue(after_failure(failed, context.0.clock.now()))
            },
            context,
        )
        .for_each(|result| async move {
            if let Err(error) = result {
                match error {
                    // Reconciles tell of their failures themselves.
                    controller::Error::ReconcilerFailed(..) => {}
                    // The end of every object: it is gone from the watch before its turn comes.
                    controller::Error::ObjectNotFound(gone) => gone_for_good(machine, &gone, ports, metrics),
                    error @ (controller::Error::QueueError(_) | controller::Error::RunnerError(_)) => {
                        tracing::warn!(%error, "a watch failed; it is started anew");
                    }
                }
            }
        })
        .await;
}

fn gone_for_good(machine: Machine, object: &ObjectRef<DynamicObject>, ports: &Ports, metrics: &Metrics) {
    // Nothing was kept of a run.
    if machine == Machine::ModelRollout {
        let (namespace, name) = (object.namespace.clone().unwrap_or_default(), object.name.clone());
        metrics.rollouts.forget(&namespace, &name);
        ports.looks.gone(&Key::new(Kind::ModelRollout, &namespace, &name));
        let ports = ports.clone();
        tokio::spawn(async move {
            if let Err(error) = let_go(&ports, &namespace, &name).await {
                tracing::warn!(%error, namespace, name, "its versions are still marked as used; the marks may be taken away by hand");
            }
        });
    }
}

async fn one(
    machine: Machine,
    object: Arc<Watched>,
    context: Arc<(Ports, Metrics)>,
) -> Result<Action, Failed> {
    let (ports, metrics) = context.as_ref();
    let (Some(namespace), Some(name)) = (object.meta().namespace.as_deref(), object.meta().name.as_deref())
    else {
        return Ok(Action::await_change());
    };
    let key = Key::new(machine.kind(), namespace, name);
    ports.looks.is_at(&key, object.meta().resource_version.as_deref());
    let timer = metrics.reconcile_seconds.start_timer();
    let result = reconcile(ports, machine, namespace, name).await;
    timer.observe_duration();
    let outcome = result.as_ref().map_or_else(|failed| failed.error.category(), |_| "ok");
    metrics.reconciles.with_label_values(&[machine.kind().resource().2, outcome]).inc();
    if let Err(error) = &result {
        tracing::warn!(kind = machine.kind().resource().2, namespace, name, %error, "reconcile failed");
    }
    Ok(requeue(result?, ports.clock.now()))
}

fn requeue(wake: Wake, now: jiff::Timestamp) -> Action {
    match wake {
        Wake::OnChange => Action::requeue(RESYNC),
        Wake::At(at) => {
            let wait = at.duration_since(now).max(jiff::SignedDuration::ZERO).unsigned_abs();
            Action::requeue(wait.clamp(Duration::from_millis(100), RESYNC))
        }
    }
}

/// What was decided by is looked at again when it is due, whatever could not be performed.
fn after_failure(failed: &Failed, now: jiff::Timestamp) -> Duration {
    let pause = backoff(&failed.error);
    let due = failed.due.map(|due| due.duration_since(now).max(SHORTEST).unsigned_abs());
    due.map_or(pause, |due| due.min(pause))
}

/// A conflict is old news by now; what is refused will be refused again until someone changes something.
const fn backoff(error: &ClusterError) -> Duration {
    match error {
        ClusterError::Conflict => Duration::from_millis(200),
        ClusterError::Transient { .. } => Duration::from_secs(2),
        ClusterError::Refused { .. } | ClusterError::Forbidden { .. } | ClusterError::NoSuchKind { .. } => {
            MAX_BACKOFF
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_refused_does_not_put_off_what_is_judged() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let refused = |due: Option<i64>| Failed {
            error: ClusterError::Refused {
                verb: "apply",
                what: "Deployment n/d".into(),
                message: "no".into(),
            },
            due: due.map(|seconds| now + jiff::SignedDuration::from_secs(seconds)),
        };
        for (due, seconds) in [(None, 30), (Some(3600), 30), (Some(10), 10), (Some(1), 1), (Some(-5), 1)] {
            assert_eq!(after_failure(&refused(due), now), Duration::from_secs(seconds), "{due:?}");
        }
    }

    #[test]
    fn a_route_wakes_whom_it_is_labelled_for_and_whoever_is_attached_to_it() {
        let rollout = |name: &str, namespace: &str, route: &str| {
            let object = json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"traffic": {"attach": {"route": route}}}});
            Arc::new(serde_json::from_value::<Watched>(object).unwrap())
        };
        let rollouts =
            [rollout("ads", "n", "shop"), rollout("bids", "n", "web"), rollout("clicks", "m", "shop")];
        let woken = |labels: serde_json::Value| {
            let route = json!({"metadata": {"name": "shop", "namespace": "n", "labels": labels}});
            let route = serde_json::from_value::<Watched>(route).unwrap();
            led_by(&rollouts, &route).into_iter().map(|rollout| rollout.name).collect::<Vec<_>>()
        };
        assert_eq!(woken(json!({})), ["ads"]);
        assert_eq!(woken(json!({"anneal.dev/rollout": "bids"})), ["ads", "bids"]);
    }
}
