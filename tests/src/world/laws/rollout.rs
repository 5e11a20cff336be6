//! Laws of rollouts: who may take traffic, and on what grounds it gets more.

use anneal_core::object::{Key, Kind};
use anneal_crds::{Span, names};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{string, text, trials::has_all};
use crate::world::{
    metrics::{LABEL_DELAY, MAX_ERRORS, MIN_LABELS},
    sim::{NAMESPACE, Sim, Told, Verdict},
};

/// Requests out of which every bad candidate is found, at any weight.
const ENOUGH: f64 = 1500.0;

/// Name of the workload of a version in a rollout, as the operator's documentation has it.
pub fn workload(rollout: &str, version: &Value) -> String {
    format!("{rollout}-{}", string(&version["version"]).replace('.', "-"))
}

/// Whether a status has a candidate on its way.
pub fn moving(status: &Value) -> bool {
    ["Preparing", "Staging", "Shadow", "Experiment", "Canary"].iter().any(|phase| status["phase"] == *phase)
}

/// Whether live requests are divided between two versions.
pub(super) fn divides(status: &Value) -> bool {
    status["phase"] == "Experiment" || status["phase"] == "Canary"
}

/// Whether a deadline of a rollout may still come.
pub fn on_the_way(status: &Value) -> bool {
    moving(status) || status["phase"] == "Baking" || status["phase"] == "RollingBack"
}

/// A weight, which status has in percent.
pub fn per_mille(weight: &Value) -> i64 {
    (weight.as_f64().unwrap_or(0.0) * 10.0).round() as i64
}

/// The steps of a strategy, whatever its form: weight in percent, duration, requests and triggers.
pub(super) fn steps(strategy: &Value) -> Vec<Value> {
    if let Some(steps) = strategy["steps"].as_array() {
        return steps.clone();
    }
    let canary = &strategy["canary"];
    if canary.is_null() {
        let all = &strategy["blueGreen"];
        return vec![json!({"weight": 100, "duration": all["duration"], "minRequests": all["minRequests"]})];
    }
    let number = |field: &str| canary[field].as_i64().unwrap_or(1);
    let mut weights: Vec<i64> = vec![number("initial")];
    while let Some(last) = weights.last().copied().filter(|last| *last < number("max")) {
        weights.push(number("max").min(last + number("increment")));
    }
    let step = |weight| json!({"weight": weight, "duration": canary["interval"], "minRequests": canary["minRequests"]});
    weights.into_iter().map(step).collect()
}

/// Whether a version was stable before, as a status remembers it.
fn was_stable(status: &Value, digest: &str) -> bool {
    let history = status["history"].as_array().into_iter().flatten().chain([&status["previous"]]);
    let returning = (status["phase"] == "RollingBack").then_some(&status["candidate"]);
    history.chain(returning).any(|version| version["digest"] == digest)
}

impl Sim {
    pub(super) fn check_rollout(&mut self, caller: usize, key: &Key, before: &Value, after: &Value) {
        self.check_times(key, before, after);
        let (old, new) = (&before["status"], &after["status"]);
        let name = &key.name;
        if old["decision"] != new["decision"] {
            let reached = format!("decision {}", text(&new["decision"]["reason"]));
            *self.laws.reached.entry(reached).or_default() += 1;
        }
        self.note_consent(old, new);
        self.note_adopted(old, new);
        self.note_capacity(old, new);
        if old["waitingRollback"].is_null() && !new["waitingRollback"].is_null() {
            *self.laws.reached.entry("rollback that waits".to_owned()).or_default() += 1;
        }
        let digest = string(&new["candidate"]["digest"]);
        let weight = per_mille(&new["weight"]);
        if !(0..=1000).contains(&weight) || (weight > 0 && !divides(new)) {
            self.broken(
                "weights are shares",
                format!("{name} has weight {weight} in phase {}", new["phase"]),
            );
        }
        let begins =
            moving(new) && (!moving(old) || old["candidate"]["digest"] != new["candidate"]["digest"]);
        self.check_retry(caller, name, old, new);
        // Who reads while another operator marks what a lost status had rejected sees the mark at its next look.
        let late = self.callers[caller].walk.disturbed && old.is_null();
        if begins && !late && self.laws.banned.get(name).is_some_and(|banned| banned.contains(&digest)) {
            self.broken("what was rolled back stays away", format!("{name}: {digest} is back"));
        }
        if begins {
            self.check_alone(caller, name);
            self.check_not_paused(caller, name, old);
            self.check_not_frozen(caller, name, new);
        }
        let stable = string(&new["stable"]["digest"]);
        let promoted = !stable.is_empty() && old["stable"]["digest"] != new["stable"]["digest"];
        let back = new["decision"]["reason"] == "RolledBackByHand" && was_stable(old, &stable);
        let from_candidate = !back && moving(old) && old["candidate"]["digest"] == new["stable"]["digest"];
        if promoted && !back && self.laws.banned.get(name).is_some_and(|banned| banned.contains(&stable)) {
            self.broken("what was rolled back stays away", format!("{name}: {stable} is stable again"));
        }
        if promoted && back {
            // A person went back to it, whatever had become of it.
            self.laws.banned.entry(name.to_owned()).or_default().remove(&stable);
        }
        if promoted && !from_candidate && !old["stable"].is_null() && !was_stable(old, &stable) {
            self.broken("only a candidate becomes stable", format!("{name}: {stable}"));
        }
        if old["phase"] == "Baking" && new["phase"] == "Healthy" && !promoted {
            self.check_bake(caller, name, before, after);
            self.check_smoked(caller, key, old, new);
        }
        if promoted && from_candidate {
            self.note_promoted(caller, key, old, new);
        }
        if has_all(new) && (!has_all(old) || old["candidate"] != new["candidate"]) {
            self.note_has_all(key, &new["candidate"]);
        }
        self.check_unseen(caller, key, old, new);
        let rises = moving(old)
            && !promoted
            && old["candidate"] == new["candidate"]
            && (weight > per_mille(&old["weight"])
                || (old["phase"] == "Experiment" && new["phase"] == "Canary"));
        if (promoted && from_candidate) || rises {
            self.check_rise(caller, name, before, after);
            self.check_not_frozen(caller, name, new);
            self.check_approved(caller, name, before, after);
        }
        if new["decision"]["reason"] == "ThresholdBreached" && old["decision"]["at"] != new["decision"]["at"]
        {
            self.check_blame(name, &digest);
        }
        self.check_experiment(name, old, new);
        self.note_rejected(name, new);
        if old["judge"]["state"] != new["judge"]["state"] {
            let told = self.callers[caller].walk.told.clone();
            self.laws.folded.insert(name.to_owned(), told);
        }
    }

    /// What was told by the look on which a decision rests: the last one at which the judge had a tick to count. A look between two
    /// ticks counts nothing, and decides only until the next one is due.
    fn grounds(&mut self, caller: usize, name: &str, before: &Value, after: &Value) -> Vec<Told> {
        let (old, new) = (&before["status"]["judge"], &after["status"]["judge"]);
        let told = self.callers[caller].walk.told.clone();
        if new["state"].is_null() || old["state"] != new["state"] {
            return told;
        }
        let number = |value: &Value| value.as_i64().unwrap_or_default();
        let tick = number(&new["tickMs"]);
        let ended = number(&new["state"]["beganMs"]) + number(&new["state"]["ticks"]) * tick;
        // Ticks are whole, and samples are waited for before they are taken for missing.
        let skew = i64::try_from(self.laws.skew.abs().as_millis()).unwrap_or(i64::MAX);
        let late = skew + number(&new["staleAfterMs"]) + 2 * tick;
        if self.now.as_millisecond() - ended > late {
            self.broken("a tick that is due is counted", format!("{name}: at {}, until {ended}", self.now));
        }
        self.laws.folded.get(name).cloned().unwrap_or(told)
    }

    fn note_rejected(&mut self, name: &str, status: &Value) {
        let rejected = status["rejected"].as_array().into_iter().flatten();
        let digests = rejected.map(|version| string(&version["digest"]));
        self.laws.banned.entry(name.to_owned()).or_default().extend(digests);
        let serves = workload(name, &status["stable"]);
        if status["phase"] != "RolledBack" || self.laws.taken_out.get(name) == Some(&serves) {
            self.laws.taken_out.remove(name);
        }
    }

    /// The candidate gets more traffic than it had.
    fn check_rise(&mut self, caller: usize, name: &str, before: &Value, after: &Value) {
        let (old, candidate) = (&before["status"], &before["status"]["candidate"]);
        let deployment = Key::new(Kind::Deployment, NAMESPACE, &workload(name, candidate));
        let floor = self.callers[caller].walk.floor;
        let share = if divides(&after["status"]) { per_mille(&after["status"]["weight"]) } else { 1000 };
        let wanted = self.pods_needed(caller, name, &old["stable"], share);
        if !self.store.forms_since(&deployment, floor).any(|form| Self::is_ready(form, wanted)) {
            self.broken(
                "capacity comes before traffic",
                format!("{} was not ready since rv {floor}", deployment.name),
            );
        }
        let slice = Key::new(Kind::EndpointSlice, NAMESPACE, &deployment.name);
        let leads = |form: &Value| {
            form["endpoints"].as_array().is_some_and(|all| i64::try_from(all.len()).unwrap_or(0) >= wanted)
        };
        if !self.store.forms_since(&slice, floor).any(leads) {
            self.broken("endpoints come before traffic", format!("{} since rv {floor}", deployment.name));
        }
        self.check_iron_law(name, old);
        self.check_not_paused(caller, name, old);
        if after["status"]["decision"]["reason"] == "PromotedByHand" {
            return self.check_promoted(caller, name, old, candidate);
        }
        if old["phase"] == "Preparing" || old["phase"] == "Staging" {
            let experiment = &self.callers[caller].walk.read["spec"]["strategy"]["experiment"];
            let skips = !experiment.is_null() && after["status"]["phase"] != "Experiment";
            if !old["stable"].is_null() && (skips || !divides(&after["status"])) {
                self.broken("no version skips its canary", format!("{name}: {}", after["status"]["phase"]));
            }
            return;
        }
        self.check_order(caller, name, before, after);
        self.check_evidence(caller, name, before, after);
        let digest = string(&candidate["digest"]);
        let truth = self.truth.get(&digest);
        let bad = truth.is_none_or(|truth| truth.slow || truth.error_rate > MAX_ERRORS);
        if bad && self.must_be_shown(caller, old, candidate) {
            let truth = self.truth.get(&digest);
            let why = format!("{name}: {digest} got more traffic and is {truth:?}");
            self.broken("what is bad gets no more traffic", why);
        }
    }

    /// Whether whatever is bad about a candidate had to be seen by now. A plain threshold sees it in one reading, and
    /// evidence needs requests, more than a share that stable may have by itself.
    fn must_be_shown(&self, caller: usize, old: &Value, candidate: &Value) -> bool {
        if self.callers[caller].walk.read["spec"]["judge"]["evidence"] == "none" {
            return true;
        }
        let good = |version: &Value| {
            let truth = self.truth.get(&string(&version["digest"]));
            truth.is_some_and(|truth| !truth.slow && truth.error_rate <= MAX_ERRORS)
        };
        let since = string(&old["trafficAcceptedAt"]).parse();
        let answered =
            since.map_or(0.0, |since| self.told_of(&string(&candidate["version"]), since, self.now));
        good(&old["stable"]) && answered >= ENOUGH
    }

    fn check_iron_law(&mut self, name: &str, status: &Value) {
        let digest = string(&status["candidate"]["digest"]);
        let stable = status["stable"]["digest"].as_str().map(str::to_owned);
        let truth = self.truth.get(&digest).cloned();
        let record = Key::new(Kind::ModelVersion, NAMESPACE, &string(&status["candidate"]["name"]));
        // A record that was deleted a moment ago counts as it was.
        let record = self
            .store
            .get_at(&record, u64::MAX)
            .or_else(|| self.store.get_at(&record, self.faults.stale_floor));
        let approved = record
            .is_none_or(|record| !record["metadata"]["annotations"][names::ANNOTATION_APPROVED_BY].is_null());
        let lawful = truth.as_ref().is_some_and(|truth| match &stable {
            Some(stable) => truth.beats.as_ref() == Some(stable),
            // It takes everything at once: a person must have said so.
            None => (truth.beats.is_some() || truth.good_first) && approved,
        });
        if !lawful {
            let why = format!("{name}: {digest} over {stable:?}, and it is {truth:?}, approved {approved}");
            self.broken("the iron law", why);
        }
    }

    /// No step of the strategy is left out.
    fn check_order(&mut self, caller: usize, name: &str, before: &Value, after: &Value) {
        let strategy = self.callers[caller].walk.read["spec"]["strategy"].clone();
        // What an experiment sends to a version is no step.
        let is_canary = |object: &Value| object["status"]["phase"] == "Canary";
        let weight =
            |object: &Value| if is_canary(object) { per_mille(&object["status"]["weight"]) } else { 0 };
        // Of what served before the first version nothing is counted that it could be compared with.
        let compared = !strategy["experiment"].is_null() && !before["status"]["stable"].is_null();
        if before["status"]["phase"] == "Shadow" && compared {
            if after["status"]["phase"] != "Experiment" {
                self.broken(
                    "steps come in their order",
                    format!("{name}: no experiment in {}", after["status"]),
                );
            }
            return;
        }
        let next = steps(&strategy)
            .into_iter()
            .map(|step| per_mille(&step["weight"]))
            .find(|next| *next > weight(before));
        let watched = !strategy["bake"].is_null() || !strategy["smoke"].is_null();
        let promoted = after["status"]["phase"] == if watched { "Baking" } else { "Healthy" };
        if next != (!promoted).then(|| weight(after)) {
            let why = format!("{name}: {} then {} by {strategy}", before["status"], after["status"]);
            self.broken("steps come in their order", why);
        }
    }

    /// Every trigger passed, on fresh numbers, for long enough and out of enough requests.
    fn check_evidence(&mut self, caller: usize, name: &str, before: &Value, after: &Value) {
        let walk = self.callers[caller].walk.clone();
        let told = self.grounds(caller, name, before, after);
        let strategy = &walk.read["spec"]["strategy"];
        let status = &before["status"];
        let (terms, subject) = match text(&status["phase"]) {
            "Shadow" => (strategy["shadow"].clone(), "candidate"),
            "Baking" => (strategy["bake"].clone(), "stable"),
            "Experiment" => (strategy["experiment"].clone(), "candidate"),
            _ => {
                let own = |step: &Value| per_mille(&step["weight"]) == per_mille(&status["weight"]);
                (steps(strategy).into_iter().find(own).unwrap_or_default(), "candidate")
            }
        };
        let own = terms["rollbackTriggers"].as_array();
        let guards = own.or(strategy["rollbackTriggers"].as_array()).cloned().unwrap_or_default();
        let looked_at = terms["secondary"].as_array().into_iter().flatten().chain([&terms["primary"]]);
        let labelled = guards.contains(&json!("accuracy"));
        let triggers =
            guards.len() + looked_at.filter(|name| name.is_string() && !guards.contains(name)).count();
        let unasked = if subject == "stable" { 0.0 } else { f64::INFINITY };
        let enough = terms["minRequests"].as_f64().unwrap_or(unasked);
        let version = string(&status[subject]["version"]);
        // Whoever edits the route puts a step's clock back; an experiment keeps what it has counted, and has its own clock.
        let clock = if status["phase"] == "Experiment" { "stepStartedAt" } else { "trafficAcceptedAt" };
        let since: Option<Timestamp> = string(&status[clock]).parse().ok();
        let answered = self.answered(&version, since.unwrap_or(self.now), self.now);
        let passes = |told: &Told| {
            let enough = match told.verdict {
                Verdict::Pass(requests) => requests >= enough,
                Verdict::Labels(labels) => labels >= f64::from(MIN_LABELS),
                Verdict::Samples => answered >= enough.min(f64::MAX) - 1.0,
                Verdict::Breach | Verdict::Nothing => false,
            };
            enough && told.version == version
        };
        let asked = if walk.read["spec"]["judge"]["evidence"] == "none" {
            told.len() == triggers
        } else {
            told.len() >= triggers
        };
        if triggers == 0 || !asked || !told.iter().all(passes) {
            self.broken("more traffic needs a pass of every trigger", format!("{name}: {told:?}"));
        }
        let readings = after["status"]["decision"]["readings"].as_array().cloned().unwrap_or_default();
        if readings.len() != triggers || !readings.iter().all(|reading| reading["verdict"] == "Pass") {
            self.broken("a decision shows its grounds", format!("{name}: {readings:?}"));
        }
        let shortest = if terms["minDuration"].is_string() { "minDuration" } else { "duration" };
        let span: Option<Span> = string(&terms[shortest]).parse().ok();
        let decided: Option<Timestamp> = string(&after["status"]["stepStartedAt"]).parse().ok();
        let (Some(span), Some(since), Some(decided)) = (span, since, decided) else {
            return self.broken("a step takes its time", format!("{name}: {status}"));
        };
        // Times are recorded in whole seconds.
        if decided.duration_since(since) + jiff::SignedDuration::from_secs(1) < span.get() {
            self.broken("a step takes its time", format!("{name}: from {since} to {decided}"));
        }
        let lasted = decided.duration_since(since) + jiff::SignedDuration::from_secs(1);
        if labelled && lasted < jiff::SignedDuration::from_secs(LABEL_DELAY) {
            self.broken("a step waits for its labels", format!("{name}: from {since} to {decided}"));
        }
        if labelled {
            *self.laws.reached.entry("step with labels".to_owned()).or_default() += 1;
        }
    }

    /// A watch ends on grounds, or because someone said so.
    fn check_bake(&mut self, caller: usize, name: &str, before: &Value, after: &Value) {
        self.check_not_paused(caller, name, &before["status"]);
        self.check_not_frozen(caller, name, &after["status"]);
        let subject = &before["status"]["stable"];
        match text(&after["status"]["decision"]["reason"]) {
            "PromotedByHand" => self.check_promoted(caller, name, &before["status"], subject),
            // Without a bake, or anything to go back to, the smoke requests are all that there is.
            "SmokePassed" | "SmokeFailed" | "StrategyChanged" if before["status"]["previous"].is_null() => {}
            "SmokePassed" if self.callers[caller].walk.read["spec"]["strategy"]["bake"].is_null() => {}
            "StrategyChanged" if self.callers[caller].walk.read["spec"]["strategy"]["bake"].is_null() => {}
            _ => self.check_evidence(caller, name, before, after),
        }
    }

    /// Someone asked for just that.
    pub(super) fn check_promoted(&mut self, caller: usize, name: &str, old: &Value, version: &Value) {
        let key = names::ANNOTATION_PROMOTE;
        let said = string(&self.callers[caller].walk.read["metadata"]["annotations"][key]);
        let place = match text(&old["phase"]) {
            "Canary" => old["weight"].to_string(),
            phase => phase.to_owned(),
        };
        let version = text(&version["version"]);
        let wanted = [format!("{version}@{place}"), format!("{version}@full")];
        let is_wanted = |wanted: &String| {
            said.strip_prefix(wanted.as_str())
                .is_some_and(|rest| rest.starts_with(':') || rest.starts_with(" despite "))
        };
        if !wanted.iter().any(is_wanted) {
            self.broken("a promotion by hand was asked for", format!("{name}: `{said}` in {old}"));
        }
        if text(&old["promoted"]) == said {
            self.broken("a promotion does its work once", format!("{name}: `{said}` in {old}"));
        }
    }

    /// While someone pauses it, a rollout does not advance.
    fn check_not_paused(&mut self, caller: usize, name: &str, old: &Value) {
        let read = self.callers[caller].walk.read.clone();
        let paused = read["spec"]["paused"] == true
            || !read["metadata"]["annotations"][names::ANNOTATION_PAUSE].is_null();
        if paused {
            self.broken("nothing advances while it is paused", format!("{name}: from {old}"));
        }
    }

    /// A retry is granted once for each text, to those who ask for it. Whoever writes another one and then the first again asks anew.
    fn check_retry(&mut self, caller: usize, name: &str, old: &Value, new: &Value) {
        if old["retry"] == new["retry"] || new["retry"].is_null() {
            return;
        }
        let asked =
            string(&self.callers[caller].walk.read["metadata"]["annotations"][names::ANNOTATION_RETRY]);
        let (digest, said) = (string(&new["retry"]["digest"]), string(&new["retry"]["text"]));
        let last = self.laws.granted.insert((name.to_owned(), digest.clone()), said.clone());
        if said != asked || last.as_ref() == Some(&said) {
            let why = format!("{name}: {digest} for `{said}`, and `{asked}` is asked for");
            self.broken("a retry is granted once to those who ask", why);
        }
        self.laws.banned.entry(name.to_owned()).or_default().remove(&digest);
        self.laws.retried.insert((name.to_owned(), digest));
    }

    /// Who wins an experiment is better, and who loses is worse.
    fn check_experiment(&mut self, name: &str, old: &Value, new: &Value) {
        let mistakes =
            |of: &str| self.truth.get(&string(&old[of]["digest"])).map_or(f64::NAN, |truth| truth.mistakes);
        let (candidate, stable) = (mistakes("candidate"), mistakes("stable"));
        let ended = old["phase"] == "Experiment" && old["decision"]["at"] != new["decision"]["at"];
        let fair = match text(&new["decision"]["reason"]) {
            "ExperimentWon" | "Approved" => candidate < stable,
            "ExperimentLost" => candidate > stable,
            _ => true,
        };
        if ended && !fair {
            let why = format!("{name}: {candidate} mistakes and {stable}: {}", new["decision"]);
            self.broken("who wins an experiment is better", why);
        }
    }

    fn check_blame(&mut self, name: &str, digest: &str) {
        let truth = self.truth.get(digest);
        if truth.is_some_and(|truth| !truth.slow && truth.error_rate <= MAX_ERRORS) {
            let why = format!("{name}: {digest} is {truth:?}");
            self.broken("what is good is not blamed", why);
        }
    }
}
