//! A policy made ready: logarithms taken, alpha divided, the luck of pods allowed for.
//!
//! Made by the controller at each reconcile; nothing in it depends on data of the rollout.

use super::{
    absolute::Absolute,
    distribution::{t_quantile, t_tail},
    labels::Labels,
    policy::{Advance, MetricPolicy, PodSpread, Policy, PolicyError, Rule},
    relative::{RATIOS, Relative},
    state::State,
};

/// A checked policy, ready to fold ticks.
#[derive(Clone, Debug)]
pub struct Judge {
    pub(super) policy: Policy,
    /// The mean of all tests that rolls back: one over what is left of alpha.
    pub(super) threshold: f64,
    /// Of each test in that mean.
    pub(super) weight: f64,
    pub(super) metrics: Vec<MetricRules>,
}

/// One metric's tests.
#[derive(Clone, Debug)]
pub(super) struct MetricRules {
    pub(super) relative: Option<Relative>,
    pub(super) absolute: Option<Absolute>,
    /// The bound that good events alone show it to be below.
    pub(super) bound: Option<Absolute>,
    pub(super) rule: Rule,
    /// ln of the odds ratio below which a step may advance.
    pub(super) ln_limit: Option<f64>,
    /// Evidence is multiplied by this: one over the design effect. A power below one of an e-value is an e-value.
    pub(super) tempering: f64,
    /// Set if its events come later than the requests they belong to.
    pub(super) labels: Option<Labels>,
}

impl Judge {
    /// The judge by `policy`.
    ///
    /// # Errors
    ///
    /// If a number of the policy is out of its range, or a metric has no test.
    pub fn new(policy: Policy) -> Result<Self, PolicyError> {
        policy.check()?;
        let tests: usize = policy.metrics.iter().map(tests).sum();
        let compared = policy.metrics.iter().filter(|metric| tolerance(metric).is_some()).count();
        // Half of alpha may go to pods that are by chance worse than tolerated.
        let share = 0.5 * policy.alpha / compared.max(1) as f64;
        let mut left = policy.alpha;
        let metrics = policy
            .metrics
            .iter()
            .map(|metric| {
                let allowed =
                    tolerance(metric).map(|tolerance| allow_for_pods(tolerance, metric.pods, share));
                left -= allowed.map_or(0.0, |allowed| allowed.spent);
                MetricRules::new(metric, policy.advance, allowed.map(|allowed| allowed.tolerance))
            })
            .collect();
        Ok(Self { threshold: 1.0 / left, weight: 1.0 / tests.max(1) as f64, metrics, policy })
    }

    /// The policy that it judges by.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Tests that share alpha.
    pub fn tests(&self) -> usize {
        self.policy.metrics.iter().map(tests).sum()
    }

    /// The level of each of them.
    pub fn alpha_of_a_test(&self) -> f64 {
        self.weight / self.threshold
    }

    /// How many times stable's odds of a bad event each metric may have, with the luck of pods allowed for.
    pub fn tolerances(&self) -> impl Iterator<Item = Option<f64>> {
        self.metrics.iter().map(|metric| metric.relative.as_ref().map(Relative::tolerance))
    }

    /// Whether `state` was made by this policy's metrics.
    pub(super) fn fits(&self, state: &State) -> bool {
        state.metrics.len() == self.metrics.len()
            && state.metrics.iter().zip(&self.metrics).zip(&self.policy.metrics).all(
                |((state, rules), policy)| {
                    state.name == policy.name
                        && state.relative.is_some() == rules.relative.is_some()
                        && state.absolute.is_some() == rules.absolute.is_some()
                        && state.advance.is_some() == rules.ln_limit.is_some()
                        && state.mean.is_some() == matches!(rules.rule, Rule::Mean(_))
                        && state.pairs.is_some() == matches!(rules.rule, Rule::Paired { .. })
                        && state.compared.is_some() == matches!(rules.rule, Rule::Agreement { .. })
                },
            )
    }
}

impl MetricRules {
    fn new(metric: &MetricPolicy, advance: Advance, tolerance: Option<f64>) -> Self {
        let absolute = match metric.rule {
            Rule::Share { absolute, .. } => absolute.map(Absolute::new),
            Rule::Primary { .. }
            | Rule::Secondary { .. }
            | Rule::Mean(_)
            | Rule::Paired { .. }
            | Rule::Agreement { .. } => None,
        };
        let bound = match metric.rule {
            Rule::Secondary { bound, .. } => Some(Absolute::new(bound)),
            Rule::Share { .. }
            | Rule::Primary { .. }
            | Rule::Mean(_)
            | Rule::Paired { .. }
            | Rule::Agreement { .. } => absolute.clone(),
        };
        Self {
            relative: tolerance.map(|tolerance| Relative::new(tolerance, RATIOS)),
            absolute,
            bound,
            rule: metric.rule,
            ln_limit: limit(metric.rule, advance).map(libm::log),
            tempering: 1.0 / metric.design_effect,
            labels: metric.labels,
        }
    }
}

/// The odds ratio that a metric is to be shown to be below, if it is.
pub(super) const fn limit(rule: Rule, advance: Advance) -> Option<f64> {
    match (rule, advance) {
        (Rule::Secondary { below, .. }, _) => Some(below),
        (Rule::Share { relative: Some(_), .. }, Advance::Evidence(ratio)) => Some(ratio),
        (
            Rule::Share { .. }
            | Rule::Primary { .. }
            | Rule::Mean(_)
            | Rule::Paired { .. }
            | Rule::Agreement { .. },
            Advance::Interval | Advance::Evidence(_),
        ) => None,
    }
}

fn tests(metric: &MetricPolicy) -> usize {
    match metric.rule {
        Rule::Share { relative, absolute, .. } => {
            usize::from(relative.is_some()) + usize::from(absolute.is_some())
        }
        Rule::Mean(_) => 2,
        Rule::Paired { .. } | Rule::Agreement { .. } => 1,
        Rule::Primary { .. } | Rule::Secondary { .. } => 0,
    }
}

const fn tolerance(metric: &MetricPolicy) -> Option<f64> {
    match metric.rule {
        Rule::Share { relative, .. } => relative,
        Rule::Primary { .. }
        | Rule::Secondary { .. }
        | Rule::Mean(_)
        | Rule::Paired { .. }
        | Rule::Agreement { .. } => None,
    }
}

/// A tolerance, and the chance that pods of the same version differ by more.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    tolerance: f64,
    spent: f64,
}

/// `tolerance`, raised until pods of one version differ by more with a chance of at most `budget`. The logarithm of the
/// arms' ratio is Student's t times its standard error, as `pods` were estimated from few.
fn allow_for_pods(tolerance: f64, pods: Option<PodSpread>, budget: f64) -> Allowed {
    let Some(pods) = pods.filter(|pods| pods.sd > 0.0) else { return Allowed { tolerance, spent: 0.0 } };
    let error = pods.sd * (1.0 / f64::from(pods.candidate_pods) + 1.0 / f64::from(pods.stable_pods)).sqrt();
    let spent = t_tail(libm::log(tolerance) / error, pods.degrees);
    if spent <= budget {
        return Allowed { tolerance, spent };
    }
    // A ratio beyond a million is no tolerance but blindness; the power shown to the user says so.
    Allowed { tolerance: libm::exp((error * t_quantile(budget, pods.degrees)).min(13.8)), spent: budget }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(sd: f64, candidate_pods: u32) -> Option<PodSpread> {
        Some(PodSpread { sd, degrees: 8, candidate_pods, stable_pods: 9 })
    }

    #[test]
    fn the_luck_of_pods_raises_the_tolerance_only_where_it_must() {
        let alike = allow_for_pods(1.2, None, 0.025);
        assert_eq!((alike.tolerance, alike.spent), (1.2, 0.0));
        let little = allow_for_pods(1.2, spread(0.05, 1), 0.025);
        assert!(little.tolerance == 1.2 && little.spent < 0.01, "{little:?}");
        // exp(2.306 * 0.3 * sqrt(1 + 1/9))
        let one = allow_for_pods(1.2, spread(0.3, 1), 0.025);
        assert!((one.tolerance - 2.073).abs() < 0.01 && one.spent == 0.025, "{one:?}");
        let three = allow_for_pods(1.2, spread(0.3, 3), 0.025);
        assert!(three.tolerance < 1.6, "{three:?}");
        assert!(allow_for_pods(1.2, spread(1e300, 1), 0.025).tolerance < 1e6);
    }
}
