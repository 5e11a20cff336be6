//! The guide's A/B test: 14 days, half of the requests each, accuracy first, latency and feedback beside it; after the shadow of
//! seven days and before the canary of 10 % and 15 % more each day. Who does not win leaves the control where it is.

use anneal_core::rollout::RawSeries;
use anneal_tests::raw::Raw;

use super::*;

const SPEC: &str = "
model: ads
candidate: {follow: NewestApproved}
serving: {image: serve:1, replicas: 2}
traffic: {gateway: {name: web}}
prometheus: {url: http://prometheus}
strategy:
  shadow: {percent: 100, duration: 7d, minRequests: 1000}
  experiment: {split: 50, duration: 14d, primary: accuracy, secondary: [latency_p95, user_feedback]}
  canary: {initial: 10, increment: 15, interval: 1d, max: 100, minRequests: 1000}
  rollbackTriggers: [error_rate, latency_p95]
metrics:
- {name: error_rate, window: 10m, interval: 10m, ratio: {bad: 'requests{code=~\"5..\"}', total: requests, max: 0.01}}
- {name: latency_p95, window: 10m, interval: 10m, histogram: {selector: duration_bucket, quantile: 0.95, max: 300ms}}
- {name: accuracy, window: 30m, interval: 10m, ratio: {bad: 'labelled{correct=\"true\"}', total: labelled, min: 0.80}}
- {name: user_feedback, window: 1d, interval: 10m, ratio: {bad: 'feedback{kind=\"negative\"}', total: feedback, max: 0.05}}
judge: {evidence: sequential, maxHold: 1h}
";

/// Requests a minute, of both versions together.
const REQUESTS: i64 = 120;

/// How many of a hundred thousand answers are right, and come within 300 ms, and how many of a thousand make a user complain.
#[derive(Clone, Copy)]
struct Arm {
    right: i64,
    quick: i64,
    complaints: i64,
}

const CONTROL: Arm = Arm { right: 85_000, quick: 97_000, complaints: 20 };

struct World {
    case: RolloutCase,
    treatment: Arm,
    began_s: i64,
    /// All requests to each version until each minute.
    totals: [Vec<i64>; 2],
}

impl World {
    fn new(treatment: Arm) -> Self {
        let mut case = super::case();
        case.rollout.spec = serde_saphyr::from_str(SPEC).unwrap();
        case.settle_children();
        let before = (0..180).map(|minute| minute * REQUESTS).collect();
        let began_s = case.now.as_second() - 179 * 60;
        Self { case, treatment, began_s, totals: [before, vec![0; 180]] }
    }

    fn answer(&self, query: &Query) -> Answer {
        let raw = Raw::read(&query.expression, self.case.now).unwrap();
        let series = raw.versions.iter().flat_map(|version| {
            let number = usize::from(version.ends_with('2'));
            let arm = if number == 1 { self.treatment } else { CONTROL };
            let of = |le: Option<&str>, share: i64| {
                let minutes = (0_i64..).zip(&self.totals[number]);
                let samples = minutes
                    .map(|(minute, total)| ((self.began_s + minute * 60) * 1000, total * share / 100_000))
                    .filter(|(at, _)| *at > raw.from_ms && *at <= raw.until_ms)
                    .map(|(at, count)| (at, count as f64))
                    .collect();
                let labels = [("version", Some(version.as_str())), ("pod", Some("p")), ("le", le)];
                let labels =
                    labels.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
                RawSeries { labels: labels.collect(), samples, histograms: vec![] }
            };
            match raw.selector.as_str() {
                "duration_bucket" => vec![of(Some("0.3"), arm.quick), of(Some("+Inf"), 100_000)],
                "labelled{correct=\"true\"" => vec![of(None, arm.right)],
                "feedback{kind=\"negative\"" => vec![of(None, arm.complaints * 100)],
                "requests{code=~\"5..\"" => vec![of(None, 500)],
                "requests" | "labelled" | "feedback" => vec![of(None, 100_000)],
                other => unreachable!("{other}"),
            }
        });
        Answer::Matrix(series.collect())
    }

    /// Ten minutes, in which requests go where the status sends them.
    fn pass(&mut self) {
        let status = self.case.rollout.status.clone().unwrap();
        let share = match status.phase {
            P::Shadow => 1000,
            P::Healthy if status.stable.unwrap().version.ends_with('2') => 1000,
            _ => i64::from(status.weight.per_mille()),
        };
        let rest = if status.phase == P::Shadow { 1000 } else { 1000 - share };
        for (totals, share) in self.totals.iter_mut().zip([rest, share]) {
            for _ in 0..10 {
                totals.push(totals.last().unwrap() + REQUESTS * share / 1000);
            }
        }
        self.case.now += SignedDuration::from_mins(10);
    }

    /// The operator looks every ten minutes, until something is so; and when that is, in days.
    fn watch(&mut self, until: impl Fn(&ModelRolloutStatus) -> bool) -> (f64, ModelRolloutStatus) {
        for _ in 0..40 * 144 {
            for _ in 0..3 {
                let plan = self.case.plan_answering(|query| self.answer(query));
                self.case.perform(&plan.actions);
                self.case.rollout.status = Some(plan.status);
            }
            let status = self.case.rollout.status.clone().unwrap();
            if until(&status) {
                return (self.case.now.duration_since(cases::now()).as_secs_f64() / 86_400.0, status);
            }
            self.pass();
        }
        unreachable!("{:?}", self.case.rollout.status)
    }
}

#[test]
fn a_treatment_that_is_better_wins_after_a_week_and_takes_over_day_by_day() {
    let mut world = World::new(Arm { right: 86_000, ..CONTROL });
    let mut timeline = vec![];
    for (phase, weight) in [
        (P::Shadow, "0"),
        (P::Experiment, "50"),
        (P::Canary, "10"),
        (P::Canary, "25"),
        (P::Canary, "100"),
        (P::Healthy, "0"),
    ] {
        let there =
            |status: &ModelRolloutStatus| status.phase == phase && status.weight.to_string() == weight;
        let (day, _) = world.watch(there);
        timeline.push((day.round() as i64, phase, weight));
        if phase == P::Canary && weight == "10" {
            let decision = world.case.rollout.status.clone().unwrap().decision.unwrap();
            assert_eq!(decision.reason, "ExperimentWon");
            assert!(decision.message.contains("of 14: z "), "{}", decision.message);
        }
    }
    let wanted = [
        (0, P::Shadow, "0"),
        (7, P::Experiment, "50"),
        (14, P::Canary, "10"),
        (15, P::Canary, "25"),
        (20, P::Canary, "100"),
        (21, P::Healthy, "0"),
    ];
    assert_eq!(timeline, wanted);
    assert_eq!(world.case.rollout.status.unwrap().stable.unwrap().version, "v20261121.2");
}

#[test]
fn control_stays_where_the_treatment_is_worse_or_nothing_is_shown_in_fourteen_days() {
    for (treatment, day, reason) in [
        (CONTROL, 21, "ExperimentInconclusive"),
        (Arm { right: 86_000, complaints: 60, ..CONTROL }, 21, "ExperimentInconclusive"),
        (Arm { right: 83_000, ..CONTROL }, 8, "ExperimentLost"),
        // Better answers that come too late are found in the shadow, before the experiment begins.
        (Arm { right: 86_000, quick: 93_000, ..CONTROL }, 0, "ThresholdBreached"),
    ] {
        let mut world = World::new(treatment);
        let (ended, status) = world.watch(|status| status.phase == P::RolledBack);
        let decision = status.decision.unwrap();
        assert_eq!((ended.round() as i64, decision.reason.as_str()), (day, reason), "{}", decision.message);
        assert_eq!(status.stable.unwrap().version, "v20261121.1");
    }
    // Where nothing else watches the latency, better answers that come too late do not win either.
    let mut world = World::new(Arm { right: 86_000, quick: 93_000, ..CONTROL });
    world.case.rollout.spec.strategy.rollback_triggers = vec!["error_rate".to_owned()];
    let (ended, status) = world.watch(|status| status.phase == P::RolledBack);
    let decision = status.decision.unwrap();
    assert_eq!((ended.round() as i64, decision.reason.as_str()), (21, "ExperimentInconclusive"));
    assert!(decision.message.contains("latency_p95"), "{}", decision.message);
}
