//! `ripstop lab exec` and `logs`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use ripstop_lab::api::Api;
use ripstop_lab::enter::{exec_in_container, exec_on_node, exec_outside, way_in};
use ripstop_lab::target::{Target, place, pod};

use super::{Name, block_on};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: Name,
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// The pod's first one if absent.
    #[arg(long, short)]
    container: Option<String>,
    /// On a machine that is not of the cluster, beside the nodes' underlay.
    #[arg(long, conflicts_with_all = ["target", "container"])]
    outside: bool,
    /// POD, deploy/NAME, sts/NAME, ..., or node/NAME
    #[arg(required_unless_present = "outside")]
    target: Option<String>,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Args {
    pub(super) fn name(&self) -> &str {
        &self.name.name
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    name: Name,
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// The pod's first one if absent.
    #[arg(long, short)]
    container: Option<String>,
    /// Go on with what it writes from now.
    #[arg(long, short)]
    follow: bool,
    /// Of its previous run.
    #[arg(long, short)]
    previous: bool,
    /// Only so many lines from the end.
    #[arg(long)]
    tail: Option<u64>,
    /// POD, deploy/NAME, sts/NAME, ..., or node/NAME for its agent
    target: String,
}

impl LogsArgs {
    pub(super) fn name(&self) -> &str {
        &self.name.name
    }
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("entering a pod's namespaces needs root; run it with sudo, or use kubectl exec");
    }
    let paths = args.name.running()?;
    let Some(target) = &args.target else {
        return Ok(exec_outside(&paths, &args.command)?);
    };
    let target = Target::parse(target)?;
    if let Target::Node(node) = &target {
        return Ok(exec_on_node(&paths, node, &args.command)?);
    }
    // The runtime, and with it every thread but this one, ends before the
    // namespaces are entered.
    let place = block_on(async {
        let api = Api::connect(&paths.kubeconfig()).await?;
        let pod = pod(&api, &args.namespace, &target).await?;
        Ok(place(&pod, args.container.as_deref())?)
    })?;
    Ok(exec_in_container(way_in(&paths, &place)?, args.command))
}

pub(super) fn logs(args: &LogsArgs) -> Result<ExitCode> {
    let paths = args.name.running()?;
    let target = Target::parse(&args.target)?;
    if let Target::Node(node) = &target {
        let path = paths.agent_log(node);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("no log of node {node:?} at {}", path.display()))?;
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    block_on(async {
        let api = Api::connect(&paths.kubeconfig()).await?;
        let pod = pod(&api, &args.namespace, &target).await?;
        let place = place(&pod, args.container.as_deref())?;
        let mut path = format!(
            "/api/v1/namespaces/{}/pods/{}/log?container={}&follow={}&previous={}",
            args.namespace, place.pod, place.container, args.follow, args.previous
        );
        if let Some(lines) = args.tail {
            path.push_str(&format!("&tailLines={lines}"));
        }
        let mut body = api.stream(&path).await?;
        let mut out = std::io::stdout().lock();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                out.write_all(data)?;
                out.flush()?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
