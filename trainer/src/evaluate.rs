//! The evaluator: one function for the epochs of training, the candidate, the baseline and the command line.
//!
//! Sums run in double precision and in the order of the rows, so the same model on the same rows always gives the same
//! bits, and two equal models tie exactly.

use anneal_crds::{
    contract::{Evaluation, MetricValue},
    gates::EvalMetric,
};

use crate::{
    artifact::Model,
    data::Rows,
    error::Failure,
    schema::{Schema, TargetKind, Targets, encode_features, encode_targets},
};

/// Evaluates a model on rows, which it encodes with its own schema.
///
/// # Errors
/// When the rows do not fit the model's schema, or there is not enough memory.
pub fn evaluate(model: &Model, rows: &Rows) -> Result<Evaluation, Failure> {
    let inputs = encode_features(&model.schema, rows)?;
    let targets = encode_targets(&model.schema, rows)?;
    Ok(score(&model.schema, &model.network.infer(&inputs)?, &targets))
}

/// The metrics of a model's outputs; those that are not finite are left out.
pub fn score(schema: &Schema, outputs: &[f32], targets: &Targets) -> Evaluation {
    let metrics = match (targets, &schema.target.kind) {
        (Targets::Classes(classes), _) => classification(outputs, classes, schema.outputs()),
        (Targets::Numbers(numbers), TargetKind::Number { mean, sd }) => {
            regression(outputs, numbers, *mean, *sd)
        }
        // Targets were encoded by this schema, so this cannot be; no metric is the answer that passes no gate.
        (Targets::Numbers(_), TargetKind::Classes { .. }) => Vec::new(),
    };
    let finite = metrics.into_iter().filter(|(_, value)| value.is_finite());
    let metrics = finite.map(|(name, value)| MetricValue { name, value }).collect();
    Evaluation { rows: targets.len() as u64, metrics }
}

fn classification(outputs: &[f32], classes: &[i64], width: usize) -> Vec<(EvalMetric, f64)> {
    let (mut loss, mut hits) = (0.0, 0_u64);
    for (logits, &class) in outputs.chunks_exact(width).zip(classes) {
        let class = class as usize;
        loss -= log_probabilities(logits)[class];
        hits += u64::from(most_probable(logits) == class);
    }
    let count = classes.len() as f64;
    vec![(EvalMetric::Loss, loss / count), (EvalMetric::Accuracy, hits as f64 / count)]
}

/// Logarithms of the softmax.
pub fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().map(|&logit| f64::from(logit)).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit) - max - sum.ln()).collect()
}

/// The class of the largest logit; the first of equal ones.
pub fn most_probable(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best
}

fn regression(outputs: &[f32], targets: &[f64], mean: f64, sd: f64) -> Vec<(EvalMetric, f64)> {
    let count = targets.len() as f64;
    let errors =
        || outputs.iter().zip(targets).map(|(&output, target)| f64::from(output) * sd + mean - target);
    let squares: f64 = errors().map(|error| error * error).sum();
    let mae = errors().map(f64::abs).sum::<f64>() / count;
    let own_mean = targets.iter().sum::<f64>() / count;
    let spread: f64 = targets.iter().map(|target| (target - own_mean) * (target - own_mean)).sum();
    let mse = squares / count;
    // A constant target gives 0/0 or a division by zero, neither of which is finite.
    let r2 = if spread > 0.0 { 1.0 - squares / spread } else { f64::NAN };
    vec![
        (EvalMetric::Loss, mse),
        (EvalMetric::Rmse, mse.sqrt()),
        (EvalMetric::Mae, mae),
        (EvalMetric::R2, r2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Target;

    fn schema(kind: TargetKind) -> Schema {
        Schema { schema: 1, features: vec![], target: Target { name: "y".into(), kind }, input_width: 0 }
    }

    #[test]
    fn cross_entropy_and_accuracy_are_those_of_the_textbook() {
        let schema = schema(TargetKind::Classes { classes: vec!["0".into(), "1".into()] });
        let result = score(&schema, &[0.0, 0.0, 2.0, 0.0], &Targets::Classes(vec![1, 0]));
        let expected = (2.0_f64.ln() + (1.0 + (-2.0_f64).exp()).ln()) / 2.0;
        assert!((result.get(EvalMetric::Loss).unwrap() - expected).abs() < 1e-15);
        assert_eq!(result.get(EvalMetric::Accuracy), Some(0.5));
    }

    #[test]
    fn regression_is_measured_in_the_targets_unit() {
        let schema = schema(TargetKind::Number { mean: 10.0, sd: 2.0 });
        let result = score(&schema, &[0.0, 1.0], &Targets::Numbers(vec![11.0, 14.0]));
        assert_eq!(result.get(EvalMetric::Loss), Some(2.5));
        assert_eq!(result.get(EvalMetric::Rmse), Some(2.5_f64.sqrt()));
        assert_eq!(result.get(EvalMetric::Mae), Some(1.5));
        assert!((result.get(EvalMetric::R2).unwrap() - (1.0 - 5.0 / 4.5)).abs() < 1e-15);
        let constant = score(&schema, &[0.0], &Targets::Numbers(vec![11.0]));
        assert_eq!(constant.get(EvalMetric::R2), None);
    }

    #[test]
    fn what_is_not_finite_is_absent() {
        let schema = schema(TargetKind::Classes { classes: vec!["0".into(), "1".into()] });
        let result = score(&schema, &[f32::NAN, 0.0], &Targets::Classes(vec![1]));
        assert_eq!(result.get(EvalMetric::Loss), None);
        let empty = score(&schema, &[], &Targets::Classes(vec![]));
        assert!(empty.metrics.is_empty());
    }
}
