//! `cargo xtask demo`: the main job from end to end, on a cluster of its own or on one that exists.
//!
//! Called by people and by `cargo xtask test`. It builds what is missing; the run itself is the crate `anneal-demo`.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anneal_cluster::{Cluster, images};
use anyhow::{Context as _, Result, ensure};

use crate::{
    Context,
    cargo::Cargo,
    data,
    image::{self, Which},
    interrupt,
};

/// How to run the demo.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Leave the cluster up, and print how to use it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Use the cluster of this kubeconfig context instead of a throwaway one; it needs Envoy Gateway or another mirroring
    /// Gateway API implementation, Prometheus as monitoring/prometheus:9090, and the images of --operator-image and
    /// --trainer-image. Refused where Anneal or the demo's namespaces are already, unless an earlier demo made them
    #[arg(long, requires = "operator_image", requires = "trainer_image")]
    pub(crate) context: Option<String>,
    /// With --context: the operator's image, as the cluster can pull it
    #[arg(long, requires = "context")]
    pub(crate) operator_image: Option<String>,
    /// With --context: the trainer's image, as the cluster can pull it
    #[arg(long, requires = "context")]
    pub(crate) trainer_image: Option<String>,
    /// With --context: the GatewayClass of the demo's gateway
    #[arg(long, requires = "context", default_value = anneal_cluster::GATEWAY_CLASS)]
    pub(crate) gateway_class: String,
    /// Name of the throwaway cluster
    #[arg(long, default_value = anneal_cluster::DEFAULT_NAME)]
    pub(crate) name: String,
    /// Kill the operator pod at these moments, such as `rollout:Shadow:0,car-loan-recent:Training`
    #[arg(long, value_delimiter = ',')]
    pub(crate) kill_operator_at: Vec<String>,
    /// The caller has more to do with the throwaway cluster, and takes it down.
    #[arg(skip)]
    lent: bool,
}

impl Options {
    /// On a throwaway cluster that stays up afterwards, unless an interrupt comes.
    pub(crate) fn throwaway(name: &str, kills: &[&str]) -> Self {
        Self {
            keep: false,
            lent: true,
            context: None,
            operator_image: None,
            trainer_image: None,
            gateway_class: anneal_cluster::GATEWAY_CLASS.to_owned(),
            name: name.to_owned(),
            kill_operator_at: kills.iter().map(|kill| (*kill).to_owned()).collect(),
        }
    }
}

/// Runs it; the JSON line goes to stdout.
pub(crate) fn run(context: &Context, options: &Options) -> Result<()> {
    let data = data::prepare(context)?;
    let mut demo = prepare(context)?;
    demo.arg("--repository").arg(context.checkout.root()).arg("--data").arg(&data);
    demo.arg("--gateway-class").arg(&options.gateway_class);
    if !options.kill_operator_at.is_empty() {
        demo.arg("--kill-operator-at").arg(options.kill_operator_at.join(","));
    }
    match (&options.context, &options.operator_image, &options.trainer_image) {
        (Some(name), Some(operator), Some(trainer)) => {
            demo.args(["--context", name, "--operator-image", operator, "--trainer-image", trainer]);
            demo.args(["--copy-image", "docker.io/library/busybox:1.37"]);
            finish(demo)
        }
        _ => on_own_cluster(context, options, demo),
    }
}

fn on_own_cluster(context: &Context, options: &Options, mut demo: Command) -> Result<()> {
    let archives = [image::build(context, Which::Operator)?, image::build(context, Which::Trainer)?];
    interrupt::on_interrupt(&options.name, options.keep)?;
    let cluster = Cluster::up(&options.name, &context.cache, &context.progress)?;
    let result = (|| {
        let step = context.progress.step("Load the images");
        for archive in archives {
            cluster.load_image(&archive)?;
        }
        step.done();
        // The pods that share the volume run as a user that this machine does not know.
        std::fs::set_permissions(cluster.data(), Permissions::from_mode(0o777))
            .context("the cluster's data folder cannot be opened for its pods; run as root")?;
        let bin = |program: &str| cluster.program(program);
        demo.arg("--kubectl").arg(bin("kubectl")).arg("--helm").arg(bin("helm"));
        demo.arg("--kubeconfig").arg(cluster.kubeconfig());
        demo.arg("--own-cluster").arg("--host-path").arg(cluster.data());
        demo.args(["--operator-image", &Which::Operator.name(), "--trainer-image", &Which::Trainer.name()]);
        demo.args(["--copy-image", images::BUSYBOX]);
        finish(demo)
    })();
    if options.keep || options.lent {
        context.progress.say(&Cluster::status(&options.name)?.to_string());
        context.progress.say("  kubectl get rtj,mro,mv -n anneal-demo");
        context.progress.say(&format!("  cargo xtask cluster down --name {}", options.name));
        return result;
    }
    both(context, result, Cluster::down(&options.name, &context.progress))
}

/// The demo's own error comes first: one of taking down is only told beside it.
fn both(context: &Context, demo: Result<()>, down: Result<()>) -> Result<()> {
    if let (Err(_), Err(error)) = (&demo, &down) {
        context.progress.say(&format!("the cluster could not be taken down: {error:#}"));
    }
    demo.and(down)
}

/// The program, built.
fn prepare(context: &Context) -> Result<Command> {
    let step = context.progress.step("Build the demo");
    let cargo = Cargo::prepare(context)?;
    cargo
        .command(&["build", "--locked", "--package", "anneal-demo"])
        .run(&context.cache.log("demo-build"))?;
    step.done();
    let program: PathBuf = cargo.target().join("debug/anneal-demo");
    Ok(Command::new(program))
}

fn finish(mut demo: Command) -> Result<()> {
    // When this program is killed, nobody else would end the demo.
    demo.arg("--end-with-parent").stdin(Stdio::null());
    let status = interrupt::wait(demo)?;
    ensure!(status.success(), "the demo did not go as promised; its last lines say what was different");
    Ok(())
}
