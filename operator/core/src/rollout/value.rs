//! Value metrics: a user's own PromQL, made to read no other series than those of the version on trial.
//!
//! `query` asks with it, and `plan` asks [`obstacle`] before a version begins its trial. An expression is read by a parser
//! and written anew, so that nothing in it ends a selector early.

use anneal_crds::{
    ModelRolloutSpec,
    metric::{Form, JudgeEvidence, Mean, Metric, Value},
};
use promql_parser::{
    parser::{self, Expr, SubqueryExpr, VectorSelector, value::ValueType},
    util::visitor::{ExprVisitorMut, walk_expr_mut},
};

use super::{
    baseline, labels,
    query::{has_stable_arm, is_compared},
    scope::Scope,
    select::Obstacle,
    steps,
};

/// What stands for the metric's window in an expression.
const WINDOW: &str = "$window";

/// A value's expression, ready to be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scoped {
    /// An instant vector.
    pub(super) expression: String,
    /// The selectors that look at the present, at least one.
    pub(super) selectors: Vec<String>,
}

/// `value` over a window of so many milliseconds, of nothing but `scope`; in a sentence why not, for who wrote it.
pub(super) fn scoped(value: &Value, window_ms: i64, scope: &Scope) -> Result<Scoped, String> {
    let text = value.expression.replace(WINDOW, &format!("{window_ms}ms"));
    let mut expression =
        parser::parse(&text).map_err(|why| format!("its expression is not PromQL: {why}"))?;
    let mut narrow = Narrow { scope, selectors: vec![], of_past: 0 };
    walk_expr_mut(&mut narrow, &mut expression)?;
    let mut selectors = narrow.selectors;
    selectors.sort();
    selectors.dedup();
    if selectors.is_empty() {
        return Err("its expression has no selector that looks at the present".to_owned());
    }
    let expression = match expression.value_type() {
        ValueType::Vector => expression.to_string(),
        ValueType::Scalar => format!("vector({expression})"),
        ValueType::Matrix => return Err("its expression is a range of samples, and not a number".to_owned()),
        ValueType::String => return Err("its expression is a text, and not a number".to_owned()),
    };
    Ok(Scoped { expression, selectors })
}

/// Adds the scope's matchers to every selector.
struct Narrow<'a> {
    scope: &'a Scope,
    /// Those that look at the present.
    selectors: Vec<String>,
    /// How many subqueries of the past this place is in.
    of_past: u32,
}

impl ExprVisitorMut for Narrow<'_> {
    type Error = String;

    fn pre_visit(&mut self, expression: &mut Expr) -> Result<bool, String> {
        match expression {
            Expr::VectorSelector(selector) => self.narrow(selector)?,
            Expr::MatrixSelector(selector) => self.narrow(&mut selector.vs)?,
            Expr::Extension(_) => return Err("its expression is not PromQL".to_owned()),
            // The walk leaves out what stands beside an aggregate's vector, as in `topk(scalar(x), y)`.
            Expr::Aggregate(aggregate) => {
                if let Some(parameter) = &mut aggregate.param {
                    walk_expr_mut(self, parameter)?;
                }
            }
            Expr::Subquery(subquery) if is_of_past(subquery) => self.of_past = self.of_past.saturating_add(1),
            // It reads `target_info` of whatever runs under the same name.
            Expr::Call(call) if call.func.name == "info" => {
                return Err("its expression calls info(), which reads series that nobody names".to_owned());
            }
            Expr::Unary(_)
            | Expr::Binary(_)
            | Expr::Paren(_)
            | Expr::Subquery(_)
            | Expr::NumberLiteral(_)
            | Expr::StringLiteral(_)
            | Expr::Call(_) => {}
        }
        Ok(true)
    }

    fn post_visit(&mut self, expression: &mut Expr) -> Result<bool, String> {
        if let Expr::Subquery(subquery) = expression
            && is_of_past(subquery)
        {
            self.of_past = self.of_past.saturating_sub(1);
        }
        Ok(true)
    }
}

const fn is_of_past(subquery: &SubqueryExpr) -> bool {
    subquery.offset.is_some() || subquery.at.is_some()
}

impl Narrow<'_> {
    fn narrow(&mut self, selector: &mut VectorSelector) -> Result<(), String> {
        if !selector.matchers.or_matchers.is_empty() {
            return Err(
                "its expression has `or` inside a selector, which Prometheus does not know".to_owned()
            );
        }
        let of_past = self.of_past > 0 || selector.offset.is_some() || selector.at.is_some();
        let (name, matchers) = (selector.name.clone(), selector.matchers.clone());
        let scoped = self.scope.apply(&VectorSelector::new(name, matchers).to_string());
        let Expr::VectorSelector(narrowed) = parser::parse(&scoped)? else {
            return Err(format!("its selector {selector} cannot be narrowed"));
        };
        selector.matchers = narrowed.matchers;
        if !of_past {
            self.selectors.push(scoped);
        }
        Ok(())
    }
}

/// Why no version begins a trial: a metric that cannot be asked or has nothing to be compared with, or a step that nothing
/// could be compared in.
pub(super) fn obstacle(spec: &ModelRolloutSpec) -> Option<Obstacle> {
    let anything = Scope::example();
    let wrong = spec.metrics.iter().find_map(|metric| {
        let why = match metric.source.form() {
            Form::Value(value) => scoped(value, metric.window.as_millis(), &anything).err(),
            Form::Drift(_) | Form::Stability(_) => baseline::too_short(spec, metric),
            Form::Mean(mean) => unlimited(spec, mean),
            Form::Ratio(_) | Form::Histogram(_) | Form::Agreement(_) | Form::Paired(_) => None,
        };
        let why = why.or_else(|| labels::uncounted(metric).map(str::to_owned))?;
        Some(format!("Metric {}: {why}. Mend it in spec.metrics.", metric.name))
    });
    let message = wrong.or_else(|| incomparable(spec));
    let metric = message.map(|message| Obstacle { reason: "InvalidMetric", message });
    metric.or_else(|| Some(Obstacle { reason: "InvalidExperiment", message: undecidable(spec)? }))
}

/// Why a mean cannot be compared with stable's, if it cannot. The API server refuses that too.
fn unlimited(spec: &ModelRolloutSpec, mean: &Mean) -> Option<String> {
    let needs = match spec.judge.evidence {
        JudgeEvidence::None => false,
        JudgeEvidence::Sequential => mean.margin.is_none(),
    };
    needs.then(|| {
        "with judge.evidence: sequential it needs margin, how much worse than stable's it may be".to_owned()
    })
}

/// Why an experiment could not be won. The API server refuses most of it, and cannot compare lengths of time.
fn undecidable(spec: &ModelRolloutSpec) -> Option<String> {
    let experiment = spec.strategy.experiment.as_ref()?;
    let of = |name: &String| spec.metrics.iter().find(|metric| metric.name == *name);
    if spec.judge.evidence == JudgeEvidence::None {
        return Some(
            "strategy.experiment needs judge.evidence: sequential. Set it, or remove the experiment."
                .to_owned(),
        );
    }
    if experiment.shortest() > experiment.duration {
        return Some(format!(
            "strategy.experiment.minDuration is {} and duration {}, so no candidate could win. Shorten the former.",
            experiment.shortest(),
            experiment.duration
        ));
    }
    let uncounted = experiment.metrics().find(|name| !of(name).is_some_and(is_share))?;
    Some(format!(
        "strategy.experiment names {uncounted}, which is no ratio and no histogram: only counted events show which version is better. Name another metric."
    ))
}

/// Whether a metric is made of events that are bad or not.
fn is_share(metric: &Metric) -> bool {
    match metric.source.form() {
        Form::Ratio(_) | Form::Histogram(_) => true,
        Form::Mean(_)
        | Form::Value(_)
        | Form::Drift(_)
        | Form::Stability(_)
        | Form::Agreement(_)
        | Form::Paired(_) => false,
    }
}

/// Whether it counts every request of both versions. Of answers in shadow only some are compared.
fn counts_all(metric: &Metric) -> bool {
    is_compared(metric) && has_stable_arm(metric)
}

/// Values are not compared with stable's, and labels are no requests: a step that has nothing else would be judged by no
/// request at all.
fn incomparable(spec: &ModelRolloutSpec) -> Option<String> {
    match spec.judge.evidence {
        JudgeEvidence::None => return None,
        JudgeEvidence::Sequential => {}
    }
    let is_compared = |trigger: &String| {
        let metric = spec.metrics.iter().find(|metric| metric.name == *trigger);
        metric.is_none_or(|metric| counts_all(metric) && metric.labels().is_none())
    };
    let list = steps::trigger_lists(&spec.strategy).find(|list| !list.iter().any(is_compared))?;
    Some(format!(
        "With judge.evidence sequential a step needs a trigger that is a ratio, a mean or a histogram without labelDelay, and [{}] has none. Add one, or take evidence none.",
        list.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(expression: &str) -> Result<Scoped, String> {
        let value = Value { expression: expression.to_owned(), requests: None, max: Some(1.0), min: None };
        scoped(&value, 300_000, &Scope::example())
    }

    #[test]
    fn every_selector_is_narrowed_and_the_window_takes_its_place() {
        let cases = [
            (
                "avg_over_time(accuracy[$window])",
                r#"avg_over_time(accuracy{model="m",namespace="n",version="v"}[5m])"#,
            ),
            (
                r#"min(x{site=~"a|b"}) - on () avg_over_time(x[$window] offset 1w)"#,
                r#"min(x{model="m",namespace="n",site=~"a|b",version="v"}) - on () avg_over_time(x{model="m",namespace="n",version="v"}[5m] offset 1w)"#,
            ),
            ("scalar(x) + 1", r#"vector(scalar(x{model="m",namespace="n",version="v"}) + 1)"#),
            (
                r#"max_over_time(rate(x{a="}",}[1m])[$window:10s])"#,
                r#"max_over_time(rate(x{a="}",model="m",namespace="n",version="v"}[1m])[5m:10s])"#,
            ),
            (r#"{__name__="x"}"#, r#"{__name__="x",model="m",namespace="n",version="v"}"#),
            (
                "topk(scalar(y), x) + quantile(scalar(max(y)), x)",
                r#"topk(scalar(y{model="m",namespace="n",version="v"}), x{model="m",namespace="n",version="v"}) + quantile(scalar(max(y{model="m",namespace="n",version="v"})), x{model="m",namespace="n",version="v"})"#,
            ),
            (r#"x{version="other"}"#, r#"x{model="m",namespace="n",version="other",version="v"}"#),
        ];
        for (expression, wanted) in cases {
            assert_eq!(read(expression).unwrap().expression, wanted, "{expression}");
        }
    }

    #[test]
    fn what_is_of_the_past_says_nothing_about_freshness() {
        let selectors =
            read("x - x offset 1d - max_over_time(z[1h:1m] offset 1d) - y{a=\"b\"} + x").unwrap().selectors;
        assert_eq!(selectors, [Scope::example().apply("x"), Scope::example().apply("y{a=\"b\"}")]);
    }

    #[test]
    fn nesting_as_deep_as_the_schema_allows_is_read() {
        for (open, close) in [("(", ")"), ("-", ""), ("abs(", ")"), ("x-(", ")")] {
            let room = (2048 - "x{$window}".len()) / (open.len() + close.len());
            let text = format!("{}x{}", open.repeat(room), close.repeat(room));
            assert!(read(&text).is_ok(), "{open}");
        }
    }

    #[test]
    fn what_is_no_number_of_the_present_is_told() {
        let cases = [
            ("sum(", "not PromQL"),
            ("x} or y{", "not PromQL"),
            ("x[$window]", "a range of samples"),
            ("\"text\"", "no selector"),
            ("vector(1)", "no selector"),
            ("x offset 5m", "no selector"),
            ("max_over_time(x[1h:1m] offset 1d)", "no selector"),
            ("max_over_time((max_over_time(x[1h:1m] offset 1d) + x)[1h:1m] @ 7)", "no selector"),
            ("info(x)", "calls info()"),
            ("x{a=\"1\" or b=\"2\"}", "`or` inside a selector"),
        ];
        for (expression, why) in cases {
            let said = read(expression).unwrap_err();
            assert!(said.contains(why), "{expression}: {said}");
        }
    }
}
