//! promtool, as tests run it on cases of their own. `cargo xtask test` says where it is in `ANNEAL_TEST_PROMTOOL`.

#![allow(dead_code, clippy::unwrap_used, reason = "helpers of tests; every test file uses another part")]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// Runs it in a folder; it must succeed.
pub fn run(args: &[&str], dir: &Path) {
    let program = std::env::var_os("ANNEAL_TEST_PROMTOOL").unwrap();
    let ended = Command::new(program).args(args).current_dir(dir).output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// Whether Prometheus answers the expressions of a rule test as it says.
pub fn test_rules(test: &Value) {
    let dir = tempfile::tempdir().unwrap();
    // JSON is YAML.
    fs::write(dir.path().join("test.yaml"), test.to_string()).unwrap();
    run(&["test", "rules", "test.yaml"], dir.path());
}
