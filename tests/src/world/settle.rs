//! The fair schedule: faults end, everyone gets a turn, and the world must come to rest in a bounded time.
//!
//! Operators are woken as in production: by what they watch, and by the time that they asked for. A wake that is
//! missing shows here as a world that rests in the wrong place.

use std::collections::{BTreeMap, BTreeSet};

use anneal_core::{
    object::{Key, Kind},
    plan::Wake,
};
use anneal_crds::names;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    calls::Faults,
    manifests,
    metrics::Weather,
    plane::Plane,
    schedule::World,
    sim::{NAMESPACE, Sim},
};

/// Most rounds until a world rests.
const MAX_ROUNDS: usize = 1500;
/// How long after a switch those who left have no pods any more, with some looks to spare.
const LEAVING: SignedDuration = SignedDuration::from_secs(90);
/// How long nothing may change until a world counts as resting: longer than every deadline of the rollouts.
const QUIET: SignedDuration = SignedDuration::from_mins(4);

impl World {
    /// Everything comes to rest, where it should be; and after all that happened a good version still gets through.
    pub(super) fn settle(&mut self) {
        self.drop_tasks();
        self.shared.lock().faults_end();
        self.come_to_rest();
        if self.shared.lock().shadows_are_given_up() {
            self.come_to_rest();
        }
        self.check_rest();
        let again = self.shared.lock().dice.chance(300);
        if again && !self.is_broken() {
            self.bring_into_service("v20261212");
            self.check_rest();
        }
    }

    /// A good model is trained, approved and rolled out, without any trouble. Its version has this date.
    pub(super) fn bring_into_service(&mut self, date: &'static str) {
        let (job, rollouts) = self.shared.lock().good_run_begins(date);
        self.come_to_rest();
        self.shared.lock().all_is_approved();
        self.come_to_rest();
        let mut sim = self.shared.lock();
        sim.runs.luck = None;
        sim.check_in_service(date, &job, &rollouts);
    }

    /// A version that may be bad is trained and gets as far as some phase, without any trouble.
    pub(super) fn bring_under_way(&mut self, date: &'static str) {
        let (_, rollouts) = self.shared.lock().good_run_begins(date);
        let pause = |sim: &mut Sim, paused: bool| {
            for key in &rollouts {
                sim.store.edit(key, |rollout| rollout["spec"]["paused"] = paused.into());
            }
        };
        pause(&mut self.shared.lock(), true);
        self.come_to_rest();
        let phase = {
            let mut sim = self.shared.lock();
            sim.runs.luck = None;
            sim.spoil_some();
            pause(&mut sim, false);
            let phases =
                ["Preparing", "Staging", "Shadow", "Experiment", "Canary", "Canary", "Baking", "Healthy"];
            sim.dice.pick(&phases).copied().unwrap_or("Canary")
        };
        let there = |sim: &Sim| {
            let phases = rollouts.iter().filter_map(|key| sim.store.get(key));
            phases.into_iter().any(|rollout| rollout["status"]["phase"] == phase) && phase != "Healthy"
        };
        self.come_to_rest_unless(there);
        let mut sim = self.shared.lock();
        for key in &rollouts {
            sim.user_wants_a_say(key);
        }
    }

    fn come_to_rest(&mut self) {
        self.come_to_rest_unless(|_| false);
    }

    fn come_to_rest_unless(&mut self, enough: impl Fn(&Sim) -> bool) {
        let mut seen: BTreeMap<Key, u64> = BTreeMap::new();
        let mut wakes: BTreeMap<Key, Timestamp> = BTreeMap::new();
        let mut last_change = self.shared.lock().now;
        let mut quiet = BTreeSet::new();
        for _ in 0..MAX_ROUNDS {
            self.steps += 1;
            self.shared.lock().controllers_catch_up();
            let dirty = self.shared.lock().dirty(&seen);
            for key in &dirty {
                let version = self.shared.lock().store.version();
                seen.insert(key.clone(), version);
                self.wake(key, &mut wakes);
            }
            if self.is_broken() || enough(&self.shared.lock()) {
                return;
            }
            if !dirty.is_empty() {
                continue;
            }
            let Some((key, at)) = wakes.iter().min_by_key(|(_, at)| **at).map(|(key, at)| (key.clone(), *at))
            else {
                return;
            };
            let before = {
                let mut sim = self.shared.lock();
                let span = at.duration_since(sim.now).max(SignedDuration::from_millis(100));
                sim.advance(span);
                sim.moves()
            };
            self.wake(&key, &mut wakes);
            let sim = self.shared.lock();
            if sim.moves() != before {
                last_change = sim.now;
                quiet.clear();
                continue;
            }
            quiet.insert(key);
            // Who is due by now has not had its look yet.
            let is_due = wakes.values().any(|at| *at <= sim.now);
            let all_quiet = quiet.len() >= wakes.len() && !sim.anything_moves();
            if !is_due && (all_quiet || sim.now.duration_since(last_change) > QUIET) {
                return;
            }
        }
        self.shared.lock().broken("the world comes to rest", format!("not in {MAX_ROUNDS} rounds"));
    }

    fn wake(&mut self, key: &Key, wakes: &mut BTreeMap<Key, Timestamp>) {
        let ended = self.reconcile_calmly(key);
        let now = self.shared.lock().now;
        let at = match ended {
            Ok(Wake::At(at)) => Some(at),
            Ok(Wake::OnChange) => None,
            Err(_) => now.saturating_add(SignedDuration::from_secs(2)).ok(),
        };
        match at {
            Some(at) => drop(wakes.insert(key.clone(), at)),
            None => drop(wakes.remove(key)),
        }
    }

    /// At rest, another look changes nothing, and all is where it should be.
    fn check_rest(&mut self) {
        let keys = self.shared.lock().reconciled();
        for key in &keys {
            // Not what was seen last: everything.
            self.forget_looks();
            let before = self.shared.lock().moves();
            let ended = self.reconcile_calmly(key);
            let mut sim = self.shared.lock();
            if sim.moves() != before || sim.callers[0].walk.writes > 0 {
                sim.broken("a world at rest gets no writes", &key.name);
            }
            if let Err(error) = ended {
                sim.broken("without faults nothing fails", format!("{}: {error}", key.name));
            }
        }
        let mut sim = self.shared.lock();
        for key in keys {
            let Some(object) = sim.store.get(&key).cloned() else { continue };
            if key.kind == Kind::ModelRollout {
                sim.check_rollout_rests(&key.name, &object);
            } else {
                sim.check_retrain_rests(&key.name, &object);
            }
        }
    }
}

impl Sim {
    /// Changes of the cluster, without those that record only how far a comparison is: these go on for ever.
    fn moves(&self) -> u64 {
        self.store.version() - self.laws.kept
    }

    /// A user trains against the oldest rollout; the keys of the run, and of the rollouts that its version is for.
    fn good_run_begins(&mut self, date: &'static str) -> (Key, Vec<Key>) {
        self.runs.luck = Some(date);
        let rollout =
            self.oldest_rollout().unwrap_or_else(|| Key::new(Kind::ModelRollout, NAMESPACE, "ads-a"));
        let mut job = manifests::retrain_job(&format!("good-{date}"), &rollout.name, &mut self.dice);
        job.body["spec"]["baseline"]["whenMissing"] = "Bootstrap".into();
        let now = self.now;
        self.say(|_| format!("a good model is trained by {}", job.key.name));
        // The name is new.
        drop(self.store.create(&job, now));
        self.users_let_go(&rollout);
        self.store
            .edit(&rollout, |rollout| rollout["spec"]["candidate"] = json!({"follow": "NewestApproved"}));
        (job.key, vec![rollout])
    }

    /// Whoever is told that copies are dropped does something about it.
    fn shadows_are_given_up(&mut self) -> bool {
        let told = |rollout: &Value| !rollout["status"]["traffic"]["mirrorDropped"].is_null();
        let told: Vec<Key> = self
            .store
            .all(Kind::ModelRollout)
            .filter(|(_, rollout)| told(rollout))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &told {
            self.store.edit(key, |rollout| rollout["spec"]["strategy"]["shadow"] = Value::Null);
        }
        !told.is_empty()
    }

    /// Some of the models that were trained turn out to be bad once they serve.
    fn spoil_some(&mut self) {
        let digests: Vec<String> = self.truth.keys().cloned().collect();
        for digest in digests.into_iter().skip(1) {
            let (bad, slow) = (self.dice.chance(300), self.dice.chance(100));
            let mistaken = self.dice.chance(150);
            if let Some(truth) = self.truth.get_mut(&digest).filter(|_| bad || slow || mistaken) {
                truth.slow |= slow;
                if mistaken {
                    truth.mistakes = 0.95;
                }
                if bad {
                    truth.error_rate = 0.05;
                }
            }
            self.say(|sim| format!("{digest} is really {:?}", sim.truth.get(&digest)));
        }
    }

    fn all_is_approved(&mut self) {
        for key in self.store.keys(Kind::ModelVersion) {
            self.store.edit(&key, |version| {
                version["metadata"]["annotations"][names::ANNOTATION_APPROVED_BY] = "ann".into();
            });
        }
    }

    /// The good run's version is stable now, or that of another run that found as good a model meanwhile.
    fn check_in_service(&mut self, date: &str, job: &Key, rollouts: &[Key]) {
        let Some(run) = self.store.get(job).cloned() else { return };
        let waits = run["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|condition| condition["reason"] == "BaselineMissing"));
        // Someone deleted the record of what serves: that is said, and for people to mend.
        if waits {
            return;
        }
        if run["status"]["phase"] != "Succeeded" {
            return self.broken("a good version gets through", format!("{} is {}", job.name, run["status"]));
        }
        for rollout in rollouts {
            let status = self.store.get(rollout).map(|rollout| rollout["status"].clone()).unwrap_or_default();
            // Trained when nothing served here, and overtaken by a version that someone approved meanwhile.
            let overtaken = !run["status"]["baseline"]["bootstrap"].is_null() && !status["stable"].is_null();
            // Held for too long, because nobody can tell which of two rollouts' requests the counters count; another
            // version may have had its turn since.
            let held = |rejection: &Value| {
                let version = super::laws::text(&rejection["version"]);
                version.starts_with(date) && rejection["reason"] == "HeldTooLong"
            };
            let was_held = status["rejected"].as_array().is_some_and(|all| all.iter().any(held));
            let unclear =
                was_held || self.is_mismatched(&status) || status["decision"]["reason"] == "HeldTooLong";
            let shared = rollouts.len() < self.store.keys(Kind::HttpRoute).len() && unclear;
            let users = super::laws::lies_with_the_user(&status);
            if !overtaken
                && !shared
                && !users
                && !super::laws::text(&status["stable"]["version"]).starts_with(date)
            {
                let why = format!("{} does not serve {}: {status}", rollout.name, run["status"]["version"]);
                self.broken("a good version gets through", why);
            }
        }
    }

    fn faults_end(&mut self) {
        self.say(|_| "faults end".to_owned());
        self.faults = Faults { stale_floor: self.store.version(), ..Faults::default() };
        while !self.late.is_empty() {
            self.late_write();
        }
        for caller in &mut self.callers {
            caller.skew = SignedDuration::ZERO;
            caller.lagging = false;
        }
        self.counters.weather = Weather::Fair;
        self.set_gateway(true);
        self.set_plane(Plane::Able);
        self.hostile = false;
        self.users_see_to_their_routes();
        for key in self.store.keys(Kind::ModelRollout) {
            self.users_let_go(&key);
            self.store.edit(&key, |rollout| {
                let limits = &mut rollout["spec"]["serving"]["resources"]["limits"];
                if limits["cpu"] == "nonsense" {
                    *limits = json!({"cpu": "1"});
                }
            });
        }
    }

    fn controllers_catch_up(&mut self) {
        for _ in 0..200 {
            let before = self.store.version();
            for key in self.autoscalers() {
                self.autoscaler_scales(&key, None);
            }
            for key in self.store.keys(Kind::Deployment) {
                self.deployment_progresses(&key);
            }
            for service in self.leading() {
                self.endpoints_follow(&service);
            }
            for key in self.store.keys(Kind::Job) {
                self.job_progresses(&key);
            }
            self.gateway_catches_up();
            self.collect_garbage();
            if self.store.version() == before {
                return;
            }
        }
        self.broken("controllers catch up", "they do not");
    }

    /// Whether a version is on its way, so that a deadline may still come, or a fight is not yet over.
    fn anything_moves(&self) -> bool {
        // What was asked of a version that left is soon so long ago that it counts no more, and its pods go a while after the switch.
        let moves = |status: &Value| {
            super::laws::on_the_way(status)
                || super::laws::contested(status)
                || self.is_mismatched(status)
                || self.has_just_switched(status)
        };
        self.store.all(Kind::ModelRollout).any(|(_, rollout)| moves(&rollout["status"]))
    }

    /// Whether the data plane has taken new weights so lately that someone may still leave.
    fn has_just_switched(&self, status: &Value) -> bool {
        let accepted = status["trafficAcceptedAt"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        accepted.is_some_and(|at| self.now.duration_since(at) <= LEAVING)
    }

    /// All objects that operators reconcile.
    fn reconciled(&self) -> Vec<Key> {
        let mut keys = self.store.keys(Kind::ModelRollout);
        keys.extend(self.store.keys(Kind::RetrainJob));
        keys
    }

    /// The objects whose watches have something new since they were looked at.
    fn dirty(&self, seen: &BTreeMap<Key, u64>) -> BTreeSet<Key> {
        let keys = self.reconciled();
        keys.into_iter().filter(|key| seen.get(key).is_none_or(|at| self.touched_since(key, *at))).collect()
    }

    fn touched_since(&self, key: &Key, at: u64) -> bool {
        self.store
            .changed_since(at)
            .any(|(_, other, object)| other == key || self.concerns(key, other, object))
    }
}
