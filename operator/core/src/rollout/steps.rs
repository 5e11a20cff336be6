//! The steps of a strategy: who is on trial, and what a step asks for before it may end.

use anneal_crds::{
    ModelRolloutSpec, ModelRolloutStatus, Span, VersionRef, Weight,
    model_rollout::{ApprovalPoint, Canary, Experiment, Progression, RolloutPhase, Step, Strategy, Then},
};

use super::{command::Place, incumbent::Incumbent};

/// The canary's steps in their order. Their weights lie above zero and rise, whatever the spec says.
pub fn steps(strategy: &Strategy) -> Vec<Step> {
    let mut steps: Vec<Step> = match &strategy.progression {
        Progression::Canary(canary) => weights(canary).map(|weight| step_of(canary, weight)).collect(),
        Progression::Steps(steps) => steps.clone(),
        Progression::BlueGreen(all) => vec![Step {
            weight: Weight::FULL,
            duration: all.duration,
            min_requests: all.min_requests,
            then: Then::Advance,
            rollback_triggers: None,
        }],
    };
    steps.retain(|step| step.weight > Weight::ZERO);
    steps.sort_by_key(|step| step.weight);
    steps.dedup_by_key(|step| step.weight);
    steps
}

fn weights(canary: &Canary) -> impl Iterator<Item = Weight> {
    let increment = usize::try_from(canary.increment.max(1)).unwrap_or(1);
    let (initial, max) = (canary.initial.clamp(1, 100), canary.max.clamp(1, 100));
    (initial..max).step_by(increment).chain([max]).map(Weight::from_percent)
}

fn step_of(canary: &Canary, weight: Weight) -> Step {
    Step {
        weight,
        duration: canary.interval,
        min_requests: canary.min_requests,
        then: Then::Advance,
        rollback_triggers: None,
    }
}

/// Where someone has to approve what was shown.
pub(super) fn approvals(strategy: &Strategy, status: &ModelRolloutStatus) -> Vec<Place> {
    let steps = steps(strategy);
    let place = |step: &Step| Place::Step(step.weight);
    let asked = steps.iter().filter(|step| step.then == Then::Approval).map(place);
    let experiment = compared(strategy, status);
    let of_experiment = experiment.filter(|experiment| experiment.then == Then::Approval);
    let asked = of_experiment.map(|_| Place::Experiment).into_iter().chain(asked);
    let before = strategy.approval.as_ref().and_then(|approval| approval.before);
    let point = before.and_then(|point| match point {
        ApprovalPoint::FullTraffic => {
            let last = steps.iter().rev().find(|step| step.weight < Weight::FULL);
            let shadow = strategy.shadow.as_ref().map(|_| Place::Shadow);
            let before = experiment.map(|_| Place::Experiment).or(shadow);
            // The API server lets in no strategy that has none of them; it does not go without an approval all the same.
            last.map(place).or(before).or_else(|| steps.last().map(place))
        }
    });
    asked.chain(point).collect()
}

/// The experiment of the strategy, if there is a version to compare with: of a Service that serves nothing is counted.
pub(super) fn compared<'a>(strategy: &'a Strategy, status: &ModelRolloutStatus) -> Option<&'a Experiment> {
    match Incumbent::of(status) {
        Incumbent::Version(_) => strategy.experiment.as_ref(),
        Incumbent::Adopted(_) | Incumbent::Nobody => None,
    }
}

/// What follows at `place`.
fn then(strategy: &Strategy, status: &ModelRolloutStatus, place: Place, then: Then) -> Then {
    if approvals(strategy, status).contains(&place) { Then::Approval } else { then }
}

/// The experiment that `status` is in; none if the strategy, which may have changed since it began, has another one.
pub(super) fn experiment<'a>(strategy: &'a Strategy, status: &ModelRolloutStatus) -> Option<&'a Experiment> {
    let experiment = strategy.experiment.as_ref().filter(|_| status.phase == RolloutPhase::Experiment);
    experiment.filter(|experiment| experiment.split == status.weight)
}

/// The metrics of an experiment, and what may roll it back: each once.
fn triggers_of(experiment: &Experiment, strategy: &Strategy) -> Vec<String> {
    let guards = strategy.rollback_triggers.iter();
    let own = experiment.metrics().filter(|name| !strategy.rollback_triggers.contains(name));
    guards.chain(own).cloned().collect()
}

/// What a step asks for before it may end.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Terms {
    /// How long it lasts at least; an experiment, at most.
    pub(super) duration: Span,
    /// Before this it does not end well.
    pub(super) shortest: Span,
    /// Fewest requests that the version on trial must have answered.
    pub(super) min_requests: u32,
    /// Metrics that must pass.
    pub(super) triggers: Vec<String>,
    /// What follows.
    pub(super) then: Then,
}

/// The terms of the step that `status` is in. None if nothing is judged, and if the strategy, which may have changed
/// since the step began, does not have it any more.
pub(super) fn terms(strategy: &Strategy, status: &ModelRolloutStatus) -> Option<Terms> {
    match status.phase {
        RolloutPhase::Shadow => strategy.shadow.as_ref().map(|shadow| Terms {
            duration: shadow.duration,
            shortest: shadow.duration,
            min_requests: shadow.min_requests,
            triggers: shadow.rollback_triggers.as_ref().unwrap_or(&strategy.rollback_triggers).clone(),
            then: then(strategy, status, Place::Shadow, Then::Advance),
        }),
        RolloutPhase::Experiment => experiment(strategy, status).map(|experiment| Terms {
            duration: experiment.duration,
            shortest: experiment.shortest(),
            min_requests: experiment.min_requests,
            triggers: triggers_of(experiment, strategy),
            then: then(strategy, status, Place::Experiment, experiment.then),
        }),
        RolloutPhase::Canary => {
            let step = steps(strategy).into_iter().find(|step| step.weight == status.weight)?;
            Some(Terms {
                duration: step.duration,
                shortest: step.duration,
                min_requests: step.min_requests,
                triggers: step.rollback_triggers.unwrap_or_else(|| strategy.rollback_triggers.clone()),
                then: then(strategy, status, Place::Step(step.weight), step.then),
            })
        }
        RolloutPhase::Baking => strategy.bake.as_ref().map(|bake| Terms {
            duration: bake.duration,
            shortest: bake.duration,
            min_requests: 0,
            triggers: bake.rollback_triggers.clone(),
            then: Then::Advance,
        }),
        RolloutPhase::Pending
        | RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::RollingBack
        | RolloutPhase::Healthy
        | RolloutPhase::RolledBack => None,
    }
}

/// Metrics that can roll the version on trial back: those of its step, or of the strategy if that has no such step.
pub(super) fn triggers(spec: &ModelRolloutSpec, status: &ModelRolloutStatus) -> Vec<String> {
    terms(&spec.strategy, status)
        .map_or_else(|| spec.strategy.rollback_triggers.clone(), |terms| terms.triggers)
}

/// Metrics that people are warned by while `status` is what it is.
pub(super) fn warn_triggers<'a>(spec: &'a ModelRolloutSpec, status: &ModelRolloutStatus) -> &'a [String] {
    match status.phase {
        RolloutPhase::Shadow => {
            let own = spec.strategy.shadow.as_ref().and_then(|shadow| shadow.warn_triggers.as_ref());
            own.unwrap_or(&spec.strategy.warn_triggers)
        }
        RolloutPhase::Experiment | RolloutPhase::Canary => &spec.strategy.warn_triggers,
        RolloutPhase::Baking => spec.strategy.bake.as_ref().map_or(&[], |bake| &bake.warn_triggers),
        RolloutPhase::Pending
        | RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::RollingBack
        | RolloutPhase::Healthy
        | RolloutPhase::RolledBack => &[],
    }
}

/// Every list of triggers that some phase of the strategy may be judged by.
pub(super) fn trigger_lists(strategy: &Strategy) -> impl Iterator<Item = &Vec<String>> {
    let steps = match &strategy.progression {
        Progression::Steps(steps) => steps.as_slice(),
        Progression::Canary(_) | Progression::BlueGreen(_) => &[],
    };
    let shadow = strategy.shadow.as_ref().and_then(|shadow| shadow.rollback_triggers.as_ref());
    let own = steps.iter().filter_map(|step| step.rollback_triggers.as_ref()).chain(shadow);
    let bake = strategy.bake.as_ref().map(|bake| &bake.rollback_triggers);
    own.chain([&strategy.rollback_triggers]).chain(bake)
}

/// The version that has all requests while another one is kept for the way back: in its bake, and while someone leaves that for a
/// version whose pods have to start.
pub(crate) fn watched(status: &ModelRolloutStatus) -> Option<&VersionRef> {
    let is_watched = match status.phase {
        RolloutPhase::Baking => Incumbent::before(status).is_someone(),
        RolloutPhase::RollingBack => status.previous.is_some(),
        RolloutPhase::Pending
        | RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::Shadow
        | RolloutPhase::Experiment
        | RolloutPhase::Canary
        | RolloutPhase::Healthy
        | RolloutPhase::RolledBack => false,
    };
    status.stable.as_ref().filter(|_| is_watched)
}

/// The version that an abort or an alert takes back.
pub(crate) fn abortable(status: &ModelRolloutStatus) -> Option<&VersionRef> {
    on_trial(status).or_else(|| watched(status))
}

/// The version that is judged by how it answers.
pub fn on_trial(status: &ModelRolloutStatus) -> Option<&VersionRef> {
    match status.phase {
        RolloutPhase::Shadow | RolloutPhase::Experiment | RolloutPhase::Canary => status.candidate.as_ref(),
        // The first version has nothing that anyone could go back to.
        RolloutPhase::Baking => status.stable.as_ref().filter(|_| Incumbent::before(status).is_someone()),
        RolloutPhase::Pending
        | RolloutPhase::Preparing
        | RolloutPhase::Staging
        | RolloutPhase::RollingBack
        | RolloutPhase::Healthy
        | RolloutPhase::RolledBack => None,
    }
}

#[cfg(test)]
mod tests {
    use anneal_crds::model_rollout::BlueGreen;
    use proptest::{collection::vec, prop_assert, prop_assert_eq, prop_assume, proptest};

    use super::*;

    fn strategy(progression: Progression) -> Strategy {
        Strategy {
            staging: None,
            shadow: None,
            experiment: None,
            progression,
            smoke: None,
            bake: None,
            rollback_triggers: vec![],
            warn_triggers: vec![],
            abort_on_alerts: vec![],
            approval: None,
            freezes: vec![],
            max_extra_gpus: None,
            rollback_window: 3,
        }
    }

    fn canary(initial: i32, increment: i32, max: i32) -> Strategy {
        let interval = Span::from_secs(1);
        strategy(Progression::Canary(Canary { initial, increment, interval, max, min_requests: 1 }))
    }

    fn percents(strategy: &Strategy) -> Vec<String> {
        steps(strategy).iter().map(|step| step.weight.to_string()).collect()
    }

    #[test]
    fn ten_plus_fifteen_a_day_reaches_everything_in_seven_steps() {
        assert_eq!(percents(&canary(10, 15, 100)), ["10", "25", "40", "55", "70", "85", "100"]);
        assert_eq!(percents(&canary(20, 50, 100)), ["20", "70", "100"]);
        assert_eq!(percents(&canary(100, 1, 100)), ["100"]);
        let all = BlueGreen { duration: Span::from_secs(1), min_requests: 1 };
        assert_eq!(percents(&strategy(Progression::BlueGreen(all))), ["100"]);
    }

    fn rises_strictly(steps: &[Step]) -> bool {
        steps.windows(2).all(|pair| pair[0].weight < pair[1].weight)
    }

    proptest! {
        #[test]
        fn steps_rise_strictly_from_initial_to_max(initial in 1..=100, increment in 1..=100, max in 1..=100) {
            prop_assume!(initial <= max);
            let steps = steps(&canary(initial, increment, max));
            prop_assert_eq!(steps[0].weight, Weight::from_percent(initial));
            prop_assert_eq!(steps[steps.len() - 1].weight, Weight::from_percent(max));
            prop_assert!(rises_strictly(&steps));
        }

        #[test]
        fn no_list_makes_a_step_of_nothing_or_a_step_back(weights in vec(0..=1000, 0..8)) {
            let step = |weight: i32| Step {
                weight: Weight::from_per_mille(weight), ..step_of(
                    &Canary { initial: 1, increment: 1, interval: Span::from_secs(1), max: 1, min_requests: 1 }, Weight::FULL)
            };
            let steps = steps(&strategy(Progression::Steps(weights.into_iter().map(step).collect())));
            prop_assert!(rises_strictly(&steps) && steps.iter().all(|step| step.weight > Weight::ZERO));
        }
    }
}
