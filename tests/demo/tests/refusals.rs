//! Bad input on a real API server: refused at `kubectl apply` with field and reason, or told in a condition with the next
//! step.

mod common;

use common::{Kubectl, Namespace, example, reason_in, with, without};
use serde_json::{Value, json};

#[test]
fn every_example_is_accepted() {
    let home = Namespace::new("anneal-examples");
    for file in [
        "retrainjob-first.yaml",
        "retrainjob.yaml",
        "modelrollout.yaml",
        "demo/modelrollout.yaml",
        "demo/retrainjob-flipped.yaml",
        "demo/retrainjob-again.yaml",
        "demo/retrainjob-faulty.yaml",
        "gateway.yaml",
        "storage.yaml",
    ] {
        Kubectl::apply(home.0, &example(file), true).unwrap();
    }
}

#[test]
fn models_may_lie_at_the_root_of_the_volume() {
    let home = Namespace::new("anneal-root");
    let job = with(example("retrainjob.yaml"), "/spec/output/uri", json!("file:///var/lib/anneal"));
    Kubectl::apply(home.0, &job, true).unwrap();
}

/// The example's rollout with autoscalers.
fn autoscaling(autoscaling: Value) -> Value {
    with(example("modelrollout.yaml"), "/spec/serving/autoscaling", autoscaling)
}

/// The example's rollout with a list of steps.
fn steps(steps: Value) -> Value {
    with(without(example("modelrollout.yaml"), "/spec/strategy/canary"), "/spec/strategy/steps", steps)
}

/// The example's rollout with a value as its first metric.
fn value(value: Value) -> Value {
    with(without(example("modelrollout.yaml"), "/spec/metrics/0/ratio"), "/spec/metrics/0/value", value)
}

/// The example's rollout with a mean as its first metric, and this evidence.
fn mean(evidence: &str, mean: Value) -> Value {
    let metric =
        with(without(example("modelrollout.yaml"), "/spec/metrics/0/ratio"), "/spec/metrics/0/mean", mean);
    with(metric, "/spec/judge", json!({"evidence": evidence}))
}

#[test]
fn a_mean_is_accepted_with_and_without_a_comparison() {
    let home = Namespace::new("anneal-means");
    let absolute = json!({"sum": "absolute_error_sum", "count": "absolute_error_count", "max": 0.3});
    let reward = json!({"sum": "reward_sum", "count": "reward_count", "min": -0.5, "margin": 0});
    let squared = json!({"sum": "e_sum{kind=\"late\"}", "count": "e_count", "max": 1, "margin": 0.25});
    let late = with(mean("sequential", squared), "/spec/metrics/0/labelDelay", json!("1h"));
    for rollout in [mean("none", absolute), mean("sequential", reward), late] {
        Kubectl::apply(home.0, &rollout, true).unwrap();
    }
}

/// The example's rollout with a comparison of answers, which these lists of its shadow name.
fn compared(form: Value, shadow: &Value) -> Value {
    let mut rollout = example("modelrollout.yaml");
    let mut metric = form;
    (metric["name"], metric["window"]) = ("answers".into(), "10m".into());
    rollout["spec"]["metrics"].as_array_mut().into_iter().for_each(|all| all.push(metric.clone()));
    for (list, names) in shadow.as_object().into_iter().flatten() {
        rollout["spec"]["strategy"]["shadow"][list] = names.clone();
    }
    rollout
}

#[test]
fn answers_are_compared_in_shadow_and_nowhere_else() {
    let home = Namespace::new("anneal-compared");
    let named = json!({"rollbackTriggers": ["error_rate", "answers"]});
    let warned = json!({"warnTriggers": ["answers"]});
    let agreement = json!({"agreement": {"min": 0.95}});
    let paired = |max: f64| json!({"paired": {"max": max}});
    let sequential = |rollout| with(rollout, "/spec/judge", json!({"evidence": "sequential"}));
    for rollout in [
        compared(agreement.clone(), &named),
        compared(agreement.clone(), &warned),
        compared(paired(0.6), &named),
        sequential(compared(json!({"paired": {}}), &named)),
    ] {
        Kubectl::apply(home.0, &rollout, true).unwrap();
    }
    let mut twice = compared(agreement.clone(), &named);
    let mut second = twice["spec"]["metrics"].as_array().unwrap().last().unwrap().clone();
    second["name"] = "more".into();
    twice["spec"]["metrics"].as_array_mut().unwrap().push(second);
    twice["spec"]["strategy"]["shadow"]["rollbackTriggers"] = json!(["answers", "more"]);
    let everywhere = with(
        compared(agreement.clone(), &named),
        "/spec/strategy/rollbackTriggers",
        json!(["error_rate", "answers"]),
    );
    let baked = with(
        compared(agreement.clone(), &named),
        "/spec/strategy/bake",
        json!({"duration": "1d", "rollbackTriggers": ["answers"]}),
    );
    let in_shadow = "agreement and paired are measured in shadow";
    for (rollout, said) in [
        (compared(agreement.clone(), &json!({})), in_shadow),
        (everywhere, in_shadow),
        (baked, in_shadow),
        (twice, "only one metric may be an agreement"),
        (compared(paired(0.5), &named), "a paired metric that is compared as it is"),
        (sequential(compared(paired(0.5), &warned)), "a paired metric that is compared as it is"),
        (
            compared(agreement, &json!({"rollbackTriggers": ["nobody"]})),
            "strategy.shadow.rollbackTriggers names a metric",
        ),
    ] {
        let refusal = Kubectl::apply(home.0, &rollout, true).expect_err(said);
        assert!(refusal.contains(said), "expected `{said}` in: {refusal}");
    }
}

#[test]
fn what_a_users_route_leads_to_stays_when_the_rollout_goes() {
    let home = Namespace::new("anneal-policies");
    let gateway = || with(example("modelrollout.yaml"), "/spec/deletionPolicy", json!("Delete"));
    Kubectl::apply(home.0, &gateway(), true).unwrap();
    let attached = with(gateway(), "/spec/traffic", json!({"attach": {"route": "shop"}}));
    let refusal = Kubectl::apply(home.0, &attached, true).unwrap_err();
    assert!(refusal.contains("deletionPolicy: Delete is for traffic.gateway"), "{refusal}");
}

#[test]
fn every_weight_with_one_decimal_is_accepted() {
    let home = Namespace::new("anneal-weights");
    for first in (1..=1000).step_by(100) {
        let step = |weight: i32| json!({"weight": f64::from(weight) / 10.0, "duration": "1h"});
        let list: Vec<Value> = (first..first + 100).map(step).collect();
        Kubectl::apply(home.0, &steps(list.into()), true).unwrap();
    }
}

#[test]
fn a_wrong_object_is_refused_with_field_and_reason() {
    let home = Namespace::new("anneal-refusals");
    let job = || example("retrainjob.yaml");
    let rollout = || example("modelrollout.yaml");
    let night = || json!({"name": "night", "schedule": "0 2 * * *", "duration": "4h"});
    let freeze = |schedule: &str, duration: &str, zone: &str| {
        let freeze = json!([{"name": "night", "schedule": schedule, "duration": duration, "timeZone": zone}]);
        with(rollout(), "/spec/strategy/freezes", freeze)
    };
    let cases = [
        (without(job(), "/spec/model"), "spec.model"),
        (with(job(), "/spec/modle", json!("x")), "spec.modle"),
        (with(job(), "/spec/model", json!("Car Loan")), "spec.model"),
        (
            with(job(), "/spec/gates", json!([{"value": {"metric": "accuracy", "min": 0.8}}])),
            "gates must contain ironLaw",
        ),
        (
            with(job(), "/spec/gates/1/value", json!({"metric": "accuracy"})),
            "a value gate needs min, max or both",
        ),
        (
            with(job(), "/spec/gates/1/value", json!({"metric": "beauty", "min": 1.0})),
            "spec.gates[1].value.metric",
        ),
        (
            with(job(), "/spec/data/split", json!({"validationFraction": 0.1, "key": "id"})),
            "exactly one of validation",
        ),
        (without(job(), "/spec/data/validation"), "exactly one of validation"),
        (with(job(), "/spec/data/train/uri", json!("data.parquet")), "spec.data.train.uri"),
        (with(job(), "/spec/data/train/uri", json!("s3://b/t.parquet")), "storage must hold every uri"),
        (with(job(), "/spec/output/uri", json!("file:///var/lib/anneals")), "storage must hold every uri"),
        (with(job(), "/spec/output/uri", json!("file:///elsewhere/models")), "storage must hold every uri"),
        (
            with(
                with(job(), "/spec/storage/persistentVolumeClaim/mountPath", json!("/tmp")),
                "/spec/output/uri",
                json!("file:///tmp/models"),
            ),
            "mountPath must not",
        ),
        (with(job(), "/spec/data/exclude", json!(["id", "repaid"])), "exclude must not contain target"),
        (
            with(
                without(job(), "/spec/data/validation"),
                "/spec/data/split",
                json!({"validationFraction": 0.1, "key": "driver"}),
            ),
            "split.key must be listed in exclude",
        ),
        (with(job(), "/spec/training/epochs", json!(0)), "spec.training.epochs"),
        (with(job(), "/spec/training/dropout", json!(1.0)), "spec.training.dropout"),
        (with(job(), "/spec/checkpoint/every", json!("soon")), "spec.checkpoint.every"),
        (with(job(), "/spec/failurePolicy/activeDeadline", json!("1w")), "spec.failurePolicy.activeDeadline"),
        (with(job(), "/spec/failurePolicy/activeDeadline", json!("0s")), "must be above zero"),
        (with(rollout(), "/spec/metrics/0/window", json!("00ms")), "must be above zero"),
        (with(job(), "/metadata/name", json!("a".repeat(53))), "at most 52 characters"),
        (
            with(
                with(job(), "/spec/baseline/whenMissing", json!("Bootstrap")),
                "/spec/gates",
                json!([{"ironLaw": {}}]),
            ),
            "needs a required value gate",
        ),
        (
            with(rollout(), "/spec/strategy/rollbackTriggers", json!(["eror_rate"])),
            "names a metric that metrics does not define",
        ),
        (with(rollout(), "/spec/traffic/attach", json!({"route": "shop"})), "spec.traffic"),
        (with(rollout(), "/spec/judge/evidence", json!("bayes")), "spec.judge.evidence"),
        (without(rollout(), "/spec/judge"), "spec.judge"),
        (with(rollout(), "/spec/strategy/canary/initial", json!(0)), "spec.strategy.canary.initial"),
        (with(rollout(), "/spec/strategy/canary/max", json!(5)), "initial must not be above max"),
        (
            with(rollout(), "/spec/metrics/1/histogram/quantile", json!(95)),
            "quantile must lie between 0 and 1",
        ),
        (with(rollout(), "/spec/metrics/0/ratio/max", json!(1.5)), "spec.metrics[0].ratio.max"),
        (with(rollout(), "/spec/metrics/0/ratio/bad", json!("rate(x[5m])")), "spec.metrics[0].ratio.bad"),
        (with(rollout(), "/spec/metrics/0/ratio/bad", json!("a{} or b{}")), "spec.metrics[0].ratio.bad"),
        (without(rollout(), "/spec/metrics/0/ratio/total"), "spec.metrics[0].ratio"),
        (with(rollout(), "/spec/metrics/0/ratio/good", json!("b")), "spec.metrics[0].ratio"),
        (
            with(rollout(), "/spec/strategy/warnTriggers", json!(["speed"])),
            "strategy.warnTriggers names a metric",
        ),
        (
            with(
                without(rollout(), "/spec/metrics/0/ratio"),
                "/spec/metrics/0/drift",
                json!({"buckets": "b", "max": 0.1}),
            ),
            "are measured in a bake",
        ),
        (with(rollout(), "/spec/metrics/0/errors", json!({"of": "Triton", "max": 0.1})), "spec.metrics[0]"),
        (with(rollout(), "/spec/metrics/0/minLabels", json!(5)), "minLabels needs labelDelay"),
        (with(rollout(), "/spec/metrics/0/labelDelay", json!("soon")), "spec.metrics[0].labelDelay"),
        (
            with(
                value(json!({"expression": "avg(accuracy[$window])", "min": 0.8})),
                "/spec/metrics/0/labelDelay",
                json!("1h"),
            ),
            "a value with labelDelay needs requests",
        ),
        (
            with(
                with(
                    without(rollout(), "/spec/metrics/0/ratio"),
                    "/spec/metrics/0/errors",
                    json!({"of": "Triton", "max": 0.1}),
                ),
                "/spec/metrics/0/labelDelay",
                json!("1h"),
            ),
            "labelDelay is for events that are known later",
        ),
        (value(json!({"expression": "avg(accuracy)", "min": 0.8})), "must read $window"),
        (mean("none", json!({"sum": "s", "count": "c"})), "spec.metrics[0].mean"),
        (mean("none", json!({"sum": "s", "max": 1.0})), "spec.metrics[0].mean.count"),
        (mean("none", json!({"sum": "s", "count": "c", "max": 1.0, "min": 0.5})), "spec.metrics[0].mean"),
        (mean("none", json!({"sum": "rate(s[5m])", "count": "c", "max": 1.0})), "spec.metrics[0].mean.sum"),
        (
            mean("none", json!({"sum": "s", "count": "c", "max": 1.0, "margin": 0.1})),
            "a mean's margin is for judge.evidence: sequential",
        ),
        (mean("sequential", json!({"sum": "s", "count": "c", "max": 1.0})), "a mean needs margin"),
        (
            mean("sequential", json!({"sum": "s", "count": "c", "max": 1.0, "margin": -0.1})),
            "spec.metrics[0].mean.margin",
        ),
        (
            with(
                mean("none", json!({"sum": "s", "count": "c", "max": 1.0})),
                "/spec/metrics/0/value",
                json!({"expression": "avg(a[$window])", "min": 0.8}),
            ),
            "spec.metrics[0]",
        ),
        (
            with(
                mean("sequential", json!({"sum": "s", "count": "c", "max": 1.0, "margin": 0.1})),
                "/spec/strategy/experiment",
                json!({"split": 50, "duration": "1d", "primary": "error_rate"}),
            ),
            "strategy.experiment.primary must be a ratio",
        ),
        (value(json!({"expression": "avg(accuracy[$window])"})), "a value needs min, max or both"),
        (
            value(json!({"expression": "a[$window]", "min": 0, "requests": "rate(x[5m])"})),
            "spec.metrics[0].value.requests",
        ),
        (with(rollout(), "/spec/prometheus/url", json!("http://p:9090/?x=")), "spec.prometheus.url"),
        (with(rollout(), "/spec/prometheus/url", json!("prometheus:9090")), "spec.prometheus.url"),
        (with(rollout(), "/spec/prometheus/url", json!("http://ann:secret@p:9090")), "spec.prometheus.url"),
        (with(rollout(), "/spec/prometheus/timeout", json!("1m")), "at most 30s"),
        (
            with(rollout(), "/spec/prometheus/headers", json!([{"name": "Authorization", "value": "x"}])),
            "credentials belong in prometheus.auth",
        ),
        (
            with(rollout(), "/spec/prometheus/tls", json!({"clientCertificate": {"secretName": "s"}})),
            "needs an https:// url",
        ),
        (with(rollout(), "/spec/candidate", json!({"version": "latest"})), "spec.candidate.version"),
        (with(rollout(), "/spec/strategy/maxExtraGPUs", json!(0)), "spec.strategy.maxExtraGPUs"),
        (autoscaling(json!({"hpa": {"metrics": [{"type": "Resource"}]}})), "maxReplicas"),
        (autoscaling(json!({"maxReplicas": 9})), "spec.serving.autoscaling"),
        (autoscaling(json!({"maxReplicas": 9, "hpa": {"metrics": []}})), "hpa.metrics"),
        (autoscaling(json!({"maxReplicas": 9, "hpa": {"metrics": [{"resource": {}}]}})), "metrics[0].type"),
        (autoscaling(json!({"maxReplicas": 9, "keda": {"triggers": []}})), "keda.triggers"),
        (
            autoscaling(
                json!({"maxReplicas": 9, "hpa": {"metrics": [{"type": "Resource"}]}, "keda": {"triggers": [{"type": "cpu"}]}}),
            ),
            "spec.serving.autoscaling",
        ),
        (
            with(
                autoscaling(json!({"maxReplicas": 2, "hpa": {"metrics": [{"type": "Resource"}]}})),
                "/spec/serving/replicas",
                json!(3),
            ),
            "autoscaling.maxReplicas must not be below replicas",
        ),
        (steps(json!([])), "spec.strategy.steps"),
        (steps(json!([{"weight": 0, "duration": "1h"}])), "the weight of a step must be above 0"),
        (steps(json!([{"weight": 0.25, "duration": "1h"}])), "a weight has at most one decimal"),
        (steps(json!([{"weight": 100.1, "duration": "1h"}])), "spec.strategy.steps[0].weight"),
        (
            steps(json!([{"weight": 50, "duration": "1h"}, {"weight": 5, "duration": "1h"}])),
            "must rise from step to step",
        ),
        (
            steps(json!([{"weight": 50, "duration": "1h"}, {"weight": 50, "duration": "2h"}])),
            "must rise from step to step",
        ),
        (
            steps(json!([{"weight": 50, "duration": "1h", "rollbackTriggers": ["speed"]}])),
            "of a step names a metric that metrics does not define",
        ),
        (with(rollout(), "/spec/strategy/steps", json!([{"weight": 50, "duration": "1h"}])), "spec.strategy"),
        (without(rollout(), "/spec/strategy/canary"), "spec.strategy"),
        (
            with(rollout(), "/spec/strategy/bake", json!({"duration": "1h", "rollbackTriggers": ["speed"]})),
            "strategy.bake.rollbackTriggers names a metric",
        ),
        (freeze("0 2 * *", "4h", "Etc/UTC"), "spec.strategy.freezes[0].schedule"),
        (freeze("@daily", "4h", "Etc/UTC"), "spec.strategy.freezes[0].schedule"),
        (freeze("0 2 * * *", "0s", "Etc/UTC"), "must be above zero"),
        (freeze("0 2 * * *", "4h", "Europe/"), "spec.strategy.freezes[0].timeZone"),
        (
            with(rollout(), "/spec/strategy/freezes", json!([night(), night()])),
            "strategy.freezes must have different names",
        ),
        (
            with(
                with(
                    without(without(rollout(), "/spec/strategy/canary"), "/spec/strategy/shadow"),
                    "/spec/strategy/blueGreen",
                    json!({"duration": "1h"}),
                ),
                "/spec/strategy/approval",
                json!({"before": "FullTraffic"}),
            ),
            "needs a shadow, an experiment or a step below 100 %",
        ),
        (with(rollout(), "/spec/rollback", json!({"targetVersion": "v20260101.1"})), "spec.rollback.reason"),
        (
            with(rollout(), "/spec/rollback", json!({"targetVersion": "last", "reason": "why"})),
            "spec.rollback.targetVersion",
        ),
    ];
    for (object, said) in cases {
        let refusal = Kubectl::apply(home.0, &object, true).expect_err(said);
        assert!(refusal.contains(said), "expected `{said}` in: {refusal}");
    }
}

#[test]
fn a_run_cannot_be_changed_after_it_was_created() {
    let home = Namespace::new("anneal-immutable");
    Kubectl::apply(home.0, &example("retrainjob.yaml"), false).unwrap();
    let changed = with(example("retrainjob.yaml"), "/spec/training/epochs", json!(99));
    assert!(Kubectl::apply(home.0, &changed, true).unwrap_err().contains("spec is immutable"));
}

#[test]
fn what_is_missing_becomes_a_condition_that_says_what_to_do() {
    let home = Namespace::new("anneal-missing");
    // Without a rollout there is nothing to compare with.
    Kubectl::apply(home.0, &example("retrainjob.yaml"), false).unwrap();
    assert!(home.reason("rtj/car-loan-recent", "BaselineMissing").contains("Create it"));

    let first = |name: &str| with(example("retrainjob-first.yaml"), "/metadata/name", json!(name));
    Kubectl::apply(home.0, &first("no-claim"), false).unwrap();
    assert!(home.reason("rtj/no-claim", "Unschedulable").contains("PersistentVolumeClaim"));

    let in_s3 = |name: &str| {
        let s3 = json!({"s3": {"secretName": "keys", "endpoint": "http://127.0.0.1:9"}});
        let job = with(with(first(name), "/spec/storage", s3), "/spec/output/uri", json!("s3://b/m"));
        let job = with(job, "/spec/data/train/uri", json!("s3://b/train.parquet"));
        with(job, "/spec/data/validation/uri", json!("s3://b/validation.parquet"))
    };
    let no_secret = in_s3("no-secret");
    Kubectl::apply(home.0, &no_secret, false).unwrap();
    assert!(home.reason("rtj/no-secret", "CreateContainerConfigError").contains("Secret"));

    let no_image = with(in_s3("no-image"), "/spec/trainer/image", json!("anneal.test/absent:1"));
    let no_image = with(no_image, "/spec/trainer/imagePullPolicy", json!("Never"));
    Kubectl::apply(home.0, &no_image, false).unwrap();
    assert!(home.reason("rtj/no-image", "ErrImageNeverPull").contains("image"));

    // A rollout without versions says how to get one.
    Kubectl::apply(home.0, &example("modelrollout.yaml"), false).unwrap();
    assert!(home.reason("mro/car-loan", "NoVersion").contains("RetrainJob"));
    let pinned = with(example("modelrollout.yaml"), "/spec/candidate", json!({"version": "v20200101.1"}));
    Kubectl::apply(home.0, &pinned, false).unwrap();
    home.reason("mro/car-loan", "VersionMissing");
}

#[test]
fn a_second_rollout_of_a_model_that_serves_takes_no_version() {
    // Where the demo has just brought a version into production.
    let home = "anneal-demo";
    let second = with(example("demo/modelrollout.yaml"), "/metadata/name", json!("second"));
    Kubectl::apply(home, &second, false).unwrap();
    let said = reason_in(home, "mro/second", "ModelTaken");
    Kubectl::run(&["delete", "mro/second", "-n", home], None).unwrap();
    assert!(said.contains("ModelRollout car-loan"), "{said}");
}
