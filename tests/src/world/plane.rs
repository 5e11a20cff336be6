//! What the data plane can do, what its class says about that, and what becomes of routes on their way into the API server.

use anneal_core::object::{Key, Kind, Object};
use serde_json::{Value, json};

use super::{calls::name, dice::Dice, sim::Sim};

/// Name of the gateway's class.
pub const CLASS: &str = "simulated";

/// What a data plane is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plane {
    /// It copies any share, and says so.
    #[default]
    Able,
    /// It copies any share, and its class lists nothing.
    Quiet,
    /// It copies all or nothing, and says so.
    WholeOnly,
    /// It copies nothing, and says so.
    Unable,
    /// It copies nothing, and its class lists nothing.
    Deaf,
    /// Shares and mirrors are dropped from routes that are written.
    Pruning,
}

impl Plane {
    fn draw(dice: &mut Dice) -> Self {
        let all = [Self::Able, Self::Quiet, Self::WholeOnly, Self::Unable, Self::Deaf, Self::Pruning];
        dice.pick(&all).copied().unwrap_or_default()
    }

    fn listed(self) -> Value {
        let (plain, part) = ("HTTPRouteRequestMirror", "HTTPRouteRequestPercentageMirror");
        match self {
            Self::Able => json!([{"name": plain}, {"name": part}]),
            Self::WholeOnly => json!([plain, "HTTPRouteRetry"]),
            Self::Unable => json!([{"name": "HTTPRouteRetry"}]),
            Self::Quiet | Self::Deaf | Self::Pruning => Value::Null,
        }
    }

    /// Whether its class says that it cannot copy this share.
    pub fn refuses(self, per_mille: i64) -> bool {
        match self {
            Self::Unable => true,
            Self::WholeOnly => per_mille != 1000,
            Self::Able | Self::Quiet | Self::Deaf | Self::Pruning => false,
        }
    }

    /// What it copies of a share that a route asks for.
    pub fn copies(self, per_mille: i64) -> Option<i64> {
        match self {
            Self::Able | Self::Quiet | Self::Pruning => Some(per_mille),
            Self::WholeOnly => Some(1000),
            Self::Unable | Self::Deaf => None,
        }
    }

    /// What the API server makes of a route that is written.
    pub fn admit(self, route: &mut Value) {
        match self {
            Self::Pruning => {
                for rule in route["spec"]["rules"].as_array_mut().into_iter().flatten() {
                    if let Some(filters) = rule["filters"].as_array_mut() {
                        filters.retain(|filter| filter["requestMirror"].is_null());
                    }
                }
            }
            Self::Able | Self::Quiet | Self::WholeOnly | Self::Unable | Self::Deaf => {}
        }
    }
}

/// The class of the gateway.
pub fn class() -> Object {
    let body = json!({"metadata": {}, "status": {"supportedFeatures": Plane::Able.listed()}});
    Object::new(Key::new(Kind::GatewayClass, "", CLASS), body)
}

impl Sim {
    /// The gateway gets another data plane.
    pub fn plane_changes(&mut self) {
        let plane = Plane::draw(&mut self.dice);
        self.set_plane(plane);
    }

    /// The gateway gets this data plane.
    pub fn set_plane(&mut self, plane: Plane) {
        self.say(|_| format!("the data plane is {plane:?}"));
        self.store.plane = plane;
        let key = Key::new(Kind::GatewayClass, "", CLASS);
        self.store.edit(&key, |class| class["status"]["supportedFeatures"] = plane.listed());
    }

    /// A class that lists a feature asks for what it can do.
    pub(super) fn check_mirror(&mut self, caller: usize, key: &Key, route: &Value) {
        let asked = super::gateway::Shares::of(route).mirrored;
        let plane = self.store.plane;
        let refused = asked.values().any(|share| plane.refuses(*share));
        if refused && !self.callers[caller].walk.disturbed {
            self.broken(
                "no copies where the class says that there are none",
                format!("{}: {asked:?}", name(key)),
            );
        }
    }
}
