//! Commands: what people ask for with annotations on the rollout.
//!
//! Called by [`super::plan`]. A command names the version, and the step if it needs one, that it is meant for. So it does
//! its work once, and one that a GitOps repository still carries means nothing to any later version.

use anneal_crds::{ModelRollout, Weight, common::shorten, model_rollout::RolloutPhase, names};

/// Fewest digits by which an approval names its evidence.
pub(super) const MIN_DIGEST: usize = 12;
/// Longest reason that is recorded, in bytes.
const MAX_WHY: usize = 200;

/// A command as it was given.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    /// The version that it is meant for.
    pub(super) version: String,
    /// Why, in one line.
    pub(super) why: String,
    /// Who, as the API server has it: the name of the tool that wrote the annotation.
    pub(super) who: String,
    /// The whole text.
    pub(super) text: String,
}

impl Command {
    /// For people.
    pub(super) fn because(&self) -> String {
        format!("asked for by {}: {}", self.who, self.why)
    }
}

/// What a promotion leaves behind, in the order in which a version comes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Staging.
    Staging,
    /// Shadow.
    Shadow,
    /// The experiment.
    Experiment,
    /// The step with this weight.
    Step(Weight),
    /// The bake.
    Baking,
    /// Every step that is left.
    Full,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "Staging" => Some(Self::Staging),
            "Shadow" => Some(Self::Shadow),
            "Experiment" => Some(Self::Experiment),
            "Baking" => Some(Self::Baking),
            "full" => Some(Self::Full),
            percent => serde_json::from_str(percent.trim_end_matches('%')).ok().map(Self::Step),
        }
    }

    /// Where a version in this phase, at this weight, stands; none if it has not come anywhere, or is through.
    pub(super) const fn of(phase: RolloutPhase, weight: Weight) -> Option<Self> {
        match phase {
            RolloutPhase::Staging => Some(Self::Staging),
            RolloutPhase::Shadow => Some(Self::Shadow),
            RolloutPhase::Experiment => Some(Self::Experiment),
            RolloutPhase::Canary => Some(Self::Step(weight)),
            RolloutPhase::Baking => Some(Self::Baking),
            RolloutPhase::Pending
            | RolloutPhase::Preparing
            | RolloutPhase::RollingBack
            | RolloutPhase::Healthy
            | RolloutPhase::RolledBack => None,
        }
    }

    /// Whether a version in this phase, at this weight, stands there.
    pub(super) fn is(self, phase: RolloutPhase, weight: Weight) -> bool {
        match self {
            Self::Staging => phase == RolloutPhase::Staging,
            Self::Shadow => phase == RolloutPhase::Shadow,
            Self::Experiment => phase == RolloutPhase::Experiment,
            Self::Step(step) => phase == RolloutPhase::Canary && step == weight,
            Self::Baking => phase == RolloutPhase::Baking,
            Self::Full => phase == RolloutPhase::Staging || phase.shares_traffic(),
        }
    }
}

/// `<version>: <why>`, as the annotation `key` has it.
pub(super) fn of_version(rollout: &ModelRollout, key: &str) -> Option<Result<Command, String>> {
    let command = read(rollout, key, |target| Some((target.to_owned(), ())), "v20261121.2: why")?;
    Some(command.map(|(command, ())| command))
}

/// A promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Promotion {
    /// What it leaves behind.
    pub(super) place: Place,
    /// The freeze in which it is to go on all the same.
    pub(super) despite: Option<String>,
}

/// `<version>@<place>: <why>` or `<version>@<place> despite <freeze>: <why>`, as `anneal.dev/promote` has it.
pub(super) fn promote(rollout: &ModelRollout) -> Option<Result<(Command, Promotion), String>> {
    let target = |target: &str| {
        let (version, rest) = target.split_once('@')?;
        let (place, despite) = match rest.split_once(" despite ") {
            Some((place, freeze)) => (place, Some(freeze.trim().to_owned())),
            None => (rest, None),
        };
        Some((version.to_owned(), Promotion { place: Place::parse(place.trim())?, despite }))
    };
    read(
        rollout,
        names::ANNOTATION_PROMOTE,
        target,
        "v20261121.2@Shadow: why, or @Staging or @Experiment or @10 or @Baking or @full",
    )
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Staging => f.write_str("Staging"),
            Self::Shadow => f.write_str("Shadow"),
            Self::Experiment => f.write_str("Experiment"),
            Self::Step(weight) => weight.fmt(f),
            Self::Baking => f.write_str("Baking"),
            Self::Full => f.write_str("full"),
        }
    }
}

/// An approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Consented {
    /// What it lets go on.
    pub(super) place: Place,
    /// The beginning of the evidence's digest.
    pub(super) digest: String,
}

/// `<version>@<place> <digest>: <why>`, as `anneal.dev/approve` has it, and who says so.
pub(super) fn approve(rollout: &ModelRollout) -> Option<Result<(Command, Consented), String>> {
    let target = |target: &str| {
        let (version, rest) = target.split_once('@')?;
        let (place, digest) = rest.split_once(' ')?;
        let digest = digest.trim();
        let is_digest = (MIN_DIGEST..=64).contains(&digest.len())
            && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let place = Place::parse(place).filter(|place| match place {
            Place::Shadow | Place::Experiment | Place::Step(_) => true,
            Place::Staging | Place::Baking | Place::Full => false,
        })?;
        is_digest.then(|| (version.to_owned(), Consented { place, digest: digest.to_owned() }))
    };
    let form = "v20261121.2@10 3f2a9c04d1e7: why, or @Shadow or @Experiment, with at least 12 digits of status.approval.digest";
    let command = read(rollout, names::ANNOTATION_APPROVE, target, form)?;
    let who = rollout.metadata.annotations.as_ref().and_then(|all| all.get(names::ANNOTATION_APPROVED_BY));
    Some(command.map(|(command, what)| {
        let named = who.map(|who| shorten(who.trim(), MAX_WHY).into_owned()).filter(|who| !who.is_empty());
        (Command { who: named.unwrap_or(command.who), ..command }, what)
    }))
}

fn read<T>(
    rollout: &ModelRollout,
    key: &str,
    target: impl Fn(&str) -> Option<(String, T)>,
    form: &str,
) -> Option<Result<(Command, T), String>> {
    let text = rollout.metadata.annotations.as_ref()?.get(key)?;
    let parsed = text.split_once(':').and_then(|(what, why)| {
        let (version, place) = target(what.trim())?;
        let why = why.trim();
        let is_version = super::select::order(&version) != (0, 0);
        let command = || Command {
            version,
            why: shorten(why, MAX_WHY).into_owned(),
            who: writer(rollout, &["f:metadata", "f:annotations", &format!("f:{key}")]),
            text: shorten(text, MAX_WHY).into_owned(),
        };
        (is_version && !why.is_empty()).then(|| (command(), place))
    });
    Some(parsed.ok_or_else(|| {
        format!("{key} is `{}`, which is not understood. Write `{form}`.", shorten(text, MAX_WHY))
    }))
}

/// Who wrote a field, by the API server's record: the name of a tool such as `kubectl-annotate` or `argocd-controller`.
pub(super) fn writer(rollout: &ModelRollout, path: &[&str]) -> String {
    let entries = rollout.metadata.managed_fields.iter().flatten();
    let mut writers = entries.filter(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        path.iter().try_fold(fields, |at, part| Some(at?.get(part))).flatten().is_some()
    });
    writers.next_back().and_then(|entry| entry.manager.clone()).unwrap_or_else(|| "someone".to_owned())
}

/// Why nothing may advance, and who said so; none if nobody did.
pub(super) fn pause(rollout: &ModelRollout) -> Option<String> {
    let (spec, key) = (&rollout.spec, names::ANNOTATION_PAUSE);
    let (what, who, why) = if spec.paused {
        let why = spec.pause_reason.as_deref().unwrap_or_default();
        ("spec.paused", writer(rollout, &["f:spec", "f:paused"]), why)
    } else {
        let why = rollout.metadata.annotations.as_ref()?.get(key)?;
        (key, writer(rollout, &["f:metadata", "f:annotations", &format!("f:{key}")]), why.as_str())
    };
    let why = shorten(why.trim(), MAX_WHY);
    let why = if why.is_empty() { "no reason is given." } else { &why };
    Some(format!("{what} is set by {who}: {why}"))
}
