//! The trainer's binary, as Kubernetes runs it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use anneal_crds::contract::{NOTICE_LIMIT, Notice, RunResult};
use serde_json::{Value, json};

use super::World;

pub const BINARY: &str = env!("CARGO_BIN_EXE_anneal-trainer");

/// Where one trainer finds its job file and leaves its termination message, and what its environment is.
pub struct Desk {
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

impl World {
    /// The world's own folder.
    pub fn desk(&self) -> Desk {
        self.desk_of("", &[])
    }

    /// A folder below it, for a trainer that runs beside others.
    pub fn desk_of(&self, name: &str, environment: &[(String, String)]) -> Desk {
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        Desk { folder, environment: environment.to_vec() }
    }
}

impl Desk {
    fn log(&self) -> PathBuf {
        self.folder.join("termination-log")
    }

    /// A trainer on one thread.
    pub fn command(&self, verb: &str, job: &str) -> Command {
        let file = self.folder.join("job.yaml");
        fs::write(&file, job).unwrap();
        fs::write(self.log(), "").unwrap();
        let mut command = Command::new(BINARY);
        command.arg(verb).arg("-f").arg(file).arg("--termination-log").arg(self.log());
        command.envs(self.environment.iter().cloned());
        if verb == "train" {
            command.args(["--threads", "1"]);
        }
        command
    }

    pub fn output(&self, verb: &str, job: &str) -> (i32, Output) {
        let output = self.command(verb, job).output().unwrap();
        (output.status.code().unwrap(), output)
    }

    /// Runs to the end, which must have this code; gives what was said.
    pub fn ends_with(&self, code: i32, verb: &str, job: &str) -> String {
        let (found, output) = self.output(verb, job);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(found, code, "{said}");
        said
    }

    /// Starts a training and waits until some epochs are done.
    pub fn started(&self, job: &str, epoch: u32) -> Child {
        let mut child = self.command("train", job).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let wanted = format!("epoch {epoch}:");
        lines.find(|line| line.as_ref().unwrap().starts_with(&wanted)).expect("the epoch ends").unwrap();
        // Nobody reads on, so the pipe must stay open without filling up.
        std::thread::spawn(move || lines.for_each(drop));
        child
    }

    pub fn notice(&self) -> Notice {
        let text = fs::read(self.log()).unwrap();
        assert!(text.len() <= NOTICE_LIMIT);
        serde_json::from_slice(&text).unwrap()
    }

    pub fn failure(&self) -> String {
        match self.notice() {
            Notice::Failure(failure) => failure.message,
            Notice::Result(result) => panic!("{result:?}"),
        }
    }

    pub fn result(&self) -> RunResult {
        match self.notice() {
            Notice::Result(result) => *result,
            Notice::Failure(failure) => panic!("{failure:?}"),
        }
    }
}

/// Makes a training take some seconds.
pub fn long(job: &mut Value) {
    job["spec"]["training"]["hidden"] = json!([256, 256, 256]);
    job["spec"]["training"]["epochs"] = 25.into();
}

pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}
