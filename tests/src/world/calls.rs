//! What becomes of an operator's calls to the API server: faults, stale reads, and the laws that each write is held to.

use std::collections::BTreeSet;

use anneal_core::{
    object::{Key, Kind, Object},
    patch::Patch,
};
use anneal_operator::ports::ClusterError;
use serde_json::Value;

use super::{
    sim::{Sim, Walk},
    store::{Refusal, Written},
};

/// A write that an operator asks for.
#[derive(Clone, Debug)]
pub enum Write {
    /// Create, and leave alone what exists.
    Create(Object),
    /// Server-side apply.
    Apply(Object),
    /// JSON Patch.
    Patch(Patch),
    /// Delete by uid.
    Delete(Key, String),
    /// Replace the status of the object that was read.
    Record {
        /// Which.
        key: Key,
        /// As it was read.
        read: Value,
        /// What it is to be.
        status: Value,
    },
}

impl Write {
    const fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Apply(_) => "apply",
            Self::Patch(_) => "patch",
            Self::Delete(..) => "delete",
            Self::Record { .. } => "record",
        }
    }

    const fn key(&self) -> &Key {
        match self {
            Self::Create(object) | Self::Apply(object) => &object.key,
            Self::Patch(patch) => &patch.key,
            Self::Delete(key, _) | Self::Record { key, .. } => key,
        }
    }
}

/// A write that was answered with a timeout and is done later, or never.
#[derive(Clone, Debug)]
pub struct LateWrite {
    /// Whose.
    pub caller: usize,
    /// What.
    pub write: Write,
    /// What its operator knew.
    pub walk: Walk,
}

/// What goes wrong with calls.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Failing calls, of a thousand.
    pub per_mille: usize,
    /// Reads that a lagging replica answers from the past, of a thousand.
    pub stale_per_mille: usize,
    /// No stale read is older than this.
    pub stale_floor: u64,
    /// Whether KEDA's kind is not there for now.
    pub no_keda: bool,
    /// Rights that the operator lacks for now.
    pub forbidden: BTreeSet<(&'static str, Kind)>,
}

/// How a single call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Lost,
    TimeoutAfterCommit,
    LateCommit,
    Conflict,
    Forbidden,
}

impl Sim {
    fn fault(&mut self, caller: usize, writes: bool) -> Option<Fault> {
        if !self.dice.chance(self.faults.per_mille) {
            return None;
        }
        self.callers[caller].walk.disturbed = true;
        let faults =
            [Fault::Lost, Fault::Forbidden, Fault::TimeoutAfterCommit, Fault::LateCommit, Fault::Conflict];
        self.dice.pick(if writes { &faults } else { &faults[..2] }).copied()
    }

    /// The version of the world that a read sees.
    fn view(&mut self, caller: usize) -> u64 {
        let newest = self.store.version();
        if !self.callers[caller].lagging || !self.dice.chance(self.faults.stale_per_mille) {
            return newest;
        }
        let lag = u64::try_from(self.dice.below(8)).unwrap_or(0);
        let view = newest.saturating_sub(lag).max(self.faults.stale_floor.min(newest));
        self.callers[caller].walk.disturbed |= view < newest;
        view
    }

    /// An operator reads one object.
    pub fn operator_gets(&mut self, caller: usize, key: &Key) -> Result<Option<Value>, ClusterError> {
        let begins = self.callers[caller].walk.key.as_ref() == Some(key);
        if begins {
            self.begin_walk(caller, key);
        }
        self.read_allowed(caller, key)?;
        let view = self.view(caller);
        let found = self.store.get_at(key, view).cloned();
        let walk = &mut self.callers[caller].walk;
        walk.floor = walk.floor.min(view);
        if begins {
            walk.read = found.clone().unwrap_or_default();
        }
        if view < self.store.version() {
            self.say(|_| format!("operator {caller} reads {} as it was at rv {view}", name(key)));
        }
        Ok(found.as_deref().cloned())
    }

    fn begin_walk(&mut self, caller: usize, key: &Key) {
        let version = self.store.version();
        let walk = &mut self.callers[caller].walk;
        *walk = Walk {
            key: Some(key.clone()),
            floor: version,
            disturbed: walk.disturbed,
            writes: walk.writes,
            ..Walk::default()
        };
    }

    /// An operator reads all objects of a kind with a label.
    pub fn operator_lists(
        &mut self,
        caller: usize,
        kind: Kind,
        namespace: &str,
        label: (&str, &str),
    ) -> Result<Vec<Value>, ClusterError> {
        let all = Key::new(kind, namespace, "*");
        self.read_allowed(caller, &all)?;
        if self.faults.no_keda && kind == Kind::ScaledObject {
            self.callers[caller].walk.disturbed = true;
            return Err(ClusterError::NoSuchKind { verb: "list", what: name(&all) });
        }
        let view = self.view(caller);
        let newest = self.store.version();
        let walk = &mut self.callers[caller].walk;
        walk.floor = walk.floor.min(view);
        if kind == Kind::Pod && view < newest {
            // A Job that is seen ended beside pods that are seen running looks like one whose pods left no word.
            self.laws.touched.extend(walk.read["metadata"]["uid"].as_str().map(str::to_owned));
        }
        Ok(self.store.list_at(kind, namespace, label, view))
    }

    fn read_allowed(&mut self, caller: usize, key: &Key) -> Result<(), ClusterError> {
        match self.fault(caller, false) {
            None => Ok(()),
            Some(Fault::Forbidden) => Err(forbidden("read", key)),
            Some(Fault::Lost | Fault::TimeoutAfterCommit | Fault::LateCommit | Fault::Conflict) => {
                self.say(|_| format!("operator {caller} cannot read {}", name(key)));
                Err(transient("read", key))
            }
        }
    }

    /// An operator writes.
    pub fn operator_writes(&mut self, caller: usize, write: Write) -> Result<(), ClusterError> {
        let (verb, key) = (write.verb(), write.key().clone());
        if !self.callers[caller].walk.has_read() {
            self.broken("what is written rests on what was read for it", format!("{verb} {}", name(&key)));
        }
        if self.faults.forbidden.contains(&(verb, key.kind)) {
            self.callers[caller].walk.disturbed = true;
            self.say(|_| format!("operator {caller} may not {verb} {}", name(&key)));
            return Err(forbidden(verb, &key));
        }
        if self.faults.no_keda && key.kind == Kind::ScaledObject {
            self.callers[caller].walk.disturbed = true;
            return Err(transient(verb, &key));
        }
        let fault = self.fault(caller, true);
        if let Some(fault) = fault {
            self.say(|_| format!("operator {caller} tries to {verb} {}: {fault:?}", name(&key)));
        }
        match fault {
            None => self.commit(caller, &write),
            Some(Fault::Lost) => Err(transient(verb, &key)),
            Some(Fault::Forbidden) => Err(forbidden(verb, &key)),
            Some(Fault::Conflict) => match write {
                Write::Apply(_) | Write::Patch(_) | Write::Record { .. } => Err(ClusterError::Conflict),
                Write::Create(_) | Write::Delete(..) => Err(transient(verb, &key)),
            },
            Some(Fault::TimeoutAfterCommit) => {
                drop(self.commit(caller, &write));
                Err(transient(verb, &key))
            }
            Some(Fault::LateCommit) => {
                let walk = self.callers[caller].walk.clone();
                self.late.push(LateWrite { caller, write, walk });
                Err(transient(verb, &key))
            }
        }
    }

    /// The API server does what it was asked to, with the answer that the real adapter makes of it.
    pub fn commit(&mut self, caller: usize, write: &Write) -> Result<(), ClusterError> {
        let (verb, key) = (write.verb(), write.key());
        let before = self.store.keep(key);
        let now = self.now;
        let done = match write {
            Write::Create(object) => self.store.create(object, now),
            Write::Apply(object) => self.store.apply(object, now),
            Write::Patch(patch) => self.store.patch(patch),
            Write::Delete(key, uid) => self.store.delete(key, Some(uid)),
            Write::Record { key, read, status } => self.store.replace_status(key, read, status.clone()),
        };
        if done == Ok(Written::Changed) {
            self.writes += 1;
            if self.only_keeps(write, before.as_deref()) {
                self.laws.kept += 1;
            } else {
                self.callers[caller].walk.writes += 1;
            }
            self.disturb_others(Some(caller));
            self.say(|sim| format!("operator {caller} does {verb} {}{}", name(key), sim.gist(key)));
            self.check_write(caller, key, before.as_deref());
        }
        match (done, write) {
            (Ok(_), _) | (Err(Refusal::Exists), Write::Create(_)) => Ok(()),
            (Err(Refusal::NotFound | Refusal::Conflict), Write::Delete(..)) => Ok(()),
            (Err(Refusal::NotFound), _) => Err(transient(verb, key)),
            (Err(Refusal::Conflict | Refusal::Exists), _) => {
                self.say(|_| format!("operator {caller} cannot {verb} {}: conflict", name(key)));
                Err(ClusterError::Conflict)
            }
            (Err(Refusal::Invalid(why)), _) => {
                self.say(|_| format!("operator {caller} cannot {verb} {}: {why}", name(key)));
                Err(ClusterError::Refused { verb, what: name(key), message: why.to_owned() })
            }
        }
    }

    /// Whether a write records nothing but how far a comparison is.
    fn only_keeps(&self, write: &Write, before: Option<&Value>) -> bool {
        let Write::Record { key, .. } = write else { return false };
        let without = |object: Option<&Value>| {
            let mut status = object?["status"].clone();
            let fields = status.as_object_mut()?;
            fields.remove("judge");
            fields.remove("observed");
            if let Some(conditions) = fields.get_mut("conditions").and_then(Value::as_array_mut) {
                conditions.retain(|condition| condition["type"] != "Detectability");
            }
            Some(status)
        };
        without(before) == without(self.store.get(key))
    }

    /// One late write is done, or lost.
    pub fn late_write(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let place = self.dice.below(self.late.len());
        let LateWrite { caller, write, walk } = self.late.remove(place);
        self.say(|_| format!("a late write of operator {caller}: {} {}", write.verb(), name(write.key())));
        if self.dice.chance(700) {
            self.disturb_others(None);
            let walk = Walk { late: true, ..walk };
            let current = std::mem::replace(&mut self.callers[caller].walk, walk);
            drop(self.commit(caller, &write));
            self.callers[caller].walk = current;
        }
    }

    /// What matters about an object, for the trace.
    fn gist(&self, key: &Key) -> String {
        let Some(object) = self.store.get(key) else { return " (gone)".into() };
        match key.kind {
            Kind::ModelRollout | Kind::RetrainJob => {
                let status = &object["status"];
                let ready = |condition: &&Value| condition["type"] == "Ready";
                let reason = status["conditions"].as_array().and_then(|all| all.iter().find(ready));
                format!(
                    ": {} weight {} stable {} candidate {} ({})",
                    status["phase"],
                    status["weight"],
                    status["stable"]["version"],
                    status["candidate"]["version"],
                    reason.map_or(&Value::Null, |condition| &condition["reason"]),
                )
            }
            Kind::HttpRoute => format!(": {}", object["spec"]["rules"]),
            Kind::ModelVersion => format!(": {}", object["metadata"]["annotations"]),
            Kind::ConfigMap
            | Kind::Secret
            | Kind::Pod
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::Job
            | Kind::Deployment
            | Kind::HorizontalPodAutoscaler
            | Kind::ScaledObject
            | Kind::Gateway
            | Kind::GatewayClass => String::new(),
        }
    }
}

/// A key for people.
pub fn name(key: &Key) -> String {
    format!("{:?} {}", key.kind, key.name)
}

fn transient(verb: &'static str, key: &Key) -> ClusterError {
    ClusterError::Transient { verb, what: name(key), message: "simulated".to_owned() }
}

fn forbidden(verb: &'static str, key: &Key) -> ClusterError {
    ClusterError::Forbidden { verb, what: name(key), message: "simulated".to_owned() }
}
