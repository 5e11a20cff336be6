//! A small world for the trainer: a temporary folder with data, jobs and models.
#![allow(dead_code, reason = "every test file uses another part")]

pub mod process;
pub mod server;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anneal_crds::contract::RunResult;
use anneal_trainer::{
    error::Failure,
    job::Job,
    nn::Choice,
    run::{self, Folders, Request},
    train::{Observer, Show, Stop},
};
use arrow::{
    array::{
        ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampSecondArray,
    },
    datatypes::DataType,
};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// libtorch has one generator for a process, so trainings of one test binary take turns.
static TURN: Mutex<()> = Mutex::new(());

pub struct World {
    dir: tempfile::TempDir,
    pub runtime: Runtime,
}

pub type Columns = Vec<(&'static str, ArrayRef)>;

/// Rows whose label follows from the features but for a little noise; different for every `first`.
pub fn rows(first: i64, count: i64) -> Columns {
    let ids = || first..first + count;
    // A hash as a source of numbers between 0 and 1.
    let unit = |id: i64, salt: i64| {
        let z = (id
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(salt.wrapping_mul(1_442_695_040_888_963_407))) as u64;
        let z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let color = |id: i64| ["red", "green", "blue"][(unit(id, 2) * 3.0) as usize];
    let label = |id: i64| {
        let score = unit(id, 1) + if color(id) == "red" { 0.4 } else { 0.0 } + 0.1 * unit(id, 4);
        i64::from(score > 0.65)
    };
    vec![
        ("id", Arc::new(ids().collect::<Int64Array>())),
        ("at", Arc::new(ids().map(|id| Some(1_700_000_000 + id)).collect::<TimestampSecondArray>())),
        ("x", Arc::new(ids().map(|id| Some(unit(id, 1) * 1_000.0)).collect::<Float64Array>())),
        ("noise", Arc::new(ids().map(|id| Some(unit(id, 3) as f32)).collect::<Float32Array>())),
        ("color", Arc::new(ids().map(|id| Some(color(id))).collect::<StringArray>())),
        ("flag", Arc::new(ids().map(|id| Some(unit(id, 5) > 0.5)).collect::<BooleanArray>())),
        ("label", Arc::new(ids().map(label).collect::<Int64Array>())),
    ]
}

/// The same columns with one replaced, or added.
pub fn with(mut columns: Columns, name: &'static str, array: ArrayRef) -> Columns {
    match columns.iter_mut().find(|(other, _)| *other == name) {
        Some(column) => column.1 = array,
        None => columns.push((name, array)),
    }
    columns
}

/// The same columns without one.
pub fn without(mut columns: Columns, name: &str) -> Columns {
    columns.retain(|(other, _)| *other != name);
    columns
}

/// A column of the columns.
pub fn column(columns: &Columns, name: &str) -> ArrayRef {
    columns.iter().find(|(other, _)| *other == name).unwrap().1.clone()
}

/// Wrong labels in a share of the rows.
pub fn flipped(columns: Columns, every: usize) -> Columns {
    let labels = arrow::compute::cast(&column(&columns, "label"), &DataType::Int64).unwrap();
    let labels = labels.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
    let wrong =
        labels.iter().enumerate().map(|(row, label)| if row % every == 0 { 1 - label } else { *label });
    with(columns, "label", Arc::new(wrong.collect::<Int64Array>()))
}

impl World {
    /// A world with `train.parquet` and `validation.parquet`.
    pub fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), runtime: Runtime::new().unwrap() };
        world.write("train.parquet", rows(0, 400));
        world.write("validation.parquet", rows(1_000_000, 150));
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn uri(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    pub fn write(&self, name: &str, columns: Columns) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = fs::File::create(self.path(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    /// A manifest; `change` may change anything.
    pub fn job(&self, uid: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut job = json!({
            "apiVersion": "anneal.dev/v1alpha1",
            "kind": "RetrainJob",
            "metadata": {"name": "job", "namespace": "demo", "uid": uid},
            "spec": {
                "model": "cars",
                "data": {
                    "train": {"uri": self.uri("train.parquet")},
                    "validation": {"uri": self.uri("validation.parquet")},
                    "target": "label",
                    "task": "classification",
                    "exclude": ["id", "at"],
                },
                "training": {
                    "hidden": [24, 24],
                    "dropout": 0.2,
                    "epochs": 6,
                    "batchSize": 32,
                    "optimizer": {"learningRate": 0.01},
                },
                "trainer": {"image": "trainer"},
                "storage": {"persistentVolumeClaim": {"claimName": "models"}},
                "output": {"uri": self.uri("models")},
                "baseline": {"rollout": "cars", "whenMissing": "Bootstrap"},
                "gates": [{"ironLaw": {}}, {"value": {"metric": "accuracy", "min": 0.6}}],
            },
        });
        change(&mut job);
        job.to_string()
    }

    pub fn train(&self, job: &str) -> Result<RunResult, Failure> {
        self.train_until(job, Stop::never())
    }

    pub fn train_until(&self, job: &str, stop: Stop) -> Result<RunResult, Failure> {
        self.train_with(job, None, stop)
    }

    /// Trains with a folder for checkpoints, below the world's.
    pub fn train_with(&self, job: &str, checkpoints: Option<&str>, stop: Stop) -> Result<RunResult, Failure> {
        let job = Job::parse(job, None)?;
        let checkpoints = checkpoints.map(|name| self.uri(name));
        let folders = Folders::open(self.runtime.handle(), &job, None, checkpoints.as_deref())?;
        let request = Request { job, folders, device: Choice::Auto, threads: 1 };
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        run::run(self.runtime.handle(), &request, &Observer::new(Show::Nothing)?, &stop)
    }

    /// A file of a result's artifact.
    pub fn artifact_file(&self, result: &RunResult, name: &str) -> Vec<u8> {
        fs::read(Path::new(result.artifact.uri.strip_prefix("file://").unwrap()).join(name)).unwrap()
    }

    pub fn weights(&self, result: &RunResult) -> Vec<u8> {
        self.artifact_file(result, "model.safetensors")
    }

    /// All files below a folder, relative to it, sorted.
    pub fn files(&self, folder: &str) -> Vec<String> {
        fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, found);
                } else {
                    found.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path(folder), &self.path(folder), &mut found);
        found.sort();
        found
    }
}

/// Makes a run's version the baseline of a job.
pub fn against(result: &RunResult) -> impl FnOnce(&mut Value) + use<> {
    let baseline = json!({"version": {
        "name": "cars-v1",
        "version": result.version,
        "digest": result.artifact.digest,
        "uri": result.artifact.uri,
    }});
    move |job| job["status"] = json!({"baseline": baseline})
}
