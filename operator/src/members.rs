//! Members: which rollouts a change of another one concerns, and that one is gone.
//!
//! Used by `run` alone. Members of a group wait for each other. A rollout that is deleted is in no list any more, and where what
//! serves has no owner, nothing else tells of its end.

use futures::{Stream, StreamExt, stream};
use kube::{
    Api,
    runtime::{reflector::ObjectRef, watcher::Event},
};

use anneal_core::object::Kind;

use crate::{
    planes::events,
    watched::{Standings, Watched, everything},
};

/// The rollouts to look at.
pub(crate) fn changes(rollouts: Api<Watched>) -> impl Stream<Item = ObjectRef<Watched>> + Send + 'static {
    let standings = Standings::default();
    events(Kind::ModelRollout, rollouts, everything())
        .flat_map(move |(_, event)| stream::iter(concerned(&standings, event)))
}

fn concerned(standings: &Standings, event: Event<Watched>) -> Vec<ObjectRef<Watched>> {
    match event {
        Event::Apply(member) | Event::InitApply(member) => standings.whom(&member),
        Event::Delete(member) => {
            let own = member.reference(Kind::ModelRollout);
            standings.whom(&member).into_iter().chain([own]).collect()
        }
        Event::Init | Event::InitDone => vec![],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_end_of_a_rollout_concerns_itself() {
        let member = |phase: &str| -> Watched {
            serde_json::from_value(json!({"metadata": {"name": "ads", "namespace": "n"},
                "spec": {"model": "ads", "group": {"members": ["ads", "bids"]}}, "status": {"phase": phase, "weight": 20}}))
            .unwrap()
        };
        let standings = Standings::default();
        let names = |event| concerned(&standings, event).into_iter().map(|of| of.name).collect::<Vec<_>>();
        assert_eq!(names(Event::Apply(member("Canary"))), ["bids"]);
        assert!(names(Event::Apply(member("Canary"))).is_empty(), "it stands where it stood");
        assert_eq!(names(Event::Delete(member("Canary"))), ["ads"]);
        assert!(names(Event::InitDone).is_empty());
    }
}
