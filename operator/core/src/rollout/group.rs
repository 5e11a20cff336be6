//! Group: rollouts of several models that take their new versions together.
//!
//! Called by `plan` on every look, and by `transition` before every way forward. Each member reads what the others have
//! written down about themselves and writes nothing into theirs. No member enters a place before every other one has passed
//! all that lies before it, and one that goes back takes the others with it.

use std::collections::BTreeSet;

use anneal_crds::{
    ModelRollout, ModelRolloutStatus, Weight,
    model_rollout::{Experiment, FailedWave, Group, GroupStatus, Retry, RolloutPhase, Strategy},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{draft::Draft, incumbent::Incumbent, steps, transition::Fate};
use crate::{condition::KState, plan::Severity};

/// Whether a version has passed and waits for other members of its group.
pub(super) const AWAITING_GROUP: &str = "AwaitingGroup";
/// Reason of a version that went back because that of another member did.
const GROUP_ABORTED: &str = "GroupAborted";

/// A place on the way of a version, in the order in which they are entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    rank: u8,
    weight: Weight,
}

/// What a member waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeldBy {
    /// Others, who come.
    Members,
    /// A person, who has to correct the group.
    Mistake,
}

/// Why a member may not go on.
pub(super) struct Held {
    /// What it waits for.
    pub(super) by: HeldBy,
    /// The same in one sentence.
    pub(super) message: String,
}

impl HeldBy {
    /// A condition's reason.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Members => "MembersBehind",
            Self::Mistake => "InvalidGroup",
        }
    }
}

impl Place {
    const fn new(phase: RolloutPhase, weight: Weight) -> Self {
        let rank = match phase {
            RolloutPhase::Pending | RolloutPhase::RollingBack | RolloutPhase::RolledBack => 0,
            RolloutPhase::Preparing => 1,
            RolloutPhase::Staging => 2,
            RolloutPhase::Shadow => 3,
            RolloutPhase::Experiment => 4,
            RolloutPhase::Canary => 5,
            RolloutPhase::Baking => 6,
            RolloutPhase::Healthy => 7,
        };
        Self { rank, weight }
    }

    const fn of(group: &GroupStatus) -> Self {
        Self::new(group.next, group.next_weight)
    }
}

/// Names of the other members of a rollout's group.
pub fn members(rollout: &ModelRollout) -> Vec<&str> {
    let own = rollout.metadata.name.as_deref();
    let group = rollout.spec.group.iter().flat_map(|group| &group.members);
    group.map(String::as_str).filter(|name| Some(*name) != own).collect()
}

/// What comes after a phase and weight, by the strategy as it is.
fn next(
    strategy: &Strategy,
    experiment: Option<&Experiment>,
    phase: RolloutPhase,
    weight: Weight,
) -> (RolloutPhase, Weight) {
    let step_above = |passed: Weight| {
        let next = steps::steps(strategy).into_iter().find(|step| step.weight > passed);
        next.map_or_else(|| full(strategy), |step| (RolloutPhase::Canary, step.weight))
    };
    let live = || match experiment {
        Some(experiment) => (RolloutPhase::Experiment, experiment.split),
        None => step_above(Weight::ZERO),
    };
    let traffic = || match &strategy.shadow {
        Some(_) => (RolloutPhase::Shadow, Weight::ZERO),
        None => live(),
    };
    match phase {
        RolloutPhase::Preparing if strategy.staging.is_some() => (RolloutPhase::Staging, Weight::ZERO),
        RolloutPhase::Preparing | RolloutPhase::Staging => traffic(),
        RolloutPhase::Shadow => live(),
        RolloutPhase::Experiment => step_above(Weight::ZERO),
        RolloutPhase::Canary => step_above(weight),
        RolloutPhase::Pending
        | RolloutPhase::RollingBack
        | RolloutPhase::RolledBack
        | RolloutPhase::Baking
        | RolloutPhase::Healthy => (RolloutPhase::Healthy, Weight::ZERO),
    }
}

/// Where a version is that has left all steps.
const fn full(strategy: &Strategy) -> (RolloutPhase, Weight) {
    match (&strategy.bake, &strategy.smoke) {
        (None, None) => (RolloutPhase::Healthy, Weight::ZERO),
        (Some(_), None | Some(_)) | (None, Some(_)) => (RolloutPhase::Baking, Weight::ZERO),
    }
}

/// Whether a version of a rollout is on its way or on trial, and not the first one.
fn is_under_way(status: &ModelRolloutStatus) -> bool {
    let bakes = status.phase == RolloutPhase::Baking;
    leads_forward(status.phase) && (!bakes || Incumbent::before(status).is_someone())
}

/// Whether a phase is one on the way of a new version.
const fn leads_forward(phase: RolloutPhase) -> bool {
    match phase {
        RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::Shadow
        | RolloutPhase::Experiment
        | RolloutPhase::Canary
        | RolloutPhase::Baking => true,
        RolloutPhase::Pending
        | RolloutPhase::RollingBack
        | RolloutPhase::Healthy
        | RolloutPhase::RolledBack => false,
    }
}

/// Another member as this rollout sees it.
struct Other<'a> {
    name: &'a str,
    /// Its wave is 0 where it never took part in one.
    group: GroupStatus,
    under_way: bool,
}

impl Other<'_> {
    /// Whether it takes part in a later wave than this one, or will with its next version.
    const fn wave_to_join(&self) -> i64 {
        if self.under_way { self.group.wave } else { self.group.wave.saturating_add(1) }
    }

    /// Why it keeps a member of `wave` from entering `place`; none if it does not.
    fn holds(&self, wave: i64, place: Place) -> Option<String> {
        match self.group.wave.cmp(&wave) {
            std::cmp::Ordering::Greater => None,
            std::cmp::Ordering::Less => Some(format!("{}, which has no new version yet", self.name)),
            std::cmp::Ordering::Equal if Place::of(&self.group) >= place => None,
            std::cmp::Ordering::Equal if self.group.next == RolloutPhase::Canary => {
                Some(format!("{}, which is at {} %", self.name, self.group.next_weight))
            }
            std::cmp::Ordering::Equal => {
                Some(format!("{}, which is in {}", self.name, self.group.next.name()))
            }
        }
    }
}

impl Draft<'_> {
    /// The group that the version on its way belongs to. A first version waits for nobody: nothing answers without it.
    fn group(&self) -> Option<&Group> {
        let has_one_before = if self.status.phase == RolloutPhase::Baking {
            self.way_back().is_someone()
        } else {
            self.incumbent().is_someone()
        };
        self.rollout.spec.group.as_ref().filter(|_| has_one_before)
    }

    /// The other members, or what is wrong with the group.
    fn others(&self) -> Result<Vec<Other<'_>>, String> {
        let list = |rollout: &ModelRollout| -> BTreeSet<String> {
            rollout.spec.group.iter().flat_map(|group| group.members.iter().cloned()).collect()
        };
        let own = list(self.rollout);
        let mut others = vec![];
        for name in members(self.rollout) {
            let all = self.snapshot.members.iter();
            let Some(member) = all.into_iter().find(|member| member.metadata.name.as_deref() == Some(name))
            else {
                return Err(format!(
                    "ModelRollout {name} does not exist. Create it, or take it out of spec.group of all members."
                ));
            };
            if list(member) != own {
                return Err(format!(
                    "spec.group of {name} has other members than this one. Give all of them the same list."
                ));
            }
            let status = member.status.as_ref();
            others.push(Other {
                name,
                group: status.and_then(|status| status.group.clone()).unwrap_or_default(),
                under_way: status.is_some_and(is_under_way),
            });
        }
        Ok(others)
    }

    /// The wave that the version takes part in; none before it could join one.
    fn joined_wave(&self) -> Option<i64> {
        self.status.group.as_ref().map(|group| group.wave).filter(|wave| *wave > 0)
    }

    /// Why the version may not go on to a place; none if it may.
    fn held_by_group(&self, to: (RolloutPhase, Weight)) -> Option<Held> {
        self.group()?;
        let others = match self.others() {
            Ok(others) => others,
            Err(why) => return Some(Held { by: HeldBy::Mistake, message: why }),
        };
        let Some(wave) = self.joined_wave() else {
            let message = "It has not joined its group yet.".to_owned();
            return Some(Held { by: HeldBy::Members, message });
        };
        let place = Place::new(to.0, to.1);
        let behind: Vec<String> = others.iter().filter_map(|other| other.holds(wave, place)).collect();
        (!behind.is_empty()).then(|| Held {
            by: HeldBy::Members,
            message: format!("It goes on together with {}.", behind.join("; ")),
        })
    }

    /// Whether the group keeps a version whose pods are ready from what comes after that.
    pub(super) fn is_held_at_the_start(&self) -> bool {
        self.held_by_group(self.next_place()).is_some()
    }

    fn next_place(&self) -> (RolloutPhase, Weight) {
        self.place_after(self.status.phase)
    }

    fn place_after(&self, phase: RolloutPhase) -> (RolloutPhase, Weight) {
        next(&self.rollout.spec.strategy, self.compared_experiment(), phase, self.status.weight)
    }

    /// The share of live requests that the candidate gets next.
    pub(super) fn next_share(&self) -> Weight {
        let after = match self.status.phase {
            // What comes before live requests has been.
            RolloutPhase::Preparing | RolloutPhase::Staging => RolloutPhase::Shadow,
            phase @ (RolloutPhase::Pending
            | RolloutPhase::Shadow
            | RolloutPhase::Experiment
            | RolloutPhase::Canary
            | RolloutPhase::RollingBack
            | RolloutPhase::RolledBack
            | RolloutPhase::Baking
            | RolloutPhase::Healthy) => phase,
        };
        let (phase, share) = self.place_after(after);
        if phase.divides_traffic() { share } else { Weight::FULL }
    }

    /// Whether the version had passed where it is when it was looked at last, and waits for the others.
    pub(super) fn has_passed_for_group(&self) -> bool {
        let before = self.rollout.status.as_ref();
        before.is_some_and(|before| {
            let here = Place::new(before.phase, before.weight);
            before.group.as_ref().is_some_and(|group| Place::of(group) > here)
        })
    }

    /// Whether every member of the wave has passed its bake: from then on each of them leaves it without another look.
    pub(super) fn wave_is_over(&self) -> bool {
        let bakes = self.status.phase == RolloutPhase::Baking;
        bakes && self.has_passed_for_group() && self.held_by_group(self.next_place()).is_none()
    }

    /// Whether the version, which has passed where it is, must wait for the others; then that is told.
    pub(super) fn waits_for_group(&mut self) -> bool {
        self.waits_to_enter(self.next_place())
    }

    /// The same for one that someone takes past all steps.
    pub(super) fn waits_for_group_to_take_all(&mut self) -> bool {
        self.waits_to_enter(full(&self.rollout.spec.strategy))
    }

    fn waits_to_enter(&mut self, to: (RolloutPhase, Weight)) -> bool {
        if self.group().is_none() {
            return false;
        }
        if let Some(group) = &mut self.status.group {
            (group.next, group.next_weight) = to;
        }
        let Some(held) = self.held_by_group(to) else { return false };
        let message = format!("It is done with {}. {}", self.status.phase.name(), held.message);
        match held.by {
            HeldBy::Members => self.waiting(AWAITING_GROUP, &message),
            HeldBy::Mistake => self.kstatus(KState::Stalled, held.by.reason(), &message),
        }
        self.awaits_group = Some(held);
        true
    }

    /// A version begins: in the wave of the others, or in one of its own. One that takes another's place on the way stays in
    /// that one's wave. Who the others are must be known: before that, it joins none.
    pub(super) fn join_wave(&mut self) {
        if self.group().is_none() {
            return;
        }
        let joined = match self.others() {
            Ok(others) => others.iter().map(Other::wave_to_join).max(),
            Err(_) => None,
        };
        let goes_on = is_under_way(&self.status);
        let group = self.status.group.get_or_insert_default();
        let Some(joined) = joined else {
            group.wave = if goes_on { group.wave } else { 0 };
            return;
        };
        if !goes_on || group.wave == 0 {
            group.wave = joined.max(group.wave.saturating_add(1));
        }
    }

    /// A phase begins, and the others see where this one is. Called before the status has it.
    pub(super) fn tell_group(&mut self, phase: RolloutPhase, weight: Weight, reason: &str) {
        // A version in production may have been taken there by this wave while others are still in their bakes.
        let was_forward = leads_forward(self.status.phase) || self.status.phase == RolloutPhase::Healthy;
        let at = Time(self.now);
        let Some(group) = &mut self.status.group else { return };
        (group.next, group.next_weight) = (phase, weight);
        if was_forward && [RolloutPhase::RolledBack, RolloutPhase::RollingBack].contains(&phase) {
            group.failed = Some(FailedWave { wave: group.wave, reason: reason.to_owned(), at });
        }
    }

    /// Whether another member's version of this wave went back; then this one does too.
    pub(super) fn goes_back_with_group(&mut self) -> bool {
        if self.rollout.spec.group.is_none() {
            self.status.group = None;
        }
        if is_under_way(&self.status) {
            if self.joined_wave().is_none() {
                // It has become a member on the way.
                self.join_wave();
            }
            if let Some(group) = &mut self.status.group {
                // What it passed at an earlier look it has to pass at this one too.
                (group.next, group.next_weight) = (self.status.phase, self.status.weight);
            }
        }
        let Some(wave) = self.joined_wave() else { return false };
        if !is_under_way(&self.status) {
            self.try_again_with_group(wave);
            return false;
        }
        let bakes = self.status.phase == RolloutPhase::Baking;
        let version = if bakes { self.status.stable.clone() } else { self.status.candidate.clone() };
        let (Some((name, reason)), Some(version)) = (self.who_failed(wave), version) else { return false };
        let message = format!(
            "{} goes back because {name}, which is in the same group, did ({reason}). It comes again with the group's next versions.",
            version.version
        );
        self.give_up(&version, Fate::Rejected, GROUP_ABORTED, &message, vec![]);
        true
    }

    /// Another member whose version of this wave went back, and why. To go forward takes lists that agree; to go back, one that
    /// names this rollout.
    fn who_failed(&self, wave: i64) -> Option<(String, String)> {
        let own = self.rollout.metadata.name.as_ref()?;
        let listed = members(self.rollout);
        self.snapshot.members.iter().find_map(|member| {
            let name = member.metadata.name.clone().filter(|name| listed.contains(&name.as_str()))?;
            member.spec.group.as_ref().filter(|group| group.members.contains(own))?;
            let failed = member.status.as_ref()?.group.as_ref()?.failed.as_ref();
            failed.filter(|failed| failed.wave == wave).map(|failed| (name, failed.reason.clone()))
        })
    }

    /// A version that went back only because another one did may try again when the group does.
    fn try_again_with_group(&mut self, wave: i64) {
        let Some(last) =
            self.status.rejected.last().filter(|last| last.reason.as_deref() == Some(GROUP_ABORTED))
        else {
            return;
        };
        let (version, used) = (last.version.clone(), last.retried.clone());
        let others = self.others().unwrap_or_default();
        let under_way = others.iter().filter(|other| other.under_way).map(|other| other.group.wave);
        let Some(next) = under_way.filter(|other| *other > wave).max() else { return };
        let message = format!("{} may try again, together with its group.", version.version);
        self.status.rejected.pop();
        // What people had asked for by then has done its work.
        let text = used.unwrap_or_else(|| format!("group wave {next}"));
        let spent_abort = self.spent_abort(&version.version);
        self.status.retry = Some(Retry { digest: version.digest, text, spent_abort });
        self.note(Severity::Normal, "Retried", &message);
    }
}
