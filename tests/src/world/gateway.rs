//! The gateway's controller and its data plane: who answers requests is what the last accepted route says.

use std::{collections::BTreeMap, sync::Arc};

use anneal_core::object::{Key, Kind};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    calls::name,
    sim::{NAMESPACE, Sim},
    store::condition,
};

/// Name of the gateway.
pub const GATEWAY: &str = "web";

/// Routes as the data plane has them, by name.
#[derive(Clone, Debug, Default)]
pub struct DataPlane {
    /// The rules that requests follow.
    pub routes: BTreeMap<String, Shares>,
    /// When a Service last stopped getting requests.
    pub left: BTreeMap<String, Timestamp>,
    /// Routes that the controller has read and not yet written to the data plane.
    reading: Option<(Key, Arc<Value>)>,
}

/// How one route shares requests among backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Per mille by Service.
    pub live: BTreeMap<String, i64>,
    /// Copies, per mille by Service.
    pub mirrored: BTreeMap<String, i64>,
}

impl Shares {
    /// What a route asks for.
    pub fn of(route: &Value) -> Self {
        let mut shares = Self::default();
        for rule in route["spec"]["rules"].as_array().into_iter().flatten() {
            for backend in rule["backendRefs"].as_array().into_iter().flatten() {
                let weight = backend["weight"].as_i64().unwrap_or(1);
                *shares.live.entry(service(backend)).or_default() += weight;
            }
            let filters = rule["filters"].as_array().into_iter().flatten();
            for mirror in filters.map(|filter| &filter["requestMirror"]).filter(|mirror| !mirror.is_null()) {
                shares.mirrored.insert(service(&mirror["backendRef"]), copied(mirror));
            }
        }
        shares
    }

    /// With all of a thousand for whoever is alone, in whatever number the user wrote it.
    #[must_use]
    pub fn in_thousand(mut self) -> Self {
        if let (1, Some(weight)) =
            (self.live.len(), self.live.values_mut().next().filter(|weight| **weight > 0))
        {
            *weight = 1000;
        }
        self
    }

    /// Whether `service` gets requests or copies of them.
    pub fn reach(&self, service: &str) -> bool {
        self.live.get(service).is_some_and(|weight| *weight > 0) || self.mirrored.contains_key(service)
    }

    /// All Services that get requests or copies of them.
    pub fn services(&self) -> impl Iterator<Item = &String> {
        self.live.iter().filter(|(_, weight)| **weight > 0).map(|(name, _)| name).chain(self.mirrored.keys())
    }
}

/// Share of copies, per mille.
pub fn copied(mirror: &Value) -> i64 {
    let fraction = &mirror["fraction"];
    match (mirror["percent"].as_i64(), fraction["numerator"].as_i64()) {
        (Some(percent), _) => percent * 10,
        (None, Some(numerator)) => numerator * 1000 / fraction["denominator"].as_i64().unwrap_or(100),
        (None, None) => 1000,
    }
}

fn service(backend: &Value) -> String {
    backend["name"].as_str().unwrap_or_default().to_owned()
}

impl Sim {
    /// The gateway's controller reads a route, or writes the one that it read last.
    pub fn gateway_step(&mut self) {
        if let Some((key, read)) = self.data_plane.reading.take() {
            return self.program(&key, &read);
        }
        let keys = self.store.keys(Kind::HttpRoute);
        let Some(key) = self.dice.pick(&keys).cloned() else { return };
        self.data_plane.reading = self.store.keep(&key).map(|route| (key, route));
    }

    /// The data plane gets every route as it is, at once.
    pub fn gateway_catches_up(&mut self) -> bool {
        let version = self.store.version();
        self.data_plane.reading = None;
        for key in self.store.keys(Kind::HttpRoute) {
            if let Some(route) = self.store.keep(&key) {
                self.program(&key, &route);
            }
        }
        let exists = |name: &String, store: &super::store::Store| {
            store.get(&Key::new(Kind::HttpRoute, NAMESPACE, name)).is_some()
        };
        let store = &self.store;
        self.data_plane.routes.retain(|name, _| exists(name, store));
        self.store.version() != version
    }

    fn program(&mut self, key: &Key, read: &Value) {
        let now = self.now;
        let accepts = self.gateway_programmed();
        let mut shares = Shares::of(read);
        let plane = self.store.plane;
        shares.mirrored = shares
            .mirrored
            .into_iter()
            .filter_map(|(service, share)| Some((service, plane.copies(share)?)))
            .collect();
        let generation = read["metadata"]["generation"].as_i64().unwrap_or(0);
        let same =
            self.store.get(key).is_some_and(|route| route["metadata"]["uid"] == read["metadata"]["uid"]);
        if !accepts || !same {
            return;
        }
        let old = self.data_plane.routes.insert(key.name.clone(), shares.clone());
        if old.as_ref() != Some(&shares) {
            let gone = old.iter().flat_map(Shares::services).filter(|service| !shares.reach(service));
            self.data_plane.left.extend(gone.map(|service| (service.clone(), now)));
            self.say(|_| format!("the data plane takes {}: {shares:?}", name(key)));
        }
        let seen = |type_: &str| {
            let old = read["status"]["parents"][0]["conditions"].as_array();
            let same = |condition: &&Value| {
                condition["type"] == type_ && condition["observedGeneration"] == generation
            };
            old.and_then(|all| all.iter().find(same).cloned())
                .unwrap_or_else(|| condition(type_, type_, generation, now))
        };
        let parents = json!([{"controllerName": "simulated", "parentRef": {"name": GATEWAY},
            "conditions": [seen("Accepted"), seen("ResolvedRefs")]}]);
        self.store.edit(key, |route| route["status"] = json!({"parents": parents}));
    }

    /// Whether the gateway takes routes.
    pub fn gateway_programmed(&self) -> bool {
        let gateway = self.store.get(&Key::new(Kind::Gateway, NAMESPACE, GATEWAY));
        gateway.is_some_and(|gateway| gateway["status"]["conditions"][0]["status"] == "True")
    }

    /// The gateway gets or loses its data plane.
    pub fn set_gateway(&mut self, programmed: bool) {
        let key = Key::new(Kind::Gateway, NAMESPACE, GATEWAY);
        let status = if programmed { "True" } else { "False" };
        self.store.edit(&key, |gateway| {
            gateway["status"] = json!({"conditions": [{"type": "Programmed", "status": status}]});
        });
    }
}
