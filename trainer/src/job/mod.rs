//! The job file: a RetrainJob manifest, as the operator mounts it or as a user writes it on a laptop.
//!
//! Parsed once at the start; nothing later looks at the file. A [`Job`] has no unknown key and obeys every rule that
//! the API server would have checked and that the trainer relies on.

mod gpu;
mod rules;
mod strict;

use anneal_crds::retrain_job::{ResolvedBaseline, RetrainJobSpec};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Why a job file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The file cannot be read.
    #[error("cannot read the job file {path} ({source}): give the path of a RetrainJob manifest with -f")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("the job file is not YAML ({0}): correct it there")]
    Yaml(Box<serde_saphyr::Error>),
    /// The file is another kind of object.
    #[error("the job file is a {found}: a RetrainJob of anneal.dev/v1alpha1 is needed")]
    OtherKind {
        /// apiVersion and kind.
        found: String,
    },
    /// A key that nothing reads.
    #[error("{path} is unknown{hint}: remove or correct it")]
    UnknownKey {
        /// Path of the key.
        path: String,
        /// The nearest known name, in words.
        hint: String,
    },
    /// A value of the wrong shape.
    #[error("the job file does not have the shape of a RetrainJob ({0}): correct it there")]
    Shape(#[source] serde_json::Error),
    /// A value outside its range.
    #[error("{path} {problem}")]
    Value {
        /// Path of the value.
        path: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// A run to be done.
#[derive(Clone, Debug)]
pub struct Job {
    /// Name of the RetrainJob.
    pub name: String,
    /// Names the run's folder.
    pub run: RunUid,
    /// Where that name comes from.
    pub naming: Naming,
    /// What to do.
    pub spec: RetrainJobSpec,
    /// What the candidate is compared with, if it was resolved.
    pub baseline: Option<ResolvedBaseline>,
}

/// Where a run's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Whoever started the run gave it.
    Given,
    /// It follows from what the run depends on, and is whole after [`Job::name_by_data`].
    Derived,
}

/// Name of a run's folder: letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunUid(String);

impl RunUid {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn new(text: &str) -> Result<Self, JobError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > 128 || text.starts_with('.') || !text.chars().all(allowed) {
            let problem = format!("`{text}` names no folder: use letters, digits, - and _");
            return Err(JobError::Value { path: "the run's uid".into(), problem });
        }
        Ok(Self(text.to_owned()))
    }

    /// A name that is another one as soon as the run would do something else.
    fn derived(spec: &RetrainJobSpec, baseline: Option<&ResolvedBaseline>, data: &str) -> Self {
        let text = serde_json::json!([spec, baseline, data]).to_string();
        let digest = format!("{:x}", Sha256::digest(text));
        Self(format!("local-{}", &digest[..16]))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    metadata: Metadata,
    spec: RetrainJobSpec,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: Option<String>,
}

/// Only what the trainer reads; the operator owns the rest.
#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    baseline: Option<ResolvedBaseline>,
}

impl Job {
    /// Reads a job file; `uid` stands before the manifest's own.
    ///
    /// # Errors
    /// When the file is missing or is no valid RetrainJob.
    pub fn read(path: &str, uid: Option<&str>) -> Result<Self, JobError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| JobError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, uid)
    }

    /// Parses a manifest; without `uid` or `metadata.uid`, the run's name follows from spec and baseline, and has to be
    /// made whole with the data.
    ///
    /// # Errors
    /// When it is no valid RetrainJob.
    pub fn parse(text: &str, uid: Option<&str>) -> Result<Self, JobError> {
        let value: Value = serde_saphyr::from_str(text).map_err(|error| JobError::Yaml(Box::new(error)))?;
        let word = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("nothing").to_owned();
        if (word("apiVersion").as_str(), word("kind").as_str()) != ("anneal.dev/v1alpha1", "RetrainJob") {
            return Err(JobError::OtherKind { found: format!("{} of {}", word("kind"), word("apiVersion")) });
        }
        strict::check(&value)?;
        let manifest: Manifest = serde_json::from_value(value).map_err(JobError::Shape)?;
        rules::check(&manifest.spec)?;
        let baseline = manifest.status.and_then(|status| status.baseline);
        let (run, naming) = match uid.map(str::to_owned).or(manifest.metadata.uid) {
            Some(uid) => (RunUid::new(&uid)?, Naming::Given),
            None => (RunUid::derived(&manifest.spec, baseline.as_ref(), ""), Naming::Derived),
        };
        Ok(Self { name: manifest.metadata.name, run, naming, spec: manifest.spec, baseline })
    }

    /// Makes a derived name whole with a fingerprint of the data: the same file with new rows is another run, whose
    /// result nobody has yet. A given name stays.
    pub fn name_by_data(&mut self, fingerprint: &str) {
        match self.naming {
            Naming::Given => {}
            Naming::Derived => self.run = RunUid::derived(&self.spec, self.baseline.as_ref(), fingerprint),
        }
    }

    /// Processors that the job's CPU limit allows, rounded up; none without a limit.
    ///
    /// Known from the job, the number of threads does not depend on the node, and threads that the limit would only make
    /// wait for each other are never started.
    pub fn processors(&self) -> Option<u32> {
        let limit = self.spec.trainer.resources.limits.as_ref()?.get("cpu")?.0.as_str();
        let processors = match limit.strip_suffix('m') {
            Some(thousandths) => thousandths.parse::<f64>().ok()? / 1_000.0,
            None => limit.parse().ok()?,
        };
        Some(processors.ceil().clamp(1.0, 1024.0) as u32)
    }

    /// Whether the trainer's resources ask for a GPU that CUDA can use, or for a part of one.
    pub fn asks_for_gpu(&self) -> bool {
        gpu::asked_for(&self.spec.trainer).any(|(_, vendor)| vendor == gpu::Vendor::Cuda)
    }
}

#[cfg(test)]
mod tests;
