//! Gates: does a candidate's evaluation let it become a version?
//!
//! Called by the trainer, which reports the verdicts, and again by the RetrainJob's plan, which trusts only the
//! evidence. Missing or non-finite numbers are never a pass.

use anneal_crds::{
    contract::{BaselineEvaluation, Evaluation, GateOutcome, GateVerdict},
    gates::{ChangeGate, Direction, Enforcement, EvalMetric, Gate, GateEvidence, ValueGate},
};

/// What a candidate is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison<'a> {
    /// The baseline on the same rows by the same evaluator.
    Baseline(&'a BaselineEvaluation),
    /// There is none, and the run was allowed to start without one.
    Bootstrap,
    /// There should be one, and it was not evaluated.
    Missing,
}

/// The verdict of every gate, in the gates' order.
pub fn judge(gates: &[Gate], candidate: &Evaluation, comparison: Comparison<'_>) -> Vec<GateOutcome> {
    gates.iter().map(|gate| judge_one(gate, candidate, comparison)).collect()
}

/// Whether every required gate lets the candidate through. False when no required gate spoke.
pub fn passed(outcomes: &[GateOutcome]) -> bool {
    let mut required =
        outcomes.iter().filter(|outcome| outcome.enforcement == Enforcement::Required).peekable();
    required.peek().is_some() && required.all(|outcome| lets_through(outcome.verdict))
}

const fn lets_through(verdict: GateVerdict) -> bool {
    match verdict {
        GateVerdict::Pass | GateVerdict::Bootstrap => true,
        GateVerdict::Fail | GateVerdict::NotEvaluable => false,
    }
}

fn judge_one(gate: &Gate, candidate: &Evaluation, comparison: Comparison<'_>) -> GateOutcome {
    let (name, enforcement, (verdict, message)) = match gate {
        Gate::IronLaw(_) => ("ironLaw".to_owned(), Enforcement::Required, iron_law(candidate, comparison)),
        Gate::Value(gate) => {
            (format!("value/{}", gate.metric.name()), gate.enforcement, value(gate, candidate))
        }
        Gate::Change(gate) => {
            (format!("change/{}", gate.metric.name()), gate.enforcement, change(gate, candidate, comparison))
        }
    };
    GateOutcome { gate: name, enforcement, verdict, message }
}

type Judgement = (GateVerdict, String);

fn iron_law(candidate: &Evaluation, comparison: Comparison<'_>) -> Judgement {
    let baseline = match comparable(candidate, comparison) {
        Ok(baseline) => baseline,
        Err(judgement) => return judgement,
    };
    match (candidate.get(EvalMetric::Loss), baseline.evaluation.get(EvalMetric::Loss)) {
        (Some(new), Some(base)) if new < base => {
            (GateVerdict::Pass, format!("validation loss {new} is below the baseline's {base}"))
        }
        (Some(new), Some(base)) if new == base => (
            GateVerdict::Fail,
            format!("validation loss {new} ties with the baseline's {base}, and a tie is no improvement"),
        ),
        (Some(new), Some(base)) => {
            (GateVerdict::Fail, format!("validation loss {new} is not below the baseline's {base}"))
        }
        (None, _) => not_evaluable("the candidate has no finite validation loss"),
        (_, None) => not_evaluable("the baseline has no finite validation loss"),
    }
}

fn value(gate: &ValueGate, candidate: &Evaluation) -> Judgement {
    let name = gate.metric.name();
    let Some(value) = candidate.get(gate.metric) else {
        return not_evaluable(&format!("the candidate has no finite {name}"));
    };
    let above_min = gate.min.is_none_or(|min| value >= min);
    let below_max = gate.max.is_none_or(|max| value <= max);
    let bounds = match (gate.min, gate.max) {
        (Some(min), Some(max)) => format!("from {min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => return not_evaluable("the gate has neither min nor max"),
    };
    let verdict = if above_min && below_max { GateVerdict::Pass } else { GateVerdict::Fail };
    (verdict, format!("{name} is {value}, and {bounds} is asked for"))
}

fn change(gate: &ChangeGate, candidate: &Evaluation, comparison: Comparison<'_>) -> Judgement {
    let baseline = match comparable(candidate, comparison) {
        Ok(baseline) => baseline,
        Err(judgement) => return judgement,
    };
    let name = gate.metric.name();
    let (Some(new), Some(base)) = (candidate.get(gate.metric), baseline.evaluation.get(gate.metric)) else {
        return not_evaluable(&format!("candidate or baseline has no finite {name}"));
    };
    let gain = match gate.metric.direction() {
        Direction::HigherIsBetter => new - base,
        Direction::LowerIsBetter => base - new,
    };
    let improvement = gain / base.abs();
    if !improvement.is_finite() {
        return not_evaluable(&format!(
            "the baseline's {name} is {base}, so a relative improvement does not exist"
        ));
    }
    match gate.evidence {
        GateEvidence::Point => {
            let verdict =
                if improvement >= gate.min_improvement { GateVerdict::Pass } else { GateVerdict::Fail };
            let message = format!(
                "{name} is {new} against the baseline's {base}, an improvement of {:.3} %, and at least {} % is asked for",
                improvement * 100.0,
                gate.min_improvement * 100.0
            );
            (verdict, message)
        }
    }
}

/// The baseline, if the two evaluations may be compared at all.
fn comparable<'a>(
    candidate: &Evaluation,
    comparison: Comparison<'a>,
) -> Result<&'a BaselineEvaluation, Judgement> {
    let baseline = match comparison {
        Comparison::Baseline(baseline) => baseline,
        Comparison::Bootstrap => {
            return Err((GateVerdict::Bootstrap, "there is no version in production to compare with".into()));
        }
        Comparison::Missing => return Err(not_evaluable("the baseline was not evaluated")),
    };
    if let Some(difference) = &baseline.schema_difference {
        return Err((GateVerdict::Fail, format!("the baseline's traced dimensions differ: {difference}")));
    }
    if baseline.evaluation.rows != candidate.rows || candidate.rows == 0 {
        let (new, base) = (candidate.rows, baseline.evaluation.rows);
        return Err(not_evaluable(&format!(
            "the candidate saw {new} validation rows and the baseline {base}"
        )));
    }
    Ok(baseline)
}

fn not_evaluable(why: &str) -> Judgement {
    (GateVerdict::NotEvaluable, why.to_owned())
}

#[cfg(test)]
mod tests {
    use anneal_crds::{contract::MetricValue, gates::IronLawGate};
    use proptest::prelude::*;

    use super::*;

    fn evaluation(rows: u64, loss: f64) -> Evaluation {
        Evaluation { rows, metrics: vec![MetricValue { name: EvalMetric::Loss, value: loss }] }
    }

    fn baseline(rows: u64, loss: f64) -> BaselineEvaluation {
        BaselineEvaluation {
            digest: "sha256:0".into(),
            schema_difference: None,
            evaluation: evaluation(rows, loss),
        }
    }

    fn iron(new: f64, base: f64) -> GateVerdict {
        let gates = [Gate::IronLaw(IronLawGate {})];
        judge(&gates, &evaluation(10, new), Comparison::Baseline(&baseline(10, base)))[0].verdict
    }

    #[test]
    fn the_iron_law_asks_for_a_strictly_lower_loss() {
        assert_eq!(iron(0.5, 0.6), GateVerdict::Pass);
        assert_eq!(iron(0.6, 0.6), GateVerdict::Fail);
        assert_eq!(iron(0.7, 0.6), GateVerdict::Fail);
    }

    #[test]
    fn missing_and_non_finite_numbers_never_pass() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(iron(bad, 0.6), GateVerdict::NotEvaluable);
            assert_eq!(iron(0.5, bad), GateVerdict::NotEvaluable);
        }
        let gates = [Gate::IronLaw(IronLawGate {})];
        let missing = judge(&gates, &evaluation(10, 0.1), Comparison::Missing);
        assert!(!passed(&missing));
        assert!(!passed(&[]));
    }

    #[test]
    fn other_rows_or_other_dimensions_are_no_comparison() {
        let gates = [Gate::IronLaw(IronLawGate {})];
        let other_rows = judge(&gates, &evaluation(10, 0.1), Comparison::Baseline(&baseline(11, 0.6)));
        assert_eq!(other_rows[0].verdict, GateVerdict::NotEvaluable);
        let mut differing = baseline(10, 0.6);
        differing.schema_difference = Some("home_team has 640 values, not 643".into());
        assert!(!passed(&judge(&gates, &evaluation(10, 0.1), Comparison::Baseline(&differing))));
    }

    #[test]
    fn a_change_from_zero_cannot_be_evaluated() {
        let gate = ChangeGate {
            metric: EvalMetric::Loss,
            min_improvement: 0.0,
            evidence: GateEvidence::Point,
            enforcement: Enforcement::Required,
        };
        let outcome =
            judge(&[Gate::Change(gate)], &evaluation(10, 0.0), Comparison::Baseline(&baseline(10, 0.0)));
        assert_eq!(outcome[0].verdict, GateVerdict::NotEvaluable);
    }

    proptest! {
        #[test]
        fn a_pass_means_that_every_required_number_is_finite_and_better(new in any::<f64>(), base in any::<f64>()) {
            prop_assert_eq!(iron(new, base) == GateVerdict::Pass, new.is_finite() && base.is_finite() && new < base);
        }
    }
}
