//! What runs find out: results that are better, worse, tied, without numbers or of someone else, told or lost.

use anneal_crds::{
    contract::{
        BaselineEvaluation, Device, Evaluation, FailureNotice, GateOutcome, GateVerdict, MetricValue, Notice,
        RESULT_SCHEMA, RowSet, RunResult, StopReason,
    },
    gates::{Enforcement, EvalMetric},
    model_version::Artifact,
    retrain_job::ResolvedBaseline,
};
use serde_json::Value;

use super::{
    dice::Dice,
    sim::{Sim, Truth},
};

/// What a run will find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the model shows.
    pub finding: Finding,
    /// How often the trainer fails before, and with which exit code.
    pub failures: Vec<i64>,
    /// What becomes of the news.
    pub telling: Telling,
}

/// What a model shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is better than the baseline, or good where there is none.
    Better,
    /// It is worse.
    Worse,
    /// It is just as good.
    Tie,
    /// Its loss is not a number, so it is absent.
    NoLoss,
    /// The result is another run's.
    ForeignRun,
    /// It was compared with another version than asked.
    ForeignBaseline,
    /// It and the baseline saw different rows.
    OtherRows,
    /// Its traced dimensions differ.
    OtherSchema,
    /// It is better, and no version was set aside.
    NoVersion,
    /// The trainer ends with this code and without a result.
    Fails(i64),
}

/// What becomes of the news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// The pod says it.
    Notice,
    /// The pod's message is cut.
    NoticeCut,
    /// The pod is gone before anyone reads it.
    PodLost,
    /// Neither notice nor storage has it.
    Unwritten,
}

impl Outcome {
    /// Draws an outcome.
    pub fn draw(dice: &mut Dice) -> Self {
        let fails = [1, 2, 3, 5, 6, 7, 8, 70, 101, 137];
        let code = dice.pick(&fails).copied().unwrap_or(1);
        let finding = match dice.weighted(&[60, 6, 5, 4, 3, 3, 3, 3, 2, 11]) {
            0 => Finding::Better,
            1 => Finding::Worse,
            2 => Finding::Tie,
            3 => Finding::NoLoss,
            4 => Finding::ForeignRun,
            5 => Finding::ForeignBaseline,
            6 => Finding::OtherRows,
            7 => Finding::OtherSchema,
            8 => Finding::NoVersion,
            _ => Finding::Fails(code),
        };
        let count = dice.weighted(&[70, 20, 10]);
        let failures = (0..count).filter_map(|_| dice.pick(&[75, 75, 1, 7]).copied()).collect();
        let telling = match dice.weighted(&[70, 12, 12, 6]) {
            0 => Telling::Notice,
            1 => Telling::NoticeCut,
            2 => Telling::PodLost,
            _ => Telling::Unwritten,
        };
        Self { finding, failures, telling }
    }
}

impl Sim {
    /// A trainer ends: exit code and message.
    pub fn train(&mut self, file: &Value) -> (i64, String) {
        let run = file["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let drawn = match self.runs.luck {
            Some(_) => Outcome { finding: Finding::Better, failures: vec![], telling: Telling::Notice },
            None => Outcome::draw(&mut self.dice),
        };
        let outcome = self.runs.outcomes.entry(run.clone()).or_insert(drawn);
        if let Some(code) = outcome.failures.pop() {
            return (code, failure("interrupted or failed; it may pass"));
        }
        let outcome = outcome.clone();
        if let Finding::Fails(code) = outcome.finding {
            return (code, failure("it failed for good"));
        }
        if !self.runs.results.contains_key(&run) {
            let result = self.result(&run, file, outcome.finding);
            self.runs.results.insert(run.clone(), result);
        }
        let Some(result) = self.runs.results.get(&run).cloned() else { return (70, String::new()) };
        let code = if result.version.is_some() { 0 } else { 4 };
        let message = notice(Notice::Result(Box::new(result)));
        match outcome.telling {
            Telling::Notice | Telling::PodLost => (code, message),
            Telling::NoticeCut => (code, message.chars().take(100).collect()),
            Telling::Unwritten => {
                self.runs.results.remove(&run);
                (code, String::new())
            }
        }
    }

    /// A pod that reads `result.json` again ends: exit code and message.
    pub fn report(&mut self, file: &Value) -> (i64, String) {
        if self.unlucky(500) {
            return (7, failure("the storage is not reachable"));
        }
        let run = file["metadata"]["uid"].as_str().unwrap_or_default();
        match self.runs.results.get(run) {
            Some(result) => (0, notice(Notice::Result(Box::new(result.clone())))),
            None => (3, failure("there is no result.json")),
        }
    }

    fn result(&mut self, run: &str, file: &Value, finding: Finding) -> RunResult {
        let baseline = serde_json::from_value::<ResolvedBaseline>(file["status"]["baseline"].clone()).ok();
        let against = match baseline {
            Some(ResolvedBaseline::Version(version)) => Some(version.version.digest),
            Some(ResolvedBaseline::Bootstrap(_)) | None => None,
        };
        let digest = self
            .twin(against.as_deref(), finding)
            .unwrap_or_else(|| self.new_digest(against.as_deref(), finding));
        let passes = matches!(finding, Finding::Better | Finding::ForeignRun | Finding::ForeignBaseline);
        // A trainer that claims too much: only the evidence may decide.
        let claims = passes || (finding != Finding::NoVersion && self.dice.chance(500));
        let version = claims.then(|| {
            self.runs.versions += 1;
            let day = format!("v202611{:02}", 10 + self.now.as_second().rem_euclid(3));
            format!("{}.{}", self.runs.luck.unwrap_or(&day), self.runs.versions)
        });
        let rows = |extra: u64| 100 + extra;
        let base = 0.5;
        let loss = match (finding, &against) {
            (Finding::Worse, Some(_)) => Some(0.6),
            (Finding::Worse, None) => Some(3.0),
            (Finding::Tie, Some(_)) => Some(base),
            (Finding::NoLoss, _) => None,
            (_, _) => Some(0.4),
        };
        let compared_with = |digest: &String| {
            if finding == Finding::ForeignBaseline { format!("{digest}0") } else { digest.clone() }
        };
        RunResult {
            schema: RESULT_SCHEMA,
            run_uid: if finding == Finding::ForeignRun { "someone-else".into() } else { run.to_owned() },
            artifact: Artifact { uri: format!("file:///models/{digest}"), digest },
            version,
            device: Device::Cpu,
            stop: StopReason::EarlyStop,
            epochs: 3,
            best_epoch: 2,
            train: RowSet { rows: 1000, digest: "sha256:t".into() },
            validation: RowSet { rows: 100, digest: "sha256:v".into() },
            schema_digest: "sha256:s".into(),
            candidate: evaluation(rows(u64::from(finding == Finding::OtherRows)), loss),
            baseline: against.as_ref().map(|digest| BaselineEvaluation {
                digest: compared_with(digest),
                schema_difference: (finding == Finding::OtherSchema).then(|| "640 and 643".to_owned()),
                evaluation: evaluation(rows(0), Some(base)),
            }),
            gates: vec![GateOutcome {
                gate: "ironLaw".into(),
                enforcement: Enforcement::Required,
                verdict: GateVerdict::Pass,
                message: "trust me".into(),
            }],
            seconds: 1.5,
        }
    }

    /// Training is deterministic: now and then two runs make the very same weights.
    fn twin(&mut self, against: Option<&str>, finding: Finding) -> Option<String> {
        if finding != Finding::Better || self.runs.luck.is_some() || !self.dice.chance(150) {
            return None;
        }
        let mut twins = self.runs.results.values().filter(|result| {
            let truth = self.truth.get(&result.artifact.digest);
            truth.is_some_and(|truth| truth.good_first && (against.is_none() || truth.beats.is_some()))
                && result.run_uid.starts_with("uid-")
                && result.baseline.as_ref().map(|baseline| baseline.digest.as_str()) == against
        });
        twins.next().map(|result| result.artifact.digest.clone())
    }

    fn unlucky(&mut self, per_mille: usize) -> bool {
        self.runs.luck.is_none() && self.dice.chance(per_mille)
    }

    fn new_digest(&mut self, against: Option<&str>, finding: Finding) -> String {
        self.runs.digests += 1;
        let digest = format!("sha256:{:064x}", self.runs.digests);
        let better = matches!(finding, Finding::Better | Finding::ForeignRun);
        // Its loss is at most 1, which is all that the value gate asks for.
        let good_first = !matches!(
            (finding, against),
            (Finding::Worse, None) | (Finding::NoLoss | Finding::ForeignRun, _)
        );
        let before = against.and_then(|digest| self.truth.get(digest)).map_or(0.9, |truth| truth.mistakes);
        // What is better offline is not always better where it serves.
        let improves = better && !self.unlucky(200);
        let truth = Truth {
            mistakes: match improves {
                true if before > 0.25 => before - 0.15,
                true => before / 2.0,
                false => before,
            },
            beats: against.filter(|_| better).map(str::to_owned),
            good_first,
            error_rate: if self.unlucky(250) { 0.05 } else { 0.001 },
            slow: self.unlucky(100),
            boots: !self.unlucky(80),
        };
        self.say(|_| format!("{digest} is really {truth:?}"));
        self.truth.insert(digest.clone(), truth);
        digest
    }
}

fn evaluation(rows: u64, loss: Option<f64>) -> Evaluation {
    let metrics = loss.map(|value| MetricValue { name: EvalMetric::Loss, value });
    Evaluation { rows, metrics: metrics.into_iter().collect() }
}

fn notice(notice: Notice) -> String {
    serde_json::to_string(&notice).unwrap_or_default()
}

fn failure(message: &str) -> String {
    notice(Notice::Failure(FailureNotice { message: message.to_owned() }))
}
