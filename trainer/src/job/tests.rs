use super::*;

const JOB: &str = r#"
apiVersion: anneal.dev/v1alpha1
kind: RetrainJob
metadata: {name: car-loan-1, namespace: demo, uid: 8d1c}
spec:
  model: car-loan
  data:
    train: {uri: "file:///data/recent.parquet"}
    validation: {uri: "file:///data/validation.parquet"}
    target: repaid
    task: classification
    exclude: [id, timestamp]
  trainer: {image: anneal/trainer:0.1, resources: {limits: {cpu: "1"}}}
  storage: {persistentVolumeClaim: {claimName: models}}
  output: {uri: "file:///var/lib/anneal/models"}
  baseline: {rollout: car-loan}
  gates: [{ironLaw: {}}]
"#;

#[test]
fn a_manifest_gives_its_defaults_and_uid() {
    let job = Job::parse(JOB, None).unwrap();
    assert_eq!((job.name.as_str(), job.run.as_str()), ("car-loan-1", "8d1c"));
    assert_eq!(job.spec.training.batch_size, 64);
    assert!(!job.asks_for_gpu());
    assert_eq!(Job::parse(JOB, Some("other")).unwrap().run.as_str(), "other");
    assert_eq!(job.naming, Naming::Given);
}

#[test]
fn a_run_that_nobody_named_is_named_by_everything_it_depends_on() {
    let anonymous = JOB.replace(", uid: 8d1c", "");
    let named = |text: &str, data: &str| {
        let mut job = Job::parse(text, None).unwrap();
        assert_eq!(job.naming, Naming::Derived);
        job.name_by_data(data);
        job.run.as_str().to_owned()
    };
    let run = named(&anonymous, "data");
    assert_eq!(run, named(&anonymous, "data"));
    let baseline = format!(
        "{anonymous}status: {{baseline: {{version: {{name: m, version: v20261121.1, digest: \"sha256:00\", uri: \"file:///m\"}}}}}}\n"
    );
    for (what, other) in [
        ("data", named(&anonymous, "other data")),
        ("spec", named(&anonymous.replace("[id, timestamp]", "[id]"), "data")),
        ("baseline", named(&baseline, "data")),
    ] {
        assert_ne!(run, other, "{what}");
    }
    let mut given = Job::parse(JOB, None).unwrap();
    given.name_by_data("data");
    assert_eq!(given.run.as_str(), "8d1c");
}

#[test]
fn gpus_that_cuda_can_use_count_and_others_are_refused_by_name() {
    let job = |limits: &str| Job::parse(&JOB.replace(r#"cpu: "1""#, limits), None);
    for name in
        ["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-7g.80gb"]
    {
        assert!(job(&format!("{name}: 1")).unwrap().asks_for_gpu(), "{name}");
        assert!(!job(&format!("{name}: \"0\"")).unwrap().asks_for_gpu(), "none of {name}");
    }
    for name in
        ["amd.com/gpu", "gpu.intel.com/i915", "aliyun.com/gpu-mem", "google.com/tpu", "habana.ai/gaudi"]
    {
        let message = job(&format!("{name}: 2")).unwrap_err().to_string();
        assert!(message.contains(&format!("`{name}`")), "{message}");
        assert!(!job(&format!("{name}: 0")).unwrap().asks_for_gpu(), "none of {name}");
    }
    assert!(!job("memory: 1Gi, nvidia.com/hostdev: 1").unwrap().asks_for_gpu());
}

#[test]
fn the_resolved_baseline_is_read_from_the_status() {
    let text = format!(
        "{JOB}status: {{phase: Training, baseline: {{version: {{name: m-v20261121.1, version: v20261121.1, digest: \"sha256:00\", uri: \"file:///m\"}}}}}}\n"
    );
    assert!(matches!(Job::parse(&text, None).unwrap().baseline, Some(ResolvedBaseline::Version(_))));
    let text = format!("{JOB}status: {{baseline: {{bootstrap: {{}}}}}}\n");
    assert!(matches!(Job::parse(&text, None).unwrap().baseline, Some(ResolvedBaseline::Bootstrap(_))));
}

#[test]
fn every_mistake_is_named_with_its_path() {
    for (from, to, words) in [
        ("  model:", "  modle: x\n  model:", "spec.modle is unknown, did you mean `model`"),
        (
            "target: repaid",
            "target: repaid\n    minRow: 5",
            "spec.data.minRow is unknown, did you mean `minRows`",
        ),
        ("[{ironLaw: {}}]", "[{ironLow: {}}]", "spec.gates[0].ironLow is unknown, did you mean `ironLaw`"),
        ("kind: RetrainJob", "kind: ModelRollout", "ModelRollout of anneal.dev/v1alpha1"),
        (
            "  trainer:",
            "  training: {dropout: 0.96}\n  trainer:",
            "spec.training.dropout is 0.96: give at most 0.95",
        ),
        ("  trainer:", "  training: {hidden: []}\n  trainer:", "spec.training.hidden has 0 entries"),
        ("[{ironLaw: {}}]", "[{value: {metric: loss, max: 1}}]", "lack ironLaw"),
        ("exclude: [id,", "exclude: [repaid,", "holds the target `repaid`"),
        ("    validation: {uri: \"file:///data/validation.parquet\"}\n", "", "exactly one of validation"),
        (
            "validation: {uri: \"file:///data/validation.parquet\"}",
            "split: {validationFraction: 0.1, key: car}",
            "`car` must be listed",
        ),
        ("uid: 8d1c", "uid: ../x", "names no folder"),
        ("task: classification", "task: ranking", "ranking"),
        ("apiVersion", "\tapiVersion", "not YAML"),
    ] {
        let text = JOB.replacen(from, to, 1);
        assert_ne!(text, JOB, "{from}");
        let message = Job::parse(&text, None).unwrap_err().to_string();
        assert!(message.contains(words), "{message} should contain {words}");
    }
}

#[test]
fn the_cpu_limit_is_read_as_whole_processors() {
    let job = |cpu: &str| Job::parse(&JOB.replace(r#"cpu: "1""#, cpu), None).unwrap().processors();
    assert_eq!(job("cpu: \"1\""), Some(1));
    assert_eq!(job("cpu: 2500m"), Some(3));
    assert_eq!(job("cpu: \"0.5\""), Some(1));
    assert_eq!(job("memory: 1Gi"), None);
    assert_eq!(job("cpu: many"), None);
}
