//! The random schedule: whose turn it is.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use anneal_core::{
    object::{Key, Kind},
    plan::Wake,
};
use anneal_operator::{
    ports::ClusterError,
    reconcile::{Machine, Ports, reconcile},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    Report, Story,
    adapter::Shared,
    calls::{Faults, name},
    dice::Dice,
    gateway::DataPlane,
    laws::Laws,
    manifests,
    metrics::{Counters, Weather},
    plane,
    sim::{Caller, NAMESPACE, Sim, Walk},
    store::Store,
    training::Runs,
    trials::Trials,
    watches::News,
};

/// How one reconcile ends.
pub(super) type Ended = Result<Wake, ClusterError>;
type Task = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// Longest reconcile in calls; one that needs more goes round in circles.
const MAX_POLLS: usize = 500;
/// Noon of the first day.
const EPOCH: i64 = 1_795_262_400;

/// A world and its operators.
pub(super) struct World {
    pub(super) shared: Shared,
    pub(super) ports: [Ports; 2],
    tasks: [Option<Task>; 2],
    operators: usize,
    interleaved: bool,
    pub(super) steps: usize,
    pub(super) reconciles: usize,
}

impl World {
    pub(super) fn new(seed: u64, story: Story) -> Self {
        let mut dice = Dice::new(seed);
        let two = dice.chance(350);
        let calm = dice.chance(250);
        let caller = |lagging: bool, skew: i64| Caller {
            skew: SignedDuration::from_secs(skew),
            lagging,
            walk: Walk::default(),
            watched: 0,
            looked: std::collections::BTreeMap::new(),
        };
        let skew = if two && dice.chance(300) { -i64::try_from(dice.below(90)).unwrap_or(0) } else { 0 };
        let sim = Sim {
            store: Store::default(),
            now: Timestamp::from_second(EPOCH).unwrap_or(Timestamp::UNIX_EPOCH),
            faults: Faults {
                per_mille: if calm { 0 } else { dice.below(40) },
                stale_per_mille: if calm { 0 } else { 150 },
                ..Faults::default()
            },
            late: vec![],
            data_plane: DataPlane::default(),
            counters: Counters::default(),
            runs: Runs::default(),
            trials: Trials::default(),
            truth: std::collections::BTreeMap::new(),
            laws: Laws { skew: SignedDuration::from_secs(skew).abs(), ..Laws::default() },
            callers: [caller(dice.chance(200), 0), caller(dice.chance(400), skew)],
            writes: 0,
            dies_after: None,
            hostile: false,
            trace: (story == Story::Kept).then(Vec::new),
            dice,
        };
        let shared = Shared::new(sim);
        let ports = [shared.ports(0), shared.ports(1)];
        let mut world = Self {
            shared,
            ports,
            tasks: [None, None],
            operators: 1,
            interleaved: false,
            steps: 0,
            reconciles: 0,
        };
        world.operators = if two { 2 } else { 1 };
        world.furnish();
        world
    }

    fn furnish(&mut self) {
        let mut sim = self.shared.lock();
        let now = sim.now;
        let mut objects =
            vec![manifests::gateway(), plane::class(), manifests::rollout("ads-a", &mut sim.dice)];
        if sim.dice.chance(200) {
            objects.push(manifests::rollout("ads-b", &mut sim.dice));
        }
        for object in objects {
            // The world is empty, so no name is taken.
            drop(sim.store.create(&object, now));
        }
        sim.users_see_to_their_routes();
        self.interleaved = self.operators == 2 || sim.dice.chance(400);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.shared.lock().laws.violation.is_some()
    }

    /// The random part. Most worlds have a version in production before anything goes wrong, and another on its way.
    pub(super) fn play(&mut self) {
        let (serving, moving) = {
            let dice = &mut self.shared.lock().dice;
            (dice.chance(850), dice.chance(700))
        };
        let faults = std::mem::take(&mut self.shared.lock().faults);
        if serving {
            self.bring_into_service("v20261110");
        }
        if serving && moving && !self.is_broken() {
            self.bring_under_way("v20261111");
        }
        self.shared.lock().faults = faults;
        let steps = 80 + self.shared.lock().dice.below(120);
        for _ in 0..steps {
            self.step();
            if self.is_broken() {
                return;
            }
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        let choice = self.shared.lock().dice.weighted(&[50, 12, 10, 8, 8, 14, 5, 4, 3, 1]);
        if choice == 0 {
            return self.operator_turn();
        }
        let mut sim = self.shared.lock();
        let version = sim.store.version();
        let time = sim.now;
        match choice {
            1 => sim.deployment_step(),
            2 => sim.job_step(),
            3 => sim.gateway_step(),
            4 => drop(sim.collect_garbage()),
            5 => {
                let span = SignedDuration::from_secs(1 + i64::try_from(sim.dice.below(12)).unwrap_or(0));
                sim.advance(span);
            }
            6 => sim.user_step(),
            7 => sim.weather_step(),
            8 => sim.late_write(),
            _ => {
                let span =
                    SignedDuration::from_secs(60 * (1 + i64::try_from(sim.dice.below(40)).unwrap_or(0)));
                sim.say(|_| format!("the clock jumps by {span:#}"));
                sim.advance(span);
            }
        }
        if sim.store.version() != version || sim.now != time {
            sim.disturb_others(None);
        }
    }

    /// One operator goes on with its reconcile, or begins one, or dies.
    fn operator_turn(&mut self) {
        let (who, polls, dies, chosen) = {
            let mut sim = self.shared.lock();
            let who = sim.dice.below(self.operators);
            let polls = if self.interleaved { 1 + sim.dice.below(6) } else { MAX_POLLS };
            let kind = if sim.dice.chance(600) { Kind::ModelRollout } else { Kind::RetrainJob };
            let keys = sim.store.keys(kind);
            // Two leaders that are at the same object are the interesting ones.
            let rival = sim.callers[1 - who].walk.key.clone().filter(|_| self.tasks[1 - who].is_some());
            let same = rival.filter(|_| sim.dice.chance(500));
            (who, polls, sim.dice.chance(25), same.or_else(|| sim.dice.pick(&keys).cloned()))
        };
        if self.tasks[who].is_none() {
            let Some(key) = chosen else { return };
            self.begin(who, &key, News::Some);
        }
        // A crash leaves a reconcile between two calls; whatever it had done stays done.
        let polls = if dies { polls.min(1 + self.shared.lock().dice.below(25)) } else { polls };
        for _ in 0..polls {
            if self.poll(who).is_some() || self.is_broken() {
                let mut sim = self.shared.lock();
                let version = sim.store.version();
                sim.hostile_step();
                if sim.store.version() != version {
                    sim.disturb_others(None);
                }
                return;
            }
        }
        if dies && self.tasks[who].is_some() {
            self.die(who);
        }
    }

    /// Whatever it was at and all that it knew are gone.
    fn die(&mut self, who: usize) {
        self.shared.lock().say(|_| format!("operator {who} crashes"));
        self.tasks[who] = None;
        self.ports[who].looks = Arc::default();
    }

    fn begin(&mut self, who: usize, key: &Key, news: News) {
        let mut sim = self.shared.lock();
        sim.watches_tell(who, &self.ports[who].looks, news, key);
        sim.callers[who].walk = Walk { key: Some(key.clone()), floor: u64::MAX, ..Walk::default() };
        sim.say(|_| format!("operator {who} begins with {}", name(key)));
        let machine = if key.kind == Kind::RetrainJob { Machine::RetrainJob } else { Machine::ModelRollout };
        let (ports, object) = (self.ports[who].clone(), key.name.clone());
        let walk = async move {
            reconcile(&ports, machine, NAMESPACE, &object).await.map_err(|failed| failed.error)
        };
        self.tasks[who] = Some(Box::pin(walk));
    }

    /// One more call of an operator.
    fn poll(&mut self, who: usize) -> Option<Ended> {
        let task = self.tasks[who].as_mut()?;
        let polled = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if self.shared.lock().is_due_to_die() {
            self.die(who);
            let (verb, what, message) = ("go on with", "what it was at".to_owned(), "it is dead".to_owned());
            return Some(Err(ClusterError::Transient { verb, what, message }));
        }
        let Poll::Ready(ended) = polled else { return None };
        self.tasks[who] = None;
        self.reconciles += 1;
        let mut sim = self.shared.lock();
        sim.say(|_| format!("operator {who} ends: {ended:?}"));
        sim.note_glance(who);
        sim.check_walk(who, ended.as_ref().map(|_| ()));
        Some(ended)
    }

    /// A whole reconcile without any disturbance.
    pub(super) fn reconcile_calmly(&mut self, key: &Key) -> Ended {
        self.begin(0, key, News::All);
        for _ in 0..MAX_POLLS {
            if let Some(ended) = self.poll(0) {
                return ended;
            }
        }
        self.shared.lock().broken("reconciles end", name(key));
        Ok(Wake::OnChange)
    }

    /// Processes end, with whatever they were at.
    pub(super) fn drop_tasks(&mut self) {
        self.tasks = [None, None];
        self.forget_looks();
    }

    /// What operators saw is lost.
    pub(super) fn forget_looks(&mut self) {
        self.ports.iter_mut().for_each(|ports| ports.looks = Arc::default());
    }

    pub(super) fn report(&self, seed: u64) -> Report {
        let mut sim = self.shared.lock();
        let reached = std::mem::take(&mut sim.laws.reached);
        Report {
            seed,
            steps: self.steps,
            reconciles: self.reconciles,
            writes: sim.writes,
            violation: sim.laws.violation.clone(),
            trace: sim.trace.take().unwrap_or_default(),
            reached,
        }
    }
}

impl Sim {
    /// Whether the write was made that an operator does not outlive.
    fn is_due_to_die(&mut self) -> bool {
        self.dies_after.take_if(|after| self.writes >= *after).is_some()
    }

    /// Prometheus, the gateway or the operator's rights get better or worse.
    fn weather_step(&mut self) {
        let kinds = [
            Kind::Deployment,
            Kind::HttpRoute,
            Kind::ModelVersion,
            Kind::Job,
            Kind::ModelRollout,
            Kind::HorizontalPodAutoscaler,
        ];
        let verbs = ["apply", "create", "delete", "patch", "record"];
        match self.dice.below(10) {
            9 => self.keda_comes_or_goes(),
            0 | 1 => {
                let all = [
                    Weather::Unreachable,
                    Weather::Empty,
                    Weather::NotANumber,
                    Weather::Partial,
                    Weather::NoScrapes,
                ];
                self.counters.weather = self.dice.pick(&all).copied().unwrap_or_default();
            }
            2 | 3 => self.counters.weather = Weather::Fair,
            4 => {
                let programmed = self.dice.chance(700);
                self.set_gateway(programmed);
            }
            5 => self.plane_changes(),
            6 | 7 => self.hostile = self.dice.chance(700),
            _ => {
                self.faults.forbidden.clear();
                let right = (self.dice.pick(&verbs).copied(), self.dice.pick(&kinds).copied());
                if let (Some(verb), Some(kind)) = right
                    && self.dice.chance(300)
                {
                    self.faults.forbidden.insert((verb, kind));
                }
            }
        }
        self.say(|sim| {
            let faults = &sim.faults;
            format!(
                "weather {:?}, forbidden {:?}, KEDA {}",
                sim.counters.weather, faults.forbidden, !faults.no_keda
            )
        });
    }

    /// Whoever removes KEDA removes all ScaledObjects, and leaves the pods.
    fn keda_comes_or_goes(&mut self) {
        self.faults.no_keda = !self.faults.no_keda;
        for key in self.store.keys(Kind::ScaledObject) {
            drop(self.store.delete(&key, None));
        }
    }
}
