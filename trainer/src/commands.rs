//! The commands: from arguments to the library and back to an exit code.

use std::{
    io::{Write, stdout},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anneal_crds::contract::{ExitCode, RunResult, Task};
use anneal_trainer::{
    artifact::Model,
    data::{self, Selection},
    error::Failure,
    evaluate, host,
    job::{Job, Naming},
    nn::{Compute, set_threads},
    notice,
    run::{self, Folders, Request},
    schema::TargetKind,
    serve,
    storage::Location,
    train::{self, Observer, Show, Stop},
};
use tokio::runtime::Handle;

use crate::cli::{EvaluateArgs, RunArgs, ServeArgs, TrainArgs};

/// `train`.
pub fn train(runtime: &Handle, args: &TrainArgs) -> Result<ExitCode, Failure> {
    let (job, folders) = open(runtime, &args.run)?;
    let observer = Observer::new(Show::Progress)?;
    if let Some(address) = args.listen {
        train::listen(runtime, address, observer.registry())?;
    }
    let stop = Stop::on_signal(runtime)?;
    let allowed = host::processors();
    let threads =
        args.threads.unwrap_or_else(|| job.processors().map_or(allowed, |limit| limit.min(allowed)));
    observer.say(&format!(
        "run {} of model {}, attempt {}, {threads} threads",
        job.run.as_str(),
        job.spec.model,
        args.run.attempt
    ));
    let request = Request { job, folders, device: args.device, threads };
    let result = run::run(runtime, &request, &observer, &stop)?;
    for outcome in &result.gates {
        observer.say(&format!("gate {}: {:?}, {}", outcome.gate, outcome.verdict, outcome.message));
    }
    match &result.version {
        Some(version) => observer.say(&format!("version {version}, artifact {}", result.artifact.digest)),
        None => observer.say("no version: a required gate did not pass, and production is unchanged"),
    }
    report_result(&result, &args.run)
}

/// `report`.
pub fn report(runtime: &Handle, args: &RunArgs) -> Result<ExitCode, Failure> {
    let (_, folders) = open(runtime, args)?;
    let result = folders.result()?.ok_or_else(|| Failure::NoResult { uri: folders.result.uri() })?;
    report_result(&result, args)
}

fn open(runtime: &Handle, args: &RunArgs) -> Result<(Job, Folders), Failure> {
    let mut job = Job::read(&args.file, args.run_uid.as_deref())?;
    if job.naming == Naming::Derived {
        job.name_by_data(&data::fingerprint(runtime, &job.spec.data)?);
    }
    let folders = Folders::open(runtime, &job, args.output_uri.as_deref(), args.checkpoint_uri.as_deref())?;
    Ok((job, folders))
}

fn report_result(result: &RunResult, args: &RunArgs) -> Result<ExitCode, Failure> {
    notice::write(&args.termination_log, &notice::of_result(result)?)?;
    Ok(run::exit_code(result))
}

/// `evaluate`.
pub fn evaluate(runtime: &Handle, args: &EvaluateArgs) -> Result<ExitCode, Failure> {
    set_threads(host::processors());
    let folder = Location::open(runtime, &args.artifact)?;
    let model = Model::load(&folder, args.digest.as_deref(), Compute::CPU)?;
    if model.schema.target.name != args.target {
        let (target, own) = (&args.target, &model.schema.target.name);
        return Err(Failure::Usage(format!(
            "the artifact predicts `{own}` and not `{target}`: give --target {own}"
        )));
    }
    let (features, booleans) = (model.schema.columns(), model.schema.booleans());
    let (task, target_kind) = match &model.schema.target.kind {
        TargetKind::Classes { classes } => (Task::Classification, text_classes(classes)),
        TargetKind::Number { .. } => (Task::Regression, Some(data::ColumnKind::Number)),
    };
    let (features, beside) = (data::Features::Only(&features), data::Beside::default());
    let selection =
        Selection { target: &args.target, task, target_kind, beside: &beside, features, booleans: &booleans };
    let rows = data::read(runtime, &args.data, selection)?;
    let evaluation = evaluate::evaluate(&model, &rows)?;
    let text = serde_json::to_string_pretty(&evaluation)
        .map_err(|source| Failure::Encoding { what: "the metrics", source })?;
    writeln!(stdout(), "{text}")
        .map_err(|source| Failure::System { action: "write to standard output".to_owned(), source })?;
    Ok(ExitCode::Done)
}

/// Classes that are texts, if one of them is no whole number; else they may have been either.
fn text_classes(classes: &[String]) -> Option<data::ColumnKind> {
    let is_whole = |class: &String| class.parse::<i64>().is_ok_and(|number| number.to_string() == *class);
    (!classes.iter().all(is_whole)).then_some(data::ColumnKind::Category)
}

/// `serve`.
pub fn serve(runtime: &Handle, args: ServeArgs) -> Result<ExitCode, Failure> {
    let options = serve::Options {
        artifact: args.artifact,
        digest: args.digest,
        model: args.model,
        version: args.model_version,
        listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, args.port)),
        shadow: args.shadow_port.map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        compare: args.compare_with.map(|with| serve::CompareOptions {
            with,
            rate: args.compare_rate,
            tolerance: args.compare_tolerance,
            label_delay: Duration::from_millis(u64::try_from(args.label_delay.as_millis()).unwrap_or(0)),
        }),
        drain: Duration::from_millis(u64::try_from(args.drain.as_millis()).unwrap_or(0)),
        fault: args.fault,
    };
    serve::serve(runtime, options)?;
    Ok(ExitCode::Done)
}
