//! Two versions under steady requests, whose plans read raw samples. Used by the tables of `evidence: sequential` and by those of
//! upgrades.

use std::collections::BTreeMap;

use anneal_core::{
    plan::Plan,
    rollout::{Answer, Query, RawSeries},
};
use anneal_crds::ModelRolloutStatus;
use anneal_tests::{
    cases::{self, RolloutCase},
    raw::Raw,
};
use jiff::SignedDuration;
use serde_json::{Value, json};

/// Requests of each version, scraped each second since long ago.
#[derive(Clone, Debug)]
pub struct World {
    pub case: RolloutCase,
    pub began_ms: i64,
    /// From which second on versions 1 and 2 had how many requests a second, and one in how many was bad.
    pub traffic: Vec<(i64, [(i64, i64); 2])>,
    /// Nothing is scraped any more after this.
    pub scraped_until_ms: i64,
}

impl World {
    /// A canary of 20 % that began this moment, with steps of 20 s and ticks of 1 s.
    pub fn new(arms: [(i64, i64); 2], sequential: Value) -> Self {
        let mut status = cases::moving("Canary", 20);
        status["stepStartedAt"] = cases::ago(0).into();
        status["trafficAcceptedAt"] = cases::ago(0).into();
        status["trialStartedAt"] = cases::ago(0).into();
        let mut case = RolloutCase::new(status).unwrap();
        let spec = &mut case.rollout.spec;
        spec.judge = serde_json::from_value(
            json!({"evidence": "sequential", "maxHold": "2m", "sequential": sequential}),
        )
        .unwrap();
        spec.metrics[0].interval = Some("1s".parse().unwrap());
        spec.prometheus.stale_after = "10s".parse().unwrap();
        let began_ms = case.now.as_millisecond();
        let traffic = vec![(began_ms / 1000 - 10_000, arms)];
        Self { case, began_ms, traffic, scraped_until_ms: i64::MAX }
    }

    /// From now on.
    pub fn turn(&mut self, arms: [(i64, i64); 2]) {
        self.traffic.push((self.case.now.as_second(), arms));
    }

    /// All requests and bad ones of a version until a second.
    pub fn counted(&self, version: usize, second: i64) -> (i64, i64) {
        let ends = self.traffic.iter().skip(1).map(|(from, _)| *from).chain([i64::MAX]);
        self.traffic.iter().zip(ends).fold((0, 0), |(all, bad), ((from, arms), end)| {
            let (rps, one_in) = arms[version];
            let requests = rps * (second.min(end) - from).max(0);
            (all + requests, bad + requests / one_in)
        })
    }

    pub fn answer(&self, query: &Query) -> Answer {
        let raw = Raw::read(&query.expression, self.case.now).unwrap();
        let series = raw.versions.iter().map(|version| {
            let samples = (raw.from_ms.div_euclid(1000) + 1
                ..=raw.until_ms.min(self.scraped_until_ms).div_euclid(1000))
                .map(|second| {
                    let (all, bad) = self.counted(usize::from(version.ends_with('2')), second);
                    let count = if raw.selector.starts_with("bad") { bad } else { all };
                    (second * 1000, count as f64)
                })
                .collect();
            let labels = [("version", version.as_str()), ("pod", "p")];
            let labels: BTreeMap<_, _> =
                labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            RawSeries { labels, samples, histograms: vec![] }
        });
        Answer::Matrix(series.collect())
    }

    pub fn plan(&self) -> Plan<ModelRolloutStatus> {
        self.case.plan_answering(|query| self.answer(query))
    }

    /// A second passes, and the operator looks at what `answer` makes of the world.
    pub fn look(&mut self, answer: impl Fn(&Self, &Query) -> Answer) -> ModelRolloutStatus {
        self.case.now += SignedDuration::from_secs(1);
        let plan = self.case.plan_answering(|query| answer(self, query));
        self.case.follow(plan)
    }

    /// The same, with the world as it is.
    pub fn tick(&mut self) -> ModelRolloutStatus {
        self.look(Self::answer)
    }

    pub fn until(
        &mut self,
        ticks: usize,
        there: impl Fn(&ModelRolloutStatus) -> bool,
    ) -> (usize, ModelRolloutStatus) {
        cases::until(ticks, || self.tick(), there)
    }
}
