//! People who pause, promote, abort, retry and go back, by spec and by annotation.

use anneal_core::object::{Key, Kind};
use anneal_crds::names;
use serde_json::{Value, json};

use super::{calls::name, laws::text, manifests, sim::Sim};

impl Sim {
    /// Someone wants it otherwise than the operator.
    pub(super) fn user_commands(&mut self) {
        let keys = self.store.keys(Kind::ModelRollout);
        let Some(key) = self.dice.pick(&keys).cloned() else { return };
        let Some(status) = self.store.get(&key).map(|rollout| rollout["status"].clone()) else { return };
        // Who sees evidence, or thinks that there is some, may approve it.
        let asked = if status["approval"].is_null() { 5 } else { 100 };
        match self.dice.weighted(&[15, 15, 30, 12, 18, 14, asked, 6]) {
            0 => {
                let paused = self.dice.chance(400);
                self.say(|_| format!("a user sets paused of {} to {paused}", name(&key)));
                self.store.edit(&key, |rollout| rollout["spec"]["paused"] = paused.into());
            }
            1 => {
                let text = if self.dice.chance(400) { json!("wait for me") } else { Value::Null };
                self.annotates(&key, names::ANNOTATION_PAUSE, text);
            }
            2 => {
                let place = self.place(&status);
                let despite = ["", " despite often", " despite mostly"][self.dice.weighted(&[60, 25, 15])];
                let text = format!("{}@{place}{despite}: I know better", self.on_trial(&status));
                self.annotates(&key, names::ANNOTATION_PROMOTE, text.into());
            }
            3 => {
                let text = format!("{}: I do not like it", self.on_trial(&status));
                self.annotates(&key, names::ANNOTATION_ABORT, text.into());
            }
            4 => {
                let rejected = status["rejected"].as_array().cloned().unwrap_or_default();
                let Some(version) = self.dice.pick(&rejected).cloned() else { return };
                let text = format!("{}: try {}", text(&version["version"]), self.dice.below(3));
                self.annotates(&key, names::ANNOTATION_RETRY, text.into());
            }
            5 => self.user_rolls_back(&key, &status),
            6 => self.user_approves_evidence(&key, &status),
            _ => self.user_wants_a_say(&key),
        }
    }

    /// A rollout whose evidence waits for an approval, and its status.
    pub(super) fn evidence(&self) -> Option<(Key, Value)> {
        let all = self.store.all(Kind::ModelRollout);
        let waits = |rollout: &Value| !rollout["status"]["approval"].is_null();
        all.into_iter()
            .find(|(_, rollout)| waits(rollout))
            .map(|(key, rollout)| (key.clone(), rollout["status"].clone()))
    }

    /// Someone approves what they see, or what they once saw.
    pub(super) fn user_approves_evidence(&mut self, key: &Key, status: &Value) {
        let digest = text(&status["approval"]["digest"]).get(..12).unwrap_or("0123456789ab").to_owned();
        let place = match text(&status["phase"]) {
            "Canary" => status["weight"].to_string(),
            "Experiment" => "Experiment".to_owned(),
            _ => "Shadow".to_owned(),
        };
        let digest = if self.dice.chance(150) { "fedcba987654".to_owned() } else { digest };
        let text = format!("{}@{place} {digest}: I saw it", self.on_trial(status));
        self.annotates(key, names::ANNOTATION_APPROVE, text.into());
    }

    /// Someone lets nothing advance at some times, or without an approval.
    pub(super) fn user_wants_a_say(&mut self, key: &Key) {
        let mut wanted = json!({});
        manifests::have_a_say(&mut wanted, &mut self.dice);
        self.say(|_| format!("a user wants a say in {}: {wanted}", name(key)));
        self.store.edit(key, |rollout| {
            let strategy = &mut rollout["spec"]["strategy"];
            for field in ["freezes", "approval"] {
                strategy[field] = wanted[field].clone();
            }
            if let Some(strategy) = strategy.as_object_mut() {
                strategy.retain(|_, value| !value.is_null());
            }
        });
    }

    fn annotates(&mut self, key: &Key, annotation: &str, text: Value) {
        self.say(|_| format!("a user sets {annotation} of {} to {text}", name(key)));
        self.store.edit(key, |rollout| {
            if text.is_null() {
                rollout["metadata"]["annotations"].as_object_mut().map(|all| all.remove(annotation));
            } else {
                rollout["metadata"]["annotations"][annotation] = text;
            }
        });
    }

    fn on_trial(&mut self, status: &Value) -> String {
        let of = if status["phase"] == "Baking" { "stable" } else { "candidate" };
        let version = text(&status[of]["version"]);
        if version.is_empty() || self.dice.chance(100) {
            "v20261111.7".to_owned()
        } else {
            version.to_owned()
        }
    }

    fn place(&mut self, status: &Value) -> String {
        match self.dice.weighted(&[60, 25, 15]) {
            0 if status["phase"] == "Canary" => status["weight"].to_string(),
            0 => text(&status["phase"]).to_owned(),
            1 => "full".to_owned(),
            _ => "99".to_owned(),
        }
    }

    fn user_rolls_back(&mut self, key: &Key, status: &Value) {
        let mut known = status["history"].as_array().cloned().unwrap_or_default();
        known.extend([
            status["previous"].clone(),
            status["stable"].clone(),
            json!({"version": "v20200101.1"}),
        ]);
        let target = self.dice.pick(&known).map(|version| version["version"].clone()).unwrap_or_default();
        let rollback = if self.dice.chance(500) && target.is_string() {
            json!({"targetVersion": target, "reason": "it was better before"})
        } else {
            Value::Null
        };
        self.say(|_| format!("a user sets rollback of {} to {rollback}", name(key)));
        self.store.edit(key, |rollout| {
            if rollback.is_null() {
                rollout["spec"].as_object_mut().map(|spec| spec.remove("rollback"));
            } else {
                rollout["spec"]["rollback"] = rollback;
            }
        });
    }

    /// Nobody stands in the way of a rollout any more.
    pub(super) fn users_let_go(&mut self, key: &Key) {
        self.store.edit(key, |rollout| {
            for annotation in [
                names::ANNOTATION_PAUSE,
                names::ANNOTATION_PROMOTE,
                names::ANNOTATION_ABORT,
                names::ANNOTATION_RETRY,
                names::ANNOTATION_APPROVE,
            ] {
                rollout["metadata"]["annotations"].as_object_mut().map(|all| all.remove(annotation));
            }
            if let Some(spec) = rollout["spec"].as_object_mut() {
                spec.remove("paused");
                spec.remove("rollback");
            }
            if let Some(strategy) = rollout["spec"]["strategy"].as_object_mut() {
                strategy.remove("freezes");
                strategy.remove("approval");
            }
            for step in rollout["spec"]["strategy"]["steps"].as_array_mut().into_iter().flatten() {
                step["then"] = "Advance".into();
            }
            if rollout["spec"]["strategy"]["experiment"].is_object() {
                rollout["spec"]["strategy"]["experiment"]["then"] = "Advance".into();
            }
        });
    }
}
