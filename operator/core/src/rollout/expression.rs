//! Expressions: the PromQL that brings everything that a verdict on one metric needs, so that its parts are of one moment.
//!
//! Written for `query`, and read again by `reading`.

use anneal_crds::{
    contract::{Alone, COMPARED, PAIRED},
    metric::{Absent, Form, JudgeEvidence, Metric, Others, Ratio},
};

use super::{agreement, scope::Scope, value};

/// Label that tells the parts of an answer apart.
pub(super) const PART: &str = "anneal_part";

/// Label that tells the values of one part apart.
pub(super) const KEY: &str = "anneal_key";

/// The part that has a number for each bucket of a histogram.
pub(super) const BUCKET: &str = "bucket";

/// The part that has a number for each bucket or rank.
pub(super) const KEYED: &str = "keyed";

/// One part of an answer.
fn part(name: &str, vector: &str) -> String {
    format!("label_replace({vector}, \"{PART}\", \"{name}\", \"\", \"\")")
}

/// How far back an expression may look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges {
    /// Since what is counted of the step began to come, in seconds, at least 1.
    pub(super) step_seconds: i64,
    /// Since the trial began, in milliseconds, at least 1: no window is longer.
    pub(super) longest_ms: i64,
}

/// The value of `metric` over its window, its requests since the step began, and when the newest sample was scraped; else why
/// it cannot be asked.
pub(super) fn expression(metric: &Metric, scope: &Scope, ranges: Ranges) -> Result<String, String> {
    let window = metric.window.as_millis().min(ranges.longest_ms);
    let (window_range, step_range) = (format!("{window}ms"), format!("{}s", ranges.step_seconds));
    let parts = match metric.source.form() {
        Form::Ratio(ratio) => {
            let over = |range: &str| counts(&ratio, scope, range);
            let ((bad, total), (_, step)) = (over(&window_range), over(&step_range));
            let newest = newest(&ratio, scope);
            vec![part("bad", &bad), part("total", &total), part("step", &step), part("at", &newest)]
        }
        Form::Mean(mean) => {
            let (sum, count) = (scope.apply(&mean.sum), scope.apply(&mean.count));
            let over = |name: &str, counter: &str| part(name, &increase(counter, &window_range));
            // A sum that falls where its count does not is no restart, though `increase` takes it for one.
            let resets = |counter: &str| format!("sum(resets({counter}[{window_range}]))");
            let fell = format!("{} - {}", resets(&sum), resets(&count));
            vec![
                over("sum", &sum),
                over("count", &count),
                part("fell", &fell),
                part("step", &increase(&count, &step_range)),
                part("at", &stalest(&[sum, count])),
            ]
        }
        Form::Histogram(histogram) => {
            let buckets = scope.apply(&histogram.selector);
            vec![
                part(BUCKET, &format!("sum by (le) (increase({buckets}[{window_range}]))")),
                part("step", &increase(&with_all(&buckets), &step_range)),
                part("at", &format!("max(timestamp({buckets}))")),
            ]
        }
        Form::Value(value) => {
            let value::Scoped { expression, selectors } = value::scoped(value, window, scope)?;
            let requests = value.requests.as_ref().map(|requests| scope.apply(requests));
            let step = requests.map(|requests| part("step", &increase(&requests, &step_range)));
            [part("value", &expression), part("at", &stalest(&selectors))].into_iter().chain(step).collect()
        }
        Form::Drift(drift) => {
            let buckets = scope.apply(&drift.buckets);
            let step = part("step", &increase(&with_all(&buckets), &step_range));
            let newest = part("at", &format!("max(timestamp({buckets}))"));
            keyed(metric, scope, &window_range, "").into_iter().chain([step, newest]).collect()
        }
        Form::Stability(stability) => {
            let newest = part("at", &format!("max(timestamp({}))", scope.apply(&stability.gauge)));
            keyed(metric, scope, &window_range, "").into_iter().chain([newest]).collect()
        }
        Form::Agreement(_) => versus(COMPARED, scope, &window_range, &step_range),
        Form::Paired(_) => versus(PAIRED, scope, &window_range, &step_range),
    };
    Ok(parts.join(" or "))
}

/// Requests that came over a range of `seconds`, as a part of this name; none of a metric that counts none.
pub(super) fn requests(
    evidence: JudgeEvidence,
    metric: &Metric,
    scope: &Scope,
    seconds: i64,
    name: &str,
) -> Option<String> {
    let range = format!("{seconds}s");
    let count = match metric.source.form() {
        // Who has had none of one kind has had those of the other.
        Form::Ratio(ratio) => counts(&Ratio { absent: Absent::Zero, ..ratio.into_owned() }, scope, &range).1,
        Form::Mean(mean) => increase(&scope.apply(&mean.count), &range),
        Form::Histogram(histogram) => {
            let buckets = scope.apply(&histogram.selector);
            let classic = increase(&with_all(&buckets), &range);
            if evidence == JudgeEvidence::Sequential && may_be_native(&histogram.selector) {
                // It has no bucket of all. Not every server knows how to count it, and those that do not have none.
                format!("({classic} or sum(histogram_count(increase({buckets}[{range}]))))")
            } else {
                classic
            }
        }
        Form::Value(_) | Form::Drift(_) | Form::Stability(_) | Form::Agreement(_) | Form::Paired(_) => {
            return None;
        }
    };
    Some(part(name, &count))
}

/// Whether a selector is not of classic buckets by its name.
fn may_be_native(selector: &str) -> bool {
    !selector.split('{').next().unwrap_or_default().trim_end().ends_with("_bucket")
}

/// Counts of what is so of the candidate alone, of the stable version alone, and of all that `counter` counts.
fn versus(counter: &str, scope: &Scope, window: &str, step: &str) -> Vec<String> {
    let all = scope.apply(counter);
    let alone =
        |who: Alone| part(who.name(), &increase(&scope.apply(&agreement::alone(counter, who)), window));
    vec![
        alone(Alone::Candidate),
        alone(Alone::Stable),
        part("total", &increase(&all, window)),
        part("step", &increase(&all, step)),
        part("at", &format!("max(timestamp({all}))")),
    ]
}

fn increase(scoped: &str, range: &str) -> String {
    format!("sum(increase({scoped}[{range}]))")
}

/// When the newest sample was scraped of the one that is stalest, among the selectors that have a series at all.
fn stalest(scoped: &[String]) -> String {
    let newest = scoped.iter().enumerate();
    let newest =
        newest.map(|(index, selector)| part(&index.to_string(), &format!("max(timestamp({selector}))")));
    format!("min({})", newest.collect::<Vec<_>>().join(" or "))
}

/// A number for each bucket of a drift, or for each rank of a stability, over a range that ends `at`.
pub(super) fn keyed(metric: &Metric, scope: &Scope, range: &str, at: &str) -> Option<String> {
    let values = match metric.source.form() {
        Form::Drift(drift) => format!("sum by (le) (increase({}[{range}]{at}))", scope.apply(&drift.buckets)),
        Form::Stability(stability) => {
            let (gauge, by) = (scope.apply(&stability.gauge), &stability.by);
            format!(
                "label_replace(avg by ({by}) (avg_over_time({gauge}[{range}]{at})), \"{KEY}\", \"$1\", \"{by}\", \"(.*)\")"
            )
        }
        Form::Ratio(_)
        | Form::Mean(_)
        | Form::Histogram(_)
        | Form::Value(_)
        | Form::Agreement(_)
        | Form::Paired(_) => {
            return None;
        }
    };
    Some(part(KEYED, &values))
}

/// Bad events and all events over a range. A counter that may be absent is zero as long as the other one is there.
fn counts(ratio: &Ratio, scope: &Scope, range: &str) -> (String, String) {
    let bad = increase(&scope.apply(&ratio.bad), range);
    let or_zero = |counter: &str, other: &str| match ratio.absent {
        Absent::Missing => counter.to_owned(),
        Absent::Zero => format!("({counter} or 0 * {other})"),
    };
    match &ratio.others {
        Others::Total(total) => {
            let total = increase(&scope.apply(total), range);
            (or_zero(&bad, &total), total)
        }
        Others::Good(good) => {
            let good = increase(&scope.apply(good), range);
            let bad_or_zero = or_zero(&bad, &good);
            let total = format!("{} + {bad_or_zero}", or_zero(&good, &bad));
            (bad_or_zero, total)
        }
    }
}

/// When the newest of a ratio's events were scraped.
fn newest(ratio: &Ratio, scope: &Scope) -> String {
    match &ratio.others {
        Others::Total(total) => format!("max(timestamp({}))", scope.apply(total)),
        Others::Good(good) => {
            let (good, bad) = (scope.apply(good), scope.apply(&ratio.bad));
            format!("max(timestamp({good}) or timestamp({bad}))")
        }
    }
}

/// The scoped selector, of the bucket that counts everything.
fn with_all(scoped: &str) -> String {
    format!("{},le=\"+Inf\"}}", scoped.trim_end_matches('}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_everything_in_its_last_bucket() {
        assert_eq!(
            with_all(&Scope::example().apply("b")),
            "b{model=\"m\",version=\"v\",namespace=\"n\",le=\"+Inf\"}"
        );
    }
}
