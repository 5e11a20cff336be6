//! What GitOps tools make of the statuses that plans record: Argo CD by the scripts of `docs/gitops`, in a real Lua; Flux
//! and Helm by kstatus, with the library that they use.
//!
//! kstatus is Go and runs in `cargo xtask test`, which says where the program is in `ANNEAL_TEST_KSTATUS`.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anneal_core::{
    condition::{KState, Writer},
    rollout::{Answer, GatewayState, ProbeAnswer},
};
use anneal_tests::cases::{self, Read, RetrainCase, RolloutCase, child, notice, pod};
use mlua::{Lua, LuaSerdeExt as _};
use serde_json::{Value, json};

/// An object in one situation and what the tools are to say of it.
struct Told {
    what: &'static str,
    object: Value,
    argo: &'static str,
    kstatus: &'static str,
}

fn told(what: &'static str, object: Value, argo: &'static str, kstatus: &'static str) -> Told {
    Told { what, object, argo, kstatus }
}

/// The rollout with the status that the plan records.
fn planned(case: &RolloutCase) -> Value {
    let mut rollout = case.rollout.clone();
    rollout.status = Some(case.plan().status);
    serde_json::to_value(rollout).unwrap()
}

/// The same after the cluster has followed, and nothing happens any more.
fn settled(mut case: RolloutCase) -> Value {
    for _ in 0..4 {
        let plan = case.plan();
        case.perform(&plan.actions);
        case.rollout.status = Some(plan.status);
    }
    planned(&case)
}

fn rollout(status: Value, change: impl FnOnce(&mut RolloutCase)) -> RolloutCase {
    let mut case = RolloutCase::new(status).unwrap();
    change(&mut case);
    case
}

fn rollouts() -> Vec<Told> {
    let healthy = || json!({"observedGeneration": 1, "phase": "Healthy", "stable": cases::reference(1), "trafficAcceptedAt": cases::ago(600)});
    let moving = cases::moving;
    let canary = |change: fn(&mut RolloutCase)| rollout(moving("Canary", 20), change);
    let breach = || canary(|case| case.read = Read::Errors(0.5, 1000.0));
    let few = || canary(|case| case.read = Read::Errors(0.0, 3.0));
    let mut changed = planned(&few());
    changed["metadata"]["generation"] = 2.into();
    let paused = planned(&canary(|case| {
        case.read = Read::Errors(0.0, 3.0);
        case.rollout.spec.paused = true;
    }));
    fn freeze(case: &mut RolloutCase) {
        let noon = json!([{"name": "noon", "schedule": "30 11 * * *", "duration": "1h"}]);
        case.rollout.spec.strategy.freezes = serde_json::from_value(noon).unwrap();
    }
    fn experiment(case: &mut RolloutCase) {
        let own = json!({"duration": "1h", "looks": 2, "minRequests": 20, "primary": "error_rate"});
        case.rollout.spec.strategy.experiment = Some(serde_json::from_value(own).unwrap());
        case.rollout.spec.judge =
            serde_json::from_value(json!({"evidence": "sequential", "maxHold": "1h"})).unwrap();
    }
    let idle = |case: &mut RolloutCase| {
        case.versions.truncate(1);
        freeze(case);
    };
    fn needs_approval(case: &mut RolloutCase) {
        let steps = json!({"steps": [{"weight": 20, "duration": "20s", "then": "Approval"}, {"weight": 50, "duration": "20s"}]});
        case.rollout.spec.strategy.progression = serde_json::from_value(steps).unwrap();
    }
    fn needs_promotion(case: &mut RolloutCase) {
        let steps = json!({"steps": [{"weight": 20, "duration": "20s", "then": "Pause"}, {"weight": 50, "duration": "20s"}]});
        case.rollout.spec.strategy.progression = serde_json::from_value(steps).unwrap();
    }
    let baking = || {
        let mut status = healthy();
        status["phase"] = "Baking".into();
        status["previous"] = cases::reference(7);
        status["stepStartedAt"] = cases::ago(60).into();
        status
    };
    let baked = |case: &mut RolloutCase| {
        let bake = json!({"duration": "14d", "rollbackTriggers": ["error_rate"]});
        case.rollout.spec.strategy.bake = Some(serde_json::from_value(bake).unwrap());
        case.versions.truncate(1);
    };
    let back = json!({"targetVersion": "v20261121.1", "reason": "complaints"});
    let back = move |case: &mut RolloutCase| {
        case.rollout.spec.rollback = Some(serde_json::from_value(back.clone()).unwrap());
    };
    let returning = || {
        let mut status = healthy();
        status["stable"] = cases::reference(2);
        status["history"] = json!([cases::reference(1)]);
        status
    };
    let tested = |case: &mut RolloutCase| {
        let staging = json!({"test": {"job": {"image": "tests:1"}}, "tries": 1});
        case.rollout.spec.strategy.staging = Some(serde_json::from_value(staging).unwrap());
    };
    let test_failed = move |case: &mut RolloutCase| {
        tested(case);
        let actions = case.plan().actions;
        case.perform(&actions);
        let failed =
            json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]});
        case.children.test.as_mut().unwrap()["status"] = failed;
    };
    let smoked = |answer: ProbeAnswer| {
        move |case: &mut RolloutCase| {
            let smoke = json!({"requests": [{"path": "/"}], "tries": 2});
            case.rollout.spec.strategy.smoke = Some(serde_json::from_value(smoke).unwrap());
            case.rollout.status.as_mut().unwrap().smoke =
                serde_json::from_value(json!({"try": 1, "startedAt": cases::ago(1), "state": "Running"}))
                    .unwrap();
            case.settle_children();
            case.probed = answer;
        }
    };
    let (silent, wrong) = (
        ProbeAnswer::Silent("connection refused".into()),
        ProbeAnswer::Answered { status: 500, body: vec![] },
    );
    let strayed = |left: Answer| {
        let mut status = healthy();
        status["strays"] = json!([{"version": "v20261121.2"}]);
        rollout(status, |case| {
            case.versions.truncate(1);
            case.children.deployments = canary(|_| {}).children.deployments;
            case.left = left;
        })
    };
    let unanswered = canary(|case| {
        case.read = Read::Errors(0.5, 1000.0);
        for deployment in &mut case.children.deployments {
            if deployment["metadata"]["name"] == "ads-v20261121-1" {
                deployment["status"]["readyReplicas"] = 0.into();
            }
        }
    });
    let unscheduled = |case: &mut RolloutCase| {
        case.lose_a_pod(2);
        let pod = json!({"metadata": {"name": "a", "labels": {"anneal.dev/version": "v20261121.2"}}, "status": {
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}]}});
        case.children.pods = vec![serde_json::from_value(pod).unwrap()];
    };
    let of_a_later_release = |case: &mut RolloutCase| {
        case.rollout.spec.judge =
            serde_json::from_value(json!({"evidence": "sequential", "maxHold": "1h"})).unwrap();
        case.rollout.status.as_mut().unwrap().judge = Some(json!({"state": {"schema": 99}}));
    };
    let first = || {
        let mut status = baking();
        status["previous"] = Value::Null;
        status
    };
    vec![
        told("a test runs", planned(&rollout(moving("Staging", 0), tested)), "Progressing", "InProgress"),
        told("a test failed", settled(rollout(moving("Staging", 0), test_failed)), "Degraded", "Current"),
        told(
            "smoke requests are not answered yet",
            planned(&rollout(baking(), smoked(silent))),
            "Progressing",
            "InProgress",
        ),
        told(
            "the first version answers wrongly",
            settled(rollout(first(), |case| {
                smoked(wrong)(case);
                case.versions.truncate(1);
            })),
            "Degraded",
            "Failed",
        ),
        told(
            "nothing to serve",
            planned(&rollout(Value::Null, |case| case.versions.clear())),
            "Suspended",
            "Failed",
        ),
        told(
            "the first version is not approved",
            planned(&rollout(Value::Null, |case| {
                case.versions.truncate(1);
                case.versions[0].metadata.annotations = None;
            })),
            "Suspended",
            "Failed",
        ),
        told(
            "pods start",
            planned(&rollout(moving("Preparing", 0), |case| case.lose_a_pod(2))),
            "Progressing",
            "InProgress",
        ),
        told(
            "shadow",
            planned(&rollout(moving("Shadow", 0), |case| case.read = Read::Errors(0.0, 3.0))),
            "Progressing",
            "InProgress",
        ),
        told("canary", planned(&few()), "Progressing", "InProgress"),
        told(
            "canary that cannot be judged",
            planned(&canary(|case| case.read = Read::Silence)),
            "Progressing",
            "InProgress",
        ),
        told(
            "canary without a gateway",
            planned(&canary(|case| {
                case.read = Read::Errors(0.0, 3.0);
                case.gateway = GatewayState::Missing;
            })),
            "Degraded",
            "Failed",
        ),
        told("a person paused it", paused, "Suspended", "InProgress"),
        told("frozen on its way", planned(&canary(freeze)), "Suspended", "InProgress"),
        told("frozen with nothing to do", settled(rollout(healthy(), idle)), "Healthy", "Current"),
        told("a person has to approve it", planned(&canary(needs_approval)), "Suspended", "InProgress"),
        told("a person has to promote it", planned(&canary(needs_promotion)), "Suspended", "InProgress"),
        told("watched after its last step", settled(rollout(baking(), baked)), "Healthy", "Current"),
        told("on its way back by hand", planned(&rollout(returning(), &back)), "Progressing", "InProgress"),
        told(
            "back by hand",
            settled(canary(|case| {
                let target = json!({"targetVersion": "v20261121.1", "reason": "complaints"});
                case.rollout.spec.rollback = Some(serde_json::from_value(target).unwrap());
            })),
            "Healthy",
            "Current",
        ),
        told(
            "in its experiment",
            planned(&rollout(moving("Experiment", 50), experiment)),
            "Progressing",
            "InProgress",
        ),
        told("just promoted", planned(&rollout(moving("Canary", 100), |_| {})), "Progressing", "InProgress"),
        told("serving", settled(rollout(healthy(), |case| case.versions.truncate(1))), "Healthy", "Current"),
        told("just rolled back", planned(&breach()), "Degraded", "InProgress"),
        told("rolled back", settled(breach()), "Degraded", "Current"),
        told(
            "taken back by a person",
            settled(canary(|case| case.versions.truncate(1))),
            "Healthy",
            "Current",
        ),
        told("the spec has changed since", changed, "Progressing", "InProgress"),
        told("a version that left is asked", planned(&strayed(cases::left(500.0))), "Degraded", "Failed"),
        told(
            "nobody knows whether a version that left is asked",
            planned(&strayed(Answer::Unreachable("connection refused".into()))),
            "Healthy",
            "Current",
        ),
        told("a rollback waits until somebody answers", planned(&unanswered), "Degraded", "Failed"),
        told(
            "pods find no place",
            planned(&rollout(moving("Preparing", 0), unscheduled)),
            "Degraded",
            "Failed",
        ),
        told(
            "a later release judged before",
            planned(&canary(of_a_later_release)),
            "Progressing",
            "InProgress",
        ),
        told("refused by the API server", refused(), "Degraded", "Failed"),
        told("new", unseen("modelrollouts", planned(&few())), "Progressing", "InProgress"),
    ]
}

/// What the shell writes when the API server says no.
fn refused() -> Value {
    let mut case = rollout(cases::moving("Canary", 20), |_| {});
    let status = case.rollout.status.as_mut().unwrap();
    Writer { conditions: &mut status.conditions, generation: Some(1), now: case.now }.set_kstatus(
        KState::Stalled,
        "Refused",
        "apply Deployment n/d was refused: quota.",
    );
    serde_json::to_value(case.rollout).unwrap()
}

/// The object as the API server stores it when it is created, by the chart's definition.
fn unseen(plural: &str, mut object: Value) -> Value {
    let text =
        fs::read_to_string(root().join(format!("charts/anneal/templates/crds/{plural}.yaml"))).unwrap();
    let plain: Vec<&str> = text.lines().filter(|line| !line.starts_with("{{-")).collect();
    let crd: Value = serde_saphyr::from_str(&plain.join("\n").replace("{{ \"{{\" }}", "{{")).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    object["status"] = schema["default"].clone();
    object
}

fn runs() -> Vec<Told> {
    let object = |case: &RetrainCase| {
        let mut job = case.job.clone();
        job.status = Some(case.plan().status);
        serde_json::to_value(job).unwrap()
    };
    let run = |change: &dyn Fn(&mut RetrainCase)| {
        let mut case = RetrainCase::new(RetrainCase::training()).unwrap();
        case.child = Some(child("ads-1", cases::UID, None).unwrap());
        case.pods = vec![pod("ads-1", 0, None).unwrap()];
        change(&mut case);
        object(&case)
    };
    let ended = |loss: f64| {
        run(&|case| {
            case.child = Some(child("ads-1", cases::UID, Some(("Complete", "CompletionsReached"))).unwrap());
            case.pods = vec![pod("ads-1", 0, Some((0, &notice(cases::UID, loss, 1)))).unwrap()];
        })
    };
    let mut missing = RetrainCase::new(Value::Null).unwrap();
    missing.rollout = None;
    let failed = run(&|case| {
        case.child = Some(child("ads-1", cases::UID, Some(("Failed", "PodFailurePolicy"))).unwrap());
        case.pods = vec![pod("ads-1", 0, Some((2, "no such column"))).unwrap()];
    });
    let suspended = run(&|case| {
        let spec = json!({"suspend": true, "template": {}});
        case.child.as_mut().unwrap().spec = Some(serde_json::from_value(spec).unwrap());
        case.pods.clear();
    });
    let recorded = {
        let mut case =
            RetrainCase::new(serde_json::from_value(ended(0.4)["status"].clone()).unwrap()).unwrap();
        for _ in 0..2 {
            let plan = case.plan();
            case.version = plan.actions.iter().find_map(version_of).or(case.version);
            case.job.status = Some(plan.status);
        }
        object(&case)
    };
    vec![
        told("its baseline is missing", object(&missing), "Degraded", "Failed"),
        told("training", run(&|_| {}), "Progressing", "InProgress"),
        told("put off by a queue", suspended, "Suspended", "InProgress"),
        told("registering", ended(0.4), "Progressing", "InProgress"),
        told("succeeded", recorded, "Healthy", "Current"),
        told("rejected by its gates", ended(0.6), "Healthy", "Current"),
        told("failed", failed, "Degraded", "Failed"),
        told("new", unseen("retrainjobs", run(&|_| {})), "Progressing", "InProgress"),
    ]
}

fn version_of(action: &anneal_core::plan::Action) -> Option<anneal_crds::ModelVersion> {
    match action {
        anneal_core::plan::Action::Create(object) => serde_json::from_value(object.body.clone()).ok(),
        anneal_core::plan::Action::Apply(_)
        | anneal_core::plan::Action::Patch(_)
        | anneal_core::plan::Action::Delete { .. } => None,
    }
}

fn records() -> Vec<Told> {
    let record = |baseline, annotation: Option<&str>| {
        let mut version = serde_json::to_value(cases::version(1, baseline).unwrap()).unwrap();
        version["metadata"]["annotations"] = json!({"anneal.dev/approved-by": annotation});
        version
    };
    vec![
        told("passed its gates", record(Some(7), None), "Healthy", "Current"),
        told("the first one, approved", record(None, Some("ann")), "Healthy", "Current"),
        told("the first one", record(None, None), "Suspended", "Current"),
        told("the first one, approved by nobody", record(None, Some(" ")), "Suspended", "Current"),
    ]
}

fn all() -> Vec<Told> {
    rollouts().into_iter().chain(runs()).chain(records()).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What Argo CD's script says: it finds the object in `obj` and returns `status` and `message`.
fn argo(object: &Value) -> (String, String) {
    let kind = object["kind"].as_str().unwrap();
    let path = root().join(format!("docs/gitops/argocd/anneal.dev/{kind}/health.lua"));
    let lua = Lua::new();
    // What is null in a live object is not there.
    let plain = mlua::serde::ser::Options::new().serialize_none_to_null(false).serialize_unit_to_null(false);
    lua.globals().set("obj", lua.to_value_with(object, plain).unwrap()).unwrap();
    let health: mlua::Table = lua.load(fs::read_to_string(path).unwrap()).eval().unwrap();
    (health.get("status").unwrap(), health.get("message").unwrap())
}

#[test]
fn argo_cd_sees_what_happens() {
    let mut phases = BTreeSet::new();
    for Told { what, object, argo: wanted, .. } in all() {
        let (status, message) = argo(&object);
        assert_eq!(status, wanted, "{} {what}: {message}", object["kind"]);
        assert!(!message.is_empty(), "{what}");
        phases.insert(format!("{} {}", object["kind"], object["status"]["phase"]));
    }
    for phase in [
        "Pending",
        "Preparing",
        "Staging",
        "Shadow",
        "Experiment",
        "Canary",
        "Baking",
        "RollingBack",
        "Healthy",
        "RolledBack",
    ] {
        assert!(phases.contains(&format!("\"ModelRollout\" \"{phase}\"")), "{phase} has no case");
    }
    for phase in ["Pending", "Training", "Registering", "Succeeded", "Rejected", "Failed"] {
        assert!(phases.contains(&format!("\"RetrainJob\" \"{phase}\"")), "{phase} has no case");
    }
}

#[test]
fn a_status_that_the_api_server_made_decides_as_none_does() {
    let made = |plural| unseen(plural, json!({}))["status"].clone();
    let [of_none, of_made] =
        [Value::Null, made("modelrollouts")].map(|status| RolloutCase::new(status).unwrap().plan());
    assert_eq!(of_none, of_made);
    let [of_none, of_made] =
        [Value::Null, made("retrainjobs")].map(|status| RetrainCase::new(status).unwrap().plan());
    assert_eq!(of_none, of_made);
}

#[test]
#[ignore = "needs a Go program; cargo xtask test builds and runs it"]
fn flux_and_helm_see_what_happens() {
    let program = std::env::var_os("ANNEAL_TEST_KSTATUS").unwrap();
    let all = all();
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for Told { object, .. } in &all {
        writeln!(input, "{object}").unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), all.len());
    for (Told { what, object, kstatus, .. }, said) in all.iter().zip(said.lines()) {
        assert_eq!(said, *kstatus, "{} {what}: {:#}", object["kind"], object["status"]);
    }
}
